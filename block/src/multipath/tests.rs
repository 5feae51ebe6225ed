//! Unit tests of the core, and the simulation as tests.
//!
//! - `SHOREFAST_PATH_SEEDS=2000`: seeds 1 to 2000; without it a short run.

use std::collections::BTreeMap;
use std::time::Duration;

use scsi::alua::AccessState;

use super::config::{Config, Failback, Now, Policy};
use super::core::Core;
use super::event::{Access, Attempt, Effect, Event, Found, IoId, Kind, Outcome, PathId, PathState, Reason, Standing};
use super::rules::{Rule, Rules};
use super::sim::{self, Rates};
use crate::error::IoErrorKind;

/// Seeds of a short run.
const SHORT: u64 = 100;
/// Seeds in which a missing rule must be found.
const VARIANTS: u64 = 60;

struct Bench {
    core: Core,
    now: Now,
}

const A: PathId = PathId(0);
const B: PathId = PathId(1);

impl Bench {
    /// Two paths that are up.
    fn new(config: Config) -> Bench {
        let mut bench = Bench { core: Core::new(config), now: Now(0) };
        for path in [A, B] {
            let fx = bench.tell(Event::Add { worker: Some(usize::from(path.0)) });
            assert_eq!(fx, [Effect::Check(path)], "a path is looked at before it is used");
            assert_eq!(bench.found(path, AccessState::ActiveOptimized), [Effect::Changed(path, PathState::Up)]);
        }
        bench
    }

    fn tell(&mut self, event: Event) -> Vec<Effect> {
        let mut fx = Vec::new();
        self.core.handle(self.now, event, &mut fx);
        fx
    }

    fn found(&mut self, path: PathId, state: AccessState) -> Vec<Effect> {
        let access = Access { state, ..Access::PLAIN };
        self.tell(Event::Checked { path, result: Ok(Found { same_disk: true, access, standing: Standing(0) }) })
    }

    fn submit(&mut self, io: u32, kind: Kind) -> Vec<Effect> {
        self.tell(Event::Submit { io: IoId(io), kind, len: 4096, worker: None })
    }

    /// Where a request went.
    fn sent(&mut self, io: u32, kind: Kind) -> (PathId, Attempt) {
        issued(&self.submit(io, kind)).unwrap_or_else(|| panic!("request {io} is sent"))
    }

    fn end(&mut self, io: u32, attempt: Attempt, outcome: Outcome) -> Vec<Effect> {
        self.tell(Event::Ended { io: IoId(io), attempt, outcome })
    }

    fn later(&mut self, ms: u64) -> Vec<Effect> {
        self.now = self.now + Duration::from_millis(ms);
        self.tell(Event::Tick)
    }
}

fn issued(fx: &[Effect]) -> Option<(PathId, Attempt)> {
    fx.iter().find_map(|e| match e {
        Effect::Issue { path, attempt, .. } => Some((*path, *attempt)),
        _ => None,
    })
}

fn failover() -> Config {
    Config { policy: Policy::Failover, ..Config::default() }
}

fn done(io: u32) -> Effect {
    Effect::Complete(IoId(io), Ok(()))
}

#[test]
fn a_write_without_an_answer_waits_until_its_path_is_proved_dead() {
    let mut b = Bench::new(failover());
    let (path, first) = b.sent(1, Kind::Change);
    assert_eq!(path, A);
    let fx = b.end(1, first, Outcome::Doubt(IoErrorKind::NoPath));
    assert!(fx.contains(&Effect::Prove(A)) && issued(&fx).is_none(), "{fx:?}");
    assert!(issued(&b.later(500)).is_none());
    assert_eq!(b.core.in_doubt(), 1);
    let fx = b.tell(Event::Proved { path: A, dead: true });
    let (path, again) = issued(&fx).expect("is sent again");
    assert_eq!(path, B);
    assert_eq!(b.end(1, again, Outcome::Good), [done(1)]);
}

