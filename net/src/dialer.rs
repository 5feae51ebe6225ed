//! Keeps one connection to a peer: connects, and connects again with back-off when it is lost.
//!
//! ```text
//! Connecting ─┬─► Up ──────────► Down{why of the end} ──┐
//!             └─► Down{why} ◄──── attempt failed ───────┤ back-off 50 ms .. 1 s
//!                    └───────────────► Up ◄─────────────┘
//! ```
//! `Connecting` is only the time before the first outcome: afterwards a link that is tried again stays `Down`
//! with its latest reason, so that an observer never misses one. Several addresses of a peer are tried in their
//! order; `Refused` is reported only if every one of them refused.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::backoff::Backoff;
use crate::conn::Conn;
use crate::endpoint::Shared;
use crate::error::{CloseReason, DownReason};
use crate::handshake::{self, Accepted, Stream};
use crate::limits::STABLE_AFTER;

/// Whom to connect to.
#[derive(Clone, Debug)]
pub struct DialTarget {
    /// Its addresses, the preferred first.
    pub addrs: Vec<SocketAddr>,
    /// Who must be there: the name that its certificate must prove.
    pub subject: String,
    /// Our own address to connect from, where a host has several.
    pub bind: Option<IpAddr>,
}

impl DialTarget {
    /// A peer with one address, from any of our own.
    pub fn new(addr: SocketAddr, subject: impl Into<String>) -> Self {
        Self { addrs: vec![addr], subject: subject.into(), bind: None }
    }
}

/// A link's state.
#[derive(Clone, Debug)]
pub enum LinkState {
    /// Before the first outcome.
    Connecting,
    /// Connected, both ends have accepted.
    Up(Arc<Conn>),
    /// Not connected; attempts go on.
    Down {
        /// The latest reason: of the connection's end, or of the latest attempt.
        why: DownReason,
        /// Since when there has been no connection.
        since: Instant,
    },
}

/// Keeps one connection. Dropped, it stops, and closes the connection.
pub struct Dialer {
    state: watch::Receiver<LinkState>,
    nudge: Arc<Notify>,
    /// Its end tells the task to stop.
    _stop: watch::Sender<()>,
}

impl Dialer {
    pub(crate) fn start(shared: &Arc<Shared>, to: DialTarget) -> Self {
        let (state_tx, state) = watch::channel(LinkState::Connecting);
        let (stop, stopped) = watch::channel(());
        let nudge = Arc::new(Notify::new());
        let link = Link {
            shared: shared.clone(),
            to,
            state: state_tx,
            nudge: nudge.clone(),
            backoff: Backoff::default(),
            down_since: Instant::now(),
            random: RandomState::new(),
            attempts: 0,
        };
        shared.spawn(link.run(stopped));
        Self { state, nudge, _stop: stop }
    }

    /// The state, and its changes.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.state.clone()
    }

    /// The connection, if there is one.
    pub fn conn(&self) -> Option<Arc<Conn>> {
        match &*self.state.borrow() {
            LinkState::Up(conn) if conn.is_open() => Some(conn.clone()),
            _ => None,
        }
    }

    /// Waits for a connection; `None` if the endpoint shuts down first.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn up(&self) -> Option<Arc<Conn>> {
        let mut state = self.state.clone();
        loop {
            if let Some(conn) = self.conn() {
                return Some(conn);
            }
            state.changed().await.ok()?;
        }
    }

    /// Try again now instead of at the end of the back-off, for instance after the peer was heard of.
    pub fn retry_now(&self) {
        self.nudge.notify_one();
    }
}

/// The task's own state.
struct Link {
    shared: Arc<Shared>,
    to: DialTarget,
    state: watch::Sender<LinkState>,
    nudge: Arc<Notify>,
    backoff: Backoff,
    down_since: Instant,
    random: RandomState,
    attempts: u64,
}

