//! The record of what one life of a client knew at its end, for the next life in another process: docs/formats/resume.md.
//!
//! ```text
//!   0  magic "SFKNOWN\0"     12  major, minor (u16, little endian)     16  length of the body (u64)     24  crc32c of the body
//!  32  the body: postcard of [`Record`]
//! ```
//! It lies in a memory of its own that the daemon's holder keeps. It is of one moment, so it is good for one life: whoever takes
//! it makes it void first. Prevents: the next life goes on with it, does something, and dies; the one after that goes on from the
//! same moment, and names to the coordinator what was closed since.
//!
//! What is no record, damaged, or of another major version is not taken: the next life is a new incarnation then.

use std::os::fd::OwnedFd;

use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::client::data::KnownFiles;
use crate::core::client::{Known, Ledger};

const MAGIC: [u8; 8] = *b"SFKNOWN\0";
/// Versions of the body. postcard knows no optional fields: whatever changes in the body or below it raises the major one.
///
/// - 1.0: the first.
const MAJOR: u16 = 1;
const MINOR: u16 = 0;

const HEAD: usize = 32;
/// More is not read: a million locks, at 60 bytes each, are below.
pub(super) const LONGEST: u64 = 256 << 20;

/// What is known.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// Of the client.
    pub(super) client: Known,
    /// Of what programs have open.
    pub(super) files: KnownFiles,
}

/// Why it is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum RecordError {
    /// It was taken before, or is something else.
    #[error("there is none")]
    None,
    /// Of a later version of this program, or an earlier one.
    #[error("it is of version {0}.{1}, and this program knows {MAJOR}")]
    Version(u16, u16),
    /// Its length, its checksum or its contents do not fit.
    #[error("it is damaged")]
    Damaged,
    /// Its memory.
    #[error("its memory cannot be used: {0}")]
    System(#[from] Errno),
}

impl Record {
    fn to_bytes(&self) -> Result<Vec<u8>, RecordError> {
        let body = postcard::to_stdvec(self).map_err(|_| RecordError::Damaged)?;
        let mut bytes = Vec::with_capacity(HEAD + body.len());
        bytes.extend(MAGIC);
        bytes.extend([0; 4]);
        bytes.extend(MAJOR.to_le_bytes());
        bytes.extend(MINOR.to_le_bytes());
        bytes.extend((body.len() as u64).to_le_bytes());
        bytes.extend(crc32c::crc32c(&body).to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        Ok(bytes)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Record, RecordError> {
        let (head, body) = bytes.split_at_checked(HEAD).ok_or(RecordError::None)?;
        let number = |at: usize, len: usize| head[at..at + len].iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
        if head[..8] != MAGIC {
            return Err(RecordError::None);
        }
        let (major, minor) = (number(12, 2) as u16, number(14, 2) as u16);
        if major != MAJOR {
            return Err(RecordError::Version(major, minor));
        }
        if number(16, 8) != body.len() as u64 || number(24, 4) != u64::from(crc32c::crc32c(body)) {
            return Err(RecordError::Damaged);
        }
        postcard::from_bytes(body).map_err(|_| RecordError::Damaged)
    }

    /// The same as a ledger: from which another process goes on if the one that takes this is killed.
    pub(super) fn ledger(&self) -> Ledger {
        let Record { client, files } = self;
        let mut ledger = Ledger::of_known(client, (files.first, files.next));
        ledger.over = files.open.iter().any(|file| file.poisoned || file.lost);
        ledger
    }

    /// Writes it into a memory of its own.
    pub(super) fn write(&self) -> Result<OwnedFd, RecordError> {
        let memory = rustix::fs::memfd_create("shorefast-known", MemfdFlags::CLOEXEC)?;
        write_all(&memory, &self.to_bytes()?, 0)?;
        Ok(memory)
    }

    /// Takes it: nobody else finds it there any more.
    pub(super) fn take(memory: &OwnedFd) -> Result<Record, RecordError> {
        let len = rustix::fs::fstat(memory)?.st_size.cast_unsigned();
        if len > LONGEST {
            return Err(RecordError::Damaged);
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| RecordError::Damaged)?];
        read_exact(memory, &mut bytes)?;
        let record = Record::from_bytes(&bytes)?;
        write_all(memory, &[0; HEAD], 0)?;
        Ok(record)
    }
}

pub(super) fn write_all(memory: &OwnedFd, mut bytes: &[u8], mut at: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let n = rustix::io::retry_on_intr(|| rustix::io::pwrite(memory, bytes, at))?;
        if n == 0 {
            return Err(Errno::NOSPC);
        }
        bytes = &bytes[n..];
        at += n as u64;
    }
    Ok(())
}

