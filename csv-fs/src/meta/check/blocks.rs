//! Blocks: each is exactly one of reserved (format and metadata), free, granted to one client, or mapped by as many
//! extents as its reference count says.
//!
//! Runs of all kinds are gathered from their tables, sorted, and walked from the first block to the last. A part of the
//! disk at a time: of all runs those that begin first, as many as the limits allow; for the next part the tables are read
//! again. What reaches from one part into the next is carried along.

use super::Checker;
use super::finding::{Kind, Repair, ino};
use crate::format::BlockSpan;
use crate::meta::error::Result;
use crate::meta::space::{self, GROUP_BLOCKS};

const PART: &str = "blocks";

/// Who has a run of blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    Reserved,
    Free,
    Granted {
        node: u8,
        life: u64,
    },
    Mapped {
        ino: u64,
    },
    /// A row of the reference counts.
    Counted {
        count: u32,
    },
}

#[derive(Clone, Copy, Debug)]
struct Run {
    start: u64,
    end: u64,
    who: Who,
}

const _: () = assert!(size_of::<Run>() == 32, "the limits count on it");

/// The runs of a part of the disk.
struct Gathered {
    from: u64,
    /// Runs that begin here or later are of a later part.
    limit: u64,
    keep: usize,
    runs: Vec<Run>,
}

impl Gathered {
    fn new(from: u64, keep: usize) -> Gathered {
        Gathered { from, limit: u64::MAX, keep: keep.max(1), runs: Vec::new() }
    }

    fn put(&mut self, start: u64, len: u64, who: Who) {
        if start < self.from || start >= self.limit || len == 0 {
            return;
        }
        self.runs.push(Run { start, end: start.saturating_add(len), who });
        if self.runs.len() > self.keep + self.keep / 4 {
            self.shorten();
        }
    }

    /// Leaves the later ones to the next part. At least one start stays, however many runs have it.
    fn shorten(&mut self) {
        let first = self.runs.iter().map(|r| r.start).min().unwrap_or(self.from);
        let (_, nth, _) = self.runs.select_nth_unstable_by_key(self.keep, |r| r.start);
        let cut = nth.start.max(first.saturating_add(1));
        self.limit = cut;
        self.runs.retain(|r| r.start < cut);
    }
}

pub(super) fn check(c: &mut Checker<'_>) -> Result<()> {
    c.begin(PART)?;
    free_space(c)?;
    let reserved = reserved(c)?;
    let mut walk = Walk::default();
    let mut from = 0;
    loop {
        let mut part = Gathered::new(from, c.limits.runs);
        gather(c, &reserved, &mut part, from == 0)?;
        part.runs.sort_unstable_by_key(|r| r.start);
        let limit = part.limit;
        walk.runs(c, &part.runs, limit);
        if limit == u64::MAX {
            break;
        }
        from = limit;
    }
    walk.end(c);
    Ok(())
}

/// Rows of the free space, and the counts of its groups.
fn free_space(c: &mut Checker<'_>) -> Result<()> {
    let mut groups = super::source::Cursor::new(c.source.groups()?)?;
    let mut now: (u32, u64) = (0, 0);
    let mut before: Option<(u32, u64)> = None;
    for row in c.source.free()? {
        let row = row?;
        c.row(PART)?;
        let (start, len) = (row.start, u64::from(row.len));
        c.report.free += len;
        let last = start.saturating_add(len).saturating_sub(1);
        let inside = u64::from(row.group) == start / GROUP_BLOCKS && last / GROUP_BLOCKS == u64::from(row.group);
        let wrong = if len == 0 || !inside {
            Some("is not within its group")
        } else if before == Some((row.group, start)) {
            Some("touches the one before")
        } else {
            None
        };
        if let Some(wrong) = wrong {
            let what = format!("the run of {len} free blocks from {start} in group {} {wrong}", row.group);
            c.found(Kind::FreeRun, what, Repair::RemoveFreeRow { group: row.group, start });
        }
        before = Some((row.group, start.saturating_add(len)));
        if row.group != now.0 {
            group(c, &mut groups, now)?;
            now = (row.group, 0);
        }
        now.1 += len;
    }
    group(c, &mut groups, now)?;
    while let Some((n, counted)) = groups.next()? {
        miscounted(c, n, counted, 0);
    }
    Ok(())
}

/// Compares one group's count, after those of groups that have no free block.
fn group(c: &mut Checker<'_>, groups: &mut super::source::Cursor<'_, (u32, u32)>, (n, free): (u32, u64)) -> Result<()> {
    while let Some((empty, counted)) = groups.next_if(|g| g.0 < n)? {
        miscounted(c, empty, counted, 0);
    }
    let counted = groups.next_if(|g| g.0 == n)?.map_or(0, |g| g.1);
    miscounted(c, n, counted, free);
    Ok(())
}

fn miscounted(c: &mut Checker<'_>, group: u32, counted: u32, free: u64) {
    if u64::from(counted) != free {
        let what = format!("group {group} counts {counted} free blocks, but has {free}");
        let repair = u32::try_from(free).ok().map(|free| Repair::SetGroup { group, free });
        c.found(Kind::GroupCount, what, repair);
    }
}

