//! What every node runs below its mount of a volume: the client.
//!
//! - [`session`]: one session with whoever coordinates; a call waits through failovers. Holds the core.
//! - [`data`]: reads and writes of files, direct or redirected, under layouts.
//! - [`fs`]: the kernel's requests, each answered by the two above.
//! - [`link`]: what all of it needs from outside: connections, the own slot, a place for events.
//!
//! Architecture invariant: decisions are the core's ([`crate::core::client`]); what is here waits, sends, copies and
//! counts. In-place I/O under held layouts asks nobody and goes on while there is no coordinator.

pub mod counters;
mod counts;
pub mod data;
pub mod fs;
mod gate;
#[cfg(test)]
mod gate_tests;
mod inode;
#[cfg(test)]
mod interleavings;
mod layout;
pub mod link;
mod outstanding;
mod ranges;
pub mod session;
mod space;
mod spawn;
mod sync;
mod witness;
mod writes;
