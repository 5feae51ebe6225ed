//! Times and bounds of a session.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

use super::rules::Rules;
use crate::discovery::Portal;
use crate::login::LoginConfig;

/// A point in time: milliseconds since a start that only the shell knows.
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

impl fmt::Display for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1000, self.0 % 1000)
    }
}

/// Tasks that one session takes at most, sent and waiting: eight times the window that targets commonly give. What
/// comes beyond is answered at once.
pub const MAX_TASKS: u16 = 1023;

/// How often one task is sent at most: after that the target's failure is the task's.
pub const MAX_ATTEMPTS: u8 = 5;

/// Redirects that are followed in a row: a cluster of targets has one or two, a circle has no end.
pub const MAX_HOPS: u8 = 4;

/// Connections in a row that the target closes within [`Timing::stable`] of their login before another host is
/// suspected to use the same name.
pub const MAX_SHORT_LIVES: u8 = 3;

/// Tags of aborted tasks that are remembered, so that a late answer is no breach of the protocol.
pub const MAX_BURIED: usize = 64;

/// How long things may take. Defaults after open-iscsi's where a person would notice (pings, aborts), shorter where
/// a cluster waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// To connect.
    pub connect: Duration,
    /// From the connection to the end of the login.
    pub login: Duration,
    /// Of silence before a ping is sent.
    pub ping_after: Duration,
    /// To answer it.
    pub ping_timeout: Duration,
    /// Of a task, from sending it, before it is aborted.
    pub task: Duration,
    /// To answer an abort.
    pub abort: Duration,
    /// To answer a reset of a unit.
    pub reset: Duration,
    /// To drain before a logout, and to answer it.
    pub logout: Duration,
    /// Before a refused or full target is asked again.
    pub busy: Duration,
    /// First pause before another login; doubles.
    pub back_off: Duration,
    /// Longest pause.
    pub back_off_max: Duration,
    /// A connection that lived so long was a good one.
    pub stable: Duration,
    /// How long tasks wait while there is no path.
    pub no_path: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            connect: Duration::from_secs(5),
            login: Duration::from_secs(10),
            ping_after: Duration::from_secs(5),
            ping_timeout: Duration::from_secs(5),
            task: Duration::from_secs(15),
            abort: Duration::from_secs(5),
            reset: Duration::from_secs(10),
            logout: Duration::from_secs(5),
            busy: Duration::from_millis(20),
            back_off: Duration::from_millis(100),
            back_off_max: Duration::from_secs(5),
            stable: Duration::from_secs(5),
            no_path: Duration::from_secs(120),
        }
    }
}

/// What a session needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// How to log in.
    pub login: LoginConfig,
    /// Where.
    pub portal: Portal,
    /// Times.
    pub timing: Timing,
    /// Tasks that are sent at once at most; the window may be smaller.
    pub depth: u32,
    /// The rules in force.
    pub rules: Rules,
}

impl Config {
    /// With default times and all rules.
    pub fn new(login: LoginConfig, portal: Portal) -> Config {
        Config { login, portal, timing: Timing::default(), depth: 128, rules: Rules::all() }
    }
}
