//! The world: hosts, network, applications, faults, and the order in which things happen.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use super::disk::{Disk, MOST, Snapshot, VALUE, dense};
use super::oracle::{Oracle, Violation};
use super::rng::Rng;
use crate::core::Node;
use crate::core::config::{Config, DiskPolicy, Limits, OnIoError, OnNoQuorum, OnSlowPeer, Protocol, Timing, Unsettled};
use crate::core::event::{Ask, ConnId, DiskError, Effect, Event, IoId, Message, Now, Report, ReqId};
use crate::core::pace::Load;
use crate::core::pieces::{Digest, Kind, UNIT, compare, digests, spread};
use crate::core::rules::{Rule, Rules};
use crate::core::witness::{Vote, Witness, WitnessEffect, WitnessEvent};
use crate::ids::{Ballot, Generation, Grant, NodeId, NodeSet, SECTOR, Sizes, Span, Volume};
use crate::meta::MetaWrite;
use crate::meta::further::Further;
use crate::meta::layout::{Devices, Layout, Shape};
use crate::meta::replica::Replica;
use crate::meta::superblock::{DiskState, Life, Superblock};

mod act;
mod contest;
mod judge;
mod volumes;

/// Blocks of the device, those that it may have in the end, and sectors of a block.
const BLOCKS: u64 = 40;
const MOST_BLOCKS: u64 = 52;
const BLOCK: u64 = 8;
/// Where there are two volumes: blocks of the first, those that it may have in the end, and blocks of the disk of the second as it is and
/// as it may become. The last three of them hold two bitmaps and the label; they can move where as many have come.
const FIRST: [u64; 3] = [24, 30, 36];
const SECOND: [u64; 3] = [19, 26, 33];
/// Milliseconds with faults, and to heal.
const HURT: u64 = 4_000;
const HEAL: u64 = 12_000;
/// Milliseconds from one look at faults to the next.
const LOOK: u64 = 25;
/// A seed has at least so many faults: towards the end connections are reset for as long as any are missing.
pub(super) const FAULTS: u64 = 10;
/// More events than this, and it spins.
const MOST_EVENTS: u64 = 120_000;
/// Values from here on nobody writes: they lie on a new disk.
pub(super) const FOREIGN: u64 = 1 << 40;
/// Requests of an application at once.
const BUSY: usize = 6;

/// How often things go wrong, in 1000 looks of 25 ms.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rates {
    pub(super) crash: u64,
    pub(super) crash_all: u64,
    pub(super) cut: u64,
    pub(super) isolate: u64,
    pub(super) slow: u64,
    pub(super) reset: u64,
    pub(super) disk: u64,
    pub(super) stall: u64,
    pub(super) demote: u64,
    pub(super) witness: u64,
    /// Of votes, in 1000: the disk takes long for them.
    pub(super) slow_votes: u64,
    pub(super) replace: u64,
    /// The process ends, and the machine lives on.
    pub(super) kill: u64,
    /// A node is told to end in order; then its machine is switched off, or not.
    pub(super) rest: u64,
    /// A disk answers nothing for a long time.
    pub(super) hang: u64,
    /// The disk of the second volume alone is replaced by an empty one.
    pub(super) swap: u64,
}

impl Rates {
    /// Everything.
    pub(super) fn mixed() -> Rates {
        Rates {
            crash: 30,
            crash_all: 4,
            cut: 40,
            isolate: 12,
            slow: 40,
            reset: 60,
            disk: 8,
            stall: 30,
            demote: 20,
            witness: 20,
            slow_votes: 0,
            replace: 0,
            kill: 0,
            rest: 0,
            hang: 0,
            swap: 0,
        }
    }

    /// In a third of the seeds of the mixed faults processes end as well, and in a third disks hang; in a sixth both.
    fn of_seed(self, seed: u64) -> Rates {
        if self.kill + self.rest + self.hang + self.swap > 0 || self.demote != Rates::mixed().demote {
            return self;
        }
        let hang = if matches!(seed % 6, 1 | 2) { 15 } else { 0 };
        let swap = if seed % 5 == 3 { 25 } else { 0 };
        let rates = Rates { hang, swap, ..self };
        if seed % 3 == 2 { Rates { kill: 20, rest: 20, ..rates } } else { rates }
    }
}

