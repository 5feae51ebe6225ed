//! Histories: what programs asked of a shared volume, when, and what they were answered; and whether any one volume, used by one
//! program after the other, could have answered like that.
//!
//! - `event`: what is recorded. `raw`: the text of a history, a line an event.
//! - `register`, `append`, `names`, `mutex`: the kinds of objects, each with what must hold of it. `search` is the search for an
//!   order that the last two share.
//! - `verdict`: a whole history: objects one by one, and the counters.
//! - `worker`: the program that makes a history, by real system calls on a mount. The only part that is not pure.
//!
//! # When something took effect
//! A call that succeeded took effect once, between its start and its end. One that **failed** may have taken effect before it
//! returned, or never: that is the contract (docs/semantics/data.md 13a, DESIGN invariant 6), and what is seen of it only
//! afterwards is *executed after failure*. One whose outcome is **unknown** (its node died) may take effect until the next life of
//! its node begins (docs/semantics/coordinator.md 9), or never.
//!
//! Times are one clock's, of one host. A start is read before the call and an end after it, so an interval is never too short.
#![forbid(unsafe_code)]

pub mod append;
pub mod event;
pub mod mutex;
pub mod names;
pub mod raw;
pub mod register;
pub mod search;
pub mod verdict;
pub mod worker;

#[cfg(test)]
mod brute;
