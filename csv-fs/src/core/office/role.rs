//! What this node is to the lease: follower, taker, coordinator, or leaving.
//!
//! ```text
//! Follower ── vacant, or the holder fenced ──► Taking ── CAW done ──► Reigning ── resign: drained ──► Leaving ─► Follower
//!    ▲   (challenge.rs)                          │ newer found            │ superseded, fenced, no path  ▲
//!    └───────────────────────────────────────────┘                        └── latch tripped ─────────────┘
//! ```
//! `Taking` with its reply lost is neither holder nor loser: it neither opens the store nor gives up the claim.
//! A `Follower` that reads its own client in a lease that nobody has given up leaves that office as well: it was taken by the process before.
//! `Leaving` writes `resigned` only after the shell said `Drained`; until then nobody, this node included, may take
//! over without a fence.

use block::shared::{Epoch, NodeId};

use super::caw::{Caw, Settled};
use super::challenge::Follower;
use super::effect::{Effect, LostWhy, Tell, Via};
use super::event::{ReadSeq, Tag};
use super::proof::{FenceProof, FencedEpoch};
use super::view::LeaseView;
use super::{CawResult, Office, Timing};
use crate::core::rules::Rule;
use crate::core::time::Now;
use crate::proto::CoordinatorHint;
use crate::types::ClientId;

/// The role.
#[derive(Debug)]
pub(super) enum Role {
    /// Another reigns, or nobody.
    Follower(Follower),
    /// The lease CAW is out, or its reply was lost.
    Taking(Taking),
    /// Coordinator.
    Reigning(Reign),
    /// The reign is over; the block may still name this node.
    Leaving(Leaving),
}

/// Why the lease may be taken.
#[derive(Clone, Copy, Debug)]
pub(super) enum Claim {
    /// The holder was fenced.
    Fenced(FenceProof),
    /// Nobody reigns.
    Vacant,
}

/// The lease is being taken.
#[derive(Debug)]
pub(super) struct Taking {
    claim: Claim,
    caw: Caw<LeaseView>,
}

/// In office.
#[derive(Debug)]
pub(super) struct Reign {
    pub(super) proof: FencedEpoch,
    /// The block as last known.
    pub(super) lease: LeaseView,
    /// When the last good renewal was started.
    last_good: Now,
    renewing: Option<Caw<LeaseView>>,
    pub(super) suspended: bool,
    resign: Option<Resign>,
}

/// A move or resignation under way.
#[derive(Debug)]
struct Resign {
    to: Option<NodeId>,
    since: Now,
}

/// Out of office, and the block still says otherwise.
#[derive(Debug)]
pub(super) struct Leaving {
    lease: LeaseView,
    to: Option<NodeId>,
    /// A renewal whose outcome is open still stands in the way; or the resignation itself.
    caw: Option<Caw<LeaseView>>,
    /// Whether the end of office was reported already.
    told: bool,
    /// Whether the others were told that this node has no path.
    no_path_told: bool,
}

impl Reign {
    /// When a resignation that does not drain stops renewing.
    fn gives_up_at(&self, timing: &Timing) -> Option<Now> {
        self.resign.as_ref().map(|r| r.since + timing.challenge_after)
    }

    /// Whether the lease CAW has been out for so long that the disk must be called stalled.
    pub(super) fn disk_stalled(&self, now: Now, renew: std::time::Duration) -> bool {
        self.renewing.as_ref().is_some_and(|c| now.since(c.started) >= renew)
    }
}

impl Office {
    /// Begins to take the lease.
    pub(super) fn take(&mut self, now: Now, before: LeaseView, claim: Claim, out: &mut Vec<Effect>) {
        let Some(client) = self.client() else { return };
        let (nonce, tag) = (self.ids.nonce(), self.ids.tag());
        let new = before.taken_by(client, &self.config.address, nonce);
        out.push(Effect::CawLease { tag, expect: before.clone(), new: new.clone(), via: Via::First });
        self.role = Role::Taking(Taking { claim, caw: Caw::new(before, new, tag, now) });
    }

