//! How a node takes part in a resource.

use std::collections::BTreeMap;

use super::rules::Rules;
use crate::compare::Policy;
use crate::ids::{NodeId, NodeSet};

/// When a write is acknowledged, for one connection. The letters are DRBD's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// It is written here and handed to the connection.
    A,
    /// It is written here, and the peer has received it.
    B,
    /// It is written here and at the peer; a flush or a write with FUA waits for the peer's stable storage.
    C,
}

/// What becomes of requests without quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnNoQuorum {
    /// They wait.
    SuspendIo,
    /// They fail.
    IoError,
}

/// What becomes of a peer that does not keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnSlowPeer {
    /// Applications wait for it.
    Block,
    /// The connection ends; it comes back and is synchronised.
    Disconnect,
    /// Its blocks are only marked; when it has caught up with what was sent, it is synchronised.
    GoAhead,
}

/// What becomes of a request of an application that the local disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnIoError {
    /// The disk is left; a primary goes on through its peers.
    Detach,
    /// The disk is kept: a read is answered by an equal peer, and what no peer can do for it fails for the application.
    PassOn,
}

/// How far the local disk is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskPolicy {
    /// Milliseconds after which a request that is not answered is a hang, and the disk is left. None: it is waited for.
    pub timeout: Option<u64>,
    /// What becomes of an error.
    pub on_io_error: OnIoError,
}

/// Times, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A connection on which nothing was sent so long carries a ping.
    pub ping: u64,
    /// A connection on which nothing came so long is dead.
    pub dead: u64,
    /// A peer that does not answer a write so long is slow.
    pub slow: u64,
    /// Writes that are not settled are settled after so long.
    pub settle: u64,
    /// A candidate that has no majority after so long gives up.
    pub vote: u64,
    /// A node that was idle so long comes to rest: the log is emptied, and it is written down that everything is stable.
    pub rest: u64,
}

/// How much is not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsettled {
    /// Writes: everybody who has the stream remembers each.
    pub writes: usize,
    /// Bytes of those that a peer has not written: one that is slow holds them in memory.
    pub bytes: u64,
}

/// The bounds of a synchronisation.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sectors of a run that is asked for at once, at most.
    pub run_sectors: u64,
    /// Bytes under way beside busy applications, and on an idle link.
    pub room: (u64, u64),
    /// Bytes that a target has written before it makes them stable.
    pub flush_bytes: u64,
    /// Bytes of data in a sector: the simulation's sectors are short.
    pub sector_bytes: usize,
}

/// The configuration of one node. Protocols and policy are the same on all of them.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub me: NodeId,
    /// Every node with a disk, this one too.
    pub disks: NodeSet,
    /// The tie-breaker. It votes only where the number of disks is even.
    pub tie_breaker: Option<NodeId>,
    /// Reigns are granted by a majority of voters.
    pub quorum: bool,
    /// Protocols of connections to peers, by the pair's other node; C where nothing is said.
    pub protocols: BTreeMap<NodeId, Protocol>,
    /// What becomes of requests without quorum.
    pub on_no_quorum: OnNoQuorum,
    /// What becomes of a slow peer.
    pub on_slow_peer: OnSlowPeer,
    /// How far the local disk is trusted.
    pub disk: DiskPolicy,
    /// How split brains and the like are settled; the core fills in what depends on the connection.
    pub policy: Policy,
    /// Times.
    pub timing: Timing,
    /// What may be unsettled before it is settled; with twice as much requests wait for that.
    pub unsettled: Unsettled,
    /// What a synchronisation may have under way.
    pub resync: Limits,
    /// The rules in force.
    pub rules: Rules,
    /// A random number, another one at every start: generations are drawn from it.
    pub entropy: u64,
}

impl Config {
    /// Who has a vote.
    pub fn voters(&self) -> NodeSet {
        match self.tie_breaker {
            Some(t) if self.disks.len().is_multiple_of(2) => self.disks.with(t),
            _ => self.disks,
        }
    }

    /// Whether so many voters are a majority.
    pub fn is_majority(&self, of: NodeSet) -> bool {
        of.and(self.voters()).len() * 2 > self.voters().len()
    }

    /// The protocol to a peer.
    pub fn protocol(&self, peer: NodeId) -> Protocol {
        self.protocols.get(&peer).copied().unwrap_or(Protocol::C)
    }

    /// The policy for a peer.
    pub(super) fn policy(&self, peer: NodeId) -> Policy {
        let protocol = self.protocol(peer);
        let (unconfirmed, asynchronous) = (protocol != Protocol::C, protocol == Protocol::A);
        Policy { quorum: self.quorum, unconfirmed, asynchronous, ..self.policy }
    }
}
