//! What the data path counts, for status and metrics. Relaxed: each number is right, no two of them are of one moment.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Waiting for longer than this counts as a stall.
const STALL: Duration = Duration::from_millis(50);

/// The counters of one volume on one node.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes read from the disk.
    pub direct_read: AtomicU64,
    /// Bytes written to the disk.
    pub direct_written: AtomicU64,
    /// Bytes read over the coordinator.
    pub redirected_read: AtomicU64,
    /// Bytes written over the coordinator.
    pub redirected_written: AtomicU64,
    /// Requests to the disk that are outstanding.
    pub in_flight: AtomicU64,
    /// Operations that waited for the route for more than 50 ms.
    pub stalls: AtomicU64,
    /// The longest such wait, in milliseconds.
    pub longest_stall_ms: AtomicU64,
    /// Operations served on the hot path.
    pub hot: AtomicU64,
    /// Operations sent over the coordinator at once, as the hot path sends them to the disk.
    pub warm: AtomicU64,
    /// Operations that took the slow path.
    pub slow: AtomicU64,
    /// Calls made to the coordinator.
    pub calls: AtomicU64,
    /// Requests of programs that got EIO after `io_timeout`.
    pub timed_out: AtomicU64,
}

/// A reading of [`Counters`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CounterSnapshot {
    /// Bytes read from the disk.
    pub direct_read: u64,
    /// Bytes written to the disk.
    pub direct_written: u64,
    /// Bytes read over the coordinator.
    pub redirected_read: u64,
    /// Bytes written over the coordinator.
    pub redirected_written: u64,
    /// Requests to the disk that are outstanding.
    pub in_flight: u64,
    /// Operations that waited for the route for more than 50 ms.
    pub stalls: u64,
    /// The longest such wait, in milliseconds.
    pub longest_stall_ms: u64,
    /// Operations served on the hot path.
    pub hot: u64,
    /// Operations sent over the coordinator at once, as the hot path sends them to the disk.
    pub warm: u64,
    /// Operations that took the slow path.
    pub slow: u64,
    /// Calls made to the coordinator.
    pub calls: u64,
    /// Requests of programs that got EIO after `io_timeout`.
    pub timed_out: u64,
}

impl Counters {
    /// All of them now.
    pub fn snapshot(&self) -> CounterSnapshot {
        let get = |a: &AtomicU64| a.load(Ordering::Relaxed);
        CounterSnapshot {
            direct_read: get(&self.direct_read),
            direct_written: get(&self.direct_written),
            redirected_read: get(&self.redirected_read),
            redirected_written: get(&self.redirected_written),
            in_flight: get(&self.in_flight),
            stalls: get(&self.stalls),
            longest_stall_ms: get(&self.longest_stall_ms),
            hot: get(&self.hot),
            warm: get(&self.warm),
            slow: get(&self.slow),
            calls: get(&self.calls),
            timed_out: get(&self.timed_out),
        }
    }

    pub(crate) fn waited(&self, time: Duration) {
        if time >= STALL {
            self.stalls.fetch_add(1, Ordering::Relaxed);
            let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            self.longest_stall_ms.fetch_max(ms, Ordering::Relaxed);
        }
    }
}

/// Adds without more order than the count itself needs.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}