    /// Does what is due for the role.
    pub(super) fn advance_role(&mut self, now: Now, out: &mut Vec<Effect>) {
        match &self.role {
            Role::Follower(_) => self.advance_follower(now, out),
            Role::Taking(_) => {}
            Role::Reigning(_) => self.advance_reign(now, out),
            Role::Leaving(_) => self.advance_leaving(now, out),
        }
        self.hedge(now, out);
    }

    pub(super) fn role_deadline(&self) -> Option<Now> {
        let t = &self.config.timing;
        let hedge = self.lease_caw().filter(|c| self.may_hedge(c)).map(|c| c.started + t.hedge);
        let own = match &self.role {
            Role::Follower(f) => self.follower_deadline(f),
            Role::Reigning(r) => {
                let renew = (r.renewing.is_none()
                    && self.may_renew()
                    && r.gives_up_at(t).is_none_or(|at| r.last_good + t.renew < at))
                .then(|| r.last_good + t.renew);
                let suspend = (!r.suspended).then(|| r.last_good + t.suspend_after);
                renew.into_iter().chain(suspend).min()
            }
            Role::Taking(_) | Role::Leaving(_) => None,
        };
        hedge.into_iter().chain(own).min()
    }

    pub(super) fn lease_caw(&self) -> Option<&Caw<LeaseView>> {
        match &self.role {
            Role::Taking(t) => Some(&t.caw),
            Role::Reigning(r) => r.renewing.as_ref(),
            Role::Leaving(l) => l.caw.as_ref(),
            Role::Follower(_) => None,
        }
    }

    pub(super) fn lease_caw_mut(&mut self) -> Option<&mut Caw<LeaseView>> {
        match &mut self.role {
            Role::Taking(t) => Some(&mut t.caw),
            Role::Reigning(r) => r.renewing.as_mut(),
            Role::Leaving(l) => l.caw.as_mut(),
            Role::Follower(_) => None,
        }
    }

    fn may_hedge(&self, caw: &Caw<LeaseView>) -> bool {
        self.config.nexuses > 1 && caw.is_outstanding() && !caw.hedged
    }

    /// Sends a slow lease CAW once more, the same bytes, over another nexus.
    fn hedge(&mut self, now: Now, out: &mut Vec<Effect>) {
        let after = self.config.timing.hedge;
        if self.lease_caw().is_some_and(|c| self.may_hedge(c) && now.since(c.started) >= after) {
            if let Some(caw) = self.lease_caw_mut() {
                caw.hedged = true;
            }
            self.resend_lease(now, Via::Second, out);
        }
    }

    fn resend_lease(&mut self, now: Now, via: Via, out: &mut Vec<Effect>) {
        let tag = self.ids.tag();
        let Some(caw) = self.lease_caw_mut() else { return };
        caw.attempt(tag, now);
        out.push(Effect::CawLease { tag, expect: caw.expect.clone(), new: caw.new.clone(), via });
    }

    /// The answer to a lease CAW.
    pub(super) fn on_lease_caw(&mut self, now: Now, tag: Tag, result: CawResult<LeaseView>, out: &mut Vec<Effect>) {
        let (rules, next) = (self.rules, self.look.next_seq());
        let Some(caw) = self.lease_caw_mut().filter(|c| c.owns(tag)) else { return };
        let settled = caw.answered(rules, tag, result, next);
        if caw.needs_read_now() {
            self.look.want();
        }
        self.lease_settled(now, settled, out);
    }

    /// What a round of reading shows of the lease.
    pub(super) fn role_seen(&mut self, now: Now, seq: ReadSeq, lease: &LeaseView, out: &mut Vec<Effect>) {
        if let Some(caw) = self.lease_caw_mut() {
            let settled = caw.seen(seq, lease);
            return self.lease_settled(now, settled, out);
        }
        let known = match &self.role {
            Role::Reigning(r) => r.lease.counter,
            Role::Leaving(l) => l.lease.counter,
            Role::Follower(_) => return self.give_up_what_landed_late(out),
            Role::Taking(_) => return,
        };
        if lease.counter > known {
            self.lease_settled(now, Settled::Lost(lease.clone()), out);
        }
    }

