//! Commands are gathered while answers come quickly, so that several travel in one call of the system. Pure.
//!
//! With many commands at the target its answers come one by one, and each makes its owner ask for the next thing. Sent alone, such a
//! command is most of what a small request costs: the kernel carries it all the way into the target's socket. So a few wait for the
//! next answer: at most an eighth of what is in flight. By Little's law that makes a command an eighth slower at most, and while the target
//! is what limits, not slower at all: it has the others to work on.
//!
//! ```text
//! Open ─ few commands, answers come quickly ─► Holding ─ enough wait, or something that is no short command ─► Open
//!   ▲                                             └─ PATIENCE is over ─► Resting ─ so many answers later ─┐
//!   └─────────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! Invariant: nothing waits longer than [`PATIENCE`], whatever the target does, and a target that has made something wait so long is
//! sent everything at once for [`REST`] answers. Prevents: the one command that the target could answer at once waits for slow ones.

use std::time::{Duration, Instant};

/// The part of what is in flight that may wait. Below eight commands in flight nothing does.
const SHARE: u32 = 8;
/// Answers come quickly if one comes at least so often. Several times within [`PATIENCE`]: then the time is not what ends a wait.
const QUICK: Duration = Duration::from_micros(200);
/// The longest pause that counts: a process that did not run for a moment has not had slow answers.
const PAUSE: Duration = Duration::from_millis(1);
/// How long a command waits at most: what a timer of the runtime can tell.
pub(super) const PATIENCE: Duration = Duration::from_millis(1);
/// Answers for which nothing is held back after one that did not come in time.
const REST: u32 = 1024;

/// What is known of the answers, and whether something waits.
pub(super) struct Gather {
    /// When the last answers came.
    last: Option<Instant>,
    /// From one answer to the next, smoothed.
    gap: Duration,
    /// Since when something is held back.
    since: Option<Instant>,
    /// Answers until something may be held back again.
    resting: u32,
}

impl Gather {
    pub(super) fn new() -> Gather {
        Gather { last: None, gap: PAUSE, since: None, resting: 0 }
    }

    /// So many commands were answered by now.
    pub(super) fn answered(&mut self, now: Instant, count: u32) {
        if count == 0 {
            return;
        }
        let pause = self.last.map_or(PAUSE, |last| now.saturating_duration_since(last).min(PAUSE));
        self.last = Some(now);
        self.gap = (self.gap * 7 + pause / count) / 8;
        self.resting = self.resting.saturating_sub(count);
    }

    /// Whether what waits is held back: so many short commands and nothing else (none: something else waits, too), of so many
    /// commands in flight.
    pub(super) fn holds(&mut self, now: Instant, commands: Option<usize>, in_flight: u32) -> bool {
        let few = commands.filter(|n| *n > 0 && *n <= (in_flight / SHARE) as usize);
        if few.is_none() || self.gap > QUICK || self.resting > 0 {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) < PATIENCE {
            return true;
        }
        (self.since, self.resting) = (None, REST);
        false
    }

    /// When what is held back goes out at the latest; none if nothing is.
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    /// With an answer each 20 us, and the time of the last.
    fn quick() -> (Gather, Instant) {
        let (mut gather, mut now) = (Gather::new(), Instant::now());
        for _ in 0..40 {
            now += 20 * US;
            gather.answered(now, 1);
        }
        (gather, now)
    }

    #[test]
    fn an_eighth_of_what_is_in_flight_waits_and_no_more() {
        let (mut gather, now) = quick();
        for (waiting, in_flight, held) in [(1, 7, false), (1, 8, true), (2, 15, false), (4, 32, true), (5, 32, false)] {
            assert_eq!(gather.holds(now, Some(waiting), in_flight), held, "{waiting} of {in_flight}");
            assert_eq!(gather.due(), held.then_some(now + PATIENCE));
            assert!(!gather.holds(now, Some(0), in_flight), "it went out");
        }
    }

    #[test]
    fn what_is_no_short_command_takes_everything_along() {
        let (mut gather, now) = quick();
        assert!(gather.holds(now, Some(1), 32));
        assert!(!gather.holds(now, None, 32));
        assert_eq!(gather.due(), None);
    }

    #[test]
    fn nothing_is_held_back_before_answers_come_quickly() {
        let (mut gather, mut now) = (Gather::new(), Instant::now());
        assert!(!gather.holds(now, Some(1), 32), "nothing is known yet");
        for _ in 0..40 {
            now += 400 * US;
            gather.answered(now, 1);
            assert!(!gather.holds(now, Some(1), 32), "too slow");
        }
        // Eight at once every 400 us are one every 50.
        for _ in 0..40 {
            now += 400 * US;
            gather.answered(now, 8);
        }
        assert!(gather.holds(now, Some(1), 32));
    }

    #[test]
    fn a_wait_ends_by_the_clock_and_none_follows_for_a_while() {
        let (mut gather, begun) = quick();
        assert!(gather.holds(begun, Some(1), 32));
        let almost = begun + PATIENCE - US;
        assert!(gather.holds(almost, Some(3), 32), "others join, the first one's time counts");
        assert_eq!(gather.due(), Some(begun + PATIENCE));
        assert!(!gather.holds(begun + PATIENCE, Some(3), 32));
        let mut now = begun + PATIENCE;
        for _ in 0..REST {
            assert!(!gather.holds(now, Some(1), 32), "answers come quickly again, and are not believed yet");
            now += 20 * US;
            gather.answered(now, 1);
        }
        assert!(gather.holds(now, Some(1), 32));
    }

    #[test]
    fn a_pause_of_the_process_is_forgotten_soon() {
        let (mut gather, mut now) = quick();
        now += Duration::from_secs(10);
        gather.answered(now, 1);
        for _ in 0..8 {
            now += 20 * US;
            gather.answered(now, 1);
        }
        assert!(gather.holds(now, Some(1), 32));
    }
}
