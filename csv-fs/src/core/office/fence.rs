//! Fencing one client: raise `fence_gen` in its slot, then prove that nothing of it can land any more.
//!
//! ```text
//! file kind:  [Probe ─ lock ─►] Observe ─► Raising ─► Locking ─► Asking (500 ms) ─► Marking (1 s) ─► Killing ─► Waiting
//!                                 ▲ miscompare │          └────────── LIVE lock acquired, or "fenced" answered ─────┴─► proof
//!                                 └────────────┘
//! SCSI kind:  Observe ─► Raising ─► READ KEYS ─► PREEMPT AND ABORT each ─► READ KEYS ... none ─► READ RESERVATION ─► Clearing ─► proof
//!                └─ Behind ─┘ another's mark: it is waited for; what it has not finished is ended by a reset of the unit (`scsi`)
//! own client: raise by the own renewal, stop, abort ─► proof
//! ```
//! - The raise names an incarnation: a slot that carries a later one is left alone, and the earlier is proved over,
//!   because a later one registers only after every earlier has ended.
//! - On a miscompare it starts over from what was found: the victim renewed, or another fencer was first. Another's
//!   raise is not taken for the own: the victim may have been granted that generation since.
//! - A LIVE lock acquired before the raise is kept until the raise is settled.
//! - Without permission no further step is taken. A fence for office is abandoned; one for the coordinator waits.

mod answers;
mod scsi;

use std::time::Duration;

use block::shared::{Epoch, FenceGen, NodeId};

use super::caw::Caw;
use super::effect::{Effect, FenceFailed, FenceStep, Report, Via};
use super::event::{Purpose, ReadSeq, Tag, Ticket};
use super::proof::{FenceProof, HowFenced};
use super::role::Role;
use super::view::{Mark, SlotView};
use super::{DiskKind, Office};
use crate::core::rules::Rule;
use crate::core::time::Now;
use crate::types::ClientId;
use scsi::Taking;

/// How often a LIVE lock is tried while its holder should be dying: its last writes take this long or a little longer.
const LOCK_RETRY_DYING: Duration = Duration::from_millis(5);

/// A victim that renews its slot and has not answered yet is waited for so long at most, from the raise on. Prevents: a node
/// that was cut off is well and slow, and its daemon is ended in the middle of draining.
const DRAINS: Duration = Duration::from_secs(10);

/// How often it is tried while the victim is asked.
const LOCK_RETRY_ASKED: Duration = Duration::from_millis(25);

/// What a coordinator asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct FenceRequest {
    pub(super) ticket: Ticket,
    pub(super) client: ClientId,
    pub(super) purpose: Purpose,
    pub(super) answered: bool,
}

/// One fence under way.
#[derive(Debug)]
pub(super) struct Run {
    victim: ClientId,
    /// Why, if a coordinator asked first.
    purpose: Option<Purpose>,
    /// Whether it was reported: a probe is no fence yet.
    begun: bool,
    /// When the generation was raised.
    begun_at: Now,
    tickets: Vec<Ticket>,
    /// The reign whose holder is fenced so that this node may take office.
    for_office: Option<Epoch>,
    /// The client has said already that nothing of its own is in flight.
    answered: bool,
    /// It has just been asked whether it lives, and did not answer: what else it is asked is not waited for.
    silent: bool,
    lock: Lock,
    /// The slot with the generation raised, once it is.
    raised: Option<SlotView>,
    /// Whether a fresh look was taken for a slot that seemed older than the victim.
    looked: bool,
    /// What a SCSI fence will have proved.
    how: HowFenced,
    /// Who takes the victim's keys away (SCSI kind).
    taking: Taking,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lock {
    Idle { due: Now },
    Trying,
    Held,
}

#[derive(Debug)]
enum Phase {
    Probe {
        until: Now,
    },
    Observe {
        from: ReadSeq,
    },
    Raising(Caw<SlotView>),
    Locking,
    Asking {
        until: Now,
    },
    /// `lives`: when the victim's own hand was last seen in its slot, and the slot as read last.
    Marking {
        until: Now,
        caw: Option<Caw<SlotView>>,
        lives: Option<(Now, SlotView)>,
    },
    Killing,
    Waiting,
    Scsi {
        tag: Tag,
        step: FenceStep,
    },
    ScsiPause {
        until: Now,
    },
    /// Another's mark is in the slot, since then.
    Behind {
        mark: Mark,
        since: Now,
    },
    /// The own mark is taken out of the slot.
    Clearing(Caw<SlotView>),
    Own {
        asked: bool,
    },
    Over(Result<FenceProof, FenceFailed>),
}

impl Run {
    pub(super) fn is_probe(&self) -> bool {
        matches!(self.phase, Phase::Probe { .. })
    }

