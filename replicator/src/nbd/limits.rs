//! Every bound of the server, with its reason and with what happens at it.

use std::time::Duration;

/// Longest string of the protocol ("Conventions"): names of exports and of metadata contexts. Longer: refused.
pub const MAX_NAME: usize = 4096;

/// Longest option that is looked at. A name and 64 queries fit well. Longer: passed over, and answered "too big".
pub const MAX_OPTION: u32 = 64 << 10;

/// Longest option that is passed over. Longer, which the specification lets a server take for an attack: the end.
pub const MAX_SKIPPED_OPTION: u32 = 32 << 20;

/// Options of one connection, the upgrade to TLS included. A client sends a handful. More: the end.
pub const MAX_OPTIONS: u32 = 1024;

/// Queries of one option. There is one context to ask for. More: answered "too big".
pub const MAX_QUERIES: u32 = 64;

/// Longest payload of a request or an answer, as advertised: the least that the specification wants accepted from a
/// client that never asked ("Size constraints"). A longer write ends the connection, a longer read is refused.
pub const MAX_PAYLOAD: u32 = 32 << 20;

/// Bytes of payload that one connection's requests may hold. One of the longest kind must fit. When it is full, the
/// server reads no further request until an answer was taken.
pub const MAX_BYTES_IN_FLIGHT: u64 = 32 << 20;

/// Requests of one connection that may be unanswered: twice what nbdcopy has, four times a kernel's queue of 32. When
/// full, the server reads no further request until an answer was taken.
pub const MAX_REQUESTS_IN_FLIGHT: usize = 128;

/// Connections at once. With the bytes above: 4 GiB if every client did its worst. More: closed after accept.
pub const MAX_CONNECTIONS: usize = 128;

/// Exports at once. More: refused.
pub const MAX_EXPORTS: usize = 256;

/// Extents in one answer: at 4 KiB each, those of 16 MiB of the worst disk, and 16 KiB of answer. A client asks on
/// from where an answer ends.
pub const MAX_EXTENTS: usize = 1024;

/// Time for the handshake, TLS included: an idle stranger must not keep a place. Later: the end.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(30);

/// Time that a client has to take its answers when its connection is to end. Later: closed under it.
pub const DRAIN_TIME: Duration = Duration::from_secs(10);
