//! The oracle of refusals: whoever was refused a lock without waiting was refused for one that a program had at a moment between
//! its call and its answer.
//!
//! It knows only what programs asked and were told. A lock that was given may have been there from its call on, and is until the call
//! that gives it up has its answer; a call that failed otherwise (interrupted, evicted) may have had it until then. So a refusal is
//! explained by a lock that was there, or by a call that has no answer yet: the latter is looked at again when that has one, and
//! if it, too, was refused, and nobody else is left, nobody had what the first was refused for.

use std::collections::{BTreeMap, BTreeSet};

use super::{ByteRange, Lock, Mode, Owner, Space};
use crate::types::{ClientId, InodeNo};

/// A byte of a file, in a space.
type Byte = (Space, InodeNo, u64);

/// Bytes from this one on are left out: programs that are watched lock the first few.
const SPAN: u64 = 8;

/// While it is held.
const HELD: u64 = u64::MAX;

/// A call without an answer.
#[derive(Clone, Copy, Debug)]
struct Asking {
    since: u64,
    ino: InodeNo,
    space: Space,
    lock: Lock,
}

/// A refusal that only calls without an answer can explain.
#[derive(Debug)]
struct Open {
    said: String,
    perhaps: BTreeSet<Owner>,
}

/// What is remembered. Times are anything that only grows.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// Until when an owner had a byte.
    had: BTreeMap<Byte, BTreeMap<(Owner, Mode), u64>>,
    asking: BTreeMap<Owner, Asking>,
    open: Vec<Open>,
}

impl Refusals {
    /// A program asks for a lock; it asks for one at a time.
    pub(crate) fn asks(&mut self, now: u64, ino: InodeNo, space: Space, lock: Lock) {
        self.asking.insert(lock.owner, Asking { since: now, ino, space, lock });
    }

    /// It is given.
    pub(crate) fn given(&mut self, now: u64, owner: Owner) {
        let Some(Asking { ino, space, lock, .. }) = self.asking.remove(&owner) else { return };
        for byte in bytes(space, ino, lock.range) {
            let of = self.had.entry(byte).or_default();
            of.iter_mut().filter(|((o, _), _)| *o == owner).for_each(|(_, until)| *until = now.min(*until));
            of.insert((owner, lock.mode), HELD);
        }
        self.open.retain(|o| !o.perhaps.contains(&owner));
    }

    /// It is refused. What cannot be, of this refusal or of one before.
    pub(crate) fn refused(&mut self, now: u64, owner: Owner) -> Option<String> {
        let asked = self.asking.remove(&owner)?;
        let Asking { since, ino, space, lock } = asked;
        if space == Space::Whole {
            // It has let go first.
            self.dropped(now, ino, space, owner, lock.range);
        }
        for open in &mut self.open {
            open.perhaps.remove(&owner);
        }
        let of = |byte: Byte| self.had.get(&byte).into_iter().flatten();
        let in_the_way = |o: Owner, mode: Mode| o != owner && (mode == Mode::Write || lock.mode == Mode::Write);
        let mut had = bytes(space, ino, lock.range).flat_map(of);
        if !had.any(|((o, mode), until)| in_the_way(*o, *mode) && *until >= since) {
            let at_once = self.asking.values().filter(|a| (a.ino, a.space) == (ino, space) && a.lock.conflicts(&lock));
            let perhaps = at_once.map(|a| a.lock.owner).collect();
            let said =
                format!("{lock:?} of {ino} ({space:?}), asked for at {since}, was refused at {now}; nobody had it");
            self.open.push(Open { said, perhaps });
        }
        let at = self.open.iter().position(|o| o.perhaps.is_empty())?;
        Some(self.open.swap_remove(at).said)
    }

    /// It failed otherwise.
    pub(crate) fn failed(&mut self, now: u64, owner: Owner) {
        let Some(Asking { ino, space, lock, .. }) = self.asking.remove(&owner) else { return };
        for byte in bytes(space, ino, lock.range) {
            let until = self.had.entry(byte).or_default().entry((owner, lock.mode)).or_insert(now);
            *until = now.max(*until);
        }
        self.open.retain(|o| !o.perhaps.contains(&owner));
    }

