//! Space granted to this node, from which it maps new blocks without asking.
//!
//! The coordinator has the grant on record, so a crash leaks nothing: what was mapped and committed belongs to files,
//! the rest goes back when the session ends. Taken in one piece where possible, at a wish where possible, so that a
//! file that grows lies together.
//!
//! Prevents: an allocating write asks for space while it holds a layout that a recall waits for. Space is reserved
//! *before* the layout's guard is taken ([`Space::reserve`]), never under it.
//!
//! What is taken out of the pool belongs to one *life* of this node. Prevents: a write has taken space and waits; the node
//! is evicted, its grant is given to others, and begins its next life; the write goes on and overwrites them, or puts the
//! space into the pool of the new life.
//!
//! What is out of the pool is either about to be written or kept by a file, where it is found and taken back; nothing that
//! a write would only like to have is on its way with it. Prevents: ENOSPC is said beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::proto::{Reply, Request};
use crate::types::{BlockCount, DiskBlock, DiskRange};

use super::session::{Caller, Errno, Session};

/// Asked for at once: 64 MiB, so that a stream of appends asks once a second at a GiB/s and a node that is idle again
/// holds little.
const ASK: u64 = 16 * 1024;
/// Below this more is asked for in the background: 32 MiB.
const LOW: u64 = 8 * 1024;

/// So often the coordinator is asked for one write; each time it gives a MiB if there is one, as much as a write is long.
const ASKS: u32 = 3;

/// `ENOSPC`.
pub(crate) const ENOSPC: i32 = rustix::io::Errno::NOSPC.raw_os_error();

/// The pool.
#[derive(Debug)]
pub(crate) struct Space {
    free: Mutex<Free>,
    /// As in `free`.
    life: AtomicU64,
    asking: tokio::sync::Mutex<()>,
    prefetching: AtomicBool,
    /// Requests whose answer is not in the pool yet.
    unanswered: AtomicU32,
    session: Arc<Session>,
}

#[derive(Debug, Default)]
struct Free {
    life: u64,
    ranges: Vec<DiskRange>,
}

impl Free {
    fn add(&mut self, ranges: Vec<DiskRange>) {
        self.ranges.extend(ranges.into_iter().filter(|r| r.len.0 > 0));
        join(&mut self.ranges);
    }
}

/// A request for space; dropped when its answer is in the pool.
struct Unanswered<'a>(&'a AtomicU32);

