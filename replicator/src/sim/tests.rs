//! The simulation as tests.
//!
//! - `SHOREFAST_REPL_SEEDS=5000`: so many seeds (`SHOREFAST_REPL_FIRST=1` from which on); without it a short run.
//! - `SHOREFAST_REPL_SEED=17`: only that seed, with its trace.
//! - `SHOREFAST_REPL_MIX=stalls` (crashes, cuts, roles, disks, replaced, swapped, ends, hangs): more faults of one kind, with either of the above.
//! - `SHOREFAST_REPL_RULE=HotBeforeData`: the search for that rule, with the trace of the find; in so many seeds from which on, if said.

use std::collections::BTreeMap;
use std::time::Instant;

use super::*;
use crate::core::config::Protocol;
use crate::core::rules::{Rule, Rules};

/// Seeds of a short run: a fixed number, so that no machine comes to seeds on which nobody has looked.
const SHORT: u64 = 150;
/// A seed is at least so many events; and so many faults as the world says.
const EVENTS: u64 = 1000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|s| s.parse().ok())
}

fn plan(seed: u64, loud: bool) -> Plan {
    let rates = std::env::var("SHOREFAST_REPL_MIX").map_or(Rates::mixed(), |m| mix(&m));
    Plan {
        seed,
        rules: Rules::all(),
        rates,
        quorum: None,
        protocol: None,
        weak: true,
        grows: false,
        two: false,
        leaves: false,
        loud,
    }
}

/// Faults of one kind, many more of them than in the mixed ones.
fn mix(name: &str) -> Rates {
    let none = Rates::default();
    match name {
        "stalls" => Rates { reset: 200, stall: 200, ..none },
        "crashes" => Rates { crash: 100, crash_all: 20, reset: 60, stall: 60, ..none },
        "cuts" => Rates { cut: 120, isolate: 60, slow: 100, reset: 60, ..none },
        "roles" => Rates { demote: 120, isolate: 40, reset: 100, stall: 60, crash: 30, ..none },
        "replaced" => Rates { replace: 40, isolate: 40, cut: 60, crash: 20, reset: 20, ..none },
        "ends" => Rates { kill: 80, rest: 80, crash: 40, crash_all: 20, isolate: 20, ..none },
        "hangs" => Rates { hang: 60, kill: 60, reset: 60, crash: 20, ..none },
        "swapped" => Rates { swap: 40, isolate: 40, cut: 60, crash: 20, reset: 20, ..none },
        "disks" => Rates { disk: 60, reset: 100, stall: 100, crash: 20, ..none },
        _ => Rates::mixed(),
    }
}

#[test]
fn seeds_under_faults_violate_nothing_and_everything_heals() {
    if let Some(seed) = number("SHOREFAST_REPL_SEED") {
        let out = run_seed(plan(seed, true));
        assert_eq!(out.verdict, Verdict::Good, "{:#?}", out.counts);
        return;
    }
    let begun = Instant::now();
    let first = number("SHOREFAST_REPL_FIRST").unwrap_or(1);
    let wanted = number("SHOREFAST_REPL_SEEDS").unwrap_or(SHORT);
    let (mut seeds, mut events, mut faults, mut reads, mut covered) = (0, 0, 0, 0, 0);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut failed = Vec::new();
    for seed in first..first + wanted {
        let out = run_seed(plan(seed, false));
        seeds += 1;
        events += out.events;
        faults += out.faults;
        reads += out.reads;
        covered += out.covered;
        out.counts.iter().for_each(|(k, n)| *counts.entry(k.clone()).or_default() += n);
        if out.verdict != Verdict::Good || out.events < EVENTS || out.faults < FAULTS {
            println!(
                "seed {seed}: {:?} after {} events, {} faults; again: SHOREFAST_REPL_SEED={seed}",
                out.verdict, out.events, out.faults
            );
            failed.push(seed);
        }
    }
    println!(
        "{seeds} seeds, {events} events, {faults} faults, {reads} reads and {covered} differences looked at, {} s",
        begun.elapsed().as_secs()
    );
    counts.iter().for_each(|(k, n)| println!("  {k}: {n}"));
    assert!(failed.is_empty(), "{} of {seeds} seeds failed: {failed:?}", failed.len());
    let rare: &[&str] = if seeds >= MANY { RARE } else { &[] };
    if std::env::var("SHOREFAST_REPL_MIX").is_ok() {
        return;
    }
    let never: Vec<&&str> = EXPECTED.iter().chain(rare).filter(|e| !counts.contains_key(**e)).collect();
    assert!(never.is_empty(), "never happened in {seeds} seeds: {never:?}");
}

