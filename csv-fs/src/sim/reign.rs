//! The thin shell around a coordinator core, for one reign: the store's queue and its commits, connections, callbacks,
//! redirected I/O, and the latch. It decides nothing.
//!
//! Pages travel to the disk like everybody's data, over this node's path: a commit is one request that lands whole.
//! Only one is under way at a time, and none begins once the latch is tripped or while metadata is suspended.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use block::shared::{Epoch, NodeId};

use super::disk::{self, Claim, Req, Res};
use super::store::{Note, State};
use super::world::{Core, MS, World, micros};
use crate::core::coord::{
    CallbackId, ConnId, Coord, CoordConfig, DurableSession, Effect, Event, EvictReason, Fate, Inherited, Limits, OpId,
    Report, SlotSeen, StoreAsk, StoreDone, Tag,
};
use crate::core::office::{self, Before, FencedEpoch, HowFenced, SlotView, Tell};
use crate::proto::{
    Answer, BindAnswer, BindRequest, Call, CallbackAnswer, CoordinatorHint, Redirect, RedirectAnswer, RedirectOp,
    Reply, Verifier,
};
use crate::types::*;

/// Changes that one commit takes at most.
const BATCH: usize = 16;

/// How often what a lost office has waiting is taken back.
const TAKES_BACK: u64 = 20 * MS;

/// A reign.
pub(super) struct Reign {
    pub(super) core: Coord,
    pub(super) epoch: Epoch,
    proof: FencedEpoch,
    committed: Option<Rc<State>>,
    queue: VecDeque<(OpId, StoreAsk)>,
    committing: bool,
    suspended: bool,
    latched: bool,
    core_drained: bool,
    ending: bool,
    told: bool,
    tags: BTreeMap<Tag, u64>,
    tag_slots: BTreeMap<Tag, (SlotRef, u64)>,
    last_tag: u64,
    callbacks: BTreeMap<CallbackId, (u64, ClientId)>,
    redirects: BTreeSet<u64>,
    last_redirect: u64,
    unheard: BTreeMap<NodeId, Duration>,
}

impl World {
    fn reign(&mut self, n: NodeId) -> Option<&mut Reign> {
        self.proc(n)?.reign.as_mut()
    }

    /// Office was taken: the store is opened, then the core starts.
    pub(super) fn took_office(&mut self, n: NodeId, proof: FencedEpoch, unheard: BTreeMap<NodeId, Duration>) {
        self.trace(|| format!("{n} takes office: {proof:?}"));
        self.coverage.variant("office by", &proof.before());
        let t = self.timing;
        let limits =
            Limits { recall: t.recall, grace: t.grace, path_timeout: t.path_timeout, fence: Duration::from_secs(10) };
        let verifier = Verifier { epoch: proof.epoch(), boot: u64::from(n.get()), generation: self.disk.resets };
        let core = Coord::new(CoordConfig { epoch: proof.epoch(), verifier, limits }, self.setup.rules);
        let reign = Reign {
            core,
            epoch: proof.epoch(),
            proof,
            committed: None,
            queue: VecDeque::new(),
            committing: false,
            suspended: false,
            latched: false,
            core_drained: false,
            ending: false,
            told: false,
            tags: BTreeMap::new(),
            tag_slots: BTreeMap::new(),
            last_tag: 0,
            callbacks: BTreeMap::new(),
            redirects: BTreeSet::new(),
            last_redirect: 0,
            unheard,
        };
        let epoch = proof.epoch();
        if let Some(proc) = self.proc(n) {
            proc.reign = Some(reign);
        }
        self.open_store(n, epoch);
        self.after(100 * MS, move |w| w.spread_epoch(n, epoch));
    }

    fn same_reign(&mut self, n: NodeId, epoch: Epoch) -> Option<&mut Reign> {
        self.reign(n).filter(|r| r.epoch == epoch)
    }

    /// Opens the store, then reads the slots: after the fence, after whatever the reign before committed.
    fn open_store(&mut self, n: NodeId, epoch: Epoch) {
        if self.same_reign(n, epoch).is_none_or(|r| r.latched) {
            return;
        }
        self.submit_for(n, Some(epoch), Req::MetaOpen { epoch }, move |w, res| match res {
            Res::Store(state) => w.submit(n, Req::Cells, move |w, res| match res {
                Res::Cells(sight) => w.store_opened(n, epoch, state, &sight.slots),
                _ => w.at_node(n, 50 * MS, move |w| w.open_store(n, epoch)),
            }),
            _ => w.at_node(n, 50 * MS, move |w| w.open_store(n, epoch)),
        });
    }

