//! What was looked up lately: attributes and names as they are committed, in memory, for whoever must not wait for the disk.
//!
//! Filled by those who read a [`View`](super::View), emptied row by row by what is committed, asked by the coordinator
//! before it gives a question to its reader threads. It only ever says what a view made at that moment would say.
//!
//! ```text
//!   number n ── a commit begins: its rows are forgotten, nothing is taken in ──► n+1 ── it has ended ──► n+2
//! ```
//! Rules, each with what it prevents:
//! - *The rows of a commit are forgotten before it, and none is taken in until it has ended.* One look-up is answered from a
//!   view of after the commit, the next from here with what was true before it.
//! - *What is taken in was read in a view of the present number.* A reader reads, a commit changes that row, and only then the
//!   reader brings what it found: it would be told until the next change.
//! - *Names are kept that lead somewhere, not those that do not.* So one that is kept needs no look at its directory, which
//!   is there as long as it has the name.
//!
//! Who asks looks at the latch, as whoever makes a view does; a store that is closed knows nothing.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

use super::redo::Rows;
use super::tables::{self, Changed};
use crate::types::{Attr, InodeNo};

/// Rows of a kind in one of two generations: what was not asked for while so many others were is forgotten. Both kinds and
/// generations together are some 10 MiB with names of 32 bytes, 25 MiB with the longest.
const GENERATION: usize = 16 << 10;

/// See the module. Clones share it.
#[derive(Clone, Default)]
pub struct Recent(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    number: u64,
    committing: bool,
    closed: bool,
    inodes: Kept<InodeNo, Attr>,
    names: Kept<(InodeNo, Vec<u8>), InodeNo>,
}

impl Recent {
    /// The attributes of an inode, if they are kept.
    pub fn attr(&self, ino: InodeNo) -> Option<Attr> {
        self.0.lock().inodes.get(&ino)
    }

    /// The attributes of what a name leads to, if both are kept.
    pub fn lookup(&self, parent: InodeNo, name: &[u8]) -> Option<Attr> {
        let mut state = self.0.lock();
        let ino = state.names.get(&(parent, name.to_vec()))?;
        state.inodes.get(&ino)
    }

    /// To be taken before a view is made.
    pub(super) fn number(&self) -> u64 {
        self.0.lock().number
    }

    /// Takes in what was read in a view of this number: an inode, and the name by which it was found. `.` and `..` are no rows.
    pub(super) fn note(&self, number: u64, name: Option<(InodeNo, &[u8])>, attr: &Attr) {
        let mut state = self.0.lock();
        if state.committing || state.closed || state.number != number {
            return;
        }
        state.inodes.put(attr.ino, *attr);
        if let Some((parent, name)) = name.filter(|(_, name)| !matches!(*name, b"." | b"..")) {
            state.names.put((parent, name.to_vec()), attr.ino);
        }
    }

    /// These rows are about to be committed.
    pub(super) fn commit_begins(&self, rows: &Rows) {
        let mut state = self.0.lock();
        state.number += 1;
        state.committing = true;
        match rows.each() {
            Some(rows) => rows.filter_map(|row| tables::changed(&row)).for_each(|changed| state.forget(&changed)),
            None => state.forget_all(),
        }
    }

    /// They are committed. Not called after a commit that failed: nothing is taken in any more.
    pub(super) fn commit_ended(&self) {
        let mut state = self.0.lock();
        state.number += 1;
        state.committing = false;
    }

    /// Knows nothing any more.
    pub(super) fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.forget_all();
    }
}

impl State {
    fn forget(&mut self, changed: &Changed<'_>) {
        match changed {
            Changed::Inode(ino) => self.inodes.remove(ino),
            Changed::Name(parent, name) => self.names.remove(&(*parent, name.to_vec())),
        }
    }

    fn forget_all(&mut self) {
        (self.inodes, self.names) = Default::default();
    }
}

/// Two generations: what is asked for moves into the young one; when that is full the old one is forgotten.
struct Kept<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K, V> Default for Kept<K, V> {
    fn default() -> Kept<K, V> {
        Kept { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<K: Hash + Eq, V: Copy> Kept<K, V> {
    fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(*value);
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.put(key, value);
        Some(value)
    }

    fn put(&mut self, key: K, value: V) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_rest_is_bounded() {
        let mut kept = Kept::default();
        for n in 0..5 * GENERATION {
            kept.put(n, n);
            assert_eq!(kept.get(&0), Some(0));
            assert!(kept.young.len() + kept.old.len() <= 2 * GENERATION);
        }
        assert_eq!(kept.get(&1), None);
        kept.remove(&0);
        assert_eq!(kept.get(&0), None);
    }
}