/// What every run over seeds must have shown.
const EXPECTED: &[&str] = &[
    "end: all disks compared",
    "volumes: two",
    "volumes: one was added",
    "volumes: one was taken away",
    "fault: disk of a volume swapped",
    "message: Leave",
    "message: Left",
    "report: Removed",
    "report: NotRemoved",
    "error: NoQuorum",
    "fault: crash",
    "fault: crash of the tie-breaker",
    "fault: cut",
    "fault: demote",
    "fault: disk error",
    "fault: disk hang",
    "fault: disk stall",
    "fault: killed while its disk hangs",
    "fault: isolated",
    "fault: killed",
    "fault: told to end",
    "promotions: several in one moment",
    "promotions: one beside others that were asked",
    "report: AtRest",
    "fault: reset",
    "fault: slow link",
    "message: Accept",
    "message: Accepted",
    "message: BarrierAck",
    "message: Dirty",
    "message: Promise",
    "message: Prepare",
    "message: PullAck",
    "message: Pulled",
    "message: Reject",
    "message: Settled",
    "message: Zero",
    "message: SyncDoneAck",
    "message: HasRoom",
    "message: Resized",
    "report: Grown",
    "report: NotResized",
    "report: Resized",
    "message swallowed",
    "report: Detached",
    "report: DiskHangs",
    "report: PassedOn",
    "report: Granted",
    "report: NotPromoted",
    "report: Promoted",
    "report: Quorum",
    "report: Synchronised",
    "report: Verified",
    "rule: BitmapPeer",
    "rule: BitmapSelf",
    "rule: Granted",
    "rule: JustCreatedPeer",
    "rule: LostCache",
    "rule: Reconnected",
    "verdict: NoSync",
    "verdict: Source",
    "verdict: Target",
    "verdict: Wait",
];

/// What is so rare that only runs of [`MANY`] seeds are held to it.
const RARE: &[&str] = &[
    "error: Deposed",
    "report: Deposed",
    "message: RemoteRead",
    "verdict: SplitBrain",
    "verdict: PrimaryWouldLose",
    "message: PeerInSync",
    "fault: crash of all",
    "report: LeftBehind",
    "message: Farewell",
];
const MANY: u64 = 400;

/// Faults that make the interleaving of a rule likely, and what the run has to be like.
fn plan_without(rule: Rule, seed: u64, rules: Rules, loud: bool) -> Plan {
    let none = Rates::default();
    let (rates, quorum, protocol) = match rule {
        Rule::HotBeforeData | Rule::BitsBeforeCold => (Rates { crash: 30, reset: 60, cut: 40, ..none }, None, None),
        Rule::ClearOnProof | Rule::SettlementNamesHolders => {
            (Rates { crash: 40, reset: 60, cut: 40, ..none }, None, None)
        }
        Rule::WriteWaitsForPeer => (Rates { crash: 40, reset: 40, slow: 60, cut: 40, ..none }, Some(true), None),
        Rule::FlushWaitsForPeer | Rule::FlushIsOfAllDisks => {
            (Rates { slow: 60, stall: 30, ..none }, None, Some(Protocol::C))
        }
        Rule::DropIsGrantedFirst => (Rates { cut: 80, crash: 10, ..none }, Some(true), None),
        Rule::OverlapsInOrder | Rule::WriteDefersToSync => (Rates { crash: 30, reset: 80, ..none }, None, None),
        Rule::NewGenerationAlone => (Rates { cut: 60, crash: 20, ..none }, Some(false), Some(Protocol::C)),
        Rule::UnsettledBecomesDirty => (Rates { crash: 40, slow: 60, reset: 40, ..none }, None, None),
        Rule::LowerBallotRefused => (Rates { isolate: 60, ..none }, Some(true), None),
        Rule::VoteIsDurable => {
            (Rates { isolate: 60, cut: 60, witness: 300, slow_votes: 500, ..none }, Some(true), None)
        }
        Rule::TargetMarksOthers => (Rates { crash: 40, cut: 60, ..none }, None, None),
        Rule::CompareAtRest => (Rates { stall: 150, reset: 150, crash: 30, cut: 60, demote: 60, ..none }, None, None),
        Rule::CompareAgain => (Rates { slow: 60, stall: 30, reset: 30, ..none }, None, None),
        Rule::BegunAfterBits => (Rates { crash: 60, reset: 40, ..none }, None, None),
        Rule::BarrierBeforeLater | Rule::VolumesInOneOrder => {
            (Rates { stall: 30, ..none }, Some(false), Some(Protocol::A))
        }
        Rule::CacheKeeperReigns => (Rates { crash: 40, isolate: 60, ..none }, Some(true), None),
        Rule::KeptIsProved => (Rates { crash: 60, isolate: 40, rest: 20, ..none }, Some(true), None),
        Rule::StableBeforeRest => (Rates { crash: 40, crash_all: 20, kill: 40, stall: 60, ..none }, None, None),
        Rule::JoinAfterDrain => (Rates { reset: 100, stall: 60, crash: 20, ..none }, Some(true), None),
        Rule::AttachAtRest => (Rates { hang: 120, kill: 120, reset: 40, ..none }, None, None),
        Rule::GrowthIsMarked => (Rates { crash: 20, reset: 40, ..none }, None, None),
        Rule::TakenAwayIsRemembered => (Rates { cut: 60, crash: 30, reset: 40, ..none }, None, None),
        Rule::NothingNewWhereItGoes => (Rates { slow: 60, stall: 60, reset: 20, ..none }, None, None),
        Rule::SwappedIsMarked => (Rates { swap: 40, crash: 20, reset: 40, ..none }, None, None),
        Rule::PeersAnswerFirst | Rule::WhoPromisedWaits => {
            (Rates { demote: 250, reset: 20, cut: 10, ..none }, Some(false), Some(Protocol::C))
        }
        Rule::SpoiledStays => (Rates { disk: 80, reset: 80, ..none }, None, None),
        Rule::NewcomerVotesLast | Rule::NewcomerMarksOthers => {
            (Rates { replace: 40, isolate: 40, cut: 60, crash: 20, ..none }, Some(true), None)
        }
    };
    let grows = rule == Rule::GrowthIsMarked;
    let two = matches!(rule, Rule::VolumesInOneOrder | Rule::FlushIsOfAllDisks | Rule::SwappedIsMarked);
    let leaves = matches!(rule, Rule::TakenAwayIsRemembered | Rule::NothingNewWhereItGoes);
    Plan { seed, rules, rates, quorum, protocol, weak: false, grows, two, leaves, loud }
}

