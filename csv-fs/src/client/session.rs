//! The client's session with whoever coordinates: a call made here waits through failovers and comes back with its
//! reply.
//!
//! One lock holds the core. Events go into an inbox first; whoever finds the lock free takes them all, one by one, and
//! applies the effects of each, in order, before the next. So an effect may cause an event (a link that fails at once, the last
//! guard of a layout) without a second entry into the core. Prevents: two threads apply the effects of two events the
//! other way round, and a layout that was withdrawn is published again.
//!
//! Whoever finds the lock taken goes away and relies on its holder: so *everybody* who held the lock looks into the inbox
//! after letting go, also who only read something (`look`). Prevents: a task asks how many writes are kept while the
//! caller of a truncation puts in that the second layout of the file goes back; that event finds the lock taken, the task
//! lets go and leaves, and the truncation waits for the layout until somebody else happens to come by.
//!
//! Lock order: the core's lock, then an inode's. Nothing that holds an inode's lock posts an event while holding it.
//!
//! States, binding, slots and routes are the core's ([`crate::core::client`]); here is only what waits and what is
//! sent.

mod apply;
mod caller;
mod expiry;
mod lives;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use block::buf::AlignedBuf;
use block::shared::{AbortOwn, Epoch, FenceGen, NodeId};
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, oneshot, watch};

use crate::core::client::{
    Binding, CallFailure, Client, ClientConfig, Effect, Event, IoId, Known, LockOp, Note, Origin, Overdue, Patience,
    Reason, RedirectResult, RouteInfo, Story, Sweep, Ticket,
};
use crate::core::rules::Rules;
use crate::core::time::Now;
use crate::proto::{
    ByteRange, CallbackAnswer, CallbackAsk, CoordinatorHint, LayoutGrant, LockSpace, RedirectAnswer, RedirectOp, Reply,
    Request,
};
use crate::types::*;

pub use caller::Caller;

use super::counters::{Counters, add};
use super::layout::LayoutGuard;
use super::link::{CoordinatorLink, Coordinators, EventSink, Notebook, OwnSlot, Witnesses};
use super::spawn::Spawner;

/// An error number of Linux, positive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("errno {0}")]
pub struct Errno(pub i32);

/// A read, write or flush over the coordinator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Redirection {
    pub(crate) layout: LayoutId,
    pub(crate) op: RedirectOp,
    /// Byte of the disk.
    pub(crate) at: u64,
    pub(crate) len: u32,
    /// It ends in doubt rather than being sent again once it may have been executed.
    pub(crate) once: bool,
    /// When a program began to wait.
    pub(crate) since: Option<Sweep>,
}

impl Redirection {
    /// Everything answered before becomes stable.
    pub(crate) fn flush(since: Option<Sweep>) -> Redirection {
        Redirection { layout: LayoutId(0), op: RedirectOp::Flush, at: 0, len: 0, once: false, since }
    }
}

/// What became of a redirected request.
pub(crate) type Redirected = (RedirectResult, Option<AlignedBuf>);
/// What became of a call.
type CallResult = Result<Answered, CallFailure>;
/// Who is told of it.
type RedirectWaiter = Box<dyn FnOnce(Redirected) + Send>;

/// Inputs taken under one hold of the core's lock, before those who wait for redirected requests are told.
const TURN: usize = 64;

/// Who is told the answer to a call.
enum Waiter {
    /// A task. A caller that has gone drops its guard with the message.
    Task(oneshot::Sender<CallResult>),
    /// A function, called once no lock is held.
    Called(Called),
}

/// Who is told, and since when he waits; `None`: for as long as it takes.
struct Asker {
    waiter: Waiter,
    since: Option<Sweep>,
}

/// Told once. Dropped untold, that the session has ended.
struct Called(Option<Box<dyn FnOnce(CallResult) + Send>>);

impl Called {
    fn tell(mut self, result: CallResult) {
        if let Some(told) = self.0.take() {
            told(result);
        }
    }
}

impl Drop for Called {
    fn drop(&mut self) {
        if let Some(told) = self.0.take() {
            told(Err(CallFailure::Evicted));
        }
    }
}

