//! One node of a resource, pure: events in, effects out, no clock, no chance, no I/O.
//!
//! ```text
//!              Connected, Hello, Agree                         Promote: Prepare, Accept
//!   (none) ──────────────► Greeting ──► Equal       Secondary ────────────────► Candidate ──► Primary
//!      ▲                      │    ├──► Source          ▲                                        │
//!      │ Lost, Close          │    ├──► Target          └──── Demote, or another was granted ────┘
//!      └──────────────────────┘    └──► Waiting     a change of role ends every connection: new Hellos
//! ```
//! **Two phases.** A connection: both say *Hello*, both calculate, both say *Agree*; if either changed meanwhile, it begins
//! anew. A reign: *Prepare* to the voters, *Accept* to the voters and everybody who has the stream. Every change of
//! a reign (a peer lost, a peer joined) is an *Accept* with a higher number.
//!
//! **The stream.** A primary numbers its writes and sends them to every peer that is Equal, or Target of it. A peer writes them
//! as they come, overlapping ones and those of different epochs in order; a *barrier* lets it make everything before
//! stable first. *Settled* tells how far the stream is stable, and where; until then everybody remembers it.
//!
//! **Invariants.** (1) Dirty or hot covers every difference of every pair: [`crate::meta`]. (2) An acknowledged write is
//! on every member of the newest grant that any majority may have accepted. (3) Whoever promised a ballot acknowledges
//! nothing of a lower one. (4) A lost peer is waited for until a grant without it is durable on every remaining
//! member and a majority. (5) A node is not source and target at once; a primary is never target, and a target compares nothing that others write. The pumps are level-triggered: after each event each looks at
//! the state and does what can be done.
//!
//! - `app`, `settle`: the primary's requests, barriers, what is stable where. `stream`: the same at a peer.
//! - `reign`: ballots, grants, roles; who is promoted without quorum. `connect`: handshakes.
//! - `resync`, `serve`: the ends of a synchronisation. [`pieces`]: what it compares and carries. [`pace`]: how much at once.
//!   [`progress`]: how far. [`verify`], `repair`: equal replicas are compared, and made equal.
//! - `rest`: nothing is under way, and that is written down; what a node proves by it when it starts.
//! - `disk`, `writes`: the local queue of writes, metadata, failures. `ios`: what the disk was asked for, and since when. `requests`, `spans`: thousands under way, found fast. [`view`]: what can be seen from outside. [`witness`]: the tie-breaker.
//!
//! - `resize`: all become larger together. `leave`: a volume is taken away.
//!
//! **Volumes.** A resource has one or more; all of them are one space of addresses ([`Volume`](crate::ids::Volume)), and so have one stream,
//! one order of epochs and barriers, one log, one generation and one role. Nothing here knows of several disks but what is told apart by
//! size: a flush is of all disks of the node, and one that fails is the failure of all.
//!
//! Refuses: two primaries at once; to shrink; to take the first volume away.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::{Ballot, Generation, Grant, NodeId, NodeSet, Span};
use crate::meta::replica::{Commit, Recovered, Replica};
use crate::meta::superblock::{DiskState, Life};

mod app;
pub mod config;
mod connect;
mod disk;
pub mod event;
mod ios;
mod leave;
pub mod pace;
pub mod pieces;
pub mod progress;
mod reign;
mod repair;
mod requests;
mod resize;
mod rest;
mod resync;
pub mod rules;
mod serve;
mod settle;
mod spans;
mod stream;
#[cfg(test)]
mod tests;
pub mod verify;
pub mod view;
pub mod witness;
mod writes;

use config::{Config, Protocol};
use connect::{Link, State};
use disk::Waiter;
use event::{Ask, ConnId, Content, Effect, Event, IoId, Message, Now, Report, ReqId};
use ios::Ios;
use leave::Leaving;
use pace::Pace;
use reign::{Candidate, Reign, Rival};
use repair::Repairs;
use requests::Requests;
use resize::Growing;
use rules::Rule;
use settle::Settle;
use stream::Stream;
use verify::{Verified, Verify};
use writes::Writes;

