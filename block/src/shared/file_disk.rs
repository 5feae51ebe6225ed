//! The *file* kind of shared disk: a file that several processes of **one host** open.
//!
//! Refuses nothing about hosts itself: the slots carry boot ids, and csv-fs refuses a node of
//! another host. A file on a network file system must not be used: its locks are another host's.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::{pread, pwrite};

use super::locks::{LiveLock, LockTable};
use super::{AbortOwn, BoxFuture, CawOutcome, CompareAndWrite, KillOutcome, NodeId, NothingInFlight, Opener, kill};
use crate::buf::AlignedBuf;
use crate::device::{BlockDevice, Op};
use crate::error::{IoError, IoErrorKind};
use crate::file::pool::Pool;
use crate::file::raw::RawFile;
use crate::file::{FileDevice, OpenError, OpenOptions};
use crate::provisioning::{Provisioning, Rescan};
use crate::units::{BlockSize, ByteLen, ByteOffset};
use crate::worker::Handle;

/// Compare-and-writes at a time: the lease's and a slot's. They run on threads of their own, so that a
/// stalled fdatasync keeps no worker from its data.
const CAW_THREADS: usize = 2;
/// How long a compare-and-write tries for its lock before it says that it did nothing. Another
/// process holds a lock for one fdatasync; this is longer than any that should be waited for.
const CAW_LOCK_BOUND: Duration = Duration::from_secs(10);

/// A file as a shared disk.
pub struct FileDisk {
    device: Arc<FileDevice>,
    locks: Arc<LockTable>,
    caw: Pool,
}

impl FileDisk {
    /// Opens the file with its own new description.
    pub fn open(path: impl AsRef<Path>, workers: Handle) -> Result<Arc<FileDisk>, OpenError> {
        FileDisk::open_with(path, OpenOptions::default(), workers)
    }

    /// The same with options, as for a volume whose logical block is known.
    pub fn open_with(
        path: impl AsRef<Path>,
        options: OpenOptions,
        workers: Handle,
    ) -> Result<Arc<FileDisk>, OpenError> {
        let device = Arc::new(FileDevice::open(path, options, workers)?);
        let locks = LockTable::new(Arc::clone(device.raw()));
        Ok(Arc::new(FileDisk { device, locks, caw: Pool::new("block-caw", CAW_THREADS) }))
    }

    /// Data and metadata I/O, on the description that holds the locks.
    pub fn device(&self) -> Arc<dyn BlockDevice> {
        Arc::clone(&self.device) as Arc<dyn BlockDevice>
    }

    /// The same as the file that it is.
    pub fn file(&self) -> Arc<FileDevice> {
        Arc::clone(&self.device)
    }

    /// Where its data lie, and what a discard leaves.
    pub fn provisioning(&self) -> Arc<dyn Provisioning> {
        Arc::clone(&self.device) as Arc<dyn Provisioning>
    }

    /// What looks at its length again.
    pub fn rescan(&self) -> Arc<dyn Rescan> {
        Arc::clone(&self.device) as Arc<dyn Rescan>
    }

    /// Why threads do its I/O; `None` where io_uring does.
    pub fn why_threads(&self) -> Option<String> {
        self.device.why_threads()
    }

    /// Takes this node's own LIVE lock for the life of the description: it is freed when the disk
    /// was dropped and the last request on it has ended, never before. False if another process (or
    /// this one) has it already.
    pub fn hold_live(&self, node: NodeId) -> io::Result<bool> {
        let lock = self.locks.try_lock_live(node)?;
        Ok(lock.map(LiveLock::hold_for_life).is_some())
    }

    /// Tries once for the LIVE lock of another node. `None` if it is held, also if by this process.
    /// Never waits: the caller tries again.
    pub fn try_lock_live(&self, node: NodeId) -> io::Result<Option<LiveLock>> {
        self.locks.try_lock_live(node)
    }

    /// Keeps every node of this host from the file for the life of the description, as a target does that serves it; whoever
    /// has it open is told, and then nothing is kept. Not for a process that is a node of it.
    pub fn hold_all_live(&self) -> io::Result<Result<(), Opener>> {
        self.locks.serve()
    }

    /// Whether another process of this host serves the file as a target.
    pub fn is_served(&self) -> io::Result<bool> {
        self.locks.is_served()
    }

    /// Sends SIGKILL to the process that a slot names, if the pid still is that process. What it has in the kernel
    /// may land for some time after; only its LIVE lock tells.
    pub fn kill_holder(&self, pid: u32, start_time: u64) -> io::Result<KillOutcome> {
        kill::kill(pid, start_time)
    }

    /// Requests under way, compare-and-writes included.
    pub fn in_flight(&self) -> usize {
        self.device.raw().in_flight().count()
    }
}

impl std::fmt::Debug for FileDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "shared {}", self.device.describe())
    }
}

