//! File locks of this node: who asks, who waits, what is held.
//!
//! The coordinator decides. Here is what makes its answers safe to lose: a record of what is held, to name it to the next
//! coordinator; an order among what one owner asks; and a clean-up behind callers that were killed.
//!
//! # A job
//! ```text
//!  Queued ──► Asking ── given, refused ──► (answered)
//!    ▲          │ │ waits                    ▲
//!    │ called   │ └──────► Waiting ──────────┤ interrupted: at once; the coordinator is told to forget it
//!    └──────────┼─────────────┘              │
//!               └─ interrupted ─► Abandoned ─┘ the caller is told at once; if the lock is given after all, it is undone
//! ```
//! A waiting job is in no slot. It is called (`LockReady`), or asks again after each bind.
//!
//! # Rules, and the interleaving that each prevents
//! - **The record claims only what no request of its own may have given up**: an unlock, a weaker lock, a flock of the other
//!   kind take it out (or weaken it) when they are sent; a lock goes in when it is given. Prevents: the coordinator made a
//!   lock weaker, the answer is lost with it, another node got its share, and both claim theirs at the next coordinator.
//! - **Asked whether an owner has a lock, the record answers** (`LockHeld`): others are refused for what is on it, and for nothing else.
//!   Prevents: they are refused for what was given to a caller that has gone, or by an answer that is lost.
//! - **A lock becomes weaker only by a request that cannot fail**: a reader's lock over what the owner has as a writer is
//!   first asked for without weakening that, and once it is given, made weaker. Prevents: the request was sent, so the next
//!   coordinator was told the weaker; it is refused, and its owner still believes in the stronger.
//! - **One owner's requests on one file go one after the other** (a *lane*). Prevents: a lock and an unlock of two threads
//!   change places on the way, and record and coordinator disagree.
//! - **An unlock passes an abandoned job, a lock does not.** Prevents: a process that was killed while it waited for a
//!   lock, and must drop another before it is gone, waits for the end of grace.
//! - **What an abandoned job was given is undone**: the coordinator is told what the owner holds in that range by the
//!   record. A job that makes a lock weaker is not abandoned: it has what it asked for.
//! - **While locks are being named to a coordinator nothing that drops one is sent**, RELEASE included. Prevents: the unlock
//!   is executed, then the part of the list that still names its lock.
//! - **Eviction ends every lock**; the handles that had one are named, and fail until they are closed.
//!
//! A lock that a new coordinator refuses (somebody else was given it: never, while the rules of grace hold) is lost aloud.
//!
//! Not here: which slot a request travels in (`slots`), accepted writes, which end before an unlock is asked for (the
//! shell).

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rustix::io::Errno;

use super::binding::Binding;
use super::event::{CallFailure, Effect, Ticket};
use super::{Client, Own};
use crate::core::locks::{Lock, LockTable, Owner};
use crate::core::rules::Rule;
use crate::proto::{
    ByteRange, CallbackAnswer, LockMode, LockReply, LockRequest, LockSpace, OwnLock, PlacedLock, Reply, Request, WaitId,
};
use crate::types::*;

/// Locks in one message: at most 50 bytes each, a message is well below a frame's body of 1 MiB.
const PART: usize = 8192;

/// What a program asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockOp {
    /// A lock; `wait` for it if need be.
    Take {
        /// Of which file.
        ino: InodeNo,
        /// Which kind.
        space: LockSpace,
        /// What.
        lock: OwnLock,
        /// Whether to wait.
        wait: bool,
    },
    /// Gives up what an owner has in a range.
    Drop {
        /// Of which file.
        ino: InodeNo,
        /// Which kind.
        space: LockSpace,
        /// Whose.
        owner: u64,
        /// Where.
        range: ByteRange,
    },
}

/// A lane: a file, a kind, an owner.
type Lane = (InodeNo, LockSpace, u64);

/// Names a job; a waiter has the same name towards the coordinator.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct JobId(u64);

/// Where a job stands.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Stage {
    Queued,
    /// Sent, or in a slot. `ready`: called meanwhile.
    Asking {
        ready: bool,
    },
    Waiting,
    Abandoned,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum What {
    Op(LockOp),
    /// What was taken without making anything weaker is made as weak as was asked for.
    Weaken(OwnLock),
    /// Tells the coordinator what the owner holds in a range.
    Restore(ByteRange),
}

