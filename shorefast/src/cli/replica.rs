//! `replica ...` as types.

use core::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Size;
use crate::api::Node;
use crate::places;

/// `replica ...`
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum ReplicaCommand {
    /// Make a replica of disks of this host; it runs once `up` does
    Create(ReplicaCreateArgs),
    /// Run a replica until it is told to stop; its device is served over NBD while it is primary
    Up(ReplicaName),
    /// Stop a replica that runs, in order
    Down(ReplicaName),
    /// Make this node's replica the one that is written
    Primary {
        /// Which
        #[command(flatten)]
        replica: ReplicaName,
        /// Also with data that are not known to be the newest: says what may be lost, and loses it
        #[arg(long)]
        force: bool,
    },
    /// Make it one that follows; its clients are disconnected
    Secondary(ReplicaName),
    /// How a replica, its peers and their connections are
    Status(ReplicaName),
    /// Connect with the peers again, after `disconnect` or a split brain
    Connect {
        /// Which
        #[command(flatten)]
        replica: ReplicaName,
        /// In a split brain give up what was written here
        #[arg(long)]
        discard_my_data: bool,
        /// Only tell what would be synchronised, and which way; after `disconnect`
        #[arg(long, conflicts_with = "discard_my_data")]
        tentative: bool,
    },
    /// End the connections with the peers, and make no new ones
    Disconnect(ReplicaName),
    /// Compare the data with the peers', while they are used; where they differ is listed
    Verify {
        /// Which
        #[command(flatten)]
        replica: ReplicaName,
        /// Make what differs as this node has it; on the primary only
        #[arg(long, value_name = "NODE")]
        repair_from: Option<Node>,
    },
    /// Make the device larger, after the disks of all nodes were; on the primary
    Resize {
        /// Which
        #[command(flatten)]
        replica: ReplicaName,
        /// Which volume
        #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..16))]
        volume: u8,
        /// Bytes of the device [default: all that the disks of all nodes have room for]
        #[arg(long, value_name = "SIZE")]
        size: Option<Size>,
        /// What is new reads the same on all nodes, and is not synchronised
        #[arg(long)]
        assume_clean: bool,
    },
    /// Take a volume away from all nodes, for good; on the primary. Its data stay on the disks
    RemoveVolume {
        /// Which
        #[command(flatten)]
        replica: ReplicaName,
        /// Which volume
        #[arg(value_name = "N", value_parser = clap::value_parser!(u8).range(1..16))]
        volume: u8,
        /// Also while a peer is not connected, which does so when it comes, and while clients use it, which are disconnected
        #[arg(long)]
        force: bool,
    },
    /// Give one volume of a replica that does not run another, empty disk; it is synchronised in full, the others are not
    ReplaceDisk {
        /// Which
        #[command(flatten)]
        replica: ReplicaName,
        /// Which volume; that of volume 0 has the metadata, and is replaced by making the replica anew
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..16))]
        volume: u8,
        /// The disk: a path, or file:PATH
        #[arg(long, value_name = "DISK")]
        local: String,
        /// Also if what only this node has is lost by it
        #[arg(long)]
        force: bool,
        /// Destroy what the disk carries; ID is the identity that the refusal printed
        #[arg(long, value_name = "ID")]
        wipe: Vec<String>,
    },
    /// What changes, as JSON, an object a line: first how everything is, then, with --follow, each change
    Events {
        /// Which
        #[command(flatten)]
        replica: ReplicaName,
        /// Go on until interrupted
        #[arg(long)]
        follow: bool,
    },
    /// Prove a replica's metadata sound, while it does not run; exit code 5 with a list of what is wrong
    Check(ReplicaName),
    /// Read the replica's file again, and change what differs in the process that runs
    Adjust(ReplicaName),
}

/// Which replica, and where this host keeps what it knows of it.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReplicaName {
    /// The replica's name, the same on all nodes
    pub(crate) name: String,
    /// The folder with its configuration and its sockets
    #[arg(long, value_name = "DIR", default_value = places::REPLICAS)]
    pub(crate) dir: PathBuf,
}

