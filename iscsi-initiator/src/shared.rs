//! A unit that several nodes share: its data over every nexus that was admitted, its lease and slots over every one that is
//! registered, and the [`Nexuses`] that an office registers and judges.
//!
//! ```text
//!   data ──► Multipath ──► Way (admitted?) ──► session ──► target
//!   cells, compare-and-write, reservations ──► a Way that is registered, hedged over another after 300 ms
//! ```
//! What is what: `door` decides, `way` is a path of the multipath device, `enter` lets nexuses in, `besides` counts what goes past the
//! multipath device.
//!
//! Reads of cells begin with the way that answered last, so that a way that hangs costs one hedge and not one each time.

mod besides;
mod door;
mod enter;
mod way;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use block::device::{BlockDevice, Completion, Done, Geometry, Io, Op};
use block::error::{IoError, IoErrorKind};
use block::multipath::{Config as Paths, Multipath, PathStatus};
use block::shared::{
    AbortOwn, AloneError, BoxFuture, CawOutcome, CompareAndWrite, DiskKind, Entrance, HEDGE_AFTER, HELD_TYPE,
    HedgedCaw, NexusNumber, Nexuses, NodeId, Notices, Reservations as _, ReserveError, SharedDisk, VolumeTag,
};
use block::units::ByteOffset;
use block::worker::Handle;
use iscsi::session::{Config, FenceGen};
use parking_lot::Mutex;
use scsi::{LunAddress, ReservationKey};
use tokio::sync::{RwLock, mpsc, watch};
use tokio::task::JoinSet;

use crate::driver::Ownership;
use crate::lun::{self, Plan, Sessions};
use crate::path::LunPath;
use crate::unit::{Identity, LunDevice, UnitError};
use besides::{Besides, CountedCaw};
use door::Right;
use way::Way;

/// How long the first nexus may take to be let in.
const ENTERS_WITHIN: Duration = Duration::from_secs(15);
/// How long an answer about reservations may take before another nexus is asked.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How long the end of what was sent is waited for when the unit is left.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// How long leaving in order may take: the rest is left to whoever mounts next.
const LEAVES_WITHIN: Duration = Duration::from_secs(3);
/// Ways over which one compare-and-write goes at most.
const HEDGES: usize = 4;
/// A path is given up after this part of the time that the layer above waits: long enough before that another is used instead.
const PATIENCE: u32 = 3;

/// What is opened, and for whom.
#[derive(Clone, Debug)]
pub struct SharedPlan {
    /// How to log in to each portal; the ISID of each is replaced.
    pub portals: Vec<Config>,
    /// The unit, the same at every portal.
    pub lun: LunAddress,
    /// Sessions to each portal.
    pub per_portal: usize,
    /// The first of the numbers of this node's sessions: the same in each life, so that a login ends what the last life left.
    pub first_slot: u16,
    /// The node's number in its ISIDs, the same in each life.
    pub host: u32,
    /// The volume, in keys.
    pub volume: VolumeTag,
    /// This node, in keys.
    pub node: NodeId,
}

/// Why a unit cannot be had as a shared disk.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SharedError {
    /// It was not found.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// None of a unit's disks could be opened.
    #[error("{0}")]
    NoDisk(String),
    /// No nexus could be registered in time; why the last one was not.
    #[error("no nexus could be registered: {0}")]
    NotRegistered(ReserveError),
}

/// Opens a unit as a shared disk: logs in everywhere, and waits for the first nexus that is registered, under a key of incarnation 0.
///
/// # Cancel safety
/// A dropped future leaves sessions to end with their workers.
pub async fn open(workers: &Handle, plan: SharedPlan) -> Result<SharedDisk, SharedError> {
    let sessions = Plan {
        portals: plan.portals,
        lun: plan.lun,
        per_portal: plan.per_portal,
        first_slot: plan.first_slot,
        host: plan.host,
        generation: FenceGen(0),
        paths: Paths::default(),
    };
    let (sessions, identity, target) = lun::begin(workers, &sessions, Ownership::Shared).await?;
    let opened = Opened { sessions, identity, target, of_workers: plan.per_portal > 1 };
    share(workers, opened, plan.volume, plan.node).await
}

