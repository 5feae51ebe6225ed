//! What the tests share: a service that echoes, nodes of a cluster, patient waiting.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use net::{
    CloseReason, Conn, DialTarget, DownReason, LinkState, Message, Net, NetConfig, PeerHello, Refusal, ReplyTo,
    Security, Service,
};
use tokio::sync::mpsc;

use crate::certs::Authority;

/// Longest wait for anything: far beyond what it takes, so that a slow machine fails nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Opcodes of the test service.
pub(crate) const ECHO: u16 = 1;
pub(crate) const DROP: u16 = 2;
pub(crate) const HOLD: u16 = 3;
/// Answered after a call back to the asker, with that call's answer.
pub(crate) const CALL_BACK: u16 = 4;

/// What a service saw.
#[derive(Debug)]
pub(crate) enum Seen {
    Hello(PeerHello),
    Opened(Arc<Conn>),
    Oneway(u16),
    Closed(CloseReason),
    Refused(DownReason),
}

/// Echoes; tells the test what it sees; refuses a HELLO whose bytes are `refuse`.
pub(crate) struct Echo {
    seen: mpsc::UnboundedSender<Seen>,
    says: &'static str,
    held: parking_lot::Mutex<Vec<ReplyTo>>,
}

impl Echo {
    fn tell(&self, what: Seen) {
        drop(self.seen.send(what));
    }
}

impl Service for Echo {
    fn greeting(&self, _: &str) -> Bytes {
        Bytes::from_static(self.says.as_bytes())
    }

    fn hello(&self, peer: &PeerHello) -> Result<Bytes, Refusal> {
        self.tell(Seen::Hello(peer.clone()));
        match &peer.app[..] {
            b"refuse" => Err(Refusal::new("node list 3 is older than 4, held by node-1")),
            _ => Ok(Bytes::from_static(self.says.as_bytes())),
        }
    }

    fn opened(&self, conn: &Arc<Conn>) {
        self.tell(Seen::Opened(conn.clone()));
    }

    fn request(&self, conn: &Arc<Conn>, msg: Message, reply: ReplyTo) {
        match msg.opcode {
            DROP => drop(reply),
            HOLD => self.held.lock().push(reply),
            CALL_BACK => {
                let conn = conn.clone();
                tokio::spawn(async move {
                    let answer = conn.call(Message::new(ECHO, 0, "back")).await.unwrap();
                    reply.send(answer);
                });
            }
            _ => reply.send(msg),
        }
    }

    fn oneway(&self, _: &Arc<Conn>, msg: Message) {
        self.tell(Seen::Oneway(msg.opcode));
    }

    fn closed(&self, _: &Arc<Conn>, why: &CloseReason) {
        self.tell(Seen::Closed(why.clone()));
    }

    fn refused(&self, _: SocketAddr, why: &DownReason) {
        self.tell(Seen::Refused(why.clone()));
    }
}

/// An endpoint and what its service sees.
pub(crate) struct Node {
    pub(crate) net: Net,
    pub(crate) seen: mpsc::UnboundedReceiver<Seen>,
    pub(crate) subject: String,
}

pub(crate) fn subject(n: u8) -> String {
    format!("node-{n}.c7f3.shorefast.internal")
}

/// A loopback address of this test's own, any port. On one address that all tests share, a port that one test
/// has just given back is taken by another, in this process or in one that runs beside it, and what still dials
/// the first meets the second.
pub(crate) fn any_port() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(2);
    let [.., high, low] = std::process::id().to_be_bytes();
    ([127, high | 0x80, low, NEXT.fetch_add(1, Ordering::Relaxed)], 0).into()
}

pub(crate) fn plain(n: u8) -> Security {
    Security::Plain { subject: subject(n) }
}

pub(crate) fn tls(ca: &Authority, n: u8) -> Security {
    Security::Tls(ca.node(&subject(n)))
}

impl Node {
    pub(crate) async fn start(security: Security) -> Self {
        Self::with(NetConfig::new(any_port(), security), "").await
    }

    /// With application bytes for HELLO.
    pub(crate) async fn with(config: NetConfig, says: &'static str) -> Self {
        let subject = config.security.subject().to_owned();
        let (tx, seen) = mpsc::unbounded_channel();
        let service = Echo { seen: tx, says, held: parking_lot::Mutex::default() };
        let net = Net::start(config, Arc::new(service)).await.unwrap();
        Self { net, seen, subject }
    }

    pub(crate) fn target(&self) -> DialTarget {
        DialTarget::new(self.net.local_addr(), self.subject.clone())
    }

    /// The next thing that `pick` is interested in.
    pub(crate) async fn wait<T>(&mut self, mut pick: impl FnMut(Seen) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = pick(self.seen.recv().await.unwrap()) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("nothing of the kind was seen")
    }

    pub(crate) async fn refusal(&mut self) -> DownReason {
        self.wait(|s| if let Seen::Refused(why) = s { Some(why) } else { None }).await
    }

    pub(crate) async fn close(&mut self) -> CloseReason {
        self.wait(|s| if let Seen::Closed(why) = s { Some(why) } else { None }).await
    }
}

/// Waits for a connection.
pub(crate) async fn up(dialer: &net::Dialer) -> Arc<Conn> {
    tokio::time::timeout(PATIENCE, dialer.up()).await.expect("no connection").unwrap()
}

/// Waits until the link is down for a reason that `good` accepts.
pub(crate) async fn down(dialer: &net::Dialer, good: impl Fn(&DownReason) -> bool) -> DownReason {
    let mut state = dialer.state();
    let is = |s: &LinkState| matches!(s, LinkState::Down { why, .. } if good(why));
    let found = tokio::time::timeout(PATIENCE, state.wait_for(is)).await;
    match &*found.unwrap_or_else(|_| panic!("the link is {:?}", *dialer.state().borrow())).unwrap() {
        LinkState::Down { why, .. } => why.clone(),
        other => panic!("{other:?}"),
    }
}

/// Two nodes that know each other, and the connection that the first dialed.
pub(crate) async fn pair(a: Security, b: Security) -> (Node, Node, net::Dialer, Arc<Conn>) {
    let (a, b) = (Node::start(a).await, Node::start(b).await);
    let dialer = a.net.dial(b.target());
    let conn = up(&dialer).await;
    (a, b, dialer, conn)
}
