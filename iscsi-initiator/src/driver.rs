//! A session on a worker: the shell of [`iscsi::session`]. It decides nothing.
//!
//! ```text
//!  callers ─ inbox (bounded) ─► driver task ─ effects ─► outgoing ─ one writev for many PDUs ─► socket
//!     ▲                           │  ▲
//!     └──── completions ──────────┘  └─ framer ◄─ one readv: the rest of a payload into its caller's memory, and what
//!                                                  follows into a small buffer
//! ```
//! While answers come quickly the socket wakes the task for several at once (`gather`); nothing that is to be sent waits.
//! One local task owns everything of its session. A request's memory is owned by its job until it ends; a Data-Out
//! that is half written when its task dies keeps the memory until it is whole.
//!
//! Ends: after [`Session::close`], or when the session core gives up; every job is then answered. If the task itself
//! is lost with its worker, dropping the jobs answers them.

mod gather;
mod incoming;
mod jobs;
mod outgoing;
mod run;

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Waker};

use block::buf::AlignedBuf;
use block::kernel_disk::KernelDisk;
use block::worker::Handle;
use iscsi::discovery::Portal;
use iscsi::ids::PortalGroup;
use iscsi::keys::params::Params;
use iscsi::login::Kind;
use iscsi::session::{Cause, Class, Config, FenceGen, Outcome};
use iscsi::text::Pair;
use parking_lot::Mutex;
use scsi::{Cdb, LunAddress, Sense, SenseKey};
use tokio::sync::{oneshot, watch};

use crate::kernel;

/// Requests that wait for the driver at most, besides those it has taken: as many as a session takes. Beyond that a
/// submitter is answered at once.
pub const MAX_WAITING: usize = 4096;

/// Who else may write to the unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ownership {
    /// Nobody: each new nexus counts as proved at once, so that writes are sent again after a reconnection.
    Alone,
    /// Other nodes, kept apart by reservations: the owner registers each new nexus and proves it
    /// ([`Session::proved`]).
    Shared,
}

/// What a session's owner may watch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SessionState {
    /// No nexus yet, or none any more; the last reason.
    Down(Option<Cause>),
    /// A nexus stands.
    Up {
        /// Its number.
        nexus: u64,
        /// The target's portal group: the target port of the nexus.
        group: Option<PortalGroup>,
        /// What was agreed.
        params: Params,
    },
    /// Over.
    Ended(Cause),
}

/// How a request ended, with its memory.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// The memory that came with it.
    pub memory: Option<AlignedBuf>,
}

/// A SCSI command to be carried out.
pub struct Request {
    /// For which unit.
    pub lun: LunAddress,
    /// What; its transfer's length is the memory's.
    pub cdb: Cdb,
    /// What may become of it without an answer.
    pub class: Class,
    /// Its data.
    pub memory: Option<AlignedBuf>,
    /// The era in which its owner was asked for it ([`Session::era`]): once a later one has begun it is answered `Aborted`,
    /// unsent. None for what belongs to no era.
    pub era: Option<Era>,
    /// Called once, on the driver's worker; must not block.
    pub done: Box<dyn FnOnce(Ended) + Send>,
}

/// Counts how often everything was taken back from a session. What is one step of a longer request carries the era in
/// which the request came. Prevents: a write is answered BUSY and waits outside the session while its path is given up and
/// proved dead; then it goes out after all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Era(u64);

#[cfg(test)]
impl Era {
    /// The one behind it.
    pub(crate) fn next(self) -> Era {
        Era(self.0 + 1)
    }
}

/// What goes to the driver.
pub(crate) enum Order {
    Carry(Request),
    Text(Vec<u8>, oneshot::Sender<Result<Vec<Pair>, Cause>>),
    Proved(u64, FenceGen),
    Fenced(FenceGen),
    Unregistered(u64),
    Preempted,
    ResetUnit(LunAddress, oneshot::Sender<bool>),
    GiveUp(oneshot::Sender<()>),
    Close,
    /// Of a disk of the kernel only.
    Kernel(kernel::Happened),
}

