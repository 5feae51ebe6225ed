//! Sockets: listening, accepting, and the end in stages.
//!
//! ```text
//!   accept ──► a worker's task: handshake ──► transmission ──► the end
//!                  (TLS)         30 s at most
//! ```
//! Each connection is one task on one worker, which alone reads, submits, completes and writes for it; connections are
//! dealt out in turn. Data never leave their worker.
//!
//! [`Server::stop`]: no new connections; handshakes end; every export is withdrawn, so that each connection reads no
//! further request, answers those under way and closes; a client that does not take its answers is closed after
//! [`DRAIN_TIME`](super::limits::DRAIN_TIME). When `stop` returns, no request of a client is in the device any more: a
//! connection's task ends only after its last one has completed, also when the client is long gone.

mod conn;
mod greet;
mod incoming;
mod mailbox;
mod outgoing;
mod pace;
mod socket;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use block::worker::Handle;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc, watch};

use super::export::Exports;
use super::limits::MAX_CONNECTIONS;
use socket::Arrived;

/// After `accept` failed (no file descriptors left, usually): time for one to be given back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where a server listens.
#[derive(Clone, Debug)]
pub enum Listen {
    /// A socket in the file system, for its owner only. One that nobody listens at is replaced.
    Unix(PathBuf),
    /// An address; port 0 lets the kernel choose.
    Tcp(SocketAddr, Security),
}

/// How a client of a TCP address proves who it is.
#[derive(Clone, Debug)]
pub enum Security {
    /// TLS 1.2 or 1.3, with certificates of one cluster at both ends; nothing goes without it.
    Tls(net::TlsMaterial),
    /// Whoever reaches the address may do all.
    Plain,
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The kernel refused.
    #[error("cannot listen at {place}: {source}")]
    Bind {
        /// Where.
        place: String,
        /// Its reason.
        source: io::Error,
    },
    /// Another process listens there.
    #[error("{0} is in use by a running server")]
    InUse(String),
    /// The workers are being shut down.
    #[error("the workers have ended")]
    NoWorkers,
}

/// What all tasks of a server share.
struct Shared {
    workers: Handle,
    exports: Arc<Exports>,
    /// Turns true once.
    stop: watch::Sender<bool>,
    places: Arc<Semaphore>,
}

/// A running server. Dropped, it begins to stop, and nobody waits for that.
pub struct Server {
    shared: Arc<Shared>,
    /// Each task holds the other end.
    gone: mpsc::Receiver<()>,
    addresses: Vec<SocketAddr>,
    paths: Vec<PathBuf>,
}

impl Server {
    /// Listens at these places and serves these exports on these workers. May be called on any thread that runs a
    /// tokio runtime; the tasks run on the workers.
    ///
    /// # Errors
    /// A place where it cannot listen; then it listens nowhere, and the exports are withdrawn.
    ///
    /// # Cancel safety
    /// Dropped early, what has begun to listen ends.
    pub async fn start(workers: Handle, exports: Arc<Exports>, listen: &[Listen]) -> Result<Server, ServerError> {
        let (alive, gone) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            workers,
            exports,
            stop: watch::Sender::new(false),
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        });
        let mut server = Server { shared, gone, addresses: Vec::new(), paths: Vec::new() };
        for (n, place) in listen.iter().enumerate() {
            let listener = server.bind(place)?;
            let (shared, alive) = (Arc::clone(&server.shared), alive.clone());
            let started = server.shared.workers.spawn(n, move || async move {
                tokio::task::spawn_local(accept_loop(shared, listener, alive));
            });
            started.await.map_err(|_| ServerError::NoWorkers)?;
        }
        Ok(server)
    }

    fn bind(&mut self, place: &Listen) -> Result<Bound, ServerError> {
        match place {
            Listen::Unix(path) => {
                let listener = bind_unix(path)?;
                self.paths.push(path.clone());
                Ok(Bound::Unix(listener))
            }
            Listen::Tcp(address, security) => {
                let failed = |source| ServerError::Bind { place: address.to_string(), source };
                let listener = std::net::TcpListener::bind(address).map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                self.addresses.push(listener.local_addr().map_err(failed)?);
                Ok(Bound::Tcp(listener, security.clone()))
            }
        }
    }

    /// The TCP addresses where it listens, in the order asked for.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Ends everything in stages; see the module.
    ///
    /// # Cancel safety
    /// Dropped early, the end goes on without anybody waiting for it.
    pub async fn stop(mut self) {
        self.begin_to_stop();
        // Nothing is ever sent: this is the end of the last task.
        let _ = self.gone.recv().await;
    }

    fn begin_to_stop(&self) {
        self.shared.stop.send_replace(true);
        self.shared.exports.withdraw_all();
        for path in &self.paths {
            // Gone already, or somebody else's: there is nothing left to do.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !*self.shared.stop.borrow() {
            self.begin_to_stop();
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("addresses", &self.addresses).field("paths", &self.paths).finish()
    }
}

