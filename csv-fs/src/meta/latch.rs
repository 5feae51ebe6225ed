//! The epoch latch: the one switch between "this node writes metadata" and "it never will again in this epoch".
//!
//! ```text
//!   armed ── trip() ──► tripped (for ever; the next reign makes a new latch)
//! ```
//! Every write and sync of the store's backend enters the latch first and stays inside until the device has answered.
//! So after [`Latch::trip`] no metadata request begins, and [`Latch::wait_quiet`] returns once none is under way:
//! only then may a resignation be written. Tripping never blocks; it is called by whoever first knows (the office, a
//! receiver of a higher epoch, a failed device).

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// The latch of one reign.
#[derive(Debug, Default)]
pub struct Latch {
    state: Mutex<State>,
    quiet: Condvar,
}

#[derive(Debug, Default)]
struct State {
    tripped: bool,
    inside: usize,
}

/// One request inside the latch.
#[derive(Debug)]
pub(super) struct Inside<'a>(&'a Latch);

impl Latch {
    /// An armed latch.
    pub fn new() -> Latch {
        Latch::default()
    }

    /// No metadata write begins after this returns.
    pub fn trip(&self) {
        self.state.lock().tripped = true;
    }

    /// Whether it was tripped.
    pub fn is_tripped(&self) -> bool {
        self.state.lock().tripped
    }

    /// Device requests of the store that are under way.
    pub fn in_flight(&self) -> usize {
        self.state.lock().inside
    }

    /// Waits until no request of the store is under way; false if that took longer than `limit`. Blocks its thread:
    /// not for workers.
    pub fn wait_quiet(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let mut state = self.state.lock();
        while state.inside > 0 {
            if self.quiet.wait_until(&mut state, end).timed_out() {
                return state.inside == 0;
            }
        }
        true
    }

    /// Enters, unless it was tripped.
    pub(super) fn enter(&self) -> Option<Inside<'_>> {
        let mut state = self.state.lock();
        if state.tripped {
            return None;
        }
        state.inside += 1;
        Some(Inside(self))
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.inside -= 1;
        if state.inside == 0 {
            self.0.quiet.notify_all();
        }
    }
}
