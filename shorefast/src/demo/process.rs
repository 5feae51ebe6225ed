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

    /// Whether it lives. A process that ended and was not waited for does not; one of which a thread is still at work does.
    ///
    /// Prevents: the first thread of a daemon that ends is gone, another makes a file, and the folder that is being removed is not empty.
    pub(crate) fn lives(self) -> bool {
        let ended = match stat_field(self.pid, 3).as_deref() {
            Some("Z") => fs::read_dir(format!("/proc/{}/task", self.pid)).map_or(0, Iterator::count) < 2,
            Some("X") | None => true,
            Some(_) => false,
        };
        Identity::of(self.pid) == Some(self) && !ended
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
    #[cfg(target_arch = "x86_64")]
    fn a_process_whose_first_thread_has_ended_lives_until_the_last_one_has() {
        // Number 60 is exit(2), which ends the calling thread and no other.
        let script = "use threads; threads->create(sub { sleep 600 })->detach; syscall(60, 0);";
        let mut child = Command::new("perl").args(["-e", script]).stdin(Stdio::null()).spawn().expect("perl runs");
        let identity = Identity::of(child.id()).expect("it lives");
        let deadline = Instant::now() + Duration::from_secs(60);
        while stat_field(child.id(), 3).as_deref() != Some("Z") {
            assert!(Instant::now() < deadline, "its first thread does not end");
            std::thread::sleep(LOOK);
        }
        assert!(identity.lives() && !identity.ended_within(Duration::ZERO));
        identity.signal(Signal::KILL).expect("it is there");
        assert!(identity.ended_within(Duration::from_secs(60)));
        child.wait().expect("it was ours");
    }

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
