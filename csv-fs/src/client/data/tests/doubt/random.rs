//! Random writes whose answers are lost, while others write beside and over them: what the programs of two nodes are told and shown is
//! one history, byte by byte.
//!
//! Of every byte at which a write begins or ends, and of those before and in the middle, it is asked whether a register could have
//! answered like that ([`history::register`]): so a write that is undone, done twice, or answered and never done is found wherever
//! somebody looked.
//!
//! `SHOREFAST_DOUBT_SEEDS=N`: so many runs; `SHOREFAST_DOUBT_SEED=S`: the run of this seed alone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use history::event::{Event, Nanos, Op, Outcome};
use history::register;
use history::worker::Chance;
use parking_lot::Mutex;

use super::super::rig::*;
use super::{WITHOUT, marked};
use crate::client::data::OpenFile;
use crate::core::client::Route;

/// Doubtful writes of a run.
const ROUNDS: u64 = 8;
/// Runs, if nothing else is said.
const SEEDS: u64 = 48;
/// No file is longer.
const LONGEST: u64 = 96 << 10;

/// How the answer of a write comes to be lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Doubt {
    /// The path takes it along; the write is executed, or it has read what lies around it.
    Executed,
    /// The path takes it along, and the write too.
    Unexecuted,
    /// The coordinator does, over which it went.
    Redirected,
}

/// What a program did.
#[derive(Clone, Debug)]
enum Did {
    Wrote { at: u64, len: u64, value: u8 },
    Read(Vec<u8>),
}

struct Call {
    node: u8,
    start: Nanos,
    end: Nanos,
    did: Did,
}

/// What everybody did.
struct Calls {
    began: Instant,
    all: Mutex<Vec<Call>>,
}

impl Calls {
    fn now(&self) -> Nanos {
        self.began.elapsed().as_nanos() as Nanos
    }

    fn add(&self, node: u8, start: Nanos, did: Did) {
        let call = Call { node, start, end: self.now(), did };
        self.all.lock().push(call);
    }

    /// Writes a value that nobody else writes.
    async fn write(&self, node: &Node, file: &Arc<OpenFile>, (at, len): (u64, u64), value: u8) {
        let start = self.now();
        node.write(file, at, &vec![value; len as usize]).await;
        self.add(number(node), start, Did::Wrote { at, len, value });
    }

    async fn read(&self, node: &Node, file: &Arc<OpenFile>) {
        let start = self.now();
        let data = node.read(file, 0, LONGEST as u32).await;
        self.add(number(node), start, Did::Read(data));
    }

    /// The calls as those of a register, for one byte.
    fn of_byte(&self, byte: u64) -> Vec<Event> {
        let all = self.all.lock();
        let told = |call: &Call| {
            let (op, outcome) = match &call.did {
                Did::Wrote { at, len, value } if (*at..at + len).contains(&byte) => {
                    (Op::Write { block: byte, value: u64::from(*value) }, Outcome::Done)
                }
                Did::Wrote { .. } => return None,
                Did::Read(data) => {
                    let value = data.get(byte as usize).copied().unwrap_or(0);
                    (Op::Read { block: byte }, Outcome::Value(u64::from(value)))
                }
            };
            let object = format!("byte {byte}");
            Some(Event { process: 0, node: call.node, object, op, start: call.start, end: call.end, outcome })
        };
        all.iter().filter_map(told).collect()
    }

    /// The first byte that no register could be.
    fn judge(&self) -> Result<(), String> {
        let mut bytes = BTreeSet::from([0, LONGEST - 1]);
        let mut edges: Vec<u64> = Vec::new();
        for call in &*self.all.lock() {
            if let Did::Wrote { at, len, .. } = call.did {
                edges.extend([at, at + len]);
            }
        }
        edges.sort_unstable();
        edges.dedup();
        bytes.extend(edges.iter().flat_map(|e| [e.saturating_sub(1), *e]));
        bytes.extend(edges.windows(2).map(|pair| (pair[0] + pair[1]) / 2));
        for byte in bytes {
            let events = self.of_byte(byte);
            register::check(&events.iter().collect::<Vec<_>>()).map_err(|e| format!("byte {byte}: {e:?}"))?;
        }
        Ok(())
    }
}

