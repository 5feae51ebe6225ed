//! `io_timeout`: a program's request that waits for longer gets EIO, but only once it cannot be executed any more. Until
//! then it waits longer, and whoever asks is told what for ([`Overdue`]).
//!
//! # Where a request of a program may be, and what EIO needs there
//!
//! | where | may it still be executed? | when its time is over |
//! |---|---|---|
//! | with the disk (a direct write) | yes: a path that heals lets it land | waits. The route machine withdraws it; what comes back then is redirected, or is found here |
//! | redirected, never sent | no | EIO at once |
//! | redirected, sent | yes: by the coordinator that it was sent to | waits until a later bind is answered (rule `BindCancelsOlder`), and is not sent again; or for its answer |
//! | a call that has no slot yet, is held back, or was never sent | no | EIO at once; its number was not used |
//! | a call that was sent and changes something | yes: by its coordinator, or by the next, which it is sent to again | *withdrawn*: see below |
//! | a read, a flush, a call that changes nothing, or nothing that its program asked for | it makes no difference | EIO at once; what its answer brings (a layout, an open file, space) goes back |
//! | comes between two lives of its node, a file lock too | no: it has not begun | EIO at once (the shell) |
//! | waits here, for what another request of this node has or does | no | EIO at once (the shell) |
//! | waits for a file lock, or gives one up | | never: a lock is waited for as long as it takes, and an unlock is due whatever became of its program. One that is *not* waited for: EIO, and what is given after all is undone |
//!
//! What the node does on its own account (commits, times, releases, space) has no such bound.
//!
//! # Withdrawn
//! After the next bind something else that changes nothing (STATFS) is sent in the call's slot under the call's number. The
//! coordinator goes by slot and number. It has executed the call: it answers with the stored answer, and the program is told
//! what really became of it. It is at it: that comes when it is done. It has not: it executes the other, the number is used,
//! and the call can never be executed; the answer, which is of the other kind, is the proof, and the program gets EIO.
//! No coordinator needs to know of this, so one of an older version does as well.
//!
//! # Interleavings
//! - *Only after a bind.* Prevents: both are on their way over one connection, and overtake one another: the other one is
//!   executed, its answer heard, the program told EIO, and then the call comes and is the same number once more, which left
//!   no answer: it is executed. What comes under an older bind is refused, and a reign that is over executes nothing.
//! - *A coordinator freezes with a call in its socket, the time is over, it wakes.* The call was not given up: the
//!   coordinator executes it and its answer counts.
//! - *The same, but its process ends and another takes over*: bound there, the call is sent as the other one.
//! - *The coordinator that executed the other one dies before its answer is heard*: the next knows nothing of the number,
//!   and executes the other one again.
//! - *A redirected write was sent, its connection breaks, the time is over, the next bind waits for the write at the disk*:
//!   the bind is answered when the write has ended, whichever way. Then it is not sent again. It may have been executed, as
//!   after any EIO; it will not be later.
//! - *A direct write hangs in the fabric and its withdrawal cannot be proved*: no EIO, however long.
//!   Prevents: its program does what it does after a failure, the path heals, and the write lands on top of that.
//! - *The machine slept, or the daemon was stopped, for longer than `io_timeout`*: time is counted in sweeps that this
//!   process has made, so that time in which it did not run is not held against anybody.

use std::time::Duration;

use super::Client;
use super::calls::changes;
use super::event::{CallFailure, Effect, IoId, Ticket};
use super::slots::InSlot;

/// Sweeps in one `io_timeout`: a request is looked at that often, and answered late by that part at most.
const SWEEPS: u32 = 16;
/// Bounds of the time between two.
const SHORTEST: Duration = Duration::from_millis(20);
/// See [`SHORTEST`].
const LONGEST: Duration = Duration::from_secs(1);

/// The number of the last sweep.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Sweep(pub u64);

/// How long a program's request waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    every: Duration,
    sweeps: u64,
}

impl Patience {
    /// So long; for ever if it is zero.
    pub fn of(io_timeout: Duration) -> Option<Patience> {
        if io_timeout.is_zero() {
            return None;
        }
        let every = (io_timeout / SWEEPS).clamp(SHORTEST, LONGEST);
        let sweeps = u64::try_from(io_timeout.as_millis().div_ceil(every.as_millis())).unwrap_or(u64::MAX);
        Some(Patience { every, sweeps })
    }

