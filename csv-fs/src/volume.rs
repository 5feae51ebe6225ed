//! One volume on one node: disk, office, client, mount, and while in office the coordinator, put together.
//!
//! ```text
//!   kernel ── fuse channels (one per worker) ──► client::fs ──► client::data ──► the shared disk
//!                                                   │ session
//!   net ── Directory ──┬─ Bind, Call, Redirect ─► coordinator (only in office) ──► the shared disk
//!                      ├─ Callback ─────────────► session
//!                      └─ Peer ─────────────────► office ──► slots, lease, LIVE locks
//! ```
//! The parts decide; here they are only connected (`host` has the connections of the office). Starting goes: open the
//! disk, hold this node's LIVE lock for life, register the slot, start the client, mount. Stopping goes the other way
//! round, in stages, each with a bound: no new requests, commit and give back, end the session, hand the office over.
//!
//! Called by `shorefast/src/compose`.

mod check;
mod create;
mod host;
mod keep;
mod known;
mod leave;
mod ledger;
mod local;
mod moving;
pub mod office;
mod one_host;
mod over;
mod peers;
mod place;
mod rebirth;
mod remote;
mod serve;
mod source;
mod start;
mod unit_news;
pub mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use block::fault::FaultDevice;
use block::multipath::PathStatus;
use block::shared::{Epoch, NodeId, SharedDisk};
use fuse::features::Row;
use fuse::{Feature, FeatureSet, Mount, Unmount};
use parking_lot::Mutex;

pub use check::{Unattended, UnattendedError};
pub use create::{CreateError, NewVolume, create};
pub use host::Notice;
pub use keep::Keeper;
pub use leave::Leaves;
pub use over::Over;
pub use peers::{PeerState, PeerTransport};
pub use serve::{Beginning, Directory, NodeBusiness};
pub use source::{DiskError, DiskSource, UnitSource};
pub use start::{StartError, mountable};
pub use unit_news::UnitNews;

use crate::client::counters::CounterSnapshot;
use crate::client::data::DataPath;
use crate::client::link::WrittenSince;
use crate::client::session::{Caller, Session};
use crate::coordinator::Coordinator;
use crate::core::client::{Binding, Overdue, RouteInfo};
use crate::core::office::Permission;
use crate::core::rules::Rules;
use crate::format::{Superblock, TimingMs};
use crate::proto::{CoordinatorHint, PeerAnswer, PeerAsk, Reply, Request, Space};
use crate::types::VolumeId;

use host::VolumeHost;
use keep::VolumeKeeper;
use moving::Next;
use place::Place;

/// Ending a session and handing the office over may wait for a coordinator or a disk that is gone; after this it is
/// left to the others, as a crash would.
const STAGE: Duration = Duration::from_secs(5);
/// Files that are open for longer than this keep a volume from being unmounted.
const CLOSES: Duration = Duration::from_secs(2);

/// What a mount allows; without root it is never more than fusermount3 gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Allow {
    /// Other users may use it.
    pub other: bool,
    /// Set-user-id, set-group-id and capabilities of programs on it count.
    pub suid: bool,
    /// Device nodes on it can be opened.
    pub devices: bool,
}

/// What a volume needs of its node.
pub struct VolumeSetup {
    /// Its identity as the node remembers it: the superblock must agree.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its disk.
    pub disk: DiskSource,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// What the mount allows.
    pub allow: Allow,
    /// This node.
    pub node: NodeId,
    /// The others.
    pub peers: Vec<NodeId>,
    /// Whether this node takes no office for now.
    pub barred: bool,
    /// Optional features of the kernel that the mount does without.
    pub without: Vec<Feature>,
    /// A program's request that waits for longer gets EIO once it cannot be executed any more; zero: it waits for ever.
    pub io_timeout: Duration,
    /// The rules of its machines: all, but for tests.
    pub rules: Rules,
    /// Where I/O runs.
    pub workers: block::worker::Handle,
    /// Puts a fault device under everything.
    pub fault_device: bool,
    /// Connections to the others.
    pub transport: Arc<dyn PeerTransport>,
    /// Who keeps what outlives this process, if anybody does.
    pub keeper: Option<Arc<dyn Keeper>>,
    /// Where events go; must not block.
    pub notices: Arc<dyn Fn(Notice) + Send + Sync>,
}

