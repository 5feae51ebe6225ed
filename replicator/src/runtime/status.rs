//! What a resource tells of itself, in DRBD's words.

use serde::{Deserialize, Serialize};

use crate::compare::{Rule, Verdict};
use crate::core::config::{OnNoQuorum, Protocol};
use crate::core::event::Refusal;
use crate::core::progress::SyncView;
use crate::core::verify::Verified as Found;
use crate::core::view::{Connection, VolumeView};
use crate::ids::{NodeId, SECTOR, Span, Volume};
use crate::meta::superblock::DiskState;

/// A resource on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// This node.
    pub node: NodeId,
    /// `Primary` or `Secondary`.
    pub role: String,
    /// `UpToDate`, `Consistent`, `Outdated`, `Inconsistent`, `Diskless`.
    pub disk: String,
    /// `A`, `B` or `C`.
    pub protocol: String,
    /// Bytes of the first volume.
    pub size_bytes: u64,
    /// All volumes.
    pub volumes: Vec<VolumeStatus>,
    /// The generation of the data.
    pub generation: String,
    /// Requests that are not answered.
    pub waiting: usize,
    /// Bytes that a repair has still to write.
    pub repair_left_bytes: u64,
    /// Bytes that the last repair gave up: this node was primary no more, or who had them was gone.
    pub not_repaired_bytes: u64,
    /// `off`, or whether a majority can be heard: `yes`, `no`.
    pub quorum: String,
    /// Requests wait, or fail, for want of a majority.
    pub suspended: bool,
    /// `suspend-io` or `io-error`; none without quorum.
    pub on_no_quorum: Option<String>,
    /// The newest grant that this node knows: the nodes that hold everything that was acknowledged under it.
    pub granted: Vec<NodeId>,
    /// What was acknowledged last may be missing here: the cache was lost, or a synchronisation is half done.
    pub lost_cache: bool,
    /// The tie-breaker.
    pub witness: Option<WitnessStatus>,
    /// Its peers.
    pub peers: Vec<PeerStatus>,
}

impl Status {
    /// Without what changes with every request.
    pub fn without_counters(&self) -> Status {
        let peers = self.peers.iter().map(|p| PeerStatus { out_of_sync_bytes: 0, ..p.clone() });
        let volumes = self.volumes.iter().map(|v| VolumeStatus { out_of_sync: Vec::new(), ..v.clone() });
        Status { waiting: 0, volumes: volumes.collect(), peers: peers.collect(), ..self.clone() }
    }
}

/// A volume on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// Its number.
    pub volume: u8,
    /// Its bytes.
    pub size_bytes: u64,
    /// The state of its data. While a node is synchronised, volumes that are done with are as good as the source's, each by itself; the
    /// node counts when all are.
    pub disk: String,
    /// Bytes of it that may differ, by peer, as this node has marked them.
    pub out_of_sync: Vec<OutOfSync>,
}

/// What of a volume may differ at a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutOfSync {
    /// The peer.
    pub node: NodeId,
    /// Bytes.
    pub bytes: u64,
}

pub(super) fn volume(view: &VolumeView) -> VolumeStatus {
    VolumeStatus {
        volume: view.volume.get(),
        size_bytes: view.sectors * SECTOR,
        disk: disk(view.disk),
        out_of_sync: view.marked.iter().map(|(node, bytes)| OutOfSync { node: *node, bytes: *bytes }).collect(),
    }
}

/// A tie-breaker, as a replica sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessStatus {
    /// Which node.
    pub node: NodeId,
    /// `Connected` or `Connecting`.
    pub connection: String,
    /// Why there is no connection.
    pub reason: Option<String>,
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Who.
    pub node: NodeId,
    /// `StandAlone`, `Connecting`, `Handshake`, `Waiting`, `Established`, `SyncSource`, `SyncTarget`.
    pub connection: String,
    /// `Primary`, `Secondary` or `Unknown`.
    pub role: String,
    /// The state of its disk, or `Unknown`.
    pub disk: String,
    /// Bytes that may differ, as this node has marked them.
    pub out_of_sync_bytes: u64,
    /// Which rule said last what the two are to one another, or why there is no connection.
    pub reason: Option<String>,
    /// The last verification with it, since this node started.
    pub verified: Option<Verified>,
    /// How far a synchronisation with it is.
    pub resync: Option<Resync>,
    /// What a tentative meeting would have come to.
    pub preview: Option<Preview>,
    /// The last synchronisation with it, since this node started.
    pub synchronised: Option<Synchronised>,
}

/// What two nodes would be to one another if they met in earnest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// `equal`, `source` (of the peer), `target` (of the peer), `waiting`, or why they would not connect.
    pub result: String,
    /// By which rules.
    pub rules: Vec<String>,
    /// Bytes that would be compared at most, and sent where they differ.
    pub bytes: u64,
}

/// A synchronisation under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resync {
    /// Bytes to be compared or sent, those that came in addition too.
    pub total_bytes: u64,
    /// Those that are done.
    pub done_bytes: u64,
    /// Bytes done in a second, over the last ten.
    pub bytes_per_s: u64,
    /// Seconds until the end at this rate; none while nothing moves.
    pub eta_s: Option<u64>,
}

