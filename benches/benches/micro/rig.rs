//! A volume on a device in memory, its coordinator and one client in one process: enough for a write in place.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use block::buf::AlignedBuf;
use block::device::BlockDevice;
use block::fault::FaultDevice;
use block::mem::MemDevice;
use block::shared::{AbortOwn, BoxFuture, Epoch, FenceGen, Incarnation, NodeId};
use block::units::{BlockSize, ByteLen};
use block::worker::Workers;
use bytes::Bytes;
use csv_fs::client::data::{DataPath, OpenFile};
use csv_fs::client::link::{CallDone, CoordinatorLink, Coordinators, LinkLost, NoWitnesses, OwnSlot, RedirectDone};
use csv_fs::client::session::{Caller, Session, SessionParts};
use csv_fs::coordinator::{ClientLink, Coordinator, Fencer, Reign};
use csv_fs::core::client::ClientConfig;
use csv_fs::core::coord::FencePurpose;
use csv_fs::core::office::{FenceProof, FencedEpoch, LeaseView, Timing};
use csv_fs::core::rules::Rules;
use csv_fs::format::{TimingMs, VolumeName};
use csv_fs::meta::{FormatOptions, Latch, Root, Store};
use csv_fs::proto::{
    BindAnswer, BindRequest, Call, Callback, CallbackAnswer, CoordinatorHint, OpenRequest, Redirect, Reply, Request,
};
use csv_fs::types::{ClientId, InodeNo, Timestamp, VolumeId};
use tokio::runtime::Runtime;

/// Bytes of the file.
pub(crate) const FILE: u64 = 4 << 20;
const VOLUME: VolumeId = VolumeId(0xbe);
const GEN: FenceGen = FenceGen(1);

type Why = Box<dyn std::error::Error>;

/// All of it. The runtime stays until the end: the coordinator lives on it.
pub(crate) struct Rig {
    runtime: Runtime,
    _workers: Workers,
    path: Arc<DataPath>,
    file: Arc<OpenFile>,
}

impl Rig {
    pub(crate) fn start() -> Result<Rig, Why> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let workers = Workers::start_without_rings(1, "micro")?;
        let node = NodeId::new(1).ok_or("node 1")?;
        let client = ClientId { node, incarnation: Incarnation(1) };
        let disk: Arc<dyn BlockDevice> = Arc::new(MemDevice::new(ByteLen(1 << 30), BlockSize::B4096));
        let (path, file) = runtime.block_on(async {
            let links = Arc::new(Links::reign(&disk, client).await?);
            let fault = FaultDevice::new(Arc::clone(&disk));
            let parts = SessionParts {
                config: ClientConfig {
                    volume: VOLUME,
                    client,
                    fence_gen: GEN,
                    probe_every: Duration::from_secs(1),
                    kept_limit: ClientConfig::KEPT_LIMIT,
                    rides_out: Duration::ZERO,
                },
                coordinators: Arc::clone(&links) as Arc<dyn Coordinators>,
                abort: fault as Arc<dyn AbortOwn>,
                slot: Arc::new(Slot),
                witnesses: Arc::new(NoWitnesses),
                events: Arc::new(|_| {}),
                path_timeout: Duration::from_secs(3),
                io_timeout: Duration::from_secs(120),
                control: tokio::runtime::Handle::current(),
            };
            let session = Session::new(parts, Rules::all());
            // The link is asked for only after this: nothing has been polled yet.
            let _ = links.session.set(Arc::clone(&session));
            let path = DataPath::new(session, disk, 1);
            path.start(&workers.handle());
            let file = filled(&path).await?;
            Ok::<_, Why>((path, file))
        })?;
        Ok(Rig { runtime, _workers: workers, path, file })
    }

    /// Writes and waits for the answer. In memory it is there when the call returns; nothing sleeps.
    pub(crate) fn write(&self, at: u64, data: AlignedBuf) {
        let n = self.runtime.block_on(self.path.write(&self.file, at, data));
        assert_eq!(n.ok(), Some(4096), "a write in place succeeds");
    }

    /// Measured was the hot path, if all but the writes that filled the file went that way.
    pub(crate) fn check_all_were_hot(&self) {
        let counters = self.path.counters().snapshot();
        let (hot, slow) = (counters.hot, counters.slow);
        assert!(slow <= FILE >> 20 && hot > slow, "{slow} operations went the slow way, {hot} the hot one");
    }
}

