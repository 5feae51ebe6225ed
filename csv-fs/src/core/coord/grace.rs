//! Start of a reign: what the last one left, and the time in which only those named there may say what they hold.

use std::collections::{BTreeSet, VecDeque};

use super::event::{DurableSession, DurableState, Effect, EvictReason, Fate, Inherited, Report, StoreAsk};
use super::session::{Life, Path, Session};
use super::work::{Stage, Work};
use super::{Coord, Phase};
use crate::core::rules::Rule;
use crate::core::time::Now;
use crate::types::*;

/// Grace.
#[derive(Debug)]
pub(super) struct Grace {
    /// The end for those who have not come; `None` once all of them are being evicted.
    limit: Option<Now>,
    /// Sessions that have neither re-asserted nor been evicted.
    awaited: BTreeSet<ClientId>,
}

impl Grace {
    /// When to look.
    pub(super) fn next(&self) -> Option<Now> {
        self.limit
    }
}

/// What is to be done about an inherited session.
enum Verdict {
    /// It may come back.
    Await,
    /// It may come back; its path was fenced with the old epoch.
    AwaitRedirected(block::shared::FenceGen),
    /// Nothing, it is out.
    Out,
    /// An earlier coordinator began to evict it.
    Finish,
    /// It is dead and fenced.
    EvictFenced(block::shared::FenceGen),
    /// It is not heard, and has had the time of grace already; its path was fenced with the old epoch.
    EvictUnheardFenced(block::shared::FenceGen),
    /// It is not heard, and has had the time of grace already; or it was replaced, or its slot was set back, behind the table's
    /// back.
    Evict(EvictReason),
}

impl Coord {
    pub(super) fn start(&mut self, inherited: Inherited) {
        if self.phase != Phase::Waiting {
            return;
        }
        self.phase = Phase::Serving;
        let grace = self.config.limits.grace;
        let unheard = |c: ClientId| inherited.unheard.get(&c.node).is_some_and(|silent| *silent >= grace);
        let verdicts: Vec<(ClientId, Verdict)> =
            inherited.sessions.iter().map(|s| (s.client, self.judge(s, unheard(s.client)))).collect();
        for durable in inherited.sessions {
            let mut session = Session::new(durable.fence_gen, durable.answers);
            session.reason = durable.reason;
            // Until it says what it has.
            session.may_keep_space = true;
            self.sessions.insert(durable.client, session);
        }
        let inside = |(client, v): &(ClientId, Verdict)| (!matches!(v, Verdict::Out)).then_some(*client);
        let awaited: BTreeSet<ClientId> = verdicts.iter().filter_map(inside).collect();
        let limit = Some(self.now + self.config.limits.grace);
        self.out.push(Effect::Report(Report::GraceBegan { waiting_for: awaited.len() }));
        self.grace = Some(Grace { limit, awaited });
        for ino in inherited.orphans {
            self.orphaned(ino);
        }
        for ino in inherited.truncated {
            self.tail_left(ino);
        }
        for (client, verdict) in verdicts {
            self.carry_out(client, &verdict);
        }
        self.grace_may_end();
    }

