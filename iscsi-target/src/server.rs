//! Sockets: listening, accepting, and the end in stages.
//!
//! ```text
//!   accept ──► a worker's task: login ──► full feature phase ──► the end
//!                 30 s at most, and as long as an older session of the nexus takes to end
//! ```
//! Each connection is one task on one worker, which alone reads, submits, completes and writes for it; connections are
//! dealt out in turn. Data never leave their worker.
//!
//! [`Server::stop`]: no new connections; logins are refused; every initiator is asked to log out, and has a moment for it; then
//! each session ends: its commands are aborted as far as they have not reached the device. When `stop` returns, no request of an
//! initiator is in the device any more.

mod conn;
mod greet;
pub(crate) mod limits;
mod mailbox;
mod sessions;
mod unit;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use block::worker::Handle;
use iscsi::keys::params::{DigestWish, Offer};
use parking_lot::Mutex;
use scsi::alua::AccessState;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::core::login::{ChapPolicy, Policy};
use crate::store::Store;
use crate::target::{LunError, Portal, Target};
use mailbox::Note;
use sessions::Sessions;
pub use sessions::{GroupInfo, SessionInfo};
use unit::LogicalUnit;

/// After `accept` failed (no file descriptors left, usually): time for one to be given back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often a server that is being stopped looks whether everybody has left.
const LEAVE_LOOK: Duration = Duration::from_millis(20);

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The kernel refused.
    #[error("cannot listen at {place}: {source}")]
    Bind {
        /// Where.
        place: SocketAddr,
        /// Its reason.
        source: io::Error,
    },
    /// A unit cannot be served.
    #[error("{0}")]
    Lun(#[from] LunError),
    /// The name is none of a target.
    #[error(
        "{0:?} is no name of a target: iqn.YEAR-MONTH.DOMAIN:ANYTHING is, at most 223 bytes of a-z, 0-9, `.`, `-` and `:`"
    )]
    Name(String),
    /// A portal group is 0 or a portal is missing.
    #[error("a target needs at least one portal, and portal groups count from 1")]
    Portals,
    /// The workers are being shut down.
    #[error("the workers have ended")]
    NoWorkers,
}

/// What all tasks of a server share.
pub(crate) struct Shared {
    workers: Handle,
    pub(crate) policy: Policy,
    pub(crate) units: Vec<Arc<LogicalUnit>>,
    /// Their numbers.
    pub(crate) luns: Vec<u64>,
    pub(crate) portals: Vec<Portal>,
    pub(crate) sessions: Arc<Sessions>,
    places: Arc<Semaphore>,
    /// Turns true once.
    stop: watch::Sender<bool>,
    pub(crate) hold: Hold,
}

/// What is held up; see [`Server::hold_next_write`] and [`Server::hold_looks`].
#[derive(Debug, Default)]
pub(crate) struct Hold {
    /// Looked at for every command while none is set: without the lock.
    is_set: AtomicBool,
    /// Whose, and where.
    of: Mutex<Option<(String, HeldIn)>>,
}

/// Where commands are held up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HeldIn {
    /// The next write, in its unit's task set, before it begins.
    TaskSet,
    /// The next write, in the disk: it has begun, and nothing of the target can take it back.
    Disk,
    /// Every read and compare-and-write, before it begins.
    Looks,
}

impl Hold {
    fn set(&self, initiator: &str, place: HeldIn) {
        *self.of.lock() = Some((initiator.to_owned(), place));
        self.is_set.store(true, Ordering::Release);
    }

    /// Whether a command of this initiator is one that is held up there; of writes only one is.
    pub(crate) fn takes(&self, initiator: &str, place: HeldIn) -> bool {
        if !self.is_set.load(Ordering::Acquire) {
            return false;
        }
        let mut of = self.of.lock();
        let it_is = of.as_ref().is_some_and(|(of, at)| of == initiator && *at == place);
        if it_is && place != HeldIn::Looks {
            *of = None;
            self.is_set.store(false, Ordering::Release);
        }
        it_is
    }

    /// Reads are held up no longer.
    fn let_looks_go(&self) {
        let mut of = self.of.lock();
        if of.as_ref().is_some_and(|(_, place)| *place == HeldIn::Looks) {
            *of = None;
            self.is_set.store(false, Ordering::Release);
        }
    }
}

impl Shared {
    /// The unit of this number.
    pub(crate) fn unit(&self, number: u64) -> Option<(usize, &Arc<LogicalUnit>)> {
        self.units.iter().enumerate().find(|(_, unit)| unit.number == number)
    }
}

/// A running server. Dropped, it begins to stop, and nobody waits for that.
pub struct Server {
    shared: Arc<Shared>,
    /// Each task holds the other end.
    gone: mpsc::Receiver<()>,
}

