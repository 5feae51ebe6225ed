//! The shell: a block device over several paths. It moves requests and their memory, and decides nothing.
//!
//! One lock guards the core; it is taken for a submission and for an end, and never held while a path is called. Proofs,
//! checks and the watch over each path run as tasks on the workers.

mod prove;
mod slots;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use scsi::ReservationKey;
use tokio::sync::{Notify, oneshot, watch as watch_of};

use super::config::{Config, MAX_PATHS, Now};
use super::core::Core;
use super::event::{Access, Attempt, Effect, Event, IoId, Kind, Outcome, PathId, PathState, Reason, Standing};
use crate::device::{BlockDevice, Completion, Done, Geometry, Io, Op, Resize};
use crate::error::{IoError, IoErrorKind};
use crate::shared::{AbortOwn, BoxFuture, DiskIdentity, Identify, NothingInFlight, Reservations};
use crate::units::ByteLen;
use crate::worker::{self, Handle};
use slots::{Sending, Slots, Waiting};

/// One way to the disk.
///
/// [`AbortOwn`] is the path's own proof: after it, nothing that went over this path can land any more, and all of it was
/// answered, `Aborted` if with nothing else. It may take as long as the path is gone; [`Path::nexus`] is the other way.
pub trait Path: BlockDevice + AbortOwn + Identify {
    /// Whether the disk answers, and how it is reached. Bounded in time by the path itself.
    fn check(&self) -> BoxFuture<'_, Result<Access, Reason>>;

    /// Waits until the path is lost and says why; asked again after each loss. Never answers for a path that cannot tell.
    fn lost(&self) -> BoxFuture<'_, Reason>;

    /// Its nexus, if that is registered with the disk: then another path can have it killed.
    fn nexus(&self) -> Option<Nexus<'_>>;

    /// Its present standing. For a path that everybody may use there is only one.
    fn standing(&self) -> Standing {
        Standing::default()
    }

    /// Takes a request that was meant for this standing; in any other it is answered `ShuttingDown`, unsent.
    fn submit_in(&self, standing: Standing, io: Io) {
        let _ = standing;
        self.submit(io);
    }

    /// Waits until it is let in (anew), so that it is checked at once. Never answers for a path that everybody may use.
    fn admitted(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    /// The nexus was killed over another path, or by another node (PREEMPT AND ABORT of its key): what went over this path is dead, and
    /// is answered now.
    fn killed(&self);
}

/// A registered nexus.
pub struct Nexus<'a> {
    /// Its reservations.
    pub reservations: &'a dyn Reservations,
    /// Its own key, which no other nexus has.
    pub key: ReservationKey,
}

/// A path as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStatus {
    /// Its place.
    pub path: PathId,
    /// What it is.
    pub name: String,
    /// Its state, with the reason.
    pub state: PathState,
    /// How the disk is reached through it.
    pub access: Access,
    /// Requests under way on it.
    pub in_flight: u32,
}

/// The device. Dropping it answers everything that waits.
pub struct Multipath {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    state: Mutex<Shared>,
    geometry: watch_of::Sender<Geometry>,
    identity: DiskIdentity,
    workers: Handle,
    begun: Instant,
    /// Something is due earlier than the timer thinks.
    earlier: Notify,
}

struct Shared {
    core: Core,
    slots: Slots,
    paths: Vec<Arc<dyn Path>>,
    /// Who waits for the end of everything that was submitted before.
    withdrawn: Vec<oneshot::Sender<()>>,
    closed: bool,
}

impl Multipath {
    /// A device of this identity and shape, still without paths.
    pub fn new(identity: DiskIdentity, geometry: Geometry, config: Config, workers: Handle) -> Multipath {
        let state = Shared {
            core: Core::new(config),
            slots: Slots::default(),
            paths: Vec::new(),
            withdrawn: Vec::new(),
            closed: false,
        };
        let inner = Arc::new(Inner {
            state: Mutex::new(state),
            geometry: watch_of::Sender::new(geometry),
            identity,
            workers,
            begun: Instant::now(),
            earlier: Notify::new(),
        });
        watch::keep_time(&inner);
        Multipath { inner }
    }

    /// Adds a path, for requests of `worker` before others. It is used once a check has proved that it leads to this disk
    /// and how. False if there are [`MAX_PATHS`] already.
    pub fn add(&self, path: Arc<dyn Path>, worker: Option<usize>) -> bool {
        let id = {
            let mut state = self.inner.state.lock();
            if state.paths.len() >= MAX_PATHS || state.closed {
                return false;
            }
            state.paths.push(Arc::clone(&path));
            u16::try_from(state.paths.len() - 1).map_or(PathId(u16::MAX), PathId)
        };
        self.inner.tell(Event::Add { worker });
        watch::watch(&self.inner, id, path);
        true
    }

