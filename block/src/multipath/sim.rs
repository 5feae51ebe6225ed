//! The core against a model disk with several ports, in virtual time, from a seed.
//!
//! **Modelled**: requests that stick in a target and land late, also after their path is gone; paths that are cut, fall
//! silent, come back, come back as another disk; port groups that change their state; fences that reach one nexus after
//! the other; proofs that succeed, fail, or come late; an owner that withdraws everything.
//! **Not modelled**: bytes, sizes, the shell.
//!
//! The oracles see the disk, the answers and what was issued; a rule that was taken out counts as found only if one speaks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use scsi::alua::AccessState;

use super::config::{Config, Now};
use super::core::{Core, State};
use super::event::{Access, Attempt, Effect, Event, Found, IoId, Kind, Outcome, PathId, Reason, Standing};
use super::rules::Rules;
use crate::error::IoErrorKind;
use crate::rng::Rng;

const PATHS: u16 = 3;
const BLOCKS: usize = 6;
/// Requests at once.
const BUSY: usize = 16;
/// Names of requests: few, so that they are soon used again.
const MAX_IO: u32 = 16;
/// Requests that may wait for a path.
const MAX_WAITING: usize = 6;
/// Faults happen so long; then everything must be answered.
const HURT_MS: u64 = 60_000;
const HEAL_MS: u64 = 60_000;
/// A request waits no longer than this while a path that it may take was well all the time.
const ANSWER_MS: u64 = 10_000;

/// How often each fault happens, in 1000 chances.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rates {
    pub(super) stick: u16,
    pub(super) cut: u16,
    pub(super) silence: u16,
    pub(super) group: u16,
    pub(super) other_disk: u16,
    pub(super) fence: u16,
    pub(super) no_proof: u16,
    pub(super) withdraw: u16,
}

impl Rates {
    pub(super) fn mixed() -> Rates {
        Rates { stick: 20, cut: 60, silence: 20, group: 40, other_disk: 200, fence: 1, no_proof: 200, withdraw: 5 }
    }
}

#[derive(Debug)]
enum Happening {
    Core(Event),
    /// An attempt is carried out at the disk.
    Lands(Attempt),
    Act,
    Fault,
    Restored(PathId),
}

#[derive(Clone, Copy, Debug)]
struct Sending {
    io: IoId,
    path: PathId,
    block: usize,
    /// The version written; 0 for a read.
    version: u64,
    to_other: bool,
    told: bool,
    landed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    block: usize,
    version: u64,
    floor: u64,
    since: u64,
}

#[derive(Clone, Copy, Debug)]
struct Port {
    cut: bool,
    silent: bool,
    other_disk: bool,
    fenced: bool,
    state: AccessState,
    well_since: u64,
}

pub(super) struct World {
    rng: Rng,
    rates: Rates,
    core: Core,
    now: u64,
    order: u64,
    due: BTreeMap<(u64, u64), Happening>,
    ports: Vec<Port>,
    sendings: BTreeMap<Attempt, Sending>,
    asked: BTreeMap<IoId, Asked>,
    disk: [u64; BLOCKS],
    acked: [u64; BLOCKS],
    issued: [u64; BLOCKS],
    /// Requests that met a conflict; versions that can no longer land by a withdrawal.
    conflicted: BTreeSet<IoId>,
    dead: BTreeSet<(usize, u64)>,
    /// When all was withdrawn, of which versions.
    withdrawing: Option<BTreeSet<(usize, u64)>>,
    pub(super) found: Option<String>,
    pub(super) counts: BTreeMap<String, u64>,
}

