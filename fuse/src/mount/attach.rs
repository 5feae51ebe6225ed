//! Mounting and unmounting, by this process or by fusermount3.
//!
//! This process makes the mount first and puts it into the tree when it answers: nobody ever meets one that does not.
//! fusermount3 does both at once.
//!
//! Both give an O_NONBLOCK, close-on-exec description of /dev/fuse that is the connection's first
//! channel. fusermount3 opens and mounts by itself and passes the descriptor over a socket, which it
//! gets as its standard input: no descriptor is ever inheritable here.

use super::error::{errno, system};
use super::options::{AllowOther, MountHow};
use super::point::{self, Below, Claimed};
use super::{MountError, MountOptions, UnmountError};
use crate::device::Device;
use rustix::fd::OwnedFd;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::io::IoSliceMut;
use std::path::Path;
use std::process::{Command, Stdio};

const HELPER: &str = "fusermount3";

/// A mount that has not spoken yet.
pub(super) struct Attached {
    pub(super) device: Device,
    pub(super) allow_other: bool,
    /// Not in the tree yet; `None` if fusermount3 put it there.
    pub(super) detached: Option<OwnedFd>,
}

impl Attached {
    pub(super) fn by_helper(&self) -> bool {
        self.detached.is_none()
    }
}

/// Whether this process puts a mount beneath that of a dead daemon, so that nobody ever finds the point bare: root does,
/// since Linux 6.5. Elsewhere the dead one has to go first.
#[must_use]
pub fn replaces_dead() -> bool {
    let kernel = rustix::system::uname();
    rustix::process::geteuid().is_root() && is_at_least(&kernel.release().to_string_lossy(), (6, 5))
}

/// Whether a kernel's release is of that version or a later one; what cannot be read is not.
fn is_at_least(release: &str, version: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
    let (major, minor) = (numbers.next(), numbers.next());
    major.zip(minor).is_some_and(|found| found >= version)
}

/// Makes the mount. By fusermount3 it is in the tree then, and what stood in its way was taken away before.
pub(super) fn attach(options: &MountOptions, claimed: &mut Claimed) -> Result<Attached, MountError> {
    let root = rustix::process::geteuid().is_root();
    match options.how {
        MountHow::Direct => direct(options, &claimed.path),
        MountHow::Fusermount => helper(options, claimed),
        MountHow::Auto if !root => helper(options, claimed),
        // Root without CAP_SYS_ADMIN (a container) may still have the helper.
        MountHow::Auto => match direct(options, &claimed.path) {
            Err(MountError::Refused { error: Errno::PERM, .. }) => helper(options, claimed),
            outcome => outcome,
        },
    }
}

/// Puts a mount into the tree; beneath the lid, which goes then, if there is one.
pub(super) fn place(mount: &OwnedFd, claimed: &mut Claimed) -> Result<(), MountError> {
    if matches!(claimed.below, Below::Lid) {
        match put(mount, &claimed.path, MoveMountFlags::MOVE_MOUNT_BENEATH) {
            Ok(()) => return point::clean(&claimed.path),
            // Before Linux 6.5.
            Err(Errno::INVAL) => point::uncover(claimed)?,
            Err(error) => return Err(MountError::Refused { path: claimed.path.clone(), error }),
        }
    }
    put(mount, &claimed.path, MoveMountFlags::empty())
        .map_err(|error| MountError::Refused { path: claimed.path.clone(), error })
}

fn put(mount: &OwnedFd, path: &Path, how: MoveMountFlags) -> Result<(), Errno> {
    rustix::mount::move_mount(mount, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | how)
}

fn direct(options: &MountOptions, path: &Path) -> Result<Attached, MountError> {
    let device = Device::open().map_err(|error| match error {
        Errno::ACCESS | Errno::PERM => MountError::DeviceDenied,
        error => MountError::NoDevice(error),
    })?;
    let allow_other = options.allow_other != AllowOther::No;
    let detached = detached(options, allow_other, &device).map_err(|error| match error {
        Errno::NODEV => MountError::NoDevice(error),
        error => MountError::Refused { path: path.into(), error },
    })?;
    Ok(Attached { device, allow_other, detached: Some(detached) })
}