impl Link {
    async fn run(mut self, mut stopped: watch::Receiver<()>) {
        let shared = self.shared.clone();
        tokio::select! {
            () = self.keep() => {}
            // Only the sender's end completes this: nothing is ever sent.
            _ = stopped.changed() => {}
            () = shared.stopped() => {}
        }
        if let LinkState::Up(conn) = &*self.state.borrow() {
            let why = match shared.stopping() {
                true => CloseReason::ShuttingDown,
                false => CloseReason::Local("the dialer was dropped".into()),
            };
            conn.end(why);
        }
    }

    /// Connects for ever.
    async fn keep(&mut self) {
        loop {
            let why = match self.attempt().await {
                Ok((stream, accepted)) => self.live(stream, accepted).await,
                Err(why) => why,
            };
            self.down(why);
            self.attempts += 1;
            let pause = self.backoff.next(self.random_number());
            // A nudge only shortens the pause.
            drop(timeout(pause, self.nudge.notified()).await);
        }
    }

    /// A connection's life; why it ended.
    async fn live(&mut self, stream: Stream, accepted: Accepted) -> DownReason {
        let (conn, driving) = self.shared.open(stream, accepted);
        // A task of its own: it outlives this one when the dialer is dropped, to end in order.
        self.shared.spawn(driving);
        let opened = tokio::time::Instant::now();
        self.state.send_replace(LinkState::Up(conn.clone()));
        let why = conn.closed().await;
        if opened.elapsed() >= STABLE_AFTER {
            self.backoff.reset();
        }
        self.down_since = Instant::now();
        why.into()
    }

    fn down(&self, why: DownReason) {
        let same = matches!(&*self.state.borrow(), LinkState::Down { why: was, .. } if *was == why);
        if !same {
            // Whoever keeps the dialer is told the state, and tells people.
            tracing::debug!(peer = %self.to.subject, addrs = ?self.to.addrs, "no connection: {why}");
        }
        self.state.send_replace(LinkState::Down { why, since: self.down_since });
    }

    /// All addresses, in their order.
    async fn attempt(&self) -> Result<(Stream, Accepted), DownReason> {
        let mut why = None;
        for addr in &self.to.addrs {
            match self.attempt_one(*addr).await {
                Ok(opened) => return Ok(opened),
                Err(DownReason::Refused) if why.is_some() => {}
                Err(e) => why = Some(e),
            }
        }
        Err(why.unwrap_or_else(|| DownReason::Unreachable("the peer has no address".into())))
    }

    async fn attempt_one(&self, addr: SocketAddr) -> Result<(Stream, Accepted), DownReason> {
        let config = &self.shared.config;
        let tcp = timeout(config.connect_timeout, self.connect(addr))
            .await
            .map_err(|_| DownReason::TimedOut)?
            .map_err(|e| DownReason::from(&e))?;
        timeout(config.handshake_timeout, self.greet_out(tcp, addr)).await.map_err(|_| DownReason::TimedOut)?
    }

    async fn connect(&self, addr: SocketAddr) -> std::io::Result<TcpStream> {
        let socket = match addr {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_nodelay(true)?;
        if let Some(ip) = self.to.bind {
            socket.bind(SocketAddr::new(ip, 0))?;
        }
        socket.connect(addr).await
    }

    async fn greet_out(&self, tcp: TcpStream, remote: SocketAddr) -> Result<(Stream, Accepted), DownReason> {
        let security = &self.shared.config.security;
        let expected = &self.to.subject;
        let mut stream = handshake::dial_tls(tcp, security, expected).await?;
        let proved = stream.proved(security);
        let greeter = self.shared.greeter(remote);
        let accepted = match &mut stream {
            Stream::Plain(tcp) => handshake::dial_hello(tcp, proved, &greeter, expected).await?,
            Stream::Tls(tls) => handshake::dial_hello(tls, proved, &greeter, expected).await?,
        };
        Ok((stream, accepted))
    }

    /// For the jitter; its quality does not matter.
    fn random_number(&self) -> u64 {
        let mut hasher = self.random.build_hasher();
        hasher.write_u64(self.attempts);
        hasher.finish()
    }
}
