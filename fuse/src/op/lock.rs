//! Locks as the kernel describes them.

use super::{FileHandle, LockOwner};

/// What a lock does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LockKind {
    /// F_RDLCK: shared.
    Read,
    /// F_WRLCK: exclusive.
    Write,
    /// F_UNLCK: none; in a Getlk answer "nobody stands in the way".
    Unlock,
}

/// A range and what is wanted of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lock {
    /// Shared, exclusive, none.
    pub kind: LockKind,
    /// First byte.
    pub start: u64,
    /// Last byte, inclusive; [`Lock::TO_END`] reaches over every end of the file.
    pub end: u64,
    /// Process id of the holder, as the asker's namespace sees it; 0 is unknown.
    pub pid: u32,
}

impl Lock {
    /// The end of a lock that has none (the kernel's OFFSET_MAX).
    pub const TO_END: u64 = i64::MAX as u64;
}

/// Arguments of GETLK, SETLK and SETLKW.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LockRequest {
    /// The handle it was asked through; RELEASE of it ends the lock.
    pub fh: FileHandle,
    /// Who wants it.
    pub owner: LockOwner,
    /// What is wanted.
    pub lock: Lock,
    /// By flock(2): one lock for the whole file, its own space beside fcntl's.
    pub flock: bool,
}
