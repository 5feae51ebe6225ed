//! What the office's effects mean to the volume: reigns begin and end, direct I/O stops, peers are asked.
//!
//! A reign is one entry of the host: made when office is taken, with its latch at once, so that whoever learns that
//! it is over trips the latch even while the store is still being opened (prevents: office lost during the opening, and
//! the store opened behind it goes on writing). It ends once; whoever ends it again waits for the same end.
//!
//! A lease block of another volume is looked into: if the superblocks agree, the disk was formatted again. Then, in this
//! order: no new life begins (it would register in the other volume), the latch is tripped and the client's incarnation ends,
//! so that nothing more is written there and whoever waits gets EIO; the office stops; the volume is told to be over.
//!
//! Lock order: nothing here holds a lock across a call into another part.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use block::shared::{AbortOwn, BoxFuture, Epoch, FenceGen, NodeId, SharedDisk};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::office::{OfficeHandle, OfficeState, OwnNode, PeerLink};
use super::over::{Life, Over};
use super::peers::{self, PeerState, PeerTransport};
use super::unit_news::UnitNews;
use crate::client::data::DataPath;
use crate::client::link::ClientEvent;
use crate::client::session::Session;
use crate::coordinator::{Coordinator, Reign, Suspension};
use crate::core::client::Reason;
use crate::core::coord;
use crate::core::office::{self, Before, FencedEpoch, LostWhy, PeerLoss};
use crate::core::rules::Rules;
use crate::format::Superblock;
use crate::meta::Latch;
use crate::proto::{CoordinatorHint, PeerAnswer, PeerAsk};
use crate::types::ClientId;

/// The office sets limits of its own; this one only ends a question that nobody waits for any more.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How often what waits is taken back from a reign that ends at once.
const TAKE_BACK: Duration = Duration::from_millis(50);

/// Something that a person may want to know.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Notice {
    /// From the office.
    Office(office::Report),
    /// From the coordinator on this node.
    Coordinator(coord::Report),
    /// From the client.
    Client(ClientEvent),
    /// This node took office.
    TookOffice {
        /// The reign.
        epoch: Epoch,
        /// How the reign before ended.
        before: office::Before,
    },
    /// This node's office ended.
    LostOffice {
        /// The reign.
        epoch: Epoch,
        /// Why.
        why: LostWhy,
    },
    /// This node's coordinator holds changes back, or goes on: its lease was not renewed in time, or is again.
    Suspended {
        /// The reign.
        epoch: Epoch,
        /// Which of both.
        suspended: bool,
    },
    /// Another life of this node has registered: this one is over.
    Replaced,
    /// After an eviction: this life began.
    Reborn(ClientId),
    /// Office was taken and the store could not be opened; it is given up again.
    StoreFailed {
        /// Why.
        why: String,
    },
    /// The log of the metadata had a gap when a reign of this node opened it.
    ChangesLost {
        /// Records that lay whole behind the gap.
        cut_off: usize,
    },
    /// Another node coordinates now.
    Coordinates(CoordinatorHint),
    /// A superblock copy is damaged, or another remark at the start.
    Superblock(String),
    /// Somebody did something to the volume's unit.
    Unit(UnitNews),
    /// A dead daemon's mount was taken away before mounting.
    StaleMountCleaned,
    /// The mount of the daemon before was taken over; whether with what it had open.
    MountTakenOver {
        /// Else that fails until it is closed.
        resumed: bool,
        /// Else it made room.
        died: bool,
    },
}

/// The reign that is, or is coming, or is ending.
struct Running {
    epoch: Epoch,
    latch: Arc<Latch>,
    /// Told also while the store is still being opened.
    suspension: Arc<Suspension>,
    /// Whether this node may be coordinator.
    permitted: AtomicBool,
    /// `None` until the store is open.
    coordinator: watch::Sender<Option<Arc<Coordinator>>>,
    /// True when it is over: local links end.
    ended: watch::Sender<bool>,
}