impl AbortOwn for FileDisk {
    /// The kernel cannot withdraw what it has; so this waits for it and says so.
    fn abort_outstanding(&self) -> BoxFuture<'_, Result<NothingInFlight, IoError>> {
        Box::pin(async move {
            self.device.raw().in_flight().wait_empty("requests stuck in the kernel").await;
            Ok(NothingInFlight::proved())
        })
    }
}

impl CompareAndWrite for FileDisk {
    fn compare_and_write(
        &self,
        at: ByteOffset,
        expect: Vec<u8>,
        new: Vec<u8>,
    ) -> BoxFuture<'_, Result<CawOutcome, IoError>> {
        let block = self.device.geometry().logical_block;
        let step = match CawStep::new(&self.device, at, &expect, &new, block) {
            Ok(step) => step,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let locks = Arc::clone(&self.locks);
        let file = Arc::clone(self.device.raw());
        let counted = file.begin();
        self.caw.run(move || {
            let outcome = step.run(&locks, &file);
            // Counted down before the answer: who has the answer finds nothing under way.
            drop(counted);
            // A receiver that is gone has stopped waiting for the outcome.
            drop(sender.send(outcome));
        });
        Box::pin(async move { receiver.await.unwrap_or(Ok(CawOutcome::Unknown)) })
    }
}

/// One compare-and-write with its memory prepared.
struct CawStep {
    at: ByteOffset,
    found: AlignedBuf,
    expect: Vec<u8>,
    new: AlignedBuf,
}

impl CawStep {
    fn new(
        device: &FileDevice,
        at: ByteOffset,
        expect: &[u8],
        new: &[u8],
        block: BlockSize,
    ) -> Result<CawStep, IoError> {
        let refuse = |kind| Err(IoError::new(kind, Op::Write { fua: true }, at, ByteLen::of(new)));
        let fits = expect.len() == new.len() && !new.is_empty() && new.len() <= block.as_usize();
        if !fits || !at.is_aligned_to(block.bytes()) {
            return refuse(IoErrorKind::Misaligned);
        }
        let geometry = device.geometry();
        if geometry.read_only {
            return refuse(IoErrorKind::ReadOnly);
        }
        if !geometry.contains(at, ByteLen(block.bytes())) {
            return refuse(IoErrorKind::OutOfRange);
        }
        let mut whole_expect = expect.to_vec();
        whole_expect.resize(block.as_usize(), 0);
        let mut whole_new = AlignedBuf::zeroed(block.as_usize());
        whole_new[..new.len()].copy_from_slice(new);
        let found = AlignedBuf::zeroed(block.as_usize());
        Ok(CawStep { at, found, expect: whole_expect, new: whole_new })
    }

    fn run(mut self, locks: &LockTable, file: &RawFile) -> Result<CawOutcome, IoError> {
        let _lock = match locks.lock_caw(self.at, CAW_LOCK_BOUND) {
            Ok(Some(lock)) => lock,
            Ok(None) => return Err(IoError::new(IoErrorKind::TimedOut, Op::Write { fua: true }, self.at, self.len())),
            Err(error) => return Err(self.os_error(error.raw_os_error().unwrap_or(libc::EIO))),
        };
        let at = self.at.0;
        let read = whole(self.found.len(), || pread(file, &mut self.found[..], at));
        if let Err(errno) = read {
            return Err(self.os_error(errno));
        }
        if self.found[..] != self.expect[..] {
            return Ok(CawOutcome::Miscompare { found: self.found.to_vec() });
        }
        let written = whole(self.new.len(), || pwrite(file, &self.new, at))
            .and_then(|()| rustix::fs::fdatasync(file.as_fd()).map_err(rustix::io::Errno::raw_os_error));
        match written {
            Ok(()) => Ok(CawOutcome::Done),
            Err(errno) => {
                let error = self.os_error(errno);
                tracing::error!("a compare-and-write failed after its comparison, so its outcome is unknown: {error}");
                Ok(CawOutcome::Unknown)
            }
        }
    }

    fn len(&self) -> ByteLen {
        ByteLen::of(&self.new)
    }

    fn os_error(&self, errno: i32) -> IoError {
        IoError::from_os(errno, Op::Write { fua: true }, self.at, self.len())
    }
}

/// Repeats a read or write of one block until all of it is done. A block is atomic for the kernel, so a
/// short one starts over.
fn whole(len: usize, mut call: impl FnMut() -> rustix::io::Result<usize>) -> Result<(), i32> {
    /// As for any request: see the transfers of file devices.
    const MAX_RETRIES: u32 = 1000;
    for _ in 0..MAX_RETRIES {
        match call() {
            Ok(n) if n == len => return Ok(()),
            Ok(0) => return Err(libc::EIO),
            Ok(_) | Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(errno) => return Err(errno.raw_os_error()),
        }
    }
    Err(libc::EIO)
}