/// What a node is.
#[derive(Debug)]
enum Role {
    Secondary,
    Candidate(Candidate),
    Primary(Reign),
}

/// One node.
#[derive(Debug)]
pub struct Node {
    config: Config,
    now: Now,
    fx: Vec<Effect>,
    /// None once the disk is left.
    replica: Option<Replica>,
    disk: DiskState,
    role: Role,
    links: BTreeMap<NodeId, Link>,
    /// Found as a primary that crashed.
    crashed: bool,
    lost_quorum: bool,
    /// What was acknowledged and not flushed may be lost here.
    restarted: bool,
    /// The newest grant that anybody told of.
    told_grant: Grant,
    /// The highest ballot that anybody told of.
    heard_ballot: Ballot,
    /// Others that are being promoted, where there is no quorum.
    rivals: BTreeMap<NodeId, Rival>,
    /// Requests waited or failed for want of a quorum when it was last looked at.
    without_quorum: bool,
    lost_primary: Option<NodeId>,
    numbers: u64,
    ios: Ios,
    writes: Writes,
    commit: Option<(IoId, Commit, Vec<Waiter>)>,
    waiters: Vec<Waiter>,
    /// Every page with bits that are not durable is to be written.
    save_all: bool,
    /// When cleared bits were last written down.
    saved_at: Now,
    pace: Pace,
    /// What the last verification with each peer found.
    verified: BTreeMap<NodeId, Verified>,
    repairs: Repairs,
    queue: VecDeque<(ReqId, Ask)>,
    requests: Requests,
    reads: BTreeMap<ReqId, Span>,
    flushes: Vec<ReqId>,
    settle: Option<Settle>,
    settle_wanted: bool,
    settled_at: Now,
    stream: Stream,
    /// The administrator gives this node's changes up.
    discard: bool,
    /// Meetings only tell what they would come to.
    tentative: bool,
    growing: Growing,
    leaving: Leaving,
    /// The life of the machine and the disk in which it was started.
    life: Life,
    /// It was told to end; it has come to rest.
    resting: bool,
    rested: bool,
    /// When anything was under way last.
    busy_at: Now,
    /// Something was done that lets more be done.
    again: bool,
}

impl Node {
    /// A node that starts with what its disk says; the recovery's write is durable already.
    pub fn new(config: Config, recovered: Recovered, now: Now) -> Node {
        let replica = recovered.replica;
        let disk = replica.superblock().disk();
        Node {
            now,
            fx: Vec::new(),
            disk,
            role: Role::Secondary,
            links: BTreeMap::new(),
            crashed: recovered.found.primary,
            lost_quorum: recovered.found.lost_quorum,
            restarted: !recovered.kept && config.rules.has(Rule::KeptIsProved),
            life: recovered.life,
            resting: false,
            rested: false,
            busy_at: now,
            told_grant: replica.superblock().grant,
            heard_ballot: Ballot::default(),
            rivals: BTreeMap::new(),
            without_quorum: false,
            lost_primary: None,
            numbers: 0,
            ios: Ios::default(),
            writes: Writes::new(config.rules.has(Rule::OverlapsInOrder)),
            commit: None,
            waiters: Vec::new(),
            save_all: false,
            saved_at: now,
            pace: Pace::new(config.resync.room.0, config.resync.room.1),
            verified: BTreeMap::new(),
            repairs: Repairs::default(),
            queue: VecDeque::new(),
            requests: Requests::new(replica.layout().shape.extent),
            reads: BTreeMap::new(),
            flushes: Vec::new(),
            settle: None,
            settle_wanted: false,
            settled_at: now,
            discard: false,
            tentative: false,
            again: false,
            stream: Stream::after(replica.superblock().position),
            growing: Growing::new(replica.sizes()),
            leaving: Leaving::default(),
            replica: Some(replica),
            config,
        }
    }

