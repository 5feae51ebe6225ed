//! The thread that lets delayed requests go when their time has come. Started by the first delay.

use std::sync::{Arc, Weak};
use std::thread;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::core::Core;

#[derive(Default)]
pub(super) struct Timer {
    signal: Arc<Signal>,
}

#[derive(Default)]
struct Signal {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    started: bool,
    stopped: bool,
    /// The queue has changed since the thread last looked.
    changed: bool,
}

impl Timer {
    pub(super) fn start(&self, core: &Arc<Core>) {
        let mut state = self.signal.state.lock();
        if state.started {
            return;
        }
        let (weak, signal) = (Arc::downgrade(core), Arc::clone(&self.signal));
        let spawned = thread::Builder::new().name("fault-timer".into()).spawn(move || serve(&weak, &signal));
        match spawned {
            Ok(_) => state.started = true,
            Err(error) => tracing::error!("delayed requests stay held until heal, no thread starts: {error}"),
        }
    }

    pub(super) fn changed(&self) {
        self.signal.state.lock().changed = true;
        self.signal.wake.notify_one();
    }

    pub(super) fn stop(&self) {
        self.signal.state.lock().stopped = true;
        self.signal.wake.notify_one();
    }
}

fn serve(core: &Weak<Core>, signal: &Signal) {
    loop {
        let next: Option<Instant> = match core.upgrade() {
            Some(core) => core.release_due(),
            None => return,
        };
        let mut state = signal.state.lock();
        if !state.changed && !state.stopped {
            match next {
                Some(next) => drop(signal.wake.wait_until(&mut state, next)),
                None => signal.wake.wait(&mut state),
            }
        }
        if state.stopped {
            return;
        }
        state.changed = false;
    }
}
