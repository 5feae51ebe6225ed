//! Commit: what a client wrote becomes part of the file.

use rustix::io::Errno;

use super::{MAX_SIZE, Ops};
use crate::meta::error::{MetaError, Result};
use crate::meta::{map, rows};
use crate::proto::CommitBody;
use crate::types::*;

impl Ops<'_> {
    /// Records mappings that `client` made from its grant, unwritten extents that it has written, and size and time.
    ///
    /// **The caller has flushed the data of every extent in state written before it calls this**; the client flushes
    /// what it wrote directly, the coordinator what it wrote for the client. That is the order rule of the store.
    ///
    /// Each extent must name either holes of the file and blocks of the client's grant, or blocks that are mapped
    /// there already; anything else is a [`MetaError::Contradiction`] and changes nothing. What is written stays
    /// written. Repeating a commit changes nothing more; one that carries no time changes no time, so that asking a
    /// writer to commit before a stat does not make the file look changed.
    pub fn commit_mappings(&mut self, client: ClientId, ino: InodeNo, commit: &CommitBody) -> Result<Attr> {
        let mut inode = rows::inode(&self.t, ino)?;
        if !inode.is_regular() {
            return Err(Errno::INVAL.into());
        }
        if commit.size.is_some_and(|size| size > MAX_SIZE) {
            return Err(Errno::FBIG.into());
        }
        check_shape(&commit.extents)?;
        self.finish_truncation(ino, &mut inode)?;
        for extent in &commit.extents {
            self.check_claim(client, ino, extent)?;
        }
        for extent in &commit.extents {
            inode.blocks += self.apply_claim(client, ino, extent)?;
        }
        inode.size = inode.size.max(commit.size.unwrap_or(0));
        if let Some(time) = commit.mtime {
            inode.mtime = time;
            inode.ctime = inode.ctime.max(time);
        }
        self.put_inode(ino, &inode)?;
        Ok(inode.attr(ino))
    }

    fn check_claim(&self, client: ClientId, ino: InodeNo, claim: &Extent) -> Result<()> {
        let mapped = map::mapped(&*self.t.extent, ino, claim.range())?;
        for part in &mapped {
            if part.disk != claimed_disk(claim, part.file) {
                return Err(MetaError::Contradiction("a mapping names other blocks than the file has there"));
            }
            if claim.state == ExtentState::Written && map::is_shared(&*self.t.refcount, part)? {
                return Err(MetaError::Contradiction("a shared extent was written in place"));
            }
        }
        for hole in map::holes(&mapped, claim.range()) {
            if !self.is_granted(client, disk_of(claim, hole))? {
                return Err(MetaError::Contradiction("a mapping lies outside the client's grant"));
            }
        }
        Ok(())
    }

    /// Returns the blocks that are newly mapped.
    fn apply_claim(&mut self, client: ClientId, ino: InodeNo, claim: &Extent) -> Result<u64> {
        let mapped = map::mapped(&*self.t.extent, ino, claim.range())?;
        let mut new = 0;
        for hole in map::holes(&mapped, claim.range()) {
            let disk = disk_of(claim, hole);
            self.take_from_grant(client, disk)?;
            new += disk.len.0;
            if claim.state == ExtentState::Unwritten {
                let part = Extent { file: hole.start, disk: disk.start, len: disk.len, ..*claim };
                map::insert(&mut self.t, ino, &part)?;
            }
        }
        if claim.state == ExtentState::Written {
            map::unmap(&mut self.t, ino, claim.range())?;
            map::insert(&mut self.t, ino, claim)?;
        }
        Ok(new)
    }
}

/// No extent empty or beyond the longest file; no two of the same file block, nor of the same disk block.
fn check_shape(extents: &[Extent]) -> Result<()> {
    let bad = |why| Err(MetaError::Contradiction(why));
    let end = |start: u64, len: u64| start.checked_add(len).filter(|_| len > 0);
    let mut file: Vec<(u64, u64)> = Vec::with_capacity(extents.len());
    let mut disk: Vec<(u64, u64)> = Vec::with_capacity(extents.len());
    for e in extents {
        let Some(file_end) = end(e.file.0, e.len.0).filter(|end| *end <= MAX_SIZE.div_ceil(FS_BLOCK)) else {
            return bad("an extent is empty or lies beyond the longest file");
        };
        let Some(disk_end) = end(e.disk.0, e.len.0) else {
            return bad("an extent lies beyond the disk");
        };
        file.push((e.file.0, file_end));
        disk.push((e.disk.0, disk_end));
    }
    for spans in [&mut file, &mut disk] {
        spans.sort_unstable();
        if spans.windows(2).any(|w| w[0].1 > w[1].0) {
            return bad("two extents of one commit overlap");
        }
    }
    Ok(())
}

fn claimed_disk(claim: &Extent, at: FileBlock) -> DiskBlock {
    DiskBlock(claim.disk.0 + (at.0 - claim.file.0))
}

fn disk_of(claim: &Extent, part: BlockRange) -> DiskRange {
    DiskRange { start: claimed_disk(claim, part.start), len: BlockCount(part.end.0 - part.start.0) }
}