/// `replica create`
#[derive(Args, Clone, Debug)]
pub(crate) struct ReplicaCreateArgs {
    /// Which
    #[command(flatten)]
    pub(crate) replica: ReplicaName,
    /// The disk: a path, or file:PATH; of several the first is volume 0, the next volume 1, and so on
    #[arg(long, value_name = "DISK", required = true)]
    pub(crate) local: Vec<String>,
    /// A peer: its node, and where it listens for this replica; once for each
    #[arg(long, value_name = "NODE=HOST:PORT", required = true)]
    pub(crate) peer: Vec<String>,
    /// Where this node listens for the peers
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: SocketAddr,
    /// When a write is answered: A sent, B received, C written by the peer
    #[arg(long, value_name = "A|B|C", default_value = "C", hide_possible_values = true, ignore_case = true)]
    pub(crate) protocol: ReplicaProtocol,
    /// Who may be primary: who a majority grants it, or whoever is asked [default: majority with a tie-breaker or three replicas]
    #[arg(long, value_name = "majority|off", hide_possible_values = true)]
    pub(crate) quorum: Option<ReplicaQuorum>,
    /// What becomes of requests while there is no majority: they wait, or fail
    #[arg(long, value_name = "suspend-io|io-error", default_value = "suspend-io", hide_possible_values = true)]
    pub(crate) on_no_quorum: ReplicaOnNoQuorum,
    /// Seconds after which a local disk that does not answer is left, as one that failed [default: it is waited for]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(2..=3600))]
    pub(crate) disk_timeout: Option<u64>,
    /// What becomes of an error of the local disk: it is left, or the error is passed on to who asked
    #[arg(long, value_name = "detach|pass-on", default_value = "detach", hide_possible_values = true)]
    pub(crate) on_io_error: ReplicaOnIoError,
    /// The tie-breaker: its node, where it listens, and its identity, as `witness create` told it
    #[arg(long, value_name = "NODE=HOST:PORT/ID")]
    pub(crate) witness: Option<String>,
    /// Bytes of the device, of several volumes in their order [default: all that the disk has room for]
    #[arg(long, value_name = "SIZE")]
    pub(crate) size: Vec<Size>,
    /// This node's bundle
    #[arg(long, value_name = "FILE", default_value = places::BUNDLE)]
    pub(crate) bundle: PathBuf,
    /// Destroy what a disk carries; ID is the identity that the refusal printed
    #[arg(long, value_name = "ID")]
    pub(crate) wipe: Vec<String>,
}

/// A protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
#[value(rename_all = "UPPER")]
pub(crate) enum ReplicaProtocol {
    A,
    B,
    C,
}

impl ReplicaProtocol {
    /// Its letter.
    pub(crate) fn letter(self) -> char {
        match self {
            ReplicaProtocol::A => 'A',
            ReplicaProtocol::B => 'B',
            ReplicaProtocol::C => 'C',
        }
    }
}

/// Who may be primary.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ReplicaQuorum {
    /// Whoever is asked.
    Off,
    /// Who a majority grants it.
    Majority,
}

/// What becomes of requests without a majority.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ReplicaOnNoQuorum {
    /// They wait.
    #[default]
    SuspendIo,
    /// They fail.
    IoError,
}

/// What becomes of an error of the local disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ReplicaOnIoError {
    /// The disk is left.
    #[default]
    Detach,
    /// It is kept, and who asked gets the error if no peer can answer.
    PassOn,
}

/// `witness ...`
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum WitnessCommand {
    /// Make an empty vote for a replicated device, before its replicas are made
    Create {
        /// The device's name, the same as that of its replicas
        name: String,
        /// A node with a replica; once for each, an even number of them
        #[arg(long, value_name = "NODE", required = true)]
        replica: Vec<crate::api::Node>,
        /// Where the votes are kept
        #[command(flatten)]
        place: WitnessPlace,
    },
    /// Run the tie-breaker of every device that has a vote here, until told to stop
    Up {
        /// Where to listen for the replicas
        #[arg(long, value_name = "ADDR:PORT")]
        listen: SocketAddr,
        /// Where the votes are kept
        #[command(flatten)]
        place: WitnessPlace,
    },
    /// What was promised and granted, as it is on the disk
    Status(WitnessPlace),
}

/// Where a tie-breaker keeps its votes, and who it is.
#[derive(Args, Clone, Debug)]
pub(crate) struct WitnessPlace {
    /// The folder with the votes
    #[arg(long, value_name = "DIR", default_value = places::WITNESS)]
    pub(crate) dir: PathBuf,
    /// This node's bundle
    #[arg(long, value_name = "FILE", default_value = places::BUNDLE)]
    pub(crate) bundle: PathBuf,
}
