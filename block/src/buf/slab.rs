//! Slabs: pieces of memory as large as one huge page of the processor, from which large regions are cut.
//!
//! What the kernel copies into eight regions of 1 MiB goes to 2048 pages of 4 KiB, more than the processor remembers the addresses
//! of; in huge pages it goes to four. A slab of which the kernel makes no huge page serves as well, only slower.
//!
//! Invariants: every page of a slab was written once before a region is cut from it; a slab is unmapped when the last of its
//! regions is freed, so that one region in use holds the memory of all.

#![allow(unsafe_code)]
// Reason: memory at an address of our own choice cannot be had from the allocator without a second piece as large.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use super::ALIGN;
use super::region::{LOCKED, lock};

/// A huge page on x86-64 and on ARM with pages of 4 KiB.
pub(super) const SLAB: usize = 2 << 20;

/// One slab: [`SLAB`] bytes at an address that is a multiple of it.
pub(super) struct Slab {
    memory: NonNull<u8>,
}

// SAFETY: the memory is plain bytes; access goes through windows of regions, which are disjoint.
unsafe impl Send for Slab {}
// SAFETY: as above; the field never changes.
unsafe impl Sync for Slab {}

impl Slab {
    /// Maps one: zeroes, every page touched, locked if regions are to be. None if the kernel has no memory for it.
    pub(super) fn map() -> Option<Arc<Slab>> {
        let (read_write, private) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping of nothing, at an address that the kernel chooses.
        let twice = unsafe { mmap_anonymous(std::ptr::null_mut(), 2 * SLAB, read_write, private) }.ok()?;
        let before = twice.cast::<u8>().align_offset(SLAB);
        // SAFETY: `before` is less than SLAB, so that the slab lies within the mapping. What lies before and behind it was just
        // mapped and is known to nobody; a part that cannot be unmapped takes addresses and no memory.
        let memory = unsafe {
            if before > 0 {
                let _ = munmap(twice, before);
            }
            let _ = munmap(twice.byte_add(before + SLAB), SLAB - before);
            NonNull::new(twice.cast::<u8>().add(before))?
        };
        // SAFETY: the range was just mapped, and the advice changes nothing that a program can see. Refused: pages of 4 KiB.
        let _ = unsafe { madvise(memory.as_ptr().cast(), SLAB, Advice::LinuxHugepage) };
        for page in (0..SLAB).step_by(ALIGN) {
            // SAFETY: `page < SLAB`, the memory is ours and zero; a volatile write makes the kernel map the page now.
            unsafe { memory.add(page).write_volatile(0) };
        }
        if LOCKED.load(Ordering::Relaxed) {
            lock(memory, SLAB);
        }
        Some(Arc::new(Slab { memory }))
    }

    /// Its first byte.
    pub(super) fn memory(&self) -> NonNull<u8> {
        self.memory
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: mapped in `map`; regions hold the slab, so that none is left. That unlocks it, too. Refused it is lost, which
        // costs memory and nothing more.
        let _ = unsafe { munmap(self.memory.as_ptr().cast(), SLAB) };
    }
}
