//! A run: time, faults, and who does what when.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::disk::{Disk, Violation};
use super::host::{Host, Next};
use super::rng::Rng;
use super::target::{Around, Target};
use super::wire::{Happening, Pdu};
use crate::chap::Entropy;
use crate::discovery::Portal;
use crate::ids::Isid;
use crate::keys::params::Offer;
use crate::login::{Kind, LoginConfig};
use crate::session::rules::Rules;
use crate::session::{Body, Cause, Config, ConnId, Effect, Event, FenceGen, Now, Place, Session, Timing};

/// Virtual milliseconds with faults.
pub const HURT: u64 = 30_000;
/// Virtual milliseconds in which everything must be answered afterwards.
const HEAL: u64 = 90_000;
/// Events of a run: ten times what the busiest has; more is a livelock.
const MOST: u64 = 400_000;

/// How often each fault happens, in a thousandth of its occasions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    pub(super) stick: u64,
    pub(super) cut: u64,
    pub(super) hush: u64,
    pub(super) reset: u64,
    pub(super) drop_status: u64,
    pub(super) drop_data: u64,
    pub(super) reorder: u64,
    pub(super) bad_r2t: u64,
    pub(super) close_window: u64,
    pub(super) busy: u64,
    pub(super) silence: u64,
    pub(super) login_silence: u64,
    pub(super) login_refused: u64,
    pub(super) redirect: u64,
    pub(super) ping: u64,
    pub(super) asynchronous: u64,
    pub(super) terminate: u64,
    pub(super) nonsense: u64,
    pub(super) abort_silence: u64,
    pub(super) abort_refused: u64,
    pub(super) late: u64,
    pub(super) fence: u64,
    pub(super) other_swap: u64,
    pub(super) owner_aborts: u64,
}

impl Rates {
    /// A bit of everything.
    pub fn mixed() -> Rates {
        Rates {
            stick: 15,
            cut: 60,
            hush: 30,
            reset: 60,
            drop_status: 1,
            drop_data: 4,
            reorder: 3,
            bad_r2t: 3,
            close_window: 20,
            busy: 20,
            silence: 100,
            login_silence: 20,
            login_refused: 30,
            redirect: 100,
            ping: 100,
            asynchronous: 6,
            terminate: 6,
            nonsense: 6,
            abort_silence: 150,
            abort_refused: 150,
            late: 300,
            fence: 60,
            other_swap: 200,
            owner_aborts: 5,
        }
    }
}

/// A run to be.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Its chance.
    pub seed: u64,
    /// The rules in force.
    pub rules: Rules,
    /// Its faults.
    pub rates: Rates,
    /// The target does nothing that could hurt: no abort, no lost connection is to be seen.
    pub calm: bool,
    /// Print every event.
    pub loud: bool,
}

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing was found.
    Good,
    /// An oracle spoke.
    Violated(Violation),
    /// An assertion of the session failed.
    Panicked(String),
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub verdict: Verdict,
    /// Events.
    pub events: u64,
    /// Faults, answers and reports by name.
    pub counts: BTreeMap<String, u64>,
    /// All faults.
    pub faults: u64,
}

/// Runs one.
pub fn run_seed(plan: Plan) -> Outcome {
    let mut world = World::new(plan);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let verdict = match (world.disk.violation.take(), result) {
        (Some(v), _) => Verdict::Violated(v),
        (None, Ok(())) => Verdict::Good,
        (None, Err(panic)) => {
            let text = panic.downcast_ref::<String>().cloned();
            Verdict::Panicked(
                text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default(),
            )
        }
    };
    let faults = world.faults.values().sum();
    let mut counts: BTreeMap<String, u64> = world.counts;
    counts.extend(world.faults.iter().map(|(k, n)| (format!("fault: {k}"), *n)));
    counts.extend(world.host.outcomes.iter().map(|(k, n)| (format!("outcome: {k}"), *n)));
    Outcome { verdict, events: world.events, counts, faults }
}

