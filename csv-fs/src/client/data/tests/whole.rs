//! The whole file system, from the calls of two nodes down to the disk, against a reference in memory: names, links, data,
//! lengths, modes and attributes, with takeovers (between calls and in the middle of one), evictions and changes of route
//! among them.
//!
//! One call at a time, so every answer is known beforehand. A run is a list of steps that say everything by themselves; one
//! that fails is made shorter as long as it still fails, and shown. At its end both nodes show the same tree as the
//! reference, nothing is open, every block is free or a file's, and the store is checked.
//!
//! - `SHOREFAST_MODEL_SEEDS=N`, `SHOREFAST_MODEL_STEPS=M`: so many runs of so many steps;
//!   `SHOREFAST_MODEL_SEED=S`: the run of this seed alone.
//! - `SHOREFAST_MODEL_SHARD=2/5`: of the long run only the second fifth.

mod expected;
mod steps;
mod world;

use steps::{Step, What};
use world::World;

use super::rig::Lacking;
use crate::core::rules::Rule;

/// What is rare, and happened in a run.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Files that were brought to hundreds of extents.
    scattered: u64,
    /// Reads of such files.
    reads_of_scattered: u64,
}

/// Tries to make a failing run shorter.
const SHRINKS: usize = 80;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|e| panic!("{name}: {e}")))
}

/// "2/5" as (2, 5); (1, 1) if nothing is said.
fn shard() -> (u64, u64) {
    let Ok(text) = std::env::var("SHOREFAST_MODEL_SHARD") else { return (1, 1) };
    let parts = text.split_once('/').and_then(|(i, of)| Some((i.parse().ok()?, of.parse().ok()?)));
    match parts {
        Some((i, of)) if (1..=of).contains(&i) => (i, of),
        _ => panic!("SHOREFAST_MODEL_SHARD={text}: should be like 2/5"),
    }
}

/// Runs the steps in a world that lacks something; what differs from the reference, or the panic of a core or a rig.
async fn run(steps: Vec<Step>, lacking: Lacking) -> Result<Result<Seen, String>, tokio::task::JoinError> {
    let run = tokio::spawn(async move {
        let mut world = World::new(lacking).await;
        for (n, step) in steps.iter().enumerate() {
            let done = world.step(*step).await;
            done.map_err(|e| format!("step {n}, {step:?}: {e}; the nodes were told of {:#?}", world.told()))?;
        }
        world.end().await.map_err(|e| format!("at the end: {e}"))
    });
    run.await
}

/// Runs the steps; the failure, if there is one.
async fn agrees(steps: Vec<Step>) -> Result<Seen, String> {
    run(steps, Lacking::Nothing).await.unwrap_or_else(|panic| Err(format!("{panic}")))
}

/// Takes steps out as long as it still fails.
async fn shortest(mut steps: Vec<Step>) -> (Vec<Step>, String) {
    let mut why = String::from("it did not fail a second time");
    let (mut part, mut tries) = (steps.len() / 2, 0);
    while part > 0 && tries < SHRINKS {
        let mut at = 0;
        while at < steps.len() && tries < SHRINKS {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + part).min(fewer.len()));
            tries += 1;
            match agrees(fewer.clone()).await {
                Err(e) => (steps, why) = (fewer, e),
                Ok(_) => at += part,
            }
        }
        part /= 2;
    }
    (steps, why)
}

/// Some runs side by side: most of a run is waiting for the next coordinator. The first that fails is made shorter.
async fn must_agree(seeds: Vec<u64>, count: u64) -> Seen {
    let runs: Vec<_> = seeds.into_iter().map(|s| (s, tokio::spawn(agrees(steps::of_seed(s, count))))).collect();
    let (mut failed, mut seen) = (Vec::new(), Seen::default());
    for (seed, run) in runs {
        match run.await.unwrap_or_else(|e| Err(e.to_string())) {
            Ok(Seen { scattered, reads_of_scattered }) => {
                seen.scattered += scattered;
                seen.reads_of_scattered += reads_of_scattered;
            }
            Err(first) => {
                // Making it shorter takes a while.
                eprintln!("seed {seed}, {count} steps: {first}");
                failed.push(seed);
            }
        }
    }
    if let Some(seed) = failed.first() {
        let (steps, why) = shortest(steps::of_seed(*seed, count)).await;
        panic!("seeds {failed:?}; {seed} in short: {why}\n{steps:#?}");
    }
    seen
}

/// Runs of which a seed of the long run is made.
const PARTS: u64 = 25;