impl<'a> Unanswered<'a> {
    fn new(count: &'a AtomicU32) -> Unanswered<'a> {
        count.fetch_add(1, Ordering::SeqCst);
        Unanswered(count)
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Blocks taken out of the pool; what is not used goes back, unless this node has another life by then.
#[derive(Debug)]
pub(crate) struct Reserved {
    life: u64,
    ranges: Vec<DiskRange>,
    pool: Arc<Space>,
}

impl Space {
    pub(crate) fn new(session: Arc<Session>) -> Arc<Space> {
        Arc::new(Space {
            free: Mutex::default(),
            life: AtomicU64::new(0),
            asking: tokio::sync::Mutex::default(),
            prefetching: AtomicBool::new(false),
            unanswered: AtomicU32::new(0),
            session,
        })
    }

    /// A new incarnation is bound: it has exactly what the coordinator has on record for it.
    pub(crate) fn bound(&self, ranges: Vec<DiskRange>) {
        self.free.lock().ranges = ranges;
    }

    /// A life ends. What comes from here on is of the next one, and waits for it to be bound.
    pub(crate) fn life_ends(&self) {
        let mut free = self.free.lock();
        *free = Free { life: free.life + 1, ranges: Vec::new() };
        self.life.store(free.life, Ordering::SeqCst);
    }

    /// Which life this is. Without a lock: every write looks.
    pub(crate) fn life(&self) -> u64 {
        self.life.load(Ordering::SeqCst)
    }

    /// Free blocks in the pool.
    pub(crate) fn free(&self) -> u64 {
        self.free.lock().ranges.iter().map(|r| r.len.0).sum()
    }

    /// Puts space of a life into the pool. What was of an earlier one is somebody else's.
    fn put(&self, life: u64, ranges: Vec<DiskRange>) {
        let mut free = self.free.lock();
        if free.life == life {
            free.add(ranges);
        }
    }

    /// Whether something was asked for that is not in the pool yet: [`Space::drain`] does not find it.
    pub(crate) fn asks(&self) -> bool {
        self.unanswered.load(Ordering::SeqCst) > 0
    }

    /// Whether nothing was asked for, nor will be before the next write.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        !self.prefetching.load(Ordering::SeqCst) && !self.asks()
    }

    /// Takes everything out, to give it back.
    pub(crate) fn drain(&self) -> Vec<DiskRange> {
        std::mem::take(&mut self.free.lock().ranges)
    }

    /// So many blocks, asking the coordinator if there are not enough; ENOSPC if it has none. Fewer if it gave some several
    /// times and it is still not enough.
    ///
    /// Prevents: two nodes want the last blocks, each has a part of them, and each gets the other's called back, for ever.
    ///
    /// # Cancel safety
    /// Safe: what was asked for is in the pool.
    pub(crate) async fn reserve(
        self: &Arc<Self>,
        caller: &Caller,
        blocks: u64,
        near: Option<DiskBlock>,
    ) -> Result<Reserved, Errno> {
        let mut asked = 0;
        loop {
            if let Some(reserved) = self.try_reserve(blocks, near) {
                return Ok(reserved);
            }
            let _one = self.session.unless_given_up(caller, self.asking.lock()).await?;
            if self.free() >= blocks {
                continue;
            }
            asked += 1;
            // Taken before anybody can call it back again.
            let least = if asked < ASKS { blocks } else { 1 };
            if let Some(reserved) = self.ask(caller, blocks.max(ASK), (least, blocks), near).await? {
                return Ok(reserved);
            }
        }
    }

    /// So many blocks, or what there is.
    pub(crate) fn take_what_there_is(self: &Arc<Self>, blocks: u64, near: Option<DiskBlock>) -> Reserved {
        let mut free = self.free.lock();
        let life = free.life;
        let nothing = || Reserved { life, ranges: Vec::new(), pool: Arc::clone(self) };
        self.cut(&mut free, (0, blocks), near).unwrap_or_else(nothing)
    }

    /// At least and at most so many blocks.
    fn cut(self: &Arc<Self>, free: &mut Free, (least, most): (u64, u64), near: Option<DiskBlock>) -> Option<Reserved> {
        let there: u64 = free.ranges.iter().map(|r| r.len.0).sum();
        let blocks = most.min(there);
        let ranges = if blocks < least { None } else { take(&mut free.ranges, blocks, near) };
        ranges.map(|ranges| Reserved { life: free.life, ranges, pool: Arc::clone(self) })
    }

    /// The same without asking.
    pub(crate) fn try_reserve(self: &Arc<Self>, blocks: u64, near: Option<DiskBlock>) -> Option<Reserved> {
        let (life, ranges) = {
            let mut free = self.free.lock();
            (free.life, take(&mut free.ranges, blocks, near)?)
        };
        let reserved = Reserved { life, ranges, pool: Arc::clone(self) };
        self.ask_ahead();
        Some(reserved)
    }

    /// Asks for more in the background if there is little.
    pub(crate) fn ask_ahead(self: &Arc<Self>) {
        if self.free() >= LOW || self.prefetching.swap(true, Ordering::SeqCst) {
            return;
        }
        let pool = Arc::clone(self);
        self.session.spawner.control(async move {
            let _one = pool.asking.lock().await;
            if pool.free() < LOW {
                // Without success the next writer that finds nothing asks, and is told.
                let _ = pool.ask(&Caller::patient(), ASK, (u64::MAX, u64::MAX), None).await;
            }
            pool.prefetching.store(false, Ordering::SeqCst);
        });
    }

    /// Asks for so many blocks. Of what there is then, so many are taken if there are enough.
    async fn ask(
        self: &Arc<Self>,
        caller: &Caller,
        blocks: u64,
        wanted: (u64, u64),
        near: Option<DiskBlock>,
    ) -> Result<Option<Reserved>, Errno> {
        let _unanswered = Unanswered::new(&self.unanswered);
        let life = self.life();
        match self.session.call(caller, Request::Grant { blocks: BlockCount(blocks) }).await? {
            Reply::Granted(ranges) if ranges.iter().any(|r| r.len.0 > 0) => {
                let mut free = self.free.lock();
                if free.life != life {
                    return Ok(None);
                }
                free.add(ranges);
                Ok(self.cut(&mut free, wanted, near))
            }
            _ => Err(Errno(ENOSPC)),
        }
    }
}

impl Reserved {
    /// Takes `blocks` in as few pieces as they are there; fewer only if fewer were reserved.
    pub(crate) fn take(&mut self, mut blocks: u64) -> Vec<DiskRange> {
        let mut out = Vec::new();
        while blocks > 0 {
            let Some(first) = self.ranges.first_mut() else { break };
            let n = first.len.0.min(blocks);
            out.push(DiskRange { start: first.start, len: BlockCount(n) });
            first.start.0 += n;
            first.len.0 -= n;
            blocks -= n;
            if first.len.0 == 0 {
                self.ranges.remove(0);
            }
        }
        out
    }

    /// Blocks left.
    pub(crate) fn left(&self) -> u64 {
        self.ranges.iter().map(|r| r.len.0).sum()
    }

    /// The block behind the last one.
    pub(crate) fn end(&self) -> Option<DiskBlock> {
        self.ranges.last().map(|r| DiskBlock(r.start.0 + r.len.0))
    }

    /// Whether it is of this life.
    pub(crate) fn is_current(&self) -> bool {
        self.life == self.pool.life()
    }

    /// Takes in what was reserved beside it, if that was in the same life.
    pub(crate) fn join(&mut self, mut more: Reserved) {
        if self.life == more.life {
            self.ranges.append(&mut more.ranges);
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.pool.put(self.life, std::mem::take(&mut self.ranges));
    }
}

/// Sorts, and makes one of two that touch.
fn join(ranges: &mut Vec<DiskRange>) {
    ranges.sort_by_key(|r| r.start);
    ranges.dedup_by(|b, a| {
        let joins = a.start.0 + a.len.0 == b.start.0;
        if joins {
            a.len.0 += b.len.0;
        }
        joins
    });
}

/// Cuts `blocks` out: at `near` if that is free, else from the first range that is long enough, else from many.
fn take(free: &mut Vec<DiskRange>, blocks: u64, near: Option<DiskBlock>) -> Option<Vec<DiskRange>> {
    if free.iter().map(|r| r.len.0).sum::<u64>() < blocks {
        return None;
    }
    let mut out = Vec::new();
    let mut missing = blocks;
    let at = near.and_then(|n| free.iter().position(|r| r.start == n));
    let at = at.or_else(|| free.iter().position(|r| r.len.0 >= missing));
    let mut next = at.unwrap_or(0);
    while missing > 0 {
        let range = &mut free[next];
        let n = range.len.0.min(missing);
        out.push(DiskRange { start: range.start, len: BlockCount(n) });
        *range = DiskRange { start: DiskBlock(range.start.0 + n), len: BlockCount(range.len.0 - n) };
        missing -= n;
        if range.len.0 == 0 {
            free.remove(next);
        }
        next = free.iter().position(|r| r.len.0 >= missing).unwrap_or(0);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, len: u64) -> DiskRange {
        DiskRange { start: DiskBlock(start), len: BlockCount(len) }
    }

    #[test]
    fn space_is_taken_where_the_file_ends_then_in_one_piece_then_in_many() {
        let mut free = vec![range(10, 4), range(100, 50), range(200, 8)];
        assert_eq!(take(&mut free, 2, Some(DiskBlock(200))), Some(vec![range(200, 2)]));
        assert_eq!(take(&mut free, 6, None), Some(vec![range(100, 6)]));
        assert_eq!(take(&mut free, 52, None).map(|v| v.iter().map(|r| r.len.0).sum::<u64>()), Some(52));
        assert_eq!(take(&mut free, 3, None), None);
        assert_eq!(free.iter().map(|r| r.len.0).sum::<u64>(), 2);
    }
}