/// What to run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) rules: Rules,
    pub(super) rates: Rates,
    /// None: drawn from the seed.
    pub(super) quorum: Option<bool>,
    pub(super) protocol: Option<Protocol>,
    /// With quorum A and B are drawn as well.
    pub(super) weak: bool,
    /// The device becomes larger, whatever the seed.
    pub(super) grows: bool,
    /// There are two volumes, whatever the seed.
    pub(super) two: bool,
    /// The second of them is taken away, whatever the seed.
    pub(super) leaves: bool,
    pub(super) loud: bool,
}

/// How it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Good,
    Violated(Violation),
    Panicked(String),
}

/// What a run came to.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) verdict: Verdict,
    pub(super) events: u64,
    pub(super) faults: u64,
    pub(super) reads: u64,
    pub(super) covered: u64,
    pub(super) counts: BTreeMap<String, u64>,
}

/// Runs one.
pub(super) fn run_seed(plan: Plan) -> Outcome {
    let plan = Plan { rates: plan.rates.of_seed(plan.seed), ..plan };
    let mut world = World::new(plan);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let verdict = match (world.oracle.violation.take(), result) {
        (Some(v), _) => Verdict::Violated(v),
        (None, Ok(())) => Verdict::Good,
        (None, Err(panic)) => {
            let text = panic.downcast_ref::<String>().cloned();
            Verdict::Panicked(
                text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default(),
            )
        }
    };
    let Oracle { reads, covered, .. } = world.oracle;
    Outcome { verdict, events: world.events, faults: world.faults, reads, covered, counts: world.counts }
}

/// What is to happen. Whatever belongs to a life of a host carries its number.
#[derive(Clone, Debug)]
enum Happening {
    Deliver(NodeId, NodeId, ConnId, Message),
    Hangup(NodeId, NodeId, ConnId),
    Dial(NodeId, NodeId),
    Io(NodeId, u64, IoId),
    MetaStep(NodeId, u64, IoId, u8),
    Voted(u64, u64),
    Tick,
    App(NodeId),
    /// An administrator asks for a promotion.
    Asks(NodeId),
    Admin,
    Fault,
    Restart(NodeId),
    Turn(NodeId, u64),
    Rest(NodeId, u64),
    Ends(NodeId, u64, Option<bool>),
    Mend(NodeId, NodeId),
    Quicken(NodeId),
    /// A disk answers again.
    Answers(NodeId),
    /// The last of what a former process asked of it lands.
    Lands(NodeId, u64),
    /// The disk of a volume becomes longer; a node looks how long they are.
    Longer(NodeId, Volume, u64),
    Measured(NodeId, u64),
}

/// A request of a disk that is under way.
#[derive(Debug)]
enum Work {
    Read(Span),
    Digest(Span),
    Compare(Span, Vec<Digest>),
    Write(Span, Bytes, bool),
    Flush(Snapshot),
    Meta(MetaWrite, Snapshot),
}

#[derive(Debug)]
struct Job {
    ask: Ask,
    value: u64,
    start: u64,
}

struct Host {
    disk: Disk,
    node: Option<Node>,
    life: u64,
    /// Another one when power has failed.
    machine: Life,
    work: BTreeMap<IoId, Work>,
    jobs: BTreeMap<ReqId, Job>,
    ballot: Ballot,
    /// The next request of the disk fails.
    breaks: bool,
    /// Milliseconds that each request takes longer.
    slow: u64,
    /// Nothing is answered; what would have ended since.
    hung: bool,
    /// Sectors of its disks.
    sectors: Sizes,
    held: Vec<Happening>,
    /// What a process that was killed meanwhile has left in the disk: it lands later.
    stuck: Vec<u64>,
    /// Peers that it does not dial any more.
    alone: NodeSet,
    /// Requests that ended since the last tick.
    load: Load,
    /// Requests, and what ended on the disk, that its process has not taken yet.
    pending: VecDeque<Event>,
    /// A volume got an empty disk, and was not a target since.
    swapped: bool,
}

