//! The core behind one short lock, and its effects applied in order.
//!
//! Whoever brings an event (a call's task, a store thread, a completion of the device, the ticker) takes the lock, has
//! the core decide, and applies the effects before it lets go: sending an answer, filling a queue, spawning a task.
//! None of that waits. So there is no hop to an actor's task. A look-up that the store has in memory ([`Recent`]) is answered
//! there and then; any other costs one hop, to a reader thread, and the thread that knows the answer tells it.
//!
//! Answers are told after the lock was let go ([`Core`]): whoever is told packs it for the network, or brings the next event.
//!
//! Before every event the latch is looked at: once it is tripped the core stops, and nothing is acknowledged any more
//! whoever tripped it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use block::device::BlockDevice;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::check::CheckItem;
use super::link::{ClientLink, Fencer};
use super::metrics::Metrics;
use super::queue::Queue;
use super::suspension::Suspension;
use crate::core::coord::{
    CallbackId, ConnId, Coord, Effect, Event, FencePurpose, OpId, ReadAsk, ReadDone, Report, StoreAsk, Tag,
};
use crate::core::time::Now;
use crate::meta::{Latch, MetaError, Recent};
use crate::proto::{Answer, BindAnswer, Callback, CallbackAsk, Reply, Request, Verifier};
use crate::types::{ClientId, VolumeId};

/// A question for the reader threads.
#[derive(Debug)]
pub(super) struct ReadItem {
    pub(super) op: OpId,
    pub(super) ask: ReadAsk,
}

/// A change for the metadata thread.
#[derive(Debug)]
pub(super) struct StoreItem {
    pub(super) op: OpId,
    pub(super) ask: StoreAsk,
}

/// Who is told the answer to a call, once; dropped untold, that it has to be asked elsewhere.
pub(super) struct AnswerTo(Option<Box<dyn FnOnce(Answer) + Send>>);

impl AnswerTo {
    /// `told` is called on any thread, without the core's lock; it must not block.
    pub(super) fn new(told: impl FnOnce(Answer) + Send + 'static) -> AnswerTo {
        AnswerTo(Some(Box::new(told)))
    }

    fn tell(mut self, answer: Answer) {
        if let Some(told) = self.0.take() {
            told(answer);
        }
    }
}

impl Drop for AnswerTo {
    fn drop(&mut self) {
        if let Some(told) = self.0.take() {
            told(Answer::StaleEpoch { hint: None });
        }
    }
}

/// The core under its lock. Dropped, it lets go of the lock and then tells what was answered meanwhile.
pub(super) struct Core<'a>(Option<MutexGuard<'a, Locked>>);

impl std::ops::Deref for Core<'_> {
    type Target = Locked;

    fn deref(&self) -> &Locked {
        self.0.as_deref().unwrap_or_else(|| unreachable!("there until dropped"))
    }
}

impl std::ops::DerefMut for Core<'_> {
    fn deref_mut(&mut self) -> &mut Locked {
        self.0.as_deref_mut().unwrap_or_else(|| unreachable!("there until dropped"))
    }
}

impl Drop for Core<'_> {
    fn drop(&mut self) {
        let Some(mut locked) = self.0.take() else { return };
        let answered = std::mem::take(&mut locked.answered);
        drop(locked);
        answered.into_iter().for_each(|(to, answer)| to.tell(answer));
    }
}

/// What the lock protects.
pub(super) struct Locked {
    pub(super) core: Coord,
    out: Vec<Effect>,
    /// Found while effects were applied; the core's next events.
    found: VecDeque<Event>,
    answers: BTreeMap<Tag, AnswerTo>,
    /// To be told when the lock is free.
    answered: Vec<(AnswerTo, Answer)>,
    bind_answers: BTreeMap<Tag, oneshot::Sender<BindAnswer>>,
    pub(super) links: BTreeMap<ConnId, Arc<dyn ClientLink>>,
    last_tag: u64,
    last_conn: u64,
    /// The deadline that the ticker knows of.
    armed: Option<Now>,
}

/// How far the end of a reign has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Ending {
    /// The core says that nothing is on its way.
    pub(super) drained: bool,
    /// The metadata thread has ended.
    pub(super) store_closed: bool,
}

/// Everything that the parts of a coordinator share.
pub(super) struct Inner {
    pub(super) volume: VolumeId,
    pub(super) verifier: Verifier,
    pub(super) device: Arc<dyn BlockDevice>,
    pub(super) latch: Arc<Latch>,
    pub(super) suspension: Arc<Suspension>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) reads: Queue<ReadItem>,
    pub(super) writes: Arc<Queue<StoreItem>>,
    pub(super) checks: Queue<CheckItem>,
    /// There once the store is open.
    pub(super) recent: OnceLock<Recent>,
    /// Records of the log that were lost when the store was opened.
    pub(super) cut_off: AtomicUsize,
    pub(super) ending: watch::Sender<Ending>,
    pub(super) rearm: Notify,
    locked: Mutex<Locked>,
    fencer: Arc<dyn Fencer>,
    reports: mpsc::Sender<Report>,
    /// Threads of the coordinator tell answers, and who is told may start tasks: they enter it.
    pub(super) runtime: tokio::runtime::Handle,
    callback_timeout: std::time::Duration,
    started: Instant,
}

