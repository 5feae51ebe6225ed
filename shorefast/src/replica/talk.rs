//! What commands and the process of a replica say to one another: a line of JSON there, one back, over a Unix socket.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use replicator::runtime::status::Status;
use serde::{Deserialize, Serialize};

use super::record::{Record, check_name};
use crate::exit::{Exit, Failure};

/// The longest request.
pub(super) const MAX_LINE: u64 = 4096;
/// A role changes when what is under way has ended; after that the command ends, the change goes on.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a command asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Ask {
    /// How it is.
    Status,
    /// Become primary.
    Primary {
        /// Also with data that are not known to be the newest.
        force: bool,
    },
    /// Become secondary.
    Secondary,
    /// Connect.
    Connect {
        /// Give up what was written here apart.
        discard: bool,
    },
    /// Meet the peers only to tell what would be synchronised.
    Tentative,
    /// The status as lines, and each change; the connection stays open.
    Events {
        /// Go on after how everything is.
        follow: bool,
    },
    /// Disconnect.
    Disconnect,
    /// Begin to compare the data with the peers'.
    Verify,
    /// Begin to make what differs as a node has it.
    Repair {
        /// The node, by its number.
        from: u8,
    },
    /// Become larger.
    Resize {
        /// Which volume.
        volume: u8,
        /// Bytes; without it as large as the disks of all have room for.
        size: Option<u64>,
        /// What is new is not synchronised.
        clean: bool,
    },
    /// A volume is taken away.
    RemoveVolume {
        /// Which.
        volume: u8,
        /// Also while a peer is not there, or clients use it.
        force: bool,
    },
    /// Take over what the replica's file says.
    Adjust,
    /// Stop.
    Down,
}

/// What is answered; every answer carries the state after it.
pub(super) type Answer = Result<Status, Failure>;

/// Asks for events, and hands on each line until the process ends them or `line` does.
pub(crate) fn events(
    dir: &Path,
    name: &str,
    follow: bool,
    mut line: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    check_name(name)?;
    let stream = UnixStream::connect(Record::control(dir, name)).map_err(|e| not_there(dir, name, &e))?;
    let gone = |e: io::Error| Failure::failed(format!("The replica {name} went away ({e})."), "See its log.");
    let mut asked = serde_json::to_vec(&Ask::Events { follow }).map_err(|e| gone(e.into()))?;
    asked.push(b'\n');
    (&stream).write_all(&asked).map_err(gone)?;
    for text in BufReader::new(stream).lines() {
        line(&text.map_err(gone)?)?;
    }
    Ok(())
}

/// Asks the process of a replica.
pub(crate) fn ask(dir: &Path, name: &str, ask: Ask) -> Result<Status, Failure> {
    check_name(name)?;
    let path = Record::control(dir, name);
    let stream = UnixStream::connect(&path).map_err(|e| not_there(dir, name, &e))?;
    let broken = |e: io::Error| match e.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Failure::new(
            Exit::StillRunning,
            format!("The replica {name} has not done it yet; what was asked goes on."),
            format!("Look at `shorefast replica status {name}`."),
        ),
        _ => Failure::failed(format!("The replica {name} went away before it answered ({e})."), "See its log."),
    };
    stream.set_read_timeout(Some(PATIENCE)).map_err(broken)?;
    let mut line = serde_json::to_vec(&ask).map_err(|e| broken(e.into()))?;
    line.push(b'\n');
    (&stream).write_all(&line).map_err(broken)?;
    let mut answer = String::new();
    if BufReader::new(stream).read_line(&mut answer).map_err(broken)? == 0 {
        return Err(broken(io::ErrorKind::UnexpectedEof.into()));
    }
    serde_json::from_str::<Answer>(&answer).map_err(|e| broken(e.into()))?
}

fn not_there(dir: &Path, name: &str, e: &io::Error) -> Failure {
    match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => match Record::load(dir, name) {
            Ok(_) => Failure::new(
                Exit::NotFound,
                format!("The replica {name} does not run on this host."),
                format!("Start it with `shorefast replica up {name}`."),
            ),
            Err(failure) => failure,
        },
        _ => Failure::failed(format!("The replica {name} cannot be reached: {e}."), "Run the command as its user."),
    }
}
