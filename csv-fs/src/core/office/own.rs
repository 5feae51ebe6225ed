//! This node's own slot: registering, renewing, and stopping when it is fenced.
//!
//! ```text
//! Unborn ─ own LIVE lock ─► Locked ─ slot read ─► Registering ─ CAW done ─► Registered ─ another incarnation ─► Over
//! ```
//! - The own LIVE lock first (file kind): an earlier process of this node may still have writes in the kernel; its
//!   lock is free exactly when the last has landed. So a later incarnation in a slot proves that all earlier ended.
//! - A process may go on with the life of the one before ([`Resumes`]): the same incarnation, registered anew, under the
//!   generation that was granted to it. Every fence raises the generation, so a fence that was begun or ended meanwhile is seen: the
//!   life that goes on is one that is being fenced, as if its process had never ended, and whether it was evicted its coordinator
//!   knows. One that is about to begin meets the changed slot and starts over. An office that the process before left behind is
//!   given up first: its last write has landed, or the LIVE lock were not free.
//! - A SCSI disk has no LIVE lock, and a fence by keys reaches what is registered: the next process takes over the nexuses of the one before,
//!   each when it logs in, and of one that it does not reach, or that has given its key back, nobody would end what is under way. So there the
//!   process before must have proved that itself (rule `EndedBeforeHandedOn`), which one that was killed has not.
//!   1. Coordinator 1 makes room for its next process. A metadata page of it is stuck on nexus 0. It ends all the same.
//!   2. The next one reaches the disk over nexus 1, goes on with the incarnation, and gives the office up that was left: nobody is fenced.
//!   3. 2 takes the office and opens the store. Nexus 0 lets the page go: it lands over the tree of the new reign.
//!
//!   With the proof: keys that the process before could not give back are of the same incarnation, so that whoever fences that takes them,
//!   too, and there is nothing on their nexuses that he would have to end. A fence that was begun meanwhile has raised the generation: the
//!   nexuses of the next process read that after they have registered (`nexus`), and are not admitted before nothing older is in flight.
//!
//!   A compare-and-write of the process before that has no answer may land behind that: of the lease, it is given up (`role`); of a slot,
//!   it is compared with what is there.
//! - A higher `fence_gen` than was granted, seen in the slot by whatever means, stops direct I/O *before* anything
//!   else happens, and trips the latch of an office held here. "Nothing in flight" is said only after both have ended.
//! - The owner never lowers `fence_gen`: it carries on what it found. A fencer's raise makes the owner's next renewal
//!   miscompare, so the owner cannot miss it.
//! - A raise of the own counts only when the very renewal that carries it has landed: not one that was out already when
//!   it was asked for, and not one that met another fencer's raise, to the same generation or not.

use block::shared::{FenceGen, Incarnation};

use super::caw::{Caw, Settled};
use super::effect::{Effect, LostWhy, Report, Via};
use super::event::{AskId, ReadSeq, Tag};
use super::role::Role;
use super::view::{NodeSet, Sight, SlotView};
use super::{CawResult, DiskKind, Office, Resumes};
use crate::core::rules::Rule;
use crate::core::time::Now;
use crate::proto::PeerAnswer;
use crate::types::ClientId;

/// How often the own LIVE lock is tried while an earlier process of this node drains, in milliseconds.
const OWN_LOCK_RETRY: std::time::Duration = std::time::Duration::from_millis(20);

/// The life of this node's own slot.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one per volume, never in a collection")]
pub(super) enum Own {
    /// Nothing done yet, or the own LIVE lock is being tried again at this time.
    Unborn { retry: Now },
    /// The attempt is out.
    Locking,
    /// No earlier process of this node can write; waiting for a look at the slot.
    Locked,
    /// The first change is out.
    Registering(Caw<SlotView>),
    /// Registered.
    Registered(Life),
    /// Another incarnation took this node's slot.
    Over,
}

/// A registered incarnation.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) client: ClientId,
    /// The slot as last known.
    pub(super) slot: SlotView,
    pub(super) caw: Option<Caw<SlotView>>,
    due: Now,
    /// The highest generation granted to this client.
    pub(super) granted: FenceGen,
    /// The highest generation for which direct I/O was told to stop.
    stopping: FenceGen,
    /// The highest generation for which nothing is in flight.
    pub(super) answered: FenceGen,
    /// Whether this node is to raise its own generation, for its own coordinator; until a renewal that does has landed.
    raise: bool,
    /// The generation that the last such renewal has put into the slot.
    pub(super) self_raised: FenceGen,
    asks: Vec<(AskId, FenceGen)>,
}

