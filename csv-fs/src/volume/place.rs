//! Where a volume's mount lies, and what leads to it.
//!
//! Root's mount, since Linux 6.5, is `mount_root/NAME` itself: what a dead daemon left there stays until the new mount lies
//! beneath it, and nobody meets the place bare. fusermount3 and older kernels can do no such thing. The dead mount has to go
//! first. Prevents: in the moment between the two a program opens its file, is told that there is none (ENOENT), and makes a
//! new one or believes that somebody removed it.
//!
//! So there `mount_root/NAME` is a symbolic link to the mount beside it, `.NAME.` and eight digits. Each mount gets a
//! directory of its own, and one rename turns the link, once the new mount answers. States of the link: none → to a mount,
//! alive or dead → to the next one → none.
//!
//! Rules, each with the interleaving that it prevents:
//! - The link is turned after the mount has answered INIT. Prevents: what is above, once more.
//! - The dead mount goes [`LINGER`] after it was turned. Prevents: a program has read the link, the link is turned, the dead
//!   mount is taken away, and the program looks into the bare directory: ENOENT again.
//! - A directory's name never comes a second time. Prevents: whoever takes the dead mount of one life away takes the living
//!   one of the next.
//! - The bare directory is written by nobody once it is mounted on. Prevents: the mount is taken away from outside, and a
//!   program goes on creating its files where the next mount is not.
//! - The link goes only while it leads to the mount that has ended. Prevents: the end of one life takes the link of the next.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fuse::{Channel, Mount, MountError, MountOptions};
use rustix::io::Errno;

use super::start::StartError;

/// How long a path may be on its way from the link to what it leads to.
const LINGER: Duration = Duration::from_secs(3);
/// Digits of a directory's name.
const DIGITS: usize = 8;

/// A mount at its place.
pub(super) struct Placed {
    pub(super) mount: Mount,
    pub(super) channels: Vec<Channel>,
    pub(super) place: Place,
    /// Whether a dead daemon's mount was there.
    pub(super) was_dead: bool,
}

/// The place of a volume: `mountpoint` of the options is what users are told.
#[derive(Clone, Debug)]
pub(super) struct Place {
    options: MountOptions,
    linked: bool,
    /// Directories of lives before, to be taken away.
    before: Vec<PathBuf>,
}

impl Place {
    /// By whether this process can put a mount beneath a dead one.
    pub(super) fn new(options: MountOptions) -> Place {
        Place { options, linked: !fuse::replaces_dead(), before: Vec::new() }
    }

    /// Where a mount lies that was taken over.
    pub(super) fn of(mount: &Mount, options: MountOptions) -> Place {
        let linked = mount.mountpoint().file_name() != options.mountpoint.file_name();
        Place { linked, ..Place::new(options) }
    }

    /// Whether it could be mounted there now; changes nothing. What is not there will be made. Blocks, as
    /// [`Mount::check`] does.
    pub(super) fn look(&self) -> Result<(), MountError> {
        match Mount::check(&self.at(self.stands_at()?)) {
            Err(MountError::Missing(_)) => Ok(()),
            looked => looked,
        }
    }

    /// Mounts. Blocks, as [`Mount::open`] does.
    pub(super) fn mount(self) -> Result<Placed, StartError> {
        if let Some(root) = self.shown().parent() {
            let made = std::fs::create_dir_all(root);
            made.map_err(|source| StartError::MountPoint { path: self.shown().into(), source })?;
        }
        if self.linked { self.mount_beside() } else { self.mount_here() }
    }

    /// After the unmounting: takes away what was made for the mount. With something in it, or with its parent not ours, it
    /// stays; the next mount says so.
    pub(super) fn leave(&self, mountpoint: &Path) {
        if self.linked {
            if self.link().is_some_and(|at| at.file_name() == mountpoint.file_name()) {
                let _ = std::fs::remove_file(self.shown());
            }
            self.clear_away();
        }
        let _ = std::fs::remove_dir(mountpoint);
    }

    /// The directory is made for the mount and goes with it: who writes there while nothing is mounted is told so, and does
    /// not fill a directory that the next mount would hide.
    fn mount_here(self) -> Result<Placed, StartError> {
        let point = self.shown();
        match DirBuilder::new().mode(0o555).create(point) {
            // A dead mount answers ENOTCONN to mkdir's own look; the mount itself cleans it.
            Err(e) if !is_there(&e) => return Err(StartError::MountPoint { path: point.into(), source: e }),
            _ => {}
        }
        let (mount, channels) = Mount::open(&self.options)?;
        let was_dead = mount.cleaned_stale() > 0;
        Ok(Placed { mount, channels, place: self, was_dead })
    }