struct World {
    plan: Plan,
    now: u64,
    events: u64,
    order: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    rng: Rng,
    hosts: BTreeMap<NodeId, Host>,
    witness: Option<Witness>,
    vote: Vote,
    witness_life: u64,
    /// Votes on their way to the tie-breaker's disk, and the last that got there.
    votes: BTreeMap<(u64, u64), Vote>,
    voted: u64,
    tie_breaker: Option<NodeId>,
    disks: NodeSet,
    quorum: bool,
    protocol: Protocol,
    shape: Shape,
    /// Connections: by their two ends, ascending.
    conns: BTreeMap<(NodeId, NodeId), (ConnId, NodeSet)>,
    cut: BTreeMap<(NodeId, NodeId), bool>,
    delay: BTreeMap<(NodeId, NodeId), u64>,
    last: BTreeMap<(NodeId, NodeId, ConnId), u64>,
    /// Connections that a cut took something from: nothing more comes through, and they break when the link is mended.
    torn: BTreeSet<ConnId>,
    conn: u64,
    req: u64,
    oracle: Oracle,
    contests: contest::Contests,
    faults: u64,
    counts: BTreeMap<String, u64>,
    on_no_quorum: OnNoQuorum,
    on_slow_peer: OnSlowPeer,
    limits: Limits,
}

/// The number of a request of a disk, also beside those of another process.
fn flight(life: u64, io: IoId) -> u64 {
    life << 40 | io.0
}

fn id(n: u8) -> NodeId {
    NodeId::new(n).expect("a node")
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}

impl World {
    fn new(plan: Plan) -> World {
        let mut rng = Rng::new(plan.seed);
        let many = if rng.permille(600) { 3 } else { 2 };
        let disks: NodeSet = (1..=many).map(id).collect();
        let quorum = plan.quorum.unwrap_or_else(|| rng.permille(650));
        let protocol = plan
            .protocol
            .unwrap_or_else(|| rng.pick(&[Protocol::C, Protocol::C, Protocol::C, Protocol::B, Protocol::A]));
        let protocol = if quorum && !plan.weak { Protocol::C } else { protocol };
        let tie_breaker = (quorum && (many == 2 || rng.permille(400))).then(|| id(9));
        let bit = rng.pick(&[BLOCK, BLOCK, 2 * BLOCK]);
        let shape = Shape {
            data: if has_two(&plan) { FIRST[0] * BLOCK } else { BLOCKS * BLOCK },
            bit,
            extent: 4 * BLOCK,
            peers: 2,
            log_slots: rng.pick(&[4, 6, 10]),
            log_pages: 4,
        };
        let mut oracle = Oracle::new(disks, quorum);
        oracle.full = protocol == Protocol::C;
        let on_no_quorum = rng.pick(&[OnNoQuorum::SuspendIo, OnNoQuorum::SuspendIo, OnNoQuorum::IoError]);
        let on_slow_peer = rng.pick(&[OnSlowPeer::Block, OnSlowPeer::Disconnect, OnSlowPeer::GoAhead]);
        let limits = Limits {
            run_sectors: bit * rng.pick(&[1, 3, 8]),
            room: (2 * BLOCK * SECTOR, 8 * BLOCK * SECTOR),
            flush_bytes: 12 * BLOCK * SECTOR,
            sector_bytes: VALUE,
        };
        let mut world = World {
            plan,
            now: 0,
            events: 0,
            order: 0,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            rng,
            hosts: BTreeMap::new(),
            witness: None,
            vote: Vote { promised: Ballot::default(), grant: first_grant(disks) },
            witness_life: 0,
            votes: BTreeMap::new(),
            voted: 0,
            tie_breaker,
            disks,
            quorum,
            protocol,
            shape,
            conns: BTreeMap::new(),
            cut: BTreeMap::new(),
            delay: BTreeMap::new(),
            last: BTreeMap::new(),
            torn: BTreeSet::new(),
            conn: 0,
            req: 0,
            oracle,
            contests: contest::Contests::default(),
            faults: 0,
            counts: BTreeMap::new(),
            on_no_quorum,
            on_slow_peer,
            limits,
        };
        world.vote.grant = first_grant(world.fresh().map_or(disks, |f| disks.without(f)));
        for node in disks.iter() {
            let host = world.installed(node);
            world.hosts.insert(node, host);
        }
        world
    }

