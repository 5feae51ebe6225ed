//! Why a block request failed.
//!
//! The kind says what the layers above may do about it; the errno for an application is chosen
//! here, where the error is raised, and nowhere else. `Medium`, `Corrupt`, `CacheLost` and `NotReady` are answers of the device itself
//! and go up to the application; `Hardware`, `NoPath`, `TimedOut` and `Aborted` are about the way to the device, and a
//! layer that has another way takes it. None of the last three says that a write was *not* executed:
//! only a [`NothingInFlight`](crate::shared::NothingInFlight) says that it cannot land any more.

use std::fmt;

use crate::device::Op;
use crate::units::{ByteLen, ByteOffset};

/// What went wrong, as far as a caller can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IoErrorKind {
    /// The device answered that it could not read or write.
    Medium,
    /// The way to the device is gone. A write may or may not have been executed.
    NoPath,
    /// The device has a fault of its own on this way; what was asked has ended, wholly, partly or not at all. Another way may do.
    Hardware,
    /// No answer in time. A write may still land later.
    TimedOut,
    /// The request was withdrawn. A write may have been executed, and cannot land any more.
    Aborted,
    /// The range does not lie within the device, or is larger than one request may be.
    OutOfRange,
    /// The device takes no changes.
    ReadOnly,
    /// The device has no such operation.
    NotSupported,
    /// Position, length or memory does not fit the device's block size.
    Misaligned,
    /// A thin device has no space left.
    NoSpace,
    /// The device is there and not ready: it has no medium, is stopped, or does not say when it will be. Not executed.
    NotReady,
    /// The medium as a whole is corrupt: its format, not one block.
    Corrupt,
    /// Not through this way now (a target port that is standby, unavailable or changing). Not executed; another way may do.
    NotAccessible,
    /// A flush only: the device may have lost writes that it had acknowledged and that this flush covers. They are to be written
    /// again, or their owners told.
    CacheLost,
    /// This node is excluded from the device.
    Fenced,
    /// The device or its workers are being closed; the request was not executed.
    ShuttingDown,
    /// A layer lost the request without answering it: a bug, which was logged.
    Dropped,
}

/// A failed block request: the kind, the request and, where the kernel spoke, its error number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoError {
    /// What went wrong.
    pub kind: IoErrorKind,
    /// The operation; `None` where the request itself was lost.
    pub op: Option<Op>,
    /// Where the request began.
    pub at: ByteOffset,
    /// How long it was.
    pub len: ByteLen,
    /// The kernel's error number behind it.
    pub os: Option<i32>,
}

impl IoErrorKind {
    /// The kind behind an error number of the kernel's block layer or file systems.
    pub fn from_errno(errno: i32) -> IoErrorKind {
        match errno {
            libc::ENOSPC | libc::EDQUOT => IoErrorKind::NoSpace,
            libc::EOPNOTSUPP | libc::ENOSYS => IoErrorKind::NotSupported,
            libc::ETIMEDOUT => IoErrorKind::TimedOut,
            libc::ECANCELED => IoErrorKind::Aborted,
            libc::ENODEV | libc::ENXIO | libc::ENOLINK | libc::EHOSTDOWN => IoErrorKind::NoPath,
            // What the SCSI layer makes of RESERVATION CONFLICT.
            libc::EBADE => IoErrorKind::Fenced,
            libc::EROFS | libc::EPERM | libc::EBADF => IoErrorKind::ReadOnly,
            libc::EINVAL | libc::EFAULT => IoErrorKind::Misaligned,
            libc::EFBIG => IoErrorKind::OutOfRange,
            _ => IoErrorKind::Medium,
        }
    }

    /// The error number an application gets.
    pub fn errno(self) -> i32 {
        match self {
            IoErrorKind::Medium
            | IoErrorKind::Hardware
            | IoErrorKind::NoPath
            | IoErrorKind::TimedOut
            | IoErrorKind::Aborted
            | IoErrorKind::Fenced
            | IoErrorKind::NotReady
            | IoErrorKind::Corrupt
            | IoErrorKind::CacheLost
            | IoErrorKind::NotAccessible
            | IoErrorKind::ShuttingDown
            | IoErrorKind::Dropped => libc::EIO,
            IoErrorKind::OutOfRange | IoErrorKind::Misaligned => libc::EINVAL,
            IoErrorKind::ReadOnly => libc::EROFS,
            IoErrorKind::NotSupported => libc::EOPNOTSUPP,
            IoErrorKind::NoSpace => libc::ENOSPC,
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            IoErrorKind::Medium => "the device could not do it",
            IoErrorKind::Hardware => "the device has a hardware fault",
            IoErrorKind::NoPath => "there is no path to the device",
            IoErrorKind::TimedOut => "the device did not answer in time",
            IoErrorKind::Aborted => "the request was aborted",
            IoErrorKind::OutOfRange => "the range is outside the device or too large",
            IoErrorKind::ReadOnly => "the device is read-only",
            IoErrorKind::NotSupported => "the device cannot do this operation",
            IoErrorKind::Misaligned => "position, length or memory is not aligned to the device's blocks",
            IoErrorKind::NoSpace => "the device has no space left",
            IoErrorKind::NotReady => "the device is not ready",
            IoErrorKind::Corrupt => "the medium is corrupt",
            IoErrorKind::NotAccessible => "the device cannot be reached through this port now",
            IoErrorKind::CacheLost => "the device may have lost writes that it had acknowledged",
            IoErrorKind::Fenced => "this node is fenced from the device",
            IoErrorKind::ShuttingDown => "the device is being closed",
            IoErrorKind::Dropped => "the request was lost without an answer",
        }
    }
}

impl IoError {
    /// An error about the request `op` of `len` bytes at `at`.
    pub fn new(kind: IoErrorKind, op: Op, at: ByteOffset, len: ByteLen) -> IoError {
        IoError { kind, op: Some(op), at, len, os: None }
    }

    /// The same with the kernel's error number, from which the kind is taken.
    pub fn from_os(errno: i32, op: Op, at: ByteOffset, len: ByteLen) -> IoError {
        IoError { kind: IoErrorKind::from_errno(errno), op: Some(op), at, len, os: Some(errno) }
    }

    /// The error of a completion that was dropped unanswered.
    pub fn dropped() -> IoError {
        IoError { kind: IoErrorKind::Dropped, op: None, at: ByteOffset::ZERO, len: ByteLen::ZERO, os: None }
    }

    /// The error number an application gets.
    pub fn errno(&self) -> i32 {
        self.kind.errno()
    }
}

impl fmt::Display for IoErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.op {
            Some(op) => write!(f, "{op} of {} at {}: {}", self.len, self.at, self.kind)?,
            None => write!(f, "{}", self.kind)?,
        }
        match self.os {
            Some(errno) => write!(f, " ({})", std::io::Error::from_raw_os_error(errno)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for IoError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_names_the_request_and_the_kernel_error() {
        let error = IoError::from_os(libc::ENOSPC, Op::Write { fua: true }, ByteOffset(4096), ByteLen(512));
        assert_eq!(error.kind, IoErrorKind::NoSpace);
        assert_eq!(error.errno(), libc::ENOSPC);
        let text = error.to_string();
        assert!(text.starts_with("write (FUA) of 512 bytes at byte 4096: the device has no space left"), "{text}");
        assert!(text.contains("os error 28"), "{text}");
    }

    #[test]
    fn unknown_kernel_errors_are_medium_errors() {
        assert_eq!(IoErrorKind::from_errno(libc::EIO), IoErrorKind::Medium);
        assert_eq!(IoErrorKind::from_errno(12345), IoErrorKind::Medium);
    }
}