fn number(node: &Node) -> u8 {
    node.session.client().node.get()
}

/// Two nodes with one file, and what they did to it.
struct World {
    cluster: Cluster,
    chance: Chance,
    calls: Arc<Calls>,
    a: Arc<Node>,
    b: Arc<Node>,
    at_a: Arc<OpenFile>,
    at_b: Arc<OpenFile>,
    value: u8,
    /// Doubtful writes that were not answered before their answer was lost.
    in_doubt: u64,
}

impl World {
    async fn new(seed: u64, lacking: Lacking) -> World {
        let cluster = Cluster::lacking(lacking).await;
        let (a, b) = (Arc::new(cluster.node(1)), Arc::new(cluster.node(2)));
        let calls = Arc::new(Calls { began: Instant::now(), all: Mutex::default() });
        let mut chance = Chance(seed);
        let at_a = a.create("f").await;
        let len = [1024, 5000, 65_536, 70_001][chance.below(4) as usize];
        calls.write(&a, &at_a, (0, len), 1).await;
        a.fsync(&at_a).await;
        let at_b = b.open(at_a.ino()).await;
        World { cluster, chance, calls, a, b, at_a, at_b, value: 1, in_doubt: 0 }
    }

    fn value(&mut self) -> u8 {
        self.value = self.value.checked_add(1).expect("fewer writes than values");
        self.value
    }

    /// Somewhere in the first blocks, or at the end: whole blocks, sectors, some bytes, over the edges of blocks, and behind the end.
    fn place(&mut self, end: u64) -> (u64, u64) {
        let c = &mut self.chance;
        let (at, len) = match c.below(6) {
            0 => (c.below(3) * 4096, 4096),
            1 => (c.below(3) * 4096, 8192),
            2 => (c.below(24) * 512, 512 * (1 + c.below(4))),
            3 => (c.below(12_000), 1 + c.below(700)),
            4 => (4096 - c.below(300), 100 + c.below(5000)),
            _ => (end.saturating_sub(c.below(600)), 1 + c.below(2000)),
        };
        (at, len.min(LONGEST - at))
    }

    async fn length(&mut self) -> u64 {
        self.b.attr(self.at_b.ino()).await.size
    }

    /// One write of the first node comes to be in doubt while the second one writes and looks.
    async fn round(&mut self) {
        let kind = [Doubt::Executed, Doubt::Unexecuted, Doubt::Redirected][self.chance.below(3) as usize];
        let end = self.length().await;
        // Rights that both have, mostly.
        for _ in 0..2 {
            let (value, other) = (self.value(), self.value());
            let (mine, theirs) = (self.place(end), self.place(end));
            self.calls.write(&self.a, &self.at_a, mine, value).await;
            self.calls.write(&self.b, &self.at_b, theirs, other).await;
        }
        let stuck = self.begin(kind, end).await;
        let beside = self.beside(end);
        let own = (self.value(), self.place(end));
        if kind == Doubt::Executed && !stuck.is_finished() && self.chance.below(3) == 0 {
            self.a.below.pass();
            let (calls, a, at_a) = (Arc::clone(&self.calls), Arc::clone(&self.a), Arc::clone(&self.at_a));
            let again = tokio::spawn(async move { calls.write(&a, &at_a, own.1, own.0).await });
            self.lose(kind, beside).await;
            again.await.expect("another program's write");
        } else {
            self.lose(kind, beside).await;
        }
        tokio::time::timeout(SOON, stuck).await.expect("in time").expect("the write in doubt");
        self.a.fault.heal();
        self.a.session.force_redirect(false);
        self.a.routed(Route::Direct).await;
        for (node, file) in [(&self.a, &self.at_a), (&self.b, &self.at_b)] {
            self.calls.read(node, file).await;
        }
    }

