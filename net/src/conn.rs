//! One open connection: calls out, answers in, and its end.
//!
//! A `Conn` is the part that everybody shares; the tasks that move its bytes are in `driver.rs`. Its locks are
//! held for a few instructions each, never two at once, and never across an await.
//!
//! A call pays its cost (one call, so many KiB) before it is queued and gets it back when its *answer* comes,
//! not when its caller stops waiting: a caller that gives up does not let the peer be flooded.
//!
//! The end comes once: the first reason wins, every outstanding call is completed with it, later ones fail
//! with it. Interleaving prevented: a call that is opened while the connection closes either finds the slab
//! closed or is in it when the slab is emptied, under the same lock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{AcquireError, Semaphore, TryAcquireError, oneshot, watch};

use crate::budget::{Budget, OverBudget};
use crate::calls::{Answered, Calls, UnknownRequest};
use crate::error::{CallError, CloseReason};
use crate::frame::Kind;
use crate::hello::Agreed;
use crate::limits::{MAX_CALLS, MAX_CALLS_KIB};
use crate::message::Message;
use crate::outbox::{NotQueued, Outbox};
use crate::outgoing::OutFrame;
use crate::service::{PeerHello, PeerIdentity, Role};

type Answer = Result<Message, CallError>;

/// Who gets an answer.
enum Taker {
    /// A future.
    Waits(oneshot::Sender<Answer>),
    /// A function, called by the reader or by whoever ends the connection.
    Called(Box<dyn FnOnce(Answer) + Send>),
}

impl Taker {
    fn take(self, answer: Answer) {
        match self {
            // The caller may have just gone; then nobody wants it.
            Taker::Waits(waiter) => drop(waiter.send(answer)),
            Taker::Called(then) => then(answer),
        }
    }
}

/// A call that waits for its answer, and what it paid.
struct Waiter {
    taker: Taker,
    cost: u32,
}

/// A call that [`Conn::call_then`] could not queue at once; as it was given.
pub struct NotNow<F> {
    /// What was to be asked.
    pub msg: Message,
    /// Who was to be told.
    pub then: F,
}

/// Bytes moved, for the keep-alive.
#[derive(Default)]
pub(crate) struct Traffic {
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
}

/// An open connection to a peer that both ends have accepted. Usable from any thread and any runtime.
pub struct Conn {
    id: u64,
    hello: PeerHello,
    agreed: Agreed,
    slots: Semaphore,
    kib: Semaphore,
    calls: Mutex<Calls<Waiter>>,
    inbound: Mutex<Budget>,
    pub(crate) outbox: Outbox,
    pub(crate) traffic: Traffic,
    open: AtomicBool,
    closed: watch::Sender<Option<CloseReason>>,
}

impl Conn {
    pub(crate) fn new(id: u64, hello: PeerHello, agreed: Agreed) -> Arc<Self> {
        Arc::new(Self {
            id,
            hello,
            agreed,
            slots: Semaphore::new(MAX_CALLS),
            kib: Semaphore::new(MAX_CALLS_KIB as usize),
            calls: Mutex::new(Calls::new(MAX_CALLS)),
            inbound: Mutex::new(Budget::default()),
            outbox: Outbox::default(),
            traffic: Traffic::default(),
            open: AtomicBool::new(true),
            closed: watch::Sender::new(None),
        })
    }

    /// A number that no other connection of this process has.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Who the peer is.
    pub fn peer(&self) -> &PeerIdentity {
        &self.hello.identity
    }

    /// What the peer said at HELLO.
    pub fn hello(&self) -> &PeerHello {
        &self.hello
    }

    /// Where the peer is.
    pub fn remote(&self) -> SocketAddr {
        self.hello.remote
    }

    /// Which end we are.
    pub fn role(&self) -> Role {
        self.hello.role
    }

    /// The features that both ends have.
    pub fn features(&self) -> u64 {
        self.agreed.features
    }

