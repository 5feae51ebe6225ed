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
    /// Make a replica of a disk of this host; it runs once `up` does
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
        /// Also with data that are not known to be the newest: what others have written since is lost
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
    /// The disk: a path, or file:PATH
    #[arg(long, value_name = "DISK")]
    pub(crate) local: String,
    /// A peer: its node, and where it listens for this replica; once for each
    #[arg(long, value_name = "NODE=HOST:PORT", required = true)]
    pub(crate) peer: Vec<String>,
    /// Where this node listens for the peers
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: SocketAddr,
    /// When a write is answered: A sent, B received, C written by the peer
    #[arg(long, value_name = "A|B|C", default_value = "C", hide_possible_values = true, ignore_case = true)]
    pub(crate) protocol: ReplicaProtocol,
    /// Bytes of the device [default: all that the disk has room for]
    #[arg(long, value_name = "SIZE")]
    pub(crate) size: Option<Size>,
    /// This node's bundle
    #[arg(long, value_name = "FILE", default_value = places::BUNDLE)]
    pub(crate) bundle: PathBuf,
    /// Destroy what the disk carries; ID is the identity that the refusal printed
    #[arg(long, value_name = "ID")]
    pub(crate) wipe: Option<String>,
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
