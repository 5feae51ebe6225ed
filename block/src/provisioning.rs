//! What some devices can tell besides reading and writing: where data lie, what a discard leaves, and that their size
//! has changed. Separate traits, because not every device knows: a front-end that is given none of them says
//! "allocated", zeroes by writing zeroes, and keeps the size of the beginning.

use crate::error::IoError;
use crate::units::{ByteLen, ByteOffset};

/// A stretch of a device, told in order from the asked position on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its length; never 0.
    pub len: ByteLen,
    /// Nothing is allocated for it: a write there may find no space.
    pub hole: bool,
    /// It reads as zeroes.
    pub zero: bool,
}

/// Called once with what was found. It must not block.
pub type ExtentsDone = Box<dyn FnOnce(Result<Vec<Extent>, IoError>) + Send>;

/// Where a device's data lie. What is told is a snapshot: a write may have changed it since.
pub trait Provisioning: Send + Sync + 'static {
    /// True if a discarded range reads as zeroes.
    fn discard_zeroes(&self) -> bool;

    /// True as long as a write-zeroes is not known to be done by writing.
    fn zeroes_fast(&self) -> bool;

    /// Tells the extents of a range within the device, at least one and at most `most` (at least 1), which together
    /// may end before the range does and never behind it. `done` is called exactly once, on any thread, maybe before this returns.
    fn extents(&self, at: ByteOffset, len: ByteLen, most: usize, done: ExtentsDone);
}

/// A device whose size can change while it is open.
pub trait Rescan: Send + Sync + 'static {
    /// Looks at the size again. From then on requests are held to it.
    fn rescan(&self) -> Result<ByteLen, IoError>;
}

/// Adds an extent, or lengthens the last one if it is alike.
pub(crate) fn push(extents: &mut Vec<Extent>, extent: Extent) {
    match extents.last_mut() {
        Some(last) if (last.hole, last.zero) == (extent.hole, extent.zero) => last.len.0 += extent.len.0,
        _ => extents.push(extent),
    }
}