    /// The write, until its answer is missing (or it was answered all the same).
    async fn begin(&mut self, kind: Doubt, end: u64) -> tokio::task::JoinHandle<()> {
        let (value, place) = (self.value(), self.place(end));
        match kind {
            Doubt::Executed => self.a.below.keep(),
            Doubt::Unexecuted => self.a.fault.hang(),
            Doubt::Redirected => {
                self.a.session.force_redirect(true);
                self.a.routed(Route::BlockRedirected).await;
                *self.a.fate.lock() = Fate::WriteLostWithCoordinator;
            }
        }
        let (calls, a, at_a) = (Arc::clone(&self.calls), Arc::clone(&self.a), Arc::clone(&self.at_a));
        let write = tokio::spawn(async move { calls.write(&a, &at_a, place, value).await });
        let missing = || match kind {
            Doubt::Executed => self.a.below.kept() > 0,
            Doubt::Unexecuted => self.a.fault.held() > 0,
            Doubt::Redirected => *self.a.fate.lock() == Fate::Arrives,
        };
        until(|| missing() || write.is_finished()).await;
        if !write.is_finished() {
            self.in_doubt += 1;
            marked(&self.b, &self.a).await;
        }
        write
    }

    /// What the second node does meanwhile: it may have to wait for the first.
    fn beside(&mut self, end: u64) -> tokio::task::JoinHandle<()> {
        let (calls, b, at_b) = (Arc::clone(&self.calls), Arc::clone(&self.b), Arc::clone(&self.at_b));
        let writes: Vec<_> = (0..1 + self.chance.below(3)).map(|_| (self.value(), self.place(end))).collect();
        let looks = self.chance.below(2) == 0;
        tokio::spawn(async move {
            if looks {
                calls.read(&b, &at_b).await;
            }
            for (value, place) in writes {
                calls.write(&b, &at_b, place, value).await;
                calls.read(&b, &at_b).await;
            }
        })
    }

    async fn lose(&mut self, kind: Doubt, beside: tokio::task::JoinHandle<()>) {
        tokio::time::sleep(Duration::from_millis(self.chance.below(60))).await;
        match kind {
            Doubt::Executed => {
                self.a.fault.hang();
                self.a.below.answer();
            }
            Doubt::Unexecuted => {}
            // The answer was not lost if the write did not go over the coordinator.
            Doubt::Redirected if self.cluster.is_dead() => self.cluster.take_office(4).await,
            Doubt::Redirected => *self.a.fate.lock() = Fate::Arrives,
        }
        tokio::time::timeout(SOON, beside).await.expect("in time").expect("the other node's calls");
    }
}

/// A run; how many writes were in doubt, or what no register could have answered.
async fn run(seed: u64, lacking: Lacking) -> Result<u64, String> {
    let mut world = World::new(seed, lacking).await;
    for round in 0..ROUNDS {
        world.round().await;
        world.calls.judge().map_err(|e| format!("seed {seed}, round {round}: {e}"))?;
    }
    world.cluster.must_be_sound().await?;
    Ok(world.in_doubt)
}

async fn must_be_one_history(seeds: &[u64]) {
    let mut in_doubt = 0;
    // Most of a run is waiting.
    for some in seeds.chunks(40) {
        let runs: Vec<_> = some.iter().map(|seed| (seed, tokio::spawn(run(*seed, Lacking::Nothing)))).collect();
        for (seed, run) in runs {
            let done = run.await.unwrap_or_else(|e| Err(format!("seed {seed}: {e}")));
            in_doubt += done.unwrap_or_else(|e| panic!("{e}"));
        }
    }
    println!("{} seeds, {in_doubt} writes in doubt", seeds.len());
    assert!(in_doubt >= seeds.len() as u64 * ROUNDS / 2, "too few");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d39_random_writes_in_doubt_are_one_history_byte_by_byte() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let seeds = number("SHOREFAST_DOUBT_SEEDS").unwrap_or(SEEDS);
    let seeds = number("SHOREFAST_DOUBT_SEED").map_or_else(|| (1..=seeds).collect(), |seed| vec![seed]);
    must_be_one_history(&seeds).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: 4800 writes in doubt"]
async fn d39_of_600_seeds() {
    must_be_one_history(&(1001..=1600).collect::<Vec<u64>>()).await;
}

/// A write that is sent again as it is undoes what was written since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d39_notices_a_write_in_doubt_that_is_repeated_as_it_is() {
    for seed in 1..=8 {
        if let Err(found) = run(seed, WITHOUT).await {
            return println!("{found}");
        }
    }
    panic!("it is not noticed");
}