    fn mount_beside(mut self) -> Result<Placed, StartError> {
        self.look()?;
        let stands_at = self.stands_at()?;
        let was_dead = matches!(fuse::probe(&stands_at), Ok(fuse::MountState::Dead));
        self.before = self.directories();
        let (point, bare) = self.directory()?;
        let opened = Mount::open(&self.at(point.clone()));
        let (mount, channels) = opened.inspect_err(|_| drop(std::fs::remove_dir(&point)))?;
        // fusermount3 wants to be able to write into it; nobody else needs to.
        let closed = bare.set_permissions(Permissions::from_mode(0o555));
        if let Err(source) = closed.and_then(|()| self.turn(&point, &stands_at)) {
            // Unmounts.
            drop((mount, channels));
            let _ = std::fs::remove_dir(&point);
            return Err(StartError::MountPoint { path: self.shown().into(), source });
        }
        let place = self.clone();
        // A thread that cannot be had leaves the clearing to the end of this life.
        let _ = std::thread::Builder::new().name("mount-linger".into()).spawn(move || {
            std::thread::sleep(LINGER);
            place.clear_away();
        });
        Ok(Placed { mount, channels, place: self, was_dead })
    }

    fn shown(&self) -> &Path {
        &self.options.mountpoint
    }

    fn at(&self, mountpoint: PathBuf) -> MountOptions {
        MountOptions { mountpoint, ..self.options.clone() }
    }

    /// Where the mount of a life before is, if there is one. A link of somebody else's is in the way.
    fn stands_at(&self) -> Result<PathBuf, MountError> {
        if !self.linked || std::fs::read_link(self.shown()).is_err() {
            return Ok(self.shown().into());
        }
        self.link().ok_or_else(|| MountError::NotADirectory(self.shown().into()))
    }

    /// What the link leads to, if it is one of ours.
    fn link(&self) -> Option<PathBuf> {
        let to = std::fs::read_link(self.shown()).ok()?;
        let ours = to.components().count() == 1 && self.is_ours(to.to_str()?);
        ours.then(|| self.shown().with_file_name(to))
    }

    fn is_ours(&self, name: &str) -> bool {
        let digits = name.strip_prefix(&self.prefix());
        digits.is_some_and(|d| d.len() == DIGITS && d.bytes().all(|b| b.is_ascii_hexdigit()))
    }

    fn prefix(&self) -> String {
        let name = self.shown().file_name().unwrap_or_default();
        format!(".{}.", name.to_string_lossy())
    }

    /// A new one, and itself while it is bare.
    fn directory(&self) -> Result<(PathBuf, File), StartError> {
        let mut random = [0; DIGITS / 2];
        let name = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
        let point = self.shown().with_file_name(format!("{}{:0DIGITS$x}", self.prefix(), u32::from_be_bytes(random)));
        let made = name.map_err(io::Error::from).and_then(|_| DirBuilder::new().mode(0o755).create(&point));
        let opened = made.and_then(|()| File::open(&point));
        opened.map(|bare| (point.clone(), bare)).map_err(|source| StartError::MountPoint { path: point, source })
    }

    /// Makes the link lead to `point`. A directory that is there, an empty one or a dead mount, is what an earlier version
    /// mounted on, and gives way.
    fn turn(&self, point: &Path, before: &Path) -> io::Result<()> {
        let next = self.shown().with_file_name(format!("{}next", self.prefix()));
        match std::fs::remove_file(&next) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        std::os::unix::fs::symlink(point.file_name().unwrap_or_default(), &next)?;
        if before == self.shown() {
            match Mount::clear(&self.options) {
                Ok(_) => std::fs::remove_dir(before)?,
                Err(MountError::Missing(_)) => {}
                Err(e) => return Err(io::Error::other(e)),
            }
        }
        std::fs::rename(&next, self.shown())
    }

    fn directories(&self) -> Vec<PathBuf> {
        let entries = self.shown().parent().and_then(|root| std::fs::read_dir(root).ok());
        let names = entries.into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter(|name| self.is_ours(name)).map(|name| self.shown().with_file_name(name)).collect()
    }

    /// Takes the dead mounts of lives before away, and their directories. What is in use or alive stays.
    fn clear_away(&self) {
        for point in &self.before {
            if Mount::clear(&self.at(point.clone())).is_ok() {
                let _ = std::fs::remove_dir(point);
            }
        }
    }
}

fn is_there(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AlreadyExists || error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error())
}
