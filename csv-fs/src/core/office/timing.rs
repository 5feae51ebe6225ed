//! How long a volume waits for what. Stored in the superblock, so that every node of a volume agrees.

use std::fmt;
use std::time::Duration;

/// The times of one volume. Safety never rests on them; they decide how soon something is tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// Slots and the lease are renewed this often.
    pub renew: Duration,
    /// A coordinator suspends its metadata when its lease was not renewed for this long, counted from the start of
    /// the last good renewal.
    pub suspend_after: Duration,
    /// A lease that others saw unchanged for this long, covered by their own successful reads, is challenged.
    pub challenge_after: Duration,
    /// A request that is outstanding for longer means that the path is lost; on the coordinator's node `suspend_after` does.
    pub path_timeout: Duration,
    /// A recall without progress ends in eviction after this, or when a cut would have been noticed, if that is later.
    pub recall: Duration,
    /// The longest grace of a new coordinator.
    pub grace: Duration,
    /// A lease CAW that is outstanding for longer is sent once more over another nexus, where there is one.
    pub hedge: Duration,
    /// How long a fence waits for the victim's answer over the network.
    pub ask: Duration,
    /// How long a fence waits for the victim's answer to a mark on the disk.
    pub mark: Duration,
}

impl Timing {
    /// For production.
    pub const DEFAULT: Timing = Timing {
        renew: Duration::from_secs(1),
        suspend_after: Duration::from_secs(8),
        challenge_after: Duration::from_secs(12),
        path_timeout: Duration::from_secs(3),
        recall: Duration::from_secs(5),
        grace: Duration::from_secs(10),
        hedge: Duration::from_millis(300),
        ask: Duration::from_millis(500),
        mark: Duration::from_secs(1),
    };

    /// For the demo and tests.
    pub const FAST: Timing = Timing {
        renew: Duration::from_millis(250),
        suspend_after: Duration::from_secs(2),
        challenge_after: Duration::from_secs(3),
        path_timeout: Duration::from_millis(500),
        recall: Duration::from_secs(2),
        grace: Duration::from_secs(2),
        hedge: Duration::from_millis(300),
        ask: Duration::from_millis(250),
        mark: Duration::from_millis(500),
    };

    /// Slots and the lease are read this often: twice per renewal, so that none is missed.
    pub fn poll(&self) -> Duration {
        self.renew / 2
    }

    /// A slot counts for the arbiter if its counter changed within this much of the reader's own covered time.
    pub fn slot_counts_for(&self) -> Duration {
        self.renew * 3
    }

    /// The same clique must have been seen for this long before permission is given.
    pub fn settle(&self) -> Duration {
        self.renew * 2
    }

    /// Refuses combinations that cannot work.
    pub fn validate(&self) -> Result<(), TimingError> {
        if self.renew < Duration::from_millis(20) {
            return Err(TimingError::RenewTooShort);
        }
        if self.suspend_after < self.renew * 3 {
            return Err(TimingError::SuspendTooEarly);
        }
        if self.challenge_after < self.suspend_after + self.renew {
            return Err(TimingError::ChallengeBeforeSuspend);
        }
        if self.path_timeout + Duration::from_secs(1) > self.recall {
            return Err(TimingError::RecallTooShort);
        }
        if self.path_timeout >= self.suspend_after {
            return Err(TimingError::PathTooLong);
        }
        Ok(())
    }
}

impl Default for Timing {
    fn default() -> Timing {
        Timing::DEFAULT
    }
}

/// Why a combination of times is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TimingError {
    /// Below 20 ms a renewal is mostly overhead and noise.
    RenewTooShort,
    /// Two late renewals must not suspend.
    SuspendTooEarly,
    /// The holder must have suspended itself before others challenge it.
    ChallengeBeforeSuspend,
    /// A recall must outlive the discovery of a lost path, or a lost path evicts.
    RecallTooShort,
    /// A lost path must be known before the lease suspends.
    PathTooLong,
}

impl fmt::Display for TimingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TimingError::RenewTooShort => "renew must be at least 20 ms",
            TimingError::SuspendTooEarly => "suspend_after must be at least three times renew",
            TimingError::ChallengeBeforeSuspend => "challenge_after must be at least suspend_after plus renew",
            TimingError::RecallTooShort => "recall must be at least path_timeout plus 1 s",
            TimingError::PathTooLong => "path_timeout must be below suspend_after",
        })
    }
}

impl std::error::Error for TimingError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_accepted() {
        assert_eq!(Timing::DEFAULT.validate(), Ok(()));
        assert_eq!(Timing::FAST.validate(), Ok(()));
    }

    #[test]
    fn combinations_that_cannot_work_are_refused() {
        let t = Timing::DEFAULT;
        let refused = |t: Timing| t.validate().expect_err("must be refused");
        assert_eq!(refused(Timing { recall: t.path_timeout, ..t }), TimingError::RecallTooShort);
        assert_eq!(refused(Timing { challenge_after: t.suspend_after, ..t }), TimingError::ChallengeBeforeSuspend);
        assert_eq!(refused(Timing { suspend_after: t.renew, ..t }), TimingError::SuspendTooEarly);
        assert_eq!(refused(Timing { renew: Duration::from_millis(1), ..t }), TimingError::RenewTooShort);
        assert_eq!(
            refused(Timing { path_timeout: t.suspend_after, recall: Duration::from_secs(60), ..t }),
            TimingError::PathTooLong
        );
    }
}
