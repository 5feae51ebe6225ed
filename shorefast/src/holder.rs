//! The holder: a small process that starts the daemon, keeps what outlives it, and starts it again when it dies.
//!
//! ```text
//!   holder ──starts──► daemon                       holder ──starts──► the next daemon
//!     │  ◄─ Keep "volume UUID / channel 0", fd ──┘      │  ── Kept "volume UUID / channel 0", fd ──►
//!     │  ◄─ Release "volume UUID" ───────────────       │  ── End ──►
//!     │  ── Leave ──►  (SIGHUP: a planned restart)
//! ```
//! A mount of FUSE lives as long as somebody has its descriptors open. The daemon gives the holder a copy of each before anybody
//! can use the mount; while no daemon runs, whoever uses the mount waits. The next daemon gets all of them back.
//!
//! - [`core`] decides: what an end of the daemon means, how long to wait, when to give up. `wire`: the messages.
//!   `shelf`: the descriptors by their names. [`held`]: the daemon's end.
//! - One thread, no runtime, memory locked where that is allowed: it has to work when the machine is out of memory.
//! - SIGTERM and SIGINT are passed on, and end both. SIGHUP restarts the daemon from the path that this program was started
//!   from, which may be another version by now.
//! - A daemon is started only when the one before has ended and been waited for. Prevents: two that read from one mount, of
//!   which the dying one takes the requests that the other asked for.
//! - The messages of a dead daemon are read to their end before the next is started. Prevents: it has mounted, dies, and
//!   the descriptors lie unread in the socket.
//!
//! What it refuses: to open any path on a mount, the disks included; to keep more than [`shelf::MOST`] descriptors; to start a
//! daemon for ever that dies at once. Given up, the descriptors are closed: whoever waits gets an error instead of waiting for ever.

mod core;
pub(crate) mod held;
mod shelf;
#[cfg(test)]
mod tests;
mod wire;

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::mm::MlockAllFlags;
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal};

use self::core::{Effect, Event, How, Machine};
use self::shelf::Shelf;
use self::wire::{FromDaemon, ToDaemon};
use crate::exit::{Exit, Failure};

/// Runs the daemon of this configuration under a holder until it is to end.
pub(crate) fn run(config: &Path, compat: bool, verbose: u8) -> Result<Exit, Failure> {
    let signals = Signals::listen().map_err(|e| host_failure("Signals cannot be listened for", &e))?;
    stay_in_memory();
    let program = std::env::current_exe().map_err(|e| host_failure("This program's own path is not known", &e))?;
    let holder =
        Holder { program, config: config.to_owned(), compat, verbose, shelf: Shelf::default(), daemon: None, signals };
    holder.run()
}

fn host_failure(what: &str, e: &io::Error) -> Failure {
    Failure::failed(format!("{what}: {e}."), "See the limits of the system.")
}