/// A reply, and for a layout the first guard on it: taken before a recall of the same layout could have withdrawn it,
/// so that two nodes that want the same range both get on.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) reply: Reply,
    pub(crate) guard: Option<LayoutGuard>,
}

/// What the session asks of the files. All of it is quick; what takes time is spawned by the callee.
pub(crate) trait Files: Send + Sync + 'static {
    /// Publishes a layout; the first guard on it.
    fn granted(&self, grant: &LayoutGrant) -> LayoutGuard;
    /// Lets nothing new take it; [`Event::Drained`] follows when the last guard is gone.
    fn withdraw(&self, layout: LayoutId, ino: InodeNo);
    /// It is not held any more.
    fn dropped(&self, layout: LayoutId, ino: InodeNo, lost: bool);
    /// Flushes and commits what was made under it; then [`Event::Settled`].
    fn settle(&self, layout: LayoutId, ino: InodeNo);
    /// Commits what is uncommitted of that file, naming the number.
    fn sync(&self, ino: InodeNo, number: u64);
    /// Whether anything of that file is uncommitted.
    fn is_dirty(&self, ino: InodeNo) -> bool;
    /// Uncommitted mappings inside the range, and, for whoever may change it, length and time.
    fn uncommitted(&self, ino: InodeNo, range: BlockRange) -> (Vec<Extent>, Option<u64>, Option<Timestamp>);
    /// Bound; `grants` is what the coordinator has on record.
    fn bound(&self, first: bool, grants: Vec<DiskRange>);
    /// Gives granted space back that is not used, with one call, also if there is none. Of this incarnation.
    fn return_grant(&self, life: ClientId);
    /// Whether space was asked for that [`Files::return_grant`] would not find yet.
    fn asks_for_space(&self) -> bool;
    /// Closes the gate of direct I/O.
    fn close_direct(&self);
    /// Opens it.
    fn open_direct(&self);
    /// Whether it is closed.
    fn direct_closed(&self) -> bool;
    /// Whether somebody is still between gate and device.
    fn direct_entered(&self) -> bool;
    /// Takes the outstanding direct reads and issues them again.
    fn reissue_reads(&self);
    /// Acknowledged writes under this layout are lost.
    fn writes_lost(&self, layout: LayoutId);
    /// The incarnation is over; the handles that must fail from now on. Through the `locked` ones locks were held.
    fn evicted(&self, locked: &[HandleId]) -> Vec<HandleId>;
    /// Locks held through these handles are lost.
    fn locks_lost(&self, handles: &[HandleId]);
    /// A handle could not be opened again.
    fn handle_lost(&self, handle: HandleId, ino: InodeNo);
}

/// What a session is made of.
pub struct SessionParts {
    /// Volume, client, generation.
    pub config: ClientConfig,
    /// How coordinators are reached.
    pub coordinators: Arc<dyn Coordinators>,
    /// Withdraws the node's own requests.
    pub abort: Arc<dyn AbortOwn>,
    /// The node's own slot.
    pub slot: Arc<dyn OwnSlot>,
    /// Other nodes, as witnesses of what was written when.
    pub witnesses: Arc<dyn Witnesses>,
    /// Where events go.
    pub events: Arc<dyn EventSink>,
    /// A probe of the path that takes longer than this has failed.
    pub path_timeout: Duration,
    /// A program's request that waits for longer gets EIO once it cannot be executed any more; zero: never.
    pub io_timeout: Duration,
    /// Where background tasks run that belong to no worker.
    pub control: tokio::runtime::Handle,
}

