//! The loop: inputs, events of the core, their effects carried out.
//!
//! **Messages first.** What a turn sends is on its way before what it asks of the disk is begun: giving thirty writes to a file system
//! takes half a millisecond, for which a peer and its disk would wait. The core asks for no order between the two: where one has to be
//! there before the other, it waits for its end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use block::IoErrorKind;
use net::{CallError, Conn, DialTarget, Dialer, LinkState, Net};
use tokio::sync::{mpsc, oneshot, watch};

use super::front::Front;
use super::links::Gate;
use super::local::Disk;
use super::metrics::{Metrics, Peering};
use super::status::{self, PeerStatus, Preview, Status, Synchronised, WitnessStatus};
use super::wire::{self, Packed};
use super::words;
use super::{Input, NotRemoved, NotResized, PeerAddress, ResourceConfig, WitnessAddress};
use crate::compare::Verdict;
use crate::core::Node;
use crate::core::config::OnNoQuorum;
use crate::core::event::{Ask, ConnId, Effect, Event, Message, Moved, Now, Refusal, Report, ReqId};
use crate::core::view::PeerView;
use crate::ids::{NodeId, SECTOR, Sizes, Volume};

mod volumes;

/// How often the core is told that time has passed.
const TICK: Duration = Duration::from_millis(100);
/// How long until frames that found the connection's queue full are tried again.
const AGAIN: Duration = Duration::from_millis(1);
/// Bytes for one peer that wait here: with more, applications wait. The connection itself holds 16 MiB.
const MAX_BACKLOG: usize = 32 << 20;
/// Inputs taken before time is looked at again.
const BATCH: usize = 256;

/// The wall's clock at the start, and from then on one that only grows.
pub(super) struct Clock {
    base: u64,
}

impl Clock {
    pub(super) fn start() -> Clock {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let wall = u64::try_from(wall.as_millis()).unwrap_or(0);
        Clock { base: wall.saturating_sub(boottime_ms()) }
    }

    pub(super) fn now(&self) -> Now {
        Now(self.base + boottime_ms())
    }
}

fn boottime_ms() -> u64 {
    boottime_us() / 1000
}

fn boottime_us() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0) / 1000
}

/// A connection.
struct Line {
    node: NodeId,
    conn: Arc<Conn>,
    sent: u64,
    came: u64,
    /// Frames that the connection had no room for.
    backlog: VecDeque<Packed>,
    bytes: usize,
}

/// What is known of a peer besides the core's view.
struct Peer {
    address: PeerAddress,
    dialer: Option<Dialer>,
    /// What the last meeting came to.
    said: Option<String>,
    preview: Option<Preview>,
    synchronised: Option<Synchronised>,
    measured: Peering,
}

/// Whom it tells of changes.
pub(super) struct Tells {
    /// Whether this node is primary.
    pub(super) primary: watch::Sender<bool>,
    /// How everything is.
    pub(super) shown: watch::Sender<Option<Arc<Status>>>,
    /// The local disk was left.
    pub(super) detached: Arc<AtomicBool>,
    pub(super) failed: watch::Sender<bool>,
    /// It was left because it hangs.
    pub(super) hung: Arc<AtomicBool>,
    /// Sectors of the volumes.
    pub(super) sizes: watch::Sender<Sizes>,
}

/// The tie-breaker.
struct Witness {
    address: WitnessAddress,
    dialer: Option<Dialer>,
}

/// What a turn begins with.
enum Next {
    Input(Input),
    Tick,
    Again,
}

