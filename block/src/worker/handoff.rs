//! The queue through which other threads reach a worker.
//!
//! Requests: at most [`REQUESTS`] per worker; a submitter that finds it full sleeps until the worker
//! has taken some. The worker takes whatever is there in one turn, so the wait is one turn long.
//! Starts of tasks: at most [`STARTS`]; the next one is refused (its task is lost).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_queue::ArrayQueue;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::task::Start;
use crate::file::transfer::Transfer;

/// Requests waiting for one worker: four times the depth that a metadata commit or a redirecting
/// coordinator reaches, at ~200 bytes each.
const REQUESTS: usize = 1024;
/// Tasks waiting to be started on one worker. Tasks are started by control code, a handful per
/// volume; this many means a bug.
const STARTS: usize = 16384;

/// One worker's way in.
pub(super) struct Inbox {
    requests: ArrayQueue<Transfer>,
    starts: Mutex<VecDeque<Start>>,
    /// Submitters that found `requests` full sleep here.
    room: Condvar,
    waiting: Mutex<usize>,
    closed: AtomicBool,
    /// Wakes the worker for new entries.
    pub(super) arrived: Notify,
    /// Tells the worker to end.
    pub(super) stop: Notify,
}

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

impl Inbox {
    pub(super) fn new() -> Inbox {
        Inbox {
            requests: ArrayQueue::new(REQUESTS),
            starts: Mutex::new(VecDeque::new()),
            room: Condvar::new(),
            waiting: Mutex::new(0),
            closed: AtomicBool::new(false),
            arrived: Notify::new(),
            stop: Notify::new(),
        }
    }

    /// Queues a request; gives it back if the worker is closing.
    pub(super) fn push_request(&self, mut request: Transfer) -> Result<(), Transfer> {
        loop {
            if self.closed.load(Ordering::SeqCst) {
                return Err(request);
            }
            match self.requests.push(request) {
                Ok(()) => break,
                Err(back) => request = back,
            }
            self.arrived.notify_one();
            let mut waiting = self.waiting.lock();
            *waiting += 1;
            if self.requests.is_full() && !self.closed.load(Ordering::SeqCst) {
                self.room.wait(&mut waiting);
            }
            *waiting -= 1;
        }
        // The worker may have closed and emptied the queue between the look and the push: then
        // nobody comes for the request, so take one out (it need not be ours) and answer that.
        if self.closed.load(Ordering::SeqCst) {
            return self.requests.pop().map_or(Ok(()), Err);
        }
        self.arrived.notify_one();
        Ok(())
    }

    /// The next request, if any.
    pub(super) fn pop_request(&self) -> Option<Transfer> {
        self.requests.pop()
    }

    /// Wakes submitters that wait for room. Called after a turn of taking.
    pub(super) fn made_room(&self) {
        if *self.waiting.lock() > 0 {
            self.room.notify_all();
        }
    }

    /// Queues the start of a task, or drops it (its task is lost).
    pub(super) fn push_start(&self, start: Start) {
        let mut starts = self.starts.lock();
        if self.closed.load(Ordering::SeqCst) || starts.len() >= STARTS {
            drop(starts);
            drop(start);
            return;
        }
        starts.push_back(start);
        drop(starts);
        self.arrived.notify_one();
    }

    /// Everything to be started.
    pub(super) fn take_starts(&self) -> VecDeque<Start> {
        std::mem::take(&mut *self.starts.lock())
    }

    /// Closes intake. Afterwards the worker empties the queue once more.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let starts = self.take_starts();
        drop(starts);
        let _waiting = self.waiting.lock();
        self.room.notify_all();
    }
}