impl Order {
    /// Nobody takes it any more, and whoever waits for its end hears so. (Of what has no outcome, that its sender is gone says it.)
    pub(crate) fn refuse(self) {
        match self {
            Order::Carry(request) => {
                let outcome = Outcome::Lost(Cause::ClosedHere);
                (request.done)(Ended { outcome, memory: request.memory });
            }
            Order::Text(_, answer) => drop(answer.send(Err(Cause::ClosedHere))),
            _ => {}
        }
    }
}

/// The way to the driver.
pub(crate) struct Inbox {
    orders: Mutex<Orders>,
    /// Changed only while `orders` is locked.
    era: AtomicU64,
    listeners: Mutex<Vec<(LunAddress, Weak<dyn Listener>)>>,
}

/// Is told what a unit reports of itself: a unit attention or a deferred error, **whichever command took it**, before that
/// command's owner hears of it; and what comes without any command (asynchronous event 0). A unit tells each nexus once, and
/// questions, trials and reads that settle a compare-and-write take such news as well as requests do. Prevents: a renewal
/// of a lease takes the news of a reset, and the next flush is believed.
pub(crate) trait Listener: Send + Sync {
    /// Sense data of key UNIT ATTENTION, or deferred. `asked` if a command brought them, whose owner follows them up.
    fn attention(&self, sense: &Sense, asked: bool);
}

/// What lies in it.
struct Orders {
    /// None once nobody takes them any more.
    queue: Option<VecDeque<Order>>,
    /// The driver, while it waits: whoever puts the first order in wakes it.
    driver: Option<Waker>,
}

impl Inbox {
    fn new() -> Inbox {
        let orders = Orders { queue: Some(VecDeque::new()), driver: None };
        Inbox { orders: Mutex::new(orders), era: AtomicU64::new(0), listeners: Mutex::default() }
    }

    /// Something has happened to what the driver has under way.
    pub(crate) fn happened(&self, happened: kernel::Happened) {
        let mut orders = self.orders.lock();
        if let Some(queue) = &mut orders.queue {
            queue.push_back(Order::Kernel(happened));
        }
        let driver = orders.driver.take();
        drop(orders);
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Whoever listens for this unit is told.
    pub(crate) fn heard(&self, lun: LunAddress, sense: &[u8], asked: bool) {
        let Some(sense) = Sense::parse(sense).ok().filter(|s| s.deferred || s.key == SenseKey::UnitAttention) else {
            return;
        };
        let listeners: Vec<_> =
            self.listeners.lock().iter().filter(|(of, _)| *of == lun).map(|(_, l)| l.clone()).collect();
        listeners.iter().filter_map(Weak::upgrade).for_each(|l| l.attention(&sense, asked));
    }

    /// Everything that lies here goes into `taken`, which is empty. The driver is awake: nobody has to wake it.
    pub(crate) fn take(&self, taken: &mut VecDeque<Order>) {
        let mut orders = self.orders.lock();
        orders.driver = None;
        if let Some(queue) = &mut orders.queue {
            std::mem::swap(queue, taken);
        }
    }

    /// Whether something lies here; if not, whoever puts it in wakes the driver.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> bool {
        let mut orders = self.orders.lock();
        if orders.queue.as_ref().is_some_and(|q| !q.is_empty()) {
            return true;
        }
        if !orders.driver.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            orders.driver = Some(cx.waker().clone());
        }
        false
    }

    /// Nobody takes orders any more; those that lie here.
    pub(crate) fn close(&self) -> VecDeque<Order> {
        self.orders.lock().queue.take().unwrap_or_default()
    }
}

/// Where a session goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// To a portal.
    Portal(Portal),
    /// To a disk of the kernel, which goes on from there.
    Disk(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Portal(portal) => portal.fmt(f),
            Place::Disk(path) => path.display().fmt(f),
        }
    }
}

/// A session. Cheap to clone; it lives until it is closed.
#[derive(Clone)]
pub struct Session {
    inbox: Arc<Inbox>,
    state: watch::Receiver<SessionState>,
    place: Place,
    target: Arc<str>,
}

