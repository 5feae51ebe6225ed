//! A queue between the coordinator and its threads. Pushing never waits: what is in it is bounded by the request
//! slots of all sessions (64 nodes with 72 slots each) and a handful of the coordinator's own steps.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

/// More than the slots of all sessions together could ever put in; beyond it somebody does not keep to the slots.
const LIMIT: usize = 64 * 72 + 1024;

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    held: bool,
    closed: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Queue<T> {
        Queue {
            state: Mutex::new(State { items: VecDeque::new(), held: false, closed: false }),
            filled: Condvar::new(),
        }
    }

    /// Puts one in; false if the queue is closed.
    pub(super) fn push(&self, item: T) -> bool {
        let mut state = self.state.lock();
        if state.closed {
            return false;
        }
        debug_assert!(state.items.len() < LIMIT, "more work than there are request slots");
        state.items.push_back(item);
        self.filled.notify_one();
        true
    }

    /// Waits until there is something, then takes at most `max` in order. `None` once it is closed and empty.
    pub(super) fn take(&self, max: usize) -> Option<Vec<T>> {
        let mut state = self.state.lock();
        while !state.closed && (state.held || state.items.is_empty()) {
            self.filled.wait(&mut state);
        }
        if state.items.is_empty() {
            return None;
        }
        let n = state.items.len().min(max);
        Some(state.items.drain(..n).collect())
    }

    /// Nothing is taken while it is held; closing ends that.
    pub(super) fn hold(&self, held: bool) {
        self.state.lock().held = held;
        self.filled.notify_all();
    }

    /// Whether nothing can be put in any more.
    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Nothing can be put in any more; what is in it can still be taken.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_all();
    }
}
