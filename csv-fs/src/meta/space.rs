//! Free space: runs of free blocks, kept by groups of 1 GiB with a count for each.
//!
//! A run never crosses a group, and two runs of a group never touch, so that a run as large as possible is found by
//! walking one group. Everything here happens inside the caller's transaction.

use redb::ReadableTable;

use super::error::{Result, damaged};
use super::ops::State;
use super::tables::Tables;
use crate::format::{BlockSpan, FIRST_RANGE, SUPERBLOCKS, Superblock};
use crate::types::{BlockCount, DiskBlock, DiskRange, FS_BLOCK};

/// Blocks of a group: 1 GiB.
pub(super) const GROUP_BLOCKS: u64 = (1 << 30) / FS_BLOCK;

/// How much [`allocate`] may hand out, and where it looks first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Blocks.
    pub(super) blocks: u64,
    /// Runs at most.
    pub(super) runs: usize,
    /// The group where the search starts, so that nodes do not share groups as long as there are enough.
    pub(super) goal: u64,
}

/// What is never free and never data: the front of the disk, the third superblock, the metadata ranges. Sorted and
/// without overlap.
pub(super) fn fixed_spans(superblock: &Superblock) -> Vec<BlockSpan> {
    let front = BlockSpan { start: 0, len: FIRST_RANGE.0 / FS_BLOCK };
    let third = BlockSpan { start: SUPERBLOCKS[2].0 / FS_BLOCK, len: 1 };
    let mut spans = vec![front, third];
    spans.extend(superblock.ranges.iter().chain(&superblock.next));
    spans.sort_unstable();
    spans
}

/// The group of a block, as the tables have it.
pub(super) fn group_of(block: u64) -> Result<u32> {
    u32::try_from(block / GROUP_BLOCKS).map_err(|_| damaged("a block lies beyond the last group"))
}

/// Gives a run back.
pub(super) fn free(t: &mut Tables<'_>, s: &mut State, range: DiskRange) -> Result<()> {
    let (mut at, end) = (range.start.0, range.start.0 + range.len.0);
    while at < end {
        let stop = end.min((at / GROUP_BLOCKS + 1) * GROUP_BLOCKS);
        free_in_group(t, at, stop)?;
        at = stop;
    }
    s.free += range.len.0;
    Ok(())
}

fn free_in_group(t: &mut Tables<'_>, start: u64, end: u64) -> Result<()> {
    let group = group_of(start)?;
    let (mut first, mut last) = (start, end);
    let before = neighbour_before(t, group, start)?;
    if let Some((at, len)) = before {
        if at + len > start {
            return Err(damaged("a block was freed twice"));
        }
        if at + len == start {
            t.free.remove((group, at))?;
            first = at;
        }
    }
    let after = t
        .free
        .range((group, start)..=(group, u64::MAX))?
        .next()
        .transpose()?
        .map(|(k, v)| (k.value().1, u64::from(v.value())));
    if let Some((at, len)) = after {
        if at < end {
            return Err(damaged("a block was freed twice"));
        }
        if at == end {
            t.free.remove((group, at))?;
            last = at + len;
        }
    }
    t.free.insert((group, first), len32(last - first)?)?;
    add_to_group(t, group, end - start, true)
}

fn neighbour_before(t: &Tables<'_>, group: u32, start: u64) -> Result<Option<(u64, u64)>> {
    let row = t.free.range((group, 0)..(group, start))?.next_back().transpose()?;
    Ok(row.map(|(k, v)| (k.value().1, u64::from(v.value()))))
}

fn add_to_group(t: &mut Tables<'_>, group: u32, blocks: u64, add: bool) -> Result<()> {
    let blocks = len32(blocks)?;
    let old = t.group.get(group)?.map_or(0, |v| v.value());
    let new = if add { old.checked_add(blocks) } else { old.checked_sub(blocks) };
    let new = new.ok_or_else(|| damaged("the count of a group's free blocks is wrong"))?;
    if new == 0 {
        t.group.remove(group)?;
    } else {
        t.group.insert(group, new)?;
    }
    Ok(())
}

/// Takes up to `wanted.blocks` in at most `wanted.runs` runs; less if the volume has less. Groups that can serve the
/// whole request are tried first, from the goal onwards and round; then all.
pub(super) fn allocate(t: &mut Tables<'_>, s: &mut State, wanted: Wanted) -> Result<Vec<DiskRange>> {
    let mut groups: Vec<(u32, u64)> = Vec::new();
    for row in t.group.iter()? {
        let (group, free) = row?;
        groups.push((group.value(), u64::from(free.value())));
    }
    let goal = groups.partition_point(|(g, _)| u64::from(*g) < wanted.goal);
    groups.rotate_left(goal);
    // Stable: keeps the order from the goal among equals.
    groups.sort_by_key(|(_, free)| *free < wanted.blocks.min(GROUP_BLOCKS));
    let mut taken: Vec<DiskRange> = Vec::new();
    let mut left = wanted.blocks;
    for (group, _) in groups {
        if left == 0 || taken.len() >= wanted.runs {
            break;
        }
        left -= take_from_group(t, group, left, wanted.runs, &mut taken)?;
    }
    let got: u64 = taken.iter().map(|r| r.len.0).sum();
    s.free = s.free.checked_sub(got).ok_or_else(|| damaged("the count of free blocks is wrong"))?;
    Ok(taken)
}

/// Takes from one group: the first run that is long enough, else one run after another.
fn take_from_group(t: &mut Tables<'_>, group: u32, want: u64, runs: usize, taken: &mut Vec<DiskRange>) -> Result<u64> {
    let mut free: Vec<(u64, u64)> = Vec::new();
    for row in t.free.range((group, 0)..=(group, u64::MAX))? {
        let (key, len) = row?;
        free.push((key.value().1, u64::from(len.value())));
        if u64::from(len.value()) >= want {
            free = vec![(key.value().1, u64::from(len.value()))];
            break;
        }
    }
    let room = runs.saturating_sub(taken.len());
    if free.len() > room {
        // Only so many runs may be handed out: let them be the longest.
        free.sort_unstable_by_key(|(_, len)| std::cmp::Reverse(*len));
        free.truncate(room);
        free.sort_unstable();
    }
    let mut got = 0;
    for (start, len) in free {
        let n = len.min(want - got);
        if n == 0 {
            break;
        }
        t.free.remove((group, start))?;
        if n < len {
            t.free.insert((group, start + n), len32(len - n)?)?;
        }
        taken.push(DiskRange { start: DiskBlock(start), len: BlockCount(n) });
        got += n;
    }
    if got > 0 {
        add_to_group(t, group, got, false)?;
    }
    Ok(got)
}

fn len32(blocks: u64) -> Result<u32> {
    u32::try_from(blocks).map_err(|_| damaged("a run is longer than a group"))
}