    /// By the durable table and the slot alone, whatever epoch the client last spoke to.
    ///
    /// A slot of the same life with a higher generation is no reason to evict: an eviction is committed before it is
    /// fenced, so this was the fence of a path, or for an office, whose coordinator ended before its commit. Whoever is
    /// awaited has no redirected I/O, and is fenced anew before it gets any. Prevents: the coordinator is killed between
    /// raising the generation of a node that says `PathLost` and the commit of that, and the node, which did all it
    /// should, is evicted: its programs get EIO.
    ///
    /// A coordinator that was succeeded, fenced or giving way, and is not heard, cannot come back, and grace is the time that it is
    /// given to be heard again: what it said nothing before is part of that. Without this one whose network is cut costs
    /// everybody the time after which a lease is challenged, and grace on top of it. Others that are not heard get all of
    /// grace: their connections may be just coming back.
    fn judge(&self, session: &DurableSession, unheard: bool) -> Verdict {
        let slot_agrees = session
            .slot
            .is_some_and(|slot| slot.incarnation == session.client.incarnation && slot.fence_gen >= session.fence_gen);
        match (session.state, session.fate) {
            (DurableState::Evicted, _) => Verdict::Out,
            (DurableState::Evicting, _) if !self.rules.has(Rule::FinishEvicting) => Verdict::Out,
            (_, Fate::Dead { fence_gen }) => Verdict::EvictFenced(fence_gen),
            (DurableState::Evicting, _) => Verdict::Finish,
            (DurableState::Live, Fate::PathFenced { fence_gen }) if unheard => Verdict::EvictUnheardFenced(fence_gen),
            (DurableState::Live, Fate::PathFenced { fence_gen }) => Verdict::AwaitRedirected(fence_gen),
            (DurableState::Live, Fate::Unknown | Fate::Resigned) if !slot_agrees => {
                Verdict::Evict(EvictReason::SlotDisagrees)
            }
            (DurableState::Live, Fate::Resigned) if unheard => Verdict::Evict(EvictReason::Unheard),
            (DurableState::Live, Fate::Unknown | Fate::Resigned) => Verdict::Await,
        }
    }

    fn carry_out(&mut self, client: ClientId, verdict: &Verdict) {
        match *verdict {
            Verdict::Await => {}
            Verdict::AwaitRedirected(fence_gen) => {
                if let Some(session) = self.sessions.get_mut(&client) {
                    session.fence_gen = fence_gen;
                    session.path = Path::Redirected;
                }
                let op = self.new_op(Work::Inherit);
                self.store(op, StoreAsk::PathFenced { client, fence_gen });
            }
            Verdict::Out => {
                if let Some(session) = self.sessions.get_mut(&client) {
                    session.life = Life::Evicted;
                }
            }
            Verdict::Finish => self.evict_again(client),
            Verdict::EvictFenced(fence_gen) => self.evict_fenced(client, EvictReason::DeadAtTakeover, fence_gen),
            Verdict::EvictUnheardFenced(fence_gen) => self.evict_fenced(client, EvictReason::Unheard, fence_gen),
            Verdict::Evict(why) => self.evict(client, why),
        }
    }

    /// A session re-asserted, or is gone for good.
    pub(super) fn came_back(&mut self, client: ClientId) {
        if let Some(grace) = &mut self.grace {
            grace.awaited.remove(&client);
        }
        self.grace_may_end();
    }

    fn grace_may_end(&mut self) {
        if !self.is_serving() || self.grace.as_ref().is_none_or(|g| !g.awaited.is_empty()) {
            return;
        }
        self.grace = None;
        self.out.push(Effect::Report(Report::GraceEnded));
        let parked: VecDeque<_> = std::mem::take(&mut self.parked);
        for op in parked {
            if let Some(Work::Call(call)) = self.work.get_mut(&op) {
                call.stage = Stage::New;
                self.enter(op);
            }
        }
        self.reap_what_can_be();
    }

    /// The limit passed: whoever has not come, and is not just coming, is evicted. Whoever is just coming is looked at once
    /// more, after the time of a recall. Prevents: its bind announces locks, it dies before it names them, and grace never
    /// ends.
    pub(super) fn grace_overdue(&mut self) {
        let (now, again) = (self.now, self.now + self.config.limits.recall);
        let Some(grace) = self.grace.as_mut().filter(|g| g.limit.is_some_and(|l| l <= now)) else { return };
        let coming = |c: &ClientId| self.sessions.get(c).is_some_and(|s| s.binding.is_some());
        let (coming, late): (Vec<ClientId>, Vec<ClientId>) = grace.awaited.iter().copied().partition(coming);
        grace.limit = (!coming.is_empty()).then_some(again);
        for client in late {
            self.evict(client, EvictReason::NotReasserted);
        }
    }
}
