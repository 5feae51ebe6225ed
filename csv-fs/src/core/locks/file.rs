//! The locks of one file in one space.

use std::collections::BTreeMap;

use super::intervals::Intervals;
use super::{ByteRange, Lock, Mode, Owner};
use crate::types::{ClientId, HandleId};

/// A stretch that one owner holds, without its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Held {
    end: u64,
    mode: Mode,
    handle: HandleId,
    pid: u32,
    gift: u64,
}

/// What one owner holds: disjoint stretches by start.
type Stretches = BTreeMap<u64, Held>;

/// The locks.
#[derive(Clone, Debug, Default)]
pub(super) struct FileLocks {
    owners: BTreeMap<Owner, Stretches>,
    readers: Intervals,
    writers: Intervals,
    /// Stretches by the open file they were taken through: a RELEASE of one that took none looks at nothing else.
    handles: BTreeMap<(ClientId, HandleId), usize>,
    count: usize,
}

impl FileLocks {
    pub(super) fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Buckets and intervals looked at for conflicts, so far.
    pub(super) fn looks(&self) -> u64 {
        self.readers.looks() + self.writers.looks()
    }

    /// What an owner's first stretch allows; for `flock`, which has one.
    pub(super) fn mode_of(&self, owner: Owner) -> Option<Mode> {
        self.owners.get(&owner)?.values().next().map(|h| h.mode)
    }

    /// The lock of another owner that is in the way, with the lowest start.
    pub(super) fn conflict(&self, lock: &Lock) -> Option<Lock> {
        let writer = self.writers.first(lock.range, lock.owner);
        let reader = (lock.mode == Mode::Write).then(|| self.readers.first(lock.range, lock.owner)).flatten();
        let (range, owner) = [writer, reader].into_iter().flatten().min()?;
        self.at(owner, range)
    }

    /// Every lock that is in the way.
    pub(super) fn conflicts<'a>(&'a self, lock: &'a Lock) -> impl Iterator<Item = Lock> + 'a {
        let readers = (lock.mode == Mode::Write).then(|| self.readers.overlapping(lock.range, lock.owner));
        let all = self.writers.overlapping(lock.range, lock.owner).chain(readers.into_iter().flatten());
        all.filter_map(|(range, owner)| self.at(owner, range))
    }

