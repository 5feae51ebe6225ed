//! Blocks: each is exactly one thing; counts fit; extents are well formed.

use std::collections::BTreeMap;

use redb::ReadableTable;

use super::{Report, inodes};
use crate::format::{BlockSpan, Superblock};
use crate::meta::error::Result;
use crate::meta::inode::Inode;
use crate::meta::map::{self, MAX_EXTENT};
use crate::meta::space::{self, GROUP_BLOCKS};
use crate::meta::tables::{Access, ReadTables};
use crate::types::{Extent, FileBlock};

/// What a run of blocks is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Use {
    Fixed,
    Free,
    Granted,
    Mapped(u64),
}

struct Run {
    start: u64,
    end: u64,
    usage: Use,
}

pub(super) fn check(t: &ReadTables, superblock: &Superblock, report: &mut Report) -> Result<()> {
    let mut runs: Vec<Run> = space::fixed_spans(superblock)
        .into_iter()
        .map(|s| Run { start: s.start, end: s.end(), usage: Use::Fixed })
        .collect();
    free(t, &mut runs, report)?;
    grants(t, &mut runs, report)?;
    extents(t, &mut runs, report)?;
    ranges(t, superblock, report)?;
    counters(t, report)?;
    cover(t, runs, superblock.blocks(), report)
}

fn free(t: &ReadTables, runs: &mut Vec<Run>, report: &mut Report) -> Result<()> {
    let mut by_group: BTreeMap<u32, u64> = BTreeMap::new();
    let mut last_end = None;
    for row in t.free().iter()? {
        let (key, len) = row?;
        let ((group, start), len) = (key.value(), u64::from(len.value()));
        report.unless(
            u64::from(group) == start / GROUP_BLOCKS && (start + len - 1) / GROUP_BLOCKS == u64::from(group),
            || format!("free run {start}+{len} is not within its group {group}"),
        );
        report.unless(last_end != Some((group, start)), || format!("free run {start}+{len} touches the one before"));
        last_end = Some((group, start + len));
        *by_group.entry(group).or_default() += len;
        report.free += len;
        runs.push(Run { start, end: start + len, usage: Use::Free });
    }
    for row in t.group().iter()? {
        let (group, count) = row?;
        let found = by_group.remove(&group.value()).unwrap_or(0);
        report.unless(u64::from(count.value()) == found, || {
            format!("group {} counts {} free blocks, but has {found}", group.value(), count.value())
        });
    }
    report.unless(by_group.is_empty(), || format!("groups without a count: {:?}", by_group.keys()));
    Ok(())
}

fn grants(t: &ReadTables, runs: &mut Vec<Run>, report: &mut Report) -> Result<()> {
    for row in t.grant().iter()? {
        let (key, len) = row?;
        let start = key.value().2;
        report.granted += len.value();
        runs.push(Run { start, end: start + len.value(), usage: Use::Granted });
    }
    Ok(())
}

fn extents(t: &ReadTables, runs: &mut Vec<Run>, report: &mut Report) -> Result<()> {
    let inodes: BTreeMap<u64, Inode> = inodes(t)?.into_iter().collect();
    let mut owned: BTreeMap<u64, u64> = BTreeMap::new();
    let mut last: Option<(u64, Extent)> = None;
    for row in t.extent().iter()? {
        let (key, value) = row?;
        let (ino, e) = (key.value().1, map::extent(key.value(), value.value()));
        report.extents += 1;
        report.mapped += e.len.0;
        *owned.entry(ino).or_default() += e.len.0;
        report.unless((1..=MAX_EXTENT).contains(&e.len.0), || format!("an extent of ino {ino} has {} blocks", e.len.0));
        report.unless(inodes.get(&ino).is_some_and(Inode::is_regular), || {
            format!("ino {ino} has extents, but is no regular file")
        });
        let end_of_last = last.filter(|(of, _)| *of == ino).map_or(FileBlock(0), |(_, l)| l.range().end);
        report.unless(e.file >= end_of_last, || format!("extents of ino {ino} overlap at file block {}", e.file.0));
        runs.push(Run { start: e.disk.0, end: e.disk.0 + e.len.0, usage: Use::Mapped(ino) });
        last = Some((ino, e));
    }
    for (ino, inode) in &inodes {
        let found = owned.get(ino).copied().unwrap_or(0);
        report.unless(inode.blocks == found, || format!("ino {ino} counts {} blocks, but has {found}", inode.blocks));
    }
    Ok(())
}

/// The store and the superblock agree on where the store lies.
fn ranges(t: &ReadTables, superblock: &Superblock, report: &mut Report) -> Result<()> {
    let mut recorded = Vec::new();
    for row in t.metarange().iter()? {
        let (start, len) = row?;
        recorded.push(BlockSpan { start: start.value(), len: len.value() });
    }
    let mut known: Vec<BlockSpan> = superblock.ranges.iter().chain(&superblock.next).copied().collect();
    known.sort_unstable();
    report.unless(recorded == known, || {
        format!("the store lists metadata ranges {recorded:?}, the superblock {known:?}")
    });
    Ok(())
}

fn counters(t: &ReadTables, report: &mut Report) -> Result<()> {
    for (name, found) in [("free", report.free), ("granted", report.granted)] {
        let counted = t.counter().get(name)?.map_or(0, |v| v.value());
        report.unless(counted == found, || format!("the count of {name} blocks is {counted}, but there are {found}"));
    }
    Ok(())
}

/// Walks the disk from its first block to its last: no gap, and no overlap but of mapped runs as often as counted.
fn cover(t: &ReadTables, runs: Vec<Run>, blocks: u64, report: &mut Report) -> Result<()> {
    let mut edges: BTreeMap<u64, (Vec<Use>, Vec<Use>)> = BTreeMap::new();
    for run in runs {
        report.unless(run.end <= blocks, || {
            format!("blocks {}..{} ({:?}) lie beyond the volume", run.start, run.end, run.usage)
        });
        edges.entry(run.start).or_default().0.push(run.usage);
        edges.entry(run.end).or_default().1.push(run.usage);
    }
    let mut counts: BTreeMap<u64, u32> = BTreeMap::new();
    for row in t.refcount().iter()? {
        let (start, value) = row?;
        let (start, (len, n)) = (start.value(), value.value());
        report.unless(n > 1, || format!("blocks from {start} store a reference count of {n}"));
        counts.insert(start, n);
        counts.entry(start + u64::from(len)).or_insert(1);
        edges.entry(start).or_default();
        edges.entry(start + u64::from(len)).or_default();
    }
    edges.entry(0).or_default();
    edges.entry(blocks).or_default();
    let (mut active, mut count): (Vec<Use>, u32) = (Vec::new(), 1);
    let mut points = edges.into_iter().peekable();
    while let Some((at, (begin, end))) = points.next() {
        for usage in end {
            if let Some(i) = active.iter().position(|u| *u == usage) {
                active.swap_remove(i);
            }
        }
        active.extend(begin);
        count = counts.get(&at).copied().unwrap_or(count);
        if let Some((next, _)) = points.peek().filter(|(next, _)| *next <= blocks) {
            judge(at, *next, &active, count, report);
        }
    }
    Ok(())
}

fn judge(at: u64, next: u64, active: &[Use], count: u32, report: &mut Report) {
    let fine = match active {
        [Use::Mapped(_), ..] => {
            active.iter().all(|u| matches!(u, Use::Mapped(_))) && active.len() as u64 == u64::from(count)
        }
        [_] => count == 1,
        _ => false,
    };
    report.unless(fine, || {
        format!("blocks {at}..{next} should be exactly one thing, but are {active:?} with reference count {count}")
    });
}
