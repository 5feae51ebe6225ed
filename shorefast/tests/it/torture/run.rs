//! A run: rounds, what is judged of each, and what must be left at its end, which is nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use history::event::Nanos;
use history::raw;
use history::verdict::{Verdict, judge};
use history::worker::{Work, prepare};

use super::nemesis::{Fault, NODES, Nemesis};
use super::workers::{Role, Worker};
use crate::fixture::{path, until, within};

/// How long nodes are hurt in a round.
const ROUND: Duration = Duration::from_secs(15);
/// Programs on each node: one with O_DIRECT, one without.
const EACH: [bool; 2] = [true, false];

/// What a run is to be.
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) seconds: u64,
    pub(super) faults: &'static [Fault],
    pub(super) without_rule: Option<String>,
    pub(super) pause_us: u64,
    pub(super) only_names: bool,
}

/// A run that has begun.
pub(super) struct Run {
    // Programs go before the daemons.
    workers: Vec<Worker>,
    nemesis: Nemesis,
    plan: Plan,
    test: &'static str,
    zero: Nanos,
    began: Instant,
    rounds: u64,
    processes: u32,
    logs: PathBuf,
}

impl Run {
    /// None where it cannot be made.
    pub(super) fn begin(test: &'static str, plan: Plan) -> Option<Run> {
        println!("seed {}: SHOREFAST_TORTURE_SEED={} does the same to the nodes", plan.seed, plan.seed);
        let zero = history::worker::now();
        let configuration =
            plan.without_rule.as_ref().map_or(String::new(), |rule| format!("without_rule = \"{rule}\"\n"));
        let nemesis = Nemesis::begin(plan.seed, zero, &configuration)?;
        let logs = nemesis.cluster.dir.join("histories");
        fs::create_dir(&logs).expect("a folder");
        let (workers, began) = (Vec::new(), Instant::now());
        Some(Run { workers, nemesis, plan, test, zero, began, rounds: 0, processes: 0, logs })
    }

    fn is_over(&self) -> bool {
        self.began.elapsed() >= Duration::from_secs(self.plan.seconds)
    }

    /// All rounds; fails at the first that is not right, and if anything is left at the end.
    pub(super) fn finish(mut self) -> Verdict {
        let mut verdict = Verdict::default();
        while !self.is_over() {
            self.round();
            self.judged();
        }
        // Later faults took nothing of what earlier rounds left.
        for round in 1..=self.rounds {
            self.look(round);
            verdict = verdict.and(self.judged_round(round));
        }
        self.leaves_nothing();
        verdict
    }

    /// Rounds until one is found to be wrong; none if the time is over before.
    pub(super) fn until_something_is_found(mut self) -> Option<Verdict> {
        while !self.is_over() {
            self.round();
            let found = judge(&raw::read(&self.text(self.rounds)).expect("what programs wrote down"));
            if !found.violations.is_empty() {
                self.keep(self.rounds, &keep_folder());
                return Some(found);
            }
        }
        None
    }

    fn round(&mut self) {
        self.rounds += 1;
        let folder = self.folder(1 + self.rounds as usize % NODES, self.rounds);
        within("making a folder", move || prepare(&folder)).expect("a folder for the round");
        for n in 1..=NODES {
            EACH.iter().for_each(|direct| self.begin_worker(n, *direct));
        }
        let began = Instant::now();
        while began.elapsed() < ROUND {
            self.nemesis.step(self.plan.faults);
            self.renew_workers();
        }
        // What was redirected or repeated is followed by something ordinary.
        std::thread::sleep(Duration::from_millis(300));
        self.end_workers();
        // Who was evicted for the last step, and found out when all was in order.
        self.nemesis.look_at_lives();
        self.look(self.rounds);
    }

    fn folder(&self, n: usize, round: u64) -> PathBuf {
        self.nemesis.cluster.mount(n, "v").join(called(round))
    }

    fn begin_worker(&mut self, n: usize, direct: bool) {
        let worker = self.worker(Role::Work, n, self.rounds, direct);
        self.workers.push(worker);
    }

    fn worker(&mut self, role: Role, n: usize, round: u64, direct: bool) -> Worker {
        self.processes += 1;
        let work = Work {
            folder: self.folder(n, round),
            called: called(round),
            node: n as u8,
            process: self.processes,
            seed: self.plan.seed,
            direct,
            pause_us: self.plan.pause_us,
            only_names: self.plan.only_names,
            zero: self.zero,
        };
        let log = self.logs.join(format!("{}.{}", called(round), self.processes));
        Worker::start(self.test, role, &work, &log)
    }

