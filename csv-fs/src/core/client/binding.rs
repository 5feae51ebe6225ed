//! Finding the coordinator and binding to it.
//!
//! ```text
//!   Seeking ── a hint ──► Binding ── Bound ──► Bound ── link lost, stale, newer epoch heard ──► Seeking
//!                            │ failed, not coordinator, busy: back to Seeking, 50 ms doubling to 1 s; at once when its node can be reached again
//!                            └── Evicted (ends with Reborn)
//! ```
//! - Every attempt has a new, higher bind number. The coordinator answers BIND only after everything of lower binds
//!   has been cancelled or completed, and nothing unanswered is sent again before that answer (rule
//!   `ResendAfterBind`). Prevents: a redirected write still queued on the broken connection is executed after its own
//!   resend, and after a newer write to the same block.
//! - Bind numbers go on from one incarnation to the next: what still comes for an old one is known by its number.
//! - A client never goes back to a lower epoch. Prevents: an old coordinator that does not know yet that it was fenced
//!   answers from what it remembers.
#![expect(missing_docs, reason = "the sentence of a variant names its fields")]

use std::time::Duration;

use block::shared::{Epoch, NodeId};

use crate::core::time::Now;
use crate::proto::CoordinatorHint;
use crate::types::Bind;

/// The first pause between attempts.
const RETRY_MIN: Duration = Duration::from_millis(50);
/// The longest pause between attempts.
const RETRY_MAX: Duration = Duration::from_secs(1);
/// A bind that is unanswered for this long is given up: the peer may hang in a way no connection notices.
const BIND_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the binding stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Binding {
    /// Nobody to talk to; the next attempt is at `next`.
    Seeking { next: Now },
    /// BIND was sent.
    Binding { to: CoordinatorHint, bind: Bind, since: Now },
    /// Bound.
    Bound { to: CoordinatorHint, bind: Bind },
    /// The incarnation has ended.
    Evicted { reason: String },
}

/// The binding and what is known about where to find a coordinator.
#[derive(Debug)]
pub(super) struct Binder {
    pub(super) state: Binding,
    /// The number of the last attempt.
    pub(super) last: Bind,
    /// The best hint heard.
    hint: Option<CoordinatorHint>,
    /// The hint that was tried last and did not lead to a binding: not tried again before the pause is over.
    failed: Option<CoordinatorHint>,
    /// The highest epoch this client was ever bound to.
    floor: Epoch,
    pause: Duration,
}

/// What to do next about the binding.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Step {
    /// Ask who coordinates: nobody is known, or who is known did not do.
    pub(super) ask: bool,
    /// Try this one under this number.
    pub(super) attempt: Option<(CoordinatorHint, Bind)>,
}

impl Binder {
    pub(super) fn new(now: Now) -> Binder {
        Binder {
            state: Binding::Seeking { next: now },
            last: Bind(0),
            hint: None,
            failed: None,
            floor: Epoch(0),
            pause: RETRY_MIN,
        }
    }