    fn lease_settled(&mut self, now: Now, settled: Settled<LeaseView>, out: &mut Vec<Effect>) {
        match settled {
            Settled::Open => {}
            Settled::Resend => {
                if matches!(self.role, Role::Leaving(_)) || self.may_renew() {
                    self.resend_lease(now, Via::First, out);
                }
            }
            Settled::Done => self.lease_done(now, out),
            Settled::Lost(found) => self.lease_lost(now, found, out),
        }
    }

    fn lease_done(&mut self, now: Now, out: &mut Vec<Effect>) {
        if let Some(written) = self.lease_caw().map(|c| c.new.clone()) {
            self.look.learn_lease(written, now);
        }
        match std::mem::take(&mut self.role) {
            Role::Taking(taking) => self.taken(now, taking, out),
            Role::Reigning(mut reign) => {
                if let Some(caw) = reign.renewing.take() {
                    reign.last_good = caw.started;
                    reign.lease = caw.new;
                }
                if std::mem::take(&mut reign.suspended) {
                    out.push(Effect::Resume { epoch: reign.proof.epoch() });
                }
                self.role = Role::Reigning(reign);
            }
            Role::Leaving(leaving) => self.left(leaving, out),
            Role::Follower(f) => self.role = Role::Follower(f),
        }
    }

    /// The lease is this node's: in office, unless permission went meanwhile.
    fn taken(&mut self, now: Now, taking: Taking, out: &mut Vec<Effect>) {
        let Caw { expect, new, started, .. } = taking.caw;
        let proof = match taking.claim {
            Claim::Fenced(proof) => FencedEpoch::by_fence(&expect, &new, proof),
            Claim::Vacant => FencedEpoch::by_resignation(&expect, &new),
        };
        let allowed = self.arbiter.given.is_some() && self.path_ok() && self.life().is_some_and(|l| l.may_write());
        let Some(proof) = proof.filter(|_| allowed) else {
            // No store was opened under this epoch: nothing to drain.
            self.role = Role::Leaving(Leaving { lease: new, to: None, caw: None, told: true, no_path_told: false });
            return;
        };
        let hint = CoordinatorHint { epoch: proof.epoch(), node: self.config.node };
        let unheard = self.unheard.iter().map(|(node, (_, since))| (*node, now.since(*since))).collect();
        self.heard_of = Some(hint.clone());
        self.role = Role::Reigning(Reign {
            proof,
            lease: new,
            last_good: started,
            renewing: None,
            suspended: false,
            resign: None,
        });
        self.look.want();
        out.push(Effect::TookOffice { proof, unheard });
        out.push(Effect::Tell { to: None, what: Tell::NewEpoch(hint) });
    }

    fn lease_lost(&mut self, now: Now, found: LeaseView, out: &mut Vec<Effect>) {
        self.look.learn_lease(found.clone(), now);
        match std::mem::take(&mut self.role) {
            Role::Taking(taking) => self.take_again(now, taking, found, out),
            Role::Reigning(mut reign) if same_reign(&found, &reign.lease) => {
                // An older own renewal landed late.
                reign.renewing = None;
                reign.lease = found;
                self.role = Role::Reigning(reign);
            }
            Role::Reigning(reign) => {
                self.role = Role::Reigning(reign);
                self.leave(LostWhy::Superseded, out);
                self.role = Role::default();
            }
            Role::Leaving(mut leaving) if same_reign(&found, &leaving.lease) => {
                // A renewal of the reign that is over landed late; the resignation is compared with it.
                leaving.caw = None;
                leaving.lease = found;
                self.role = Role::Leaving(leaving);
            }
            Role::Leaving(_) | Role::Follower(_) => {}
        }
        self.look.want();
    }