    /// False from the moment it begins to close.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Calls not yet answered by the peer, those that nobody waits for any more included.
    pub fn outstanding(&self) -> usize {
        self.calls.lock().taken()
    }

    /// Asks the peer and waits for its answer. Waits first while [`crate::limits::MAX_CALLS`] or
    /// [`crate::limits::MAX_CALLS_KIB`] are used up. Calls in flight together are not ordered.
    ///
    /// # Errors
    /// `TooLarge` before anything is sent; `Closed` when the connection ends, whether or not the request was
    /// executed; `Unanswered` when the peer says that it has no answer.
    ///
    /// # Cancel safety
    /// Safe to drop at any moment. Before the call is queued nothing was sent; afterwards the request is sent
    /// and may be executed, its answer is discarded when it comes, and its slot and cost are used until then.
    pub async fn call(&self, msg: Message) -> Result<Message, CallError> {
        msg.check()?;
        let cost = msg.cost_kib();
        self.pay(cost).await.map_err(|_| self.closed_error())?;
        let (tx, answer) = oneshot::channel();
        let call = self.open_call(Waiter { taker: Taker::Waits(tx), cost })?;
        let frame = OutFrame::message(Kind::Request, call.id, msg);
        if self.outbox.push(frame).is_err() {
            return Err(self.closed_error());
        }
        let answer = answer.await;
        call.answered();
        answer.unwrap_or_else(|_| Err(self.closed_error()))
    }

    /// Asks the peer without waiting and without a task: `then` is called once, with what [`Conn::call`] would have
    /// returned. It is called on the connection's reader, or by whoever ends the connection, or before this returns;
    /// it must not block.
    ///
    /// # Errors
    /// [`NotNow`] while the limits of [`Conn::call`] are used up: nothing was sent, and it is for the caller to wait.
    pub fn call_then<F>(&self, msg: Message, then: F) -> Result<(), NotNow<F>>
    where
        F: FnOnce(Result<Message, CallError>) + Send + 'static,
    {
        let cost = msg.cost_kib();
        match msg.check().map(|()| self.pay_now(cost)) {
            Err(too_large) => then(Err(too_large)),
            Ok(Err(TryAcquireError::NoPermits)) => return Err(NotNow { msg, then }),
            Ok(Err(TryAcquireError::Closed)) => then(Err(self.closed_error())),
            Ok(Ok(())) => {
                let opened = self.calls.lock().open(Waiter { taker: Taker::Called(Box::new(then)), cost });
                match opened {
                    // If it is refused, the connection is ending, and its end completes every call that was opened.
                    Ok(id) => drop(self.outbox.push(OutFrame::message(Kind::Request, id, msg))),
                    Err((_, waiter)) => waiter.taker.take(Err(self.closed_error())),
                }
            }
        }
        Ok(())
    }

    /// Sends a message that has no answer. Never waits; whether it arrives is not told.
    ///
    /// # Errors
    /// `Full` and `TooLarge`: nothing was queued. `Closed`.
    pub fn post(&self, msg: Message) -> Result<(), CallError> {
        msg.check()?;
        self.outbox.push(OutFrame::message(Kind::Oneway, 0, msg)).map_err(|e| match e {
            NotQueued::Full => CallError::Full,
            NotQueued::Closed | NotQueued::Overflow => self.closed_error(),
        })
    }

    /// Closes the connection: outstanding calls fail now, answers already queued still go out (at most
    /// [`crate::limits::CLOSE_GRACE`]), and the peer is told this sentence.
    pub fn close(&self, why: &str) {
        self.end(CloseReason::Local(why.to_owned()));
    }

