//! File locks of a volume: `fcntl` records (of processes and of open files) and `flock`, of all nodes together.
//!
//! Pure: a table of what is held and a queue of who waits. The coordinator keeps one for its reign; a client keeps one of
//! its own locks, to re-assert them.
//!
//! # Semantics (those of Linux on a local file system)
//! - Records and `flock` locks of one file never meet: [`Space`].
//! - An owner never conflicts with itself. Setting a record replaces whatever the owner has there: it splits, shortens,
//!   merges. `flock` changes from shared to exclusive by letting go first, so two upgraders do not wait for each other.
//! - A lock ends with an unlock, with its owner's FLUSH, and with the RELEASE of the handle it was taken through: a process
//!   killed by SIGKILL sends no unlock for locks of an open file, only RELEASE.
//! - Who waits is woken in the order of arrival and tries again; who waits holds nothing by that. A waiter that would
//!   close a circle of owners is refused (`EDEADLK`). The kernel does not tell a server which records are of an open file,
//!   so circles of those are refused too, where a local file system would wait for ever.
//!
//! # Structure
//! Each file has two sets of intervals, of readers and of writers, bucketed by the power of two below an interval's length.
//! What overlaps a range lies, in each bucket, among few starts just below the range: finding a conflict among 100 000 locks
//! costs about 64 look-ups. Each owner has its own intervals, which are disjoint, by start.
//!
//! # Invariants (asserted in tests after every step)
//! 1. Two locks of different owners on one range are both for reading. 2. Intervals of one owner are disjoint and not empty.
//! 3. Sets by file and intervals by owner agree.

mod deadlock;
mod file;
mod intervals;
#[cfg(test)]
mod tests;
mod waiters;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::types::{ClientId, HandleId, InodeNo};

use file::FileLocks;
pub use waiters::{Refused, Wait, WaitId, Waiters};

/// Which kind of lock: those of one space never meet those of the other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Space {
    /// `fcntl`: byte ranges.
    Record,
    /// `flock`: the whole file.
    Whole,
}

/// What a lock allows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Mode {
    /// With other readers (`F_RDLCK`, `LOCK_SH`).
    Read,
    /// Alone (`F_WRLCK`, `LOCK_EX`).
    Write,
}

/// Who holds a lock: a process or an open file of a node, as the node's kernel numbers them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Owner {
    /// The node's client.
    pub client: ClientId,
    /// The kernel's number.
    pub id: u64,
}

/// Bytes `[start, end)`. `end` is past the last byte; a lock "to the end of the file, wherever that will be" ends at
/// [`ByteRange::MAX`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// Behind the last byte; greater than `start`.
    pub end: u64,
}

impl ByteRange {
    /// Behind the last byte that a file can have (`OFFSET_MAX` + 1).
    pub const MAX: u64 = 1 << 63;
    /// The whole file and whatever it may grow to.
    pub const ALL: ByteRange = ByteRange { start: 0, end: ByteRange::MAX };

    /// From the first to the last byte, as the kernel gives them; `None` if that is no range.
    pub fn inclusive(first: u64, last: u64) -> Option<ByteRange> {
        (first <= last && last < ByteRange::MAX).then(|| ByteRange { start: first, end: last + 1 })
    }

    /// Whether both share a byte.
    pub fn overlaps(self, other: ByteRange) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// The last byte, as the kernel wants it.
    pub fn last(self) -> u64 {
        self.end - 1
    }
}

/// A lock, held or wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lock {
    /// Whose.
    pub owner: Owner,
    /// The open file through which it was taken.
    pub handle: HandleId,
    /// For `GETLK` on the same node: the process. 0 if unknown.
    pub pid: u32,
    /// Where.
    pub range: ByteRange,
    /// For what.
    pub mode: Mode,
}

impl Lock {
    fn conflicts(&self, other: &Lock) -> bool {
        self.owner != other.owner
            && self.range.overlaps(other.range)
            && (self.mode == Mode::Write || other.mode == Mode::Write)
    }
}

