//! The replicated block device: what lies on the disk, how replicas are compared, and the core that keeps them equal.
//!
//! - [`ids`]: nodes, sets of nodes, generations, positions, ballots, spans of sectors.
//! - [`meta`]: superblocks, activity log, bitmaps; the store over a block device; the audit.
//! - [`core`]: one node: the stream, grants, handshakes, synchronisation; and the tie-breaker.
//! - [`compare`]: who is source, who is target, who has split off: one table, one function.
//!
//! Pure are `ids`, `compare`, `core` and `meta` but for its store. What this crate refuses: two primaries at
//! once, more than eight replicas. Architecture invariant: it imports `block` and `net`, nothing else of ours.
#![forbid(unsafe_code)]

pub mod compare;
pub mod core;
pub mod ids;
pub mod meta;
#[cfg(test)]
mod sim;
