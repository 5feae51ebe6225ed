//! A worker's thread from start to end.

use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::{Context, Poll, ready};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

use super::Inbox;
use super::ring::Ring;
use super::{Handle, Refused, ShutdownError, Workers, local};
use crate::error::IoErrorKind;

/// Completions called in one turn before other tasks of the worker get theirs.
const TURN: usize = 256;
/// How often a closing worker looks whether its ring is empty.
const DRAIN_LOOK: Duration = Duration::from_millis(1);
/// How often it says that it is not.
const DRAIN_REPORT: Duration = Duration::from_secs(1);
/// Pause before the kernel is asked again to take requests it had no room for.
const BUSY_PAUSE: Duration = Duration::from_millis(1);

pub(super) struct Thread {
    join: JoinHandle<()>,
    /// Disconnects when the thread has ended, also by panic.
    ended: mpsc::Receiver<()>,
}

pub(super) fn start(n: usize, name: &str, want_rings: bool) -> io::Result<Workers> {
    let inboxes: Arc<[_]> = (0..n).map(|_| Arc::new(Inbox::new())).collect();
    let rings = if want_rings { Ok(()) } else { Err(Arc::from("they were not asked for")) };
    let mut workers =
        Workers { handle: Handle { inboxes: Arc::clone(&inboxes), rings }, threads: Vec::with_capacity(n) };
    for (index, inbox) in inboxes.iter().enumerate() {
        let want_ring = workers.handle.has_rings();
        let (thread, refused) = start_one(index, name, Arc::clone(inbox), want_ring)?;
        workers.threads.push(thread);
        if let Some(why) = refused {
            workers.handle.rings = Err(why);
        }
    }
    Ok(workers)
}

/// The thread, and why it has no ring although it was to have one.
fn start_one(index: usize, name: &str, inbox: Arc<Inbox>, want_ring: bool) -> io::Result<(Thread, Option<Arc<str>>)> {
    let (ended_sender, ended) = mpsc::channel();
    let (ready_sender, ready) = mpsc::sync_channel(1);
    let join = thread::Builder::new().name(format!("{name}-{index}")).spawn(move || {
        let _ended = ended_sender;
        match prepare(index, want_ring) {
            Ok((runtime, watch, refused)) => {
                // The starter waits for the answer; it cannot be gone.
                let _ = ready_sender.send(Ok(refused));
                run(runtime, watch, &inbox);
            }
            Err(error) => {
                let _ = ready_sender.send(Err(error));
            }
        }
    })?;
    let answer = ready.recv().unwrap_or_else(|_| Err(io::Error::other("the worker's thread panicked")));
    Ok((Thread { join, ended }, answer?))
}

type Prepared = (LocalRuntime, Option<AsyncFd<OwnedFd>>, Option<Arc<str>>);

fn prepare(index: usize, want_ring: bool) -> io::Result<Prepared> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .on_thread_unpark(local::wake_reaper)
        .build_local(LocalOptions::default())?;
    let (ring, refused) = if want_ring { new_ring() } else { (None, None) };
    let watch = match &ring {
        Some(ring) => {
            let _context = runtime.enter();
            Some(ring.watch()?)
        }
        None => None,
    };
    local::install(index, ring);
    Ok((runtime, watch, refused))
}

fn new_ring() -> (Option<Ring>, Option<Arc<str>>) {
    match Ring::new() {
        Ok(ring) => (Some(ring), None),
        Err(error) => {
            tracing::warn!(
                "io_uring is refused ({error}); devices use threads, which costs about half the speed. \
                 Check kernel.io_uring_disabled, seccomp and RLIMIT_MEMLOCK"
            );
            (None, Some(Arc::from(error.to_string())))
        }
    }
}

