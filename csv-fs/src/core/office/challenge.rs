//! A follower's judgement: whether the holder is to be replaced, and from which moment on.
//!
//! ```text
//! Watching ── unchanged for challenge_after, covered ──► Asking ── "alive, disk stalled" ──► Watching (deferred)
//!    │                                                      │ anything else, or silence
//!    │ declared lost by the arbiter; no path; proved dead   ▼
//!    ├─────────────────────────────────────────────────► Fencing ── proof ──► Taking (role.rs)
//!    └ its connection ended: its LIVE lock is tried ─────────┘
//! ```
//! **The quick way** after a SIGKILL of the coordinator (file kind), step by step:
//! 1. The connection ends. A node that had permission within the last two renew periods tries the holder's LIVE lock
//!    every few milliseconds. A try harms nobody: a living holder keeps its lock and the try fails.
//! 2. The lock is acquired once the dead process' last write has landed. From here on the dead node has no vote
//!    (arbiter.rs): what remains of the clique of a moment ago is permitted at once; any other node is not, and lets
//!    the lock go.
//! 3. Only now, with permission, the fence's CAW raises `fence_gen`, the lock kept meanwhile; then the lease CAW.
//!
//! Interleaving prevented: node 1, cut from 2 and 3, tries the lock of the killed coordinator 3 too and acquires it
//! first. It was in the minority, so it is not permitted; it lets go and node 2, whose clique {2,3} had won, acquires
//! the lock and takes over. Without step 2's rule either nobody could act until slot 3 ceased to count, or everybody.

use std::time::Duration;

#[cfg(any(test, feature = "simulation"))]
use block::shared::FenceGen;
use block::shared::{Epoch, NodeId};

use super::effect::{Effect, Report};
use super::event::{AliveAnswer, PeerLoss};
use super::proof::FenceProof;
#[cfg(any(test, feature = "simulation"))]
use super::proof::HowFenced;
use super::role::{Claim, Role};
use super::view::LeaseView;
use super::{DiskKind, Office};
use crate::core::rules::Rule;
use crate::core::time::Now;
use crate::types::ClientId;

/// How often "alive, disk stalled" is believed of one reign. A holder whose disk stalls for longer than suspend_after
/// gives up office by itself; one that says so for ever is broken.
const MAX_DEFERRALS: u32 = 3;

/// A follower's state.
#[derive(Debug, Default)]
pub(super) struct Follower {
    challenge: Option<Challenge>,
    deferrals: u32,
}

#[derive(Debug)]
struct Challenge {
    holder: ClientId,
    epoch: Epoch,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Asking { since: Now },
    Fencing,
}

impl Office {
    pub(super) fn follower_deadline(&self, follower: &Follower) -> Option<Now> {
        match follower.challenge.as_ref()?.step {
            Step::Asking { since } => Some(since + self.config.timing.ask),
            Step::Fencing => None,
        }
    }

    /// Whether this node might take office now.
    fn eligible(&self) -> bool {
        self.arbiter.given.is_some()
            && !self.barred
            && self.undrained.is_none()
            && self.path_ok()
            && self.life().is_some_and(|l| l.may_write())
    }

    pub(super) fn advance_follower(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(lease) = self.look.sight.as_ref().map(|s| s.lease.clone()) else { return };
        if self.life().is_none() {
            return;
        }
        self.drop_stale_challenge(&lease, out);
        if let Some(proof) = self.proof_for(&lease) {
            return self.take(now, lease, Claim::Fenced(proof), out);
        }
        if lease.is_vacant() {
            if self.eligible() && self.may_follow(&lease) {
                self.take(now, lease, Claim::Vacant, out);
            }
            return;
        }
        if let Some(holder) = lease.holder.filter(|h| self.client() != Some(*h)) {
            self.watch_holder(now, holder, &lease, out);
        }
    }

    /// The proof that the holder of this very reign was fenced, if this node may use it.
    fn proof_for(&mut self, lease: &LeaseView) -> Option<FenceProof> {
        let (epoch, proof) = self.proved.take_if(|(_, proof)| Some(proof.client()) == lease.holder)?;
        let of_this_reign = epoch == lease.epoch || !self.rules.has(Rule::ProofOfOneReign);
        (of_this_reign && self.eligible()).then_some(proof)
    }

