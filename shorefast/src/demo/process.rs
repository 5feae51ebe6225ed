//! Processes by identity: a number alone may be another process by now, a number with its start time may not.
//!
//! Every signal goes through a pidfd that was compared with the start time after it was opened.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// How often a wait looks.
const LOOK: Duration = Duration::from_millis(20);

/// A process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Its number.
    pub(crate) pid: u32,
    /// When it started, in clock ticks since boot.
    pub(crate) start: u64,
}

impl Identity {
    /// The process that has this number now; none if there is none.
    pub(crate) fn of(pid: u32) -> Option<Identity> {
        Some(Identity { pid, start: stat_field(pid, 22)?.parse().ok()? })
    }

    /// Whether it lives. A process that ended and was not waited for does not.
    pub(crate) fn lives(self) -> bool {
        Identity::of(self.pid) == Some(self) && !matches!(stat_field(self.pid, 3).as_deref(), Some("Z" | "X") | None)
    }

    /// Sends a signal to it and to nobody else; one that is gone already is as good.
    pub(crate) fn signal(self, signal: Signal) -> io::Result<()> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        if Identity::of(self.pid) != Some(self) {
            return Ok(());
        }
        match pidfd_send_signal(handle, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Waits until it has ended; false if it has not within the limit.
    pub(crate) fn ended_within(self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.lives() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }

    /// The most memory it ever had resident, in bytes.
    pub(crate) fn peak_resident(self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
        let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse().ok()?;
        Some(kib * 1024)
    }
}

/// A field of /proc/PID/stat, counted from 1. The second is a name that may hold anything, so the count starts behind
/// its closing bracket.
fn stat_field(pid: u32, number: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(number - 3).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_signal_reaches_the_process_it_names_and_never_a_later_one() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().expect("sleep runs");
        let identity = Identity::of(child.id()).expect("it lives");
        assert!(identity.lives());
        let later = Identity { start: identity.start + 1, ..identity };
        later.signal(Signal::KILL).expect("nobody to signal is no error");
        assert!(!later.lives() && identity.lives());
        identity.signal(Signal::KILL).expect("signals");
        assert!(identity.ended_within(Duration::from_secs(30)));
        child.wait().expect("waits");
        assert!(!identity.lives());
    }

    #[test]
    fn a_process_knows_its_peak_memory() {
        let me = Identity::of(std::process::id()).expect("I live");
        assert!(me.peak_resident().expect("linux says it") > 100_000);
    }
}