/// One end's view of a connection.
#[derive(Debug, Default)]
struct Path {
    open: bool,
    /// PDUs vanish.
    cut: bool,
    /// When the last PDU to the target, to the host, arrives.
    last: [u64; 2],
}

struct World {
    plan: Plan,
    now: u64,
    events: u64,
    order: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    rng: Rng,
    disk: Disk,
    host: Host,
    target: Target,
    session: Session,
    paths: BTreeMap<ConnId, Path>,
    nexus: u64,
    /// The nexus that was proved last.
    proved: u64,
    ended: bool,
    tick_at: Option<u64>,
    faults: BTreeMap<&'static str, u64>,
    counts: BTreeMap<String, u64>,
}

impl World {
    fn new(plan: Plan) -> World {
        let mut rng = Rng::new(plan.seed);
        let target = Target::new(&mut rng);
        let kind = Kind::Normal { target: "iqn.2026-01.test:t1".into() };
        let mut login = LoginConfig::new("iqn.2026-01.test:host", Isid::from_number(1, 1), kind);
        login.offer = Offer {
            initial_r2t: rng.permille(500),
            immediate_data: rng.permille(700),
            max_recv_segment: rng.pick(&[512, 1024, 4096, 8192]),
            first_burst: rng.pick(&[512, 2048, 8192]),
            max_burst: rng.pick(&[2048, 8192]),
            ..Offer::default()
        };
        let mut config = Config::new(login, Portal { host: "portal-0".into(), port: 3260 });
        config.rules = plan.rules;
        config.timing = Timing {
            connect: Duration::from_secs(1),
            login: Duration::from_secs(2),
            ping_after: Duration::from_secs(1),
            ping_timeout: Duration::from_secs(1),
            task: Duration::from_secs(2),
            abort: Duration::from_secs(1),
            reset: Duration::from_secs(1),
            logout: Duration::from_secs(1),
            stable: Duration::from_millis(20),
            ..Timing::default()
        };
        World {
            plan,
            now: 0,
            events: 0,
            order: 0,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            rng,
            disk: Disk::new(),
            host: Host::new(),
            target,
            session: Session::new(config),
            paths: BTreeMap::new(),
            nexus: 0,
            proved: 0,
            ended: false,
            tick_at: None,
            faults: BTreeMap::new(),
            counts: BTreeMap::new(),
        }
    }

    fn run(&mut self) {
        self.tell(Event::Open);
        for h in [Happening::App, Happening::Whim, Happening::Fault] {
            self.later(1, h);
        }
        while !self.is_over() {
            let Some(Reverse((at, order))) = self.queue.pop() else { break };
            let Some(happening) = self.happenings.remove(&order) else { continue };
            self.now = at;
            self.events += 1;
            if self.plan.loud {
                println!("{at:>6} {happening:?}");
            }
            self.happen(happening);
            if self.events > MOST {
                self.disk.object("Ends", format!("more than {MOST} events: it spins"));
            }
        }
        self.end();
    }

    fn is_over(&self) -> bool {
        let done = self.now > HURT && self.host.outstanding() == 0;
        self.disk.violation.is_some() || done || self.ended || self.now > HURT + HEAL
    }

    /// Faults are over: everything is answered, and the session closes.
    fn end(&mut self) {
        if self.disk.violation.is_some() {
            return;
        }
        if self.host.outstanding() > 0 {
            let what = format!("{} tasks have no answer {HEAL} ms after the last fault", self.host.outstanding());
            return self.disk.object("EachEnds", what);
        }
        self.tell(Event::Close);
        let by = self.now + 20_000;
        while !self.ended && self.now < by && self.disk.violation.is_none() {
            let Some(Reverse((at, order))) = self.queue.pop() else { break };
            let Some(happening) = self.happenings.remove(&order) else { continue };
            self.now = at;
            self.happen(happening);
        }
        if !self.ended {
            self.disk.object("Ends", "the session does not end when it is closed".into());
        }
    }

