//! For how long a block has been seen unchanged, counting only time that this node's own successful reads cover.
//!
//! A block never returns to an earlier value, so two reads that show the same value show that it did not change in
//! between. The time between them still counts only up to a bound: after a stall that hit everybody, or a pause of
//! this very machine, the holder must get its chance to renew before it is challenged. A stretch with a failed read
//! counts nothing.

use std::time::Duration;

use crate::core::time::Now;

/// Watches one block by its counter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unchanged {
    pub(super) counter: u64,
    /// How long it was surely unchanged, in covered time.
    pub(super) covered: Duration,
    /// When the last read that showed it was started; `None` after a failed one.
    last: Option<Now>,
    /// Whether it was ever seen to change.
    pub(super) changed_once: bool,
}

impl Unchanged {
    /// First sight, in a read that ended at `ended`.
    pub(super) fn new(counter: u64, ended: Now) -> Unchanged {
        Unchanged { counter, covered: Duration::ZERO, last: Some(ended), changed_once: false }
    }

    /// A later read, started at `started` and ended at `ended`. `bound` is what one gap may count at most.
    pub(super) fn read(&mut self, counter: u64, started: Now, ended: Now, bound: Duration) {
        if counter != self.counter {
            *self = Unchanged { counter, covered: Duration::ZERO, last: Some(ended), changed_once: true };
            return;
        }
        if let Some(last) = self.last {
            self.covered += started.since(last).min(bound);
        }
        self.last = Some(self.last.map_or(started, |last| last.max(started)));
    }

    /// A read failed.
    pub(super) fn failed(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_millis(250);

    #[test]
    fn time_between_reads_counts_up_to_the_bound() {
        let mut u = Unchanged::new(7, Now(10));
        u.read(7, Now(110), Now(120), BOUND);
        assert_eq!(u.covered, Duration::from_millis(100));
        u.read(7, Now(60_110), Now(60_120), BOUND);
        assert_eq!(u.covered, Duration::from_millis(350), "a minute's pause counts as one bound");
    }

    #[test]
    fn a_stretch_with_a_failed_read_counts_nothing() {
        let mut u = Unchanged::new(7, Now(0));
        u.failed();
        u.read(7, Now(200), Now(201), BOUND);
        assert_eq!(u.covered, Duration::ZERO);
        u.read(7, Now(300), Now(301), BOUND);
        assert_eq!(u.covered, Duration::from_millis(100));
    }

    #[test]
    fn a_change_begins_anew() {
        let mut u = Unchanged::new(7, Now(0));
        u.read(7, Now(200), Now(201), BOUND);
        u.read(8, Now(300), Now(301), BOUND);
        assert!(u.changed_once);
        assert_eq!(u.covered, Duration::ZERO);
    }
}
