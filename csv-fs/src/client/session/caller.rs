//! Whoever waits for the session, and may be interrupted.
//!
//! A signal does not end a call that a coordinator is working on: the kernel does not say whether the signal kills, and
//! a program whose runtime uses signals would see EINTR from calls that never return it. It ends one that waits for a
//! coordinator, so that a process can be killed while there is none; also one that waits for what another caller here is to
//! get from it ([`Session::unless_given_up`]). Prevents: two processes read a file while there is no coordinator, one asks
//! for the layout and the other waits for that; it cannot be killed as long as the first one lives.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use tokio::sync::Notify;

use crate::core::client::{Binding, Event, Origin, Sweep, Ticket, changes};
use crate::proto::Request;
use crate::types::ClientId;

use super::{EINTR, EIO, Errno, Session};

/// One caller. Clones are the same caller.
#[derive(Clone, Debug, Default)]
pub struct Caller(Option<Arc<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    interrupted: Notify,
    /// Since when it waits, if not for as long as it takes.
    since: Option<Sweep>,
    /// The kernel's number of the request, and how many of its calls were asked that change something.
    unique: Option<u64>,
    asked: AtomicU32,
    /// Something of it was noted for the next process.
    noted: AtomicBool,
    /// In which life of its node it began, if that was looked at.
    life: OnceLock<ClientId>,
}

#[derive(Debug, Default)]
struct State {
    waits_for: Option<Ticket>,
    interrupted: bool,
}

/// Marks what a caller waits for, until dropped.
pub(crate) struct Waiting<'a>(&'a Caller);

impl Caller {
    /// One that cannot be interrupted, and waits for as long as it takes.
    pub fn patient() -> Caller {
        Caller(None)
    }

    /// One that can.
    pub fn interruptible() -> Caller {
        Caller(Some(Arc::default()))
    }

    /// A program's request, that began after this sweep: it can be interrupted, and waits for `io_timeout`.
    pub(crate) fn of_program(since: Sweep) -> Caller {
        Caller(Some(Arc::new(Shared { since: Some(since), ..Shared::default() })))
    }

    /// The same, of a request that the kernel sends again to the next process if this one is killed.
    pub(crate) fn of_request(unique: u64, since: Sweep) -> Caller {
        Caller(Some(Arc::new(Shared { since: Some(since), unique: Some(unique), ..Shared::default() })))
    }

    /// The same, and an interruption does not reach it.
    pub(crate) fn uninterrupted(&self) -> Caller {
        self.since().map_or_else(Caller::patient, Caller::of_program)
    }

    /// Which call of which request of the kernel is made now, if it changes or opens something.
    pub(crate) fn origin(&self, request: &Request) -> Option<Origin> {
        let shared = self.0.as_ref()?;
        let unique = shared.unique?;
        let nth = match request {
            // Opened once more, it is another handle.
            Request::Open { .. } => u32::MAX,
            request if changes(request) => shared.asked.fetch_add(1, Ordering::Relaxed),
            _ => return None,
        };
        shared.noted.store(true, Ordering::Relaxed);
        Some(Origin { unique, nth })
    }

    /// The kernel's number of its request; something of it is noted.
    pub(crate) fn notes(&self) -> Option<u64> {
        let shared = self.0.as_ref()?;
        shared.noted.store(true, Ordering::Relaxed);
        shared.unique
    }

    /// The kernel's number of its request, if anything of that was noted.
    pub(crate) fn noted(&self) -> Option<u64> {
        self.0.as_ref().filter(|shared| shared.noted.load(Ordering::Relaxed)).and_then(|shared| shared.unique)
    }

    /// Since when it waits; `None`: for as long as it takes.
    pub(crate) fn since(&self) -> Option<Sweep> {
        self.0.as_ref().and_then(|shared| shared.since)
    }

    /// It belongs to that life of its node, whatever it comes to. To be called before its handle is looked at: who is of the next life
    /// finds it poisoned if it is to be.
    ///
    /// Prevents: a handle is looked at and is well; its node is evicted, which poisons it, and begins its next life; only then it is
    /// looked at which life that is, and a file is cut through a handle whose lock is another's.
    pub(crate) fn begins_in(&self, life: ClientId) {
        if let Some(shared) = &self.0 {
            shared.life.get_or_init(|| life);
        }
    }

    /// Whether it was interrupted: it gets what it asked for all the same from a coordinator that has it, and waits for nothing new.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.state.lock().interrupted)
    }

    /// Interrupts what it waits for now, and whatever it waits for later.
    pub fn interrupt(&self, session: &Session) {
        let Some(shared) = &self.0 else { return };
        let ticket = {
            let mut state = shared.state.lock();
            state.interrupted = true;
            state.waits_for
        };
        shared.interrupted.notify_waiters();
        if let Some(ticket) = ticket {
            session.post(Event::Cancel { ticket });
        }
    }

    pub(crate) fn waits(&self, session: &Session, ticket: Ticket) -> Waiting<'_> {
        let interrupted = self.0.as_ref().is_some_and(|shared| {
            let mut state = shared.state.lock();
            state.waits_for = Some(ticket);
            state.interrupted
        });
        if interrupted {
            session.post(Event::Cancel { ticket });
        }
        Waiting(self)
    }

    /// Returns once it was interrupted and there is no coordinator.
    ///
    /// # Cancel safety
    /// Safe: may be dropped and called again.
    async fn given_up(&self, session: &Session) {
        let Some(shared) = &self.0 else { return std::future::pending().await };
        loop {
            let told = shared.interrupted.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            if shared.state.lock().interrupted {
                break;
            }
            told.await;
        }
        if session.binding().wait_for(|b| !matches!(b, Binding::Bound { .. })).await.is_err() {
            std::future::pending().await
        }
    }
}

impl Waiting<'_> {
    /// Whoever is told is not here: until the next call, an interruption cancels this one.
    pub(crate) fn for_good(self) {
        std::mem::forget(self);
    }
}

impl Session {
    /// The life to which what a caller asks for belongs: the one in which it began, or the present one.
    pub(crate) fn life_of(&self, caller: &Caller) -> ClientId {
        caller.0.as_ref().and_then(|shared| shared.life.get().copied()).unwrap_or_else(|| self.client())
    }

    /// Waits for what another caller of this node is to get from the coordinator; EINTR and EIO as for a call of its own.
    ///
    /// # Cancel safety
    /// That of `what`, which is dropped when the caller is let go.
    pub(crate) async fn unless_given_up<T>(&self, caller: &Caller, what: impl Future<Output = T>) -> Result<T, Errno> {
        tokio::select! {
            biased;
            done = what => Ok(done),
            () = caller.given_up(self) => Err(Errno(EINTR)),
            () = self.expires(caller) => Err(Errno(EIO)),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(shared) = &self.0.0 {
            shared.state.lock().waits_for = None;
        }
    }
}
