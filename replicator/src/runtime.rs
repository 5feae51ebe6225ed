//! A resource at work on one node: the core with a real disk, real connections and a clock.
//!
//! ```text
//!   NBD, in process                              control
//!        │ Io                                       │ promote, connect, status
//!        ▼                                          ▼
//!   [`device`] ──► front ──► actor: one input, one event of the core, its effects ◄──► links ◄──► peers (net)
//!                              │       ▲
//!                              ▼       │ done
//!                      local: the disk (io_uring of its worker), the metadata's thread
//! ```
//! The actor is one task on one worker of `block`. It decides nothing: the core does. What it adds is told here:
//! - one connection to each peer, dialled by the lower node, closed when the core says so and made again if it wants that;
//! - messages numbered, so that what the core relies on (in order, or none any more) holds: see `wire`;
//! - requests cut to pieces and put together: see `front`;
//! - a clock that is the wall's at the start and only grows: generations carry when they began, and policies compare that.
//!
//! **The end.** [`Resource::stop`]: nothing new is begun, neither on the disk nor on the network; what is in the disk is waited
//! for; requests are answered as aborted. To a peer it is a crash, and it costs no more than one. Whoever wants an
//! orderly end demotes first, and lets it come to rest ([`Resource::rest`]).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use block::provisioning::ExtentsDone;
use block::worker::Handle;
use block::{BlockDevice, ByteLen, ByteOffset, Extent, Geometry, Io, IoErrorKind, Provisioning};
use bytes::Bytes;
use net::{Conn, Net, NetConfig, NetError, Security};
use tokio::sync::{mpsc, oneshot, watch};

mod actor;
mod front;
mod links;
mod local;
pub mod metrics;
pub mod status;
mod wire;
pub mod witness;
mod words;

pub use local::{
    Local, NewReplica, NewVolume, Part, Remember, audit, create, create_volumes, erase, find, find_known, find_volume,
    life, resource_id, swap_disk,
};

pub use crate::meta::superblock::Life;

use crate::core::Node;
use crate::core::config::{Config, DiskPolicy, Limits, OnNoQuorum, OnSlowPeer, Protocol, Timing, Unsettled};
use crate::core::event::{DiskError, IoId, Refusal, RemoveRefusal, ResizeRefusal};
use crate::core::pieces::{Compared, Digest};
use crate::core::rules::Rules;
use crate::ids::{NodeId, NodeSet, SECTOR, Sizes, Volume};
use crate::meta::layout::Devices;
use actor::{Actor, Tells};
use links::{Gate, Greeting, Links};
use local::Parts;
use metrics::Metrics;
use status::Status;

/// Times of the core, in milliseconds. A peer that is dead or cut off is noticed by `net` within 3 s; the core's own limit is for
/// one that answers on the network and does nothing, and longer: a busy one is not to be taken for that. Writes that are not settled
/// are settled twice a second. A node comes to rest after half a minute: what writes less often pays for a hot extent each time, what
/// writes more often never.
const TIMING: Timing = Timing { ping: 1_000, dead: 10_000, slow: 10_000, settle: 500, vote: 3_000, rest: 30_000 };
/// What is settled at once: a flush on each side for so much, for which a peer holds back what comes behind. Writes: what a disk of
/// thirty thousand in a second takes between two settlements by time; in twice which each side remembers some MiB. Bytes that a peer
/// has not written: what 64 writes of 1 MiB are, in twice which a slow peer may hold 128 MiB.
const UNSETTLED: Unsettled = Unsettled { writes: 16_384, bytes: 64 << 20 };

/// What a synchronisation may have under way. A run is what a message carries. Beside busy applications 64 KiB: one request of a disk
/// at a time, as good as nothing for those that carry hundreds of MiB in a second. On an idle link 8 MiB: eight milliseconds of one of
/// 10 Gbit/s, more than its round trip and both disks take. A flush for each 32 MiB, which are compared again after a crash.
const RESYNC: Limits = Limits {
    run_sectors: wire::MAX_DATA as u64 / SECTOR,
    room: (64 << 10, 8 << 20),
    flush_bytes: 32 << 20,
    sector_bytes: SECTOR as usize,
};

