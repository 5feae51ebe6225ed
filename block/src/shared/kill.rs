//! Killing the process that holds a node's slot: by pidfd, so that a reused pid is never hit.
//!
//! Order: open the pidfd, *then* compare the start time, then signal. The pidfd pins the process: if
//! the start time read afterwards is the recorded one, the pidfd is that process's. A killed process may go
//! on writing for seconds; only its LIVE lock tells when it has ended.

use std::io;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// What became of the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillOutcome {
    /// SIGKILL was sent to exactly that process.
    Signalled,
    /// There is no such process any more.
    Gone,
    /// The pid belongs to a process that started at another time: not touched.
    AnotherProcess {
        /// When that one started, in clock ticks since boot.
        started: u64,
    },
    /// It is this very process: not touched.
    Myself,
}

/// When a process started, in clock ticks since boot (field 22 of proc_pid_stat(5)); `None` if there
/// is no such process.
pub fn process_start_time(pid: u32) -> io::Result<Option<u64>> {
    let stat = match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    parse_start_time(&stat)
        .map(Some)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat has no start time")))
}

/// The name in parentheses may contain anything, so fields are counted after the last `)`.
fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    // The first field after the name is number 3, the state.
    after_name.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

/// Sends SIGKILL to the process `pid` if it started at `start_time`.
pub(super) fn kill(pid: u32, start_time: u64) -> io::Result<KillOutcome> {
    if pid == std::process::id() {
        return Ok(KillOutcome::Myself);
    }
    let Some(target) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(KillOutcome::Gone);
    };
    let pidfd = match pidfd_open(target, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH) => return Ok(KillOutcome::Gone),
        Err(errno) => return Err(errno.into()),
    };
    match process_start_time(pid)? {
        None => return Ok(KillOutcome::Gone),
        Some(started) if started != start_time => return Ok(KillOutcome::AnotherProcess { started }),
        Some(_) => {}
    }
    match pidfd_send_signal(&pidfd, Signal::KILL) {
        Ok(()) => Ok(KillOutcome::Signalled),
        Err(Errno::SRCH) => Ok(KillOutcome::Gone),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_found_behind_any_process_name() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(parse_start_time(&format!("7 (a ) b (x) ) {tail}")), Some(4711));
        assert_eq!(parse_start_time("7 (sh) S 1 2"), None);
        assert_eq!(parse_start_time(""), None);
    }

    #[test]
    fn a_process_that_started_at_another_time_is_not_touched() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("sleep starts");
        let started = process_start_time(child.id()).expect("readable").expect("alive");
        assert_eq!(kill(child.id(), started + 1).expect("compared"), KillOutcome::AnotherProcess { started });
        assert!(child.try_wait().expect("child").is_none(), "it lives");
        assert_eq!(kill(child.id(), started).expect("killed"), KillOutcome::Signalled);
        child.wait().expect("reaped");
        assert_eq!(kill(child.id(), started).expect("gone"), KillOutcome::Gone);
        assert_eq!(kill(std::process::id(), 0).expect("refused"), KillOutcome::Myself);
    }
}