const RULES: [Rule; 34] = [
    Rule::HotBeforeData,
    Rule::BitsBeforeCold,
    Rule::ClearOnProof,
    Rule::WriteWaitsForPeer,
    Rule::FlushWaitsForPeer,
    Rule::DropIsGrantedFirst,
    Rule::OverlapsInOrder,
    Rule::WriteDefersToSync,
    Rule::NewGenerationAlone,
    Rule::UnsettledBecomesDirty,
    Rule::SettlementNamesHolders,
    Rule::LowerBallotRefused,
    Rule::TargetMarksOthers,
    Rule::CompareAtRest,
    Rule::BegunAfterBits,
    Rule::CompareAgain,
    Rule::BarrierBeforeLater,
    Rule::CacheKeeperReigns,
    Rule::VoteIsDurable,
    Rule::JoinAfterDrain,
    Rule::KeptIsProved,
    Rule::StableBeforeRest,
    Rule::NewcomerVotesLast,
    Rule::NewcomerMarksOthers,
    Rule::AttachAtRest,
    Rule::GrowthIsMarked,
    Rule::VolumesInOneOrder,
    Rule::FlushIsOfAllDisks,
    Rule::TakenAwayIsRemembered,
    Rule::NothingNewWhereItGoes,
    Rule::SwappedIsMarked,
    Rule::PeersAnswerFirst,
    Rule::WhoPromisedWaits,
    Rule::SpoiledStays,
];

/// Seeds in which a missing rule must be found.
const VARIANTS: u64 = 150;

/// The first of them. Some interleavings come about once in some hundred seeds: the search begins near one of them.
fn first_seed(rule: Rule) -> u64 {
    match rule {
        Rule::CompareAtRest => 650,
        Rule::JoinAfterDrain | Rule::CacheKeeperReigns | Rule::NewcomerVotesLast => 200,
        Rule::VoteIsDurable => 300,
        Rule::SpoiledStays => 1000,
        _ => 1,
    }
}

#[test]
fn each_missing_rule_is_found_by_an_oracle() {
    let only = std::env::var("SHOREFAST_REPL_RULE").ok();
    let mut missed = Vec::new();
    for rule in RULES.into_iter().filter(|r| only.as_ref().is_none_or(|o| *o == format!("{r:?}"))) {
        let mut panics = 0;
        let run = |seed, loud| run_seed(plan_without(rule, seed, Rules::without(rule), loud));
        let first = number("SHOREFAST_REPL_FIRST").unwrap_or(first_seed(rule));
        let seeds = first..first + number("SHOREFAST_REPL_SEEDS").unwrap_or(VARIANTS);
        let found = seeds.into_iter().find_map(|seed| match run(seed, false).verdict {
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
                if only.is_some() && number("SHOREFAST_REPL_SEEDS").is_none() {
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
        for seed in first_seed(rule)..first_seed(rule) + 4 {
            let out = run_seed(plan_without(rule, seed, Rules::all(), false));
            assert_eq!(out.verdict, Verdict::Good, "{rule:?}, seed {seed}");
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = || run_seed(plan(5, false));
    let (a, b) = (run(), run());
    assert_eq!((a.events, a.faults, a.reads, a.counts), (b.events, b.faults, b.reads, b.counts));
}
