//! Writes off the hot path: under an exclusive layout where they allocate, grow or touch part of a block, in place
//! over several extents, or over the coordinator.
//!
//! 1. space is reserved, 2. the layout's guard taken, 3. an append fixes its offset, 4. the block range is locked, and the
//!    length looked at under that lock, 5. for a sub-block write hot writes of this file are kept out, 6. the mapping is looked at, 7. data is written, blocks new
//!    to the file filled up with zeroes, 8. mapping and length change, and the caller is told.
//!
//! What is new to the file is mapped here only after its data was written, and committed only after a flush: nobody
//! ever reads a block's former contents (invariant 5). A write that finds at 6 that 1 was too little starts over. One for
//! which there is not enough space anywhere is as long as there is; ENOSPC is said when there is none for its first block.
//!
//! Nothing that one life of this node accepted is done in the next: EIO. Prevents: a write that came back from a path that was
//! lost, or waits for its layout, is executed after the lock that it was made under was given to others. Blocks of a write
//! that failed stay granted until the session ends: it may still land.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use block::buf::AlignedBuf;

use super::disk::{Again, Fault};
use super::{DataPath, OpenFile, WriteTo};
use crate::client::counters::add;
use crate::client::inode::{Inode, State, wall_nanos};
use crate::client::layout::{LayoutCell, LayoutGuard};
use crate::client::session::{Caller, EIO, Errno};
use crate::client::space::{ENOSPC, Reserved};
use crate::core::client::map::{Kind, Piece};
use crate::core::client::{Note, Sweep};
use crate::core::rules::Rule;
use crate::proto::{Request, SetAttr, Want};
use crate::types::*;

/// A file takes this much more than a write needs, at most, so that its next blocks lie behind: 4 MiB.
const AHEAD_MAX: u64 = 1024;
/// With more uncommitted extents than this a commit is begun in the background; bounds what a recall has to send.
const UNCOMMITTED_MAX: usize = 1024;
/// Byte offsets end here, as in the kernel.
const OFFSET_MAX: u64 = i64::MAX as u64;
/// `EFBIG`.
const EFBIG: i32 = rustix::io::Errno::FBIG.raw_os_error();
/// `EOPNOTSUPP`.
pub(super) const EOPNOTSUPP: i32 = rustix::io::Errno::OPNOTSUPP.raw_os_error();

/// How one attempt ended.
pub(super) enum Attempt {
    Done(u32),
    Space(Missing),
    Restart,
    /// In place, and it may have been executed.
    InDoubt,
}

/// What a write is, besides its data.
#[derive(Clone, Copy)]
pub(super) struct How {
    /// suid, sgid and capabilities are to go.
    pub(super) kill: bool,
    /// In which life of this node it was accepted.
    pub(super) life: u64,
    /// When it was.
    pub(super) began: Instant,
    /// It may have been executed.
    pub(super) doubtful: bool,
}

/// Blocks that a write lacks.
pub(super) struct Missing {
    blocks: u64,
    /// Where the write begins, and what it would fill.
    at: u64,
    holes: Vec<BlockRange>,
}

impl Missing {
    /// How many bytes of the write need no more than so many blocks.
    fn fitting(&self, mut blocks: u64) -> usize {
        for hole in &self.holes {
            let len = hole.end.0 - hole.start.0;
            if len > blocks {
                let end = (hole.start.0 + blocks) * FS_BLOCK;
                return usize::try_from(end.saturating_sub(self.at)).unwrap_or(usize::MAX);
            }
            blocks -= len;
        }
        usize::MAX
    }
}

/// What one attempt works with.
struct Job<'a> {
    inode: &'a Arc<Inode>,
    append: bool,
    guard: &'a LayoutGuard,
    offset: u64,
    end: u64,
    /// It makes the file longer.
    grows: bool,
    caller: &'a Caller,
}

/// A run of the image on consecutive disk blocks.
struct Segment {
    disk: u64,
    len: usize,
}

/// What a write looks like on the disk.
struct Plan {
    /// First byte of the image, at or before the write's.
    start: u64,
    /// First byte after the image.
    stop: u64,
    segments: Vec<Segment>,
    /// Blocks that are new to the file, or unwritten so far.
    fresh: Vec<Extent>,
    /// The first and last blocks hold data that must be kept around what is written.
    keep_head: Option<u64>,
    keep_tail: Option<u64>,
}

