//! A volume, its coordinator, and clients with a fault device each.

mod links;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use block::AlignedBuf;
use block::device::{BlockDevice, DeviceExt, Done, Geometry, Io, Op};
use block::fault::FaultDevice;
use block::mem::MemDevice;
use block::recording::RecordingDevice;
use block::shared::{AbortOwn, BoxFuture, Epoch, FenceGen, Incarnation, NodeId};
use block::units::{BlockSize, ByteLen};
use block::worker::Workers;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use crate::client::data::Seek;
use crate::client::data::{DataPath, OpenFile};
use crate::client::link::*;
use crate::client::session::{Caller, Ended, Errno, Session, SessionParts};
use crate::coordinator::{ClientLink, Coordinator, Fencer, Reign};
use crate::core::client::{ClientConfig, Reason, Route};
use crate::core::coord::FencePurpose;
use crate::core::office::{FenceProof, FencedEpoch, HowFenced, LeaseView, Timing};
use crate::core::rules::{Rule, Rules};
use crate::format::{CELL, Slot, Superblock, TimingMs, VolumeName, slot_at};
use crate::meta::check::Limits;
use crate::meta::{FormatOptions, Latch, Root, Store, Unmounted, View, read_superblock};
use crate::proto::*;
use crate::types::*;

use links::{Below, Links, Others, Paths, SlotReader};

/// How long a test waits for what must happen.
pub(crate) const SOON: Duration = Duration::from_secs(25);
/// Short, so that tests of lost paths are.
pub(crate) const PATH_TIMEOUT: Duration = Duration::from_millis(300);
/// Where many clusters run side by side, and none tests a deadline: a machine that is busy with others must not run into one.
/// Who is waited for in vain is still evicted before [`SOON`].
const PATIENT: Timing = Timing { recall: Duration::from_secs(20), grace: Duration::from_secs(20), ..Timing::FAST };
const VOLUME: VolumeId = VolumeId(0xc11e);
const GEN: FenceGen = FenceGen(3);

pub(crate) fn client_id(node: u8) -> ClientId {
    ClientId { node: NodeId::new(node).unwrap(), incarnation: Incarnation(7) }
}

fn next_life(node: u8) -> ClientId {
    ClientId { incarnation: Incarnation(8), ..client_id(node) }
}

/// An office whose fences succeed: each raises the generation in the victim's slot.
pub(crate) struct Office {
    device: Arc<MemDevice>,
    pub(crate) done: Mutex<Vec<(ClientId, FencePurpose)>>,
    /// Fences raise the generation and are then never heard of again.
    pub(crate) falls_silent: AtomicBool,
    gens: Mutex<BTreeMap<NodeId, FenceGen>>,
}

impl Office {
    /// Writes a node's slot.
    async fn slot(&self, id: ClientId, fence_gen: FenceGen) {
        let slot = Slot { incarnation: id.incarnation, fence_gen, ..Slot::empty(id.node) };
        let mut cell = AlignedBuf::zeroed(CELL as usize);
        let bytes = slot.encode(VOLUME);
        cell[..bytes.len()].copy_from_slice(&bytes);
        self.device.write(slot_at(id.node), cell).await.0.unwrap();
        self.gens.lock().insert(id.node, fence_gen);
    }

    pub(crate) fn fence_gen(&self, node: NodeId) -> FenceGen {
        self.gens.lock()[&node]
    }
}

impl Fencer for Office {
    fn fence(&self, client: ClientId, purpose: FencePurpose) -> BoxFuture<'_, Result<FenceProof, String>> {
        Box::pin(async move {
            self.done.lock().push((client, purpose));
            let raised = FenceGen(self.fence_gen(client.node).0 + 1);
            self.slot(client, raised).await;
            if self.falls_silent.load(Ordering::Acquire) {
                return std::future::pending().await;
            }
            Ok(FenceProof::assumed(client, raised, HowFenced::Answered))
        })
    }
}