#[derive(Debug)]
struct Job {
    what: What,
    lane: Lane,
    /// Who is to be told; nobody any more, once told.
    caller: Option<Ticket>,
    /// Interrupted; let go as soon as that does no harm.
    interrupted: bool,
    stage: Stage,
}

impl Job {
    fn waits(&self) -> bool {
        matches!(self.what, What::Op(LockOp::Take { wait: true, .. }))
    }

    fn drops(&self) -> bool {
        matches!(self.what, What::Op(LockOp::Drop { .. }) | What::Restore(_))
    }

    fn handle(&self) -> Option<HandleId> {
        match self.what {
            What::Op(LockOp::Take { lock, .. }) | What::Weaken(lock) => Some(lock.handle),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<JobId>,
    asking: Option<JobId>,
    abandoned: usize,
}

/// Naming what is held, under way.
#[derive(Debug)]
struct Naming {
    bind: Bind,
    parts: VecDeque<Vec<PlacedLock>>,
}

/// Everything about locks.
#[derive(Debug, Default)]
pub(super) struct Locks {
    record: LockTable,
    jobs: BTreeMap<JobId, Job>,
    callers: BTreeMap<Ticket, JobId>,
    lanes: BTreeMap<Lane, Queue>,
    naming: Option<Naming>,
    /// The last BIND announced that locks follow.
    announced: bool,
    /// Releases that wait until naming is over.
    releases: Vec<(Ticket, Request)>,
    last: u64,
}

/// What is under way with locks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Idle {
    /// Nothing but so many callers that wait for one.
    With { waiting: u64 },
    /// Something that must be answered first.
    Not,
}

impl Client {
    /// Whoever asks for a lock or gives one up, and is not answered yet.
    pub fn lock_callers(&self) -> usize {
        self.locks.callers.len()
    }

    /// Whether nothing is under way but waiting. Whoever waits behind a waiter of the same owner has asked for nothing yet.
    pub(super) fn locks_idle(&self) -> Idle {
        let waits = |job: &Job| {
            matches!(job.what, What::Op(_))
                && matches!(job.stage, Stage::Queued | Stage::Waiting)
                && job.caller.is_some()
        };
        let Locks { jobs, naming, releases, .. } = &self.locks;
        match naming.is_none() && releases.is_empty() && jobs.values().all(waits) {
            true => Idle::With { waiting: jobs.len() as u64 },
            false => Idle::Not,
        }
    }

    pub(super) fn last_waiter(&self) -> u64 {
        self.locks.last
    }

    /// Goes on with the locks of another process.
    pub(super) fn locks_resume(&mut self, known: &super::Known) {
        for PlacedLock { ino, space, lock } in &known.locks {
            self.locks.record.put(*ino, *space, Lock::of(known.client, *lock));
        }
        self.locks.last = known.waiter;
    }

    /// Goes on with the locks of a process that was killed.
    pub(super) fn locks_recover(&mut self, held: Vec<PlacedLock>, waiter: u64) {
        for PlacedLock { ino, space, lock } in held {
            self.locks.record.put(ino, space, Lock::of(self.config.client, lock));
        }
        self.locks.last = waiter;
    }

    /// What a process that was killed had asked for, and is in a slot: a lock whose caller has gone, or an unlock.
    pub(super) fn inherit_lock(&mut self, ticket: Ticket, ask: &LockRequest) {
        let (lane, what, stage, id) = match ask {
            LockRequest::Take { ino, space, lock, wait, .. } => {
                let op = LockOp::Take { ino: *ino, space: *space, lock: *lock, wait: wait.is_some() };
                ((*ino, *space, lock.owner), What::Op(op), Stage::Abandoned, wait.map(|w| JobId(w.0)))
            }
            LockRequest::Drop { ino, space, owner, range } => {
                let op = LockOp::Drop { ino: *ino, space: *space, owner: *owner, range: *range };
                ((*ino, *space, *owner), What::Op(op), Stage::Asking { ready: false }, None)
            }
            LockRequest::Restore { ino, space, owner, range, .. } => {
                ((*ino, *space, *owner), What::Restore(*range), Stage::Asking { ready: false }, None)
            }
            LockRequest::Test { .. } | LockRequest::Forget { .. } | LockRequest::Held { .. } => return,
        };
        let id = id.unwrap_or_else(|| {
            self.locks.last += 1;
            JobId(self.locks.last)
        });
        let queue = self.locks.lanes.entry(lane).or_default();
        match stage {
            Stage::Abandoned => queue.abandoned += 1,
            _ => queue.asking = Some(id),
        }
        self.locks.jobs.insert(id, Job { what, lane, caller: None, interrupted: false, stage });
        self.own.insert(ticket, Own::Lock(id));
    }

