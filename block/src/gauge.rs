//! Counts what is under way and lets somebody wait until nothing is.
//!
//! `leave` costs one atomic operation and one load unless somebody waits. The waiter announces
//! itself before it looks at the count, and who leaves counts down before it looks for waiters (both
//! sequentially consistent), so that one of the two always sees the other.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How often a long wait is reported.
const REPORT_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Gauge {
    count: AtomicUsize,
    waiters: AtomicUsize,
    empty: Notify,
}

/// Keeps the waiter count right also when a wait is cancelled.
struct Announced<'a>(&'a Gauge);

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Gauge {
    pub(crate) fn enter(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn leave(&self) {
        let before = self.count.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(before > 0, "left more often than entered");
        if before == 1 && self.waiters.load(Ordering::SeqCst) > 0 {
            self.empty.notify_waiters();
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Waits until the count is zero; says every second in the log how many `what` it waits for,
    /// where a tokio runtime can wake it.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping the future.
    pub(crate) async fn wait_empty(&self, what: &str) {
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let _announced = Announced(self);
        let began = Instant::now();
        loop {
            let emptied = self.empty.notified();
            tokio::pin!(emptied);
            // Registered before the look, so that a notification in between is not lost.
            emptied.as_mut().enable();
            let count = self.count();
            if count == 0 {
                return;
            }
            if tokio::runtime::Handle::try_current().is_err() {
                emptied.await;
                continue;
            }
            if tokio::time::timeout(REPORT_EVERY, emptied).await.is_err() {
                tracing::warn!("draining: {count} {what} for {} s", began.elapsed().as_secs());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn waiter_is_woken_by_the_last_to_leave() {
        let gauge = Gauge::default();
        gauge.enter();
        gauge.enter();
        let mut wait = pin!(gauge.wait_empty("things"));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(wait.as_mut().poll(&mut cx).is_pending());
        gauge.leave();
        assert!(wait.as_mut().poll(&mut cx).is_pending());
        gauge.leave();
        assert!(wait.as_mut().poll(&mut cx).is_ready());
    }
}
