//! The loop: one event into the core, its effects carried out, the state published.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use block::device::DeviceExt;
use block::shared::{CawOutcome, Epoch, FenceGen, KillOutcome as Killed, LiveLock, NodeId, SharedDisk};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot, watch};

use super::links::{OwnNode, PeerLink};
use super::{Input, OfficeConfig, OfficeState, convert, nexuses};
use crate::core::office::*;
use crate::core::time::Now;
use crate::format::{CELL, FormatError, LEASE, SLOTS, slot_at};
use crate::proto::{PeerAnswer, PeerAsk};
use crate::types::{ClientId, VolumeId};

/// After an abort of the own requests that failed.
const ABORT_RETRY: Duration = Duration::from_millis(100);

/// NEW_EPOCH is repeated to a peer that does not answer, from this pause on, doubling ...
const TELL_FIRST: Duration = Duration::from_millis(50);
/// ... up to this one.
const TELL_MAX: Duration = Duration::from_secs(1);

/// What an office is connected to.
///
/// The actor keeps nobody alive: its node holds its handle, and it ends with that node or with its last handle.
#[derive(Clone)]
pub(super) struct Links {
    pub(super) disk: SharedDisk,
    pub(super) peers: Weak<dyn PeerLink>,
    pub(super) own: Weak<dyn OwnNode>,
    pub(super) input: mpsc::WeakUnboundedSender<Input>,
}

impl Links {
    pub(super) fn event(&self, event: Event) {
        if let Some(input) = self.input.upgrade() {
            // A stopped actor needs no answers.
            let _ = input.send(Input::Event(event));
        }
    }

    /// Asks a peer; `None` if there is no answer within this time.
    async fn ask(&self, node: NodeId, ask: PeerAsk, within: Duration) -> Option<PeerAnswer> {
        let peers = self.peers.upgrade()?;
        tokio::time::timeout(within, peers.ask(node, ask)).await.ok()?
    }
}

/// The actor.
pub(super) struct Actor {
    core: Office,
    config: OfficeConfig,
    links: Links,
    clock: Clock,
    registered: Option<(ClientId, FenceGen)>,
    /// LIVE locks of other nodes that were acquired.
    locks: BTreeMap<NodeId, LiveLock>,
    asks: BTreeMap<AskId, oneshot::Sender<PeerAnswer>>,
    fences: BTreeMap<Ticket, oneshot::Sender<Result<FenceProof, FenceFailed>>>,
    next: u64,
    state: watch::Sender<OfficeState>,
    slots: Arc<RwLock<BTreeMap<NodeId, SlotView>>>,
    /// Why the lease block could not be used at the last look, which has been said.
    unusable: Arc<Mutex<Option<FormatError>>>,
}

impl Actor {
    pub(super) fn new(
        core: Office,
        config: OfficeConfig,
        links: Links,
        slots: Arc<RwLock<BTreeMap<NodeId, SlotView>>>,
    ) -> (Actor, watch::Receiver<OfficeState>) {
        let (state, seen) = watch::channel(state_of(&core, None));
        let actor = Actor {
            core,
            config,
            links,
            clock: Clock::start(),
            registered: None,
            locks: BTreeMap::new(),
            asks: BTreeMap::new(),
            fences: BTreeMap::new(),
            next: 0,
            state,
            slots,
            unusable: Arc::default(),
        };
        (actor, seen)
    }

