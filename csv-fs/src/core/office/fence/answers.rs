//! What comes back to a fence: answers to its changes and questions, what reading shows, LIVE locks.

use block::shared::{FenceGen, NodeId};

use super::super::caw::Settled;
use super::super::effect::{Effect, Report, Via};
use super::super::event::{KillOutcome, ReadSeq, Tag};
use super::super::proof::HowFenced;
use super::super::view::{Sight, SlotView};
use super::super::{CawResult, Died, Office};
use super::{LOCK_RETRY_ASKED, Lock, Phase, Run};
use crate::core::time::Now;
use crate::types::ClientId;

impl Office {
    /// Runs `f` on the run that `pick` names, outside the table.
    pub(super) fn with_run(&mut self, pick: impl Fn(&Run) -> bool, f: impl FnOnce(&mut Office, &mut Run)) {
        let Some(victim) = self.runs.values().find(|r| pick(r)).map(|r| r.victim) else { return };
        if let Some(mut run) = self.runs.remove(&victim) {
            f(self, &mut run);
            self.runs.insert(victim, run);
        }
    }

    /// The answer to a CAW of another node's slot.
    pub(in crate::core::office) fn run_caw(
        &mut self,
        now: Now,
        tag: Tag,
        result: CawResult<SlotView>,
        out: &mut Vec<Effect>,
    ) {
        let (rules, next) = (self.rules, self.look.next_seq());
        let owns = |r: &Run| match &r.phase {
            Phase::Raising(caw) | Phase::Clearing(caw) | Phase::Marking { caw: Some(caw), .. } => caw.owns(tag),
            _ => false,
        };
        self.with_run(owns, |office, run| {
            let (Phase::Raising(caw) | Phase::Clearing(caw) | Phase::Marking { caw: Some(caw), .. }) = &mut run.phase
            else {
                return;
            };
            let settled = caw.answered(rules, tag, result, next);
            if caw.needs_read_now() {
                office.look.want();
            }
            office.run_settled(now, run, settled, out);
        });
    }

    fn run_settled(&mut self, now: Now, run: &mut Run, settled: Settled<SlotView>, out: &mut Vec<Effect>) {
        let (marking, clearing) = (matches!(run.phase, Phase::Marking { .. }), matches!(run.phase, Phase::Clearing(_)));
        let may_step = self.may_step(run);
        let stale = self.is_stale(run);
        let (Phase::Raising(caw) | Phase::Clearing(caw) | Phase::Marking { caw: Some(caw), .. }) = &mut run.phase
        else {
            return;
        };
        match settled {
            Settled::Open => {}
            // Prevents: a raise goes unanswered; another takes office meanwhile, and what was fenced is its client. The same bytes
            // sent again would take the path of a node away that nobody wants fenced any more.
            Settled::Resend if !may_step || (stale && !clearing) => {}
            Settled::Resend => {
                let tag = self.ids.tag();
                caw.attempt(tag, now);
                out.push(Effect::CawSlot {
                    tag,
                    node: run.victim.node,
                    expect: caw.expect,
                    new: caw.new,
                    via: Via::First,
                });
            }
            Settled::Done if marking => {
                run.phase = Phase::Marking { until: now + self.answers_a_mark_in(), caw: None, lives: None }
            }
            Settled::Done if clearing => {
                let slot = caw.new;
                self.cleared(run, slot);
            }
            Settled::Done => {
                let slot = caw.new;
                self.raised(now, run, slot, out);
            }
            Settled::Lost(_) if !may_step || stale => run.phase = Phase::Observe { from: self.look.next_seq() },
            Settled::Lost(found) if clearing => self.clear_mark(now, run, Some(found), out),
            Settled::Lost(found) if marking => self.mark_over(now, run, found, out),
            Settled::Lost(found) => self.raise(now, run, found, out),
        }
    }

    /// What was read may show that another took office: then nobody's generation is raised for this one any more.
    fn is_stale(&self, run: &Run) -> bool {
        let epoch = self.look.sight.as_ref().map(|s| s.lease.epoch);
        run.tickets.is_empty() && run.for_office.is_some_and(|of| epoch.is_some_and(|e| e > of))
    }

    /// What a round of reading shows of the victims' slots.
    pub(in crate::core::office) fn runs_seen(&mut self, now: Now, seq: ReadSeq, sight: &Sight, out: &mut Vec<Effect>) {
        for victim in self.runs.keys().copied().collect::<Vec<_>>() {
            let (Some(slot), Some(mut run)) = (sight.slots.get(&victim.node).copied(), self.runs.remove(&victim))
            else {
                continue;
            };
            self.run_seen(now, seq, &mut run, slot, out);
            self.runs.insert(victim, run);
        }
    }