pub(super) fn read_exact(memory: &OwnedFd, mut into: &mut [u8]) -> Result<(), RecordError> {
    let mut at = 0;
    while !into.is_empty() {
        let n = rustix::io::retry_on_intr(|| rustix::io::pread(memory, &mut *into, at))?;
        if n == 0 {
            return Err(RecordError::Damaged);
        }
        into = &mut into[n..];
        at += n as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use block::shared::{Epoch, FenceGen, Incarnation, NodeId};

    use super::*;
    use crate::client::data::KnownFile;
    use crate::core::client::KnownOpen;
    use crate::proto::{ByteRange, LockMode, LockSpace, OwnLock, PlacedLock};
    use crate::types::*;
    use crate::volume::keep::Left;

    fn record() -> Record {
        let (ino, handle) = (InodeNo(7), HandleId(3 << 32));
        let lock = OwnLock { owner: 99, handle, pid: 12, range: ByteRange::ALL, mode: LockMode::Write };
        Record {
            client: Known {
                client: ClientId { node: NodeId::new(2).expect("a node"), incarnation: Incarnation(3) },
                fence_gen: FenceGen(1),
                epoch: Epoch(5),
                bind: Bind(9),
                ordinary: vec![4, 0, 1],
                returns: vec![2],
                opens: vec![KnownOpen { handle, ino, flags: 2 }],
                locks: vec![PlacedLock { ino, space: LockSpace::Record, lock }],
                waiter: 6,
                forced: false,
                waiting: 1,
            },
            files: KnownFiles {
                first: handle.0,
                next: handle.0 + 1,
                open: vec![KnownFile { handle, ino, flags: 2, poisoned: false, lost: true }],
            },
        }
    }

    #[test]
    fn what_a_life_knew_is_taken_once() {
        let memory = record().write().expect("writes");
        assert_eq!(Record::take(&memory), Ok(record()));
        assert_eq!(Record::take(&memory), Err(RecordError::None));
    }

    #[test]
    fn what_is_damaged_or_of_another_version_is_not_taken() {
        let bytes = record().to_bytes().expect("bytes");
        for len in 0..bytes.len() {
            assert!(Record::from_bytes(&bytes[..len]).is_err(), "cut to {len}");
        }
        for at in [0, 13, 20, 25, 40] {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(Record::from_bytes(&bad).is_err(), "byte {at}");
        }
        let mut later = bytes.clone();
        later[12] = 2;
        assert_eq!(Record::from_bytes(&later), Err(RecordError::Version(2, 0)));
    }

    /// A record that was left behind by a life long over says nothing of the present one.
    #[test]
    fn a_record_counts_for_the_life_that_it_is_of() {
        let (record, left) = (record(), Left::InOrder(Box::new(record())));
        let other = ClientId { incarnation: Incarnation(4), ..record.client.client };
        assert!(left.counts_for(record.client.client) && !left.counts_for(other));
    }

    /// Another daemon, of another version perhaps, reads them.
    #[test]
    fn bytes_of_the_record_are_what_they_were() {
        let bytes = record().to_bytes().expect("bytes");
        let shown: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(shown, FROZEN);
    }

    const FROZEN: &str = "53464b4e4f574e000000000001000000400000000000000048c0491600000000\
        020301050903040001010201808080803007020107006380808080300c008080808080808080800101060001\
        8080808030818080803001808080803007040001";
}