/// What a cluster lacks, to see that a test notices.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lacking {
    Nothing,
    Rule(Rule),
    /// The latch of a reign that is over: a coordinator that was taken for dead changes its store once more.
    Latch,
    /// The flushes of the metadata store: they are answered, and nothing is flushed.
    Flushes,
}

impl Lacking {
    fn rules(self) -> Rules {
        match self {
            Lacking::Rule(rule) => Rules::without(rule),
            _ => Rules::all(),
        }
    }
}

/// A disk that answers flushes and does not flush.
struct Unflushed(Arc<dyn BlockDevice>);

impl BlockDevice for Unflushed {
    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    fn submit(&self, io: Io) {
        match io.op {
            Op::Flush => io.done.complete(Done { result: Ok(()), buf: None }),
            _ => self.0.submit(io),
        }
    }

    fn describe(&self) -> String {
        self.0.describe()
    }
}

/// A client that never holds anything.
struct NoClient;

impl ClientLink for NoClient {
    fn id(&self) -> u64 {
        3
    }

    fn callback(&self, _: Callback) -> BoxFuture<'_, Option<CallbackAnswer>> {
        Box::pin(async { Some(CallbackAnswer::NotHeld) })
    }
}

/// What becomes of the answer to a node's next durable call, once it is executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    Arrives,
    /// Its connection breaks.
    Lost,
    /// The coordinator dies with it.
    LostWithCoordinator,
    /// The same with the answer to its next redirected write.
    WriteLostWithCoordinator,
}

/// One reign.
struct Serving {
    coordinator: Arc<Coordinator>,
    hint: CoordinatorHint,
    ended: watch::Sender<bool>,
    latch: Arc<Latch>,
}

impl Serving {
    /// Nobody reaches it any more; with `latch`, nor does it reach its store.
    fn end(&self, latch: bool) {
        if latch {
            self.latch.trip();
        }
        self.ended.send_replace(true);
    }
}

/// The whole of it.
pub(crate) struct Cluster {
    pub(crate) device: Arc<MemDevice>,
    /// The same as coordinator and clients reach it.
    shared: Arc<dyn BlockDevice>,
    superblock: Superblock,
    pub(crate) office: Arc<Office>,
    lease: LeaseView,
    serving: Arc<Mutex<Option<Arc<Serving>>>>,
    workers: Workers,
    lacking: Lacking,
    /// Of the nodes that are made.
    pub(crate) io_timeout: Duration,
    /// Coordinators that are followed by another live on for a while.
    dozes: bool,
    asleep: Option<Arc<Serving>>,
    /// Of the nodes that were made.
    paths: Paths,
}

/// One node's client.
pub(crate) struct Node {
    pub(crate) below: Arc<Below>,
    pub(crate) fault: Arc<FaultDevice>,
    pub(crate) session: Arc<Session>,
    pub(crate) path: Arc<DataPath>,
    pub(crate) events: Arc<Mutex<Vec<ClientEvent>>>,
    pub(crate) fate: Arc<Mutex<Fate>>,
    late: Late,
    slow: Late,
}

/// What the next commit waits for before it reaches the coordinator.
type Late = Arc<Mutex<Option<Arc<Semaphore>>>>;

impl Cluster {
    pub(crate) async fn new() -> Cluster {
        Cluster::on(MemDevice::new(ByteLen(1 << 30), BlockSize::B512)).await
    }

    pub(crate) async fn on(device: MemDevice) -> Cluster {
        let device = Arc::new(device);
        let shared = Arc::clone(&device) as Arc<dyn BlockDevice>;
        let mut cluster = Cluster::formatted(device, shared).await;
        cluster.take_office(4).await;
        cluster
    }

    /// One that lacks something.
    pub(crate) async fn lacking(lacking: Lacking) -> Cluster {
        let mut cluster = Cluster::new().await;
        cluster.lacking = lacking;
        cluster
    }