    /// Takes one event and says what is to be done.
    pub fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        self.take(now, event);
        self.pump();
        out.append(&mut self.fx);
    }

    /// The same for several that came together ([`Event::is_one_of_many`]): what is to be done after all of them.
    pub fn handle_all(&mut self, now: Now, events: &mut VecDeque<Event>, out: &mut Vec<Effect>) {
        while let Some(event) = events.pop_front() {
            debug_assert!(event.is_one_of_many(), "{event:?} is to be handled alone");
            self.take(now, event);
        }
        self.pump();
        out.append(&mut self.fx);
    }

    fn take(&mut self, now: Now, event: Event) {
        self.now = self.now.max(now);
        match event {
            Event::Connected(node, conn) => self.connected(node, conn),
            Event::Lost(node, conn) => {
                if self.links.get(&node).is_some_and(|l| l.conn == conn) {
                    self.link_down(node);
                }
            }
            Event::Received(node, conn, message) => {
                if let Some(link) = self.links.get_mut(&node).filter(|l| l.conn == conn) {
                    link.heard = self.now;
                    self.received(node, message);
                }
            }
            Event::Done(io, result) => self.done(io, result),
            Event::Digested(io, digests) => self.digested(io, digests),
            Event::Compared(io, found) => self.compared(io, found),
            Event::Load(load) => {
                let serves =
                    |l: &Link| matches!(l.state, State::Source(_)) || matches!(l.verify, Some(Verify::Server(_)));
                let serves = self.links.values().any(serves);
                self.pace.step(&load, serves);
            }
            Event::Submit(req, ask) => {
                self.pace.asked();
                self.submit(req, ask);
            }
            Event::Promote { force } => self.promote(force),
            Event::Demote => self.demote(),
            Event::Rest => self.rest(),
            Event::DiscardMyData => self.discard = true,
            // It would speak of what is not there at its end.
            Event::Verify if self.leaving.is_busy() => {}
            Event::Verify => self.verify(),
            Event::Repair(from) => self.repair(from),
            Event::Tentative(tentative) => self.tentative = tentative,
            Event::OnNoQuorum(policy) => self.config.on_no_quorum = policy,
            Event::DiskPolicy(policy) => self.config.disk = policy,
            Event::Resize { volume, size, clean } => self.resize(volume, size, clean),
            Event::TakeAway { volume, force } => self.take_away(volume, force),
            Event::Measured(devices) => self.measured(devices),
            Event::Tick => self.tick(),
        }
    }

    fn pump(&mut self) {
        for round in 0.. {
            assert!(
                round < 1000,
                "the pumps do not come to rest: {:?}",
                self.fx.iter().rev().take(6).collect::<Vec<_>>()
            );
            let before = self.fx.len();
            self.again = false;
            self.pump_once();
            if self.fx.len() == before && !self.again {
                break;
            }
        }
        self.check();
    }

    fn pump_once(&mut self) {
        self.pump_quorum();
        self.pump_ahead();
        self.pump_rivals();
        self.pump_reign();
        self.pump_app();
        self.pump_barriers();
        self.pump_pulls();
        self.pump_serves();
        self.pump_checks();
        self.pump_asked();
        self.pump_repairs();
        self.pump_writes();
        self.pump_settle();
        self.pump_resize();
        self.pump_leave();
        self.pump_going();
        self.pump_growth();
        self.pump_meetings();
        self.pump_meta();
        self.pump_rest();
        self.pump_completions();
    }

    /// What must hold after every event; looked at in programs with debug assertions, since it takes longer than most events.
    fn check(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        let primary = matches!(self.role, Role::Primary(_));
        let targets = self.links.values().filter(|l| matches!(l.state, State::Target(_))).count();
        let sources = self.links.values().filter(|l| matches!(l.state, State::Source(_))).count();
        debug_assert!(targets <= 1 && (targets == 0 || sources == 0), "source and target at once");
        debug_assert!(!primary || targets == 0, "a primary is target");
        let at_rest = !self.has(Rule::CompareAtRest) || self.compares_at_rest();
        debug_assert!(at_rest, "a target compares what others than its source are writing");
        if let Some(replica) = &self.replica {
            let cold = |w: &writes::LocalWrite| w.started && !replica.is_hot(w.span);
            let judged = self.has(Rule::HotBeforeData) && self.has(Rule::StableBeforeRest);
            debug_assert!(!judged || !self.writes.iter().any(cold), "a write in a cold extent");
        }
    }

    fn received(&mut self, node: NodeId, message: Message) {
        match message {
            Message::Ping => self.send(node, Message::Pong),
            Message::Pong => {}
            Message::Hello(hello) => self.hello(node, *hello),
            Message::Agree(verdict, mine, theirs) => self.agree(node, verdict, mine, theirs),
            Message::Prepare(ballot) => self.prepare(node, ballot),
            Message::Promise(ballot, grant, restarted) => self.promise(node, ballot, grant, restarted),
            Message::Accept { grant, present, began } => self.accept(node, grant, present, began),
            Message::Accepted(ballot, version) => self.accepted(node, ballot, version),
            Message::Reject(asked, promised) => self.rejected(node, asked, promised),
            other => self.data(node, other),
        }
    }

    /// Somebody told of a grant.
    fn heard_of(&mut self, grant: Grant) {
        if grant.number() > self.told_grant.number() {
            self.told_grant = grant;
        }
    }

    fn data(&mut self, node: NodeId, message: Message) {
        match message {
            Message::Write { seq, epoch, span, data, fua, receipt } => {
                self.stream_write(node, seq, epoch, span, Content::Data(data), fua, receipt);
            }
            Message::Zero { seq, epoch, span, free, receipt } => {
                self.stream_write(node, seq, epoch, span, Content::Zeroes { free }, false, receipt);
            }
            Message::RecvAck(seq) => self.write_acked(node, seq, true),
            Message::WriteAck(seq) => self.write_acked(node, seq, false),
            Message::Barrier(seq) => self.stream_barrier(node, seq),
            Message::BarrierAck(seq) => self.barrier_acked(node, seq),
            Message::Settled(seq, holders) => self.stream_settled(node, seq, holders),
            Message::PeerInSync(peer, span) => self.peer_in_sync(node, peer, span),
            Message::NeedSettle => self.settle_wanted = true,
            Message::Farewell => self.farewell(node),
            Message::Detached => self.link_close(node, true),
            Message::RemoteRead(req, span) => self.remote_read(node, req, span),
            Message::RemoteData(req, data) => self.remote_data(req, data),
            Message::Dirty(spans, last) => self.peer_dirty(node, &spans, last),
            Message::Pull(run, digests) => self.pull(node, run, digests),
            Message::Pulled { run, pieces, data, holders, room } => {
                self.pulled(node, run, &pieces, &data, holders, room);
            }
            Message::PullAck(spans) => self.pull_acked(node, &spans),
            Message::PullEnd => self.pull_end(node),
            Message::SyncDone(identity) => self.sync_done(node, *identity),
            Message::SyncDoneAck => self.sync_done_acked(node),
            Message::Verify if self.leaving.is_busy() => self.link_close(node, true),
            Message::Verify => self.verify_asked(node),
            Message::Check(run, digests) => self.check_asked(node, run, digests),
            Message::Checked(run, pieces, room) => self.checked(node, run, &pieces, room),
            Message::Differs(spans, differs, skipped, last) => self.differs(node, spans, differs, skipped, last),
            Message::Sizes(sectors) => self.told_sizes(node, &sectors),
            Message::Lives(lives) => self.told_lives(node, &lives),
            Message::Leave(volume, life) => self.leave_told(node, volume, life),
            Message::Left(volume, life) => self.left(node, volume, life),
            Message::Room => self.room_asked(node, 0),
            Message::RoomOf(volume) => self.room_asked(node, volume),
            Message::HasRoom(end) => self.has_room_for(node, end),
            Message::Resize(end, clean) => self.resize_told(node, end, clean),
            Message::Resized(end) => self.resized(node, end),
            _ => {}
        }
    }

    fn send(&mut self, node: NodeId, message: Message) {
        if let Some(link) = self.links.get_mut(&node) {
            link.said = self.now;
            self.fx.push(Effect::Send(node, link.conn, message));
        }
    }

    fn conn(&self, node: NodeId) -> Option<ConnId> {
        self.links.get(&node).map(|l| l.conn)
    }

    fn tell(&mut self, report: Report) {
        self.fx.push(Effect::Told(report));
    }

    fn has(&self, rule: Rule) -> bool {
        self.config.rules.has(rule)
    }

    fn me(&self) -> NodeId {
        self.config.me
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// A generation that nobody has drawn before.
    fn mint(&mut self) -> Generation {
        let mut z = self.config.entropy ^ self.number().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Generation((z ^ (z >> 31)) | 8)
    }

    /// The protocol to a peer. A primary that has left its disk has C: what it acknowledged otherwise would be nowhere.
    fn protocol(&self, peer: NodeId) -> Protocol {
        if self.replica.is_none() { Protocol::C } else { self.config.protocol(peer) }
    }

    /// Peers with disks.
    fn peers(&self) -> NodeSet {
        self.config.disks.without(self.me())
    }

    /// Links in a state.
    fn linked(&self, state: impl Fn(&State) -> bool) -> NodeSet {
        self.links.iter().filter(|(_, l)| state(&l.state)).map(|(n, _)| *n).collect()
    }

    /// Sets bits. What was known to be in sync there is so no more.
    fn mark(&mut self, peers: NodeSet, span: Span) {
        if let Some(replica) = &mut self.replica {
            replica.mark(peers, span);
        }
        self.not_in_sync(peers, span);
    }

    /// The bits towards a peer.
    fn dirty(&self, peer: NodeId) -> u64 {
        self.replica.as_ref().and_then(|r| r.bitmap(peer)).map_or(0, |m| m.set_bits())
    }

    /// The sectors that they stand for.
    fn dirty_sectors(&self, peer: NodeId) -> u64 {
        self.replica.as_ref().and_then(|r| r.bitmap(peer)).map_or(0, |m| m.set_sectors())
    }

    /// Time has passed: pings, dead connections, slow peers, candidates without a majority.
    fn tick(&mut self) {
        let (now, timing) = (self.now.0, self.config.timing);
        let late = |l: &Link| now.saturating_sub(l.heard.0) > timing.dead;
        let dead: Vec<NodeId> = self.links.iter().filter(|(_, l)| late(l)).map(|(n, _)| *n).collect();
        for node in dead {
            self.link_close(node, true);
        }
        let quiet = |l: &Link| now.saturating_sub(l.said.0) >= timing.ping;
        let quiet: Vec<NodeId> = self.links.iter().filter(|(_, l)| quiet(l)).map(|(n, _)| *n).collect();
        for node in quiet {
            self.send(node, Message::Ping);
        }
        if now.saturating_sub(self.settled_at.0) >= timing.settle && !self.requests.is_empty() {
            self.settle_wanted = true;
        }
        self.look_at_disk();
        self.resize_takes_long();
        self.leave_takes_long();
        self.look_at_progress(self.now);
        self.waited_long();
        self.slow_peers();
        self.rivals_over();
        self.vote_timeout();
    }
}

/// What can be seen from outside.
impl Node {
    /// Whether it is primary.
    pub fn is_primary(&self) -> bool {
        matches!(self.role, Role::Primary(_))
    }

    /// The state of its disk.
    pub fn disk(&self) -> DiskState {
        self.disk
    }

    /// Its metadata.
    pub fn replica(&self) -> Option<&Replica> {
        self.replica.as_ref()
    }

    /// Peers with which nothing is to be done: equal, or followed.
    pub fn established(&self) -> NodeSet {
        self.linked(|s| matches!(s, State::Equal))
    }

    /// Peers that a synchronisation goes to or comes from.
    pub fn synchronising(&self) -> NodeSet {
        self.linked(|s| matches!(s, State::Source(_) | State::Target(_)))
    }

    /// Requests that wait or are under way.
    pub fn busy(&self) -> usize {
        self.queue.len() + self.requests.unanswered() + self.reads.len()
    }

    /// Whom its last grant names, and peers at A and B that share its generation; itself too.
    pub fn present(&self) -> NodeSet {
        self.reign().map_or(NodeSet::EMPTY, |r| r.granted)
    }
}