impl Resync {
    /// How much of it is done, in hundredths of a percent.
    pub fn done(&self) -> u64 {
        let part = u128::from(self.done_bytes) * 10_000 / u128::from(self.total_bytes.max(1));
        if self.total_bytes == 0 { 10_000 } else { u64::try_from(part).unwrap_or(10_000) }
    }
}

/// A verification, under way or over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Bytes of the device.
    pub total_bytes: u64,
    /// Bytes that were compared.
    pub done_bytes: u64,
    /// Bytes that differ, in blocks of 4 KiB.
    pub differing_bytes: u64,
    /// Where in the first volume: first byte and length. Of very many some are told as one.
    pub ranges: Vec<(u64, u64)>,
    /// Where in the others: volume, first byte and length.
    pub ranges_of_others: Vec<(u8, u64, u64)>,
    /// Bytes that could not be compared: they were written all the time.
    pub skipped_bytes: u64,
    /// It has ended.
    pub over: bool,
    /// It ended before its time: the connection was lost.
    pub broken: bool,
}

pub(super) fn verified(found: &Found) -> Verified {
    let place = |s: &Span| (Volume::of(s.at).map_or(0, Volume::get), Volume::local(s.at) * SECTOR, s.len * SECTOR);
    let places: Vec<(u8, u64, u64)> = found.differing.iter().map(place).collect();
    Verified {
        total_bytes: found.total * SECTOR,
        done_bytes: found.done * SECTOR,
        differing_bytes: found.differs * SECTOR,
        ranges: places.iter().filter(|(v, ..)| *v == 0).map(|(_, at, len)| (*at, *len)).collect(),
        ranges_of_others: places.iter().filter(|(v, ..)| *v != 0).copied().collect(),
        skipped_bytes: found.skipped * SECTOR,
        over: found.over,
        broken: found.broken,
    }
}

pub(super) fn resync(view: SyncView) -> Resync {
    Resync {
        total_bytes: view.total_bytes,
        done_bytes: view.total_bytes - view.left_bytes,
        bytes_per_s: view.bytes_per_s,
        eta_s: view.eta_ms.map(|ms| ms.div_ceil(1000)),
    }
}

/// What a synchronisation moved, as its source counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Synchronised {
    /// Blocks of 4 KiB that were sent.
    pub sent: u64,
    /// Blocks that were zero, which was said instead.
    pub zeroed: u64,
    /// Blocks that were compared and equal.
    pub equal: u64,
}

/// The letter of a protocol.
pub fn letter(protocol: Protocol) -> char {
    match protocol {
        Protocol::A => 'A',
        Protocol::B => 'B',
        Protocol::C => 'C',
    }
}

/// A word for a connection.
pub(super) fn connection(connection: Connection) -> &'static str {
    match connection {
        Connection::Greeting => "Handshake",
        Connection::Waiting => "Waiting",
        Connection::Established => "Established",
        Connection::SyncSource => "SyncSource",
        Connection::SyncTarget => "SyncTarget",
    }
}

/// What a meeting would come to.
pub(super) fn preview(verdict: Verdict, rules: &[Rule], bytes: u64) -> Preview {
    let (result, moves) = match verdict {
        Verdict::NoSync => ("equal", false),
        Verdict::Source { .. } => ("source", true),
        Verdict::Target { .. } => ("target", true),
        Verdict::Wait => ("waiting", false),
        Verdict::Retry => ("retry", false),
        Verdict::SplitBrain => ("split-brain", true),
        Verdict::Unrelated => ("unrelated", false),
        Verdict::PrimaryWouldLose => ("primary-would-lose", true),
    };
    let rules = rules.iter().map(|r| format!("{r:?}")).collect();
    Preview { result: result.to_owned(), rules, bytes: if moves { bytes } else { 0 } }
}

/// A word for a role.
pub(super) fn role(primary: bool) -> String {
    if primary { "Primary" } else { "Secondary" }.to_owned()
}

/// A word for a disk.
pub(super) fn disk(disk: DiskState) -> String {
    format!("{disk:?}")
}

/// Why a node does not become primary, as a sentence without its end.
pub fn refusal(why: Refusal) -> String {
    let said = match why {
        Refusal::Data => "its data are not known to be the newest, or are in the middle of a synchronisation",
        Refusal::OtherPrimary => "another node is primary",
        Refusal::Overtaken(node) => {
            return format!("node-{} is being promoted as well, or was just before", node.get());
        }
        Refusal::OwnDisk => "its own disk does not write down that it is",
        Refusal::NoMajority => "no majority of the replicas and the tie-breaker agreed within 3 s",
        Refusal::NotGranted => "others hold what was granted last",
        Refusal::LostCache => "what was acknowledged last may be lost here, and others may have it",
    };
    said.to_owned()
}

/// The policy for requests without quorum, as files and people write it.
pub fn on_no_quorum(policy: OnNoQuorum) -> &'static str {
    match policy {
        OnNoQuorum::SuspendIo => "suspend-io",
        OnNoQuorum::IoError => "io-error",
    }
}