/// The worker of the actor, its disk and its connections: what a write passes on its way is all on one thread, since waking another
/// one takes longer than anything else that is done for it. So are its clients: [`worker_of_resources`].
const ACTOR: usize = 0;

/// A peer, as this node reaches it.
#[derive(Clone, Debug)]
pub struct PeerAddress {
    /// The name that its certificate proves.
    pub subject: String,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Its tie-breaker, as this node reaches it.
#[derive(Clone, Debug)]
pub struct WitnessAddress {
    /// Which node of the cluster it is.
    pub node: NodeId,
    /// What it said when it was made.
    pub identity: u64,
    /// Where it is.
    pub at: PeerAddress,
}

/// Reigns are granted by a majority of the replicas and, if their number is even, the tie-breaker.
#[derive(Clone, Debug)]
pub struct Quorum {
    /// What becomes of requests while there is no majority.
    pub on_loss: OnNoQuorum,
    /// The tie-breaker.
    pub witness: Option<WitnessAddress>,
}

/// How a resource runs on this node.
#[derive(Clone, Debug)]
pub struct ResourceConfig {
    /// What people call it.
    pub name: String,
    /// When a write is acknowledged.
    pub protocol: Protocol,
    /// How far the local disk is trusted.
    pub disk: DiskPolicy,
    /// None: whoever is asked to be primary is, if it hears no other one.
    pub quorum: Option<Quorum>,
    /// Its other nodes: those of the metadata, each with its address.
    pub peers: BTreeMap<NodeId, PeerAddress>,
    /// Where to listen for them.
    pub listen: SocketAddr,
    /// Who this node is to them.
    pub security: Security,
}

/// Why a resource does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The endpoint does not.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The workers are being shut down.
    #[error("the workers have ended")]
    Workers,
    /// No thread for the metadata.
    #[error("cannot start the thread of the metadata: {0}")]
    Thread(std::io::Error),
    /// The tie-breaker is one of the replicas.
    #[error("the tie-breaker is {0}, which has a replica")]
    WitnessIsReplica(NodeId),
    /// Configuration and metadata name other peers.
    #[error("the metadata know the peers {found:?}, the configuration names {configured:?}")]
    OtherPeers {
        /// Those of the metadata.
        found: NodeSet,
        /// Those of the configuration.
        configured: NodeSet,
    },
}

/// The resource has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the resource has stopped")]
pub struct Stopped;

/// Why a device does not become larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotResized {
    /// As the core says.
    Refused(ResizeRefusal),
    /// This peer's program does not know how.
    TooOld(NodeId),
}

/// Why a volume is not taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRemoved {
    /// As the core says.
    Refused(RemoveRefusal),
    /// This peer's program does not know how.
    TooOld(NodeId),
}

/// What the actor is told.
enum Input {
    Io(Volume, Io),
    Done(IoId, Result<Bytes, DiskError>),
    Digested(IoId, Vec<Digest>),
    Compared(IoId, Compared),
    Opened(NodeId, Arc<Conn>),
    Came(u64, net::Message),
    Closed(u64, String),
    Promote { force: bool, done: oneshot::Sender<Result<(), Refusal>> },
    Demote { done: oneshot::Sender<()> },
    Connect { discard: bool, tentative: bool, done: oneshot::Sender<()> },
    Disconnect { done: oneshot::Sender<()> },
    Verify { done: oneshot::Sender<bool> },
    Repair { from: NodeId, done: oneshot::Sender<bool> },
    OnNoQuorum { policy: OnNoQuorum, done: oneshot::Sender<()> },
    DiskPolicy { policy: DiskPolicy, done: oneshot::Sender<()> },
    Resize { volume: Volume, size: Option<u64>, clean: bool, done: oneshot::Sender<Result<u64, NotResized>> },
    TakeAway { volume: Volume, force: bool, done: oneshot::Sender<Result<(), NotRemoved>> },
    Measured(Option<Devices>),
    Status { done: oneshot::Sender<Status> },
    Metrics { done: oneshot::Sender<Box<Metrics>> },
    Rest { done: oneshot::Sender<bool> },
    Stop { done: oneshot::Sender<()> },
}

