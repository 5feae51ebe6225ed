//! The office of one node for one volume: its slot, the lease, fences, permission, self-fencing, resigning.
//!
//! Who *is* coordinator stands in the lease block; who *may be* is the arbiter's word. A node takes office only after
//! the reign before was fenced or resigned, and that proof ([`FencedEpoch`]) is what the metadata store asks for. All
//! shared state lies in two kinds of block that change by compare-and-write (CAW) alone: a slot per node, one lease.
//!
//! ```text
//! own slot   (own.rs)     Unborn ─ own LIVE lock ─► Locked ─ read ─► Registering ─► Registered ─ another life ─► Over
//! nexuses    (nexus.rs)   Due ─► Out ─► good | Refused   (SCSI kind)
//! role       (role.rs)    Follower ─► Taking ─► Reigning ─► Leaving ─► Follower
//! challenge  (challenge.rs)  Watching ─► Asking ─► Fencing;   a probe of the LIVE lock is the quick way
//! fence runs (fence.rs)   Probe ─► Observe ─► Raising ─► Locking ─► Asking ─► Marking ─► Killing ─► Waiting ─► proof
//! arbiter    (arbiter.rs) the largest clique, seen for two periods: permission
//! one change (caw.rs)     Outstanding ⇄ Unsettled ─► done | lost
//! ```
//! The machine is pure: [`Office::handle`] takes the time and one [`Event`] and appends [`Effect`]s, to be carried out
//! in that order. Each question among the effects is answered by exactly one event; a request to the disk that hangs
//! is simply not answered, and the machine counts from its submission. [`Event::Tick`] is due at
//! [`Office::next_deadline`].
//!
//! # Invariants
//! 1. [`Effect::TookOffice`] comes only after this node's own CAW of the lease was settled as done, and that CAW was sent
//!    only with a [`FenceProof`] of the holder it replaced, or over a block that was vacant.
//! 2. A lost reply makes neither a holder nor a loser: only the own bytes or a newer value found in the block settle it.
//! 3. `resigned` is written only after [`Event::Drained`] of that reign.
//! 4. "Fenced" is answered only after direct I/O has stopped and ended, and after a reign held here has drained.
//! 5. A slot's `fence_gen` never falls, and only I/O under the generation that was granted goes on.
//! 6. A fence touches only a slot that carries the incarnation it means.
//! 7. Without permission no generation is raised, no lease taken or renewed, nobody killed.
//! 8. A LIVE lock acquired before the generation is raised is kept until that is settled; each is let go once.
//!
//! Time decides only *when* something is tried; no invariant rests on it. The interleavings that the rules prevent are
//! told step by step in docs/semantics/fencing.md; [`crate::core::rules::Rule`] names those that can be taken out.
//!
//! Refused: a second living incarnation of one node (the earlier ends itself when it sees the later); a fence asked for
//! by a node that is not in office.
//!
//! Called by `volume::office`, the shell, and by the simulation.

mod arbiter;
mod asked;
mod caw;
mod challenge;
mod effect;
mod event;
mod fence;
mod look;
mod nexus;
mod own;
mod proof;
mod reason;
mod role;
#[cfg(test)]
mod tests;
mod timing;
mod view;
mod watch;

pub use effect::{Effect, FenceFailed, FenceStep, LostWhy, Report, Tell, Via};
pub use event::{
    AliveAnswer, Ask, AskId, CawResult, Event, KillOutcome, PeerLoss, Purpose, ReadSeq, ScsiResult, Tag, Ticket,
};
pub use proof::{Before, FenceProof, FencedEpoch, HowFenced};
pub use reason::TakeoverWhy;
pub use timing::{Timing, TimingError};
pub use view::{Key, LeaseView, Mark, NodeSet, Resigned, Sight, SlotView};

use std::collections::BTreeMap;
use std::time::Duration;

use block::shared::{Epoch, FenceGen, Incarnation, NodeId};

use arbiter::{Arbiter, Hearing};
use fence::{FenceRequest, Run};
use look::Look;
use nexus::Registration;
use own::Own;
use role::Role;

use super::rules::Rules;
use super::time::Now;
use crate::proto::CoordinatorHint;
use crate::types::ClientId;

