//! The transmission phase: what a request header means, and the headers of replies ("Request message", "Simple reply
//! message", "Structured reply chunk message"; "Extended reply chunk message" of the extension).
//!
//! Refused with an error, the connection goes on: unknown commands and flags, ranges outside the export or not of whole
//! blocks, changes of a read-only export, a payload where none belongs (it is passed over). The connection ends, because
//! the place of the next request is unknown or the client wants too much: a wrong magic number, a payload longer than
//! [`MAX_PAYLOAD`](crate::nbd::limits::MAX_PAYLOAD).
//!
//! Where the specification leaves a choice: requests of length 0 do nothing and succeed, except BLOCK_STATUS, for which
//! there is no answer; a read too long for one payload is EOVERFLOW in chunks and EINVAL without; CACHE does nothing,
//! since devices here have no cache to fill. Where it leaves none: a write with an extended header is followed by its
//! payload also if it does not say so by the flag, because QEMU (10.0 still) sends it that way.

mod replies;
mod requests;
#[cfg(test)]
mod tests;

use super::facts::{Facts, Style};
use super::handshake::Agreed;
use super::wire::{Cookie, Errno};

pub use replies::{Head, Stretch};

/// Which request a reply is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The client's name for it.
    pub cookie: Cookie,
    /// Its offset, which extended replies repeat.
    pub offset: u64,
}

/// A well-formed request within the export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// For the reply.
    pub tag: Tag,
    /// What is wanted, at the tag's offset.
    pub command: Command,
}

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// So many bytes, at least 1 and at most one payload.
    Read {
        /// How many.
        len: u32,
    },
    /// So many bytes follow.
    Write {
        /// How many, at least 1.
        len: u32,
        /// Stable before the answer.
        fua: bool,
    },
    /// Make stable what was answered.
    Flush,
    /// Not needed any more.
    Trim {
        /// How many bytes, at least 1.
        len: u64,
        /// Stable before the answer.
        fua: bool,
    },
    /// Zero.
    Zeroes {
        /// How many bytes, at least 1.
        len: u64,
        /// Stable before the answer.
        fua: bool,
        /// What is zeroed may be given back.
        may_free: bool,
        /// Only if faster than writing.
        fast: bool,
    },
    /// Where data lie.
    Status {
        /// How many bytes, at least 1.
        len: u64,
        /// One extent only.
        one: bool,
    },
    /// The same; the length and the contexts follow as a payload of [`STATUS_PAYLOAD`] bytes.
    StatusOf {
        /// One extent only.
        one: bool,
    },
    /// Nothing has to be done.
    Nothing,
}

/// The payload of BLOCK_STATUS that names the one context there is: a length and its number.
pub const STATUS_PAYLOAD: u32 = 12;

/// An error for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub errno: Errno,
    /// For people.
    pub why: &'static str,
}

/// What becomes of a request header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Carried out, after its payload is there.
    Do(Request),
    /// Answered with an error, after so many bytes of payload were passed over.
    Refuse {
        /// For the reply.
        tag: Tag,
        /// The error.
        refusal: Refusal,
        /// Bytes that follow and mean nothing.
        skip: u32,
    },
    /// The client leaves: answer what is under way, then close.
    Leave,
}

/// A violation after which the connection ends ("Terminating the transmission phase").
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// No request.
    #[error("no request: magic {0:#x}")]
    Magic(u32),
    /// More than was advertised, and more than the server keeps.
    #[error("a payload of {0} bytes")]
    Payload(u64),
}

/// One connection in the transmission phase.
#[derive(Clone, Debug)]
pub struct Transmission {
    facts: Facts,
    style: Style,
    status: bool,
}

impl Command {
    /// Bytes of payload that follow the request's header.
    pub fn payload(self) -> u32 {
        match self {
            Command::Write { len, .. } => len,
            Command::StatusOf { .. } => STATUS_PAYLOAD,
            _ => 0,
        }
    }

    /// Bytes of memory that it needs until it is answered.
    pub fn memory(self) -> u64 {
        match self {
            Command::Read { len } => len.into(),
            other => other.payload().into(),
        }
    }
}

impl Transmission {
    /// As agreed upon.
    pub fn new(agreed: Agreed) -> Transmission {
        let Agreed { facts, style, status } = agreed;
        Transmission { facts, style, status }
    }

    /// The export.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }
}
