//! An endpoint: listens, accepts, dials, and ends in stages.
//!
//! All its tasks run on the runtime in which [`Net::start`] was called. Shutdown: stop accepting and dialing;
//! close every connection (outstanding calls fail, queued answers go out, BYE); wait for the tasks, bounded.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;

use crate::conn::Conn;
use crate::dialer::{DialTarget, Dialer};
use crate::driver::{self, Timing};
use crate::error::{CloseReason, DownReason, NetError};
use crate::handshake::{self, Accepted, Greeter, Proved, Stream};
use crate::hello::Features;
use crate::limits::{CLOSE_GRACE, MAX_ACCEPTED, MAX_HANDSHAKES, MAX_SUBJECT, READ_BUFFER};
use crate::service::Service;
use crate::tls::TlsMaterial;

/// Connections are numbered over the whole process, so that a number in a log means one.
static NEXT_CONN: AtomicU64 = AtomicU64::new(1);

/// After `accept` failed (no file descriptors left, usually): time for one to be given back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How peers prove who they are.
#[derive(Clone, Debug)]
pub enum Security {
    /// Mutual TLS 1.3.
    Tls(TlsMaterial),
    /// Nothing is proved and nothing is encrypted: for tests and benches only.
    Plain {
        /// What we say that we are.
        subject: String,
    },
}

impl Security {
    /// Our own name.
    pub fn subject(&self) -> &str {
        match self {
            Self::Tls(material) => material.subject(),
            Self::Plain { subject } => subject,
        }
    }
}

/// How an endpoint behaves.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// Where to listen; port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// How peers prove who they are.
    pub security: Security,
    /// Feature bits for HELLO.
    pub features: Features,
    /// How often silence is looked for; a silent peer is sent a PING.
    pub keepalive: Duration,
    /// A peer that was silent, or read nothing, for this long is dead. At least twice `keepalive`.
    pub dead_after: Duration,
    /// Bound of one TCP connect.
    pub connect_timeout: Duration,
    /// Bound of TLS and HELLO together.
    pub handshake_timeout: Duration,
}

impl NetConfig {
    /// Defaults: keep-alive 500 ms, dead after 3 s, connect 1 s, handshake 3 s.
    pub fn new(listen: SocketAddr, security: Security) -> Self {
        Self {
            listen,
            security,
            features: Features::default(),
            keepalive: Duration::from_millis(500),
            dead_after: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(3),
        }
    }

    fn check(&self) -> Result<(), NetError> {
        let wrong = |why| Err(NetError::Config(why));
        if self.keepalive.is_zero() || self.dead_after < self.keepalive * 2 {
            return wrong("the dead-peer timeout must be at least twice the keep-alive interval, which is not 0");
        }
        if self.connect_timeout.is_zero() || self.handshake_timeout.is_zero() {
            return wrong("a timeout of 0");
        }
        if self.security.subject().len() > MAX_SUBJECT {
            return wrong("a subject longer than a DNS name");
        }
        Ok(())
    }
}

/// What all tasks of an endpoint share.
pub(crate) struct Shared {
    pub(crate) config: NetConfig,
    pub(crate) service: Arc<dyn Service>,
    pub(crate) runtime: Handle,
    /// Turns true once: stop accepting and dialing.
    pub(crate) stop: watch::Sender<bool>,
    conns: Mutex<HashMap<u64, Arc<Conn>>>,
    /// Each task holds a clone; when all are gone, so are the tasks.
    alive: Mutex<Option<mpsc::Sender<()>>>,
}

/// A running endpoint.
pub struct Net {
    shared: Arc<Shared>,
    local: SocketAddr,
    gone: mpsc::Receiver<()>,
}

impl Net {
    /// Listens and begins to accept.
    ///
    /// # Errors
    /// A busy or foreign address; a configuration that cannot work.
    ///
    /// # Cancel safety
    /// Safe to drop: nothing runs before it returns.
    pub async fn start(config: NetConfig, service: Arc<dyn Service>) -> Result<Self, NetError> {
        config.check()?;
        let addr = config.listen;
        let bind = |source| NetError::Bind { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(bind)?;
        let local = listener.local_addr().map_err(bind)?;
        let (alive, gone) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            config,
            service,
            runtime: Handle::current(),
            stop: watch::Sender::new(false),
            conns: Mutex::default(),
            alive: Mutex::new(Some(alive)),
        });
        shared.spawn(accept_loop(shared.clone(), listener));
        Ok(Self { shared, local, gone })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Keeps a connection to this peer, until the `Dialer` is dropped or the endpoint is shut down.
    pub fn dial(&self, to: DialTarget) -> Dialer {
        Dialer::start(&self.shared, to)
    }

    /// The connections that are open now.
    pub fn conns(&self) -> Vec<Arc<Conn>> {
        self.shared.conns.lock().values().cloned().collect()
    }

