//! Aborting a connection through the control file system.
//!
//! `/sys/fs/fuse/connections/N/abort`, where N is the mount's minor device number. Where nobody has
//! mounted the control file system there, root gets at it through a mount of its own that is attached
//! nowhere and seen by no one.

use super::AbortError;
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

const CONTROL: &str = "/sys/fs/fuse/connections";

/// Ends the connection: every request, waiting or to come, fails.
pub(super) fn abort(connection: u32) -> Result<(), AbortError> {
    let path = format!("{connection}/abort");
    match open(&format!("{CONTROL}/{path}")) {
        Ok(file) => write(&file),
        Err(Errno::NOENT) => {
            let control = private_control().map_err(|error| match error {
                Errno::PERM | Errno::ACCESS | Errno::NOSYS => AbortError::NoControl,
                error => AbortError::System(error),
            })?;
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            match rustix::fs::openat(&control, &path, flags, Mode::empty()) {
                Ok(file) => write(&file),
                Err(error) => Err(classify(error)),
            }
        }
        Err(error) => Err(classify(error)),
    }
}

fn open(path: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
}

fn write(file: &OwnedFd) -> Result<(), AbortError> {
    rustix::io::write(file, b"1").map(|_| ()).map_err(classify)
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