/// The actor.
pub(super) struct Actor {
    core: Node,
    clock: Clock,
    disk: Disk,
    net: Option<Net>,
    gate: Arc<Gate>,
    peers: BTreeMap<NodeId, Peer>,
    witness: Option<Witness>,
    tells: Tells,
    on_no_quorum: OnNoQuorum,
    lines: BTreeMap<u64, Line>,
    front: Front,
    promotes: Vec<oneshot::Sender<Result<(), Refusal>>>,
    demotes: Vec<oneshot::Sender<()>>,
    /// What the last repair gave up.
    not_repaired: u64,
    /// Of this turn, what is handled together.
    pending: VecDeque<Event>,
    metadata_writes: u64,
    /// What the core has asked of the disk in this turn.
    asked: Vec<Effect>,
    /// A connection was given something in this turn.
    posted: bool,
    /// Requests in the disk.
    flying: usize,
    rests: Vec<oneshot::Sender<bool>>,
    resizes: Vec<oneshot::Sender<Result<u64, NotResized>>>,
    removes: Vec<oneshot::Sender<Result<(), NotRemoved>>>,
    stops: Vec<oneshot::Sender<()>>,
}

impl Actor {
    pub(super) fn new(
        core: Node,
        clock: Clock,
        disk: Disk,
        net: Net,
        gate: Arc<Gate>,
        config: ResourceConfig,
        tells: Tells,
    ) -> Actor {
        let peer = |address| Peer {
            address,
            dialer: None,
            said: None,
            preview: None,
            synchronised: None,
            measured: Peering::default(),
        };
        let on_no_quorum = config.quorum.as_ref().map_or(OnNoQuorum::SuspendIo, |q| q.on_loss);
        let witness = config.quorum.and_then(|q| q.witness);
        Actor {
            core,
            clock,
            disk,
            net: Some(net),
            gate,
            peers: config.peers.into_iter().map(|(n, a)| (n, peer(a))).collect(),
            witness: witness.map(|address| Witness { address, dialer: None }),
            tells,
            on_no_quorum,
            lines: BTreeMap::new(),
            front: Front::default(),
            promotes: Vec::new(),
            demotes: Vec::new(),
            not_repaired: 0,
            pending: VecDeque::new(),
            metadata_writes: 0,
            asked: Vec::new(),
            posted: false,
            flying: 0,
            rests: Vec::new(),
            resizes: Vec::new(),
            removes: Vec::new(),
            stops: Vec::new(),
        }
    }

    /// Keeps a connection to every peer that it is for us to dial.
    pub(super) fn dial_all(&mut self) {
        let (me, Some(net)) = (self.gate.own.node, &self.net) else { return };
        let alone = self.gate.alone.lock().clone();
        for (node, peer) in self.peers.iter_mut().filter(|(n, _)| **n > me && !alone.contains(n)) {
            let target = || DialTarget::new(peer.address.address, peer.address.subject.clone());
            peer.dialer.get_or_insert_with(|| net.dial(target()));
            tracing::debug!("dials {node}");
        }
        if let Some(witness) = &mut self.witness {
            let at = &witness.address.at;
            witness.dialer.get_or_insert_with(|| net.dial(DialTarget::new(at.address, at.subject.clone())));
        }
    }

    /// Runs until it is stopped.
    pub(super) async fn run(mut self, mut inputs: mpsc::UnboundedReceiver<Input>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.stops.is_empty() || (self.flying > 0 && !self.tells.hung.load(Ordering::Relaxed)) {
            let backlog = self.lines.values().any(|l| !l.backlog.is_empty());
            let next = tokio::select! {
                input = inputs.recv() => match input {
                    Some(input) => Next::Input(input),
                    None => break,
                },
                _ = ticks.tick() => Next::Tick,
                () = tokio::time::sleep(AGAIN), if backlog => Next::Again,
            };
            match next {
                Next::Input(input) => self.take(input),
                Next::Tick => self.tick(&mut inputs),
                Next::Again => {}
            }
            for _ in 0..BATCH {
                let Ok(input) = inputs.try_recv() else { break };
                self.take(input);
            }
            self.handle_pending();
            self.send_backlog();
            self.handle_pending();
            if std::mem::take(&mut self.posted) {
                // The connections' tasks are on this thread, and come first.
                after_the_woken().await;
            }
            self.begin_asked();
        }
        self.end(inputs).await;
    }

