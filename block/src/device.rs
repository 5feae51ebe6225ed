//! What a block device is.
//!
//! The contract, which every device here keeps and every layer above relies on:
//! 1. There is **no order** between requests in flight together. Who needs an order waits.
//! 2. A **flush covers exactly the writes completed before it was submitted**. A write with FUA is on
//!    stable storage when it completes.
//! 3. **One logical block is atomic**: after a crash it holds its old or its new contents. A request
//!    of several blocks may be there in part.
//! 4. Every [`Io`] **completes exactly once**, also at shutdown; its buffer comes back with it.
//!    A completion may run on any thread, also inside `submit` itself, so whoever submits holds no lock
//!    that its completion takes.
//! 5. A failed write's range has undefined contents (old, new, or a mix of blocks) until it is
//!    written again. After a failed flush nothing is known about any write not yet covered. A device that may
//!    have lost acknowledged writes fails each flush under way or sent next that covers them
//!    ([`CacheLost`](crate::error::IoErrorKind::CacheLost)); later ones know of newer writes only.
//! 6. What a device refuses by [`Geometry::check`] was not executed.

mod ext;
mod geometry;
mod io;
mod resize;

use std::sync::Arc;

pub use ext::{DeviceExt, Waiting};
pub use geometry::{Geometry, MAX_TRANSFER};
pub use io::{Completion, Done, Io, Op};
pub use resize::Resize;

/// A block device. See the module for the contract.
pub trait BlockDevice: Send + Sync + 'static {
    /// Size, block sizes and abilities. Cheap; may change only by what the device learns about its
    /// abilities, and by a change of its size, which a [`Resize`] tells and a
    /// [`Rescan`](crate::provisioning::Rescan) looks for.
    fn geometry(&self) -> Geometry;

    /// Takes the request; its completion runs exactly once, later or before this returns.
    fn submit(&self, io: Io);

    /// What it is, for people: kind and place.
    fn describe(&self) -> String;

    /// How many losses it has told so far (5). Counted **before** the flush that is told is answered, so that whoever shares the device and
    /// was not told itself can see it: a write that was sent at one count, and of which no flush was answered before the count
    /// grew, may be gone. A device that answers no flush with [`CacheLost`](crate::error::IoErrorKind::CacheLost) tells none.
    fn losses(&self) -> u64 {
        0
    }
}

impl<D: BlockDevice + ?Sized> BlockDevice for Arc<D> {
    fn geometry(&self) -> Geometry {
        (**self).geometry()
    }

    fn submit(&self, io: Io) {
        (**self).submit(io);
    }

    fn describe(&self) -> String {
        (**self).describe()
    }

    fn losses(&self) -> u64 {
        (**self).losses()
    }
}
