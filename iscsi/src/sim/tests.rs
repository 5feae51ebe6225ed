//! The simulation as tests.
//!
//! - `SHOREFAST_ISCSI_SEEDS=2000`: seeds 1 to 2000 (`make test-long`); without it a short run.
//! - `SHOREFAST_ISCSI_SEED=17`: only that seed, with its trace.
//! - `SHOREFAST_ISCSI_RULE=SameIsid`: the search for that rule, with the trace of the find.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::world::Rates;
use super::*;
use crate::session::rules::{Rule, Rules};

/// Seeds of a short run at least; more until [`SHORT_TIME`] is over.
const SHORT: u64 = 40;
/// How long a short run takes.
const SHORT_TIME: Duration = Duration::from_secs(10);
/// Seeds in which a missing rule must be found.
const VARIANTS: u64 = 60;
/// A seed is at least so many events and faults.
const EVENTS: u64 = 1000;
const FAULTS: u64 = 10;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|s| s.parse().ok())
}

fn plan(seed: u64, rules: Rules, loud: bool) -> Plan {
    Plan { seed, rules, rates: Rates::mixed(), calm: false, loud }
}

#[test]
fn seeds_under_faults_violate_nothing_and_everything_is_answered() {
    if let Some(seed) = number("SHOREFAST_ISCSI_SEED") {
        let out = run_seed(plan(seed, Rules::all(), true));
        assert_eq!(out.verdict, Verdict::Good, "{:#?}", out.counts);
        return;
    }
    let begun = Instant::now();
    let (mut seeds, mut events, mut faults) = (0, 0, 0);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let wanted = number("SHOREFAST_ISCSI_SEEDS");
    let more = |seed: u64| wanted.map_or(seed <= SHORT || begun.elapsed() < SHORT_TIME, |n| seed <= n);
    let mut failed = Vec::new();
    for seed in (1..).take_while(|s| more(*s)) {
        let out = run_seed(plan(seed, Rules::all(), false));
        seeds += 1;
        events += out.events;
        faults += out.faults;
        out.counts.iter().for_each(|(k, n)| *counts.entry(k.clone()).or_default() += n);
        if out.verdict != Verdict::Good || out.events < EVENTS || out.faults < FAULTS {
            println!(
                "seed {seed}: {:?} after {} events, {} faults; again: SHOREFAST_ISCSI_SEED={seed}",
                out.verdict, out.events, out.faults
            );
            failed.push(seed);
        }
    }
    println!("{seeds} seeds, {events} events, {faults} faults, {} s", begun.elapsed().as_secs());
    counts.iter().for_each(|(k, n)| println!("  {k}: {n}"));
    assert!(failed.is_empty(), "{} of {seeds} seeds failed: {failed:?}", failed.len());
    let never: Vec<&&str> = EXPECTED.iter().filter(|e| !counts.contains_key(**e)).collect();
    assert!(never.is_empty(), "never happened in {seeds} seeds: {never:?}");
}

/// What every run over seeds must have shown.
const EXPECTED: &[&str] = &[
    "effect: Connect",
    "effect: Disconnect",
    "effect: Done",
    "effect: Opened",
    "effect: Send",
    "effect: Settle",
    "effect: Up",
    "fault: abort refused",
    "fault: abort unanswered",
    "fault: answer after abort",
    "fault: answer to nothing",
    "fault: busy",
    "fault: cut",
    "fault: data lost",
    "fault: data out of order",
    "fault: drop announced",
    "fault: fence",
    "fault: hushed",
    "fault: login refused",
    "fault: login unanswered",
    "fault: logout asked",
    "fault: owner aborts",
    "fault: owner gives the path up",
    "fault: ping",
    "fault: ping unanswered",
    "fault: R2T out of range",
    "fault: redirect",
    "fault: reject",
    "fault: reset by the target",
    "fault: status lost",
    "fault: swap by another",
    "fault: task stuck",
    "fault: tasks terminated",
    "fault: unknown event",
    "fault: window closed",
    "outcome: aborted",
    "outcome: conflict",
    "outcome: fenced",
    "outcome: good",
    "outcome: lost",
    "outcome: other status",
    "report: Aborting",
    "report: Depth",
    "report: Redirected",
    "report: ResetUnit",
    "report: TasksTerminated",
    "report: Unknown",
];

