//! The mount point before the mount: is it there, empty, free; is what stands there dead?
//!
//! The order matters: the table of mounts is asked before the path itself is touched, and a mount that
//! stands there is touched only by a thread that may be left behind, because a frozen daemon does not
//! answer.

use super::error::{errno, system};
use super::{MountError, MountOptions, table};
use rustix::fs::{AtFlags, CWD, StatxFlags};
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

/// Makes sure that `options.mountpoint` can be mounted on. Gives its resolved path, and how many dead
/// mounts were cleaned away.
pub(super) fn claim(options: &MountOptions) -> Result<(PathBuf, usize), MountError> {
    let path = resolve(&options.mountpoint)?;
    let mut cleaned = 0;
    while let Some(entry) = standing(&path)? {
        let state = state(&path, &entry);
        let ours = entry.fs_type == options.fs_type();
        match state {
            MountState::Silent => return Err(MountError::Silent(path)),
            MountState::Dead if !ours || !options.clean_stale || cleaned == STACK_MAX => {
                return Err(MountError::Stale { path, why: None });
            }
            MountState::Dead => clean(&path)?,
            MountState::Free | MountState::Alive => {
                let table::MountEntry { source: source_name, fs_type, .. } = entry;
                return Err(MountError::AlreadyMounted { path, source_name, fs_type });
            }
        }
        cleaned += 1;
    }
    empty(&path)?;
    Ok((path, cleaned))
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

fn clean(path: &Path) -> Result<(), MountError> {
    tracing::warn!(path = %path.display(), "unmounting what a dead daemon left behind");
    super::attach::detach_lazily(path).map_err(|error| MountError::Stale { path: path.into(), why: Some(error) })
}

/// An existing directory without entries.
fn empty(path: &Path) -> Result<(), MountError> {
    let found = path.symlink_metadata().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => MountError::Missing(path.into()),
        _ => system("looking at the mount point")(errno(&error)),
    })?;
    if !found.is_dir() {
        return Err(MountError::NotADirectory(path.into()));
    }
    let mut entries = path.read_dir().map_err(|error| system("listing the mount point")(errno(&error)))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(MountError::NotEmpty(path.into())),
    }
}
