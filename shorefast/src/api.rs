//! What a command and a daemon say to one another: JSON lines over a Unix socket.
//!
//! One connection carries one request line and its answer lines: any number of `progress` and `event` lines, then
//! exactly one of `ok` or `error`, and the daemon closes. Every line carries the version. A daemon refuses a version or
//! a request it does not know with a sentence, never by guessing. The socket's mode is 0660: who may open it may ask.
//!
//! Bounds: a request line of [`MAX_REQUEST`] bytes that arrives within ten seconds, [`MAX_CONNECTIONS`] at a time.
//!
//! The server reaches the node only through [`NodeControl`].

mod check;
mod client;
mod control;
mod request;
mod server;
mod types;

pub use check::{CheckBlocks, CheckFinding, CheckReport, CheckedOn};
pub use client::Client;
pub use control::{NodeControl, Pending, Progress};
pub use request::{Answer, AnswerLine, CheckAnswer, CreateVolume, DiskFault, Reply, Request, RequestLine, Timing};
pub use server::{Server, ServerError};
pub use types::*;

/// The version of these lines. 1: first.
pub const VERSION: u32 = 1;

/// The number in every JSON answer a person may keep a script for. 1: first.
pub const SCHEMA: u32 = 1;

/// How to name another socket; part of several sentences.
fn places_hint() -> String {
    format!("or name its socket with --socket PATH or {}", crate::places::SOCKET_ENV)
}

/// The longest request line. Requests are names and flags; a longer line is a mistake or an attack.
pub const MAX_REQUEST: usize = 64 * 1024;

/// Connections served at the same time; one more is told to come back. Some of them follow events for hours.
pub const MAX_CONNECTIONS: usize = 64;