    /// The block changed under the claim. If it is still the same reign, the claim holds against what is there now;
    /// if not, another was first.
    fn take_again(&mut self, now: Now, taking: Taking, found: LeaseView, out: &mut Vec<Effect>) {
        let before = taking.caw.expect;
        let same = found.epoch == before.epoch && found.holder == before.holder;
        let holds = match taking.claim {
            Claim::Fenced(_) => same,
            Claim::Vacant => same && found.is_vacant(),
        };
        if holds && self.arbiter.given.is_some() {
            self.take(now, found, taking.claim, out);
        }
    }

    fn may_renew(&self) -> bool {
        self.arbiter.given.is_some()
    }

    fn advance_reign(&mut self, now: Now, out: &mut Vec<Effect>) {
        let timing = self.config.timing;
        let given_up = |r: &Reign| r.gives_up_at(&timing).is_some_and(|at| now >= at);
        let may_renew = self.may_renew();
        let Role::Reigning(reign) = &mut self.role else { return };
        if !reign.suspended && now.since(reign.last_good) >= timing.suspend_after {
            reign.suspended = true;
            out.push(Effect::Suspend { epoch: reign.proof.epoch() });
        }
        // What cannot drain does not resign: it stops renewing, and is fenced.
        if reign.renewing.is_some() || given_up(reign) || !may_renew || now.since(reign.last_good) < timing.renew {
            return;
        }
        let (nonce, tag) = (self.ids.nonce(), self.ids.tag());
        let (expect, new) = (reign.lease.clone(), reign.lease.renewed(nonce));
        out.push(Effect::CawLease { tag, expect: expect.clone(), new: new.clone(), via: Via::First });
        reign.renewing = Some(Caw::new(expect, new, tag, now));
    }

    /// A move, or the end of this node's work.
    pub(super) fn on_resign(&mut self, now: Now, to: Option<NodeId>, out: &mut Vec<Effect>) {
        let Role::Reigning(reign) = &mut self.role else { return };
        if reign.resign.is_some() {
            return;
        }
        reign.resign = Some(Resign { to, since: now });
        let epoch = reign.proof.epoch();
        self.undrained = Some(epoch);
        out.push(Effect::StartDrain { epoch });
        if !self.rules.has(Rule::DrainBeforeResign) {
            self.undrained = None;
            self.resign_now();
        }
    }

    /// Every metadata and redirected I/O of a reign has ended.
    pub(super) fn on_drained(&mut self, epoch: Epoch, out: &mut Vec<Effect>) {
        if self.undrained != Some(epoch) {
            return;
        }
        self.undrained = None;
        self.resign_now();
        self.answer_if_ended(out);
    }

    /// From office, drained, to leaving.
    fn resign_now(&mut self) {
        self.role = match std::mem::take(&mut self.role) {
            Role::Reigning(r) => {
                let to = r.resign.and_then(|r| r.to);
                Role::Leaving(Leaving { lease: r.lease, to, caw: r.renewing, told: false, no_path_told: false })
            }
            other => other,
        };
    }

    /// The life that goes on in this process was in office when the one before ended. Everything of that office has ended with it,
    /// which the LIVE lock says, so it is drained; it is taken again as any that was resigned, after the block says so.
    ///
    /// Prevents: the store is opened under an epoch whose former writer nobody has proved to have ended.
    pub(super) fn give_up_what_was_left(&mut self, me: ClientId) {
        let Some(lease) = self.look.sight.as_ref().map(|sight| sight.lease.clone()) else { return };
        if lease.holder == Some(me) && !lease.is_vacant() {
            let to = Some(me.node);
            self.role = Role::Leaving(Leaving { lease, to, caw: None, told: true, no_path_told: false });
        }
    }