fn run(runtime: LocalRuntime, watch: Option<AsyncFd<OwnedFd>>, inbox: &Arc<Inbox>) {
    let for_tasks = Arc::clone(inbox);
    runtime.block_on(async move {
        if let Some(watch) = watch {
            tokio::task::spawn_local(async move {
                poll_fn(|cx| poll_reaper(&watch, cx)).await;
            });
        }
        let stop = Arc::clone(&for_tasks);
        tokio::task::spawn_local(async move {
            loop {
                for_tasks.arrived.notified().await;
                take(&for_tasks);
            }
        });
        stop.stop.notified().await;
        close(&stop).await;
    });
    // Local tasks are dropped here; what they still submit is refused as closing.
    drop(runtime);
    refuse_waiting(inbox);
    drop(local::uninstall());
}

/// One turn of taking completions. Never ready.
fn poll_reaper(watch: &AsyncFd<OwnedFd>, cx: &mut Context<'_>) -> Poll<()> {
    local::set_reaper(cx.waker());
    let mut turn = 0;
    loop {
        let count = local::reap();
        turn += count;
        if turn >= TURN {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if count > 0 {
            continue;
        }
        if local::has_unsubmitted() {
            return retry_later(cx);
        }
        match ready!(watch.poll_read_ready(cx)) {
            // Cleared first, looked after: what arrives in between makes the descriptor ready again.
            Ok(mut guard) => guard.clear_ready(),
            Err(error) => {
                tracing::error!("the ring's descriptor cannot be watched: {error}");
                return retry_later(cx);
            }
        }
    }
}

/// The kernel is short of memory: pause this worker's ring for a moment, then try again.
fn retry_later(cx: &mut Context<'_>) -> Poll<()> {
    drop(super::batch());
    let waker = cx.waker().clone();
    tokio::task::spawn_local(async move {
        tokio::time::sleep(BUSY_PAUSE).await;
        waker.wake();
    });
    Poll::Pending
}

/// Takes everything that other threads have queued.
fn take(inbox: &Inbox) {
    for start in inbox.take_starts() {
        start();
    }
    let _batch = super::batch();
    let mut taken = false;
    while let Some(transfer) = inbox.pop_request() {
        taken = true;
        match local::submit_here(transfer) {
            Ok(()) => {}
            Err(Refused::Closing(transfer) | Refused::NoRing(transfer) | Refused::Alone(transfer)) => {
                transfer.fail(IoErrorKind::ShuttingDown);
            }
        }
    }
    if taken {
        inbox.made_room();
    }
}

/// Closes intake and waits until the kernel has nothing of this worker's any more.
async fn close(inbox: &Inbox) {
    inbox.close();
    local::set_closing();
    refuse_waiting(inbox);
    let began = Instant::now();
    let mut reported = began;
    while local::in_flight() > 0 {
        tokio::time::sleep(DRAIN_LOOK).await;
        if reported.elapsed() >= DRAIN_REPORT {
            reported = Instant::now();
            tracing::warn!(
                "draining: {} requests stuck in the kernel for {} s",
                local::in_flight(),
                began.elapsed().as_secs()
            );
        }
    }
}

fn refuse_waiting(inbox: &Inbox) {
    while let Some(transfer) = inbox.pop_request() {
        transfer.fail(IoErrorKind::ShuttingDown);
    }
}

pub(super) fn stop(inboxes: &[Arc<Inbox>], threads: Vec<Thread>, bound: Duration) -> Result<(), ShutdownError> {
    for inbox in inboxes {
        inbox.stop.notify_one();
    }
    let began = Instant::now();
    let mut stuck = 0;
    for thread in threads {
        let left = bound.saturating_sub(began.elapsed());
        match thread.ended.recv_timeout(left) {
            Err(mpsc::RecvTimeoutError::Timeout) => stuck += 1,
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => {
                if thread.join.join().is_err() {
                    tracing::error!("a worker panicked");
                }
            }
        }
    }
    if stuck == 0 { Ok(()) } else { Err(ShutdownError { stuck, waited: began.elapsed() }) }
}
