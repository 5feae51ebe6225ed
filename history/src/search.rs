//! The search for an order of calls that agrees with time and that a model takes (Wing and Gong; just in time, after Lowe,
//! *Testing for linearizability*, 2017).
//!
//! Walks through the starts and ends in time. What is remembered is every *configuration* that is possible so far: a state of the
//! model, and which of the pending calls have taken effect in it. When a call ends, every configuration in which it has not taken
//! effect is extended by pending calls until it has; one that cannot be is dropped. Two ways to the same configuration are one. A
//! call that need not have taken effect never drops any: at its end it has, or it never will. Nothing left: there is no order.
//!
//! Each configuration that is dropped, and only those, contradicts the model; so the answer is exact, in time that grows with the
//! calls, and exponentially only with those that are pending at once.

use std::collections::BTreeSet;

use crate::event::{Event, NEVER};

/// Configurations at one moment beyond which no answer is given. Some dozens are usual.
const CONFIGURATIONS: usize = 200_000;
/// Calls that are pending at once.
const PENDING: usize = 64;

/// An object that does one thing after the other.
pub trait Model {
    /// What it is in.
    type State: Clone + Ord;

    /// The states that there may be after a call that took effect and came to what it came to; none if that cannot be. Of a call
    /// without an answer any effect that it can have.
    fn step(&self, state: &Self::State, event: &Event) -> Vec<Self::State>;
}

/// What was found.
#[derive(Clone, PartialEq, Debug)]
pub enum Found<'a, S> {
    /// There is an order.
    Order,
    /// When this call ended there was none any more; before, these states were possible.
    None(&'a Event, Vec<S>),
    /// There were too many possibilities at the end of this call.
    TooMany(&'a Event),
}

type Configuration<S> = (S, u64);

struct Search<'a, M: Model> {
    model: &'a M,
    /// Calls that have begun and not ended, each at its bit.
    pending: Vec<Option<&'a Event>>,
    possible: BTreeSet<Configuration<M::State>>,
}

/// Searches for an order of calls.
pub fn search<'a, M: Model>(model: &M, initial: M::State, events: &[&'a Event]) -> Found<'a, M::State> {
    let mut points: Vec<(i64, bool, usize)> = Vec::new();
    for (i, event) in events.iter().enumerate() {
        points.push((event.start, false, i));
        if event.end != NEVER {
            points.push((event.end, true, i));
        }
    }
    // Of one moment the starts come first: such calls overlap.
    points.sort_unstable();
    let mut search = Search { model, pending: vec![None; PENDING], possible: BTreeSet::from([(initial, 0)]) };
    for (_, is_end, i) in points {
        let event = events[i];
        if !is_end {
            let Some(free) = search.pending.iter_mut().find(|p| p.is_none()) else { return Found::TooMany(event) };
            *free = Some(event);
            continue;
        }
        match search.end(event) {
            None => return Found::TooMany(event),
            Some(possible) if possible.is_empty() => {
                let states: BTreeSet<M::State> = search.possible.into_iter().map(|(state, _)| state).collect();
                return Found::None(event, states.into_iter().collect());
            }
            Some(possible) => search.possible = possible,
        }
    }
    Found::Order
}

impl<M: Model> Search<'_, M> {
    /// What is possible once a call has ended; none if that is too much.
    fn end(&mut self, event: &Event) -> Option<BTreeSet<Configuration<M::State>>> {
        let at = self.pending.iter().position(|p| p.is_some_and(|p| std::ptr::eq(p, event)))?;
        let bit = 1_u64 << at;
        let mut after = BTreeSet::new();
        let mut seen = self.possible.clone();
        let mut left: Vec<Configuration<M::State>> = self.possible.iter().cloned().collect();
        if !event.must() {
            // It may never take effect: nothing is extended, but for what takes effect together with it.
            after.extend(self.possible.iter().filter(|(_, done)| done & bit == 0).cloned());
        }
        while let Some((state, done)) = left.pop() {
            if done & bit != 0 {
                after.insert((state, done & !bit));
                continue;
            }
            for (i, pending) in self.pending.iter().enumerate() {
                let Some(pending) = pending.filter(|_| done & (1 << i) == 0) else { continue };
                for state in self.model.step(&state, pending) {
                    let next = (state, done | 1 << i);
                    if seen.insert(next.clone()) {
                        left.push(next);
                    }
                }
            }
            if seen.len() > CONFIGURATIONS {
                return None;
            }
        }
        if !after.is_empty() {
            self.pending[at] = None;
        }
        Some(after)
    }
}
