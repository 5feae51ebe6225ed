//! A file, or a block device of the kernel, as a [`BlockDevice`].
//!
//! Opened with O_DIRECT where the file system has it. Requests go into the io_uring of the worker
//! that submits them; other threads hand them to a worker. Without O_DIRECT, or without io_uring,
//! a few threads do pread and pwrite instead, and the log says so.
//!
//! A flush is fdatasync, FUA is a write with RWF_DSYNC, a discard punches a hole, write-zeroes zeroes
//! the range or writes zeroes. The size is the one at opening, until somebody has it looked at again
//! ([`Rescan`]).
//!
//! Refused: files whose direct I/O needs blocks above 4096 bytes; anything that is neither a regular
//! file nor a block device.

mod extents;
mod open;
pub(crate) mod pool;
pub(crate) mod raw;
pub(crate) mod transfer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

pub use open::{Direct, OpenError, OpenOptions};
use pool::Pool;
use raw::RawFile;
use transfer::{Step, Transfer, Verdict};

use crate::device::{BlockDevice, Geometry, Io, Op};
use crate::error::{IoError, IoErrorKind};
use crate::provisioning::{ExtentsDone, Provisioning, Rescan};
use crate::units::{ByteLen, ByteOffset};
use crate::worker::{self, Handle, Refused};

/// Threads of the pread/pwrite fallback: enough to keep a disk busy, few enough to cost nothing.
const FALLBACK_THREADS: usize = 4;

/// A file as a block device.
pub struct FileDevice {
    path: PathBuf,
    file: Arc<RawFile>,
    /// As at opening.
    geometry: Geometry,
    /// Its length now.
    len: AtomicU64,
    direct: bool,
    workers: Handle,
    /// Started when first needed.
    fallback: OnceLock<Pool>,
}

impl FileDevice {
    /// Opens `path`. `workers` serve the requests of threads that are no workers.
    pub fn open(path: impl AsRef<Path>, options: OpenOptions, workers: Handle) -> Result<FileDevice, OpenError> {
        let path = path.as_ref();
        let opened = open::open(path, options)?;
        let device = FileDevice {
            path: path.to_path_buf(),
            file: RawFile::new(opened.fd, opened.geometry.logical_block.bytes()),
            geometry: opened.geometry,
            len: AtomicU64::new(opened.geometry.len.0),
            direct: opened.direct,
            workers,
            fallback: OnceLock::new(),
        };
        if let Some(why) = device.why_threads() {
            tracing::info!("{}: {why}; {FALLBACK_THREADS} threads do its I/O", path.display());
        }
        Ok(device)
    }

    /// Why threads do its I/O; `None` where io_uring does.
    pub fn why_threads(&self) -> Option<String> {
        match self.workers.why_no_rings() {
            _ if !self.direct => Some("it has no direct I/O".to_owned()),
            Some(why) => Some(format!("io_uring is refused ({why})")),
            None => None,
        }
    }

    /// True if requests bypass the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// The open file description under this device.
    pub(crate) fn raw(&self) -> &Arc<RawFile> {
        &self.file
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn pool(&self) -> &Pool {
        self.fallback.get_or_init(|| Pool::new("block-io", FALLBACK_THREADS))
    }

    fn run_on_thread(&self, transfer: Transfer) {
        self.pool().run(move || run_to_end(transfer));
    }

    fn shape(&self) -> Geometry {
        Geometry { len: ByteLen(self.len.load(Ordering::Relaxed)), ..self.geometry }
    }
}

/// Drives one transfer with blocking system calls.
fn run_to_end(mut transfer: Transfer) {
    let result = loop {
        let result = one_call(&mut transfer);
        match transfer.on_result(result) {
            Verdict::Again => {}
            Verdict::End(result) => break result,
        }
    };
    transfer.finish(result);
}

fn one_call(transfer: &mut Transfer) -> Result<u32, i32> {
    use rustix::io::{ReadWriteFlags, pread, pwrite, pwritev2};
    // The count keeps the file alive; a clone of it lets the step borrow the transfer.
    let file = transfer.shared_file();
    let moved = match transfer.step() {
        Step::Read { at, buf } => pread(&*file, buf, at),
        Step::Write { at, buf, fua: false } => pwrite(&*file, buf, at),
        Step::Write { at, buf, fua: true } => {
            pwritev2(&*file, &[std::io::IoSlice::new(buf)], at, ReadWriteFlags::DSYNC)
        }
        Step::SyncData => rustix::fs::fdatasync(&*file).map(|()| 0),
        Step::Fallocate { mode, at, len } => rustix::fs::fallocate(&*file, mode, at, len).map(|()| 0),
    };
    // A call moves at most MAX_TRANSFER bytes.
    moved.map(|n| n as u32).map_err(rustix::io::Errno::raw_os_error)
}

impl BlockDevice for FileDevice {
    fn geometry(&self) -> Geometry {
        Geometry { discard: self.geometry.discard && !self.file.refuses_discard(), ..self.shape() }
    }

    fn submit(&self, io: Io) {
        if let Err(error) = self.shape().check(&io) {
            return io.complete(Err(error));
        }
        if io.len.0 == 0 && io.op != Op::Flush {
            return io.complete(Ok(()));
        }
        if io.op == Op::Discard && self.file.refuses_discard() {
            let error = IoError::new(IoErrorKind::NotSupported, io.op, io.at, io.len);
            return io.complete(Err(error));
        }
        let transfer = Transfer::new(&self.file, io);
        if !self.direct {
            return self.run_on_thread(transfer);
        }
        match worker::submit_here(transfer) {
            Ok(()) => {}
            Err(Refused::Closing(transfer)) => transfer.fail(IoErrorKind::ShuttingDown),
            Err(Refused::Alone(transfer)) => run_to_end(transfer),
            Err(Refused::NoRing(transfer)) if worker::current().is_some() || !self.workers.has_rings() => {
                self.run_on_thread(transfer);
            }
            Err(Refused::NoRing(transfer)) => {
                if let Err(transfer) = self.workers.hand_over(transfer) {
                    transfer.fail(IoErrorKind::ShuttingDown);
                }
            }
        }
    }

    fn describe(&self) -> String {
        let how = if self.direct { "direct" } else { "buffered" };
        format!("file {} ({}, {how})", self.path.display(), self.shape().len)
    }
}

impl Provisioning for FileDevice {
    /// A punched hole reads as zeroes; kernel block devices zero for it or refuse.
    fn discard_zeroes(&self) -> bool {
        true
    }

    fn zeroes_fast(&self) -> bool {
        !self.file.refuses_zero_range()
    }

    fn extents(&self, at: ByteOffset, len: ByteLen, most: usize, done: ExtentsDone) {
        if len == ByteLen::ZERO || !self.shape().contains(at, len) {
            return done(Err(IoError::new(IoErrorKind::OutOfRange, Op::Read, at, len)));
        }
        let in_flight = self.file.begin();
        self.pool().run(move || done(extents::look(in_flight.file(), at, len, most)));
    }
}

impl Rescan for FileDevice {
    fn rescan(&self) -> Result<ByteLen, IoError> {
        let failed =
            |e: rustix::io::Errno| IoError::from_os(e.raw_os_error(), Op::Read, ByteOffset::ZERO, self.shape().len);
        let size = rustix::fs::seek(&*self.file, rustix::fs::SeekFrom::End(0)).map_err(failed)?;
        let len = ByteLen(size - size % self.geometry.logical_block.bytes());
        self.len.store(len.0, Ordering::Relaxed);
        Ok(len)
    }
}

impl std::fmt::Debug for FileDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.describe())
    }
}
