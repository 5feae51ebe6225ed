//! File locks of a volume: `fcntl` records (of processes and of open files) and `flock`, of all nodes together.
//!
//! Pure: a table of what is held and a queue of who waits. The coordinator keeps one for its reign
//! ([`crate::core::coord`], where the interleavings are told); a client keeps one of its own locks, to re-assert them
//! ([`crate::core::client`]).
//!
//! # Semantics (those of Linux on a local file system)
//! - Records and `flock` locks of one file never meet: [`Space`].
//! - An owner never conflicts with itself. Setting a record replaces whatever the owner has there: it splits, shortens,
//!   merges. `flock` changes from shared to exclusive by letting go first, so two upgraders do not wait for each other.
//! - A lock ends with an unlock, with its owner's FLUSH, and with the RELEASE of the handle it was taken through: a process
//!   killed by SIGKILL sends no unlock for locks of an open file, only RELEASE.
//! - Who waits is woken in the order of arrival and tries again; who waits holds nothing by that. Whoever comes to wait
//!   does not overtake one that was woken and is on its way. A waiter that would
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
//! 3. Sets by file, intervals by owner, and counts by client and by handle agree.

#[cfg(test)]
mod cluster;
mod deadlock;
mod file;
mod intervals;
#[cfg(any(test, feature = "simulation"))]
pub(crate) mod refusals;
#[cfg(test)]
mod tests;
mod waiters;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::proto::OwnLock;
pub use crate::proto::{ByteRange, LockMode as Mode, LockSpace as Space, WaitId};
use crate::types::{ClientId, HandleId, InodeNo};

use file::FileLocks;
pub use waiters::{Refused, Wait, Waiters};

/// Who holds a lock: a process or an open file of a node, as the node's kernel numbers them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Owner {
    /// The node's client.
    pub client: ClientId,
    /// The kernel's number.
    pub id: u64,
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
    /// Which gift of its coordinator it is; 0 once its client is known to have it on record. Until then the answer that gave it
    /// may be on its way, or lost. Of stretches that became one, the last.
    pub gift: u64,
}

impl Lock {
    /// A client's own lock, as the whole volume sees it; its client has it on record.
    pub fn of(client: ClientId, own: OwnLock) -> Lock {
        let OwnLock { owner, handle, pid, range, mode } = own;
        Lock { owner: Owner { client, id: owner }, handle, pid, range, mode, gift: 0 }
    }

    /// Whether its client is known to have it on record.
    pub fn is_on_record(&self) -> bool {
        self.gift == 0
    }

    /// As its client speaks of it.
    pub fn own(&self) -> OwnLock {
        OwnLock { owner: self.owner.id, handle: self.handle, pid: self.pid, range: self.range, mode: self.mode }
    }

    fn conflicts(&self, other: &Lock) -> bool {
        self.owner != other.owner
            && self.range.overlaps(other.range)
            && (self.mode == Mode::Write || other.mode == Mode::Write)
    }
}

/// All locks of a volume.
#[derive(Clone, Debug, Default)]
pub struct LockTable {
    files: BTreeMap<(InodeNo, Space), FileLocks>,
    counts: BTreeMap<ClientId, usize>,
}

impl LockTable {
    /// Takes a lock, in place of what its owner has there.
    ///
    /// # Errors
    /// The lock of another owner that is in the way, the one with the lowest start.
    pub fn set(&mut self, ino: InodeNo, space: Space, lock: Lock) -> Result<(), Lock> {
        self.lets_go_first(ino, space, &lock);
        match self.test(ino, space, &lock) {
            Some(other) => Err(other),
            None => {
                self.put(ino, space, lock);
                Ok(())
            }
        }
    }

    /// Takes a lock without a look at others: what the coordinator has given is so.
    pub fn put(&mut self, ino: InodeNo, space: Space, lock: Lock) {
        self.files.entry((ino, space)).or_default();
        self.change(ino, space, lock.owner.client, |file| file.set(lock));
    }

    /// A client has this on record: so much of it as is of that very gift.
    pub fn on_record(&mut self, ino: InodeNo, space: Space, told: &Lock) {
        let of_gift: Vec<Lock> =
            self.held_in(ino, space, told.owner, told.range).filter(|l| l.gift == told.gift).collect();
        of_gift.into_iter().for_each(|lock| self.put(ino, space, Lock { gift: 0, ..lock }));
    }