impl Session {
    /// Starts a session as a local task of one of `workers`.
    pub fn start(workers: &Handle, worker: usize, config: Config, ownership: Ownership) -> Session {
        let inbox = Arc::new(Inbox::new());
        let (teller, state) = watch::channel(SessionState::Down(None));
        let target = match &config.login.kind {
            Kind::Normal { target } => Arc::from(target.as_str()),
            _ => Arc::from(""),
        };
        let place = Place::Portal(config.portal.clone());
        let session = Session { inbox: Arc::clone(&inbox), state, place, target };
        drop(workers.spawn(worker, move || run::Driver::new(config, ownership, inbox, teller).run()));
        session
    }

    /// The same for a disk of the kernel, whose nexus is the host's.
    pub fn of_disk(workers: &Handle, worker: usize, disk: Arc<KernelDisk>, ownership: Ownership) -> Session {
        let inbox = Arc::new(Inbox::new());
        let (teller, state) = watch::channel(SessionState::Down(None));
        let place = Place::Disk(disk.path());
        let session = Session { inbox: Arc::clone(&inbox), state, place, target: Arc::from("") };
        drop(workers.spawn(worker, move || kernel::Driver::new(disk, ownership, inbox, teller).run()));
        session
    }

    /// Carries out a request. Never blocks; with [`MAX_WAITING`] of them waiting, it is answered here and now.
    pub fn submit(&self, request: Request) {
        if let Err(Order::Carry(request)) = self.order(Order::Carry(request)) {
            let outcome = match &*self.state.borrow() {
                SessionState::Ended(cause) => Outcome::Lost(cause.clone()),
                _ if request.era.is_some_and(|era| era < self.era()) => Outcome::Aborted,
                _ => Outcome::Lost(Cause::Full),
            };
            (request.done)(Ended { outcome, memory: request.memory });
        }
    }

    /// Tells this listener what the unit reports of itself, as long as it is there.
    pub(crate) fn listen(&self, lun: LunAddress, listener: Weak<dyn Listener>) {
        let mut listeners = self.inbox.listeners.lock();
        listeners.retain(|(_, l)| l.strong_count() > 0);
        listeners.push((lun, listener));
    }

    /// The present era.
    pub fn era(&self) -> Era {
        Era(self.inbox.era.load(Ordering::Acquire))
    }

    /// Carries out a command, a step of what was asked for in this era, and waits for its end.
    ///
    /// # Cancel safety
    /// A dropped future withdraws nothing.
    pub async fn carry_out_in(
        &self,
        era: Era,
        lun: LunAddress,
        cdb: Cdb,
        class: Class,
        memory: Option<AlignedBuf>,
    ) -> Ended {
        self.carried(Some(era), (lun, cdb, class, memory)).await
    }

    /// Carries out a command and waits for its end.
    ///
    /// # Cancel safety
    /// A dropped future withdraws nothing.
    pub async fn carry_out(&self, lun: LunAddress, cdb: Cdb, class: Class, memory: Option<AlignedBuf>) -> Ended {
        self.carried(None, (lun, cdb, class, memory)).await
    }

    async fn carried(
        &self,
        era: Option<Era>,
        (lun, cdb, class, memory): (LunAddress, Cdb, Class, Option<AlignedBuf>),
    ) -> Ended {
        let (sender, receiver) = oneshot::channel();
        let done = Box::new(move |ended| drop(sender.send(ended)));
        self.submit(Request { lun, cdb, class, memory, era, done });
        receiver.await.unwrap_or(Ended { outcome: Outcome::Unknown(Cause::ClosedHere), memory: None })
    }

    /// Asks a text and waits for the answer.
    pub async fn text(&self, body: Vec<u8>) -> Result<Vec<Pair>, Cause> {
        let (sender, receiver) = oneshot::channel();
        drop(self.order(Order::Text(body, sender)));
        receiver.await.unwrap_or(Err(Cause::ClosedHere))
    }

    /// The owner has registered this nexus, then read its slot over it.
    pub fn proved(&self, nexus: u64, generation: FenceGen) {
        drop(self.order(Order::Proved(nexus, generation)));
    }

    /// The node was fenced.
    pub fn fenced(&self, generation: FenceGen) {
        drop(self.order(Order::Fenced(generation)));
    }

