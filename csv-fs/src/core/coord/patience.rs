//! How long the coordinator waits for a client to give something back, and how often it asks again.
//!
//! The deadline is *without progress*: a commit on the file moves it. An answer `Draining` moves it too, as the route
//! of that client cannot flush faster than its path times out, but only up to a bound counted from the first such
//! answer (the time-out of a path and one fence), so that a path that hangs for ever does not hold up everybody else.

use std::time::Duration;

use super::event::CallbackId;
use crate::core::time::Now;

/// The times the coordinator works with; from the volume's timing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// A recall or a sync without progress for so long ends in an eviction.
    pub recall: Duration,
    /// Grace ends at the latest after this, for those who have not come.
    pub grace: Duration,
    /// A path that answers nothing for so long counts as lost.
    pub path_timeout: Duration,
    /// What a fence may take; with `path_timeout` it bounds how long `Draining` counts as progress.
    pub fence: Duration,
}

impl Limits {
    /// How often a client that was asked is asked again.
    pub(super) fn ask_again(&self) -> Duration {
        (self.recall / 8).clamp(Duration::from_millis(50), Duration::from_millis(500))
    }

    /// How long a client may be without a connection while it keeps a file from being freed.
    pub(super) fn absence(&self) -> Duration {
        self.recall * 3
    }

    /// How long a request may wait for space: for who does not answer, and for the fence that ends it.
    pub(super) fn space(&self) -> Duration {
        self.recall + self.fence
    }
}

/// The pause before a fence that failed is tried again.
pub(super) const FENCE_AGAIN: Duration = Duration::from_secs(1);

/// One thing that is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Patience {
    deadline: Now,
    draining_since: Option<Now>,
    asked_at: Now,
    /// The callback that is unanswered, if any.
    pub(super) asked: Option<CallbackId>,
}

impl Patience {
    /// Asked just now.
    pub(super) fn new(now: Now, limits: &Limits) -> Patience {
        Patience { deadline: now + limits.recall, draining_since: None, asked_at: now, asked: None }
    }

    /// No deadline: the client is being evicted anyway.
    pub(super) fn endless() -> Patience {
        Patience { deadline: Now(u64::MAX), draining_since: None, asked_at: Now(u64::MAX), asked: None }
    }

    /// The client moved.
    pub(super) fn progress(&mut self, now: Now, limits: &Limits) {
        self.deadline = self.deadline.max(now + limits.recall);
    }

    /// The client says that its route is draining.
    pub(super) fn draining(&mut self, now: Now, limits: &Limits) {
        let since = *self.draining_since.get_or_insert(now);
        let bound = since + limits.path_timeout + limits.fence;
        self.deadline = self.deadline.max((now + limits.recall).min(bound));
    }

    /// It is over then at the earliest.
    pub(super) fn not_before(&mut self, until: Now) {
        self.deadline = self.deadline.max(until);
    }

    /// A callback went out, or could not.
    pub(super) fn ask(&mut self, now: Now, callback: Option<CallbackId>) {
        self.asked_at = now;
        self.asked = callback;
    }

    /// Whether it is time to ask again; an answer that is outstanding is waited for.
    pub(super) fn asks_again(&self, now: Now, limits: &Limits) -> bool {
        self.asked.is_none() && now >= self.asked_at + limits.ask_again()
    }

    /// Whether it is over.
    pub(super) fn is_over(&self, now: Now) -> bool {
        now >= self.deadline
    }

    /// When to look again.
    pub(super) fn next(&self, limits: &Limits) -> Now {
        match self.asked {
            None => self.deadline.min(self.asked_at + limits.ask_again()),
            Some(_) => self.deadline,
        }
    }
}
