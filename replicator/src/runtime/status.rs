//! What a resource tells of itself, in DRBD's words.

use serde::{Deserialize, Serialize};

use crate::compare::{Rule, Verdict};
use crate::core::config::{OnNoQuorum, Protocol};
use crate::core::event::Refusal;
use crate::core::view::Connection;
use crate::ids::NodeId;
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
    /// Bytes of the device.
    pub size_bytes: u64,
    /// The generation of the data.
    pub generation: String,
    /// Requests that are not answered.
    pub waiting: usize,
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
        Status { waiting: 0, peers: peers.collect(), ..self.clone() }
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

/// What a synchronisation moved, as its source counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Synchronised {
    /// Blocks that were sent.
    pub sent: u64,
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
pub fn refusal(why: Refusal) -> &'static str {
    match why {
        Refusal::Data => "its data are not known to be the newest, or are in the middle of a synchronisation",
        Refusal::OtherPrimary => "another node is primary",
        Refusal::NoMajority => "no majority of the replicas and the tie-breaker agreed within 3 s",
        Refusal::NotGranted => "others hold what was granted last",
        Refusal::LostCache => "what was acknowledged last may be lost here, and others may have it",
    }
}

/// The policy for requests without quorum, as files and people write it.
pub fn on_no_quorum(policy: OnNoQuorum) -> &'static str {
    match policy {
        OnNoQuorum::SuspendIo => "suspend-io",
        OnNoQuorum::IoError => "io-error",
    }
}