    /// Programs whose node died are followed by others once it is back.
    fn renew_workers(&mut self) {
        let mut gone = Vec::new();
        self.workers.retain_mut(|worker| match worker.ended().as_deref() {
            None => true,
            Some("# gone") => {
                gone.push(worker.node);
                false
            }
            Some(said) => panic!("a program on node {} ended: {said}", worker.node),
        });
        gone.into_iter().for_each(|n| self.begin_worker(n, n % 2 == 0));
    }

    fn end_workers(&mut self) {
        self.workers.iter_mut().for_each(Worker::tell_to_end);
        for mut worker in std::mem::take(&mut self.workers) {
            let said = worker.until_ended().unwrap_or_else(|hangs| panic!("{hangs}"));
            assert!(["# told", "# gone"].contains(&said.as_str()), "a program on node {} ended: {said}", worker.node);
        }
    }

    /// The whole folder through every node, while nobody works.
    fn look(&mut self, round: u64) {
        for n in 1..=NODES {
            let mut worker = self.worker(Role::Look, n, round, n % 2 == 0);
            let said = worker.until_ended().unwrap_or_else(|hangs| panic!("{hangs}"));
            assert_eq!(said, "# told", "looking at round {round} through node {n}");
        }
    }

    /// What was written down of a round, with what was done in the whole run.
    fn text(&self, round: u64) -> String {
        let mut lines = self.nemesis.lines.clone();
        let head = format!("{}.", called(round));
        for entry in fs::read_dir(&self.logs).expect("the logs").map_while(Result::ok) {
            if entry.file_name().to_string_lossy().starts_with(&head) {
                lines += &fs::read_to_string(entry.path()).expect("a log");
            }
        }
        raw::in_order(&lines)
    }

    fn judged(&mut self) {
        let found = self.judged_round(self.rounds);
        let seconds = self.began.elapsed().as_secs();
        println!("round {}, {seconds} s: {} calls, {} acknowledged", self.rounds, found.calls, found.acknowledged);
    }

    fn judged_round(&self, round: u64) -> Verdict {
        let found = judge(&raw::read(&self.text(round)).expect("what programs wrote down"));
        if let Some(folder) = std::env::var_os("SHOREFAST_TORTURE_KEEP") {
            self.keep(round, Path::new(&folder));
        }
        if !found.is_right() {
            let kept = self.keep(round, &keep_folder());
            panic!("seed {}, round {round}, the history is {}:\n{found}", self.plan.seed, kept.display());
        }
        found
    }

    fn keep(&self, round: u64, folder: &Path) -> PathBuf {
        let kept = folder.join(format!("shorefast-history-{}-{}.txt", self.plan.seed, called(round)));
        fs::create_dir_all(folder).and_then(|()| fs::write(&kept, self.text(round))).expect("a place for the history");
        kept
    }

    /// No lock, layout, open file, session, grant or block is left once nobody has anything.
    fn leaves_nothing(&mut self) {
        for round in 1..=self.rounds {
            let folder = self.folder(1 + round as usize % NODES, round);
            within("removing a folder", move || fs::remove_dir_all(folder)).expect("removes");
        }
        let cluster = &self.nemesis.cluster;
        let number = |value: &serde_json::Value| value.as_u64().expect("a number");
        until("nothing is held", || {
            let at = cluster.coordinator(1) as usize;
            let volume = cluster.volume(at, "v").expect("it runs");
            let held = volume["held"].as_object().expect("it is coordinator").clone();
            let own = (1..=NODES).all(|n| {
                let volume = cluster.volume(n, "v").expect("it runs");
                number(&volume["locks"]) == 0 && number(&volume["io"]["in_flight"]) == 0
            });
            let none = held.values().all(|n| number(n) == 0);
            println!("held at its end: {held:?}, {} sessions", volume["sessions"]);
            own && none && number(&volume["sessions"]) == NODES as u64
        });
        cluster.checks_clean(1);
        for n in (1..=NODES).rev() {
            until("an unmounting", || cluster.ask(n, &["volume", "unmount", "v"]).code == 0);
        }
        let disk = cluster.dir.join("v.img");
        let check = cluster.ask(1, &["--json", "volume", "check", "--disk", path(&disk)]);
        check.expect(0, &[]);
        let report = check.json();
        println!("checked: {report}");
        let blocks = report["check"]["blocks"].clone();
        assert_eq!((number(&blocks["granted"]), number(&blocks["mapped"])), (0, 0), "{report}");
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() && self.rounds > 0 {
            eprintln!("what is known of round {}: {}", self.rounds, self.keep(self.rounds, &keep_folder()).display());
        }
    }
}

/// Where histories of runs that fail stay.
fn keep_folder() -> PathBuf {
    std::env::temp_dir().join("shorefast-histories")
}

fn called(round: u64) -> String {
    format!("round-{round}")
}
