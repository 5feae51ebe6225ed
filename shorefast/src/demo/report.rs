//! What a demo found, as plain data, and how it is shown: a table on the terminal and a page with charts.
//!
//! Pure: the runner fills [`DemoReport`], everything here turns it into text. The page is one file without any
//! outside resource.

mod chart;
mod html;
mod terminal;

use serde::Serialize;

use crate::api::{Node, Route};
use crate::clock::WallTime;

pub(crate) use chart::{escape, round_up};
pub(crate) use html::{checks, document, happened, page};
pub(crate) use terminal::{check_line, story, terminal};

/// Everything a demo found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DemoReport {
    /// When it began.
    pub(crate) started: WallTime,
    /// How long it ran; times below count from its beginning.
    pub(crate) took_ms: u64,
    /// The nodes.
    pub(crate) nodes: Vec<Node>,
    /// Throughput over time.
    pub(crate) samples: Vec<Sample>,
    /// What was done and what happened.
    pub(crate) marks: Vec<Mark>,
    /// The parts of the demo.
    pub(crate) phases: Vec<Phase>,
    /// The longest wait of a system call, for each node.
    pub(crate) stalls: Vec<Stall>,
    /// What each node moved by which route.
    pub(crate) bytes_by_route: Vec<RouteBytes>,
    /// Failed system calls by kind.
    pub(crate) failed_calls: Vec<FailedCalls>,
    /// Bytes that were read back and found right.
    pub(crate) bytes_verified: u64,
    /// What the disk array and its networks did, and what was seen; none where the nodes share a file.
    pub(crate) faults: Vec<FaultSeen>,
    /// What had to hold.
    pub(crate) checks: Vec<Check>,
    /// What a reader should know besides.
    pub(crate) notes: Vec<String>,
}

/// One node's throughput over a short while.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sample {
    /// The end of that while.
    pub(crate) t_ms: u64,
    /// The node.
    pub(crate) node: Node,
    /// The route that its data took; none while its daemon did not answer.
    pub(crate) route: Option<Route>,
    /// Bytes a second, both ways.
    pub(crate) bytes_per_s: f64,
}

/// Who made a mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum MarkKind {
    /// The demo did something to the nodes.
    Done,
    /// A node reported something.
    Reported,
}

/// A point in time that a reader wants to see.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Mark {
    /// When.
    pub(crate) t_ms: u64,
    /// About which node.
    pub(crate) node: Option<Node>,
    /// Who says so.
    pub(crate) kind: MarkKind,
    /// What.
    pub(crate) text: String,
}

/// A part of the demo.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Phase {
    /// Its name.
    pub(crate) name: String,
    /// From.
    pub(crate) from_ms: u64,
    /// To.
    pub(crate) to_ms: u64,
    /// What each writer completed and verified; with the floor it had to reach, if its node lived.
    pub(crate) writers: Vec<WriterPhase>,
}

/// One writer in one phase.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct WriterPhase {
    /// Its node.
    pub(crate) node: Node,
    /// Operations completed and verified.
    pub(crate) verified_ops: u64,
    /// At least so many were needed; none for a node that was killed in this phase.
    pub(crate) floor: Option<u64>,
}

impl WriterPhase {
    /// Whether it did enough.
    pub(crate) fn enough(&self) -> bool {
        self.floor.is_none_or(|floor| self.verified_ops >= floor)
    }
}

/// A wait.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Stall {
    /// The node.
    pub(crate) node: Node,
    /// The longest system call.
    pub(crate) longest_ms: u64,
    /// When it was seen.
    pub(crate) at_ms: u64,
    /// In which phase.
    pub(crate) phase: String,
}

/// Bytes of one node over one route.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct RouteBytes {
    /// The node.
    pub(crate) node: Node,
    /// The route.
    pub(crate) route: Route,
    /// Read.
    pub(crate) read_bytes: u64,
    /// Written.
    pub(crate) written_bytes: u64,
}

/// Failed calls of one kind on one node.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FailedCalls {
    /// The node.
    pub(crate) node: Node,
    /// In which phase.
    pub(crate) phase: String,
    /// The system call.
    pub(crate) call: String,
    /// Its error, by name.
    pub(crate) error: String,
    /// How many.
    pub(crate) count: u64,
    /// Whether they were to be expected: on a node whose daemon was killed, of the kinds that a dead mount gives; or EIO on one that
    /// was evicted.
    pub(crate) expected: bool,
}

/// One thing that was done to the nodes' way to the disk, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FaultSeen {
    /// What was done.
    pub(crate) fault: String,
    /// What was seen, in the order of time.
    pub(crate) seen: Vec<String>,
    /// Whether all of it is what had to come.
    pub(crate) ok: bool,
}

/// Something that had to hold.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    /// What.
    pub(crate) name: String,
    /// Whether it did.
    pub(crate) ok: bool,
    /// With which figures.
    pub(crate) detail: String,
}

impl DemoReport {
    /// Whether all held.
    pub(crate) fn ok(&self) -> bool {
        self.checks.iter().all(|c| c.ok) && self.faults.iter().all(|f| f.ok)
    }

    /// Failed calls that nothing excuses.
    pub(crate) fn unexpected_failures(&self) -> u64 {
        self.failed_calls.iter().filter(|f| !f.expected).map(|f| f.count).sum()
    }
}

#[cfg(test)]
mod tests;
