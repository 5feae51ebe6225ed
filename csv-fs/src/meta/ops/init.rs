//! The first rows of a new volume, and metadata ranges taken later.

use super::{INO_BATCH, Ops, VALUE_BYTES};
use crate::format::{BlockSpan, Superblock};
use crate::meta::error::{Result, damaged};
use crate::meta::inode::{Inode, type_bits};
use crate::meta::space::{self, Wanted};
use crate::meta::tables::TREE;
use crate::types::{BlockCount, DiskBlock, DiskRange, InodeNo, Timestamp};
use rustix::fs::FileType;

/// Runs that one reservation may consist of: a superblock lists at most 64.
const MAX_RESERVED_RUNS: usize = 16;

/// The root directory of a new volume.
#[derive(Clone, Copy, Debug)]
pub struct Root {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Its times.
    pub now: Timestamp,
}

impl Ops<'_> {
    /// Fills an empty store.
    pub(in crate::meta) fn initialise(&mut self, superblock: &Superblock, root: Root) -> Result<()> {
        self.s.next_ino = InodeNo::ROOT.0 + 1;
        self.s.ino_limit = self.s.next_ino + INO_BATCH;
        self.s.inodes = 1;
        let mode = type_bits(FileType::Directory) | (root.mode & 0o7777);
        let inode = Inode { nlink: 2, parent: InodeNo::ROOT, ..Inode::new(mode, root.uid, root.gid, root.now) };
        self.put_inode(InodeNo::ROOT, &inode)?;
        self.t.tree.insert(TREE, (TREE, 0))?;
        self.t.counter.insert(VALUE_BYTES, 0)?;
        for span in superblock.ranges.iter().chain(&superblock.next) {
            self.t.metarange.insert(span.start, span.len)?;
        }
        let mut at = 0;
        let end = BlockSpan { start: superblock.blocks(), len: 0 };
        for span in space::fixed_spans(superblock).into_iter().chain([end]) {
            let gap = span.start.checked_sub(at).ok_or_else(|| damaged("metadata ranges overlap"))?;
            if gap > 0 {
                space::free(&mut self.t, self.s, DiskRange { start: DiskBlock(at), len: BlockCount(gap) })?;
            }
            at = span.end();
        }
        Ok(())
    }

    /// Sets space aside for the store to grow into: up to `want` blocks, but never more than half of what is free.
    pub(in crate::meta) fn take_metadata_ranges(&mut self, want: u64) -> Result<Vec<BlockSpan>> {
        let blocks = want.min(self.s.free / 2);
        let wanted = Wanted { blocks, runs: MAX_RESERVED_RUNS, goal: 0 };
        let mut spans = Vec::new();
        for range in space::allocate(&mut self.t, self.s, wanted)? {
            let span = BlockSpan { start: range.start.0, len: range.len.0 };
            self.t.metarange.insert(span.start, span.len)?;
            spans.push(span);
        }
        Ok(spans)
    }
}
