//! A device whose size may change while it is in use.

use tokio::sync::watch;

use super::Geometry;

/// Tells of changes of a device's shape.
///
/// A request that was checked against the old size and lies beyond the new one fails as out of range; the block sizes
/// never change in a device's life.
pub trait Resize: Send + Sync {
    /// The shape now, to be watched: it changes when the device learns of another size, or that it became read-only.
    fn resized(&self) -> watch::Receiver<Geometry>;
}