/// What kind of shared disk it is; decides the steps of a fence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskKind {
    /// A file on this host: LIVE locks, and processes that can be ended.
    File,
    /// A SCSI disk with persistent reservations.
    Scsi {
        /// The tag of the volume in every reservation key; never 0.
        volume_tag: u16,
    },
}

/// What an office is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// All nodes of the cluster, this one included.
    pub nodes: NodeSet,
    /// The kernel's boot id of this host.
    pub boot: u128,
    /// This process.
    pub pid: u32,
    /// When it started, in the kernel's ticks.
    pub pid_start: u64,
    /// Where this node's coordinator can be reached.
    pub address: String,
    /// Where this process' nonces begin; random, so that no two processes share one.
    pub nonce_base: u64,
    /// The volume's times.
    pub timing: Timing,
    /// The kind of disk.
    pub kind: DiskKind,
    /// Nexuses to the disk. With one, a compare-and-write is never hedged.
    pub nexuses: u16,
    /// A peer that is told as [`PeerLoss::Silent`] after it was heard had said nothing for so long.
    pub silence: Duration,
    /// The life that goes on in this process, if its slot still is its own; else a new incarnation begins.
    pub resumes: Option<Resumes>,
}

/// A life whose process has made room for the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resumes {
    /// Which.
    pub incarnation: Incarnation,
    /// The generation that was granted to it.
    pub fence_gen: FenceGen,
    /// Its process has proved, at its end, that nothing which it had sent can land any more.
    pub ended: bool,
}

/// A process that was proved dead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Died {
    /// Its incarnation, and all earlier ones.
    incarnation: Incarnation,
    /// The slot as it was known then, if that is of this incarnation.
    slot: Option<SlotView>,
}

impl Died {
    /// Whether a slot that was read since shows that the node lives again.
    ///
    /// Prevents: the daemon of a coordinator is killed, the next goes on with the same incarnation, and for whoever fenced it the node
    /// has no vote any more and cannot hold an office: with one more node away nobody may coordinate.
    fn has_risen(&self, found: &SlotView) -> bool {
        let goes_on = |was: &SlotView| found.counter > was.counter && found.process() != was.process();
        found.incarnation > self.incarnation
            || found.incarnation == self.incarnation && self.slot.as_ref().is_some_and(goes_on)
    }
}

/// Whether this node may be coordinator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Permission {
    /// It may, as a member of this clique.
    Given {
        /// Who hears whom, both ways.
        clique: NodeSet,
    },
    /// It may not (yet).
    Withheld,
}

/// Numbers that this office hands out.
#[derive(Debug)]
struct Ids {
    tag: u64,
    nonce: u64,
}

impl Ids {
    fn tag(&mut self) -> Tag {
        self.tag += 1;
        Tag(self.tag)
    }

    fn nonce(&mut self) -> u64 {
        self.nonce = self.nonce.wrapping_add(1);
        self.nonce
    }
}

/// This node's own path to the disk.
#[derive(Debug)]
struct OwnPath {
    /// What the client's route machine says.
    client_ok: bool,
    /// Own requests did not come back in time; cleared by a good renewal of the own slot.
    io_lost: bool,
}

/// The office of one node for one volume.
#[derive(Debug)]
pub struct Office {
    config: Config,
    rules: Rules,
    ids: Ids,
    look: Look,
    own: Own,
    path: OwnPath,
    /// It takes no office, for as long as somebody wants that.
    barred: bool,
    arbiter: Arbiter,
    role: Role,
    /// Fences under way.
    runs: BTreeMap<ClientId, Run>,
    /// Peers that are connected and answer.
    heard: NodeSet,
    /// How and when a peer was lost that is not heard again yet.
    lost: BTreeMap<NodeId, (PeerLoss, Now)>,
    /// Since when such a peer has said nothing, and its life as the slot showed it then.
    unheard: BTreeMap<NodeId, (Option<Incarnation>, Now)>,
    /// Incarnations proved dead: they have no vote. Forgotten when a later one registers, or the same goes on in another process.
    dead: BTreeMap<NodeId, Died>,
    /// The fence of the holder of this reign succeeded; consumed by the taking. It says nothing of a later reign of the
    /// same client.
    proved: Option<(Epoch, FenceProof)>,
    /// A reign whose metadata or redirected I/O may not have ended yet.
    undrained: Option<Epoch>,
    /// The highest generation for which this node's own direct I/O has stopped and ended.
    stopped: FenceGen,
    /// The reign whose coordinator said that it has no path.
    no_path: Option<Epoch>,
    /// The reign that was given up in this node's favour, as heard.
    favoured: Option<Epoch>,
    /// The highest epoch heard of from peers.
    heard_of: Option<CoordinatorHint>,
    /// The holder's LIVE lock is not tried before this.
    probe_after: Now,
    /// When it was last given an event.
    ran: Now,
    /// Nexuses of this node that are up (SCSI kind).
    nexuses: BTreeMap<u16, Registration>,
}

