//! The buffer of a READDIR or READDIRPLUS answer.

use crate::abi::{Dirent, Direntplus};
use crate::attr::{Entry, FileKind};
use zerocopy::{FromZeros, IntoBytes};

/// Entries in the kernel's form, as many as fit into the room the request named.
///
/// Cookies: each entry carries the cookie of the *next* one, that is what a READDIR that goes on after
/// it will ask for. The kernel keeps them for as long as the directory is open and expects them to name
/// the same place however the directory changes.
#[derive(Debug)]
pub struct DirBuf {
    bytes: Vec<u8>,
    room: usize,
}

impl DirBuf {
    /// For an answer of at most `room` bytes: the request's `size`.
    #[must_use]
    pub fn new(room: u32) -> Self {
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        // A page to begin with: most directories fit, and a kernel may name a megabyte.
        Self { bytes: Vec::with_capacity(room.min(4096)), room }
    }

    /// Adds an entry of a READDIR. False, and nothing is added, if it does not fit.
    #[must_use]
    pub fn push(&mut self, ino: u64, next: u64, kind: FileKind, name: &[u8]) -> bool {
        self.append(dirent(ino, next, kind, name).as_bytes(), name)
    }

    /// Adds an entry of a READDIRPLUS; the kernel then holds one reference more to `entry.nodeid`.
    /// False, and nothing is added, if it does not fit.
    #[must_use]
    pub fn push_plus(&mut self, entry: &Entry, next: u64, name: &[u8]) -> bool {
        let dirent = dirent(entry.attr.ino, next, entry.attr.kind, name);
        self.append(Direntplus { entry: entry.to_abi(), dirent }.as_bytes(), name)
    }

    /// Adds an entry of a READDIRPLUS without a look-up: "." and "..", or an inode whose attributes
    /// are not at hand. No reference is given. False, and nothing is added, if it does not fit.
    #[must_use]
    pub fn push_plus_bare(&mut self, ino: u64, next: u64, kind: FileKind, name: &[u8]) -> bool {
        let dirent = dirent(ino, next, kind, name);
        self.append(Direntplus { dirent, ..Direntplus::new_zeroed() }.as_bytes(), name)
    }

    /// True if there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn append(&mut self, fixed: &[u8], name: &[u8]) -> bool {
        let len = (fixed.len() + name.len()).next_multiple_of(8);
        let end = self.bytes.len() + len;
        if end > self.room {
            return false;
        }
        self.bytes.extend_from_slice(fixed);
        self.bytes.extend_from_slice(name);
        self.bytes.resize(end, 0);
        true
    }
}

fn dirent(ino: u64, next: u64, kind: FileKind, name: &[u8]) -> Dirent {
    // A name longer than 4 GiB does not exist; the kernel refuses one above its own limit.
    let namelen = u32::try_from(name.len()).unwrap_or(u32::MAX);
    Dirent { ino, off: next, namelen, kind: kind.mode_bits() >> 12 }
}
