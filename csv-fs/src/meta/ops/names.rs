//! Names come and go: create, mknod, mkdir, symlink, link, unlink, rmdir.

use rustix::fs::FileType;
use rustix::io::Errno;

use super::{Ops, Reaped};
use crate::meta::OrphanKind;
use crate::meta::error::{Result, damaged};
use crate::meta::inode::{Inode, LINKABLE, S_IFMT, S_ISGID, type_bits};
use crate::meta::rows::{self, Entry};
use crate::meta::tables::TREE;
use crate::types::{Attr, InodeNo};

/// The longest target of a symbolic link (`PATH_MAX` without its zero).
const MAX_TARGET: usize = 4095;

/// What is to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewNode<'a> {
    /// In which directory.
    pub parent: InodeNo,
    /// Under which name.
    pub name: &'a [u8],
    /// Type and permission bits, before the umask; without a type: a regular file.
    pub mode: u32,
    /// Applied unless the directory has a default access list.
    pub umask: u32,
    /// Of a device.
    pub rdev: u32,
    /// Owner.
    pub uid: u32,
    /// Group, unless the directory passes on its own.
    pub gid: u32,
}

/// A new or found file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its attributes.
    pub attr: Attr,
    /// Whether it was there already.
    pub existed: bool,
}

/// What became of an inode that lost a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// It has others.
    Linked(Attr),
    /// It was the last; the inode is open or large, and waits in the orphan table for [`Ops::reap`].
    Orphan(InodeNo),
    /// It was the last, and the inode is freed.
    Freed(InodeNo),
}

