//! INIT: the first request of a mount and its answer.

use super::body;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

body!(
    /// `flags2` holds bits 32..63 of the feature flags and counts only with FUSE_INIT_EXT.
    InitIn [64] { major: u32, minor: u32, max_readahead: u32, flags: u32, flags2: u32, unused: [u32; 11] }
);
body!(InitOut [64] {
    major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16,
    congestion_threshold: u16, max_write: u32, time_gran: u32, max_pages: u16, map_alignment: u16,
    flags2: u32, max_stack_depth: u32, request_timeout: u16, unused: [u16; 11],
});