impl Office {
    /// An office that has done nothing yet; the first [`Event::Tick`] sets it going.
    pub fn new(config: Config, rules: Rules) -> Office {
        Office {
            ids: Ids { tag: 0, nonce: config.nonce_base },
            config,
            rules,
            look: Look::default(),
            own: Own::Unborn { retry: Now(0) },
            path: OwnPath { client_ok: true, io_lost: false },
            barred: false,
            arbiter: Arbiter::default(),
            role: Role::default(),
            runs: BTreeMap::new(),
            heard: NodeSet::EMPTY,
            lost: BTreeMap::new(),
            unheard: BTreeMap::new(),
            dead: BTreeMap::new(),
            proved: None,
            undrained: None,
            stopped: FenceGen(0),
            no_path: None,
            favoured: None,
            heard_of: None,
            probe_after: Now(0),
            ran: Now(0),
            nexuses: BTreeMap::new(),
        }
    }

    // ---- getters

    /// This node's client, once its slot is registered.
    pub fn client(&self) -> Option<ClientId> {
        self.life().map(|l| l.client)
    }

    /// The coordinator as far as this node knows: the highest epoch it read or heard of. `None` while nobody reigns.
    pub fn hint(&self) -> Option<CoordinatorHint> {
        let lease = self.look.sight.as_ref().map(|s| &s.lease);
        let read = lease.and_then(|l| l.holder.map(|h| CoordinatorHint { epoch: l.epoch, node: h.node }));
        let heard = self.heard_of.clone();
        let best = [read, heard].into_iter().flatten().max_by_key(|h| h.epoch)?;
        let vacated = lease.is_some_and(|l| l.is_vacant() && l.epoch >= best.epoch);
        (!vacated).then_some(best)
    }

    /// The right under which this node is coordinator now.
    pub fn in_office(&self) -> Option<FencedEpoch> {
        match &self.role {
            Role::Reigning(reign) => Some(reign.proof),
            _ => None,
        }
    }

    /// Whether it is in office and its lease was not renewed in time: no metadata commit may begin.
    pub fn suspended(&self) -> bool {
        matches!(&self.role, Role::Reigning(reign) if reign.suspended)
    }

    /// Whether this node may be coordinator.
    pub fn permission(&self) -> Permission {
        self.arbiter.given.map_or(Permission::Withheld, |clique| Permission::Given { clique })
    }

    /// Whether this node's own slot and lease requests come back in time, and its client says the same.
    pub fn own_path_ok(&self) -> bool {
        self.path_ok()
    }

    /// A node's slot as last read.
    pub fn slot(&self, node: NodeId) -> Option<&SlotView> {
        self.look.sight.as_ref().and_then(|s| s.slots.get(&node))
    }

    /// The lease block as last read.
    pub fn lease(&self) -> Option<&LeaseView> {
        self.look.sight.as_ref().map(|s| &s.lease)
    }

    /// Whether another incarnation has taken this node's slot: this office is over.
    pub fn is_over(&self) -> bool {
        matches!(self.own, Own::Over)
    }