    /// `flock` lets go of what it has before it asks for the other kind.
    pub fn lets_go_first(&mut self, ino: InodeNo, space: Space, lock: &Lock) {
        let held = self.files.get(&(ino, space)).and_then(|file| file.mode_of(lock.owner));
        if space == Space::Whole && held.is_some_and(|held| held != lock.mode) {
            self.clear(ino, space, lock.owner, ByteRange::ALL);
        }
    }

    /// What an owner holds in a range, cut to it.
    pub fn held_in(
        &self,
        ino: InodeNo,
        space: Space,
        owner: Owner,
        range: ByteRange,
    ) -> impl Iterator<Item = Lock> + '_ {
        self.files.get(&(ino, space)).into_iter().flat_map(move |file| file.held_in(owner, range))
    }

    /// The lock that would be in the way (`F_GETLK`), the one with the lowest start.
    pub fn test(&self, ino: InodeNo, space: Space, lock: &Lock) -> Option<Lock> {
        self.files.get(&(ino, space))?.conflict(lock)
    }

    /// Gives up what an owner has in a range. `true` if that was anything.
    pub fn clear(&mut self, ino: InodeNo, space: Space, owner: Owner, range: ByteRange) -> bool {
        self.change(ino, space, owner.client, |file| file.clear(owner, range))
    }

    /// The owner closed a descriptor of the file: its records there end.
    pub fn flushed(&mut self, ino: InodeNo, owner: Owner) -> bool {
        self.clear(ino, Space::Record, owner, ByteRange::ALL)
    }

    /// The open file is gone: whatever was taken through it ends.
    pub fn released(&mut self, ino: InodeNo, client: ClientId, handle: HandleId) -> bool {
        let records = self.change(ino, Space::Record, client, |file| file.released(client, handle));
        self.change(ino, Space::Whole, client, |file| file.released(client, handle)) || records
    }

    /// A client is gone, after its fence: the files in which it held something.
    pub fn client_gone(&mut self, client: ClientId) -> Vec<InodeNo> {
        let held = |file: &mut FileLocks| file.client_gone(client);
        let mut freed: Vec<InodeNo> = self.files.iter_mut().filter_map(|(k, file)| held(file).then_some(k.0)).collect();
        freed.dedup();
        self.files.retain(|_, file| !file.is_empty());
        self.counts.remove(&client);
        freed
    }

    /// Everything a client holds, to be re-asserted or shown.
    pub fn of_client(&self, client: ClientId) -> impl Iterator<Item = (InodeNo, Space, Lock)> + '_ {
        self.files.iter().flat_map(move |((ino, space), file)| file.of_client(client).map(|lock| (*ino, *space, lock)))
    }

    /// Intervals held, of all files.
    pub fn count(&self) -> usize {
        self.counts.values().sum()
    }

    /// Intervals that a client holds.
    pub fn count_of(&self, client: ClientId) -> usize {
        self.counts.get(&client).copied().unwrap_or(0)
    }

    /// Buckets and intervals that were looked at for conflicts in files that are locked now: what finding them costs.
    pub fn looks(&self) -> u64 {
        self.files.values().map(FileLocks::looks).sum()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Changes what one client has in a file.
    fn change<T: Default>(
        &mut self,
        ino: InodeNo,
        space: Space,
        client: ClientId,
        f: impl FnOnce(&mut FileLocks) -> T,
    ) -> T {
        let Some(file) = self.files.get_mut(&(ino, space)) else { return T::default() };
        let before = file.count();
        let changed = f(file);
        let after = file.count();
        if file.is_empty() {
            self.files.remove(&(ino, space));
        }
        let count = self.counts.entry(client).or_default();
        *count = (*count + after).saturating_sub(before);
        if *count == 0 {
            self.counts.remove(&client);
        }
        changed
    }

    /// Locks of others that conflict with this one.
    pub fn conflicts<'a>(&'a self, ino: InodeNo, space: Space, lock: &'a Lock) -> impl Iterator<Item = Lock> + 'a {
        self.files.get(&(ino, space)).into_iter().flat_map(move |file| file.conflicts(lock))
    }

    #[cfg(test)]
    pub(in crate::core) fn check(&self) {
        self.files.values().for_each(FileLocks::check);
        let counted: usize = self.files.values().map(FileLocks::count).sum();
        assert_eq!(self.count(), counted, "counts by client and by file");
    }
}