    /// Locks held here, as stretches, and callers that wait for one.
    pub fn locks(&self) -> (usize, usize) {
        let waiting = self.locks.jobs.values().filter(|j| j.stage == Stage::Waiting).count();
        (self.locks.record.count(), waiting)
    }

    /// What is held, as this client knows it. For oracles.
    pub fn locks_held(&self) -> Vec<PlacedLock> {
        placed(&self.locks.record, self.config.client).collect()
    }

    /// Whether an owner holds any record of a file, or is about to.
    pub fn may_hold_records(&self, ino: InodeNo, owner: u64) -> bool {
        let lane = (ino, LockSpace::Record, owner);
        self.locks.lanes.contains_key(&lane) || self.held_in(lane, ByteRange::ALL).next().is_some()
    }

    pub(super) fn lock(&mut self, ticket: Ticket, op: LockOp, out: &mut Vec<Effect>) {
        if matches!(self.binder.state, Binding::Evicted { .. }) {
            return out.push(Effect::Reply { ticket, result: Err(CallFailure::Evicted) });
        }
        let (lane, sound, known) = match op {
            LockOp::Take { ino, space, lock, .. } => {
                let known = self.opens.contains_key(&lock.handle) || self.is_reopening(lock.handle);
                ((ino, space, lock.owner), lock.range.is_valid(), known)
            }
            LockOp::Drop { ino, space, owner, range } => ((ino, space, owner), range.is_valid(), true),
        };
        if !sound || !known {
            let errno = if sound { Errno::BADF } else { Errno::INVAL };
            let result = Err(CallFailure::Errno(errno.raw_os_error()));
            return out.push(Effect::Reply { ticket, result });
        }
        let job = self.new_job(What::Op(op), lane, Some(ticket));
        self.locks.lanes.entry(lane).or_default().waiting.push_back(job);
        self.pump_lane(lane, out);
    }

    fn new_job(&mut self, what: What, lane: Lane, caller: Option<Ticket>) -> JobId {
        self.locks.last += 1;
        let id = JobId(self.locks.last);
        self.locks.jobs.insert(id, Job { what, lane, caller, interrupted: false, stage: Stage::Queued });
        if let Some(ticket) = caller {
            self.locks.callers.insert(ticket, id);
        }
        id
    }

    fn is_reopening(&self, handle: HandleId) -> bool {
        self.own.values().any(|own| matches!(own, Own::Reopen { handle: h, .. } if *h == handle))
    }

    fn held_in(&self, (ino, space, owner): Lane, range: ByteRange) -> impl Iterator<Item = OwnLock> + '_ {
        let owner = Owner { client: self.config.client, id: owner };
        self.locks.record.held_in(ino, space, owner, range).map(|l| l.own())
    }

    fn put(&mut self, (ino, space, _): Lane, lock: OwnLock) {
        self.locks.record.put(ino, space, Lock::of(self.config.client, lock));
    }

    /// It is on the record from now on.
    fn given(&mut self, lane: Lane, lock: OwnLock) {
        self.put(lane, lock);
        self.note(|| super::Note::Locked(PlacedLock { ino: lane.0, space: lane.1, lock }));
    }

    fn take_out(&mut self, (ino, space, owner): Lane, range: ByteRange) {
        self.locks.record.clear(ino, space, Owner { client: self.config.client, id: owner }, range);
    }

