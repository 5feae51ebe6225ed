//! The interleavings that must be there by name: each is scripted, and each must be harmless with every rule in force.
//! With the rule taken out that it was written for, an oracle speaks.

mod fabric;
mod fences;
mod restarts;
mod rights;
mod script;

use super::run::{Outcome, guarded};
use super::world::Setup;
use crate::core::rules::{Rule, Rules};

use script::Script;

/// A scripted interleaving.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name: what happens.
    pub name: &'static str,
    /// The rule that keeps it harmless; `None` if several do.
    pub rule: Option<Rule>,
    nodes: u8,
    scsi: bool,
    nexuses: u16,
    script: fn(&mut Script<'_>),
}

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    fences::PAUSED_COORDINATOR,
    fabric::RESIGNATION,
    fabric::STUCK_WRITE,
    fabric::BROKEN_CONNECTION,
    fabric::RETURN_UNDER_A_WRITE,
    fabric::WAY_BACK,
    fabric::REPEATED_WRITE,
    fabric::ONLY_ONE,
    fabric::WAITING_PAGE,
    fabric::ONE_NEXUS_HANGS,
    fences::WAKES_SUCCEEDED,
    fences::EVICTED_ON_THE_WIRE,
    fences::LATE_ANSWER,
    fences::HALF_EVICTED,
    fences::REASSERTED_AFTER_EVICTION,
    fences::TWO_TAKEOVERS,
    fences::LOST_CAW,
    fences::LATE_FENCER,
    fences::REGISTERS_AGAIN,
    fences::TWO_FENCERS,
    fences::SECOND_NEXUS,
    fences::FENCER_DIES,
    fences::ANSWERED_TOO_SOON,
    fences::OLD_PROOF,
    fences::OWN_RAISE,
    rights::RING_OF_RECALLS,
    rights::HUNG_PATH,
    rights::FREED_TOO_SOON,
    rights::ANSWER_LOST,
    rights::RESENT_TOO_SOON,
    rights::LOCK_NOT_NAMED_YET,
    rights::REFUSED_FOR_NOTHING,
    rights::GIVEN_UP_WRITE,
    rights::GIVEN_UP_CALL,
    restarts::LEFT_TOO_SOON,
    restarts::EVICTED_BETWEEN,
    restarts::COORDINATOR_LEAVES,
    restarts::LEFT_UNPROVED,
    restarts::RESTARTED_ON_A_UNIT,
    restarts::EVICTED_BETWEEN_ON_A_UNIT,
    restarts::KILLED_WITH_A_CALL,
    restarts::COMES_AGAIN,
    restarts::KILLED_UNCOMMITTED,
    restarts::KILLED_WITH_A_LOCK,
    restarts::KILLED_AND_EVICTED,
    restarts::KILLED_IN_OFFICE,
    restarts::KILLED_AND_SUCCEEDED,
];

/// Runs a scenario; `seed` moves the small delays about.
pub fn run_scenario(scenario: &Scenario, seed: u64, rules: Rules, loud: bool) -> Outcome {
    let Scenario { nodes, scsi, nexuses, .. } = *scenario;
    let setup = Setup { seed, nodes, scsi, nexuses, rules, blocks: 120, io_timeout: 0, loud };
    guarded(setup, |sim| (scenario.script)(&mut Script::new(sim)))
}