#[test]
fn a_proof_that_fails_is_tried_again_and_nothing_is_sent_meanwhile() {
    let mut b = Bench::new(failover());
    let (_, first) = b.sent(1, Kind::Change);
    b.end(1, first, Outcome::Doubt(IoErrorKind::NoPath));
    assert_eq!(b.tell(Event::Proved { path: A, dead: false }), []);
    let fx = b.later(1100);
    assert!(fx.contains(&Effect::Prove(A)) && issued(&fx).is_none(), "{fx:?}");
}

/// The path still has the request's memory: it goes on when both are there, the proof and the memory.
#[test]
fn a_silent_path_gives_its_writes_back_before_they_go_elsewhere() {
    let mut b = Bench::new(failover());
    let (_, first) = b.sent(1, Kind::Change);
    let fx = b.later(3100);
    assert!(fx.contains(&Effect::Prove(A)) && issued(&fx).is_none(), "{fx:?}");
    assert!(issued(&b.tell(Event::Proved { path: A, dead: true })).is_none(), "its memory is not here");
    let fx = b.end(1, first, Outcome::Dead);
    assert_eq!(issued(&fx).map(|(p, _)| p), Some(B));
}

#[test]
fn reads_of_a_failed_path_go_elsewhere_at_once_and_their_late_answer_is_passed_over() {
    let mut b = Bench::new(failover());
    let (_, first) = b.sent(1, Kind::Free);
    let fx = b.tell(Event::Lost { path: A, reason: Reason::Silent });
    let (path, again) = issued(&fx).expect("is sent again");
    assert_eq!(path, B);
    assert!(!fx.contains(&Effect::Prove(A)), "a read changes nothing");
    assert_eq!(b.end(1, first, Outcome::Good), []);
    assert_eq!(b.end(1, again, Outcome::Good), [done(1)]);
}

#[test]
fn a_fault_of_one_path_is_tried_once_over_another_and_the_path_stays() {
    let mut bench = Bench::new(Config { policy: Policy::Failover, ..Config::default() });
    let (path, attempt) = bench.sent(1, Kind::Change);
    assert_eq!(path, A);
    let fault = Outcome::Elsewhere(IoErrorKind::Hardware);
    let (path, attempt) = issued(&bench.end(1, attempt, fault)).expect("is sent again");
    assert_eq!(path, B, "the first path would be taken otherwise");
    assert_eq!(bench.end(1, attempt, fault), [Effect::Complete(IoId(1), Err(IoErrorKind::Hardware))]);
    assert_eq!(bench.core.states().next(), Some(&PathState::Up));
    // The other path goes while it would have been taken.
    let (_, attempt) = bench.sent(2, Kind::Free);
    bench.tell(Event::Lost { path: B, reason: Reason::Silent });
    assert_eq!(bench.end(2, attempt, fault), [Effect::Complete(IoId(2), Err(IoErrorKind::Hardware))]);
}

#[test]
fn a_conflict_is_told_at_once_and_tried_nowhere_else() {
    let mut b = Bench::new(failover());
    let (_, first) = b.sent(1, Kind::Change);
    let fx = b.end(1, first, Outcome::Fenced);
    assert!(fx.contains(&Effect::Complete(IoId(1), Err(IoErrorKind::Fenced))) && issued(&fx).is_none(), "{fx:?}");
    assert_eq!(b.core.states().next(), Some(&PathState::Failed(Reason::Fenced)));
}