    /// One whose coordinators, when another follows, are only asleep: each wakes up once before the next takes office, and goes
    /// on with a request that it had (of node 3). Its latch is what keeps that harmless.
    pub(crate) async fn dozing(lacking: Lacking) -> Cluster {
        let device = Arc::new(MemDevice::new(ByteLen(1 << 30), BlockSize::B512));
        let shared = Arc::clone(&device) as Arc<dyn BlockDevice>;
        let mut cluster = Cluster::formatted(device, shared).await;
        (cluster.lacking, cluster.dozes) = (lacking, true);
        cluster.take_office(4).await;
        cluster
    }

    /// One whose disk is recorded from the first reign on, and what it held before.
    pub(crate) async fn recorded(lacking: Lacking) -> (Cluster, Arc<RecordingDevice>, MemDevice) {
        let device = Arc::new(MemDevice::new(ByteLen(1 << 30), BlockSize::B512));
        let recorder = RecordingDevice::new(Arc::clone(&device) as Arc<dyn BlockDevice>);
        let shared = Arc::clone(&recorder) as Arc<dyn BlockDevice>;
        let mut cluster = Cluster::formatted(Arc::clone(&device), shared).await;
        cluster.lacking = lacking;
        let start = device.copy();
        cluster.take_office(4).await;
        (cluster, recorder, start)
    }

    /// Every host was without power and starts again: nodes in their next lives, on what is left of a disk.
    pub(crate) async fn restarted(device: MemDevice) -> Cluster {
        let device = Arc::new(device);
        let shared = Arc::clone(&device) as Arc<dyn BlockDevice>;
        let superblock = read_superblock(&shared).expect("a volume").superblock;
        let mut cluster = Cluster::over(device, shared, superblock);
        for node in 1..=4 {
            cluster.office.slot(next_life(node), FenceGen(GEN.0 + 1)).await;
        }
        cluster.lease = LeaseView { epoch: Epoch(7), ..LeaseView::new_volume() }.taken_by(client_id(4), "nowhere", 1);
        cluster.take_office(4).await;
        cluster
    }

    /// A node of a cluster that was restarted.
    pub(crate) fn restarted_node(&self, node: u8) -> Node {
        self.node_of(next_life(node), FenceGen(GEN.0 + 1), &self.workers)
    }

    /// Formatted, with the slots of all nodes, and nobody in office.
    async fn formatted(device: Arc<MemDevice>, shared: Arc<dyn BlockDevice>) -> Cluster {
        let options = FormatOptions {
            volume: VOLUME,
            name: VolumeName::new("test").unwrap(),
            nodes: 4,
            timing: TimingMs::FAST,
            root: Root { uid: 0, gid: 0, mode: 0o755, now: Timestamp::default() },
            wipe: None,
        };
        let dev = Arc::clone(&device) as Arc<dyn BlockDevice>;
        let superblock = tokio::task::spawn_blocking(move || Store::format(&dev, &options).unwrap()).await.unwrap();
        let cluster = Cluster::over(device, shared, superblock);
        for node in 1..=4 {
            cluster.office.slot(client_id(node), GEN).await;
        }
        cluster
    }

    fn over(device: Arc<MemDevice>, shared: Arc<dyn BlockDevice>, superblock: Superblock) -> Cluster {
        let office = Arc::new(Office {
            device: Arc::clone(&device),
            done: Mutex::default(),
            falls_silent: AtomicBool::new(false),
            gens: Mutex::default(),
        });
        let workers = Workers::start_without_rings(1, "t").unwrap();
        let (lease, serving) = (LeaseView::new_volume(), Arc::default());
        let (lacking, dozes, asleep) = (Lacking::Nothing, false, None);
        let io_timeout = Duration::ZERO;
        let paths = Paths::default();
        Cluster {
            device,
            shared,
            superblock,
            office,
            lease,
            serving,
            workers,
            lacking,
            io_timeout,
            dozes,
            asleep,
            paths,
        }
    }

