//! The target without I/O: how a login is answered, what a connection may send, what a logical unit does about a command.
//!
//! - [`login`]: a login from the target's side, CHAP included.
//! - [`session`]: a connection in the full feature phase: command window, data in both directions, numbers of answers.
//! - [`mod@unit`]: a logical unit: its task set, unit attentions, port groups, and what it answers.
//! - [`reserve`]: its persistent reservations. [`program`]: what a command on blocks does with the device, step by step.
//!
//! Architecture invariant: nothing here knows a runtime, a clock, a socket, a file or chance.

pub(crate) mod login;
pub(crate) mod name;
pub(crate) mod program;
pub(crate) mod reserve;
pub(crate) mod session;
pub(crate) mod unit;