    /// Runs until it is stopped.
    pub(super) async fn run(mut self, mut inputs: mpsc::UnboundedReceiver<Input>) {
        self.handle(Event::Tick);
        let mut entered = self.links.disk.nexuses().map(|nexuses| nexuses.entered());
        loop {
            let wait = self.core.next_deadline().map(|at| at.since(self.clock.now()));
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(Input::Stop { done }) => {
                        // The receiver may have gone; nobody waits then.
                        let _ = done.send(());
                        return;
                    }
                    Some(input) => self.take(input),
                    None => return,
                },
                Some(entrance) = nexuses::next(&mut entered) => {
                    if let Some(over) = entrance.instead_of {
                        self.handle(Event::NexusGone { nexus: over.0 });
                    }
                    self.handle(Event::NexusUp { nexus: entrance.number.0 });
                }
                () = pause(wait) => self.handle(Event::Tick),
            }
            if self.links.own.strong_count() == 0 {
                return;
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => self.handle(event),
            Input::Asked { from, ask, answer } => self.asked(from, ask, answer),
            Input::Fence { client, purpose, answered, done } => {
                self.next += 1;
                let ticket = Ticket(self.next);
                self.fences.insert(ticket, done);
                self.handle(Event::RequestFence { ticket, client, purpose, answered });
            }
            Input::Stop { .. } => {}
        }
    }

    fn asked(&mut self, from: NodeId, ask: PeerAsk, answer: oneshot::Sender<PeerAnswer>) {
        let ask = match ask {
            PeerAsk::Who { .. } => Ask::Who,
            PeerAsk::Alive { epoch, .. } => Ask::Alive { epoch },
            PeerAsk::Fence { client, fence_gen, .. } => Ask::Fence { client, fence_gen },
            PeerAsk::NewEpoch { hint, .. } => Ask::NewEpoch(hint),
            PeerAsk::NoPath { epoch, .. } => Ask::NoPath { epoch },
            PeerAsk::TakeOffice { epoch, .. } => Ask::TakeOffice { epoch },
            // Not an office's business; the dropped sender answers so.
            PeerAsk::Node { .. } | PeerAsk::Mark { .. } | PeerAsk::WrittenSince { .. } => return,
        };
        self.next += 1;
        let id = AskId(self.next);
        self.asks.insert(id, answer);
        self.handle(Event::Asked { id, from, ask });
    }

    /// One event, and whatever it leads to at once.
    fn handle(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            if let Event::Read { sight: Some(sight), .. } = &event {
                self.slots.write().clone_from(&sight.slots);
            }
            let mut effects = Vec::new();
            self.core.handle(self.clock.now(), event, &mut effects);
            for effect in effects {
                events.extend(self.carry_out(effect));
            }
        }
        let state = state_of(&self.core, self.registered);
        self.state.send_if_modified(|s| {
            let changed = *s != state;
            *s = state;
            changed
        });
    }

    /// Does what the core asks; returns the answer if it is there at once.
    fn carry_out(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Read { seq } => self.read(seq),
            Effect::CawSlot { tag, node, expect, new, via: _ } => self.caw_slot(tag, node, expect, new),
            Effect::CawLease { tag, expect, new, via: _ } => self.caw_lease(tag, expect, new),
            Effect::TryLiveLock { node } => return Some(self.try_live_lock(node)),
            Effect::ReleaseLiveLock { node } => drop(self.locks.remove(&node)),
            Effect::Kill { node, pid, pid_start } => return Some(self.kill(node, pid, pid_start)),
            Effect::AskAlive { node, epoch } => self.ask_alive(node, epoch),
            Effect::AskFence { client, fence_gen } => self.ask_fence(client, fence_gen),
            Effect::Tell { to, what } => self.tell(to, what),
            Effect::Answer { id, answer } => {
                if let Some(waiting) = self.asks.remove(&id) {
                    // Whoever asked may have gone.
                    let _ = waiting.send(answer);
                }
            }
            Effect::FenceDone { ticket, result } => {
                if let Some(waiting) = self.fences.remove(&ticket) {
                    // Whoever asked may have gone; the fence stands.
                    let _ = waiting.send(result);
                }
            }
            Effect::Registered { client, fence_gen } => self.registered = Some((client, fence_gen)),
            Effect::Scsi { tag, step } => nexuses::step(&self.links, tag, step),
            Effect::ReadOwnSlotVia { nexus } => {
                nexuses::read_own_slot(&self.links, self.config.volume, self.config.node, nexus)
            }
            Effect::NexusGood { nexus, fence_gen } => nexuses::good(&self.links, nexus, fence_gen),
            Effect::NexusRefused { nexus } => nexuses::refused(&self.links, nexus),
            other => self.tell_node(other),
        }
        None
    }

    /// Effects on the rest of this node, which may have gone.
    fn tell_node(&self, effect: Effect) {
        let Some(own) = self.links.own.upgrade() else { return };
        let links = self.links.clone();
        match effect {
            Effect::TookOffice { proof, unheard } => own.took_office(proof, unheard),
            Effect::Suspend { epoch } => own.suspended(epoch, true),
            Effect::Resume { epoch } => own.suspended(epoch, false),
            Effect::TripLatch { epoch } => drained_after(own.trip(epoch), links, epoch),
            Effect::StartDrain { epoch } => drained_after(own.drain(epoch), links, epoch),
            Effect::LostOffice { epoch, why } => own.lost_office(epoch, why),
            Effect::StopDirect { fence_gen } => {
                let stopped = own.stop_direct(fence_gen);
                tokio::spawn(async move {
                    stopped.await;
                    abort_own(&links.disk).await;
                    links.event(Event::NothingInFlight { fence_gen });
                });
            }
            Effect::SelfEvicted => own.self_evicted(),
            Effect::Report(report) => own.report(report),
            // The others are done by `carry_out`.
            _ => {}
        }
    }

    fn read(&self, seq: ReadSeq) {
        let (links, volume, nodes) = (self.links.clone(), self.config.volume, self.config.nodes);
        let last = nodes.iter().last().map_or(1, NodeId::get);
        let lease = links.disk.cells.read(LEASE, cell_len());
        let slots = links.disk.cells.read(SLOTS, cell_len() * usize::from(last));
        let unusable = Arc::clone(&self.unusable);
        tokio::spawn(async move {
            let sight = match tokio::join!(lease, slots) {
                (Ok(lease), Ok(slots)) => {
                    let seen = sight_of(volume, nodes, &lease, &slots);
                    say_once(&unusable, seen.as_ref().err());
                    if let (Err(FormatError::OtherVolume { .. }), Some(own)) = (&seen, links.own.upgrade()) {
                        own.other_volume();
                    }
                    seen.ok()
                }
                (Err(e), _) | (_, Err(e)) => {
                    tracing::debug!("slots and lease could not be read: {e}");
                    None
                }
            };
            links.event(Event::Read { seq, sight });
        });
    }

    fn caw_slot(&self, tag: Tag, node: NodeId, expect: SlotView, new: SlotView) {
        let (links, volume) = (self.links.clone(), self.config.volume);
        tokio::spawn(async move {
            let (expect, new) = (convert::slot_bytes(volume, node, &expect), convert::slot_bytes(volume, node, &new));
            let outcome = links.disk.caw.compare_and_write(slot_at(node), expect, new).await;
            let result = result_of(outcome, |found| convert::slot_view(volume, node, found));
            links.event(Event::SlotCaw { tag, result });
        });
    }

    fn caw_lease(&self, tag: Tag, expect: LeaseView, new: LeaseView) {
        let (links, volume) = (self.links.clone(), self.config.volume);
        tokio::spawn(async move {
            let bytes =
                convert::lease_bytes(volume, &expect).and_then(|e| Ok((e, convert::lease_bytes(volume, &new)?)));
            let result = match bytes {
                Ok((expect, new)) => {
                    let outcome = links.disk.caw.compare_and_write(LEASE, expect, new).await;
                    result_of(outcome, |found| convert::lease_view(volume, found))
                }
                Err(e) => {
                    tracing::error!("a lease block cannot be written: {e}");
                    CawResult::Lost
                }
            };
            links.event(Event::LeaseCaw { tag, result });
        });
    }

    fn try_live_lock(&mut self, node: NodeId) -> Event {
        // Whoever started the office holds this node's own for the life of the disk.
        if node == self.config.node {
            return Event::LiveLock { node, acquired: true };
        }
        let Some(file) = self.links.disk.file() else { return Event::LiveLock { node, acquired: false } };
        let acquired = match file.try_lock_live(node) {
            Ok(lock) => lock.map(|lock| self.locks.insert(node, lock)).is_some(),
            Err(e) => {
                tracing::warn!("the LIVE lock of {node} cannot be tried: {e}");
                false
            }
        };
        Event::LiveLock { node, acquired }
    }

    fn kill(&self, node: NodeId, pid: u32, pid_start: u64) -> Event {
        let Some(file) = self.links.disk.file() else { return Event::Killed { node, outcome: KillOutcome::Failed } };
        let outcome = match file.kill_holder(pid, pid_start) {
            Ok(Killed::Signalled) => KillOutcome::Killed,
            Ok(Killed::Gone | Killed::AnotherProcess { .. }) => KillOutcome::Gone,
            Ok(Killed::Myself) => KillOutcome::Failed,
            Err(e) => {
                tracing::error!("the process {pid} of {node} cannot be ended: {e}");
                KillOutcome::Failed
            }
        };
        Event::Killed { node, outcome }
    }

    fn ask_fence(&self, client: ClientId, fence_gen: FenceGen) {
        let (links, volume) = (self.links.clone(), self.config.volume);
        // Its answer is of use also while the mark is waited for.
        let limit = self.config.timing.ask + self.config.timing.mark;
        tokio::spawn(async move {
            let ask = PeerAsk::Fence { volume, client, fence_gen };
            let fenced = links.ask(client.node, ask, limit).await == Some(PeerAnswer::Fenced);
            links.event(Event::FenceAnswer { client, fence_gen, fenced });
        });
    }

    fn ask_alive(&self, node: NodeId, epoch: Epoch) {
        let (links, volume, limit) = (self.links.clone(), self.config.volume, self.config.timing.ask);
        tokio::spawn(async move {
            let answer = match links.ask(node, PeerAsk::Alive { volume, epoch }, limit).await {
                Some(PeerAnswer::Alive { in_office: true, disk_stalled }) => AliveAnswer::InOffice { disk_stalled },
                Some(PeerAnswer::Alive { in_office: false, .. } | PeerAnswer::UnknownVolume) => {
                    AliveAnswer::NotInOffice
                }
                _ => AliveAnswer::Silent,
            };
            links.event(Event::Alive { node, epoch, answer });
        });
    }

    fn tell(&self, to: Option<NodeId>, what: Tell) {
        let volume = self.config.volume;
        let (ask, until_noted) = match what {
            Tell::NewEpoch(hint) => (PeerAsk::NewEpoch { volume, hint }, true),
            Tell::NoPath { epoch } => (PeerAsk::NoPath { volume, epoch }, false),
            Tell::TakeOffice { epoch } => (PeerAsk::TakeOffice { volume, epoch }, false),
        };
        for node in self.config.nodes.iter().filter(|n| *n != self.config.node && to.is_none_or(|t| t == *n)) {
            let (links, ask, state) = (self.links.clone(), ask.clone(), self.state.subscribe());
            tokio::spawn(async move {
                let mut pause = TELL_FIRST;
                while links.ask(node, ask.clone(), TELL_MAX).await.is_none() && until_noted {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(TELL_MAX);
                    // A stopped office, or one that is not in office any more, has nothing more to tell.
                    if state.has_changed().is_err() || state.borrow().in_office.is_none() {
                        return;
                    }
                }
            });
        }
    }
}

