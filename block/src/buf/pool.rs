//! Free lists of regions: process-wide ones by size class, and pools of one size for one owner.

use std::sync::{Arc, LazyLock};

use crossbeam_queue::ArrayQueue;

use super::region::{self, Home, Region, Window};
use super::{AlignedBuf, Inside};

/// The smallest class: one page.
const MIN_CLASS_SHIFT: u32 = 12;
/// Classes of 4 KiB, 8 KiB ... 2 MiB (a 1 MiB payload with its header page needs the last).
const CLASSES: usize = 10;
/// Bytes a class may keep idle; a region that finds its list full is freed. With the two largest classes this bounds what an idle
/// process holds at 64 MiB.
const CLASS_BUDGET: usize = 4 << 20;
/// The same for the two largest: sixteen requests of 1 MiB at once. With a list of four, a load of eight has new memory mapped and
/// cleared for every second one, which costs more than all else about it.
const LARGE_BUDGET: usize = 16 << 20;
const LARGE: usize = 1 << 20;
/// From this size on regions are cut from slabs: below, all that a load has under way are fewer pages than the processor remembers.
const FROM_SLABS: usize = 64 << 10;
/// No class keeps more regions than this, whatever their size: deep enough for 4 jobs at depth 128.
const CLASS_MAX: usize = 512;

static FREE: LazyLock<Vec<ArrayQueue<Box<Region>>>> =
    LazyLock::new(|| (0..CLASSES).map(|class| ArrayQueue::new(kept(class_size(class)))).collect());

/// How many regions of this size wait for use at most.
fn kept(size: usize) -> usize {
    let budget = if size < LARGE { CLASS_BUDGET } else { LARGE_BUDGET };
    (budget / size).min(CLASS_MAX)
}

fn class_size(class: usize) -> usize {
    1 << (MIN_CLASS_SHIFT as usize + class)
}

/// The smallest class that holds `len` bytes, if any does.
fn class_of(len: usize) -> Option<usize> {
    let shift = len.max(1).checked_next_power_of_two()?.trailing_zeros().max(MIN_CLASS_SHIFT);
    let class = (shift - MIN_CLASS_SHIFT) as usize;
    (class < CLASSES).then_some(class)
}

/// A window of `len` bytes from the free lists or the allocator; true if it is known to be zero.
pub(super) fn take(len: usize) -> (Window, bool) {
    let Some(class) = class_of(len) else {
        return (Window::over(Region::allocate(len, Home::Allocator), len), true);
    };
    match FREE[class].pop() {
        Some(region) => (Window::over(region, len), false),
        None => (Window::over(fresh(class), len), true),
    }
}

/// A new region; where it is cut from a slab, the others of that wait for use with it.
fn fresh(class: usize) -> Box<Region> {
    let size = class_size(class);
    let first = if size < FROM_SLABS {
        None
    } else {
        let mut regions = Region::of_one_slab(size, class);
        let first = regions.next();
        regions.for_each(|region| drop(FREE[class].push(region)));
        first
    };
    first.unwrap_or_else(|| Region::allocate(size, Home::Class(class)))
}

/// Returns a region whose last window was dropped. What its home has no room for is freed.
pub(super) fn give_back(region: Box<Region>) {
    let refused = match region::home(&region) {
        Home::Allocator => Some(region),
        Home::Class(class) => FREE[*class].push(region).err(),
        Home::Pool(pool) => match pool.upgrade() {
            Some(pool) => pool.idle.push(region).err(),
            None => Some(region),
        },
    };
    drop(refused);
}

/// Buffers of one size for one owner: what the owner gives back waits here and not in the lists that
/// everybody shares.
pub struct BufPool {
    buf_size: usize,
    idle: ArrayQueue<Box<Region>>,
}

impl BufPool {
    /// A pool of buffers of `buf_size` bytes that keeps at most `max` of them idle (at least one).
    pub fn new(buf_size: usize, max: usize) -> Arc<BufPool> {
        Arc::new(BufPool { buf_size, idle: ArrayQueue::new(max.max(1)) })
    }

    /// A buffer of the pool's size with unspecified contents: an idle one, else a fresh one. It
    /// comes back when its last window is dropped.
    pub fn get(self: &Arc<Self>) -> AlignedBuf {
        let region =
            self.idle.pop().unwrap_or_else(|| Region::allocate(self.buf_size, Home::Pool(Arc::downgrade(self))));
        debug_assert!(region.size() >= self.buf_size);
        AlignedBuf { inside: Inside::Own(Window::over(region, self.buf_size)) }
    }

    /// How many buffers wait for use.
    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    /// The size of each buffer in bytes.
    pub fn buf_size(&self) -> usize {
        self.buf_size
    }
}

impl std::fmt::Debug for BufPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BufPool").field("buf_size", &self.buf_size).field("idle", &self.idle()).finish()
    }
}