/// A unit that was found.
pub(crate) struct Opened {
    pub(crate) sessions: Sessions,
    pub(crate) identity: Identity,
    pub(crate) target: String,
    /// Each session is for the requests of its worker before others.
    pub(crate) of_workers: bool,
}

/// Shares a unit that was found: waits for the first nexus that is registered.
pub(crate) async fn share(
    workers: &Handle,
    opened: Opened,
    volume: VolumeTag,
    node: NodeId,
) -> Result<SharedDisk, SharedError> {
    // An admission follows a registration and a look at the slot: one good check is enough then.
    let paths = Paths { good_checks: 1, path_timeout: Duration::from_secs(1), ..Paths::default() };
    let Opened { sessions, identity, target, of_workers } = opened;
    let device = Multipath::new(identity.names(&target), identity.geometry, paths, workers.clone());
    let (stability, mut ways) = (Arc::default(), Vec::new());
    for (worker, session) in sessions {
        let way = Arc::new(Way::new(LunPath::new(session, identity.clone(), FenceGen(0), &stability, true)));
        device.add(Arc::clone(&way) as Arc<dyn block::multipath::Path>, of_workers.then_some(worker));
        ways.push(way);
    }
    let core = Arc::new(Core {
        device,
        ways,
        volume,
        node,
        number: Mutex::new(first_number()),
        judge: Mutex::default(),
        best: AtomicUsize::new(0),
        left: AtomicBool::new(false),
        besides: Arc::default(),
        entering: RwLock::new(()),
        workers: workers.clone(),
    });
    for (n, way) in core.ways.iter().enumerate() {
        let (weak, way) = (Arc::downgrade(&core), Arc::clone(way));
        drop(workers.spawn(n, move || enter::keep_letting_in(weak, way)));
    }
    core.first_is_in().await?;
    let cells = Arc::new(Cells(Arc::downgrade(&core), core.device.geometry()));
    Ok(SharedDisk {
        data: Arc::clone(&core) as Arc<dyn BlockDevice>,
        cells,
        caw: Arc::clone(&core) as Arc<dyn CompareAndWrite>,
        abort: Arc::clone(&core) as Arc<dyn AbortOwn>,
        kind: DiskKind::Unit(core),
        fault: None,
    })
}

/// Where the numbers of this process's entrances begin. Makes improbable: a preemption that the process before has asked for, of a nexus of
/// its own, comes late and meets the same number of this process, which may go on under the same incarnation. It would cost a login.
fn first_number() -> NexusNumber {
    let mut bytes = [0; 2];
    // Without chance it begins as it always did.
    let _ = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    NexusNumber(u16::from_be_bytes(bytes))
}

/// The unit, as it is shared.
pub(crate) struct Core {
    device: Multipath,
    ways: Vec<Arc<Way>>,
    volume: VolumeTag,
    node: NodeId,
    number: Mutex<NexusNumber>,
    /// Who hears of entrances.
    judge: Mutex<Option<mpsc::UnboundedSender<Entrance>>>,
    /// The way that answered last.
    best: AtomicUsize,
    /// It is being left: nobody enters any more.
    left: AtomicBool,
    /// What goes past the multipath device.
    besides: Arc<Besides>,
    /// Read by each nexus for as long as it enters; written by who must know which nexuses are registered, once no other is let in.
    /// Prevents: a registration is on its way while all others are given back, and stays behind for good, or is taken for another's.
    entering: RwLock<()>,
    workers: Handle,
}