    /// The time between two sweeps.
    pub fn every(self) -> Duration {
        self.every
    }

    /// Sweeps that make up the whole time.
    pub fn sweeps(self) -> u64 {
        self.sweeps
    }

    /// When something began that is so old now.
    pub fn began(self, now: Sweep, age: Duration) -> Sweep {
        let sweeps = u64::try_from(age.as_millis() / self.every.as_millis()).unwrap_or(u64::MAX);
        Sweep(now.0.saturating_sub(sweeps))
    }

    /// Whether what began then has waited long enough: never sooner. What begins just before a sweep has that one for nothing.
    pub fn is_over(self, began: Sweep, now: Sweep) -> bool {
        now.0.saturating_sub(began.0) > self.sweeps
    }
}

/// Requests whose time is over and which may still be executed, by where.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Overdue {
    /// Writes that the disk neither completes nor gives back.
    pub at_disk: u64,
    /// Redirected writes that a coordinator was sent.
    pub redirected: u64,
    /// Calls that a coordinator was sent.
    pub calls: u64,
}

impl Overdue {
    /// All of them.
    pub fn count(self) -> u64 {
        self.at_disk + self.redirected + self.calls
    }

    fn kinds(self) -> [bool; 3] {
        [self.at_disk > 0, self.redirected > 0, self.calls > 0]
    }
}

/// What of it people are told, and when: a kind of waiting when it begins, requests that got EIO at once and then once in
/// `io_timeout`. Prevents: an outage of an hour is a line a second.
#[derive(Debug, Default)]
pub struct Story {
    waits: [bool; 3],
    untold: u64,
    /// No more is told before that sweep.
    next: Sweep,
}

impl Story {
    /// After each sweep: what is overdue now, and how many got EIO since the last. What is to be told of either.
    pub fn sweep(
        &mut self,
        patience: Patience,
        now: Sweep,
        overdue: Overdue,
        ended: u64,
    ) -> (Option<Overdue>, Option<u64>) {
        let kinds = overdue.kinds();
        let begins = kinds.iter().zip(self.waits).any(|(is, was)| *is && !was);
        self.waits = kinds;
        self.untold += ended;
        let tells = self.untold > 0 && now >= self.next;
        if tells {
            self.next = Sweep(now.0.saturating_add(patience.sweeps));
        }
        (begins.then_some(overdue), tells.then(|| std::mem::take(&mut self.untold)))
    }
}

impl Client {
    /// These have waited long enough. Said again in each sweep for as long as they wait.
    pub(super) fn expired(&mut self, calls: &[Ticket], ios: &[IoId], out: &mut Vec<Effect>) {
        for ticket in calls {
            self.expire_call(*ticket, out);
        }
        let bound = self.binder.bound().is_some();
        for io in ios {
            self.redirects.expire(*io, bound, out);
        }
    }

    fn expire_call(&mut self, ticket: Ticket, out: &mut Vec<Effect>) {
        if self.expire_lock(ticket, out) {
            return;
        }
        let held_back = self.held_back.iter().position(|(t, _)| *t == ticket);
        let gone = held_back.map(|at| self.held_back.remove(at)).is_some();
        if gone || self.slots.expire(ticket, changes) {
            self.forget_origin(ticket);
            out.push(Effect::Reply { ticket, result: Err(CallFailure::Expired) });
            self.let_held_back_go(out);
        }
    }

    /// The coordinator has executed something else under its number: it never will be.
    pub(super) fn was_withdrawn(&self, done: &InSlot, out: &mut Vec<Effect>) {
        if !done.abandoned {
            out.push(Effect::Reply { ticket: done.ticket, result: Err(CallFailure::Expired) });
        }
    }

    /// What has waited long enough and may still be executed, as far as this core knows; the disk is the shell's.
    pub fn waits_longer(&self) -> Overdue {
        Overdue { at_disk: 0, redirected: self.redirects.expired(), calls: self.slots.withdrawn() }
    }
}
