//! Time as the cores see it: milliseconds since a start that only the shell knows (CLOCK_BOOTTIME in a daemon,
//! a counter in the simulation). Only differences mean anything, and only within one node.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in one node's time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Now(pub u64);

impl Now {
    /// How long ago `earlier` was; zero if it lies ahead.
    pub fn since(self, earlier: Now) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Now {
    type Output = Now;
    fn add(self, d: Duration) -> Now {
        Now(self.0.saturating_add(u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Now {
    type Output = Now;
    fn sub(self, d: Duration) -> Now {
        Now(self.0.saturating_sub(u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1000, self.0 % 1000)
    }
}