    /// Nobody wants it any more.
    fn is_unwanted(&self) -> bool {
        self.tickets.is_empty() && self.for_office.is_none()
    }

    fn over(&mut self, how: HowFenced, fence_gen: FenceGen) {
        self.phase = Phase::Over(Ok(FenceProof::new(self.victim, fence_gen, how)));
    }

    /// The gap between two tries of the LIVE lock in this phase; `None`: it is not tried.
    fn lock_retry(&self) -> Option<Duration> {
        match self.phase {
            Phase::Probe { .. } | Phase::Locking | Phase::Waiting => Some(LOCK_RETRY_DYING),
            Phase::Asking { .. } | Phase::Marking { .. } | Phase::Killing => Some(LOCK_RETRY_ASKED),
            _ => None,
        }
    }

    fn deadline(&self) -> Option<Now> {
        let phase = match &self.phase {
            Phase::Probe { until } if self.lock != Lock::Trying => Some(*until),
            Phase::Asking { until } | Phase::Marking { until, .. } => Some(*until),
            Phase::ScsiPause { until } => Some(*until),
            _ => None,
        };
        let lock = match self.lock {
            Lock::Idle { due } if self.lock_retry().is_some() => Some(due),
            _ => None,
        };
        phase.into_iter().chain(lock).min()
    }
}

impl Office {
    /// The coordinator wants a client fenced.
    pub(super) fn request_fence(&mut self, now: Now, ask: FenceRequest, out: &mut Vec<Effect>) {
        let FenceRequest { ticket, client, purpose, answered } = ask;
        if !matches!(self.role, Role::Reigning(_)) {
            out.push(Effect::FenceDone { ticket, result: Err(FenceFailed::NotInOffice) });
            return;
        }
        let run = self.run_for(now, client, Some(purpose));
        run.tickets.push(ticket);
        run.answered |= answered;
    }

    /// The holder is to be fenced so that this node may take office.
    pub(super) fn fence_for_office(&mut self, now: Now, holder: ClientId, epoch: Epoch, silent: bool) {
        let run = self.run_for(now, holder, None);
        (run.for_office, run.silent) = (Some(epoch), silent);
    }

    /// The holder's LIVE lock is to be tried; if it is acquired, the fence goes on from there.
    pub(super) fn probe_for_office(&mut self, now: Now, holder: ClientId, epoch: Epoch, until: Now) {
        let run = self.run_for(now, holder, None);
        run.for_office = Some(epoch);
        run.phase = Phase::Probe { until };
    }

    fn run_for(&mut self, now: Now, victim: ClientId, purpose: Option<Purpose>) -> &mut Run {
        let own = self.client() == Some(victim);
        let from = match self.look.sight.as_ref().is_some_and(|s| s.slots.contains_key(&victim.node)) {
            true => ReadSeq(0),
            false => self.look.next_seq(),
        };
        let run = self.runs.entry(victim).or_insert_with(|| {
            let phase = if own { Phase::Own { asked: false } } else { Phase::Observe { from } };
            let lock = Lock::Idle { due: now };
            Run {
                victim,
                purpose,
                begun: false,
                begun_at: now,
                tickets: Vec::new(),
                for_office: None,
                answered: false,
                silent: false,
                lock,
                raised: None,
                looked: false,
                how: HowFenced::KeysGone,
                taking: Taking::default(),
                phase,
            }
        });
        if run.is_unwanted() && matches!(run.phase, Phase::Clearing(_)) {
            // It was about to let go.
            run.phase = Phase::Observe { from: self.look.next_seq() };
        }
        run
    }