/// The session.
pub struct Session {
    /// Taken by `run`, `look` and `fence_asked` alone.
    core: Mutex<Inner>,
    inbox: Mutex<VecDeque<Input>>,
    me: Weak<Session>,
    files: OnceLock<Weak<dyn Files>>,
    coordinators: Arc<dyn Coordinators>,
    abort: Arc<dyn AbortOwn>,
    slot: Arc<dyn OwnSlot>,
    pub(crate) witnesses: Arc<dyn Witnesses>,
    events: Arc<dyn EventSink>,
    /// What the next process goes on from if this one is killed.
    notebook: Option<Arc<dyn Notebook>>,
    pub(crate) path_timeout: Duration,
    pub(crate) io_timeout: Duration,
    pub(crate) spawner: Spawner,
    pub(crate) counters: Arc<Counters>,
    tickets: AtomicU64,
    ios: AtomicU64,
    route: watch::Sender<RouteInfo>,
    binding: watch::Sender<Binding>,
    lives: lives::Lives,
    /// When the core wants a tick; `u64::MAX` for never.
    deadline: AtomicU64,
    /// How long a program's request waits, if not for ever.
    patience: Option<Patience>,
    /// Sweeps made, and who waits for the next.
    sweeps: AtomicU64,
    swept: Notify,
    told_of_expiry: Mutex<ToldOfExpiry>,
    /// A lock was asked for once.
    lock_used: AtomicBool,
    /// Why the last incarnation ended, and which handles must not be opened again.
    ended: watch::Sender<Option<Ended>>,
    /// The rules in force, for whoever works under this session.
    pub(crate) rules: Rules,
}

/// The end of an incarnation, for whoever starts the next one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// Which.
    pub client: ClientId,
    /// Why.
    pub reason: String,
    /// Handles that fail until they are closed.
    pub poisoned: Vec<HandleId>,
}

/// What the last sweep came to.
#[derive(Default)]
struct ToldOfExpiry {
    overdue: Overdue,
    /// Requests that got EIO since.
    ended: u64,
    story: Story,
}

struct Inner {
    core: Client,
    waiters: HashMap<Ticket, Asker>,
    granted: HashMap<Ticket, LayoutGuard>,
    links: HashMap<Bind, Linked>,
    io: HashMap<IoId, Io>,
    callbacks: VecDeque<oneshot::Sender<CallbackAnswer>>,
    effects: Vec<Effect>,
    /// To be told once the lock is free: they answer the kernel, drop guards and post events.
    redirected: Vec<(RedirectWaiter, Redirected)>,
    /// The same for calls.
    called: Vec<(Called, CallResult)>,
    /// Who is told what the next process is to know.
    leaving: Option<oneshot::Sender<Option<Box<Known>>>>,
}

/// The link of a bind.
struct Linked {
    epoch: Epoch,
    link: Arc<dyn CoordinatorLink>,
    /// Dropped with this, it ends the task that made the bind and waits for the end of the link.
    _watched: oneshot::Sender<std::convert::Infallible>,
}

/// A redirected request's data.
struct Io {
    data: Option<Bytes>,
    read: Option<AlignedBuf>,
    waiter: Option<RedirectWaiter>,
    since: Option<Sweep>,
}

enum Input {
    Event(Event),
    /// `life`: what this is about is of this incarnation, and no other may ask it.
    Call {
        ticket: Ticket,
        request: Request,
        life: Option<ClientId>,
        /// Which request of the kernel led to it.
        origin: Option<Origin>,
        asker: Asker,
    },
    Lock {
        ticket: Ticket,
        op: LockOp,
        asker: Asker,
    },
    Redirect {
        io: IoId,
        event: Event,
        data: Option<Bytes>,
        waiter: RedirectWaiter,
        since: Option<Sweep>,
    },
    Sweep,
    Leave {
        waiter: oneshot::Sender<Option<Box<Known>>>,
    },
    IoAnswered {
        io: IoId,
        bind: Bind,
        answer: RedirectAnswer,
        read: Option<AlignedBuf>,
    },
    Asked {
        client: ClientId,
        ask: CallbackAsk,
        waiter: oneshot::Sender<CallbackAnswer>,
    },
}

impl Session {
    /// A session that looks for its coordinator at once.
    pub fn new(parts: SessionParts, rules: Rules) -> Arc<Session> {
        let core = Client::new(parts.config, rules, Session::now());
        Session::over_core(parts, core, rules, None)
    }

