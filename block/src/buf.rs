//! Memory for device I/O: 4 KiB aligned, pre-faulted, recycled.
//!
//! An [`AlignedBuf`] is a window into a reference-counted region. Windows of one region never
//! overlap, so each has exclusive use of its bytes and may live on a thread of its own; the region goes
//! back to where it came from when the last window is dropped. Nothing is copied by splitting,
//! advancing, joining or freezing.
//!
//! What was frozen can be written to a device as it is ([`AlignedBuf::of_bytes`]): such a buffer shares its bytes, and makes a copy
//! of its own before anybody changes them.
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

use bytes::{Buf, Bytes};

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
    inside: Inside,
}

enum Inside {
    Own(Window),
    /// At an aligned address. Others read them, too.
    Shared(Bytes),
}

impl AlignedBuf {
    /// `len` zero bytes at a 4096-aligned address.
    pub fn zeroed(len: usize) -> AlignedBuf {
        let (mut window, clean) = pool::take(len);
        if !clean {
            window.bytes_mut().fill(0);
        }
        AlignedBuf { inside: Inside::Own(window) }
    }

    /// `len` bytes at a 4096-aligned address whose contents are unspecified (old data of this
    /// process), though initialised. For memory that is about to be filled whole.
    pub fn with_capacity(len: usize) -> AlignedBuf {
        AlignedBuf { inside: Inside::Own(pool::take(len).0) }
    }

    /// A copy of `bytes` at a 4096-aligned address.
    pub fn from_slice(bytes: &[u8]) -> AlignedBuf {
        let mut buf = AlignedBuf::with_capacity(bytes.len());
        buf.copy_from_slice(bytes);
        buf
    }

    /// Shared bytes as a buffer: without a copy if their address is a multiple of 4096, as that of what [`AlignedBuf::freeze`] gave.
    /// To be read; changing it copies it.
    pub fn of_bytes(bytes: Bytes) -> AlignedBuf {
        if bytes.as_ptr().addr().is_multiple_of(ALIGN) {
            AlignedBuf { inside: Inside::Shared(bytes) }
        } else {
            AlignedBuf::from_slice(&bytes)
        }
    }

    /// The window, exclusive.
    fn own(&mut self) -> &mut Window {
        if let Inside::Shared(bytes) = &self.inside {
            let (mut window, _) = pool::take(bytes.len());
            window.bytes_mut().copy_from_slice(bytes);
            self.inside = Inside::Own(window);
        }
        match &mut self.inside {
            Inside::Own(window) => window,
            Inside::Shared(_) => unreachable!("it was made its own a moment ago"),
        }
    }

    /// Takes the front `n` bytes off as a window of their own; `self` keeps the rest.
    ///
    /// # Panics
    /// If `n > self.len()`, as for a slice.
    #[must_use = "the front bytes are lost otherwise; use advance"]
    pub fn split_to(&mut self, n: usize) -> AlignedBuf {
        AlignedBuf { inside: Inside::Own(self.own().split_to(n)) }
    }

    /// Gives up the front `n` bytes.
    ///
    /// # Panics
    /// If `n > self.len()`, as for a slice.
    pub fn advance(&mut self, n: usize) {
        match &mut self.inside {
            Inside::Own(window) => window.advance(n),
            Inside::Shared(bytes) => bytes.advance(n),
        }
    }

    /// Gives up everything behind the first `n` bytes; nothing happens if there are fewer.
    pub fn truncate(&mut self, n: usize) {
        match &mut self.inside {
            Inside::Own(window) => window.truncate(n),
            Inside::Shared(bytes) => bytes.truncate(n),
        }
    }

    /// Joins `tail` on, if it lies directly behind in the same region; otherwise gives it back.
    pub fn try_unsplit(&mut self, tail: AlignedBuf) -> Result<(), AlignedBuf> {
        match (&mut self.inside, tail.inside) {
            (Inside::Own(window), Inside::Own(tail)) => {
                window.try_unsplit(tail).map_err(|tail| AlignedBuf { inside: Inside::Own(tail) })
            }
            (_, inside) => Err(AlignedBuf { inside }),
        }
    }

    /// True if the *address* of the first byte is a multiple of `n` (false for 0). Says nothing
    /// about the length.
    pub fn is_aligned_to(&self, n: usize) -> bool {
        n != 0 && self.address().is_multiple_of(n)
    }

    /// The window as immutable shared bytes, without a copy; the region returns when the last
    /// clone is dropped.
    pub fn freeze(self) -> Bytes {
        match self.inside {
            Inside::Shared(bytes) => bytes,
            Inside::Own(_) => Bytes::from_owner(self),
        }
    }

    fn address(&self) -> usize {
        match &self.inside {
            Inside::Own(window) => window.address(),
            Inside::Shared(bytes) => bytes.as_ptr().addr(),
        }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.inside {
            Inside::Own(window) => window.bytes(),
            Inside::Shared(bytes) => bytes,
        }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.own().bytes_mut()
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
            .field("address", &format_args!("{:#x}", self.address()))
            .finish()
    }
}