/// What is never data: of the format, and wherever superblock or store say that metadata lie.
fn reserved(c: &mut Checker<'_>) -> Result<Vec<BlockSpan>> {
    let mut spans = space::fixed_spans(c.superblock);
    let known: Vec<BlockSpan> = c.superblock.ranges.iter().chain(&c.superblock.next).copied().collect();
    let mut stored = Vec::new();
    for row in c.source.metaranges()? {
        let (start, len) = row?;
        stored.push(BlockSpan { start, len });
    }
    for span in known.iter().filter(|s| !stored.contains(s)) {
        let what = format!("the store does not know of its own {} blocks from {}", span.len, span.start);
        c.found(Kind::MetaRange, what, Repair::PutMetaRange { start: span.start, len: span.len });
    }
    for span in stored.into_iter().filter(|s| !known.contains(s)) {
        let end = span.start.saturating_add(span.len);
        if end > c.superblock.blocks() || spans.iter().any(|s| s.start < end && span.start < s.end()) {
            let what = format!("the store claims {} blocks from {}, which it cannot have", span.len, span.start);
            c.found(Kind::MetaRange, what, None);
            continue;
        }
        c.report.notes.push(format!(
            "{} blocks from {} are set aside for the metadata and not in the superblock yet; the next opening enters them",
            span.len, span.start
        ));
        spans.push(span);
    }
    Ok(spans)
}

fn gather(c: &mut Checker<'_>, reserved: &[BlockSpan], part: &mut Gathered, first: bool) -> Result<()> {
    let blocks = c.superblock.blocks();
    for span in reserved {
        part.put(span.start, span.len, Who::Reserved);
    }
    for row in c.source.free()? {
        let row = row?;
        c.row(PART)?;
        part.put(row.start, row.len.into(), Who::Free);
    }
    for row in c.source.grants()? {
        let g = row?;
        if first {
            c.report.granted += g.len;
        }
        part.put(g.start, g.len, Who::Granted { node: g.node, life: g.life });
    }
    let mut counted_up_to = 0;
    for row in c.source.refcounts()? {
        let r = row?;
        c.row(PART)?;
        if first && (r.count < 2 || r.len == 0 || r.start < counted_up_to) {
            let what = format!("{} blocks from {} store a reference count of {}", r.len, r.start, r.count);
            let repair = (r.count < 2).then_some(Repair::SetRefcount { start: r.start, len: r.len.into(), count: 1 });
            c.found(Kind::Refcount, what, repair);
        }
        counted_up_to = r.start.saturating_add(r.len.into());
        if r.count > 1 {
            part.put(r.start, r.len.into(), Who::Counted { count: r.count });
        }
    }
    for row in c.source.extents()? {
        let e = row?;
        c.row(PART)?;
        part.put(e.disk, e.len.into(), Who::Mapped { ino: e.ino });
    }
    part.runs.retain_mut(|run| within(c, run, blocks));
    Ok(())
}

/// Reports what a run has beyond the volume and cuts it off; false if nothing is left.
fn within(c: &mut Checker<'_>, run: &mut Run, blocks: u64) -> bool {
    if run.end <= blocks {
        return true;
    }
    let start = run.start.max(blocks);
    let len = run.end - start;
    let (who, repair) = match run.who {
        Who::Free => ("free".to_owned(), Some(Repair::TakeFree { start, len })),
        Who::Granted { node, life } => {
            (format!("granted to node {node}"), Some(Repair::TakeGrant { node, life, start, len }))
        }
        Who::Mapped { ino: n } => (format!("mapped by {}", ino(n)), None),
        Who::Counted { .. } => ("counted".to_owned(), Some(Repair::SetRefcount { start, len, count: 1 })),
        Who::Reserved => ("reserved".to_owned(), None),
    };
    let what = format!("{len} blocks from {start} are {who}, but lie beyond the volume");
    c.found(Kind::OutsideVolume, what, repair);
    run.end = blocks;
    run.start < blocks
}

/// What is wrong with some blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Lost,
    FreeInUse { by: Who },
    GrantInUse { node: u8, life: u64, by: Who },
    MappedTwice { one: u64, other: u64, references: u32 },
    MappedReserved { ino: u64 },
    Refcount { stored: u32, found: u32 },
}

/// The walk over the disk.
#[derive(Default)]
struct Walk {
    at: u64,
    active: Vec<Run>,
    /// What the blocks before `at` came to, not reported yet: the next ones may come to the same.
    open: Option<(u64, Verdict)>,
}

impl Walk {
    /// Walks up to `limit` with the runs that begin before it, in order.
    fn runs(&mut self, c: &mut Checker<'_>, runs: &[Run], limit: u64) {
        for run in runs {
            self.go(c, run.start);
            self.active.push(*run);
        }
        if limit != u64::MAX {
            // What a part ends before may be a run beyond the volume.
            self.go(c, limit.min(c.superblock.blocks()));
        }
    }

    fn end(&mut self, c: &mut Checker<'_>) {
        self.go(c, c.superblock.blocks());
        self.settle(c, None);
    }

