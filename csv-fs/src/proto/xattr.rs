//! Extended attributes.

use serde::{Deserialize, Serialize};

use crate::types::InodeNo;

/// Bits of [`XattrCall::Set`]'s flags, as `setxattr(2)` has them.
pub mod xattr_flags {
    /// EEXIST if it is there.
    pub const CREATE: u32 = 1;
    /// ENODATA if it is not there.
    pub const REPLACE: u32 = 2;
}

/// A question about, or a change of, extended attributes. Names carry their prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum XattrCall {
    /// The value of one.
    Get {
        /// Of which inode.
        ino: InodeNo,
        /// Which.
        name: Vec<u8>,
    },
    /// All names, each ended by a zero byte.
    List {
        /// Of which inode.
        ino: InodeNo,
    },
    /// Durable. An access list changes the mode, too.
    Set {
        /// Of which inode.
        ino: InodeNo,
        /// Which.
        name: Vec<u8>,
        /// To what.
        value: Vec<u8>,
        /// Bits of [`xattr_flags`].
        flags: u32,
        /// Clear sgid: an access list set by someone outside the group.
        kill_sgid: bool,
    },
    /// Durable.
    Remove {
        /// Of which inode.
        ino: InodeNo,
        /// Which.
        name: Vec<u8>,
    },
}

/// The name under which Linux keeps a file's capabilities: gone as soon as the file is written.
pub const CAPABILITY: &[u8] = b"security.capability";

impl XattrCall {
    /// Whether it changes the store.
    pub fn is_durable(&self) -> bool {
        matches!(self, XattrCall::Set { .. } | XattrCall::Remove { .. })
    }

    /// Of which inode.
    pub fn ino(&self) -> InodeNo {
        match self {
            XattrCall::Get { ino, .. }
            | XattrCall::List { ino }
            | XattrCall::Set { ino, .. }
            | XattrCall::Remove { ino, .. } => *ino,
        }
    }

    /// Whether writes of the file have to clear something after it that they did not have to clear before.
    pub fn gives_privilege(&self) -> bool {
        matches!(self, XattrCall::Set { name, .. } if name == CAPABILITY)
    }
}
