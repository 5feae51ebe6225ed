//! Other nodes as client and office ask for them.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use block::device::DeviceExt;
use block::shared::{BoxFuture, FenceGen, NodeId, SharedDisk};
use net::{Conn, Payload};
use parking_lot::Mutex;

use super::host::VolumeHost;
use super::local::LocalLink;
use super::remote::RemoteLink;
use super::wire;
use crate::client::link::{CoordinatorLink, Coordinators, OwnSlot, Witnesses, WrittenSince};
use crate::format::{CELL, Slot, slot_at};
use crate::proto::{CoordinatorHint, MINOR_MARKS, Opcode, PeerAnswer, PeerAsk};
use crate::types::{ClientId, VolumeId};

/// A peer that does not say who coordinates within this is passed over for now.
const WHO_WITHIN: Duration = Duration::from_millis(300);
/// A peer that does not say what it has written within this has seen nothing.
const WRITTEN_WITHIN: Duration = Duration::from_millis(500);
/// And is not asked again for so long. Prevents: a node is frozen and still connected; writes in doubt of one block, which are settled one
/// after the other, wait for it each, while another node asks for the right that they hold, until this node is evicted for that.
const SILENT_FOR: Duration = Duration::from_secs(5);

/// Connections to other nodes; the node's network implements it.
pub trait PeerTransport: Send + Sync + 'static {
    /// An open connection, if there is one.
    fn conn(&self, node: NodeId) -> Option<Arc<Conn>>;

    /// Whether that node's daemon, if it is killed, is followed by one that goes on with what it had; as it said last.
    fn comes_back(&self, node: NodeId) -> bool;

    /// The minor version of the messages that is spoken with that node.
    fn minor(&self, node: NodeId) -> u16;
}

/// A peer's link as the network sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerState {
    /// Not known yet.
    Unknown,
    /// Connected.
    Up,
    /// The connection ended from its side.
    Closed,
    /// Nobody listens there.
    Refused,
    /// No answer.
    Silent,
}

/// Asks a peer over whatever connection there is; `None` if there is no answer in time.
pub(super) async fn ask(
    transport: &dyn PeerTransport,
    epoch: block::shared::Epoch,
    node: NodeId,
    ask: &PeerAsk,
    within: Duration,
) -> Option<PeerAnswer> {
    let conn = transport.conn(node)?;
    let message = wire::pack(Opcode::Peer, epoch, ask, Payload::None).ok()?;
    let answer = tokio::time::timeout(within, conn.call(message)).await.ok()?.ok()?;
    wire::unpack(&answer).ok()
}

/// How this node's client finds and reaches coordinators, and asks other nodes.
pub(super) struct Finder {
    host: Weak<VolumeHost>,
    volume: VolumeId,
    peers: Vec<NodeId>,
    /// Where others are asked: workers have better to do.
    control: tokio::runtime::Handle,
    /// Who did not say what it had written, and when.
    silent: Mutex<BTreeMap<NodeId, Instant>>,
}

impl Finder {
    pub(super) fn new(
        host: &Arc<VolumeHost>,
        volume: VolumeId,
        peers: Vec<NodeId>,
        control: tokio::runtime::Handle,
    ) -> Finder {
        Finder { host: Arc::downgrade(host), volume, peers, control, silent: Mutex::default() }
    }

    /// Who knows what a mark is.
    fn witnesses(&self, host: &VolumeHost) -> Vec<NodeId> {
        let transport = host.transport();
        self.peers.iter().copied().filter(|node| transport.minor(*node) >= MINOR_MARKS).collect()
    }

    fn was_silent(&self, node: NodeId) -> bool {
        let mut silent = self.silent.lock();
        silent.retain(|_, since| since.elapsed() < SILENT_FOR);
        silent.contains_key(&node)
    }
}

impl Coordinators for Finder {
    fn link(&self, to: &CoordinatorHint) -> Option<Arc<dyn CoordinatorLink>> {
        let host = self.host.upgrade()?;
        if to.node == host.node() {
            return Some(Arc::new(LocalLink::new(host.reign()?, host.session()?)));
        }
        let conn = host.transport().conn(to.node)?;
        Some(Arc::new(RemoteLink(conn)))
    }

    fn ask_who(&self) -> BoxFuture<'_, Vec<CoordinatorHint>> {
        Box::pin(async move {
            let Some(host) = self.host.upgrade() else { return Vec::new() };
            let mut asked = tokio::task::JoinSet::new();
            for node in self.peers.iter().copied() {
                let (transport, epoch, volume) = (host.transport(), host.epoch(), self.volume);
                asked.spawn(async move { ask(&*transport, epoch, node, &PeerAsk::Who { volume }, WHO_WITHIN).await });
            }
            let mut hints: Vec<_> = host.hint().into_iter().collect();
            while let Some(answer) = asked.join_next().await {
                if let Ok(Some(PeerAnswer::Who { hint: Some(hint) })) = answer {
                    hints.push(hint);
                }
            }
            hints
        })
    }
}

/// Other nodes as they are asked what they have written.
impl Witnesses for Finder {
    fn mark(&self, client: ClientId, number: u64) {
        let Some(host) = self.host.upgrade() else { return };
        for node in self.witnesses(&host) {
            let (transport, epoch, volume) = (host.transport(), host.epoch(), self.volume);
            let mark = PeerAsk::Mark { volume, client, number };
            // Whoever does not hear it has seen nothing.
            self.control.spawn(async move { drop(ask(&*transport, epoch, node, &mark, WRITTEN_WITHIN).await) });
        }
    }

    fn written_since(&self, question: WrittenSince) -> BoxFuture<'_, Vec<(u64, u64)>> {
        Box::pin(async move {
            let Some(host) = self.host.upgrade() else { return Vec::new() };
            let WrittenSince { client, mark, spans } = question;
            let question = Arc::new(PeerAsk::WrittenSince { volume: self.volume, client, mark, spans });
            let mut asked = tokio::task::JoinSet::new();
            for node in self.witnesses(&host).into_iter().filter(|node| !self.was_silent(*node)) {
                let (transport, epoch, question) = (host.transport(), host.epoch(), Arc::clone(&question));
                let answer = async move { (node, ask(&*transport, epoch, node, &question, WRITTEN_WITHIN).await) };
                asked.spawn_on(answer, &self.control);
            }
            let mut written = Vec::new();
            while let Some(answer) = asked.join_next().await {
                match answer {
                    Ok((_, Some(PeerAnswer::Written { spans }))) => written.extend(spans),
                    Ok((node, _)) => drop(self.silent.lock().insert(node, Instant::now())),
                    Err(_) => {}
                }
            }
            written
        })
    }
}

/// This node's slot, read through the disk, for probing the path.
pub(super) struct SlotProbe {
    pub(super) disk: SharedDisk,
    pub(super) volume: VolumeId,
    pub(super) node: NodeId,
}

impl OwnSlot for SlotProbe {
    fn fence_gen(&self) -> BoxFuture<'_, Option<FenceGen>> {
        Box::pin(async move {
            let cell = self.disk.cells.read(slot_at(self.node), CELL as usize).await.ok()?;
            Slot::decode(&cell, self.volume, self.node).ok().map(|s| s.fence_gen)
        })
    }
}
