//! The simulation of the safety core: offices, coordinators and clients of two to seven nodes on a simulated disk and
//! network, in virtual time, from a seed. The cores are the ones that run in a daemon; only their shells are
//! different, and those take no decision. Exists only in tests and under the feature `simulation`.
//!
//! ```text
//!   app ── files ── client_shell ── core::client ─┐ net: cuts, delay, resets   disk: fabric, LUN, locks, nexuses
//!                                                 ├───────────────────────────────────────────────┐
//!   store ── reign ── core::coord ── office_shell ── core::office                                 oracle
//! ```
//! A run has two phases: [`run_seed`] lets faults happen for 25 virtual seconds while applications work, then ends
//! them all, and everything must heal: one coordinator, everybody bound and direct, applications getting on, every
//! block readable everywhere. [`run_scenario`] plays an interleaving that has a name.
//!
//! **The oracles** (`oracle`) see applications, the disk and the wire. A rule that was taken out counts as found only if
//! one of them speaks; an assertion inside a core is caught and told apart ([`Verdict::Panicked`]).
//!
//! # Modelled
//! - Disk: compare-and-write with answers lost before or after it lands; writes and pages that stick in the fabric; paths
//!   that hang, fail or are slow; a volatile cache that a reset loses; LIVE locks that are free only when the dead
//!   process' last request has landed; SIGKILL by a fencer; registrations per nexus, PREEMPT AND ABORT, READ KEYS, an
//!   all-registrants reservation, session reinstatement; nexuses that hang by themselves, and are proved dead over another;
//!   what waits for a nexus and goes out over the first that may carry it, unless it was taken back.
//! - Network: cuts of every shape, one-way too; delay; any order; connections that break on one side first; ports that
//!   refuse; dead peers noticed late.
//! - Nodes: SIGKILL, a planned restart under programs (their requests wait meanwhile), SIGSTOP, a paused virtual machine
//!   (its clock stands too), a clock that stands.
//! - Store: one value changed by whole transactions, each commit one request over the coordinator's own path, which may stall
//!   between the latch and the disk; latch, suspension, stored answers, grants, orphans.
//! - Applications: opens, reads, writes of blocks and half blocks, appends, truncation, stat, fsync, exclusive creation,
//!   unlink while open.
//! - Programs that lock: records of processes and of open files, `flock`; taken, waited for, given up while they wait, dropped,
//!   left to RELEASE.
//!
//! # Not modelled
//! Pages inside a commit (`meta` has crash tests of its own), bytes of any format, TLS, FUSE, memory limits, interrupted
//! callers of anything but locks, goodbye, `fallocate`, rename and links, the order of commands inside a SCSI session (but for registrations).
//! Unit attentions: a reset poisons unflushed files at once, and blocks that it took back and nobody has mapped yet are
//! zeroes at once.

mod app;
mod client_shell;
mod coverage;
mod disk;
mod exec;
mod faults;
mod files;
mod lockers;
mod net;
mod office_shell;
mod oracle;
mod reign;
mod restarts;
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
