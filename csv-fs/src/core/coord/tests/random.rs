//! Clients that do as they please over a network that reorders, breaks and loses, coordinators that die, and a store
//! that answers when it likes. Four oracles, none of them the coordinator's own:
//! - two clients never believe at once that they hold ranges that conflict, unless one of them is fenced;
//! - a size that is told is at least what any write had acknowledged before the question was asked;
//! - no durable request is executed twice;
//! - once the faults end, everything asked is answered.

mod node;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use block::shared::{Epoch, FenceGen, Incarnation, NodeId};

use super::util::{LIMITS, VOLUME, attr, ordinary, returns};
use crate::core::coord::*;
use crate::core::rules::{Rule, Rules};
use crate::core::time::Now;
use crate::proto::*;

use self::node::{Held, Node};
use self::store::Store;

const FILES: u64 = 2;
const NODES: u8 = 3;
const SLOTS: u8 = 4;

/// A small generator; the tests' own, so that a seed means the same for ever.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Something on its way.
enum Mail {
    Call(Call),
    Bind(BindRequest),
    Answer { to: ClientId, bind: Bind, slot: SlotRef, seq: u64, answer: Answer },
    BindAnswer { to: ClientId, bind: Bind, answer: BindAnswer },
    Callback { to: ClientId, bind: Bind, id: CallbackId, ask: CallbackAsk },
    CallbackAnswer { id: CallbackId, answer: Option<CallbackAnswer> },
    Read { op: OpId, done: Option<ReadDone>, ask: ReadAsk },
    Fenced { client: ClientId, purpose: FencePurpose },
}

struct Run {
    rng: Rng,
    rules: Rules,
    now: Now,
    coord: Coord,
    epoch: u64,
    store: Store,
    nodes: Vec<Node>,
    mail: Vec<Mail>,
    tags: BTreeMap<Tag, (ClientId, Bind, SlotRef, u64)>,
    bind_tags: BTreeMap<Tag, (ClientId, Bind)>,
    last_tag: u64,
    fenced: BTreeSet<ClientId>,
    ghosts: Vec<(ClientId, Held)>,
    acknowledged: BTreeMap<InodeNo, u64>,
    faults: bool,
    answered: u64,
    told: u64,
    evictions: Vec<(Now, ClientId, EvictReason)>,
    broken: Vec<String>,
}

fn new_coord(epoch: u64, rules: Rules) -> Coord {
    let verifier = Verifier { epoch: Epoch(epoch), boot: 1, generation: 0 };
    Coord::new(CoordConfig { epoch: Epoch(epoch), verifier, limits: LIMITS }, rules)
}

impl Run {
    fn new(seed: u64, rules: Rules) -> Run {
        let mut run = Run {
            rng: Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            rules,
            now: Now(1),
            coord: new_coord(1, rules),
            epoch: 1,
            store: Store::default(),
            nodes: (1..=NODES).map(|n| Node::new(n, 1)).collect(),
            mail: Vec::new(),
            tags: BTreeMap::new(),
            bind_tags: BTreeMap::new(),
            last_tag: 0,
            fenced: BTreeSet::new(),
            ghosts: Vec::new(),
            acknowledged: BTreeMap::new(),
            faults: true,
            answered: 0,
            told: 0,
            evictions: Vec::new(),
            broken: Vec::new(),
        };
        run.event(Event::Start(Inherited::default()));
        run
    }

