//! Free lists of regions: process-wide ones by size class, and pools of one size for one owner.

use std::sync::{Arc, LazyLock};

use crossbeam_queue::ArrayQueue;

use super::region::{self, Home, Region, Window};
use super::{AlignedBuf, Inside};

/// The smallest class: one page.
const MIN_CLASS_SHIFT: u32 = 12;
/// Classes of 4 KiB, 8 KiB ... 2 MiB (a 1 MiB payload with its header page needs the last).
const CLASSES: usize = 10;
/// Bytes a class may keep idle. 4 MiB each bounds what an idle process holds at 40 MiB; a region
/// that finds its list full goes back to the allocator.
const CLASS_BUDGET: usize = 4 << 20;
/// No class keeps more regions than this, whatever their size: deep enough for 4 jobs at depth 128.
const CLASS_MAX: usize = 512;

static FREE: LazyLock<Vec<ArrayQueue<Box<Region>>>> = LazyLock::new(|| {
    (0..CLASSES).map(|class| ArrayQueue::new((CLASS_BUDGET / class_size(class)).min(CLASS_MAX))).collect()
});

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
        None => (Window::over(Region::allocate(class_size(class), Home::Class(class)), len), true),
    }
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