    /// Ends a fence that was for office only.
    pub(super) fn abandon_for_office(&mut self, victim: ClientId, out: &mut Vec<Effect>) {
        let Some(run) = self.runs.get_mut(&victim).filter(|r| r.for_office.is_some()) else { return };
        run.for_office = None;
        if run.tickets.is_empty() {
            let (lock, begun) = (std::mem::replace(&mut run.lock, Lock::Idle { due: Now(0) }), run.begun);
            if !run.has_a_mark() {
                self.runs.remove(&victim);
            }
            self.release(victim.node, lock, out);
            if begun {
                out.push(Effect::Report(Report::FenceAbandoned { client: victim }));
            }
        }
    }

    fn release(&mut self, node: NodeId, lock: Lock, out: &mut Vec<Effect>) {
        if lock == Lock::Held {
            out.push(Effect::ReleaseLiveLock { node });
        }
    }

    pub(super) fn runs_deadline(&self) -> Option<Now> {
        self.runs.values().filter(|r| self.may_step(r)).filter_map(Run::deadline).min()
    }

    /// Without permission nobody fences. A probe only tries a lock.
    fn may_step(&self, run: &Run) -> bool {
        run.is_probe()
            || (self.arbiter.given.is_some() && (run.for_office.is_some() || matches!(self.role, Role::Reigning(_))))
    }

    /// Takes every fence as far as it goes now.
    pub(super) fn advance_runs(&mut self, now: Now, out: &mut Vec<Effect>) {
        for victim in self.runs.keys().copied().collect::<Vec<_>>() {
            let Some(mut run) = self.runs.remove(&victim) else { continue };
            if self.is_given_up(&mut run, out) {
                if !self.lets_go(now, &mut run, out) {
                    self.runs.insert(victim, run);
                }
                continue;
            }
            if self.may_step(&run) {
                self.step(now, &mut run, out);
            }
            if !self.finish(now, &mut run, out) {
                self.runs.insert(victim, run);
            }
        }
    }

    /// Whether nobody wants this fence any more. Fences that a coordinator asked for end with its office.
    fn is_given_up(&mut self, run: &mut Run, out: &mut Vec<Effect>) -> bool {
        if run.is_unwanted() {
            self.release(run.victim.node, std::mem::replace(&mut run.lock, Lock::Idle { due: Now(0) }), out);
            return true;
        }
        if matches!(self.role, Role::Reigning(_)) {
            return false;
        }
        for ticket in run.tickets.drain(..) {
            out.push(Effect::FenceDone { ticket, result: Err(FenceFailed::NotInOffice) });
        }
        if matches!(run.phase, Phase::Own { .. }) {
            self.raise_own(false);
        }
        if run.for_office.is_none() {
            self.release(run.victim.node, std::mem::replace(&mut run.lock, Lock::Idle { due: Now(0) }), out);
        }
        run.for_office.is_none()
    }

    /// Hands out the result of a fence that ended.
    fn finish(&mut self, now: Now, run: &mut Run, out: &mut Vec<Effect>) -> bool {
        let result = match &run.phase {
            Phase::Over(result) => *result,
            Phase::Probe { until } if now >= *until && run.lock != Lock::Trying || run.lock == Lock::Held => {
                self.release(run.victim.node, run.lock, out);
                self.probe_ended(now, run.victim);
                return true;
            }
            _ => return false,
        };
        self.release(run.victim.node, run.lock, out);
        for ticket in run.tickets.drain(..) {
            out.push(Effect::FenceDone { ticket, result });
        }
        if let Ok(proof) = result {
            out.push(Effect::Report(Report::Fenced { proof }));
            if proof.how() == HowFenced::Dead {
                self.died(run);
            }
            if let Some(epoch) = run.for_office {
                self.proved = Some((epoch, proof));
            }
        }
        true
    }

