//! A set of intervals with owners, in which what overlaps a range is found fast.
//!
//! An interval whose length lies in `[2^k, 2^(k+1))` is in bucket `k`, by start. What overlaps `[a, b)` has, in bucket `k`,
//! a start in `(a - 2^(k+1), b)`; of disjoint intervals at most two of those do not overlap after all. Owners of the very
//! same interval share an entry.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use super::{ByteRange, Owner};

const BUCKETS: usize = 64;

/// The set.
#[derive(Clone, Debug, Default)]
pub(super) struct Intervals {
    buckets: BTreeMap<u32, BTreeMap<ByteRange, BTreeSet<Owner>>>,
    /// Buckets and intervals that [`Intervals::first`] has looked at so far.
    looks: Cell<u64>,
}

impl Intervals {
    pub(super) fn insert(&mut self, range: ByteRange, owner: Owner) {
        let bucket = self.buckets.entry(bucket(range)).or_default();
        bucket.entry(range).or_default().insert(owner);
    }

    pub(super) fn remove(&mut self, range: ByteRange, owner: Owner) {
        let k = bucket(range);
        let Some(found) = self.buckets.get_mut(&k) else { return };
        if let Some(owners) = found.get_mut(&range) {
            owners.remove(&owner);
            if owners.is_empty() {
                found.remove(&range);
            }
        }
        if found.is_empty() {
            self.buckets.remove(&k);
        }
    }

    /// Every interval of another owner than `but` that overlaps `range`; by start within a bucket.
    pub(super) fn overlapping(&self, range: ByteRange, but: Owner) -> impl Iterator<Item = (ByteRange, Owner)> + '_ {
        self.buckets.iter().flat_map(move |(k, found)| {
            let reach = 1u64.checked_shl(k + 1).unwrap_or(u64::MAX);
            let from = ByteRange { start: range.start.saturating_sub(reach - 1), end: 0 };
            let upto = ByteRange { start: range.end, end: 0 };
            let near = found.range(from..upto).filter(move |(r, _)| r.overlaps(range));
            near.flat_map(move |(r, owners)| owners.iter().filter(move |o| **o != but).map(|o| (*r, *o)))
        })
    }

    /// What it has cost to find conflicts so far.
    pub(super) fn looks(&self) -> u64 {
        self.looks.get()
    }

    /// The one with the lowest start.
    pub(super) fn first(&self, range: ByteRange, but: Owner) -> Option<(ByteRange, Owner)> {
        let per_bucket = self.buckets.keys().filter_map(|k| self.first_in(*k, range, but));
        per_bucket.min()
    }

    fn first_in(&self, k: u32, range: ByteRange, but: Owner) -> Option<(ByteRange, Owner)> {
        let look = || self.looks.set(self.looks.get() + 1);
        look();
        let reach = 1u64.checked_shl(k + 1).unwrap_or(u64::MAX);
        let from = ByteRange { start: range.start.saturating_sub(reach - 1), end: 0 };
        let near = self.buckets.get(&k)?.range(from..ByteRange { start: range.end, end: 0 });
        let mut hits = near.inspect(|_| look()).filter(|(r, _)| r.overlaps(range));
        hits.find_map(|(r, owners)| owners.iter().find(|o| **o != but).map(|o| (*r, *o)))
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> Vec<(ByteRange, Owner)> {
        let entries = self.buckets.values().flatten();
        let mut all: Vec<_> = entries.flat_map(|(r, owners)| owners.iter().map(|o| (*r, *o))).collect();
        all.sort_unstable();
        all
    }
}

fn bucket(range: ByteRange) -> u32 {
    let k = (range.end - range.start).ilog2();
    debug_assert!((k as usize) < BUCKETS, "lengths are u64");
    k
}