    /// When [`Event::Tick`] is due at the latest.
    pub fn next_deadline(&self) -> Option<Now> {
        if self.is_over() {
            return None;
        }
        [
            self.own_deadline(),
            self.look.deadline(),
            self.role_deadline(),
            self.runs_deadline(),
            self.arbiter.settles,
            self.overdue_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    // ---- the machine

    /// Takes one event; appends what is to be done, in this order.
    pub fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        if self.is_over() {
            self.refuse(event, out);
            return;
        }
        self.wakes(now);
        self.apply(now, event, out);
        self.advance_own(now, out);
        self.judge_path(now, out);
        self.judge_permission(now, out);
        self.advance_runs(now, out);
        self.advance_role(now, out);
        // A fence that the role began may be over at once, and then the role goes on.
        self.advance_runs(now, out);
        self.advance_role(now, out);
        self.advance_reads(now, out);
        self.check();
    }

    /// A node that did not run (stopped, or its machine paused) is ticked late. It could not have taken an answer in that
    /// time, so no request of its own is overdue for it: the answers may all be there.
    fn wakes(&mut self, now: Now) {
        let late = self.next_deadline().map(|at| now.since(at)).unwrap_or_default();
        let gap = now.since(std::mem::replace(&mut self.ran, now));
        if late < self.config.timing.renew {
            return;
        }
        self.look.postpone(gap);
        if let Some(caw) = self.own_caw_mut() {
            caw.postpone(gap);
        }
        if let Some(caw) = self.lease_caw_mut() {
            caw.postpone(gap);
        }
    }

    fn apply(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Tick => {}
            Event::Read { seq, sight } => self.on_read(now, seq, sight, out),
            Event::SlotCaw { tag, result } => self.on_slot_caw(now, tag, result, out),
            Event::LeaseCaw { tag, result } => self.on_lease_caw(now, tag, result, out),
            Event::LiveLock { node, acquired } => self.on_live_lock(now, node, acquired, out),
            Event::Killed { node, outcome } => self.on_killed(node, outcome, out),
            Event::PeerHeard { node } => self.on_peer_heard(node),
            Event::PeerLost { node, how } => self.on_peer_lost(now, node, how),
            Event::Alive { node, epoch, answer } => self.on_alive(now, node, epoch, answer, out),
            Event::FenceAnswer { client, fence_gen, fenced } => {
                self.on_fence_answer(now, client, fence_gen, fenced, out)
            }
            Event::Asked { id, from, ask } => self.on_asked(now, id, from, ask, out),
            Event::NothingInFlight { fence_gen } => self.on_nothing_in_flight(fence_gen, out),
            Event::Drained { epoch } => self.on_drained(epoch, out),
            Event::Resign { to } => self.on_resign(now, to, out),
            Event::RequestFence { ticket, client, purpose, answered } => {
                self.request_fence(now, FenceRequest { ticket, client, purpose, answered }, out);
            }
            Event::Granted { fence_gen } => self.on_granted(fence_gen, out),
            Event::OwnPath { ok } => self.path.client_ok = ok,
            Event::Barred { barred } => self.barred = barred,
            Event::Scsi { tag, result } => self.on_scsi(now, tag, result, out),
            Event::NexusGone { nexus } => drop(self.nexuses.remove(&nexus)),
            Event::NexusUp { nexus } => self.on_nexus_up(nexus, out),
            Event::OwnSlotVia { nexus, slot } => self.on_own_slot_via(nexus, slot, out),
        }
    }

    fn on_slot_caw(&mut self, now: Now, tag: Tag, result: CawResult<SlotView>, out: &mut Vec<Effect>) {
        if self.own_caw(now, tag, result.clone(), out) {
            return;
        }
        self.run_caw(now, tag, result, out);
    }

    fn on_peer_heard(&mut self, node: NodeId) {
        if node != self.config.node {
            self.heard.insert(node);
            self.lost.remove(&node);
            self.unheard.remove(&node);
        }
    }

    fn on_peer_lost(&mut self, now: Now, node: NodeId, how: PeerLoss) {
        self.heard.remove(node);
        self.lost.insert(node, (how, now));
        // Told again, in another way, it has still said nothing since.
        let since = if how == PeerLoss::Silent { now - self.config.silence } else { now };
        let life = self.slot(node).map(|slot| slot.incarnation);
        self.unheard.entry(node).or_insert((life, since));
    }

    fn is_dead(&self, client: ClientId) -> bool {
        self.dead.get(&client.node).is_some_and(|died| client.incarnation <= died.incarnation)
    }