/// Runs a seed; what an oracle said, and how often what happened.
pub(super) fn run(seed: u64, rules: Rules, rates: Rates) -> World {
    let config = Config { rules, no_path: Duration::from_secs(10), max_waiting: MAX_WAITING, ..Config::default() };
    let well = Port {
        cut: false,
        silent: false,
        other_disk: false,
        fenced: false,
        state: AccessState::ActiveOptimized,
        well_since: 0,
    };
    let mut world = World {
        rng: Rng::new(seed),
        rates,
        core: Core::new(config),
        now: 0,
        order: 0,
        due: BTreeMap::new(),
        ports: vec![well; usize::from(PATHS)],
        sendings: BTreeMap::new(),
        asked: BTreeMap::new(),
        disk: [0; BLOCKS],
        acked: [0; BLOCKS],
        issued: [0; BLOCKS],
        conflicted: BTreeSet::new(),
        dead: BTreeSet::new(),
        withdrawing: None,
        found: None,
        counts: BTreeMap::new(),
    };
    (0..PATHS).for_each(|_| world.tell(Event::Add { worker: None }));
    world.after(1, Happening::Act);
    world.after(100, Happening::Fault);
    world.run();
    world
}

impl World {
    fn run(&mut self) {
        let end = (HURT_MS + HEAL_MS) * 1000;
        while self.found.is_none() && self.now < end {
            let tick = self.core.next_tick().map(|t| t.0.max(self.now + 1));
            let next = self.due.keys().next().copied();
            match (next, tick) {
                (Some((at, n)), tick) if tick.is_none_or(|t| at <= t) => {
                    self.now = at;
                    if let Some(h) = self.due.remove(&(at, n)) {
                        self.happen(h);
                    }
                }
                (_, Some(at)) => {
                    self.now = at;
                    self.tell(Event::Tick);
                }
                _ => break,
            }
            self.look();
        }
        if let Some((io, asked)) = self.asked.iter().next() {
            let said = format!("{io:?} {asked:?} is never answered");
            self.object("everything is answered", said);
        }
    }

    fn object(&mut self, oracle: &str, what: String) {
        self.found.get_or_insert_with(|| format!("{oracle}: {what}"));
    }

    fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    fn hurts(&self) -> bool {
        self.now < HURT_MS * 1000
    }

    fn after(&mut self, ms: u64, h: Happening) {
        let jitter = self.rng.below(900);
        self.order += 1;
        self.due.insert((self.now + ms * 1000 + jitter, self.order), h);
    }

    fn tell(&mut self, event: Event) {
        let mut fx = Vec::new();
        self.core.handle(Now(self.now), event, &mut fx);
        for effect in fx {
            self.apply(effect);
        }
    }

    fn happen(&mut self, h: Happening) {
        match h {
            Happening::Core(event) => {
                self.conflict(&event);
                self.tell(event);
            }
            Happening::Lands(attempt) => self.land(attempt),
            Happening::Act => self.act(),
            Happening::Fault => self.fault(),
            Happening::Restored(path) => self.restore(path),
        }
    }

    /// Remembers which request was told of a conflict over the path that it is on.
    fn conflict(&mut self, event: &Event) {
        let Event::Ended { io, attempt, outcome: Outcome::Fenced } = event else { return };
        let request = self.core.requests.get(io.0 as usize).and_then(Option::as_ref);
        if request.is_some_and(|r| matches!(r.state, State::Out { attempt: a, .. } if a == *attempt)) {
            self.count("conflict");
            self.conflicted.insert(*io);
        }
    }

    fn port(&mut self, path: PathId) -> &mut Port {
        &mut self.ports[usize::from(path.0)]
    }

