//! The lock bytes of the file kind: two disjoint ranges far beyond the end of data, `LIVE + node`
//! and `CAW + block`, on the description that carries all I/O.
//!
//! `LIVE + 0`, of no node, is held by a target that serves the file, together with every node's LIVE lock: whoever finds a lock held
//! can tell which of both it is.
//!
//! The kernel lets one description lock a byte twice. So what this process holds through its
//! description is kept here too, and asked first: a node never "acquires" the LIVE lock that it holds
//! itself, and two compare-and-writes of one process on one block exclude each other here.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{NodeId, Opener, ofd};
use crate::file::raw::RawFile;
use crate::units::ByteOffset;

/// First lock byte of `LIVE + node`.
const LIVE: u64 = 1 << 62;
/// Held by a target that serves the file: nodes count from 1.
const SERVED: u64 = LIVE;
/// First lock byte of `CAW + block`. Blocks are counted in 512 bytes, so the range ends at 2^61 + 2^53
/// for the largest file: below LIVE, above every file's data (files end at 2^63, none reaches 2^61).
const CAW: u64 = 1 << 61;
/// Unit of `block` in `CAW + block`: the smallest logical block, so that every block has its own byte.
const CAW_UNIT: u64 = 512;

/// First pause between two tries for a lock; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_micros(200);
/// A compare-and-write takes about a millisecond; waiting longer between tries only adds delay.
const RETRY_MAX: Duration = Duration::from_millis(5);

pub(super) struct LockTable {
    file: Arc<RawFile>,
    live: Mutex<BTreeSet<NodeId>>,
    caw: Mutex<BTreeSet<u64>>,
    caw_freed: Condvar,
}

/// The LIVE lock of a node, held through this process's description.
///
/// Dropping it frees the lock: a fencer does so once the raised fence generation is on the disk. A
/// node's own LIVE lock is never dropped; see [`FileDisk::hold_live`](super::FileDisk::hold_live).
#[must_use = "the lock is free again as soon as this is dropped"]
pub struct LiveLock {
    /// `None` once it is held for life.
    table: Option<Arc<LockTable>>,
    node: NodeId,
}

/// The lock of one block during one compare-and-write.
pub(super) struct CawLock<'a> {
    table: &'a LockTable,
    byte: u64,
}

impl LockTable {
    pub(super) fn new(file: Arc<RawFile>) -> Arc<LockTable> {
        Arc::new(LockTable {
            file,
            live: Mutex::new(BTreeSet::new()),
            caw: Mutex::new(BTreeSet::new()),
            caw_freed: Condvar::new(),
        })
    }

    pub(super) fn try_lock_live(self: &Arc<Self>, node: NodeId) -> io::Result<Option<LiveLock>> {
        let mut live = self.live.lock();
        if live.contains(&node) || !ofd::try_lock_byte(self.file.as_fd(), LIVE + u64::from(node.get()))? {
            return Ok(None);
        }
        live.insert(node);
        Ok(Some(LiveLock { table: Some(Arc::clone(self)), node }))
    }

    /// Takes the lock of a target and every LIVE lock, or none of them; what was taken is held for life.
    pub(super) fn serve(self: &Arc<Self>) -> io::Result<Result<(), Opener>> {
        if !ofd::try_lock_byte(self.file.as_fd(), SERVED)? {
            return Ok(Err(Opener::Target));
        }
        let mut taken = Vec::new();
        for node in NodeId::all() {
            match self.try_lock_live(node) {
                Ok(Some(lock)) => taken.push(lock),
                refused => {
                    ofd::unlock_byte(self.file.as_fd(), SERVED)?;
                    return refused.map(|_| Err(Opener::Node(node)));
                }
            }
        }
        taken.into_iter().for_each(LiveLock::hold_for_life);
        Ok(Ok(()))
    }

    /// Whether a target of this host serves the file.
    pub(super) fn is_served(&self) -> io::Result<bool> {
        let free = ofd::try_lock_byte(self.file.as_fd(), SERVED)?;
        if free {
            ofd::unlock_byte(self.file.as_fd(), SERVED)?;
        }
        Ok(!free)
    }

    /// Waits, up to `bound`, until the block's lock is held in this process and in the kernel.
    /// `None` after the bound.
    pub(super) fn lock_caw(&self, at: ByteOffset, bound: Duration) -> io::Result<Option<CawLock<'_>>> {
        let byte = CAW + at.0 / CAW_UNIT;
        let deadline = Instant::now() + bound;
        let mut held = self.caw.lock();
        while held.contains(&byte) {
            if self.caw_freed.wait_until(&mut held, deadline).timed_out() && held.contains(&byte) {
                return Ok(None);
            }
        }
        held.insert(byte);
        drop(held);
        let mut lock = CawLock { table: self, byte };
        Ok(lock.wait_for_kernel(deadline)?.then_some(lock))
    }
}

impl CawLock<'_> {
    fn wait_for_kernel(&mut self, deadline: Instant) -> io::Result<bool> {
        let mut pause = RETRY_MIN;
        while !ofd::try_lock_byte(self.table.file.as_fd(), self.byte)? {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(RETRY_MAX);
        }
        Ok(true)
    }
}

impl Drop for CawLock<'_> {
    /// Frees the kernel's lock, also if it was not acquired (freeing a free byte does nothing: no
    /// other holder exists in this description), then the process's.
    fn drop(&mut self) {
        if let Err(error) = ofd::unlock_byte(self.table.file.as_fd(), self.byte) {
            tracing::error!("a compare-and-write lock cannot be freed: {error}; it ends with this process");
        }
        self.table.caw.lock().remove(&self.byte);
        self.table.caw_freed.notify_all();
    }
}

impl LiveLock {
    /// The node whose lock this is.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Keeps the lock for the life of the file description: it is then freed only when the
    /// description is closed and the last request on it has ended.
    pub(super) fn hold_for_life(mut self) {
        self.table = None;
    }
}

impl Drop for LiveLock {
    fn drop(&mut self) {
        let Some(table) = self.table.take() else { return };
        let mut live = table.live.lock();
        if let Err(error) = ofd::unlock_byte(table.file.as_fd(), LIVE + u64::from(self.node.get())) {
            tracing::error!("the LIVE lock of {} cannot be freed: {error}; it ends with this process", self.node);
        }
        live.remove(&self.node);
    }
}

impl std::fmt::Debug for LiveLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LiveLock({})", self.node)
    }
}