impl Life {
    /// Whether this node may write what an office writes: it is not fenced, or everything from before the fence has
    /// ended.
    pub(super) fn may_write(&self) -> bool {
        self.slot.fence_gen <= self.granted.max(self.answered)
    }

    /// Whether the own generation is still to be raised.
    pub(super) fn raising(&self) -> bool {
        self.raise
    }

    fn wants_change(&self, now: Now, heard: NodeSet) -> bool {
        now >= self.due || self.raise || self.slot.heard != heard || self.slot.answer < self.answer()
    }

    /// The answer to be shown: never of a generation that is not in the slot yet.
    fn answer(&self) -> FenceGen {
        self.answered.min(self.slot.fence_gen)
    }
}

impl Office {
    pub(super) fn life(&self) -> Option<&Life> {
        match &self.own {
            Own::Registered(life) => Some(life),
            _ => None,
        }
    }

    pub(super) fn life_mut(&mut self) -> Option<&mut Life> {
        match &mut self.own {
            Own::Registered(life) => Some(life),
            _ => None,
        }
    }

    pub(super) fn own_deadline(&self) -> Option<Now> {
        match &self.own {
            Own::Unborn { retry } => Some(*retry),
            Own::Registered(life) if life.caw.is_none() => Some(life.due),
            _ => None,
        }
    }

    /// Since when the own slot's change is out.
    pub(super) fn own_caw_since(&self) -> Option<Now> {
        match &self.own {
            Own::Registering(caw) => caw.outstanding_since(),
            Own::Registered(life) => life.caw.as_ref().and_then(|c| c.outstanding_since()),
            _ => None,
        }
    }

    pub(super) fn own_caw_mut(&mut self) -> Option<&mut Caw<SlotView>> {
        match &mut self.own {
            Own::Registering(caw) => Some(caw),
            Own::Registered(life) => life.caw.as_mut(),
            _ => None,
        }
    }

    /// Does what is due for the own slot.
    pub(super) fn advance_own(&mut self, now: Now, out: &mut Vec<Effect>) {
        match &self.own {
            Own::Unborn { retry } if now >= *retry => match self.config.kind {
                DiskKind::File => {
                    self.own = Own::Locking;
                    out.push(Effect::TryLiveLock { node: self.config.node });
                }
                DiskKind::Scsi { .. } => self.own = Own::Locked,
            },
            Own::Registered(life) if life.caw.is_none() && life.wants_change(now, self.heard) => self.renew(now, out),
            _ => {}
        }
    }

    pub(super) fn own_live_lock(&mut self, now: Now, acquired: bool) {
        if matches!(self.own, Own::Locking) {
            self.own = if acquired { Own::Locked } else { Own::Unborn { retry: now + OWN_LOCK_RETRY } };
            self.look.want();
        }
    }

    fn renew(&mut self, now: Now, out: &mut Vec<Effect>) {
        let (nonce, tag, heard) = (self.ids.nonce(), self.ids.tag(), self.heard);
        let (reigning, rules) = (matches!(self.role, Role::Reigning(_)), self.rules);
        let Some(life) = self.life_mut() else { return };
        let mut new = SlotView { heard, answer: life.answer(), ..life.slot.next(nonce) };
        if life.raise && reigning {
            new.fence_gen = FenceGen(new.fence_gen.0 + 1);
            if !rules.has(Rule::OwnRaiseHasLanded) {
                life.self_raised = new.fence_gen;
            }
        }
        let expect = life.slot;
        life.caw = Some(Caw::new(expect, new, tag, now));
        out.push(Effect::CawSlot { tag, node: life.client.node, expect, new, via: Via::First });
    }

    /// Whether the life that is to go on here still has its slot. Fenced meanwhile, it does nothing under the generation that it had.
    ///
    /// Prevents: it was fenced, the fencer's proof says that nothing of that generation comes any more, and it writes on.
    fn may_resume(&self, found: &SlotView) -> bool {
        let Some(Resumes { incarnation, fence_gen, ended }) = self.config.resumes else { return false };
        let same = (found.incarnation, found.boot) == (incarnation, self.config.boot) && found.fence_gen >= fence_gen;
        let by_lock = matches!(self.config.kind, DiskKind::File);
        let ended = by_lock || ended || !self.rules.has(Rule::EndedBeforeHandedOn);
        same && self.look.sight.is_some() && ended
    }

