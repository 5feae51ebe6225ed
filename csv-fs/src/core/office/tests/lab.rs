//! A disk, a network and some nodes in virtual time. Requests take a millisecond; a test may hold, lose or cut.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::core::office::*;
use crate::core::rules::Rules;
use crate::core::time::Now;
use crate::proto::PeerAnswer;
use block::shared::{FenceGen, Incarnation, NodeId};

/// A peer that is told as silent has said nothing for so long.
pub(super) const SILENCE: Duration = Duration::from_secs(3);

pub(super) fn node(n: u8) -> NodeId {
    NodeId::new(n).expect("a node id")
}

pub(super) fn client(n: u8, incarnation: u64) -> ClientId {
    ClientId { node: node(n), incarnation: Incarnation(incarnation) }
}

/// One node.
pub(super) struct Host {
    pub(super) office: Office,
    pub(super) up: bool,
    /// Everything it asked for, with the time.
    pub(super) log: Vec<(Now, Effect)>,
    /// Requests to the disk hang, and are kept here.
    pub(super) hang: bool,
    held: Vec<Effect>,
    /// What it reads of lease and slots fails.
    pub(super) reads_fail: bool,
    /// Replies to this many compare-and-writes of the lease are lost after they landed.
    pub(super) lose_lease_replies: u32,
    /// Compare-and-writes of the lease answer `Lost` and stay in the fabric until released.
    pub(super) stick_lease: bool,
    stuck: Vec<Effect>,
    /// The shell never says that metadata has drained.
    pub(super) never_drains: bool,
    /// Process stopped: nothing is delivered.
    pub(super) frozen: bool,
    mail: VecDeque<Event>,
    life: u64,
}

enum Due {
    /// To this life of a node.
    Give(NodeId, u64, Event),
    /// From this life of a node; lost with it.
    Disk(NodeId, u64, Effect),
    Unlock(NodeId),
}

pub(super) struct Lab {
    pub(super) now: Now,
    pub(super) lease: LeaseView,
    pub(super) slots: BTreeMap<NodeId, SlotView>,
    pub(super) hosts: BTreeMap<NodeId, Host>,
    /// Whose LIVE lock is held by whom.
    pub(super) locks: BTreeMap<NodeId, NodeId>,
    /// Pairs that do not reach each other.
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    queue: BTreeMap<(Now, u64), Due>,
    asks: BTreeMap<AskId, (NodeId, Effect)>,
    next: u64,
    /// Steps without time moving; many mean a deadline that is due and not acted on.
    idle: u32,
    pub(super) timing: Timing,
    pub(super) kind: DiskKind,
    pub(super) nexuses: u16,
    pub(super) rules: Rules,
    /// What the next process that starts goes on with.
    pub(super) resumes: Option<Resumes>,
    all: NodeSet,
}

impl Lab {
    pub(super) fn new(nodes: &[u8]) -> Lab {
        Lab {
            now: Now(1000),
            lease: LeaseView::new_volume(),
            slots: nodes.iter().map(|n| (node(*n), SlotView::default())).collect(),
            hosts: BTreeMap::new(),
            locks: BTreeMap::new(),
            cut: BTreeSet::new(),
            queue: BTreeMap::new(),
            asks: BTreeMap::new(),
            next: 0,
            idle: 0,
            timing: Timing::FAST,
            kind: DiskKind::File,
            nexuses: 1,
            rules: Rules::all(),
            resumes: None,
            all: nodes.iter().map(|n| node(*n)).collect(),
        }
    }

    /// Three nodes of which node 3 is coordinator, and everybody hears everybody.
    pub(super) fn three_with_3_in_office() -> Lab {
        Lab::three_at(Timing::FAST)
    }

    /// The same at another timing.
    pub(super) fn three_at(timing: Timing) -> Lab {
        let mut lab = Lab::new(&[1, 2, 3]);
        lab.timing = timing;
        lab.start(3);
        lab.run_until("node 3 takes office", |l| l.office(3).in_office().is_some());
        lab.start(1);
        lab.start(2);
        lab.run_for(timing.renew.as_millis() as u64 * 12);
        assert_eq!(lab.coordinators(), [3]);
        lab
    }

