//! The simulation of the safety core.
mod app;
mod client_shell;
mod coverage;
mod disk;
mod exec;
mod faults;
mod files;
mod net;
mod office_shell;
mod oracle;
mod reign;
mod rng;
mod run;
mod scenarios;
mod store;
mod world;

pub use coverage::Coverage;
pub use faults::fault_names;
pub use oracle::{Invariant, Violation};
pub use run::{EVENTS, FAULTS, Outcome, Verdict, run_seed, setup_of};
pub use scenarios::{SCENARIOS, Scenario, run_scenario};
pub use world::Setup;

#[cfg(test)]
mod tests;
