//! Aborting a connection through the control file system.
//!
//! `/sys/fs/fuse/connections/N/abort`, where N is the mount's minor device number. Where nobody has
//! mounted the control file system there, root gets at it through a mount of its own that is attached
//! nowhere and seen by no one.
//!
//! N is free again once the mount is gone, and the next mount gets it. Prevents: ours is unmounted; another is mounted under
//! its number; we abort, and the other one's callers get errors. So the file is opened first, and written only if our own
//! connection is alive *after* that: while it lives nobody else has its number, so what was opened is ours, and the kernel
//! ties an open file to the connection that it was opened for.

use super::AbortError;
use crate::device::Device;
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

const CONTROL: &str = "/sys/fs/fuse/connections";

/// Ends the connection with this number, which is the device's: every request, waiting or to come, fails.
pub(super) fn abort(connection: u32, device: &Device) -> Result<(), AbortError> {
    let file = open(connection)?;
    if !device.is_connected().map_err(AbortError::System)? {
        return Err(AbortError::Gone);
    }
    rustix::io::write(&file, b"1").map(|_| ()).map_err(classify)
}

fn open(connection: u32) -> Result<OwnedFd, AbortError> {
    let path = format!("{connection}/abort");
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, format!("{CONTROL}/{path}"), flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            let control = private_control().map_err(|error| match error {
                Errno::PERM | Errno::ACCESS | Errno::NOSYS => AbortError::NoControl,
                error => AbortError::System(error),
            })?;
            rustix::fs::openat(&control, &path, flags, Mode::empty()).map_err(classify)
        }
        opened => opened.map_err(classify),
    }
}

fn private_control() -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen("fusectl", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

fn classify(error: Errno) -> AbortError {
    match error {
        Errno::NOENT | Errno::NODEV => AbortError::Gone,
        Errno::PERM | Errno::ACCESS => AbortError::Denied,
        error => AbortError::System(error),
    }
}
