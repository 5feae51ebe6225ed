//! A command's end of the API. Blocking: a command does one thing at a time.
//!
//! Every way in which a daemon can fail to be there has its own sentence and its own next step.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::request::{Answer, AnswerLine, Reply, Request, RequestLine};
use super::types::Status;
use super::{VERSION, places_hint};
use crate::exit::{Exit, Failure};

/// Answers to questions come at once, also from a node whose disks hang.
const ASK_TIMEOUT: Duration = Duration::from_secs(15);

/// Work may take its time; after that the command ends, the work goes on.
const WORK_TIMEOUT: Duration = Duration::from_secs(120);

/// A daemon's socket, to be asked.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The daemon behind a socket.
    pub fn new(socket: impl Into<PathBuf>) -> Client {
        Client { socket: socket.into() }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks and waits for the last line; `progress` sees the lines before it.
    pub fn call(&self, request: Request, progress: impl FnMut(&str)) -> Result<Reply, Failure> {
        let limit = time_limit(&request);
        self.call_within(request, limit, progress)
    }

    /// As [`Client::call`], with a time limit of the caller's. A check may take as long as it comes further: there the
    /// limit counts from the last line.
    pub fn call_within(
        &self,
        request: Request,
        limit: Duration,
        mut progress: impl FnMut(&str),
    ) -> Result<Reply, Failure> {
        let as_long_as_it_goes_on = matches!(request, Request::VolumeCheck { .. });
        let mut connection = self.send(request, Some(limit))?;
        loop {
            match connection.next()? {
                Answer::Progress(line) => {
                    progress(&line);
                    if as_long_as_it_goes_on {
                        connection.deadline = Some(Instant::now() + limit);
                    }
                }
                Answer::Ok(reply) => return Ok(reply),
                Answer::Error(failure) => return Err(failure),
                Answer::Event(_) => return Err(unexpected()),
            }
        }
    }

    /// The whole status.
    pub fn status(&self) -> Result<Status, Failure> {
        match self.call(Request::Status, |_| ())? {
            Reply::Status(status) => Ok(*status),
            _ => Err(unexpected()),
        }
    }

    /// Events after a number; with `follow` until the daemon ends or `each` says stop (`false`).
    pub fn events(
        &self,
        follow: bool,
        after: u64,
        mut each: impl FnMut(crate::events::Event) -> bool,
    ) -> Result<(), Failure> {
        let mut connection = self.send(Request::Events { follow, after }, (!follow).then_some(ASK_TIMEOUT))?;
        loop {
            match connection.next()? {
                Answer::Event(event) if each(event.clone()) => (),
                Answer::Event(_) | Answer::Ok(_) => return Ok(()),
                Answer::Error(failure) => return Err(failure),
                Answer::Progress(_) => (),
            }
        }
    }

    fn send(&self, request: Request, limit: Option<Duration>) -> Result<Connection, Failure> {
        let stream = UnixStream::connect(&self.socket).map_err(|e| self.unreachable(&e))?;
        let broken =
            |e: io::Error| Failure::failed(format!("The daemon did not take the request: {e}."), "See its log.");
        let mut line = serde_json::to_vec(&RequestLine { version: VERSION, request }).map_err(|e| broken(e.into()))?;
        line.push(b'\n');
        (&stream).write_all(&line).map_err(broken)?;
        let deadline = limit.map(|l| Instant::now() + l);
        Ok(Connection { reader: BufReader::new(stream), deadline })
    }

    fn is_socket(&self) -> bool {
        self.socket.metadata().is_ok_and(|m| m.file_type().is_socket())
    }

    fn unreachable(&self, e: &io::Error) -> Failure {
        let socket = self.socket.display();
        match e.kind() {
            io::ErrorKind::NotFound => Failure::new(
                Exit::NotFound,
                format!("No daemon runs here: there is no socket {socket}."),
                format!("Start one with `shorefast daemon`, {}.", places_hint()),
            ),
            // The kernel says the same of a socket whose daemon has died.
            io::ErrorKind::ConnectionRefused if !self.is_socket() => Failure::usage(
                format!("{socket} is no socket, so no daemon is behind it."),
                "Name the daemon's socket: `--socket`, SHOREFAST_SOCKET, or key `socket` of its configuration.",
            ),
            io::ErrorKind::ConnectionRefused => Failure::new(
                Exit::NotFound,
                format!("The daemon behind {socket} is dead; only its socket is left."),
                "Start it again with `shorefast daemon`.",
            ),
            io::ErrorKind::PermissionDenied => Failure::failed(
                format!("You may not open {socket}."),
                "Run the command as root, or as a member of the socket's group.",
            ),
            _ => Failure::failed(format!("Cannot reach the daemon behind {socket}: {e}."), "See whether it runs."),
        }
    }
}

/// How long a command waits for its last line.
fn time_limit(request: &Request) -> Duration {
    match request {
        Request::Status | Request::Nodes | Request::Volumes | Request::Events { .. } => ASK_TIMEOUT,
        Request::DebugDisk { .. } | Request::DebugEvict { .. } => ASK_TIMEOUT,
        Request::VolumeCreate(_)
        | Request::VolumeMount { .. }
        | Request::VolumeUnmount { .. }
        | Request::VolumeMove { .. }
        | Request::VolumeRedirect { .. }
        | Request::VolumeCheck { .. }
        | Request::NodeDrain { .. }
        | Request::NodeRemove { .. } => WORK_TIMEOUT,
    }
}

struct Connection {
    reader: BufReader<UnixStream>,
    deadline: Option<Instant>,
}

impl Connection {
    fn next(&mut self) -> Result<Answer, Failure> {
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.reader.get_ref().set_read_timeout(Some(left)).map_err(|e| gone(&e))?;
        }
        let mut line = String::new();
        let read = self.reader.read_line(&mut line).map_err(|e| gone(&e))?;
        if read == 0 {
            return Err(gone(&io::ErrorKind::UnexpectedEof.into()));
        }
        let line: AnswerLine = serde_json::from_str(&line).map_err(|_| unexpected())?;
        Ok(line.answer)
    }
}

fn gone(e: &io::Error) -> Failure {
    match e.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Failure::new(
            Exit::StillRunning,
            "The daemon has not answered yet; what was asked goes on.",
            "Look at `shorefast status` and `shorefast events`.",
        ),
        _ => Failure::failed(
            format!("The daemon went away before it answered ({e})."),
            "See its log, and start it again.",
        ),
    }
}

fn unexpected() -> Failure {
    Failure::failed(
        "The daemon's answer is not one this command knows.",
        "Use a command and a daemon of the same version.",
    )
}
