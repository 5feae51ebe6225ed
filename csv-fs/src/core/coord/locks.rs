//! File locks: given, queued for, dropped, and taken in again after a takeover. The table is [`crate::core::locks`].
//!
//! A lock is given only as the answer to a call, at once; nothing here waits. Who cannot have it and wants to wait is queued
//! and told by a callback when to ask again. Locks are not durable: each client names its own to a new coordinator, in
//! parts, before it counts as come back; grace, which nobody gets a lock in, lasts until then.
//!
//! # Interleavings that are harmless, and by what
//! - *The answer that gives a lock is lost with its connection*: the call is sent again in its slot and runs again; an owner
//!   is never in its own way, so it is given once and held once. If its caller has gone meanwhile, the client undoes it
//!   ([`LockRequest::Restore`]) when it is answered. What others are told until then: `doubts`.
//! - *A waiter gives up while its turn is being called*: a call gives nothing; the client answers `NotHeld`, and the next
//!   one is called.
//! - *A waiter is killed while the coordinator moves*: the queue is not handed on. Whoever still waits asks again after
//!   it has bound, also to the same coordinator: a bind empties the client's part of the queue.
//! - *Two takeovers in a row*: parts are told under the bind that announced them, and only under that counted. Prevents: a
//!   part composed for the first of them comes late at the second, and brings back what was dropped since.
//! - *A part of what is held is sent again after it was complete*: it is not looked at. Prevents the same.
//! - *RELEASE crosses a lock that is still being asked for*: a lock is taken only through a handle that is open.
//!   Prevents: nobody would ever drop it.
//! - *A planned move with waiters*: whoever waits for an answer is sent to the next coordinator (`StaleEpoch`); whoever is
//!   queued asks there.
//! - *A circle over nodes*: all owners are in one table, so the last to close it is refused, also after a takeover.
//! - *A client is evicted*: its locks are given away with everything else of it, after its fence; it stops waiting at once.

use rustix::io::Errno;

use super::Coord;
use super::callbacks::CallbackFor;
use super::calls::errno;
use super::doubts::{Doubts, Way};
use super::event::{CallbackId, OpId};
use super::session::Life;
use crate::core::locks::{Lock, LockTable, Owner, Refused, Wait, Waiters};
use crate::core::rules::Rule;
use crate::core::time::Now;
use crate::proto::{
    Answer, ByteRange, CallbackAnswer, CallbackAsk, LockHolder, LockMode, LockReply, LockRequest, LockSpace, OwnLock,
    PlacedLock, Reassert, Reply, WaitId,
};
use crate::types::*;

/// Locks of one client, counted as stretches. At about 200 bytes each this bounds what one client can cost the coordinator
/// to 50 MiB; beyond it is ENOLCK.
const LOCKS_PER_CLIENT: usize = 262_144;
/// Waiters of a volume: each is a thread of a program that is stuck in a system call; beyond it is ENOLCK.
const WAITERS: usize = 65_536;

/// Held and waited for.
#[derive(Debug, Default)]
pub(super) struct Locks {
    pub(super) table: LockTable,
    waiters: Waiters,
    pub(super) doubts: Doubts,
    /// How many were given.
    gifts: u64,
}

/// What became of the wish for a lock.
#[derive(PartialEq)]
enum Taken {
    /// It is answered.
    Answer(Answer),
    /// This is in the way, and its client may not have heard of it.
    Doubtful(Lock),
}

impl Coord {
    /// Locks held, and waiters.
    pub fn locks(&self) -> (usize, usize) {
        (self.locks.table.count(), self.locks.waiters.count())
    }

    /// What finding conflicts has cost so far, see [`LockTable::looks`].
    pub fn lock_looks(&self) -> u64 {
        self.locks.table.looks()
    }

    /// Everything a client holds. For oracles.
    pub fn locks_of(&self, client: ClientId) -> Vec<PlacedLock> {
        let placed = |(ino, space, lock): (InodeNo, LockSpace, Lock)| PlacedLock { ino, space, lock: lock.own() };
        self.locks.table.of_client(client).map(placed).collect()
    }

