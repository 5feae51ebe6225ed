//! Regions of aligned memory and the windows into them: with slabs, from which large ones are cut, the one place of `block::buf`
//! that handles raw memory.
//!
//! A region counts its windows itself rather than through `Arc`, because a recycled region then
//! needs no allocation at all, neither for the memory nor for the count.

#![allow(unsafe_code)]
// Reason: aligned allocation, and windows that several threads own disjointly, cannot be said with slices.

use std::alloc::{self, Layout};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Weak};

use super::ALIGN;
use super::pool::{self, BufPool};
use super::slab::{SLAB, Slab};

/// Whether regions that are allocated from now on are locked into memory.
pub(super) static LOCKED: AtomicBool = AtomicBool::new(false);

/// Where a region goes when its last window is dropped.
pub(super) enum Home {
    /// Back to the allocator.
    Allocator,
    /// To the process-wide free list of this size class.
    Class(usize),
    /// To its pool, if that still exists.
    Pool(Weak<BufPool>),
}

/// One piece of aligned memory. Owned through a `Box` while no window exists.
pub(super) struct Region {
    /// Live windows. Only windows of this region change it.
    windows: AtomicUsize,
    memory: NonNull<u8>,
    size: usize,
    /// It is never paged out.
    locked: bool,
    /// What it was cut from; none: it came from the allocator.
    slab: Option<Arc<Slab>>,
    home: Home,
}

// SAFETY: the memory is plain bytes owned by the region; nothing in it belongs to a thread. Access
// goes through windows, which are disjoint.
unsafe impl Send for Region {}
// SAFETY: as above; the shared part is the atomic count and fields that never change.
unsafe impl Sync for Region {}

/// An exclusive range of a region's bytes.
pub(super) struct Window {
    region: NonNull<Region>,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a window has exclusive use of its bytes and the region's count is atomic.
unsafe impl Send for Window {}
// SAFETY: `&Window` only gives `&[u8]`, and `&mut Window` is needed for everything else.
unsafe impl Sync for Window {}

impl Region {
    /// A fresh region of zeroes of at least `size` bytes, every page touched.
    pub(super) fn allocate(size: usize, home: Home) -> Box<Region> {
        let size = size.max(1).next_multiple_of(ALIGN);
        let Ok(layout) = Layout::from_size_align(size, ALIGN) else {
            // More than half the address space: no caller has such a length from a checked source.
            panic!("a buffer of {size} bytes cannot exist");
        };
        // SAFETY: the layout's size is not zero.
        let raw = unsafe { alloc::alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(raw) else { alloc::handle_alloc_error(layout) };
        for page in (0..size).step_by(ALIGN) {
            // SAFETY: `page < size`, the memory is ours and zero; a volatile write makes the kernel
            // map the page now.
            unsafe { memory.add(page).write_volatile(0) };
        }
        let locked = LOCKED.load(Ordering::Relaxed) && lock(memory, size);
        Box::new(Region { windows: AtomicUsize::new(0), memory, size, locked, slab: None, home })
    }

    /// All regions of this size class that one slab yields; none if there is no memory for it.
    pub(super) fn of_one_slab(size: usize, class: usize) -> impl Iterator<Item = Box<Region>> {
        let cut = move |slab: Arc<Slab>| {
            (0..SLAB / size).map(move |n| {
                // SAFETY: `(n + 1) * size <= SLAB`: disjoint pieces of the slab, which each of them holds.
                let memory = unsafe { slab.memory().add(n * size) };
                let (windows, slab) = (AtomicUsize::new(0), Some(Arc::clone(&slab)));
                // The slab is what is locked.
                Box::new(Region { windows, memory, size, locked: false, slab, home: Home::Class(class) })
            })
        };
        Slab::map().into_iter().flat_map(cut)
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }
}

/// Locks memory; false if that is not allowed (RLIMIT_MEMLOCK), which is said once.
pub(super) fn lock(memory: NonNull<u8>, size: usize) -> bool {
    // SAFETY: the range was just allocated; locking changes nothing that a program can see.
    let locked = unsafe { rustix::mm::mlock(memory.as_ptr().cast(), size) };
    static SAID: AtomicBool = AtomicBool::new(false);
    if let Err(error) = locked
        && !SAID.swap(true, Ordering::Relaxed)
    {
        tracing::warn!("buffers are not locked into memory: {error}; raise the limit of locked memory (LimitMEMLOCK=)");
    }
    locked.is_ok()
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.slab.is_some() {
            return;
        }
        // SAFETY: allocated in `allocate` with exactly this size and alignment, and no window is
        // left, since windows own the region until the last is dropped.
        unsafe {
            if self.locked {
                // Before the allocator gives it to somebody else. One that stays locked costs memory, nothing more.
                let _ = rustix::mm::munlock(self.memory.as_ptr().cast(), self.size);
            }
            let layout = Layout::from_size_align_unchecked(self.size, ALIGN);
            alloc::dealloc(self.memory.as_ptr(), layout);
        }
    }
}

impl Window {
    /// The first `len` bytes of a region that has no window yet.
    pub(super) fn over(mut region: Box<Region>, len: usize) -> Window {
        assert!(len <= region.size, "a window of {len} bytes in a region of {}", region.size);
        *region.windows.get_mut() = 1;
        let start = region.memory;
        Window { region: NonNull::from(Box::leak(region)), start, len }
    }

    fn region(&self) -> &Region {
        // SAFETY: the region lives until its last window, and `self` is one.
        unsafe { self.region.as_ref() }
    }

    pub(super) fn address(&self) -> usize {
        self.start.as_ptr() as usize
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the window's bytes are initialised, inside the region, and no other window has
        // them; `&self` keeps writers out.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    pub(super) fn advance(&mut self, n: usize) {
        assert!(n <= self.len, "advance by {n} in a buffer of {}", self.len);
        // SAFETY: `n <= len`, so the result is inside the region or one past its end.
        self.start = unsafe { self.start.add(n) };
        self.len -= n;
    }

    pub(super) fn truncate(&mut self, n: usize) {
        self.len = self.len.min(n);
    }

    pub(super) fn split_to(&mut self, n: usize) -> Window {
        assert!(n <= self.len, "split at {n} in a buffer of {}", self.len);
        // Relaxed as in `Arc::clone`: a new window is made from one that already keeps the region.
        self.region().windows.fetch_add(1, Ordering::Relaxed);
        let front = Window { region: self.region, start: self.start, len: n };
        self.advance(n);
        front
    }

    pub(super) fn try_unsplit(&mut self, tail: Window) -> Result<(), Window> {
        if tail.region != self.region || tail.address() != self.address() + self.len {
            return Err(tail);
        }
        self.len += tail.len;
        Ok(())
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // Release: our accesses to the bytes come before the reuse by whoever sees the count fall.
        if self.region().windows.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        fence(Ordering::Acquire);
        // SAFETY: that was the last window, so nobody else knows the region; it came out of a Box
        // in `over`.
        let region = unsafe { Box::from_raw(self.region.as_ptr()) };
        pool::give_back(region);
    }
}

/// Where `region` wants to go.
pub(super) fn home(region: &Region) -> &Home {
    &region.home
}