    /// The same, whose life another process can go on with. `core` says what is to be noted.
    pub(crate) fn noting(
        parts: SessionParts,
        core: Client,
        rules: Rules,
        notebook: Option<Arc<dyn Notebook>>,
    ) -> Arc<Session> {
        let locks = core.locks().0 > 0;
        let session = Session::over_core(parts, core, rules, notebook);
        session.lock_used.store(locks, Ordering::SeqCst);
        session
    }

    fn over_core(parts: SessionParts, core: Client, rules: Rules, notebook: Option<Arc<dyn Notebook>>) -> Arc<Session> {
        let (route, binding) = (watch::Sender::new(core.route()), watch::Sender::new(core.binding().clone()));
        let inner = Inner {
            core,
            waiters: HashMap::new(),
            granted: HashMap::new(),
            links: HashMap::new(),
            io: HashMap::new(),
            callbacks: VecDeque::new(),
            effects: Vec::new(),
            redirected: Vec::new(),
            called: Vec::new(),
            leaving: None,
        };
        Arc::new_cyclic(|me| Session {
            core: Mutex::new(inner),
            inbox: Mutex::default(),
            me: Weak::clone(me),
            files: OnceLock::new(),
            coordinators: parts.coordinators,
            abort: parts.abort,
            slot: parts.slot,
            witnesses: parts.witnesses,
            events: parts.events,
            notebook,
            path_timeout: parts.path_timeout,
            io_timeout: parts.io_timeout,
            spawner: Spawner::new(parts.control),
            counters: Arc::default(),
            tickets: AtomicU64::new(1),
            ios: AtomicU64::new(1),
            route,
            binding,
            lives: lives::Lives::default(),
            deadline: AtomicU64::new(0),
            patience: Patience::of(parts.io_timeout),
            sweeps: AtomicU64::new(0),
            swept: Notify::new(),
            told_of_expiry: Mutex::default(),
            lock_used: AtomicBool::new(false),
            ended: watch::Sender::new(None),
            rules,
        })
    }

    /// Connects the files, once, before the first event.
    pub(crate) fn attach(&self, files: Weak<dyn Files>) {
        assert!(self.files.set(files).is_ok(), "a session serves one set of files");
    }

    /// The present moment on this node's clock, which does not stop while the machine sleeps.
    pub fn now() -> Now {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let ms = t.tv_sec.saturating_mul(1000).saturating_add(t.tv_nsec / 1_000_000);
        Now(u64::try_from(ms).unwrap_or(0))
    }

    /// Makes a call and waits for its reply, however many coordinators that takes.
    ///
    /// # Cancel safety
    /// A dropped future does not withdraw the call; what it leaves behind is cleaned up when it is answered.
    pub async fn call(&self, caller: &Caller, request: Request) -> Result<Reply, Errno> {
        if request.only_asks() && caller.since().is_some() {
            return self.asked_in_any_life(caller, request).await;
        }
        self.call_once(caller, request).await
    }

    async fn call_once(&self, caller: &Caller, request: Request) -> Result<Reply, Errno> {
        add(&self.counters.calls, 1);
        let origin = self.origin(caller, &request);
        let input = |ticket, asker| Input::Call { ticket, request, life: None, origin, asker };
        self.told(caller, input).await.map(|a| a.reply)
    }

    /// Which request of the kernel leads to this call, if that may lead to it once more in another process.
    fn origin(&self, caller: &Caller, request: &Request) -> Option<Origin> {
        self.notebook.as_ref().and_then(|_| caller.origin(request))
    }

    /// Keeps what the next process is to know.
    pub(crate) fn note(&self, note: impl FnOnce() -> Note) {
        if let Some(notebook) = &self.notebook {
            notebook.note(&[note()]);
        }
    }

    /// The kernel has its answer: the next process need not know it.
    pub(crate) fn replied(&self, caller: &Caller) {
        if let Some(unique) = caller.noted() {
            self.note(|| Note::Replied(unique));
        }
    }

