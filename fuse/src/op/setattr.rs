//! Times, and the arguments of SETATTR.

use super::{FileHandle, LockOwner};
use block::units::ByteLen;

/// A point in time: seconds since 1970 (may be negative) and nanoseconds (below 10^9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Time {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// The rest.
    pub nanos: u32,
}

impl From<std::time::SystemTime> for Time {
    fn from(at: std::time::SystemTime) -> Self {
        match at.duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => {
                Self { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
            }
            Err(before) => {
                let before = before.duration();
                let whole = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
                match before.subsec_nanos() {
                    0 => Self { seconds: -whole, nanos: 0 },
                    rest => Self { seconds: -whole - 1, nanos: 1_000_000_000 - rest },
                }
            }
        }
    }
}

/// A time to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// The server's own now.
    Now,
    /// This one.
    At(Time),
}

/// Arguments of SETATTR: what is `None` stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SetattrIn {
    /// The handle, when asked through an open file (ftruncate).
    pub fh: Option<FileHandle>,
    /// Type and permissions.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// New size: truncate or grow.
    pub size: Option<ByteLen>,
    /// Access time.
    pub atime: Option<SetTime>,
    /// Modification time.
    pub mtime: Option<SetTime>,
    /// Change time; without it the server sets its own now.
    pub ctime: Option<Time>,
    /// Who truncates, where mandatory locks would matter.
    pub lock_owner: Option<LockOwner>,
    /// Clear suid and sgid (chown, or truncation by someone without CAP_FSETID).
    pub kill_suidgid: bool,
}
