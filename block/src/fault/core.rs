//! State and queues of the fault device, shared with the completions of what is below.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::timer::Timer;
use crate::device::{BlockDevice, Completion, Done, Io, Op};
use crate::error::{IoError, IoErrorKind};
use crate::gauge::Gauge;
use crate::units::{ByteLen, ByteOffset};

/// What the fault device does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultState {
    /// Nothing.
    Passing,
    /// Holds requests and completions.
    Hanging,
    /// Answers every request with this error.
    Failing(IoErrorKind),
    /// Holds each request for this long.
    Delaying(Duration),
}

pub(super) struct Core {
    device: Arc<dyn BlockDevice>,
    /// True exactly while the state is `Passing`; the one thing a healthy request looks at.
    passing: AtomicBool,
    below: Gauge,
    inner: Mutex<Inner>,
    timer: Timer,
}

struct Inner {
    state: FaultState,
    requests: VecDeque<Held>,
    /// Held until their time; the number keeps equal times apart and in order.
    delayed: BTreeMap<(Instant, u64), Held>,
    delays: u64,
    answers: VecDeque<HeldAnswer>,
}

type Verdict = Result<Pass, IoErrorKind>;

/// Held unexecuted.
pub(super) enum Held {
    Io(Io),
    Gate(oneshot::Sender<Verdict>),
}

/// Executed below; its answer is held.
pub(super) enum HeldAnswer {
    Io {
        what: What,
        done: Done,
        to: Completion,
    },
    /// True: the answer arrives.
    Gate(oneshot::Sender<bool>),
}

/// A request, for its error.
#[derive(Clone, Copy)]
pub(super) struct What {
    op: Op,
    at: ByteOffset,
    len: ByteLen,
}

/// One request counted as below.
pub(crate) struct Pass(Arc<Core>);

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.below.leave();
    }
}

impl Pass {
    /// After the execution below: does the answer find its way back? Waits while the device hangs.
    pub(crate) async fn answer_arrives(self) -> bool {
        if self.0.passing.load(Ordering::SeqCst) {
            return true;
        }
        let waiting = {
            let mut inner = self.0.inner.lock();
            match inner.state {
                FaultState::Passing | FaultState::Delaying(_) => return true,
                FaultState::Failing(_) => return false,
                FaultState::Hanging => {
                    let (sender, receiver) = oneshot::channel();
                    inner.answers.push_back(HeldAnswer::Gate(sender));
                    receiver
                }
            }
        };
        // Executed, so no longer below: an abort need not wait for it.
        drop(self);
        waiting.await.unwrap_or(false)
    }
}

impl Core {
    pub(super) fn new(device: Arc<dyn BlockDevice>) -> Arc<Core> {
        Arc::new(Core {
            device,
            passing: AtomicBool::new(true),
            below: Gauge::default(),
            inner: Mutex::new(Inner {
                state: FaultState::Passing,
                requests: VecDeque::new(),
                delayed: BTreeMap::new(),
                delays: 0,
                answers: VecDeque::new(),
            }),
            timer: Timer::default(),
        })
    }

    pub(super) fn device(&self) -> &Arc<dyn BlockDevice> {
        &self.device
    }

    pub(super) fn state(&self) -> FaultState {
        self.inner.lock().state
    }

    pub(super) fn held(&self) -> usize {
        let inner = self.inner.lock();
        inner.requests.len() + inner.delayed.len() + inner.answers.len()
    }

    pub(super) fn below_count(&self) -> usize {
        self.below.count()
    }

    pub(super) async fn wait_below(&self) {
        self.below.wait_empty("requests below the fault device").await;
    }

    fn enter(self: &Arc<Self>) -> Pass {
        self.below.enter();
        Pass(Arc::clone(self))
    }

    /// Counted first, looked second: an abort that follows a `hang` sees either the count or a
    /// request that has seen the hang.
    fn enter_if_passing(self: &Arc<Self>) -> Option<Pass> {
        let pass = self.enter();
        self.passing.load(Ordering::SeqCst).then_some(pass)
    }

    pub(super) fn submit(self: &Arc<Self>, io: Io) {
        match self.enter_if_passing() {
            Some(pass) => self.execute(io, pass),
            None => self.admit_slowly(Held::Io(io)),
        }
    }

    /// A verdict at once, or what to wait on.
    pub(super) fn admit(self: &Arc<Self>) -> Result<Verdict, oneshot::Receiver<Verdict>> {
        match self.enter_if_passing() {
            Some(pass) => Ok(Ok(pass)),
            None => {
                let (sender, receiver) = oneshot::channel();
                self.admit_slowly(Held::Gate(sender));
                Err(receiver)
            }
        }
    }

    fn admit_slowly(self: &Arc<Self>, held: Held) {
        let mut inner = self.inner.lock();
        match inner.state {
            FaultState::Passing => {
                let pass = self.enter();
                drop(inner);
                self.release(held, pass);
            }
            FaultState::Hanging => inner.requests.push_back(held),
            FaultState::Failing(kind) => {
                drop(inner);
                refuse(held, kind);
            }
            FaultState::Delaying(pause) => inner.delay(held, pause, &self.timer),
        }
    }

    fn release(self: &Arc<Self>, held: Held, pass: Pass) {
        match held {
            Held::Io(io) => self.execute(io, pass),
            // A waiter that is gone gets nothing; its pass ends with the message.
            Held::Gate(sender) => drop(sender.send(Ok(pass))),
        }
    }