    /// A lease of this very client that nothing here asks for: the process before had sent it and heard no answer, and it has landed since. No
    /// store was opened under it, or everything of that reign has ended, or its process would have left no life to go on with.
    ///
    /// Prevents: the process before has a COMPARE AND WRITE of the lease in the disk behind the target, and leaves. It lands behind the look at
    /// which the next one registered; nobody reigns, the holder does not know it, and all wait until the others have challenged it, or for ever.
    fn give_up_what_landed_late(&mut self, out: &mut Vec<Effect>) {
        let Some(lease) = self.look.sight.as_ref().map(|sight| sight.lease.clone()) else { return };
        if let Some(me) = self.client().filter(|me| lease.holder == Some(*me)) {
            // Nobody is challenged any more.
            self.drop_stale_challenge(&lease, out);
            self.give_up_what_was_left(me);
        }
    }

    /// Office ends here and now: the latch is tripped, and what follows is the shell's draining.
    pub(super) fn leave(&mut self, why: LostWhy, out: &mut Vec<Effect>) {
        let Role::Reigning(reign) = &self.role else { return };
        let epoch = reign.proof.epoch();
        self.undrained = Some(epoch);
        out.push(Effect::TripLatch { epoch });
        if why == LostWhy::NoPath {
            out.push(Effect::Tell { to: None, what: Tell::NoPath { epoch } });
        }
        out.push(Effect::LostOffice { epoch, why });
        if let Role::Reigning(reign) = std::mem::take(&mut self.role) {
            let no_path_told = why == LostWhy::NoPath;
            let Reign { lease, renewing: caw, .. } = reign;
            self.role = Role::Leaving(Leaving { lease, to: None, caw, told: true, no_path_told });
        }
    }

    /// Office is being given up, and the path that would say so to the disk is gone: the others are told, or they would wait
    /// for their challenge. Prevents: the disk of the coordinator fails, its store with it, and it resigns because of that;
    /// it cannot write that it has, and nobody coordinates until the lease was seen unchanged for long enough.
    pub(super) fn leaves_without_path(&mut self, out: &mut Vec<Effect>) {
        let Role::Leaving(leaving) = &mut self.role else { return };
        if std::mem::replace(&mut leaving.no_path_told, true) {
            return;
        }
        let epoch = leaving.lease.epoch;
        out.push(Effect::Tell { to: None, what: Tell::NoPath { epoch } });
        if !std::mem::replace(&mut leaving.told, true) {
            out.push(Effect::LostOffice { epoch, why: LostWhy::NoPath });
        }
    }

    /// Writes `resigned` once everything has ended and the path carries it.
    fn advance_leaving(&mut self, now: Now, out: &mut Vec<Effect>) {
        let path = self.path_ok();
        if self.undrained.is_some() || !path {
            return;
        }
        let Role::Leaving(leaving) = &mut self.role else { return };
        if leaving.caw.is_some() {
            return;
        }
        let (nonce, tag) = (self.ids.nonce(), self.ids.tag());
        let (expect, new) = (leaving.lease.clone(), leaving.lease.given_up(leaving.to, nonce));
        out.push(Effect::CawLease { tag, expect: expect.clone(), new: new.clone(), via: Via::First });
        leaving.caw = Some(Caw::new(expect, new, tag, now));
    }

    /// The block says what is so: either a last renewal is settled, or the resignation is written.
    fn left(&mut self, mut leaving: Leaving, out: &mut Vec<Effect>) {
        let Some(caw) = leaving.caw.take() else { return };
        if caw.new.resigned.is_none() {
            leaving.lease = caw.new;
            self.role = Role::Leaving(leaving);
            return;
        }
        let epoch = caw.new.epoch;
        self.role = Role::default();
        self.look.want();
        if !leaving.told {
            out.push(Effect::LostOffice { epoch, why: LostWhy::Resigned });
        }
        if let Some(to) = leaving.to {
            out.push(Effect::Tell { to: Some(to), what: Tell::TakeOffice { epoch } });
        }
    }
}

/// Whether a block found is of this very reign, and says that it goes on.
fn same_reign(found: &LeaseView, known: &LeaseView) -> bool {
    found.epoch == known.epoch && found.holder == known.holder && found.resigned.is_none()
}

impl Default for Role {
    fn default() -> Role {
        Role::Follower(Follower::default())
    }
}