/// The worker of all resources. Whoever serves a device of one to clients serves it there: a request that comes in on another thread
/// wakes this one, and its answer the other, which takes longer than all that is done for it.
#[must_use]
pub fn worker_of_resources(workers: &Handle) -> Handle {
    workers.only(ACTOR)
}

/// A resource that runs. Dropped, it stops, and nobody waits for that.
pub struct Resource {
    name: String,
    input: mpsc::UnboundedSender<Input>,
    parts: Parts,
    detached: Arc<AtomicBool>,
    listens: SocketAddr,
    primary: watch::Receiver<bool>,
    shown: watch::Sender<Option<Arc<Status>>>,
    failed: watch::Receiver<bool>,
    hung: Arc<AtomicBool>,
    sizes: watch::Receiver<Sizes>,
}

impl Resource {
    /// Starts: opens the endpoint, dials the peers. Core and connections run on one worker.
    ///
    /// # Errors
    /// An address that is taken; peers that the metadata do not know.
    ///
    /// # Cancel safety
    /// Safe to drop: what has begun ends.
    pub async fn start(config: ResourceConfig, local: Local, workers: &Handle) -> Result<Resource, StartError> {
        let superblock = local.superblock().clone();
        let found: NodeSet = superblock.peers.iter().map(|p| p.node).collect();
        let configured: NodeSet = config.peers.keys().copied().collect();
        if found != configured {
            return Err(StartError::OtherPeers { found, configured });
        }
        if let Some(witness) = config.witness().filter(|w| found.with(superblock.node).has(w.node)) {
            return Err(StartError::WitnessIsReplica(witness.node));
        }
        // Bounded by who sends: a peer has no more under way than UNSETTLED writes and what a synchronisation asks for at
        // once, an NBD client no more than its server takes, the disk answers what was asked, and who commands waits.
        let (input, inputs) = mpsc::unbounded_channel();
        let (found_sizes, parts) = (local.sizes(), local.parts());
        let own = Greeting {
            version: wire::VERSION,
            node: superblock.node,
            resource: superblock.resource,
            name: config.name.clone(),
            bytes: found_sizes.of(Volume::FIRST) * SECTOR,
            protocol: status::letter(config.protocol),
            quorum: config.quorum.is_some(),
            witness: config.witness().map(|w| (w.node, w.identity)),
        };
        let mut subjects: BTreeMap<NodeId, String> =
            config.peers.iter().map(|(n, p)| (*n, p.subject.clone())).collect();
        subjects.extend(config.witness().map(|w| (w.node, w.at.subject.clone())));
        let gate = Arc::new(Gate::new(own, found_sizes, subjects, local.measure()));
        let service = Arc::new(Links { gate: Arc::clone(&gate), input: input.clone() });
        let detached = Arc::new(AtomicBool::new(false));
        let (recovered, disk) = local.begin(input.clone()).map_err(StartError::Thread)?;
        let endpoint = NetConfig::new(config.listen, config.security.clone());
        let net =
            workers.spawn(ACTOR, move || Net::start(endpoint, service)).await.map_err(|_| StartError::Workers)??;
        let listens = net.local_addr();
        let clock = actor::Clock::start();
        let core = Node::new(core_config(&config, superblock.node, found), recovered, clock.now());
        let (grows, sizes) = watch::channel(found_sizes);
        let name = config.name.clone();
        let (tells, primary) = watch::channel(false);
        let shown = watch::Sender::new(None);
        let (fails, failed) = watch::channel(false);
        let hung = Arc::new(AtomicBool::new(false));
        let tells = Tells {
            primary: tells,
            shown: shown.clone(),
            detached: Arc::clone(&detached),
            failed: fails,
            hung: Arc::clone(&hung),
            sizes: grows,
        };
        let mut actor = Actor::new(core, clock, disk, net, gate, config, tells);
        actor.dial_all();
        // It goes on without anybody waiting for it; `stop` does.
        drop(workers.spawn(ACTOR, move || actor.run(inputs)));
        Ok(Resource { name, input, parts, detached, listens, primary, shown, failed, hung, sizes })
    }

