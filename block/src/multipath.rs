//! One disk over several paths: which path a request takes, and what becomes of it when the path fails.
//!
//! - [`core`]: the decisions, sans-IO; `policy` and `health` are its parts.
//! - [`device`]: the shell, a [`BlockDevice`](crate::device::BlockDevice) over [`Path`]s. It decides nothing.
//!
//! A path is one nexus with the disk. Two paths are merged only where the disk's own names prove that they lead to one
//! disk; that is asked again each time a path comes back.
//!
//! The rules are [`rules::Rule`]; each can be taken out in the simulation, and an oracle then finds it.

pub mod config;
pub mod core;
pub mod device;
pub mod event;
mod health;
mod path;
mod policy;
pub mod rules;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

pub use config::{Config, Failback, MAX_PATHS, Policy};
pub use device::{Multipath, Nexus, Path, PathStatus};
pub use event::{Access, PathId, PathState, Reason, Standing};