impl Core {
    fn is_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }

    fn next_number(&self) -> NexusNumber {
        let mut number = self.number.lock();
        *number = enter::next(*number);
        *number
    }

    /// Without an office nobody has to know: the first one has every nexus enter anew.
    fn announce(&self, entrance: Entrance) {
        if let Some(judge) = &*self.judge.lock() {
            // An office that is gone judges nothing.
            let _ = judge.send(entrance);
        }
    }

    async fn first_is_in(&self) -> Result<(), SharedError> {
        let waits = async {
            while !self.ways.iter().any(|way| way.is_registered()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let last = ReserveError::Unknown(format!("no answer within {} s", ENTERS_WITHIN.as_secs()));
        tokio::time::timeout(ENTERS_WITHIN, waits).await.map_err(|_| SharedError::NotRegistered(last))
    }

    /// Ways that are registered: first the one that answered last, then those over other portals.
    fn registered_ways(&self) -> Vec<(usize, Arc<Way>)> {
        let (all, best) = (self.ways.len().max(1), self.best.load(Ordering::Relaxed));
        let order = (0..all).map(|n| (best + n) % all);
        let of = |n: usize| self.ways.get(n).map(|way| (n, Arc::clone(way)));
        let ways: Vec<_> = order.filter_map(of).filter(|(_, way)| way.is_registered()).collect();
        let Some(first) = ways.first().map(|(_, way)| way.session().place().clone()) else { return ways };
        let (same, mut others): (Vec<_>, Vec<_>) = ways.into_iter().partition(|(_, w)| *w.session().place() == first);
        let mut same = same.into_iter();
        others.splice(0..0, same.next());
        others.extend(same);
        others
    }

    /// The way of an entrance, with its nexus.
    fn entrance(&self, number: NexusNumber) -> Option<(&Arc<Way>, u64)> {
        let of = |way: &Arc<Way>| way.door.lock().nexus_of(number);
        let (way, nexus) = self.ways.iter().find_map(|way| of(way).map(|nexus| (way, nexus)))?;
        (way.session().nexus() == Some(nexus)).then_some((way, nexus))
    }

    /// Asks one way after the other until one answers.
    async fn over_any<T, F>(&self, ask: impl Fn(Arc<LunDevice>, ReservationKey) -> F) -> Result<T, ReserveError>
    where
        F: Future<Output = Result<T, ReserveError>>,
    {
        let mut last = ReserveError::Unknown("no nexus is registered".to_owned());
        for (n, way) in self.registered_ways() {
            let Some(own) = way.path.key() else { continue };
            match tokio::time::timeout(ANSWER_WITHIN, ask(Arc::clone(way.path.device()), own)).await {
                Ok(Ok(answer)) => {
                    self.best.store(n, Ordering::Relaxed);
                    return Ok(answer);
                }
                Ok(Err(e)) => last = e,
                Err(_) => last = ReserveError::Unknown("no answer in time".to_owned()),
            }
        }
        Err(last)
    }

    /// PREEMPT AND ABORT over one way, and over another as well if that takes long: the first question stays out. Prevents: the victim's
    /// write, which is with the disk, keeps the answer back; the question is asked again over another nexus, where the key is gone,
    /// and that is taken for the answer.
    async fn preempts(&self, victim: ReservationKey) -> Result<(), ReserveError> {
        let (mut asked, mut ways) = (JoinSet::new(), self.registered_ways().into_iter());
        let (mut lost, mut refused) = (None, ReserveError::Unknown("no nexus is registered".to_owned()));
        loop {
            if let Some((n, way)) = ways.next()
                && let Some(own) = way.path.key()
            {
                let unit = Arc::clone(way.path.device());
                let preempts = self.besides.asks(async move { unit.preempt(own, victim, HELD_TYPE, true).await });
                asked.spawn(async move { (n, preempts.await) });
            }
            let more = !ways.as_slice().is_empty();
            let answer = match tokio::time::timeout(ANSWER_WITHIN, asked.join_next()).await {
                Err(_) if more => continue,
                Err(_) => asked.join_next().await,
                Ok(answer) => answer,
            };
            match answer {
                Some(Ok((n, Ok(())))) => {
                    self.best.store(n, Ordering::Relaxed);
                    asked.detach_all();
                    return Ok(());
                }
                Some(Ok((_, Err(ReserveError::Gone)))) if asked.is_empty() => {
                    return Err(lost.unwrap_or(ReserveError::Gone));
                }
                Some(Ok((_, Err(e @ ReserveError::Unknown(_))))) => lost = Some(e),
                Some(Ok((_, Err(e)))) => refused = e,
                Some(Err(_)) => lost = Some(ReserveError::Unknown("its task has ended".to_owned())),
                None if !more => return Err(lost.unwrap_or(refused)),
                None => {}
            }
        }
    }

    /// Reads cells over one way, and over another if that takes long.
    async fn read_cells(self: Arc<Core>, at: ByteOffset, len: usize) -> Option<Done> {
        let (mut copies, mut last) = (JoinSet::new(), None);
        let mut ways = self.registered_ways().into_iter();
        loop {
            if let Some((n, way)) = ways.next() {
                let (done, read) = Completion::channel();
                way.device().submit_unjudged(Io::read(at, len, done));
                copies.spawn(async move { (n, read.await) });
            }
            let more = !ways.as_slice().is_empty();
            let answer = match tokio::time::timeout(HEDGE_AFTER, copies.join_next()).await {
                Err(_) if more => continue,
                Err(_) => copies.join_next().await,
                Ok(answer) => answer,
            };
            match answer {
                Some(Ok((n, Ok(done)))) if done.result.is_ok() => {
                    self.best.store(n, Ordering::Relaxed);
                    copies.detach_all();
                    return Some(done);
                }
                Some(Ok((_, Ok(done)))) => last = Some(done),
                Some(_) => {}
                None if !more => return last,
                None => {}
            }
        }
    }

    /// See [`Nexuses::alone`]. The other nexuses are given back first, so that no key but one is this process's.
    async fn takes_alone(&self) -> Result<(), AloneError> {
        self.left.store(true, Ordering::Release);
        let _nobody_enters = self.entering.write().await;
        let registered = self.registered_ways();
        let Some((_, way)) = registered.first() else {
            return Err(ReserveError::Unknown("no nexus is registered".to_owned()).into());
        };
        for other in self.ways.iter().filter(|other| !Arc::ptr_eq(other, way)) {
            if other.is_registered() {
                other.path.unregister().await?;
            }
            other.session().end();
        }
        let (Some(own), Some(nexus)) = (way.path.key(), way.session().nexus()) else {
            return Err(ReserveError::NotRegistered.into());
        };
        let others = async || {
            let mut keys = way.device().keys().await?.keys;
            keys.retain(|key| *key != own);
            Ok::<_, ReserveError>(keys)
        };
        let before = others().await?;
        if !before.is_empty() {
            return Err(AloneError::Others(before));
        }
        way.device().hold_alone(own, HELD_TYPE).await?;
        // Who registered in between found the unit free, and has found it held by now.
        let since = others().await?;
        if !since.is_empty() {
            return Err(AloneError::Others(since));
        }
        way.session().proved(nexus, FenceGen(0));
        let right = Right { era: way.session().era(), generation: FenceGen(0) };
        if !way.door.lock().admitted_alone(nexus, right) {
            return Err(ReserveError::NotRegistered.into());
        }
        way.opened.notify_one();
        Ok(())
    }

    /// Nothing is sent any more, what was sent has ended, every registration of this node is taken away, and the sessions end. In this
    /// order. Prevents: a write is with the disk behind the target, and the key of its nexus is given back; whoever fences this node finds no
    /// key and no mark, takes that for the end of everything, and the write lands later.
    ///
    /// Meanwhile no nexus of this node has another one killed, for the same reason: the key would be gone without a mark. A preemption
    /// that one had sent before is not taken back.
    async fn leaves(&self) -> bool {
        self.left.store(true, Ordering::Release);
        self.besides.shut();
        for way in &self.ways {
            way.leaves();
            way.door.lock().again();
        }
        let ends = async { self.besides.are_over().await && self.device.abort_outstanding().await.is_ok() };
        if !tokio::time::timeout(ENDS_WITHIN, ends).await.is_ok_and(|ended| ended) {
            tracing::warn!(
                "{}: not everything that was sent has ended; its registrations stay",
                self.device.describe()
            );
            self.ways.iter().for_each(|way| way.session().end());
            return false;
        }
        let gone = async {
            let _nobody_enters = self.entering.write().await;
            for way in &self.ways {
                way.knock.notify_one();
                if way.is_registered()
                    && let Err(e) = way.path.unregister().await
                {
                    tracing::warn!("a registration of this node stays at {}: {e}", way.session().place());
                }
            }
            for way in &self.ways {
                way.session().close().await;
            }
        };
        if tokio::time::timeout(LEAVES_WITHIN, gone).await.is_err() {
            tracing::warn!("{} was not left in order: it did not answer", self.device.describe());
            self.ways.iter().for_each(|way| way.session().end());
        }
        true
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.ways.iter().for_each(|way| way.session().end());
    }
}

impl BlockDevice for Core {
    fn geometry(&self) -> Geometry {
        self.device.geometry()
    }

    fn submit(&self, io: Io) {
        self.device.submit(io);
    }

    fn describe(&self) -> String {
        self.device.describe()
    }

    fn losses(&self) -> u64 {
        self.device.losses()
    }
}

impl AbortOwn for Core {
    fn abort_outstanding(&self) -> BoxFuture<'_, Result<block::shared::NothingInFlight, IoError>> {
        self.device.abort_outstanding()
    }

    fn withdraw(&self) -> BoxFuture<'_, Result<(), IoError>> {
        self.device.withdraw()
    }

    fn take_back(&self) {
        self.device.take_back();
    }

    fn ended_by_fence(&self) {
        self.device.ended_by_fence();
    }
}

