//! The simulation as tests. How to read and replay: docs/semantics/simulation.md.
//!
//! - `SHOREFAST_SIM_SEEDS=3000`: seeds 1 to 3000, on all cores (`make test-long`); without it a short run on one core for
//!   [`SHORT_TIME`], and it says so.
//! - `SHOREFAST_SIM_FIRST=3001`: so many seeds from that one on, instead of from 1 on.
//! - `SHOREFAST_SIM_SHARD=2/6`: of those only the second sixth.
//! - `SHOREFAST_SIM_THREADS=1`: on so many cores.
//! - `SHOREFAST_SIM_SEED=17`: only that seed, with its trace.
//! - `SHOREFAST_SIM_RULE=StoredAnswers`: the scenario of that rule without it, with its trace.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::core::rules::Rules;

/// Seeds of a short run at least; more until [`SHORT_TIME`] is over.
const SHORT: u64 = 60;
/// How long a short run takes.
const SHORT_TIME: Duration = Duration::from_secs(45);
/// A run over seeds ends after so many failures.
const ENOUGH: usize = 20;
/// In so many seeds also what is rare must have happened.
const RARE: u64 = 1000;
/// Variants of every scenario that count for what must have happened.
const COUNTED: u64 = 2;
/// Variants of its scenario in which a missing rule must be found.
const VARIANTS: u64 = 40;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|s| s.parse().ok())
}

/// "2/6" as (2, 6); (1, 1) if nothing is said.
fn shard() -> (u64, u64) {
    let Ok(text) = std::env::var("SHOREFAST_SIM_SHARD") else { return (1, 1) };
    let parts = text.split_once('/').and_then(|(i, of)| Some((i.parse().ok()?, of.parse().ok()?)));
    match parts {
        Some((i, of)) if (1..=of).contains(&i) => (i, of),
        _ => panic!("SHOREFAST_SIM_SHARD={text}: should be like 2/6"),
    }
}

fn verdict(seed: u64, out: &Outcome) -> String {
    let Outcome { verdict, events, faults, .. } = out;
    format!("seed {seed}: {verdict:?} after {events} events, {faults} faults; again: SHOREFAST_SIM_SEED={seed}")
}

fn show(seed: u64, out: &Outcome) -> String {
    format!("{}\n{}", out.trace.join("\n"), verdict(seed, out))
}

/// What a run over seeds came to.
#[derive(Default)]
struct Total {
    seeds: u64,
    events: u64,
    faults: u64,
    reads: u64,
    evictions: usize,
    coverage: Coverage,
    failed: Vec<(u64, Outcome)>,
}

impl Total {
    fn add(&mut self, seed: u64, out: Outcome) {
        self.seeds += 1;
        self.events += out.events;
        self.faults += out.faults;
        self.reads += out.reads;
        self.evictions += out.evictions;
        self.coverage.add(&out.coverage);
        let whole = matches!(out.verdict, Verdict::Good) && out.events >= EVENTS && out.faults >= FAULTS;
        if !whole {
            println!("{}", verdict(seed, &out));
            self.failed.push((seed, out));
        }
    }
}

/// Runs seeds on so many threads, for as long as `more` says so of the next one.
fn run_seeds(threads: usize, first: u64, more: impl Fn(u64) -> bool + Sync) -> Total {
    let (next, total) = (AtomicU64::new(first), Mutex::new(Total::default()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !more(seed) || total.lock().expect("no panic while held").failed.len() >= ENOUGH {
                        return;
                    }
                    let out = run_seed(setup_of(seed, Rules::all()));
                    total.lock().expect("no panic while held").add(seed, out);
                }
            });
        }
    });
    total.into_inner().expect("no panic while held")
}