    /// The first volume as a device. Its requests are answered while this node is primary.
    pub fn device(&self) -> Arc<dyn BlockDevice> {
        self.volume(Volume::FIRST)
            .unwrap_or_else(|| unreachable!("every resource has a first volume, and a disk for it"))
    }

    /// A volume as a device; none if there is no disk for it. All of them have one order: what is written to one after a request of
    /// another was answered is at no peer without that, and a flush of one is a flush of all.
    pub fn volume(&self, volume: Volume) -> Option<Arc<ReplicaDevice>> {
        let geometry = self.parts.geometry(volume, self.sizes.borrow().of(volume))?;
        Some(Arc::new(ReplicaDevice {
            name: self.name.clone(),
            volume,
            geometry,
            sizes: self.sizes.clone(),
            provisioning: self.parts.provisioning(volume),
            detached: Arc::clone(&self.detached),
            input: self.input.clone(),
        }))
    }

    /// A disk for a volume that the resource does not have yet: it has room for it from now on. The caller keeps every other user away
    /// from the disk.
    pub fn add_disk(&self, volume: Volume, part: Part) {
        self.parts.add(volume, part);
    }

    /// The disk for a volume that the resource does not have is let go.
    pub fn leave_out(&self, volume: Volume) {
        if self.sizes.borrow().of(volume) == 0 {
            self.parts.remove(volume);
        }
    }

    /// Whether there is a disk for a volume.
    pub fn has_disk(&self, volume: Volume) -> bool {
        self.parts.of(volume).is_some()
    }

    /// Where peers find it.
    pub fn listens(&self) -> SocketAddr {
        self.listens
    }

    /// Whether this node is primary, and its changes: it can be deposed by who was granted the reign.
    pub fn primary(&self) -> watch::Receiver<bool> {
        self.primary.clone()
    }

    /// Sectors of the volumes, and their changes: they can become larger, and more.
    pub fn sizes(&self) -> watch::Receiver<Sizes> {
        self.sizes.clone()
    }

    /// A volume becomes so many bytes large, or as large as the disks of all nodes have room for, which have become longer before, or have
    /// been added ([`Resource::add_disk`]). `clean`: what is new reads the same everywhere, and is not synchronised. How large it is now
    /// comes back.
    ///
    /// # Errors
    /// It has stopped; inside: why it does not become larger.
    ///
    /// # Cancel safety
    /// Dropped, it goes on.
    pub async fn resize(
        &self,
        volume: Volume,
        bytes: Option<u64>,
        clean: bool,
    ) -> Result<Result<u64, NotResized>, Stopped> {
        let size = bytes.map(|b| b / SECTOR);
        self.ask(|done| Input::Resize { volume, size, clean, done }).await
    }

    /// A volume is taken away from all nodes, for good: whatever is under way there ends first, nothing new is taken, and its disks are let go.
    /// `force`: also while a peer is not there, which does so when it comes. Its data stay on the disks.
    ///
    /// # Errors
    /// It has stopped; inside: why it is not taken away, and nothing has changed.
    ///
    /// # Cancel safety
    /// Dropped, it goes on.
    pub async fn take_away(&self, volume: Volume, force: bool) -> Result<Result<(), NotRemoved>, Stopped> {
        self.ask(|done| Input::TakeAway { volume, force, done }).await
    }

