//! The cluster shared volume: every node mounts it, reads and writes its blocks directly on the shared disk, and
//! goes on when its own path to that disk is gone.
//!
//! - [`mod@format`]: what lies on the disk outside the metadata store: superblocks, slots, the lease block.
//! - [`meta`]: the metadata store that the coordinator alone opens.
//! - [`core`]: the pure state machines (office, coordinator, client); no runtime, no clock, no random source.
//! - [`proto`]: what client and coordinator say to one another.
//! - [`coordinator`], [`client`], [`volume`]: the shells that run the cores on real devices and networks.
#![forbid(unsafe_code)]

pub mod client;
pub mod coordinator;
pub mod core;
pub mod format;
pub mod meta;
pub mod proto;
#[cfg(any(test, feature = "simulation"))]
pub mod sim;
pub mod types;
pub mod volume;