    /// A challenge is of one holder in one reign, and of a node with permission.
    pub(super) fn drop_stale_challenge(&mut self, lease: &LeaseView, out: &mut Vec<Effect>) {
        let eligible = self.eligible();
        let Role::Follower(f) = &mut self.role else { return };
        let Some(c) = &f.challenge else { return };
        let same = Some(c.holder) == lease.holder && c.epoch == lease.epoch && !lease.is_vacant();
        let probing = self.runs.get(&c.holder).is_some_and(|r| r.is_probe());
        if same && (eligible || probing) {
            return;
        }
        let victim = c.holder;
        f.challenge = None;
        if !same {
            f.deferrals = 0;
        }
        self.abandon_for_office(victim, out);
    }

    /// Whether a vacant office is this node's to take: the one in whose favour it was vacated goes first.
    fn may_follow(&self, lease: &LeaseView) -> bool {
        let Some(resigned) = lease.resigned else { return true };
        let (me, timing) = (self.config.node, &self.config.timing);
        let own = lease.holder.is_some_and(|h| h.node == me);
        let wait = match resigned.in_favour {
            _ if self.favoured == Some(lease.epoch) => Duration::ZERO,
            Some(node) if node == me => Duration::ZERO,
            Some(_) => timing.settle(),
            // Whoever just gave office up to nobody does not want it back, unless nobody else takes it.
            None if own => timing.challenge_after,
            None => Duration::ZERO,
        };
        self.look.lease_covered() >= wait
    }

    fn watch_holder(&mut self, now: Now, holder: ClientId, lease: &LeaseView, out: &mut Vec<Effect>) {
        let timing = self.config.timing;
        let Role::Follower(f) = &self.role else { return };
        match f.challenge.as_ref().map(|c| &c.step) {
            Some(Step::Asking { since }) if now.since(*since) >= timing.ask => {
                self.begin_fence(now, holder, lease, true, out)
            }
            Some(_) => {}
            None if self.eligible() && self.declared_lost(holder, lease.epoch) => {
                self.begin_fence(now, holder, lease, false, out)
            }
            None if self.eligible() && self.look.lease_covered() >= timing.challenge_after => {
                self.ask_holder(now, holder, lease, out)
            }
            None => {
                if let Some(until) = self.may_probe(now, holder) {
                    self.challenge(holder, lease.epoch, Step::Fencing);
                    self.probe_for_office(now, holder, lease.epoch, until);
                }
            }
        }
    }

    /// Whether the challenge timer need not be waited for. A holder that the arbiter left out counts as lost if its
    /// slot is alive (it was outvoted, and will not renew) or its connection ended and its port refuses; a silent one
    /// gets the whole timer, and so does one that this node hears.
    ///
    /// Prevents: the process of a coordinator stood still for less than its lease lasts; it goes on, its connections come back,
    /// and the slot that it renews first of all still says that it hears nobody. It was succeeded within milliseconds.
    fn declared_lost(&self, holder: ClientId, epoch: Epoch) -> bool {
        let gone = self.lost.get(&holder.node).is_some_and(|(how, _)| *how != PeerLoss::Silent);
        let counts = self.look.counting(self.config.timing.slot_counts_for()).contains(holder.node);
        let outvoted = self.arbiter.given.is_some_and(|clique| !clique.contains(holder.node));
        holder.node == self.config.node
            || self.is_ended(holder)
            || self.no_path == Some(epoch)
            || outvoted && !self.heard.contains(holder.node) && (gone || counts)
    }

