//! The iSCSI protocol (RFC 7143), pure: PDUs, framer, text negotiation, CHAP, login, the session of an initiator.
//!
//! Shared by both ends. Nothing in here knows a runtime, a clock, a socket or chance: bytes, events, times and
//! challenges come in as arguments. What it refuses: recovery levels above 0, several connections in a session,
//! Kerberos and SRP, markers, iSER.
//!
//! - [`pdu`], [`framer`], [`digest`]: the wire.
//! - [`text`], [`keys`]: what two ends agree upon.
//! - [`chap`], [`login`], [`discovery`]: how a session begins.
//! - [`session`]: an initiator's session, from the first connection over every loss to its end.
#![forbid(unsafe_code)]

pub mod chap;
pub mod digest;
pub mod discovery;
pub mod framer;
pub mod ids;
pub mod keys;
pub mod login;
pub mod pdu;
pub mod session;
pub mod text;

#[cfg(any(test, feature = "simulation"))]
pub mod sim;
