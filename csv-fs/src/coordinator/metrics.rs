//! What the coordinator counts; a test of the whole proves with it that steady in-place I/O sends no message.

use std::sync::atomic::{AtomicU64, Ordering};

/// One count.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// So far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts of one reign.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Session calls that arrived.
    pub calls: Count,
    /// Binds that arrived.
    pub binds: Count,
    /// Callbacks sent.
    pub callbacks: Count,
    /// Redirected requests that arrived.
    pub redirects: Count,
    /// Bytes of redirected writes done.
    pub redirected_written: Count,
    /// Bytes of redirected reads done.
    pub redirected_read: Count,
    /// Commits of the store.
    pub commits: Count,
    /// Changes in those commits.
    pub changes: Count,
    /// Views of the store that were read from.
    pub reads: Count,
    /// Look-ups answered without one, from what the store had in memory.
    pub known: Count,
}

impl Metrics {
    /// Everything that travelled between clients and this coordinator.
    pub fn messages(&self) -> u64 {
        self.calls.get() + self.binds.get() + self.callbacks.get() + self.redirects.get()
    }
}