    fn tick(&mut self, inputs: &mut mpsc::UnboundedReceiver<Input>) {
        // What has come already counts: a peer is not dead because this node was busy.
        for _ in 0..inputs.len() {
            let Ok(input) = inputs.try_recv() else { break };
            self.take(input);
        }
        let load = self.front.load();
        self.handle(Event::Load(load));
        self.handle(Event::Tick);
        self.show();
    }

    async fn end(mut self, mut inputs: mpsc::UnboundedReceiver<Input>) {
        self.front.fail_all();
        inputs.close();
        while let Ok(input) = inputs.try_recv() {
            match input {
                Input::Io(_, io) => io.fail(IoErrorKind::ShuttingDown),
                Input::Stop { done } => self.stops.push(done),
                _ => {}
            }
        }
        self.peers.clear();
        self.witness = None;
        self.lines.clear();
        if let Some(net) = self.net.take() {
            net.shutdown().await;
        }
        self.stops.into_iter().for_each(|done| answer(done, ()));
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Io(_, io) if !self.stops.is_empty() => io.fail(IoErrorKind::ShuttingDown),
            Input::Io(volume, io) => {
                let (full, mut asks) = (self.is_full(), Vec::new());
                self.front.at(boottime_us());
                self.front.begin(volume, io, full, &mut asks);
                self.pending.extend(asks.into_iter().map(|(req, ask)| Event::Submit(req, ask)));
            }
            Input::Done(io, result) => {
                self.flying -= 1;
                self.pending.push_back(Event::Done(io, result));
            }
            Input::Digested(io, digests) => {
                self.flying -= 1;
                self.handle(Event::Digested(io, digests));
            }
            Input::Compared(io, found) => {
                self.flying -= 1;
                self.handle(Event::Compared(io, found));
            }
            Input::Measured(devices) => self.handle(Event::Measured(devices)),
            Input::Opened(node, conn) => self.opened(node, conn),
            Input::Came(conn, frame) => self.came(conn, frame),
            Input::Closed(conn, why) => self.closed(conn, &why),
            Input::Stop { done } => self.stops.push(done),
            other => self.command(other),
        }
    }

    fn command(&mut self, input: Input) {
        match input {
            Input::Promote { done, .. } if self.core.is_primary() => answer(done, Ok(())),
            Input::Promote { force, done } => {
                self.promotes.push(done);
                self.handle(Event::Promote { force });
            }
            Input::Demote { done } if !self.core.is_primary() => answer(done, ()),
            Input::Demote { done } => {
                self.demotes.push(done);
                self.handle(Event::Demote);
            }
            Input::Connect { discard, tentative, done } => {
                self.peers.values_mut().for_each(|p| p.preview = None);
                self.handle(Event::Tentative(tentative));
                if discard {
                    self.handle(Event::DiscardMyData);
                }
                self.gate.alone.lock().clear();
                self.dial_all();
                answer(done, ());
            }
            Input::Disconnect { done } => {
                let all: Vec<NodeId> = self.peers.keys().copied().collect();
                all.into_iter().for_each(|n| self.stand_alone(n, "asked to disconnect"));
                answer(done, ());
            }
            Input::Verify { done } => {
                let possible = !self.core.verifiable().is_empty();
                self.handle(Event::Verify);
                answer(done, possible);
            }
            Input::Repair { from, done } => {
                let possible = self.core.may_repair(from);
                self.not_repaired = 0;
                self.handle(Event::Repair(from));
                answer(done, possible);
            }
            Input::OnNoQuorum { policy, done } => {
                self.on_no_quorum = policy;
                self.handle(Event::OnNoQuorum(policy));
                answer(done, ());
            }
            Input::Resize { volume, size, clean, done } => match self.gate.too_old_to_grow(volume) {
                Some(node) => answer(done, Err(NotResized::TooOld(node))),
                None => {
                    self.resizes.push(done);
                    self.handle(Event::Resize { volume, size, clean });
                }
            },
            Input::TakeAway { volume, force, done } => match self.gate.too_old_to_leave() {
                Some(node) => answer(done, Err(NotRemoved::TooOld(node))),
                None => {
                    self.removes.push(done);
                    self.handle(Event::TakeAway { volume, force });
                }
            },
            Input::DiskPolicy { policy, done } => {
                self.handle(Event::DiskPolicy(policy));
                answer(done, ());
            }
            Input::Status { done } => answer(done, self.status()),
            Input::Metrics { done } => answer(done, Box::new(self.metrics())),
            Input::Rest { done } => {
                self.rests.push(done);
                self.handle(Event::Rest);
            }
            _ => {}
        }
    }

    /// No connection with this peer any more until somebody asks for it. What was queued for it still goes out.
    fn stand_alone(&mut self, node: NodeId, why: &str) {
        self.gate.alone.lock().insert(node);
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.dialer = None;
        }
        self.lines.values().filter(|l| l.node == node).for_each(|l| l.conn.close(why));
    }

    fn opened(&mut self, node: NodeId, conn: Arc<Conn>) {
        if self.gate.alone.lock().contains(&node) || !self.stops.is_empty() {
            return conn.close("stands alone");
        }
        let id = conn.id();
        let line = Line { node, conn, sent: 0, came: 0, backlog: VecDeque::new(), bytes: 0 };
        let old: Vec<u64> = self.lines.iter().filter(|(_, l)| l.node == node).map(|(id, _)| *id).collect();
        for old in old {
            if let Some(line) = self.lines.remove(&old) {
                line.conn.close("another connection took its place");
            }
        }
        self.lines.insert(id, line);
        self.handle(Event::Connected(node, ConnId(id)));
    }

    fn came(&mut self, id: u64, frame: net::Message) {
        let sizes = *self.disk.sizes();
        let Some(line) = self.lines.get_mut(&id) else { return };
        line.came += 1;
        if let Some(peer) = self.peers.get_mut(&line.node) {
            peer.measured.totals.received_bytes += (frame.body.len() + frame.payload.len()) as u64;
        }
        let voter = self.gate.is_witness(line.node);
        match wire::unpack(frame, line.came, &sizes) {
            Ok(message) if voter && !wire::is_a_voters(&message) => {
                tracing::error!("the tie-breaker {} says what only replicas say", line.node);
                line.conn.close("protocol: a tie-breaker has a vote and no data");
                self.closed(id, "it broke the protocol");
            }
            Ok(message) => {
                let node = line.node;
                if let (Message::WriteAck(seq), Some(peer)) = (&message, self.peers.get_mut(&node)) {
                    peer.measured.acknowledged(*seq, boottime_us());
                }
                let event = Event::Received(node, ConnId(id), message);
                if event.is_one_of_many() { self.pending.push_back(event) } else { self.handle(event) }
            }
            Err(e) => {
                tracing::error!("{} broke the protocol: {e}", line.node);
                line.conn.close(&format!("protocol: {e}"));
                self.closed(id, "it broke the protocol");
            }
        }
    }

    fn closed(&mut self, id: u64, why: &str) {
        let Some(line) = self.lines.remove(&id) else { return };
        tracing::info!("the connection to {} is over: {why}", line.node);
        if let Some(peer) = self.peers.get_mut(&line.node) {
            peer.measured.lost();
        }
        self.handle(Event::Lost(line.node, ConnId(id)));
    }

    /// More waits for a peer than is to be held here.
    fn is_full(&self) -> bool {
        self.lines.values().any(|l| l.bytes > MAX_BACKLOG)
    }

    fn submit(&mut self, asks: Vec<(ReqId, Ask)>) {
        self.pending.extend(asks.into_iter().map(|(req, ask)| Event::Submit(req, ask)));
    }

    /// One event and its effects, after what came before it.
    fn handle(&mut self, event: Event) {
        self.handle_pending();
        let mut effects = Vec::new();
        self.core.handle(self.clock.now(), event, &mut effects);
        self.carry_out_all(effects);
        self.handle_pending();
    }

    /// What came in this turn, and its effects; requests that a completion lets in come next.
    fn handle_pending(&mut self) {
        while !self.pending.is_empty() {
            let mut effects = Vec::new();
            self.core.handle_all(self.clock.now(), &mut self.pending, &mut effects);
            self.carry_out_all(effects);
        }
    }

    fn carry_out_all(&mut self, effects: Vec<Effect>) {
        let mut asks = Vec::new();
        effects.into_iter().for_each(|effect| self.carry_out(effect, &mut asks));
        self.submit(asks);
        self.tell_role();
    }

    fn tell_role(&self) {
        let primary = self.core.is_primary();
        self.tells.primary.send_if_modified(|said| std::mem::replace(said, primary) != primary);
    }

    fn carry_out(&mut self, effect: Effect, asks: &mut Vec<(ReqId, Ask)>) {
        match effect {
            Effect::Send(_, ConnId(conn), message) if self.stops.is_empty() => self.send(conn, &message),
            // Nothing is begun any more: as if the power had failed here.
            Effect::Send(..) => {}
            Effect::Close(node, ConnId(conn), again) => self.close(node, conn, again),
            Effect::Read(..)
            | Effect::Write(..)
            | Effect::Flush(..)
            | Effect::Meta(..)
            | Effect::Zero(..)
            | Effect::Digest(..)
            | Effect::Compare(..)
            | Effect::Measure => self.asked.push(effect),
            Effect::Complete(req, result) => {
                let full = self.is_full();
                self.front.at(boottime_us());
                self.front.completed(req, result, full, asks);
            }
            Effect::Told(report) => self.told(report),
        }
    }

    /// Gives the disk what the core has asked of it; once it is stopping, nothing any more, as if the power had failed.
    fn begin_asked(&mut self) {
        // What one turn asks of the disk goes to the kernel together.
        let _batch = block::worker::batch();
        let stopping = !self.stops.is_empty();
        for effect in self.asked.drain(..).filter(|_| !stopping) {
            match effect {
                Effect::Read(io, span) => self.disk.read(io, span),
                Effect::Write(io, span, data, fua) => self.disk.write(io, span, data, fua),
                Effect::Zero(io, span, free) => self.disk.zero(io, span, free),
                Effect::Digest(io, span) => self.disk.look(io, span, None),
                Effect::Compare(io, span, theirs) => self.disk.look(io, span, Some(theirs)),
                Effect::Flush(io) => self.disk.flush(io),
                Effect::Meta(io, write) => {
                    self.metadata_writes += 1;
                    self.disk.metadata(io, write);
                }
                Effect::Measure => {
                    self.disk.measure();
                    continue;
                }
                // Nothing else is asked of the disk.
                _ => continue,
            }
            self.flying += 1;
        }
    }

    fn send(&mut self, conn: u64, message: &Message) {
        let Some(line) = self.lines.get_mut(&conn) else { return };
        self.posted = true;
        line.sent += 1;
        match wire::pack(message, line.sent) {
            Ok(frame) => {
                if let Some(peer) = self.peers.get_mut(&line.node) {
                    peer.measured.totals.sent_bytes += frame.len() as u64;
                    match message {
                        Message::Write { seq, data, .. } => {
                            peer.measured.wrote(*seq, data.len() as u64, boottime_us());
                        }
                        Message::Zero { seq, .. } => peer.measured.wrote(*seq, 0, boottime_us()),
                        _ => {}
                    }
                }
                line.bytes += frame.len();
                line.backlog.push_back(frame);
                line.flush();
            }
            Err(e) => {
                // The peer sees a gap in the numbers, or the end: either way the connection is over.
                tracing::error!("a message cannot be sent: {e}");
                line.conn.close("a message could not be sent");
            }
        }
    }

    fn send_backlog(&mut self) {
        self.lines.values_mut().for_each(Line::flush);
        let (full, mut asks) = (self.is_full(), Vec::new());
        self.front.at(boottime_us());
        self.front.release(full, &mut asks);
        self.submit(asks);
    }

    /// The core ends a connection.
    fn close(&mut self, node: NodeId, conn: u64, again: bool) {
        if !again && !self.gate.is_witness(node) {
            let why = self.peers.get(&node).and_then(|p| p.said.clone());
            self.stand_alone(node, why.as_deref().unwrap_or("the two do not fit"));
        }
        if let Some(line) = self.lines.remove(&conn) {
            line.conn.close("begin anew");
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.measured.lost();
            }
        }
    }

    /// Tells who watches of what has changed.
    fn show(&self) {
        if self.tells.shown.receiver_count() == 0 {
            return;
        }
        let status = self.status();
        self.tells.shown.send_if_modified(|shown| {
            let same = shown.as_ref().is_some_and(|s| s.without_counters() == status.without_counters());
            if !same {
                *shown = Some(Arc::new(status));
            }
            !same
        });
    }

    fn told(&mut self, report: Report) {
        tracing::info!("{}", words::report(&report));
        // Before whoever asked for it is answered.
        self.tell_role();
        match report {
            Report::Promoted(_) => self.promotes.drain(..).for_each(|done| answer(done, Ok(()))),
            Report::NotPromoted(why) => self.promotes.drain(..).for_each(|done| answer(done, Err(why))),
            Report::Demoted | Report::Deposed => self.demotes.drain(..).for_each(|done| answer(done, ())),
            Report::Decided(node, verdict, rules) => {
                if matches!(verdict, Verdict::SplitBrain | Verdict::Unrelated | Verdict::PrimaryWouldLose) {
                    tracing::error!("{node} and this one cannot be put together: {}", words::met(verdict, &rules));
                }
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.measured.totals.split_brains += u64::from(verdict == Verdict::SplitBrain);
                    peer.said = Some(words::met(verdict, &rules));
                }
            }
            Report::AtRest(rests) => self.rests.drain(..).for_each(|done| answer(done, rests)),
            Report::NotRepaired(bytes) => self.not_repaired = bytes,
            Report::DiskHangs => {
                tracing::error!(
                    "the local disk hangs, and is left: it is of use again after a restart, once it has answered"
                );
                self.tells.hung.store(true, Ordering::Relaxed);
            }
            Report::Grown(..) | Report::Resized(..) | Report::NotResized(_) | Report::OtherSize(..) => {
                self.told_of_size(report);
            }
            Report::TakenAway(_) | Report::Removed(_) | Report::NotRemoved(_) | Report::OtherLife(..) => {
                self.told_of_leaving(report);
            }
            Report::PassedOn(span) => tracing::error!("the local disk failed at {}, and is kept", words::range(span)),
            Report::Detached => {
                self.tells.detached.store(true, Ordering::Relaxed);
                self.tells.failed.send_replace(true);
            }
            Report::Preview(node, verdict, rules, sectors) => {
                if let Some(peer) = self.peers.get_mut(&node) {
                    let bytes = sectors.saturating_mul(SECTOR);
                    peer.preview = Some(status::preview(verdict, &rules, bytes));
                    peer.said = Some("the meeting was tentative".to_owned());
                }
            }
            Report::Synchronised(node, moved) => {
                if let Some(peer) = self.peers.get_mut(&node) {
                    let Moved { sent, zeroed, equal } = moved;
                    peer.synchronised = Some(Synchronised { sent, zeroed, equal });
                }
            }
            _ => {}
        }
    }

    fn metrics(&self) -> Metrics {
        let now = boottime_us();
        Metrics {
            status: self.status(),
            requests: self.front.measured().clone(),
            metadata_writes: self.metadata_writes,
            peers: self.peers.iter().map(|(n, p)| (*n, p.measured.metrics(now))).collect(),
        }
    }

    fn status(&self) -> Status {
        let (view, own) = (self.core.view(), &self.gate.own);
        let marked: BTreeMap<NodeId, u64> = view.marked.iter().copied().collect();
        let peer = |(node, peer): (&NodeId, &Peer)| {
            let link = view.peers.iter().find(|p| p.node == *node);
            let verified = view.verified.iter().find(|(n, _)| n == node).map(|(_, v)| status::verified(v));
            let status = self.peer_status(*node, peer, link, marked.get(node).copied().unwrap_or(0));
            PeerStatus { verified, ..status }
        };
        Status {
            name: own.name.clone(),
            node: own.node,
            role: status::role(view.primary),
            disk: status::disk(view.disk),
            protocol: own.protocol.to_string(),
            size_bytes: self.disk.sizes().of(Volume::FIRST) * SECTOR,
            volumes: view.volumes.iter().map(status::volume).collect(),
            generation: format!("{:?}", view.generation),
            waiting: view.busy,
            repair_left_bytes: view.repair_left,
            not_repaired_bytes: self.not_repaired,
            quorum: view.quorum.map_or("off", |q| if q { "yes" } else { "no" }).to_owned(),
            suspended: view.suspended,
            on_no_quorum: view.quorum.map(|_| status::on_no_quorum(self.on_no_quorum).to_owned()),
            granted: view.grant.members.iter().collect(),
            lost_cache: view.lost_cache,
            witness: self.witness.as_ref().map(|w| w.status(view.witness == Some(true))),
            peers: self.peers.iter().map(peer).collect(),
        }
    }

    fn peer_status(&self, node: NodeId, peer: &Peer, link: Option<&PeerView>, out_of_sync_bytes: u64) -> PeerStatus {
        let unknown = || "Unknown".to_owned();
        let connection = match link {
            Some(link) => status::connection(link.connection),
            None if self.gate.alone.lock().contains(&node) => "StandAlone",
            None => "Connecting",
        };
        let reason = match connection {
            "Connecting" => peer.dialer.as_ref().and_then(why_down).or_else(|| self.gate.refused.lock().clone()),
            _ => peer.said.clone(),
        };
        PeerStatus {
            node,
            connection: connection.to_owned(),
            role: link.map_or_else(unknown, |l| status::role(l.primary)),
            disk: link.map_or_else(unknown, |l| status::disk(l.disk)),
            out_of_sync_bytes,
            reason,
            verified: None,
            resync: link.and_then(|l| l.sync).map(status::resync),
            preview: peer.preview.clone(),
            synchronised: peer.synchronised,
        }
    }
}

