//! The definition itself, for tests: a search through every order of a small history.

use crate::event::{Event, Nanos, Op, Outcome};

/// Random histories of a test.
pub(crate) const SEEDS: u64 = 20_000;

/// A call on the object `x`; odd processes are on node 1, even ones on node 2.
pub(crate) fn call(process: u32, start: Nanos, end: Nanos, op: Op, outcome: Outcome) -> Event {
    let node = if process % 2 == 1 { 1 } else { 2 };
    Event { process, node, object: "x".to_owned(), op, start, end, outcome }
}

/// Whether some order of the calls, with or without each that need not have taken effect, agrees with time and is taken by `step`.
pub(crate) fn any_order<S: Clone>(events: &[Event], state: &S, step: &impl Fn(&S, &Event) -> Vec<S>) -> bool {
    let left: Vec<&Event> = events.iter().collect();
    extend(&left, state, step)
}

fn extend<S: Clone>(left: &[&Event], state: &S, step: &impl Fn(&S, &Event) -> Vec<S>) -> bool {
    if left.iter().all(|e| !e.must()) {
        return true;
    }
    (0..left.len()).any(|at| {
        // What comes next in the order is not after anything that is still to come and must come.
        let next = left[at];
        let rest: Vec<&Event> = left.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, e)| *e).collect();
        if rest.iter().any(|e| e.must() && e.is_before(next)) {
            return false;
        }
        // What need not come and was over before is not coming any more.
        let rest: Vec<&Event> = rest.into_iter().filter(|e| e.must() || !e.is_before(next)).collect();
        step(state, next).iter().any(|state| extend(&rest, state, step))
            || (!next.must() && extend(&rest_of(left, at), state, step))
    })
}

fn rest_of<'a>(left: &[&'a Event], at: usize) -> Vec<&'a Event> {
    left.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, e)| *e).collect()
}

/// Reproducible chance for a test.
pub(crate) struct Chance(crate::worker::Chance);

impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        Chance(crate::worker::Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0.below(n)
    }

    /// A start and an end within a short time, so that many calls meet.
    pub(crate) fn interval(&mut self) -> (Nanos, Nanos) {
        let start = self.below(24) as Nanos;
        (start, start + 1 + self.below(10) as Nanos)
    }
}
