//! Whoever waits for the session, and may be interrupted.
//!
//! A signal does not end a call that a coordinator is working on: the kernel does not say whether the signal kills, and
//! a program whose runtime uses signals would see EINTR from calls that never return it. It ends one that waits for a
//! coordinator, so that a process can be killed while there is none.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::core::client::{Event, Ticket};

use super::Session;

/// One caller. Clones are the same caller.
#[derive(Clone, Debug, Default)]
pub struct Caller(Option<Arc<Mutex<State>>>);

#[derive(Debug, Default)]
struct State {
    waits_for: Option<Ticket>,
    interrupted: bool,
}

/// Marks what a caller waits for, until dropped.
pub(crate) struct Waiting<'a>(&'a Caller);

impl Caller {
    /// One that cannot be interrupted.
    pub fn patient() -> Caller {
        Caller(None)
    }

    /// One that can.
    pub fn interruptible() -> Caller {
        Caller(Some(Arc::default()))
    }

    /// Interrupts what it waits for now, and whatever it waits for later.
    pub fn interrupt(&self, session: &Session) {
        let Some(state) = &self.0 else { return };
        let ticket = {
            let mut state = state.lock();
            state.interrupted = true;
            state.waits_for
        };
        if let Some(ticket) = ticket {
            session.post(Event::Cancel { ticket });
        }
    }

    pub(crate) fn waits(&self, session: &Session, ticket: Ticket) -> Waiting<'_> {
        let interrupted = self.0.as_ref().is_some_and(|state| {
            let mut state = state.lock();
            state.waits_for = Some(ticket);
            state.interrupted
        });
        if interrupted {
            session.post(Event::Cancel { ticket });
        }
        Waiting(self)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(state) = &self.0.0 {
            state.lock().waits_for = None;
        }
    }
}