    /// Whether a client is known to have ended: proved dead, or a later incarnation of its node is registered.
    fn is_ended(&self, client: ClientId) -> bool {
        self.is_dead(client) || self.slot(client.node).is_some_and(|slot| slot.incarnation > client.incarnation)
    }

    // ---- own path

    fn path_ok(&self) -> bool {
        self.path.client_ok && !self.path.io_lost
    }

    /// When an outstanding request will have been out for too long.
    fn overdue_at(&self) -> Option<Now> {
        if self.path.io_lost {
            return None;
        }
        self.oldest_request().map(|since| since + self.path_patience())
    }

    fn oldest_request(&self) -> Option<Now> {
        let lease = self.lease_caw().and_then(|c| c.outstanding_since());
        [self.look.outstanding_since(), self.own_caw_since(), lease].into_iter().flatten().min()
    }

    fn requests_overdue(&self, now: Now) -> bool {
        self.oldest_request().is_some_and(|since| now.since(since) >= self.path_patience())
    }

    /// How long a request may be out before the path counts as lost. Who is in office rides a stall of its disk out for as
    /// long as its lease does: nobody may take over before, and a disk that stalls for all would be given up for nothing.
    /// A disk that *fails* is not waited for.
    fn path_patience(&self) -> Duration {
        match self.role {
            Role::Reigning(_) => self.config.timing.suspend_after,
            _ => self.config.timing.path_timeout,
        }
    }

    /// A coordinator that lost its own path trips its latch and says so; somebody with a path takes over.
    fn judge_path(&mut self, now: Now, out: &mut Vec<Effect>) {
        let silent = self
            .look
            .last_good
            .is_some_and(|at| now.since(at) >= self.config.timing.path_timeout + self.config.timing.renew);
        if !self.path.io_lost && (self.requests_overdue(now) || silent && self.reads_fail()) {
            self.path.io_lost = true;
            out.push(Effect::Report(Report::OwnPathLost));
        }
        if !self.path_ok() {
            self.leave(LostWhy::NoPath, out);
            self.leaves_without_path(out);
        }
    }

    fn reads_fail(&self) -> bool {
        self.look.failing
    }

    // ---- permission

    /// Judges by what was read last. Own hearing counts as it is now, the others' as their slots say.
    fn judge_permission(&mut self, now: Now, out: &mut Vec<Effect>) {
        let timing = self.config.timing;
        let Some(sight) = &self.look.sight else { return };
        let me = self.life().filter(|_| self.path_ok()).map(|l| l.client.node);
        let mut hearing: Hearing = Hearing::new();
        for node in self.look.counting(timing.slot_counts_for()).iter() {
            let Some(slot) = sight.slots.get(&node) else { continue };
            let client = ClientId { node, incarnation: slot.incarnation };
            if node != self.config.node && !self.is_dead(client) {
                hearing.insert(node, slot.heard);
            }
        }
        if let Some(me) = me {
            hearing.insert(me, self.heard);
        }
        let holder = sight.lease.holder.filter(|h| !sight.lease.is_vacant() && !self.is_ended(*h)).map(|h| h.node);
        let dead: NodeSet = self.dead.keys().copied().collect();
        let had = self.arbiter.given;
        self.arbiter.judge(now, me, &hearing, holder, dead, timing.settle());
        match self.arbiter.given {
            Some(clique) if had != Some(clique) => out.push(Effect::Report(Report::Permitted { clique })),
            None if had.is_some() => out.push(Effect::Report(Report::NotPermitted)),
            _ => {}
        }
    }

    // ---- invariants

    /// What must hold after every event.
    fn check(&self) {
        if let Role::Reigning(reign) = &self.role {
            assert_eq!(reign.lease.epoch, reign.proof.epoch(), "the reign is the lease's");
            assert_eq!(reign.lease.holder, self.client(), "a reign is of this node's living client");
        }
        assert!(matches!(self.role, Role::Follower(_)) || self.life().is_some(), "only a registered client has a role");
        let fencing_own =
            self.runs.keys().any(|v| Some(*v) == self.client() && !matches!(self.role, Role::Reigning(_)));
        assert!(!fencing_own, "a node fences its own client only as its coordinator");
    }
}
