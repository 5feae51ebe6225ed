//! A connection in the full feature phase: a loop that reads, submits, takes what has ended, writes, and sleeps when there is
//! nothing of all that to do.
//!
//! ```text
//!   open ── logout request ──► logging out ── its commands have ended ──► leaving: the rest is written, then closed
//!     ├──── told to end ──────────────────────────────────────────────────►
//!     └──── end of stream, an error, a violation ──► gone: what waits to be written is thrown away
//!   all end when the device has completed everything.
//! ```
//! Invariants: a command is in `jobs` from when its unit took it in until the unit was told of its end; what the device has of
//! a job is completed before that; memory is counted from when it is made until its last byte is written or it is dropped.

mod incoming;
mod jobs;
mod manage;
mod memory;
mod outgoing;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use block::device::Io;
use iscsi::framer::{FrameError, Framer};
use iscsi::ids::Itt;
use iscsi::pdu::raw::LogoutRequest;
use slab::Slab;
use tokio::net::TcpStream;

use super::Shared;
use super::limits::MAX_OUTGOING;
use super::mailbox::{Mailbox, Note};
use super::sessions::{Counters, Place};
use crate::core::name::NexusId;
use crate::core::session::{Fx, Session};
use crate::core::unit::tasks::TaskId;
use incoming::Incoming;
use jobs::{Job, Want};
use manage::Pending;
use memory::Memory;
use outgoing::Outgoing;

/// Turns before other tasks of the worker get theirs.
const TURNS: usize = 32;

#[derive(Clone, Copy, Debug)]
enum State {
    Open,
    LoggingOut(LogoutRequest),
    Leaving,
    Gone,
}

/// Why a connection ended that the initiator had not ended itself.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Told(&'static str),
    #[error("the stream ended without a logout, with {0} commands under way")]
    Abrupt(usize),
    #[error("the initiator did not take what was left for it")]
    Slow,
}

/// See the module.
pub(super) struct Conn {
    shared: Arc<Shared>,
    stream: TcpStream,
    local: SocketAddr,
    initiator: String,
    nexus: NexusId,
    session: Session,
    state: State,
    why: Option<Ended>,
    incoming: Incoming,
    outgoing: Outgoing,
    memory: Memory,
    jobs: Slab<Job>,
    by_itt: HashMap<Itt, usize>,
    by_task: HashMap<(usize, TaskId), usize>,
    /// Jobs that are held up, and what they are; see `Server::hold_next_write` and `Server::hold_looks`.
    held: Vec<(usize, &'static str)>,
    /// Requests of units that are stuck in the disk; see `Server::stick_next_write`.
    stuck: Vec<(usize, Io)>,
    /// Who waits for memory, in turn.
    wants: VecDeque<Want>,
    waits: HashMap<u64, Pending>,
    last_wait: u64,
    mailbox: Arc<Mailbox>,
    counters: Arc<Counters>,
    /// Swapped with what is in the mailbox.
    notes: Vec<Note>,
    fx: Vec<Fx>,
}

impl Conn {
    pub(super) fn new(
        shared: Arc<Shared>,
        stream: TcpStream,
        framer: Framer,
        session: Session,
        place: &Place,
        (local, initiator): (SocketAddr, String),
        early: &[u8],
    ) -> Conn {
        Conn {
            shared,
            stream,
            local,
            initiator,
            nexus: place.id,
            incoming: Incoming::new(framer, early),
            outgoing: Outgoing::new(session.params().digests),
            session,
            state: State::Open,
            why: None,
            memory: Memory::default(),
            jobs: Slab::new(),
            by_itt: HashMap::new(),
            by_task: HashMap::new(),
            held: Vec::new(),
            stuck: Vec::new(),
            wants: VecDeque::new(),
            waits: HashMap::new(),
            last_wait: 0,
            mailbox: Arc::clone(&place.mailbox),
            counters: Arc::clone(&place.counters),
            notes: Vec::new(),
            fx: Vec::new(),
        }
    }

    /// Whether what is left is only to be written.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.state, State::Leaving)
    }

    /// The initiator has had its time. False if it has ended before.
    pub(super) fn give_up(&mut self) -> bool {
        if self.is_leaving() {
            self.gone(Ended::Slow);
            return true;
        }
        false
    }