    fn later(&mut self, delay: u64, happening: Happening) {
        self.at(self.now + delay, happening);
    }

    fn at(&mut self, at: u64, happening: Happening) {
        self.order += 1;
        self.queue.push(Reverse((at, self.order)));
        self.happenings.insert(self.order, happening);
    }

    fn hurts(&self) -> bool {
        self.now <= HURT
    }

    /// Lets the target do something.
    fn target(&mut self, work: impl FnOnce(&mut Target, &mut Around<'_>)) {
        let mut out = Vec::new();
        let rates = if self.hurts() { self.plan.rates } else { Rates::default() };
        let mut around =
            Around { rng: &mut self.rng, disk: &mut self.disk, out: &mut out, rates, done: &mut self.faults };
        work(&mut self.target, &mut around);
        for (delay, happening) in out {
            match &happening {
                Happening::AtHost(conn, _) => {
                    let at = self.in_order(*conn, 1, delay);
                    self.at(at, happening);
                }
                _ => self.later(delay, happening),
            }
        }
    }

    /// When something sent now arrives: never before what was sent earlier.
    fn in_order(&mut self, conn: ConnId, way: usize, delay: u64) -> u64 {
        let path = self.paths.entry(conn).or_default();
        path.last[way] = path.last[way].max(self.now + delay);
        path.last[way]
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::AtTarget(conn, pdu) => {
                if !self.paths.get(&conn).is_some_and(|p| p.cut) {
                    self.target(|t, a| t.take(conn, &pdu, a));
                }
            }
            Happening::AtHost(conn, pdu) => self.at_host(conn, pdu),
            Happening::Connected(conn, portal) => self.connected(conn, portal),
            Happening::Closed(conn) => self.tell(Event::Lost { conn, cause: Cause::Closed }),
            Happening::Late(conn, itt, len) => self.target(|t, a| t.late(conn, itt, len, a)),
            Happening::Execute(number) => self.target(|t, a| t.execute(number, a)),
            Happening::Prove(nexus) if nexus == self.nexus && nexus != self.proved => {
                match self.host.register(nexus) {
                    Some(command) => self.tell(Event::Submit(command)),
                    // The proof of an older nexus is not ended yet.
                    None => self.later(10, Happening::Prove(nexus)),
                }
            }
            Happening::Preempt(nexus) if nexus == self.nexus && self.session.landing() => {
                match self.host.preempt(nexus) {
                    Some(command) => self.tell(Event::Submit(command)),
                    None => self.later(50, Happening::Preempt(nexus)),
                }
            }
            Happening::Prove(_) | Happening::Preempt(_) => {}
            Happening::Tick => {
                if self.tick_at.is_some_and(|t| t <= self.now) {
                    self.tick_at = None;
                    self.tell(Event::Tick);
                }
            }
            Happening::App => self.application(),
            Happening::HearFence(generation) => self.hear(generation),
            Happening::Whim => {
                self.target(|t, a| t.whim(a));
                self.later(50, Happening::Whim);
            }
            Happening::Fault => self.fault(),
        }
    }

    fn application(&mut self) {
        if !self.hurts() {
            return;
        }
        if let Some(command) = self.host.act(&mut self.rng, &self.disk) {
            self.tell(Event::Submit(command));
        }
        if self.rng.permille(self.plan.rates.owner_aborts)
            && let Some(task) = self.host.any(&mut self.rng)
        {
            *self.faults.entry("owner aborts").or_default() += 1;
            self.tell(Event::Abort(task));
        }
        if self.plan.rates.owner_aborts > 0 && self.rng.permille(self.plan.rates.owner_aborts / 4) {
            *self.faults.entry("owner gives the path up").or_default() += 1;
            self.tell(Event::GiveUp);
        }
        let pause = 1 + self.rng.below(20);
        self.later(pause, Happening::App);
    }