/// What the rest of the node may see.
fn state_of(core: &Office, client: Option<(ClientId, FenceGen)>) -> OfficeState {
    OfficeState {
        client,
        hint: core.hint(),
        in_office: core.in_office(),
        suspended: core.suspended(),
        permission: core.permission(),
        own_path_ok: core.own_path_ok(),
        over: core.is_over(),
    }
}

/// Says why the lease block cannot be used once for each reason, not at each look.
fn say_once(said: &Mutex<Option<FormatError>>, why: Option<&FormatError>) {
    let mut said = said.lock();
    if *said != why.cloned() {
        if let Some(why) = why {
            tracing::warn!("the lease block cannot be used: {why}");
        }
        *said = why.cloned();
    }
}

/// One round of reading, decoded. A lease that cannot be read is a failed round; a slot that cannot is absent.
fn sight_of(volume: VolumeId, nodes: NodeSet, lease: &[u8], slots: &[u8]) -> Result<Sight, FormatError> {
    let lease = convert::lease_view(volume, lease)?;
    let cell = |node: NodeId| {
        let at = cell_len() * usize::from(node.get() - 1);
        slots.get(at..at + cell_len())
    };
    let view = |node: NodeId| {
        let decoded = convert::slot_view(volume, node, cell(node)?);
        let view = decoded.inspect_err(|e| tracing::warn!("the slot of {node} cannot be used: {e}")).ok()?;
        Some((node, view))
    };
    Ok(Sight { lease, slots: nodes.iter().filter_map(view).collect() })
}

