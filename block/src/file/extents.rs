//! Where a file's data lie: SEEK_DATA and SEEK_HOLE, in turn, on one of the device's own threads, because the file
//! system may have to read its metadata for it. What of a hole is preallocated counts as a hole: it reads as zeroes, and
//! the kernel does not tell the two apart.
//!
//! The calls move the description's file position, which nothing here uses.

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::raw::RawFile;
use crate::device::Op;
use crate::error::IoError;
use crate::provisioning::{Extent, push};
use crate::units::{ByteLen, ByteOffset};

/// The extents of a range of the file, at most `most` of them.
pub(super) fn look(file: &RawFile, at: ByteOffset, len: ByteLen, most: usize) -> Result<Vec<Extent>, IoError> {
    let end = at.0.saturating_add(len.0);
    let mut found = Vec::new();
    let mut from = at.0;
    while from < end && found.len() <= most {
        let (hole, to) = match run_at(file, from) {
            Ok(run) => run,
            // A file system, or a kind of file, without holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::SPIPE) => (false, end),
            Err(errno) => return Err(IoError::from_os(errno.raw_os_error(), Op::Read, at, len)),
        };
        let to = to.clamp(from + 1, end);
        push(&mut found, Extent { len: ByteLen(to - from), hole, zero: hole });
        from = to;
    }
    found.truncate(most.max(1));
    Ok(found)
}

/// What lies at `from`, and where it ends.
fn run_at(file: &RawFile, from: u64) -> Result<(bool, u64), Errno> {
    match seek(file, SeekFrom::Data(from)) {
        Ok(data) if data > from => Ok((true, data)),
        Ok(_) => Ok((false, seek(file, SeekFrom::Hole(from))?)),
        // No data from here to the end.
        Err(Errno::NXIO) => Ok((true, u64::MAX)),
        Err(errno) => Err(errno),
    }
}
