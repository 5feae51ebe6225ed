//! What the core knows of one path: its state, what is under way on it, how well it does.
//!
//! ```text
//!               checks passed                      lost, silent, a check failed, fenced
//!  Failed(New) ──────────────► Up ────────────────────────────────────────────┐
//!      ▲                                                                       ▼
//!      │            proved dead                     changes without an answer? yes ─► Proving ─┐
//!      └───────────────────────────── Failed ◄──────────────────────────────── no             │
//!                                        ▲                 proved dead                          │
//!                                        └──────────────────────────────────────────────────────┘
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use super::config::{Config, Now};
use super::event::{Access, Attempt, IoId, PathId, PathState, Reason, Standing};
use super::rules::{Rule, Rules};

/// Of the throughput measured so far a new measurement counts an eighth: a burst does not move it, a slow path does.
const WEIGHT: u64 = 8;
/// Bytes per second of a path that has moved nothing yet: it is to be tried, and to be judged by what it does.
const UNKNOWN: u64 = 100 << 20;

/// One path.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) state: PathState,
    pub(super) worker: Option<usize>,
    pub(super) access: Access,
    /// As of its last good check.
    pub(super) standing: Standing,
    /// Since when its group changes its state.
    pub(super) changing: Option<Now>,
    /// Requests under way, and their bytes.
    pub(super) in_flight: u32,
    pub(super) bytes: u64,
    /// Bytes per second.
    pub(super) speed: u64,
    /// What was sent, oldest first. The first is under way; behind it some may be answered.
    pub(super) sent: VecDeque<(IoId, Attempt, Now)>,
    /// A proof is under way; it covers what was sent up to here.
    pub(super) proving: Option<Attempt>,
    /// When it is to be tried again.
    pub(super) prove_at: Option<Now>,
    pub(super) checking: bool,
    /// The path failed while it was being checked: what that check finds is of before.
    pub(super) outdated: bool,
    pub(super) check_at: Now,
    /// Between two checks, as long as it is well.
    pub(super) pause: Duration,
    /// Checks passed in a row.
    pub(super) good: u8,
}

impl Path {
    pub(super) fn new(now: Now, worker: Option<usize>, config: &Config) -> Path {
        Path {
            state: PathState::Failed(Reason::New),
            worker,
            access: Access::PLAIN,
            standing: Standing::default(),
            changing: None,
            in_flight: 0,
            bytes: 0,
            speed: UNKNOWN,
            sent: VecDeque::new(),
            proving: None,
            prove_at: None,
            checking: false,
            outdated: false,
            check_at: now,
            pause: config.check_min,
            good: 0,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.state == PathState::Up
    }

    /// How good its group is; `None` if no request may go there.
    pub(super) fn rank(&self, rules: Rules) -> Option<u8> {
        let proving = matches!(self.state, PathState::Proving(_)) && !rules.has(Rule::NothingBeforeProof);
        if self.is_up() || proving { self.access.rank() } else { None }
    }

    /// Its group changes its state and may still take its time.
    pub(super) fn is_changing(&self, now: Now, config: &Config) -> bool {
        let limit = self.access.transition.unwrap_or(config.transition);
        self.is_up() && self.changing.is_some_and(|since| now.since(since) < limit)
    }

    /// Checks in a row that it must pass.
    pub(super) fn checks_needed(&self, config: &Config) -> u8 {
        match self.state {
            PathState::Failed(Reason::New) => 1,
            _ => config.good_checks.max(1),
        }
    }

    /// A request has moved its bytes in that time.
    pub(super) fn measured(&mut self, bytes: u64, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        if bytes > 0 {
            let speed = bytes.saturating_mul(1_000_000) / micros;
            self.speed = (self.speed - self.speed / WEIGHT + speed / WEIGHT).max(1);
        }
    }

    /// When its next check is due: spread, so that a device's paths are not checked all at once.
    pub(super) fn next_check(&mut self, now: Now, id: PathId, config: &Config) {
        let spread = Duration::from_millis(u64::from(id.0 % 8) * 37);
        if self.is_up() && self.changing.is_none() {
            self.check_at = now + self.pause + spread;
            self.pause = (self.pause * 2).min(config.check_max);
        } else {
            self.pause = config.check_min;
            self.check_at = now + config.check_failed + spread / 8;
        }
    }
}