    fn store_opened(&mut self, n: NodeId, epoch: Epoch, state: Rc<State>, slots: &BTreeMap<NodeId, SlotView>) {
        let Some(reign) = self.same_reign(n, epoch).filter(|r| !r.latched) else { return };
        let before = reign.proof.before();
        let mut unheard = std::mem::take(&mut reign.unheard);
        reign.committed = Some(Rc::clone(&state));
        unheard.retain(|node, _| !self.net.hear(n, *node));
        let comes_back = self.is_said_to_come_back(before);
        let inherited = Inherited { unheard, ..inherited(&state, slots, (before, comes_back)) };
        self.coord(n, Event::Start(inherited));
        self.pump_store(n);
    }

    /// Whether the daemon of the coordinator before has a holder, as the last HELLO had it: now and then that is not so any more, or was not
    /// heard.
    fn is_said_to_come_back(&mut self, before: Before) -> bool {
        let Before::Fenced(proof) = before else { return false };
        let n = proof.client().node;
        if proof.how() != HowFenced::Dead {
            return false;
        }
        let held = self.is_between(n) == Some(proof.client()) || self.client_is(n) == Some(proof.client());
        let heard_otherwise = self.busy && self.rng.permille(80);
        if held && !heard_otherwise {
            self.coverage.count("restart", "a coordinator that was killed is waited for");
        }
        held != heard_otherwise
    }

    /// NEW_EPOCH is repeated until everybody has re-asserted.
    fn spread_epoch(&mut self, n: NodeId, epoch: Epoch) {
        let Some(reign) = self.same_reign(n, epoch) else { return };
        if reign.latched || reign.ending {
            return;
        }
        let grace = reign.core.in_grace() || reign.committed.is_none();
        if grace {
            self.tell(n, None, &Tell::NewEpoch(CoordinatorHint { epoch, node: n }));
            self.after(250 * MS, move |w| w.spread_epoch(n, epoch));
        }
    }

    /// One event for a node's coordinator.
    pub(super) fn coord(&mut self, n: NodeId, event: Event) {
        let now = self.clock(n);
        let Some(reign) = self.reign(n) else { return };
        let mut out = Vec::new();
        reign.core.handle(now, event.clone(), &mut out);
        let deadline = reign.core.next_deadline();
        self.events += 1;
        self.coverage.variant("coord event", &event);
        for effect in out {
            self.coverage.variant("coord effect", &effect);
            self.coord_effect(n, effect);
        }
        self.arm(n, Core::Coord, deadline);
        self.drained_yet(n);
    }

    fn coord_effect(&mut self, n: NodeId, effect: Effect) {
        match effect {
            Effect::Answer { tag, answer } => self.answer(n, tag, answer),
            Effect::AnswerBind { tag, mut answer } => {
                let resets = self.disk.resets;
                if let BindAnswer::Bound { verifier, .. } = &mut answer {
                    verifier.generation = resets;
                }
                let Some(conn) = self.reign(n).and_then(|r| r.tags.remove(&tag)) else { return };
                self.coverage.variant("bind answer", &answer);
                self.towards_client(conn, move |w| w.bind_answered(conn, answer));
            }
            Effect::Read { op, ask } => {
                let soon = self.rng.range(20, 400);
                self.at_node(n, soon, move |w| {
                    let Some(reign) = w.reign(n).filter(|r| !r.latched) else { return };
                    let Some(state) = &reign.committed else { return };
                    let done = state.read(&ask);
                    w.coord(n, Event::ReadDone { op, done });
                });
            }
            Effect::Store { op, ask } => {
                self.coverage.variant("store ask", &ask);
                if let Some(reign) = self.reign(n) {
                    reign.queue.push_back((op, ask));
                }
                self.at_node(n, 10, move |w| w.pump_store(n));
            }
            Effect::Callback { id, conn, client, ask } => {
                self.coverage.variant("callback", &ask);
                if let Some(reign) = self.reign(n) {
                    reign.callbacks.insert(id, (conn.0, client));
                }
                self.at_node(n, 1500 * MS, move |w| w.callback_answered(n, id, None));
                self.towards_client(conn.0, move |w| w.called_back(conn.0, n, id, client, ask));
            }
            Effect::Fence { client, purpose } => self.want_fence(n, client, purpose),
            Effect::Drained => {
                if let Some(reign) = self.reign(n) {
                    reign.core_drained = true;
                }
            }
            Effect::Report(report) => {
                if let Report::Evicting { client, why: EvictReason::RecallOverdue } = report {
                    let (recall, path) = (micros(self.timing.recall), micros(self.timing.path_timeout));
                    let (now, epoch) = (self.now, self.reign(n).map_or(Epoch(0), |r| r.epoch));
                    self.oracle.overdue(epoch, client, now, recall / 2, path + 10_000 * MS);
                }
                if let Report::Evicting { why, .. } = &report {
                    self.coverage.variant("evicted why", why);
                }
                self.coverage.variant("coord report", &report);
                self.trace(|| format!("coordinator {n}: {report:?}"));
            }
        }
    }

