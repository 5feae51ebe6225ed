//! One connection in the transmission phase: a loop that reads, submits, takes what has ended, writes, and sleeps when
//! there is nothing of all that to do.
//!
//! ```text
//!   open ──► leaving: DISC, an end of the server, of the export     no further request is read; answers go out
//!     └────► gone:    end of stream, an error, a violation          answers are thrown away
//!   both end when the device has completed everything.
//! ```
//! Invariants: a request is in `jobs` from its submission to its answer, and counts (with its memory) until its reply is
//! written or thrown away; a write whose payload did not come whole is never submitted; while requests or memory are at
//! their bound nothing is read, so the bound holds whatever the client sends.

mod submit;

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use block::{AlignedBuf, IoError, IoErrorKind};
use slab::Slab;

use super::incoming::Incoming;
use super::mailbox::{Answer, Mailbox};
use super::outgoing::{Freed, Outgoing, Tail};
use super::pace::Pace;
use super::socket::Socket;
use crate::nbd::core::plan::{Next, Plan, Trouble};
use crate::nbd::core::transmission::{Command, Head, Order, Refusal, Request, Stretch, Tag, Transmission, Violation};
use crate::nbd::core::wire::Errno;
use crate::nbd::export::Export;
use crate::nbd::limits::{MAX_BYTES_IN_FLIGHT, MAX_REQUESTS_IN_FLIGHT};

/// Turns before other tasks of the worker get theirs.
const TURNS: usize = 32;

/// A request in the device.
#[derive(Debug)]
struct Job {
    request: Request,
    /// Absent for BLOCK_STATUS.
    plan: Option<Plan>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Leaving,
    Gone,
}

/// Why a connection ended that the client had not ended itself.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("{0}")]
    Violation(#[from] Violation),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the stream ended without a word, with {0} requests under way")]
    Abrupt(usize),
    #[error("the client did not take its answers")]
    Slow,
}

/// See the module.
pub(super) struct Conn {
    socket: Socket,
    core: Transmission,
    export: Arc<Export>,
    state: State,
    why: Option<Ended>,
    incoming: Incoming,
    outgoing: Outgoing,
    flushed: bool,
    pace: Pace,
    jobs: Slab<Job>,
    mailbox: Arc<Mailbox>,
    /// Swapped with what is in the mailbox.
    answers: Vec<(usize, Answer)>,
    /// A request whose payload is being received, or for which there is no room yet.
    next: Option<Request>,
    /// Whether `next` has its room.
    admitted: bool,
    requests: usize,
    memory: u64,
}

impl Conn {
    pub(super) fn new(socket: Socket, core: Transmission, export: Arc<Export>, early: &[u8]) -> Conn {
        Conn {
            incoming: Incoming::new(core.header_len(), early),
            socket,
            core,
            export,
            state: State::Open,
            why: None,
            outgoing: Outgoing::default(),
            flushed: true,
            pace: Pace::default(),
            jobs: Slab::new(),
            mailbox: Arc::default(),
            answers: Vec::new(),
            next: None,
            admitted: false,
            requests: 0,
            memory: 0,
        }
    }

    /// No further request is read from here on.
    pub(super) fn leave(&mut self) {
        if self.state == State::Open {
            self.state = State::Leaving;
        }
    }

    /// The client has had its time.
    pub(super) fn give_up(&mut self) {
        self.gone(Ended::Slow);
    }

    /// Does what there is to do. Ready when the connection is over and the device has nothing of it any more.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        for _ in 0..TURNS {
            let mut busy = self.take_answers();
            busy |= self.receive(cx);
            // A device in memory has answered already.
            busy |= self.take_answers();
            busy |= self.send(cx);
            if self.is_over() {
                return self.close(cx);
            }
            if !busy && (self.jobs.is_empty() || self.mailbox.sleep(cx)) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_over(&self) -> bool {
        match self.state {
            State::Open => false,
            State::Leaving => self.jobs.is_empty() && self.outgoing.is_empty() && self.flushed,
            State::Gone => self.jobs.is_empty(),
        }
    }