impl Plan {
    /// Where the bytes `[from, to)` of the file lie on the disk.
    fn spans(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, usize)> {
        let mut start = self.start;
        self.segments.iter().filter_map(move |segment| {
            let (first, stop) = (start, start + segment.len as u64);
            start = stop;
            let (from, to) = (from.max(first), to.min(stop));
            (from < to).then(|| (segment.disk + (from - first), (to - from) as usize))
        })
    }
}

impl DataPath {
    /// `fresh`: through this handle, and nothing of it was done yet.
    pub(super) fn slow_write(
        &self,
        inode: Arc<Inode>,
        offset: Option<u64>,
        data: AlignedBuf,
        kill: bool,
        (mut to, since, fresh): (WriteTo, Sweep, Option<Arc<OpenFile>>),
    ) {
        add(&self.counters().slow, 1);
        let Some(me) = self.me() else { return to.answer(Err(Errno(EIO))) };
        if offset.is_none()
            && let Some((unique, done)) = self.has_appended(to.unique())
        {
            to.answer(done);
            return self.session.note(|| Note::Replied(unique));
        }
        self.run(to.unique(), since, |caller| async move {
            if let Err(errno) = me.begins_in_its_life(fresh, to.life, &caller).await {
                return to.answer(Err(errno));
            }
            let how = How { kill, life: to.life, began: to.began, doubtful: to.doubtful };
            // Here, since whoever tells of a failure may have the session's lock.
            if to.doubtful
                && let Err(errno) = me.lands_no_more(to.began, to.held.take(), &caller).await
            {
                return to.answer(Err(errno));
            }
            to.answer(me.write_anywhere(&inode, offset, data, how, &caller).await)
        });
    }

    /// A write that came between two lives waits for the next one, see [`crate::client::session`], `lives`.
    async fn begins_in_its_life(&self, fresh: Option<Arc<OpenFile>>, life: u64, caller: &Caller) -> Result<(), Errno> {
        let Some(file) = fresh.filter(|_| life == self.life()) else { return Ok(()) };
        self.session.next_life(caller).await?;
        if file.is_poisoned() { Err(Errno(EIO)) } else { Ok(()) }
    }

    pub(super) async fn write_anywhere(
        &self,
        inode: &Arc<Inode>,
        offset: Option<u64>,
        mut data: AlignedBuf,
        How { kill, life, began, mut doubtful }: How,
        caller: &Caller,
    ) -> Result<u32, Errno> {
        if data.is_empty() {
            return Ok(0);
        }
        let mut missing: Option<Missing> = None;
        loop {
            let mut reserved = None;
            if let Some(missing) = missing.take() {
                let near = self.behind(inode, offset);
                let got = self.reserve(caller, missing.blocks, near).await?;
                if got.left() < missing.blocks {
                    match missing.fitting(got.left()) {
                        0 => return Err(Errno(ENOSPC)),
                        n => data.truncate(n.min(data.len())),
                    }
                }
                reserved = Some(got);
            }
            let settles = offset.filter(|_| doubtful);
            let guard = match settles {
                Some(at) => {
                    let range = BlockRange::of_bytes(at, data.len() as u64);
                    self.guard_alone(inode, range, &caller.uninterrupted()).await?
                }
                None => self.guard_for_write(inode, offset, data.len() as u64, caller).await?,
            };
            // Looked at under the guard: it is of this life or is gone.
            if self.space.life() != life {
                return Err(Errno(EIO));
            }
            if guard.kills(kill) {
                let cell = Arc::clone(&guard);
                drop(guard);
                self.kill_privilege(inode, kill, caller).await?;
                cell.killed(kill);
                continue;
            }
            let attempt = match offset {
                Some(offset) if doubtful => self.settle(inode, &guard, (offset, &data), began, caller).await?,
                Some(offset) => self.attempt(inode, &guard, (offset, false), &mut data, reserved, caller).await?,
                None => {
                    let _one = self.session.unless_given_up(caller, inode.appending.lock()).await?;
                    let size = inode.state.lock().map.size();
                    self.attempt(inode, &guard, (size, true), &mut data, reserved, caller).await?
                }
            };
            match attempt {
                Attempt::Done(n) => return Ok(n),
                Attempt::Space(blocks) => missing = Some(blocks),
                Attempt::Restart => {}
                Attempt::InDoubt => {
                    doubtful = true;
                    self.lands_no_more(began, Some(guard), caller).await?;
                }
            }
        }
    }

