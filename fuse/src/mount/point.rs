//! The mount point before the mount: is it there, empty, free; is what stands there dead?
//!
//! The order matters: the table of mounts is asked before the path itself is touched, and a mount that
//! stands there is touched only by a thread that may be left behind, because a frozen daemon does not
//! answer.
//!
//! A dead mount is a lid on a bare directory. It stays there until the new mount lies beneath it. Prevents: in the moment
//! between the two a program creates its files in the bare directory, is told that they are stable, and finds none of
//! them on the volume. Where that cannot be had (fusermount3, kernels before 6.5) the bare directory is looked at once
//! more behind the new mount, and the mount is refused if something is in it.

use super::error::{errno, system};
use super::{MountError, MountOptions, table};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

/// How long a mount that stands there may take to prove that its daemon lives.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Dead mounts that may lie on top of each other: one per restart that found no one to clean up.
const STACK_MAX: usize = 64;

/// What stands on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountState {
    /// No mount.
    Free,
    /// A mount that answers, or one that is not FUSE.
    Alive,
    /// A FUSE mount whose daemon is gone: everything there gets ENOTCONN.
    Dead,
    /// A FUSE mount whose daemon has not answered within two seconds.
    Silent,
}

/// Looks at what is mounted on `path`, which need not be reachable. Takes up to two seconds.
///
/// # Errors
/// [`MountError::Missing`] and the like, if the path leads nowhere.
pub fn probe(path: &Path) -> Result<MountState, MountError> {
    let path = resolve(path)?;
    Ok(match standing(&path)? {
        None => MountState::Free,
        Some(entry) => state(&path, &entry),
    })
}

/// A mount point that may be mounted on.
pub(super) struct Claimed {
    /// Resolved.
    pub(super) path: PathBuf,
    /// Dead mounts that were, or will be, cleaned away.
    pub(super) cleaned: usize,
    /// What the new mount will hide.
    pub(super) below: Below,
}

/// What lies under a new mount.
pub(super) enum Below {
    /// A directory, empty a moment ago.
    Bare(OwnedFd),
    /// The mount of a dead daemon, to be taken away when the new one is in place.
    Lid,
}

impl Below {
    /// Whether something came into the bare directory meanwhile; the new mount may hide it already.
    pub(super) fn is_still_empty(&self) -> Result<bool, Errno> {
        match self {
            Below::Bare(directory) => has_no_entries(directory),
            Below::Lid => Ok(true),
        }
    }
}

/// Whether `options.mountpoint` could be mounted on now; changes nothing.
pub(super) fn look(options: &MountOptions) -> Result<(), MountError> {
    let path = resolve(&options.mountpoint)?;
    match standing(&path)? {
        Some(entry) => judge(options, &path, &entry),
        None => bare(&path).map(drop),
    }
}

/// Makes sure that `options.mountpoint` can be mounted on. A single dead mount stays as a lid.
pub(super) fn claim(options: &MountOptions) -> Result<Claimed, MountError> {
    let path = resolve(&options.mountpoint)?;
    let mut cleaned = 0;
    while let Some(entry) = standing(&path)? {
        judge(options, &path, &entry)?;
        cleaned += 1;
        let depth = table::depth(&path).map_err(|error| system("reading /proc/self/mountinfo")(errno(&error)))?;
        if depth == 1 {
            return Ok(Claimed { path, cleaned, below: Below::Lid });
        }
        if cleaned == STACK_MAX {
            return Err(MountError::Stale { path, why: None });
        }
        clean(&path)?;
    }
    let below = Below::Bare(bare(&path)?);
    Ok(Claimed { path, cleaned, below })
}

/// Takes the lid off before the new mount is there, because that cannot be put beneath it.
pub(super) fn uncover(claimed: &mut Claimed) -> Result<(), MountError> {
    if matches!(claimed.below, Below::Lid) {
        clean(&claimed.path)?;
        claimed.below = Below::Bare(bare(&claimed.path)?);
    }
    Ok(())
}

/// Fails unless what stands there is a dead mount that may be taken away.
fn judge(options: &MountOptions, path: &Path, entry: &table::MountEntry) -> Result<(), MountError> {
    let ours = entry.fs_type == options.fs_type();
    match state(path, entry) {
        MountState::Silent => Err(MountError::Silent(path.into())),
        MountState::Dead if !ours || !options.clean_stale => Err(MountError::Stale { path: path.into(), why: None }),
        MountState::Dead => Ok(()),
        MountState::Free | MountState::Alive => {
            let table::MountEntry { source: source_name, fs_type, .. } = entry.clone();
            Err(MountError::AlreadyMounted { path: path.into(), source_name, fs_type })
        }
    }
}

/// The path with its parent resolved; the last component is not touched, it may be a dead mount.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, MountError> {
    let absolute = std::path::absolute(path).map_err(|_| MountError::Missing(path.into()))?;
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Err(MountError::NotEmpty(absolute));
    };
    match parent.canonicalize() {
        Ok(parent) => Ok(parent.join(name)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(MountError::Missing(absolute)),
        Err(error) => Err(system("resolving the mount point")(errno(&error))),
    }
}

fn standing(path: &Path) -> Result<Option<table::MountEntry>, MountError> {
    table::at(path).map_err(|error| system("reading /proc/self/mountinfo")(errno(&error)))
}

/// Asks the mount for its root's attributes, from a thread that is left behind if there is no answer.
fn state(path: &Path, entry: &table::MountEntry) -> MountState {
    if entry.fs_type != "fuse" && !entry.fs_type.starts_with("fuse.") {
        return MountState::Alive;
    }
    let (answer, answered) = mpsc::channel();
    let asked = path.to_path_buf();
    let asker = std::thread::Builder::new().name("fuse-probe".into()).spawn(move || {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_FORCE_SYNC;
        let found = rustix::fs::statx(CWD, &asked, flags, StatxFlags::BASIC_STATS);
        // Nobody listens any more if this took longer than the timeout.
        let _ = answer.send(found.map(|_| ()));
    });
    if asker.is_err() {
        return MountState::Silent;
    }
    match answered.recv_timeout(ANSWER_TIMEOUT) {
        // ECONNREFUSED: its INIT was never finished. ECONNABORTED: it died while we asked.
        Ok(Err(Errno::NOTCONN | Errno::CONNREFUSED | Errno::CONNABORTED)) => MountState::Dead,
        Ok(_) => MountState::Alive,
        Err(_) => MountState::Silent,
    }
}

pub(super) fn clean(path: &Path) -> Result<(), MountError> {
    tracing::warn!(path = %path.display(), "unmounting what a dead daemon left behind");
    super::attach::detach_lazily(path).map_err(|error| MountError::Stale { path: path.into(), why: Some(error) })
}

/// An existing directory without entries.
fn bare(path: &Path) -> Result<OwnedFd, MountError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|error| match error {
        Errno::NOENT => MountError::Missing(path.into()),
        Errno::NOTDIR | Errno::LOOP => MountError::NotADirectory(path.into()),
        error => system("opening the mount point")(error),
    })?;
    match has_no_entries(&directory).map_err(system("listing the mount point"))? {
        true => Ok(directory),
        false => Err(MountError::NotEmpty(path.into())),
    }
}

fn has_no_entries(directory: &OwnedFd) -> Result<bool, Errno> {
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}