/// What keeps it from being paged out, and lets it keep many descriptors; without, it works as well as the machine does.
fn stay_in_memory() {
    if rustix::process::geteuid().is_root() {
        // Pages that are touched from now on as well, and no others: most of this program is the daemon's.
        let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
        if let Err(e) = rustix::mm::mlockall(flags) {
            tracing::warn!("the holder's memory is not locked: {e}");
        }
    }
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

struct Holder {
    program: PathBuf,
    config: PathBuf,
    compat: bool,
    verbose: u8,
    shelf: Shelf,
    daemon: Option<Daemon>,
    signals: Signals,
}

/// The daemon that runs.
struct Daemon {
    child: Child,
    /// Readable when it has ended, all of its threads.
    ended: OwnedFd,
    socket: OwnedFd,
}

impl Holder {
    fn run(mut self) -> Result<Exit, Failure> {
        let begun = Instant::now();
        let mut machine = Machine::new();
        let mut due = Some(Duration::ZERO);
        loop {
            let now = begun.elapsed();
            if due.is_some_and(|at| at <= now) {
                due = None;
                self.start()?;
                machine.started(now);
            }
            for event in self.wait(due.map(|at| at.saturating_sub(now)))? {
                match machine.handle(begun.elapsed(), event) {
                    None => {}
                    Some(Effect::Start { after }) => due = Some(begun.elapsed() + after),
                    Some(Effect::Pass(signal)) => self.pass(signal),
                    Some(Effect::AskToLeave) => self.ask_to_leave(),
                    Some(Effect::End(code)) => return Ok(exit(code)),
                    Some(Effect::GiveUp { deaths, last }) => return Err(self.gives_up(deaths, last)),
                }
            }
        }
    }

    fn start(&mut self) -> Result<(), Failure> {
        let failed = |e: io::Error| host_failure("The daemon cannot be started", &e);
        let (ours, theirs) = wire::pair().map_err(|e| failed(e.into()))?;
        let mut command = Command::new(&self.program);
        command.arg("daemon").arg("--config").arg(&self.config).arg("--held").stdin(Stdio::from(theirs));
        command.args(std::iter::repeat_n("-v", usize::from(self.verbose)));
        command.args(self.compat.then_some("--compat"));
        let child = command.spawn().map_err(failed)?;
        // The pid is not given to another process before this one has waited for it.
        let ended = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        let ended = ended.map_err(|e| failed(e.into()))?;
        tracing::info!(pid = child.id(), kept = self.shelf.len(), "the daemon is started");
        for (name, fd) in self.shelf.all() {
            // A daemon that has died already is noticed as such.
            if wire::send(&ours, &ToDaemon::Kept(name).encode(), Some(fd.as_fd())).is_err() {
                break;
            }
        }
        let _ = wire::send(&ours, &ToDaemon::End.encode(), None);
        self.daemon = Some(Daemon { child, ended, socket: ours });
        Ok(())
    }

    /// What has happened, after waiting for it, for as long as this at most.
    fn wait(&mut self, at_most: Option<Duration>) -> Result<Vec<Event>, Failure> {
        let timeout = at_most.map(|t| Timespec { tv_sec: t.as_secs().cast_signed(), tv_nsec: t.subsec_nanos().into() });
        let signals = self.signals.streams().map(|s| PollFd::new(s, PollFlags::IN));
        let mut fds: Vec<PollFd<'_>> = signals.into_iter().collect();
        if let Some(daemon) = &self.daemon {
            fds.extend([PollFd::new(&daemon.ended, PollFlags::IN), PollFd::new(&daemon.socket, PollFlags::IN)]);
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(host_failure("The holder cannot wait", &e.into())),
        }
        let mut events = self.signals.came();
        events.extend(self.read());
        events.extend(self.reap()?);
        Ok(events)
    }

    /// Takes what the daemon has sent.
    fn read(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let Some(daemon) = &self.daemon else { return events };
        while let Ok(Some((message, fd))) = wire::receive(&daemon.socket, false) {
            match (FromDaemon::decode(&message), fd) {
                (Some(FromDaemon::Keep(name)), Some(fd)) => {
                    if !self.shelf.keep(name, fd) {
                        tracing::error!("{name} is not kept: {} descriptors are the most", shelf::MOST);
                    }
                }
                (Some(FromDaemon::Release(name)), None) => self.shelf.release(name),
                (Some(FromDaemon::Leaving), None) => events.push(Event::Leaving),
                _ => tracing::error!("a message of the daemon is not understood"),
            }
        }
        events
    }

    /// Whether the daemon has ended. What it had still sent is taken first.
    fn reap(&mut self) -> Result<Vec<Event>, Failure> {
        let Some(daemon) = &mut self.daemon else { return Ok(Vec::new()) };
        let status = daemon.child.try_wait().map_err(|e| host_failure("The daemon cannot be waited for", &e))?;
        let Some(status) = status else { return Ok(Vec::new()) };
        let mut events = self.read();
        self.daemon = None;
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => How::Exited(code),
            (None, signal) => How::Killed(signal.unwrap_or(0)),
        };
        let keeps = self.shelf.len() > 0;
        tracing::warn!(kept = self.shelf.len(), "the daemon has ended: {how}");
        events.push(Event::Ended { how, keeps });
        Ok(events)
    }

    fn pass(&self, signal: Signal) {
        if let Some(daemon) = &self.daemon {
            // One that has just ended is reaped next.
            let _ = rustix::process::pidfd_send_signal(&daemon.ended, signal);
        }
    }

    fn ask_to_leave(&self) {
        if let Some(daemon) = &self.daemon {
            let _ = wire::send(&daemon.socket, &ToDaemon::Leave.encode(), None);
        }
    }

    fn gives_up(&mut self, deaths: u32, last: How) -> Failure {
        let kept = self.shelf.len();
        self.shelf.clear();
        let mounts = if kept > 0 { " Its mounts were given up: whoever uses them gets errors." } else { "" };
        Failure::failed(
            format!("The daemon ended {deaths} times in a row, at last: {last}.{mounts}"),
            "See its log for why, put that right, and start it again.",
        )
    }
}

/// The exit code of the daemon, as ours.
fn exit(code: i32) -> Exit {
    Exit::ALL.into_iter().find(|exit| i32::from(exit.code()) == code).unwrap_or(Exit::Failed)
}

/// SIGTERM, SIGINT and SIGHUP, each as a stream in which a byte comes.
struct Signals([(UnixStream, Event); 3]);

impl Signals {
    fn listen() -> io::Result<Signals> {
        let one = |signal: Signal, event| {
            let (ours, theirs) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            signal_hook::low_level::pipe::register(signal.as_raw(), theirs)?;
            Ok::<_, io::Error>((ours, event))
        };
        Ok(Signals([
            one(Signal::TERM, Event::Stop(Signal::TERM))?,
            one(Signal::INT, Event::Stop(Signal::INT))?,
            one(Signal::HUP, Event::Restart)?,
        ]))
    }

    fn streams(&self) -> [&UnixStream; 3] {
        self.0.each_ref().map(|(stream, _)| stream)
    }

    fn came(&mut self) -> Vec<Event> {
        let mut byte = [0; 64];
        self.0.iter_mut().filter_map(|(stream, event)| (stream.read(&mut byte).ok()? > 0).then_some(*event)).collect()
    }
}