    /// An owner was told that it has given up what it had in a range.
    pub(crate) fn dropped(&mut self, now: u64, ino: InodeNo, space: Space, owner: Owner, range: ByteRange) {
        for byte in bytes(space, ino, range) {
            let of = self.had.get_mut(&byte).into_iter().flatten();
            of.filter(|((o, _), _)| *o == owner).for_each(|(_, until)| *until = now.min(*until));
        }
    }

    /// The incarnation of a client is over; what it held is in nobody's way from that time on.
    pub(crate) fn ended(&mut self, at: u64, client: ClientId) {
        let asking: Vec<Owner> = self.asking.keys().filter(|o| o.client == client).copied().collect();
        asking.into_iter().for_each(|owner| self.failed(at, owner));
        let of_client = self.had.values_mut().flatten().filter(|((o, _), _)| o.client == client);
        of_client.for_each(|(_, until)| *until = at.min(*until));
    }
}

fn bytes(space: Space, ino: InodeNo, range: ByteRange) -> impl Iterator<Item = Byte> {
    (range.start..range.end.min(SPAN)).map(move |at| (space, ino, at))
}

#[cfg(test)]
mod tests {
    use block::shared::{Incarnation, NodeId};

    use super::*;
    use crate::proto::{LockSpace, OwnLock};
    use crate::types::HandleId;

    const INO: InodeNo = InodeNo(5);

    fn lock(node: u8, mode: Mode) -> Lock {
        let client = ClientId { node: NodeId::new(node).expect("a node"), incarnation: Incarnation(1) };
        let range = ByteRange { start: 0, end: 2 };
        Lock::of(client, OwnLock { owner: 7, handle: HandleId(1), pid: 1, range, mode })
    }

    fn asks(r: &mut Refusals, now: u64, node: u8, mode: Mode) -> Owner {
        r.asks(now, INO, LockSpace::Record, lock(node, mode));
        lock(node, mode).owner
    }

    /// The interleaving that it was written for: a gift that nobody heard of refuses another, and is given to a third.
    #[test]
    fn a_refusal_is_explained_by_a_lock_of_its_time_or_by_none() {
        let mut r = Refusals::default();
        let a = asks(&mut r, 1, 1, Mode::Write);
        let b = asks(&mut r, 2, 2, Mode::Write);
        assert_eq!(r.refused(3, b), None, "a may be given it yet");
        let c = asks(&mut r, 4, 3, Mode::Write);
        r.given(5, c);
        assert!(r.refused(6, a).is_some_and(|said| said.contains("asked for at 2")));

        let b = asks(&mut r, 7, 2, Mode::Read);
        assert_eq!(r.refused(8, b), None, "c has it");
        let b = asks(&mut r, 9, 2, Mode::Read);
        r.dropped(10, INO, LockSpace::Record, c, ByteRange::ALL);
        assert_eq!(r.refused(11, b), None, "c had it");
        let b = asks(&mut r, 12, 2, Mode::Read);
        assert!(r.refused(13, b).is_some(), "c had given it up before");
    }

    #[test]
    fn whoever_fails_may_have_had_it_until_then_and_an_end_ends_everything() {
        let mut r = Refusals::default();
        let (a, b) = (asks(&mut r, 1, 1, Mode::Write), asks(&mut r, 2, 2, Mode::Write));
        assert_eq!(r.refused(3, b), None);
        r.failed(4, a);
        let b = asks(&mut r, 4, 2, Mode::Write);
        assert_eq!(r.refused(5, b), None);
        let b = asks(&mut r, 5, 2, Mode::Write);
        assert!(r.refused(6, b).is_some());
        let a = asks(&mut r, 7, 1, Mode::Read);
        r.given(8, a);
        let b = asks(&mut r, 9, 2, Mode::Read);
        assert!(r.refused(10, b).is_some(), "readers are in no reader's way");
        r.ended(11, a.client);
        let b = asks(&mut r, 12, 2, Mode::Write);
        assert!(r.refused(13, b).is_some());
    }
}
