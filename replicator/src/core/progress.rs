//! How far a synchronisation is: of how much, how fast, how long it still takes.

use std::collections::VecDeque;

use super::event::Now;

/// Milliseconds over which the rate is taken.
const OVER: u64 = 10_000;
/// Milliseconds between two looks that are kept.
const EVERY: u64 = 500;

/// What is shown of a synchronisation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncView {
    /// Bytes that were to be compared or sent, what came in addition included.
    pub total_bytes: u64,
    /// Those that are left.
    pub left_bytes: u64,
    /// Bytes in a second, over the last ten.
    pub bytes_per_s: u64,
    /// Milliseconds until the end at this rate; none while nothing moves.
    pub eta_ms: Option<u64>,
}

/// The looks.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    total: u64,
    left: u64,
    looks: VecDeque<(u64, u64)>,
}

impl Progress {
    /// So many bytes are left.
    pub(super) fn look(&mut self, now: Now, left: u64) {
        if self.looks.is_empty() {
            self.total = left;
        } else {
            self.total += left.saturating_sub(self.left);
        }
        self.left = left;
        let done = self.total - left;
        if self.looks.back().is_none_or(|(at, _)| now.0.saturating_sub(*at) >= EVERY) {
            self.looks.push_back((now.0, done));
        }
        while self.looks.len() > 2 && self.looks.get(1).is_some_and(|(at, _)| now.0.saturating_sub(*at) >= OVER) {
            self.looks.pop_front();
        }
    }

    pub(super) fn view(&self, now: Now) -> SyncView {
        let done = self.total - self.left;
        let per_s = self.looks.front().and_then(|(at, then)| {
            let ms = now.0.saturating_sub(*at);
            (ms > 0).then(|| u128::from(done - then) * 1000 / u128::from(ms))
        });
        let bytes_per_s = per_s.and_then(|r| u64::try_from(r).ok()).unwrap_or(0);
        let eta = u128::from(self.left) * 1000 / u128::from(bytes_per_s.max(1));
        let eta_ms = u64::try_from(eta).ok().filter(|_| bytes_per_s > 0);
        SyncView { total_bytes: self.total, left_bytes: self.left, bytes_per_s, eta_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_end_follow_what_was_done_in_the_last_seconds() {
        let mut progress = Progress::default();
        // 1000 bytes in each 100 ms, then half of that.
        let (mut left, mut now) = (10_000_000, 50);
        for step in 0..600 {
            progress.look(Now(now), left);
            now += 100;
            left -= if step < 300 { 1000 } else { 500 };
        }
        progress.look(Now(now), left);
        let seen = progress.view(Now(now));
        assert_eq!((seen.total_bytes, seen.left_bytes, seen.bytes_per_s), (10_000_000, left, 5000));
        assert_eq!(seen.eta_ms, Some(left / 5));
        assert!(progress.looks.len() < 30, "{}", progress.looks.len());
    }

    #[test]
    fn what_comes_in_addition_is_more_to_do_and_not_done_again() {
        let mut progress = Progress::default();
        progress.look(Now(0), 1000);
        progress.look(Now(1000), 400);
        progress.look(Now(2000), 700);
        let seen = progress.view(Now(2000));
        assert_eq!((seen.total_bytes, seen.left_bytes, seen.bytes_per_s), (1300, 700, 300));
    }

    #[test]
    fn nothing_moves_and_no_end_is_told() {
        let mut progress = Progress::default();
        assert_eq!(progress.view(Now(5)), SyncView::default());
        progress.look(Now(0), 1000);
        progress.look(Now(60_000), 1000);
        assert_eq!(progress.view(Now(60_000)).eta_ms, None);
    }
}
