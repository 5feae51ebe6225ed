//! What a disk that several nodes share can do beyond a block device: compare-and-write, abort-own,
//! fencing; and who shares it.
//!
//! Implemented here for the *file* kind: a file on one host, for the demo and tests. All data I/O,
//! all compare-and-writes and all locks go through **one open file description**, because only then is
//! a killed process's lock freed exactly when its last write has landed. Process exit proves nothing.
//!
//! A SCSI unit (`iscsi-initiator`) implements [`CompareAndWrite`] and, for each of its nexuses, [`Reservations`] and
//! [`Identify`]; all of them together are [`Nexuses`], by which an office registers, judges and fences. [`exclude`] is the fence
//! for whoever has no office, [`NexusKey`] the form of the keys, [`HedgedCaw`] the lease's way around a path that is slow.
//!
//! Proofs are types whose constructors say what must have happened before: [`NothingInFlight`] (none of this node's requests
//! can land any more) and [`Excluded`] (an incarnation of a node can write no more).

mod caw;
mod disk;
mod file_disk;
mod hedge;
mod identify;
mod ids;
mod key;
mod kill;
mod locks;
mod nexuses;
mod notices;
mod ofd;
mod proof;
pub(crate) mod reserve;

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

pub use caw::{CawOutcome, CompareAndWrite};
pub use disk::{DiskKind, SharedDisk};
pub use file_disk::FileDisk;
pub use hedge::{HEDGE_AFTER, HedgedCaw};
pub use identify::{DiskIdentity, Identify};
pub use ids::{Epoch, FenceGen, Incarnation, NodeId};
pub use key::{NexusKey, NexusNumber, VolumeTag};
pub use kill::{KillOutcome, process_start_time};
pub use locks::LiveLock;
pub use nexuses::{AloneError, Entrance, Nexuses};
pub use notices::Notices;
pub use proof::{AbortOwn, Excluded, ExcludedBy, NothingInFlight};
pub use reserve::{ExcludeError, HELD_TYPE, Keeps, Reservations, ReserveError, exclude};
pub use scsi::ReservationKey;

/// Who of this host has a file open, as its lock bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opener {
    /// The daemon of a node, or somebody who keeps that node out.
    Node(NodeId),
    /// A target that serves it.
    Target,
}

impl fmt::Display for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Opener::Node(node) => write!(f, "the daemon of node-{}", node.get()),
            Opener::Target => f.write_str("an iSCSI target of this host"),
        }
    }
}

/// A boxed future, for traits that are used as objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