    /// So many blocks, or as many as there are: with what other files of this node keep for their next blocks.
    async fn reserve(&self, caller: &Caller, blocks: u64, near: Option<DiskBlock>) -> Result<Reserved, Errno> {
        match self.space.reserve(caller, blocks, near).await {
            Err(Errno(ENOSPC)) => {
                self.take_reserves_back();
                Ok(self.space.take_what_there_is(blocks, near))
            }
            other => other,
        }
    }

    async fn kill_privilege(&self, inode: &Inode, unprivileged: bool, caller: &Caller) -> Result<(), Errno> {
        let set = SetAttr { kill_suid_sgid: unprivileged, kill_capability: true, ..SetAttr::default() };
        self.session.call(caller, Request::Setattr { ino: inode.ino, set }).await.map(drop)
    }

    /// The disk block behind the last one before the write, where it would like to go on.
    fn behind(&self, inode: &Inode, offset: Option<u64>) -> Option<DiskBlock> {
        let state = inode.state.lock();
        let block = offset.unwrap_or(state.map.size()).div_ceil(FS_BLOCK).checked_sub(1)?;
        let piece = *state.map.pieces(BlockRange::new(block, block + 1)).first()?;
        match piece.kind {
            Kind::Written { disk, .. } | Kind::Unwritten { disk, .. } => Some(DiskBlock(disk.0 + 1)),
            Kind::Hole => None,
        }
    }

    /// A layout that allows this write, with a guard. An append gets one that rules the length.
    async fn guard_for_write(
        &self,
        inode: &Arc<Inode>,
        offset: Option<u64>,
        len: u64,
        caller: &Caller,
    ) -> Result<LayoutGuard, Errno> {
        let mut held: Option<LayoutGuard> = None;
        loop {
            // Looked at under the guard of the layout that came last: it cannot go back in between.
            let (cell, range, want) = self.wanted(inode, offset, len, held.as_ref().map(|g| g.id))?;
            match cell {
                Some(cell) if held.as_ref().is_some_and(|g| g.id == cell.id) => {
                    if let Some(guard) = held {
                        return Ok(guard);
                    }
                }
                Some(cell) => {
                    if let Some(guard) = cell.guard() {
                        return Ok(guard);
                    }
                }
                None => {
                    drop(held.take());
                    held = Some(self.get_layout(inode, range, want, caller).await?);
                }
            }
        }
    }

    /// The layout held that allows the write; else which to ask for.
    fn wanted(
        &self,
        inode: &Inode,
        offset: Option<u64>,
        len: u64,
        held: Option<LayoutId>,
    ) -> Result<(Option<Arc<LayoutCell>>, BlockRange, Want), Errno> {
        let state = inode.state.lock();
        let append = offset.is_none();
        let size = if state.cells.is_empty() { state.size_hint } else { state.map.size() };
        let at = offset.unwrap_or(size);
        let end = at.checked_add(len).filter(|e| *e <= OFFSET_MAX).ok_or(Errno(EFBIG))?;
        let range = BlockRange::of_bytes(at, len);
        // From the block of the present end on: what lies between it and the write must read as zeroes.
        let to_end = BlockRange { start: FileBlock(range.start.0.min(size / FS_BLOCK)), end: BlockRange::ALL.end };
        if append || end > size {
            let ruling = state.covering(to_end, true, held).filter(|c| c.rules_size());
            return Ok((ruling.cloned(), to_end, Want::Exclusive));
        }
        let Some(cell) = state.covering(range, false, held) else {
            let want = if self.is_whole(at, end) { Want::Write } else { Want::Exclusive };
            return Ok((None, range, want));
        };
        let written = |k: Kind| matches!(k, Kind::Written { shared: false, .. });
        let in_place = || self.is_whole(at, end) && state.map.pieces(range).iter().all(|p| written(p.kind));
        let enough = cell.mode == LayoutMode::Exclusive || in_place();
        Ok((enough.then(|| Arc::clone(cell)), range, Want::Exclusive))
    }

    /// Whether it touches no logical block in part.
    fn is_whole(&self, start: u64, end: u64) -> bool {
        start.is_multiple_of(self.logical) && end.is_multiple_of(self.logical)
    }