    /// Node `node` takes office after the one before was ended as a kill would, and found dead.
    pub(crate) async fn take_office(&mut self, node: u8) {
        self.wake_up().await;
        match self.dozes {
            true => self.asleep = self.end_reign(),
            false => self.kill_coordinator().await,
        }
        let before = self.lease.clone();
        let taken = before.taken_by(client_id(node), "nowhere", 1);
        let epoch = match before.holder {
            None => FencedEpoch::by_resignation(&before, &taken).unwrap(),
            Some(holder) => {
                let proof = FenceProof::assumed(holder, self.office.fence_gen(holder.node), HowFenced::Answered);
                FencedEpoch::by_fence(&before, &taken, proof).unwrap()
            }
        };
        self.lease = taken;
        let latch = Arc::new(Latch::new());
        let hint = CoordinatorHint { epoch: epoch.epoch(), node: epoch.client().node };
        let device = match self.lacking {
            Lacking::Flushes => Arc::new(Unflushed(Arc::clone(&self.shared))),
            _ => Arc::clone(&self.shared),
        };
        let reign = Reign {
            epoch,
            device,
            superblock: self.superblock.clone(),
            latch: Arc::clone(&latch),
            suspension: Arc::default(),
            fencer: Arc::clone(&self.office) as Arc<dyn Fencer>,
            unheard: BTreeMap::new(),
            comes_back: false,
            timing: if self.dozes { PATIENT } else { Timing::FAST },
            boot: u64::from(node),
            rules: self.lacking.rules(),
        };
        let (coordinator, _reports) = Coordinator::start(reign).await.unwrap();
        if self.dozes {
            let (client, bind) = (client_id(3), Bind(hint.epoch.0));
            let reassert = Vec::new();
            let request = BindRequest { volume: VOLUME, client, bind, fence_gen: GEN, has_path: true, reassert };
            let bound = coordinator.bind(Arc::new(NoClient), request).await;
            assert!(matches!(bound, BindAnswer::Bound { .. }), "{bound:?}");
        }
        let serving = Serving { coordinator: Arc::new(coordinator), hint, ended: watch::Sender::new(false), latch };
        *self.serving.lock() = Some(Arc::new(serving));
    }

    /// Nothing is answered any more.
    pub(crate) async fn kill_coordinator(&mut self) {
        if let Some(serving) = self.end_reign() {
            serving.coordinator.stop(None).await;
        }
    }

    fn end_reign(&mut self) -> Option<Arc<Serving>> {
        let serving = self.serving.lock().take()?;
        serving.end(!matches!(self.lacking, Lacking::Latch));
        Some(serving)
    }

    /// A coordinator that another one follows goes on where it was.
    async fn wake_up(&mut self) {
        let Some(serving) = self.asleep.take() else { return };
        let (parent, name) = (InodeNo::ROOT, b"of a former reign".to_vec());
        let (mode, open) = (0o100_600, None);
        let request = Request::Create { parent, name, mode, umask: 0, rdev: 0, uid: 0, gid: 0, exclusive: true, open };
        let slot = SlotRef { table: SlotTable::Ordinary, index: 0 };
        let call =
            Call { volume: VOLUME, client: client_id(3), bind: Bind(serving.hint.epoch.0), slot, seq: 1, request };
        tokio::time::timeout(SOON, serving.coordinator.call(call)).await.expect("answered");
        serving.latch.trip();
        serving.coordinator.stop(None).await;
    }

    /// Whether the coordinator died with an answer.
    pub(crate) fn is_dead(&self) -> bool {
        self.serving.lock().as_ref().is_none_or(|s| *s.ended.borrow())
    }

    /// A client is said to be dead.
    pub(crate) fn evict_client(&self, client: ClientId) {
        self.serving.lock().as_ref().unwrap().coordinator.client_dead(client);
    }

    /// The next life of a node that was evicted.
    pub(crate) async fn next_life(&mut self, node: &Node) {
        let last = node.session.client();
        let next = ClientId { incarnation: Incarnation(last.incarnation.0 + 1), ..last };
        let fence_gen = self.office.fence_gen(next.node);
        self.office.slot(next, fence_gen).await;
        node.session.reborn(next, fence_gen);
    }

    /// Ends the reign, and checks the store.
    pub(crate) async fn must_be_sound(&mut self) -> Result<(), String> {
        self.wake_up().await;
        self.kill_coordinator().await;
        let device = Arc::clone(&self.device) as Arc<dyn BlockDevice>;
        sound(device, |_| Ok(())).await
    }

