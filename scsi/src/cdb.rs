//! Command descriptor blocks: one type per command, each with a builder for initiators and a parser for targets.

mod block;
pub mod op;
#[cfg(test)]
mod tests;

pub use block::{Cdb, HEAD, MAX_CDB, Transfer};
pub use op::{ServiceAction, group_len};
