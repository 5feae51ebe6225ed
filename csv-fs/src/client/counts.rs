//! Two counts, of which one is in use.
//!
//! Whoever wants quiet turns what begins over to the other one and waits for the first to run empty, so that a stream of
//! newcomers does not keep him for ever. The rule of who begins is *count, then look*: if the counts were turned over
//! meanwhile he counts again, so nobody is overlooked. `interleavings` goes through those of a few threads.

use super::sync::{AtomicU64, AtomicUsize, Ordering};

/// The counts.
#[derive(Debug, Default)]
pub(super) struct Counts {
    counts: [AtomicU64; 2],
    current: AtomicUsize,
}

impl Counts {
    /// Begins; which count it is in. `left` is told of one that it was in first.
    pub(super) fn begin(&self, left: impl Fn(usize)) -> usize {
        loop {
            let at = self.current.load(Ordering::SeqCst);
            self.counts[at].fetch_add(1, Ordering::SeqCst);
            if self.current.load(Ordering::SeqCst) == at {
                return at;
            }
            left(at);
        }
    }

    /// Ends in that count. `true`: somebody may wait for it to be empty, and it is.
    #[must_use]
    pub(super) fn end(&self, at: usize) -> bool {
        self.counts[at].fetch_sub(1, Ordering::SeqCst) == 1 && self.current.load(Ordering::SeqCst) != at
    }

    /// Whether nobody is in that count.
    pub(super) fn is_empty(&self, at: usize) -> bool {
        self.counts[at].load(Ordering::SeqCst) == 0
    }

    /// Whether nobody is in either.
    pub(super) fn are_empty(&self) -> bool {
        self.is_empty(0) && self.is_empty(1)
    }

    /// The one in use.
    pub(super) fn current(&self) -> usize {
        self.current.load(Ordering::SeqCst)
    }

    /// The one in use from now on; one turn at a time, and only when it is empty.
    pub(super) fn use_from_now(&self, at: usize) {
        self.current.store(at, Ordering::SeqCst);
    }
}
