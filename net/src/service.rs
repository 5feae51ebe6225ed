//! The application's side of an endpoint: who may come in, and what is done with messages.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::conn::Conn;
use crate::error::{CloseReason, DownReason, Refusal};
use crate::message::Message;
use crate::reply::ReplyTo;

/// Who a peer is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerIdentity {
    /// The name: with TLS the DNS name of the peer's certificate, as proved; with [`crate::Security::Plain`]
    /// what the peer says.
    pub subject: String,
    /// Was it proved?
    pub proved: bool,
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.subject)
    }
}

/// Which end we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// We connected to the peer.
    Dialer,
    /// The peer connected to us.
    Acceptor,
}

/// What a peer said at HELLO.
#[derive(Clone, Debug)]
pub struct PeerHello {
    /// Which end we are.
    pub role: Role,
    /// Who it is.
    pub identity: PeerIdentity,
    /// Where it is.
    pub remote: SocketAddr,
    /// The features that both ends have.
    pub features: u64,
    /// Its application's bytes.
    pub app: Bytes,
}

/// What the application does with its peers. All methods are called on tasks of the endpoint and must not block;
/// long work is handed to somebody else together with the [`ReplyTo`].
///
/// Order, for each connection: `hello` (of either end), then `opened`, then any number of `request` and
/// `oneway`, never two at once, then `closed`. `closed` comes once for each `opened`, after every outstanding
/// call of that connection has been completed. Connections are not ordered among themselves: a new one to the
/// same peer may be `opened` before the old one is `closed`; [`Conn::id`] tells them apart.
pub trait Service: Send + Sync + 'static {
    /// The bytes that our HELLO carries when we dial this subject; at most [`crate::MAX_APP`]. None by default.
    fn greeting(&self, subject: &str) -> Bytes {
        let _ = subject;
        Bytes::new()
    }

    /// May this peer talk to us? As acceptor the answer's bytes go into our WELCOME; as dialer they are ignored.
    /// A refusal's sentence is logged at both ends.
    fn hello(&self, peer: &PeerHello) -> Result<Bytes, Refusal>;

    /// Both ends have accepted.
    fn opened(&self, conn: &Arc<Conn>);

    /// A request. Every `reply` must be answered; dropping it tells the caller so and is logged.
    fn request(&self, conn: &Arc<Conn>, msg: Message, reply: ReplyTo);

    /// A message without an answer.
    fn oneway(&self, conn: &Arc<Conn>, msg: Message);

    /// The connection has ended.
    fn closed(&self, conn: &Arc<Conn>, why: &CloseReason);

    /// Somebody who connected to us was not let in; already logged. For counting and for events.
    fn refused(&self, remote: SocketAddr, why: &DownReason) {
        let _ = (remote, why);
    }
}
