//! How long to wait before the next attempt to connect. Pure: randomness is an argument.
//!
//! 50 ms, doubling to 1 s ([`crate::limits::BACKOFF`]), each pause shortened by up to half.

use std::time::Duration;

use crate::limits::BACKOFF;

/// The pauses of one dialer.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: BACKOFF.0 }
    }
}

impl Backoff {
    /// The next pause, for a random number.
    pub(crate) fn next(&mut self, random: u64) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(BACKOFF.1);
        let half = full / 2;
        let permille = u32::try_from(random % 1001).unwrap_or(0);
        half + half * permille / 1000
    }

    /// A connection was stable: begin again with the shortest.
    pub(crate) fn reset(&mut self) {
        self.next = BACKOFF.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_one_second_and_start_again_after_reset() {
        let mut b = Backoff::default();
        let longest: Vec<u128> = (0..7).map(|_| b.next(1000).as_millis()).collect();
        assert_eq!(longest, [50, 100, 200, 400, 800, 1000, 1000]);
        b.reset();
        assert_eq!(b.next(1000).as_millis(), 50);
    }

    #[test]
    fn jitter_takes_off_at_most_half() {
        for random in [0, 1, 500, 999, 1000, u64::MAX] {
            let d = Backoff::default().next(random);
            assert!((25..=50).contains(&d.as_millis()), "{d:?}");
        }
    }
}
