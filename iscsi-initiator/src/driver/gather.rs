//! Answers are gathered while they come quickly: the kernel wakes the driver for several of them. Pure: it says from how many bytes on.
//!
//! With many commands at the target its answers come one by one. Woken for each, the driver pays for falling asleep, for a call that
//! waits, one that reads and one that writes the next command: most of what a small request costs. So it asks to be woken
//! when an eighth of what is in flight has been answered. By Little's law that makes a request an eighth slower at most, and where
//! the target is what limits, not slower at all: it has the others to work on.
//!
//! ```text
//! Open ─ answers come quickly ─► Gathering ─ they have come ─► Open
//!   ▲                               └─ PATIENCE is over ─► Resting ─ so many answers later ─┐
//!   └───────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! Invariant: no answer lies in the socket for longer than [`PATIENCE`], and a target that has made one lie so long is answered at the
//! first byte for [`REST`] answers. Prevents: one quick answer among many slow ones waits for them, again and again.

use std::time::{Duration, Instant};

/// The part of what is in flight whose answers may wait for one another. Below eight commands in flight none does.
const SHARE: u32 = 8;
/// Answers come quickly if one comes at least so often: several within [`PATIENCE`], so that the time is not what ends a wait.
const QUICK: Duration = Duration::from_micros(200);
/// The longest pause that counts: a process that did not run for a moment has not had slow answers.
const PAUSE: Duration = Duration::from_millis(1);
/// How long an answer waits at most: what a timer of the runtime can tell.
pub(super) const PATIENCE: Duration = Duration::from_millis(1);
/// Answers that wait for no other after some that did not come in time.
const REST: u32 = 1024;
/// The most bytes that are waited for: the kernel has to keep them, and the target's socket to send them.
const MOST: u64 = 256 << 10;

/// What is known of the answers.
pub(super) struct Gather {
    /// When the last ones came.
    last: Option<Instant>,
    /// From one to the next, smoothed.
    gap: Duration,
    /// Bytes of one, smoothed.
    size: u64,
    /// Since when several are waited for.
    since: Option<Instant>,
    /// Answers until several may be waited for again.
    resting: u32,
}

impl Gather {
    pub(super) fn new() -> Gather {
        Gather { last: None, gap: PAUSE, size: 0, since: None, resting: 0 }
    }

    /// So many commands were answered by now, with so many bytes.
    pub(super) fn answered(&mut self, now: Instant, count: u32, bytes: u64) {
        if count == 0 {
            return;
        }
        let pause = self.last.map_or(PAUSE, |last| now.saturating_duration_since(last).min(PAUSE));
        self.last = Some(now);
        self.gap = (self.gap * 7 + pause / count) / 8;
        self.size = (self.size * 7 + bytes / u64::from(count)) / 8;
        self.resting = self.resting.saturating_sub(count);
        self.since = None;
    }

    /// How many bytes are worth waking up for with so many commands in flight; 1 if the first is.
    pub(super) fn worth(&mut self, now: Instant, in_flight: u32) -> usize {
        let answers = u64::from(in_flight / SHARE);
        // An eighth less than so many answers are expected to have: it is their last one that wakes, whatever it lacks.
        let bytes = (answers * self.size).min(MOST) * 7 / 8;
        if bytes == 0 || self.gap > QUICK || self.resting > 0 {
            self.since = None;
            return 1;
        }
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) < PATIENCE {
            return usize::try_from(bytes).unwrap_or(1);
        }
        (self.since, self.resting) = (None, REST);
        1
    }

    /// When the first byte is worth it at the latest; none if it is now.
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    /// With an answer of 4096 bytes each 20 us, and the time of the last.
    fn quick() -> (Gather, Instant) {
        let (mut gather, mut now) = (Gather::new(), Instant::now());
        for _ in 0..100 {
            now += 20 * US;
            gather.answered(now, 1, 4096);
        }
        gather.size = 4096; // what it tends to, without the last rounding
        (gather, now)
    }

    #[test]
    fn an_eighth_of_what_is_in_flight_is_waited_for_and_no_more() {
        let (mut gather, now) = quick();
        for (in_flight, bytes) in [(7, 1), (8, 3584), (15, 3584), (16, 7168), (32, 14336), (1023, 229_376)] {
            assert_eq!(gather.worth(now, in_flight), bytes, "{in_flight} in flight");
            assert_eq!(gather.due(), (bytes > 1).then_some(now + PATIENCE));
        }
    }

    #[test]
    fn the_first_byte_wakes_before_answers_come_quickly() {
        let (mut gather, mut now) = (Gather::new(), Instant::now());
        assert_eq!(gather.worth(now, 32), 1, "nothing is known yet");
        for _ in 0..40 {
            now += 400 * US;
            gather.answered(now, 1, 48);
            assert_eq!((gather.worth(now, 32), gather.due()), (1, None), "too slow");
        }
        // Eight at once every 400 us are one every 50.
        for _ in 0..40 {
            now += 400 * US;
            gather.answered(now, 8, 8 * 48);
        }
        assert!(gather.worth(now, 32) > 1);
    }

    #[test]
    fn a_wait_ends_by_the_clock_and_none_follows_for_a_while() {
        let (mut gather, begun) = quick();
        assert!(gather.worth(begun, 32) > 1);
        assert!(gather.worth(begun + PATIENCE - US, 40) > 1, "others join: the time of the first counts");
        assert_eq!(gather.due(), Some(begun + PATIENCE));
        assert_eq!((gather.worth(begun + PATIENCE, 32), gather.due()), (1, None));
        let mut now = begun + PATIENCE;
        for _ in 0..REST {
            assert_eq!(gather.worth(now, 32), 1, "they come quickly again, and are not believed yet");
            now += 20 * US;
            gather.answered(now, 1, 4096);
        }
        assert!(gather.worth(now, 32) > 1);
    }

    #[test]
    fn each_answer_begins_the_wait_anew() {
        let (mut gather, mut now) = quick();
        for _ in 0..8 {
            assert!(gather.worth(now, 32) > 1);
            now += PATIENCE - US;
            gather.answered(now, 32, 32 * 4096);
            assert_eq!(gather.due(), None);
        }
    }

    #[test]
    fn a_pause_of_the_process_is_forgotten_soon() {
        let (mut gather, mut now) = quick();
        now += Duration::from_secs(10);
        gather.answered(now, 1, 4096);
        for _ in 0..8 {
            now += 20 * US;
            gather.answered(now, 1, 4096);
        }
        assert!(gather.worth(now, 32) > 1);
    }
}
