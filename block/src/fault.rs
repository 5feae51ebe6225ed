//! A device that can be hurt: requests hang, fail or are delayed, those in flight included.
//! Nothing above is told.
//!
//! ```text
//!              hang()                 fail()                  delay(d)
//!   Passing ──────────► Hanging ──────────────► Failing ──────────────► Delaying
//!      ▲                   │                       │                        │
//!      └───────── heal() ──┴───────────────────────┴────────────────────────┘
//! ```
//! Every state can follow every other. While hanging, new requests are held **unexecuted**, and the
//! completions of those that were below already are held too. `heal` lets both go: what was held is
//! executed then. `fail` answers everything held, and everything new, with an error. `delay` holds each
//! request for a time, unexecuted.
//!
//! `abort_outstanding` drops what is held unexecuted and waits for what is below; all of it is answered
//! `Aborted`, since a way that hangs brings no other answer.
//!
//! Invariant: a request is at every moment either held (in the one mutex) or counted as below; it
//! changes from one to the other under that mutex. So an abort that finds neither has seen all. The passing state
//! takes no lock: two atomic operations and one allocation per request.

mod core;
mod seeded;
mod timer;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use self::core::Core;
pub use self::core::FaultState;
pub(crate) use self::core::Pass;
pub use seeded::{FaultPlan, SeededFaults};

use tokio::sync::watch;

use crate::device::{BlockDevice, Geometry, Io, Op};
use crate::error::{IoError, IoErrorKind};
use crate::shared::{AbortOwn, BoxFuture, NothingInFlight};

/// The switchable fault device.
pub struct FaultDevice {
    core: Arc<Core>,
    ignore_aborts: AtomicBool,
    holds_aborts: watch::Sender<bool>,
    /// The next flush is told that the cache was lost.
    loses: AtomicBool,
    losses: AtomicU64,
}

impl FaultDevice {
    /// A fault device that passes everything through to `below`.
    pub fn new(below: Arc<dyn BlockDevice>) -> Arc<FaultDevice> {
        Arc::new(FaultDevice {
            core: Core::new(below),
            ignore_aborts: AtomicBool::new(false),
            holds_aborts: watch::Sender::new(false),
            loses: AtomicBool::new(false),
            losses: AtomicU64::new(0),
        })
    }

    /// From now on requests are held unexecuted, and completions from below are held.
    pub fn hang(&self) {
        self.core.hang();
    }

    /// From now on requests fail with [`IoErrorKind::NoPath`], those held included.
    pub fn fail(&self) {
        self.fail_with(IoErrorKind::NoPath);
    }

    /// The same with another error.
    pub fn fail_with(&self, kind: IoErrorKind) {
        self.core.fail(kind);
    }

    /// From now on each request is held for `pause`, unexecuted; those held now as well.
    pub fn delay(&self, pause: Duration) {
        self.core.delay(pause);
    }

    /// Passes through again, and executes what is held.
    pub fn heal(&self) {
        self.core.heal();
    }

    /// The device below is taken for one that has just lost its volatile cache: the next flush is told so, once.
    pub fn lose_cache(&self) {
        self.loses.store(true, Ordering::SeqCst);
    }

    /// What it does at the moment.
    pub fn state(&self) -> FaultState {
        self.core.state()
    }

    /// Requests and completions held back.
    pub fn held(&self) -> usize {
        self.core.held()
    }

    /// Requests that have passed below and have not come back.
    pub fn below(&self) -> usize {
        self.core.below_count()
    }

    /// **A mutation for tests**: while true, `abort_outstanding` claims that nothing is in flight and drops
    /// nothing, so that a test can show the old write landing. Never called outside tests.
    pub fn ignore_aborts(&self, ignore: bool) {
        self.ignore_aborts.store(ignore, Ordering::SeqCst);
    }

    /// While true, `abort_outstanding` waits, as it does for a request that is stuck in the kernel: nothing is withdrawn, and
    /// nothing is claimed.
    pub fn hold_aborts(&self, hold: bool) {
        self.holds_aborts.send_replace(hold);
    }

    /// Waits at the gate as a request would. For what is not an [`Io`]: a compare-and-write.
    pub(crate) async fn admit(&self) -> Result<Pass, IoErrorKind> {
        match self.core.admit() {
            Ok(verdict) => verdict,
            Err(waiting) => waiting.await.unwrap_or(Err(IoErrorKind::ShuttingDown)),
        }
    }
}

impl BlockDevice for FaultDevice {
    fn geometry(&self) -> Geometry {
        self.core.device().geometry()
    }

    fn submit(&self, io: Io) {
        if io.op == Op::Flush && self.loses.load(Ordering::Relaxed) && self.loses.swap(false, Ordering::SeqCst) {
            self.losses.fetch_add(1, Ordering::SeqCst);
            return io.fail(IoErrorKind::CacheLost);
        }
        self.core.submit(io);
    }

    fn describe(&self) -> String {
        format!("{} behind a fault device", self.core.device().describe())
    }

    fn losses(&self) -> u64 {
        self.losses.load(Ordering::SeqCst) + self.core.device().losses()
    }
}

impl AbortOwn for FaultDevice {
    fn abort_outstanding(&self) -> BoxFuture<'_, Result<NothingInFlight, IoError>> {
        Box::pin(async move {
            if self.ignore_aborts.load(Ordering::SeqCst) {
                tracing::warn!("a test has switched abort-own off: nothing was withdrawn");
                return Ok(NothingInFlight::proved());
            }
            // The sender is this device's.
            let _ = self.holds_aborts.subscribe().wait_for(|holds| !holds).await;
            self.core.drop_held(IoErrorKind::Aborted);
            self.core.wait_below().await;
            // What came back meanwhile to a hanging device was held; it has landed.
            self.core.drop_answers(IoErrorKind::Aborted);
            Ok(NothingInFlight::proved())
        })
    }
}

impl Drop for FaultDevice {
    fn drop(&mut self) {
        self.core.drop_held(IoErrorKind::ShuttingDown);
        self.core.close();
    }
}

impl std::fmt::Debug for FaultDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.describe(), self.state())
    }
}