    /// In some seeds one node's replica is new, and its disk holds what nobody wrote. Not where disks are replaced: of three
    /// replicas two new ones leave no majority that could grant anything.
    fn fresh(&self) -> Option<NodeId> {
        (self.plan.seed % 9 == 7 && self.plan.rates.replace == 0).then(|| id(2))
    }

    /// A replica that was just made.
    fn made(&self, node: NodeId, device: u64) -> Superblock {
        let peers: Vec<NodeId> = self.disks.without(node).iter().collect();
        let mut sb = Superblock::new(*b"resource-of-test", device, node, Layout::external(self.shape), &peers);
        if self.second_sectors() > 0 {
            let further = Further::new(second(), device, self.second_sectors() * SECTOR, self.shape.peers, None);
            sb.set_further(further.expect("a second volume"));
        }
        sb
    }

    /// In a third of the seeds there are two volumes.
    fn has_two(&self) -> bool {
        has_two(&self.plan)
    }

    /// The second one is added while the nodes run.
    fn adds_second(&self) -> bool {
        self.has_two() && self.grows() && self.plan.seed.is_multiple_of(2)
    }

    /// It is to be added, and is not everywhere yet.
    fn waits_for_second(&self) -> bool {
        let lacks = |h: &Host| h.node.as_ref().is_none_or(|n| n.sizes().of(second()) == 0);
        self.adds_second() && self.hosts.values().any(lacks)
    }

    /// Sectors of the second volume's disk at the start.
    fn second_sectors(&self) -> u64 {
        if self.has_two() && !self.adds_second() { SECOND[0] * BLOCK } else { 0 }
    }

    /// Everything that any disk may hold.
    fn everything(&self) -> Vec<Span> {
        let volumes = if self.has_two() { vec![Volume::FIRST, second()] } else { vec![Volume::FIRST] };
        volumes.into_iter().map(|v| v.span(MOST)).collect()
    }

    /// A disk with a replica.
    fn formatted(&self, sb: Superblock) -> Disk {
        let mut disk = Disk::new(self.everything().len(), sb.layout.end());
        // What is there before the disk becomes longer is nobody's; where it is taken for clean it is the same everywhere.
        let (whose, sizes) = (if self.is_clean() { 0 } else { sb.device * 1000 }, sb.sizes());
        for all in self.everything() {
            let used = sizes.within(all).len;
            fill(&mut disk, Span::new(all.at + used, all.len - used), whose);
        }
        let (_, write) = Replica::format(sb);
        disk.format(&write.first);
        disk.format(&write.then);
        disk
    }

    /// A disk with a replica of the first generation, or a new one.
    fn installed(&self, node: NodeId) -> Host {
        let mut sb = self.made(node, u64::from(node.get()));
        let fresh = self.fresh();
        if fresh != Some(node) {
            sb.current = Generation(0x100);
            (sb.flags.consistent, sb.flags.up_to_date) = (true, true);
            sb.grant = first_grant(fresh.map_or(self.disks, |f| self.disks.without(f)));
            sb.peers.iter_mut().filter(|p| fresh != Some(p.node)).for_each(|p| p.connected = true);
        }
        let sizes = sb.sizes();
        let mut disk = self.formatted(sb);
        if fresh == Some(node) {
            sizes.iter().for_each(|(volume, sectors)| fill(&mut disk, volume.span(sectors), 0));
        }
        Host {
            disk,
            node: None,
            life: 0,
            machine: Life([1; 16]),
            work: BTreeMap::new(),
            jobs: BTreeMap::new(),
            ballot: Ballot::default(),
            breaks: false,
            slow: 0,
            hung: false,
            sectors: Sizes::one(self.shape.data).with(second(), self.second_sectors()),
            held: Vec::new(),
            stuck: Vec::new(),
            alone: NodeSet::EMPTY,
            load: Load::default(),
            pending: VecDeque::new(),
            swapped: false,
        }
    }