#[test]
fn a_path_comes_back_after_its_checks_and_only_as_the_same_disk() {
    let mut b = Bench::new(failover());
    b.tell(Event::Lost { path: A, reason: Reason::Silent });
    let (path, attempt) = b.sent(1, Kind::Free);
    assert_eq!((path, b.end(1, attempt, Outcome::Good)), (B, vec![done(1)]));
    assert!(b.later(1100).contains(&Effect::Check(A)));
    assert_eq!(b.found(A, AccessState::ActiveOptimized), [], "one check is not enough");
    assert!(b.later(1100).contains(&Effect::Check(A)));
    assert_eq!(b.found(A, AccessState::ActiveOptimized), [Effect::Changed(A, PathState::Up)]);
    assert_eq!(b.sent(2, Kind::Free).0, A, "failback");
    b.tell(Event::Lost { path: A, reason: Reason::Silent });
    b.later(1100);
    let other = Found { same_disk: false, access: Access::PLAIN, standing: Standing(0) };
    let fx = b.tell(Event::Checked { path: A, result: Ok(other) });
    assert_eq!(fx, [Effect::Changed(A, PathState::Failed(Reason::OtherDisk))]);
    assert_eq!(b.sent(3, Kind::Change).0, B);
}

#[test]
fn failback_by_hand_waits_for_the_word() {
    let mut b = Bench::new(Config { failback: Failback::Manual, good_checks: 1, ..failover() });
    assert_eq!(b.sent(1, Kind::Free).0, A);
    b.tell(Event::Lost { path: A, reason: Reason::Silent });
    assert_eq!(b.sent(2, Kind::Free).0, B);
    b.later(1100);
    b.found(A, AccessState::ActiveOptimized);
    assert_eq!(b.sent(3, Kind::Free).0, B);
    b.tell(Event::FailBack);
    assert_eq!(b.sent(4, Kind::Free).0, A);
}

#[test]
fn the_best_port_group_takes_all_and_a_worse_one_takes_over() {
    let mut b = Bench::new(Config { policy: Policy::RoundRobin, ..Config::default() });
    b.found(A, AccessState::ActiveNonOptimized);
    assert!((1..5).all(|io| b.sent(io, Kind::Free).0 == B));
    b.found(B, AccessState::Standby);
    assert!((5..9).all(|io| b.sent(io, Kind::Free).0 == A));
}

/// Both groups change their state: nothing fails as long as that may take.
#[test]
fn requests_wait_while_port_groups_change_their_state() {
    let mut b = Bench::new(Config { no_path: Duration::from_secs(5), ..failover() });
    let (_, first) = b.sent(1, Kind::Change);
    let fx = b.end(1, first, Outcome::NotAccessible);
    assert!(fx.contains(&Effect::Check(A)), "{fx:?}");
    let (path, again) = issued(&fx).expect("not executed: it goes elsewhere without a proof");
    assert_eq!((path, b.end(1, again, Outcome::Good)), (B, vec![done(1)]));
    b.found(A, AccessState::Transitioning);
    b.found(B, AccessState::Transitioning);
    assert_eq!(b.submit(2, Kind::Free), []);
    for _ in 0..20 {
        assert!(!b.later(1000).iter().any(|e| matches!(e, Effect::Complete(..))));
        b.found(A, AccessState::Transitioning);
        b.found(B, AccessState::Transitioning);
    }
    assert_eq!(issued(&b.found(B, AccessState::ActiveOptimized)).map(|(p, _)| p), Some(B));
}

#[test]
fn without_a_path_requests_wait_within_bounds_of_number_and_time() {
    let mut b = Bench::new(Config { max_waiting: 2, no_path: Duration::from_secs(5), ..failover() });
    for path in [A, B] {
        b.tell(Event::Lost { path, reason: Reason::Silent });
    }
    assert_eq!((b.submit(1, Kind::Free), b.submit(2, Kind::Change)), (vec![], vec![]));
    let full = |io| Effect::Complete(IoId(io), Err(IoErrorKind::NoPath));
    assert_eq!(b.submit(3, Kind::Free), [full(3)]);
    let fx = b.later(5100);
    assert!(fx.contains(&full(1)) && fx.contains(&full(2)), "{fx:?}");
    assert_eq!(b.submit(4, Kind::Free), [full(4)], "nobody waits any more");
}

