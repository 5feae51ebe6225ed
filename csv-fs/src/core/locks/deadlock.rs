//! Circles of owners that wait for one another.
//!
//! Looked for when somebody begins to wait, from what is held and who waits then; nothing is stored. `flock` locks take no
//! part: Linux does not look for circles among them either.

use std::collections::BTreeSet;

use super::{LockTable, Owner, Space, Wait, Waiters};

/// Whether the owner of `wanted`, were it to wait, would wait for itself.
pub(super) fn closes_circle(table: &LockTable, waiters: &Waiters, wanted: &Wait) -> bool {
    if wanted.space == Space::Whole {
        return false;
    }
    let me = wanted.lock.owner;
    let mut seen: BTreeSet<Owner> = BTreeSet::new();
    let mut todo: Vec<Owner> = blockers(table, wanted).collect();
    while let Some(owner) = todo.pop() {
        if owner == me {
            return true;
        }
        if seen.insert(owner) {
            let waits = waiters.of_owner(owner).filter(|w| w.space == Space::Record);
            todo.extend(waits.flat_map(|wait| blockers(table, wait)));
        }
    }
    false
}

fn blockers<'a>(table: &'a LockTable, wait: &'a Wait) -> impl Iterator<Item = Owner> + 'a {
    table.conflicts(wait.ino, wait.space, &wait.lock).map(|lock| lock.owner)
}