    async fn attempt(
        &self,
        inode: &Arc<Inode>,
        guard: &LayoutGuard,
        (offset, append): (u64, bool),
        data: &mut AlignedBuf,
        mut reserved: Option<Reserved>,
        caller: &Caller,
    ) -> Result<Attempt, Errno> {
        let end = offset + data.len() as u64;
        // Growing past the end touches the block of the old end too.
        let lock_from = offset.min(inode.state.lock().map.size());
        let range = BlockRange::of_bytes(lock_from, end - lock_from);
        let _range = self.session.unless_expired(caller, inode.ranges.lock(range)).await?;
        // Only now: whoever held the range may have made the file longer, and what it wrote behind the old end must
        // not be taken for what an earlier cut left there.
        let size = inode.state.lock().map.size();
        if append && size != offset {
            return Ok(Attempt::Restart);
        }
        let job = Job { inode, append, guard, offset, end, grows: end > size, caller };
        let sub_block = !self.is_whole(offset, end) || offset > size;
        let _alone = match sub_block {
            true => Some(self.session.unless_expired(caller, self.keep_hot_writes_out(inode)).await?),
            false => None,
        };
        if offset > size && size > 0 {
            match self.zero_behind_end(&job, size).await {
                Ok(()) => {}
                Err(Fault::Restart | Fault::InDoubt) => return Ok(Attempt::Restart),
                Err(Fault::Errno(errno)) => return Err(errno),
            }
        }
        let plan = match self.plan(&job, &mut reserved)? {
            Ok(plan) => plan,
            Err(other) => return Ok(other),
        };
        let began = Instant::now();
        let result = self.put_image(&job, &plan, data).await;
        if result.is_ok() {
            plan.spans(offset, end).for_each(|(at, len)| self.recent.wrote(self.outstanding.here(), at, len, began));
        }
        match result {
            Ok(()) => self.mapped(&job, &plan).map(|()| Attempt::Done((end - offset) as u32)),
            Err(Fault::Restart) => Ok(Attempt::Restart),
            Err(Fault::InDoubt) => Ok(Attempt::InDoubt),
            Err(Fault::Errno(errno)) => Err(errno),
        }
    }