    /// The same for what one incarnation alone may say: mappings made from its grant, space that it was granted. EIO if
    /// another has begun.
    ///
    /// Prevents: a commit is put together, the node is evicted and begins its next life, and then the commit is sent: it maps
    /// blocks that were given to others, and has the new life evicted too; or, were they granted to it anew, they would be
    /// in two files.
    pub(crate) async fn call_of(&self, life: ClientId, caller: &Caller, request: Request) -> Result<Reply, Errno> {
        add(&self.counters.calls, 1);
        let origin = self.origin(caller, &request);
        let input = |ticket, asker| Input::Call { ticket, request, life: Some(life), origin, asker };
        self.told(caller, input).await.map(|a| a.reply)
    }

    /// The same as [`Session::call`]; with a layout comes its first guard.
    pub(crate) async fn ask(&self, caller: &Caller, request: Request) -> Result<Answered, Errno> {
        add(&self.counters.calls, 1);
        self.told(caller, |ticket, asker| Input::Call { ticket, request, life: None, origin: None, asker }).await
    }

    /// Takes a file lock, or gives one up. Whoever waits for one may be interrupted at any time.
    ///
    /// # Cancel safety
    /// A dropped future does not withdraw it: what it is given is held until the handle is closed.
    pub async fn lock(&self, caller: &Caller, op: LockOp) -> Result<(), Errno> {
        self.lock_used.store(true, Ordering::SeqCst);
        self.told(caller, |ticket, asker| Input::Lock { ticket, op, asker }).await.map(drop)
    }

    /// Whether a process holds a record on a file, or is about to.
    pub fn may_hold_records(&self, ino: InodeNo, owner: u64) -> bool {
        self.lock_used.load(Ordering::SeqCst) && self.look(|core| core.may_hold_records(ino, owner))
    }

    /// A process has closed a file: its records there end. Costs nothing where no lock was ever asked for.
    ///
    /// # Cancel safety
    /// A dropped future does not withdraw it.
    pub async fn drop_records(&self, caller: &Caller, ino: InodeNo, owner: u64) -> Result<(), Errno> {
        if !self.lock_used.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.lock(caller, LockOp::Drop { ino, space: LockSpace::Record, owner, range: ByteRange::ALL }).await
    }

    /// Locks held through this node, and callers that wait for one.
    pub fn locks(&self) -> (usize, usize) {
        self.look(Client::locks)
    }

    async fn told(&self, caller: &Caller, input: impl FnOnce(Ticket, Asker) -> Input) -> Result<Answered, Errno> {
        let (waiter, answer) = oneshot::channel();
        let ticket = self.submit(Asker { waiter: Waiter::Task(waiter), since: caller.since() }, input);
        let waiting = caller.waits(self, ticket);
        let result = answer.await.unwrap_or(Err(CallFailure::Evicted));
        drop(waiting);
        result.map_err(errno_of)
    }

    /// As [`Session::call`] without a task that waits: `then` is told, on any thread and without a lock of the session held,
    /// or before this returns. It must not block. An interruption of `caller` reaches it until then.
    pub(crate) fn call_then(
        &self,
        caller: &Caller,
        request: Request,
        then: impl FnOnce(Result<Reply, Errno>) + Send + 'static,
    ) {
        add(&self.counters.calls, 1);
        let told = Called(Some(Box::new(|result: CallResult| then(result.map(|a| a.reply).map_err(errno_of)))));
        let asker = Asker { waiter: Waiter::Called(told), since: caller.since() };
        let ticket =
            self.submit(asker, |ticket, asker| Input::Call { ticket, request, life: None, origin: None, asker });
        // It may be answered by now; then nobody has this ticket, and cancelling it does nothing.
        caller.waits(self, ticket).for_good();
    }

    fn submit(&self, asker: Asker, input: impl FnOnce(Ticket, Asker) -> Input) -> Ticket {
        let ticket = Ticket(self.tickets.fetch_add(1, Ordering::Relaxed));
        self.put(input(ticket, asker));
        ticket
    }