impl CompareAndWrite for Core {
    fn compare_and_write(
        &self,
        at: ByteOffset,
        expect: Vec<u8>,
        new: Vec<u8>,
    ) -> BoxFuture<'_, Result<CawOutcome, IoError>> {
        let ways = self.registered_ways().into_iter().take(HEDGES);
        let counted = |(_, way): (usize, Arc<Way>)| {
            let (unit, besides) = (Arc::clone(way.path.device()), Arc::clone(&self.besides));
            Arc::new(CountedCaw { unit, besides }) as Arc<dyn CompareAndWrite>
        };
        let ways: Vec<_> = ways.map(counted).collect();
        let len = block::units::ByteLen::of(&new);
        Box::pin(async move {
            if ways.is_empty() {
                return Err(IoError::new(IoErrorKind::NoPath, Op::Write { fua: true }, at, len));
            }
            HedgedCaw::new(ways, HEDGE_AFTER).compare_and_write(at, expect, new).await
        })
    }
}

impl Nexuses for Core {
    fn entered(&self) -> mpsc::UnboundedReceiver<Entrance> {
        let (judge, entered) = mpsc::unbounded_channel();
        *self.judge.lock() = Some(judge);
        for way in &self.ways {
            way.door.lock().again();
            way.knock.notify_one();
        }
        entered
    }