    /// Step 5. Hot writes look at nothing but their gate.
    pub(super) async fn keep_hot_writes_out<'a>(&self, inode: &'a Inode) -> Alone<'a> {
        {
            let mut state = inode.state.lock();
            state.sub_block += 1;
            // Whether some are inside is looked at below.
            let _ = inode.hot_writes.close();
        }
        let alone = Alone(inode);
        loop {
            let left = inode.hot_left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if inode.hot_writes.inside() == 0 {
                return alone;
            }
            left.await;
        }
    }

    /// The file grows past its end from behind: what its last block holds beyond the old end (a longer file's data,
    /// cut off by a truncation) must read as zeroes from now on.
    async fn zero_behind_end(&self, job: &Job<'_>, size: u64) -> Result<(), Fault> {
        let block_end = size.next_multiple_of(FS_BLOCK);
        let upto = job.offset.min(block_end);
        if upto <= size || !self.session.rules.has(Rule::ZeroBehindEnd) {
            return Ok(());
        }
        let block = size / FS_BLOCK;
        let piece = job.inode.state.lock().map.pieces(BlockRange::new(block, block + 1));
        let Some(Kind::Written { disk, .. }) = piece.first().map(|p| p.kind) else { return Ok(()) };
        let base = disk.0 * FS_BLOCK;
        let mut buf = self.disk_read(job.guard, base, FS_BLOCK as usize, job.caller).await?;
        buf[(size - block * FS_BLOCK) as usize..(upto - block * FS_BLOCK) as usize].fill(0);
        let began = Instant::now();
        self.disk_write(job.guard, base, buf, Again::Freely, job.caller).await.map_err(|(fault, _)| fault)?;
        let (at, len) = (base + (size - block * FS_BLOCK), (upto - size) as usize);
        self.recent.wrote(self.outstanding.here(), at, len, began);
        Ok(())
    }

    /// Step 6. `Err`: more space has to be reserved first, or the layout is gone.
    fn plan(&self, job: &Job<'_>, reserved: &mut Option<Reserved>) -> Result<Result<Plan, Attempt>, Errno> {
        let range = BlockRange::of_bytes(job.offset, job.end - job.offset);
        let mut state = job.inode.state.lock();
        if job.guard.is_gone() {
            return Ok(Err(Attempt::Restart));
        }
        let pieces = state.map.pieces(range);
        let mut space = match self.space_for(&mut state, job.offset, &pieces, reserved.take()) {
            Ok(space) => space,
            Err(other) => return Ok(Err(other)),
        };
        let mut plan =
            Plan { start: 0, stop: 0, segments: Vec::new(), fresh: Vec::new(), keep_head: None, keep_tail: None };
        let last = pieces.len() - 1;
        for (i, piece) in pieces.iter().enumerate() {
            let len = piece.range.end.0 - piece.range.start.0;
            let runs = match piece.kind {
                Kind::Written { shared: true, .. } | Kind::Unwritten { shared: true, .. } => {
                    return Err(Errno(EOPNOTSUPP));
                }
                Kind::Written { disk, .. } | Kind::Unwritten { disk, .. } => {
                    vec![DiskRange { start: disk, len: BlockCount(len) }]
                }
                Kind::Hole => space.as_mut().map_or_else(Vec::new, |s| s.take(len)),
            };
            let written = matches!(piece.kind, Kind::Written { .. });
            if !written {
                plan.fresh.extend(mapping(piece.range.start, &runs));
            }
            let unit = if written { self.logical } else { FS_BLOCK };
            let from = if i == 0 { job.offset - job.offset % unit } else { piece.range.start.0 * FS_BLOCK };
            let to = if i == last { job.end.next_multiple_of(unit) } else { piece.range.end.0 * FS_BLOCK };
            if i == 0 {
                plan.start = from;
                plan.keep_head = (written && from < job.offset)
                    .then(|| runs[0].start.0 * FS_BLOCK + (from - piece.range.start.0 * FS_BLOCK));
            }
            if i == last {
                plan.stop = to;
                let block = to - self.logical;
                plan.keep_tail = (written && to > job.end)
                    .then(|| runs[0].start.0 * FS_BLOCK + (block - piece.range.start.0 * FS_BLOCK));
            }
            segments(&mut plan.segments, piece.range.start.0 * FS_BLOCK, &runs, from, to);
        }
        state.reserve = space;
        Ok(Ok(plan))
    }

    /// What the file keeps and what was reserved for this write, if it is enough for the holes; with some more, so that
    /// its next blocks lie behind, if there is plenty.
    fn space_for(
        &self,
        state: &mut State,
        at: u64,
        pieces: &[Piece],
        reserved: Option<Reserved>,
    ) -> Result<Option<Reserved>, Attempt> {
        let holes: Vec<BlockRange> = pieces.iter().filter(|p| p.kind == Kind::Hole).map(|p| p.range).collect();
        let needed: u64 = holes.iter().map(|h| h.end.0 - h.start.0).sum();
        let kept = state.reserve.take().filter(Reserved::is_current);
        let have = kept.as_ref().map_or(0, Reserved::left);
        if needed <= have {
            return Ok(kept);
        }
        let reserved = reserved.filter(Reserved::is_current).filter(|r| r.left() + have >= needed);
        let Some(mut more) = reserved else {
            state.reserve = kept;
            return Err(Attempt::Space(Missing { blocks: needed - have, at, holes }));
        };
        let ahead = (state.map.size() / FS_BLOCK).min(AHEAD_MAX);
        if self.space.free() >= 2 * ahead
            && let Some(ahead) = self.space.try_reserve(ahead, more.end())
        {
            more.join(ahead);
        }
        let space = match kept {
            Some(mut kept) => {
                kept.join(more);
                kept
            }
            None => more,
        };
        // Less: this node began another life just now.
        if space.left() >= needed { Ok(Some(space)) } else { Err(Attempt::Restart) }
    }

    /// Step 7. `data` is whole again whatever happens.
    async fn put_image(&self, job: &Job<'_>, plan: &Plan, data: &mut AlignedBuf) -> Result<(), Fault> {
        // Anything else is written by one at a time, under a right that nobody else has: others wait for the range, or do not know the blocks
        // or the length yet. What settles a write takes what is not there any more for cut off since.
        let in_place = plan.fresh.is_empty() && plan.keep_head.is_none() && plan.keep_tail.is_none() && !job.grows;
        let again = if in_place { Again::Asked } else { Again::Freely };
        let whole = plan.start == job.offset && plan.stop == job.end && data.is_aligned_to(self.logical as usize);
        if whole && let [segment] = &plan.segments[..] {
            let buf = std::mem::replace(data, AlignedBuf::with_capacity(0));
            return self.disk_write(job.guard, segment.disk, buf, again, job.caller).await.map_err(|(fault, back)| {
                *data = back;
                fault
            });
        }
        let mut image = AlignedBuf::zeroed((plan.stop - plan.start) as usize);
        let logical = self.logical as usize;
        let kept = |at: Option<u64>| at.filter(|_| self.session.rules.has(Rule::KeepAround));
        if let Some(at) = kept(plan.keep_head) {
            image[..logical].copy_from_slice(&self.disk_read(job.guard, at, logical, job.caller).await?);
        }
        if let Some(at) = kept(plan.keep_tail) {
            let from = image.len() - logical;
            image[from..].copy_from_slice(&self.disk_read(job.guard, at, logical, job.caller).await?);
        }
        let head = (job.offset - plan.start) as usize;
        image[head..head + data.len()].copy_from_slice(data);
        for (n, segment) in plan.segments.iter().enumerate() {
            let part = image.split_to(segment.len);
            let written = self.disk_write(job.guard, segment.disk, part, again, job.caller).await;
            written.map_err(|(fault, _)| match fault {
                // Those before it are written: over what others write meanwhile they are not to be written again.
                Fault::Restart if n > 0 && again == Again::Asked && self.asks_before_repeating() => Fault::InDoubt,
                fault => fault,
            })?;
        }
        Ok(())
    }

    /// Step 8. EIO if the layout is not held any more.
    ///
    /// Prevents: this node is evicted between the answer of the disk and here, and what was written under the layout that is
    /// gone is taken for part of the file in its next life, and committed: blocks that are others' by then.
    fn mapped(&self, job: &Job<'_>, plan: &Plan) -> Result<(), Errno> {
        let inode = job.inode;
        let many = {
            let mut state = inode.state.lock();
            if job.guard.is_gone() {
                return Err(Errno(EIO));
            }
            let grew = state.map.grew(job.end);
            state.size_hint = state.size_hint.max(job.end);
            if !plan.fresh.is_empty() {
                state.map.wrote(&plan.fresh);
            }
            self.note_write(
                job.caller,
                inode.ino,
                &plan.fresh,
                (state.map.size(), grew),
                job.append.then_some(job.end - job.offset),
            );
            if grew || !plan.fresh.is_empty() {
                inode.publish(&mut state, false);
            } else {
                inode.missed(&mut state);
            }
            state.map.uncommitted_extents() >= UNCOMMITTED_MAX
        };
        inode.touch(wall_nanos());
        inode.unflushed.store(true, Ordering::SeqCst);
        self.list_dirty(inode);
        if many {
            self.commit_soon(inode);
        }
        Ok(())
    }
}