    /// Whether the local disk has failed, and was left.
    pub fn failed(&self) -> watch::Receiver<bool> {
        self.failed.clone()
    }

    /// Whether the local disk was left because it hangs. What is under way there may land yet, also after [`Resource::stop`]: nobody may
    /// open the disk before it has.
    pub fn hangs(&self) -> bool {
        self.hung.load(Ordering::Relaxed)
    }

    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Input) -> Result<T, Stopped> {
        let (done, answer) = oneshot::channel();
        self.input.send(make(done)).map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Becomes primary; `force` also with data that are not known to be the newest.
    ///
    /// # Errors
    /// It has stopped; inside: why it does not become primary.
    ///
    /// # Cancel safety
    /// Dropped, the attempt goes on.
    pub async fn promote(&self, force: bool) -> Result<Result<(), Refusal>, Stopped> {
        self.ask(|done| Input::Promote { force, done }).await
    }

    /// Becomes secondary when everything is answered and settled; at once if it is.
    ///
    /// # Errors
    /// It has stopped.
    ///
    /// # Cancel safety
    /// Dropped, it goes on.
    pub async fn demote(&self) -> Result<(), Stopped> {
        self.ask(|done| Input::Demote { done }).await
    }

    /// Wants connections with all peers; with `discard` what was written here apart is given up at the next meeting.
    ///
    /// # Errors
    /// It has stopped.
    pub async fn connect(&self, discard: bool) -> Result<(), Stopped> {
        self.ask(|done| Input::Connect { discard, tentative: false, done }).await
    }

    /// Meets every peer once, only to tell in the status (`preview`) what the two would be to one another; then this node stands
    /// alone again.
    ///
    /// # Errors
    /// It has stopped.
    pub async fn connect_tentatively(&self) -> Result<(), Stopped> {
        self.ask(|done| Input::Connect { discard: false, tentative: true, done }).await
    }

    /// The status whenever something but its counters has changed, looked at ten times a second while somebody watches.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Status>>> {
        self.shown.subscribe()
    }

    /// Wants no connections any more.
    ///
    /// # Errors
    /// It has stopped.
    pub async fn disconnect(&self) -> Result<(), Stopped> {
        self.ask(|done| Input::Disconnect { done }).await
    }

    /// Begins to compare the data with those of every equal peer; false if there is none, or no primary among the two. How far it is and
    /// what it found, `status` says.
    ///
    /// # Errors
    /// It has stopped.
    pub async fn verify(&self) -> Result<bool, Stopped> {
        self.ask(|done| Input::Verify { done }).await
    }

    /// Begins to make what the last verification found as that node has it; false if this node is not primary, or it is not a node
    /// with equal data. How much is left, `status` says.
    ///
    /// # Errors
    /// It has stopped.
    pub async fn repair(&self, from: NodeId) -> Result<bool, Stopped> {
        self.ask(|done| Input::Repair { from, done }).await
    }

    /// From now on requests wait, or fail, without quorum; also those that wait already.
    ///
    /// # Errors
    /// It has stopped.
    pub async fn on_no_quorum(&self, policy: OnNoQuorum) -> Result<(), Stopped> {
        self.ask(|done| Input::OnNoQuorum { policy, done }).await
    }

    /// How far the local disk is trusted from now on.
    ///
    /// # Errors
    /// It has stopped.
    pub async fn disk_policy(&self, policy: DiskPolicy) -> Result<(), Stopped> {
        self.ask(|done| Input::DiskPolicy { policy, done }).await
    }

    /// How it is.
    ///
    /// # Errors
    /// It has stopped.
    pub async fn status(&self) -> Result<Status, Stopped> {
        self.ask(|done| Input::Status { done }).await
    }

    /// What it counted and measured since it was started.
    ///
    /// # Errors
    /// It has stopped.
    pub async fn metrics(&self) -> Result<Metrics, Stopped> {
        self.ask(|done| Input::Metrics { done }).await.map(|m| *m)
    }

    /// Comes to rest before it is stopped: connections end, what is under way lands, and it is written down that everything is
    /// stable. True if it is; false for a primary, or without a disk. A disk that hangs is waited for.
    ///
    /// # Errors
    /// It has stopped.
    ///
    /// # Cancel safety
    /// Dropped, it goes on: nothing is accepted any more.
    pub async fn rest(&self) -> Result<bool, Stopped> {
        self.ask(|done| Input::Rest { done }).await
    }

    /// Stops; when it returns nothing of it is in the disk any more. A disk that hangs is waited for, unless it was left for that: then
    /// [`Resource::hangs`] is true, and what is in the disk may land yet.
    ///
    /// # Cancel safety
    /// Dropped, it goes on.
    pub async fn stop(&self) {
        // A second stop finds it stopped.
        let _ = self.ask(|done| Input::Stop { done }).await;
    }
}

