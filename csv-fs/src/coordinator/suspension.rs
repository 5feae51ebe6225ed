//! Whether changes of metadata are held back, for one reign from its first moment on.
//!
//! It is made with the reign, before the store is open, and the coordinator takes it over when there is one. Prevents: office is
//! taken, the disk stalls while the store is being opened, and the lease is not renewed in time; the office suspends a
//! coordinator that is not there yet, and when the store is open it commits although it is suspended.
//!
//! Opening the store itself goes on: what it writes is kept harmless by the latch, as every write is. Suspending limits what
//! has to be waited for; safety does not need it.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::actor::StoreItem;
use super::queue::Queue;

#[derive(Debug, Default)]
struct State {
    suspended: bool,
    writes: Weak<Queue<StoreItem>>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Suspension(Mutex<State>);

impl Suspension {
    /// Of a reign that begins: nothing is held back.
    pub fn new() -> Suspension {
        Suspension::default()
    }

    /// Holds changes back, or lets them go on. What waits for one waits longer; nothing is refused.
    pub fn set(&self, suspended: bool) {
        // Held while telling: two who change it tell in the order in which they did.
        let mut state = self.0.lock();
        state.suspended = suspended;
        if let Some(writes) = state.writes.upgrade() {
            writes.hold(suspended);
        }
    }

    /// From now on this queue is held.
    pub(super) fn applies_to(&self, writes: &Arc<Queue<StoreItem>>) {
        let mut state = self.0.lock();
        state.writes = Arc::downgrade(writes);
        writes.hold(state.suspended);
    }
}
