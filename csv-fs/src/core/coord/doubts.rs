//! Refusals that hang on whether a holder knows of its lock (rule `RefusedByRecord`).
//!
//! A lock is given when it enters the table; its holder has it once its client has heard so and put it on record, for only what is
//! on record is named to the next coordinator. In between it is a *gift*. Nobody is refused a lock because of a gift: its client
//! is asked ([`CallbackAsk::LockHeld`]), and until it says "on record" a try is neither given nor refused. The first who meets a gift
//! pays for that with one more message; from then on the lock counts as on record. The same holds for `F_GETLK`.
//!
//! ```text
//!               in the way: a gift              its client: "on record"
//!   (try) ──────────────────► Doubtful (asked) ───────────────────────► refused
//!     ▲                          │  "not so", no answer, something was given up: after a pause, or at once
//!     └──────────────────────────┘
//! ```
//! So whoever was refused was refused for a lock that a program had at a moment between the call and its answer: at the latest
//! when its client said so, which it was asked after the call had come.
//!
//! # Interleavings
//! What must not be: *C1, cut off, gives A a lock, the answer is lost, and C1 refuses B for it. C2 takes office, C asks there before A does, and
//! is given it; A is refused. Nobody ever had what B was refused for.*
//! - *The giver's answer is lost*: B's try waits, since A's client does not say "on record". A asks again (its request is in its slot),
//!   of C1 or of C2; if of C2, so does B, and what C1 had given was seen by nobody. A new coordinator need not know of it, and
//!   whoever comes first may have it. Two that C1 gave one after the other, both unheard, need no order either.
//! - *The caller is interrupted meanwhile*: A's request is in its slot without a caller, and C1 may execute it long after the caller
//!   has gone; its client says "not so", also once it was answered, until what was given is undone. (That A's slot has moved on would
//!   say only that the client has heard.)
//! - *The client is evicted instead of returning*: B's try counts as somebody who wants its locks, and is given the lock after the
//!   fence. A client that had it on record and is evicted had it until then.
//! - *A planned move*: tries in doubt are answered `StaleEpoch`, as whatever waits, and go to the next coordinator.
//! - *A waiter was called, took it, and its answer is lost*: a gift like any other. Who waits for a lock is not refused, and may be
//!   behind a gift.
//! - *An unlock, or a weaker lock, is in flight*: it is off the record, or weaker there, when it is sent. If the lock was on record
//!   before, a refusal comes before the unlock, whose call has not ended. If it was a gift, "not so": B waits until it has come.
//! - *"On record" crosses an unlock and the next lock of the same owner*: B, who was asked for, is refused; A had it when it answered.
//!   The next gift has another number, and is not taken for it.
//! - *The refused try's answer is lost*: it runs again, and what it is told the second time counts.
//! - *A coordinator that is cut off does not know yet that it was succeeded, and A has given up at the next one what is on record
//!   here*: without permission nothing counts as on record, and who is asked has gone on to the next coordinator. Where nodes are fenced
//!   by being asked or killed, it has been told before the next one takes office.
//!
//! # What is not covered
//! - A coordinator that is fenced by reservations while it is frozen, or before it has noticed that peers are missing, may refuse what
//!   it is asked before its next look at the lease.
//! - A circle of waiting owners (EDEADLK) may lead over a gift: of an owner of which one thread waits while another has just been given.
//! - A client that speaks a minor version without the question is taken to have heard.
//! - One that denies for ever what it was given, which none of ours does, keeps tries waiting as a holder keeps waiters waiting.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::io::Errno;

use super::Coord;
use super::callbacks::CallbackFor;
use super::calls::errno;
use super::event::{CallbackId, OpId};
use super::locks::holder;
use super::work::Stage;
use crate::core::locks::Lock;
use crate::core::rules::Rule;
use crate::core::time::Now;
use crate::proto::{Answer, ByteRange, CallbackAnswer, CallbackAsk, LockReply, LockRequest, LockSpace, Reply, Request};
use crate::types::*;

/// Who said "not so" is asked again after that: mostly the answer that gave the lock was on its way.
const AGAIN: Duration = Duration::from_millis(10);
/// Who has no connection is asked when it has bound again, and an answer that does not come is asked for again when the shell says
/// that there is none; the table is looked at that often meanwhile.
const LOOK: Duration = Duration::from_millis(250);
/// Among so many locks in the way one that is on record is looked for, before a client is asked. Bounds what a try costs among
/// a hundred thousand.
const LOOKED_AT: usize = 16;

