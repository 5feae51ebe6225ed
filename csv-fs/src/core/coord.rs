//! The coordinator of one volume, for one reign: who may do what to which file, and what must end before.
//!
//! Pure: [`Coord::handle`] takes an event and the time and appends effects. It never touches the store; it says what
//! is to be read or changed and is told what came of it. One exception in form: [`Coord::redirect_begin`] answers at
//! once, because redirected I/O passes it on every request; it only checks, and takes a guard.
//!
//! # States
//! ```text
//!             Start                       all came back, or were evicted
//!  Waiting ──────────► Serving + grace ───────────────────────────────► Serving
//!     │                     │                                              │
//!     │                     └───────────────┬──────────────────────────────┘
//!     │ Stop                          Drain │                 Stop / StoreFailed, from everywhere
//!     ▼                                     ▼
//!  Stopped ◄───────── Stop ────────── Draining ── guards and store empty ──► (says Drained once; Stopped likewise)
//! ```
//! A session's life is drawn in `session`, a call's in `work`.
//!
//! # What it does
//! - **request slots**: a call is new, a resend of one in progress (it joins), a resend of one answered (the stored
//!   answer), or a defect. What is not durable runs again.
//! - **ranges**: `files` is a range-lock manager whose holders are layouts and operations; what is in the way is
//!   recalled, in FIFO order per file.
//! - **syncs**: who looks at a file's size or times has other nodes' exclusive holders commit first.
//! - **binds**: a higher bind makes everything of lower ones stale, waits for what is on its way to the disk, then
//!   re-asserts, then is answered.
//! - **evictions**: `evicting` committed, fenced, redirected I/O ended, `evicted` committed, then given away.
//! - **path fences**: redirected I/O is taken only after one in this reign.
//! - **grace**: until each inherited session has re-asserted or is evicted, only re-assertion, stored answers and the
//!   return table are served.
//! - **file locks**: given as answers, never waited for here; who waits is queued, and called when it is its turn; who is refused
//!   is refused for what its holder is known to have.
//! - **orphans**: freed in steps when nobody has them open, every layout on them came back, and grace is over.
//! - **drain**: nothing new, layouts survive; when no redirected request and no change of the store is left, it says so.
//!
//! # What it refuses
//! Calls of other binds, of evicted or unknown incarnations; redirected I/O without layout, without path fence; a
//! re-assertion by anybody whom the durable session table does not name as living; a mapping outside its grant (and
//! evicts); a commit of ranges that somebody else holds.
//!
//! # Invariants
//! 1. Nothing is answered to a client before the store said that it is committed.
//! 2. After `Stop` or `StoreFailed` no answer but `StaleEpoch` leaves.
//! 3. Layouts of two clients never conflict. (Asserted whenever a file changes.)
//! 4. What a client held is given away only by its own return, or after `evicted` was committed, which is only asked
//!    for after the fence and after its redirected requests ended.
//! 5. No redirected request of a lower bind is in progress when a bind is answered.
//! 6. During grace nothing is read for, given to or freed for anybody.
//! 7. The guard table and the sessions' guards agree. (Asserted.)
//!
//! # Interleavings it prevents
//! docs/semantics/coordinator.md numbers them; each number is a test here or in the shell.
//!
//! Called by `coordinator` (the shell, under one short lock: a call costs a few map look-ups) and by the simulation.

mod bind;
mod callbacks;
mod calls;
mod commit;
mod doubts;
mod event;
mod evict;
mod files;
mod grace;
mod locks;
mod orphans;
mod path;
mod patience;
mod redirect;
mod session;
mod space;
mod stall;
mod store;
mod sync;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use block::shared::Epoch;

use crate::core::rules::Rules;
use crate::core::time::Now;
use crate::proto::{Answer, BindAnswer, CoordinatorHint, Verifier};
use crate::types::*;

