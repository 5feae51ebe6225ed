//! Writes that the disk had acknowledged and may have lost: told, never passed over.
//!
//! A disk tells a loss to the flushes that cover what was lost, and to nobody else; later flushes know of newer writes only. But one
//! flush covers many files, and the one that is told may be somebody else's: it counts what it tells
//! ([`BlockDevice::losses`](block::device::BlockDevice::losses)) *before* it answers, and here the count is looked at before anything
//! is believed. Every file with unflushed writes is then *lost*: each handle on it fails until it is closed, the fsync under way and
//! the next one fail, and what no commit has covered is forgotten.
//!
//! Interleavings prevented:
//! 1. Programs write files A and B. The target restarts and its cache is gone. A's fsync is told; B's fsync comes after it, has its
//!    own flush, which succeeds, and believes it.
//! 2. On the coordinator's node the metadata store's flush, or that of a lease's compare-and-write, is the one that is told; the
//!    next fsync succeeds.
//! 3. A new file is written, and its fsync fails. Five seconds later its commit is tried again: nothing is in the cache any more, the
//!    flush succeeds, the mapping is committed, and the file shows what the blocks' former owner left there.
//! 4. A write is with the disk while the loss is told. Its answer comes after the files were looked through: it would be in no
//!    file's account. It fails.
//! 5. A file was written and closed, and nobody has it open when the loss is told: whoever opens it and calls fsync is told.
//!
//! What is still covered: a file whose own flush succeeded is not touched, whenever that was.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use block::device::Done;
use block::error::{IoError, IoErrorKind};
use parking_lot::Mutex;

use super::DataPath;
use crate::client::inode::Inode;
use crate::client::link::ClientEvent;

/// The device's count when a change was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sent(u64);

/// The count at the last look, raised once every file was looked through.
#[derive(Debug)]
pub(super) struct Seen {
    count: AtomicU64,
    looking: Mutex<()>,
}

impl From<u64> for Seen {
    fn from(count: u64) -> Seen {
        Seen { count: AtomicU64::new(count), looking: Mutex::new(()) }
    }
}

impl DataPath {
    /// A change is about to be sent to the disk.
    pub(super) fn sending(&self) -> Sent {
        Sent(self.disk.losses())
    }

    /// How a change ended. If a loss was told meanwhile, nobody knows whether it was in the cache already: it has failed.
    pub(super) fn unless_lost(&self, sent: Sent, mut done: Done) -> Done {
        if done.result.is_ok() && self.sending() != sent {
            done.result = Err(IoError { kind: IoErrorKind::CacheLost, ..IoError::dropped() });
        }
        done
    }

    /// Finds out whether the disk has told of a loss, and marks the files that it hit. Whoever returns from here sees them marked.
    pub(super) fn look_for_losses(&self) {
        let now = self.disk.losses();
        if self.losses.count.load(Ordering::SeqCst) == now {
            return;
        }
        let _one = self.losses.looking.lock();
        if self.losses.count.load(Ordering::SeqCst) == now {
            return;
        }
        let all: Vec<Arc<Inode>> = self.inodes.lock().values().cloned().collect();
        let hit: Vec<Arc<Inode>> = all.into_iter().filter(|i| i.unflushed.load(Ordering::SeqCst)).collect();
        hit.iter().for_each(|inode| self.lose(inode));
        self.losses.count.store(now, Ordering::SeqCst);
        // What is uncommitted goes soon, so that nobody reads it for long.
        hit.iter().filter(|inode| inode.state.lock().map.is_dirty()).for_each(|inode| self.commit_soon(inode));
    }

    fn lose(&self, inode: &Arc<Inode>) {
        inode.forgets.store(true, Ordering::SeqCst);
        inode.lost.store(true, Ordering::SeqCst);
        self.session.emit(ClientEvent::WritesLost { ino: inode.ino });
        let handles = self.poison(inode);
        if !handles.is_empty() {
            self.session.emit(ClientEvent::Poisoned { handles });
        }
    }

    /// What was lost before any commit covered it is no part of the file. The caller holds the file's commits back.
    pub(super) fn forget_what_was_lost(&self, inode: &Inode) {
        if inode.forgets.swap(false, Ordering::SeqCst) {
            let mut state = inode.state.lock();
            state.map.forget_uncommitted();
            inode.publish(&mut state, true);
        }
    }
}