    /// Evicts a node that the coordinator knows, and waits until it knows that itself.
    pub(crate) async fn end_life(&mut self, node: &Node) -> Ended {
        let life = node.session.client();
        self.evict_client(life);
        let mut ended = node.session.ended();
        node.soon(async {
            loop {
                // It learns of it with its next call.
                let _ = node.session.call(&Caller::patient(), Request::Statfs).await;
                if let Some(ended) = ended.borrow_and_update().clone().filter(|e| e.client == life) {
                    return ended;
                }
            }
        })
        .await
    }

    /// Changes of metadata wait.
    pub(crate) fn suspend(&self, suspended: bool) {
        self.serving.lock().as_ref().unwrap().coordinator.suspend(suspended);
    }

    /// Checks the volume as it is served, and as the power's failure now would leave it.
    pub(crate) async fn must_be_clean(&self) {
        let coordinator = Arc::clone(&self.serving.lock().as_ref().unwrap().coordinator);
        let served = coordinator.check(|_| ()).await.unwrap();
        assert!(served.is_clean(), "as it is served: {served}");
        let left = self.device.copy();
        left.crash();
        let left = Arc::new(left) as Arc<dyn BlockDevice>;
        let check = move || {
            let mut go_on = |_| std::ops::ControlFlow::Continue(());
            Store::check_unmounted(&left, &Unmounted::in_memory(), Limits::DEFAULT, &mut go_on)
        };
        let left = tokio::task::spawn_blocking(check).await.unwrap().unwrap();
        assert!(left.is_clean(), "after a power failure: {left}");
    }

    /// Handles open at the coordinator.
    pub(crate) fn opens(&self) -> usize {
        self.serving.lock().as_ref().unwrap().coordinator.status().open_files
    }

    /// Locks held at the coordinator, and waiters there.
    pub(crate) fn locks(&self) -> (usize, usize) {
        let status = self.serving.lock().as_ref().unwrap().coordinator.status();
        (status.locks, status.lock_waiters)
    }

    /// What finding conflicts of locks has cost the coordinator so far.
    pub(crate) fn lock_looks(&self) -> u64 {
        self.serving.lock().as_ref().unwrap().coordinator.status().lock_looks
    }

    pub(crate) fn metrics(&self) -> Arc<crate::coordinator::Metrics> {
        self.serving.lock().as_ref().unwrap().coordinator.metrics()
    }

    pub(crate) fn node(&self, node: u8) -> Node {
        self.node_on(node, &self.workers)
    }

    /// The same with other workers under its data path.
    pub(crate) fn node_on(&self, node: u8, workers: &Workers) -> Node {
        self.node_of(client_id(node), GEN, workers)
    }

    fn node_of(&self, client: ClientId, fence_gen: FenceGen, workers: &Workers) -> Node {
        let below = Below::new(Arc::clone(&self.shared));
        let fault = FaultDevice::new(Arc::clone(&below) as Arc<dyn BlockDevice>);
        let events: Arc<Mutex<Vec<ClientEvent>>> = Arc::default();
        let sink = Arc::clone(&events);
        let (fate, late, slow) = (Arc::new(Mutex::new(Fate::Arrives)), Late::default(), Late::default());
        let links = Arc::new(Links {
            serving: Arc::clone(&self.serving),
            fate: Arc::clone(&fate),
            late: Arc::clone(&late),
            slow: Arc::clone(&slow),
            session: Mutex::default(),
            id: u64::from(client.node.get()),
        });
        let parts = SessionParts {
            config: ClientConfig {
                volume: VOLUME,
                client,
                fence_gen,
                probe_every: Duration::from_millis(50),
                kept_limit: 1 << 20,
                rides_out: Duration::ZERO,
            },
            coordinators: Arc::clone(&links) as Arc<dyn Coordinators>,
            abort: Arc::clone(&fault) as Arc<dyn AbortOwn>,
            witnesses: Arc::new(Others { node: client.node, paths: Arc::clone(&self.paths) }),
            slot: Arc::new(SlotReader {
                device: Arc::clone(&fault),
                office: Arc::clone(&self.office),
                node: client.node,
            }),
            events: Arc::new(move |e| sink.lock().push(e)),
            path_timeout: PATH_TIMEOUT,
            io_timeout: self.io_timeout,
            control: tokio::runtime::Handle::current(),
        };
        let session = Session::new(parts, self.lacking.rules());
        *links.session.lock() = Some(Arc::clone(&session));
        let disk = Arc::clone(&fault) as Arc<dyn BlockDevice>;
        let path = DataPath::new(Arc::clone(&session), disk, workers.count());
        self.paths.lock().insert(client.node, Arc::downgrade(&path));
        path.start(&workers.handle());
        Node { below, fault, session, path, events, fate, late, slow }
    }
}