    fn step(&mut self, now: Now, run: &mut Run, out: &mut Vec<Effect>) {
        match &mut run.phase {
            Phase::Probe { .. } if run.lock == Lock::Held => self.observe_if_permitted(now, run, out),
            Phase::Observe { from } if *from == ReadSeq(0) => self.observe(now, run, out),
            Phase::Observe { from } if *from >= self.look.next_seq() => self.look.want(),
            Phase::Asking { until } if now >= *until => self.mark(now, run, out),
            Phase::Marking { until, lives, .. } if now >= *until => match lives {
                // It has seen the raise, since no renewal of its own lands without, and is draining.
                Some((at, _)) if now.since(*at) < self.answers_a_mark_in() && now < run.begun_at + DRAINS => {
                    *until = *at + self.answers_a_mark_in();
                }
                _ => self.kill(run, out),
            },
            Phase::ScsiPause { until } if now >= *until => self.scsi(run, FenceStep::ReadKeys, out),
            Phase::Own { .. } => self.step_own(run),
            _ => {}
        }
        self.try_lock(now, run, out);
    }

    /// One try of the LIVE lock, if one is due and no other fence of that node uses it.
    fn try_lock(&mut self, now: Now, run: &mut Run, out: &mut Vec<Effect>) {
        let node = run.victim.node;
        let due = matches!(run.lock, Lock::Idle { due } if now >= due) && run.lock_retry().is_some();
        if !due || self.config.kind != DiskKind::File {
            return;
        }
        if self.runs.values().any(|r| r.victim.node == node && !matches!(r.lock, Lock::Idle { .. })) {
            run.lock = Lock::Idle { due: now + LOCK_RETRY_ASKED };
            return;
        }
        run.lock = Lock::Trying;
        out.push(Effect::TryLiveLock { node });
    }

    /// A probe that acquired the lock goes on only with permission; without it, [`finish`](Self::finish) lets go.
    fn observe_if_permitted(&mut self, now: Now, run: &mut Run, out: &mut Vec<Effect>) {
        if self.arbiter.given.is_some() {
            self.observe(now, run, out);
        }
    }

    /// Begins from the slot as last read.
    fn observe(&mut self, now: Now, run: &mut Run, out: &mut Vec<Effect>) {
        match self.look.sight.as_ref().and_then(|s| s.slots.get(&run.victim.node)).copied() {
            Some(slot) => self.raise(now, run, slot, out),
            None => run.phase = Phase::Observe { from: self.look.next_seq() },
        }
    }

    fn raise(&mut self, now: Now, run: &mut Run, found: SlotView, out: &mut Vec<Effect>) {
        if !std::mem::replace(&mut run.begun, true) {
            out.push(Effect::Report(Report::Fencing { client: run.victim, purpose: run.purpose }));
            if let Some(epoch) = run.for_office {
                let why = self.takeover_why(run.victim, epoch, run.lock == Lock::Held);
                out.push(Effect::Report(Report::TakingOver { holder: run.victim, epoch, why }));
            }
        }
        let later = found.incarnation > run.victim.incarnation;
        if found.incarnation < run.victim.incarnation {
            // What was read may be from before it registered: look once more.
            run.phase = match std::mem::replace(&mut run.looked, true) {
                false => Phase::Observe { from: self.look.next_seq() },
                true => Phase::Over(Err(FenceFailed::Unknown)),
            };
            return;
        }
        if later && self.rules.has(Rule::FenceNamesIncarnation) {
            return self.superseded(now, run, found, out);
        }
        if self.stays_behind(now, run, &found) {
            return;
        }
        let (nonce, tag, fence_gen) = (self.ids.nonce(), self.ids.tag(), FenceGen(found.fence_gen.0 + 1));
        let mark = self.own_mark(run.victim, fence_gen).or(found.mark);
        let new = SlotView { fence_gen, mark, ..found.next(nonce) };
        run.phase = Phase::Raising(Caw::new(found, new, tag, now));
        out.push(Effect::CawSlot { tag, node: run.victim.node, expect: found, new, via: Via::First });
    }

    fn superseded(&mut self, now: Now, run: &mut Run, found: SlotView, out: &mut Vec<Effect>) {
        match self.config.kind {
            DiskKind::File => run.over(HowFenced::Superseded, found.fence_gen),
            DiskKind::Scsi { .. } => {
                run.how = HowFenced::Superseded;
                self.mark_of_the_dead(now, run, found, out);
            }
        }
    }

