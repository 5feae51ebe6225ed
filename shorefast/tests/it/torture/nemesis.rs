//! What is done to the nodes: one of them is hurt at a time, so that a majority lives, and what hurts nobody (a move, a
//! redirection) happens beside it. Each step ends with everything healed and the cluster in order again; what became of the nodes
//! is written down: deaths, next lives, evictions.
//!
//! A daemon that may be frozen is asked nothing, and no mount is touched here at all.

use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use history::event::{Happening, Nanos, Turn};
use history::raw;
use history::worker::Chance;

use super::workers::since;
use crate::field::Network;
use crate::fixture::{Cluster, can_mount};

/// The nodes.
pub(super) const NODES: usize = 3;
/// A cluster of which nothing hurts any more is in order again within this, also on a slow machine.
const ORDER: Duration = Duration::from_secs(120);

/// How long networks are cut, in milliseconds: from what TCP makes up for to what gets a node evicted.
const CUT: (u64, u64) = (300, 5000);
/// How long connections are reset over and over: nobody is evicted for that.
const REFUSED: (u64, u64) = (100, 600);

/// What can be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    Kill,
    KillCoordinator,
    FreezeBriefly,
    FreezeUntilFenced,
    CutOff,
    CutPair,
    AnswersLost,
    AnswersRefused,
    Unheard,
    DiskHangs,
    DiskFails,
    DiskIsSlow,
    Move,
    Redirect,
    Evict,
}

impl Fault {
    pub(super) const ALL: [Fault; 15] = [
        Fault::Kill,
        Fault::KillCoordinator,
        Fault::FreezeBriefly,
        Fault::FreezeUntilFenced,
        Fault::CutOff,
        Fault::CutPair,
        Fault::AnswersLost,
        Fault::AnswersRefused,
        Fault::Unheard,
        Fault::DiskHangs,
        Fault::DiskFails,
        Fault::DiskIsSlow,
        Fault::Move,
        Fault::Redirect,
        Fault::Evict,
    ];
}

pub(super) struct Nemesis {
    pub(super) cluster: Cluster,
    zero: Nanos,
    chance: Chance,
    /// The incarnation of each node, and when that was looked at.
    lives: [u64; NODES],
    looked: Nanos,
    /// When the present daemon of each node was ready.
    born: [Nanos; NODES],
    /// Steps that are still to come before any is taken again, so that each happens.
    deck: Vec<Fault>,
    /// What was done and what became of it, as lines of a history.
    pub(super) lines: String,
}

impl Nemesis {
    /// Three nodes in namespaces of their own, and a volume that all have mounted. None where that cannot be made.
    pub(super) fn begin(seed: u64, zero: Nanos, configuration: &str) -> Option<Nemesis> {
        if !can_mount() {
            return None;
        }
        let cluster = Cluster::apart(NODES)?;
        (1..=NODES).for_each(|n| cluster.configure(n, configuration));
        let (chance, deck, lines) = (Chance(seed), Vec::new(), String::new());
        let mut nemesis =
            Nemesis { cluster, zero, chance, lives: [0; NODES], looked: 0, born: [0; NODES], deck, lines };
        (1..=NODES).for_each(|n| nemesis.cluster.start(n));
        nemesis.cluster.create_volume("v");
        nemesis.until_in_order();
        nemesis.lives = nemesis.incarnations();
        Some(nemesis)
    }

    fn note(&mut self, text: &str) {
        self.lines += &raw::noted(since(self.zero), text);
    }

