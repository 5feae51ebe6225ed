//! A worker's io_uring: requests go in, ended ones come out.
//!
//! Owns every request, with its buffer and its file, from [`Ring::start`] until the kernel has
//! completed it. That is what makes the raw pointers in the queue entries valid. If a ring is dropped
//! while the kernel still has requests (only when a worker gives up on a stuck one, or panics), their
//! memory is leaked, never freed.
//!
//! The ring is used by its worker's thread alone. SINGLE_ISSUER is not set: it gained nothing when
//! measured. COOP_TASKRUN is: the worker enters the kernel often enough by itself, so completions need not
//! interrupt it.

#![allow(unsafe_code)]
// Reason: queue entries carry raw pointers, and AsyncFd::register asks for a promise about the fd.

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, Waker};

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, opcode, squeue};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use slab::Slab;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::watch::{State, Watched};
use crate::error::IoError;
use crate::file::transfer::{Step, Transfer, Verdict};

/// Entries that can be collected before a system call: a whole batch of FUSE requests. More only
/// cost a call each 256.
const SUBMISSION_ENTRIES: u32 = 256;
/// Room for completions. Who submits bounds what is in flight; beyond this the kernel keeps
/// completions in memory of its own, none is lost.
const COMPLETION_ENTRIES: u32 = 4096;

/// Marks the numbers of watches among those of requests.
const WATCH: u64 = 1 << 63;
/// The number of an entry whose completion says nothing.
const IGNORED: u64 = u64::MAX;

pub(crate) struct Ring {
    uring: ManuallyDrop<IoUring>,
    in_flight: ManuallyDrop<Slab<Transfer>>,
    watches: Slab<Watched>,
    /// Requests that found the submission queue full and the kernel busy.
    backlog: VecDeque<usize>,
}

/// What is to be called now that the ring is not borrowed.
pub(crate) enum Ended {
    /// The completion of a request that has ended.
    Request(Transfer, Result<(), IoError>),
    /// Whoever waits for a descriptor.
    Watch(Waker),
}

impl Ended {
    pub(crate) fn finish(self) {
        match self {
            Ended::Request(transfer, result) => transfer.finish(result),
            Ended::Watch(waker) => waker.wake(),
        }
    }
}

impl Ring {
    pub(crate) fn new() -> io::Result<Ring> {
        let mut uring = IoUring::builder()
            .setup_cqsize(COMPLETION_ENTRIES)
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .build(SUBMISSION_ENTRIES)?;
        prove(&mut uring)?;
        Ok(Ring {
            uring: ManuallyDrop::new(uring),
            in_flight: ManuallyDrop::new(Slab::with_capacity(SUBMISSION_ENTRIES as usize)),
            watches: Slab::new(),
            backlog: VecDeque::new(),
        })
    }

