//! The replicated block device: so far what lies on its disk.
//!
//! - [`ids`]: nodes, sets of nodes, generations, positions, ballots, spans of sectors.
//! - [`meta`]: superblocks, activity log, bitmaps; the store over a block device; the audit.
//!
//! Pure are `ids` and `meta` but for its store. What this crate refuses: more than eight replicas. Architecture invariant: it imports `block` and `net`, nothing else of ours.
#![forbid(unsafe_code)]

pub mod ids;
pub mod meta;
