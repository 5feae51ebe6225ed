//! What an end of the daemon means. Pure.
//!
//! ```text
//!             started                 Ended, a death: again, later each time
//!   waiting ──────────► running ────────────────────────────────────────────► waiting
//!                         │  Ended, after Leaving: again, at once ───────────► waiting
//!                         │  Ended, after Stop; with code 0; at its first words: ended
//!                         └─ Ended, the last of too many deaths in a row: given up
//! ```
//! A death is an end by a signal, by a panic, or with any failure while something is kept: a daemon that fails to take over
//! may succeed at the second try, and until then nobody gets an error. With nothing kept a failure is the daemon's word to
//! whoever started it (a wrong configuration), and is passed on.
//!
//! Deaths are in a row if the daemon lived less than [`STEADY`] each time. The first is followed by a start at once: an
//! application waits meanwhile.

use std::fmt;
use std::time::Duration;

use rustix::process::Signal;

/// A daemon that has lived so long was well: the next death is the first again.
pub(super) const STEADY: Duration = Duration::from_secs(30);
/// Deaths in a row after which it is given up. More than it takes to find a request that kills every daemon (`fuse` answers
/// one with EIO after three); a machine that lacks something for a few seconds is waited for.
pub(super) const DEATHS: u32 = 8;
/// The wait before the second start in a row; doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// What a process ends with that panicked.
const PANICKED: i32 = 101;

/// How a daemon ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum How {
    /// With an exit code.
    Exited(i32),
    /// By a signal.
    Killed(i32),
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            How::Exited(PANICKED) => f.write_str("it panicked"),
            How::Exited(code) => write!(f, "with exit code {code}"),
            How::Killed(signal) => write!(f, "killed by signal {signal}"),
        }
    }
}

/// What happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// The daemon has ended; whether anything is kept for the next.
    Ended {
        /// How.
        how: How,
        /// Whether something is kept.
        keeps: bool,
    },
    /// The daemon is about to leave in order, for the next one.
    Leaving,
    /// Somebody wants both to end.
    Stop(Signal),
    /// Somebody wants another daemon in its place.
    Restart,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    /// Start a daemon.
    Start {
        /// After so long.
        after: Duration,
    },
    /// Pass a signal on to the daemon.
    Pass(Signal),
    /// Ask the daemon to leave for the next one.
    AskToLeave,
    /// End with this code.
    End(i32),
    /// Close what is kept and end.
    GiveUp {
        /// Deaths in a row.
        deaths: u32,
        /// The last.
        last: How,
    },
}

/// The decisions of one holder.
#[derive(Debug)]
pub(super) struct Machine {
    running_since: Option<Duration>,
    leaving: bool,
    stopping: bool,
    deaths: u32,
}

impl Machine {
    /// Nothing runs yet.
    pub(super) fn new() -> Machine {
        Machine { running_since: None, leaving: false, stopping: false, deaths: 0 }
    }

    /// A daemon was started.
    pub(super) fn started(&mut self, now: Duration) {
        self.running_since = Some(now);
        self.leaving = false;
    }

    /// Something happened.
    pub(super) fn handle(&mut self, now: Duration, event: Event) -> Option<Effect> {
        match event {
            Event::Stop(signal) => {
                self.stopping = true;
                let runs = self.running_since.is_some();
                Some(if runs { Effect::Pass(signal) } else { Effect::End(0) })
            }
            Event::Restart => (self.running_since.is_some() && !self.stopping).then_some(Effect::AskToLeave),
            Event::Leaving => {
                self.leaving = true;
                None
            }
            Event::Ended { how, keeps } => Some(self.ended(now, how, keeps)),
        }
    }

    fn ended(&mut self, now: Duration, how: How, keeps: bool) -> Effect {
        let lived = self.running_since.take().map_or(Duration::ZERO, |since| now.saturating_sub(since));
        match how {
            How::Exited(code) if self.stopping => return Effect::End(code),
            // It was to end; whether it ended in order the others see.
            How::Killed(_) if self.stopping => return Effect::End(1),
            How::Exited(0) if self.leaving => return Effect::Start { after: Duration::ZERO },
            How::Exited(code) if code == 0 || (code != PANICKED && !keeps) => return Effect::End(code),
            _ => {}
        }
        if lived >= STEADY {
            self.deaths = 0;
        }
        self.deaths += 1;
        if self.deaths >= DEATHS {
            return Effect::GiveUp { deaths: self.deaths, last: how };
        }
        let after = match self.deaths {
            1 => Duration::ZERO,
            n => FIRST_WAIT * 2_u32.pow(n - 2),
        };
        Effect::Start { after }
    }
}
