//! What `FS_IOC_FSSETXATTR` keeps with an inode.

use serde::{Deserialize, Serialize};

use crate::types::InodeNo;

/// Hints and marks of an inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hints {
    /// Bytes in which space is wanted; 0 for no wish.
    pub extent_size: u32,
    /// The project it belongs to.
    pub project: u32,
}

/// A question about hints, or a change of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HintsCall {
    /// What is kept.
    Get {
        /// Of which inode.
        ino: InodeNo,
    },
    /// Durable.
    Set {
        /// Of which inode.
        ino: InodeNo,
        /// To what.
        hints: Hints,
    },
}
