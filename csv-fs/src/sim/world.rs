//! The world of a run: virtual time, nodes with their processes and clocks, and the queue of what is due.
//!
//! Everything that happens is a closure due at a microsecond; two that are due at the same time come in the order in
//! which they were put there. Nothing calls a core while that core is being called: effects only put closures there.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::{Rc, Weak};
use std::time::Duration;

use block::shared::NodeId;

use super::client_shell::ClientShell;
use super::coverage::Coverage;
use super::disk::Disk;
use super::exec::{Body, Owner, Sender, Tasks};
use super::net::Net;
use super::office_shell::OfficeShell;
use super::oracle::Oracle;
use super::reign::Reign;
use super::restarts::Leaving;
use super::rng::Rng;
use super::store::State;
use crate::core::client::Ledger;
use crate::core::office::{DiskKind, NodeSet, Timing};
use crate::core::rules::Rules;
use crate::core::time::Now;

/// Something due.
pub(super) type Act = Box<dyn FnOnce(&mut World)>;

/// One millisecond, in the microseconds that this world counts.
pub(super) const MS: u64 = 1000;

/// How many lines of a run are kept to be shown with a failure.
const TRACE: usize = 400;

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// The seed of all chance.
    pub seed: u64,
    /// How many nodes, 1 to 7.
    pub nodes: u8,
    /// Whether the disk is of the SCSI kind.
    pub scsi: bool,
    /// Nexuses of each node (SCSI kind).
    pub nexuses: u16,
    /// The rules in force.
    pub rules: Rules,
    /// Data blocks of the volume.
    pub blocks: u64,
    /// How long a program's request waits, in milliseconds; 0: for as long as it takes.
    pub io_timeout: u64,
    /// Whether every line of the trace is printed as it comes.
    pub loud: bool,
}

/// A node.
pub(super) struct Node {
    /// The number of its present or last process.
    pub(super) process: u64,
    pub(super) proc: Option<Proc>,
    pub(super) paused: bool,
    mail: VecDeque<(u64, Act)>,
    /// By how much its clock is behind; grows while it stands still.
    lag: u64,
    stopped_at: Option<u64>,
    armed: BTreeMap<Core, u64>,
}

/// A daemon.
pub(super) struct Proc {
    pub(super) office: OfficeShell,
    pub(super) reign: Option<Reign>,
    pub(super) client: Option<ClientShell>,
}

/// The cores of a node that have deadlines.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Core {
    Office,
    Coord,
    Client,
}

/// The world.
pub(super) struct World {
    pub(super) me: Weak<RefCell<World>>,
    pub(super) setup: Setup,
    pub(super) timing: Timing,
    /// Microseconds since the beginning.
    pub(super) now: u64,
    queue: BTreeMap<(u64, u64), Act>,
    last: u64,
    pub(super) rng: Rng,
    pub(super) disk: Disk,
    pub(super) net: Net,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) oracle: Oracle,
    pub(super) coverage: Coverage,
    /// Events given to cores.
    pub(super) events: u64,
    pub(super) faults: u64,
    trace: VecDeque<String>,
    spawned: Vec<(Owner, Body)>,
    killed: Vec<(NodeId, u64)>,
    /// Programs that outlived their daemon, and the process that serves them now.
    passed_on: Vec<(NodeId, u64, u64)>,
    /// Daemons that make room for the next, by node.
    pub(super) leaving: BTreeMap<NodeId, Leaving>,
    /// What the client of each node's daemon has noted.
    pub(super) ledgers: BTreeMap<NodeId, Ledger>,
    /// Requests of programs that a daemon is at, by node.
    pub(super) inside: BTreeMap<NodeId, Rc<Cell<u32>>>,
    /// Applications begin nothing new.
    pub(super) closing: bool,
    /// Applications of a node that are at work.
    pub(super) apps: BTreeMap<NodeId, u32>,
    /// What each application is at.
    pub(super) doing: BTreeMap<(NodeId, u32), super::app::Op>,
    /// Operations that ended well, by node.
    pub(super) ops_done: BTreeMap<NodeId, u64>,
    /// Whether applications work by themselves (a seed) or are told what to do (a script).
    pub(super) busy: bool,
    pub(super) last_name: u64,
}

