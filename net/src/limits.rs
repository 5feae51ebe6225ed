//! Every bound of this crate, in one place, each with its reason and with what happens at it.
//!
//! The bounds marked *wire* belong to protocol version 1: both ends count with the same numbers, so that a
//! caller which keeps to them is never refused, and one which does not is broken or hostile and is cut off.

use std::time::Duration;

/// *wire* Longest body of a frame. Bodies are metadata (a directory listing, a list of extents); a MiB is far
/// above what one needs and small enough to be allocated before its checksum is known. Longer: connection closed.
pub const MAX_BODY: usize = 1 << 20;

/// *wire* Longest payload of a frame. FUSE requests carry at most 1 MiB; four leave room for merged ones.
/// Longer: connection closed.
pub const MAX_PAYLOAD: usize = 4 << 20;

/// *wire* Longest body before both ends have accepted each other: a peer not yet known may make us hold this much.
pub const MAX_HELLO: usize = 64 << 10;

/// *wire* Longest sentence in REFUSE, FAIL and BYE, in bytes. Longer ones are cut by the sender at a character.
pub const MAX_SENTENCE: usize = 1024;

/// *wire* Longest subject in HELLO: a DNS name.
pub const MAX_SUBJECT: usize = 253;

/// *wire* Requests of one direction that may be unanswered on one connection. Sixteen times the depth-32 queue
/// that the benches use. When full, [`crate::Conn::call`] waits; a peer that sends more is cut off.
pub const MAX_CALLS: usize = 512;

/// *wire* Request bytes (header, body, payload; each request rounded up to a KiB) of one direction that may be
/// unanswered on one connection, in KiB: 64 MiB, enough to fill a 10 Gbit/s link with 50 ms answers. When full,
/// [`crate::Conn::call`] waits; a peer that sends more is cut off. A caller that says what its answers will carry
/// ([`crate::Message::expecting`]) pays for that too, so this bounds what both ends hold.
pub const MAX_CALLS_KIB: u32 = 64 << 10;

/// Reply bytes that may wait to be sent on one connection. A peer may have asked for [`MAX_CALLS`] answers of
/// any length and then not read; beyond this its connection is closed and the memory given back.
pub const MAX_REPLY_BYTES: usize = 512 << 20;

/// One-way messages that may wait to be sent on one connection. When full, [`crate::Conn::post`] answers
/// [`crate::CallError::Full`] at once: the caller knows whether its message may be lost.
pub const MAX_POSTS: usize = 1024;

/// Bytes of one-way messages that may wait to be sent on one connection; when full, as [`MAX_POSTS`].
pub const MAX_POST_BYTES: usize = 16 << 20;

/// Frames given to one write. Three slices each; with 4 KiB payloads a write of a quarter MiB, beyond which
/// a larger one saves nothing.
pub const MAX_BATCH: usize = 64;

/// Bytes asked from the socket at once. Thirty 4 KiB answers in one system call.
pub const READ_BUFFER: usize = 128 << 10;

/// Plaintext that TLS may hold encrypted but unsent; one full batch of 4 KiB frames.
pub const TLS_BUFFER: usize = 256 << 10;

/// Connections being accepted (TLS and HELLO not yet done) at once. Beyond, new ones wait in the kernel's
/// backlog; each handshake ends within [`crate::NetConfig::handshake_timeout`], so the wait is bounded.
pub const MAX_HANDSHAKES: usize = 64;

/// Accepted connections at once. 64 nodes with four connections each; beyond, a new one is refused and logged.
pub const MAX_ACCEPTED: usize = 256;

/// How long a closing connection may take to send the answers that are already queued, and its BYE.
pub const CLOSE_GRACE: Duration = Duration::from_millis(500);

/// First and longest pause between two attempts to connect; each pause is shortened by up to half at random so
/// that the nodes of a cluster do not knock in step.
pub const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A connection that lived this long was a success: the next pause is the first one again.
pub const STABLE_AFTER: Duration = Duration::from_secs(1);
