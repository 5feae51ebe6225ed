//! `io_timeout` in the shell: requests of programs carry the number of the sweep after which they began, and a sweep says
//! to the core whose time is over. What may be done then is the core's to decide ([`crate::core::client`], `expiry`).
//!
//! No request has a timer, and none reads a clock for this: a sweep is made a few times in `io_timeout`, over what waits.
//! Whoever waits here, for another request of this node, has nothing under way and looks for himself at each sweep.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::client::counters::add;
use crate::client::link::ClientEvent;
use crate::core::client::{Event, IoId, Overdue, Sweep, Ticket};

use super::{Caller, EIO, Errno, Inner, Input, Session};

impl Session {
    /// The last sweep: since when a request that comes now waits.
    pub(crate) fn sweep_now(&self) -> Sweep {
        Sweep(self.sweeps.load(Ordering::Relaxed))
    }

    /// Since when something waits that is so old.
    pub(crate) fn sweep_before(&self, age: Duration) -> Sweep {
        let now = self.sweep_now();
        self.patience.map_or(now, |p| p.began(now, age))
    }

    /// How often to sweep; `None` if nobody's time is ever over.
    pub(crate) fn sweeps_every(&self) -> Option<Duration> {
        self.patience.map(|p| p.every())
    }

    /// Whether a request's time is over.
    pub(crate) fn is_over(&self, since: Option<Sweep>) -> bool {
        self.patience.zip(since).is_some_and(|(patience, since)| patience.is_over(since, self.sweep_now()))
    }

    /// One sweep; `at_disk` writes have waited long enough, and the disk has them.
    pub(crate) fn sweep(&self, at_disk: u64) {
        let Some(patience) = self.patience else { return };
        let now = Sweep(self.sweeps.fetch_add(1, Ordering::Relaxed) + 1);
        self.swept.notify_waiters();
        self.put(Input::Sweep);
        // If somebody else is at the core, the next sweep shows what this one came to.
        let overdue = Overdue { at_disk, ..self.look(crate::core::client::Client::waits_longer) };
        let (waits, ended) = {
            let mut told = self.told_of_expiry.lock();
            told.overdue = overdue;
            let ended = std::mem::take(&mut told.ended);
            told.story.sweep(patience, now, overdue, ended)
        };
        if let Some(overdue) = waits {
            self.emit(ClientEvent::IoOverdue { overdue });
        }
        if let Some(requests) = ended {
            self.emit(ClientEvent::IoTimeout { requests });
        }
    }

    /// What has waited for `io_timeout` and may still be executed.
    pub fn waits_longer(&self) -> Overdue {
        self.told_of_expiry.lock().overdue
    }

    /// A request of a program got EIO for its age.
    pub(crate) fn timed_out(&self) {
        add(&self.counters.timed_out, 1);
        self.told_of_expiry.lock().ended += 1;
    }

    /// Waits for something on this node that has nothing under way for this caller; EIO once its time is over.
    ///
    /// # Cancel safety
    /// That of `what`, which is dropped when the caller is let go.
    pub(crate) async fn unless_expired<T>(&self, caller: &Caller, what: impl Future<Output = T>) -> Result<T, Errno> {
        tokio::select! {
            biased;
            done = what => Ok(done),
            () = self.expires(caller) => Err(Errno(EIO)),
        }
    }

    /// Returns once a caller's time is over.
    ///
    /// # Cancel safety
    /// Safe: may be dropped and called again.
    pub(super) async fn expires(&self, caller: &Caller) {
        let since = caller.since();
        if since.is_none() || self.patience.is_none() {
            return std::future::pending().await;
        }
        loop {
            let swept = self.swept.notified();
            tokio::pin!(swept);
            // Registered before looking: a sweep in between wakes this.
            swept.as_mut().enable();
            if self.is_over(since) {
                return self.timed_out();
            }
            swept.await;
        }
    }

    /// Whose time is over, of those that the core is asked for.
    pub(super) fn whose_time_is_over(&self, inner: &Inner) -> Event {
        let mut calls: Vec<Ticket> =
            inner.waiters.iter().filter(|(_, w)| self.is_over(w.since)).map(|(ticket, _)| *ticket).collect();
        let waits = |io: &super::Io| io.waiter.is_some() && self.is_over(io.since);
        let mut ios: Vec<IoId> = inner.io.iter().filter(|(_, io)| waits(io)).map(|(io, _)| *io).collect();
        // In the order in which they came: what one lets go may be what the next waits for.
        calls.sort_unstable();
        ios.sort_unstable();
        Event::Expired { calls, ios }
    }
}