impl World {
    pub(super) fn new(setup: Setup, state: State) -> Rc<RefCell<World>> {
        let all: Vec<NodeId> = (1..=setup.nodes).filter_map(NodeId::new).collect();
        let fresh = || Node {
            process: 0,
            proc: None,
            paused: false,
            mail: VecDeque::new(),
            lag: 0,
            stopped_at: None,
            armed: BTreeMap::new(),
        };
        Rc::new_cyclic(|me| {
            RefCell::new(World {
                me: me.clone(),
                setup,
                timing: Timing::FAST,
                now: 1000 * MS,
                queue: BTreeMap::new(),
                last: 0,
                rng: Rng::new(setup.seed),
                disk: Disk::new(&all, setup.scsi, state),
                net: Net::default(),
                nodes: all.into_iter().map(|n| (n, fresh())).collect(),
                oracle: Oracle::default(),
                coverage: Coverage::default(),
                events: 0,
                faults: 0,
                trace: VecDeque::new(),
                spawned: Vec::new(),
                killed: Vec::new(),
                passed_on: Vec::new(),
                leaving: BTreeMap::new(),
                ledgers: BTreeMap::new(),
                inside: BTreeMap::new(),
                closing: false,
                apps: BTreeMap::new(),
                doing: BTreeMap::new(),
                ops_done: BTreeMap::new(),
                busy: false,
                last_name: 0,
            })
        })
    }

    pub(super) fn kind(&self) -> DiskKind {
        if self.setup.scsi { DiskKind::Scsi { volume_tag: 9 } } else { DiskKind::File }
    }

