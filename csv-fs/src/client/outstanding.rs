//! Requests to the disk that have not come back, and what they will answer.
//!
//! One table per worker, so that no two workers meet at it, and one for everybody else. Each entry carries the count of
//! scans at which it began; a scan every [`SCAN`] counts up and looks for entries that are older than the path timeout.
//! So an I/O costs no timer, and no clock reading here.
//!
//! A stuck **read** is taken out of its table and issued again elsewhere; when the first comes back after all, it finds
//! no entry, and its buffer, which is its own, is dropped. A stuck **write** stays until it comes back: only the proof
//! that nothing is in flight may move it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use slab::Slab;

/// Time between two scans of a table.
pub(crate) const SCAN: Duration = Duration::from_millis(50);

/// A place in a table. Numbers are reused, generations are not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    table: u16,
    index: u32,
    generation: u32,
}

struct Entry<T> {
    generation: u32,
    began: u32,
    what: T,
}

struct Table<T> {
    entries: Mutex<(Slab<Entry<T>>, u32)>,
    scans: AtomicU32,
}

impl<T> Table<T> {
    /// Whole scans since: never more than has passed.
    fn age(&self, began: u32) -> Duration {
        SCAN * self.scans.load(Ordering::Relaxed).wrapping_sub(began).saturating_sub(1)
    }
}

/// All tables of a data path.
pub(crate) struct Outstanding<T> {
    tables: Vec<Table<T>>,
}

impl<T> Outstanding<T> {
    /// One table for each of so many workers, and one for other threads.
    pub(crate) fn new(workers: usize) -> Outstanding<T> {
        let table = || Table { entries: Mutex::new((Slab::new(), 0)), scans: AtomicU32::new(0) };
        Outstanding { tables: (0..=workers).map(|_| table()).collect() }
    }

    /// The table of the calling thread.
    pub(crate) fn here(&self) -> usize {
        block::worker::current().unwrap_or(usize::MAX).min(self.tables.len() - 1)
    }

    /// Adds an entry to the calling thread's table.
    pub(crate) fn insert(&self, what: T) -> Key {
        let at = self.here();
        let table = &self.tables[at];
        let began = table.scans.load(Ordering::Relaxed);
        let mut entries = table.entries.lock();
        entries.1 = entries.1.wrapping_add(1);
        let generation = entries.1;
        let index = entries.0.insert(Entry { generation, began, what });
        Key { table: at as u16, index: index as u32, generation }
    }

    /// Takes an entry out, if it is still there, with its age.
    pub(crate) fn take(&self, key: Key) -> Option<(T, Duration)> {
        let table = &self.tables[usize::from(key.table)];
        let mut entries = table.entries.lock();
        let index = key.index as usize;
        match entries.0.get(index) {
            Some(e) if e.generation == key.generation => {
                let entry = entries.0.remove(index);
                Some((entry.what, table.age(entry.began)))
            }
            _ => None,
        }
    }

    /// One scan of one table: how many scans its oldest entry has seen, if there is one.
    pub(crate) fn scan(&self, table: usize) -> Option<u32> {
        let table = &self.tables[table];
        let now = table.scans.fetch_add(1, Ordering::Relaxed) + 1;
        table.entries.lock().0.iter().map(|(_, e)| now.wrapping_sub(e.began)).max()
    }

    /// Takes every entry for which `pick` holds, told its age too, from all tables.
    pub(crate) fn take_all(&self, pick: impl Fn(&T, Duration) -> bool) -> Vec<(T, Duration)> {
        let mut taken = Vec::new();
        for table in &self.tables {
            let mut entries = table.entries.lock();
            let picked = |e: &Entry<T>| pick(&e.what, table.age(e.began));
            let keys: Vec<usize> = entries.0.iter().filter(|(_, e)| picked(e)).map(|(k, _)| k).collect();
            taken.extend(keys.into_iter().map(|k| {
                let entry = entries.0.remove(k);
                (entry.what, table.age(entry.began))
            }));
        }
        taken
    }

    /// How many entries `pick` holds for, told their age too.
    pub(crate) fn count(&self, pick: impl Fn(&T, Duration) -> bool) -> u64 {
        let of = |table: &Table<T>| {
            table.entries.lock().0.iter().filter(|(_, e)| pick(&e.what, table.age(e.began))).count() as u64
        };
        self.tables.iter().map(of).sum()
    }

    /// Number of tables.
    pub(crate) fn tables(&self) -> usize {
        self.tables.len()
    }
}

/// How many scans make up a timeout.
pub(crate) fn scans_in(timeout: Duration) -> u32 {
    u32::try_from(timeout.as_millis().div_ceil(SCAN.as_millis())).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_old_after_as_many_scans_as_the_timeout_has() {
        let all = Outstanding::new(2);
        let key = all.insert("write");
        let scans = scans_in(Duration::from_millis(500));
        assert_eq!(scans, 10);
        let first_old = (1..).find(|_| all.scan(2).is_some_and(|age| age > scans)).unwrap();
        assert_eq!(first_old, 11);
        assert_eq!(all.count(|_, age| age >= SCAN * 10), 1);
        assert_eq!(all.count(|_, age| age > SCAN * 10), 0);
        assert_eq!(all.take(key), Some(("write", SCAN * 10)));
        assert_eq!(all.scan(2), None);
    }

    /// A stuck read was issued again and its place has been reused: the late answer must not end the newcomer.
    #[test]
    fn a_late_completion_does_not_find_the_entry_that_reused_its_place() {
        let all = Outstanding::new(1);
        let stuck = all.insert("stuck read");
        assert_eq!(all.take_all(|_, _| true), vec![("stuck read", Duration::ZERO)]);
        let fresh = all.insert("fresh");
        assert_eq!(all.take(stuck), None);
        assert_eq!(all.take(fresh), Some(("fresh", Duration::ZERO)));
    }
}