    fn event(&mut self, event: Event) {
        let mut out = Vec::new();
        self.coord.handle(self.now, event, &mut out);
        for effect in out {
            self.apply(effect);
        }
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Answer { tag, answer } => {
                if let Some((to, bind, slot, seq)) = self.tags.remove(&tag) {
                    self.mail.push(Mail::Answer { to, bind, slot, seq, answer });
                }
            }
            Effect::AnswerBind { tag, answer } => {
                if let Some((to, bind)) = self.bind_tags.remove(&tag) {
                    self.mail.push(Mail::BindAnswer { to, bind, answer });
                }
            }
            Effect::Read { op, ask } => {
                let done = self.rng.one_in(2).then(|| self.read(&ask));
                self.mail.push(Mail::Read { op, done, ask });
            }
            Effect::Store { op, ask } => self.store.queue.push_back((op, ask)),
            Effect::Callback { id, conn, client, ask } => {
                self.mail.push(Mail::Callback { to: client, bind: Bind(conn.0 & 0xffff_ffff), id, ask });
            }
            Effect::Fence { client, purpose } => self.mail.push(Mail::Fenced { client, purpose }),
            Effect::Report(Report::Evicting { client, why }) => self.evictions.push((self.now, client, why)),
            Effect::Drained | Effect::Report(_) => {}
        }
    }

    /// The coordinator dies; another takes over.
    fn take_over(&mut self) {
        self.epoch += 1;
        self.store.queue.clear();
        self.tags.clear();
        self.bind_tags.clear();
        self.mail.retain(|m| matches!(m, Mail::Answer { .. } | Mail::BindAnswer { .. }));
        self.coord = new_coord(self.epoch, self.rules);
        let sessions = self.store.sessions.values().cloned().collect();
        self.event(Event::Start(Inherited { sessions, ..Inherited::default() }));
        for node in &mut self.nodes {
            node.bound = false;
        }
    }

    fn next_tag(&mut self) -> Tag {
        self.last_tag += 1;
        Tag(self.last_tag)
    }

    fn deliver(&mut self, mail: Mail) {
        match mail {
            Mail::Call(call) => {
                let tag = self.next_tag();
                self.tags.insert(tag, (call.client, call.bind, call.slot, call.seq));
                self.event(Event::Call { tag, call });
            }
            Mail::Bind(request) => {
                let tag = self.next_tag();
                self.bind_tags.insert(tag, (request.client, request.bind));
                let conn = ConnId((u64::from(request.client.node.get()) << 32) | request.bind.0);
                self.event(Event::Bind { tag, conn, request });
            }
            Mail::Read { op, done, ask } => {
                let done = done.unwrap_or_else(|| self.read(&ask));
                self.event(Event::ReadDone { op, done });
            }
            Mail::Fenced { client, purpose } => {
                self.fenced.insert(client);
                self.event(Event::FenceDone { client, purpose, result: Ok(FenceGen(9)) });
            }
            Mail::CallbackAnswer { id, answer } => self.event(Event::CallbackDone { id, answer }),
            Mail::Callback { to, bind, id, ask } => self.called_back(to, bind, id, &ask),
            Mail::BindAnswer { to, bind, answer } => self.bind_answered(to, bind, answer),
            Mail::Answer { to, bind, slot, seq, answer } => self.call_answered(to, bind, slot, seq, answer),
        }
    }

    fn check_held(&mut self) {
        let living = self.nodes.iter().flat_map(|n| n.held.values().map(|h| (n.id, *h)));
        let all: Vec<(ClientId, Held)> =
            living.chain(self.ghosts.iter().copied()).filter(|(c, _)| !self.fenced.contains(c)).collect();
        for (n, (a, x)) in all.iter().enumerate() {
            for (b, y) in &all[n + 1..] {
                let exclusive = x.mode == LayoutMode::Exclusive || y.mode == LayoutMode::Exclusive;
                let meet = x.ino == y.ino && x.range.overlaps(y.range) && exclusive;
                if a != b && meet {
                    self.broken.push(format!("{a} and {b} both hold {:?} and {:?}", x, y));
                }
            }
        }
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..35 => {
                let index = self.rng.below(u64::from(NODES)) as usize;
                if !self.nodes[index].silent {
                    self.act(index);
                }
            }
            35..75 if !self.mail.is_empty() => {
                let n = self.rng.below(self.mail.len() as u64) as usize;
                let mail = self.mail.swap_remove(n);
                self.deliver(mail);
            }
            75..90 => self.commit_one(),
            90..97 => {
                self.now = self.now + Duration::from_millis(1 + self.rng.below(20));
                self.event(Event::Tick);
            }
            _ if self.faults => self.fault(),
            _ => {}
        }
        for index in 0..self.nodes.len() {
            let (id, bind) = (self.nodes[index].id, self.nodes[index].bind);
            let binding = self.mail.iter().any(|m| match m {
                Mail::Bind(r) => r.client == id && r.bind == bind,
                Mail::BindAnswer { to, bind: b, .. } => *to == id && *b == bind,
                _ => false,
            }) || self.bind_tags.values().any(|b| *b == (id, bind));
            if !self.nodes[index].silent && !self.nodes[index].bound && !binding {
                self.start_bind(index);
            }
        }
        self.check_held();
    }

    fn fault(&mut self) {
        let index = self.rng.below(u64::from(NODES)) as usize;
        match self.rng.below(60) {
            0 => self.take_over(),
            1..5 => {
                let (id, bind) = (self.nodes[index].id, self.nodes[index].bind);
                self.mail.retain(|m| match m {
                    Mail::Answer { to, bind: b, .. } | Mail::BindAnswer { to, bind: b, .. } => (*to, *b) != (id, bind),
                    Mail::Call(call) => (call.client, call.bind) != (id, bind),
                    _ => true,
                });
                let conn = ConnId((u64::from(id.node.get()) << 32) | bind.0);
                self.bind_tags.retain(|_, b| *b != (id, bind));
                self.event(Event::ConnLost { conn });
                self.nodes[index].bound = false;
            }
            5 if self.nodes[index].bound => self.silence(index),
            _ => {}
        }
    }

    /// A client stops for ever, and may go on writing until it is fenced; its node starts a new life. What the old one
    /// alone had acknowledged is lost with it.
    fn silence(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let id = node.id;
        let reborn = Node::new(id.node.get(), id.incarnation.0 + 1);
        let gone = std::mem::replace(node, reborn);
        let made: BTreeSet<InodeNo> =
            gone.sizes.keys().copied().chain(gone.returning.values().map(|(h, ..)| h.ino)).collect();
        for ino in made {
            let committed = self.size(ino);
            self.acknowledged.insert(ino, committed);
            for p in self.nodes.iter_mut().flat_map(|n| n.pending.values_mut()) {
                p.floor = p.floor.min(committed);
            }
        }
        self.mail.retain(|m| !matches!(m, Mail::Call(c) if c.client == id));
        self.ghosts.extend(gone.held.into_values().map(|held| (id, held)));
    }

    fn finish(&mut self) {
        self.faults = false;
        for _ in 0..200 {
            for _ in 0..200 {
                self.step();
                if !self.broken.is_empty() {
                    return;
                }
            }
            if self.nodes.iter().all(|n| n.pending.is_empty()) {
                return;
            }
        }
        let left: Vec<_> =
            self.nodes.iter().flat_map(|n| n.pending.values().map(move |p| (n.id, p.request.clone()))).collect();
        self.broken.push(format!("never answered: {left:?}"));
    }
}

fn run(seed: u64, rules: Rules) -> Run {
    let mut run = Run::new(seed, rules);
    for _ in 0..3000 {
        run.step();
        if !run.broken.is_empty() {
            return run;
        }
    }
    run.finish();
    run
}

#[test]
fn nothing_is_shared_wrongly_told_wrongly_done_twice_or_left_undone() {
    let (mut answered, mut told, mut takeovers) = (0, 0, 0);
    for seed in 1..=120 {
        let run = run(seed, Rules::all());
        assert!(run.broken.is_empty(), "seed {seed}: {:?}, evicted {:?}", run.broken, run.evictions);
        answered += run.answered;
        told += run.told;
        takeovers += run.epoch - 1;
    }
    assert!(answered > 20_000 && told > 2_000 && takeovers > 50, "{answered} {told} {takeovers}");
}

#[test]
fn the_oracles_notice_when_a_rule_is_missing() {
    for rule in [Rule::StoredAnswers, Rule::FinishEvicting] {
        let found = (1..=400).find(|seed| !run(*seed, Rules::without(rule)).broken.is_empty());
        assert!(found.is_some(), "{rule:?} is never missed");
    }
}
