//! Writes of a file that were accepted from a program and not answered yet.
//!
//! An unlock, a FLUSH and a RELEASE leave this node only after every write accepted before them has ended. Prevents: a
//! program that is killed with a write on its way gives its lock to another node, and the write lands on what that one
//! wrote.

use std::sync::Arc;

use tokio::sync::{Mutex, Notify};

use super::counts::Counts;
use super::inode::Inode;

/// The counts of one file.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    counts: Counts,
    ended: Notify,
    /// One turn at a time: when a count is taken into use again, it is empty.
    turn: Mutex<()>,
}

impl Writes {
    fn end(&self, at: usize) {
        if self.counts.end(at) {
            self.ended.notify_waiters();
        }
    }

    /// Returns when every write that was accepted before the call has ended.
    ///
    /// # Cancel safety
    /// Safe: may be dropped and called again.
    pub(crate) async fn quiet(&self) {
        if self.counts.are_empty() {
            return;
        }
        let _turn = self.turn.lock().await;
        let old = self.counts.current();
        // One that was dropped while it waited has left the other count behind, not empty: it is waited for first.
        self.empty(1 - old).await;
        self.counts.use_from_now(1 - old);
        self.empty(old).await;
    }

    async fn empty(&self, at: usize) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.counts.is_empty(at) {
                return;
            }
            ended.await;
        }
    }
}

/// An accepted write, until dropped.
#[derive(Debug)]
pub(crate) struct Accepted {
    inode: Arc<Inode>,
    at: usize,
}

impl Accepted {
    pub(crate) fn new(inode: &Arc<Inode>) -> Accepted {
        Accepted { inode: Arc::clone(inode), at: inode.writes.counts.begin(|at| inode.writes.end(at)) }
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        self.inode.writes.end(self.at);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_now::poll_once;

    use super::*;
    use crate::types::InodeNo;

    mod futures_now {
        use std::pin::Pin;
        use std::task::{Context, Poll, Waker};

        /// Whether a future is done after one look.
        pub(super) fn poll_once(future: Pin<&mut impl Future<Output = ()>>) -> bool {
            matches!(future.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(()))
        }
    }

    #[test]
    fn quiet_is_after_every_write_accepted_before_and_does_not_wait_for_later_ones() {
        let inode = Arc::new(Inode::new(InodeNo(5), crate::core::rules::Rules::all()));
        let (first, second) = (Accepted::new(&inode), Accepted::new(&inode));
        let mut quiet = pin!(inode.writes.quiet());
        assert!(!poll_once(quiet.as_mut()));
        let later = Accepted::new(&inode);
        drop(first);
        assert!(!poll_once(quiet.as_mut()));
        drop(second);
        assert!(poll_once(quiet.as_mut()));
        let mut next = pin!(inode.writes.quiet());
        assert!(!poll_once(next.as_mut()), "the later one counts for the next");
        drop(later);
        assert!(poll_once(next.as_mut()));
    }

    /// A caller that was interrupted left both counts in use; the next one believed the second to be empty.
    #[test]
    fn one_that_gave_up_waiting_does_not_hide_a_write_from_the_next() {
        let inode = Arc::new(Inode::new(InodeNo(5), crate::core::rules::Rules::all()));
        let first = Accepted::new(&inode);
        {
            let mut gives_up = pin!(inode.writes.quiet());
            assert!(!poll_once(gives_up.as_mut()));
        }
        let second = Accepted::new(&inode);
        let mut quiet = pin!(inode.writes.quiet());
        assert!(!poll_once(quiet.as_mut()));
        drop(second);
        assert!(!poll_once(quiet.as_mut()), "the first is still out");
        drop(first);
        assert!(poll_once(quiet.as_mut()));
    }
}
