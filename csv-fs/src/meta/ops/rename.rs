//! Rename, with NOREPLACE and EXCHANGE.

use rustix::fs::FileType;
use rustix::io::Errno;

use super::{Gone, Ops};
use crate::meta::error::{Result, damaged};
use crate::meta::inode::{Inode, type_bits};
use crate::meta::rows::{self, Entry};
use crate::proto::rename_flags::{EXCHANGE, NOREPLACE};
use crate::types::InodeNo;

/// What goes where.
#[derive(Clone, Copy, Debug)]
pub struct Rename<'a> {
    /// Directory of the old name.
    pub parent: InodeNo,
    /// Old name.
    pub name: &'a [u8],
    /// Directory of the new name.
    pub new_parent: InodeNo,
    /// New name.
    pub new_name: &'a [u8],
    /// Bits of [`crate::proto::rename_flags`].
    pub flags: u32,
}

impl Ops<'_> {
    /// Renames. What the new name stood for loses it as by unlink or rmdir, and is returned. The new name keeps its
    /// cookie if it was there, so that a walk through the directory sees it exactly once.
    ///
    /// EINVAL if a directory would come below itself; ENOTEMPTY, EISDIR, ENOTDIR, EEXIST as `rename(2)` says; two names
    /// of one inode are left alone.
    pub fn rename(&mut self, what: &Rename<'_>, open: &dyn Fn(InodeNo) -> bool) -> Result<Option<Gone>> {
        if what.flags & !(NOREPLACE | EXCHANGE) != 0 || what.flags == NOREPLACE | EXCHANGE {
            return Err(Errno::INVAL.into());
        }
        if [what.name, what.new_name].iter().any(|n| matches!(*n, b"." | b"..")) {
            return Err(Errno::BUSY.into());
        }
        rows::directory(&self.t, what.parent)?;
        let new_dir = rows::directory(&self.t, what.new_parent)?;
        let from = rows::entry(&self.t, what.parent, what.name)?.ok_or(Errno::NOENT)?;
        let to = rows::entry(&self.t, what.new_parent, what.new_name)?;
        if is_dir(from) && self.is_below(what.new_parent, from.ino)? {
            return Err(Errno::INVAL.into());
        }
        if what.flags == EXCHANGE {
            let to = to.ok_or(Errno::NOENT)?;
            return self.exchange(what, from, to).map(|()| None);
        }
        let Some(to) = to else {
            self.check_new_name(&new_dir, is_dir(from))?;
            return self.move_entry(what, from, None).map(|()| None);
        };
        if what.flags == NOREPLACE {
            return Err(Errno::EXIST.into());
        }
        if from.ino == to.ino {
            return Ok(None);
        }
        self.check_replaceable(from, to)?;
        let replaced = rows::named_inode(&self.t, to.ino)?;
        self.move_entry(what, from, Some(to))?;
        self.drop_name(to.ino, replaced, open).map(Some)
    }

    fn check_replaceable(&self, from: Entry, to: Entry) -> Result<()> {
        match (is_dir(from), is_dir(to)) {
            (true, false) => Err(Errno::NOTDIR.into()),
            (false, true) => Err(Errno::ISDIR.into()),
            (true, true) if !rows::is_empty_dir(&self.t, to.ino)? => Err(Errno::NOTEMPTY.into()),
            _ => Ok(()),
        }
    }

    /// Whether `dir` is `above` or lies below it.
    fn is_below(&self, dir: InodeNo, above: InodeNo) -> Result<bool> {
        let mut at = dir;
        // No path is deeper than there are inodes: a ring in damaged metadata must not hold the thread for ever.
        for _ in 0..=self.s.inodes {
            if at == above {
                return Ok(true);
            }
            if at == InodeNo::ROOT {
                return Ok(false);
            }
            at = rows::inode(&self.t, at)?.parent;
        }
        Err(damaged("a directory lies below itself"))
    }

    /// Moves an entry to a name that is free, or is `replaced`.
    fn move_entry(&mut self, what: &Rename<'_>, from: Entry, replaced: Option<Entry>) -> Result<()> {
        let (mut dir, mut new_dir) = self.both_dirs(what)?;
        let moved = is_dir(from);
        self.remove_entry(what.parent, what.name, from)?;
        let target = new_dir.as_mut().unwrap_or(&mut dir);
        match replaced {
            Some(old) => self.set_entry(what.new_parent, what.new_name, Entry { cookie: old.cookie, ..from })?,
            None => self.add_entry(what.new_parent, target, what.new_name, from.ino, from.kind)?,
        }
        if replaced.is_some_and(is_dir) {
            target.nlink = down(target.nlink)?;
        }
        if moved && let Some(new_dir) = &mut new_dir {
            new_dir.nlink += 1;
            dir.nlink = down(dir.nlink)?;
        }
        self.put_dirs(what, dir, new_dir)?;
        self.settle(from.ino, what.new_parent)
    }

    /// Swaps what two names stand for; each name keeps its cookie.
    fn exchange(&mut self, what: &Rename<'_>, from: Entry, to: Entry) -> Result<()> {
        if is_dir(to) && self.is_below(what.parent, to.ino)? {
            return Err(Errno::INVAL.into());
        }
        if from.ino == to.ino {
            return Ok(());
        }
        let (mut dir, mut new_dir) = self.both_dirs(what)?;
        if let Some(new_dir) = &mut new_dir {
            let (gains, loses) = (is_dir(to), is_dir(from));
            dir.nlink = shifted(dir.nlink, gains, loses)?;
            new_dir.nlink = shifted(new_dir.nlink, loses, gains)?;
        }
        self.set_entry(what.parent, what.name, Entry { cookie: from.cookie, ..to })?;
        self.set_entry(what.new_parent, what.new_name, Entry { cookie: to.cookie, ..from })?;
        self.put_dirs(what, dir, new_dir)?;
        self.settle(from.ino, what.new_parent)?;
        self.settle(to.ino, what.parent)
    }

    /// Both directories; the second only if it is another one.
    fn both_dirs(&self, what: &Rename<'_>) -> Result<(Inode, Option<Inode>)> {
        let dir = rows::directory(&self.t, what.parent)?;
        let other = what.new_parent != what.parent;
        let new_dir = if other { Some(rows::directory(&self.t, what.new_parent)?) } else { None };
        Ok((dir, new_dir))
    }

    fn put_dirs(&mut self, what: &Rename<'_>, dir: Inode, new_dir: Option<Inode>) -> Result<()> {
        self.touch_dir(what.parent, dir)?;
        match new_dir {
            Some(new_dir) => self.touch_dir(what.new_parent, new_dir),
            None => Ok(()),
        }
    }

    /// A moved inode: its ctime, and for a directory where `..` leads.
    fn settle(&mut self, ino: InodeNo, parent: InodeNo) -> Result<()> {
        let mut inode = rows::named_inode(&self.t, ino)?;
        inode.ctime = self.now;
        if inode.is_dir() {
            inode.parent = parent;
        }
        self.put_inode(ino, &inode)
    }
}

fn is_dir(entry: Entry) -> bool {
    entry.kind == type_bits(FileType::Directory)
}

fn down(nlink: u32) -> Result<u32> {
    nlink.checked_sub(1).ok_or_else(|| damaged("a directory's link count is too low"))
}

fn shifted(nlink: u32, gains: bool, loses: bool) -> Result<u32> {
    match (gains, loses) {
        (true, false) => Ok(nlink.checked_add(1).ok_or(Errno::MLINK)?),
        (false, true) => down(nlink),
        _ => Ok(nlink),
    }
}