impl Server {
    /// Listens at the target's portals and serves it on these workers. May be called on any thread that runs a tokio runtime;
    /// the tasks run on the workers. Reads what is stored of reservations.
    ///
    /// # Errors
    /// A place where it cannot listen, a unit that cannot be served; then it listens nowhere.
    ///
    /// # Cancel safety
    /// Dropped early, what has begun to listen ends.
    pub async fn start(workers: Handle, target: Target) -> Result<Server, ServerError> {
        check(&target)?;
        let (alive, gone) = mpsc::channel(1);
        let units = open_units(&target)?;
        let (portals, listeners) = bind(&target.portals)?;
        let shared = Arc::new(Shared {
            workers,
            luns: target.luns.iter().map(|lun| lun.number).collect(),
            policy: policy(&target),
            units,
            portals,
            sessions: Arc::default(),
            places: Arc::new(Semaphore::new(limits::MAX_CONNECTIONS)),
            stop: watch::Sender::new(false),
            hold: Hold::default(),
        });
        let server = Server { shared, gone };
        for (n, listener) in listeners.into_iter().enumerate() {
            let (shared, alive) = (Arc::clone(&server.shared), alive.clone());
            let started = server.shared.workers.spawn(n, move || async move {
                tokio::task::spawn_local(accept_loop(shared, n, listener, alive));
            });
            started.await.map_err(|_| ServerError::NoWorkers)?;
        }
        Ok(server)
    }

    /// The addresses where it listens, in the order of the portals.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.shared.portals.iter().map(|p| p.address).collect()
    }

    /// The sessions that there are.
    pub fn sessions(&self) -> Vec<SessionInfo> {
        self.shared.sessions.list()
    }

    /// How each unit is reached through each port group. An initiator may have set them apart from one another.
    pub fn groups(&self) -> Vec<GroupInfo> {
        let of = |unit: &Arc<LogicalUnit>| {
            let states = unit.with(|u, _| u.group_states());
            let number = unit.number;
            states.into_iter().map(move |(group, state, explicit)| GroupInfo { group, lun: number, state, explicit })
        };
        self.shared.units.iter().flat_map(of).collect()
    }

    /// Sets the state of a port group, for every unit. Every session is told by a unit attention. False if there is no such
    /// group.
    pub fn set_group(&self, group: u16, state: AccessState) -> bool {
        // Every unit is asked, also behind one that refuses.
        let refuses = |unit: &&Arc<LogicalUnit>| !unit.with(|u, _| u.set_group(group, state));
        self.shared.units.iter().filter(refuses).count() == 0
    }

    /// The device of a unit has another size: looks at it again, and tells every session. False if there is no such unit.
    pub fn resized(&self, lun: u64) -> bool {
        let Some((_, unit)) = self.shared.unit(lun) else { return false };
        let len = unit.device.geometry().len.0;
        unit.with(|u, _| u.resized(len / u64::from(u.shape.block.get())));
        true
    }

    /// So many bytes are left for a thin unit; below `threshold` every session is told once. False if there is no such unit.
    pub fn space_left(&self, lun: u64, left: u64, threshold: u64) -> bool {
        let Some((_, unit)) = self.shared.unit(lun) else { return false };
        unit.with(|u, _| {
            let block = u64::from(u.shape.block.get());
            u.space(left / block, threshold / block);
        });
        true
    }

    /// For demonstrations of what may be stuck in an array: the next WRITE of this initiator, complete with its data, waits in its unit's
    /// task set before it begins, until [`Server::let_go`], or until it is aborted like any other.
    pub fn hold_next_write(&self, initiator: &str) {
        self.shared.hold.set(initiator, HeldIn::TaskSet);
    }

    /// The same, stuck in the disk: it has begun, so that an abort can only wait for it, and it lands when it is let go, whatever became
    /// of its initiator.
    pub fn stick_next_write(&self, initiator: &str) {
        self.shared.hold.set(initiator, HeldIn::Disk);
    }

    /// For tests of what an initiator does before it has seen anything: from now on every READ and COMPARE AND WRITE of it waits before it
    /// begins, until [`Server::let_go`], or until it is aborted like any other. Writes do not.
    pub fn hold_looks(&self, initiator: &str) {
        self.shared.hold.set(initiator, HeldIn::Looks);
        tracing::warn!("looks of {initiator} are held up from now on");
    }

    /// What is held begins now, if it is still there.
    pub fn let_go(&self) {
        self.shared.hold.let_looks_go();
        self.shared.sessions.tell(None, || Note::LetGo);
    }

    /// Asks every initiator to log out within so many seconds (asynchronous message 1).
    pub fn ask_logout(&self, seconds: u16) {
        self.shared.sessions.tell(None, || Note::AskLogout(seconds));
    }

    /// Ends everything in stages; see the module.
    ///
    /// # Cancel safety
    /// Dropped early, the end goes on without anybody waiting for it.
    pub async fn stop(mut self) {
        self.shared.sessions.close();
        self.shared.stop.send_replace(true);
        self.ask_logout(limits::LEAVE_SECONDS);
        let asked = tokio::time::Instant::now();
        let patience = Duration::from_secs(u64::from(limits::LEAVE_SECONDS));
        while !self.sessions().is_empty() && asked.elapsed() < patience {
            tokio::time::sleep(LEAVE_LOOK).await;
        }
        self.begin_to_stop();
        // Nothing is ever sent: this is the end of the last task.
        let _ = self.gone.recv().await;
    }

    fn begin_to_stop(&self) {
        self.shared.sessions.close();
        self.shared.stop.send_replace(true);
        self.let_go();
        self.shared.sessions.tell(None, || Note::End("the target is being stopped"));
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
        f.debug_struct("Server").field("addresses", &self.addresses()).finish()
    }
}