/// A file whose every block was written and committed.
async fn filled(path: &Arc<DataPath>) -> Result<Arc<OpenFile>, Why> {
    let handle = path.new_handle();
    let create = Request::Create {
        parent: InodeNo::ROOT,
        name: b"file".to_vec(),
        mode: 0o100_644,
        rdev: 0,
        uid: 0,
        gid: 0,
        umask: 0,
        exclusive: true,
        open: Some(OpenRequest { handle, flags: 2 }),
    };
    let caller = Caller::patient();
    let reply = path.session().call(&caller, create).await.map_err(|e| format!("create: errno {}", e.0))?;
    let Reply::Created { attr, .. } = reply else { return Err("create was answered with something else".into()) };
    let file = path.opened(attr.ino, handle, 2, Some(attr.size));
    for at in (0..FILE).step_by(1 << 20) {
        let data = AlignedBuf::zeroed(1 << 20);
        path.write(&file, at, data).await.map_err(|e| format!("fill: errno {}", e.0))?;
    }
    Ok(file)
}

/// The only coordinator, in this process.
struct Links {
    coordinator: Arc<Coordinator>,
    hint: CoordinatorHint,
    session: OnceLock<Arc<Session>>,
}

impl Links {
    async fn reign(disk: &Arc<dyn BlockDevice>, client: ClientId) -> Result<Links, Why> {
        let options = FormatOptions {
            volume: VOLUME,
            name: VolumeName::new("micro").map_err(|e| e.to_string())?,
            nodes: 1,
            timing: TimingMs::FAST,
            root: Root { uid: 0, gid: 0, mode: 0o755, now: Timestamp::default() },
            wipe: None,
        };
        let device = Arc::clone(disk);
        let superblock = tokio::task::spawn_blocking(move || Store::format(&device, &options)).await??;
        let before = LeaseView::new_volume();
        let epoch = FencedEpoch::by_resignation(&before, &before.taken_by(client, "here", 1)).ok_or("no epoch")?;
        let hint = CoordinatorHint { epoch: epoch.epoch(), node: client.node };
        let reign = Reign {
            epoch,
            device: Arc::clone(disk),
            superblock,
            latch: Arc::new(Latch::new()),
            suspension: Arc::default(),
            fencer: Arc::new(NoFence),
            unheard: std::collections::BTreeMap::new(),
            comes_back: false,
            timing: Timing::FAST,
            boot: 1,
            rules: Rules::all(),
        };
        let (coordinator, _reports) = Coordinator::start(reign).await?;
        Ok(Links { coordinator: Arc::new(coordinator), hint, session: OnceLock::new() })
    }
}

impl Coordinators for Links {
    fn link(&self, _to: &CoordinatorHint) -> Option<Arc<dyn CoordinatorLink>> {
        let session = Arc::clone(self.session.get()?);
        Some(Arc::new(Link { coordinator: Arc::clone(&self.coordinator), session }))
    }

    fn ask_who(&self) -> BoxFuture<'_, Vec<CoordinatorHint>> {
        Box::pin(async { vec![self.hint.clone()] })
    }
}

struct Link {
    coordinator: Arc<Coordinator>,
    session: Arc<Session>,
}

impl CoordinatorLink for Link {
    fn bind(&self, _epoch: Epoch, request: BindRequest) -> BoxFuture<'_, Result<BindAnswer, LinkLost>> {
        let back = Arc::new(Back(Arc::clone(&self.session)));
        Box::pin(async move { Ok(self.coordinator.bind(back, request).await) })
    }

    fn call(&self, _epoch: Epoch, call: Call, done: CallDone) -> Option<BoxFuture<'static, ()>> {
        self.coordinator.call_then(call, move |answer| done.tell(Ok(answer)));
        None
    }

    fn redirect(
        &self,
        _epoch: Epoch,
        redirect: Redirect,
        data: Option<Bytes>,
        done: RedirectDone,
    ) -> Option<BoxFuture<'static, ()>> {
        let (coordinator, data) = (Arc::clone(&self.coordinator), data.map(|d| AlignedBuf::from_slice(&d)));
        Some(Box::pin(async move { done.tell(Ok(coordinator.redirect(redirect, data).await)) }))
    }

    fn closed(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

struct Back(Arc<Session>);

impl ClientLink for Back {
    fn id(&self) -> u64 {
        1
    }

    fn callback(&self, callback: Callback) -> BoxFuture<'_, Option<CallbackAnswer>> {
        Box::pin(async move { Some(self.0.callback(callback.client, callback.ask).await) })
    }
}

struct Slot;

impl OwnSlot for Slot {
    fn fence_gen(&self) -> BoxFuture<'_, Option<FenceGen>> {
        Box::pin(async { Some(GEN) })
    }
}

struct NoFence;

impl Fencer for NoFence {
    fn fence(&self, _: ClientId, _: FencePurpose) -> BoxFuture<'_, Result<FenceProof, String>> {
        Box::pin(async { Err("nobody is fenced here".to_owned()) })
    }
}