    fn register(&self, nexus: NexusNumber, key: ReservationKey) -> BoxFuture<'_, Result<(), ReserveError>> {
        Box::pin(async move {
            // Prevents: the unit is left while the key is changed, and the new one stays behind.
            let _enters = self.entering.read().await;
            if self.is_left() {
                return Err(ReserveError::NotRegistered);
            }
            let Some((way, stands)) = self.entrance(nexus) else { return Err(ReserveError::NotRegistered) };
            if let Err(e) = way.path.change_key(key, HELD_TYPE).await {
                way.session().unregistered(stands);
                return Err(e);
            }
            // What was settled over a later nexus is not this one's.
            let Some((way, _)) = self.entrance(nexus) else { return Err(ReserveError::NotRegistered) };
            way.door.lock().registered(nexus);
            Ok(())
        })
    }

    fn read_over(&self, nexus: NexusNumber, at: ByteOffset, len: usize) -> BoxFuture<'_, Result<Vec<u8>, IoError>> {
        Box::pin(async move {
            let gone = || IoError::new(IoErrorKind::NoPath, Op::Read, at, block::units::ByteLen::from_usize(len));
            let (way, _) = self.entrance(nexus).ok_or_else(gone)?;
            let (done, read) = Completion::channel();
            way.device().submit_unjudged(Io::read(at, len, done));
            let done = read.await.map_err(|_| gone())?;
            done.result?;
            self.entrance(nexus).ok_or_else(gone)?;
            Ok(done.buf.ok_or_else(gone)?.to_vec())
        })
    }

    fn admit(&self, nexus: NexusNumber, generation: block::shared::FenceGen) {
        let Some((way, stands)) = self.entrance(nexus) else { return };
        let generation = FenceGen(generation.0);
        // Before the door opens: what is sent waits for the proof.
        way.session().proved(stands, generation);
        let right = Right { era: way.session().era(), generation };
        if way.door.lock().admitted(nexus, right) {
            way.opened.notify_one();
        }
    }

    fn refuse(&self, nexus: NexusNumber) {
        if let Some((way, _)) = self.entrance(nexus) {
            way.door.lock().refused(nexus);
        }
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<ReservationKey>, ReserveError>> {
        Box::pin(self.over_any(|unit, _| async move { Ok(unit.keys().await?.keys) }))
    }

    fn preempt(&self, victim: ReservationKey) -> BoxFuture<'_, Result<(), ReserveError>> {
        Box::pin(self.preempts(victim))
    }

    fn reset_unit(&self) -> BoxFuture<'_, Result<(), ReserveError>> {
        Box::pin(async move {
            let mut last = ReserveError::Unknown("no nexus is registered".to_owned());
            for (_, way) in self.registered_ways() {
                // For as long as it takes: it waits for whatever is with the disk, and its session has times of its own.
                let unit = Arc::clone(way.path.device());
                match self.besides.asks(async move { unit.reset_unit().await }).await {
                    Ok(()) => return Ok(()),
                    Err(e) => last = e,
                }
            }
            Err(last)
        })
    }

    fn reserve(&self) -> BoxFuture<'_, Result<(), ReserveError>> {
        Box::pin(self.over_any(|unit, own| self.besides.asks(async move { unit.reserve(own, HELD_TYPE).await })))
    }

    fn is_reserved(&self) -> BoxFuture<'_, Result<bool, ReserveError>> {
        Box::pin(self.over_any(|unit, _| async move {
            let held = unit.reservation().await?.reservation;
            Ok(held.is_some_and(|r| r.kind == HELD_TYPE))
        }))
    }

    fn alone(&self) -> BoxFuture<'_, Result<(), AloneError>> {
        Box::pin(self.takes_alone())
    }

    fn set_path_timeout(&self, limit: Duration) {
        self.device.set_path_timeout(limit / PATIENCE);
    }

    fn notices(&self) -> watch::Receiver<Notices> {
        // The same for each way. Without any, nothing is ever told.
        self.ways.first().map_or_else(|| watch::channel(Notices::default()).1, |way| way.device().notices())
    }

    fn paths(&self) -> Vec<PathStatus> {
        self.device.paths()
    }

    fn leave(&self) -> BoxFuture<'_, bool> {
        Box::pin(self.leaves())
    }
}

/// Lease, slots and superblocks, read over whatever nexus is registered.
struct Cells(Weak<Core>, Geometry);

impl BlockDevice for Cells {
    fn geometry(&self) -> Geometry {
        self.0.upgrade().map_or(self.1, |core| core.geometry())
    }

    fn submit(&self, io: Io) {
        if io.op != Op::Read {
            return io.fail(IoErrorKind::NotSupported);
        }
        let Some(core) = self.0.upgrade() else { return io.fail(IoErrorKind::ShuttingDown) };
        let Some(len) = io.len.as_usize() else { return io.fail(IoErrorKind::OutOfRange) };
        let workers = core.workers.clone();
        drop(workers.spawn(core.best.load(Ordering::Relaxed), move || async move {
            match core.read_cells(io.at, len).await {
                Some(done) => io.done.complete(done),
                None => io.fail(IoErrorKind::NoPath),
            }
        }));
    }

    fn describe(&self) -> String {
        self.0.upgrade().map_or_else(|| "a unit that was left".to_owned(), |core| core.describe())
    }
}
