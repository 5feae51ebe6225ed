//! The metadata store: names, inodes, mappings, free space, grants, sessions and their stored answers, in one database
//! on ranges of the shared disk. Only the coordinator opens it, after the epoch before is over.
//!
//! What it is: a synchronous library. [`Store::write`] begins a [`Txn`]; [`Txn::run`] gives [`Ops`], which has one
//! method per durable request; [`Txn::commit`] makes all of it durable at once. [`Reader`]s make [`View`]s of what is
//! committed. [`Reads`] are the questions that both answer. [`check`](mod@check) proves a whole volume consistent.
//!
//! Who calls it: the coordinator's metadata thread (everything that writes) and its reader threads. Never a worker:
//! every call may wait for the disk.
//!
//! What it refuses: an operation that cannot be done is answered with its errno and has changed nothing, so a batch of
//! operations of several clients shares one commit; a client's claim that contradicts the store
//! ([`MetaError::Contradiction`]) changed nothing either. After a [`Fatal`] error the transaction is dropped, and
//! after the latch was tripped nothing is served any more.
//!
//! What it does not do: permission and sticky-bit checks are the kernel's (`default_permissions`); recalling layouts
//! before a mapping changes, and knowing which inodes are open, are the coordinator's.
//!
//! Invariants (each is one section of [`check`](mod@check)):
//! 1. every block of the volume is exactly one of: format or metadata range, free, granted to one client, or mapped by
//!    as many extents as its reference count says;
//! 2. `nlink` is the number of names (of a directory: 2 and its subdirectories); without a name an inode is an orphan;
//! 3. cookies are unique within a directory and below its next one; each directory is reached from the root once;
//! 4. a written extent was flushed before it was mapped (kept by the callers, see [`Ops::commit_mappings`]).

mod acl;
mod backend;
pub mod check;
mod checkpoint;
mod disk;
mod error;
#[cfg(test)]
mod fuzz;
mod inode;
mod latch;
mod map;
mod ops;
mod reads;
mod recent;
mod redo;
mod repair;
mod rows;
mod session;
mod space;
mod store;
mod tables;
#[cfg(test)]
pub(crate) mod tests;
mod volume;
mod xattr;

pub use error::{Fatal, MetaError, Result};
pub use latch::Latch;
pub use ops::{Created, Gone, NewNode, Ops, Reaped, Rename, Root};
pub use reads::{Listing, Reads, Tail};
pub use recent::Recent;
pub use session::{Session, SessionState, StoredAnswer};
pub use store::{Reader, Store, Txn, Unmounted, View};
pub use volume::{FormatOptions, foreign, identity, read_superblock};

/// Why a row of the orphan table is there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum OrphanKind {
    /// The inode has no name any more. It is freed by [`Ops::reap`] when no session has it open.
    Unlinked,
    /// The file was made shorter and its tail is not freed yet. May be reaped at any time.
    Truncated,
}

impl OrphanKind {
    /// As it is stored.
    pub(crate) fn byte(self) -> u8 {
        match self {
            OrphanKind::Unlinked => 0,
            OrphanKind::Truncated => 1,
        }
    }

    /// From its stored byte.
    pub(crate) fn from_byte(byte: u8) -> Result<OrphanKind> {
        match byte {
            0 => Ok(OrphanKind::Unlinked),
            1 => Ok(OrphanKind::Truncated),
            _ => Err(error::damaged("an orphan of an unknown kind")),
        }
    }
}
