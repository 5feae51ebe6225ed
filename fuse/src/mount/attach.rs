//! mount(2) and umount2(2), by this process or by fusermount3.
//!
//! Both give an O_NONBLOCK, close-on-exec description of /dev/fuse that is the connection's first
//! channel. fusermount3 opens and mounts by itself and passes the descriptor over a socket, which it
//! gets as its standard input: no descriptor is ever inheritable here.

use super::error::{errno, system};
use super::options::{AllowOther, MountHow};
use super::{MountError, MountOptions, UnmountError};
use crate::device::Device;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::ffi::CString;
use std::io::IoSliceMut;
use std::path::Path;
use std::process::{Command, Stdio};

const HELPER: &str = "fusermount3";

/// A mount that has not spoken yet.
pub(super) struct Attached {
    pub(super) device: Device,
    pub(super) allow_other: bool,
    pub(super) by_helper: bool,
}

pub(super) fn attach(options: &MountOptions, path: &Path) -> Result<Attached, MountError> {
    let root = rustix::process::geteuid().is_root();
    match options.how {
        MountHow::Direct => direct(options, path),
        MountHow::Fusermount => helper(options, path),
        MountHow::Auto if !root => helper(options, path),
        // Root without CAP_SYS_ADMIN (a container) may still have the helper.
        MountHow::Auto => match direct(options, path) {
            Err(MountError::Refused { error: Errno::PERM, .. }) => helper(options, path),
            outcome => outcome,
        },
    }
}

fn direct(options: &MountOptions, path: &Path) -> Result<Attached, MountError> {
    use rustix::fd::{AsFd, AsRawFd};
    let device = Device::open().map_err(|error| match error {
        Errno::ACCESS | Errno::PERM => MountError::DeviceDenied,
        error => MountError::NoDevice(error),
    })?;
    let allow_other = options.allow_other != AllowOther::No;
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={}",
        device.as_fd().as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    for (wanted, option) in [(options.default_permissions, ",default_permissions"), (allow_other, ",allow_other")] {
        if wanted {
            data.push_str(option);
        }
    }
    let data = CString::new(data).map_err(|_| MountError::Option("a zero byte"))?;
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    flags.set(MountFlags::RDONLY, options.read_only);
    rustix::mount::mount(&options.fs_name, path, options.fs_type(), flags, data.as_c_str()).map_err(
        |error| match error {
            Errno::NODEV => MountError::NoDevice(error),
            error => MountError::Refused { path: path.into(), error },
        },
    )?;
    Ok(Attached { device, allow_other, by_helper: false })
}

fn helper(options: &MountOptions, path: &Path) -> Result<Attached, MountError> {
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
    let run = command().arg("-o").arg(list).arg("--").arg(path).env("_FUSE_COMMFD", "0").stdin(theirs).output();
    let output = run.map_err(|error| not_run(&error))?;
    if !output.status.success() {
        return Err(MountError::Fusermount(said(&output)));
    }
    let fd = receive(&ours).map_err(system("receiving /dev/fuse from fusermount3"))?;
    let fd = fd.ok_or_else(|| MountError::Fusermount("it passed no descriptor".into()))?;
    let device = Device::from_fd(fd).map_err(system("preparing /dev/fuse"))?;
    Ok(Attached { device, allow_other, by_helper: true })
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