/// All locks of a volume.
#[derive(Debug, Default)]
pub struct LockTable {
    files: BTreeMap<(InodeNo, Space), FileLocks>,
}

impl LockTable {
    /// Takes a lock, in place of what its owner has there.
    ///
    /// # Errors
    /// The lock of another owner that is in the way, the one with the lowest start.
    pub fn set(&mut self, ino: InodeNo, space: Space, lock: Lock) -> Result<(), Lock> {
        let file = self.files.entry((ino, space)).or_default();
        if space == Space::Whole && file.mode_of(lock.owner).is_some_and(|held| held != lock.mode) {
            file.clear(lock.owner, ByteRange::ALL);
        }
        let result = match file.conflict(&lock) {
            Some(other) => Err(other),
            None => {
                file.set(lock);
                Ok(())
            }
        };
        self.forget_if_empty(ino, space);
        result
    }

    /// The lock that would be in the way (`F_GETLK`), the one with the lowest start.
    pub fn test(&self, ino: InodeNo, space: Space, lock: &Lock) -> Option<Lock> {
        self.files.get(&(ino, space))?.conflict(lock)
    }

    /// Gives up what an owner has in a range. `true` if that was anything.
    pub fn clear(&mut self, ino: InodeNo, space: Space, owner: Owner, range: ByteRange) -> bool {
        self.change(ino, space, |file| file.clear(owner, range))
    }

    /// The owner closed a descriptor of the file: its records there end.
    pub fn flushed(&mut self, ino: InodeNo, owner: Owner) -> bool {
        self.clear(ino, Space::Record, owner, ByteRange::ALL)
    }

    /// The open file is gone: whatever was taken through it ends.
    pub fn released(&mut self, ino: InodeNo, client: ClientId, handle: HandleId) -> bool {
        let records = self.change(ino, Space::Record, |file| file.released(client, handle));
        self.change(ino, Space::Whole, |file| file.released(client, handle)) || records
    }

    /// A client is gone, after its fence: the files in which it held something.
    pub fn client_gone(&mut self, client: ClientId) -> Vec<InodeNo> {
        let held = |file: &mut FileLocks| file.client_gone(client);
        let mut freed: Vec<InodeNo> = self.files.iter_mut().filter_map(|(k, file)| held(file).then_some(k.0)).collect();
        freed.dedup();
        self.files.retain(|_, file| !file.is_empty());
        freed
    }

    /// Everything a client holds, to be re-asserted or shown.
    pub fn of_client(&self, client: ClientId) -> impl Iterator<Item = (InodeNo, Space, Lock)> + '_ {
        self.files.iter().flat_map(move |((ino, space), file)| file.of_client(client).map(|lock| (*ino, *space, lock)))
    }

    /// Intervals held, of all files.
    pub fn count(&self) -> usize {
        self.files.values().map(FileLocks::count).sum()
    }

    fn change(&mut self, ino: InodeNo, space: Space, f: impl FnOnce(&mut FileLocks) -> bool) -> bool {
        let changed = self.files.get_mut(&(ino, space)).is_some_and(f);
        self.forget_if_empty(ino, space);
        changed
    }

    fn forget_if_empty(&mut self, ino: InodeNo, space: Space) {
        if self.files.get(&(ino, space)).is_some_and(FileLocks::is_empty) {
            self.files.remove(&(ino, space));
        }
    }

    /// Locks of others that conflict with this one; for the search for circles.
    fn conflicts<'a>(&'a self, ino: InodeNo, space: Space, lock: &'a Lock) -> impl Iterator<Item = Lock> + 'a {
        self.files.get(&(ino, space)).into_iter().flat_map(move |file| file.conflicts(lock))
    }

    #[cfg(test)]
    fn check(&self) {
        self.files.values().for_each(FileLocks::check);
    }
}