/// Why a volume did not stop.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// Files are open.
    #[error("{}", open_files(*.0))]
    Busy(usize),
    /// The mount cannot be taken away.
    #[error(transparent)]
    Mount(#[from] fuse::UnmountError),
}

impl StopError {
    /// Whether it would work once nobody uses the volume.
    pub fn is_busy(&self) -> bool {
        match self {
            StopError::Busy(_) => true,
            StopError::Mount(e) => matches!(e, fuse::UnmountError::Busy(_)),
        }
    }

    /// What to do next.
    pub fn next_step(&self) -> &'static str {
        match self {
            StopError::Busy(_) => {
                "Close them (`fuser -vm MOUNT` shows who has them), or use --force: they then get errors."
            }
            StopError::Mount(fuse::UnmountError::Busy(_)) => {
                "A working directory counts, too: leave it and try again, or use --force."
            }
            StopError::Mount(_) => "Put that right, then try again.",
        }
    }
}

fn open_files(n: usize) -> String {
    if n == 1 { "a file is open on it".into() } else { format!("{n} files are open on it") }
}

/// How a volume's metadata is served, as this node sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetadataState {
    /// Served.
    Ok,
    /// No coordinator just now.
    Waiting,
    /// This node's coordinator takes re-assertions.
    Grace,
    /// This node's coordinator could not renew its lease.
    Suspended,
}

/// Office and session at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OfficeStatus {
    /// The coordinator, as far as is known.
    pub coordinator: Option<NodeId>,
    /// Its epoch.
    pub epoch: u64,
    /// This node's incarnation.
    pub incarnation: u64,
    /// How metadata is served.
    pub metadata: MetadataState,
    /// What it has given out, if this node is coordinator.
    pub given: Option<crate::coordinator::Status>,
    /// Whether this node may be coordinator now.
    pub may_hold: bool,
    /// Whether this node's own requests to the disk come back in time.
    pub path_ok: bool,
}

/// One volume on one node.
pub struct Volume {
    name: String,
    source: DiskSource,
    node: NodeId,
    superblock: Superblock,
    disk: SharedDisk,
    host: Arc<VolumeHost>,
    path: Arc<DataPath>,
    mount: Mutex<Option<(Mount, Place)>>,
    keeper: Option<VolumeKeeper>,
    /// What the next process goes on from if this one is killed.
    book: Option<Arc<ledger::Book>>,
    /// False once nothing is taken from the kernel any more.
    intake: start::Intake,
    /// What was agreed with the kernel.
    features: FeatureSet,
    /// The last answer to STATFS, for status; asking anew takes a coordinator.
    space: Mutex<Option<Space>>,
}

impl Volume {
    /// Its identity.
    pub fn id(&self) -> VolumeId {
        self.superblock.volume
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its disk.
    pub fn disk(&self) -> &DiskSource {
        &self.source
    }

    /// How its disk is reached: of a unit each path, its state, and why.
    pub fn paths(&self) -> Vec<PathStatus> {
        self.disk.nexuses().map(|nexuses| nexuses.paths()).unwrap_or_default()
    }

    /// The optional features of the kernel that its mount here is without.
    pub fn kernel_lacks(&self) -> impl Iterator<Item = &'static Row> {
        self.features.missing()
    }

    /// Why threads do this node's I/O on its disk; `None` where io_uring does.
    pub fn why_threads(&self) -> Option<String> {
        self.disk.file().and_then(|file| file.why_threads())
    }

    /// The fault device under it, if it has one.
    pub fn fault(&self) -> Option<&Arc<FaultDevice>> {
        self.disk.fault.as_ref()
    }

    /// The client's session.
    pub fn session(&self) -> &Arc<Session> {
        self.path.session()
    }

    /// The data path.
    pub fn data(&self) -> &Arc<DataPath> {
        &self.path
    }

    /// The coordinator, while this node is it.
    pub fn coordinator(&self) -> Option<Arc<Coordinator>> {
        self.host.coordinator()
    }

