//! What a resource tells of itself, in DRBD's words.

use serde::{Deserialize, Serialize};

use crate::core::config::Protocol;
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
    /// Its peers.
    pub peers: Vec<PeerStatus>,
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
    /// The last synchronisation with it, since this node started.
    pub synchronised: Option<Synchronised>,
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
        Refusal::NoMajority => "no majority of the nodes answered",
        Refusal::NotGranted => "others hold what was granted last",
        Refusal::LostCache => "what was acknowledged last may be lost here, and others may have it",
    }
}
