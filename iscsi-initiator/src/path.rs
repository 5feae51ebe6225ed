//! A session as a path of a [`Multipath`](block::multipath::Multipath) device: one nexus with a unit.
//!
//! Its proof that it is dead: every request is taken back from the session, whose nexus is given up; the next login at the
//! same portal group, under the same ISID, ends what the target has of it. Where no login succeeds another nexus can have
//! it killed ([`Path::killed`]), if it was registered. A session that is over for good and was never registered leaves what
//! it had sent in doubt: nobody can prove that it is dead.
//!
//! A path that was registered is used only as long as its registration is there: each check looks. It is never registered
//! again with the same key; its owner gives it the next number.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use block::device::{BlockDevice, Geometry, Io};
use block::error::IoError;
use block::multipath::{Access, Nexus, Path, Reason};
use block::shared::{
    AbortOwn, BoxFuture, DiskIdentity, Identify, Keeps, NothingInFlight, Reservations as _, ReserveError,
};
use iscsi::session::FenceGen;
use scsi::ReservationKey;
use scsi::reservations::ReservationType;

use crate::driver::{Session, SessionState};
use crate::unit::{Identity, LunDevice, Stability};

/// How long a check may take: shorter than the time after which a path counts as silent.
const CHECK_WITHIN: Duration = Duration::from_secs(2);

/// The path.
pub struct LunPath {
    device: Arc<LunDevice>,
    /// It has been registered: without a registration it is not used any more.
    registers: AtomicBool,
    /// Its nexus was killed from another one, and it was not registered since.
    killed: AtomicBool,
}

impl LunPath {
    /// A session with a unit that was found over this or another one; what is known of its cache, all its paths share.
    pub(crate) fn new(
        session: Session,
        identity: Identity,
        generation: FenceGen,
        stability: &Arc<Stability>,
        judged: bool,
    ) -> LunPath {
        let shared = (Duration::ZERO, Arc::clone(stability));
        let device = Arc::new(LunDevice::of_many(session, identity, generation, shared, judged));
        LunPath { device, registers: AtomicBool::new(false), killed: AtomicBool::new(false) }
    }

    /// The unit over this session alone: its compare-and-write, its reservations.
    pub fn device(&self) -> &Arc<LunDevice> {
        &self.device
    }

    /// Registers this nexus with a key of its own, for the first time or, after it was killed, with the next number.
    pub async fn register(&self, key: ReservationKey, keeps: Keeps) -> Result<(), ReserveError> {
        self.registers.store(true, Ordering::Release);
        self.device.register(key, keeps).await?;
        self.killed.store(false, Ordering::Release);
        Ok(())
    }

    /// Registers this nexus right after its login; see [`LunDevice::enter`].
    pub(crate) async fn enter(&self, key: ReservationKey, kind: ReservationType) -> Result<(), ReserveError> {
        self.registers.store(true, Ordering::Release);
        self.device.enter(key, kind).await?;
        self.killed.store(false, Ordering::Release);
        Ok(())
    }

    /// Registers this nexus, which has a registration, with another key.
    pub(crate) async fn change_key(&self, key: ReservationKey, kind: ReservationType) -> Result<(), ReserveError> {
        self.device.change_key(key, kind).await
    }

    /// Takes its registration away; the path is not used any more.
    pub async fn unregister(&self) -> Result<(), ReserveError> {
        match self.device.inner.registered() {
            Some(registered) => self.device.unregister(registered.key).await,
            None => Ok(()),
        }
    }

    /// Its key, if it is registered.
    pub fn key(&self) -> Option<ReservationKey> {
        self.device.inner.registered().map(|r| r.key)
    }

    fn session(&self) -> &Session {
        self.device.session()
    }

    async fn look(&self) -> Result<Access, Reason> {
        if self.session().nexus().is_none() {
            return Err(Reason::Lost(why(&self.session().state().borrow())));
        }
        if self.registers.load(Ordering::Acquire) && self.key().is_none() {
            return Err(Reason::Fenced);
        }
        self.device.look().await
    }
}

impl BlockDevice for LunPath {
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

impl AbortOwn for LunPath {
    fn abort_outstanding(&self) -> BoxFuture<'_, Result<NothingInFlight, IoError>> {
        Box::pin(async move {
            let proof = self.device.abort_outstanding().await;
            let over = matches!(&*self.session().state().borrow(), SessionState::Ended(_));
            // A session that is over sends nothing more and has answered everything; what it had sent went with its nexus.
            if proof.is_err() && over && self.killed.load(Ordering::Acquire) {
                return Ok(NothingInFlight::by_transport());
            }
            proof
        })
    }
}

impl Identify for LunPath {
    fn identify(&self) -> BoxFuture<'_, Result<DiskIdentity, IoError>> {
        self.device.identify()
    }
}

impl Path for LunPath {
    fn check(&self) -> BoxFuture<'_, Result<Access, Reason>> {
        Box::pin(async move {
            let late = |_| Err(Reason::CheckFailed("no answer in time".to_owned()));
            tokio::time::timeout(CHECK_WITHIN, self.look()).await.unwrap_or_else(late)
        })
    }

    fn lost(&self) -> BoxFuture<'_, Reason> {
        let mut state = self.session().state();
        Box::pin(async move {
            let mut standing = None;
            loop {
                match &*state.borrow_and_update() {
                    SessionState::Up { nexus, .. } if standing.is_none_or(|s| s == *nexus) => standing = Some(*nexus),
                    SessionState::Up { .. } => return Reason::Lost("the session was begun anew".to_owned()),
                    down if standing.is_some() => return Reason::Lost(why(down)),
                    SessionState::Down(_) | SessionState::Ended(_) => {}
                }
                if state.changed().await.is_err() {
                    // The session is over: nothing more is lost.
                    return std::future::pending().await;
                }
            }
        })
    }

    fn nexus(&self) -> Option<Nexus<'_>> {
        Some(Nexus { reservations: self.device.as_ref(), key: self.key()? })
    }

    fn killed(&self) {
        self.killed.store(true, Ordering::Release);
        self.device.inner.set_registered(None);
        // What is with the target goes to what is lost, and that is dead.
        if let Some(nexus) = self.session().nexus() {
            self.session().unregistered(nexus);
        }
        self.session().preempted();
    }
}

/// The last reason of a session that has no nexus.
fn why(state: &SessionState) -> String {
    match state {
        SessionState::Down(Some(cause)) | SessionState::Ended(cause) => cause.to_string(),
        SessionState::Down(None) | SessionState::Up { .. } => "there is no session".to_owned(),
    }
}
