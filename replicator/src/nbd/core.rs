//! The protocol without I/O. Pure: no sockets, no clock, no runtime.
//!
//! - [`wire`]: numbers and headers.
//! - [`facts`]: what is told of an export, and its transmission flags.
//! - [`handshake`]: from the greeting to the transmission phase.
//! - [`transmission`]: one request header in, what is to be done out; headers of replies.
//! - [`plan`]: which requests of the device make up one of the client.
//!
//! ```text
//!              GO, EXPORT_NAME                    DISC, a violation, end of the stream
//!   Handshake ─────────────────► Transmission ────────────────────────────────────────► over
//!      │  ▲
//!      └──┘ STARTTLS: what was agreed before is forgotten
//! ```

pub mod facts;
pub mod handshake;
pub mod plan;
pub mod transmission;
pub mod wire;
