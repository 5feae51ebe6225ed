//! The lines of the API: requests, answers, and the envelope with the version.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::check::CheckReport;
use super::types::{Node, NodeInfo, Status, VolumeStatus};
use crate::events::Event;
use crate::exit::Failure;

/// A request as it travels. Unknown fields are refused: a daemon must not ignore half of what it was asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestLine {
    /// [`super::VERSION`].
    pub version: u32,
    /// What is asked.
    pub request: Request,
}

/// What a command may ask a daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Everything.
    Status,
    /// The volumes.
    Volumes,
    /// Format and mount.
    VolumeCreate(CreateVolume),
    /// Mount here.
    VolumeMount {
        /// The volume.
        name: String,
    },
    /// Unmount here.
    VolumeUnmount {
        /// The volume.
        name: String,
        /// Also with open files.
        force: bool,
    },
    /// Another coordinator.
    VolumeMove {
        /// The volume.
        name: String,
        /// The node.
        to: Node,
    },
    /// Redirect a node's data, or stop that.
    VolumeRedirect {
        /// The volume.
        name: String,
        /// Start or stop.
        on: bool,
        /// The node; none: the one that is asked.
        node: Option<Node>,
    },
    /// Check a volume at its coordinator, if any node has it mounted.
    VolumeCheck {
        /// The volume.
        name: String,
        /// Whether it is to be repaired, which is refused while it is mounted.
        repair: bool,
    },
    /// The nodes.
    Nodes,
    /// Drain a node, or put it back into service.
    NodeDrain {
        /// The node; none: the one that is asked.
        node: Option<Node>,
        /// Which of both.
        on: bool,
    },
    /// Take a node from the list of nodes.
    NodeRemove {
        /// The node.
        node: Node,
    },
    /// What happened: what is remembered after that number, then, with `follow`, all that comes.
    Events {
        /// Go on as they come.
        follow: bool,
        /// The last one already seen; 0 for none.
        after: u64,
    },
    /// Make this node's disks misbehave; only with `debug = true`.
    DebugDisk {
        /// How.
        fault: DiskFault,
    },
    /// End the incarnation of a node on a volume that this node coordinates; only with `debug = true`.
    DebugEvict {
        /// The volume.
        name: String,
        /// Whose.
        node: Node,
    },
}

/// What `volume create` asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateVolume {
    /// The name.
    pub name: String,
    /// The disks.
    pub disks: Vec<String>,
    /// The identity of what may be destroyed.
    pub wipe: Option<String>,
    /// Its timers.
    pub timing: Timing,
}

/// A volume's set of timers, stored in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Timing {
    /// For disks and networks that may stall for seconds.
    #[default]
    Default,
    /// For demos and tests on one machine.
    Fast,
}

/// What a fault device does to its disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum DiskFault {
    /// Every request fails.
    Fail,
    /// No request comes back; those in flight included.
    Hang,
    /// Every request takes longer.
    Delay {
        /// By how much.
        ms: u64,
    },
    /// All is well; what was held is let go.
    Heal,
    /// **A mutation for tests**, until the daemon ends: withdrawing requests claims success and withdraws nothing, so that
    /// a test can show the harm that withdrawing prevents. Changes nothing else.
    IgnoreAborts,
    /// For tests: withdrawing requests waits, as for one that is stuck in the kernel.
    HoldAborts {
        /// From now on, or not any more.
        hold: bool,
    },
}

impl fmt::Display for DiskFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskFault::Fail => f.write_str("fail"),
            DiskFault::Hang => f.write_str("hang"),
            DiskFault::Delay { ms } => write!(f, "delay {ms} ms"),
            DiskFault::Heal => f.write_str("heal"),
            DiskFault::IgnoreAborts => f.write_str("ignore-aborts"),
            DiskFault::HoldAborts { hold } => write!(f, "hold-aborts {}", if *hold { "on" } else { "off" }),
        }
    }
}

/// An answer as it travels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnswerLine {
    /// [`super::VERSION`].
    pub version: u32,
    /// What is said.
    pub answer: Answer,
}

/// A line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Something to show while waiting; more lines follow.
    Progress(String),
    /// One event; more lines follow.
    Event(Event),
    /// Done. The last line.
    Ok(Reply),
    /// Not done. The last line.
    Error(Failure),
}

/// What a request that succeeded returns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// Nothing but success.
    Done,
    /// Everything.
    Status(Box<Status>),
    /// The volumes.
    Volumes(Vec<VolumeStatus>),
    /// One volume.
    Volume(Box<VolumeStatus>),
    /// The nodes.
    Nodes(Vec<NodeInfo>),
    /// A check.
    Check(CheckAnswer),
}

/// What became of a check that was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckAnswer {
    /// It was made.
    Checked(Box<CheckReport>),
    /// No node that answers has it mounted: it can be checked on its disk.
    Unmounted {
        /// Where it lies.
        disks: Vec<String>,
    },
}

impl FromStr for RequestLine {
    type Err = String;

    /// Reads a line; says what was not understood.
    fn from_str(line: &str) -> Result<RequestLine, String> {
        /// Only the version, whatever else there is: a newer peer is told about its version, not about its fields.
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_str(line).map_err(|e| format!("not a request: {e}"))?;
        if version != super::VERSION {
            return Err(format!("version {version} was asked for, and this daemon speaks version {}", super::VERSION));
        }
        serde_json::from_str(line).map_err(|e| format!("not a request of version {version}: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_lines_of_version_one_are_frozen() {
        let line = RequestLine { version: 1, request: Request::DebugDisk { fault: DiskFault::Delay { ms: 5 } } };
        let text = r#"{"version":1,"request":{"debug-disk":{"fault":{"delay":{"ms":5}}}}}"#;
        assert_eq!(serde_json::to_string(&line).expect("serializes"), text);
        assert_eq!(text.parse(), Ok(line));
        assert_eq!(
            r#"{"version":1,"request":"status"}"#.parse(),
            Ok(RequestLine { version: 1, request: Request::Status })
        );
    }

    #[test]
    fn unknown_request_field_or_version_is_refused_with_its_name() {
        for (line, word) in [
            (r#"{"version":1,"request":"reboot"}"#, "reboot"),
            (r#"{"version":1,"request":{"volume-mount":{"name":"a","colour":1}}}"#, "colour"),
            (r#"{"version":2,"request":{"hologram":{}}}"#, "version 2"),
            ("[]", "not a request"),
        ] {
            let said = line.parse::<RequestLine>().expect_err("must be refused");
            assert!(said.contains(word), "{said}");
        }
    }
}
