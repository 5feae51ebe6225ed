//! The mapping of a file: extents of at most 1 GiB, none overlapping, neighbours joined where disk and state allow.
//!
//! **The order rule.** An extent becomes *written* here only by `commit_mappings`, and its caller has flushed the data
//! before. Everything else maps *unwritten* space, which reads as zeroes. So a crash never shows what the previous
//! owner of a block had written to it.

use redb::ReadableTable;

use super::error::{Result, damaged};
use super::ops::State;
use super::space;
use super::tables::{EXTENT_UNWRITTEN, ExtentKey, ExtentValue, TREE, Tables};
use crate::types::*;

/// The longest extent in blocks: 1 GiB.
pub(super) const MAX_EXTENT: u64 = (1 << 30) / FS_BLOCK;

/// An extent from its row.
pub(super) fn extent(key: ExtentKey, value: ExtentValue) -> Extent {
    let (disk, len, flags) = value;
    let state = if flags & EXTENT_UNWRITTEN != 0 { ExtentState::Unwritten } else { ExtentState::Written };
    Extent { file: FileBlock(key.2), disk: DiskBlock(disk), len: BlockCount(u64::from(len)), state, shared: false }
}

/// The part of an extent inside a range.
pub(super) fn clip(e: &Extent, range: BlockRange) -> Option<Extent> {
    let both = e.range().intersect(range);
    if both.is_empty() {
        return None;
    }
    let skip = both.start.0 - e.file.0;
    Some(Extent {
        file: both.start,
        disk: DiskBlock(e.disk.0 + skip),
        len: BlockCount(both.end.0 - both.start.0),
        ..*e
    })
}

/// The mapping of `range`, clipped to it, in order.
pub(super) fn mapped(
    t: &impl ReadableTable<ExtentKey, ExtentValue>,
    ino: InodeNo,
    range: BlockRange,
) -> Result<Vec<Extent>> {
    if range.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    let before = t.range((TREE, ino.0, 0)..(TREE, ino.0, range.start.0))?.next_back().transpose()?;
    if let Some((key, value)) = before {
        found.extend(clip(&extent(key.value(), value.value()), range));
    }
    for row in t.range((TREE, ino.0, range.start.0)..(TREE, ino.0, range.end.0))? {
        let (key, value) = row?;
        found.extend(clip(&extent(key.value(), value.value()), range));
    }
    Ok(found)
}

/// The first mapped part of `range`.
pub(super) fn first_mapped(
    t: &impl ReadableTable<ExtentKey, ExtentValue>,
    ino: InodeNo,
    range: BlockRange,
) -> Result<Option<Extent>> {
    if range.is_empty() {
        return Ok(None);
    }
    let before = t.range((TREE, ino.0, 0)..(TREE, ino.0, range.start.0))?.next_back().transpose()?;
    if let Some(part) = before.and_then(|(k, v)| clip(&extent(k.value(), v.value()), range)) {
        return Ok(Some(part));
    }
    let row = t.range((TREE, ino.0, range.start.0)..(TREE, ino.0, range.end.0))?.next().transpose()?;
    Ok(row.and_then(|(k, v)| clip(&extent(k.value(), v.value()), range)))
}

/// Whether any block of an extent has a reference count above 1.
pub(super) fn is_shared(t: &impl ReadableTable<u64, (u32, u32)>, e: &Extent) -> Result<bool> {
    let row = t.range(..e.disk.0 + e.len.0)?.next_back().transpose()?;
    Ok(row.is_some_and(|(at, v)| at.value() + u64::from(v.value().0) > e.disk.0))
}

/// The holes of `range`, given what is mapped there.
pub(super) fn holes(mapped: &[Extent], range: BlockRange) -> Vec<BlockRange> {
    let mut holes = Vec::new();
    let mut at = range.start;
    for e in mapped {
        holes.push(BlockRange { start: at, end: e.file });
        at = e.range().end;
    }
    holes.push(BlockRange { start: at, end: range.end });
    holes.retain(|h| !h.is_empty());
    holes
}

/// Takes the mapping of `range` away; what stuck out on either side stays. The blocks are not freed.
pub(super) fn unmap(t: &mut Tables<'_>, ino: InodeNo, range: BlockRange) -> Result<()> {
    let inside = mapped(&*t.extent, ino, range)?;
    for part in inside {
        let whole = containing(t, ino, part.file)?.ok_or_else(|| damaged("an extent vanished"))?;
        t.extent.remove((TREE, ino.0, whole.file.0))?;
        for rest in [
            BlockRange { start: whole.file, end: part.file },
            BlockRange { start: part.range().end, end: whole.range().end },
        ] {
            if let Some(rest) = clip(&whole, rest) {
                put(t, ino, &rest)?;
            }
        }
    }
    Ok(())
}