/// A reign as somebody sees it who waits for its begin or its end.
#[derive(Clone)]
pub(super) struct Watched {
    opened: watch::Receiver<Option<Arc<Coordinator>>>,
    pub(super) ended: watch::Receiver<bool>,
}

impl Watched {
    /// The coordinator once its store is open; `None` if the reign ended before.
    ///
    /// # Cancel safety
    /// Safe: only looks.
    pub(super) async fn opened(&mut self) -> Option<Arc<Coordinator>> {
        unless_ended(&mut self.opened, &mut self.ended).await
    }
}

/// What `opened` comes to hold; `None` once `ended`, whatever it holds then.
async fn unless_ended<T: Clone>(
    opened: &mut watch::Receiver<Option<T>>,
    ended: &mut watch::Receiver<bool>,
) -> Option<T> {
    tokio::select! {
        biased;
        _ = ended.wait_for(|over| *over) => None,
        open = opened.wait_for(Option::is_some) => open.ok().and_then(|c| c.clone()),
    }
}

impl Running {
    fn watched(&self) -> Watched {
        Watched { opened: self.coordinator.subscribe(), ended: self.ended.subscribe() }
    }

    /// Tells a coordinator that is there from now on whether its node may still be one.
    ///
    /// Prevents: permission goes between the look at it and the telling; who heard of that found the coordinator there and told
    /// it first, and it believes the older word last.
    fn tell_permission(&self, coordinator: &Coordinator) {
        loop {
            let may = self.permitted.load(Ordering::SeqCst);
            coordinator.permitted(may);
            if self.permitted.load(Ordering::SeqCst) == may {
                return;
            }
        }
    }
}

/// The host of one volume's office.
pub(super) struct VolumeHost {
    me: Weak<VolumeHost>,
    node: NodeId,
    disk: SharedDisk,
    superblock: Superblock,
    boot: u64,
    rules: Rules,
    transport: Arc<dyn PeerTransport>,
    notices: Arc<dyn Fn(Notice) + Send + Sync>,
    /// Of the present life.
    office: RwLock<Option<OfficeHandle>>,
    session: OnceLock<Arc<Session>>,
    reign: RwLock<Option<Arc<Running>>>,
    peers: Mutex<BTreeMap<NodeId, (PeerState, Instant)>>,
    stopping: watch::Sender<bool>,
    /// Begins new lives.
    lives: Mutex<Option<JoinHandle<()>>>,
    /// Of the volume on this node.
    life: Life,
    /// Whether the disk carries another volume is being looked into, or known.
    judging: AtomicBool,
    /// Whether offices of this node take no office: told to each.
    barred: AtomicBool,
}

impl VolumeHost {
    pub(super) fn new(
        node: NodeId,
        disk: SharedDisk,
        superblock: Superblock,
        boot: u64,
        rules: Rules,
        transport: Arc<dyn PeerTransport>,
        notices: Arc<dyn Fn(Notice) + Send + Sync>,
    ) -> Arc<VolumeHost> {
        Arc::new_cyclic(|me| VolumeHost {
            me: Weak::clone(me),
            node,
            disk,
            superblock,
            boot,
            rules,
            transport,
            notices,
            office: RwLock::new(None),
            session: OnceLock::new(),
            reign: RwLock::new(None),
            peers: Mutex::default(),
            stopping: watch::Sender::new(false),
            lives: Mutex::default(),
            life: Life::new(),
            judging: AtomicBool::new(false),
            barred: AtomicBool::new(false),
        })
    }

    pub(super) fn life(&self) -> &Life {
        &self.life
    }