    fn run(&mut self) {
        let all: Vec<NodeId> = self.hosts.keys().copied().collect();
        for node in all {
            self.start(node);
            self.later(5, Happening::App(node));
        }
        self.start_witness();
        for h in [Happening::Tick, Happening::Admin, Happening::Fault] {
            self.later(10, h);
        }
        if self.has_two() {
            self.count("volumes: two".to_owned());
        }
        self.disks_become_longer();
        let mut looked = 0;
        while self.oracle.violation.is_none() && !self.is_over() {
            let Some(Reverse((at, order))) = self.queue.pop() else { break };
            let Some(happening) = self.happenings.remove(&order) else { continue };
            self.now = at;
            self.events += 1;
            if self.plan.loud && !matches!(happening, Happening::Tick | Happening::Dial(..)) {
                println!("{at:>6} {happening:?}");
            }
            self.happen(happening);
            if self.events - looked > 150 {
                looked = self.events;
                self.look_at_coverage();
                self.look_at_equals();
            }
            if self.events > MOST_EVENTS {
                self.oracle.object("I7 Heals", format!("more than {MOST_EVENTS} events: it spins"));
            }
        }
        self.end();
    }

    /// In a seventh of the seeds the device becomes larger, in two of those with two volumes; not where disks are replaced by new ones.
    fn grows(&self) -> bool {
        let some = self.plan.seed % 7 == 5 || (self.has_two() && self.plan.seed % 7 == 2);
        (self.plan.grows || some) && self.plan.rates.replace == 0
    }

    /// What is new is taken for the same everywhere, and is.
    fn is_clean(&self) -> bool {
        self.plan.seed % 14 == 5 && !self.plan.grows
    }

    /// Once or twice, each at its own time, to a length of its own.
    fn disks_become_longer(&mut self) {
        if !self.grows() {
            return;
        }
        let mut lengths = vec![(Volume::FIRST, (BLOCKS + MOST_BLOCKS) / 2), (Volume::FIRST, MOST_BLOCKS)];
        if self.has_two() {
            lengths = FIRST[1..].iter().map(|most| (Volume::FIRST, *most)).collect();
            lengths.extend(SECOND[usize::from(!self.adds_second())..].iter().map(|most| (second(), *most)));
        }
        for node in self.disks.iter() {
            for (volume, most) in &lengths {
                let (at, less) = (200 + self.rng.below(2_600), self.rng.below(3));
                self.later(at, Happening::Longer(node, *volume, (most - less) * BLOCK));
            }
        }
    }

    fn hurts(&self) -> bool {
        self.now < HURT
    }

    fn is_over(&self) -> bool {
        self.now > HURT + 400 && (self.is_healed() && self.is_quiet() || self.now > HURT + HEAL)
    }

    fn later(&mut self, delay: u64, happening: Happening) {
        self.order += 1;
        self.queue.push(Reverse((self.now + delay, self.order)));
        self.happenings.insert(self.order, happening);
    }

    fn count(&mut self, name: String) {
        *self.counts.entry(name).or_default() += 1;
    }

    fn config(&mut self, me: NodeId) -> Config {
        let protocols = self.disks.without(me).iter().map(|n| (n, self.protocol)).collect();
        Config {
            me,
            disks: self.disks,
            tie_breaker: self.tie_breaker,
            quorum: self.quorum,
            protocols,
            on_no_quorum: self.on_no_quorum,
            on_slow_peer: self.on_slow_peer,
            disk: self.disk_policy(),
            policy: Default::default(),
            timing: Timing { ping: 40, dead: 160, slow: 250, settle: 50, vote: 250, rest: 120 },
            unsettled: Unsettled { writes: 12, bytes: u64::MAX / 4 },
            rules: self.plan.rules,
            resync: self.limits,
            entropy: self.rng.next(),
        }
    }

    /// By the seed: in a quarter a disk that hangs is waited for, in a fifth errors are passed on.
    fn disk_policy(&self) -> DiskPolicy {
        let seed = self.plan.seed;
        DiskPolicy {
            timeout: (!(seed / 3).is_multiple_of(4)).then_some(400),
            on_io_error: if seed % 5 == 3 { OnIoError::PassOn } else { OnIoError::Detach },
        }
    }