    pub(super) fn start(&mut self, n: u8) {
        self.next += 1;
        let config = Config {
            node: node(n),
            nodes: self.all,
            boot: 77,
            pid: u32::from(n) * 100,
            pid_start: self.next,
            address: format!("127.0.0.{n}:1"),
            nonce_base: self.next << 32,
            timing: self.timing,
            kind: self.kind,
            nexuses: self.nexuses,
            silence: SILENCE,
            resumes: self.resumes,
        };
        let host = Host {
            office: Office::new(config, self.rules),
            up: true,
            log: Vec::new(),
            hang: false,
            reads_fail: false,
            held: Vec::new(),
            lose_lease_replies: 0,
            stick_lease: false,
            stuck: Vec::new(),
            never_drains: false,
            frozen: false,
            mail: VecDeque::new(),
            life: self.next,
        };
        self.hosts.insert(node(n), host);
        self.give(n, Event::Tick);
        for peer in self.up() {
            if peer != node(n) && self.reaches(node(n), peer) {
                self.give(n, Event::PeerHeard { node: peer });
                self.give(peer.get(), Event::PeerHeard { node: node(n) });
            }
        }
    }

    fn up(&self) -> Vec<NodeId> {
        self.hosts.iter().filter(|(_, h)| h.up).map(|(n, _)| *n).collect()
    }

    fn reaches(&self, a: NodeId, b: NodeId) -> bool {
        !self.cut.contains(&(a.min(b), a.max(b)))
    }

    pub(super) fn office(&self, n: u8) -> &Office {
        &self.hosts[&node(n)].office
    }

    pub(super) fn host(&mut self, n: u8) -> &mut Host {
        self.hosts.get_mut(&node(n)).expect("a started node")
    }

    /// Nodes in office.
    pub(super) fn coordinators(&self) -> Vec<u8> {
        self.hosts.iter().filter(|(_, h)| h.up && h.office.in_office().is_some()).map(|(n, _)| n.get()).collect()
    }

    /// SIGKILL; the last write lands `drain` milliseconds later. The others see the connection end.
    pub(super) fn kill(&mut self, n: u8, drain: u64) {
        if !std::mem::take(&mut self.host(n).up) {
            return;
        }
        self.at(self.now + Duration::from_millis(drain), Due::Unlock(node(n)));
        for peer in self.up() {
            if self.reaches(peer, node(n)) {
                self.at(
                    self.now,
                    Due::Give(peer, self.life(peer), Event::PeerLost { node: node(n), how: PeerLoss::Closed }),
                );
            }
        }
    }

    pub(super) fn cut(&mut self, a: u8, b: u8) {
        self.cut.insert((node(a.min(b)), node(a.max(b))));
        self.give(a, Event::PeerLost { node: node(b), how: PeerLoss::Silent });
        self.give(b, Event::PeerLost { node: node(a), how: PeerLoss::Silent });
    }

    pub(super) fn heal(&mut self, a: u8, b: u8) {
        self.cut.remove(&(node(a.min(b)), node(a.max(b))));
        let up = |n: u8| self.hosts.get(&node(n)).is_some_and(|h| h.up);
        if up(a) && up(b) {
            self.give(a, Event::PeerHeard { node: node(b) });
            self.give(b, Event::PeerHeard { node: node(a) });
        }
    }

    /// Delivers an event and carries out what it leads to; returns that.
    pub(super) fn give(&mut self, n: u8, event: Event) -> Vec<Effect> {
        let now = self.now;
        let host = self.host(n);
        if !host.up {
            return Vec::new();
        }
        if host.frozen {
            host.mail.push_back(event);
            return Vec::new();
        }
        let mut out = Vec::new();
        host.office.handle(now, event, &mut out);
        host.log.extend(out.iter().map(|e| (now, e.clone())));
        for effect in &out {
            self.carry_out(node(n), effect.clone());
        }
        out
    }

    pub(super) fn thaw(&mut self, n: u8) {
        self.host(n).frozen = false;
        while let Some(event) = self.host(n).mail.pop_front() {
            self.give(n, event);
        }
    }

    /// Lets the disk of a node answer again; what was held is executed, in order.
    pub(super) fn unhang(&mut self, n: u8) {
        self.host(n).hang = false;
        for effect in std::mem::take(&mut self.host(n).held) {
            self.carry_out(node(n), effect);
        }
    }

    /// What was stuck in the fabric lands now; nobody is told.
    pub(super) fn land_stuck(&mut self, n: u8) -> bool {
        let mut landed = false;
        for effect in std::mem::take(&mut self.host(n).stuck) {
            if let Effect::CawLease { expect, new, .. } = effect {
                landed |= self.caw_lease(expect, new) == CawResult::Done;
            }
        }
        landed
    }

