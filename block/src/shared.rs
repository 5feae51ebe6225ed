//! What a disk that several nodes share can do beyond a block device: compare-and-write, abort-own,
//! fencing; and who shares it.
//!
//! Implemented here for the *file* kind: a file on one host, for the demo and tests. All data I/O,
//! all compare-and-writes and all locks go through **one open file description**, because only then is
//! a killed process's lock freed exactly when its last write has landed. Process exit proves nothing.
//!
//! Proofs are types without public constructors: [`NothingInFlight`] (none of this node's requests
//! can land any more) and [`Excluded`] (an incarnation of a node can write no more).

mod caw;
mod disk;
mod file_disk;
mod ids;
mod kill;
mod locks;
mod ofd;
mod proof;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;

pub use caw::{CawOutcome, CompareAndWrite};
pub use disk::SharedDisk;
pub use file_disk::FileDisk;
pub use ids::{Epoch, FenceGen, Incarnation, NodeId};
pub use kill::{KillOutcome, process_start_time};
pub use locks::LiveLock;
pub use proof::{AbortOwn, Excluded, ExcludedBy, NothingInFlight};

/// A boxed future, for traits that are used as objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