    /// Waits until the connection has ended; its reason.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn closed(&self) -> CloseReason {
        let mut seen = self.closed.subscribe();
        match seen.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(why)) => why.clone(),
            // The sender lives in `self`; it cannot be gone.
            Ok(None) | Err(_) => CloseReason::Reset,
        }
    }

    /// Pays for a call; given back by [`Conn::refund`].
    async fn pay(&self, cost: u32) -> Result<(), AcquireError> {
        let slot = self.slots.acquire().await?;
        let kib = self.kib.acquire_many(cost).await?;
        slot.forget();
        kib.forget();
        Ok(())
    }

    /// The same, unless it would have to wait.
    fn pay_now(&self, cost: u32) -> Result<(), TryAcquireError> {
        let slot = self.slots.try_acquire()?;
        let kib = self.kib.try_acquire_many(cost)?;
        slot.forget();
        kib.forget();
        Ok(())
    }

    fn refund(&self, cost: u32) {
        self.kib.add_permits(cost as usize);
        self.slots.add_permits(1);
    }

    fn open_call(&self, waiter: Waiter) -> Result<OpenCall<'_>, CallError> {
        let cost = waiter.cost;
        // `Full` cannot be: there are as many permits as slots. Either way nothing was sent.
        let opened = self.calls.lock().open(waiter);
        opened.map(|id| OpenCall { conn: self, id, cost }).map_err(|_| self.closed_error())
    }

    fn closed_error(&self) -> CallError {
        let why = self.closed.borrow().clone();
        CallError::Closed(why.unwrap_or(CloseReason::Reset))
    }

    /// The reader: the answer to a call has come.
    pub(crate) fn answered(&self, id: u64, answer: Answer) -> Result<(), UnknownRequest> {
        let found = self.calls.lock().answer(id)?;
        match found {
            Answered::Deliver(waiter) => {
                self.refund(waiter.cost);
                waiter.taker.take(answer);
            }
            Answered::Late { cost } => self.refund(cost),
        }
        Ok(())
    }

    /// The reader: a request has come in.
    pub(crate) fn admit(&self, cost: u32) -> Result<(), OverBudget> {
        self.inbound.lock().admit(cost)
    }

    /// A [`crate::ReplyTo`]: the answer, or a FAIL, for a request of this cost.
    pub(crate) fn send_answer(&self, frame: OutFrame, cost: u32) {
        self.inbound.lock().release(cost);
        if self.outbox.push(frame) == Err(NotQueued::Overflow) {
            self.end(CloseReason::ReplyOverflow);
        }
    }

    /// The end. Only the first call does anything.
    pub(crate) fn end(&self, why: CloseReason) {
        let first = self.closed.send_if_modified(|reason| {
            let first = reason.is_none();
            reason.get_or_insert_with(|| why.clone());
            first
        });
        if !first {
            return;
        }
        self.open.store(false, Ordering::Release);
        match &why {
            CloseReason::Local(sentence) => self.outbox.drain(sentence),
            CloseReason::Protocol(_) | CloseReason::ServicePanicked | CloseReason::ShuttingDown => {
                self.outbox.drain(&why.to_string());
            }
            _ => self.outbox.kill(),
        }
        self.slots.close();
        self.kib.close();
        let waiters = self.calls.lock().close();
        for waiter in waiters {
            waiter.taker.take(Err(CallError::Closed(why.clone())));
        }
    }
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Conn({} {} at {})", self.id, self.peer(), self.remote())
    }
}

/// A call in the slab; abandoned when its future is dropped.
struct OpenCall<'a> {
    conn: &'a Conn,
    id: u64,
    cost: u32,
}

impl OpenCall<'_> {
    /// The slab has given the waiter back.
    fn answered(self) {
        std::mem::forget(self);
    }
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        let waiter = self.conn.calls.lock().abandon(self.id, self.cost);
        drop(waiter);
    }
}

/// A BYE's, REFUSE's or FAIL's body.
pub(crate) fn sentence_body(s: &str) -> Bytes {
    Bytes::copy_from_slice(crate::error::cut_sentence(s).as_bytes())
}