impl Ops<'_> {
    /// Makes a file, directory, device, fifo or socket. Not `exclusive`: an existing regular file is found instead;
    /// anything else of that name is EEXIST, a directory EISDIR.
    pub fn create(&mut self, new: &NewNode<'_>, exclusive: bool) -> Result<Created> {
        let mode = if new.mode & S_IFMT == 0 { new.mode | type_bits(FileType::RegularFile) } else { new.mode };
        let kind = FileType::from_raw_mode(mode);
        if matches!(kind, FileType::Symlink | FileType::Unknown) {
            return Err(Errno::INVAL.into());
        }
        let dir = rows::directory(&self.t, new.parent)?;
        if new.name.is_empty() {
            return self.nameless(new, &dir, mode, exclusive);
        }
        if let Some(found) = rows::entry(&self.t, new.parent, new.name)? {
            return self.found(found, exclusive || kind != FileType::RegularFile);
        }
        self.check_new_name(&dir, kind == FileType::Directory)?;
        let (mode, lists) = self.inherited(new.parent, mode, new.umask)?;
        let mut inode = self.inherit(&dir, mode, new.uid, new.gid);
        if matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
            inode.rdev = new.rdev;
        }
        if kind == FileType::Directory {
            inode.nlink = 2;
            inode.parent = new.parent;
        }
        let attr = self.add(new.parent, dir, new.name, &inode)?;
        self.put_lists(attr.ino, inode.is_dir(), &lists)?;
        Ok(Created { attr, existed: false })
    }

    /// O_TMPFILE: an orphan from the start, so that a crash frees it. Unless `exclusive` it may get a name.
    fn nameless(&mut self, new: &NewNode<'_>, dir: &Inode, mode: u32, exclusive: bool) -> Result<Created> {
        if FileType::from_raw_mode(mode) != FileType::RegularFile {
            return Err(Errno::INVAL.into());
        }
        self.check_new_name(dir, false)?;
        let (mode, lists) = self.inherited(new.parent, mode, new.umask)?;
        let mut inode = self.inherit(dir, mode, new.uid, new.gid);
        inode.nlink = 0;
        inode.flags = if exclusive { 0 } else { LINKABLE };
        let ino = self.new_ino()?;
        self.put_inode(ino, &inode)?;
        self.put_lists(ino, false, &lists)?;
        self.t.orphan.insert((TREE, ino.0, OrphanKind::Unlinked.byte()), 0)?;
        self.s.inodes += 1;
        Ok(Created { attr: inode.attr(ino), existed: false })
    }

    fn found(&self, entry: Entry, must_not: bool) -> Result<Created> {
        match entry.kind {
            _ if must_not => Err(Errno::EXIST.into()),
            kind if kind == type_bits(FileType::RegularFile) => {
                let attr = rows::named_inode(&self.t, entry.ino)?.attr(entry.ino);
                Ok(Created { attr, existed: true })
            }
            kind if kind == type_bits(FileType::Directory) => Err(Errno::ISDIR.into()),
            _ => Err(Errno::EXIST.into()),
        }
    }

    /// Makes a symbolic link.
    pub fn symlink(&mut self, parent: InodeNo, name: &[u8], target: &[u8], uid: u32, gid: u32) -> Result<Attr> {
        match target.len() {
            0 => return Err(Errno::NOENT.into()),
            n if n > MAX_TARGET => return Err(Errno::NAMETOOLONG.into()),
            _ => {}
        }
        let dir = rows::directory(&self.t, parent)?;
        if rows::entry(&self.t, parent, name)?.is_some() {
            return Err(Errno::EXIST.into());
        }
        self.check_new_name(&dir, false)?;
        let mut inode = self.inherit(&dir, type_bits(FileType::Symlink) | 0o777, uid, gid);
        inode.target = target.to_vec();
        inode.size = target.len() as u64;
        self.s.value_bytes += inode.size;
        self.add(parent, dir, name, &inode)
    }

    /// Gives an inode one more name, or one that was made without a name its first. Directories have one only (EPERM).
    pub fn link(&mut self, ino: InodeNo, parent: InodeNo, name: &[u8]) -> Result<Attr> {
        let mut dir = rows::directory(&self.t, parent)?;
        let mut inode = rows::inode(&self.t, ino)?;
        if inode.is_dir() {
            return Err(Errno::PERM.into());
        }
        if inode.nlink == 0 && inode.flags & LINKABLE == 0 {
            return Err(Errno::NOENT.into());
        }
        if rows::entry(&self.t, parent, name)?.is_some() {
            return Err(Errno::EXIST.into());
        }
        self.check_new_name(&dir, false)?;
        inode.nlink = inode.nlink.checked_add(1).ok_or(Errno::MLINK)?;
        if inode.flags & LINKABLE != 0 {
            inode.flags &= !LINKABLE;
            self.t.orphan.remove((TREE, ino.0, OrphanKind::Unlinked.byte()))?;
        }
        inode.ctime = self.now;
        self.put_inode(ino, &inode)?;
        self.add_entry(parent, &mut dir, name, ino, inode.mode & S_IFMT)?;
        self.touch_dir(parent, dir)?;
        Ok(inode.attr(ino))
    }

    /// Takes the name of a file away. `open` says whether any session has an inode open; it is asked only if this was
    /// the last name. What is open, or too large to be freed in one step, becomes an orphan in the same transaction.
    pub fn unlink(&mut self, parent: InodeNo, name: &[u8], open: &dyn Fn(InodeNo) -> bool) -> Result<Gone> {
        let dir = rows::directory(&self.t, parent)?;
        let entry = rows::entry(&self.t, parent, name)?.ok_or(Errno::NOENT)?;
        let inode = rows::named_inode(&self.t, entry.ino)?;
        if inode.is_dir() {
            return Err(Errno::ISDIR.into());
        }
        self.remove_entry(parent, name, entry)?;
        self.touch_dir(parent, dir)?;
        self.drop_name(entry.ino, inode, open)
    }

    /// Removes an empty directory.
    pub fn rmdir(&mut self, parent: InodeNo, name: &[u8], open: &dyn Fn(InodeNo) -> bool) -> Result<Gone> {
        match name {
            b"." => return Err(Errno::INVAL.into()),
            b".." => return Err(Errno::NOTEMPTY.into()),
            _ => {}
        }
        let mut dir = rows::directory(&self.t, parent)?;
        let entry = rows::entry(&self.t, parent, name)?.ok_or(Errno::NOENT)?;
        let inode = rows::named_inode(&self.t, entry.ino)?;
        if !inode.is_dir() {
            return Err(Errno::NOTDIR.into());
        }
        if !rows::is_empty_dir(&self.t, entry.ino)? {
            return Err(Errno::NOTEMPTY.into());
        }
        self.remove_entry(parent, name, entry)?;
        dir.nlink = dir.nlink.checked_sub(1).ok_or_else(|| damaged("a directory's link count is too low"))?;
        self.touch_dir(parent, dir)?;
        self.drop_name(entry.ino, inode, open)
    }

    /// Owner, group and mode of something new in `dir`: a directory with the set-group-id bit passes on its group, and
    /// to directories that bit. (Clearing the bit of files of foreign groups is done by the kernel.)
    fn inherit(&self, dir: &Inode, mode: u32, uid: u32, gid: u32) -> Inode {
        if dir.mode & S_ISGID == 0 {
            return Inode::new(mode, uid, gid, self.now);
        }
        let is_dir = FileType::from_raw_mode(mode) == FileType::Directory;
        let mode = if is_dir { mode | S_ISGID } else { mode };
        Inode::new(mode, uid, dir.gid, self.now)
    }

    /// Whether `dir` can take one more name.
    pub(super) fn check_new_name(&self, dir: &Inode, is_dir: bool) -> Result<()> {
        if dir.nlink == 0 {
            return Err(Errno::NOENT.into());
        }
        if is_dir && dir.nlink == u32::MAX {
            return Err(Errno::MLINK.into());
        }
        self.check_room()
    }

    /// Stores a new inode under a new name.
    fn add(&mut self, parent: InodeNo, mut dir: Inode, name: &[u8], inode: &Inode) -> Result<Attr> {
        let ino = self.new_ino()?;
        self.put_inode(ino, inode)?;
        self.add_entry(parent, &mut dir, name, ino, inode.mode & S_IFMT)?;
        if inode.is_dir() {
            dir.nlink += 1;
        }
        self.touch_dir(parent, dir)?;
        self.s.inodes += 1;
        Ok(inode.attr(ino))
    }

    /// Adds an entry with the directory's next cookie.
    pub(super) fn add_entry(
        &mut self,
        parent: InodeNo,
        dir: &mut Inode,
        name: &[u8],
        ino: InodeNo,
        kind: u32,
    ) -> Result<()> {
        let cookie = dir.next_cookie;
        dir.next_cookie += 1;
        self.s.name_bytes += name.len() as u64;
        self.set_entry(parent, name, Entry { ino, kind, cookie })
    }

    /// Writes both rows of an entry.
    pub(super) fn set_entry(&mut self, parent: InodeNo, name: &[u8], entry: Entry) -> Result<()> {
        self.t.dirent.insert((TREE, parent.0, name), (entry.ino.0, entry.kind, entry.cookie))?;
        self.t.cookie.insert((TREE, parent.0, entry.cookie), (entry.ino.0, entry.kind, name))?;
        Ok(())
    }

    /// Removes both rows of an entry. Its cookie is never used again.
    pub(super) fn remove_entry(&mut self, parent: InodeNo, name: &[u8], entry: Entry) -> Result<()> {
        self.t.dirent.remove((TREE, parent.0, name))?;
        self.t.cookie.remove((TREE, parent.0, entry.cookie))?;
        self.s.name_bytes = self.s.name_bytes.saturating_sub(name.len() as u64);
        Ok(())
    }

    /// Stores a directory whose entries changed.
    pub(super) fn touch_dir(&mut self, ino: InodeNo, mut dir: Inode) -> Result<()> {
        dir.mtime = self.now;
        dir.ctime = self.now;
        self.put_inode(ino, &dir)
    }

    /// An inode has lost a name (its only one, if it is a directory).
    pub(super) fn drop_name(&mut self, ino: InodeNo, mut inode: Inode, open: &dyn Fn(InodeNo) -> bool) -> Result<Gone> {
        let left = if inode.is_dir() { Some(0) } else { inode.nlink.checked_sub(1) };
        inode.nlink = left.ok_or_else(|| damaged("a file's link count is too low"))?;
        inode.ctime = self.now;
        self.put_inode(ino, &inode)?;
        if inode.nlink > 0 {
            return Ok(Gone::Linked(inode.attr(ino)));
        }
        self.t.orphan.insert((TREE, ino.0, OrphanKind::Unlinked.byte()), 0)?;
        if open(ino) {
            return Ok(Gone::Orphan(ino));
        }
        match self.reap(ino)? {
            Reaped::Done => Ok(Gone::Freed(ino)),
            Reaped::More => Ok(Gone::Orphan(ino)),
        }
    }
}
