//! Memory for device I/O: 4 KiB aligned, pre-faulted, recycled.
//!
//! An [`AlignedBuf`] is a window into a reference-counted region. Windows of one region never
//! overlap, so each has exclusive use of its bytes and may live on a thread of its own; the region goes
//! back to where it came from when the last window is dropped. Nothing is copied by splitting,
//! advancing, joining or freezing.
//!
//! Invariants:
//! - a window is a range of initialised bytes of its region, shared with no other window;
//! - a region's memory is 4096-aligned, a multiple of 4096 long, and every page was written once
//!   before its first use, so that no page fault happens while the kernel copies (a process killed
//!   during such a copy would lose the request);
//! - a recycled region keeps its old bytes: only [`AlignedBuf::zeroed`] promises zeroes.
//!
//! Regions up to 2 MiB are kept in process-wide free lists by power-of-two size, so that the steady
//! state allocates nothing; the large ones lie in huge pages. A [`BufPool`] keeps regions of one size for one owner.

mod pool;
mod region;
mod slab;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::{Deref, DerefMut};

use bytes::Bytes;

pub use pool::BufPool;
use region::Window;

/// From now on no region that is allocated is paged out, where that is allowed. A process that is killed while the kernel
/// copies from or to memory that is not there loses the request, as far as whoever waits for it is concerned.
pub fn lock_memory() {
    region::LOCKED.store(true, std::sync::atomic::Ordering::Relaxed);
}

/// The alignment and granularity of every region.
pub const ALIGN: usize = 4096;

/// An exclusive window of bytes in aligned memory. `Send`; dereferences to `[u8]`.
pub struct AlignedBuf {
    window: Window,
}

impl AlignedBuf {
    /// `len` zero bytes at a 4096-aligned address.
    pub fn zeroed(len: usize) -> AlignedBuf {
        let (mut window, clean) = pool::take(len);
        if !clean {
            window.bytes_mut().fill(0);
        }
        AlignedBuf { window }
    }

    /// `len` bytes at a 4096-aligned address whose contents are unspecified (old data of this
    /// process), though initialised. For memory that is about to be filled whole.
    pub fn with_capacity(len: usize) -> AlignedBuf {
        AlignedBuf { window: pool::take(len).0 }
    }

    /// A copy of `bytes` at a 4096-aligned address.
    pub fn from_slice(bytes: &[u8]) -> AlignedBuf {
        let mut buf = AlignedBuf::with_capacity(bytes.len());
        buf.copy_from_slice(bytes);
        buf
    }

    /// Takes the front `n` bytes off as a window of their own; `self` keeps the rest.
    ///
    /// # Panics
    /// If `n > self.len()`, as for a slice.
    #[must_use = "the front bytes are lost otherwise; use advance"]
    pub fn split_to(&mut self, n: usize) -> AlignedBuf {
        AlignedBuf { window: self.window.split_to(n) }
    }

    /// Gives up the front `n` bytes.
    ///
    /// # Panics
    /// If `n > self.len()`, as for a slice.
    pub fn advance(&mut self, n: usize) {
        self.window.advance(n);
    }

    /// Gives up everything behind the first `n` bytes; nothing happens if there are fewer.
    pub fn truncate(&mut self, n: usize) {
        self.window.truncate(n);
    }

    /// Joins `tail` on, if it lies directly behind in the same region; otherwise gives it back.
    pub fn try_unsplit(&mut self, tail: AlignedBuf) -> Result<(), AlignedBuf> {
        self.window.try_unsplit(tail.window).map_err(|window| AlignedBuf { window })
    }

    /// True if the *address* of the first byte is a multiple of `n` (false for 0). Says nothing
    /// about the length.
    pub fn is_aligned_to(&self, n: usize) -> bool {
        n != 0 && self.window.address().is_multiple_of(n)
    }

    /// The window as immutable shared bytes, without a copy; the region returns when the last
    /// clone is dropped.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.window.bytes()
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.window.bytes_mut()
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for AlignedBuf {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for AlignedBuf {
    /// The shape, not the bytes: buffers carry users' data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuf")
            .field("len", &self.len())
            .field("address", &format_args!("{:#x}", self.window.address()))
            .finish()
    }
}