    fn connected(&mut self, conn: ConnId, ok: bool) {
        if !ok {
            return self.tell(Event::Lost { conn, cause: Cause::Connect });
        }
        if !self.paths.get(&conn).is_some_and(|p| p.open) {
            return;
        }
        let mut challenge = [0; 16];
        challenge[..8].copy_from_slice(&self.rng.next().to_be_bytes());
        self.tell(Event::Connected { conn, entropy: Entropy { identifier: 1, challenge } });
    }

    fn at_host(&mut self, conn: ConnId, pdu: Pdu) {
        if !self.paths.get(&conn).is_some_and(|p| p.open && !p.cut) {
            return;
        }
        let place = self.session.place(&pdu.bhs);
        let mut data: &[u8] = &pdu.data;
        if let Place::Task { task, offset } = place {
            if !self.host.put(task, offset, &pdu.data) {
                self.disk.object("PlaceInMemory", format!("data at {offset} of {task:?} lie outside its memory"));
            }
            data = &[];
        }
        self.tell(Event::Pdu { conn, bhs: pdu.bhs, data, intact: true });
    }

    fn hear(&mut self, generation: u64) {
        if generation > self.host.generation {
            self.host.generation = generation;
            self.tell(Event::Fenced(FenceGen(generation)));
        }
    }

    /// What happens around host and target, every 100 ms.
    fn fault(&mut self) {
        if !self.hurts() {
            return;
        }
        let rates = self.plan.rates;
        let current = self.paths.iter().rev().find(|(_, p)| p.open).map(|(c, _)| *c);
        if let Some(conn) = current {
            if self.chance("cut", rates.cut) {
                self.paths.entry(conn).or_default().cut = true;
                self.later(5, Happening::Closed(conn));
            } else if self.chance("hushed", rates.hush) {
                self.paths.entry(conn).or_default().cut = true;
            } else if self.chance("reset by the target", rates.reset) {
                self.target.forget_conn(conn);
                let at = self.in_order(conn, 1, 1);
                self.at(at, Happening::Closed(conn));
            }
        }
        if self.chance("fence", rates.fence) {
            self.disk.generation += 1;
            self.target.preempt();
            let generation = self.disk.generation;
            let delay = self.rng.below(2_000);
            self.later(delay, Happening::HearFence(generation));
        }
        if self.chance("swap by another", rates.other_swap) {
            let (old, new) = (self.disk.nonce, (1 << 40) + self.events);
            self.disk.compare_and_write(old, new, None);
        }
        self.later(100, Happening::Fault);
    }

    fn chance(&mut self, name: &'static str, permille: u64) -> bool {
        let is = self.rng.permille(permille);
        if is {
            *self.faults.entry(name).or_default() += 1;
        }
        is
    }

    /// Gives the session an event, and does what it wants.
    fn tell(&mut self, event: Event<'_>) {
        let mut fx = Vec::new();
        self.session.handle(Now(self.now), event, &mut fx);
        let mut next = std::collections::VecDeque::from(fx);
        while let Some(effect) = next.pop_front() {
            self.count(&effect);
            let mut more = Vec::new();
            self.apply(effect, &mut more);
            next.extend(more);
        }
        if let Some(at) = self.session.next_tick()
            && self.tick_at.is_none_or(|t| at.0 < t)
        {
            self.tick_at = Some(at.0.max(self.now));
            self.at(at.0.max(self.now), Happening::Tick);
        }
    }

    fn count(&mut self, effect: &Effect) {
        let text = format!("{effect:?}");
        let end = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
        let head = &text[..end];
        let name = match effect {
            Effect::Report(r) => {
                let text = format!("{r:?}");
                let end = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
                format!("report: {}", &text[..end])
            }
            Effect::Down(cause) => format!("down: {cause}"),
            _ => format!("effect: {head}"),
        };
        if self.plan.loud && !matches!(effect, Effect::Send { .. }) {
            println!("       -> {effect:?}");
        }
        let calm = self.plan.calm && (name.starts_with("down") || name == "report: Aborting");
        if calm && !matches!(effect, Effect::Down(Cause::ClosedHere)) {
            self.disk.object("CalmIsQuiet", format!("nothing is wrong with the target, and yet: {name}"));
        }
        *self.counts.entry(name).or_default() += 1;
    }

