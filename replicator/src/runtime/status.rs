//! What a resource tells of itself, in DRBD's words.

use serde::{Deserialize, Serialize};

use crate::core::config::Protocol;
use crate::core::event::Refusal;
use crate::core::progress::SyncView;
use crate::core::verify::Verified as Found;
use crate::core::view::Connection;
use crate::ids::{NodeId, SECTOR};
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
    /// Bytes that a repair has still to write.
    pub repair_left_bytes: u64,
    /// Bytes that the last repair gave up: this node was primary no more, or who had them was gone.
    pub not_repaired_bytes: u64,
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
    /// The last verification with it, since this node started.
    pub verified: Option<Verified>,
    /// How far a synchronisation with it is.
    pub resync: Option<Resync>,
    /// The last synchronisation with it, since this node started.
    pub synchronised: Option<Synchronised>,
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
    /// Where: first byte and length. Of very many some are told as one.
    pub ranges: Vec<(u64, u64)>,
    /// Bytes that could not be compared: they were written all the time.
    pub skipped_bytes: u64,
    /// It has ended.
    pub over: bool,
    /// It ended before its time: the connection was lost.
    pub broken: bool,
}

pub(super) fn verified(found: &Found) -> Verified {
    Verified {
        total_bytes: found.total * SECTOR,
        done_bytes: found.done * SECTOR,
        differing_bytes: found.differs * SECTOR,
        ranges: found.differing.iter().map(|s| (s.at * SECTOR, s.len * SECTOR)).collect(),
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