    /// Until when the holder's LIVE lock may be tried: for a while if its connection has just ended, once if its lease
    /// is late.
    fn may_probe(&self, now: Now, holder: ClientId) -> Option<Now> {
        let timing = &self.config.timing;
        let recently = |at: Now| now.since(at) <= timing.settle();
        let given = self.arbiter.last_given.is_some_and(|(_, at)| recently(at));
        if self.config.kind != DiskKind::File
            || now < self.probe_after
            || self.is_ended(holder)
            || !given
            || self.barred
            || self.undrained.is_some()
            || !self.path_ok()
        {
            return None;
        }
        let gone = self.lost.get(&holder.node).is_some_and(|(how, at)| *how != PeerLoss::Silent && recently(*at));
        let late = self.look.lease_covered() >= timing.slot_counts_for();
        if gone { Some(now + timing.slot_counts_for()) } else { late.then_some(now) }
    }

    fn ask_holder(&mut self, now: Now, holder: ClientId, lease: &LeaseView, out: &mut Vec<Effect>) {
        out.push(Effect::Report(Report::Challenging { holder, epoch: lease.epoch }));
        out.push(Effect::AskAlive { node: holder.node, epoch: lease.epoch });
        self.challenge(holder, lease.epoch, Step::Asking { since: now });
    }

    fn challenge(&mut self, holder: ClientId, epoch: Epoch, step: Step) {
        if let Role::Follower(f) = &mut self.role {
            f.challenge = Some(Challenge { holder, epoch, step });
        }
    }

    /// `silent`: it was asked, and there was no answer.
    fn begin_fence(&mut self, now: Now, holder: ClientId, lease: &LeaseView, silent: bool, out: &mut Vec<Effect>) {
        if let Some(unproved) = self.unproved(holder) {
            return self.take(now, lease.clone(), Claim::Fenced(unproved), out);
        }
        self.challenge(holder, lease.epoch, Step::Fencing);
        self.fence_for_office(now, holder, lease.epoch, silent);
    }

    /// What stands in for a proof where the rule that demands one was taken out.
    #[cfg(any(test, feature = "simulation"))]
    fn unproved(&self, holder: ClientId) -> Option<FenceProof> {
        let demanded = self.rules.has(Rule::FenceBeforeLease);
        (!demanded).then(|| FenceProof::new(holder, FenceGen(0), HowFenced::Assumed))
    }

    /// Nothing does.
    #[cfg(not(any(test, feature = "simulation")))]
    fn unproved(&self, _: ClientId) -> Option<FenceProof> {
        None
    }

    /// The probe found the holder's lock taken for as long as it tried: it lives.
    pub(super) fn probe_ended(&mut self, now: Now, holder: ClientId) {
        self.lost.remove(&holder.node);
        self.probe_after = now + self.config.timing.renew;
        if let Role::Follower(f) = &mut self.role {
            f.challenge.take_if(|c| c.holder == holder);
        }
    }

    /// The holder's answer to "are you alive?".
    pub(super) fn on_alive(
        &mut self,
        now: Now,
        node: NodeId,
        epoch: Epoch,
        answer: AliveAnswer,
        out: &mut Vec<Effect>,
    ) {
        let Role::Follower(f) = &mut self.role else { return };
        let asked = |c: &Challenge| c.holder.node == node && c.epoch == epoch && matches!(c.step, Step::Asking { .. });
        let Some(c) = f.challenge.take_if(|c| asked(c)) else { return };
        if answer == (AliveAnswer::InOffice { disk_stalled: true }) && f.deferrals < MAX_DEFERRALS {
            f.deferrals += 1;
            out.push(Effect::Report(Report::ChallengeDeferred { holder: c.holder }));
            let again = self.deferral();
            if let Some(lease) = self.look.lease() {
                lease.covered = lease.covered.saturating_sub(again);
            }
            return;
        }
        let Some(lease) = self.look.sight.as_ref().map(|s| s.lease.clone()) else { return };
        if self.eligible() && lease.holder == Some(c.holder) && lease.epoch == c.epoch && !lease.is_vacant() {
            self.begin_fence(now, c.holder, &lease, answer == AliveAnswer::Silent, out);
        }
    }

    /// By how much one "alive, disk stalled" puts a challenge off.
    fn deferral(&self) -> Duration {
        self.config.timing.challenge_after.saturating_sub(self.config.timing.suspend_after)
    }
}