    /// Connects the office of a new life, and tells it and whoever follows the office what is known.
    pub(super) fn attach_office(self: &Arc<Self>, office: OfficeHandle) {
        {
            // Held while telling: a change in between must not be told before what it replaces.
            let peers = self.peers.lock();
            office.bar(self.barred.load(Ordering::Acquire));
            *self.office.write() = Some(office);
            for (node, (state, _)) in &*peers {
                self.tell_office(*node, *state);
            }
        }
        super::start::follow_office(self);
    }

    /// From now on this node takes no office, in this life and those that follow, or takes it again.
    pub(super) fn bar(&self, barred: bool) {
        // As in `attach_office`: an office that is attached meanwhile is told the one or the other last.
        let _told = self.peers.lock();
        self.barred.store(barred, Ordering::Release);
        if let Some(office) = &*self.office.read() {
            office.bar(barred);
        }
    }

    /// Ends the beginning of new lives; to be waited for before the office is stopped for good.
    pub(super) async fn no_more_lives(&self) {
        self.stopping.send_replace(true);
        let lives = self.lives.lock().take();
        if let Some(lives) = lives
            && let Err(e) = lives.await
        {
            tracing::error!("the task that begins new incarnations has failed: {e}");
        }
    }

    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    pub(super) fn attach_lives(&self, lives: JoinHandle<()>) {
        *self.lives.lock() = Some(lives);
    }

    /// Connects the client, once: it hears of coordinators and their requests from now on. Its files are there, and those that the process
    /// before had open.
    pub(super) fn attach_client(&self, path: &DataPath) {
        let session = path.session();
        assert!(self.session.set(Arc::clone(session)).is_ok(), "a volume has one session");
        // Whoever follows the office may have heard of a coordinator before there was a session to tell.
        if let Some(hint) = self.hint() {
            session.hint(hint);
        }
    }

    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    pub(super) fn transport(&self) -> Arc<dyn PeerTransport> {
        Arc::clone(&self.transport)
    }

    pub(super) fn office(&self) -> OfficeHandle {
        self.office.read().clone().unwrap_or_else(|| unreachable!("attached before the volume is handed out"))
    }

    pub(super) fn session(&self) -> Option<Arc<Session>> {
        self.session.get().cloned()
    }

    pub(super) fn office_state(&self) -> OfficeState {
        self.office().state().borrow().clone()
    }

    pub(super) fn hint(&self) -> Option<CoordinatorHint> {
        self.office.read().as_ref().and_then(|o| o.state().borrow().hint.clone())
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.hint().map_or(Epoch(0), |h| h.epoch)
    }

    pub(super) fn notice(&self, notice: Notice) {
        (self.notices)(notice);
    }

    /// The coordinator, while it serves.
    pub(super) fn coordinator(&self) -> Option<Arc<Coordinator>> {
        let running = self.reign.read().clone().filter(|running| !*running.ended.borrow())?;
        running.coordinator.borrow().clone()
    }

    /// The reign of this node, also while its store is being opened.
    pub(super) fn reign(&self) -> Option<Watched> {
        let running = self.reign.read().clone().filter(|running| !*running.ended.borrow())?;
        Some(running.watched())
    }

    /// A peer's link changed; told to the office only if it really did.
    pub(super) fn peer(&self, node: NodeId, state: &PeerState) {
        let mut peers = self.peers.lock();
        if peers.get(&node).is_none_or(|(known, _)| known != state) {
            peers.insert(node, (*state, Instant::now()));
            self.tell_office(node, *state);
            if let (PeerState::Up, Some(session)) = (state, self.session.get()) {
                session.reachable(node);
            }
        }
    }

    /// The node that has been heard for longest without a break, and since when. One that has just begun has no permission yet to take
    /// an office that is given to it.
    pub(super) fn somebody_else(&self) -> Option<(NodeId, Instant)> {
        let peers = self.peers.lock();
        let up = peers.iter().filter(|(_, (state, _))| *state == PeerState::Up);
        up.map(|(node, (_, since))| (*node, *since)).min_by_key(|(_, since)| *since)
    }