    fn answer(&mut self, n: NodeId, tag: Tag, answer: Answer) {
        self.coverage.variant("answer", &answer);
        let Some(conn) = self.reign(n).and_then(|r| r.tags.remove(&tag)) else { return };
        let Some((slot, seq)) = self.proc(n).and_then(|p| p.reign.as_mut()).and_then(|r| r.tag_slots.remove(&tag))
        else {
            return;
        };
        if let Answer::Ok(Reply::Layout(grant)) = &answer {
            self.trace(|| format!("coordinator {n} gives layout {:#x} {:?} {:?}", grant.id.0, grant.range, grant.mode));
        }
        self.towards_client(conn, move |w| w.call_answered(conn, slot, seq, answer));
    }

    // ---- the store

    fn pump_store(&mut self, n: NodeId) {
        let Some(reign) = self.reign(n) else { return };
        let Some(committed) = reign.committed.clone() else { return };
        if reign.committing || reign.suspended || reign.latched || reign.queue.is_empty() {
            return;
        }
        let (epoch, take) = (reign.epoch, reign.queue.len().min(BATCH));
        let batch: Vec<(OpId, StoreAsk)> = reign.queue.drain(..take).collect();
        reign.committing = true;
        let mut state = (*committed).clone();
        let mut notes: Vec<Note> = Vec::new();
        let results: Vec<(OpId, StoreDone)> =
            batch.iter().map(|(op, ask)| (*op, state.change(ask, &mut notes))).collect();
        let state = Rc::new(state);
        let works = self.rng.range(100, 1500);
        self.at_node(n, works, move |w| {
            if w.same_reign(n, epoch).is_none_or(|r| r.latched) {
                return w.commit_ended(n, epoch, None, Vec::new());
            }
            // The latch was looked at: what stalls now is sent, whatever becomes of the reign meanwhile.
            let stalls = w.commit_stalls(n);
            w.at_node(n, stalls, move |w| {
                let req = Req::MetaCommit { epoch, state: Rc::clone(&state), notes };
                w.submit_for(n, Some(epoch), req, move |w, res| {
                    let done = matches!(res, Res::Done).then_some(state);
                    w.commit_ended(n, epoch, done, results);
                });
            });
        });
    }

    fn commit_ended(&mut self, n: NodeId, epoch: Epoch, state: Option<Rc<State>>, results: Vec<(OpId, StoreDone)>) {
        let Some(reign) = self.same_reign(n, epoch) else { return };
        reign.committing = false;
        let latched = reign.latched;
        match state {
            Some(state) => {
                reign.committed = Some(state);
                for (op, done) in results {
                    if !latched {
                        self.coord(n, Event::StoreDone { op, done });
                    }
                }
            }
            None if !latched => {
                reign.latched = true;
                self.coverage.count("store", "failed");
                self.coord(n, Event::StoreFailed);
                self.resign(n, None);
            }
            None => {}
        }
        self.drained_yet(n);
        self.pump_store(n);
    }

    pub(super) fn suspend(&mut self, n: NodeId, suspended: bool) {
        if let Some(reign) = self.reign(n) {
            reign.suspended = suspended;
        }
        self.pump_store(n);
    }

    // ---- the end

    pub(super) fn trip(&mut self, n: NodeId, epoch: Epoch) {
        let hint = self.proc(n).and_then(|p| p.office.core.hint()).filter(|h| h.node != n);
        if let Some(reign) = self.same_reign(n, epoch) {
            reign.latched = true;
            reign.ending = true;
            reign.queue.clear();
        }
        self.coord(n, Event::Stop { hint });
        self.at_node(n, 10, move |w| w.drained_yet(n));
        if self.setup.scsi {
            self.takes_back(n, epoch);
        }
    }

