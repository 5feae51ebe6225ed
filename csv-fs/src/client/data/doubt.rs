//! Writes in place that may have been executed.
//!
//! A write in place asks nobody, so others write the same block beside it. While its answer is missing nobody can tell whether it was
//! executed: its path hangs or fails, or the coordinator that had it is gone. To execute it once more is right if nobody has written there
//! since, and if it was not executed the first time; otherwise it undoes what came after it.
//! Prevents: 1. a write of node 2 is executed, and its answer is lost; 2. node 3 writes the block, is answered, and reads what it wrote;
//! 3. node 2 has proved that nothing of its own is under way, and sends its write again: what node 3 wrote is gone, though it came later
//! for all who looked.
//!
//! So it is *settled* (rule `AskedBeforeRepeated`):
//! 1. Its right is kept until nothing of it can land any more. Prevents: the right goes back, its blocks are freed and given to another
//!    file, and the write lands there.
//! 2. An exclusive right over the blocks is taken: nobody writes there until this is over, and what others had under way has been
//!    answered. Two that settle the same block do so one after the other: none holds a right while it asks for one.
//! 3. Everybody is asked which of the bytes their programs have written by writes that *began after this one had begun*
//!    ([`WrittenSince`]). Those are left as they are: this write counts as executed before, which makes no difference to anybody if it was
//!    not.
//! 4. The other bytes are written, under the exclusive right.
//!
//! What was cut off or punched out since is left, too: it could be cut only after this write had let go of its right. For the same reason a
//! write that makes its file longer is never in doubt: nobody has the right that it has, and it is repeated.
//!
//! "Began after" is known by marks, not by clocks ([`crate::client::witness`]). One goes out as soon as a request is [`LATE`], ten times a
//! second while redirected requests are under way, and when a write comes to be in doubt, so mostly well before the path counts as lost.
//!
//! # What is not covered
//! A block is written again, although another write came later, if
//! - every such write began before its node had heard a mark (in the first tenth of a second of this one, mostly), or the mark was
//!   forgotten since (a path that hangs for more than a minute), or the write was (each thread remembers 8192, which is not the path's
//!   timeout where it writes more than some thousands a second; all that goes over a coordinator counts as of one thread);
//! - its node has died, was restarted, also in order, does not answer or speaks an older minor version;
//! - it is in doubt itself;
//! - what came later was the coordinator's: the rest of a last block that it zeroes when the file was cut and grows again;
//! - this one's daemon was killed, or the multipath of a unit sends it over its next path: those two are repeated as they always were.
//!
//! Whoever looked in between sees the first, the second, and the first again. Who locks what he writes, or writes blocks that nobody else
//! does, is not concerned.

use std::sync::Arc;
use std::time::{Duration, Instant};

use block::buf::AlignedBuf;

use super::disk::{Again, Fault};
use super::write::{Attempt, EOPNOTSUPP};
use super::{DataPath, SCAN};
use crate::client::inode::Inode;
use crate::client::layout::LayoutGuard;
use crate::client::link::WrittenSince;
use crate::client::session::{Caller, Errno};
use crate::client::witness::{Span, joined};
use crate::core::client::map::Kind;
use crate::core::rules::Rule;
use crate::proto::Want;
use crate::types::*;

/// With a request this many scans old others are told of the moment.
pub(super) const LATE: u32 = 1;
/// An exclusive right is asked for over so many blocks, so that writes in doubt beside one another need one between them: 64 MiB.
const WINDOW: u64 = 16_384;

/// Of more spans than that nobody asks: each block of the largest write may lie somewhere else. Bounds what an answer costs.
const SPANS: usize = 4096;

const _: () = assert!(SCAN.as_millis() <= 50, "a request is late after a tenth of a second");

/// A run of a write's bytes on consecutive bytes of the disk.
struct Run {
    /// In the write's data.
    from: usize,
    disk: u64,
    len: usize,
}

impl DataPath {
    pub(super) fn asks_before_repeating(&self) -> bool {
        self.session.rules.has(Rule::AskedBeforeRepeated)
    }

    /// Others are told of this moment, unless they were a moment ago.
    pub(super) fn mark_soon(&self) {
        if let Some(number) = self.marks.due(Instant::now(), clock()) {
            self.session.witnesses.mark(self.session.client(), number);
        }
    }

    /// The first mark after that moment; sent now if there was none.
    pub(super) fn mark_since(&self, when: Instant) -> u64 {
        let (number, new) = self.marks.first_since(when, Instant::now(), clock());
        if new {
            self.session.witnesses.mark(self.session.client(), number);
        }
        number
    }

