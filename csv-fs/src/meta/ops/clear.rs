//! Blocks in the middle of a file that read as zeroes from now on: holes, or space that keeps its place unwritten.
//!
//! The caller holds the range against everybody: every layout on it was returned or its holder fenced, so no I/O is on
//! its way to blocks that become free here (invariant 3).
//!
//! A step at a time, so that no transaction grows with a file. A node that dies between two steps leaves a part
//! cleared, which is as far as a local file system promises, too.

use rustix::io::Errno;

use super::Ops;
use super::orphans::REAP_STEP;
use crate::meta::error::Result;
use crate::meta::{map, rows};
use crate::proto::{Clear, ClearInto};
use crate::types::*;

impl Ops<'_> {
    /// Clears a step's worth of the range; tells up to where. Nothing is left to do once that is the end of the range.
    pub fn clear(&mut self, clear: &Clear) -> Result<FileBlock> {
        let Clear { ino, range, into } = *clear;
        let mut inode = rows::inode(&self.t, ino)?;
        if !inode.is_regular() || range.is_empty() {
            return Err(Errno::INVAL.into());
        }
        // What a cut has left behind the end is being freed, and part of the file no more.
        let end = rows::truncating(&self.t, ino)?.map_or(range.end, |from| range.end.min(from));
        let mut at = range.start;
        for _ in 0..REAP_STEP {
            let Some(part) = map::first_mapped(&*self.t.extent, ino, BlockRange { start: at, end })? else {
                at = range.end;
                break;
            };
            at = part.range().end;
            inode.blocks = inode.blocks.saturating_sub(self.clear_part(ino, &part, into)?);
        }
        self.remove_capability(ino)?;
        inode.mtime = self.now;
        inode.ctime = self.now;
        self.put_inode(ino, &inode)?;
        Ok(at)
    }

    /// Tells how many blocks the file has fewer. Blocks that another file refers to are never marked unwritten in
    /// place: this file lets them go.
    fn clear_part(&mut self, ino: InodeNo, part: &Extent, into: ClearInto) -> Result<u64> {
        let keeps = into == ClearInto::Unwritten;
        if keeps && part.state == ExtentState::Unwritten {
            return Ok(0);
        }
        map::unmap(&mut self.t, ino, part.range())?;
        if keeps && !map::is_shared(&*self.t.refcount, part)? {
            map::insert(&mut self.t, ino, &Extent { state: ExtentState::Unwritten, ..*part })?;
            return Ok(0);
        }
        map::release(&mut self.t, self.s, DiskRange { start: part.disk, len: part.len })?;
        Ok(part.len.0)
    }
}
