//! Reading: one round over lease and slots at a time, half a renew period apart, sooner when something waits for it.

use std::collections::BTreeMap;
use std::time::Duration;

use block::shared::NodeId;

use super::event::ReadSeq;
use super::view::{LeaseView, NodeSet, Sight, SlotView};
use super::watch::Unchanged;
use super::{Effect, Office};
use crate::core::time::Now;

/// What was read, and when to read again.
#[derive(Debug, Default)]
pub(super) struct Look {
    next: u64,
    outstanding: Option<Round>,
    due: Now,
    wanted: bool,
    /// The last complete round.
    pub(super) sight: Option<Sight>,
    /// When the last good round was started; later if this node did not run since.
    pub(super) last_good: Option<Now>,
    /// Whether the last round failed.
    pub(super) failing: bool,
    lease: Option<Unchanged>,
    slots: BTreeMap<NodeId, SlotWatch>,
}

/// A round that is out.
#[derive(Clone, Copy, Debug)]
struct Round {
    seq: ReadSeq,
    started: Now,
    /// From when on it counts as out: later than its start if this node did not run meanwhile.
    since: Now,
}

/// Watches a slot for signs of its owner's life.
#[derive(Debug)]
struct SlotWatch {
    last: SlotView,
    unchanged: Unchanged,
}

impl SlotWatch {
    /// A fencer's change is no sign of life: it touches `fence_gen` or the mark. An owner that renewed between that
    /// change and this read is noticed at its next renewal.
    fn read(&mut self, slot: &SlotView, started: Now, now: Now, bound: Duration) {
        let by_fencer = slot.incarnation == self.last.incarnation
            && (slot.fence_gen, slot.mark) != (self.last.fence_gen, self.last.mark);
        let sign = if by_fencer { self.unchanged.counter } else { slot.counter };
        let sign = if slot.counter == self.last.counter { self.unchanged.counter } else { sign };
        self.unchanged.read(sign, started, now, bound);
        self.last = *slot;
    }
}

impl Look {
    /// The number of the first round that starts after this moment.
    pub(super) fn next_seq(&self) -> ReadSeq {
        ReadSeq(self.next)
    }

    /// Read as soon as no round is outstanding.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// Since when a round is outstanding.
    pub(super) fn outstanding_since(&self) -> Option<Now> {
        self.outstanding.map(|round| round.since)
    }

    /// For so long nobody here could have taken an answer.
    pub(super) fn postpone(&mut self, by: Duration) {
        self.outstanding.iter_mut().for_each(|round| round.since = round.since + by);
        self.last_good = self.last_good.map(|at| at + by);
    }

    /// The lease, as watched.
    pub(super) fn lease(&mut self) -> Option<&mut Unchanged> {
        self.lease.as_mut()
    }

    /// For how long the lease has been seen unchanged.
    pub(super) fn lease_covered(&self) -> Duration {
        self.lease.map(|l| l.covered).unwrap_or_default()
    }

    /// Nodes that changed their slot lately, by this node's own covered time.
    pub(super) fn counting(&self, within: Duration) -> NodeSet {
        self.slots
            .iter()
            .filter(|(_, w)| w.unchanged.changed_once && w.unchanged.covered < within)
            .map(|(n, _)| *n)
            .collect()
    }

    pub(super) fn deadline(&self) -> Option<Now> {
        match self.outstanding {
            Some(_) => None,
            None if self.wanted => Some(Now(0)),
            None => Some(self.due),
        }
    }

    /// What a compare-and-write that ended now showed of the lease, newer than the last round. It is watched from here on.
    ///
    /// Prevents: two nodes challenge a silent holder at once; the one whose compare-and-write comes second learns who has the lease
    /// now, believes that it has been unchanged for as long as the one before it, and fences the new holder.
    pub(super) fn learn_lease(&mut self, lease: LeaseView, now: Now) {
        if let Some(sight) = self.sight.as_mut().filter(|s| s.lease.counter < lease.counter) {
            self.lease = Some(Unchanged::new(lease.counter, now));
            sight.lease = lease;
        }
    }

    /// What a compare-and-write showed of a slot, newer than the last round.
    pub(super) fn learn_slot(&mut self, node: NodeId, slot: SlotView) {
        if let Some(sight) = self.sight.as_mut().filter(|s| s.slots.get(&node).is_none_or(|s| s.counter < slot.counter))
        {
            sight.slots.insert(node, slot);
        }
    }

    fn take(&mut self, started: Now, now: Now, mut sight: Sight, bound: Duration) {
        match &mut self.lease {
            Some(lease) => lease.read(sight.lease.counter, started, now, bound),
            none => *none = Some(Unchanged::new(sight.lease.counter, now)),
        }
        for (node, slot) in &sight.slots {
            self.slots
                .entry(*node)
                .and_modify(|w| w.read(slot, started, now, bound))
                .or_insert_with(|| SlotWatch { last: *slot, unchanged: Unchanged::new(slot.counter, now) });
        }
        self.last_good = Some(started);
        self.failing = false;
        // The round may have passed a block before a compare-and-write that was answered first.
        if let Some(known) = self.sight.take() {
            if known.lease.counter > sight.lease.counter {
                sight.lease = known.lease;
            }
            for (node, slot) in known.slots {
                let seen = sight.slots.entry(node).or_insert(slot);
                if slot.counter > seen.counter {
                    *seen = slot;
                }
            }
        }
        self.sight = Some(sight);
    }

    fn failed(&mut self) {
        self.failing = true;
        self.lease.iter_mut().for_each(Unchanged::failed);
        self.slots.values_mut().for_each(|w| w.unchanged.failed());
    }
}

impl Office {
    /// Starts a round if one is due and none is out.
    pub(super) fn advance_reads(&mut self, now: Now, out: &mut Vec<Effect>) {
        let look = &mut self.look;
        if look.outstanding.is_some() || !(look.wanted || now >= look.due) {
            return;
        }
        let seq = ReadSeq(look.next);
        look.next += 1;
        look.outstanding = Some(Round { seq, started: now, since: now });
        look.wanted = false;
        look.due = now + self.config.timing.poll();
        out.push(Effect::Read { seq });
    }

    /// Takes a round's result. Nothing older than what is known already is believed of any block.
    pub(super) fn on_read(&mut self, now: Now, seq: ReadSeq, sight: Option<Sight>, out: &mut Vec<Effect>) {
        let Some(Round { started, .. }) = self.look.outstanding.take_if(|r| r.seq == seq) else { return };
        let Some(sight) = sight else {
            self.look.failed();
            return;
        };
        let bound = self.config.timing.poll() * 2;
        self.look.take(started, now, sight.clone(), bound);
        // Before a lease is judged that it may have taken since.
        self.forget_the_risen(now, &sight);
        self.own_seen(now, seq, &sight, out);
        self.role_seen(now, seq, &sight.lease, out);
        self.runs_seen(now, seq, &sight, out);
    }

    /// A node proved dead whose slot shows a later incarnation, or another process, lives again. One that was lost is begun anew, too: what its life
    /// before said nothing is not held against this one.
    fn forget_the_risen(&mut self, now: Now, sight: &Sight) {
        self.dead.retain(|node, died| sight.slots.get(node).is_none_or(|slot| !died.has_risen(slot)));
        for (node, (life, since)) in &mut self.unheard {
            let shown = sight.slots.get(node).map(|slot| slot.incarnation);
            if shown > *life {
                (*life, *since) = (shown, now);
            }
        }
    }
}