    pub(super) fn all(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub(super) fn node_set(&self) -> NodeSet {
        self.nodes.keys().copied().collect()
    }

    // ---- time

    pub(super) fn at(&mut self, when: u64, act: impl FnOnce(&mut World) + 'static) {
        self.last += 1;
        self.queue.insert((when.max(self.now), self.last), Box::new(act));
    }

    pub(super) fn after(&mut self, delay: u64, act: impl FnOnce(&mut World) + 'static) {
        self.at(self.now + delay, act);
    }

    /// Due at a node: happens only if its process still is the same then; waits while it is paused.
    pub(super) fn at_node(&mut self, n: NodeId, delay: u64, act: impl FnOnce(&mut World) + 'static) {
        let process = self.nodes[&n].process;
        self.after(delay, move |w| w.deliver(n, process, Box::new(act)));
    }

    fn deliver(&mut self, n: NodeId, process: u64, act: Act) {
        let Some(node) = self.nodes.get_mut(&n) else { return };
        if node.proc.is_none() || node.process != process {
            return;
        }
        match node.paused {
            true => node.mail.push_back((process, act)),
            false => act(self),
        }
    }

    /// What a node's own clock shows.
    pub(super) fn clock(&self, n: NodeId) -> Now {
        let node = &self.nodes[&n];
        Now((node.stopped_at.unwrap_or(self.now) - node.lag) / MS)
    }

    /// Sees to it that a core is ticked when it wants to be.
    pub(super) fn arm(&mut self, n: NodeId, core: Core, deadline: Option<Now>) {
        let Some(deadline) = deadline else { return };
        let wait = deadline.since(self.clock(n));
        let least = if self.nodes[&n].stopped_at.is_some() { 5 * MS } else { MS };
        let when = self.now + micros(wait).max(least);
        let Some(node) = self.nodes.get_mut(&n) else { return };
        if node.armed.get(&core).is_some_and(|at| *at <= when && *at >= self.now) {
            return;
        }
        node.armed.insert(core, when);
        self.at_node(n, when - self.now, move |w| w.tick(n, core, when));
    }

    fn tick(&mut self, n: NodeId, core: Core, when: u64) {
        let Some(node) = self.nodes.get_mut(&n) else { return };
        if node.armed.get(&core) != Some(&when) {
            return;
        }
        node.armed.remove(&core);
        match core {
            Core::Office => self.office(n, crate::core::office::Event::Tick),
            Core::Coord => self.coord(n, crate::core::coord::Event::Tick),
            Core::Client => self.client(n, crate::core::client::Event::Tick),
        }
    }

    // ---- processes and clocks

    pub(super) fn proc(&mut self, n: NodeId) -> Option<&mut Proc> {
        self.nodes.get_mut(&n)?.proc.as_mut()
    }

    pub(super) fn is_up(&self, n: NodeId) -> bool {
        self.nodes[&n].proc.is_some()
    }

    /// Up, and its instructions run.
    pub(super) fn is_running(&self, n: NodeId) -> bool {
        self.is_up(n) && !self.nodes[&n].paused
    }

    /// A new process of this node.
    pub(super) fn start(&mut self, n: NodeId) {
        self.trace(|| format!("{n} starts"));
        let goes_on = self.leaving.get(&n).is_some_and(|l| l.left.is_some());
        let Some(node) = self.nodes.get_mut(&n) else { return };
        if goes_on {
            self.passed_on.push((n, node.process, node.process + 1));
        }
        node.process += 1;
        node.armed.clear();
        node.mail.clear();
        node.paused = false;
        let office = OfficeShell::new(self, n);
        if let Some(node) = self.nodes.get_mut(&n) {
            node.proc = Some(Proc { office, reign: None, client: None });
        }
        self.disk.process_started(n, self.setup.nexuses);
        self.office_begins(n);
        self.net_started(n);
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self, n: NodeId) {
        // Its holder goes with it: nobody goes on for it.
        self.leaving.remove(&n);
        self.ledgers.remove(&n);
        self.inside.remove(&n);
        if let Some(client) = self.client_is(n) {
            self.oracle.lockers_gone(client);
        }
        if self.ends(n) {
            let process = self.nodes[&n].process;
            self.killed.push((n, process));
            self.apps.insert(n, 0);
            self.doing.retain(|(m, _), _| *m != n);
        }
    }

    /// The end of a process, whatever becomes of its programs; false if there was none.
    pub(super) fn ends(&mut self, n: NodeId) -> bool {
        let Some(node) = self.nodes.get_mut(&n) else { return false };
        if node.proc.take().is_none() {
            return false;
        }
        node.paused = false;
        node.mail.clear();
        let process = node.process;
        self.trace(|| format!("{n} ends"));
        self.disk_process_died(n, process);
        self.net_died(n);
        true
    }

    /// SIGSTOP, or with its clock: a virtual machine is paused.
    pub(super) fn pause(&mut self, n: NodeId, clock_too: bool) {
        self.trace(|| format!("{n} is paused, clock too: {clock_too}"));
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&n) else { return };
        node.paused = true;
        if clock_too {
            node.stopped_at.get_or_insert(now);
        }
    }

    pub(super) fn resume(&mut self, n: NodeId) {
        self.clock_goes_on(n);
        let Some(node) = self.nodes.get_mut(&n) else { return };
        if !std::mem::replace(&mut node.paused, false) {
            return;
        }
        let mail = std::mem::take(&mut node.mail);
        self.trace(|| format!("{n} goes on, {} events late", mail.len()));
        for (process, act) in mail {
            self.after(0, move |w| w.deliver(n, process, act));
        }
    }

    pub(super) fn stop_clock(&mut self, n: NodeId) {
        let now = self.now;
        if let Some(node) = self.nodes.get_mut(&n) {
            node.stopped_at.get_or_insert(now);
        }
    }