    fn close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        if self.state == State::Leaving
            && let Poll::Pending = self.socket.poll_shutdown(cx)
        {
            return Poll::Pending;
        }
        Poll::Ready(self.why.take().map_or(Ok(()), Err))
    }

    fn gone(&mut self, why: Ended) {
        self.state = State::Gone;
        self.why.get_or_insert(why);
        self.outgoing.clear();
        self.next = None;
    }

    /// Reads once, and works on what is there. True if something was read.
    fn receive(&mut self, cx: &mut Context<'_>) -> bool {
        // What had no room may have some now; then what was read behind it is there, too.
        if !self.work() || self.state != State::Open {
            return false;
        }
        match self.incoming.poll_read(cx, &mut self.socket) {
            Poll::Pending => false,
            Poll::Ready(Ok(0)) if self.requests == 0 && self.next.is_none() => {
                // Without DISC, but nothing is lost by it.
                self.state = State::Gone;
                true
            }
            Poll::Ready(Ok(0)) => {
                self.gone(Ended::Abrupt(self.requests));
                true
            }
            Poll::Ready(Ok(_)) => {
                self.work();
                true
            }
            Poll::Ready(Err(error)) => {
                self.gone(error.into());
                true
            }
        }
    }

    /// Takes requests as far as they are there and have room; what they submit goes to the kernel together. True if
    /// more is to be read.
    fn work(&mut self) -> bool {
        let _batch = block::worker::batch();
        while self.state == State::Open {
            let Some(request) = self.next else {
                if self.requests >= MAX_REQUESTS_IN_FLIGHT {
                    return false;
                }
                let Some(header) = self.incoming.header() else { return true };
                match self.core.request(&header) {
                    Ok(order) => self.take_order(order),
                    Err(violation) => self.gone(violation.into()),
                }
                continue;
            };
            if !self.admitted && !self.admit(request) {
                return false;
            }
            if request.command.payload() > 0 {
                let Some(payload) = self.incoming.payload() else { return true };
                self.begin(request, Some(payload));
            } else {
                self.begin(request, None);
            }
        }
        false
    }

    fn take_order(&mut self, order: Order) {
        match order {
            Order::Do(request) => {
                self.next = Some(request);
                self.admitted = false;
            }
            Order::Refuse { tag, refusal, skip } => {
                self.incoming.skip(skip);
                self.requests += 1;
                self.refuse(tag, refusal, 0);
            }
            Order::Leave => self.state = State::Leaving,
        }
    }

    /// Makes room for a request's memory.
    fn admit(&mut self, request: Request) -> bool {
        let memory = request.command.memory();
        if self.memory != 0 && self.memory + memory > MAX_BYTES_IN_FLIGHT {
            return false;
        }
        self.requests += 1;
        self.memory += memory;
        self.admitted = true;
        match request.command.payload() {
            0 => self.incoming.no_payload(),
            len => self.incoming.begin_payload(len),
        }
        true
    }

    /// Begins a request whose payload is there.
    fn begin(&mut self, request: Request, payload: Option<AlignedBuf>) {
        self.next = None;
        let Request { tag, command } = request;
        match command {
            Command::Status { len, one } => self.status(request, len, one),
            Command::StatusOf { one } => {
                let payload = payload.as_deref().unwrap_or_default();
                match self.core.status_payload(tag, one, payload) {
                    Ok(Command::Status { len, one }) => self.status(request, len, one),
                    Ok(_) => self.answer(request, Ok(())),
                    Err(refusal) => self.refuse(tag, refusal, command.memory()),
                }
            }
            Command::Nothing => self.answer(request, Ok(())),
            _ => match Plan::begin(command, || self.export.abilities()) {
                Next::Ask(plan) => self.submit(request, plan, payload),
                Next::Answer(result) => self.answer(request, result),
            },
        }
    }

    /// Takes what the device has answered.
    fn take_answers(&mut self) -> bool {
        if self.jobs.is_empty() {
            return false;
        }
        let mut answers = std::mem::take(&mut self.answers);
        self.mailbox.take(&mut answers);
        let any = !answers.is_empty();
        let _batch = any.then(block::worker::batch);
        for (key, answer) in answers.drain(..) {
            let Some(job) = self.jobs.try_remove(key) else { continue };
            match answer {
                Answer::Io(done) => self.completed(job, done.result, done.buf),
                Answer::Extents(found) => self.found(job.request, found),
            }
        }
        self.answers = answers;
        any
    }

    fn completed(&mut self, job: Job, result: Result<(), IoError>, buf: Option<AlignedBuf>) {
        let request = job.request;
        if let Err(error) = &result {
            tracing::debug!(export = self.export.name(), "{error}");
        }
        let Some(plan) = job.plan else { return };
        match (plan.next(result.map_err(|error| trouble(error.kind))), request.command, buf) {
            (Next::Ask(plan), _, _) => self.submit(request, plan, None),
            (Next::Answer(Ok(())), Command::Read { len }, Some(buf)) => {
                self.reply(self.core.data(request.tag, len), Tail::Data(buf), request.command.memory());
            }
            (Next::Answer(result), _, _) => self.answer(request, result),
        }
    }

    fn found(&mut self, request: Request, found: Result<Vec<block::Extent>, IoError>) {
        let stretches: Vec<Stretch> = match found {
            Ok(extents) if !extents.is_empty() => {
                extents.iter().map(|e| Stretch { len: e.len.0, hole: e.hole, zero: e.zero }).collect()
            }
            Ok(_) => return self.refuse(request.tag, NO_STATUS, request.command.memory()),
            Err(error) => {
                tracing::warn!(export = self.export.name(), "where data lie: {error}");
                return self.refuse(request.tag, NO_STATUS, request.command.memory());
            }
        };
        let (head, data) = self.core.extents(request.tag, &stretches);
        self.reply(head, Tail::Bytes(data), request.command.memory());
    }

    fn answer(&mut self, request: Request, result: Result<(), Refusal>) {
        match result {
            Ok(()) => self.reply(self.core.done(request.tag), Tail::Nothing, request.command.memory()),
            Err(refusal) => self.refuse(request.tag, refusal, request.command.memory()),
        }
    }

    fn refuse(&mut self, tag: Tag, refusal: Refusal, memory: u64) {
        let (head, why) = self.core.error(tag, refusal);
        self.reply(head, if why.is_empty() { Tail::Nothing } else { Tail::Text(why) }, memory);
    }

    fn reply(&mut self, head: Head, tail: Tail, memory: u64) {
        if self.state == State::Gone {
            return;
        }
        let len = self.outgoing.push(head, tail, memory);
        if let Some(bytes) = self.pace.answers(len) {
            self.socket.set_send_buffer(bytes);
        }
    }

    /// Writes what there is. True if something was written.
    fn send(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while !self.outgoing.is_empty() && self.state != State::Gone {
            let (outgoing, socket) = (&self.outgoing, &mut self.socket);
            match outgoing.lend(|slices| socket.poll_write(cx, slices)) {
                Poll::Pending => break,
                Poll::Ready(Ok(n)) => {
                    let Freed { requests, memory } = self.outgoing.advance(n);
                    self.requests -= requests;
                    self.memory -= memory;
                    self.flushed = false;
                    any = true;
                }
                Poll::Ready(Err(error)) => self.gone(error.into()),
            }
        }
        if !self.flushed && self.state != State::Gone {
            match self.socket.poll_flush(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.flushed = true,
                Poll::Ready(Err(error)) => self.gone(error.into()),
            }
        }
        any
    }
}

const NO_STATUS: Refusal = Refusal { errno: Errno::Eio, why: "the device cannot tell where its data lie" };

/// A device's error as the plan knows it.
fn trouble(kind: IoErrorKind) -> Trouble {
    match kind {
        IoErrorKind::NotSupported => Trouble::NotSupported,
        IoErrorKind::ReadOnly => Trouble::ReadOnly,
        IoErrorKind::NoSpace | IoErrorKind::OutOfRange => Trouble::NoSpace,
        IoErrorKind::Misaligned => Trouble::Invalid,
        IoErrorKind::ShuttingDown => Trouble::Closing,
        _ => Trouble::Failed,
    }
}