    fn at(&mut self, when: Now, due: Due) {
        self.next += 1;
        self.queue.insert((when, self.next), due);
    }

    fn life(&self, n: NodeId) -> u64 {
        self.hosts.get(&n).map_or(0, |h| h.life)
    }

    fn lives(&self, n: NodeId, life: u64) -> bool {
        self.hosts.get(&n).is_some_and(|h| h.up && h.life == life)
    }

    fn soon(&mut self, n: NodeId, event: Event) {
        self.at(self.now + Duration::from_millis(1), Due::Give(n, self.life(n), event));
    }

    fn carry_out(&mut self, n: NodeId, effect: Effect) {
        match effect {
            Effect::Read { .. } | Effect::CawSlot { .. } | Effect::CawLease { .. } => self.submit(n, effect),
            Effect::TryLiveLock { node: whose } => {
                let acquired = !self.locks.contains_key(&whose);
                if acquired {
                    self.locks.insert(whose, n);
                }
                self.at(self.now, Due::Give(n, self.life(n), Event::LiveLock { node: whose, acquired }));
            }
            Effect::ReleaseLiveLock { node: whose } => {
                assert_eq!(self.locks.remove(&whose), Some(n), "only a held lock is released");
            }
            Effect::Kill { node: victim, .. } => {
                self.kill(victim.get(), 20);
                self.soon(n, Event::Killed { node: victim, outcome: KillOutcome::Killed });
            }
            Effect::AskAlive { node: to, epoch } => self.ask(n, to, Ask::Alive { epoch }, effect),
            Effect::AskFence { client, fence_gen } => {
                self.ask(n, client.node, Ask::Fence { client, fence_gen }, effect)
            }
            Effect::Answer { id, answer } => self.answered(id, answer),
            Effect::Tell { to, what } => self.tell(n, to, what),
            Effect::StopDirect { fence_gen } => self.soon(n, Event::NothingInFlight { fence_gen }),
            Effect::TripLatch { epoch } | Effect::StartDrain { epoch } if !self.hosts[&n].never_drains => {
                self.soon(n, Event::Drained { epoch });
            }
            _ => {}
        }
    }

    fn submit(&mut self, n: NodeId, effect: Effect) {
        let host = self.hosts.get_mut(&n).expect("a node");
        if host.hang {
            host.held.push(effect);
        } else {
            let life = host.life;
            self.at(self.now + Duration::from_millis(1), Due::Disk(n, life, effect));
        }
    }

    fn disk(&mut self, n: NodeId, effect: Effect) {
        match effect {
            Effect::Read { seq } => {
                let sight = Sight { lease: self.lease.clone(), slots: self.slots.clone() };
                let fails = self.hosts[&n].reads_fail;
                self.give(n.get(), Event::Read { seq, sight: (!fails).then_some(sight) });
            }
            Effect::CawSlot { tag, node: whose, expect, new, .. } => {
                let found = self.slots[&whose];
                let result = if found == expect { CawResult::Done } else { CawResult::Miscompare(found) };
                if result == CawResult::Done {
                    self.slots.insert(whose, new);
                }
                self.give(n.get(), Event::SlotCaw { tag, result });
            }
            Effect::CawLease { tag, ref expect, ref new, .. } => {
                let host = self.hosts.get_mut(&n).expect("a node");
                if host.stick_lease {
                    host.stuck.push(effect);
                    self.give(n.get(), Event::LeaseCaw { tag, result: CawResult::Lost });
                    return;
                }
                let lost = host.lose_lease_replies > 0;
                host.lose_lease_replies = host.lose_lease_replies.saturating_sub(1);
                let result = self.caw_lease(expect.clone(), new.clone());
                let result = if lost { CawResult::Lost } else { result };
                self.give(n.get(), Event::LeaseCaw { tag, result });
            }
            _ => {}
        }
    }

    fn caw_lease(&mut self, expect: LeaseView, new: LeaseView) -> CawResult<LeaseView> {
        if self.lease != expect {
            return CawResult::Miscompare(self.lease.clone());
        }
        self.lease = new;
        CawResult::Done
    }

    fn ask(&mut self, from: NodeId, to: NodeId, ask: Ask, effect: Effect) {
        self.next += 1;
        let id = AskId(self.next);
        self.asks.insert(id, (from, effect));
        let alive = self.hosts.get(&to).is_some_and(|h| h.up);
        if alive && self.reaches(from, to) {
            self.soon(to, Event::Asked { id, from, ask });
        }
    }