    pub(super) fn clock_goes_on(&mut self, n: NodeId) {
        let now = self.now;
        if let Some(node) = self.nodes.get_mut(&n)
            && let Some(since) = node.stopped_at.take()
        {
            node.lag += now - since;
        }
    }

    // ---- tasks

    pub(super) fn spawn(&mut self, owner: Owner, body: impl Future<Output = ()> + 'static) {
        self.spawned.push((owner, Box::pin(body)));
    }

    /// A task of a node's present process.
    pub(super) fn spawn_at(&mut self, n: NodeId, body: impl Future<Output = ()> + 'static) {
        let owner = Some((n, self.nodes[&n].process));
        self.spawn(owner, body);
    }

    pub(super) fn wake_after(&mut self, n: NodeId, delay: u64, sender: Sender<()>) {
        self.at_node(n, delay, move |_| sender.send(()));
    }

    // ---- what is told

    pub(super) fn trace(&mut self, line: impl FnOnce() -> String) {
        let line = format!("{:>10.3} {}", self.now as f64 / 1e3, line());
        if self.setup.loud {
            println!("{line}");
        }
        if self.trace.len() >= TRACE {
            self.trace.pop_front();
        }
        self.trace.push_back(line);
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.trace.iter().cloned().collect()
    }

    pub(super) fn fault(&mut self, name: &str) {
        self.faults += 1;
        self.coverage.count("fault", name);
        self.trace(|| format!("fault: {name}"));
    }
}

pub(super) fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX / 4)
}

/// A world and its tasks, stepped.
pub(super) struct Sim {
    pub(super) world: Rc<RefCell<World>>,
    tasks: Tasks,
}

impl Sim {
    pub(super) fn new(world: Rc<RefCell<World>>) -> Sim {
        Sim { world, tasks: Tasks::default() }
    }

    /// The next thing happens, if it is due before `end` and no oracle has spoken.
    pub(super) fn step(&mut self, end: u64) -> bool {
        let act = {
            let mut w = self.world.borrow_mut();
            if w.oracle.violation.is_some() {
                return false;
            }
            let Some((at, _)) = w.queue.keys().next().copied().filter(|(at, _)| *at <= end) else {
                w.now = w.now.max(end);
                return false;
            };
            w.now = at;
            w.queue.pop_first().map(|(_, act)| act)
        };
        if let Some(act) = act {
            act(&mut self.world.borrow_mut());
        }
        self.settle();
        true
    }

    /// Polls what can go on.
    pub(super) fn settle(&mut self) {
        loop {
            let (spawned, killed) = {
                let mut w = self.world.borrow_mut();
                (std::mem::take(&mut w.spawned), std::mem::take(&mut w.killed))
            };
            for (node, from, to) in std::mem::take(&mut self.world.borrow_mut().passed_on) {
                self.tasks.pass_on(node, from, to);
            }
            for (node, process) in killed {
                self.tasks.kill(node, process);
            }
            for (owner, body) in spawned {
                let alive = |(n, p): (NodeId, u64)| {
                    let w = self.world.borrow();
                    w.nodes[&n].process == p && w.nodes[&n].proc.is_some()
                };
                if owner.is_none_or(alive) {
                    self.tasks.spawn(owner, body);
                }
            }
            if !self.tasks.poll_one() {
                return;
            }
        }
    }

    pub(super) fn run_for(&mut self, ms: u64) {
        let end = self.world.borrow().now + ms * MS;
        while self.step(end) {}
    }

    /// Runs until `done`, at most so long; false if it never came to that.
    pub(super) fn run_until(&mut self, ms: u64, done: impl Fn(&World) -> bool) -> bool {
        let end = self.world.borrow().now + ms * MS;
        loop {
            if done(&self.world.borrow()) {
                return true;
            }
            if !self.step(end) {
                return done(&self.world.borrow());
            }
        }
    }
}