    /// What the owner has as a writer where it asks as a reader.
    fn stronger(&self, lane: Lane, lock: &OwnLock) -> impl Iterator<Item = OwnLock> + '_ {
        let weaker = lane.1 == LockSpace::Record && lock.mode == LockMode::Read;
        self.held_in(lane, lock.range).filter(move |l| weaker && l.mode == LockMode::Write)
    }

    /// Sends what may go next in a lane.
    fn pump_lane(&mut self, lane: Lane, out: &mut Vec<Effect>) {
        loop {
            let Some(queue) = self.locks.lanes.get(&lane) else { return };
            if queue.asking.is_some() || self.locks.naming.is_some() {
                return;
            }
            let Some(id) = queue.waiting.front().copied() else {
                if queue.abandoned == 0 {
                    self.locks.lanes.remove(&lane);
                }
                return;
            };
            let (abandoned, Some(job)) = (queue.abandoned, self.locks.jobs.get(&id)) else { return };
            let reopening = job.handle().is_some_and(|h| self.is_reopening(h));
            if reopening || (abandoned > 0 && !job.drops()) {
                return;
            }
            if let Some(queue) = self.locks.lanes.get_mut(&lane) {
                queue.waiting.pop_front();
            }
            self.ask(id, out);
        }
    }

    /// Sends a job's request; or ends it, if there is nothing to ask.
    fn ask(&mut self, id: JobId, out: &mut Vec<Effect>) {
        let Some(job) = self.locks.jobs.get(&id) else { return };
        let lane = job.lane;
        let (ino, space, owner) = lane;
        let request = match job.what {
            What::Op(LockOp::Take { lock, wait, .. }) => {
                if space == LockSpace::Whole {
                    self.locks.record.lets_go_first(ino, space, &Lock::of(self.config.client, lock));
                }
                let weaken = self.stronger(lane, &lock).next().is_none();
                LockRequest::Take { ino, space, lock, wait: wait.then_some(WaitId(id.0)), weaken }
            }
            What::Weaken(lock) => {
                self.put(lane, lock);
                LockRequest::Take { ino, space, lock, wait: None, weaken: true }
            }
            What::Op(LockOp::Drop { range, .. }) => {
                let nothing = space == LockSpace::Record && self.held_in(lane, range).next().is_none();
                if nothing {
                    return self.lock_ended(id, Ok(Reply::Done), out);
                }
                self.take_out(lane, range);
                LockRequest::Drop { ino, space, owner, range }
            }
            What::Restore(range) => {
                let held = self.held_in(lane, range).collect();
                LockRequest::Restore { ino, space, owner, range, held }
            }
        };
        if let Some(job) = self.locks.jobs.get_mut(&id) {
            job.stage = Stage::Asking { ready: false };
        }
        self.locks.lanes.entry(lane).or_default().asking = Some(id);
        self.submit_own(Own::Lock(id), Request::Locks(request), out);
    }

    /// A job is over; whoever asked is told.
    fn lock_ended(&mut self, id: JobId, result: Result<Reply, CallFailure>, out: &mut Vec<Effect>) {
        let Some(job) = self.locks.jobs.remove(&id) else { return };
        if let Some(ticket) = job.caller {
            self.locks.callers.remove(&ticket);
            out.push(Effect::Reply { ticket, result });
        }
    }

    /// The answer to a job's request.
    pub(super) fn lock_answered(&mut self, id: JobId, result: Result<Reply, i32>, out: &mut Vec<Effect>) {
        let Some(job) = self.locks.jobs.get_mut(&id) else { return };
        let lane = job.lane;
        let stage = std::mem::replace(&mut job.stage, Stage::Queued);
        if let Some(queue) = self.locks.lanes.get_mut(&lane) {
            match stage {
                Stage::Abandoned => queue.abandoned = queue.abandoned.saturating_sub(1),
                _ => queue.asking = None,
            }
        }
        match (stage, result) {
            (Stage::Abandoned, result) => self.abandoned_answered(id, &result, out),
            (Stage::Asking { ready }, Ok(Reply::Locks(LockReply::Waits))) => self.lock_waits(id, ready, out),
            (_, Ok(Reply::Locks(LockReply::Refused(refused)))) => {
                self.locks_lost(refused, out);
                self.lock_ended(id, Ok(Reply::Done), out);
            }
            (_, Ok(reply)) => self.lock_done(id, lane, reply, out),
            (_, Err(errno)) => self.lock_ended(id, Err(CallFailure::Errno(errno)), out),
        }
        self.pump_lane(lane, out);
    }

    fn lock_done(&mut self, id: JobId, lane: Lane, reply: Reply, out: &mut Vec<Effect>) {
        if let Some(Job { what: What::Op(LockOp::Take { lock, .. }), .. }) = self.locks.jobs.get(&id) {
            let lock = *lock;
            if !self.opens.contains_key(&lock.handle) {
                // Released meanwhile.
                self.queue_restore(lane, lock.range);
                return self.lock_ended(id, Ok(reply), out);
            }
            let stronger: Vec<OwnLock> = self.stronger(lane, &lock).collect();
            self.given(lane, lock);
            if !stronger.is_empty() {
                stronger.into_iter().for_each(|strong| self.given(lane, strong));
                if let Some(job) = self.locks.jobs.get_mut(&id) {
                    job.what = What::Weaken(lock);
                }
                return self.locks.lanes.entry(lane).or_default().waiting.push_front(id);
            }
        }
        self.lock_ended(id, Ok(reply), out);
    }

    fn lock_waits(&mut self, id: JobId, ready: bool, out: &mut Vec<Effect>) {
        let Some(job) = self.locks.jobs.get_mut(&id) else { return };
        if job.interrupted {
            self.forget(id, out);
            return self.lock_ended(id, Err(CallFailure::Interrupted), out);
        }
        job.stage = if ready { Stage::Queued } else { Stage::Waiting };
        let lane = job.lane;
        if ready {
            self.locks.lanes.entry(lane).or_default().waiting.push_front(id);
        }
    }

    /// Its caller has gone: what it was given is undone.
    fn abandoned_answered(&mut self, id: JobId, result: &Result<Reply, i32>, out: &mut Vec<Effect>) {
        let Some(job) = self.locks.jobs.remove(&id) else { return };
        match (result, job.what) {
            (Ok(Reply::Locks(LockReply::Waits)), _) => self.forget(id, out),
            (Ok(Reply::Done), What::Op(LockOp::Take { lock, .. })) if self.rules.has(Rule::AbandonedLockIsUndone) => {
                self.queue_restore(job.lane, lock.range);
            }
            _ => {}
        }
    }

    /// Has the coordinator told what the owner holds in a range, in messages of a bounded size.
    fn queue_restore(&mut self, lane: Lane, range: ByteRange) {
        let starts: Vec<u64> = self.held_in(lane, range).map(|l| l.range.start).collect();
        let mut from = range.start;
        let mut parts = Vec::new();
        for cut in starts.chunks(PART).skip(1).filter_map(|chunk| chunk.first().copied()) {
            parts.push(ByteRange { start: from, end: cut });
            from = cut;
        }
        parts.push(ByteRange { start: from, end: range.end });
        for part in parts.into_iter().rev() {
            let job = self.new_job(What::Restore(part), lane, None);
            self.locks.lanes.entry(lane).or_default().waiting.push_front(job);
        }
    }

    fn forget(&mut self, id: JobId, out: &mut Vec<Effect>) {
        if self.binder.bound().is_some() {
            let request = Request::Locks(LockRequest::Forget { wait: WaitId(id.0) });
            self.submit_own(Own::Told, request, out);
        }
    }

    /// The coordinator says that it is a waiter's turn.
    pub(super) fn lock_ready(&mut self, wait: WaitId, out: &mut Vec<Effect>) -> CallbackAnswer {
        let id = JobId(wait.0);
        let Some(job) = self.locks.jobs.get_mut(&id) else { return CallbackAnswer::NotHeld };
        match &mut job.stage {
            Stage::Abandoned => return CallbackAnswer::NotHeld,
            Stage::Queued => {}
            Stage::Asking { ready, .. } => *ready = true,
            Stage::Waiting => self.ask_again(id, out),
        }
        CallbackAnswer::Accepted
    }

    /// Whether an owner holds this by the record, all of it: then a program has it, and the next coordinator is told.
    pub(super) fn lock_on_record(&self, ino: InodeNo, space: LockSpace, lock: &OwnLock) -> CallbackAnswer {
        let enough = |l: &OwnLock| l.mode == lock.mode || l.mode == LockMode::Write;
        let held = self.held_in((ino, space, lock.owner), lock.range).filter(enough);
        // They are disjoint and come by their start.
        let upto = held.fold(lock.range.start, |upto, l| if l.range.start == upto { l.range.end } else { upto });
        if upto >= lock.range.end { CallbackAnswer::Accepted } else { CallbackAnswer::NotHeld }
    }

    fn ask_again(&mut self, id: JobId, out: &mut Vec<Effect>) {
        let Some(job) = self.locks.jobs.get_mut(&id) else { return };
        job.stage = Stage::Queued;
        let lane = job.lane;
        self.locks.lanes.entry(lane).or_default().waiting.push_back(id);
        self.pump_lane(lane, out);
    }

    /// A caller was interrupted. `false` if it is none of those that ask for locks.
    pub(super) fn cancel_lock(&mut self, ticket: Ticket, out: &mut Vec<Effect>) -> bool {
        let Some(id) = self.locks.callers.get(&ticket).copied() else { return false };
        if let Some(job) = self.locks.jobs.get_mut(&id) {
            job.interrupted = true;
        }
        self.let_interrupted_lock_go(id, out);
        true
    }

    /// A caller has waited for `io_timeout`. Whoever waits for a lock goes on waiting, and an unlock stays due. `false` if it
    /// is none of those that ask for locks.
    pub(super) fn expire_lock(&mut self, ticket: Ticket, out: &mut Vec<Effect>) -> bool {
        let Some(id) = self.locks.callers.get(&ticket).copied() else { return false };
        if self.locks.jobs.get(&id).is_some_and(|job| !job.waits() && !job.drops()) {
            self.let_lock_go(id, CallFailure::Expired, out);
        }
        true
    }

    /// The binding is lost: nobody who was interrupted waits for the next.
    pub(super) fn let_interrupted_locks_go(&mut self, out: &mut Vec<Effect>) {
        let going: Vec<JobId> = self.locks.jobs.iter().filter(|(_, j)| j.interrupted).map(|(id, _)| *id).collect();
        going.into_iter().for_each(|id| self.let_interrupted_lock_go(id, out));
    }

    /// Whoever waits for a lock is let go at once; whoever does not, only while there is no coordinator.
    fn let_interrupted_lock_go(&mut self, id: JobId, out: &mut Vec<Effect>) {
        if self.binder.bound().is_none() || self.locks.jobs.get(&id).is_some_and(Job::waits) {
            self.let_lock_go(id, CallFailure::Interrupted, out);
        }
    }

    fn let_lock_go(&mut self, id: JobId, failure: CallFailure, out: &mut Vec<Effect>) {
        let Some(job) = self.locks.jobs.get_mut(&id).filter(|j| j.caller.is_some()) else { return };
        let (lane, drops) = (job.lane, job.drops());
        match &job.stage {
            // An unlock goes on without its caller.
            _ if drops => {
                if let Some(ticket) = job.caller.take() {
                    self.locks.callers.remove(&ticket);
                    out.push(Effect::Reply { ticket, result: Err(failure) });
                }
            }
            _ if matches!(job.what, What::Weaken(_)) => {}
            Stage::Asking { .. } => {
                job.stage = Stage::Abandoned;
                if let Some(ticket) = job.caller.take() {
                    self.locks.callers.remove(&ticket);
                    out.push(Effect::Reply { ticket, result: Err(failure) });
                }
                let queue = self.locks.lanes.entry(lane).or_default();
                queue.asking = None;
                queue.abandoned += 1;
                self.pump_lane(lane, out);
            }
            Stage::Queued | Stage::Waiting => {
                // It may have been queued there before.
                self.forget(id, out);
                if let Some(queue) = self.locks.lanes.get_mut(&lane) {
                    queue.waiting.retain(|j| *j != id);
                }
                self.lock_ended(id, Err(failure), out);
                self.pump_lane(lane, out);
            }
            Stage::Abandoned => {}
        }
    }

    /// Whether a RELEASE may go now; if not, it goes when the locks have been named. What was taken through its handle is
    /// never named again.
    pub(super) fn release_may_go(&mut self, ticket: Ticket, request: &Request, out: &mut Vec<Effect>) -> bool {
        let Request::Release { ino, handle } = request else { return true };
        if self.locks.naming.is_some() {
            self.locks.releases.push((ticket, request.clone()));
            return false;
        }
        self.locks.record.released(*ino, self.config.client, *handle);
        let through = |j: &Job| j.handle() == Some(*handle) && matches!(j.stage, Stage::Queued | Stage::Waiting);
        let left: Vec<JobId> = self.locks.jobs.iter().filter(|(_, j)| through(j)).map(|(id, _)| *id).collect();
        for id in left {
            if let Some(queue) = self.locks.jobs.get(&id).and_then(|j| self.locks.lanes.get_mut(&j.lane)) {
                queue.waiting.retain(|j| *j != id);
            }
            self.lock_ended(id, Err(CallFailure::Errno(Errno::BADF.raw_os_error())), out);
        }
        true
    }

    /// Releases that wait until every lock is named.
    pub(super) fn releases_behind_locks(&self) -> impl Iterator<Item = Request> + '_ {
        self.locks.releases.iter().map(|(_, request)| request.clone())
    }

    /// A BIND is about to be sent. Whether it announces that locks follow.
    pub(super) fn announce_locks(&mut self) -> bool {
        self.locks.naming = None;
        self.locks.announced = !self.locks.record.is_empty();
        self.locks.announced
    }

    /// Bound. What is held is named, then whoever waits asks again.
    pub(super) fn locks_bound(&mut self, bind: Bind, out: &mut Vec<Effect>) {
        if std::mem::take(&mut self.locks.announced) {
            let all: Vec<PlacedLock> = placed(&self.locks.record, self.config.client).collect();
            let mut parts: VecDeque<Vec<PlacedLock>> = all.chunks(PART).map(<[PlacedLock]>::to_vec).collect();
            if parts.is_empty() {
                parts.push_back(Vec::new());
            }
            self.locks.naming = Some(Naming { bind, parts });
            self.name_next(out);
        }
        let waiting: Vec<JobId> =
            self.locks.jobs.iter().filter(|(_, j)| j.stage == Stage::Waiting).map(|(id, _)| *id).collect();
        waiting.into_iter().for_each(|id| self.ask_again(id, out));
        if self.locks.naming.is_none() {
            self.naming_over(out);
        }
    }

    fn name_next(&mut self, out: &mut Vec<Effect>) {
        let Some(Naming { bind, parts }) = &mut self.locks.naming else { return };
        let bind = *bind;
        match parts.pop_front() {
            Some(locks) => {
                let last = parts.is_empty();
                self.submit_own(Own::Named(bind), Request::Locks(LockRequest::Held { bind, locks, last }), out);
            }
            None => {
                self.locks.naming = None;
                self.naming_over(out);
            }
        }
    }

    /// A part was heard. Those of an earlier bind are not looked at.
    pub(super) fn named(&mut self, bind: Bind, result: Result<Reply, i32>, out: &mut Vec<Effect>) {
        if self.locks.naming.as_ref().is_none_or(|n| n.bind != bind) {
            return;
        }
        if let Ok(Reply::Locks(LockReply::Refused(refused))) = result {
            self.locks_lost(refused, out);
        }
        self.name_next(out);
    }

    fn naming_over(&mut self, out: &mut Vec<Effect>) {
        for (ticket, request) in std::mem::take(&mut self.locks.releases) {
            self.place(ticket, request, out);
        }
        self.pump_all_lanes(out);
    }

    /// Also after a handle was opened again.
    pub(super) fn pump_all_lanes(&mut self, out: &mut Vec<Effect>) {
        let lanes: Vec<Lane> = self.locks.lanes.keys().copied().collect();
        lanes.into_iter().for_each(|lane| self.pump_lane(lane, out));
    }

    fn locks_lost(&mut self, refused: Vec<PlacedLock>, out: &mut Vec<Effect>) {
        let mut handles = BTreeSet::new();
        for PlacedLock { ino, space, lock } in refused {
            self.take_out((ino, space, lock.owner), lock.range);
            if self.opens.contains_key(&lock.handle) {
                handles.insert(lock.handle);
            }
        }
        if !handles.is_empty() {
            out.push(Effect::LocksLost { handles: handles.into_iter().collect() });
        }
    }

    /// The incarnation is over: whoever asks is told; the handles that had a lock.
    pub(super) fn locks_evicted(&mut self, out: &mut Vec<Effect>) -> Vec<HandleId> {
        let last = self.locks.last;
        let Locks { record, callers, releases, .. } =
            std::mem::replace(&mut self.locks, Locks { last, ..Locks::default() });
        let releases = releases.into_iter().map(|(ticket, _)| ticket).filter(|t| t.0 < Ticket::OWN);
        for ticket in callers.into_keys().chain(releases) {
            out.push(Effect::Reply { ticket, result: Err(CallFailure::Evicted) });
        }
        let handles: BTreeSet<HandleId> = placed(&record, self.config.client).map(|l| l.lock.handle).collect();
        handles.into_iter().collect()
    }
}

fn placed(record: &LockTable, client: ClientId) -> impl Iterator<Item = PlacedLock> + '_ {
    record.of_client(client).map(|(ino, space, lock)| PlacedLock { ino, space, lock: lock.own() })
}
