//! Seeded simulation of the cores: two or three nodes with disks, a tie-breaker, a network and applications in virtual
//! time. The same seed is the same run.
//!
//! The cores are the real ones, and so is the metadata: what a node writes lies as bytes on a simulated disk, and is
//! recovered from them after a crash. Disks have a volatile cache: a crash keeps or loses each sector that was not flushed,
//! also half of a block, and what was in flight may have landed in part. A disk can fail. Connections keep order and break;
//! a cut link swallows what is sent until somebody notices. Not modelled: messages that are damaged, latent errors of
//! data, clocks that run apart.
//!
//! Oracles look at disks and at what applications were told, never at what a core thinks. See `oracle` for I1 to I10.

mod disk;
mod oracle;
mod rng;
mod tests;
mod world;

use world::{FAULTS, Plan, Rates, Verdict, run_seed};