/// A place that is listened at, on its way to its worker.
enum Bound {
    Unix(std::os::unix::net::UnixListener),
    Tcp(std::net::TcpListener, Security),
}

/// The same, on its worker.
enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener, Security),
}

fn bind_unix(path: &Path) -> Result<std::os::unix::net::UnixListener, ServerError> {
    let failed = |source| ServerError::Bind { place: path.display().to_string(), source };
    match path.symlink_metadata() {
        Ok(found) if !found.file_type().is_socket() => return Err(failed(io::ErrorKind::AlreadyExists.into())),
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(ServerError::InUse(path.display().to_string()));
        }
        _ => {}
    }
    // It has its name only when nobody else may connect to it.
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    // A file of that name can only be left by a dead process of our number.
    let _ = std::fs::remove_file(&fresh);
    let listener = std::os::unix::net::UnixListener::bind(&fresh).map_err(failed)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    std::fs::rename(&fresh, path).map_err(failed)?;
    Ok(listener)
}

impl Bound {
    fn on_worker(self) -> io::Result<Listener> {
        Ok(match self {
            Bound::Unix(listener) => Listener::Unix(UnixListener::from_std(listener)?),
            Bound::Tcp(listener, security) => Listener::Tcp(TcpListener::from_std(listener)?, security),
        })
    }
}

impl Listener {
    async fn accept(&self) -> io::Result<Arrived> {
        match self {
            Listener::Unix(listener) => Ok(Arrived::Unix(listener.accept().await?.0.into_std()?)),
            Listener::Tcp(listener, security) => {
                let (stream, from) = listener.accept().await?;
                Ok(Arrived::Tcp(stream.into_std()?, from, security.clone()))
            }
        }
    }
}

async fn accept_loop(shared: Arc<Shared>, bound: Bound, alive: mpsc::Sender<()>) {
    let listener = match bound.on_worker() {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("a socket cannot be listened at: {error}"),
    };
    let mut stop = shared.stop.subscribe();
    let mut turn = 0;
    loop {
        let arrived = tokio::select! {
            arrived = listener.accept() => arrived,
            () = told(&mut stop) => return,
        };
        match arrived {
            Ok(arrived) => {
                turn += 1;
                start(&shared, arrived, turn, alive.clone());
            }
            Err(error) => {
                tracing::warn!("accept: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Starts the task of a connection on its worker, if there is a place for it.
fn start(shared: &Arc<Shared>, arrived: Arrived, turn: usize, alive: mpsc::Sender<()>) {
    let from = arrived.to_string();
    let Ok(place) = Arc::clone(&shared.places).try_acquire_owned() else {
        return tracing::warn!(%from, "connection refused: {MAX_CONNECTIONS} are open");
    };
    let shared_there = Arc::clone(shared);
    // The task's end is told by what it holds.
    drop(shared.workers.spawn(turn, move || async move {
        tracing::debug!(%from, "connection open");
        match greet::serve(&shared_there, arrived).await {
            Ok(()) => tracing::debug!(%from, "connection closed"),
            Err(why) => tracing::info!(%from, "connection ended: {why}"),
        }
        drop((place, alive));
    }));
}

/// Completes when the word is given.
async fn told(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone means the same.
    drop(stop.wait_for(|stop| *stop).await);
}