    /// Does what there is to do. Ready when the connection is over and the device has nothing of it any more.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        for _ in 0..TURNS {
            let mut busy = self.take_notes();
            busy |= self.receive(cx);
            // A device in memory has answered already.
            busy |= self.take_notes();
            busy |= self.send(cx);
            self.end_logout();
            if self.is_over() {
                return Poll::Ready(self.why.take().map_or(Ok(()), Err));
            }
            if !busy && self.mailbox.sleep(cx) {
                self.counters.now.store(self.jobs.len(), Ordering::Relaxed);
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_over(&self) -> bool {
        match self.state {
            State::Open | State::LoggingOut(_) => false,
            State::Leaving => self.jobs.is_empty() && self.outgoing.len() == 0,
            State::Gone => self.jobs.is_empty(),
        }
    }

    fn gone(&mut self, why: Ended) {
        self.state = State::Gone;
        self.why.get_or_insert(why);
        let freed = self.outgoing.clear();
        self.memory.free(freed);
        self.drop_jobs();
    }

    /// A logout is answered when nothing of the session is left.
    fn end_logout(&mut self) {
        if let State::LoggingOut(request) = self.state
            && self.jobs.is_empty()
        {
            self.session.logged_out(request.itt.get(), 0, &mut self.fx);
            self.apply();
            self.state = State::Leaving;
        }
    }

    /// Reads once, and works on what is there. True if something was read.
    fn receive(&mut self, cx: &mut Context<'_>) -> bool {
        if !matches!(self.state, State::Open) || self.outgoing.len() >= MAX_OUTGOING {
            return false;
        }
        if self.work() {
            return true;
        }
        match self.incoming.poll_read(cx, &self.stream, &mut self.memory) {
            Poll::Pending => false,
            Poll::Ready(Ok(0)) => {
                self.gone(Ended::Abrupt(self.session.tasks()));
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

    /// Takes PDUs as far as they are there; what they lead to goes to the kernel together. True if it stopped before the
    /// end, because too much waits to be written.
    fn work(&mut self) -> bool {
        let _batch = block::worker::batch();
        while matches!(self.state, State::Open) {
            if self.outgoing.len() >= MAX_OUTGOING {
                return true;
            }
            match self.incoming.next(&self.session, &mut self.memory) {
                Ok(None) => return false,
                Ok(Some((bhs, intact))) => {
                    let (ahs, inline) = self.incoming.rest();
                    self.session.take(&bhs, ahs, inline, intact, &mut self.fx);
                    self.apply();
                }
                Err(error) => self.gone(error.into()),
            }
        }
        false
    }

    /// Does what the session wants done.
    fn apply(&mut self) {
        while !self.fx.is_empty() {
            for fx in std::mem::take(&mut self.fx) {
                match fx {
                    Fx::Send(bhs, body) => self.push(&bhs, body),
                    Fx::Command { itt, lun, cdb, order, announced } => {
                        self.command(itt, lun, &cdb, (order, announced));
                    }
                    Fx::Solicit(itt) => self.wants.push_back(Want::Solicit(itt)),
                    Fx::Ready(itt, len) => self.ready(itt, len),
                    Fx::Failed(itt) => self.failed(itt),
                    Fx::Manage(request) => self.manage(request),
                    Fx::SendTargets { itt, value } => self.send_targets(itt, &value),
                    Fx::Logout(request) => {
                        self.state = State::LoggingOut(request);
                        self.drop_jobs();
                    }
                    Fx::Close(why) => self.gone(Ended::Told(why)),
                }
            }
            self.grant();
        }
    }

    fn push(&mut self, bhs: &iscsi::pdu::Bhs, body: bytes::Bytes) {
        if !matches!(self.state, State::Gone) {
            self.outgoing.push(bhs, body, 0);
        }
    }

    /// Takes what others have put into the mailbox.
    fn take_notes(&mut self) -> bool {
        let mut notes = std::mem::take(&mut self.notes);
        self.mailbox.take(&mut notes);
        let any = !notes.is_empty();
        let _batch = any.then(block::worker::batch);
        for note in notes.drain(..) {
            match note {
                Note::Done(key, done) => self.done(key, done),
                Note::Extents(key, found) => self.found(key, found),
                Note::Stored(key, result) => self.stored(key, result),
                Note::Run(unit, task) => self.woken(unit, task),
                Note::Abort(unit, task) => self.aborted(unit, task),
                Note::Over(wait) => self.over(wait),
                Note::LetGo => self.let_go(),
                Note::End(why) => self.told_to_end(why),
                Note::AskLogout(seconds) => self.session.announce(1, seconds, &mut self.fx),
            }
            self.apply();
        }
        self.notes = notes;
        self.grant();
        any
    }

    fn told_to_end(&mut self, why: &'static str) {
        if matches!(self.state, State::Open | State::LoggingOut(_)) {
            self.why.get_or_insert(Ended::Told(why));
            self.session.announce(2, 0, &mut self.fx);
            self.apply();
            self.state = State::Leaving;
            self.drop_jobs();
        }
    }

    /// Writes what there is. True if something was written.
    fn send(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while self.outgoing.len() > 0 && !matches!(self.state, State::Gone) {
            match self.outgoing.poll_write(cx, &self.stream) {
                Poll::Pending => break,
                Poll::Ready(Ok(freed)) => {
                    self.memory.free(freed);
                    any = true;
                }
                Poll::Ready(Err(error)) => self.gone(error.into()),
            }
        }
        if any {
            self.grant();
        }
        any
    }
}