    fn tell_office(&self, node: NodeId, state: PeerState) {
        let how = match state {
            PeerState::Unknown => return,
            PeerState::Up => return self.office().peer_heard(node),
            PeerState::Closed => PeerLoss::Closed,
            PeerState::Refused => PeerLoss::Refused,
            PeerState::Silent => PeerLoss::Silent,
        };
        self.office().peer_lost(node, how);
    }

    /// Hands the office over, if this node has it; at most this long.
    pub(super) async fn hand_over(&self, within: Duration) {
        if self.office_state().in_office.is_some() {
            let _ = tokio::time::timeout(within, self.office().resign_to(None)).await;
        }
    }

    /// What the client reports: passed on, and told to the office where it concerns it.
    pub(super) fn client_event(&self, event: ClientEvent) {
        let office = self.office.read().clone();
        if let (Some(office), Some(session)) = (office, self.session.get()) {
            if let ClientEvent::OwnPath { ok } = event {
                office.own_path(ok);
            }
            // The core's lock is held by whoever reports: the generation is read afterwards.
            let session = Arc::clone(session);
            if matches!(event, ClientEvent::Route { .. } | ClientEvent::Bound { .. }) {
                tokio::spawn(async move { office.granted(session.fence_gen()) });
            }
        }
        self.notice(Notice::Client(event));
    }

    /// Whether somebody goes on with the client of the coordinator before, if its process is gone.
    fn comes_back(&self, before: Before) -> bool {
        matches!(before, Before::Fenced(proof) if self.transport().comes_back(proof.client().node))
    }

    async fn open(self: Arc<Self>, running: Arc<Running>, proof: FencedEpoch, mut unheard: BTreeMap<NodeId, Duration>) {
        let superblock = self.current_superblock().await;
        // Who has been heard again meanwhile may come.
        unheard.retain(|node, _| self.peers.lock().get(node).is_none_or(|(state, _)| *state != PeerState::Up));
        let reign = Reign {
            epoch: proof,
            device: Arc::clone(&self.disk.data),
            superblock,
            latch: Arc::clone(&running.latch),
            suspension: Arc::clone(&running.suspension),
            fencer: Arc::new(self.office()),
            unheard,
            comes_back: self.comes_back(proof.before()),
            timing: super::start::reign_timing(&self.superblock),
            boot: self.boot,
            rules: self.rules,
        };
        match Coordinator::start(reign).await {
            Ok((coordinator, mut reports)) => {
                let (cut_off, coordinator) = (coordinator.cut_off(), Arc::new(coordinator));
                running.coordinator.send_replace(Some(Arc::clone(&coordinator)));
                running.tell_permission(&coordinator);
                drop(coordinator);
                self.notice(Notice::TookOffice { epoch: running.epoch, before: proof.before() });
                if cut_off > 0 {
                    self.notice(Notice::ChangesLost { cut_off });
                }
                if let Some(session) = self.session.get() {
                    session.hint(CoordinatorHint { epoch: running.epoch, node: self.node });
                }
                while let Some(report) = reports.recv().await {
                    let failed = report == coord::Report::StoreFailed;
                    self.notice(Notice::Coordinator(report));
                    if failed && let Err(e) = self.office().resign_to(None).await {
                        tracing::warn!(volume = %self.superblock.volume, "the office was not given up: {e}");
                    }
                }
            }
            Err(e) => {
                running.latch.trip();
                running.ended.send_replace(true);
                self.notice(Notice::StoreFailed { why: e.to_string() });
                if let Err(e) = self.office().resign_to(None).await {
                    tracing::warn!(volume = %self.superblock.volume, "the office was not given up: {e}");
                }
            }
        }
    }

    /// A reign is told whether its node may still be coordinator.
    fn permitted(&self, may: bool) {
        let Some(running) = self.reign.read().clone() else { return };
        running.permitted.store(may, Ordering::SeqCst);
        let coordinator = running.coordinator.borrow().clone();
        if let Some(coordinator) = coordinator {
            coordinator.permitted(may);
        }
    }