    fn go(&mut self, c: &mut Checker<'_>, to: u64) {
        while self.at < to {
            let ends = self.active.iter().map(|r| r.end).filter(|end| *end > self.at).min();
            let next = ends.map_or(to, |end| end.min(to));
            let verdict = judge(&self.active);
            self.settle(c, verdict);
            self.at = next;
            self.active.retain(|r| r.end > next);
        }
    }

    /// Blocks from `at` on come to this.
    fn settle(&mut self, c: &mut Checker<'_>, verdict: Option<Verdict>) {
        if self.open.map(|(_, v)| v) == verdict {
            return;
        }
        if let Some((start, old)) = self.open.take() {
            report(c, start, self.at - start, old);
        }
        self.open = verdict.map(|v| (self.at, v));
    }
}

fn judge(active: &[Run]) -> Option<Verdict> {
    let count = |f: fn(&Who) -> bool| active.iter().filter(|r| f(&r.who)).count();
    let reserved = count(|w| matches!(w, Who::Reserved));
    let free = count(|w| matches!(w, Who::Free));
    let granted = count(|w| matches!(w, Who::Granted { .. }));
    let mapped = count(|w| matches!(w, Who::Mapped { .. }));
    let stored = active.iter().find_map(|r| if let Who::Counted { count } = r.who { Some(count) } else { None });
    let other =
        |but: fn(&Who) -> bool| active.iter().map(|r| r.who).find(|w| !but(w) && !matches!(w, Who::Counted { .. }));
    let grants = || {
        active
            .iter()
            .rev()
            .find_map(|r| if let Who::Granted { node, life } = r.who { Some((node, life)) } else { None })
    };
    // In the order of their numbers: which one is met first depends on where a part of the disk begins.
    let files = |above: Option<u64>| {
        let inos = active.iter().filter_map(|r| if let Who::Mapped { ino } = r.who { Some(ino) } else { None });
        inos.filter(|n| above.is_none_or(|above| *n > above)).min()
    };
    let first = files(None).unwrap_or(0);
    let references = u32::try_from(mapped).unwrap_or(u32::MAX);
    match stored {
        _ if reserved + free + granted + mapped == 0 && stored.is_none() => Some(Verdict::Lost),
        _ if free > 1 => Some(Verdict::FreeInUse { by: Who::Free }),
        _ if free == 1 && reserved + granted + mapped > 0 => {
            other(|w| matches!(w, Who::Free)).map(|by| Verdict::FreeInUse { by })
        }
        _ if granted > 0 && reserved + granted + mapped > 1 => {
            let by = other(|w| matches!(w, Who::Granted { .. })).or(active.first().map(|r| r.who));
            grants().zip(by).map(|((node, life), by)| Verdict::GrantInUse { node, life, by })
        }
        _ if reserved > 0 && mapped > 0 => Some(Verdict::MappedReserved { ino: first }),
        Some(stored) if stored != references => Some(Verdict::Refcount { stored, found: references }),
        None if mapped > 1 => {
            Some(Verdict::MappedTwice { one: first, other: files(Some(first)).unwrap_or(first), references })
        }
        _ => None,
    }
}

fn report(c: &mut Checker<'_>, start: u64, len: u64, verdict: Verdict) {
    let run = format!("{len} blocks from {start}");
    let by = |who: Who| match who {
        Who::Reserved => "reserved for format or metadata".to_owned(),
        Who::Free => "listed twice".to_owned(),
        Who::Granted { node, life } => format!("granted to node {node} incarnation {life}"),
        Who::Mapped { ino: n } => format!("mapped by {}", ino(n)),
        Who::Counted { .. } => "counted".to_owned(),
    };
    let (kind, what, repair) = match verdict {
        Verdict::Lost => (Kind::BlockLost, format!("{run} belong to nobody"), Some(Repair::AddFree { start, len })),
        Verdict::FreeInUse { by: who } => {
            (Kind::FreeInUse, format!("{run} are free, and {}", by(who)), Some(Repair::TakeFree { start, len }))
        }
        Verdict::GrantInUse { node, life, by: who } => {
            let repair = Repair::TakeGrant { node, life, start, len };
            let what = format!("{run} are granted to node {node} incarnation {life}, and {}", by(who));
            (Kind::GrantInUse, what, Some(repair))
        }
        Verdict::MappedTwice { one, other, references } => {
            let (one, other) = (ino(one), ino(other));
            let what = format!(
                "{run} are mapped by {one} and by {other} and not counted so: what is written to one shows in the other"
            );
            (Kind::MappedTwice, what, Some(Repair::SetRefcount { start, len, count: references }))
        }
        Verdict::MappedReserved { ino: n } => {
            (Kind::MappedReserved, format!("{run} are reserved, and mapped by {}", ino(n)), None)
        }
        Verdict::Refcount { stored, found } => {
            let what = format!("{run} have reference count {stored}, but {found} references");
            (Kind::Refcount, what, Some(Repair::SetRefcount { start, len, count: found.max(1) }))
        }
    };
    c.found(kind, what, repair);
}
