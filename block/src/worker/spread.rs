//! Which worker a thread's next request goes to.

use std::sync::atomic::{AtomicUsize, Ordering};

thread_local! {
    /// Where this thread's next request goes, so that requests of one thread spread over the workers.
    static NEXT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// The worker for this thread's next request: 16 requests in a row go to the same one, so that a
/// batch wakes few workers.
pub(super) fn next_worker(count: usize) -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    NEXT.with(|next| {
        let mut n = next.get();
        if n == 0 {
            n = 1 + 16 * THREADS.fetch_add(1, Ordering::Relaxed);
        }
        next.set(n.wrapping_add(1).max(1));
        (n / 16) % count
    })
}
