//! The proof on a SCSI disk: every key of the victim preempted and aborted, and the reservation still held.
//!
//! ```text
//! READ KEYS ─ one of the victim's ─► PREEMPT AND ABORT ─► READ KEYS ...
//!     └ none ─► READ RESERVATION ─ right type ─► [LOGICAL UNIT RESET, in doubt] ─► own mark out of the slot ─► proof
//!                     └ else RESERVE ─► READ RESERVATION
//! ```
//! A target takes a registration away first, ends the tasks of its nexus then, and answers last. So that **a key is gone proves
//! nothing** (rule `AnsweredPreempt`): a write that is with the disk behind the target lands later, whoever reads the keys meanwhile.
//! What counts is an *answered* PREEMPT AND ABORT, and one fence of a node at a time:
//!
//! - The raise puts this fence's **mark** into the victim's slot; it is taken out when every PREEMPT AND ABORT was answered. While it
//!   stands, whatever keys have gone may have gone unanswered.
//! - Who finds another's mark waits for it to be taken out; not for ever, since its fencer may be dead. Then it raises over that mark
//!   and takes the obligation over: keys that it does not find are *in doubt*.
//! - So is a key of which the own PREEMPT AND ABORT has been sent and nobody knows whether it was answered.
//! - In doubt, LOGICAL UNIT RESET is the proof: it ends every command of every nexus before it is answered (SAM-5 6.3.3), those that
//!   another's PREEMPT AND ABORT is just ending among them, and that PREEMPT AND ABORT itself. It hurts everybody, a little: they
//!   send again what it has ended.
//! - The mark must still be there when the proof is made: the compare-and-write that takes it out is the last step. If it is another's
//!   by then, that one has waited long enough, and this fence begins again, behind it.
//! - A fence that nobody wants any more takes its mark out, unless something is in doubt.
//!
//! A RESERVATION CONFLICT proves nothing: it says that this PREEMPT AND ABORT was not executed. A step that failed is tried again
//! from the start.

use std::collections::BTreeSet;
use std::time::Duration;

use block::shared::FenceGen;

use super::super::caw::Caw;
use super::super::effect::{Effect, FenceFailed, FenceStep, Report, Via};
use super::super::event::{ScsiResult, Tag};
use super::super::view::{Key, Mark, SlotView};
use super::super::{DiskKind, Office};
use super::{DRAINS, Phase, Run};
use crate::core::rules::Rule;
use crate::core::time::Now;
use crate::types::ClientId;

/// The pause after a step that failed.
const RETRY: Duration = Duration::from_millis(50);

/// What a fence knows of who takes the victim's keys away.
#[derive(Debug, Default)]
pub(super) struct Taking {
    /// Its own mark, once that is in the slot.
    mark: Option<Mark>,
    /// Another's fence was begun and never said to have ended.
    unfinished: bool,
    /// Keys whose own PREEMPT AND ABORT was sent and, as far as is known, not answered.
    doubt: BTreeSet<Key>,
}

impl Taking {
    fn in_doubt(&self) -> bool {
        self.unfinished || !self.doubt.is_empty()
    }
}

impl Run {
    /// Whether the slot carries this fence's mark, or may soon.
    pub(super) fn has_a_mark(&self) -> bool {
        self.taking.mark.is_some() || matches!(&self.phase, Phase::Raising(caw) if caw.new.mark != caw.expect.mark)
    }
}

impl Office {
    pub(super) fn scsi(&mut self, run: &mut Run, step: FenceStep, out: &mut Vec<Effect>) {
        let tag = self.ids.tag();
        run.phase = Phase::Scsi { tag, step };
        out.push(Effect::Scsi { tag, step });
    }

    /// The answer to a SCSI step of a fence.
    pub(in crate::core::office) fn on_scsi(&mut self, now: Now, tag: Tag, result: ScsiResult, out: &mut Vec<Effect>) {
        if let Some(nexus) = self.registers(tag) {
            return self.nexus_registered(nexus, result == ScsiResult::Done, out);
        }
        let owns = |r: &Run| matches!(r.phase, Phase::Scsi { tag: t, .. } if t == tag);
        self.with_run(owns, |office, run| office.scsi_step(now, run, result, out));
    }

