//! The session against a model target in virtual time, from a seed. The session is the one that a driver runs; only the
//! shell around it is a model, and that takes no decision.
//!
//! ```text
//!   app ── host (shell: buffers, proof, settling) ── session ── wire: delay, cuts, silence ── target ── disk
//!                                                                                          oracle ──┘
//! ```
//! A run lets faults happen for [`HURT`] of virtual time while an application reads, writes and compares-and-writes,
//! and another node fences this one now and then; then the faults end, and everything must be answered.
//!
//! **The oracles** see the disk, the application's answers and the wire. A rule that was taken out counts as found only
//! if one of them speaks; an assertion in the session is told apart ([`Verdict::Panicked`]).
//!
//! # Modelled
//! Tasks that stick in the target and land late, also after their connection is gone; reinstatement per ISID and portal
//! group, only through the security stage; registrations, fences, RESERVATION CONFLICT; a window of any size that
//! closes; immediate, unsolicited and solicited data with every combination of keys; status in data or apart; aborts
//! that are answered, refused or never answered; pings both ways; asynchronous messages; redirects; BUSY and full
//! queues; a target that loses PDUs, repeats them, lies about residuals, asks for data out of range.
//!
//! # Not modelled
//! Bytes (the framer has tests of its own), digests, CHAP (login tests), several units, unit attentions.

mod disk;
mod host;
mod rng;
mod target;
mod wire;
mod world;

pub use disk::Violation;
pub use world::{HURT, Outcome, Plan, Verdict, run_seed};

#[cfg(test)]
mod tests;