/// Maps an extent where nothing is mapped; joins it with its neighbours.
pub(super) fn insert(t: &mut Tables<'_>, ino: InodeNo, e: &Extent) -> Result<()> {
    let mut e = *e;
    if e.file.0 > 0
        && let Some(left) = containing(t, ino, FileBlock(e.file.0 - 1))?
        && joins(&left, &e)
    {
        t.extent.remove((TREE, ino.0, left.file.0))?;
        e = Extent { len: BlockCount(left.len.0 + e.len.0), ..left };
    }
    if let Some(right) = containing(t, ino, e.range().end)?
        && joins(&e, &right)
    {
        t.extent.remove((TREE, ino.0, right.file.0))?;
        e.len.0 += right.len.0;
    }
    let mut at = e.file;
    while at < e.range().end {
        let end = FileBlock(e.range().end.0.min(at.0 + MAX_EXTENT));
        if let Some(piece) = clip(&e, BlockRange { start: at, end }) {
            put(t, ino, &piece)?;
        }
        at = end;
    }
    Ok(())
}

fn joins(left: &Extent, right: &Extent) -> bool {
    left.range().end == right.file
        && left.disk.0 + left.len.0 == right.disk.0
        && left.state == right.state
        && left.len.0 + right.len.0 <= MAX_EXTENT
}

/// The extent that holds a block.
fn containing(t: &Tables<'_>, ino: InodeNo, block: FileBlock) -> Result<Option<Extent>> {
    let row = t.extent.range((TREE, ino.0, 0)..=(TREE, ino.0, block.0))?.next_back().transpose()?;
    Ok(row.map(|(k, v)| extent(k.value(), v.value())).filter(|e| e.range().end > block))
}

fn put(t: &mut Tables<'_>, ino: InodeNo, e: &Extent) -> Result<()> {
    let len = u32::try_from(e.len.0).map_err(|_| damaged("an extent is longer than 1 GiB"))?;
    let flags = if e.state == ExtentState::Unwritten { EXTENT_UNWRITTEN } else { 0 };
    t.extent.insert((TREE, ino.0, e.file.0), (e.disk.0, len, flags))?;
    Ok(())
}

/// Frees up to `limit` extents of a file at or above `from`, the last first. Returns the blocks unmapped and whether
/// none are left.
pub(super) fn free_tail(
    t: &mut Tables<'_>,
    s: &mut State,
    ino: InodeNo,
    from: FileBlock,
    limit: usize,
) -> Result<(u64, bool)> {
    let mut blocks = 0;
    for _ in 0..limit {
        let last = t.extent.range((TREE, ino.0, 0)..=(TREE, ino.0, u64::MAX))?.next_back().transpose()?;
        let last = last.map(|(k, v)| extent(k.value(), v.value()));
        let Some(tail) = last.and_then(|e| clip(&e, BlockRange { start: from, end: BlockRange::ALL.end })) else {
            return Ok((blocks, true));
        };
        unmap(t, ino, tail.range())?;
        release(t, s, DiskRange { start: tail.disk, len: tail.len })?;
        blocks += tail.len.0;
    }
    let rest = t.extent.range((TREE, ino.0, 0)..=(TREE, ino.0, u64::MAX))?.next_back().transpose()?;
    let rest = rest.map(|(k, v)| extent(k.value(), v.value())).is_some_and(|e| e.range().end > from);
    Ok((blocks, !rest))
}

/// Drops one reference to each block of a range; those without another become free.
pub(super) fn release(t: &mut Tables<'_>, s: &mut State, range: DiskRange) -> Result<()> {
    let (mut at, end) = (range.start.0, range.start.0 + range.len.0);
    while at < end {
        let Some((start, len, count)) = first_counted(t, at, end)? else {
            return space::free(t, s, DiskRange { start: DiskBlock(at), len: BlockCount(end - at) });
        };
        if start > at {
            space::free(t, s, DiskRange { start: DiskBlock(at), len: BlockCount(start - at) })?;
            at = start;
        }
        let stop = end.min(start + len);
        uncount(t, (start, len, count), at, stop)?;
        at = stop;
    }
    Ok(())
}

/// The first counted run that reaches into `[at, end)`.
fn first_counted(t: &Tables<'_>, at: u64, end: u64) -> Result<Option<(u64, u64, u32)>> {
    let run = |k: u64, v: (u32, u32)| (k, u64::from(v.0), v.1);
    if let Some((k, v)) = t.refcount.range(..=at)?.next_back().transpose()? {
        let (start, len, count) = run(k.value(), v.value());
        if start + len > at {
            return Ok(Some((start, len, count)));
        }
    }
    Ok(t.refcount.range(at..end)?.next().transpose()?.map(|(k, v)| run(k.value(), v.value())))
}

/// Lowers the count of `[from, to)` inside a counted run; a count of 1 is not stored.
fn uncount(t: &mut Tables<'_>, (start, len, count): (u64, u64, u32), from: u64, to: u64) -> Result<()> {
    let len32 = |n: u64| u32::try_from(n).map_err(|_| damaged("a counted run is longer than 16 TiB"));
    t.refcount.remove(start)?;
    if start < from {
        t.refcount.insert(start, (len32(from - start)?, count))?;
    }
    if to < start + len {
        t.refcount.insert(to, (len32(start + len - to)?, count))?;
    }
    if count > 2 {
        t.refcount.insert(from, (len32(to - from)?, count - 1))?;
    }
    Ok(())
}