    /// Executes a read, write or flush over the coordinator; `data` is a write's.
    ///
    /// # Cancel safety
    /// A dropped future does not withdraw the request.
    pub(crate) async fn redirect(&self, what: Redirection, data: Option<Bytes>) -> Redirected {
        let (to, done) = oneshot::channel();
        // Whoever waited may have gone.
        self.redirect_then(what, data, move |result| drop(to.send(result)));
        done.await.unwrap_or((RedirectResult::Evicted, None))
    }

    /// The same without waiting: `then` is told, on any thread and without a lock held. It must not block.
    pub(crate) fn redirect_then(
        &self,
        what: Redirection,
        data: Option<Bytes>,
        then: impl FnOnce(Redirected) + Send + 'static,
    ) {
        let io = IoId(self.ios.fetch_add(1, Ordering::Relaxed));
        let Redirection { layout, op, at, len, once, since } = what;
        let event = Event::Redirect { io, layout, op, at, len, once };
        self.put(Input::Redirect { io, event, data, waiter: Box::new(then), since });
    }

    /// What the coordinator asks of this client; answered without waiting for anything.
    ///
    /// # Cancel safety
    /// A dropped future leaves the callback in effect.
    pub async fn callback(&self, client: ClientId, ask: CallbackAsk) -> CallbackAnswer {
        let (waiter, answer) = oneshot::channel();
        self.put(Input::Asked { client, ask, waiter });
        answer.await.unwrap_or(CallbackAnswer::WrongIncarnation)
    }

    /// Somebody said who coordinates.
    pub fn hint(&self, hint: CoordinatorHint) {
        self.post(Event::Hint(hint));
    }

    /// A node can be reached again.
    pub(crate) fn reachable(&self, node: NodeId) {
        self.post(Event::Reachable { node });
    }

