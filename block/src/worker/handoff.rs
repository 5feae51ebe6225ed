//! The queue through which other threads reach a worker.
//!
//! Requests: at most [`REQUESTS`] per worker; a submitter that finds it full sleeps until the worker
//! has taken some. The worker takes whatever is there in one turn, so the wait is one turn long.
//! Starts of tasks: at most [`STARTS`]; the next one is refused (its task is lost).
//!
//! `handoff_tests` goes through the interleavings with other primitives in the place of `super::sync`.

use std::collections::VecDeque;

use super::sync::{ArrayQueue, AtomicBool, Condvar, Mutex, Notify, Ordering};

/// Requests waiting for one worker: four times the depth that a metadata commit or a redirecting
/// coordinator reaches, at ~200 bytes each.
const REQUESTS: usize = 1024;
/// Tasks waiting to be started on one worker. Tasks are started by control code, a handful per
/// volume; this many means a bug.
const STARTS: usize = 16384;

/// One worker's way in: of requests `R`, and of starts of tasks `S`.
pub(super) struct Inbox<R, S> {
    requests: ArrayQueue<R>,
    starts: Mutex<VecDeque<S>>,
    /// Submitters that found `requests` full sleep here.
    room: Condvar,
    waiting: Mutex<usize>,
    closed: AtomicBool,
    /// Wakes the worker for new entries.
    pub(super) arrived: Notify,
    /// Tells the worker to end.
    pub(super) stop: Notify,
}

impl<R, S> Inbox<R, S> {
    pub(super) fn new() -> Inbox<R, S> {
        Inbox::with_room(REQUESTS)
    }

    /// One that holds so many requests.
    pub(super) fn with_room(requests: usize) -> Inbox<R, S> {
        Inbox {
            requests: ArrayQueue::new(requests),
            starts: Mutex::new(VecDeque::new()),
            room: Condvar::new(),
            waiting: Mutex::new(0),
            closed: AtomicBool::new(false),
            arrived: Notify::new(),
            stop: Notify::new(),
        }
    }

    /// Queues a request; gives it back if the worker is closing.
    pub(super) fn push_request(&self, mut request: R) -> Result<(), R> {
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
    pub(super) fn pop_request(&self) -> Option<R> {
        self.requests.pop()
    }

    /// Wakes submitters that wait for room. Called after a turn of taking.
    pub(super) fn made_room(&self) {
        if *self.waiting.lock() > 0 {
            self.room.notify_all();
        }
    }

    /// Queues the start of a task, or drops it (its task is lost).
    pub(super) fn push_start(&self, start: S) {
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
    pub(super) fn take_starts(&self) -> VecDeque<S> {
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
