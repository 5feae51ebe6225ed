//! One session with a shared unit: a path that carries data only while its nexus is admitted.

use std::sync::atomic::{AtomicBool, Ordering};

use block::device::{BlockDevice, Geometry, Io};
use block::error::{IoError, IoErrorKind};
use block::multipath::{Access, Nexus, Path, Reason, Standing};
use block::shared::{AbortOwn, BoxFuture, DiskIdentity, Identify, NothingInFlight};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::door::Door;
use crate::driver::Session;
use crate::path::LunPath;
use crate::unit::LunDevice;

/// The way.
pub(super) struct Way {
    pub(super) path: LunPath,
    pub(super) door: Mutex<Door>,
    /// The door's state is to be looked at by whoever lets nexuses in.
    pub(super) knock: Notify,
    /// It was admitted; it is not any more.
    pub(super) opened: Notify,
    pub(super) closed: Notify,
    /// The unit is being left: no nexus of this node has another one killed any more.
    leaving: AtomicBool,
}

impl Way {
    pub(super) fn new(path: LunPath) -> Way {
        let (knock, opened, closed) = (Notify::new(), Notify::new(), Notify::new());
        Way { path, door: Mutex::default(), knock, opened, closed, leaving: AtomicBool::new(false) }
    }

    /// The unit is being left. Prevents: this nexus has a write in the disk, and its sibling takes its key away, without a mark, and no proof
    /// comes before the process ends; whoever fences this node finds neither, and takes that for the end of everything.
    pub(super) fn leaves(&self) {
        self.leaving.store(true, Ordering::Release);
    }

    pub(super) fn device(&self) -> &LunDevice {
        self.path.device()
    }

    pub(super) fn session(&self) -> &Session {
        self.path.device().session()
    }

    /// Whether a nexus stands that is registered, under whatever key.
    pub(super) fn is_registered(&self) -> bool {
        self.session().nexus().is_some() && self.path.key().is_some()
    }
}

impl BlockDevice for Way {
    fn geometry(&self) -> Geometry {
        self.path.geometry()
    }

    fn submit(&self, io: Io) {
        let standing = self.door.lock().standing();
        self.submit_in(standing, io);
    }

    fn describe(&self) -> String {
        self.path.describe()
    }

    fn losses(&self) -> u64 {
        self.path.losses()
    }
}

impl AbortOwn for Way {
    fn abort_outstanding(&self) -> BoxFuture<'_, Result<NothingInFlight, IoError>> {
        Box::pin(async move {
            let proof = self.path.abort_outstanding().await;
            self.door.lock().renews(self.session().era());
            proof
        })
    }
}

impl Identify for Way {
    fn identify(&self) -> BoxFuture<'_, Result<DiskIdentity, IoError>> {
        self.path.identify()
    }
}

impl Path for Way {
    fn check(&self) -> BoxFuture<'_, Result<Access, Reason>> {
        let admitted = {
            let door = self.door.lock();
            door.right(door.standing()).is_some()
        };
        let nexus = self.session().nexus();
        let stands = nexus.is_some();
        Box::pin(async move {
            match self.path.check().await {
                Ok(_) if !admitted => Err(Reason::NotAdmitted),
                // Without a registration the unit tells nothing: not why, but that it was not let in is what there is to know.
                Err(Reason::CheckFailed(_) | Reason::Fenced) if stands && !admitted => Err(Reason::NotAdmitted),
                // Its registration is gone, or the reservation that keeps strangers out: it comes in anew, and reserves anew.
                Err(Reason::Fenced) => {
                    if let Some(nexus) = nexus {
                        self.session().unregistered(nexus);
                    }
                    Err(Reason::Fenced)
                }
                checked => checked,
            }
        })
    }

    fn lost(&self) -> BoxFuture<'_, Reason> {
        let lost = self.path.lost();
        Box::pin(async move {
            tokio::select! {
                reason = lost => reason,
                () = self.closed.notified() => Reason::NotAdmitted,
            }
        })
    }

    fn nexus(&self) -> Option<Nexus<'_>> {
        if self.leaving.load(Ordering::Acquire) { None } else { self.path.nexus() }
    }

    fn killed(&self) {
        self.path.killed();
    }

    fn standing(&self) -> Standing {
        self.door.lock().standing()
    }

    fn submit_in(&self, standing: Standing, io: Io) {
        let right = self.door.lock().right(standing);
        match right {
            // Everything was taken back from its session since: it is on its way out.
            Some(right) if right.era != self.session().era() => io.fail(IoErrorKind::ShuttingDown),
            Some(right) => self.device().submit_as(io, right.era, right.generation),
            None => io.fail(IoErrorKind::ShuttingDown),
        }
    }

    fn admitted(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.opened.notified())
    }
}
