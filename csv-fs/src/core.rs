//! The pure state machines: time and events come in as arguments, effects go out as data.
//!
//! Nothing below this module imports a runtime, a socket, a file, a clock or a random source; a test of the
//! workspace holds that. The shells apply the effects; they take no decision of their own.

pub mod client;
pub mod coord;
pub mod locks;
pub mod office;
pub mod rules;
pub mod time;