    /// A future-capable watch on the ring's descriptor: readable when completions are there.
    pub(crate) fn watch(&self) -> io::Result<AsyncFd<OwnedFd>> {
        // SAFETY: the ring's descriptor is open as long as `self`.
        let ring = unsafe { BorrowedFd::borrow_raw(self.uring.as_raw_fd()) };
        let own = ring.try_clone_to_owned()?;
        // SAFETY: the AsyncFd owns the descriptor, an OwnedFd always answers the same number, and
        // nobody else closes it or gives it another description.
        unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) }.map_err(io::Error::from)
    }

    /// Waits until completions are there or `bell` rings. May return early.
    pub(crate) fn wait(&self, bell: BorrowedFd<'_>, bound: Option<&Timespec>) {
        // SAFETY: the ring's descriptor is open as long as `self`.
        let ring = unsafe { BorrowedFd::borrow_raw(self.uring.as_raw_fd()) };
        let mut watched =
            [PollFd::from_borrowed_fd(ring, PollFlags::IN), PollFd::from_borrowed_fd(bell, PollFlags::IN)];
        // Interrupted or short of memory: the caller looks and comes back.
        let _ = poll(&mut watched, bound);
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Takes the request over. The kernel sees it at the next [`submit`](Self::submit).
    pub(crate) fn start(&mut self, transfer: Transfer) {
        let key = self.in_flight.insert(transfer);
        self.push(key);
    }

    fn push(&mut self, key: usize) {
        let entry = entry_for(&mut self.in_flight[key]).user_data(key as u64);
        if !self.push_or_submit(&entry) {
            self.backlog.push_back(key);
        }
    }

    /// A descriptor to be watched.
    pub(super) fn add_watch(&mut self, fd: OwnedFd) -> usize {
        self.watches.insert(Watched { fd, state: State::Idle })
    }

    /// Arms a watch, or tells what came of it.
    pub(super) fn poll_watch(&mut self, key: usize, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match std::mem::replace(&mut self.watches[key].state, State::Idle) {
            State::Ready(result) => return Poll::Ready(result.map_err(io::Error::from_raw_os_error)),
            State::Armed(_) => {}
            State::Idle | State::Dropped => {
                let fd = Fd(self.watches[key].fd.as_raw_fd());
                let events = (libc::EPOLLIN | libc::EPOLLEXCLUSIVE).cast_unsigned();
                let entry = opcode::PollAdd::new(fd, events).build().user_data(WATCH | key as u64);
                if !self.push_or_submit(&entry) {
                    // The kernel takes nothing at the moment: asked again at once.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
        self.watches[key].state = State::Armed(cx.waker().clone());
        Poll::Pending
    }

    /// Forgets a watch, once the kernel has.
    pub(super) fn drop_watch(&mut self, key: usize) {
        if !matches!(self.watches[key].state, State::Armed(_)) {
            self.watches.remove(key);
            return;
        }
        self.watches[key].state = State::Dropped;
        let entry = opcode::PollRemove::new(WATCH | key as u64).build().user_data(IGNORED);
        if !self.push_or_submit(&entry) {
            tracing::warn!("io_uring takes no requests; a descriptor stays open until its worker ends");
        }
    }

    fn watch_completed(&mut self, key: usize, result: i32, ended: &mut Vec<Ended>) {
        let Some(watched) = self.watches.get_mut(key) else { return };
        if matches!(watched.state, State::Dropped) {
            self.watches.remove(key);
            return;
        }
        ended.extend(watched.completed(result).map(Ended::Watch));
    }

    fn push_or_submit(&mut self, entry: &squeue::Entry) -> bool {
        self.try_push(entry) || {
            self.submit();
            self.try_push(entry)
        }
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: the entry points into the buffer of a transfer in `in_flight` (or into a static
        // buffer), which stays there, unmoved, until the kernel's completion for it was taken; the
        // descriptor is kept open by the same transfer. That of a watch is kept open by its place in
        // `watches` until its completion, and it points nowhere.
        unsafe { self.uring.submission().push(entry) }.is_ok()
    }

    /// Gives what was started to the kernel. What it cannot take now stays queued: see
    /// [`unsubmitted`](Self::unsubmitted).
    pub(crate) fn submit(&mut self) {
        if self.uring.submission().is_empty() {
            return;
        }
        match self.uring.submit() {
            Ok(_) => {}
            Err(error) if is_busy(&error) => {}
            Err(error) => tracing::error!("io_uring does not take requests: {error}; trying again"),
        }
    }

    /// True if something waits for a later [`submit`](Self::submit).
    pub(crate) fn unsubmitted(&mut self) -> bool {
        !self.backlog.is_empty() || !self.uring.submission().is_empty()
    }

    /// True if completions wait to be taken. No system call.
    pub(crate) fn has_completions(&mut self) -> bool {
        !self.uring.completion().is_empty()
    }

    /// Takes at most `max` completions, appends the requests that ended and pushes those again that
    /// need another step. Returns how many completions there were.
    pub(crate) fn reap(&mut self, max: usize, ended: &mut Vec<Ended>) -> usize {
        let mut taken = 0;
        while taken < max {
            let Some(cqe) = self.uring.completion().next() else { break };
            taken += 1;
            if cqe.user_data() == IGNORED {
                continue;
            }
            if cqe.user_data() & WATCH != 0 {
                self.watch_completed((cqe.user_data() & !WATCH) as usize, cqe.result(), ended);
                continue;
            }
            let key = cqe.user_data() as usize;
            let Some(transfer) = self.in_flight.get_mut(key) else {
                debug_assert!(false, "the kernel completed a request that nobody started");
                continue;
            };
            // A result is never below -4095, so its negation cannot overflow.
            let result = u32::try_from(cqe.result()).map_err(|_| -cqe.result());
            match transfer.on_result(result) {
                Verdict::Again => self.push(key),
                Verdict::End(result) => ended.push(Ended::Request(self.in_flight.remove(key), result)),
            }
        }
        while let Some(&key) = self.backlog.front() {
            let entry = entry_for(&mut self.in_flight[key]).user_data(key as u64);
            if !self.try_push(&entry) {
                break;
            }
            self.backlog.pop_front();
        }
        taken
    }
}

/// Sends a request that does nothing around. Prevents: a filter that allows io_uring_setup and refuses io_uring_enter, and
/// every request waits for ever.
fn prove(uring: &mut IoUring) -> io::Result<()> {
    let nothing = opcode::Nop::new().build().user_data(IGNORED);
    // SAFETY: the entry points nowhere.
    let pushed = unsafe { uring.submission().push(&nothing) };
    pushed.map_err(io::Error::other)?;
    while let Err(error) = uring.submit_and_wait(1) {
        if !is_busy(&error) {
            return Err(error);
        }
    }
    let answer = uring.completion().next().map_or(0, |cqe| cqe.result());
    if answer < 0 { Err(io::Error::from_raw_os_error(-answer)) } else { Ok(()) }
}

fn is_busy(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY | libc::EINTR))
}

/// The queue entry of the transfer's next step.
fn entry_for(transfer: &mut Transfer) -> squeue::Entry {
    let fd = Fd(transfer.file().as_fd().as_raw_fd());
    match transfer.step() {
        // Lengths fit: Geometry::check refuses more than MAX_TRANSFER.
        Step::Read { at, buf } => opcode::Read::new(fd, buf.as_mut_ptr(), buf.len() as u32).offset(at).build(),
        Step::Write { at, buf, fua } => opcode::Write::new(fd, buf.as_ptr(), buf.len() as u32)
            .offset(at)
            .rw_flags(if fua { libc::RWF_DSYNC } else { 0 })
            .build(),
        Step::SyncData => opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build(),
        Step::Fallocate { mode, at, len } => {
            opcode::Fallocate::new(fd, len).offset(at).mode(mode.bits().cast_signed()).build()
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let stuck = self.in_flight.len();
        // SAFETY: dropped here only, once.
        unsafe { ManuallyDrop::drop(&mut self.uring) };
        if stuck == 0 {
            // SAFETY: dropped here only, once; the kernel has no request that points into it.
            unsafe { ManuallyDrop::drop(&mut self.in_flight) };
        } else {
            tracing::error!("{stuck} requests are still in the kernel; their memory is leaked, not reused");
        }
    }
}
