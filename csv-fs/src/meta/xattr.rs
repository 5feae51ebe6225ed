//! Names, limits and look-ups of extended attributes.
//!
//! `user.`, `trusted.`, `security.`, and of `system.` the two access control lists; who may do what with which is the
//! kernel's to check.

use redb::ReadableTable;
use rustix::io::Errno;

use super::acl::{ACCESS, DEFAULT};
use super::error::Result;
use super::tables::{Access, TREE};
use crate::types::InodeNo;

/// The longest name, prefix included (`XATTR_NAME_MAX`).
pub(super) const NAME_MAX: usize = 255;
/// The longest value (`XATTR_SIZE_MAX`).
pub(super) const VALUE_MAX: usize = 65_536;
/// All names of one inode with their zeroes: what `listxattr(2)` can tell (`XATTR_LIST_MAX`).
const NAMES_MAX: usize = 65_536;
/// Names and values of one inode: sixteen values of the greatest length. Bounds what a removal and a look over all
/// of them may take.
const TOTAL_MAX: usize = 1 << 20;

/// EOPNOTSUPP for a prefix nobody knows, ERANGE for too long a name, EINVAL for a prefix alone.
pub(super) fn check_name(name: &[u8]) -> Result<()> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(Errno::RANGE.into());
    }
    if name.contains(&0) {
        return Err(Errno::INVAL.into());
    }
    let rest = [&b"user."[..], b"trusted.", b"security."].iter().find_map(|prefix| name.strip_prefix(*prefix));
    match rest {
        Some([]) => Err(Errno::INVAL.into()),
        Some(_) => Ok(()),
        None if name == ACCESS || name == DEFAULT => Ok(()),
        None => Err(Errno::OPNOTSUPP.into()),
    }
}

/// Calls `f` with name and value of each.
fn each(a: &impl Access, ino: InodeNo, mut f: impl FnMut(&[u8], &[u8])) -> Result<()> {
    for row in a.xattr().range((TREE, ino.0, &b""[..])..(TREE, ino.0 + 1, &b""[..]))? {
        let (key, value) = row?;
        f(key.value().2, value.value());
    }
    Ok(())
}

/// What the attributes of one inode take.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    names: usize,
    total: usize,
}

impl Room {
    /// One more.
    pub(super) fn add(&mut self, name: &[u8], len: usize) {
        self.names += name.len() + 1;
        self.total += name.len() + len;
    }

    /// Whether an inode may have as many.
    pub(super) fn is_enough(self) -> bool {
        self.names <= NAMES_MAX && self.total <= TOTAL_MAX
    }
}

/// ENOSPC if there is no room for one more, or a longer one.
pub(super) fn check_space(a: &impl Access, ino: InodeNo, name: &[u8], len: usize) -> Result<()> {
    let mut room = Room::default();
    room.add(name, len);
    each(a, ino, |n, v| {
        if n != name {
            room.add(n, v.len());
        }
    })?;
    if room.is_enough() { Ok(()) } else { Err(Errno::NOSPC.into()) }
}

/// The value of one, if it is there.
pub(super) fn find(a: &impl Access, ino: InodeNo, name: &[u8]) -> Result<Option<Vec<u8>>> {
    Ok(a.xattr().get((TREE, ino.0, name))?.map(|row| row.value().to_vec()))
}

/// All names, each ended by a zero byte.
pub(super) fn names(a: &impl Access, ino: InodeNo) -> Result<Vec<u8>> {
    let mut names = Vec::new();
    each(a, ino, |name, _| {
        names.extend_from_slice(name);
        names.push(0);
    })?;
    Ok(names)
}
