//! Attributes: setattr, times of in-place writes, fallocate.
//!
//! Whoever calls these has recalled the layouts they touch before. A file that grows here must have had the rest of
//! its last block zeroed on the disk, see [`Tail`](crate::meta::Tail).

use rustix::fs::FileType;
use rustix::io::Errno;

use super::orphans::REAP_STEP;
use super::{MAX_SIZE, Ops};
use crate::meta::OrphanKind;
use crate::meta::error::Result;
use crate::meta::inode::{Inode, S_IFMT, S_ISGID, S_ISUID, S_IXGRP};
use crate::meta::space::{self, Wanted};
use crate::meta::tables::TREE;
use crate::meta::{map, rows};
use crate::proto::{Hints, SetAttr};
use crate::types::*;

impl Ops<'_> {
    /// Sets attributes. A shorter size frees what lies behind it: up to 1024 extents at once, the rest as an orphan
    /// ([`OrphanKind::Truncated`]) whose blocks no reader sees any more.
    pub fn setattr(&mut self, ino: InodeNo, set: &SetAttr) -> Result<Attr> {
        let mut inode = rows::inode(&self.t, ino)?;
        if let Some(size) = set.size {
            check_size(&inode, size)?;
            self.resize(ino, &mut inode, size)?;
            inode.mtime = self.now;
        }
        if let Some(mode) = set.mode {
            inode.mode = (inode.mode & S_IFMT) | (mode & !S_IFMT);
            self.acl_follows_mode(ino, mode)?;
        }
        inode.uid = set.uid.unwrap_or(inode.uid);
        inode.gid = set.gid.unwrap_or(inode.gid);
        let chown = set.uid.is_some() || set.gid.is_some();
        if set.kill_suid_sgid || (chown && set.mode.is_none()) {
            kill_privilege(&mut inode);
        }
        if set.kill_suid_sgid || set.kill_capability || chown || set.size.is_some() {
            self.remove_capability(ino)?;
        }
        inode.atime = set.atime.unwrap_or(inode.atime);
        inode.mtime = set.mtime.unwrap_or(inode.mtime);
        inode.ctime = self.now;
        self.put_inode(ino, &inode)?;
        Ok(inode.attr(ino))
    }

    /// Keeps hints. EINVAL for an extent size that is no whole number of blocks.
    pub fn set_hints(&mut self, ino: InodeNo, hints: Hints) -> Result<()> {
        let mut inode = rows::inode(&self.t, ino)?;
        if !u64::from(hints.extent_size).is_multiple_of(FS_BLOCK) {
            return Err(Errno::INVAL.into());
        }
        inode.extent_hint = hints.extent_size;
        inode.project = hints.project;
        inode.ctime = self.now;
        self.put_inode(ino, &inode)
    }

    /// Times of in-place writes: the later one wins, since another node may have written after. Files that are gone
    /// are passed over.
    pub fn times(&mut self, changes: &[(InodeNo, Timestamp)]) -> Result<()> {
        for (ino, time) in changes {
            let Some(mut inode) = rows::find_inode(&self.t, *ino)? else { continue };
            inode.mtime = inode.mtime.max(*time);
            inode.ctime = inode.ctime.max(*time);
            self.put_inode(*ino, &inode)?;
        }
        Ok(())
    }

    /// `fallocate(2)`, mode 0 or KEEP_SIZE: every hole of the range becomes unwritten space. All or nothing: ENOSPC if
    /// the volume has less free than the holes need.
    pub fn fallocate(&mut self, ino: InodeNo, offset: u64, len: u64, keep_size: bool) -> Result<Attr> {
        let mut inode = rows::inode(&self.t, ino)?;
        let end = offset.checked_add(len).filter(|end| *end <= MAX_SIZE).ok_or(Errno::FBIG)?;
        match inode.kind() {
            _ if len == 0 => return Err(Errno::INVAL.into()),
            FileType::RegularFile => {}
            FileType::Directory => return Err(Errno::ISDIR.into()),
            _ => return Err(Errno::NODEV.into()),
        }
        self.check_room()?;
        self.finish_truncation(ino, &mut inode)?;
        let range = BlockRange::of_bytes(offset, len);
        let holes = map::holes(&map::mapped(&*self.t.extent, ino, range)?, range);
        let needed: u64 = holes.iter().map(|h| h.end.0 - h.start.0).sum();
        if needed > self.s.free {
            return Err(Errno::NOSPC.into());
        }
        self.fill(ino, &holes, needed)?;
        self.remove_capability(ino)?;
        inode.blocks += needed;
        if !keep_size && end > inode.size {
            inode.size = end;
            inode.mtime = self.now;
        }
        inode.ctime = self.now;
        self.put_inode(ino, &inode)?;
        Ok(inode.attr(ino))
    }

    /// Maps unwritten space into holes.
    fn fill(&mut self, ino: InodeNo, holes: &[BlockRange], needed: u64) -> Result<()> {
        let goal = ino.0 % self.limits.data_blocks.div_ceil(space::GROUP_BLOCKS).max(1);
        let mut runs =
            space::allocate(&mut self.t, self.s, Wanted { blocks: needed, runs: usize::MAX, goal })?.into_iter();
        let mut run = DiskRange { start: DiskBlock(0), len: BlockCount(0) };
        for hole in holes {
            let mut at = hole.start.0;
            while at < hole.end.0 {
                if run.len.0 == 0 {
                    run = runs
                        .next()
                        .ok_or_else(|| crate::meta::error::damaged("free runs do not add up to their count"))?;
                }
                let n = run.len.0.min(hole.end.0 - at);
                let extent = Extent {
                    file: FileBlock(at),
                    disk: run.start,
                    len: BlockCount(n),
                    state: ExtentState::Unwritten,
                    shared: false,
                };
                map::insert(&mut self.t, ino, &extent)?;
                run = DiskRange { start: DiskBlock(run.start.0 + n), len: BlockCount(run.len.0 - n) };
                at += n;
            }
        }
        Ok(())
    }

    fn resize(&mut self, ino: InodeNo, inode: &mut Inode, size: u64) -> Result<()> {
        let keep = FileBlock(size.div_ceil(FS_BLOCK));
        if size > inode.size {
            self.finish_truncation(ino, inode)?;
            inode.size = size;
            return Ok(());
        }
        inode.size = size;
        let from = rows::truncating(&self.t, ino)?.map_or(keep, |pending| pending.min(keep));
        let (freed, all) = map::free_tail(&mut self.t, self.s, ino, from, REAP_STEP)?;
        inode.blocks = inode.blocks.saturating_sub(freed);
        self.note_truncation(ino, from, all)
    }

    /// Records or forgets that the tail of a file from `from` is still to be freed.
    pub(super) fn note_truncation(&mut self, ino: InodeNo, from: FileBlock, all_freed: bool) -> Result<()> {
        let key = (TREE, ino.0, OrphanKind::Truncated.byte());
        if all_freed {
            self.t.orphan.remove(key)?;
        } else {
            self.t.orphan.insert(key, from.0)?;
        }
        Ok(())
    }

    /// Before anything is mapped behind a cut, what the cut left must be gone: else it would show again.
    pub(super) fn finish_truncation(&mut self, ino: InodeNo, inode: &mut Inode) -> Result<()> {
        while let Some(from) = rows::truncating(&self.t, ino)? {
            let (freed, all) = map::free_tail(&mut self.t, self.s, ino, from, REAP_STEP)?;
            inode.blocks = inode.blocks.saturating_sub(freed);
            self.put_inode(ino, inode)?;
            self.note_truncation(ino, from, all)?;
        }
        Ok(())
    }
}

fn check_size(inode: &Inode, size: u64) -> Result<()> {
    match inode.kind() {
        FileType::RegularFile if size <= MAX_SIZE => Ok(()),
        FileType::RegularFile => Err(Errno::FBIG.into()),
        FileType::Directory => Err(Errno::ISDIR.into()),
        _ => Err(Errno::INVAL.into()),
    }
}

/// What a write or chown by somebody without privilege does to the mode.
fn kill_privilege(inode: &mut Inode) {
    if inode.is_dir() {
        return;
    }
    inode.mode &= !S_ISUID;
    if inode.mode & S_IXGRP != 0 {
        inode.mode &= !S_ISGID;
    }
}