    fn happened(&mut self, at: Nanos, node: usize, turn: Turn) {
        self.lines += &raw::happened(Happening { at, node: node as u8, turn });
    }

    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.chance.below(high - low)
    }

    /// One step, from a deck of all.
    pub(super) fn step(&mut self, faults: &[Fault]) {
        if self.deck.is_empty() {
            self.deck = faults.to_vec();
        }
        let at = self.chance.below(self.deck.len() as u64) as usize;
        let fault = self.deck.swap_remove(at);
        let coordinator = self.coordinator();
        let node = match fault {
            Fault::KillCoordinator | Fault::AnswersLost | Fault::AnswersRefused => coordinator,
            _ => 1 + self.chance.below(NODES as u64) as usize,
        };
        let began = since(self.zero);
        self.note(&format!("{fault:?}: node {node}, coordinator {coordinator}"));
        self.hurt(fault, node, coordinator);
        self.bury(began);
        // Who has just woken may be ended all the same, by a fence that had just judged.
        while !self.comes_to_order() {
            self.bury(began);
        }
        self.look_at_lives();
        self.note("in order");
    }

    fn hurt(&mut self, fault: Fault, node: usize, coordinator: usize) {
        let other = 1 + (node + self.chance.below(2) as usize) % NODES;
        match fault {
            Fault::Kill | Fault::KillCoordinator => self.kill(node),
            Fault::FreezeBriefly => self.freeze(node, (200, 1500)),
            Fault::FreezeUntilFenced => self.freeze(node, (5000, 8000)),
            Fault::CutOff => self.cut(|net| net.isolate(node), node, CUT),
            Fault::CutPair => self.cut(|net| net.cut(node, other), node, CUT),
            Fault::AnswersLost | Fault::Unheard => {
                let others = (1..=NODES).filter(|n| *n != node);
                self.cut(|net| others.for_each(|to| net.silence(node, to)), node, CUT);
            }
            Fault::AnswersRefused => {
                let others = (1..=NODES).filter(|n| *n != node);
                self.cut(|net| others.for_each(|to| net.refuse(node, to)), node, REFUSED);
            }
            Fault::DiskHangs => self.disk(node, &["hang"]),
            Fault::DiskFails => self.disk(node, &["fail"]),
            Fault::DiskIsSlow => self.disk(node, &["delay", "40"]),
            Fault::Move => self.ask(other, &["volume", "move", "v", "--to", &node.to_string()]),
            Fault::Redirect => {
                self.ask(other, &["volume", "redirect", "v", "on", "--node", &node.to_string()]);
                self.wait((500, 2500));
                self.ask(other, &["volume", "redirect", "v", "off", "--node", &node.to_string()]);
            }
            Fault::Evict => self.ask(coordinator, &["debug", "evict", "v", "--node", &node.to_string()]),
        }
    }

    /// A command that may be refused as things are.
    fn ask(&mut self, n: usize, args: &[&str]) {
        let ended = self.cluster.ask(n, args);
        self.note(&format!("{} = {} {}", args.join(" "), ended.code, ended.err.trim()));
    }

    fn wait(&mut self, ms: (u64, u64)) {
        let ms = self.between(ms.0, ms.1);
        std::thread::sleep(Duration::from_millis(ms));
    }

    /// Waits, and half of the time something that hurts nobody is done on the way, through a node that is well.
    fn wait_and_move(&mut self, ms: (u64, u64), hurt: usize) {
        self.wait((ms.0 / 2, ms.1 / 2));
        let (well, to) = (1 + hurt % NODES, 1 + (hurt + 1) % NODES);
        match self.chance.below(4) {
            0 => self.ask(well, &["volume", "move", "v", "--to", &to.to_string()]),
            1 => {
                self.ask(well, &["volume", "redirect", "v", "on", "--node", &to.to_string()]);
                self.wait((200, 600));
                self.ask(well, &["volume", "redirect", "v", "off", "--node", &to.to_string()]);
            }
            _ => (),
        }
        self.wait((ms.0 / 2, ms.1 / 2));
    }

    fn kill(&mut self, node: usize) {
        self.happened(since(self.zero), node, Turn::Ending);
        self.cluster.kill(node);
        self.happened(since(self.zero), node, Turn::Ended);
        self.wait_and_move((200, 3000), node);
        self.revive(node);
    }

    fn revive(&mut self, node: usize) {
        self.cluster.start(node);
        self.until(&format!("the mount of node {node}"), |c| c.is_mounted(node));
        // The life before may have been evicted since the last look, and ended by a signal before the next.
        self.evicted(node, self.looked - 100_000_000);
        self.lives[node - 1] = self.incarnation(node);
        self.born[node - 1] = since(self.zero);
        self.happened(self.born[node - 1], node, Turn::Begun);
    }

    fn freeze(&mut self, node: usize, ms: (u64, u64)) {
        self.cluster.signal(node, "STOP");
        self.wait(ms);
        // It may be dead by now, by a fence: its process is ours until it is waited for.
        self.cluster.signal(node, "CONT");
    }

    fn cut(&mut self, cut: impl FnOnce(&Network), node: usize, ms: (u64, u64)) {
        cut(self.cluster.network());
        self.wait(ms);
        self.cluster.network().mend();
        self.note(&format!("the network of node {node} is whole"));
    }

    fn disk(&mut self, node: usize, fault: &[&str]) {
        let args = [&["debug", "disk"], fault].concat();
        self.ask(node, &args);
        self.wait_and_move((400, 4000), node);
        // Hung and unheard it may have been ended by a fence.
        if !self.cluster.has_died(node) {
            self.ask(node, &["debug", "disk", "heal"]);
            return;
        }
        self.buried(node, since(self.zero) - 6_000_000_000);
    }

    /// Nodes that were ended by a fence live again.
    fn bury(&mut self, began: Nanos) {
        for node in 1..=NODES {
            if self.cluster.has_died(node) {
                self.buried(node, began);
            }
        }
    }

    fn buried(&mut self, node: usize, began: Nanos) {
        self.note(&format!("the daemon of node {node} was ended"));
        self.happened(began, node, Turn::Ending);
        self.happened(since(self.zero), node, Turn::Ended);
        self.revive(node);
    }

    /// A node that lives and has another incarnation was evicted, and has told when it noticed: since the last look, not since this
    /// step began. Each was in order once at the end of the step before, and may have been evicted for that one only then.
    pub(super) fn look_at_lives(&mut self) {
        let looking = since(self.zero);
        // It tells before it begins anew.
        let began = std::mem::replace(&mut self.looked, looking) - 100_000_000;
        let now = self.incarnations();
        for node in 1..=NODES {
            if now[node - 1] != self.lives[node - 1] {
                assert!(self.evicted(node, began), "node {node} has another incarnation and was not evicted: {now:?}");
            }
        }
        self.lives = now;
    }

    /// Writes down when a node noticed since then that it was evicted; false if it was not.
    fn evicted(&mut self, node: usize, began: Nanos) -> bool {
        let noticed = self.evictions(node, began);
        if !noticed.is_empty() {
            // Not before the life began that ended: a daemon that was ended and started again may be evicted before the next look.
            self.happened(began.max(self.born[node - 1] + 1), node, Turn::Ending);
        }
        noticed.iter().for_each(|at| self.happened(*at, node, Turn::Evicted));
        !noticed.is_empty()
    }

    /// When a node noticed since then that it was evicted. Its events have the calendar's milliseconds.
    fn evictions(&self, node: usize, began: Nanos) -> Vec<Nanos> {
        let text = self.cluster.ask(node, &["--json", "events"]).out;
        let calendar = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as i64;
        let offset = since(self.zero) - calendar;
        let event = |line: &str| {
            let event = serde_json::from_str::<serde_json::Value>(line).expect("an event a line")["event"].clone();
            let at = event["at"].as_i64().expect("milliseconds");
            // The millisecond in which it was noticed is over then.
            (event["code"] == "self-evicted").then(|| (at + 1) * 1_000_000 + offset)
        };
        text.lines().filter_map(event).filter(|at| *at > began).collect()
    }

    fn incarnation(&self, node: usize) -> u64 {
        self.cluster.volume(node, "v").and_then(|v| v["incarnation"].as_u64()).unwrap_or(0)
    }

    fn incarnations(&self) -> [u64; NODES] {
        std::array::from_fn(|at| self.incarnation(at + 1))
    }

    /// The coordinator as the first node knows it; everything is in order.
    pub(super) fn coordinator(&self) -> usize {
        self.cluster.coordinator(1) as usize
    }

    /// Every node is mounted and has been direct since; all name one coordinator and are served by it. Not all at one moment: a disk that is
    /// busy with other things for longer than the path timeout is left for a moment, and come back to.
    pub(super) fn until_in_order(&mut self) {
        assert!(self.comes_to_order(), "a daemon has ended that nothing hurt");
    }

    /// Waits for that; no if a daemon ends meanwhile.
    fn comes_to_order(&mut self) -> bool {
        let direct = (1..=NODES).all(|node| {
            self.until(&format!("a direct mount on node {node}"), |c| c.is_mounted(node) && c.route(node).0 == "direct")
        });
        direct
            && self.until("one coordinator that serves all", |c| {
                let first = c.coordinator(1);
                let serves = |n| c.volume(n, "v").is_some_and(|v| v["coordinator"] == first && v["metadata"] == "ok");
                first != 0 && (1..=NODES).all(serves)
            })
    }

    /// Waits until that holds; no if a daemon ends meanwhile.
    fn until(&mut self, what: &str, holds: impl Fn(&Cluster) -> bool) -> bool {
        let deadline = Instant::now() + ORDER;
        while !holds(&self.cluster) {
            if (1..=NODES).any(|node| self.cluster.is_dead(node)) {
                return false;
            }
            if Instant::now() > deadline {
                let mut said = format!("{what} did not come about within {} s", ORDER.as_secs());
                for n in 1..=NODES {
                    let status = self.cluster.ask(n, &["status"]);
                    write!(said, "\nnode {n}: {}{}", status.out, status.err).expect("a text takes all");
                }
                panic!("{said}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        true
    }
}