    /// What an owner has in a range, cut to it.
    pub(super) fn held_in(&self, owner: Owner, range: ByteRange) -> impl Iterator<Item = Lock> + '_ {
        let stretches = self.owners.get(&owner);
        let first = stretches.and_then(|s| s.range(..=range.start).next_back().map(|(start, _)| *start));
        let near =
            stretches.into_iter().flat_map(move |s| s.range(first.unwrap_or(range.start)..range.end.max(range.start)));
        let cut = move |(start, held): (&u64, &Held)| {
            let lock = lock_of(owner, *start, held);
            lock.range.overlaps(range).then(|| Lock { range: lock.range.intersect(range), ..lock })
        };
        near.filter_map(cut)
    }

    fn at(&self, owner: Owner, range: ByteRange) -> Option<Lock> {
        let held = self.owners.get(&owner)?.get(&range.start)?;
        Some(lock_of(owner, range.start, held))
    }

    /// Takes a lock that nothing is in the way of.
    pub(super) fn set(&mut self, lock: Lock) {
        let Lock { owner, handle, pid, range, mode, mut gift } = lock;
        self.clear(owner, range);
        let (mut start, mut end) = (range.start, range.end);
        // What touches it and is the same is one stretch with it, so that a file locked byte by byte is one lock.
        if let Some(stretches) = self.owners.get(&owner) {
            let recorded = |gift: u64| gift == 0;
            let same = |h: &Held| {
                h.mode == mode && h.handle == handle && h.pid == pid && recorded(h.gift) == recorded(lock.gift)
            };
            let before = stretches.range(..start).next_back().filter(|(_, h)| h.end == start && same(h));
            let after = stretches.get(&end).filter(|h| same(h));
            let gifts = before.map(|(_, h)| h.gift).into_iter().chain(after.map(|h| h.gift));
            gift = gifts.fold(gift, u64::max);
            start = before.map_or(start, |(s, _)| *s);
            end = after.map_or(end, |h| h.end);
        }
        self.take_out(owner, ByteRange { start, end });
        self.put_in(owner, start, Held { end, mode, handle, pid, gift });
    }

    /// Gives up what an owner has in a range; what sticks out of it stays.
    pub(super) fn clear(&mut self, owner: Owner, range: ByteRange) -> bool {
        let taken = self.take_out(owner, range);
        for (start, held) in &taken {
            if *start < range.start {
                self.put_in(owner, *start, Held { end: range.start, ..*held });
            }
            if held.end > range.end {
                self.put_in(owner, range.end, *held);
            }
        }
        !taken.is_empty()
    }

    pub(super) fn released(&mut self, client: ClientId, handle: HandleId) -> bool {
        self.handles.contains_key(&(client, handle)) && self.drop_where(client, |held| held.handle == handle)
    }

    pub(super) fn client_gone(&mut self, client: ClientId) -> bool {
        self.drop_where(client, |_| true)
    }

    pub(super) fn of_client(&self, client: ClientId) -> impl Iterator<Item = Lock> + '_ {
        let of = self.owners.range(owners_of(client));
        of.flat_map(|(owner, stretches)| stretches.iter().map(|(start, held)| lock_of(*owner, *start, held)))
    }

    fn drop_where(&mut self, client: ClientId, which: impl Fn(&Held) -> bool) -> bool {
        let of = self.owners.range(owners_of(client));
        let doomed: Vec<(Owner, ByteRange)> = of
            .flat_map(|(owner, stretches)| stretches.iter().map(move |(start, held)| (*owner, *start, *held)))
            .filter(|(_, _, held)| which(held))
            .map(|(owner, start, held)| (owner, ByteRange { start, end: held.end }))
            .collect();
        for (owner, range) in &doomed {
            self.take_out(*owner, *range);
        }
        !doomed.is_empty()
    }

    /// Takes out, whole, every stretch of an owner that overlaps a range.
    fn take_out(&mut self, owner: Owner, range: ByteRange) -> Vec<(u64, Held)> {
        let Some(stretches) = self.owners.get_mut(&owner) else { return Vec::new() };
        let first = stretches.range(..=range.start).next_back().filter(|(_, h)| h.end > range.start).map(|(s, _)| *s);
        let starts: Vec<u64> = first
            .into_iter()
            .chain(stretches.range(range.start..range.end).map(|(s, _)| *s).filter(|s| Some(*s) != first))
            .collect();
        let taken: Vec<(u64, Held)> = starts.iter().filter_map(|s| Some((*s, stretches.remove(s)?))).collect();
        if stretches.is_empty() {
            self.owners.remove(&owner);
        }
        for (start, held) in &taken {
            self.set_of(held.mode).remove(ByteRange { start: *start, end: held.end }, owner);
            self.count -= 1;
            if let Some(n) = self.handles.get_mut(&(owner.client, held.handle)) {
                *n -= 1;
                if *n == 0 {
                    self.handles.remove(&(owner.client, held.handle));
                }
            }
        }
        taken
    }

    fn put_in(&mut self, owner: Owner, start: u64, held: Held) {
        self.set_of(held.mode).insert(ByteRange { start, end: held.end }, owner);
        self.owners.entry(owner).or_default().insert(start, held);
        *self.handles.entry((owner.client, held.handle)).or_default() += 1;
        self.count += 1;
    }

    fn set_of(&mut self, mode: Mode) -> &mut Intervals {
        match mode {
            Mode::Read => &mut self.readers,
            Mode::Write => &mut self.writers,
        }
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        let all: Vec<Lock> =
            self.owners.keys().flat_map(|o| self.of_client(o.client).filter(|l| l.owner == *o)).collect();
        for (n, a) in all.iter().enumerate() {
            assert!(a.range.start < a.range.end, "an empty interval");
            for b in &all[n + 1..] {
                assert!(!a.conflicts(b), "{a:?} and {b:?}");
                assert!(a.owner != b.owner || !a.range.overlaps(b.range), "of one owner: {a:?} and {b:?}");
            }
        }
        for (mode, set) in [(Mode::Read, &self.readers), (Mode::Write, &self.writers)] {
            let mut own: Vec<_> = all.iter().filter(|l| l.mode == mode).map(|l| (l.range, l.owner)).collect();
            own.sort_unstable();
            assert_eq!(own, set.all(), "{mode:?}");
        }
        assert_eq!((self.count, self.handles.values().sum::<usize>()), (all.len(), all.len()));
    }
}

fn lock_of(owner: Owner, start: u64, held: &Held) -> Lock {
    let Held { end, mode, handle, pid, gift } = *held;
    Lock { owner, handle, pid, range: ByteRange { start, end }, mode, gift }
}

/// Every owner of a client.
fn owners_of(client: ClientId) -> std::ops::RangeInclusive<Owner> {
    Owner { client, id: 0 }..=Owner { client, id: u64::MAX }
}