    fn execute(&self, io: Io, pass: Pass) {
        let Io { op, at, len, buf, done: to } = io;
        let what = What { op, at, len };
        let done = Completion::new(move |done| pass_back(pass, what, done, to));
        self.device.submit(Io { op, at, len, buf, done });
    }

    fn set(&self, inner: &mut Inner, state: FaultState) {
        inner.state = state;
        self.passing.store(state == FaultState::Passing, Ordering::SeqCst);
    }

    pub(super) fn hang(&self) {
        let mut inner = self.inner.lock();
        self.set(&mut inner, FaultState::Hanging);
        let delayed = std::mem::take(&mut inner.delayed);
        inner.requests.extend(delayed.into_values());
    }

    pub(super) fn fail(&self, kind: IoErrorKind) {
        let mut inner = self.inner.lock();
        self.set(&mut inner, FaultState::Failing(kind));
        let (requests, answers) = (inner.take_requests(), std::mem::take(&mut inner.answers));
        drop(inner);
        requests.into_iter().for_each(|held| refuse(held, kind));
        answers.into_iter().for_each(|answer| answer.lose(kind));
    }

    pub(super) fn delay(self: &Arc<Self>, pause: Duration) {
        self.timer.start(self);
        let mut inner = self.inner.lock();
        self.set(&mut inner, FaultState::Delaying(pause));
        for held in inner.take_requests() {
            inner.delay(held, pause, &self.timer);
        }
        let answers = std::mem::take(&mut inner.answers);
        drop(inner);
        answers.into_iter().for_each(HeldAnswer::arrive);
    }

    pub(super) fn heal(self: &Arc<Self>) {
        let mut inner = self.inner.lock();
        self.set(&mut inner, FaultState::Passing);
        let answers = std::mem::take(&mut inner.answers);
        let released: Vec<_> = inner.take_requests().into_iter().map(|held| (held, self.enter())).collect();
        drop(inner);
        answers.into_iter().for_each(HeldAnswer::arrive);
        released.into_iter().for_each(|(held, pass)| self.release(held, pass));
    }

    /// Answers everything held with an error; nothing of it is executed.
    pub(super) fn drop_held(&self, kind: IoErrorKind) {
        let requests = self.inner.lock().take_requests();
        requests.into_iter().for_each(|held| refuse(held, kind));
        self.drop_answers(kind);
    }

    /// Answers what was executed and is held with an error.
    pub(super) fn drop_answers(&self, kind: IoErrorKind) {
        let answers = std::mem::take(&mut self.inner.lock().answers);
        answers.into_iter().for_each(|answer| answer.lose(kind));
    }

    /// The device is dropped: what still comes back passes.
    pub(super) fn close(&self) {
        let mut inner = self.inner.lock();
        self.set(&mut inner, FaultState::Passing);
        drop(inner);
        self.timer.stop();
    }

    /// Lets go what is due, and says when the next is. Called by the timer's thread.
    pub(super) fn release_due(self: &Arc<Self>) -> Option<Instant> {
        let mut inner = self.inner.lock();
        let later = inner.delayed.split_off(&(Instant::now(), u64::MAX));
        let due = std::mem::replace(&mut inner.delayed, later);
        let next = inner.delayed.keys().next().map(|&(at, _)| at);
        let due: Vec<_> = due.into_values().map(|held| (held, self.enter())).collect();
        drop(inner);
        due.into_iter().for_each(|(held, pass)| self.release(held, pass));
        next
    }
}

impl Inner {
    /// Everything held unexecuted, in order.
    fn take_requests(&mut self) -> Vec<Held> {
        let delayed = std::mem::take(&mut self.delayed);
        self.requests.drain(..).chain(delayed.into_values()).collect()
    }

    fn delay(&mut self, held: Held, pause: Duration, timer: &Timer) {
        self.delays += 1;
        self.delayed.insert((Instant::now() + pause, self.delays), held);
        timer.changed();
    }
}

fn refuse(held: Held, kind: IoErrorKind) {
    match held {
        Held::Io(io) => io.fail(kind),
        // A waiter that is gone needs no verdict.
        Held::Gate(sender) => drop(sender.send(Err(kind))),
    }
}

/// A completion from below, on its way up.
fn pass_back(pass: Pass, what: What, done: Done, to: Completion) {
    if pass.0.passing.load(Ordering::SeqCst) {
        return to.complete(done);
    }
    let mut inner = pass.0.inner.lock();
    let answer = HeldAnswer::Io { what, done, to };
    match inner.state {
        FaultState::Hanging => inner.answers.push_back(answer),
        FaultState::Passing | FaultState::Delaying(_) => {
            drop(inner);
            answer.arrive();
        }
        FaultState::Failing(kind) => {
            drop(inner);
            answer.lose(kind);
        }
    }
}

impl HeldAnswer {
    fn arrive(self) {
        match self {
            HeldAnswer::Io { done, to, .. } => to.complete(done),
            HeldAnswer::Gate(sender) => drop(sender.send(true)),
        }
    }

    /// The request was executed, but its answer is lost.
    fn lose(self, kind: IoErrorKind) {
        match self {
            HeldAnswer::Io { what, done, to } => {
                let error = IoError::new(kind, what.op, what.at, what.len);
                to.complete(Done { result: Err(error), buf: done.buf });
            }
            HeldAnswer::Gate(sender) => drop(sender.send(false)),
        }
    }
}

impl fmt::Display for FaultState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FaultState::Passing => f.write_str("passing"),
            FaultState::Hanging => f.write_str("hanging"),
            FaultState::Failing(kind) => write!(f, "failing: {kind}"),
            FaultState::Delaying(pause) => write!(f, "delaying by {} ms", pause.as_millis()),
        }
    }
}