    /// The generation is raised: now the proof.
    fn raised(&mut self, now: Now, run: &mut Run, slot: SlotView, out: &mut Vec<Effect>) {
        run.raised = Some(slot);
        run.begun_at = now;
        self.look.learn_slot(run.victim.node, slot);
        match self.config.kind {
            DiskKind::Scsi { .. } => self.marked(run, slot, out),
            DiskKind::File if run.lock == Lock::Held => run.over(HowFenced::Dead, slot.fence_gen),
            DiskKind::File if run.answered => run.over(HowFenced::Answered, slot.fence_gen),
            DiskKind::File => {
                run.lock = match run.lock {
                    Lock::Idle { .. } => Lock::Idle { due: now },
                    other => other,
                };
                run.phase = Phase::Locking;
                if self.may_step(run) {
                    self.try_lock(now, run, out);
                }
            }
        }
    }

    /// Over the network first, if the victim is heard.
    fn ask(&mut self, now: Now, run: &mut Run, out: &mut Vec<Effect>) {
        let Some(slot) = run.raised else { return };
        if !self.heard.contains(run.victim.node) {
            return self.mark(now, run, out);
        }
        out.push(Effect::Report(Report::FenceStep { client: run.victim, step: "asked over the network" }));
        out.push(Effect::AskFence { client: run.victim, fence_gen: slot.fence_gen });
        if run.silent {
            // Its answer still counts while the mark is waited for.
            return self.mark(now, run, out);
        }
        run.phase = Phase::Asking { until: now + self.config.timing.ask };
    }

    /// How long a mark is waited for: a victim that lives renews its slot meanwhile, and finds it.
    pub(super) fn answers_a_mark_in(&self) -> Duration {
        self.config.timing.mark.max(self.config.timing.renew * 2)
    }

    /// Then by a mark in its slot.
    fn mark(&mut self, now: Now, run: &mut Run, out: &mut Vec<Effect>) {
        out.push(Effect::Report(Report::FenceStep { client: run.victim, step: "asked by a mark on the disk" }));
        let until = now + self.answers_a_mark_in();
        let seen = self.look.sight.as_ref().and_then(|s| s.slots.get(&run.victim.node)).copied();
        let slot = [seen, run.raised].into_iter().flatten().max_by_key(|s| s.counter);
        run.phase = Phase::Marking { until, caw: None, lives: None };
        if let Some(slot) = slot {
            self.mark_over(now, run, slot, out);
        }
        self.look.want();
    }

    fn mark_over(&mut self, now: Now, run: &mut Run, found: SlotView, out: &mut Vec<Effect>) {
        let (nonce, tag) = (self.ids.nonce(), self.ids.tag());
        let (Some(raised), Phase::Marking { caw, .. }) = (run.raised, &mut run.phase) else { return };
        let mark = Mark { by: self.config.node, incarnation: run.victim.incarnation, fence_gen: raised.fence_gen };
        if found.incarnation != run.victim.incarnation || found.mark == Some(mark) {
            *caw = None;
            return;
        }
        let new = SlotView { mark: Some(mark), ..found.next(nonce) };
        *caw = Some(Caw::new(found, new, tag, now));
        out.push(Effect::CawSlot { tag, node: run.victim.node, expect: found, new, via: Via::First });
    }

    /// Then its process is ended, which is possible on this very host only.
    fn kill(&mut self, run: &mut Run, out: &mut Vec<Effect>) {
        let Some(slot) = run.raised.filter(|s| s.boot == self.config.boot && s.pid != 0) else {
            run.phase = Phase::Waiting;
            return;
        };
        out.push(Effect::Report(Report::FenceStep { client: run.victim, step: "process ended by SIGKILL" }));
        out.push(Effect::Kill { node: run.victim.node, pid: slot.pid, pid_start: slot.pid_start });
        run.phase = Phase::Killing;
    }

    /// The office's own living client: its own renewal raises, and its own abort proves.
    fn step_own(&mut self, run: &mut Run) {
        let Some(life) = self.life() else { return };
        let (raised, answered) = (life.self_raised, life.answered);
        match &mut run.phase {
            Phase::Own { asked } if !*asked => {
                *asked = true;
                self.raise_own(true);
            }
            Phase::Own { .. } if raised.0 > 0 && answered >= raised && !life.raising() => {
                let fence_gen = life.slot.fence_gen;
                run.over(HowFenced::Answered, fence_gen);
            }
            _ => {}
        }
    }
}