    /// This node's I/O is being fenced under this generation. When it returns, no direct request is let in any more until
    /// the coordinator has granted that generation; when what it returns is done, those that had been let in are with the
    /// device, where they end by themselves or by an abort.
    ///
    /// Prevents: somebody else is at the core, the gate is closed only when he lets go, or a worker is between gate and device;
    /// it is proved that nothing is in flight, the fence is answered, and then a write goes to the disk.
    pub fn fence_asked(self: &Arc<Self>, fence_gen: FenceGen) -> impl Future<Output = ()> + Send + use<> {
        self.inbox.lock().push_back(Input::Event(Event::FenceAsked { fence_gen }));
        let inner = self.core.lock();
        // It is among these, or whoever had the lock has taken it.
        let before = self.inbox.lock().len();
        self.turn(inner, before);
        self.run();
        let files = self.files();
        async move {
            while files.as_ref().is_some_and(|f| f.direct_closed() && f.direct_entered()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// The administrator's wish: redirected, or as the path allows.
    pub fn force_redirect(&self, redirect: bool) {
        self.post(Event::Forced { redirect });
    }

    /// Its volume is not there any more: the incarnation ends as by an eviction, and no other follows.
    pub(crate) fn over(&self, reason: &str) {
        self.post(Event::Over { reason: reason.to_owned() });
    }

    /// Asks the core to leave for the next process: what that is to know, after which nothing is done here any more; `None` if
    /// something is not finished yet.
    ///
    /// # Cancel safety
    /// Not safe: it may have left.
    pub(crate) async fn leave(&self) -> Option<Box<Known>> {
        let (waiter, known) = oneshot::channel();
        self.put(Input::Leave { waiter });
        known.await.ok().flatten()
    }

    /// Whoever asks for a lock, or gives one up, and is not answered yet.
    pub(crate) fn lock_callers(&self) -> usize {
        self.look(Client::lock_callers)
    }

    /// A new life after an eviction.
    pub fn reborn(&self, client: ClientId, fence_gen: FenceGen) {
        let poisoned = self.ended.borrow().as_ref().map(|e| e.poisoned.clone()).unwrap_or_default();
        self.post(Event::Reborn { client, fence_gen, poisoned });
    }

    /// The route, and each change of it.
    pub fn route(&self) -> watch::Receiver<RouteInfo> {
        self.route.subscribe()
    }

    /// The binding, and each change of it.
    pub fn binding(&self) -> watch::Receiver<Binding> {
        self.binding.subscribe()
    }

    /// The end of an incarnation, when one ends.
    pub fn ended(&self) -> watch::Receiver<Option<Ended>> {
        self.ended.subscribe()
    }

    /// Who this is, in which life.
    pub fn client(&self) -> ClientId {
        self.look(Client::client)
    }

    /// The generation under which this client may do direct I/O, as the coordinator granted it last.
    pub fn fence_gen(&self) -> FenceGen {
        self.look(Client::fence_gen)
    }

    /// What the data path counts.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Requests in slots, requests waiting for one, redirected requests, bytes of redirected writes kept.
    pub fn load(&self) -> (usize, usize, usize, u64) {
        self.look(Client::load)
    }

    /// All that the core knows, for a test that waits in vain.
    #[cfg(test)]
    pub(crate) fn shown(&self) -> String {
        // Before looking, which would have it taken.
        let inbox = self.inbox.lock().len();
        self.look(|core| format!("inbox {inbox}, core {core:#?}"))
    }

    /// A direct request is overdue.
    pub(crate) fn overdue(&self) {
        self.post(Event::Overdue);
    }

    /// The path may be gone.
    pub(crate) fn suspect(&self, reason: Reason) {
        self.post(Event::PathSuspect { reason });
    }

    /// Feeds an event.
    pub(crate) fn post(&self, event: Event) {
        self.put(Input::Event(event));
    }

    pub(crate) fn emit(&self, event: super::link::ClientEvent) {
        self.events.event(event);
    }

    /// To be called every few milliseconds; does nothing until a deadline has come.
    pub(crate) fn tick(&self) {
        if Session::now().0 >= self.deadline.load(Ordering::Relaxed) {
            self.post(Event::Tick);
        }
    }

    fn put(&self, input: Input) {
        self.inbox.lock().push_back(input);
        self.run();
    }

    /// Reads something that the effects of events change, once those of the event that is being applied have been.
    pub(crate) fn settled<R>(&self, read: impl FnOnce() -> R) -> R {
        self.look(|_| read())
    }

    /// Reads something of the core. What was put in meanwhile found the lock taken, so it is taken now.
    fn look<R>(&self, read: impl FnOnce(&Client) -> R) -> R {
        let seen = read(&self.core.lock().core);
        self.run();
        seen
    }

    /// Takes what is in the inbox, unless somebody is at it, who will then take it all.
    fn run(&self) {
        loop {
            let Some(inner) = self.core.try_lock() else { return };
            self.turn(inner, TURN);
            // Something may have been put in between the last look and the unlocking.
            if self.inbox.lock().is_empty() {
                return;
            }
        }
    }

    /// Takes so many inputs at most, lets go of the core, and tells whom they concern.
    fn turn(&self, mut inner: MutexGuard<'_, Inner>, most: usize) {
        for _ in 0..most {
            let Some(input) = self.next() else { break };
            self.take(&mut inner, input);
        }
        let redirected = std::mem::take(&mut inner.redirected);
        let called = std::mem::take(&mut inner.called);
        drop(inner);
        redirected.into_iter().for_each(|(waiter, result)| waiter(result));
        called.into_iter().for_each(|(waiter, result)| waiter.tell(result));
    }

    fn next(&self) -> Option<Input> {
        self.inbox.lock().pop_front()
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("route", &*self.route.borrow())
            .field("binding", &*self.binding.borrow())
            .finish_non_exhaustive()
    }
}

fn errno_of(failure: CallFailure) -> Errno {
    match failure {
        CallFailure::Errno(errno) => Errno(errno),
        CallFailure::Interrupted => Errno(EINTR),
        CallFailure::Evicted | CallFailure::Expired => Errno(EIO),
    }
}

/// `EINTR`.
pub(crate) const EINTR: i32 = rustix::io::Errno::INTR.raw_os_error();
/// `EIO`.
pub(crate) const EIO: i32 = rustix::io::Errno::IO.raw_os_error();
