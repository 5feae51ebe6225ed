//! Waiting for a descriptor that several workers wait for, such as the clones of one /dev/fuse.
//!
//! A message there wakes everybody whom epoll watches it for; one gets it, the others have been woken for nothing. On a
//! machine with 32 workers that is 31 of them. A poll request of io_uring may be exclusive (`EPOLLEXCLUSIVE`): the kernel
//! then wakes one of those who wait, and the next message the next.
//!
//! ```text
//!   idle ── poll_ready ──► armed ── the kernel's completion ──► ready ── poll_ready, answered ──► idle
//!                            └── dropped ──► cancelled, then forgotten
//! ```
//! Prevents a message that nobody takes: arming looks at the descriptor after it has joined those who are woken; and a
//! worker that was woken is armed again only after it has found the descriptor empty (its user's part, see
//! [`Watch::readable`]).

use std::future::poll_fn;
use std::io;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, Waker};

use super::local;

/// A watch on this worker's ring. Bound to its thread.
#[derive(Debug)]
pub struct Watch {
    key: usize,
    _here: PhantomData<*const ()>,
}

impl Watch {
    /// Watches `fd`, which is kept open until the watch is dropped; `None` where this thread has no ring of a worker.
    pub fn new(fd: OwnedFd) -> Option<Watch> {
        local::current()?;
        let key = local::with_ring(|ring| ring.add_watch(fd))?;
        Some(Watch { key, _here: PhantomData })
    }

    /// Resolves when the descriptor may be readable, has an error or has been hung up. Whoever was told must read until
    /// nothing is left before asking again: others are not woken for what this worker was woken for.
    ///
    /// # Errors
    /// If the kernel refuses the poll.
    ///
    /// # Cancel safety
    /// Safe: what was not told is told to the next call.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_readable(cx)).await
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = || Poll::Ready(Err(io::Error::other("this worker's ring is closed")));
        let Some(polled) = local::with_ring(|ring| ring.poll_watch(self.key, cx)) else { return closed() };
        if polled.is_pending() {
            local::submit_unless_batched();
        }
        polled
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // A ring that is closed has forgotten it.
        local::with_ring(|ring| ring.drop_watch(self.key));
        local::submit_unless_batched();
    }
}

/// What a ring knows of one.
#[derive(Debug)]
pub(super) struct Watched {
    /// Open until the poll is no request any more.
    pub(super) fd: OwnedFd,
    pub(super) state: State,
}

#[derive(Debug)]
pub(super) enum State {
    Idle,
    /// The kernel has the poll.
    Armed(Waker),
    /// It has ended: with an errno if it was refused.
    Ready(Result<(), i32>),
    /// Nobody wants to know any more; the kernel still has the poll.
    Dropped,
}

impl Watched {
    /// The kernel's answer. Whom to wake.
    pub(super) fn completed(&mut self, result: i32) -> Option<Waker> {
        let result = if result < 0 { Err(-result) } else { Ok(()) };
        match std::mem::replace(&mut self.state, State::Ready(result)) {
            State::Armed(waker) => Some(waker),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;
    use crate::worker::{Task, Workers};

    /// Until a condition holds.
    fn wait_for(what: &str, condition: impl Fn() -> bool) {
        for _ in 0..30_000 {
            if condition() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("waited in vain: {what}");
    }

    /// A semaphore, and a worker's task that waits for it, counts how often it was told and how much it took.
    struct Bench {
        workers: Workers,
        fd: OwnedFd,
        told: Arc<AtomicUsize>,
        taken: Arc<AtomicUsize>,
    }

    impl Bench {
        fn new(workers: usize) -> (Bench, Vec<Task<()>>) {
            let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC | EventfdFlags::SEMAPHORE;
            let bench = Bench {
                workers: Workers::start(workers, "watch").unwrap(),
                fd: eventfd(0, flags).unwrap(),
                told: Arc::default(),
                taken: Arc::default(),
            };
            let tasks = (0..workers).map(|n| bench.waiter(n)).collect();
            (bench, tasks)
        }

        fn waiter(&self, worker: usize) -> Task<()> {
            let fd = self.fd.try_clone().unwrap();
            let (told, taken) = (Arc::clone(&self.told), Arc::clone(&self.taken));
            self.workers.spawn(worker, move || async move {
                let watch = Watch::new(fd.try_clone().unwrap()).expect("a worker has a ring");
                loop {
                    watch.readable().await.unwrap();
                    told.fetch_add(1, Ordering::SeqCst);
                    while rustix::io::read(&fd, &mut [0; 8]).is_ok() {
                        taken.fetch_add(1, Ordering::SeqCst);
                    }
                }
            })
        }

        fn send(&self) {
            rustix::io::write(&self.fd, &1_u64.to_ne_bytes()).unwrap();
        }
    }

    /// Both workers were woken for every message: half of all reads of /dev/fuse found nothing.
    #[test]
    fn one_message_wakes_one_worker_and_every_message_is_taken() {
        let (bench, _tasks) = Bench::new(4);
        for n in 1..=200 {
            bench.send();
            wait_for("the message is taken", || bench.taken.load(Ordering::SeqCst) == n);
        }
        // A worker that was woken before it had joined those who wait again may be told twice; four times two hundred
        // would be everybody.
        let told = bench.told.load(Ordering::SeqCst);
        assert!((200..400).contains(&told), "told {told} times of 200 messages");
    }

    #[test]
    fn messages_that_come_at_once_are_all_taken() {
        let (bench, _tasks) = Bench::new(3);
        for _ in 0..5000 {
            bench.send();
        }
        wait_for("all are taken", || bench.taken.load(Ordering::SeqCst) == 5000);
    }

    #[test]
    fn watch_that_is_dropped_lets_its_descriptor_go() {
        let workers = Workers::start(1, "watch").unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        let task = workers.spawn(0, move || async move {
            let watch = Watch::new(read).unwrap();
            let armed = tokio::time::timeout(Duration::from_millis(20), watch.readable()).await;
            assert!(armed.is_err(), "nothing to read");
            drop(watch);
        });
        task.wait().unwrap();
        // The pipe has no reader left once the kernel has forgotten the poll.
        wait_for("the pipe is closed", || rustix::io::write(&write, b"x") == Err(rustix::io::Errno::PIPE));
    }

    #[test]
    fn hang_up_is_told() {
        let workers = Workers::start(1, "watch").unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        let task = workers.spawn(0, move || async move { Watch::new(read).unwrap().readable().await });
        drop(write);
        task.wait().unwrap().unwrap();
    }

    #[test]
    fn thread_without_a_ring_has_no_watches() {
        let (read, _write) = rustix::pipe::pipe().unwrap();
        assert!(Watch::new(read.try_clone().unwrap()).is_none());
        let workers = Workers::start_without_rings(1, "watch").unwrap();
        assert!(workers.spawn(0, move || async move { Watch::new(read).is_none() }).wait().unwrap());
    }
}
