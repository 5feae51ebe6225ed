//! Between two lives of this node: what a program asks for then begins with the next life.
//!
//! ```text
//!   lives ── evicted ──► between ── the core has taken the next incarnation ──► lives
//!     └────────────────────┴── no other follows (the volume stops, or is gone) ──► over: EIO
//! ```
//! - What comes between is of the next life: nothing of it was accepted by the one that was evicted. It waits here, before anything is
//!   done for it, may be interrupted, and gets EIO once its time (`io_timeout`) is over. So it does if it came a moment too early and
//!   counts as of the life before, and if it waits over a second eviction.
//! - "Between" begins before the files hear of the eviction, and ends after the core has taken the next incarnation. So whoever has
//!   found himself of the next life ([`crate::client::space::Space::life`]) and then waits here finds each handle poisoned that is to be.
//!   Prevents: a write comes while handles are being poisoned; its handle is not yet, it waits, and is executed in the next life although the
//!   lock that it was made under was given to others.
//! - What only reads, and was under way when a life ended, is asked again in the next, unless it was interrupted.
//! - Only who asks for a program waits. What a node does by itself in one life is not wanted in the next.

use tokio::sync::watch;

use super::{Caller, EIO, Errno, Session};
use crate::core::client::UNMOUNTED;
use crate::proto::{Reply, Request};

/// Where this node stands.
#[derive(Clone, Copy, Default, Debug)]
struct Standing {
    /// It was evicted, and the next life has not begun.
    between: bool,
    /// No other life follows this one.
    last: bool,
    /// How many have ended.
    ended: u64,
}

/// The lives of this node, as those who wait for the next one see them.
#[derive(Debug, Default)]
pub(super) struct Lives(watch::Sender<Standing>);

impl Lives {
    /// An incarnation ends; called before the files hear of it.
    pub(super) fn ends(&self, reason: &str) {
        self.0.send_modify(|s| {
            s.between = true;
            s.ended += 1;
            s.last |= reason == UNMOUNTED;
        });
    }

    /// The core has taken the next one.
    pub(super) fn begins(&self) {
        self.0.send_if_modified(|s| std::mem::take(&mut s.between));
    }
}

impl Session {
    /// No other life follows the one that is, or was: whoever waits for it gets EIO.
    pub fn no_life_follows(&self) {
        self.lives.0.send_modify(|s| s.last = true);
    }

    /// Whether this node was evicted and has not begun its next life.
    pub(crate) fn is_between_lives(&self) -> bool {
        self.lives.0.borrow().between
    }

    /// Waits, between two lives, for the next one. EIO if none follows, or the time of the caller is over; EINTR if he is interrupted.
    ///
    /// # Cancel safety
    /// Safe: may be dropped and called again.
    pub(crate) async fn next_life(&self, caller: &Caller) -> Result<(), Errno> {
        if !self.is_between_lives() || caller.since().is_none() {
            return Ok(());
        }
        let mut lives = self.lives.0.subscribe();
        let begins = async move { lives.wait_for(|s| !s.between || s.last).await.is_ok_and(|s| !s.between) };
        if self.unless_given_up(caller, begins).await? { Ok(()) } else { Err(Errno(EIO)) }
    }

    /// A program's question. One that was under way when a life ended is asked again in the next.
    pub(super) async fn asked_in_any_life(&self, caller: &Caller, question: Request) -> Result<Reply, Errno> {
        loop {
            let ended = || self.lives.0.borrow().ended;
            let before = ended();
            self.next_life(caller).await?;
            match self.call_once(caller, question.clone()).await {
                Err(Errno(EIO)) if self.settled(ended) != before => {}
                answer => return answer,
            }
        }
    }
}