    /// What an office that ended other than in order has waiting for a path is taken back, again and again until nothing of it
    /// is left: a commit that was on its way waits again once its nexus is proved dead, and one that stalled is sent only then.
    /// No nexus is admitted meanwhile (rule `EndedBeforeAdmitted`).
    fn takes_back(&mut self, n: NodeId, epoch: Epoch) {
        if self.same_reign(n, epoch).is_none_or(|r| r.told) {
            return;
        }
        self.take_back_waiting(n, epoch);
        self.at_node(n, TAKES_BACK, move |w| w.takes_back(n, epoch));
    }

    pub(super) fn start_drain(&mut self, n: NodeId, epoch: Epoch) {
        if let Some(reign) = self.same_reign(n, epoch) {
            reign.ending = true;
        }
        self.coord(n, Event::Drain { hint: None });
        self.at_node(n, 10, move |w| w.drained_yet(n));
    }

    /// Once nothing of the reign can land any more, the latch is tripped and the office told.
    fn drained_yet(&mut self, n: NodeId) {
        let Some(reign) = self.reign(n) else { return };
        let unopened = reign.committed.is_none();
        let over = reign.latched || reign.core_drained && reign.queue.is_empty() || unopened;
        if !reign.ending || reign.told || !over || reign.committing || !reign.redirects.is_empty() {
            return;
        }
        reign.latched = true;
        reign.told = true;
        let epoch = reign.epoch;
        self.coord(n, Event::Stop { hint: None });
        self.at_node(n, 10, move |w| w.office(n, office::Event::Drained { epoch }));
    }

    // ---- clients

    fn tag(&mut self, n: NodeId, conn: u64) -> Option<Tag> {
        let reign = self.reign(n)?;
        reign.last_tag += 1;
        let tag = Tag(reign.last_tag);
        reign.tags.insert(tag, conn);
        Some(tag)
    }

    /// BIND reaches this node.
    pub(super) fn bind_arrives(&mut self, n: NodeId, conn: u64, to: &CoordinatorHint, request: BindRequest) {
        let hint = self.proc(n).and_then(|p| p.office.core.hint());
        let serves = self.reign(n).is_some_and(|r| r.epoch >= to.epoch && r.committed.is_some() && !r.latched);
        let tag = if serves { self.tag(n, conn) } else { None };
        match tag {
            Some(tag) => self.coord(n, Event::Bind { tag, conn: ConnId(conn), request }),
            None => self.towards_client(conn, move |w| w.bind_answered(conn, BindAnswer::NotCoordinator { hint })),
        }
    }

    /// A call reaches this node.
    pub(super) fn call_arrives(&mut self, n: NodeId, conn: u64, call: Call) {
        let (slot, seq) = (call.slot, call.seq);
        let Some(tag) = self.tag(n, conn) else {
            let hint = self.proc(n).and_then(|p| p.office.core.hint());
            return self.towards_client(conn, move |w| w.call_answered(conn, slot, seq, Answer::StaleEpoch { hint }));
        };
        if let Some(reign) = self.reign(n) {
            reign.tag_slots.insert(tag, (slot, seq));
        }
        self.coord(n, Event::Call { tag, call });
    }