    /// The store may have grown since this node mounted: the superblock is read again at each reign.
    async fn current_superblock(&self) -> Superblock {
        let data = Arc::clone(&self.disk.data);
        let read = tokio::task::spawn_blocking(move || crate::meta::read_superblock(&data)).await;
        match read {
            Ok(Ok(chosen)) => chosen.superblock,
            // The one from the start names ranges that are still valid; opening says what is wrong.
            _ => self.superblock.clone(),
        }
    }

    /// Whether the whole disk is another volume's; then this one ends.
    async fn judge_disk(self: Arc<Self>) {
        let cells = Arc::clone(&self.disk.cells);
        let read = tokio::task::spawn_blocking(move || crate::meta::read_superblock(&cells)).await;
        let other = match read {
            Ok(Ok(chosen)) if chosen.superblock.volume != self.superblock.volume => chosen.superblock,
            // A damaged lease block of this one, or formatting that is not done yet: the next look tells.
            _ => return self.judging.store(false, Ordering::Release),
        };
        let over = Over::OtherVolume { name: other.name.to_string(), id: other.volume.to_string() };
        tracing::error!(volume = %self.superblock.volume, "{over}");
        self.no_more_lives().await;
        let me = Arc::clone(&self);
        // Ends by itself once nothing of it is under way; its latch is tripped at once.
        tokio::spawn(async move { me.end_reign().await });
        if let Some(session) = self.session.get() {
            session.over(&over.to_string());
        }
        self.office().stop().await;
        self.life.ends(over);
    }

    /// Ends the reign that is, at once; returns when nothing of it writes any more.
    pub(super) async fn end_reign(&self) {
        let running = self.reign.read().as_ref().map(|r| r.epoch);
        if let Some(epoch) = running {
            self.end(epoch, false).await;
        }
    }

    /// Ends the reign of this epoch, if it is still there; in order or at once.
    ///
    /// One that ends at once gets back again and again what of it waits for a way to the disk and was not sent. Prevents: a commit waits
    /// while no path is there; another node succeeds; the path comes back, and the commit lands on the successor's store.
    fn end(&self, epoch: Epoch, in_order: bool) -> BoxFuture<'static, ()> {
        let running = self.reign.read().clone().filter(|r| r.epoch == epoch);
        if let Some(running) = &running
            && !in_order
        {
            running.latch.trip();
        }
        let abort = Arc::clone(&self.disk.abort);
        Box::pin(async move {
            let Some(running) = running else { return };
            let ends = async {
                // Either the store is open, or its opening has failed.
                if let Some(coordinator) = running.watched().opened().await {
                    if in_order {
                        coordinator.stop_for_move(None).await;
                    } else {
                        coordinator.stop(None).await;
                    }
                }
            };
            tokio::select! {
                () = ends => {}
                () = taking_back(&*abort), if !in_order => {}
            }
            running.ended.send_replace(true);
            // Whoever still looks at this reign must not keep its disk open.
            running.coordinator.send_replace(None);
        })
    }
}

/// Takes back what waits for a way to the disk, for ever.
async fn taking_back(abort: &dyn AbortOwn) {
    loop {
        abort.take_back();
        tokio::time::sleep(TAKE_BACK).await;
    }
}

impl OwnNode for VolumeHost {
    fn took_office(&self, proof: FencedEpoch, unheard: BTreeMap<NodeId, Duration>) {
        let running = Arc::new(Running {
            epoch: proof.epoch(),
            latch: Arc::new(Latch::new()),
            suspension: Arc::new(Suspension::new()),
            // Nobody takes office without.
            permitted: AtomicBool::new(true),
            coordinator: watch::Sender::new(None),
            ended: watch::Sender::new(false),
        });
        *self.reign.write() = Some(Arc::clone(&running));
        if let Some(me) = self.me.upgrade() {
            tokio::spawn(me.open(running, proof, unheard));
        }
    }