    /// A host starts: what lies on its disk is recovered. Not while anything of a former process is in the disk.
    fn start(&mut self, node: NodeId) {
        if !self.hosts[&node].stuck.is_empty() && self.plan.rules.has(Rule::AttachAtRest) {
            return self.later(30, Happening::Restart(node));
        }
        let config = self.config(node);
        let now = Now(self.now);
        let Some(host) = self.hosts.get_mut(&node).filter(|h| h.node.is_none()) else { return };
        let len = host.disk.meta_len();
        match Replica::recover(&host.disk, len, host.machine) {
            Ok(recovered) => {
                let cached = host.disk.snapshot();
                host.disk.flush(&cached);
                host.disk.format(&recovered.write.first);
                host.disk.format(&recovered.write.then);
                host.node = Some(Node::new(config, recovered, now));
                host.breaks = false;
                host.alone = NodeSet::EMPTY;
            }
            Err(e) => self.oracle.object("I4 Covered", format!("{node} cannot read its metadata: {e}")),
        }
        self.dial_all(node);
    }

    fn start_witness(&mut self) {
        if let Some(t) = self.tie_breaker.filter(|_| self.witness.is_none()) {
            self.witness = Some(Witness::new(self.vote, 160, self.plan.rules));
            self.dial_all(t);
        }
    }

    fn everybody(&self) -> Vec<NodeId> {
        self.disks.iter().chain(self.tie_breaker).collect()
    }

    fn is_up(&self, node: NodeId) -> bool {
        if self.tie_breaker == Some(node) { self.witness.is_some() } else { self.hosts[&node].node.is_some() }
    }

    fn dial_all(&mut self, node: NodeId) {
        for other in self.everybody().into_iter().filter(|o| *o != node) {
            let wait = 3 + self.rng.below(20);
            self.later(wait, Happening::Dial(node, other));
        }
    }

    /// A connection comes up if both ends want it and can hear one another.
    fn dial(&mut self, a: NodeId, b: NodeId) {
        let key = pair(a, b);
        let open = self.conns.contains_key(&key);
        let alone = [(a, b), (b, a)].iter().any(|(x, y)| self.hosts.get(x).is_some_and(|h| h.alone.has(*y)));
        if open || alone || !self.is_up(a) || !self.is_up(b) {
            return;
        }
        if self.cut.get(&key).copied().unwrap_or(false) {
            return self.later(30, Happening::Dial(a, b));
        }
        self.conn += 1;
        let conn = ConnId(self.conn);
        self.conns.insert(key, (conn, NodeSet::of(a).with(b)));
        for (at, other) in [(a, b), (b, a)] {
            self.tell(at, Event::Connected(other, conn), |n| WitnessEvent::Connected(n, conn), other);
        }
    }

    /// Tells a node or the tie-breaker.
    fn tell(&mut self, at: NodeId, event: Event, as_witness: impl Fn(NodeId) -> WitnessEvent, from: NodeId) {
        if self.tie_breaker == Some(at) {
            self.witness_event(as_witness(from));
        } else {
            self.event(at, event);
        }
    }

    fn witness_event(&mut self, event: WitnessEvent) {
        let Some(t) = self.tie_breaker else { return };
        let Some(witness) = &mut self.witness else { return };
        let mut fx = Vec::new();
        witness.handle(Now(self.now), event, &mut fx);
        for effect in fx {
            match effect {
                WitnessEffect::Send(to, conn, message) => self.transmit(t, to, conn, message),
                WitnessEffect::Close(to, conn) => self.hang_up(t, to, conn, true),
                WitnessEffect::Persist(number, vote) => {
                    let wait = 1 + self.rng.below(20) + self.slow_vote();
                    self.later(wait, Happening::Voted(self.witness_life, number));
                    self.votes.insert((self.witness_life, number), vote);
                }
            }
        }
    }

    /// Milliseconds that the tie-breaker's disk takes longer for a vote.
    fn slow_vote(&mut self) -> u64 {
        let rate = self.plan.rates.slow_votes;
        if rate > 0 && self.chance("slow vote", rate) { 50 + self.rng.below(250) } else { 0 }
    }