#[test]
fn withdrawing_ends_when_nothing_can_land_any_more() {
    let mut b = Bench::new(failover());
    let (_, write) = b.sent(1, Kind::Change);
    let (_, _read) = b.sent(2, Kind::Free);
    let aborted = |io| Effect::Complete(IoId(io), Err(IoErrorKind::Aborted));
    let fx = b.tell(Event::Withdraw);
    assert!(fx.contains(&aborted(2)) && fx.contains(&Effect::Prove(A)), "{fx:?}");
    assert!(!fx.contains(&Effect::Withdrawn));
    assert!(!b.tell(Event::Proved { path: A, dead: true }).contains(&Effect::Withdrawn), "its memory is not here");
    assert_eq!(b.end(1, write, Outcome::Dead), [aborted(1), Effect::Withdrawn]);
    assert_eq!(b.tell(Event::Withdraw), [Effect::Withdrawn], "nothing is under way");
}

/// A node lost every path, and another fenced it: the write that was stuck came back without its data, which the dead path had, and
/// could not be sent over the coordinator. The program got EIO.
#[test]
fn what_a_fence_has_ended_is_answered_once_its_path_has_given_its_data_back() {
    let mut b = Bench::new(failover());
    let (_, write) = b.sent(1, Kind::Change);
    b.tell(Event::Withdraw);
    assert_eq!(b.tell(Event::TasksEnded), [Effect::GiveBack(A)]);
    let fx = b.end(1, write, Outcome::Doubt(IoErrorKind::NoPath));
    assert!(fx.contains(&Effect::Complete(IoId(1), Err(IoErrorKind::Aborted))), "{fx:?}");
    assert!(fx.contains(&Effect::Withdrawn), "{fx:?}");
}

#[test]
fn closing_answers_everything_that_waits() {
    let mut b = Bench::new(failover());
    let (_, first) = b.sent(1, Kind::Change);
    b.end(1, first, Outcome::Doubt(IoErrorKind::NoPath));
    b.tell(Event::Lost { path: B, reason: Reason::Silent });
    b.submit(2, Kind::Free);
    let fx = b.tell(Event::Close);
    let end = |io, kind| Effect::Complete(IoId(io), Err(kind));
    assert_eq!(fx, [end(1, IoErrorKind::TimedOut), end(2, IoErrorKind::ShuttingDown)]);
    assert_eq!(b.submit(3, Kind::Free), [end(3, IoErrorKind::ShuttingDown)]);
}

#[test]
fn policies_spread_as_they_say() {
    let taken = |policy, answer: bool| {
        let mut b = Bench::new(Config { policy, ..Config::default() });
        let mut on = [0; 2];
        for io in 0..8 {
            let (path, attempt) = b.sent(io, Kind::Free);
            on[usize::from(path.0)] += 1;
            if answer && path == B {
                b.end(io, attempt, Outcome::Good);
            }
        }
        on
    };
    assert_eq!(taken(Policy::RoundRobin, true), [4, 4]);
    assert_eq!(taken(Policy::Failover, true), [8, 0]);
    let [a, b] = taken(Policy::LeastQueue, true);
    assert!(a == 1 && b == 7, "the idle one takes what comes: {a} {b}");
}

/// Path A moves 4096 bytes in 100 ms, B in 1 ms.
#[test]
fn by_service_time_the_faster_path_takes_most() {
    let mut b = Bench::new(Config { policy: Policy::ServiceTime, ..Config::default() });
    let mut on = [0; 2];
    for io in 0..200 {
        let (path, attempt) = b.sent(io % 8, Kind::Free);
        on[usize::from(path.0)] += 1;
        let took = if path == A { 100 } else { 1 };
        b.now = b.now + Duration::from_millis(took);
        b.end(io % 8, attempt, Outcome::Good);
    }
    assert!(on[1] > 150, "{on:?}");
}