    fn suspended(&self, epoch: Epoch, suspended: bool) {
        if let Some(running) = self.reign.read().as_ref().filter(|r| r.epoch == epoch) {
            running.suspension.set(suspended);
        }
        self.notice(Notice::Suspended { epoch, suspended });
    }

    fn trip(&self, epoch: Epoch) -> BoxFuture<'static, ()> {
        self.end(epoch, false)
    }

    fn drain(&self, epoch: Epoch) -> BoxFuture<'static, ()> {
        self.end(epoch, true)
    }

    fn lost_office(&self, epoch: Epoch, why: LostWhy) {
        self.notice(Notice::LostOffice { epoch, why });
    }

    fn stop_direct(&self, fence_gen: FenceGen) -> BoxFuture<'static, ()> {
        match self.session.get() {
            Some(session) => Box::pin(session.fence_asked(fence_gen)),
            None => Box::pin(std::future::ready(())),
        }
    }

    fn self_evicted(&self) {
        self.notice(Notice::Replaced);
    }

    fn other_volume(&self) {
        if let Some(me) = self.me.upgrade()
            && !self.judging.swap(true, Ordering::AcqRel)
        {
            tokio::spawn(me.judge_disk());
        }
    }

    fn report(&self, report: office::Report) {
        if report == office::Report::OwnPathLost
            && let Some(session) = self.session.get()
        {
            session.suspect(Reason::IoTimedOut);
        }
        match report {
            office::Report::Permitted { .. } => self.permitted(true),
            office::Report::NotPermitted => self.permitted(false),
            office::Report::FenceStep { client, step } => {
                tracing::info!(volume = %self.superblock.volume, "{client} is being fenced: {step}");
            }
            _ => {}
        }
        self.notice(Notice::Office(report));
    }
}

impl PeerLink for VolumeHost {
    fn ask(&self, node: NodeId, ask: PeerAsk) -> BoxFuture<'_, Option<PeerAnswer>> {
        Box::pin(async move { peers::ask(&*self.transport, self.epoch(), node, &ask, ANSWER_WITHIN).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting() -> (watch::Sender<Option<u8>>, watch::Sender<bool>, impl Future<Output = Option<u8>>) {
        let (opened, ended) = (watch::Sender::new(None), watch::Sender::new(false));
        let (mut o, mut e) = (opened.subscribe(), ended.subscribe());
        (opened, ended, async move { unless_ended(&mut o, &mut e).await })
    }

    #[tokio::test]
    async fn who_comes_while_the_store_is_being_opened_waits_for_it() {
        let (opened, _ended, waits) = waiting();
        let mut waits = std::pin::pin!(waits);
        assert_eq!(at_once(&mut waits).await, None, "it is neither there nor over");
        opened.send_replace(Some(7));
        assert_eq!(waits.await, Some(7));
    }

    #[tokio::test]
    async fn who_waits_for_a_store_that_is_not_opened_hears_of_the_end() {
        let (_opened, ended, waits) = waiting();
        let mut waits = std::pin::pin!(waits);
        assert_eq!(at_once(&mut waits).await, None);
        ended.send_replace(true);
        assert_eq!(waits.await, None);
    }

    #[tokio::test]
    async fn a_reign_that_is_over_is_not_taken_for_one_whose_store_is_open() {
        let (opened, ended, waits) = waiting();
        opened.send_replace(Some(7));
        ended.send_replace(true);
        assert_eq!(waits.await, None);
    }

    /// What a future says at once.
    async fn at_once<T>(of: &mut std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
        std::future::poll_fn(|cx| match of.as_mut().poll(cx) {
            std::task::Poll::Ready(said) => std::task::Poll::Ready(Some(said)),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        })
        .await
    }
}
