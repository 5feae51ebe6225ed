//! Programs on three nodes while daemons are killed and frozen, networks cut, disks made to hang and fail, the office moved and
//! nodes evicted, all at random; and whether one volume could have answered them like that.
//!
//! `workers` are the programs: real processes with real system calls, each writing down its calls in a file outside of the volume.
//! `nemesis` hurts the nodes, by a seed. `run` is a run: rounds, each with a folder of its own on the volume; a round ends with
//! everything healed, every program ended, and a look at the whole folder through every node. What was written down is judged by
//! the crate `history`. After the last round all folders are looked at once more, removed, and nothing may be left: no lock, no
//! layout, no session, no grant.
//!
//! `SHOREFAST_TORTURE_SEED=7` repeats what is done to the nodes, `SHOREFAST_TORTURE_SECONDS=600` makes the run longer,
//! `SHOREFAST_TORTURE_PAUSE_US=20000` makes the programs slower, `SHOREFAST_TORTURE_WITHOUT=DrainBeforeReturn` has daemons without a
//! rule, to see it found. `SHOREFAST_TORTURE_KEEP=FOLDER` keeps the raw histories; those of a run that fails are kept in any case.

#[path = "torture/nemesis.rs"]
mod nemesis;
#[path = "torture/run.rs"]
mod run;
#[path = "torture/workers.rs"]
mod workers;

use nemesis::Fault;
use run::{Plan, Run};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// A seed of the run's own, unless one is asked for.
fn seed() -> u64 {
    number("SHOREFAST_TORTURE_SEED").unwrap_or_else(|| history::worker::now().unsigned_abs() / 1_000_000 % 1_000_000)
}

/// The longest pause of a program between two calls.
fn pause_us() -> u64 {
    number("SHOREFAST_TORTURE_PAUSE_US").unwrap_or(6000)
}

fn tortured(test: &'static str, seconds: u64) {
    let seconds = number("SHOREFAST_TORTURE_SECONDS").unwrap_or(seconds);
    let plan = Plan {
        seed: seed(),
        seconds,
        faults: &Fault::ALL,
        without_rule: std::env::var("SHOREFAST_TORTURE_WITHOUT").ok(),
        pause_us: pause_us(),
        only_names: false,
    };
    let Some(run) = Run::begin(test, plan) else { return };
    let verdict = run.finish();
    println!("{verdict}");
    assert!(verdict.acknowledged > seconds, "so little was done that nothing is shown");
}

#[test]
fn one_volume_could_have_answered_what_programs_on_three_nodes_were_told_in_a_minute_of_faults() {
    let test = "torture::one_volume_could_have_answered_what_programs_on_three_nodes_were_told_in_a_minute_of_faults";
    if !workers::is_one() {
        tortured(test, 60);
    }
}

#[test]
#[ignore = "long: ten minutes of faults"]
fn one_volume_could_have_answered_what_programs_on_three_nodes_were_told_in_ten_minutes_of_faults() {
    let test =
        "torture::one_volume_could_have_answered_what_programs_on_three_nodes_were_told_in_ten_minutes_of_faults";
    if !workers::is_one() {
        tortured(test, 600);
    }
}

/// Real daemons that execute a resent request again in place of telling the stored answer. Answers are lost by resetting
/// the connections on which the coordinator sends them.
#[test]
fn a_coordinator_that_executes_what_is_resent_again_is_found() {
    let test = "torture::a_coordinator_that_executes_what_is_resent_again_is_found";
    if workers::is_one() {
        return;
    }
    if !cfg!(debug_assertions) {
        println!("skipped: a daemon lacks a rule only in builds with debug assertions");
        return;
    }
    let plan = Plan {
        seed: number("SHOREFAST_TORTURE_SEED").unwrap_or(7),
        // It ends with the first that is found.
        seconds: 300,
        faults: &[Fault::AnswersRefused],
        without_rule: Some("StoredAnswers".to_owned()),
        pause_us: pause_us(),
        only_names: true,
    };
    let Some(run) = Run::begin(test, plan) else { return };
    let found = run.until_something_is_found().expect("five minutes without stored answers looked right");
    println!("{found}");
}
