//! How long each stage of a leave may take, so that they all together end in time. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// How long all of it may take: the daemon gives up after 30 s, and its network and its threads are to end within that, too.
pub(super) const WHOLE: Duration = Duration::from_secs(25);

/// When it must be over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    until: Instant,
}

impl Budget {
    pub(super) fn begun(now: Instant) -> Budget {
        Budget { until: now + WHOLE }
    }

    /// What a stage gets: what is left without what is kept for the stages behind it, and at most its own bound.
    pub(super) fn stage(&self, now: Instant, at_most: Duration, kept: Duration) -> Duration {
        self.until.saturating_duration_since(now).saturating_sub(kept).min(at_most)
    }

    /// Runs a stage; `None` if it was not over in time.
    pub(super) async fn run<T>(&self, at_most: Duration, kept: Duration, stage: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(self.stage(Instant::now(), at_most, kept), stage).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_stage_gets_what_is_left_without_what_is_kept_and_never_more_than_its_bound() {
        let begun = Instant::now();
        let budget = Budget::begun(begun);
        assert_eq!(budget.stage(begun, secs(5), secs(13)), secs(5));
        assert_eq!(budget.stage(begun + secs(10), secs(12), secs(8)), secs(7));
        assert_eq!(budget.stage(begun + secs(17), secs(12), secs(8)), Duration::ZERO);
        assert_eq!(budget.stage(begun + secs(17), secs(5), secs(6)), secs(2), "what was kept is there");
        assert_eq!(budget.stage(begun + secs(40), secs(5), Duration::ZERO), Duration::ZERO);
    }
}