    /// Whether something of this node is on its way over a coordinator, which may die.
    pub(super) fn redirected_is_under_way(&self) -> bool {
        use crate::client::session::Files as _;
        self.direct_closed() && self.session.load().2 > 0
    }

    /// Another node's mark has come.
    pub(crate) fn heard_mark(&self, of: ClientId, number: u64) {
        self.recent.heard(of, number, Instant::now());
    }

    /// The last mark that has come of it; 0 for none.
    #[cfg(test)]
    pub(crate) fn heard_of(&self, of: ClientId) -> u64 {
        self.recent.last_heard(of)
    }

    /// Which of these bytes were written here since.
    pub(crate) fn written_since(&self, asked: &WrittenSince) -> Vec<Span> {
        self.recent.since_mark(asked.client, asked.mark, &asked.spans[..asked.spans.len().min(SPANS)])
    }

    /// Step 1: others are told of the moment, and the right under which a write was sent is kept until nothing of it can land any more.
    pub(super) async fn lands_no_more(
        &self,
        began: Instant,
        held: Option<LayoutGuard>,
        caller: &Caller,
    ) -> Result<(), Errno> {
        self.mark_since(began);
        if held.is_some() {
            // Redirected, it is answered only after the proof that nothing is in flight; directly, after the path has come back, which
            // is later still.
            self.flush(&caller.uninterrupted()).await?;
        }
        drop(held);
        Ok(())
    }

    /// Step 2. The caller holds nothing.
    pub(super) async fn guard_alone(
        &self,
        inode: &Arc<Inode>,
        range: BlockRange,
        caller: &Caller,
    ) -> Result<LayoutGuard, Errno> {
        let cell = inode.state.lock().covering(range, true, None).cloned();
        if let Some(guard) = cell.and_then(|c| c.guard()) {
            return Ok(guard);
        }
        let start = range.start.0 - range.start.0 % WINDOW;
        let wide = BlockRange::new(start, range.end.0.max(start + WINDOW));
        self.get_layout(inode, wide, Want::Exclusive, caller).await
    }

    /// Steps 3 and 4. `data` stays whole.
    pub(super) async fn settle(
        &self,
        inode: &Arc<Inode>,
        guard: &LayoutGuard,
        (offset, data): (u64, &[u8]),
        began: Instant,
        caller: &Caller,
    ) -> Result<Attempt, Errno> {
        let range = BlockRange::of_bytes(offset, data.len() as u64);
        let _range = self.session.unless_expired(caller, inode.ranges.lock(range)).await?;
        let _alone = self.session.unless_expired(caller, self.keep_hot_writes_out(inode)).await?;
        let Some(runs) = self.where_it_is(inode, guard, offset, data.len() as u64)? else {
            return Ok(Attempt::Restart);
        };
        let later = self.written_later(&runs, began).await;
        for part in runs.iter().flat_map(|run| parts(run, self.logical, &later)) {
            match self.write_part(guard, data, &part, &later, caller).await {
                Ok(()) => {}
                Err(Fault::Restart | Fault::InDoubt) => return Ok(Attempt::Restart),
                Err(Fault::Errno(errno)) => return Err(errno),
            }
        }
        self.written_in_place(inode);
        Ok(Attempt::Done(u32::try_from(data.len()).unwrap_or(u32::MAX)))
    }

    /// Where the bytes of a write lie that are still inside the file and written; `None` if the layout is gone.
    fn where_it_is(
        &self,
        inode: &Inode,
        guard: &LayoutGuard,
        offset: u64,
        len: u64,
    ) -> Result<Option<Vec<Run>>, Errno> {
        let state = inode.state.lock();
        if guard.is_gone() {
            return Ok(None);
        }
        let end = (offset + len).min(state.map.size().next_multiple_of(self.logical));
        if end <= offset {
            return Ok(Some(Vec::new()));
        }
        let mut runs = Vec::new();
        for piece in state.map.pieces(BlockRange::of_bytes(offset, end - offset)) {
            let (from, to) = ((piece.range.start.0 * FS_BLOCK).max(offset), (piece.range.end.0 * FS_BLOCK).min(end));
            match piece.kind {
                Kind::Written { shared: true, .. } => return Err(Errno(EOPNOTSUPP)),
                Kind::Written { disk, .. } => runs.push(Run {
                    from: (from - offset) as usize,
                    disk: disk.0 * FS_BLOCK + (from - piece.range.start.0 * FS_BLOCK),
                    len: (to - from) as usize,
                }),
                Kind::Hole | Kind::Unwritten { .. } => {}
            }
        }
        Ok(Some(runs))
    }

