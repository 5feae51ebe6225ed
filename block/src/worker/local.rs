//! What belongs to the worker that this thread is: its number, its ring, its batch depth.
//!
//! The ring is never borrowed while foreign code runs: completions are called with the borrow
//! released, so that they may submit again.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use super::ring::{Ended, Ring};
use crate::file::transfer::Transfer;

struct Local {
    worker: Cell<Option<usize>>,
    ring: RefCell<Option<Ring>>,
    batch_depth: Cell<u32>,
    closing: Cell<bool>,
    /// True on workers, and on a thread with an attached ring while it runs a batch: somebody takes
    /// the ring's completions.
    driven: Cell<bool>,
    /// True while this thread waits for one request and nothing else.
    alone: Cell<bool>,
    /// Reused between turns, so that a turn allocates nothing.
    ended: Cell<Vec<Ended>>,
    /// The task that takes completions.
    reaper: RefCell<Option<Waker>>,
}

thread_local! {
    static LOCAL: Local = const {
        Local {
            worker: Cell::new(None),
            ring: RefCell::new(None),
            batch_depth: Cell::new(0),
            closing: Cell::new(false),
            driven: Cell::new(false),
            alone: Cell::new(false),
            ended: Cell::new(Vec::new()),
            reaper: RefCell::new(None),
        }
    };
}

/// Why a request was not taken here.
#[derive(Debug)]
pub(crate) enum Refused {
    /// This thread has no ring.
    NoRing(Transfer),
    /// This worker is closing.
    Closing(Transfer),
    /// This thread waits for it anyway: plain system calls are the shortest way.
    Alone(Transfer),
}

/// Completions taken from the ring in one go; enough for a full queue of a fast device.
const REAP_AT_ONCE: usize = 64;

pub(super) fn current() -> Option<usize> {
    LOCAL.with(|local| local.worker.get())
}

/// Makes this thread worker number `worker`.
pub(super) fn install(worker: usize, ring: Option<Ring>) {
    LOCAL.with(|local| {
        local.worker.set(Some(worker));
        local.driven.set(true);
        *local.ring.borrow_mut() = ring;
    });
}

/// Takes the ring out again, at the end of the thread.
pub(super) fn uninstall() -> Option<Ring> {
    LOCAL.with(|local| {
        local.reaper.borrow_mut().take();
        local.ring.borrow_mut().take()
    })
}

/// Gives a thread that is no worker a ring; false if it has one.
pub(super) fn attach(ring: Ring) -> bool {
    LOCAL.with(|local| {
        let mut place = local.ring.borrow_mut();
        let free = place.is_none() && local.worker.get().is_none();
        if free {
            *place = Some(ring);
        }
        free
    })
}

/// Says whether somebody takes the completions of this thread's attached ring.
pub(super) fn set_driven(driven: bool) {
    LOCAL.with(|local| local.driven.set(driven));
}

/// Says whether this thread waits for one request and nothing else.
pub(super) fn set_alone(alone: bool) {
    LOCAL.with(|local| local.alone.set(alone));
}

/// From now on requests are refused here; those under way go on.
pub(super) fn set_closing() {
    LOCAL.with(|local| local.closing.set(true));
}

/// Puts the request into this worker's ring, and to the kernel unless a batch is open.
pub(crate) fn submit_here(transfer: Transfer) -> Result<(), Refused> {
    LOCAL.with(|local| {
        if local.closing.get() {
            return Err(Refused::Closing(transfer));
        }
        if local.alone.get() {
            return Err(Refused::Alone(transfer));
        }
        if !local.driven.get() {
            return Err(Refused::NoRing(transfer));
        }
        let mut ring = local.ring.borrow_mut();
        let Some(ring) = ring.as_mut() else { return Err(Refused::NoRing(transfer)) };
        ring.start(transfer);
        if local.batch_depth.get() == 0 {
            submit(local, ring);
        }
        Ok(())
    })
}

fn submit(local: &Local, ring: &mut Ring) {
    ring.submit();
    if ring.unsubmitted() {
        wake(local);
    }
}

/// Gives what was put into the ring to the kernel, unless a batch is open, which will.
pub(super) fn submit_unless_batched() {
    LOCAL.with(|local| {
        if local.batch_depth.get() == 0
            && let Some(ring) = local.ring.borrow_mut().as_mut()
        {
            submit(local, ring);
        }
    });
}

fn wake(local: &Local) {
    if let Some(reaper) = local.reaper.borrow().as_ref() {
        reaper.wake_by_ref();
    }
}

pub(super) fn batch_begin() {
    LOCAL.with(|local| local.batch_depth.set(local.batch_depth.get() + 1));
}

pub(super) fn batch_end() {
    LOCAL.with(|local| {
        let depth = local.batch_depth.get() - 1;
        local.batch_depth.set(depth);
        if depth == 0
            && let Some(ring) = local.ring.borrow_mut().as_mut()
        {
            submit(local, ring);
        }
    });
}

/// Requests of this worker that the kernel has.
pub(super) fn in_flight() -> usize {
    with_ring(|ring| ring.in_flight()).unwrap_or(0)
}

/// True if requests wait for the kernel to take more.
pub(super) fn has_unsubmitted() -> bool {
    with_ring(Ring::unsubmitted).unwrap_or(false)
}

/// Calls `f` with this thread's ring. `f` must not call foreign code.
pub(super) fn with_ring<T>(f: impl FnOnce(&mut Ring) -> T) -> Option<T> {
    LOCAL.with(|local| local.ring.borrow_mut().as_mut().map(f))
}

/// Remembers whom [`wake_reaper`] wakes.
pub(super) fn set_reaper(waker: &Waker) {
    LOCAL.with(|local| {
        let mut reaper = local.reaper.borrow_mut();
        if !reaper.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *reaper = Some(waker.clone());
        }
    });
}

/// Called by the runtime when it comes back from sleep: completions are often there already, posted
/// while the kernel woke this thread, and need no second round through epoll.
pub(super) fn wake_reaper() {
    LOCAL.with(|local| {
        let there = local.ring.borrow_mut().as_mut().is_some_and(Ring::has_completions);
        if there {
            wake(local);
        }
    });
}

/// Takes up to `REAP_AT_ONCE` completions and calls them as one batch; returns how many there
/// were.
pub(super) fn reap() -> usize {
    let mut ended = LOCAL.with(|local| local.ended.take());
    let _batch = super::batch();
    let count = with_ring(|ring| ring.reap(REAP_AT_ONCE, &mut ended)).unwrap_or(0);
    for request in ended.drain(..) {
        finish(request);
    }
    LOCAL.with(|local| local.ended.set(ended));
    count
}

/// Calls one completion. A panic in it must not end the worker, on which other requests wait.
fn finish(ended: Ended) {
    if catch_unwind(AssertUnwindSafe(|| ended.finish())).is_err() {
        tracing::error!("a completion panicked; its request had ended, the worker goes on");
    }
}