    fn scsi_step(&mut self, now: Now, run: &mut Run, result: ScsiResult, out: &mut Vec<Effect>) {
        let (DiskKind::Scsi { volume_tag }, Phase::Scsi { step, .. }) = (self.config.kind, &run.phase) else { return };
        let (step, victim) = (*step, run.victim);
        match (step, &result) {
            (FenceStep::PreemptAndAbort { victim }, ScsiResult::Done) => drop(run.taking.doubt.remove(&victim)),
            (FenceStep::PreemptAndAbort { victim }, ScsiResult::Failed) => drop(run.taking.doubt.insert(victim)),
            (FenceStep::ResetUnit, ScsiResult::Done) => (run.taking.unfinished, run.taking.doubt) = Default::default(),
            _ => {}
        }
        if run.is_unwanted() || !self.may_step(run) {
            run.phase = Phase::ScsiPause { until: now };
            return;
        }
        let mine = |k: &&Key| k.belongs_to(volume_tag, victim);
        match (step, result) {
            (FenceStep::ReadKeys, ScsiResult::Keys(keys)) => match keys.iter().find(mine) {
                Some(key) => self.scsi(run, FenceStep::PreemptAndAbort { victim: *key }, out),
                None => self.scsi(run, FenceStep::ReadReservation, out),
            },
            (FenceStep::ReadReservation, ScsiResult::Reservation { right_type: true }) => {
                self.keys_are_gone(now, run, out)
            }
            (FenceStep::ReadReservation, ScsiResult::Reservation { right_type: false }) => {
                self.scsi(run, FenceStep::Reserve, out)
            }
            (FenceStep::Reserve, ScsiResult::Done) => self.scsi(run, FenceStep::ReadReservation, out),
            (FenceStep::PreemptAndAbort { .. }, ScsiResult::Done | ScsiResult::Conflict) => {
                self.scsi(run, FenceStep::ReadKeys, out)
            }
            (FenceStep::ResetUnit, ScsiResult::Done) => self.keys_are_gone(now, run, out),
            _ => run.phase = Phase::ScsiPause { until: now + RETRY },
        }
    }

    /// None of the victim's is left, and the unit is held.
    fn keys_are_gone(&mut self, now: Now, run: &mut Run, out: &mut Vec<Effect>) {
        if !self.rules.has(Rule::AnsweredPreempt) {
            let fence_gen = run.raised.map(|s| s.fence_gen).unwrap_or(FenceGen(0));
            return run.over(run.how, fence_gen);
        }
        if run.taking.in_doubt() {
            out.push(Effect::Report(Report::FenceStep {
                client: run.victim,
                step: "the unit is reset, because a fence was not finished",
            }));
            return self.scsi(run, FenceStep::ResetUnit, out);
        }
        self.clear_mark(now, run, self.newest_of(run), out);
    }

    fn newest_of(&self, run: &Run) -> Option<SlotView> {
        let seen = self.look.sight.as_ref().and_then(|s| s.slots.get(&run.victim.node)).copied();
        [seen, run.raised].into_iter().flatten().max_by_key(|s| s.counter)
    }

    /// The mark of a fence that raises to this generation; none on a disk that needs none.
    pub(super) fn own_mark(&self, victim: ClientId, fence_gen: FenceGen) -> Option<Mark> {
        let marks = matches!(self.config.kind, DiskKind::Scsi { .. }) && self.rules.has(Rule::AnsweredPreempt);
        marks.then_some(Mark { by: self.config.node, incarnation: victim.incarnation, fence_gen })
    }

    /// Whether this fence waits for another's mark to be taken out. What it has waited for in vain is in doubt from then on.
    pub(super) fn stays_behind(&self, now: Now, run: &mut Run, found: &SlotView) -> bool {
        if self.own_mark(run.victim, found.fence_gen).is_none() {
            return false;
        }
        let Some(mark) = found.mark.filter(|mark| run.taking.mark != Some(*mark)) else {
            // It was taken out after all, before this fence had raised over it.
            run.taking.unfinished &= run.taking.mark.is_some();
            return false;
        };
        let since = match run.phase {
            Phase::Behind { mark: same, since } if same == mark => since,
            _ => now,
        };
        if now.since(since) >= self.patience_with(mark) {
            (run.taking.mark, run.taking.unfinished) = (None, true);
            return false;
        }
        run.phase = Phase::Behind { mark, since };
        true
    }

