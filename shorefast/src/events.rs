//! What a node reports: a closed list of codes that scripts may rely on, and the log that keeps the latest of them.
//!
//! A code, once released, keeps its name and its meaning. docs/events.md is this list; a test holds them together
//! (`UPDATE_DOCS=1` writes it).

mod code;
mod log;

pub use code::{Code, Severity};
pub use log::{Draft, Event, EventLog};
