//! Times, bounds and choices of a device with several paths.

use std::ops::Add;
use std::time::Duration;

use super::rules::Rules;

/// Paths of one disk at most: eight workers over four ports.
pub const MAX_PATHS: usize = 32;

/// How often one request is sent at most when the path itself gave it back. Beyond that its failure is the request's.
pub(super) const MAX_TRIES: u8 = 5;

/// A point in time: microseconds since a start that only the shell knows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Now(pub u64);

impl Now {
    /// How long ago `earlier` was; zero if it lies ahead.
    pub fn since(self, earlier: Now) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Now {
    type Output = Now;
    fn add(self, d: Duration) -> Now {
        Now(self.0.saturating_add(u64::try_from(d.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// Which path of the best group a request takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Policy {
    /// One after the other.
    RoundRobin,
    /// The one with the fewest requests under way.
    LeastQueue,
    /// The one that will have moved this request's bytes soonest, by what it moved so far.
    #[default]
    ServiceTime,
    /// The first one, as long as it works.
    Failover,
}

/// When a better path, or a better group, that came back is used again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Failback {
    /// As soon as it passed its checks.
    #[default]
    Automatic,
    /// When the one in use fails, or somebody asks for it.
    Manual,
}

/// Times and bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Which path.
    pub policy: Policy,
    /// When back.
    pub failback: Failback,
    /// A request without an answer for so long means that its path has failed.
    pub path_timeout: Duration,
    /// Between two checks of a path that is well: first and longest, it doubles in between.
    pub check_min: Duration,
    /// See there.
    pub check_max: Duration,
    /// Between two checks of one that is not, and between two tries to prove one dead.
    pub check_failed: Duration,
    /// Checks in a row that a path which failed must pass: one that comes and goes is worse than none.
    pub good_checks: u8,
    /// How long requests wait while there is no path at all. Bounded by what waits above: a node whose lease runs out must
    /// know.
    pub no_path: Duration,
    /// How many of them; what comes beyond is answered at once.
    pub max_waiting: usize,
    /// How long a port group may change its state where the target does not tell (SPC-4 5.15.2.5).
    pub transition: Duration,
    /// The rules in force.
    pub rules: Rules,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            policy: Policy::default(),
            failback: Failback::default(),
            path_timeout: Duration::from_secs(3),
            check_min: Duration::from_secs(5),
            check_max: Duration::from_secs(20),
            check_failed: Duration::from_secs(1),
            good_checks: 2,
            no_path: Duration::from_secs(120),
            max_waiting: 4096,
            transition: Duration::from_secs(60),
            rules: Rules::all(),
        }
    }
}