pub use self::event::{
    CallbackId, ConnId, DurableSession, DurableState, Effect, Event, EvictReason, Fate, FencePurpose, GuardId,
    Inherited, LayoutFacts, OpId, ReadAsk, ReadDone, Report, SlotSeen, StoreAsk, StoreDone, Tag,
};
pub use self::patience::Limits;

use self::callbacks::CallbackFor;
use self::files::Files;
use self::grace::Grace;
use self::locks::Locks;
use self::orphans::Orphans;
use self::patience::Patience;
use self::session::{Life, Session};
use self::space::SpaceRecall;
use self::sync::{Ends, Sync};
use self::work::Work;

/// The epoch fills the upper 24 bits of the names of layouts and of the numbers of syncs: a name of an earlier reign is
/// never taken for one of this reign, and numbers only grow across reigns.
const EPOCH_SHIFT: u32 = 40;

/// What a coordinator is made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CoordConfig {
    /// Its reign.
    pub epoch: Epoch,
    /// Tells clients in which history their writes are.
    pub verifier: Verifier,
    /// The times.
    pub limits: Limits,
}

/// Where the whole coordinator is.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Phase {
    /// Not started: the store is not loaded.
    Waiting,
    /// In office.
    Serving,
    /// Resigning.
    Draining { hint: Option<CoordinatorHint>, told: bool },
    /// Out of office.
    Stopped { hint: Option<CoordinatorHint>, told: bool },
}

/// The coordinator; see the module.
#[derive(Debug)]
pub struct Coord {
    config: CoordConfig,
    rules: Rules,
    /// The time of its last event, without what is left out.
    now: Now,
    /// Time in which this node did not run, or might not be coordinator.
    left_out: Duration,
    out: Vec<Effect>,
    phase: Phase,
    /// Whether this node may be coordinator. Without that it counts no time against anybody.
    permitted: bool,
    grace: Option<Grace>,
    sessions: BTreeMap<ClientId, Session>,
    files: Files,
    recalls: BTreeMap<LayoutId, Patience>,
    syncs: BTreeMap<(InodeNo, ClientId), Sync>,
    ends: Ends,
    orphans: Orphans,
    locks: Locks,
    work: BTreeMap<OpId, Work>,
    parked: VecDeque<OpId>,
    waiting_for_space: BTreeSet<OpId>,
    space_recalls: BTreeMap<ClientId, SpaceRecall>,
    callbacks: BTreeMap<CallbackId, CallbackFor>,
    guards: BTreeMap<GuardId, ClientId>,
    storing: BTreeSet<OpId>,
    /// When the store answered last, or was given the first of what it has.
    stored_at: Now,
    last_op: u64,
    last_callback: u64,
    last_guard: u64,
    last_layout: u64,
    last_sync: u64,
}

impl Coord {
    /// A coordinator that waits for [`Event::Start`].
    pub fn new(config: CoordConfig, rules: Rules) -> Coord {
        Coord {
            config,
            rules,
            now: Now::default(),
            left_out: Duration::ZERO,
            out: Vec::new(),
            phase: Phase::Waiting,
            permitted: true,
            grace: None,
            sessions: BTreeMap::new(),
            files: Files::default(),
            recalls: BTreeMap::new(),
            syncs: BTreeMap::new(),
            ends: Ends::default(),
            orphans: Orphans::default(),
            locks: Locks::default(),
            work: BTreeMap::new(),
            parked: VecDeque::new(),
            waiting_for_space: BTreeSet::new(),
            space_recalls: BTreeMap::new(),
            callbacks: BTreeMap::new(),
            guards: BTreeMap::new(),
            storing: BTreeSet::new(),
            stored_at: Now::default(),
            last_op: 0,
            last_callback: 0,
            last_guard: 0,
            last_layout: config.epoch.0 << EPOCH_SHIFT,
            last_sync: config.epoch.0 << EPOCH_SHIFT,
        }
    }

