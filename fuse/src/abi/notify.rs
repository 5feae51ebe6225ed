//! Bodies of notifications, which travel from this process to the kernel.

use super::body;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub(crate) const NOTIFY_INVAL_INODE: i32 = 2;
pub(crate) const NOTIFY_INVAL_ENTRY: i32 = 3;
pub(crate) const NOTIFY_STORE: i32 = 4;
pub(crate) const NOTIFY_DELETE: i32 = 6;
/// Since Linux 6.9: everything that was read and not answered is to be read again. No body.
pub(crate) const NOTIFY_RESEND: i32 = 7;

/// `NotifyInvalEntry::flags`: the name only expires, the dentry is kept (FUSE_HAS_EXPIRE_ONLY).
pub(crate) const EXPIRE_ONLY: u32 = 1;

body!(NotifyInvalInode [24] { ino: u64, off: i64, len: i64 });
body!(
    /// Followed by the name and a zero byte that `namelen` does not count.
    NotifyInvalEntry [16] { parent: u64, namelen: u32, flags: u32 }
);
body!(
    /// Followed by the name and a zero byte that `namelen` does not count.
    NotifyDelete [24] { parent: u64, child: u64, namelen: u32, padding: u32 }
);
body!(
    /// Followed by `size` bytes of data.
    NotifyStore [24] { nodeid: u64, offset: u64, size: u32, padding: u32 }
);