#[test]
fn a_request_takes_the_path_of_its_own_worker() {
    let mut b = Bench::new(Config::default());
    for (io, worker) in [(1, 0), (2, 1), (3, 1), (4, 0)] {
        let fx = b.tell(Event::Submit { io: IoId(io), kind: Kind::Free, len: 4096, worker: Some(worker) });
        assert_eq!(issued(&fx).map(|(p, _)| usize::from(p.0)), Some(worker));
    }
    b.tell(Event::Lost { path: B, reason: Reason::Silent });
    let fx = b.tell(Event::Submit { io: IoId(5), kind: Kind::Free, len: 4096, worker: Some(1) });
    assert_eq!(issued(&fx).map(|(p, _)| p), Some(A), "another one, if its own has failed");
}

#[test]
fn seeds_under_faults_violate_nothing_and_everything_is_answered() {
    let seeds = std::env::var("SHOREFAST_PATH_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(SHORT);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 1..=seeds {
        let world = sim::run(seed, Rules::all(), Rates::mixed());
        assert_eq!(world.found, None, "seed {seed}");
        world.counts.into_iter().for_each(|(what, n)| *counts.entry(what).or_default() += n);
    }
    println!("{seeds} seeds, paths");
    counts.iter().for_each(|(what, n)| println!("  {what}: {n}"));
    let never: Vec<&&str> = EXPECTED.iter().filter(|e| !counts.contains_key(**e)).collect();
    assert!(never.is_empty(), "never happened in {seeds} seeds: {never:?}");
}

const EXPECTED: &[&str] = &[
    "conflict",
    "failed: Aborted",
    "failed: Fenced",
    "failed: NoPath",
    "fault: cut",
    "fault: fence",
    "fault: group",
    "fault: no proof",
    "fault: silence",
    "fault: stuck",
    "fault: withdraw",
    "good",
    "proof",
    "state: failed",
    "state: up",
    "withdrawn",
];

/// Faults that make the interleaving of a rule likely.
fn rates_for(rule: Rule) -> Rates {
    let none = Rates::default();
    match rule {
        Rule::DeadBeforeReissue | Rule::LateAnswersPass => Rates { stick: 50, cut: 60, silence: 20, ..none },
        Rule::NothingBeforeProof => Rates { stick: 50, cut: 60, no_proof: 500, ..none },
        Rule::ConflictIsFinal => Rates { fence: 20, ..none },
        Rule::SameDiskOnly => Rates { cut: 60, other_disk: 500, ..none },
        Rule::WithdrawnWhenDead => Rates { stick: 50, withdraw: 50, ..none },
        Rule::BestGroupOnly => Rates { group: 50, ..none },
        Rule::ReadsGoAround | Rule::SilenceFails => Rates { stick: 20, silence: 10, ..none },
        Rule::TransitionWaits => Rates { group: 15, ..none },
        Rule::QueueBounded => Rates { cut: 300, ..none },
    }
}

const RULES: [Rule; 10] = [
    Rule::DeadBeforeReissue,
    Rule::NothingBeforeProof,
    Rule::ConflictIsFinal,
    Rule::SameDiskOnly,
    Rule::LateAnswersPass,
    Rule::WithdrawnWhenDead,
    Rule::BestGroupOnly,
    Rule::ReadsGoAround,
    Rule::SilenceFails,
    Rule::TransitionWaits,
];

#[test]
fn each_missing_rule_is_found_by_an_oracle() {
    let mut missed = Vec::new();
    for rule in RULES.into_iter().chain([Rule::QueueBounded]) {
        let search = |seed| {
            let run = std::panic::catch_unwind(|| sim::run(seed, Rules::without(rule), rates_for(rule)).found);
            run.ok().flatten().map(|what| (seed, what))
        };
        match (1..=VARIANTS).find_map(search) {
            Some((seed, what)) => println!("{rule:?}: seed {seed}: {what}"),
            None => missed.push(rule),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn with_every_rule_the_same_faults_do_no_harm() {
    for rule in RULES.into_iter().chain([Rule::QueueBounded]) {
        for seed in 1..=2 {
            assert_eq!(sim::run(seed, Rules::all(), rates_for(rule)).found, None, "{rule:?}, seed {seed}");
        }
    }
}
