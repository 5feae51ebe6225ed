//! Workers: one thread per core, each with a current-thread tokio runtime and an io_uring of its own.
//!
//! A request that a worker submits goes into that worker's ring: no lock, no other thread. Its
//! completion runs on the same worker. Futures given to [`Handle::spawn`] are local to their worker and need
//! not be `Send`; inside them `tokio::task::spawn_local` works.
//!
//! Threads that are no workers hand requests over through a bounded queue per worker; they wait while
//! it is full. A worker never hands over, so workers never wait for one another. A thread that runs
//! batches may have a ring of its own: [`crate::sync::ThreadRing`].
//!
//! States of a worker: *running* -> *closing* (new requests are answered `ShuttingDown`; those in the
//! ring are waited for) -> *ended* (its local tasks dropped, its ring closed). What is still in the
//! queue when it closes is answered `ShuttingDown`, unexecuted.
//!
//! If the kernel refuses io_uring, workers run without a ring and say so once; devices then use
//! threads of their own. A ring counts only once it has carried a request: a seccomp filter may allow
//! to make one and refuse to enter it.

mod attached;
mod handoff;
#[cfg(test)]
mod handoff_tests;
mod local;
mod low_water;
mod ring;
mod spread;
mod start;
mod sync;
mod task;
#[cfg(test)]
mod tests;
mod watch;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use attached::{Attached, Bell, alone, drive, is_attached};
pub(crate) use local::{Refused, submit_here};

use crate::file::transfer::Transfer;
pub use low_water::set_low_water;
pub use task::{Task, TaskLost};
pub use watch::Watch;

type Inbox = handoff::Inbox<Transfer, task::Start>;

/// How long [`Workers::shutdown`] waits for requests inside the kernel before it gives up.
const SHUTDOWN_BOUND: Duration = Duration::from_secs(30);

/// The running workers. Dropping it shuts them down as [`Workers::shutdown`] does.
pub struct Workers {
    handle: Handle,
    threads: Vec<start::Thread>,
}

/// A way to reach the workers, from anywhere. Cheap to clone; keeps nothing running.
#[derive(Clone)]
pub struct Handle {
    inboxes: Arc<[Arc<Inbox>]>,
    /// Or why there are none.
    rings: Result<(), Arc<str>>,
}

/// Why [`Workers::shutdown`] did not end cleanly.
#[derive(Debug, thiserror::Error)]
#[error(
    "{stuck} of the workers still wait for requests inside the kernel after {waited:?}; they are left to themselves"
)]
pub struct ShutdownError {
    /// Workers that did not end.
    pub stuck: usize,
    /// How long was waited.
    pub waited: Duration,
}

impl Workers {
    /// Starts `n` workers (at least one) as threads called `name-0`, `name-1` ...
    pub fn start(n: usize, name: &str) -> io::Result<Workers> {
        start::start(n.max(1), name, true)
    }

    /// The same without rings, as on a kernel that refuses io_uring: devices use threads instead.
    pub fn start_without_rings(n: usize, name: &str) -> io::Result<Workers> {
        start::start(n.max(1), name, false)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.handle.count()
    }

    /// What devices and spawners keep.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// See [`Handle::spawn`].
    pub fn spawn<F, Fut>(&self, worker: usize, f: F) -> Task<Fut::Output>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future + 'static,
        Fut::Output: Send + 'static,
    {
        self.handle.spawn(worker, f)
    }

    /// Ends the workers, in stages: intake is closed (requests are answered `ShuttingDown`), what
    /// is in the rings completes, local tasks are dropped, rings and threads end. Blocks for at most
    /// 30 s; a worker whose requests are stuck in the kernel for longer is left running and reported.
    ///
    /// Not to be called on a worker.
    pub fn shutdown(mut self) -> Result<(), ShutdownError> {
        start::stop(&self.handle.inboxes, std::mem::take(&mut self.threads), SHUTDOWN_BOUND)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let threads = std::mem::take(&mut self.threads);
        if threads.is_empty() {
            return;
        }
        if let Err(error) = start::stop(&self.handle.inboxes, threads, SHUTDOWN_BOUND) {
            tracing::error!("{error}");
        }
    }
}

impl Handle {
    /// How many workers there are.
    pub fn count(&self) -> usize {
        self.inboxes.len()
    }

    /// A handle that knows of one worker only (number modulo [`count`](Self::count)): what is spawned by it is there.
    #[must_use]
    pub fn only(&self, worker: usize) -> Handle {
        let inbox = Arc::clone(&self.inboxes[worker % self.inboxes.len()]);
        Handle { inboxes: Arc::new([inbox]), rings: self.rings.clone() }
    }

    /// True if the workers have rings; false if the kernel refused io_uring.
    pub fn has_rings(&self) -> bool {
        self.rings.is_ok()
    }

    /// Why the workers have no rings, in the kernel's words.
    pub fn why_no_rings(&self) -> Option<&str> {
        self.rings.as_ref().err().map(|why| &**why)
    }

    /// Runs the future that `f` makes as a local task of one worker (number modulo
    /// [`count`](Self::count)). It goes on when the returned [`Task`] is dropped. After shutdown, or if
    /// the worker already has 16384 tasks waiting to start, the task is [`TaskLost`].
    pub fn spawn<F, Fut>(&self, worker: usize, f: F) -> Task<Fut::Output>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future + 'static,
        Fut::Output: Send + 'static,
    {
        let (task, start) = task::prepare(f);
        self.inboxes[worker % self.inboxes.len()].push_start(start);
        task
    }

    /// Hands a request to some worker; gives it back if that one is closing. Waits while its queue
    /// is full. For threads that are no workers.
    pub(crate) fn hand_over(&self, request: Transfer) -> Result<(), Transfer> {
        self.inboxes[spread::next_worker(self.inboxes.len())].push_request(request)
    }
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.handle.fmt(f)
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers").field("count", &self.count()).field("rings", &self.has_rings()).finish()
    }
}

/// The number of the worker this thread is; `None` on any other thread.
pub fn current() -> Option<usize> {
    local::current()
}

/// Collects the requests submitted on this worker while the guard lives (guards nest) and gives them to the
/// kernel together when the last guard drops: one system call instead of one per request. On other
/// threads it does nothing. Not to be held across an `await`.
pub fn batch() -> BatchGuard {
    BatchGuard::new()
}

/// See [`batch`].
#[must_use = "the batch ends when the guard is dropped"]
pub struct BatchGuard {
    // A raw pointer marker: the guard counts in this thread's own state and must stay on it.
    _here: std::marker::PhantomData<*const ()>,
}

impl BatchGuard {
    fn new() -> BatchGuard {
        local::batch_begin();
        BatchGuard { _here: std::marker::PhantomData }
    }
}

impl Drop for BatchGuard {
    fn drop(&mut self) {
        local::batch_end();
    }
}