    /// How long another's fence is waited for: as long as its PREEMPT AND ABORT may well take, or until its node should have been heard
    /// again. One of this node's own that is under way ends by itself; one of an earlier life does not.
    fn patience_with(&self, mark: Mark) -> Duration {
        match mark.by == self.config.node {
            true if self.runs.values().any(|r| r.taking.mark == Some(mark)) => Duration::MAX,
            true => Duration::ZERO,
            false if self.heard.contains(mark.by) => DRAINS,
            false => self.answers_a_mark_in(),
        }
    }

    /// The slot carries a later life of the victim. What is left of its keys is taken away under a mark, too; the generation is not
    /// raised: that would be the later life's.
    pub(super) fn mark_of_the_dead(&mut self, now: Now, run: &mut Run, found: SlotView, out: &mut Vec<Effect>) {
        let Some(mark) = self.own_mark(run.victim, found.fence_gen) else {
            run.raised = Some(found);
            return self.scsi(run, FenceStep::ReadKeys, out);
        };
        if self.stays_behind(now, run, &found) {
            return;
        }
        let (nonce, tag) = (self.ids.nonce(), self.ids.tag());
        let new = SlotView { mark: Some(mark), ..found.next(nonce) };
        run.phase = Phase::Raising(Caw::new(found, new, tag, now));
        out.push(Effect::CawSlot { tag, node: run.victim.node, expect: found, new, via: Via::First });
    }

    /// The mark is in the slot: no other fence of this node was under way then, or what it has left is in doubt.
    pub(super) fn marked(&mut self, run: &mut Run, slot: SlotView, out: &mut Vec<Effect>) {
        run.taking.mark = slot.mark.filter(|mark| mark.by == self.config.node && self.rules.has(Rule::AnsweredPreempt));
        self.scsi(run, FenceStep::ReadKeys, out);
    }

    /// Takes the own mark out of the slot as found; if it is not there any more, everything begins again.
    pub(super) fn clear_mark(&mut self, now: Now, run: &mut Run, found: Option<SlotView>, out: &mut Vec<Effect>) {
        let Some(found) = found.filter(|slot| slot.mark.is_some() && slot.mark == run.taking.mark) else {
            run.taking.mark = None;
            run.phase = Phase::Observe { from: self.look.next_seq() };
            return;
        };
        let (nonce, tag) = (self.ids.nonce(), self.ids.tag());
        let new = SlotView { mark: None, ..found.next(nonce) };
        run.phase = Phase::Clearing(Caw::new(found, new, tag, now));
        out.push(Effect::CawSlot { tag, node: run.victim.node, expect: found, new, via: Via::First });
    }

    /// The mark is out of the slot, and was there until then.
    pub(super) fn cleared(&mut self, run: &mut Run, slot: SlotView) {
        self.look.learn_slot(run.victim.node, slot);
        run.taking.mark = None;
        match run.is_unwanted() {
            true => run.phase = Phase::Over(Err(FenceFailed::NotInOffice)),
            false => run.over(run.how, slot.fence_gen),
        }
    }

    /// A fence that nobody wants any more: true once there is nothing left to be done for it. Its mark is taken out if nothing that it
    /// has begun is in doubt; else whoever fences next has to know.
    pub(super) fn lets_go(&mut self, now: Now, run: &mut Run, out: &mut Vec<Effect>) -> bool {
        match &run.phase {
            Phase::Raising(caw) => return !(run.has_a_mark() && caw.is_outstanding()),
            Phase::Scsi { step: FenceStep::PreemptAndAbort { .. } | FenceStep::ResetUnit, .. } => return false,
            Phase::Clearing(caw) => return !caw.is_outstanding(),
            _ => {}
        }
        if run.taking.mark.is_none() || run.taking.in_doubt() {
            return true;
        }
        self.clear_mark(now, run, self.newest_of(run), out);
        run.taking.mark.is_none()
    }
}
