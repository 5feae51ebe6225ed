//! The replicated block device: what lies on the disk, how replicas are compared, the core that keeps them equal, what runs it,
//! and its front-end.
//!
//! - [`ids`]: nodes, sets of nodes, generations, positions, ballots, spans of sectors.
//! - [`meta`]: superblocks, activity log, bitmaps; the store over a block device; the audit.
//! - [`core`]: one node: the stream, grants, handshakes, synchronisation; and the tie-breaker.
//! - [`compare`]: who is source, who is target, who has split off: one table, one function.
//! - [`runtime`]: a resource at work on one node: the core with a disk, connections and a clock; its device.
//! - [`nbd`]: an NBD server for any block device.
//!
//! Pure are `ids`, `compare`, `core`, `meta` but for its store, and the core of `nbd`. What this crate refuses: two primaries
//! at once, more than eight replicas. Knows nothing of file systems and clusters: what it is given and what it offers is a
//! `BlockDevice`. Architecture invariant: it imports `block` and `net`, nothing else of ours.
#![forbid(unsafe_code)]

pub mod compare;
pub mod core;
pub mod ids;
pub mod meta;
pub mod nbd;
pub mod runtime;
#[cfg(test)]
mod sim;
