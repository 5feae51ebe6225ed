//! Tasks of a target: what is with the disk behind it, and how that is ended.
//!
//! A target looks at the reservation, gives the write to the disk, and can only wait then. PREEMPT AND ABORT takes **the registration
//! away first**; the tasks of that nexus end later, some of them executed; the answer comes last. Others read the keys meanwhile, and
//! find none. LOGICAL UNIT RESET ends the tasks of every nexus before it is answered.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use block::shared::NodeId;

use super::{Disk, Flight, Req, Res, Stage, take};
use crate::core::office::{FenceStep, ScsiResult};
use crate::core::rules::Rule;
use crate::sim::world::{MS, World};

/// An answer about reservations that takes longer is asked for over another nexus.
const ANSWER_WITHIN: u64 = 2000 * MS;
/// How often a target looks whether the tasks that it aborts have ended.
const LOOKS: u64 = 2 * MS;

/// Whose tasks are to end.
type Whose = BTreeSet<(NodeId, u16)>;

impl Disk {
    /// Whether something of this node is with the disk, and is executed whatever becomes of its key.
    pub(in crate::sim) fn has_behind(&self, n: NodeId) -> bool {
        self.flights.values().any(|f| f.node == n && matches!(f.stage, Stage::Taken) && f.req.is_data())
    }

    /// Whether the target is ending tasks for this node.
    pub(in crate::sim) fn ends_tasks_for(&self, n: NodeId) -> bool {
        self.flights.values().any(|f| f.node == n && matches!(f.stage, Stage::Taken) && !f.req.is_data())
    }
}

impl World {
    /// Whether a request that may pass is not executed at once: it stays with the disk for a while, or ends tasks first.
    pub(super) fn is_taken(&mut self, id: u64) -> bool {
        let Some(flight) = self.disk.flights.get(&id) else { return false };
        let n = flight.node;
        match &flight.req {
            Req::Write(_) | Req::MetaCommit { .. } => {
                let stays = self.stays_with_the_disk(n);
                if stays > 0 {
                    self.is_with_the_target(id);
                    self.after(stays, move |w| w.disk_executes(id));
                }
                stays > 0
            }
            Req::Scsi(FenceStep::PreemptAndAbort { victim }) => {
                let victim = *victim;
                let whose: Whose =
                    self.disk.lun.keys.iter().filter(|(_, k)| **k == victim).map(|(nexus, _)| *nexus).collect();
                self.disk.lun.keys.retain(|_, k| *k != victim);
                let found = !whose.is_empty();
                if found {
                    self.ends_tasks(id, whose);
                }
                found
            }
            Req::Scsi(FenceStep::ResetUnit) => {
                self.coverage.count("disk", "unit reset");
                let whose = self.disk.nexuses.keys().copied().collect();
                self.ends_tasks(id, whose);
                true
            }
            _ => false,
        }
    }

    fn stays_with_the_disk(&mut self, n: NodeId) -> u64 {
        if take(&mut self.disk.stick_behind, n) {
            let stays = self.disk.stick_for.unwrap_or_else(|| 300 * MS + self.rng.below(5000 * MS));
            self.coverage.count("disk", "stuck behind the target");
            self.trace(|| format!("a write of {n} sticks in the disk for {} ms", stays / MS));
            return stays;
        }
        if self.rng.permille(100) { self.rng.range(1, 3 * MS) } else { 0 }
    }

    fn is_with_the_target(&mut self, id: u64) {
        if let Some(flight) = self.disk.flights.get_mut(&id) {
            flight.stage = Stage::Taken;
        }
    }

    /// What was with the disk is executed, unless it was aborted before.
    fn disk_executes(&mut self, id: u64) {
        if self.disk.flights.get(&id).is_some_and(|f| matches!(f.stage, Stage::Taken)) {
            let res = self.execute(id);
            self.landed(id, res);
        }
    }

    /// A request ends the tasks of these nexuses, and is answered then. The target waits for the disk, or does not for long.
    fn ends_tasks(&mut self, id: u64, whose: Whose) {
        self.is_with_the_target(id);
        let waits = self.disk.stick_for.is_some() || self.rng.permille(500);
        let until = if waits { u64::MAX } else { self.now + self.rng.below(300 * MS) };
        if !self.with_the_disk(&whose).is_empty() {
            self.coverage.count("disk", "tasks are waited for");
        }
        self.tasks_end(id, whose, until);
    }