    /// What was written since, here or elsewhere; in order.
    async fn written_later(&self, runs: &[Run], began: Instant) -> Vec<Span> {
        let spans: Vec<Span> = runs.iter().map(|r| (r.disk, r.len as u64)).collect();
        if spans.is_empty() {
            return Vec::new();
        }
        let mut later = self.recent.since(began, &spans);
        let (client, mark) = (self.session.client(), self.mark_since(began));
        later.extend(self.session.witnesses.written_since(WrittenSince { client, mark, spans }).await);
        joined(later)
    }

    /// Writes what of these logical blocks nobody has written since, around what somebody has.
    async fn write_part(
        &self,
        guard: &LayoutGuard,
        data: &[u8],
        part: &Part,
        later: &[Span],
        caller: &Caller,
    ) -> Result<(), Fault> {
        let Part { from, disk, len, whole } = *part;
        let own = match whole {
            true => vec![(disk, len as u64)],
            false => without(later, (disk, len as u64)),
        };
        let mut buf = AlignedBuf::from_slice(&data[from..from + len]);
        if !whole {
            buf = self.disk_read(guard, disk, len, caller).await?;
            for (at, n) in &own {
                let (first, n) = ((at - disk) as usize, *n as usize);
                buf[first..first + n].copy_from_slice(&data[from + first..from + first + n]);
            }
        }
        let now = Instant::now();
        self.disk_write(guard, disk, buf, Again::Freely, caller).await.map_err(|(fault, _)| fault)?;
        own.iter().for_each(|(at, n)| self.recent.wrote(self.outstanding.here(), *at, *n as usize, now));
        Ok(())
    }
}

/// Since the machine was started.
fn clock() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), u32::try_from(t.tv_nsec).unwrap_or(0))
}

/// Logical blocks of a run that are written once more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Part {
    /// In the write's data.
    from: usize,
    disk: u64,
    len: usize,
    /// Nobody has written there since; else somebody has written some of it.
    whole: bool,
}

/// The bytes of `span` that lie in none of these, which are in order.
fn without(spans: &[Span], (at, len): Span) -> Vec<Span> {
    let (mut from, end) = (at, at + len);
    let mut rest = Vec::new();
    for (first, n) in spans.iter().filter(|(first, n)| *first < end && first + n > at) {
        if *first > from {
            rest.push((from, first - from));
        }
        from = from.max(first + n);
    }
    if from < end {
        rest.push((from, end - from));
    }
    rest
}

/// What of a run is written once more: the logical blocks that were not overwritten as a whole.
fn parts(run: &Run, unit: u64, later: &[Span]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for offset in (0..run.len).step_by(unit as usize) {
        let (disk, len) = (run.disk + offset as u64, (unit as usize).min(run.len - offset));
        let left: u64 = without(later, (disk, len as u64)).iter().map(|(_, n)| n).sum();
        if left == 0 {
            continue;
        }
        let whole = left == len as u64;
        match parts.last_mut() {
            Some(last) if last.whole == whole && last.disk + last.len as u64 == disk => last.len += len,
            _ => parts.push(Part { from: run.from + offset, disk, len, whole }),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(from: usize, len: usize, whole: bool) -> Part {
        Part { from, disk: 8192 + from as u64, len, whole }
    }

    #[test]
    fn what_nobody_wrote_later_is_written_and_what_somebody_wrote_in_part_is_merged() {
        let run = Run { from: 0, disk: 8192, len: 2048 };
        assert_eq!(parts(&run, 512, &[]), [part(0, 2048, true)]);
        assert_eq!(parts(&run, 512, &[(8000, 704)]), [part(512, 1536, true)]);
        assert_eq!(parts(&run, 512, &[(8192, 100)]), [part(0, 512, false), part(512, 1536, true)]);
        assert_eq!(
            parts(&run, 512, &[(0, 8192), (8704, 1024), (9800, 9)]),
            [part(0, 512, true), part(1536, 512, false)]
        );
        assert_eq!(parts(&run, 512, &[(0, 1 << 40)]), []);
    }

    #[test]
    fn what_is_left_of_a_span() {
        assert_eq!(without(&[], (10, 5)), [(10, 5)]);
        assert_eq!(without(&[(0, 10), (15, 1)], (10, 5)), [(10, 5)]);
        assert_eq!(without(&[(8, 4), (13, 1)], (10, 5)), [(12, 1), (14, 1)]);
        assert_eq!(without(&[(10, 5)], (10, 5)), []);
    }
}