/// What an [`Inner`] is made of.
pub(super) struct Parts {
    pub(super) volume: VolumeId,
    pub(super) verifier: Verifier,
    pub(super) device: Arc<dyn BlockDevice>,
    pub(super) latch: Arc<Latch>,
    pub(super) suspension: Arc<Suspension>,
    pub(super) fencer: Arc<dyn Fencer>,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) callback_timeout: std::time::Duration,
}

impl Inner {
    pub(super) fn new(core: Coord, parts: Parts) -> Inner {
        let locked = Locked {
            core,
            out: Vec::new(),
            found: VecDeque::new(),
            answers: BTreeMap::new(),
            answered: Vec::new(),
            bind_answers: BTreeMap::new(),
            links: BTreeMap::new(),
            last_tag: 0,
            last_conn: 0,
            armed: None,
        };
        let writes = Arc::new(Queue::new());
        parts.suspension.applies_to(&writes);
        Inner {
            volume: parts.volume,
            verifier: parts.verifier,
            device: parts.device,
            latch: parts.latch,
            suspension: parts.suspension,
            metrics: Arc::new(Metrics::default()),
            reads: Queue::new(),
            writes,
            checks: Queue::new(),
            recent: OnceLock::new(),
            cut_off: AtomicUsize::new(0),
            ending: watch::Sender::new(Ending::default()),
            rearm: Notify::new(),
            locked: Mutex::new(locked),
            fencer: parts.fencer,
            reports: parts.reports,
            runtime: tokio::runtime::Handle::current(),
            callback_timeout: parts.callback_timeout,
            started: Instant::now(),
        }
    }

    /// What an answer that is given now says of stability.
    pub(super) fn verifier(&self) -> Verifier {
        Verifier { generation: self.device.losses(), ..self.verifier }
    }

    pub(super) fn now(&self) -> Now {
        Now::default() + self.started.elapsed()
    }

    /// One event.
    pub(super) fn event(self: &Arc<Self>, event: Event) {
        self.events([event]);
    }

    /// Several events under one lock: the results of one commit.
    pub(super) fn events(self: &Arc<Self>, events: impl IntoIterator<Item = Event>) {
        let mut locked = self.lock();
        for event in events {
            self.handle(&mut locked, event);
        }
        self.arm(&mut locked);
    }

