//! The coordinator of one volume, for one reign: the shell around [`crate::core::coord`].
//!
//! ```text
//!  tasks of clients ──► core (one short lock) ──► queue ──► metadata thread: one transaction, one commit, answers
//!        │                 ▲      │          └──► queue ──► two reader threads: views of what is committed
//!        │                 │      └── callbacks, fences: a task each
//!        └── redirected I/O: checked by the core, then straight to the device; the guard comes back on completion
//! ```
//!
//! What it is: made by [`Coordinator::start`] from a [`FencedEpoch`], which proves that the reign before is over; it
//! opens the store, takes over what the last reign left, and serves until [`Coordinator::stop_for_move`] (everything
//! finished, layouts survive) or [`Coordinator::stop`] (office lost: nothing more is acknowledged). Both end in
//! [`Drained`]: nothing of this reign is on its way to the disk.
//!
//! It refuses: everything the core refuses; and any acknowledgement once the latch is tripped, whoever tripped it.
//! Pending calls are then answered `StaleEpoch`, so that clients ask the next coordinator.
//!
//! It takes no decision: those are the core's. It holds no lock across a wait.
//!
//! Called by `volume`, which brings binds, calls and redirected I/O from the network and from the node's own client.

mod actor;
mod check;
mod execute;
mod inherit;
mod link;
mod metrics;
mod queue;
mod reader;
mod redirect;
mod suspension;
mod tails;
mod ticker;
mod verify;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use block::buf::AlignedBuf;
use block::device::BlockDevice;
use block::shared::{Epoch, NodeId};
use tokio::sync::{mpsc, oneshot};

use crate::core::coord::{Coord, CoordConfig, Event, Inherited, Limits, Report};
use crate::core::office::{FencedEpoch, Timing};
use crate::core::rules::Rules;
use crate::format::Superblock;
use crate::meta::{Fatal, Latch, MetaError};
use crate::proto::{Answer, BindAnswer, BindRequest, Call, CoordinatorHint, Redirect, RedirectAnswer, Verifier};
use crate::types::ClientId;

use self::actor::{AnswerTo, Inner, Parts};
pub use self::check::CheckError;
pub use self::link::{ClientLink, Fencer};
pub use self::metrics::{Count, Metrics};
pub use self::suspension::Suspension;

/// Reports that may wait to be read; beyond that they are only logged.
const REPORTS: usize = 256;

/// What a reign starts with.
pub struct Reign {
    /// The right to open the store.
    pub epoch: FencedEpoch,
    /// The shared disk as this node reaches it.
    pub device: Arc<dyn BlockDevice>,
    /// The volume.
    pub superblock: Superblock,
    /// This reign's latch; whoever learns first that the reign is over trips it.
    pub latch: Arc<Latch>,
    /// Whether its changes are held back, from before its store is open.
    pub suspension: Arc<Suspension>,
    /// Who fences.
    pub fencer: Arc<dyn Fencer>,
    /// The nodes that this one does not hear, and for how long they have said nothing.
    pub unheard: BTreeMap<NodeId, Duration>,
    /// Whether the daemon of the coordinator before, if it was killed, is followed by one that goes on with its client.
    pub comes_back: bool,
    /// The volume's times.
    pub timing: Timing,
    /// This boot of this node, part of every stability verifier.
    pub boot: u64,
    /// The rules in force.
    pub rules: Rules,
}

/// Proof that nothing of a reign is on its way to the disk any more: its latch is tripped, every redirected request
/// has ended, and the store is closed or left behind.
#[derive(Debug)]
pub struct Drained {
    epoch: Epoch,
}

impl Drained {
    /// Of which reign.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }
}

/// Why a reign could not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The metadata store cannot be opened or read.
    #[error(transparent)]
    Store(MetaError),
    /// No thread for it.
    #[error("the metadata thread could not be started: {0}")]
    Thread(std::io::Error),
}

/// A coordinator; see the module. Dropping it ends the reign as [`Coordinator::stop`] does, without waiting.
pub struct Coordinator {
    inner: Arc<Inner>,
    epoch: Epoch,
}

/// What a fence may take; bounds how long a draining path holds a recall up.
const FENCE: Duration = Duration::from_secs(10);

