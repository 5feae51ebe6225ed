//! A ring for a thread that is no worker and waits for whole batches: no hand-over, one system call
//! to submit, one to wait.
//!
//! The ring takes requests only while [`drive`] runs, because only then somebody takes its completions;
//! at other times the thread's requests go to the workers. `drive` returns when the batch is done *and* the ring is
//! empty. A single request needs no ring: see [`alone`].

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::{self, ThreadId};

use rustix::event::{EventfdFlags, Timespec, eventfd};

use super::local;
use super::ring::Ring;

/// Pause before the kernel is asked again to take requests it had no room for.
const BUSY_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// Keeps this thread's ring. Bound to its thread.
pub(crate) struct Attached {
    _here: PhantomData<*const ()>,
}

/// Wakes a thread in [`drive`] when a request of its batch completed elsewhere.
pub(crate) struct Bell {
    eventfd: OwnedFd,
    owner: ThreadId,
}

impl Attached {
    /// Gives this thread a ring. An error if io_uring is refused or the thread has a ring already.
    pub(crate) fn new() -> io::Result<Attached> {
        if !local::attach(Ring::new()?) {
            return Err(io::Error::other("this thread has a ring already"));
        }
        Ok(Attached { _here: PhantomData })
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        drop(local::uninstall());
    }
}

impl Bell {
    pub(crate) fn new() -> io::Result<Bell> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Bell { eventfd, owner: thread::current().id() })
    }

    /// Rings, unless this is the thread that would be woken.
    pub(crate) fn ring(&self) {
        if thread::current().id() != self.owner {
            // Fails only at 2^64 rings, and then it is ringing.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
    }
}

/// True if this thread has an attached ring.
pub(crate) fn is_attached() -> bool {
    local::current().is_none() && local::with_ring(|_| ()).is_some()
}

/// Runs `submit`, which starts one request that this thread then waits for: a file's request is carried out by plain system
/// calls before `submit` returns. A ring would hand a flush to a thread of the kernel, and that wakes this one again.
pub(crate) fn alone(submit: impl FnOnce()) {
    struct Alone;
    impl Drop for Alone {
        fn drop(&mut self) {
            local::set_alone(false);
        }
    }
    local::set_alone(true);
    let _alone = Alone;
    submit();
}

/// Runs `submit` with this thread's attached ring open for its requests, then takes completions until
/// `done` says so and the ring is empty.
pub(crate) fn drive(bell: &Bell, submit: impl FnOnce(), done: impl Fn() -> bool) {
    struct Driven;
    impl Drop for Driven {
        fn drop(&mut self) {
            local::set_driven(false);
        }
    }
    local::set_driven(true);
    let _driven = Driven;
    {
        let _batch = super::batch();
        submit();
    }
    loop {
        while local::reap() > 0 {}
        if local::in_flight() == 0 && done() {
            return;
        }
        let bound = local::has_unsubmitted().then_some(&BUSY_PAUSE);
        local::with_ring(|ring| ring.wait(bell.eventfd.as_fd(), bound));
        drop(super::batch());
    }
}
