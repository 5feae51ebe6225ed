//! One unit over many sessions: over several portals, and to each portal one for each worker, so that a request is
//! carried out where it came from. Each session is a nexus with an ISID, and where the unit is shared with a key, of its
//! own.

use std::sync::Arc;
use std::time::Duration;

use block::device::{BlockDevice, Geometry, Io, Resize};
use block::error::IoError;
use block::multipath::{Config as Paths, MAX_PATHS, Multipath, PathStatus};
use block::shared::{
    AbortOwn, BoxFuture, CompareAndWrite, HEDGE_AFTER, HELD_TYPE, HedgedCaw, Incarnation, Keeps, NexusKey, NexusNumber,
    NodeId, NothingInFlight, Reservations as _, ReserveError, VolumeTag,
};
use block::worker::Handle;
use iscsi::ids::Isid;
use iscsi::session::{Cause, Config, FenceGen};
use scsi::LunAddress;

use crate::driver::{Ownership, Session};
use crate::path::LunPath;
use crate::unit::{Identity, UnitError, attach};

/// How long the first session to any portal may take.
const FIRST_WITHIN: Duration = Duration::from_secs(15);

/// What is opened, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How to log in to each portal; the ISID of each is replaced.
    pub portals: Vec<Config>,
    /// The unit, the same at every portal.
    pub lun: LunAddress,
    /// Sessions to each portal: one, or one for each worker.
    pub per_portal: usize,
    /// The first of the numbers of this host's sessions, each of which names one for good: reservations rest on it.
    pub first_slot: u16,
    /// The host's number in its ISIDs.
    pub host: u32,
    /// The generation that writes are of.
    pub generation: FenceGen,
    /// Choices and times of the paths.
    pub paths: Paths,
}

/// The unit.
pub struct Lun {
    device: Multipath,
    paths: Vec<Arc<LunPath>>,
    identity: Identity,
}

impl Lun {
    /// Logs in everywhere and waits for the first session that finds the unit. Paths that come later are used when a check has
    /// proved that they lead to the same unit.
    ///
    /// # Cancel safety
    /// A dropped future leaves sessions to end with their workers.
    pub async fn open(workers: &Handle, plan: Plan) -> Result<Lun, UnitError> {
        let (sessions, identity, target) = begin(workers, &plan, Ownership::Alone).await?;
        let device = Multipath::new(identity.names(&target), identity.geometry, plan.paths, workers.clone());
        let mut paths = Vec::new();
        let stability = Arc::default();
        for (worker, session) in sessions {
            let path = Arc::new(LunPath::new(session, identity.clone(), plan.generation, &stability, false));
            let own = (plan.per_portal > 1).then_some(worker);
            device.add(Arc::clone(&path) as Arc<dyn block::multipath::Path>, own);
            paths.push(path);
        }
        follow_size(workers, &device, &paths);
        Ok(Lun { device, paths, identity })
    }

    /// What the unit is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its paths, one for each session.
    pub fn paths(&self) -> &[Arc<LunPath>] {
        &self.paths
    }

    /// Where each path is, and why.
    pub fn status(&self) -> Vec<PathStatus> {
        self.device.paths()
    }

    /// Requests that wait for a path, and changes that wait for the proof that an older copy is dead.
    pub fn waiting(&self) -> (usize, usize) {
        self.device.waiting()
    }

    /// Registers every nexus that stands with a key of its own, and holds the unit against everybody who is not
    /// registered. A nexus that does not stand is not registered, and so not used.
    pub async fn register(
        &self,
        (volume, node, incarnation): (VolumeTag, NodeId, Incarnation),
        keeps: Keeps,
    ) -> Result<(), ReserveError> {
        let mut last = ReserveError::Unknown("no path stands".to_owned());
        let mut holds = false;
        for (n, path) in self.paths.iter().enumerate() {
            let number = NexusNumber(u16::try_from(n + 1).unwrap_or(u16::MAX));
            let key = NexusKey::new(volume, node, incarnation, number).key();
            if path.device().session().nexus().is_none() {
                continue;
            }
            match path.register(key, keeps).await {
                Ok(()) => {
                    path.device().reserve(key, HELD_TYPE).await?;
                    holds = true;
                }
                Err(e) => last = e,
            }
        }
        if holds { Ok(()) } else { Err(last) }
    }

