//! Random faults from a seed: the same requests in the same order meet the same faults.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::device::{BlockDevice, Completion, Done, Geometry, Io};
use crate::error::{IoError, IoErrorKind};
use crate::rng::Rng;

/// How often which fault happens, each in one of 1000 requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// Answered with `Medium`, unexecuted.
    pub refused: u16,
    /// Executed, then answered with `TimedOut`.
    pub answer_lost: u16,
    /// Held unexecuted until between 1 and `hold_for` further requests have come.
    pub held: u16,
    /// See `held`.
    pub hold_for: u32,
}

/// A device with random faults. Deterministic as long as one thread submits.
pub struct SeededFaults {
    device: Arc<dyn BlockDevice>,
    plan: FaultPlan,
    state: Mutex<State>,
}

struct State {
    rng: Rng,
    submitted: u64,
    /// With the number of the request before which each is let go.
    held: VecDeque<(u64, Io)>,
}

impl SeededFaults {
    /// Faults of `plan`, drawn from `seed`, in front of `device`.
    pub fn new(device: Arc<dyn BlockDevice>, plan: FaultPlan, seed: u64) -> Arc<SeededFaults> {
        let state = State { rng: Rng::new(seed), submitted: 0, held: VecDeque::new() };
        Arc::new(SeededFaults { device, plan, state: Mutex::new(state) })
    }

    /// Executes everything held.
    pub fn release_all(&self) {
        let held = std::mem::take(&mut self.state.lock().held);
        held.into_iter().for_each(|(_, io)| self.device.submit(io));
    }

    /// Requests held at the moment.
    pub fn held(&self) -> usize {
        self.state.lock().held.len()
    }
}

enum Fate {
    Pass,
    Refuse,
    LoseAnswer,
}

impl State {
    /// Decides about one request; takes it if it is to be held.
    fn decide(&mut self, plan: &FaultPlan, io: Io) -> Option<(Io, Fate)> {
        if self.rng.per_mille(plan.refused) {
            return Some((io, Fate::Refuse));
        }
        if self.rng.per_mille(plan.answer_lost) {
            return Some((io, Fate::LoseAnswer));
        }
        if self.rng.per_mille(plan.held) {
            let until = self.submitted + 1 + self.rng.below(u64::from(plan.hold_for));
            self.held.push_back((until, io));
            return None;
        }
        Some((io, Fate::Pass))
    }

    fn take_due(&mut self) -> Vec<Io> {
        let now = self.submitted;
        let (due, later) = std::mem::take(&mut self.held).into_iter().partition(|(until, _)| *until <= now);
        self.held = later;
        let due: VecDeque<(u64, Io)> = due;
        due.into_iter().map(|(_, io)| io).collect()
    }
}

impl BlockDevice for SeededFaults {
    fn geometry(&self) -> Geometry {
        self.device.geometry()
    }

    fn submit(&self, io: Io) {
        let (due, decided) = {
            let mut state = self.state.lock();
            state.submitted += 1;
            (state.take_due(), state.decide(&self.plan, io))
        };
        due.into_iter().for_each(|io| self.device.submit(io));
        match decided {
            None => {}
            Some((io, Fate::Pass)) => self.device.submit(io),
            Some((io, Fate::Refuse)) => io.fail(IoErrorKind::Medium),
            Some((io, Fate::LoseAnswer)) => self.device.submit(losing_its_answer(io)),
        }
    }

    fn describe(&self) -> String {
        format!("{} with seeded faults", self.device.describe())
    }

    fn losses(&self) -> u64 {
        self.device.losses()
    }
}

fn losing_its_answer(io: Io) -> Io {
    let Io { op, at, len, buf, done: to } = io;
    let done = Completion::new(move |done: Done| {
        let error = IoError::new(IoErrorKind::TimedOut, op, at, len);
        to.complete(Done { result: Err(error), buf: done.buf });
    });
    Io { op, at, len, buf, done }
}

impl Drop for SeededFaults {
    fn drop(&mut self) {
        for (_, io) in self.state.lock().held.drain(..) {
            io.fail(IoErrorKind::ShuttingDown);
        }
    }
}