    /// Takes one event; appends what is to be done, in order.
    pub fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        self.time_goes_on(now);
        match event {
            Event::Start(inherited) => self.start(inherited),
            Event::Tick => self.tick(),
            Event::Bind { tag, conn, request } => self.bind(tag, conn, request),
            Event::Call { tag, call } => self.call(tag, call),
            Event::ConnLost { conn } => self.conn_lost(conn),
            Event::ReadDone { op, done } => self.read_done(op, done),
            Event::StoreDone { op, done } => self.store_done(op, done),
            Event::StoreFailed => self.store_failed(),
            Event::CallbackDone { id, answer } => self.callback_done(id, answer),
            Event::FenceDone { client, purpose, result } => match purpose {
                FencePurpose::Eviction => self.fenced_for_eviction(client, result),
                FencePurpose::Path => self.path_fenced(client, result),
            },
            Event::ClientDead { client } => self.evict(client, EvictReason::Dead),
            Event::RedirectEnded { guard } => self.redirect_ended(guard),
            Event::Permitted { may } => self.permitted = may,
            Event::Drain { hint } => self.drain(hint),
            Event::Stop { hint } => self.stop(hint),
        }
        self.say_drained();
        self.check();
        out.append(&mut self.out);
    }

    /// A node that hears nothing for a while, and then hears of something that was due long before, has not run since its
    /// last event: that time is left out. Prevents: the coordinator's process is stopped with a recall under way; it goes
    /// on, its clock comes before the answer that lies there, and a client that did all it should is evicted.
    ///
    /// So is time in which this node may not be coordinator, but still is. Prevents: the network is cut, and the majority is
    /// on the other side; until that has taken over, whom the coordinator cannot hear is overdue; it commits that they are
    /// being evicted, and the next coordinator finishes what it finds: the majority's programs get EIO.
    fn time_goes_on(&mut self, now: Now) {
        let now = now - self.left_out;
        let (gap, late) = (now.since(self.now), self.config.limits.ask_again());
        let asleep = gap >= late && self.due().is_some_and(|due| now >= due + late);
        if asleep || !self.permitted {
            self.left_out += gap;
            return;
        }
        self.now = self.now.max(now);
    }

    /// When [`Event::Tick`] is due next, if anything waits for time.
    pub fn next_deadline(&self) -> Option<Now> {
        self.due().map(|due| due + self.left_out)
    }

    fn due(&self) -> Option<Now> {
        if !self.is_serving() || !self.permitted {
            return None;
        }
        let limits = &self.config.limits;
        let recalls = self.recalls.values().map(|p| p.next(limits));
        let syncs = self.syncs.values().map(|s| s.patience.next(limits));
        let grace = self.grace.iter().filter_map(Grace::next);
        let waits = recalls.chain(syncs).chain(grace).chain(self.lock_deadline());
        waits.chain(self.space_deadlines()).chain(self.absences()).chain(self.fence_retries()).min()
    }

    /// The reign.
    pub fn epoch(&self) -> Epoch {
        self.config.epoch
    }

    /// Whether it is in office and takes calls.
    pub fn is_serving(&self) -> bool {
        self.phase == Phase::Serving
    }

    /// Whether re-assertions are still waited for.
    pub fn in_grace(&self) -> bool {
        self.grace.is_some()
    }

    /// Whether callbacks go, or may go when a bind is answered, over this connection.
    pub fn talks_over(&self, conn: ConnId) -> bool {
        let binding = |work: &Work| matches!(work, Work::Bind(bind) if bind.conn == Some(conn));
        self.sessions.values().any(|s| s.conn == Some(conn)) || self.work.values().any(binding)
    }

    /// Sessions that are served.
    pub fn sessions(&self) -> impl Iterator<Item = ClientId> + '_ {
        self.sessions.iter().filter(|(_, s)| s.life == Life::Live).map(|(c, _)| *c)
    }

    /// Layouts given out.
    pub fn layouts(&self) -> usize {
        self.files.count()
    }

    /// Handles that clients have open.
    pub fn open_files(&self) -> usize {
        self.sessions.values().map(|s| s.opens.len()).sum()
    }

    /// Redirected requests between submission and completion.
    pub fn redirects_in_progress(&self) -> usize {
        self.guards.len()
    }

    /// Whether this client's path is fenced: its data comes over the coordinator.
    #[cfg(any(test, feature = "simulation"))]
    pub fn is_redirected(&self, client: ClientId) -> bool {
        self.sessions.get(&client).is_some_and(|s| s.path == session::Path::Redirected)
    }

    /// Whether this client holds this layout, as far as the coordinator knows. For oracles and status.
    pub fn holds(&self, client: ClientId, layout: LayoutId) -> bool {
        self.files.layout(layout).is_some_and(|(_, l)| l.client == client)
    }

    fn drain(&mut self, hint: Option<CoordinatorHint>) {
        if self.phase != Phase::Serving {
            return;
        }
        self.phase = Phase::Draining { hint, told: false };
        self.refuse_all(false);
    }

    fn store_failed(&mut self) {
        if !matches!(self.phase, Phase::Stopped { .. }) {
            self.out.push(Effect::Report(Report::StoreFailed));
        }
        self.stop(None);
    }

    fn stop(&mut self, hint: Option<CoordinatorHint>) {
        if matches!(self.phase, Phase::Stopped { .. }) {
            return;
        }
        self.phase = Phase::Stopped { hint, told: false };
        self.refuse_all(true);
        self.storing.clear();
    }

    /// Answers what waits with `StaleEpoch`: everything, or only what has nothing in the store's hands.
    fn refuse_all(&mut self, all: bool) {
        let doomed: Vec<OpId> = self.work.keys().filter(|op| all || !self.storing.contains(op)).copied().collect();
        for op in doomed {
            let stale = self.stale();
            match self.work.remove(&op) {
                Some(Work::Call(call)) => {
                    for tag in call.tags {
                        self.out.push(Effect::Answer { tag, answer: stale.clone() });
                    }
                }
                Some(Work::Bind(bind)) => {
                    let answer = self.not_coordinator();
                    self.out.push(Effect::AnswerBind { tag: bind.tag, answer });
                }
                Some(Work::Evict(_) | Work::Inherit | Work::Reap(_) | Work::ReapTail(_)) | None => {}
            }
        }
        self.grace = None;
        self.parked.clear();
        self.waiting_for_space.clear();
        self.space_recalls.clear();
        self.recalls.clear();
        self.syncs.clear();
        self.callbacks.clear();
        self.locks.doubts.clear();
    }

    fn say_drained(&mut self) {
        if let Phase::Draining { told, .. } | Phase::Stopped { told, .. } = &mut self.phase
            && !*told
            && self.guards.is_empty()
            && self.storing.is_empty()
        {
            *told = true;
            self.out.push(Effect::Drained);
        }
    }

    fn hint(&self) -> Option<CoordinatorHint> {
        match &self.phase {
            Phase::Waiting | Phase::Serving => None,
            Phase::Draining { hint, .. } | Phase::Stopped { hint, .. } => hint.clone(),
        }
    }

    fn stale(&self) -> Answer {
        Answer::StaleEpoch { hint: self.hint() }
    }

    fn not_coordinator(&self) -> BindAnswer {
        BindAnswer::NotCoordinator { hint: self.hint() }
    }

    fn new_op(&mut self, work: Work) -> OpId {
        self.last_op += 1;
        let op = OpId(self.last_op);
        self.work.insert(op, work);
        op
    }

    /// Invariant 7, cheap enough for production; invariant 3 is checked where a file changes.
    fn check(&self) {
        debug_assert_eq!(
            self.guards.len(),
            self.sessions.values().map(|s| s.guards.len()).sum::<usize>(),
            "guards of sessions and of the whole agree"
        );
    }
}

#[cfg(test)]
mod tests;