#[test]
fn seeds_under_faults_violate_nothing_and_heal() {
    if let Some(seed) = number("SHOREFAST_SIM_SEED") {
        let out = run_seed(Setup { loud: true, ..setup_of(seed, Rules::all()) });
        println!("{}", out.coverage);
        assert!(matches!(out.verdict, Verdict::Good), "{}", verdict(seed, &out));
        return;
    }
    let begun = Instant::now();
    let mut total = match number("SHOREFAST_SIM_SEEDS") {
        Some(seeds) => {
            let (i, of) = shard();
            let before = number("SHOREFAST_SIM_FIRST").map_or(0, |first| first.saturating_sub(1));
            let (first, last) = (before + (i - 1) * seeds / of + 1, before + i * seeds / of);
            println!("seeds {first} to {last}");
            let threads = number("SHOREFAST_SIM_THREADS").and_then(|n| usize::try_from(n).ok());
            let cores = || std::thread::available_parallelism().map_or(1, usize::from);
            let threads = threads.unwrap_or_else(cores).max(1);
            run_seeds(threads, first, |seed| seed <= last)
        }
        None => {
            println!("a short run: SHOREFAST_SIM_SEEDS=3000 runs the long one");
            run_seeds(1, 1, |seed| seed <= SHORT || begun.elapsed() < SHORT_TIME)
        }
    };
    let Total { seeds, events, faults, reads, evictions, coverage, .. } = &total;
    println!(
        "{seeds} seeds, {events} events, {faults} faults, {reads} reads compared, {evictions} evictions, {} s{coverage}",
        begun.elapsed().as_secs()
    );
    let seeds = *seeds;
    total.failed.sort_by_key(|(seed, _)| *seed);
    if let Some((seed, out)) = total.failed.first() {
        panic!("{}\n{} of {seeds} seeds failed", show(*seed, out), total.failed.len());
    }
    assert!(seeds >= SHORT, "only {seeds} seeds");
    for scenario in SCENARIOS {
        (1..=COUNTED).for_each(|n| total.coverage.add(&run_scenario(scenario, n, Rules::all(), false).coverage));
    }
    let zeros = never(&total.coverage, seeds >= RARE);
    assert!(zeros.is_empty(), "never happened in {seeds} seeds and the named interleavings: {zeros:?}");
}

#[test]
fn the_named_interleavings_are_harmless_with_every_rule_in_force() {
    for scenario in SCENARIOS {
        for seed in 1..=8 {
            let out = run_scenario(scenario, seed, Rules::all(), false);
            assert!(matches!(out.verdict, Verdict::Good), "{}: {}", scenario.name, show(seed, &out));
        }
        println!("harmless: {}", scenario.name);
    }
}

#[test]
fn each_missing_rule_is_found_by_an_oracle() {
    let only = std::env::var("SHOREFAST_SIM_RULE").ok();
    let mut missed = Vec::new();
    for scenario in SCENARIOS {
        let Some(rule) = scenario.rule else { continue };
        if only.as_ref().is_some_and(|only| *only != format!("{rule:?}")) {
            continue;
        }
        let mut panics = 0;
        let found = (1..=VARIANTS).find_map(|seed| {
            match run_scenario(scenario, seed, Rules::without(rule), only.is_some()).verdict {
                Verdict::Violated(v) => Some((seed, v)),
                Verdict::Panicked(_) => {
                    panics += 1;
                    None
                }
                Verdict::Good => None,
            }
        });
        match found {
            Some((seed, v)) => {
                println!("{rule:?}: {:?} in variant {seed} of \"{}\": {}", v.invariant, scenario.name, v.what);
            }
            None => missed.push((rule, scenario.name, panics)),
        }
    }
    assert!(missed.is_empty(), "not found (rule, scenario, assertions inside cores instead): {missed:?}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = || run_seed(setup_of(5, Rules::all()));
    let (a, b) = (run(), run());
    assert_eq!((a.events, a.faults, a.reads, a.trace), (b.events, b.faults, b.reads, b.trace));
}

/// What a run over seeds must have seen at least once, and has not.
fn never(coverage: &Coverage, rare_too: bool) -> Vec<String> {
    let rare: &[(&str, &[&str])] = if rare_too { expected::RARE } else { &[] };
    let expected = expected::ALL.iter().chain(rare).flat_map(|(group, names)| names.iter().map(move |n| (*group, *n)));
    let faults = fault_names().into_iter().map(|n| ("fault", n));
    expected.chain(faults).filter(|(g, n)| coverage.of(g, n) == 0).map(|(g, n)| format!("{g}: {n}")).collect()
}

mod expected;