/// A try that is neither given nor refused. It holds its request slot for as long as its answer is in doubt: what returns has
/// slots of its own, and what is waited for (an answer of a client, its next bind, its eviction) needs none of an asker.
#[derive(Debug)]
struct Doubt {
    ino: InodeNo,
    space: LockSpace,
    wanted: ByteRange,
    /// What is in the way, all of the stretch: else tries for parts of a lock would cut it to pieces.
    gift: Lock,
    asked: Option<CallbackId>,
    look: Now,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Doubts(BTreeMap<OpId, Doubt>);

impl Doubts {
    /// When to look next.
    pub(super) fn next(&self) -> Option<Now> {
        self.0.values().map(|d| d.look).min()
    }

    /// Whether a client's word is waited for.
    pub(super) fn wait_for(&self, client: ClientId) -> bool {
        self.0.values().any(|d| d.gift.owner.client == client)
    }

    /// A call has its answer.
    pub(super) fn forget(&mut self, op: OpId) {
        self.0.remove(&op);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Something was given up there: it is looked at again soon.
    pub(super) fn touched(&mut self, ino: InodeNo, range: ByteRange, now: Now) {
        let of = |d: &&mut Doubt| d.ino == ino && d.wanted.overlaps(range);
        self.0.values_mut().filter(of).for_each(|d| d.look = now);
    }

    /// A client has a new connection: it is asked over that.
    pub(super) fn ask_again(&mut self, client: ClientId, now: Now) {
        for doubt in self.0.values_mut().filter(|d| d.gift.owner.client == client) {
            doubt.asked = None;
            doubt.look = now;
        }
    }
}

/// What is in the way of a lock.
pub(super) enum Way {
    /// Nothing.
    Free,
    /// This, which its client has on record.
    Taken(Lock),
    /// This, of which its client may not have heard.
    Doubtful(Lock),
}

impl Coord {
    /// What is in the way of a lock, and whether that may be told.
    pub(super) fn way_of(&self, ino: InodeNo, space: LockSpace, lock: &Lock) -> Way {
        let table = &self.locks.table;
        let Some(first) = table.test(ino, space, lock) else { return Way::Free };
        let sure = |l: &Lock| (l.is_on_record() && self.permitted) || !self.rules.has(Rule::RefusedByRecord);
        if sure(&first) {
            return Way::Taken(first);
        }
        match table.conflicts(ino, space, lock).take(LOOKED_AT).find(sure) {
            Some(other) => Way::Taken(other),
            None => Way::Doubtful(first),
        }
    }

    /// A call waits until the client of what is in its way says whether it has that on record.
    pub(super) fn doubt(&mut self, op: OpId, ino: InodeNo, space: LockSpace, wanted: ByteRange, gift: Lock) {
        self.set_stage(op, Stage::Doubtful);
        let before = self.locks.doubts.0.remove(&op);
        let client = gift.owner.client;
        let asked = match before.filter(|d| d.gift == gift).and_then(|d| d.asked) {
            Some(asked) => Some(asked),
            None => {
                let ask = CallbackAsk::LockHeld { ino, space, lock: gift.own() };
                self.send_callback(client, CallbackFor::Doubt { client, op }, ask)
            }
        };
        let look = self.now + LOOK;
        self.locks.doubts.0.insert(op, Doubt { ino, space, wanted, gift, asked, look });
    }

    pub(super) fn doubt_answered(&mut self, id: CallbackId, op: OpId, answer: Option<CallbackAnswer>) {
        let Some(doubt) = self.locks.doubts.0.get_mut(&op).filter(|d| d.asked == Some(id)) else { return };
        if answer != Some(CallbackAnswer::Accepted) {
            doubt.asked = None;
            doubt.look = doubt.look.min(self.now + AGAIN);
            return;
        }
        let Some(Doubt { ino, space, gift, .. }) = self.locks.doubts.0.remove(&op) else { return };
        if !gift.is_on_record() {
            self.locks.table.on_record(ino, space, &gift);
        }
        let Some(call) = self.call_work(op) else { return };
        let answer = match call.request {
            Request::Locks(LockRequest::Test { .. }) => {
                Answer::Ok(Reply::Locks(LockReply::InTheWay(Some(holder(&gift)))))
            }
            _ => errno(Errno::AGAIN),
        };
        self.finish(op, answer);
    }

    /// Tries that are due are made again.
    pub(super) fn look_at_doubts(&mut self) {
        let now = self.now;
        let due: Vec<OpId> = self.locks.doubts.0.iter().filter(|(_, d)| d.look <= now).map(|(op, _)| *op).collect();
        due.into_iter().for_each(|op| self.enter(op));
    }
}
