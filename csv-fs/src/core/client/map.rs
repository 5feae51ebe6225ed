//! The mapping of one file as its client knows it: where each block lies, its length, and what of that no commit has
//! covered yet.
//!
//! It knows blocks only inside the layouts held; the caller says which those are. What was written here for the first
//! time (a hole filled from the grant, an unwritten extent written) is *uncommitted* until a commit that was put
//! together after a flush has been answered.
//!
//! Interleavings prevented:
//! - a grant that arrives while an exclusive layout is held shows the coordinator's mapping from before our own
//!   writes: inside ranges held exclusively the own mapping wins ([`FileMap::merge`]);
//! - a block that is written while a commit is on its way stays uncommitted, because only what that commit's body
//!   names is taken off the list ([`FileMap::committed`]).

use std::collections::BTreeMap;

use crate::proto::CommitBody;
use crate::types::*;

#[cfg(test)]
mod tests;

/// What lies at a run of file blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Nothing: reads as zeroes.
    Hole,
    /// Reserved, reads as zeroes.
    Unwritten {
        /// Where.
        disk: DiskBlock,
        /// Shared with another file or snapshot.
        shared: bool,
    },
    /// Data.
    Written {
        /// Where.
        disk: DiskBlock,
        /// Shared with another file or snapshot.
        shared: bool,
    },
}

/// A run of file blocks of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Which blocks.
    pub range: BlockRange,
    /// What is there.
    pub kind: Kind,
}

/// Extents by first file block, never overlapping, merged where they touch in file and disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Runs(BTreeMap<u64, Extent>);

impl Runs {
    fn remove(&mut self, range: BlockRange) {
        let first =
            self.0.range(..range.start.0).next_back().filter(|(_, e)| e.range().overlaps(range)).map(|(k, _)| *k);
        let hit: Vec<u64> = first
            .into_iter()
            .chain(self.0.range(range.start.0..range.end.0.max(range.start.0)).map(|(k, _)| *k))
            .collect();
        for key in hit {
            let Some(old) = self.0.remove(&key) else { continue };
            for part in [BlockRange { end: range.start, ..old.range() }, BlockRange { start: range.end, ..old.range() }]
            {
                let part = part.intersect(old.range());
                if !part.is_empty() {
                    self.0.insert(part.start.0, slice(&old, part));
                }
            }
        }
    }

    fn insert(&mut self, mut e: Extent) {
        if e.len.0 == 0 {
            return;
        }
        self.remove(e.range());
        if let Some((k, before)) = self.0.range(..e.file.0).next_back().map(|(k, b)| (*k, *b))
            && follows(&before, &e)
        {
            self.0.remove(&k);
            e = Extent { len: BlockCount(before.len.0 + e.len.0), ..before };
        }
        if let Some(after) = self.0.get(&(e.file.0 + e.len.0)).copied()
            && follows(&e, &after)
        {
            self.0.remove(&after.file.0);
            e.len.0 += after.len.0;
        }
        self.0.insert(e.file.0, e);
    }

    /// The parts of extents inside the range, in order; none if it holds no block (what two ranges share may not).
    fn within(&self, range: BlockRange) -> impl Iterator<Item = Extent> {
        let range = if range.is_empty() { BlockRange { end: range.start, ..range } } else { range };
        let first = self.0.range(..range.start.0).next_back().map(|(_, e)| *e);
        let first = first.filter(|e| !range.is_empty() && e.range().overlaps(range));
        let rest = self.0.range(range.start.0..range.end.0.max(range.start.0)).map(|(_, e)| *e);
        first.into_iter().chain(rest).map(move |e| slice(&e, e.range().intersect(range)))
    }
}

fn follows(a: &Extent, b: &Extent) -> bool {
    a.file.0 + a.len.0 == b.file.0 && a.disk.0 + a.len.0 == b.disk.0 && a.state == b.state && a.shared == b.shared
}

fn slice(e: &Extent, part: BlockRange) -> Extent {
    let skip = part.start.0 - e.file.0;
    Extent { file: part.start, disk: DiskBlock(e.disk.0 + skip), len: BlockCount(part.end.0 - part.start.0), ..*e }
}

/// The mapping and length of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileMap {
    runs: Runs,
    uncommitted: Runs,
    /// The part of `uncommitted` that was a hole before: space the coordinator does not count yet.
    new: Runs,
    size: u64,
    committed_size: u64,
}

impl FileMap {
    /// Nothing known.
    pub fn new() -> FileMap {
        FileMap::default()
    }

    /// What another process left uncommitted. Of what was committed nothing is known: only to be committed, never to be read by.
    pub fn recovered(extents: &[Extent], size: u64, grew: bool) -> FileMap {
        let mut map = FileMap { size, committed_size: if grew { 0 } else { size }, ..FileMap::default() };
        map.wrote(extents);
        map
    }