    pub(super) fn lock_request(&mut self, op: OpId, client: ClientId, ask: LockRequest) {
        let answer = match ask {
            _ if !makes_sense(&ask) => errno(Errno::INVAL),
            LockRequest::Take { ino, space, lock, wait, weaken } => {
                let owner = Owner { client, id: lock.owner };
                let before: Vec<Lock> = self.locks.table.held_in(ino, space, owner, lock.range).collect();
                let taken = self.take_lock(client, ino, space, lock, wait);
                let stays = |l: &Lock| l.mode == LockMode::Write && space == LockSpace::Record;
                if !weaken && taken == Taken::Answer(Answer::Ok(Reply::Done)) {
                    before.into_iter().filter(stays).for_each(|l| self.locks.table.put(ino, space, l));
                }
                // A lock that became weaker, a flock let go of for another, a place in the queue given up.
                self.call_waiters(ino, lock.range);
                match taken {
                    Taken::Answer(answer) => answer,
                    Taken::Doubtful(gift) => return self.doubt(op, ino, space, lock.range, gift),
                }
            }
            LockRequest::Test { ino, space, lock } => {
                let other = match self.way_of(ino, space, &Lock::of(client, lock)) {
                    Way::Free => None,
                    Way::Taken(other) => Some(holder(&other)),
                    Way::Doubtful(gift) => return self.doubt(op, ino, space, lock.range, gift),
                };
                Answer::Ok(Reply::Locks(LockReply::InTheWay(other)))
            }
            LockRequest::Drop { ino, space, owner, range } => {
                self.locks.table.clear(ino, space, Owner { client, id: owner }, range);
                self.given_up(ino, range);
                Answer::Ok(Reply::Done)
            }
            LockRequest::Restore { ino, space, owner, range, held } => {
                self.locks.table.clear(ino, space, Owner { client, id: owner }, range);
                let placed = held.into_iter().map(|lock| PlacedLock { ino, space, lock }).collect();
                let refused = self.take_in_locks(client, placed);
                self.given_up(ino, range);
                Answer::Ok(Reply::Locks(LockReply::Refused(refused)))
            }
            LockRequest::Forget { wait } => {
                self.stop_waiting(client, wait);
                Answer::Ok(Reply::Done)
            }
            LockRequest::Held { bind, locks, last } => self.locks_held(client, bind, locks, last),
        };
        self.finish(op, answer);
    }

    fn take_lock(
        &mut self,
        client: ClientId,
        ino: InodeNo,
        space: LockSpace,
        lock: OwnLock,
        wait: Option<WaitId>,
    ) -> Taken {
        let open = self.sessions.get(&client).and_then(|s| s.opens.get(&lock.handle));
        if open != Some(&ino) {
            return Taken::Answer(errno(Errno::BADF));
        }
        let Locks { table, waiters, gifts, .. } = &mut self.locks;
        if table.count_of(client) >= LOCKS_PER_CLIENT || (wait.is_some() && waiters.count() >= WAITERS) {
            return Taken::Answer(errno(Errno::NOLCK));
        }
        *gifts += 1;
        let lock = Lock { gift: *gifts, ..Lock::of(client, lock) };
        let answer = match wait {
            None => {
                table.lets_go_first(ino, space, &lock);
                match self.way_of(ino, space, &lock) {
                    Way::Free => {
                        self.locks.table.put(ino, space, lock);
                        Answer::Ok(Reply::Done)
                    }
                    Way::Taken(other) => {
                        self.lock_is_wanted(other.owner.client);
                        errno(Errno::AGAIN)
                    }
                    Way::Doubtful(gift) => return Taken::Doubtful(gift),
                }
            }
            Some(id) => match waiters.acquire(table, id, Wait { ino, space, lock }) {
                Ok(()) => Answer::Ok(Reply::Done),
                Err(Refused::Blocked) => Answer::Ok(Reply::Locks(LockReply::Waits)),
                Err(Refused::Deadlock) => errno(Errno::DEADLK),
            },
        };
        Taken::Answer(answer)
    }

    /// Somebody was refused a lock. Whoever waits for one is looked for when it matters.
    fn lock_is_wanted(&mut self, holder: ClientId) {
        if let Some(session) = self.sessions.get_mut(&holder) {
            session.lock_wanted |= session.absent_since.is_some();
        }
    }

    pub(super) fn holds_locks(&self, client: ClientId) -> bool {
        self.locks.table.count_of(client) > 0
    }

    /// Whether somebody wants what this client, which is away, holds.
    pub(super) fn holds_locks_up(&self, client: ClientId) -> bool {
        let Locks { table, waiters, doubts, .. } = &self.locks;
        self.holds_locks(client)
            && (self.sessions.get(&client).is_some_and(|s| s.lock_wanted)
                || waiters.wait_for(table, client)
                || doubts.wait_for(client))
    }

    /// Takes in what a client says it holds; what cannot be.
    fn take_in_locks(&mut self, client: ClientId, locks: Vec<PlacedLock>) -> Vec<PlacedLock> {
        let mut refused = Vec::new();
        for placed in locks {
            let PlacedLock { ino, space, lock } = placed;
            let open = self.sessions.get(&client).and_then(|s| s.opens.get(&lock.handle)) == Some(&ino);
            let room = self.locks.table.count_of(client) < LOCKS_PER_CLIENT;
            if !open || !room || self.locks.table.set(ino, space, Lock::of(client, lock)).is_err() {
                refused.push(placed);
            }
        }
        refused
    }

    /// A part of what a client holds after a takeover.
    fn locks_held(&mut self, client: ClientId, bind: Bind, locks: Vec<PlacedLock>, last: bool) -> Answer {
        let mut refused = Vec::new();
        let due = self.sessions.get(&client).is_some_and(|s| s.locks_due == Some(bind));
        if due {
            refused = self.take_in_locks(client, locks);
            if last {
                if let Some(session) = self.sessions.get_mut(&client) {
                    session.locks_due = None;
                }
                self.came_back(client);
            }
        }
        Answer::Ok(Reply::Locks(LockReply::Refused(refused)))
    }