    fn run_seen(&mut self, now: Now, seq: ReadSeq, run: &mut Run, slot: SlotView, out: &mut Vec<Effect>) {
        let may_raise = self.may_step(run) && !self.is_stale(run);
        match &mut run.phase {
            Phase::Observe { from } if seq >= *from && may_raise => return self.raise(now, run, slot, out),
            Phase::Behind { .. } if may_raise => return self.raise(now, run, slot, out),
            Phase::Raising(caw) | Phase::Clearing(caw) => {
                let settled = caw.seen(seq, &slot);
                return self.run_settled(now, run, settled, out);
            }
            Phase::Marking { caw: Some(caw), .. } => {
                let settled = caw.seen(seq, &slot);
                self.run_settled(now, run, settled, out);
            }
            Phase::Scsi { .. }
            | Phase::ScsiPause { .. }
            | Phase::Behind { .. }
            | Phase::Own { .. }
            | Phase::Over(_) => return,
            _ => {}
        }
        let Some(raised) = run.raised else { return };
        if let Phase::Marking { caw: None, lives, .. } = &mut run.phase {
            let (at, last) = lives.unwrap_or((Now(0), slot));
            // A change of generation or mark is another fencer's.
            let own = slot.counter > last.counter && (slot.fence_gen, slot.mark) == (last.fence_gen, last.mark);
            *lives = Some((if own { now } else { at }, slot));
        }
        if slot.incarnation > run.victim.incarnation {
            run.over(HowFenced::Superseded, slot.fence_gen);
        } else if slot.answer >= raised.fence_gen {
            run.over(HowFenced::Answered, raised.fence_gen);
        }
    }

    /// The answer to a try of a LIVE lock.
    pub(in crate::core::office) fn on_live_lock(
        &mut self,
        now: Now,
        node: NodeId,
        acquired: bool,
        out: &mut Vec<Effect>,
    ) {
        if node == self.config.node {
            return self.own_live_lock(now, acquired);
        }
        let Some(victim) =
            self.runs.values().find(|r| r.victim.node == node && r.lock == Lock::Trying).map(|r| r.victim)
        else {
            if acquired {
                out.push(Effect::ReleaseLiveLock { node });
            }
            return;
        };
        let Some(mut run) = self.runs.remove(&victim) else { return };
        if acquired {
            run.lock = Lock::Held;
            self.lock_held(&mut run);
        } else {
            run.lock = Lock::Idle { due: now + run.lock_retry().unwrap_or(LOCK_RETRY_ASKED) };
            if matches!(run.phase, Phase::Locking) && self.may_step(&run) {
                self.ask(now, &mut run, out);
            }
        }
        self.runs.insert(victim, run);
    }

    /// Its process is gone and its last write has landed.
    fn lock_held(&mut self, run: &mut Run) {
        let current = self.look.sight.as_ref().and_then(|s| s.slots.get(&run.victim.node));
        if current.is_none_or(|s| s.incarnation <= run.victim.incarnation) {
            self.died(run);
        }
        if let Some(slot) = run.raised {
            run.over(HowFenced::Dead, slot.fence_gen);
        }
    }

    /// The process that the slot names has ended, and all before it. What was read may be of one before; then its vote counts again
    /// when the slot of the dead one is read, for as long as a slot counts that nobody renews.
    pub(super) fn died(&mut self, run: &Run) {
        let seen = self.look.sight.as_ref().and_then(|s| s.slots.get(&run.victim.node)).copied();
        let slot = run.raised.or(seen).filter(|s| s.incarnation == run.victim.incarnation);
        self.dead.insert(run.victim.node, Died { incarnation: run.victim.incarnation, slot });
    }

    /// The victim's answer over the network.
    pub(in crate::core::office) fn on_fence_answer(
        &mut self,
        now: Now,
        client: ClientId,
        fence_gen: FenceGen,
        fenced: bool,
        out: &mut Vec<Effect>,
    ) {
        let asked = |r: &Run| r.victim == client && r.raised.is_some_and(|s| s.fence_gen <= fence_gen);
        self.with_run(asked, |office, run| match (&run.phase, run.raised) {
            (Phase::Over(_), _) | (_, None) => {}
            (_, Some(slot)) if fenced => run.over(HowFenced::Answered, slot.fence_gen),
            (Phase::Asking { .. }, Some(_)) if office.may_step(run) => office.mark(now, run, out),
            _ => {}
        });
    }

    /// What became of the attempt to end the victim's process; its LIVE lock tells when it is over.
    pub(in crate::core::office) fn on_killed(&mut self, node: NodeId, outcome: KillOutcome, out: &mut Vec<Effect>) {
        self.with_run(
            |r| r.victim.node == node && matches!(r.phase, Phase::Killing),
            |_, run| {
                run.phase = Phase::Waiting;
                if outcome == KillOutcome::Failed {
                    out.push(Effect::Report(Report::FenceStep {
                        client: run.victim,
                        step: "its process cannot be ended from here",
                    }));
                }
            },
        );
    }
}