    fn register(&mut self, now: Now, found: SlotView, out: &mut Vec<Effect>) {
        let (nonce, tag, heard) = (self.ids.nonce(), self.ids.tag(), self.heard);
        let c = &self.config;
        let new = SlotView {
            incarnation: if self.may_resume(&found) { found.incarnation } else { Incarnation(found.incarnation.0 + 1) },
            boot: c.boot,
            pid: c.pid,
            pid_start: c.pid_start,
            heard,
            // On a SCSI disk it tells that a fence of an earlier life was begun and has not ended.
            mark: found.mark.filter(|_| matches!(c.kind, DiskKind::Scsi { .. })),
            answer: FenceGen(0),
            ..found.next(nonce)
        };
        self.own = Own::Registering(Caw::new(found, new, tag, now));
        out.push(Effect::CawSlot { tag, node: self.config.node, expect: found, new, via: Via::First });
    }

    /// What a round of reading shows of the own slot.
    pub(super) fn own_seen(&mut self, now: Now, seq: ReadSeq, sight: &Sight, out: &mut Vec<Effect>) {
        let found = sight.slots.get(&self.config.node).copied();
        let settled = match (&mut self.own, found) {
            (Own::Locked, found) => return self.register(now, found.unwrap_or_default(), out),
            (Own::Registering(caw), Some(found)) => caw.seen(seq, &found),
            (Own::Registered(Life { caw: Some(caw), .. }), Some(found)) => caw.seen(seq, &found),
            (Own::Registered(life), Some(found)) if found.counter > life.slot.counter => Settled::Lost(found),
            _ => return,
        };
        self.own_settled(now, settled, out);
    }

    /// The answer to a change of the own slot.
    pub(super) fn own_caw(&mut self, now: Now, tag: Tag, result: CawResult<SlotView>, out: &mut Vec<Effect>) -> bool {
        let (rules, next) = (self.rules, self.look.next_seq());
        let caw = match &mut self.own {
            Own::Registering(caw) => caw,
            Own::Registered(Life { caw: Some(caw), .. }) => caw,
            _ => return false,
        };
        if !caw.owns(tag) {
            return false;
        }
        let settled = caw.answered(rules, tag, result, next);
        if caw.needs_read_now() {
            self.look.want();
        }
        self.own_settled(now, settled, out);
        true
    }

    fn own_settled(&mut self, now: Now, settled: Settled<SlotView>, out: &mut Vec<Effect>) {
        match settled {
            Settled::Open => {}
            Settled::Resend => self.own_resend(now, out),
            Settled::Done => self.own_done(now, out),
            Settled::Lost(found) => self.own_lost(now, found, out),
        }
    }

    fn own_resend(&mut self, now: Now, out: &mut Vec<Effect>) {
        let tag = self.ids.tag();
        let caw = match &mut self.own {
            Own::Registering(caw) => caw,
            Own::Registered(Life { caw: Some(caw), .. }) => caw,
            _ => return,
        };
        caw.attempt(tag, now);
        out.push(Effect::CawSlot { tag, node: self.config.node, expect: caw.expect, new: caw.new, via: Via::First });
    }

    fn own_done(&mut self, now: Now, out: &mut Vec<Effect>) {
        let (renew, landed) = (self.config.timing.renew, self.rules.has(Rule::OwnRaiseHasLanded));
        match &mut self.own {
            Own::Registering(caw) => {
                let (slot, due) = (caw.new, caw.started + renew);
                let client = ClientId { node: self.config.node, incarnation: slot.incarnation };
                let resumed = self.config.resumes.filter(|r| r.incarnation == client.incarnation);
                let granted = resumed.map_or(slot.fence_gen, |r| r.fence_gen);
                self.own = Own::Registered(Life {
                    client,
                    slot,
                    caw: None,
                    due,
                    granted,
                    stopping: granted,
                    answered: FenceGen(0),
                    raise: false,
                    self_raised: FenceGen(0),
                    asks: Vec::new(),
                });
                out.push(Effect::Registered { client, fence_gen: slot.fence_gen });
                if resumed.is_some() {
                    self.give_up_what_was_left(client);
                    self.own_fence_seen(out);
                }
                self.register_nexuses(out);
            }
            Own::Registered(life) => {
                let Some(caw) = life.caw.take() else { return };
                if landed && caw.new.fence_gen > caw.expect.fence_gen {
                    life.self_raised = caw.new.fence_gen;
                    life.raise = false;
                }
                life.raise &= landed || caw.new.fence_gen != life.self_raised;
                life.slot = caw.new;
                life.due = caw.started + renew;
                self.look.learn_slot(self.config.node, caw.new);
                self.own_path_moved(now, out);
                self.own_fence_seen(out);
                self.register_refused(out);
            }
            _ => {}
        }
    }