impl Node {
    /// Waits for what must come soon, or while this client gets on (a machine may be slow, a lost request moves nothing); if
    /// it does not come, shows where this client stands.
    pub(crate) async fn soon<T>(&self, what: impl Future<Output = T>) -> T {
        let mut what = std::pin::pin!(what);
        let mut before = None;
        for _ in 0..8 {
            let now = self.path.counters().snapshot();
            if before.replace(now) == Some(now) {
                break;
            }
            if let Ok(done) = tokio::time::timeout(SOON, what.as_mut()).await {
                return done;
            }
        }
        panic!("no answer: {}\n{:#?}\n{:#?}", self.session.shown(), self.path, self.events.lock())
    }

    /// The next commit is late: it reaches the coordinator when this is told.
    pub(crate) fn next_commit_is_late(&self) -> Arc<Semaphore> {
        let late = Arc::new(Semaphore::new(0));
        *self.late.lock() = Some(Arc::clone(&late));
        late
    }

    /// The next layout that goes back does so, and the answer to that comes when this is told.
    pub(crate) fn next_return_is_answered_late(&self) -> Arc<Semaphore> {
        let late = Arc::new(Semaphore::new(0));
        *self.slow.lock() = Some(Arc::clone(&late));
        late
    }

    /// Until that commit is on its way.
    pub(crate) async fn late_commit_sent(&self) {
        until(|| self.late.lock().is_none()).await;
    }

    pub(crate) async fn call(&self, request: Request) -> Reply {
        let patient = Caller::patient();
        let call = self.session.call(&patient, request);
        self.soon(call).await.expect("succeeds")
    }

    /// Creates and opens.
    pub(crate) async fn create(&self, name: &str) -> Arc<OpenFile> {
        let handle = self.path.new_handle();
        let request = Request::Create {
            parent: InodeNo::ROOT,
            name: name.into(),
            mode: 0o100644,
            umask: 0,
            rdev: 0,
            uid: 0,
            gid: 0,
            exclusive: true,
            open: Some(OpenRequest { handle, flags: 2 }),
        };
        let Reply::Created { attr, opened: true } = self.call(request).await else { panic!() };
        self.path.opened(attr.ino, handle, 2, Some(attr.size))
    }

    pub(crate) async fn open(&self, ino: InodeNo) -> Arc<OpenFile> {
        self.open_with(ino, 2).await
    }

    pub(crate) async fn open_to_append(&self, ino: InodeNo) -> Arc<OpenFile> {
        self.open_with(ino, 2 | rustix::fs::OFlags::APPEND.bits().cast_signed()).await
    }

    async fn open_with(&self, ino: InodeNo, flags: i32) -> Arc<OpenFile> {
        let handle = self.path.new_handle();
        self.call(Request::Open { ino, open: OpenRequest { handle, flags: flags.cast_unsigned() } }).await;
        self.path.opened(ino, handle, flags, None)
    }

    pub(crate) async fn try_write(&self, file: &Arc<OpenFile>, offset: u64, data: &[u8]) -> Result<u32, Errno> {
        let write = self.path.write(file, offset, AlignedBuf::from_slice(data));
        self.soon(write).await
    }