impl Drop for Resource {
    fn drop(&mut self) {
        let (done, _) = oneshot::channel();
        // It may have stopped already.
        drop(self.input.send(Input::Stop { done }));
    }
}

impl ResourceConfig {
    fn witness(&self) -> Option<&WitnessAddress> {
        self.quorum.as_ref().and_then(|q| q.witness.as_ref())
    }
}

fn core_config(config: &ResourceConfig, me: NodeId, peers: NodeSet) -> Config {
    Config {
        me,
        disks: peers.with(me),
        tie_breaker: config.witness().map(|w| w.node),
        quorum: config.quorum.is_some(),
        protocols: peers.iter().map(|n| (n, config.protocol)).collect(),
        on_no_quorum: config.quorum.as_ref().map_or(OnNoQuorum::SuspendIo, |q| q.on_loss),
        on_slow_peer: OnSlowPeer::Block,
        disk: config.disk,
        policy: Default::default(),
        timing: TIMING,
        unsettled: UNSETTLED,
        resync: RESYNC,
        rules: Rules::all(),
        entropy: local::random(),
    }
}

/// A volume of a resource as a device.
pub struct ReplicaDevice {
    name: String,
    volume: Volume,
    geometry: Geometry,
    sizes: watch::Receiver<Sizes>,
    provisioning: Option<Arc<dyn Provisioning>>,
    /// The local disk was left: where it has its data says nothing any more.
    detached: Arc<AtomicBool>,
    input: mpsc::UnboundedSender<Input>,
}

impl BlockDevice for ReplicaDevice {
    fn geometry(&self) -> Geometry {
        Geometry { len: ByteLen(self.sizes.borrow().of(self.volume) * SECTOR), ..self.geometry }
    }

    fn submit(&self, io: Io) {
        if let Err(error) = self.geometry().check(&io) {
            return io.complete(Err(error));
        }
        if let Err(mpsc::error::SendError(Input::Io(_, io))) = self.input.send(Input::Io(self.volume, io)) {
            io.fail(IoErrorKind::ShuttingDown);
        }
    }

    fn describe(&self) -> String {
        match self.volume {
            Volume::FIRST => format!("replica {}", self.name),
            volume => format!("replica {}, volume {}", self.name, volume.get()),
        }
    }
}

impl Provisioning for ReplicaDevice {
    /// Whatever the disks do: a discard is a zeroing that may free.
    fn discard_zeroes(&self) -> bool {
        true
    }

    fn zeroes_fast(&self) -> bool {
        self.provisioning.as_ref().is_some_and(|p| p.zeroes_fast())
    }

    fn extents(&self, at: ByteOffset, len: ByteLen, most: usize, done: ExtentsDone) {
        match self.provisioning.as_ref().filter(|_| !self.detached.load(Ordering::Relaxed)) {
            Some(local) if self.geometry().contains(at, len) => local.extents(at, len, most, done),
            _ => done(Ok(vec![Extent { len, hole: false, zero: false }])),
        }
    }
}