    fn own_lost(&mut self, now: Now, found: SlotView, out: &mut Vec<Effect>) {
        match &mut self.own {
            Own::Registering(_) => self.register(now, found, out),
            Own::Registered(life) => {
                life.caw = None;
                if found.incarnation != life.client.incarnation {
                    self.own_over(out);
                    return;
                }
                life.slot = found;
                self.own_fence_seen(out);
            }
            _ => {}
        }
    }

    fn own_over(&mut self, out: &mut Vec<Effect>) {
        self.leave(LostWhy::Superseded, out);
        self.own = Own::Over;
        out.push(Effect::SelfEvicted);
    }

    /// Stops what an older generation allowed, if the slot carries a higher one.
    fn own_fence_seen(&mut self, out: &mut Vec<Effect>) {
        let Some(life) = self.life() else { return };
        let fence_gen = life.slot.fence_gen;
        if fence_gen > life.granted && fence_gen > life.answered {
            let by_self = fence_gen == life.self_raised;
            self.stop_direct(fence_gen, by_self, out);
        }
    }

    /// The latch first, then direct I/O, then the abort.
    fn stop_direct(&mut self, fence_gen: FenceGen, by_self: bool, out: &mut Vec<Effect>) {
        if !by_self {
            self.leave(LostWhy::Fenced, out);
        }
        let Some(life) = self.life_mut() else { return };
        if life.stopping < fence_gen {
            life.stopping = fence_gen;
            out.push(Effect::StopDirect { fence_gen });
        }
    }

    /// A fencer asks over the network.
    pub(super) fn asked_fence(&mut self, id: AskId, client: ClientId, fence_gen: FenceGen, out: &mut Vec<Effect>) {
        let answer = |answer| Effect::Answer { id, answer };
        let not = |why: &str| answer(PeerAnswer::NotFenced { why: why.to_owned() });
        let Some(life) = self.life() else { return out.push(not("this node has not begun yet")) };
        if client.node != life.client.node || client.incarnation > life.client.incarnation {
            return out.push(not("no such incarnation here"));
        }
        if client.incarnation < life.client.incarnation || fence_gen <= life.answered {
            return out.push(answer(PeerAnswer::Fenced));
        }
        if fence_gen <= life.granted {
            return out.push(not("that generation was granted since"));
        }
        self.stop_direct(fence_gen, false, out);
        if !self.rules.has(Rule::AnswerNeedsNothingInFlight) {
            return out.push(answer(PeerAnswer::Fenced));
        }
        if let Some(life) = self.life_mut() {
            life.asks.push((id, fence_gen));
        }
        self.look.want();
    }

    /// Nothing of the generations below is in flight. Remembered until the office has drained too.
    pub(super) fn on_nothing_in_flight(&mut self, fence_gen: FenceGen, out: &mut Vec<Effect>) {
        self.stopped = self.stopped.max(fence_gen);
        self.answer_if_ended(out);
    }

    /// Says "fenced" once direct I/O *and* whatever an office of this node wrote have ended.
    pub(super) fn answer_if_ended(&mut self, out: &mut Vec<Effect>) {
        if self.undrained.is_some() {
            return;
        }
        let stopped = self.stopped;
        let Some(life) = self.life_mut() else { return };
        life.answered = life.answered.max(stopped.min(life.stopping));
        let answered = life.answered;
        life.asks.retain(|(id, fence_gen)| {
            let ended = *fence_gen <= answered;
            if ended {
                out.push(Effect::Answer { id: *id, answer: PeerAnswer::Fenced });
            }
            !ended
        });
        self.register_refused(out);
    }

    /// This node's client was granted a generation. A coordinator of this node grants what this node's own renewal has put
    /// into its slot, which is known here; one above that is of another's reign, so that an office held here is over, whether
    /// or not its path has shown that yet. It ends before anything is admitted under that generation.
    pub(super) fn on_granted(&mut self, fence_gen: FenceGen, out: &mut Vec<Effect>) {
        let Some(life) = self.life() else { return };
        if fence_gen > life.slot.fence_gen && self.rules.has(Rule::EndedBeforeAdmitted) {
            self.leave(LostWhy::Fenced, out);
        }
        if let Some(life) = self.life_mut() {
            life.granted = life.granted.max(fence_gen);
        }
        self.register_refused(out);
    }

    /// Asks for a higher generation in the own slot, on behalf of this node's own coordinator, or no longer does.
    pub(super) fn raise_own(&mut self, raise: bool) {
        if let Some(life) = self.life_mut() {
            life.raise = raise;
        }
    }

    /// A good renewal of the own slot: the path is there.
    fn own_path_moved(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.path.io_lost && !self.requests_overdue(now) {
            self.path.io_lost = false;
            if self.path.client_ok {
                out.push(Effect::Report(Report::OwnPathBack));
            }
        }
    }
}
