//! Holes made, and ranges set to zero without writing them: `fallocate(2)` with PUNCH_HOLE and ZERO_RANGE.

use serde::{Deserialize, Serialize};

use crate::types::*;

/// Whole blocks of a file that read as zeroes from now on. What lies in the first and last block in part is zeroed by
/// the client before, as a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clear {
    /// Which file.
    pub ino: InodeNo,
    /// Which blocks.
    pub range: BlockRange,
    /// What they become.
    pub into: ClearInto,
}

/// What cleared blocks become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClearInto {
    /// A hole: their space is free afterwards.
    Hole,
    /// Unwritten: they keep their space.
    Unwritten,
}
