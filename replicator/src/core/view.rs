//! What a node shows of itself and its connections.

use super::connect::State;
use super::progress::SyncView;
use super::verify::Verified;
use super::{Node, Role};
use crate::ids::{Generation, Grant, NodeId, SECTOR, Volume};
use crate::meta::superblock::DiskState;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// The two find out what they are to one another.
    Greeting,
    /// It carries votes only.
    Waiting,
    /// The data are equal, and the stream of a primary goes over it.
    Established,
    /// The peer is synchronised from here.
    SyncSource,
    /// This node is synchronised from the peer.
    SyncTarget,
}

/// A connected peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// Who.
    pub node: NodeId,
    /// What the connection is for.
    pub connection: Connection,
    /// It is primary, as it said.
    pub primary: bool,
    /// Its data, as far as is known.
    pub disk: DiskState,
    /// How far a synchronisation with it is.
    pub sync: Option<SyncView>,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeView {
    /// Which.
    pub volume: Volume,
    /// Sectors of it.
    pub sectors: u64,
    /// Its data. A node in the middle of a synchronisation has volumes that are done with: they are as good as the source's, each by
    /// itself.
    pub disk: DiskState,
    /// Bytes of it that are marked for each peer.
    pub marked: Vec<(NodeId, u64)>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// It is primary.
    pub primary: bool,
    /// It asks to be.
    pub candidate: bool,
    /// Its data.
    pub disk: DiskState,
    /// The generation of its data.
    pub generation: Generation,
    /// Requests of applications that are not answered.
    pub busy: usize,
    /// Whether a majority of the voters can be heard; none without quorum.
    pub quorum: Option<bool>,
    /// Requests wait, or fail, because there is none.
    pub suspended: bool,
    /// Whether the tie-breaker can be heard; none if there is none.
    pub witness: Option<bool>,
    /// The newest grant that this node knows.
    pub grant: Grant,
    /// What was acknowledged last may be missing here.
    pub lost_cache: bool,
    /// Bytes marked for each peer, connected or not: at most so much differs.
    pub marked: Vec<(NodeId, u64)>,
    /// The volumes.
    pub volumes: Vec<VolumeView>,
    /// The connections.
    pub peers: Vec<PeerView>,
    /// What the last verification with each peer found.
    pub verified: Vec<(NodeId, Verified)>,
    /// Bytes that are not repaired yet.
    pub repair_left: u64,
}

impl Node {
    /// What it is now.
    pub fn view(&self) -> View {
        let replica = self.replica.as_ref();
        let peers = self.links.iter().filter(|(_, l)| !matches!(l.state, State::Witness));
        View {
            primary: self.is_primary(),
            candidate: matches!(self.role, Role::Candidate(_)),
            disk: self.disk,
            generation: replica.map_or(Generation::NONE, |r| r.superblock().current),
            busy: self.busy(),
            quorum: self.config.quorum.then(|| self.has_quorum()),
            suspended: self.is_primary() && self.without_quorum,
            witness: self.config.tie_breaker.map(|t| self.links.contains_key(&t)),
            grant: self.newest_grant(),
            lost_cache: self.lost_cache(),
            marked: self.peers().iter().map(|n| (n, self.dirty_sectors(n) * SECTOR)).collect(),
            volumes: self.sizes().iter().map(|(v, sectors)| self.volume_view(v, sectors)).collect(),
            peers: peers.map(|(n, l)| self.peer_view(*n, l)).collect(),
            verified: self.verified.iter().map(|(n, v)| (*n, v.clone())).collect(),
            repair_left: self.repairs.left() * SECTOR,
        }
    }

    fn volume_view(&self, volume: Volume, sectors: u64) -> VolumeView {
        let map = |n: NodeId| self.replica.as_ref().and_then(|r| r.bitmap(n));
        let of = |n: NodeId| map(n).map_or(0, |m| m.set_sectors_of(volume)) * SECTOR;
        let source = |(n, l): (&NodeId, &super::connect::Link)| match &l.state {
            State::Target(_) => Some((*n, l.hello.as_ref().map_or(DiskState::Inconsistent, |h| h.side.disk))),
            _ => None,
        };
        let done = self.links.iter().find_map(source).filter(|(n, _)| of(*n) == 0).map(|(_, disk)| disk);
        let disk = done.filter(|_| self.disk == DiskState::Inconsistent).unwrap_or(self.disk);
        VolumeView { volume, sectors, disk, marked: self.peers().iter().map(|n| (n, of(n))).collect() }
    }

    /// The newest of its own and of what others told.
    fn newest_grant(&self) -> Grant {
        let own = self.replica.as_ref().map(|r| r.superblock().grant).unwrap_or_default();
        if own.number() >= self.told_grant.number() { own } else { self.told_grant }
    }

    fn peer_view(&self, node: NodeId, link: &super::connect::Link) -> PeerView {
        let said = link.hello.as_ref().map_or(DiskState::Diskless, |h| h.side.disk);
        let (connection, disk) = match &link.state {
            State::Greeting => (Connection::Greeting, said),
            State::Witness | State::Waiting => (Connection::Waiting, said),
            // What it said was before a synchronisation that has ended.
            State::Equal => (Connection::Established, said.max(self.disk)),
            State::Source(_) => (Connection::SyncSource, said.min(DiskState::Inconsistent)),
            State::Target(_) => (Connection::SyncTarget, said),
        };
        let primary = link.hello.as_ref().is_some_and(|h| h.reigns.is_some());
        let sync = match &link.state {
            State::Source(source) => Some(source.progress.view(self.now)),
            State::Target(target) => Some(target.progress.view(self.now)),
            _ => None,
        };
        PeerView { node, connection, primary, disk, sync }
    }
}