    /// Where each path is, and why.
    pub fn paths(&self) -> Vec<PathStatus> {
        let state = self.inner.state.lock();
        let of = |(n, (path, known)): (usize, (&Arc<dyn Path>, &super::path::Path))| PathStatus {
            path: PathId(u16::try_from(n).unwrap_or(u16::MAX)),
            name: path.describe(),
            state: known.state.clone(),
            access: known.access,
            in_flight: known.in_flight,
        };
        state.paths.iter().zip(state.core.paths.iter()).enumerate().map(of).collect()
    }

    /// Requests that wait for a path, and changes that wait for the proof that an older copy is dead.
    pub fn waiting(&self) -> (usize, usize) {
        let state = self.inner.state.lock();
        (state.core.waiting(), state.core.in_doubt())
    }

    /// Tells the device of another size, for as long as it is there; false afterwards.
    pub fn resizer(&self) -> impl Fn(ByteLen) -> bool + Send + 'static {
        let inner = Arc::downgrade(&self.inner);
        move |len| {
            let Some(inner) = inner.upgrade() else { return false };
            inner.geometry.send_if_modified(|geometry| std::mem::replace(&mut geometry.len, len) != len);
            true
        }
    }

    /// A request without an answer for so long means from now on that its path has failed.
    pub fn set_path_timeout(&self, limit: Duration) {
        self.inner.tell(Event::Patience(limit));
    }

    /// Uses better paths that came back, where failback is by hand.
    pub fn fail_back(&self) {
        self.inner.tell(Event::FailBack);
    }
}

impl BlockDevice for Multipath {
    fn geometry(&self) -> Geometry {
        *self.inner.geometry.borrow()
    }

    fn submit(&self, io: Io) {
        if let Err(e) = self.geometry().check(&io) {
            return io.complete(Err(e));
        }
        let (kind, len) = (if io.op.changes() { Kind::Change } else { Kind::Free }, io.len.0);
        let mut fx = Vec::new();
        let sends = {
            let mut state = self.inner.state.lock();
            let io = state.slots.put(io);
            let now = self.inner.now();
            state.core.handle(now, Event::Submit { io, kind, len, worker: worker::current() }, &mut fx);
            state.take_up(fx)
        };
        self.inner.carry_out(sends);
    }

    fn describe(&self) -> String {
        format!("{} over {} paths", self.inner.identity.name(), self.inner.state.lock().paths.len())
    }

    /// What any path knows: those of one disk know it together.
    fn losses(&self) -> u64 {
        self.inner.state.lock().paths.iter().map(|path| path.losses()).max().unwrap_or(0)
    }
}

impl Resize for Multipath {
    fn resized(&self) -> watch_of::Receiver<Geometry> {
        self.inner.geometry.subscribe()
    }
}

impl AbortOwn for Multipath {
    /// Takes back what waits, and has every path that carries something proved dead.
    fn abort_outstanding(&self) -> BoxFuture<'_, Result<NothingInFlight, IoError>> {
        let (sender, receiver) = oneshot::channel();
        self.inner.state.lock().withdrawn.push(sender);
        self.inner.tell(Event::Withdraw);
        Box::pin(async move {
            let gone =
                IoError::new(IoErrorKind::ShuttingDown, Op::Flush, crate::units::ByteOffset::ZERO, ByteLen::ZERO);
            receiver.await.map_err(|_| gone)?;
            Ok(NothingInFlight::proved())
        })
    }

    /// What no path has comes back, and nothing is sent again; what paths have is left to the fence.
    fn withdraw(&self) -> BoxFuture<'_, Result<(), IoError>> {
        self.inner.tell(Event::Withdraw);
        Box::pin(std::future::ready(Ok(())))
    }

    fn take_back(&self) {
        self.inner.tell(Event::TakeBack);
    }

    fn ended_by_fence(&self) {
        self.inner.tell(Event::TasksEnded);
    }
}

impl Drop for Multipath {
    fn drop(&mut self) {
        self.inner.state.lock().closed = true;
        self.inner.tell(Event::Close);
    }
}

impl std::fmt::Debug for Multipath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Multipath").field("disk", &self.inner.identity.name()).field("paths", &self.paths()).finish()
    }
}

/// An effect with what it needs, so that it is carried out without the lock.
enum Deed {
    Send { to: Arc<dyn Path>, standing: Standing, io: Sending, name: IoId, attempt: Attempt },
    End(Waiting, Result<(), IoErrorKind>),
    GiveBack(Arc<dyn Path>),
    Check(PathId, Arc<dyn Path>),
    Prove(PathId, Arc<dyn Path>, Vec<Arc<dyn Path>>),
    Withdrawn(Vec<oneshot::Sender<()>>),
}