    fn answered(&mut self, id: AskId, answer: PeerAnswer) {
        let Some((asker, question)) = self.asks.remove(&id) else { return };
        match (question, answer) {
            (Effect::AskAlive { node, epoch }, PeerAnswer::Alive { in_office, disk_stalled }) => {
                let answer = if in_office { AliveAnswer::InOffice { disk_stalled } } else { AliveAnswer::NotInOffice };
                self.soon(asker, Event::Alive { node, epoch, answer });
            }
            (Effect::AskFence { client, fence_gen }, answer) => {
                self.soon(asker, Event::FenceAnswer { client, fence_gen, fenced: answer == PeerAnswer::Fenced });
            }
            _ => {}
        }
    }

    fn tell(&mut self, from: NodeId, to: Option<NodeId>, what: Tell) {
        let ask = match what {
            Tell::NewEpoch(hint) => Ask::NewEpoch(hint),
            Tell::NoPath { epoch } => Ask::NoPath { epoch },
            Tell::TakeOffice { epoch } => Ask::TakeOffice { epoch },
        };
        for peer in self.up() {
            if peer != from && to.is_none_or(|t| t == peer) && self.reaches(from, peer) {
                self.soon(peer, Event::Asked { id: AskId(0), from, ask: ask.clone() });
            }
        }
    }

    /// The next thing happens; false if it lies after `end`.
    fn step(&mut self, end: Now) -> bool {
        let due = self.queue.keys().next().map(|(at, _)| *at);
        let awake = self.hosts.iter().filter(|(_, h)| h.up && !h.frozen);
        let tick = awake.filter_map(|(n, h)| h.office.next_deadline().map(|d| (d.max(self.now), *n))).min();
        let first = due.into_iter().chain(tick.map(|(at, _)| at)).min();
        let Some(at) = first.filter(|at| *at <= end) else {
            self.now = end;
            return false;
        };
        self.idle = if at > self.now { 0 } else { self.idle + 1 };
        assert!(self.idle < 1000, "time stands still at {}: tick {tick:?}", self.now);
        self.now = self.now.max(at);
        if due.is_some_and(|d| d <= at) {
            let Some((_, due)) = self.queue.pop_first() else { return false };
            match due {
                Due::Give(n, life, event) if self.lives(n, life) => drop(self.give(n.get(), event)),
                Due::Disk(n, life, effect) if self.lives(n, life) => self.disk(n, effect),
                Due::Give(..) | Due::Disk(..) => {}
                Due::Unlock(n) => self.locks.retain(|_, holder| *holder != n),
            }
        } else if let Some((_, n)) = tick {
            self.give(n.get(), Event::Tick);
        }
        true
    }

    pub(super) fn run_for(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while self.step(end) {}
    }

    /// Runs until `done`, at most 30 s of virtual time; returns the milliseconds it took.
    pub(super) fn run_until(&mut self, what: &str, done: impl Fn(&Lab) -> bool) -> u64 {
        let begun = self.now;
        let end = begun + Duration::from_secs(30);
        while !done(self) {
            assert!(self.step(end), "never: {what}; lease {:?}", self.lease);
        }
        self.now.0 - begun.0
    }

    /// What a node asked for since `since`, without reads, own renewals and reports.
    pub(super) fn acts(&self, n: u8, since: Now) -> Vec<Effect> {
        let own = node(n);
        let act = |e: &&(Now, Effect)| match &e.1 {
            Effect::Read { .. } | Effect::Report(_) => false,
            Effect::CawSlot { node, .. } => *node != own,
            Effect::CawLease { expect, new, .. } => expect.epoch != new.epoch || new.resigned.is_some(),
            _ => true,
        };
        self.hosts[&own].log.iter().filter(|(at, _)| *at >= since).filter(act).map(|(_, e)| e.clone()).collect()
    }

    pub(super) fn reports(&self, n: u8, since: Now) -> Vec<Report> {
        let log = self.hosts[&node(n)].log.iter().filter(|(at, _)| *at >= since);
        log.filter_map(|(_, e)| if let Effect::Report(r) = e { Some(*r) } else { None }).collect()
    }

    pub(super) fn fence_gen(&self, n: u8) -> FenceGen {
        self.slots[&node(n)].fence_gen
    }
}
