//! What has no name, or no end, any more: freed in bounded steps that may be repeated.
//!
//! A step is a transaction of its own or part of one; after a crash the orphan row is still there and the next step
//! goes on from what is left. So no single transaction grows with the size of a file.

use super::Ops;
use crate::meta::OrphanKind;
use crate::meta::error::Result;
use crate::meta::inode::Inode;
use crate::meta::tables::{TREE, inode_key};
use crate::meta::{map, rows};
use crate::types::{BlockRange, FileBlock, InodeNo};
use redb::ReadableTable;

/// Extents that one step frees: a commit's worth of some hundred pages.
pub(super) const REAP_STEP: usize = 1024;

/// How far a step came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// Nothing is left of the orphan.
    Done,
    /// Another step is needed.
    More,
}

impl Ops<'_> {
    /// Frees a step's worth of an orphan; does nothing to an inode that is none. The caller knows that no session has
    /// an unlinked inode open, that its layouts were returned or their holders fenced, and that there is no grace.
    pub fn reap(&mut self, ino: InodeNo) -> Result<Reaped> {
        if self.has_orphan(ino, OrphanKind::Unlinked)? {
            return self.reap_unlinked(ino);
        }
        self.reap_tail(ino)
    }

    /// Frees a step's worth of what a truncation left; never the inode itself, whether or not it still has a name.
    pub fn reap_tail(&mut self, ino: InodeNo) -> Result<Reaped> {
        let Some(from) = rows::truncating(&self.t, ino)? else {
            return Ok(Reaped::Done);
        };
        let mut inode = rows::named_inode(&self.t, ino)?;
        self.step(ino, &mut inode, from)
    }

    fn reap_unlinked(&mut self, ino: InodeNo) -> Result<Reaped> {
        let mut inode = rows::named_inode(&self.t, ino)?;
        if self.step(ino, &mut inode, BlockRange::ALL.start)? == Reaped::More {
            return Ok(Reaped::More);
        }
        if self.reap_xattrs(ino)? == Reaped::More {
            return Ok(Reaped::More);
        }
        self.t.inode.remove(inode_key(ino))?;
        self.s.value_bytes = self.s.value_bytes.saturating_sub(inode.target.len() as u64);
        self.t.orphan.remove((TREE, ino.0, OrphanKind::Unlinked.byte()))?;
        self.s.inodes = self.s.inodes.saturating_sub(1);
        Ok(Reaped::Done)
    }

    fn step(&mut self, ino: InodeNo, inode: &mut Inode, from: FileBlock) -> Result<Reaped> {
        let (freed, all) = map::free_tail(&mut self.t, self.s, ino, from, REAP_STEP)?;
        inode.blocks = inode.blocks.saturating_sub(freed);
        self.put_inode(ino, inode)?;
        self.note_truncation(ino, from, all)?;
        Ok(if all { Reaped::Done } else { Reaped::More })
    }

    fn reap_xattrs(&mut self, ino: InodeNo) -> Result<Reaped> {
        let mut names: Vec<Vec<u8>> = Vec::new();
        for row in self.t.xattr.range((TREE, ino.0, &b""[..])..(TREE, ino.0 + 1, &b""[..]))?.take(REAP_STEP) {
            names.push(row?.0.value().2.to_vec());
        }
        for name in &names {
            self.drop_value(ino, name)?;
        }
        Ok(if names.len() < REAP_STEP { Reaped::Done } else { Reaped::More })
    }
}