impl Shared {
    /// Turns effects into deeds, while the lock is held.
    fn take_up(&mut self, fx: Vec<Effect>) -> Vec<Deed> {
        fx.into_iter().filter_map(|effect| self.deed(effect)).collect()
    }

    fn deed(&mut self, effect: Effect) -> Option<Deed> {
        let path_of = |id: PathId| self.paths.get(usize::from(id.0)).cloned();
        match effect {
            Effect::Issue { io: name, path, attempt, standing } => {
                let to = path_of(path)?;
                let io = self.slots.send(name, attempt)?;
                Some(Deed::Send { to, standing, io, name, attempt })
            }
            Effect::GiveBack(path) => Some(Deed::GiveBack(path_of(path)?)),
            Effect::Complete(io, result) => self.slots.take(io).map(|waiting| Deed::End(waiting, result)),
            Effect::Check(path) => Some(Deed::Check(path, path_of(path)?)),
            Effect::Prove(path) => {
                let others = self.paths.iter().enumerate().filter(|(n, _)| *n != usize::from(path.0));
                Some(Deed::Prove(path, path_of(path)?, others.map(|(_, p)| Arc::clone(p)).collect()))
            }
            Effect::Changed(path, state) => {
                let name = path_of(path).map_or_else(String::new, |p| p.describe());
                tracing::info!("{path} ({name}) is {state}");
                None
            }
            Effect::Withdrawn => Some(Deed::Withdrawn(std::mem::take(&mut self.withdrawn))),
        }
    }
}

impl Inner {
    pub(super) fn now(&self) -> Now {
        Now(u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Tells the core something, and carries out what it wants. The timer looks anew: something may be due earlier now.
    pub(super) fn tell(self: &Arc<Inner>, event: Event) {
        self.tell_only(event);
        self.earlier.notify_one();
    }

    /// The same for the timer itself.
    pub(super) fn tell_only(self: &Arc<Inner>, event: Event) {
        let mut fx = Vec::new();
        let deeds = {
            let mut state = self.state.lock();
            state.core.handle(self.now(), event, &mut fx);
            state.take_up(fx)
        };
        self.carry_out(deeds);
    }

    fn carry_out(self: &Arc<Inner>, deeds: Vec<Deed>) {
        for deed in deeds {
            match deed {
                Deed::Send { to, standing, io, name, attempt } => self.send((&to, standing), io, name, attempt),
                Deed::End(waiting, result) => waiting.end(result),
                Deed::GiveBack(path) => path.killed(),
                Deed::Check(id, path) => watch::check(self, id, path),
                Deed::Prove(id, path, others) => {
                    self.earlier.notify_one();
                    prove::prove(self, id, path, others);
                }
                // Who does not wait any more does not need to be told.
                Deed::Withdrawn(waiters) => {
                    for waiter in waiters {
                        let _ = waiter.send(());
                    }
                }
            }
        }
    }

    fn send(self: &Arc<Inner>, (to, standing): (&Arc<dyn Path>, Standing), io: Sending, name: IoId, attempt: Attempt) {
        let Sending { op, at, len, buf } = io;
        let inner = Arc::clone(self);
        let done = Completion::new(move |done| inner.ended(name, attempt, done));
        to.submit_in(standing, Io { op, at, len, buf, done });
    }

    /// A path has answered: its memory comes back first, then the core is told.
    fn ended(self: &Arc<Inner>, io: IoId, attempt: Attempt, done: Done) {
        let Done { result, buf } = done;
        let outcome = outcome(&result);
        let mut fx = Vec::new();
        let deeds = {
            let mut state = self.state.lock();
            state.slots.back(io, attempt, buf, result.err());
            state.core.handle(self.now(), Event::Ended { io, attempt, outcome }, &mut fx);
            state.take_up(fx)
        };
        self.carry_out(deeds);
    }
}

/// What an answer of a path says of the request.
fn outcome(result: &Result<(), IoError>) -> Outcome {
    let Err(error) = result else { return Outcome::Good };
    match error.kind {
        IoErrorKind::Fenced => Outcome::Fenced,
        IoErrorKind::NotAccessible => Outcome::NotAccessible,
        IoErrorKind::ShuttingDown => Outcome::Refused,
        IoErrorKind::Aborted => Outcome::Dead,
        IoErrorKind::Hardware => Outcome::Elsewhere(IoErrorKind::Hardware),
        kind @ (IoErrorKind::NoPath | IoErrorKind::TimedOut | IoErrorKind::Dropped) => Outcome::Doubt(kind),
        kind => Outcome::Failed(kind),
    }
}
