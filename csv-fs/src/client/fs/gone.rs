//! What is said of an inode that is not there any more: ESTALE of what is reached by its name, at which the kernel looks the
//! name up again, and tells ENOENT only if that is gone; ENOENT of a folder, which may be where a program stands.
//!
//! Prevents: a file is replaced by rename all the time, and who looks at its name is told now and then that nothing is there; a
//! program whose own folder was removed is told ESTALE where a local file system says ENOENT.

use std::sync::atomic::{AtomicU64, Ordering};

use super::FileSystem;
use crate::client::session::Errno;
use crate::types::{Attr, InodeNo};

/// Folders that are remembered.
const KEPT: usize = 1024;
const ENOENT: Errno = Errno(rustix::io::Errno::NOENT.raw_os_error());
const ESTALE: Errno = Errno(rustix::io::Errno::STALE.raw_os_error());

/// Numbers of folders that the kernel asked for lately, one in each place. Whoever takes the place of another only makes it be
/// told ESTALE, so no lock is needed.
pub(super) struct Folders(Box<[AtomicU64]>);

impl Default for Folders {
    fn default() -> Folders {
        Folders((0..KEPT).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Folders {
    fn place(&self, ino: InodeNo) -> &AtomicU64 {
        &self.0[ino.0 as usize % KEPT]
    }

    /// Remembers it, if it is a folder.
    pub(super) fn note(&self, attr: &Attr) {
        if rustix::fs::FileType::from_raw_mode(attr.mode) == rustix::fs::FileType::Directory {
            let place = self.place(attr.ino);
            // Most looks are at the same few: no line of the cache changes hands for those.
            if place.load(Ordering::Relaxed) != attr.ino.0 {
                place.store(attr.ino.0, Ordering::Relaxed);
            }
        }
    }

    fn knows(&self, ino: InodeNo) -> bool {
        self.place(ino).load(Ordering::Relaxed) == ino.0
    }
}

impl FileSystem {
    /// An error about an inode that the kernel knows from a name, not from a handle.
    pub(super) fn of_looked_up(&self, ino: InodeNo, errno: Errno) -> Errno {
        if errno == ENOENT && !self.folders.knows(ino) { ESTALE } else { errno }
    }
}