    pub(crate) async fn write(&self, file: &Arc<OpenFile>, offset: u64, data: &[u8]) {
        assert_eq!(self.try_write(file, offset, data).await, Ok(data.len() as u32));
    }

    pub(crate) async fn read(&self, file: &Arc<OpenFile>, offset: u64, size: u32) -> Vec<u8> {
        let read = self.path.read(file, offset, size);
        self.soon(read).await.expect("read").to_vec()
    }

    pub(crate) async fn fsync(&self, file: &Arc<OpenFile>) {
        let patient = Caller::patient();
        let sync = self.path.fsync(&file.inode, &patient);
        self.soon(sync).await.expect("fsync");
    }

    pub(crate) async fn attr(&self, ino: InodeNo) -> Attr {
        let patient = Caller::patient();
        self.soon(self.path.attr(ino, &patient)).await.expect("attributes")
    }

    pub(crate) async fn truncate(&self, ino: InodeNo, size: u64) {
        let set = SetAttr { size: Some(size), ..SetAttr::default() };
        let patient = Caller::patient();
        let call = self.path.set_attr(ino, set, &patient);
        self.soon(call).await.expect("truncated");
    }

    pub(crate) async fn fallocate(&self, ino: InodeNo, offset: u64, len: u64) {
        let patient = Caller::patient();
        let call = self.path.fallocate(ino, offset, len, false, &patient);
        self.soon(call).await.expect("allocated");
    }

    pub(crate) async fn punch(&self, ino: InodeNo, offset: u64, len: u64) {
        let patient = Caller::patient();
        self.soon(self.path.punch(ino, offset, len, &patient)).await.expect("a hole");
    }

    pub(crate) async fn zero_range(&self, ino: InodeNo, offset: u64, len: u64, keep_size: bool) {
        let patient = Caller::patient();
        self.soon(self.path.zero_range(ino, offset, len, keep_size, &patient)).await.expect("zeroed");
    }

    /// `None` for ENXIO.
    pub(crate) async fn seek(&self, file: &Arc<OpenFile>, offset: u64, what: Seek) -> Option<u64> {
        let patient = Caller::patient();
        match self.soon(self.path.seek(&file.inode, offset, what, &patient)).await {
            Ok(at) => Some(at),
            Err(Errno(errno)) => {
                assert_eq!(errno, rustix::io::Errno::NXIO.raw_os_error());
                None
            }
        }
    }

    pub(crate) async fn routed(&self, route: Route) -> Reason {
        let mut watch = self.session.route();
        let info =
            tokio::time::timeout(SOON, watch.wait_for(|r| r.route == route)).await.expect("in time").expect("alive");
        info.reason
    }
}

/// A recognisable pattern.
pub(crate) fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add((i >> 8) as u8).wrapping_add(seed)).collect()
}

/// Opens the store of a disk that nobody uses, and checks it; what `look` sees of it.
pub(crate) async fn sound<T: Send + 'static>(
    device: Arc<dyn BlockDevice>,
    look: impl FnOnce(&View) -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let opened = move || {
        let superblock = read_superblock(&device).map_err(|e| e.to_string())?.superblock;
        let new = LeaseView::new_volume();
        let epoch = FencedEpoch::by_resignation(&new, &new.taken_by(client_id(4), "nowhere", 1)).expect("a right");
        let store = Store::open(device, &superblock, &epoch, Arc::new(Latch::new())).map_err(|e| e.to_string())?;
        if store.was_repaired() {
            return Err("all of the store was read to open it".into());
        }
        let view = store.view().map_err(|e| e.to_string())?;
        let mut go_on = |_| std::ops::ControlFlow::Continue(());
        let report = view.check(&store.superblock(), Limits::DEFAULT, &mut go_on).map_err(|e| e.to_string())?;
        if report.is_clean() { look(&view) } else { Err(report.to_string()) }
    };
    tokio::task::spawn_blocking(opened).await.expect("does not panic")
}

/// Waits until something is so.
pub(crate) async fn until(mut so: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !so() {
        assert!(tokio::time::Instant::now() < deadline, "it did not come to that");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
