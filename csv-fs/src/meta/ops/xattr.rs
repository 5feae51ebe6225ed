//! Extended attributes: set, removed, and what follows for mode and inheritance.
//!
//! An access list and the permission bits say the same, always: setting one changes the other in the same
//! transaction. A list that says no more than the bits is not stored.

use redb::ReadableTable;
use rustix::io::Errno;

use super::Ops;
use crate::meta::acl::{ACCESS, Acl, DEFAULT};
use crate::meta::error::Result;
use crate::meta::inode::{Inode, S_ISGID};
use crate::meta::tables::TREE;
use crate::meta::{rows, xattr};
use crate::proto::{CAPABILITY, xattr_flags};
use crate::types::InodeNo;

impl Ops<'_> {
    /// Sets one. EEXIST or ENODATA by the flags; ENOSPC if the inode has too many; E2BIG, ERANGE, EOPNOTSUPP for values
    /// and names that none can have.
    pub fn set_xattr(&mut self, ino: InodeNo, name: &[u8], value: &[u8], flags: u32, kill_sgid: bool) -> Result<()> {
        let mut inode = rows::inode(&self.t, ino)?;
        xattr::check_name(name)?;
        if value.len() > xattr::VALUE_MAX {
            return Err(Errno::TOOBIG.into());
        }
        let there = self.t.xattr.get((TREE, ino.0, name))?.is_some();
        let wants = |flag: u32| flags & flag != 0;
        if wants(!(xattr_flags::CREATE | xattr_flags::REPLACE)) {
            return Err(Errno::INVAL.into());
        }
        if wants(xattr_flags::CREATE) && there {
            return Err(Errno::EXIST.into());
        }
        if wants(xattr_flags::REPLACE) && !there {
            return Err(Errno::NODATA.into());
        }
        let keep = match name {
            ACCESS => self.access_list(&mut inode, value, kill_sgid)?,
            DEFAULT if !inode.is_dir() => return Err(Errno::ACCESS.into()),
            DEFAULT => Acl::parse(value)?.is_some(),
            _ => true,
        };
        if keep {
            self.check_room()?;
            xattr::check_space(&self.t, ino, name, value.len())?;
            self.put_value(ino, name, value)?;
        } else {
            self.drop_value(ino, name)?;
        }
        inode.ctime = self.now;
        self.put_inode(ino, &inode)
    }

    /// Changes the mode as the list says; whether the list says more than the mode then does.
    fn access_list(&self, inode: &mut Inode, value: &[u8], kill_sgid: bool) -> Result<bool> {
        let Some(acl) = Acl::parse(value)? else { return Ok(false) };
        let (mode, plain) = acl.mode(inode.mode);
        inode.mode = if kill_sgid { mode & !S_ISGID } else { mode };
        Ok(!plain)
    }

    /// Removes one; ENODATA if it is not there.
    pub fn remove_xattr(&mut self, ino: InodeNo, name: &[u8]) -> Result<()> {
        let mut inode = rows::inode(&self.t, ino)?;
        xattr::check_name(name)?;
        if !self.drop_value(ino, name)? {
            return Err(Errno::NODATA.into());
        }
        inode.ctime = self.now;
        self.put_inode(ino, &inode)
    }

    /// A file that changes hands or contents loses its capabilities.
    pub(super) fn remove_capability(&mut self, ino: InodeNo) -> Result<()> {
        self.drop_value(ino, CAPABILITY).map(drop)
    }

    /// The permission bits were set: an access list follows.
    pub(super) fn acl_follows_mode(&mut self, ino: InodeNo, mode: u32) -> Result<()> {
        let Some(mut acl) = self.list(ino, ACCESS)? else { return Ok(()) };
        acl.chmod(mode);
        self.put_value(ino, ACCESS, &acl.encode())
    }

    /// What something new in `dir` gets: its mode, and the lists to be stored with it. Without a default list of the
    /// directory the umask applies.
    pub(super) fn inherited(&self, dir: InodeNo, mode: u32, umask: u32) -> Result<(u32, Lists)> {
        let Some(default) = self.list(dir, DEFAULT)? else { return Ok((mode & !(umask & 0o777), Lists::default())) };
        let mut access = default.clone();
        let (mode, plain) = access.inherit(mode);
        Ok((mode, Lists { access: (!plain).then_some(access), default: Some(default) }))
    }

    /// Stores them.
    pub(super) fn put_lists(&mut self, ino: InodeNo, is_dir: bool, lists: &Lists) -> Result<()> {
        if let Some(access) = &lists.access {
            self.put_value(ino, ACCESS, &access.encode())?;
        }
        if let Some(default) = lists.default.as_ref().filter(|_| is_dir) {
            self.put_value(ino, DEFAULT, &default.encode())?;
        }
        Ok(())
    }

    fn put_value(&mut self, ino: InodeNo, name: &[u8], value: &[u8]) -> Result<()> {
        let before = self.t.xattr.insert((TREE, ino.0, name), value)?.map(|old| name.len() + old.value().len());
        let counted = self.s.value_bytes.saturating_sub(before.unwrap_or(0) as u64);
        self.s.value_bytes = counted + (name.len() + value.len()) as u64;
        Ok(())
    }

    /// Whether it was there.
    pub(super) fn drop_value(&mut self, ino: InodeNo, name: &[u8]) -> Result<bool> {
        let before = self.t.xattr.remove((TREE, ino.0, name))?.map(|old| name.len() + old.value().len());
        self.s.value_bytes = self.s.value_bytes.saturating_sub(before.unwrap_or(0) as u64);
        Ok(before.is_some())
    }

    fn list(&self, ino: InodeNo, name: &[u8]) -> Result<Option<Acl>> {
        match self.t.xattr.get((TREE, ino.0, name))? {
            Some(row) => Acl::parse(row.value()),
            None => Ok(None),
        }
    }
}

/// Access control lists of something new.
#[derive(Debug, Default)]
pub(super) struct Lists {
    access: Option<Acl>,
    default: Option<Acl>,
}