impl Coordinator {
    /// Opens the store and begins to serve, in grace if the last reign left sessions. What users want to know comes over
    /// the second value.
    ///
    /// # Errors
    /// If the store cannot be opened or read, or there is no thread for it. The latch is tripped then.
    ///
    /// # Cancel safety
    /// If dropped, the reign has not begun: the store is closed again and the latch tripped.
    pub async fn start(reign: Reign) -> Result<(Coordinator, mpsc::Receiver<Report>), StartError> {
        let Reign { epoch, device, superblock, latch, suspension, fencer, unheard, comes_back, timing, boot, rules } =
            reign;
        let limits =
            Limits { recall: timing.recall, grace: timing.grace, path_timeout: timing.path_timeout, fence: FENCE };
        let verifier = Verifier { epoch: epoch.epoch(), boot, generation: device.losses() };
        let core = Coord::new(CoordConfig { epoch: epoch.epoch(), verifier, limits }, rules);
        let (reports, receiver) = mpsc::channel(REPORTS);
        let volume = superblock.volume;
        let callback_timeout = timing.recall;
        let parts = Parts { volume, verifier, device, latch, suspension, fencer, reports, callback_timeout };
        let inner = Arc::new(Inner::new(core, parts));
        let coordinator = Coordinator { inner: Arc::clone(&inner), epoch: epoch.epoch() };
        let (opened, inherited) = oneshot::channel();
        let opening = writer::Opening { inner: Arc::clone(&inner), superblock, epoch, comes_back, opened };
        writer::start(opening).map_err(StartError::Thread)?;
        let inherited = inherited.await.unwrap_or(Err(MetaError::Fatal(Fatal::Latched))).map_err(StartError::Store)?;
        inner.event(Event::Start(Inherited { unheard, ..inherited }));
        tokio::spawn(ticker::run(Arc::downgrade(&inner)));
        Ok((coordinator, receiver))
    }

    /// Binds a client over a connection, over which callbacks go from then on.
    ///
    /// # Cancel safety
    /// If dropped, the bind goes on; the client's next one is higher.
    pub async fn bind(&self, link: Arc<dyn ClientLink>, request: BindRequest) -> BindAnswer {
        self.inner.metrics.binds.add(1);
        if request.volume != self.inner.volume {
            return BindAnswer::NotCoordinator { hint: None };
        }
        let answer = self.inner.ask_bind(link, |tag, conn| Event::Bind { tag, conn, request });
        answer.await.unwrap_or(BindAnswer::NotCoordinator { hint: None })
    }

    /// A session call.
    ///
    /// # Cancel safety
    /// If dropped, the call goes on; a resend in its slot gets its answer.
    pub async fn call(&self, call: Call) -> Answer {
        let (to, answer) = oneshot::channel();
        // Whoever waited may have gone.
        self.call_then(call, move |answer| drop(to.send(answer)));
        answer.await.unwrap_or(Answer::StaleEpoch { hint: None })
    }

    /// The same without a task that waits: `then` is told once, by the thread that knows the answer, or before this returns,
    /// and never under a lock of the coordinator. It must not block.
    pub fn call_then(&self, call: Call, then: impl FnOnce(Answer) + Send + 'static) {
        self.inner.metrics.calls.add(1);
        self.inner.ask(AnswerTo::new(then), |tag| Event::Call { tag, call });
    }

    /// Redirected I/O. A write's data moves to the device as it is; a read's memory comes back with the answer.
    ///
    /// # Cancel safety
    /// If dropped, the request goes on, and is guarded until it has ended.
    pub async fn redirect(
        &self,
        request: Redirect,
        payload: Option<AlignedBuf>,
    ) -> (RedirectAnswer, Option<AlignedBuf>) {
        let (to, done) = oneshot::channel();
        // Whoever waited may have gone.
        self.redirect_then(request, payload, move |answer, data| drop(to.send((answer, data))));
        done.await.unwrap_or((RedirectAnswer::StaleEpoch { hint: None }, None))
    }

    /// The same without a task that waits: `then` is told by the request's completion, on the device's thread, or before
    /// this returns. It must not block. Handing the request to the device may wait for a worker's turn.
    pub fn redirect_then(
        &self,
        request: Redirect,
        payload: Option<AlignedBuf>,
        then: impl FnOnce(RedirectAnswer, Option<AlignedBuf>) + Send + 'static,
    ) {
        redirect::redirect(&self.inner, request, payload, then);
    }

