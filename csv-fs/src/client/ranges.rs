//! Block-range locks of one inode on one node.
//!
//! Taken by every write that is not a whole-block write in place, and by one of which nobody knows whether it was executed:
//! allocating writes (two of them must not both fill the same hole) and read-modify-write. Prevents: two sub-block writes read the same old block, each changes its own
//! bytes, and the second to be written undoes the first (invariant 7 within a node; between nodes the exclusive
//! layout does it).
//!
//! A caller takes one range at a time and waits while holding none, so there is no order to keep among them.

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::types::BlockRange;

/// The locks.
#[derive(Debug, Default)]
pub(crate) struct RangeLocks {
    held: Mutex<Vec<BlockRange>>,
    freed: Notify,
}

/// A range held; dropping it frees it.
#[derive(Debug)]
pub(crate) struct RangeLock<'a> {
    of: &'a RangeLocks,
    range: BlockRange,
}

impl RangeLocks {
    /// Waits until no part of the range is held, and holds it.
    ///
    /// # Cancel safety
    /// Safe: nothing is held until it returns.
    pub(crate) async fn lock(&self, range: BlockRange) -> RangeLock<'_> {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Registered before looking: a range freed in between wakes this.
            freed.as_mut().enable();
            if let Some(lock) = self.try_lock(range) {
                return lock;
            }
            freed.await;
        }
    }

    /// Holds the range if no part of it is held.
    pub(crate) fn try_lock(&self, range: BlockRange) -> Option<RangeLock<'_>> {
        let mut held = self.held.lock();
        if held.iter().any(|r| r.overlaps(range)) {
            return None;
        }
        held.push(range);
        Some(RangeLock { of: self, range })
    }
}

impl Drop for RangeLock<'_> {
    fn drop(&mut self) {
        let mut held = self.of.held.lock();
        if let Some(at) = held.iter().position(|r| *r == self.range) {
            held.swap_remove(at);
        }
        drop(held);
        self.of.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_ranges_wait_and_others_do_not() {
        let locks = RangeLocks::default();
        let first = locks.try_lock(BlockRange::new(0, 4)).unwrap();
        assert!(locks.try_lock(BlockRange::new(3, 5)).is_none());
        assert!(locks.try_lock(BlockRange::new(4, 5)).is_some());
        drop(first);
        assert!(locks.try_lock(BlockRange::new(0, 4)).is_some());
    }

    #[tokio::test]
    async fn a_waiter_goes_on_when_the_range_is_freed() {
        let locks = std::sync::Arc::new(RangeLocks::default());
        let first = locks.try_lock(BlockRange::new(0, 4)).unwrap();
        let other = std::sync::Arc::clone(&locks);
        let waiter = tokio::spawn(async move { drop(other.lock(BlockRange::new(2, 3)).await) });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        drop(first);
        waiter.await.unwrap();
    }
}