impl Witness {
    fn status(&self, heard: bool) -> WitnessStatus {
        WitnessStatus {
            node: self.address.node,
            connection: if heard { "Connected" } else { "Connecting" }.to_owned(),
            reason: self.dialer.as_ref().filter(|_| !heard).and_then(why_down),
        }
    }
}

/// Why there is no connection.
fn why_down(dialer: &Dialer) -> Option<String> {
    match &*dialer.state().borrow() {
        LinkState::Down { why, .. } => Some(why.to_string()),
        _ => None,
    }
}

/// Lets the tasks of this thread run that were woken before. (`yield_now` of tokio would ask the kernel for news as well, with a system
/// call, and let in who has some.)
async fn after_the_woken() {
    let mut woken = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut woken, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

/// Whoever asked may have gone.
fn answer<T>(to: oneshot::Sender<T>, what: T) {
    drop(to.send(what).err());
}

impl Line {
    /// Gives the connection what it takes.
    fn flush(&mut self) {
        while let Some(frame) = self.backlog.pop_front() {
            match self.conn.post(frame.frame()) {
                Ok(()) => self.bytes -= frame.len(),
                Err(CallError::Full) => {
                    self.backlog.push_front(frame);
                    return;
                }
                // The end of the connection is told by itself.
                Err(e) => {
                    tracing::debug!("not sent to {}: {e}", self.node);
                    self.bytes -= frame.len();
                }
            }
        }
    }
}
