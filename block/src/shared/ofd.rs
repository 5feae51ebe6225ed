//! Open file description locks (fcntl(2), F_OFD_SETLK): owned by the description, not by the process,
//! and freed when its last reference is gone; requests inside the kernel hold one.

#![allow(unsafe_code)]
// Reason: fcntl with a struct flock has no safe wrapper for the OFD commands.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Takes the write lock of one byte; false if another description has it. Never waits.
pub(super) fn try_lock_byte(fd: BorrowedFd<'_>, byte: u64) -> io::Result<bool> {
    match set(fd, byte, libc::F_WRLCK) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Frees the lock of one byte.
pub(super) fn unlock_byte(fd: BorrowedFd<'_>, byte: u64) -> io::Result<()> {
    set(fd, byte, libc::F_UNLCK)
}

fn set(fd: BorrowedFd<'_>, byte: u64, kind: i32) -> io::Result<()> {
    let start = i64::try_from(byte).map_err(io::Error::other)?;
    loop {
        // SAFETY: flock is plain numbers, for which zero is valid; l_pid must be 0 for OFD locks.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        // Lossless: the lock kinds are 0, 1 and 2.
        lock.l_type = kind as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        lock.l_start = start;
        lock.l_len = 1;
        // SAFETY: the descriptor is open, the command takes a pointer to a flock, and the kernel
        // does not keep it.
        let answer = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
        if answer == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
