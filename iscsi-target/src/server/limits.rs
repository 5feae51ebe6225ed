//! Every bound of the server, with its reason and with what happens at it.

use std::time::Duration;

/// Sessions at once, discovery included. More: refused with "out of resources".
pub(crate) const MAX_SESSIONS: usize = 4096;

/// Connections at once: those of the sessions, and logins, some of which wait for an older session's end. More: closed after
/// accept.
pub(crate) const MAX_CONNECTIONS: usize = MAX_SESSIONS + 1024;

/// Bytes that the commands of one session may hold, data for the initiator that it has not taken included. One of the
/// longest kind must fit. At the bound no further R2T is sent and no further read is begun.
pub(crate) const MAX_BYTES: usize = 32 << 20;

/// PDUs that wait to be written. At the bound nothing is read from the initiator until some are taken.
pub(crate) const MAX_OUTGOING: usize = 4096;

/// The longest data segment that is received.
pub(crate) const MAX_DATA_SEGMENT: u32 = 256 << 10;

/// Data that may come unasked for one command.
pub(crate) const FIRST_BURST: u32 = 64 << 10;

/// Data of one R2T.
pub(crate) const MAX_BURST: u32 = 1 << 20;

/// R2Ts of one command: the next is under way while one is being answered.
pub(crate) const MAX_R2T: u32 = 4;

/// Time for a login: an idle stranger must not keep a place. Later: closed.
pub(crate) const LOGIN_TIME: Duration = Duration::from_secs(30);

/// Time that an initiator has to take what is left for it when its session is to end. Later: closed under it.
pub(crate) const DRAIN_TIME: Duration = Duration::from_secs(10);

/// Seconds that initiators have to log out when the target is being stopped. Later: their sessions are ended.
pub(crate) const LEAVE_SECONDS: u16 = 2;
