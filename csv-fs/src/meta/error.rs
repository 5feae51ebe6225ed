//! Why a metadata operation failed, sorted by what the caller must do about it.

use block::error::IoError;
use rustix::io::Errno;

use crate::format::{Foreign, FormatError};

/// A failed metadata operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetaError {
    /// The operation is answered with this errno; it changed nothing, and its transaction goes on.
    #[error("{}", std::io::Error::from_raw_os_error(*.0))]
    Errno(i32),
    /// What a client claims contradicts the store (a mapping outside its grant). It changed nothing, and its
    /// transaction goes on; the client is to be evicted.
    #[error("the client's claim contradicts the metadata: {0}")]
    Contradiction(&'static str),
    /// The transaction must be dropped and the store not be used again.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

/// Why the store cannot be used any more, or not at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fatal {
    /// This node is not the coordinator any more.
    #[error("this node is no longer the coordinator of the volume")]
    Latched,
    /// The disk failed, or the database on it.
    #[error("the metadata store failed: {0}")]
    Store(#[from] Box<redb::Error>),
    /// The disk failed.
    #[error("the disk failed: {0}")]
    Io(#[from] IoError),
    /// The volume cannot be used.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The disk carries something that formatting would destroy.
    // A sentence is made of this: nothing may follow the identity that would be copied along.
    #[error("the disk carries {}{}; repeat with --wipe {id} to destroy that", list(.found), wrong(.given.as_deref()))]
    Occupied {
        /// What was recognised.
        found: Vec<Foreign>,
        /// What `--wipe` must be given.
        id: String,
        /// What it was given instead.
        given: Option<String>,
    },
    /// The kernel gives no random numbers.
    #[error("the kernel gives no random numbers: {0}")]
    Random(Errno),
    /// Whoever asked for a check ended it, or the reign under it ended.
    #[error("the check was ended before it was done")]
    Interrupted,
    /// A row that is not as the format says.
    #[error("the metadata are damaged: {0}; run `shorefast volume check`")]
    Damaged(&'static str),
}

/// Result of a metadata operation.
pub type Result<T> = std::result::Result<T, MetaError>;

impl MetaError {
    /// The errno for the client, if the operation merely failed.
    pub fn errno(&self) -> Option<i32> {
        match self {
            MetaError::Errno(n) => Some(*n),
            MetaError::Contradiction(_) => Some(Errno::INVAL.raw_os_error()),
            MetaError::Fatal(_) => None,
        }
    }

    /// Whether it says that something stored is not as it must be.
    pub(super) fn is_damage(&self) -> bool {
        matches!(self, MetaError::Fatal(Fatal::Damaged(_)))
    }

    /// Whether the transaction must be given up.
    pub fn is_fatal(&self) -> bool {
        matches!(self, MetaError::Fatal(_))
    }
}

impl From<Errno> for MetaError {
    fn from(e: Errno) -> MetaError {
        MetaError::Errno(e.raw_os_error())
    }
}

impl From<FormatError> for MetaError {
    fn from(e: FormatError) -> MetaError {
        MetaError::Fatal(Fatal::Format(e))
    }
}

impl From<IoError> for MetaError {
    fn from(e: IoError) -> MetaError {
        MetaError::Fatal(Fatal::Io(e))
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for MetaError {
            fn from(e: $error) -> MetaError {
                MetaError::Fatal(Fatal::Store(Box::new(e.into())))
            }
        })*
    };
}

fn wrong(given: Option<&str>) -> String {
    given.map_or_else(String::new, |given| format!(", and `{given}` is not its identity"))
}

from_redb!(
    redb::Error,
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::DatabaseError,
    redb::SetDurabilityError
);

fn list(found: &[Foreign]) -> String {
    found.iter().map(|f| f.what.as_str()).collect::<Vec<_>>().join(" and ")
}

/// A row that does not decode.
pub(super) fn damaged(what: &'static str) -> MetaError {
    MetaError::Fatal(Fatal::Damaged(what))
}
