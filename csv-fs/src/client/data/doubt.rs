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
//! 1. An exclusive right over the blocks is taken: nobody writes there until this is over, and what others had under way has been
//!    answered. Two that settle the same block do so one after the other: none holds a right while it asks for one.
//! 2. Everybody is asked which of the blocks they have written by writes that *began after this one had begun* ([`WrittenSince`]). Such a
//!    block is left as it is: this write counts as executed just before that one, which it was if it was executed at all. It is answered
//!    only once nothing of it can land any more.
//! 3. The other blocks are written, under the exclusive right.
//!
//! What was cut off or punched out since is left, too: it could be cut only after this write had let go of its right.
//!
//! "Began after" is known by marks, not by clocks ([`crate::client::witness`]). One goes out as soon as a request is [`LATE`], ten times a
//! second while redirected requests are under way, and when a write comes to be in doubt, so mostly well before the path counts as lost.
//!
//! # What is not covered
//! A block is written again, although another node's write came later, if every such write began before that node had heard a mark (in the
//! first tenth of a second of this one, mostly), or was forgotten since ([`crate::client::witness`]), or its node has died or cannot be
//! reached; or if it is in doubt itself. The same holds for a write whose daemon was killed, and for one that the multipath of a unit
//! sends over its next path. Whoever looked in between sees the first, the second, and the first again. Who locks what he writes, or
//! writes blocks that nobody else does, is not concerned.

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
use crate::core::client::map::Kind;
use crate::core::rules::Rule;
use crate::proto::Want;
use crate::types::*;

/// With a request this many scans old others are told of the moment.
pub(super) const LATE: u32 = 1;
/// An exclusive right is asked for over so many blocks, so that writes in doubt beside one another need one between them: 64 MiB.
const WINDOW: u64 = 16_384;

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

    /// Which of these blocks were written here since.
    pub(crate) fn written_since(&self, asked: &WrittenSince) -> Vec<u64> {
        self.recent.since_mark(asked.client, asked.mark, u64::from(asked.unit), &asked.blocks)
    }

    /// Step 1. The caller holds nothing.
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

    /// Steps 2 and 3. `data` stays whole.
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
        if !later.is_empty() {
            // A direct write that failed may still land until the coordinator has had this one's path fenced.
            self.flush(caller).await?;
        }
        for run in runs {
            for (from, to) in left(&run, self.logical, &later) {
                let buf = AlignedBuf::from_slice(&data[run.from + from..run.from + to]);
                let written = self.disk_write(guard, run.disk + from as u64, buf, Again::Freely, caller).await;
                match written.map_err(|(fault, _)| fault) {
                    Ok(()) => {}
                    Err(Fault::Restart | Fault::InDoubt) => return Ok(Attempt::Restart),
                    Err(Fault::Errno(errno)) => return Err(errno),
                }
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

    /// Which logical blocks were written since, here or elsewhere; in order.
    async fn written_later(&self, runs: &[Run], began: Instant) -> Vec<u64> {
        let unit = self.logical;
        let blocks: Vec<u64> =
            runs.iter().flat_map(|r| (r.disk..r.disk + r.len as u64).step_by(unit as usize)).collect();
        let mut later = self.recent.since(began, unit, &blocks);
        let (client, mark) = (self.session.client(), self.mark_since(began));
        let asked = WrittenSince { client, mark, unit: unit as u32, blocks };
        later.extend(self.session.witnesses.written_since(asked).await);
        later.sort_unstable();
        later.dedup();
        later
    }
}

/// Since the machine was started.
fn clock() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), u32::try_from(t.tv_nsec).unwrap_or(0))
}

/// The parts of a run, as offsets in it, that are none of these blocks.
fn left(run: &Run, unit: u64, later: &[u64]) -> Vec<(usize, usize)> {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for from in (0..run.len).step_by(unit as usize) {
        let to = (from + unit as usize).min(run.len);
        if later.binary_search(&(run.disk + from as u64)).is_ok() {
            continue;
        }
        match parts.last_mut() {
            Some(last) if last.1 == from => last.1 = to,
            _ => parts.push((from, to)),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_wrote_later_is_left_to_be_written() {
        let run = Run { from: 0, disk: 8192, len: 2048 };
        assert_eq!(left(&run, 512, &[]), [(0, 2048)]);
        assert_eq!(left(&run, 512, &[8192]), [(512, 2048)]);
        assert_eq!(left(&run, 512, &[0, 8704, 10240]), [(0, 512), (1024, 2048)]);
        assert_eq!(left(&run, 512, &[8192, 8704, 9216, 9728]), []);
    }
}