    /// Gives a node an event and does what it wants. In a quarter of the seeds processes take several at once, as a busy one does.
    fn event(&mut self, at: NodeId, event: Event) {
        let together = self.plan.seed % 4 == 1 && event.is_one_of_many();
        let Some(host) = self.hosts.get_mut(&at).filter(|h| h.node.is_some()) else { return };
        if together {
            host.pending.push_back(event);
            let life = host.life;
            let wait = self.rng.below(2);
            return self.later(wait, Happening::Turn(at, life));
        }
        self.turn(at);
        let Some(node) = self.hosts.get_mut(&at).and_then(|h| h.node.as_mut()) else { return };
        let mut fx = Vec::new();
        node.handle(Now(self.now), event, &mut fx);
        for effect in fx {
            self.effect(at, effect);
        }
    }

    /// A node takes what waits for it.
    fn turn(&mut self, at: NodeId) {
        let Some(host) = self.hosts.get_mut(&at).filter(|h| !h.pending.is_empty()) else { return };
        let mut pending = std::mem::take(&mut host.pending);
        let Some(node) = host.node.as_mut() else { return };
        let mut fx = Vec::new();
        node.handle_all(Now(self.now), &mut pending, &mut fx);
        for effect in fx {
            self.effect(at, effect);
        }
    }

    fn transmit(&mut self, from: NodeId, to: NodeId, conn: ConnId, message: Message) {
        let key = pair(from, to);
        if self.conns.get(&key).is_none_or(|(c, ends)| *c != conn || !ends.has(from)) {
            return;
        }
        if self.is_cut(key, conn) {
            return self.count("message swallowed".into());
        }
        let slow = self.delay.get(&key).copied().unwrap_or(0);
        let at = self.now + 1 + self.rng.below(4) + slow;
        let last = self.last.entry((from, to, conn)).or_default();
        *last = at.max(*last);
        let wait = *last - self.now;
        self.later(wait, Happening::Deliver(from, to, conn, message));
    }

    /// Whether something on a connection does not come through; then nothing more does.
    fn is_cut(&mut self, key: (NodeId, NodeId), conn: ConnId) -> bool {
        if self.cut.get(&key).copied().unwrap_or(false) {
            self.torn.insert(conn);
        }
        self.torn.contains(&conn)
    }

    /// One end closes; the other hears of it unless the link is cut.
    fn hang_up(&mut self, from: NodeId, to: NodeId, conn: ConnId, again: bool) {
        let key = pair(from, to);
        if !again && let Some(host) = self.hosts.get_mut(&from) {
            host.alone = host.alone.with(to);
        }
        let Some((c, ends)) = self.conns.get_mut(&key).filter(|(c, _)| *c == conn) else { return };
        *ends = ends.without(from);
        let (c, empty) = (*c, ends.is_empty());
        if empty {
            self.conns.remove(&key);
            let wait = 5 + self.rng.below(40);
            return self.later(wait, Happening::Dial(from, to));
        }
        let last = self.last.get(&(from, to, c)).copied().unwrap_or(0);
        let wait = (self.now + 1 + self.rng.below(4)).max(last) - self.now;
        self.later(wait, Happening::Hangup(from, to, c));
    }

    fn end(&mut self) {
        if self.oracle.violation.is_some() {
            return;
        }
        self.look_at_coverage();
        self.look_at_equals();
        if !self.is_healed() {
            if self.plan.loud {
                self.hosts.values().for_each(|h| println!("{:#?}", h.node));
            }
            let what = self.why_not_healed();
            self.oracle.object("I7 Heals", what);
        } else if self.is_quiet() {
            self.count("end: all disks compared".to_owned());
            self.look_at_all();
        }
    }
}

/// The second volume.
fn second() -> Volume {
    Volume::new(1).expect("a volume")
}

fn has_two(plan: &Plan) -> bool {
    plan.two || plan.leaves || (plan.seed / 2) % 3 == 1
}

/// Puts there what nobody wrote.
fn fill(disk: &mut Disk, span: Span, whose: u64) {
    let value = |s: u64| FOREIGN + whose + dense(s) as u64;
    let anything: Vec<u8> = (span.at..span.end()).flat_map(|s| value(s).to_le_bytes()).collect();
    if !anything.is_empty() {
        disk.fly_data(0, span, &anything);
        disk.land(0, true);
    }
}

fn first_grant(disks: NodeSet) -> Grant {
    Grant { ballot: Ballot { round: 1, node: 1 }, version: 0, generation: Generation(0x100), members: disks }
}