    fn apply(&mut self, effect: Effect, more: &mut Vec<Effect>) {
        match effect {
            Effect::Connect { conn, portal } => {
                let to = u16::from(portal.host == "portal-1");
                self.paths.insert(conn, Path { open: true, ..Path::default() });
                self.target.accept(conn, to, &mut self.rng);
                let delay = 1 + self.rng.below(5);
                self.later(delay, Happening::Connected(conn, true));
            }
            Effect::Send { conn, bhs, body } => self.send(conn, bhs, body),
            Effect::Opened { .. } | Effect::Report(_) | Effect::Down(_) | Effect::Text(_) | Effect::UnitReset(..) => {}
            Effect::Disconnect(conn) => {
                if let Some(path) = self.paths.get_mut(&conn) {
                    path.open = false;
                }
            }
            Effect::Done(task, outcome) => {
                let next = self.host.ended(task, &outcome, self.nexus, &mut self.disk);
                next.into_iter().for_each(|n| self.go_on(n, more));
            }
            Effect::Settle(task) => {
                let command = self.host.settle(task);
                self.session.handle(Now(self.now), Event::Submit(command), more);
            }
            Effect::Up { nexus, .. } => {
                self.nexus = nexus;
                self.proved = 0;
                match self.host.register(nexus) {
                    Some(command) => self.session.handle(Now(self.now), Event::Submit(command), more),
                    None => self.later(10, Happening::Prove(nexus)),
                }
            }
            Effect::Ended(_) => {
                self.ended = true;
                if self.host.outstanding() > 0 {
                    self.disk.object("EachEnds", "the session ends and keeps tasks".into());
                }
            }
        }
    }

    fn go_on(&mut self, next: Next, more: &mut Vec<Effect>) {
        let now = Now(self.now);
        match next {
            Next::Nothing => {}
            Next::Submit(command) => self.session.handle(now, Event::Submit(command), more),
            Next::Proved(nexus, generation) => {
                let event = Event::Proved { nexus, generation: FenceGen(generation) };
                self.session.handle(now, event, more);
                self.proved = nexus;
                self.later(100, Happening::Preempt(nexus));
            }
            Next::Preempted => self.session.handle(now, Event::Preempted, more),
            Next::PreemptLater(nexus) => self.later(50, Happening::Preempt(nexus)),
            Next::Settled(task, found) => self.session.handle(now, Event::Settled { task, found }, more),
            Next::Unregistered => {
                // The conflict may be an answer on an older nexus; the session knows its own by then.
                let nexus = self.nexus;
                self.session.handle(now, Event::Unregistered { nexus }, more);
            }
            Next::ProveLater(nexus) => self.later(50, Happening::Prove(nexus)),
        }
    }

    fn send(&mut self, conn: ConnId, bhs: crate::pdu::Bhs, body: Body) {
        let data = match body {
            Body::Empty => Vec::new(),
            Body::Inline(bytes) => bytes,
            Body::Task { task, offset, len } => match self.host.bytes(task, offset, len) {
                Some(bytes) => bytes,
                None => {
                    let what = format!("{len} bytes at {offset} of {task:?} are sent and lie outside its memory");
                    return self.disk.object("R2tWithinTask", what);
                }
            },
        };
        if bhs.data_segment() as usize != data.len() {
            return self.disk.object("Wire", "a header whose length is not its data's".into());
        }
        let delay = 1 + self.rng.below(3);
        let at = self.in_order(conn, 0, delay);
        self.at(at, Happening::AtTarget(conn, Pdu { bhs, data }));
    }
}