    fn with_the_disk(&self, whose: &Whose) -> Vec<u64> {
        let of = |f: &Flight| f.session.is_some_and(|(nexus, _)| whose.contains(&(f.node, nexus)));
        let there = |f: &Flight| matches!(f.stage, Stage::Taken) && f.req.is_data() && of(f);
        self.disk.flights.iter().filter(|(_, f)| there(f)).map(|(id, _)| *id).collect()
    }

    fn tasks_end(&mut self, id: u64, whose: Whose, until: u64) {
        let left = self.with_the_disk(&whose);
        if !left.is_empty() && self.now < until {
            return self.after(LOOKS, move |w| w.tasks_end(id, whose, until));
        }
        left.into_iter().for_each(|task| self.task_is_aborted(task));
        if self.disk.flights.get(&id).is_some_and(|f| matches!(f.stage, Stage::Taken)) {
            self.landed(id, Res::Scsi(ScsiResult::Done));
        }
    }

    /// It was not executed, and will not be. Whoever has lost its key begins anew; who has not sends it again.
    fn task_is_aborted(&mut self, id: u64) {
        self.coverage.count("disk", "task aborted");
        let Some(flight) = self.disk.flights.get(&id) else { return };
        let (n, nexus) = (flight.node, flight.session.map_or(0, |(nexus, _)| nexus));
        if !self.disk.lun.keys.contains_key(&(n, nexus)) {
            self.after(MS, move |w| w.nexus_conflicted(n, nexus));
            return self.landed(id, Res::Conflict);
        }
        self.proved_dead(id);
        self.disk.flights.remove(&id);
        self.check_proofs();
    }

    /// A step about reservations, as an initiator takes it: what is not answered in time is asked over another nexus as well, and
    /// **the first question stays**. Without the rule it is forgotten, and a conflict is settled by what the keys show: that nobody
    /// has that key any more is taken for having done it.
    pub(in crate::sim) fn asks_unit(
        &mut self,
        n: NodeId,
        step: FenceStep,
        told: impl FnOnce(&mut World, ScsiResult) + 'static,
    ) {
        let result = |res: Res| match res {
            Res::Scsi(result) => result,
            Res::Conflict => ScsiResult::Conflict,
            _ => ScsiResult::Failed,
        };
        let FenceStep::PreemptAndAbort { .. } = step else {
            return self.submit(n, Req::Scsi(step), move |w, res| told(w, result(res)));
        };
        let rule = self.setup.rules.has(Rule::AnsweredPreempt);
        let asked = Rc::new(RefCell::new(Asked { out: 1, lost: false, told: Some(Box::new(told)) }));
        let first = Rc::clone(&asked);
        self.submit(n, Req::Scsi(step), move |w, res| answered(w, &first, result(res), rule));
        let over = self.disk.flights.get(&self.disk.last).and_then(|f| f.session).map(|(nexus, _)| nexus);
        self.at_node(n, ANSWER_WITHIN, move |w| {
            if asked.borrow().told.is_none() || w.nexus_numbers(n).len() < 2 {
                return;
            }
            w.coverage.count("disk", "asked over another nexus");
            asked.borrow_mut().out += 1;
            w.submit_but_over(n, (None, over), Req::Scsi(step), move |w, res| answered(w, &asked, result(res), rule));
        });
    }
}

type Told = Box<dyn FnOnce(&mut World, ScsiResult)>;

/// One PREEMPT AND ABORT, over as many nexuses as it was sent.
struct Asked {
    out: u32,
    /// One of them was lost: it may have been executed, and nobody knows whether the tasks have ended.
    lost: bool,
    told: Option<Told>,
}

fn answered(w: &mut World, asked: &Rc<RefCell<Asked>>, result: ScsiResult, rule: bool) {
    let told = {
        let mut asked = asked.borrow_mut();
        asked.out -= 1;
        asked.lost |= result == ScsiResult::Failed;
        let (out, lost) = (asked.out, asked.lost);
        let result = match result {
            ScsiResult::Conflict if !rule => ScsiResult::Done,
            ScsiResult::Conflict if lost => ScsiResult::Failed,
            other => other,
        };
        if result != ScsiResult::Done && out > 0 {
            return;
        }
        asked.told.take().map(|told| (told, result))
    };
    if let Some((told, result)) = told {
        told(w, result);
    }
}