fn check(target: &Target) -> Result<(), ServerError> {
    if !iscsi::keys::is_name(&target.name) {
        return Err(ServerError::Name(target.name.clone()));
    }
    if target.portals.is_empty() || target.portals.iter().any(|p| p.group == 0) {
        return Err(ServerError::Portals);
    }
    for (n, lun) in target.luns.iter().enumerate() {
        if target.luns[..n].iter().any(|other| other.number == lun.number) {
            return Err(LunError::Number(lun.number).into());
        }
    }
    Ok(())
}

fn open_units(target: &Target) -> Result<Vec<Arc<LogicalUnit>>, LunError> {
    let mut ports: Vec<u16> = target.portals.iter().map(|p| p.group).collect();
    ports.sort_unstable();
    ports.dedup();
    let open = |(n, lun): (usize, &crate::target::Lun)| {
        let store = target.state.as_ref().map(|folder| Store::new(folder, &target.name, lun.number)).transpose()?;
        LogicalUnit::open(n, lun, &target.name, ports.clone(), store).map(Arc::new)
    };
    target.luns.iter().enumerate().map(open).collect()
}

/// The portals with the ports that the kernel chose, and the sockets.
fn bind(portals: &[Portal]) -> Result<(Vec<Portal>, Vec<std::net::TcpListener>), ServerError> {
    let one = |portal: &Portal| {
        let failed = |source| ServerError::Bind { place: portal.address, source };
        let listener = std::net::TcpListener::bind(portal.address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok((Portal { address, ..*portal }, listener))
    };
    let bound: Result<Vec<_>, ServerError> = portals.iter().map(one).collect();
    Ok(bound?.into_iter().unzip())
}

fn policy(target: &Target) -> Policy {
    let admission = &target.admission;
    let chap = (!admission.accounts.is_empty())
        .then(|| ChapPolicy { accounts: admission.accounts.clone(), own: admission.own.clone() });
    Policy {
        target: target.name.clone(),
        initiators: admission.initiators.clone(),
        chap,
        redirect: target.redirect.clone(),
        offer: Offer {
            header_digest: DigestWish::Rather,
            data_digest: DigestWish::Rather,
            max_recv_segment: limits::MAX_DATA_SEGMENT,
            max_burst: limits::MAX_BURST,
            first_burst: limits::FIRST_BURST,
            initial_r2t: false,
            immediate_data: true,
            max_outstanding_r2t: limits::MAX_R2T,
            time2wait: 0,
            time2retain: 0,
        },
    }
}

async fn accept_loop(shared: Arc<Shared>, portal: usize, listener: std::net::TcpListener, alive: mpsc::Sender<()>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("a socket cannot be listened at: {error}"),
    };
    let mut stop = shared.stop.subscribe();
    let mut turn = portal;
    loop {
        let arrived = tokio::select! {
            arrived = listener.accept() => arrived,
            () = told(&mut stop) => return,
        };
        match arrived.and_then(|(stream, from)| Ok((stream.into_std()?, from))) {
            Ok((stream, from)) => {
                turn += 1;
                start(&shared, portal, (stream, from), turn, alive.clone());
            }
            Err(error) => {
                tracing::warn!("accept: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Starts the task of a connection on its worker.
fn start(
    shared: &Arc<Shared>,
    portal: usize,
    (stream, from): (std::net::TcpStream, SocketAddr),
    turn: usize,
    alive: mpsc::Sender<()>,
) {
    let Ok(place) = Arc::clone(&shared.places).try_acquire_owned() else {
        return tracing::warn!(%from, "connection refused: {} are open", limits::MAX_CONNECTIONS);
    };
    let there = Arc::clone(shared);
    // The task's end is told by what it holds.
    drop(shared.workers.spawn(turn, move || async move {
        tracing::debug!(%from, "connection open");
        match greet::serve(&there, portal, stream, from).await {
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
