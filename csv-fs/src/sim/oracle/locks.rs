//! Who holds which lock, as programs of incarnations that may still act were told; and whether whoever was refused one without
//! waiting was refused for one that somebody had ([`crate::core::locks::refusals`]).

use std::collections::BTreeMap;

use super::{Invariant, Oracle};
use crate::core::locks::{Lock, Owner};
use crate::proto::{ByteRange, LockMode, LockSpace, OwnLock};
use crate::types::*;

/// A lock that a program asks for.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) struct Wanted {
    pub(in crate::sim) client: ClientId,
    pub(in crate::sim) ino: InodeNo,
    pub(in crate::sim) space: LockSpace,
    pub(in crate::sim) lock: OwnLock,
}

impl Wanted {
    fn owner(&self) -> Owner {
        Owner { client: self.client, id: self.lock.owner }
    }
}

/// A byte of a file, in one of the two spaces.
type Byte = (LockSpace, InodeNo, u64);
/// Who holds a byte, and for what.
type Holders = BTreeMap<(ClientId, u64), LockMode>;

/// Bytes, and who believes to hold them.
#[derive(Debug, Default)]
pub(super) struct Belief(BTreeMap<Byte, Holders>);

/// What an owner had in the bytes that it asks for.
pub(in crate::sim) type Had = Vec<(u64, LockMode)>;

impl Oracle {
    /// A program asks for a lock. From here on it counts only on what it asked for where it had more; a `flock` of the other kind
    /// lets go first.
    pub(in crate::sim) fn lock_wanted(&mut self, wanted: &Wanted, span: u64, now: u64) -> Had {
        let Wanted { client, ino, space, lock } = *wanted;
        self.refusals.asks(now, ino, space, Lock::of(client, lock));
        let who = (client, lock.owner);
        let mut had = Vec::new();
        for at in lock.range.start..lock.range.end.min(span) {
            let Some(holders) = self.locked.0.get_mut(&(space, ino, at)) else { continue };
            let Some(mode) = holders.get(&who).copied() else { continue };
            match space {
                LockSpace::Record => {
                    had.push((at, mode));
                    if lock.mode == LockMode::Read {
                        holders.insert(who, LockMode::Read);
                    }
                }
                LockSpace::Whole if mode != lock.mode => drop(holders.remove(&who)),
                LockSpace::Whole => {}
            }
        }
        had
    }

    /// It is given.
    pub(in crate::sim) fn lock_given(&mut self, wanted: &Wanted, span: u64, now: u64) {
        self.refusals.given(now, wanted.owner());
        let range = wanted.lock.range;
        (range.start..range.end.min(span)).for_each(|at| self.lock_believed(wanted, at, wanted.lock.mode));
    }

    /// It is not: its owner has what it had. `refused`: since another has it. What an evicted client, which does not know it yet, is told
    /// by a coordinator that does not know either that it was succeeded, counts as nothing.
    pub(in crate::sim) fn lock_not_given(&mut self, wanted: &Wanted, had: Had, refused: bool, now: u64) {
        let unexplained = match refused && !self.is_evicted(wanted.client) {
            true => self.refusals.refused(now, wanted.owner()),
            false => {
                self.refusals.failed(now, wanted.owner());
                None
            }
        };
        if let Some(what) = unexplained {
            self.fail(Invariant::OneHolder, what);
        }
        had.into_iter().for_each(|(at, mode)| self.lock_believed(wanted, at, mode));
    }

    /// An owner gives up what it has in a range, or is about to.
    pub(in crate::sim) fn lock_dropped(&mut self, client: ClientId, owner: u64, range: ByteRange) {
        for ((_, _, at), holders) in &mut self.locked.0 {
            if range.start <= *at && *at < range.end {
                holders.remove(&(client, owner));
            }
        }
    }

    /// An owner has given up what it had in a range.
    pub(in crate::sim) fn lock_let_go(&mut self, of: (InodeNo, LockSpace), owner: Owner, range: ByteRange, now: u64) {
        self.refusals.dropped(now, of.0, of.1, owner, range);
    }

    /// The programs of a client act no more: they were killed with its process, or were told of its eviction.
    pub(in crate::sim) fn lockers_gone(&mut self, client: ClientId) {
        self.locked.0.values_mut().for_each(|holders| holders.retain(|(c, _), _| *c != client));
    }

    /// A client says that locks were taken from it: that must not happen to one that was not evicted.
    pub(in crate::sim) fn locks_lost(&mut self, client: ClientId, handles: &[HandleId]) {
        self.app_error(client, &format!("locks taken through {handles:?} are lost"));
    }

    fn lock_believed(&mut self, wanted: &Wanted, at: u64, mode: LockMode) {
        let Wanted { client, ino, space, lock } = *wanted;
        if self.is_evicted(client) {
            return;
        }
        let holders = self.locked.0.entry((space, ino, at)).or_default();
        holders.insert((client, lock.owner), mode);
        if holders.len() > 1 && holders.values().any(|m| *m == LockMode::Write) {
            let what = format!("byte {at} of {ino} ({space:?}) is held by {holders:?}");
            self.fail(Invariant::OneHolder, what);
        }
    }
}