/// Faults that make the interleaving of a rule likely: everything else is as it should be, so that nothing masks it.
fn rates_for(rule: Rule) -> Rates {
    let none = Rates::default();
    match rule {
        Rule::SecurityStageFirst | Rule::SameIsid => Rates { stick: 100, cut: 100, ..none },
        Rule::SamePortalGroup => Rates { stick: 100, cut: 100, redirect: 300, ..none },
        Rule::WritesWaitForProof | Rule::PurgeAtFence | Rule::RegisteredOnce => {
            Rates { stick: 20, cut: 100, fence: 100, ..none }
        }
        Rule::CawSettledByNonce => Rates { cut: 200, drop_status: 5, ..none },
        Rule::AbortBeforeReissue => Rates { stick: 50, abort_silence: 500, ..none },
        Rule::ResetCoversOlder => Rates { stick: 200, abort_refused: 1000, terminate: 300, ..none },
        Rule::WindowKept => Rates { close_window: 100, ..none },
        Rule::DataOutPassesWindow => none,
        Rule::PingEchoed => Rates { ping: 300, ..none },
        Rule::StatSnWithoutGap => Rates { drop_status: 5, ..none },
        Rule::DataInInOrder => Rates { reorder: 50, ..none },
        Rule::ReadIsWhole => Rates { drop_data: 50, ..none },
        Rule::R2tWithinTask => Rates { bad_r2t: 50, ..none },
        Rule::TagStaysTaken => Rates { stick: 50, late: 1000, owner_aborts: 100, ..none },
        Rule::SilentAfterLogout => Rates { asynchronous: 100, ping: 300, ..none },
    }
}

/// Whether those faults leave a target that nobody may complain of.
fn calm(rule: Rule) -> bool {
    matches!(rule, Rule::DataOutPassesWindow | Rule::WindowKept | Rule::PingEchoed)
}

const RULES: [Rule; 18] = [
    Rule::ResetCoversOlder,
    Rule::RegisteredOnce,
    Rule::SecurityStageFirst,
    Rule::SameIsid,
    Rule::SamePortalGroup,
    Rule::WritesWaitForProof,
    Rule::PurgeAtFence,
    Rule::CawSettledByNonce,
    Rule::AbortBeforeReissue,
    Rule::WindowKept,
    Rule::DataOutPassesWindow,
    Rule::PingEchoed,
    Rule::StatSnWithoutGap,
    Rule::DataInInOrder,
    Rule::ReadIsWhole,
    Rule::R2tWithinTask,
    Rule::TagStaysTaken,
    Rule::SilentAfterLogout,
];

#[test]
fn each_missing_rule_is_found_by_an_oracle() {
    let only = std::env::var("SHOREFAST_ISCSI_RULE").ok();
    let mut missed = Vec::new();
    for rule in RULES.into_iter().filter(|r| only.as_ref().is_none_or(|o| *o == format!("{r:?}"))) {
        let mut panics = 0;
        let run = |seed, loud| {
            run_seed(Plan { seed, rules: Rules::without(rule), rates: rates_for(rule), calm: calm(rule), loud })
        };
        let found = (1..=VARIANTS).find_map(|seed| match run(seed, false).verdict {
            Verdict::Violated(v) => Some((seed, v)),
            Verdict::Panicked(_) => {
                panics += 1;
                None
            }
            Verdict::Good => None,
        });
        match found {
            Some((seed, v)) => {
                println!("{rule:?}: {} in seed {seed}: {:.200}", v.oracle, v.what);
                if only.is_some() {
                    run(seed, true);
                }
            }
            None => missed.push((rule, panics)),
        }
    }
    assert!(missed.is_empty(), "not found (rule, assertions instead): {missed:?}");
}

#[test]
fn with_every_rule_the_same_faults_do_no_harm() {
    for rule in RULES {
        for seed in 1..=3 {
            let out =
                run_seed(Plan { seed, rules: Rules::all(), rates: rates_for(rule), calm: calm(rule), loud: false });
            assert_eq!(out.verdict, Verdict::Good, "{rule:?}, seed {seed}");
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = || run_seed(plan(5, Rules::all(), false));
    let (a, b) = (run(), run());
    assert_eq!((a.events, a.faults, a.counts), (b.events, b.faults, b.counts));
}
