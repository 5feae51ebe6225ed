//! Why mounting, unmounting or aborting failed: a kind each, and a sentence that says what to do.

use crate::init::InitRefused;
use crate::kept::RecordError;
use rustix::io::Errno;
use std::path::PathBuf;

/// Why there is no mount.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// The path does not exist.
    #[error("the mount point {} does not exist: create the directory", .0.display())]
    Missing(PathBuf),
    /// The path is no directory.
    #[error("the mount point {} is not a directory (nor may it be a symbolic link): name an empty directory", .0.display())]
    NotADirectory(PathBuf),
    /// The directory has entries, which the mount would hide.
    #[error("the mount point {} is not empty: move its files away or name another directory", .0.display())]
    NotEmpty(PathBuf),
    /// Something is mounted there already.
    #[error("{} is already mounted ({source_name}, type {fs_type}): unmount it first or name another directory", path.display())]
    AlreadyMounted {
        /// Where.
        path: PathBuf,
        /// What mount(8) shows as its source.
        source_name: String,
        /// Its type.
        fs_type: String,
    },
    /// Something is mounted there whose daemon neither answers nor is gone.
    #[error("{} is mounted, and its daemon does not answer: end that daemon or run `umount -l {}`", .0.display(), .0.display())]
    Silent(PathBuf),
    /// A dead mount is there and was not to be cleaned, or could not be.
    #[error("{} holds the mount of a daemon that is dead: run `umount -l {}`{}", path.display(), path.display(), why.map_or(String::new(), |why| format!(" ({why})")))]
    Stale {
        /// Where.
        path: PathBuf,
        /// Why it could not be cleaned, if that was tried.
        why: Option<Errno>,
    },
    /// No FUSE in this kernel.
    #[error("the kernel offers no FUSE (/dev/fuse: {0}): run `modprobe fuse`")]
    NoDevice(#[source] Errno),
    /// FUSE is there, but not for us.
    #[error("/dev/fuse may not be opened: run as root, or let this user read and write it")]
    DeviceDenied,
    /// No fusermount3.
    #[error("fusermount3 is missing, and mounting without root needs it: install the package fuse3")]
    NoFusermount,
    /// fusermount3 said no.
    #[error("fusermount3 refused the mount: {0}")]
    Fusermount(String),
    /// mount(2) said no.
    #[error("the kernel refused to mount on {}: {error}", path.display())]
    Refused {
        /// Where.
        path: PathBuf,
        /// What it said.
        #[source]
        error: Errno,
    },
    /// Other users were to have access and may not.
    #[error("other users may not be given access: put `user_allow_other` into /etc/fuse.conf, or mount as root")]
    AllowOther,
    /// The kernel's FUSE is not enough.
    #[error(transparent)]
    Init(#[from] InitRefused),
    /// The kernel did not send INIT.
    #[error("the kernel did not begin the FUSE conversation within {0} seconds: look into dmesg, then try again")]
    InitTimeout(u64),
    /// An option makes no sense.
    #[error("bad mount option: {0}")]
    Option(&'static str),
    /// A system call failed that never should.
    #[error("{doing}: {error}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        #[source]
        error: Errno,
    },
}

/// Why the mount is still there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnmountError {
    /// Files are open, or a process has its working directory there.
    #[error("{} is in use: close what is open there (`fuser -vm {}` lists it)", .0.display(), .0.display())]
    Busy(PathBuf),
    /// Something else was mounted over it.
    #[error("another file system was mounted over {}: unmount that first", .0.display())]
    Covered(PathBuf),
    /// We may not.
    #[error("unmounting {} is not permitted: run as the user who mounted it, or as root", .0.display())]
    Denied(PathBuf),
    /// fusermount3 said no.
    #[error("fusermount3 refused to unmount: {0}")]
    Fusermount(String),
    /// A system call failed that never should.
    #[error("unmounting: {0}")]
    System(#[source] Errno),
}

/// Why a mount that was kept is not taken over, or left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InheritError {
    /// Its record cannot be used.
    #[error("the record of the mount: {0}")]
    Record(#[from] RecordError),
    /// Nobody keeps it, or not all of it was kept.
    #[error("its descriptors were not kept")]
    NotKept,
    /// It was unmounted or aborted meanwhile.
    #[error("the mount is gone")]
    Gone,
    /// Requests were in flight, and this kernel cannot send them again.
    #[error(
        "requests were in flight when the process before ended, and this kernel (before 6.9) cannot send them again"
    )]
    CannotResend,
    /// A system call failed that never should.
    #[error("taking the mount over: {0}")]
    System(#[source] Errno),
}

/// Why a connection was not aborted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AbortError {
    /// The control file system is not there and cannot be reached.
    #[error("/sys/fs/fuse/connections is not mounted: run `mount -t fusectl fusectl /sys/fs/fuse/connections`")]
    NoControl,
    /// The connection is gone.
    #[error("there is no such FUSE connection any more")]
    Gone,
    /// We may not.
    #[error("aborting is not permitted: run as the user who mounted, or as root")]
    Denied,
    /// A system call failed that never should.
    #[error("aborting: {0}")]
    System(#[source] Errno),
}

pub(super) fn system(doing: &'static str) -> impl Fn(Errno) -> MountError {
    move |error| MountError::System { doing, error }
}

/// The errno of a std error; EIO where it has none.
pub(super) fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