    pub(super) fn bound(&self) -> Option<Bind> {
        match self.state {
            Binding::Bound { bind, .. } => Some(bind),
            _ => None,
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.floor
    }

    /// Takes a hint; `true` if the present binding is to an older reign and must be given up.
    pub(super) fn heard(&mut self, hint: CoordinatorHint) -> bool {
        if hint.epoch < self.floor || self.hint.as_ref().is_some_and(|h| h.epoch > hint.epoch) {
            return false;
        }
        self.hint = Some(hint.clone());
        match &self.state {
            Binding::Bound { to, .. } | Binding::Binding { to, .. } => hint.epoch > to.epoch,
            _ => false,
        }
    }

    /// A node can be reached again. If the coordinator is there, it is tried at once.
    ///
    /// Prevents: the network of a node was cut for most of the time that a recall is waited for. It is whole again, and the node, which
    /// pauses between its attempts, is evicted in its pause.
    pub(super) fn reachable(&mut self, now: Now, node: NodeId) {
        if let (Binding::Seeking { next }, Some(hint)) = (&mut self.state, &self.hint)
            && hint.node == node
        {
            *next = now;
            (self.failed, self.pause) = (None, RETRY_MIN);
        }
    }

    /// The binding, made or attempted, is over. `at_once`: there is reason to think that the next attempt succeeds.
    pub(super) fn lose(&mut self, now: Now, at_once: bool) {
        let tried = match &self.state {
            Binding::Bound { to, .. } | Binding::Binding { to, .. } => Some(to.clone()),
            _ => None,
        };
        self.failed = if at_once { None } else { tried };
        self.state = Binding::Seeking { next: if at_once { now } else { now + self.pause } };
        if !at_once {
            self.pause = (self.pause * 2).min(RETRY_MAX);
        }
    }

    /// Whether an answer to this number is still awaited; then whom it was sent to.
    pub(super) fn awaited(&self, bind: Bind) -> Option<&CoordinatorHint> {
        match &self.state {
            Binding::Binding { to, bind: b, .. } if *b == bind => Some(to),
            _ => None,
        }
    }

    /// The coordinator has said yes; `false` if its epoch lies below one this client was bound to.
    pub(super) fn accepted(&mut self, bind: Bind, epoch: Epoch) -> bool {
        let Some(to) = self.awaited(bind).cloned() else { return false };
        if epoch < self.floor {
            return false;
        }
        let to = CoordinatorHint { epoch, ..to };
        self.floor = epoch;
        self.hint = Some(to.clone());
        self.failed = None;
        self.pause = RETRY_MIN;
        self.state = Binding::Bound { to, bind };
        true
    }

    /// Moves on if it is time to. Called at the end of every event.
    pub(super) fn step(&mut self, now: Now) -> Step {
        match &self.state {
            Binding::Binding { since, .. } if now.since(*since) >= BIND_TIMEOUT => {
                self.lose(now, false);
                Step::default()
            }
            Binding::Seeking { next } => {
                let due = now >= *next;
                match self.hint.clone() {
                    // A hint that was not tried yet needs no pause. One that failed is tried again, but others are
                    // asked too: its node may be dead.
                    Some(hint) if due || self.failed.as_ref() != Some(&hint) => {
                        let ask = self.failed.as_ref() == Some(&hint);
                        Step { ask, attempt: Some(self.attempt(now, hint)) }
                    }
                    _ if due => {
                        self.state = Binding::Seeking { next: now + self.pause };
                        self.pause = (self.pause * 2).min(RETRY_MAX);
                        Step { ask: true, attempt: None }
                    }
                    _ => Step::default(),
                }
            }
            _ => Step::default(),
        }
    }

    fn attempt(&mut self, now: Now, to: CoordinatorHint) -> (CoordinatorHint, Bind) {
        self.last = Bind(self.last.0 + 1);
        self.state = Binding::Binding { to: to.clone(), bind: self.last, since: now };
        (to, self.last)
    }

    pub(super) fn deadline(&self) -> Option<Now> {
        match &self.state {
            Binding::Seeking { next } => Some(*next),
            Binding::Binding { since, .. } => Some(*since + BIND_TIMEOUT),
            _ => None,
        }
    }

    pub(super) fn evict(&mut self, reason: String) {
        self.state = Binding::Evicted { reason };
    }

    /// The incarnation goes on in this process, with the next number, and to no lower epoch.
    pub(super) fn resume(&mut self, last: Bind, floor: Epoch) {
        (self.last, self.floor) = (last, floor);
    }

    /// A new incarnation: what is known about coordinators stays, and bind numbers go on. Prevents: an answer to the life
    /// before comes late, under a bind, a slot and a number that this life uses too, and is taken for the answer to another
    /// request, a layout that is long given away among them.
    pub(super) fn reborn(&mut self, now: Now) {
        self.failed = None;
        self.pause = RETRY_MIN;
        self.state = Binding::Seeking { next: now };
    }
}
