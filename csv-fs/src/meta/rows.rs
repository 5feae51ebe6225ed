//! Single rows of the namespace, read the same way by views and by transactions.

use redb::ReadableTable;
use rustix::io::Errno;

use super::OrphanKind;
use super::error::{Result, damaged};
use super::inode::Inode;
use super::tables::{Access, TREE, inode_key};
use crate::types::{FileBlock, InodeNo, NAME_MAX};

/// A directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) ino: InodeNo,
    pub(super) kind: u32,
    pub(super) cookie: u64,
}

/// ENOENT for the empty name, ENAMETOOLONG, and EINVAL for what no name can hold.
pub(super) fn check_name(name: &[u8]) -> Result<()> {
    if name.is_empty() {
        return Err(Errno::NOENT.into());
    }
    if name.len() > NAME_MAX {
        return Err(Errno::NAMETOOLONG.into());
    }
    if name.iter().any(|b| matches!(b, 0 | b'/')) {
        return Err(Errno::INVAL.into());
    }
    Ok(())
}

/// The inode, if it is there.
pub(super) fn find_inode(a: &impl Access, ino: InodeNo) -> Result<Option<Inode>> {
    match a.inode().get(inode_key(ino))? {
        Some(row) => Inode::decode(row.value()).map(Some),
        None => Ok(None),
    }
}

/// The inode, or ENOENT.
pub(super) fn inode(a: &impl Access, ino: InodeNo) -> Result<Inode> {
    find_inode(a, ino)?.ok_or_else(|| Errno::NOENT.into())
}

/// An inode that an entry names: it must be there.
pub(super) fn named_inode(a: &impl Access, ino: InodeNo) -> Result<Inode> {
    find_inode(a, ino)?.ok_or_else(|| damaged("an entry names an inode that is not there"))
}

/// The directory, or ENOENT or ENOTDIR.
pub(super) fn directory(a: &impl Access, ino: InodeNo) -> Result<Inode> {
    let inode = inode(a, ino)?;
    if inode.is_dir() { Ok(inode) } else { Err(Errno::NOTDIR.into()) }
}

/// The entry of a name, if there is one.
pub(super) fn entry(a: &impl Access, dir: InodeNo, name: &[u8]) -> Result<Option<Entry>> {
    check_name(name)?;
    let row = a.dirent().get((TREE, dir.0, name))?;
    Ok(row.map(|r| r.value()).map(|(ino, kind, cookie)| Entry { ino: InodeNo(ino), kind, cookie }))
}

/// Whether a directory has no entries.
pub(super) fn is_empty_dir(a: &impl Access, dir: InodeNo) -> Result<bool> {
    Ok(a.cookie().range((TREE, dir.0, 0)..=(TREE, dir.0, u64::MAX))?.next().transpose()?.is_none())
}

/// The first block of a cut-off tail that is still to be freed, if there is one.
pub(super) fn truncating(a: &impl Access, ino: InodeNo) -> Result<Option<FileBlock>> {
    let row = a.orphan().get((TREE, ino.0, OrphanKind::Truncated.byte()))?;
    Ok(row.map(|r| FileBlock(r.value())))
}