    fn act(&mut self) {
        if !self.hurts() {
            return;
        }
        let calls = self.withdrawing.is_none() && self.asked.len() < BUSY;
        if calls && let Some(io) = (0..2 * MAX_IO).map(IoId).find(|io| !self.asked.contains_key(io)) {
            let block = self.rng.below(BLOCKS as u64) as usize;
            let busy = self.asked.values().any(|a| a.block == block && a.version > 0);
            let writes = self.rng.per_mille(600) && !busy;
            let mut version = 0;
            if writes {
                self.issued[block] += 1;
                version = self.issued[block];
            }
            let floor = self.acked[block];
            self.asked.insert(io, Asked { block, version, floor, since: self.now });
            let kind = if writes { Kind::Change } else { Kind::Free };
            let waiting = self.core.waiting();
            self.tell(Event::Submit { io, kind, len: 4096, worker: None });
            if waiting >= MAX_WAITING && self.core.waiting() > waiting {
                self.object("the queue is bounded", format!("{} wait", self.core.waiting()));
            }
        }
        let pause = 1 + self.rng.below(30);
        self.after(pause, Happening::Act);
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Issue { io, path, attempt, .. } => self.issue(io, path, attempt),
            Effect::Complete(io, result) => self.complete(io, result),
            Effect::Check(path) => self.check(path),
            Effect::Prove(path) => self.prove(path),
            // Nobody fences here.
            Effect::GiveBack(_) => {}
            Effect::Changed(_, state) => {
                let name = format!("{state}");
                self.count(format!("state: {}", name.split([':', ',']).next().unwrap_or_default()));
            }
            Effect::Withdrawn => {
                self.count("withdrawn");
                self.dead.extend(self.withdrawing.take().unwrap_or_default());
            }
        }
    }

    fn issue(&mut self, io: IoId, path: PathId, attempt: Attempt) {
        let Some(asked) = self.asked.get(&io).copied() else {
            return self.object("what is issued is asked for", format!("{io:?} on {path}"));
        };
        let port = *self.port(path);
        self.best_group(path);
        if self.conflicted.contains(&io) {
            self.object("a conflict is final", format!("{io:?} met a conflict and goes over {path}"));
        }
        let sending = Sending {
            io,
            path,
            block: asked.block,
            version: asked.version,
            to_other: port.other_disk,
            told: false,
            landed: false,
        };
        self.sendings.insert(attempt, sending);
        if port.cut {
            return self.end(attempt, Outcome::Doubt(IoErrorKind::NoPath), 1);
        }
        let sticks = self.hurts() && self.rng.per_mille(self.rates.stick);
        let pause = if sticks { 2_000 + self.rng.below(20_000) } else { self.rng.below(20) };
        if sticks {
            self.count("fault: stuck");
        }
        self.after(pause, Happening::Lands(attempt));
    }

    /// No request goes to a group that is known to be worse than another one that can be used.
    fn best_group(&mut self, path: PathId) {
        let rank = |p: &super::path::Path| p.rank(Rules::all());
        let chosen = self.core.paths.get(usize::from(path.0)).and_then(rank);
        let best = self.core.paths.iter().filter_map(rank).max();
        if !self.core.paths.get(usize::from(path.0)).is_some_and(super::path::Path::is_up) {
            self.object("only paths that are up are used", path.to_string());
        } else if chosen < best {
            self.object("the best group is used", format!("{path} of {chosen:?}, best is {best:?}"));
        }
    }

    fn end(&mut self, attempt: Attempt, outcome: Outcome, ms: u64) {
        if let Some(s) = self.sendings.get_mut(&attempt) {
            s.told = true;
            let event = Event::Ended { io: s.io, attempt, outcome };
            self.after(ms, Happening::Core(event));
        }
    }

    /// The target carries a sending out, if it still has it.
    fn land(&mut self, attempt: Attempt) {
        let Some(s) = self.sendings.get_mut(&attempt).filter(|s| !s.landed) else { return };
        s.landed = true;
        let s = *s;
        let port = *self.port(s.path);
        let accessible = matches!(port.state, AccessState::ActiveOptimized | AccessState::ActiveNonOptimized);
        let outcome = match () {
            () if port.fenced => Outcome::Fenced,
            () if !accessible => Outcome::NotAccessible,
            () => Outcome::Good,
        };
        if outcome == Outcome::Good && s.version > 0 {
            self.write(s);
        }
        if s.told {
            self.sendings.remove(&attempt);
        } else if !port.silent && !port.cut {
            self.end(attempt, outcome, 1);
            self.sendings.remove(&attempt);
        }
    }

    fn write(&mut self, s: Sending) {
        if s.to_other {
            return self.object("another disk is never written", format!("block {} over {}", s.block, s.path));
        }
        if self.dead.contains(&(s.block, s.version)) {
            return self.object("what was withdrawn is dead", format!("block {} version {}", s.block, s.version));
        }
        if self.acked[s.block] > s.version {
            let newer = self.acked[s.block];
            let said = format!("block {}: version {} lands after {newer} was acknowledged", s.block, s.version);
            return self.object("an older write never lands after a newer one", said);
        }
        self.disk[s.block] = s.version;
    }

    fn complete(&mut self, io: IoId, result: Result<(), IoErrorKind>) {
        let Some(asked) = self.asked.remove(&io) else {
            return self.object("each request ends once", format!("{io:?} {result:?}"));
        };
        self.conflicted.remove(&io);
        if asked.version == 0 && result.is_ok() && self.disk[asked.block] < asked.floor {
            self.object("reads see what was acknowledged", format!("{asked:?}"));
        }
        self.count(match result {
            Ok(()) => "good".to_owned(),
            Err(kind) => format!("failed: {kind:?}"),
        });
        if asked.version > 0 {
            if result.is_ok() {
                if self.disk[asked.block] < asked.version {
                    self.object("what is acknowledged is there", format!("{asked:?}"));
                }
                self.acked[asked.block] = asked.version;
            } else {
                // It may have landed; it must not any more, since a newer write may follow now.
                self.acked[asked.block] = self.acked[asked.block].max(self.disk[asked.block]);
                self.dead.insert((asked.block, asked.version));
            }
        }
        if result == Err(IoErrorKind::NoPath) {
            self.no_path_told(asked);
        }
    }

    /// NoPath only after the bound, or with the queue full; never while a port group changes its state within its time.
    fn no_path_told(&mut self, asked: Asked) {
        let well = |p: &Port| !p.cut && !p.silent && !p.other_disk && self.now > p.well_since + 10_000_000;
        let changing = |p: &Port| well(p) && p.state == AccessState::Transitioning;
        let waited = (self.now - asked.since) / 1000;
        if self.core.waiting() < MAX_WAITING && waited > 0 && self.ports.iter().all(changing) {
            self.object("transitions are waited for", format!("{asked:?} after {waited} ms"));
        }
    }

    fn check(&mut self, path: PathId) {
        let port = *self.port(path);
        let transition = Some(Duration::from_secs(60));
        let found = Found {
            standing: Standing(0),
            same_disk: !port.other_disk,
            access: Access { state: port.state, preferred: false, transition },
        };
        let (result, ms) = if port.fenced {
            (Err(Reason::Fenced), 2)
        } else if port.cut || port.silent {
            (Err(Reason::CheckFailed("no answer".into())), 500)
        } else {
            (Ok(found), 2)
        };
        self.after(ms, Happening::Core(Event::Checked { path, result }));
    }

    /// Kills what the target has of this path, from the path itself or from another.
    fn prove(&mut self, path: PathId) {
        let healthy = self.ports.iter().any(|p| !p.cut && !p.silent);
        let works = healthy && !(self.hurts() && self.rng.per_mille(self.rates.no_proof));
        self.count(if works { "proof" } else { "fault: no proof" });
        if works {
            let dead: Vec<Attempt> = self.sendings.iter().filter(|(_, s)| s.path == path).map(|(a, _)| *a).collect();
            for attempt in dead {
                let told = self.sendings.get(&attempt).is_some_and(|s| s.told);
                if !told {
                    let ms = self.rng.below(40);
                    self.end(attempt, Outcome::Dead, ms);
                }
                self.sendings.remove(&attempt);
            }
        }
        let ms = 5 + self.rng.below(300);
        self.after(ms, Happening::Core(Event::Proved { path, dead: works }));
    }

    fn fault(&mut self) {
        if !self.hurts() {
            (0..PATHS).for_each(|n| self.restore(PathId(n)));
            return;
        }
        let path = PathId(self.rng.below(u64::from(PATHS)) as u16);
        let rates = self.rates;
        if self.rng.per_mille(rates.cut) {
            self.count("fault: cut");
            let other = self.rng.per_mille(rates.other_disk);
            *self.port(path) = Port { cut: true, other_disk: other, ..*self.port(path) };
            self.cut(path);
            let ms = 100 + self.rng.below(8_000);
            self.after(ms, Happening::Restored(path));
        }
        if self.rng.per_mille(rates.silence) {
            self.count("fault: silence");
            self.port(path).silent = true;
            let ms = 1_000 + self.rng.below(12_000);
            self.after(ms, Happening::Restored(path));
        }
        if self.rng.per_mille(rates.group) {
            self.count("fault: group");
            let states = [AccessState::ActiveNonOptimized, AccessState::Standby, AccessState::Transitioning];
            let state = states[self.rng.below(3) as usize];
            if self.rng.per_mille(300) {
                self.ports.iter_mut().for_each(|p| p.state = state);
            } else {
                self.port(path).state = state;
            }
            let ms = 500 + self.rng.below(25_000);
            self.after(ms, Happening::Restored(path));
        }
        if self.rng.per_mille(rates.fence) {
            self.count("fault: fence");
            self.port(path).fenced = true;
        }
        if self.rng.per_mille(rates.withdraw) && self.withdrawing.is_none() {
            self.count("fault: withdraw");
            let writes = self.asked.values().filter(|a| a.version > 0).map(|a| (a.block, a.version));
            self.withdrawing = Some(writes.collect());
            self.tell(Event::Withdraw);
        }
        self.after(100, Happening::Fault);
    }

    /// What is under way on a cut path comes back without an answer; the target still has some of it.
    fn cut(&mut self, path: PathId) {
        let on: Vec<Attempt> =
            self.sendings.iter().filter(|(_, s)| s.path == path && !s.told).map(|(a, _)| *a).collect();
        for attempt in on {
            self.end(attempt, Outcome::Doubt(IoErrorKind::NoPath), 1);
            if self.rng.per_mille(500) {
                self.sendings.remove(&attempt);
            }
        }
        // Whoever comes back as another disk was gone before, and the session has told.
        if self.port(path).other_disk || self.rng.per_mille(500) {
            let reason = Reason::Lost("cut".into());
            self.after(1, Happening::Core(Event::Lost { path, reason }));
        }
    }

    fn restore(&mut self, path: PathId) {
        let hurts = self.hurts();
        let now = self.now;
        let port = self.port(path);
        (port.cut, port.silent) = (false, false);
        port.other_disk &= hurts;
        port.state = AccessState::ActiveOptimized;
        port.fenced &= hurts;
        port.well_since = now;
        // The disk behind it is exchanged back only while nothing uses it.
        if port.other_disk && hurts && self.rng.per_mille(500) {
            self.after(3_000, Happening::Restored(path));
            *self.port(path) = Port { other_disk: false, cut: true, ..*self.port(path) };
            self.cut(path);
        }
    }

    /// A request that could have been answered over a path that was well all the time waits too long.
    fn look(&mut self) {
        let limit = ANSWER_MS * 1000;
        let well = |p: &Port| {
            let here = !p.cut && !p.silent && !p.other_disk && !p.fenced;
            here && p.state == AccessState::ActiveOptimized && self.now - p.well_since > 3 * limit
        };
        if !self.ports.iter().any(well) {
            return;
        }
        let late = self.asked.iter().find(|(_, a)| a.version == 0 && self.now.saturating_sub(a.since) > limit);
        if let Some((io, asked)) = late {
            let said = format!("{io:?} {asked:?}");
            self.object("a read does not wait while a path is well", said);
        }
    }
}