    /// The same, and while its store is being opened once that is done.
    ///
    /// # Cancel safety
    /// Safe: only looks.
    pub(crate) async fn opened_coordinator(&self) -> Option<Arc<Coordinator>> {
        self.host.reign()?.opened().await
    }

    /// Who coordinates, as far as this node knows.
    pub fn hint(&self) -> Option<CoordinatorHint> {
        self.host.hint()
    }

    /// The highest epoch this node knows.
    pub fn epoch(&self) -> Epoch {
        self.hint().map_or(Epoch(0), |h| h.epoch)
    }

    /// How this node's data travels.
    pub fn route(&self) -> RouteInfo {
        *self.session().route().borrow()
    }

    /// What was moved, by route.
    pub fn counters(&self) -> CounterSnapshot {
        self.path.counters().snapshot()
    }

    /// Its length in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.superblock.volume_len
    }

    /// Requests of programs that have waited for `io_timeout` and may still be executed.
    pub fn overdue(&self) -> Overdue {
        self.session().waits_longer()
    }

    /// Space as last heard from a coordinator.
    pub fn space(&self) -> Option<Space> {
        *self.space.lock()
    }

    /// Asks for the space anew; keeps the old answer if there is none in time.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed by asking.
    pub async fn refresh_space(&self, within: Duration) {
        let patient = Caller::patient();
        let ask = self.session().call(&patient, Request::Statfs);
        if let Ok(Ok(Reply::Space(space))) = tokio::time::timeout(within, ask).await {
            *self.space.lock() = Some(space);
        }
    }

    /// `fast`, `default` or `custom`.
    pub fn timing_name(&self) -> &'static str {
        match self.superblock.timing {
            TimingMs::FAST => "fast",
            TimingMs::DEFAULT => "default",
            _ => "custom",
        }
    }

    /// Office and session now.
    pub fn office(&self) -> OfficeStatus {
        let state = self.host.office_state();
        let coordinator = self.coordinator().map(|c| c.status());
        let bound = matches!(*self.session().binding().borrow(), Binding::Bound { .. });
        let metadata = match &coordinator {
            _ if state.suspended => MetadataState::Suspended,
            Some(c) if c.grace => MetadataState::Grace,
            _ if bound => MetadataState::Ok,
            _ => MetadataState::Waiting,
        };
        OfficeStatus {
            may_hold: matches!(state.permission, Permission::Given { .. }),
            path_ok: state.own_path_ok,
            coordinator: state.hint.as_ref().map(|h| h.node),
            epoch: state.hint.map_or(0, |h| h.epoch.0),
            incarnation: self.session().client().incarnation.0,
            metadata,
            given: coordinator,
        }
    }

    /// A peer's link changed.
    pub fn peer(&self, node: NodeId, state: &PeerState) {
        self.host.peer(node, state);
    }

    /// A connection has ended.
    pub(crate) fn link_lost(&self, id: u64) {
        if let Some(coordinator) = self.coordinator() {
            coordinator.link_lost(id);
        }
    }

    /// Answers another node.
    pub(crate) async fn peer_asked(&self, from: NodeId, ask: PeerAsk) -> PeerAnswer {
        match ask {
            PeerAsk::Mark { client, number, .. } => {
                self.path.heard_mark(client, number);
                return PeerAnswer::Noted;
            }
            PeerAsk::WrittenSince { client, mark, spans, .. } => {
                let spans = self.path.written_since(&WrittenSince { client, mark, spans });
                return PeerAnswer::Written { spans };
            }
            PeerAsk::NewEpoch { ref hint, .. } => self.session().hint(hint.clone()),
            _ => {}
        }
        self.host.office().peer_asked(from, ask).await
    }

    /// Begins to evict a node, as if it had not answered a recall in time.
    ///
    /// # Errors
    /// If this node is not coordinator, or that node has no session.
    pub fn evict(&self, node: NodeId) -> Result<(), &'static str> {
        let coordinator = self.coordinator().ok_or("this node is not its coordinator")?;
        let client = coordinator.status().sessions.into_iter().find(|c| c.node == node);
        coordinator.client_dead(client.ok_or("it has no session")?);
        Ok(())
    }

    /// Tells when its life here has ended without being asked to; then it is to be stopped.
    pub fn over(&self) -> tokio::sync::watch::Receiver<Option<Over>> {
        self.host.life().over()
    }

    /// From now on this node takes no office of this volume, or takes it again; what it holds it keeps.
    pub fn bar(&self, barred: bool) {
        self.host.bar(barred);
    }

    /// Redirects this node's data through the coordinator, or stops that.
    pub fn redirect(&self, on: bool) {
        self.session().force_redirect(on);
    }

    /// Hands the office to another node, if this node has it; returns when that node has taken it.
    ///
    /// # Errors
    /// If this node is not coordinator, or the other has not taken office in time.
    pub async fn move_to(&self, to: NodeId, within: Duration) -> Result<(), String> {
        let state = self.host.office_state();
        if state.hint.as_ref().is_some_and(|h| h.node == to) {
            return Ok(());
        }
        let Some(mut resigned) = state.in_office.map(|right| right.epoch()) else {
            return Err(format!("{} is not its coordinator", self.node));
        };
        let deadline = tokio::time::Instant::now() + within;
        loop {
            self.host.office().resign_to(Some(to)).await.map_err(|e| e.to_string())?;
            let mut watch = self.host.office().state();
            let followed = watch.wait_for(|s| moving::next(resigned, to, s) != Next::Wait);
            let Ok(Ok(state)) = tokio::time::timeout_at(deadline, followed).await else {
                return Err(format!("{to} has not taken office within {} s", within.as_secs()));
            };
            match moving::next(resigned, to, &state) {
                Next::Taken => return Ok(()),
                // A node that has just mounted may not hold office yet: then it comes back here.
                Next::Offer(epoch) => resigned = epoch,
                Next::MovedOn(node) => return Err(format!("{node} has taken office since")),
                Next::Wait => {}
            }
        }
    }

    /// Stops, in stages. `force`: also with open files, which get errors from then on.
    ///
    /// # Errors
    /// If files are open, or the mount cannot be taken away. The volume goes on then.
    ///
    /// # Cancel safety
    /// If dropped, the stage that was reached stays; calling again goes on.
    pub async fn stop(&self, force: bool) -> Result<(), StopError> {
        if !force {
            self.until_closed().await?;
        }
        self.unmount(force).await?;
        self.host.no_more_lives().await;
        let _ = tokio::time::timeout(STAGE, self.path.let_everything_go()).await;
        let patient = Caller::patient();
        let goodbye = self.session().call(&patient, Request::Goodbye);
        let _ = tokio::time::timeout(STAGE, goodbye).await;
        self.host.hand_over(STAGE).await;
        // The office is the last to hold the disk: with it the LIVE lock goes.
        self.host.office().stop().await;
        if let Some(nexuses) = self.disk.nexuses() {
            // Without the proof its registrations stay for whoever fences this node.
            let _ended = nexuses.leave().await;
        }
        Ok(())
    }

    /// The kernel tells of a close after close(2) has returned.
    async fn until_closed(&self) -> Result<(), StopError> {
        let deadline = tokio::time::Instant::now() + CLOSES;
        loop {
            match self.path.open_files() {
                0 => return Ok(()),
                open if tokio::time::Instant::now() >= deadline => return Err(StopError::Busy(open)),
                _ => tokio::time::sleep(CLOSES / 100).await,
            }
        }
    }

    async fn unmount(&self, force: bool) -> Result<(), StopError> {
        let Some((mount, place)) = self.mount.lock().take() else { return Ok(()) };
        let how = if force { Unmount::Lazy } else { Unmount::Idle };
        self.host.life().unmounting(true);
        // The kernel asks the file system while it unmounts: not on a thread that others wait for.
        let (mount, place, done) = tokio::task::spawn_blocking(move || {
            let done = mount.unmount(how);
            if done.is_ok() {
                place.leave(mount.mountpoint());
            }
            (mount, place, done)
        })
        .await
        .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
        if let Err(e) = done {
            self.host.life().unmounting(false);
            *self.mount.lock() = Some((mount, place));
            return Err(e.into());
        }
        if let Some(keeper) = &self.keeper {
            keeper.release();
        }
        Ok(())
    }
}

impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volume")
            .field("name", &self.name)
            .field("id", &self.superblock.volume.to_string())
            .finish_non_exhaustive()
    }
}