    /// A command met a RESERVATION CONFLICT on this nexus.
    pub fn unregistered(&self, nexus: u64) {
        drop(self.order(Order::Unregistered(nexus)));
    }

    /// The older nexuses' keys were preempted and their tasks aborted.
    pub fn preempted(&self) {
        drop(self.order(Order::Preempted));
    }

    /// LOGICAL UNIT RESET: whether it was answered, on the nexus that stands. Then every command of every nexus with that unit has ended.
    ///
    /// # Cancel safety
    /// A dropped future withdraws nothing.
    pub async fn reset_unit(&self, lun: LunAddress) -> bool {
        let (sender, receiver) = oneshot::channel();
        drop(self.order(Order::ResetUnit(lun, sender)));
        receiver.await.unwrap_or(false)
    }

    /// Takes every request back that was submitted before, and answers once none of them can land any more: what was never
    /// sent is answered `Aborted` at once; for the rest the nexus is given up, and the next login at the same portal group
    /// (or [`Session::preempted`]) proves them dead. False if the session ended before that.
    ///
    /// # Cancel safety
    /// A dropped future withdraws nothing: the requests are taken back all the same.
    pub async fn give_up(&self) -> bool {
        let (sender, receiver) = oneshot::channel();
        drop(self.order(Order::GiveUp(sender)));
        receiver.await.is_ok()
    }

    /// Where it is, to be watched.
    pub fn state(&self) -> watch::Receiver<SessionState> {
        self.state.clone()
    }

    /// The number of the nexus that stands.
    pub fn nexus(&self) -> Option<u64> {
        match &*self.state.borrow() {
            SessionState::Up { nexus, .. } => Some(*nexus),
            _ => None,
        }
    }

    /// The target's name; empty in a discovery session.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Where it goes.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Whether a write that was answered is on the medium, whatever cache the unit has: a disk of the kernel sees to that.
    pub(crate) fn writes_through(&self) -> bool {
        matches!(self.place, Place::Disk(_))
    }

    /// Waits until a nexus stands, or the session has ended.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn up(&self) -> Result<(u64, Params), Cause> {
        let mut state = self.state.clone();
        loop {
            match &*state.borrow_and_update() {
                SessionState::Up { nexus, params, .. } => return Ok((*nexus, *params)),
                SessionState::Ended(cause) => return Err(cause.clone()),
                SessionState::Down(_) => {}
            }
            if state.changed().await.is_err() {
                return Err(Cause::ClosedHere);
            }
        }
    }

    /// Has it drain, log out and end, and waits for nothing.
    pub(crate) fn end(&self) {
        drop(self.order(Order::Close));
    }

    /// Drains, logs out, ends; waits for that, which is bounded by the session's timing.
    pub async fn close(&self) -> Cause {
        drop(self.order(Order::Close));
        let mut state = self.state.clone();
        loop {
            if let SessionState::Ended(cause) = &*state.borrow_and_update() {
                return cause.clone();
            }
            if state.changed().await.is_err() {
                return Cause::ClosedHere;
            }
        }
    }

    /// Gives the order back if there is no room or nobody to take it.
    #[allow(clippy::result_large_err)]
    // Reason: it is the caller's own request that comes back, moved once; a box would be one allocation a request.
    fn order(&self, order: Order) -> Result<(), Order> {
        let mut inbox = self.inbox.orders.lock();
        let era = Era(self.inbox.era.load(Ordering::Acquire));
        match (&order, inbox.queue.as_mut()) {
            (Order::Carry(request), Some(_)) if request.era.is_some_and(|e| e < era) => return Err(order),
            (Order::GiveUp(_), Some(_)) => self.inbox.era.store(era.0 + 1, Ordering::Release),
            _ => {}
        }
        match inbox.queue.as_mut() {
            Some(queue) if queue.len() < MAX_WAITING || !matches!(order, Order::Carry(_)) => queue.push_back(order),
            _ => return Err(order),
        }
        let driver = inbox.driver.take();
        drop(inbox);
        if let Some(driver) = driver {
            driver.wake();
        }
        Ok(())
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("place", &self.place).field("state", &*self.state.borrow()).finish()
    }
}
