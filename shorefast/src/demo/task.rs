//! Children of this program that touch a mount for the demo: each line of theirs is read, each has a time limit.
//!
//! The demo itself never opens a path on a mount: a daemon that hangs would hold it too.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::interrupt::Interrupt;
use crate::exit::Failure;

/// How often a wait looks for Ctrl-C.
const LOOK: Duration = Duration::from_millis(100);
/// A killed child ends when its request in the kernel does; longer, and it is left to the system.
const REAP_LIMIT: Duration = Duration::from_secs(3);
/// Lines that a child may be ahead; then it waits.
const LINES_AHEAD: usize = 256;

/// Starts children.
#[derive(Clone, Debug)]
pub(crate) struct Spawner {
    log: PathBuf,
}

/// A running child.
pub(crate) struct Task {
    name: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    log: PathBuf,
}

impl Spawner {
    /// Their complaints go to `children.log` in a folder.
    pub(crate) fn new(dir: &Path) -> Spawner {
        Spawner { log: dir.join("children.log") }
    }

    /// Starts a hidden subcommand of this program.
    pub(crate) fn start(&self, name: &'static str, args: impl IntoIterator<Item = OsString>) -> Result<Task, Failure> {
        let start = || -> io::Result<Task> {
            let log = File::options().create(true).append(true).open(&self.log)?;
            let mut child = Command::new(std::env::current_exe()?)
                .arg(name)
                .args(args)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(log)
                .process_group(0)
                .spawn()?;
            let stdin = child.stdin.take();
            let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?;
            let (tx, lines) = mpsc::sync_channel(LINES_AHEAD);
            std::thread::Builder::new().name(format!("{name} lines")).spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if tx.send(line).is_err() {
                        break;
                    }
                }
            })?;
            Ok(Task { name, child, stdin, lines, log: self.log.clone() })
        };
        start().map_err(|e| Failure::failed(format!("`{name}` did not start: {e}."), "See the limits of the system."))
    }
}

impl Task {
    /// Writes to its standard input; a child that ended is noticed when its lines end.
    pub(crate) fn tell(&mut self, text: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush());
        }
    }

    /// Closes its standard input.
    pub(crate) fn hush(&mut self) {
        self.stdin = None;
    }

    /// The lines it has said since, without waiting; false once it has closed its output.
    pub(crate) fn poll(&self, mut each: impl FnMut(&str)) -> bool {
        loop {
            match self.lines.try_recv() {
                Ok(line) => each(&line),
                Err(mpsc::TryRecvError::Empty) => return true,
                Err(mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Every line until it ends; fails if it takes too long or ends badly.
    pub(crate) fn finish(
        &mut self,
        limit: Duration,
        interrupt: &Interrupt,
        mut each: impl FnMut(&str),
    ) -> Result<(), Failure> {
        self.hush();
        let deadline = Instant::now() + limit;
        loop {
            interrupt.check()?;
            match self.lines.recv_timeout(LOOK) {
                Ok(line) => each(&line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if Instant::now() > deadline => {
                    return Err(self.bad(&format!("did not end within {} s", limit.as_secs())));
                }
                Err(RecvTimeoutError::Timeout) => (),
            }
        }
        match self.child.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(self.bad(&format!("ended with {status}"))),
            Err(e) => Err(self.bad(&format!("cannot be waited for: {e}"))),
        }
    }

    fn bad(&self, how: &str) -> Failure {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let said = text.lines().last().unwrap_or("nothing");
        Failure::failed(
            format!("`{}` {how}; the last complaint of a child was: {said}", self.name),
            "Look at the mounts with --keep.",
        )
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let deadline = Instant::now() + REAP_LIMIT;
        // It may have ended already.
        let _ = self.child.kill();
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