    /// A bind is about to be answered. The locks of a client that this reign does not know yet come after it; whoever
    /// waited asks again. Whether the client has come back with this bind.
    pub(super) fn locks_at_bind(&mut self, client: ClientId, bind: Bind, reassert: &[Reassert]) -> bool {
        let follow = reassert.contains(&Reassert::LocksFollow) && self.rules.has(Rule::GraceWaitsForLocks);
        let Some(session) = self.sessions.get_mut(&client) else { return true };
        let due = !session.known || session.locks_due.is_some();
        session.locks_due = (follow && due).then_some(bind);
        let back = session.locks_due.is_none();
        self.drop_waiters(client);
        back
    }

    /// RELEASE: what was taken through a handle ends, nobody waits through it.
    pub(super) fn locks_released(&mut self, client: ClientId, handle: HandleId) {
        let Some(ino) = self.sessions.get(&client).and_then(|s| s.opens.get(&handle)).copied() else { return };
        if !self.rules.has(Rule::ReleaseEndsLocks) {
            return;
        }
        let left = self.locks.waiters.released(ino, client, handle);
        if self.locks.table.released(ino, client, handle) || !left.is_empty() {
            self.given_up(ino, ByteRange::ALL);
        }
    }

    /// A client is on its way out, or binds anew.
    pub(super) fn drop_waiters(&mut self, client: ClientId) {
        for wait in self.locks.waiters.client_gone(client) {
            self.call_waiters(wait.ino, wait.lock.range);
        }
    }

    /// A client is gone, after its fence or its goodbye.
    pub(super) fn drop_locks(&mut self, client: ClientId) {
        self.drop_waiters(client);
        for ino in self.locks.table.client_gone(client) {
            self.given_up(ino, ByteRange::ALL);
        }
    }

    fn stop_waiting(&mut self, client: ClientId, id: WaitId) {
        if let Some(wait) = self.locks.waiters.leave(client, id) {
            self.call_waiters(wait.ino, wait.lock.range);
        }
    }

    /// Something of a range of a file was given up.
    fn given_up(&mut self, ino: InodeNo, range: ByteRange) {
        self.locks.doubts.touched(ino, range, self.now);
        self.call_waiters(ino, range);
    }

    /// Something about a range of a file changed: calls those whose turn it is.
    fn call_waiters(&mut self, ino: InodeNo, range: ByteRange) {
        let Locks { table, waiters, .. } = &mut self.locks;
        for (client, wait) in waiters.ready(table, ino, range, self.now) {
            self.call_waiter(client, wait);
        }
    }

    /// Without a connection nobody is told; the client asks again when it has bound.
    fn call_waiter(&mut self, client: ClientId, wait: WaitId) -> Option<CallbackId> {
        self.send_callback(client, CallbackFor::Lock { client, wait }, CallbackAsk::LockReady { wait })
    }

    pub(super) fn lock_call_answered(&mut self, client: ClientId, wait: WaitId, answer: Option<CallbackAnswer>) {
        if answer == Some(CallbackAnswer::NotHeld) {
            self.stop_waiting(client, wait);
        }
    }

    /// Those whose turn it was and who have not come are called again, and others too.
    pub(super) fn locks_overdue(&mut self) {
        for (client, id, wait) in self.locks.waiters.overdue(self.now) {
            if self.sessions.get(&client).is_none_or(|s| s.life != Life::Live) {
                self.stop_waiting(client, id);
                continue;
            }
            self.call_waiter(client, id);
            self.call_waiters(wait.ino, wait.lock.range);
        }
    }

    pub(super) fn lock_deadline(&self) -> Option<Now> {
        self.locks.waiters.next().into_iter().chain(self.locks.doubts.next()).min()
    }

    #[cfg(test)]
    pub(super) fn check_locks(&self) {
        self.locks.table.check();
    }
}

/// Whether every range in it is one. What a peer sends may be anything.
fn makes_sense(ask: &LockRequest) -> bool {
    let whole = |space: LockSpace, range: ByteRange| space == LockSpace::Record || range == ByteRange::ALL;
    let one = |space: LockSpace, range: ByteRange| range.is_valid() && whole(space, range);
    match ask {
        LockRequest::Take { space, lock, .. } | LockRequest::Test { space, lock, .. } => one(*space, lock.range),
        LockRequest::Drop { space, range, .. } => one(*space, *range),
        LockRequest::Restore { space, owner, range, held, .. } => {
            let inside = |l: &OwnLock| l.range.is_valid() && l.range.intersect(*range) == l.range && l.owner == *owner;
            one(*space, *range) && held.iter().all(inside)
        }
        LockRequest::Forget { .. } => true,
        LockRequest::Held { locks, .. } => locks.iter().all(|l| one(l.space, l.lock.range)),
    }
}

pub(super) fn holder(lock: &Lock) -> LockHolder {
    LockHolder { node: lock.owner.client.node, pid: lock.pid, range: lock.range, mode: lock.mode }
}