/// A mount outside the tree. The kernel sends INIT with it.
fn detached(options: &MountOptions, allow_other: bool, device: &Device) -> Result<OwnedFd, Errno> {
    use rustix::fd::{AsFd, AsRawFd};
    use rustix::mount::{fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen};
    let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let strings = [
        ("source", options.fs_name.clone()),
        ("subtype", options.subtype.clone()),
        ("fd", device.as_fd().as_raw_fd().to_string()),
        ("rootmode", "40000".into()),
        ("user_id", rustix::process::getuid().as_raw().to_string()),
        ("group_id", rustix::process::getgid().as_raw().to_string()),
    ];
    for (key, value) in &strings {
        fsconfig_set_string(&context, *key, value.as_str())?;
    }
    let switches =
        [("default_permissions", options.default_permissions), ("allow_other", allow_other), ("ro", options.read_only)];
    for (key, _) in switches.iter().filter(|(_, wanted)| *wanted) {
        fsconfig_set_flag(&context, *key)?;
    }
    fsconfig_create(&context)?;
    let mut attributes = MountAttrFlags::empty();
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOSUID, !options.suid);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NODEV, !options.devices);
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, options.read_only);
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn helper(options: &MountOptions, claimed: &mut Claimed) -> Result<Attached, MountError> {
    point::uncover(claimed)?;
    let allow_other = match options.allow_other {
        AllowOther::No => false,
        _ if rustix::process::geteuid().is_root() || user_allow_other() => true,
        AllowOther::IfPermitted => false,
        AllowOther::Needed => return Err(MountError::AllowOther),
    };
    let mut list = format!("fsname={},subtype={}", options.fs_name, options.subtype);
    let switches = [
        (options.default_permissions, ",default_permissions"),
        (allow_other, ",allow_other"),
        (options.read_only, ",ro"),
    ];
    for (_, option) in switches.iter().filter(|(wanted, _)| *wanted) {
        list.push_str(option);
    }
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(system("making a socket pair"))?;
    let run =
        command().arg("-o").arg(list).arg("--").arg(&claimed.path).env("_FUSE_COMMFD", "0").stdin(theirs).output();
    let output = run.map_err(|error| not_run(&error))?;
    if !output.status.success() {
        return Err(MountError::Fusermount(said(&output)));
    }
    let fd = receive(&ours).map_err(system("receiving /dev/fuse from fusermount3"))?;
    let fd = fd.ok_or_else(|| MountError::Fusermount("it passed no descriptor".into()))?;
    let device = Device::from_fd(fd).map_err(system("preparing /dev/fuse"))?;
    Ok(Attached { device, allow_other, detached: None })
}

/// The descriptor that the helper sent before it ended.
fn receive(socket: &OwnedFd) -> Result<Option<OwnedFd>, Errno> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
    Ok(control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    }))
}

/// Does /etc/fuse.conf let users give others access?
fn user_allow_other() -> bool {
    std::fs::read_to_string("/etc/fuse.conf")
        .is_ok_and(|text| text.lines().any(|line| line.trim() == "user_allow_other"))
}

fn command() -> Command {
    let mut command = Command::new(HELPER);
    // Its messages are read below; they are to be in English.
    command.env("LC_ALL", "C").stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn not_run(error: &std::io::Error) -> MountError {
    match error.kind() {
        std::io::ErrorKind::NotFound => MountError::NoFusermount,
        _ => system("running fusermount3")(errno(error)),
    }
}

fn said(output: &std::process::Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().next_back().unwrap_or_default().trim();
    line.strip_prefix("fusermount3: ").unwrap_or(line).to_owned()
}

/// Takes the topmost mount off `path`; lazily, if asked, when it is in use.
pub(super) fn detach(path: &Path, by_helper: bool, lazy: bool) -> Result<(), UnmountError> {
    let root = rustix::process::geteuid().is_root();
    if by_helper && !root {
        return detach_by_helper(path, lazy);
    }
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    rustix::mount::unmount(path, flags | UnmountFlags::NOFOLLOW).map_err(|error| match error {
        Errno::BUSY => UnmountError::Busy(path.into()),
        Errno::PERM | Errno::ACCESS => UnmountError::Denied(path.into()),
        error => UnmountError::System(error),
    })
}

fn detach_by_helper(path: &Path, lazy: bool) -> Result<(), UnmountError> {
    let mut command = command();
    command.arg("-u");
    if lazy {
        command.arg("-z");
    }
    let output = command.arg("--").arg(path).stdin(Stdio::null()).output();
    let output = output.map_err(|error| UnmountError::System(errno(&error)))?;
    if output.status.success() {
        return Ok(());
    }
    let said = said(&output);
    if said.contains("busy") { Err(UnmountError::Busy(path.into())) } else { Err(UnmountError::Fusermount(said)) }
}

/// Takes a dead mount away, by whichever way works.
pub(super) fn detach_lazily(path: &Path) -> Result<(), Errno> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Err(Errno::PERM) => detach_by_helper(path, true).map_err(|_| Errno::PERM),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::is_at_least;

    #[test]
    fn release_of_a_kernel_is_compared_by_its_first_two_numbers() {
        let enough = ["6.5.0", "6.5-rc1", "6.18.44+deb13-amd64", "7.0"];
        assert!(enough.iter().all(|release| is_at_least(release, (6, 5))));
        let older = ["6.1.0-37-amd64", "5.18.3", "6", "", "linux", "-6.5"];
        assert!(older.iter().all(|release| !is_at_least(release, (6, 5))));
    }
}