pub(super) fn cell_len() -> usize {
    usize::try_from(CELL).unwrap_or(4096)
}

/// An error means that nothing was changed by this attempt; the core settles that, as every other doubt, by reading.
fn result_of<V>(
    outcome: Result<CawOutcome, block::IoError>,
    view: impl Fn(&[u8]) -> Result<V, FormatError>,
) -> CawResult<V> {
    match outcome {
        Ok(CawOutcome::Done) => CawResult::Done,
        Ok(CawOutcome::Miscompare { found }) => match view(&found) {
            Ok(view) => CawResult::Miscompare(view),
            Err(e) => {
                tracing::warn!("a compare-and-write found a block that cannot be used: {e}");
                CawResult::Lost
            }
        },
        Ok(CawOutcome::Unknown) => CawResult::Lost,
        Err(e) => {
            tracing::debug!("a compare-and-write failed: {e}");
            CawResult::Lost
        }
    }
}

/// Aborts this node's own requests until that has succeeded.
async fn abort_own(disk: &SharedDisk) {
    while let Err(e) = disk.abort.abort_outstanding().await {
        tracing::warn!("own requests cannot be aborted yet: {e}");
        tokio::time::sleep(ABORT_RETRY).await;
    }
}

fn drained_after(drained: block::shared::BoxFuture<'static, ()>, links: Links, epoch: Epoch) {
    tokio::spawn(async move {
        drained.await;
        links.event(Event::Drained { epoch });
    });
}

/// Waits so long; for ever without a deadline.
async fn pause(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

/// CLOCK_BOOTTIME since the start: it goes on while the machine sleeps.
struct Clock {
    start: u64,
}

impl Clock {
    fn start() -> Clock {
        Clock { start: boottime_ms() }
    }

    fn now(&self) -> Now {
        Now(boottime_ms().saturating_sub(self.start))
    }
}

fn boottime_ms() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(t.tv_sec).unwrap_or(0) * 1000 + u64::try_from(t.tv_nsec).unwrap_or(0) / 1_000_000
}