/// Hot writes of an inode are kept out until dropped.
pub(super) struct Alone<'a>(&'a Inode);

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.sub_block -= 1;
        if state.sub_block == 0 {
            self.0.hot_writes.open();
        }
    }
}

fn mapping(start: FileBlock, runs: &[DiskRange]) -> Vec<Extent> {
    let mut file = start.0;
    let extent = |r: &DiskRange| {
        let e = Extent { file: FileBlock(file), disk: r.start, len: r.len, state: ExtentState::Written, shared: false };
        file += r.len.0;
        e
    };
    runs.iter().map(extent).collect()
}

/// Adds the part of `runs`, which begin at byte `base` of the file, that lies in `[from, to)`.
fn segments(out: &mut Vec<Segment>, base: u64, runs: &[DiskRange], from: u64, to: u64) {
    let mut at = base;
    for run in runs {
        let (start, stop) = (at.max(from), (at + run.len.0 * FS_BLOCK).min(to));
        if start < stop {
            let disk = run.start.0 * FS_BLOCK + (start - at);
            let len = (stop - start) as usize;
            match out.last_mut() {
                Some(last) if last.disk + last.len as u64 == disk => last.len += len,
                _ => out.push(Segment { disk, len }),
            }
        }
        at += run.len.0 * FS_BLOCK;
    }
}