    /// Length in bytes; right while a layout over the block that holds it is held.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes over what a grant says about `range`, except inside `own`: ranges held exclusively before it came.
    /// `size` is the file's length, unless the own one is authoritative.
    pub fn merge(&mut self, range: BlockRange, extents: &[Extent], size: Option<u64>, own: &[BlockRange]) {
        let mut known = Runs::default();
        own.iter().flat_map(|r| self.runs.within(r.intersect(range))).for_each(|e| known.insert(e));
        self.runs.remove(range);
        for e in extents.iter().filter(|e| e.range().overlaps(range)) {
            self.runs.insert(slice(e, e.range().intersect(range)));
        }
        for r in own.iter().map(|r| r.intersect(range)).filter(|r| !r.is_empty()) {
            self.runs.remove(r);
        }
        known.0.into_values().for_each(|e| self.runs.insert(e));
        if let Some(size) = size {
            self.size = size;
            self.committed_size = size;
        }
    }

    /// What lies in a range, holes included, in order and without gaps.
    pub fn pieces(&self, range: BlockRange) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut at = range.start;
        for e in self.runs.within(range) {
            if at < e.file {
                pieces.push(Piece { range: BlockRange { start: at, end: e.file }, kind: Kind::Hole });
            }
            let (disk, shared) = (e.disk, e.shared);
            let kind = match e.state {
                ExtentState::Written => Kind::Written { disk, shared },
                ExtentState::Unwritten => Kind::Unwritten { disk, shared },
            };
            pieces.push(Piece { range: e.range(), kind });
            at = e.range().end;
        }
        if at < range.end {
            pieces.push(Piece { range: BlockRange { start: at, end: range.end }, kind: Kind::Hole });
        }
        pieces
    }

    /// Written, unshared extents, for a published snapshot.
    pub fn in_place(&self) -> Vec<Extent> {
        self.runs.0.values().filter(|e| e.state == ExtentState::Written && !e.shared).copied().collect()
    }

    /// How many extents are known.
    pub fn extents(&self) -> usize {
        self.runs.0.len()
    }

    /// These blocks now lie there, and hold data that was written.
    pub fn wrote(&mut self, extents: &[Extent]) {
        for e in extents {
            let e = Extent { state: ExtentState::Written, shared: false, ..*e };
            for hole in self.pieces(e.range()).into_iter().filter(|p| p.kind == Kind::Hole) {
                self.new.insert(slice(&e, hole.range));
            }
            self.runs.insert(e);
            self.uncommitted.insert(e);
        }
    }

    /// The file is at least this long now. `true` if that is news.
    pub fn grew(&mut self, size: u64) -> bool {
        let news = size > self.size;
        self.size = self.size.max(size);
        news
    }

    /// Blocks first written here that no commit has covered.
    pub fn uncommitted(&self, range: BlockRange) -> Vec<Extent> {
        self.uncommitted.within(range).collect()
    }

    /// Number of uncommitted extents.
    pub fn uncommitted_extents(&self) -> usize {
        self.uncommitted.0.len()
    }

    /// Blocks new to the file that no commit has covered: the coordinator does not count them yet.
    pub fn new_blocks(&self) -> u64 {
        self.new.0.values().map(|e| e.len.0).sum()
    }

    /// The length, if no commit has covered it.
    pub fn dirty_size(&self) -> Option<u64> {
        (self.size > self.committed_size).then_some(self.size)
    }

    /// Whether mappings or the length are uncommitted.
    pub fn is_dirty(&self) -> bool {
        !self.uncommitted.0.is_empty() || self.size > self.committed_size
    }

    /// What to commit of mapping and length; the caller adds times. Put together *before* the flush is submitted, sent
    /// after it was answered. At most `limit` extents. The length goes with the last part, so that no mapping is missing
    /// below it; so does `sync`, the number of the sync that the commit answers (0: none), because an earlier part shows
    /// less than what was written when it was asked for.
    pub fn commit_body(&self, limit: usize, sync: u64) -> CommitBody {
        let extents: Vec<Extent> = self.uncommitted.0.values().take(limit).copied().collect();
        let whole = extents.len() == self.uncommitted.0.len();
        let (size, sync) = if whole { (self.dirty_size(), sync) } else { (None, 0) };
        CommitBody { extents, size, sync, ..CommitBody::default() }
    }

    /// That body was committed.
    pub fn committed(&mut self, body: &CommitBody) {
        for e in &body.extents {
            self.uncommitted.remove(e.range());
            self.new.remove(e.range());
        }
        if let Some(size) = body.size {
            self.committed_size = self.committed_size.max(size);
        }
    }

    /// What no commit has covered is void: the disk lost it. Blocks that were holes are holes again, reserved ones read as zeroes
    /// again, and the length goes back.
    pub fn forget_uncommitted(&mut self) {
        let uncommitted = std::mem::take(&mut self.uncommitted);
        let new = std::mem::take(&mut self.new);
        for e in uncommitted.0.into_values() {
            self.runs.insert(Extent { state: ExtentState::Unwritten, ..e });
        }
        new.0.values().for_each(|e| self.runs.remove(e.range()));
        self.size = self.size.min(self.committed_size);
    }

    /// Forgets what lies outside `held`. What is uncommitted must be committed, or is lost with its layout.
    pub fn keep_only(&mut self, held: &[BlockRange]) {
        for runs in [&mut self.runs, &mut self.uncommitted, &mut self.new] {
            let mut kept = Runs::default();
            held.iter().flat_map(|r| runs.within(*r)).for_each(|e| kept.insert(e));
            *runs = kept;
        }
    }

    /// The own length is no longer to be committed (it was, or was lost).
    pub fn forget_size(&mut self) {
        self.committed_size = self.size;
    }
}
