//! Why a call failed, a connection closed, a link is down, an endpoint did not start.
//!
//! Every reason is a closed variant or a sentence for the log; none is made from a peer's bytes without a bound.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::frame::FrameError;

/// Why an established connection ended. The first reason wins and never changes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// This side closed it, with this reason.
    #[error("closed here: {0}")]
    Local(String),
    /// The peer said BYE with this sentence.
    #[error("the peer closed it: {0}")]
    Peer(String),
    /// The stream ended without a BYE: RST, or the bare end of stream that a killed process leaves.
    #[error("connection reset: the stream ended without a goodbye")]
    Reset,
    /// Nothing was heard from the peer, or it read nothing, for the dead-peer timeout.
    #[error("the peer is silent or does not read")]
    TimedOut,
    /// The peer sent what the protocol does not allow.
    #[error("protocol violation: {0}")]
    Protocol(String),
    /// TLS failed after the handshake, or the peer refused our certificate.
    #[error("TLS: {0}")]
    Tls(String),
    /// Any other failure of the socket.
    #[error("socket: {0}")]
    Io(String),
    /// More answers waited than [`crate::limits::MAX_REPLY_BYTES`].
    #[error("the peer does not read its answers")]
    ReplyOverflow,
    /// The application's service panicked while it handled a frame.
    #[error("the service failed while it handled a message")]
    ServicePanicked,
    /// This endpoint is shutting down.
    #[error("shutting down")]
    ShuttingDown,
}

/// Why a call was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The connection closed first. The request may or may not have been executed.
    #[error("connection closed: {0}")]
    Closed(CloseReason),
    /// The peer received the request and answers that it has no answer (its sentence).
    #[error("the peer gave no answer: {0}")]
    Unanswered(String),
    /// The message is longer than the protocol allows; nothing was sent.
    #[error("{what} of {len} bytes is longer than {max}")]
    TooLarge {
        /// Body or payload.
        what: &'static str,
        /// Its length.
        len: usize,
        /// What is allowed.
        max: usize,
    },
    /// Only from `post`: the queue of one-way messages is full; nothing was sent.
    #[error("the queue of one-way messages is full")]
    Full,
}

/// Why a link has no connection now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DownReason {
    /// Every address answered that nobody listens there.
    #[error("connection refused: nobody listens there")]
    Refused,
    /// The stream ended without a goodbye.
    #[error("connection reset")]
    Reset,
    /// Connecting, the handshake or an established connection's keep-alive took too long.
    #[error("timed out")]
    TimedOut,
    /// No route to the peer, or the local address to bind does not exist here.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// TLS did not come about: wrong authority, wrong node, expired, no TLS at the other end.
    #[error("TLS: {0}")]
    Tls(String),
    /// The peer's application, or ours, refused the HELLO with this sentence.
    #[error("refused at HELLO: {0}")]
    HelloRefused(String),
    /// The peer sent what the protocol does not allow.
    #[error("protocol violation: {0}")]
    Protocol(String),
    /// The peer closed an established connection with this sentence.
    #[error("closed by the peer: {0}")]
    ClosedByPeer(String),
    /// This side closed an established connection with this sentence.
    #[error("closed here: {0}")]
    ClosedHere(String),
    /// Any other failure of the socket.
    #[error("socket: {0}")]
    Io(String),
}

impl From<CloseReason> for DownReason {
    fn from(why: CloseReason) -> Self {
        match why {
            CloseReason::Reset => Self::Reset,
            CloseReason::TimedOut => Self::TimedOut,
            CloseReason::Protocol(s) => Self::Protocol(s),
            CloseReason::Tls(s) => Self::Tls(s),
            CloseReason::Io(s) => Self::Io(s),
            CloseReason::Peer(s) => Self::ClosedByPeer(s),
            CloseReason::Local(s) => Self::ClosedHere(s),
            other @ (CloseReason::ReplyOverflow | CloseReason::ServicePanicked | CloseReason::ShuttingDown) => {
                Self::ClosedHere(other.to_string())
            }
        }
    }
}

impl From<FrameError> for CloseReason {
    fn from(e: FrameError) -> Self {
        Self::Protocol(e.to_string())
    }
}

impl From<FrameError> for DownReason {
    fn from(e: FrameError) -> Self {
        Self::Protocol(e.to_string())
    }
}

impl From<&io::Error> for DownReason {
    fn from(e: &io::Error) -> Self {
        use io::ErrorKind as K;
        if let Some(tls) = crate::tls::tls_error(e) {
            return Self::Tls(tls);
        }
        match e.kind() {
            K::ConnectionRefused => Self::Refused,
            K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe | K::UnexpectedEof => Self::Reset,
            K::TimedOut => Self::TimedOut,
            K::HostUnreachable | K::NetworkUnreachable | K::AddrNotAvailable | K::NetworkDown => {
                Self::Unreachable(e.to_string())
            }
            _ => Self::Io(e.to_string()),
        }
    }
}

impl From<&io::Error> for CloseReason {
    fn from(e: &io::Error) -> Self {
        match DownReason::from(e) {
            DownReason::Tls(s) => Self::Tls(s),
            DownReason::Reset | DownReason::Refused => Self::Reset,
            DownReason::TimedOut => Self::TimedOut,
            _ => Self::Io(e.to_string()),
        }
    }
}

/// The application's "no" to a HELLO, with the sentence that the peer logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    why: String,
}

impl Refusal {
    /// Refuses with this sentence (cut to [`crate::limits::MAX_SENTENCE`] bytes on the wire).
    pub fn new(why: impl Into<String>) -> Self {
        Self { why: why.into() }
    }

    /// The sentence.
    pub fn why(&self) -> &str {
        &self.why
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// Why an endpoint did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The listening address cannot be had: busy, or not an address of this host.
    #[error("cannot listen on {addr}: {source}")]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A value of the configuration that cannot work.
    #[error("configuration: {0}")]
    Config(&'static str),
}

/// Cuts a sentence for the wire, at a character boundary.
pub(crate) fn cut_sentence(s: &str) -> &str {
    let mut end = s.len().min(crate::limits::MAX_SENTENCE);
    while !s.is_char_boundary(end) {
        end -= 1;
    }
    &s[..end]
}