    /// The connection with this [`ClientLink::id`] has ended.
    pub fn link_lost(&self, id: u64) {
        let mut locked = self.inner.lock();
        let gone: Vec<_> = locked.links.iter().filter(|(_, link)| link.id() == id).map(|(conn, _)| *conn).collect();
        for conn in gone {
            locked.links.remove(&conn);
            self.inner.handle(&mut locked, Event::ConnLost { conn });
        }
    }

    /// This client is known to be dead: it is evicted without waiting for a deadline.
    pub fn client_dead(&self, client: ClientId) {
        self.inner.event(Event::ClientDead { client });
    }

    /// Whether this node may be coordinator, as it sees the others. While it may not and still is, it holds no time against
    /// its clients.
    pub fn permitted(&self, may: bool) {
        self.inner.event(Event::Permitted { may });
    }

    /// Suspends metadata, or goes on: while the lease could not be renewed no commit begins. What waits for one waits
    /// longer; nothing is refused.
    pub fn suspend(&self, suspended: bool) {
        self.inner.suspension.set(suspended);
    }

    /// Ends the reign in order: nothing new is taken in, redirected I/O and the store are finished, the latch is tripped.
    /// Clients keep their layouts and bind to the next coordinator.
    ///
    /// # Cancel safety
    /// If dropped, the reign goes on ending; calling again waits for it.
    pub async fn stop_for_move(&self, hint: Option<CoordinatorHint>) -> Drained {
        self.inner.event(Event::Drain { hint });
        let mut ending = self.inner.ending.subscribe();
        // The sender lives in `inner`.
        let _ = ending.wait_for(|e| e.drained).await;
        self.inner.close_queues();
        let _ = ending.wait_for(|e| e.store_closed).await;
        self.ended().await
    }

    /// Ends the reign at once: the latch is tripped, nothing is acknowledged any more. Returns when nothing of it is on
    /// its way to the disk.
    ///
    /// # Cancel safety
    /// If dropped, the reign has ended all the same; calling again waits for what is on its way.
    pub async fn stop(&self, hint: Option<CoordinatorHint>) -> Drained {
        self.trip(hint);
        self.ended().await
    }

    /// The first half of [`Self::stop`]: for whoever cannot wait.
    pub fn trip(&self, hint: Option<CoordinatorHint>) {
        self.inner.latch.trip();
        self.inner.event(Event::Stop { hint });
        self.inner.close_queues();
    }

    async fn ended(&self) -> Drained {
        self.inner.latch.trip();
        let mut ending = self.inner.ending.subscribe();
        let _ = ending.wait_for(|e| e.drained && e.store_closed).await;
        debug_assert_eq!(self.inner.latch.in_flight(), 0, "the metadata thread waits for what it submits");
        Drained { epoch: self.epoch }
    }

    /// How many records of the redo log lay behind a gap when the store was opened, and are lost.
    pub fn cut_off(&self) -> usize {
        self.inner.cut_off.load(Ordering::Acquire)
    }

    /// The reign.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Counts.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.inner.metrics)
    }

    /// What status shows.
    pub fn status(&self) -> Status {
        let locked = self.inner.lock();
        Status {
            serving: locked.core.is_serving(),
            grace: locked.core.in_grace(),
            sessions: locked.core.sessions().collect(),
            layouts: locked.core.layouts(),
            open_files: locked.core.open_files(),
            locks: locked.core.locks().0,
            lock_waiters: locked.core.locks().1,
            lock_looks: locked.core.lock_looks(),
            redirects_in_progress: locked.core.redirects_in_progress(),
        }
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.trip(None);
    }
}

/// A coordinator at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// In office and taking calls.
    pub serving: bool,
    /// Re-assertions are still waited for.
    pub grace: bool,
    /// Clients with a session.
    pub sessions: Vec<ClientId>,
    /// Layouts given out.
    pub layouts: usize,
    /// Handles that clients have open.
    pub open_files: usize,
    /// File locks held, as stretches.
    pub locks: usize,
    /// Who waits for one.
    pub lock_waiters: usize,
    /// Buckets and intervals that were looked at for conflicts in files that are locked now.
    pub lock_looks: u64,
    /// Redirected requests on their way.
    pub redirects_in_progress: usize,
}

#[cfg(test)]
mod tests;