    /// The core, stopped first if the latch is tripped.
    pub(super) fn lock(self: &Arc<Self>) -> Core<'_> {
        let mut locked = Core(Some(self.locked.lock()));
        if self.latch.is_tripped() && locked.core.is_serving() {
            self.handle(&mut locked, Event::Stop { hint: None });
        }
        locked
    }

    pub(super) fn handle(self: &Arc<Self>, locked: &mut Locked, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next {
            let mut out = std::mem::take(&mut locked.out);
            locked.core.handle(self.now(), event, &mut out);
            for effect in out.drain(..) {
                self.apply(locked, effect);
            }
            locked.out = out;
            next = locked.found.pop_front();
        }
    }

    /// Wakes the ticker if something is due sooner than it knows.
    fn arm(&self, locked: &mut Locked) {
        let next = locked.core.next_deadline();
        let sooner = match (next, locked.armed) {
            (Some(next), Some(armed)) => next < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if sooner {
            locked.armed = next;
            self.rearm.notify_one();
        }
    }

    /// What the ticker waits for next.
    pub(super) fn next_deadline(self: &Arc<Self>) -> Option<Now> {
        let mut locked = self.lock();
        locked.armed = locked.core.next_deadline();
        locked.armed
    }

    /// Brings a call; its answer is told.
    pub(super) fn ask(self: &Arc<Self>, to: AnswerTo, event: impl FnOnce(Tag) -> Event) {
        let mut locked = self.lock();
        let tag = locked.next_tag();
        locked.answers.insert(tag, to);
        self.handle(&mut locked, event(tag));
        self.arm(&mut locked);
    }

    /// Brings a bind over a connection.
    pub(super) fn ask_bind(
        self: &Arc<Self>,
        link: Arc<dyn ClientLink>,
        event: impl FnOnce(Tag, ConnId) -> Event,
    ) -> oneshot::Receiver<BindAnswer> {
        let (sender, receiver) = oneshot::channel();
        let mut locked = self.lock();
        let tag = locked.next_tag();
        locked.last_conn += 1;
        let conn = ConnId(locked.last_conn);
        let core = &locked.core;
        let idle: Vec<ConnId> = locked.links.keys().filter(|c| !core.talks_over(**c)).copied().collect();
        for old in idle {
            locked.links.remove(&old);
        }
        locked.links.insert(conn, link);
        locked.bind_answers.insert(tag, sender);
        self.handle(&mut locked, event(tag, conn));
        self.arm(&mut locked);
        receiver
    }

    fn apply(self: &Arc<Self>, locked: &mut Locked, effect: Effect) {
        match effect {
            Effect::Answer { tag, answer } => {
                // Whoever asked may be gone; the answer is stored, or the request may run again.
                if let Some(to) = locked.answers.remove(&tag) {
                    locked.answered.push((to, answer));
                }
            }
            Effect::AnswerBind { tag, mut answer } => {
                if let BindAnswer::Bound { verifier, .. } = &mut answer {
                    *verifier = self.verifier();
                }
                locked.bind_answers.remove(&tag).map(|to| to.send(answer));
            }
            Effect::Read { op, ask } => match self.known(&ask) {
                Some(done) => locked.found.push_back(Event::ReadDone { op, done }),
                None => drop(self.reads.push(ReadItem { op, ask })),
            },
            Effect::Store { op, ask } => {
                self.writes.push(StoreItem { op, ask });
            }
            Effect::Callback { id, conn, client, ask } => match locked.links.get(&conn) {
                Some(link) => self.call_back(id, Arc::clone(link), client, ask),
                None => tracing::debug!(%client, "no connection for a callback"),
            },
            Effect::Fence { client, purpose } => self.fence(client, purpose),
            Effect::Drained => self.ending.send_modify(|e| e.drained = true),
            Effect::Report(report) => self.report(report),
        }
    }

    /// The answer to a question, if the store has it in memory; nothing that is known counts once the latch is tripped.
    fn known(&self, ask: &ReadAsk) -> Option<ReadDone> {
        let recent = self.recent.get()?;
        let attr = match ask {
            ReadAsk::Request(Request::Getattr { ino }) => recent.attr(*ino),
            ReadAsk::Request(Request::Lookup { parent, name }) => recent.lookup(*parent, name),
            _ => None,
        }?;
        if self.latch.is_tripped() {
            return None;
        }
        self.metrics.known.add(1);
        Some(ReadDone::Answer(Answer::Ok(Reply::Attr(attr))))
    }

    fn report(&self, report: Report) {
        // What is an event, too, is told once; why a session is ended is told only here.
        match &report {
            Report::Evicting { client, why } => {
                tracing::info!(volume = %self.volume, "the session of {client} is being ended: {why}");
            }
            report => tracing::debug!(volume = %self.volume, ?report, "coordinator"),
        }
        if self.reports.try_send(report).is_err() {
            tracing::debug!("nobody listens to the coordinator's reports");
        }
    }

    fn call_back(self: &Arc<Self>, id: CallbackId, link: Arc<dyn ClientLink>, client: ClientId, ask: CallbackAsk) {
        self.metrics.callbacks.add(1);
        let inner = Arc::clone(self);
        let callback = Callback { volume: self.volume, client, ask };
        self.runtime.spawn(async move {
            let answer = tokio::time::timeout(inner.callback_timeout, link.callback(callback)).await.unwrap_or(None);
            inner.event(Event::CallbackDone { id, answer });
        });
    }

    fn fence(self: &Arc<Self>, client: ClientId, purpose: FencePurpose) {
        let inner = Arc::clone(self);
        self.runtime.spawn(async move {
            let result = match inner.fencer.fence(client, purpose).await {
                Ok(proof) if proof.client() == client => Ok(proof.fence_gen()),
                Ok(proof) => Err(format!("the fence was of {} instead", proof.client())),
                Err(why) => Err(why),
            };
            inner.event(Event::FenceDone { client, purpose, result });
        });
    }

    /// A thread found that the store does not answer as it should. If the latch is tripped already, that is why.
    pub(super) fn store_failed(self: &Arc<Self>, what: &str, e: &MetaError) {
        if self.latch.is_tripped() {
            return self.event(Event::Stop { hint: None });
        }
        tracing::error!(volume = %self.volume, "the metadata store cannot be {what}, this reign ends: {e}");
        // The lock before the latch, so that the core hears what failed and not only that it must stop; the latch
        // before the answers, so that whoever is sent elsewhere finds this reign over.
        let mut locked = self.lock();
        self.latch.trip();
        self.handle(&mut locked, Event::StoreFailed);
        self.arm(&mut locked);
    }

    /// No more work for the threads; they end when they have done what is queued.
    pub(super) fn close_queues(&self) {
        self.reads.close();
        self.writes.close();
        self.checks.close();
    }
}

impl Locked {
    fn next_tag(&mut self) -> Tag {
        self.last_tag += 1;
        Tag(self.last_tag)
    }
}
