//! Which of the messages between nodes two of them speak: a rolling upgrade has nodes of two versions for a while.
//!
//! Pure. HELLO tells the minor versions that a program speaks, oldest and newest; two nodes speak the newest that both know.
//! A program speaks its own and that of the release before, so a cluster is upgraded node by node, and no release may be left
//! out. Who has nothing in common is refused by a sentence that names the older node. What all nodes must take part in
//! waits until each of them has been heard to speak it.
//!
//! `daemon --compat` makes a program speak only what the release before spoke.

use csv_fs::proto::{PROTO_MINORS, PROTO_VERSION};
use serde::{Deserialize, Serialize};

/// Nodes tell whether they are drained, are drained for one another, and take a new list of nodes.
pub(super) const OPERATORS: u16 = 1;

/// What a program speaks. One that does not say speaks the first only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Minors {
    oldest: u16,
    newest: u16,
}

impl Minors {
    /// This program's; with `compat` those of the release before.
    pub(super) fn own(compat: bool) -> Minors {
        let (oldest, newest) = PROTO_MINORS;
        Minors { oldest, newest: if compat { newest.saturating_sub(1).max(oldest) } else { newest } }
    }

    /// The newest it speaks.
    pub(super) fn newest(self) -> u16 {
        self.newest
    }

    /// What it speaks with another; `None` if they have nothing in common.
    pub(super) fn with(self, other: Minors) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }

    /// Whether it is the older of two that have nothing in common.
    pub(super) fn is_older_than(self, other: Minors) -> bool {
        self.newest < other.newest
    }
}

impl std::fmt::Display for Minors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.oldest == self.newest {
            true => f.write_str(&shown(self.newest)),
            false => write!(f, "{} to {}", shown(self.oldest), shown(self.newest)),
        }
    }
}

/// A minor version as people read it: `2.1`.
pub(super) fn shown(minor: u16) -> String {
    format!("{PROTO_VERSION}.{minor}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minors(oldest: u16, newest: u16) -> Minors {
        Minors { oldest, newest }
    }

    #[test]
    fn two_nodes_speak_the_newest_that_both_know_whoever_asks() {
        for (a, b, both) in [
            (minors(3, 4), minors(3, 4), Some(4)),
            (minors(3, 4), minors(2, 3), Some(3)),
            (minors(3, 4), minors(4, 5), Some(4)),
            (minors(3, 4), minors(1, 2), None),
            (minors(3, 4), minors(5, 6), None),
            (minors(0, 1), Minors::default(), Some(0)),
        ] {
            assert_eq!((a.with(b), b.with(a)), (both, both), "{a} and {b}");
        }
        assert!(minors(1, 2).is_older_than(minors(3, 4)) && !minors(3, 4).is_older_than(minors(1, 2)));
    }

    /// N speaks N-1: what is promised to whoever upgrades.
    #[test]
    fn this_program_speaks_its_own_version_and_that_of_the_release_before() {
        let (own, before) = (Minors::own(false), Minors::own(true));
        assert_eq!(own.newest() - before.newest(), 1);
        assert_eq!(own.with(before), Some(before.newest()));
        assert_eq!(own.to_string(), "2.0 to 2.1");
        assert_eq!(before.to_string(), "2.0");
    }
}