/// The default budget: so many runs of so many steps.
const RUNS: u64 = 4;
const STEPS: u64 = 1250;

/// 5000 steps in all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d80_the_whole_file_system_is_a_tree_of_files_in_memory_over_takeovers_and_evictions() {
    let count = number("SHOREFAST_MODEL_STEPS").unwrap_or(STEPS);
    let seeds = number("SHOREFAST_MODEL_SEEDS").unwrap_or(RUNS);
    let seeds = number("SHOREFAST_MODEL_SEED").map_or_else(|| (1..=seeds).collect(), |seed| vec![seed]);
    let whole = (seeds.len() as u64, count) >= (RUNS, STEPS);
    let seen = must_agree(seeds, count).await;
    println!("{seen:?}");
    assert!(!whole || (seen.scattered >= 10 && seen.reads_of_scattered >= 10), "too seldom: {seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: a million steps"]
async fn d80_of_twenty_seeds_and_50_000_steps_each() {
    let (shard, of) = shard();
    let mut steps = 0;
    for seed in (101..=120).filter(|seed| seed % of == shard % of) {
        let started = std::time::Instant::now();
        // A run begins with an empty volume; parts keep one that fails short enough to be made shorter.
        let seen = must_agree((0..PARTS).map(|part| seed * 1000 + part).collect(), 50_000 / PARTS).await;
        steps += 50_000;
        println!("seed {seed}: 50000 steps in {} s, {seen:?}", started.elapsed().as_secs());
    }
    println!("{steps} steps agree");
}

/// A reference that is wrong is noticed: the test can fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_difference_from_the_reference_is_found_and_made_short() {
    let mut steps = steps::of_seed(7, 60);
    steps.insert(40, Step { what: What::Forget, node: 0, a: 0, b: 0, c: 0 });
    assert!(agrees(steps.clone()).await.is_err());
    let (short, why) = shortest(steps).await;
    assert!(short.iter().any(|s| s.what == What::Forget) && short.len() < 8, "{why}: {short:#?}");
}

/// The default budget notices that something is missing: a node was told something else than the reference says. A panic of a
/// core, or a call without an answer, does not count.
async fn must_be_noticed(lacking: Lacking) {
    let mut panics = Vec::new();
    for seed in 1..=RUNS {
        match run(steps::of_seed(seed, STEPS), lacking).await {
            Ok(Err(difference)) => {
                let difference: String = difference.chars().take(300).collect();
                return println!("{lacking:?} is noticed by seed {seed}: {difference}");
            }
            Ok(Ok(_)) => {}
            Err(panic) => panics.push(format!("seed {seed}: {panic}")),
        }
    }
    panic!("{lacking:?} is not noticed in {RUNS} runs of {STEPS} steps; panics instead: {panics:?}");
}

/// "Reply cache off": a creation whose answer is lost is executed again, and its caller told EEXIST.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d80_notices_a_reply_cache_that_is_off() {
    must_be_noticed(Lacking::Rule(Rule::StoredAnswers)).await;
}

/// "No fence check at commit": a coordinator that was taken for dead commits to the store of the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d80_notices_a_commit_without_a_look_at_the_latch() {
    must_be_noticed(Lacking::Latch).await;
}

/// A file is cut under the layout of another node, which goes on as if it were not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d80_notices_space_that_is_freed_under_a_layout() {
    must_be_noticed(Lacking::Rule(Rule::FreeAfterReturn)).await;
}

/// A length is told that does not hold what another node has written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d80_notices_attributes_that_are_told_without_a_sync() {
    must_be_noticed(Lacking::Rule(Rule::SyncBeforeAttributes)).await;
}

/// A file is freed when its last name goes, under its open handles.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d80_notices_an_open_file_that_is_freed() {
    must_be_noticed(Lacking::Rule(Rule::OpenKeepsOrphan)).await;
}

/// A write of some bytes of a sector makes the others zero.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d80_notices_a_write_that_does_not_keep_what_is_around_it() {
    must_be_noticed(Lacking::Rule(Rule::KeepAround)).await;
}

/// A file that was cut and grows by a write behind its end shows what was cut away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d80_notices_a_gap_that_is_not_zeroed() {
    must_be_noticed(Lacking::Rule(Rule::ZeroBehindEnd)).await;
}

/// A file of many extents grows, and is read to the end that it had before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d80_notices_a_length_that_stands_still() {
    must_be_noticed(Lacking::Rule(Rule::LengthIsPublished)).await;
}