    /// Compare-and-write over the first path and, if that is slow, over another.
    pub fn compare_and_write(&self) -> HedgedCaw {
        let ways = self.paths.iter().map(|p| Arc::clone(p.device()) as Arc<dyn CompareAndWrite>);
        HedgedCaw::new(ways.take(2).collect(), HEDGE_AFTER)
    }

    /// Answers what waits, logs out everywhere.
    pub async fn close(self) {
        drop(self.device);
        for path in self.paths {
            path.device().session().close().await;
        }
    }
}

/// Another size that one path learns of is the unit's, and so all paths'.
fn follow_size(workers: &Handle, device: &Multipath, paths: &[Arc<LunPath>]) {
    for path in paths {
        let (resize, mut size) = (device.resizer(), path.device().resized());
        let all: Vec<_> = paths.iter().map(|p| Arc::downgrade(p.device())).collect();
        drop(workers.spawn(0, move || async move {
            while size.changed().await.is_ok() {
                let len = size.borrow_and_update().len;
                for other in all.iter().filter_map(std::sync::Weak::upgrade) {
                    other.inner.learn(|geometry| geometry.len = len);
                }
                if !resize(len) {
                    return;
                }
            }
        }));
    }
}

/// Sessions, each with its worker.
pub(crate) type Sessions = Vec<(usize, Session)>;

/// Logs in everywhere and waits for the first session that finds the unit; its target's name comes with it.
pub(crate) async fn begin(
    workers: &Handle,
    plan: &Plan,
    ownership: Ownership,
) -> Result<(Sessions, Identity, String), UnitError> {
    found(start(workers, plan, ownership), plan.lun).await
}

/// Waits for the first of these sessions that finds the unit.
pub(crate) async fn found(sessions: Sessions, lun: LunAddress) -> Result<(Sessions, Identity, String), UnitError> {
    let found = tokio::time::timeout(FIRST_WITHIN, first(&sessions, lun)).await;
    match found.unwrap_or(Err(UnitError::Session(Cause::LoginTimeout))) {
        Ok((n, identity)) => {
            let target = sessions[n].1.target().to_owned();
            Ok((sessions, identity, target))
        }
        Err(e) => {
            for (_, session) in sessions {
                session.close().await;
            }
            Err(e)
        }
    }
}

/// Every session, with its worker.
fn start(workers: &Handle, plan: &Plan, ownership: Ownership) -> Sessions {
    let mut sessions = Vec::new();
    for portal in &plan.portals {
        for worker in 0..plan.per_portal.max(1) {
            if sessions.len() == MAX_PATHS {
                return sessions;
            }
            let slot = plan.first_slot.saturating_add(u16::try_from(sessions.len()).unwrap_or(u16::MAX));
            let mut config = portal.clone();
            config.login.isid = Isid::from_number(plan.host, slot);
            sessions.push((worker, Session::start(workers, worker, config, ownership)));
        }
    }
    sessions
}

/// The first session over which the unit is found; the first error if none finds it.
async fn first(sessions: &[(usize, Session)], lun: LunAddress) -> Result<(usize, Identity), UnitError> {
    let mut asked = tokio::task::JoinSet::new();
    for (n, (_, session)) in sessions.iter().enumerate() {
        let session = session.clone();
        asked.spawn(async move { attach(&session, lun).await.map(|identity| (n, identity)) });
    }
    let mut error = None;
    while let Some(found) = asked.join_next().await {
        match found {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(e)) => error = error.or(Some(e)),
            Err(_) => {}
        }
    }
    Err(error.unwrap_or(UnitError::Session(Cause::ClosedHere)))
}

impl BlockDevice for Lun {
    fn geometry(&self) -> Geometry {
        self.device.geometry()
    }

    fn submit(&self, io: Io) {
        self.device.submit(io);
    }

    fn describe(&self) -> String {
        self.device.describe()
    }
}

impl Resize for Lun {
    fn resized(&self) -> tokio::sync::watch::Receiver<Geometry> {
        self.device.resized()
    }
}

impl AbortOwn for Lun {
    fn abort_outstanding(&self) -> BoxFuture<'_, Result<NothingInFlight, IoError>> {
        self.device.abort_outstanding()
    }
}