    /// Ends everything in stages; returns when every connection's `Service::closed` has returned, at the latest
    /// after twice [`CLOSE_GRACE`] plus the time the service takes.
    ///
    /// # Cancel safety
    /// Safe to drop: the end has begun at the first poll and goes on; only nobody waits for it.
    pub async fn shutdown(mut self) {
        self.shared.end();
        if timeout(2 * CLOSE_GRACE, self.gone.recv()).await.is_err() {
            tracing::warn!("connections still closing at the end of the endpoint's shutdown");
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl Shared {
    /// Stage 1 and 2 of the shutdown.
    fn end(&self) {
        self.stop.send_replace(true);
        self.alive.lock().take();
        let open: Vec<_> = self.conns.lock().values().cloned().collect();
        open.iter().for_each(|c| c.end(CloseReason::ShuttingDown));
    }

    pub(crate) fn stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Completes when the endpoint shuts down.
    pub(crate) async fn stopped(&self) {
        // An error would mean that the sender, which is in `self`, is gone.
        drop(self.stop.subscribe().wait_for(|stop| *stop).await);
    }

    /// Runs a task that the shutdown waits for.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let alive = self.alive.lock().clone();
        self.runtime.spawn(async move {
            task.await;
            drop(alive);
        });
    }

    pub(crate) fn greeter(&self, remote: SocketAddr) -> Greeter<'_> {
        let (service, security) = (&*self.service, &self.config.security);
        Greeter { service, security, features: self.config.features, remote }
    }

    /// Opens the connection; the future runs it to its end.
    pub(crate) fn open(
        self: &Arc<Self>,
        stream: Stream,
        accepted: Accepted,
    ) -> (Arc<Conn>, impl Future<Output = ()> + Send + 'static) {
        let id = NEXT_CONN.fetch_add(1, Ordering::Relaxed);
        let conn = Conn::new(id, accepted.hello, accepted.agreed);
        tracing::debug!(peer = %conn.peer(), remote = %conn.remote(), conn = id, "connection open");
        self.conns.lock().insert(id, conn.clone());
        // Either the shutdown saw the connection in the table, or this sees the shutdown.
        if self.stopping() {
            conn.end(CloseReason::ShuttingDown);
        }
        (conn.clone(), drive(self.clone(), conn, stream, accepted.framer))
    }
}

/// Runs a connection over whatever it travels on.
async fn drive(shared: Arc<Shared>, conn: Arc<Conn>, stream: Stream, framer: crate::framer::Framer) {
    let service = shared.service.clone();
    let timing = Timing { interval: shared.config.keepalive, dead_after: shared.config.dead_after };
    match stream {
        Stream::Plain(tcp) => {
            let (r, w) = tcp.into_split();
            let r = BufReader::with_capacity(READ_BUFFER, r);
            driver::run(conn.clone(), service, (r, w), framer, timing).await;
        }
        Stream::Tls(tls) => {
            driver::run(conn.clone(), service, tokio::io::split(tls), framer, timing).await;
        }
    }
    shared.conns.lock().remove(&conn.id());
}

async fn accept_loop(shared: Arc<Shared>, listener: TcpListener) {
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let accepted = Arc::new(Semaphore::new(MAX_ACCEPTED));
    loop {
        let next = async {
            let slot = handshakes.clone().acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, incoming) = tokio::select! {
            next = next => next,
            () = shared.stopped() => return,
        };
        match (slot, incoming) {
            (Ok(slot), Ok((tcp, remote))) => match accepted.clone().try_acquire_owned() {
                Ok(place) => shared.spawn(accept(shared.clone(), tcp, remote, slot, place)),
                Err(_) => tracing::warn!(%remote, "connection refused: {MAX_ACCEPTED} are open"),
            },
            (_, Err(e)) => {
                tracing::warn!("accept: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            // The semaphore is never closed.
            (Err(_), Ok(_)) => return,
        }
    }
}

/// One incoming connection, from accept to its end.
async fn accept(
    shared: Arc<Shared>,
    tcp: TcpStream,
    remote: SocketAddr,
    slot: OwnedSemaphorePermit,
    place: OwnedSemaphorePermit,
) {
    let greeted = tokio::select! {
        greeted = timeout(shared.config.handshake_timeout, greet_in(&shared, tcp, remote)) => greeted,
        () = shared.stopped() => return,
    };
    drop(slot);
    match greeted.unwrap_or(Err(DownReason::TimedOut)) {
        Ok((stream, accepted)) => shared.open(stream, accepted).1.await,
        Err(why) => {
            tracing::warn!(%remote, "connection refused: {why}");
            shared.service.refused(remote, &why);
        }
    }
    drop(place);
}

async fn greet_in(shared: &Shared, tcp: TcpStream, remote: SocketAddr) -> Result<(Stream, Accepted), DownReason> {
    tcp.set_nodelay(true).map_err(|e| DownReason::from(&e))?;
    let security = &shared.config.security;
    let mut stream = handshake::accept_tls(tcp, security).await?;
    let proved: Proved = stream.proved(security);
    let greeter = shared.greeter(remote);
    let accepted = match &mut stream {
        Stream::Plain(tcp) => handshake::accept_hello(tcp, proved, &greeter).await?,
        Stream::Tls(tls) => handshake::accept_hello(tls, proved, &greeter).await?,
    };
    Ok((stream, accepted))
}