    /// Redirected I/O reaches this node: checked, guarded, submitted over this node's own path.
    pub(super) fn redirect_arrives(
        &mut self,
        n: NodeId,
        conn: u64,
        io: crate::core::client::IoId,
        request: Redirect,
        write: Option<disk::Write>,
    ) {
        let resets = self.disk.resets;
        let answer = move |w: &mut World, answer: RedirectAnswer, data: Option<disk::Block>| {
            w.coverage.variant("redirect answer", &answer);
            w.towards_client(conn, move |w| w.redirect_answered(conn, io, answer, data));
        };
        let Some(reign) = self.reign(n) else {
            let hint = self.proc(n).and_then(|p| p.office.core.hint());
            return answer(self, RedirectAnswer::StaleEpoch { hint }, None);
        };
        let guard = match reign.core.redirect_begin(&request) {
            Ok(guard) => guard,
            Err(refused) => return answer(self, refused, None),
        };
        reign.last_redirect += 1;
        let (number, epoch) = (reign.last_redirect, reign.epoch);
        reign.redirects.insert(number);
        self.coverage.variant("redirected", &request.op);
        let req = match (request.op, write) {
            (RedirectOp::Write, Some(write)) => {
                let claim = Claim { client: request.client, layout: request.layout, direct: None };
                Req::Write(Box::new(disk::Write { claim, ..write }))
            }
            (RedirectOp::Read, _) => Req::Read { block: request.at / FS_BLOCK },
            _ => Req::Flush,
        };
        self.submit_for(n, Some(epoch), req, move |w, res| {
            let Some(reign) = w.same_reign(n, epoch) else { return };
            reign.redirects.remove(&number);
            w.coord(n, Event::RedirectEnded { guard });
            // Of a reset on the way a write is not sure, and a flush does not cover what it took.
            let generation = if request.op == RedirectOp::Flush { w.disk.resets } else { resets };
            let verifier = Verifier { epoch, boot: u64::from(n.get()), generation };
            match res {
                Res::Done => answer(w, RedirectAnswer::Done { verifier }, None),
                Res::Data(data) => answer(w, RedirectAnswer::Done { verifier }, Some(data)),
                _ => answer(w, RedirectAnswer::StaleEpoch { hint: None }, None),
            }
        });
    }

    pub(super) fn callback_answered(&mut self, n: NodeId, id: CallbackId, answer: Option<CallbackAnswer>) {
        let Some((_, client)) = self.reign(n).and_then(|r| r.callbacks.remove(&id)) else { return };
        if let Some(answer) = &answer {
            self.coverage.variant("callback answer", answer);
            let (now, epoch) = (self.now, self.reign(n).map_or(Epoch(0), |r| r.epoch));
            if *answer == CallbackAnswer::Draining {
                self.oracle.says_draining(epoch, client, now);
            }
        }
        self.coord(n, Event::CallbackDone { id, answer });
    }

    /// Callbacks over a connection that broke.
    pub(super) fn callbacks_break(&mut self, n: NodeId, conn: u64) {
        let Some(reign) = self.reign(n) else { return };
        let over: Vec<CallbackId> =
            reign.callbacks.iter().filter(|(_, (c, _))| *c == conn).map(|(id, _)| *id).collect();
        for id in over {
            self.callback_answered(n, id, None);
        }
    }

    /// The port of a node refuses after its connection ended: its client is dead.
    pub(super) fn known_dead(&mut self, n: NodeId, dead: NodeId) {
        // One that made room comes back; it is evicted only if others want something of it for too long.
        if self.is_between(dead).is_some() {
            return;
        }
        let Some(reign) = self.reign(n).filter(|r| !r.latched) else { return };
        let of_node: Vec<ClientId> = reign.core.sessions().filter(|c| c.node == dead).collect();
        for client in of_node {
            self.coord(n, Event::ClientDead { client });
        }
    }
}

/// What the store and the slots show, for the core's start.
fn inherited(state: &State, slots: &BTreeMap<NodeId, SlotView>, (before, comes_back): (Before, bool)) -> Inherited {
    let session = |(client, row): (&ClientId, &super::store::Row)| {
        let fate = match before {
            Before::Fenced(proof) if proof.client() == *client => match proof.is_dead(comes_back) {
                true => Fate::Dead { fence_gen: proof.fence_gen() },
                false => Fate::PathFenced { fence_gen: proof.fence_gen() },
            },
            Before::Resigned(holder) if holder == *client => Fate::Resigned,
            Before::Fenced(_) | Before::Resigned(_) | Before::New => Fate::Unknown,
        };
        DurableSession {
            client: *client,
            fence_gen: row.fence_gen,
            state: row.state,
            answers: row.answers.iter().map(|(slot, (seq, answer))| (*slot, *seq, answer.clone())).collect(),
            slot: slots.get(&client.node).map(|s| SlotSeen { incarnation: s.incarnation, fence_gen: s.fence_gen }),
            fate,
            reason: row.reason.clone(),
        }
    };
    Inherited {
        sessions: state.sessions.iter().map(session).collect(),
        orphans: state.orphans.iter().copied().collect(),
        truncated: Vec::new(),
        unheard: BTreeMap::new(),
    }
}

impl Reign {
    /// Whether the office was told that nothing of it can land any more.
    pub(super) fn is_over(&self) -> bool {
        self.told
    }
}
