//! What a node tells about itself: the shapes behind `status`, `volume list` and `node list`, as JSON has them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::WallTime;

/// A node of the cluster, 1 to 64; people write `node-3` or `3`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Node(u8);

impl Node {
    /// The highest number: the disk format has that many slots.
    pub const MAX: u8 = 64;

    /// The node of a number.
    pub fn new(n: u8) -> Option<Node> {
        (1..=Node::MAX).contains(&n).then_some(Node(n))
    }

    /// Its number.
    pub fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("node-{}", self.0))
    }
}

impl FromStr for Node {
    type Err = String;
    fn from_str(s: &str) -> Result<Node, String> {
        let digits = s.strip_prefix("node-").unwrap_or(s);
        let wrong = || format!("`{s}` is no node: write a number from 1 to {}, or node-1", Node::MAX);
        Node::new(digits.parse().map_err(|_| wrong())?).ok_or_else(wrong)
    }
}

impl TryFrom<u8> for Node {
    type Error = String;
    fn try_from(n: u8) -> Result<Node, String> {
        Node::new(n).ok_or_else(|| format!("{n} is no node: nodes are 1 to {}", Node::MAX))
    }
}

impl From<Node> for u8 {
    fn from(n: Node) -> u8 {
        n.0
    }
}

/// How a node's data travels to a volume's disk. Spelled the same everywhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Route {
    /// Straight to the disk.
    Direct,
    /// The path is lost; what is in flight is being proved dead.
    Draining,
    /// Blocks travel through the coordinator.
    BlockRedirected,
    /// Whole file operations travel through the coordinator: asked for by the administrator.
    FileRedirected,
    /// No path and no coordinator: requests wait.
    Paused,
    /// Shut out by the others.
    Fenced,
    /// Not mounted.
    Unmounted,
}

impl Route {
    /// Every route.
    pub const ALL: [Route; 7] = [
        Route::Direct,
        Route::Draining,
        Route::BlockRedirected,
        Route::FileRedirected,
        Route::Paused,
        Route::Fenced,
        Route::Unmounted,
    ];

    /// Its one spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Route::Direct => "direct",
            Route::Draining => "draining",
            Route::BlockRedirected => "block-redirected",
            Route::FileRedirected => "file-redirected",
            Route::Paused => "paused",
            Route::Fenced => "fenced",
            Route::Unmounted => "unmounted",
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a node can be reached from the one that was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Link {
    /// It is the one that was asked.
    Myself,
    /// Connected.
    Up,
    /// Being tried.
    Connecting,
    /// Not to be reached.
    Down,
    /// Reached, and refused: a certificate, a version, another list of nodes.
    Refused,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Link::Myself => "this node",
            Link::Up => "up",
            Link::Connecting => "connecting",
            Link::Down => "down",
            Link::Refused => "refused",
        })
    }
}

/// A node as the one that was asked sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Which.
    pub node: Node,
    /// HOST:PORT of its cluster network.
    pub address: String,
    /// Whether it can be reached.
    pub link: Link,
    /// Since when.
    pub since: WallTime,
    /// Why not, if not.
    pub reason: Option<String>,
    /// Round trip of the last keep-alive, in microseconds.
    pub round_trip_us: Option<u64>,
    /// Its program's version, once it has said it.
    pub version: Option<String>,
    /// The version of the messages that it and the one that was asked speak with one another, once it has said it.
    #[serde(default)]
    pub messages: Option<String>,
    /// Whether it is drained: it takes no office. As it said last.
    #[serde(default)]
    pub drained: bool,
}

/// Counters of one route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteIo {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
}

impl RouteIo {
    /// Bytes both ways.
    pub fn bytes(self) -> u64 {
        self.read_bytes.saturating_add(self.written_bytes)
    }
}

/// What a node's applications moved, by the route it took; counted since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoCounters {
    /// Straight to the disk.
    pub direct: RouteIo,
    /// Blocks through the coordinator.
    pub block_redirected: RouteIo,
    /// Files through the coordinator.
    pub file_redirected: RouteIo,
    /// Requests accepted and not yet answered.
    pub in_flight: u64,
    /// Messages sent to coordinators.
    pub coordinator_calls: u64,
    /// Requests that got EIO after `io_timeout`.
    #[serde(default)]
    pub timed_out: u64,
    /// Requests that have waited for `io_timeout`, and wait longer since they may still be executed.
    #[serde(default)]
    pub overdue: OverdueIo,
}

/// Requests that have waited for `io_timeout` and may still be executed, by where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverdueIo {
    /// Writes that the disk neither completes nor gives back.
    pub at_disk: u64,
    /// Redirected writes that a coordinator was sent.
    pub redirected: u64,
    /// Changes of names and attributes that a coordinator was sent.
    pub calls: u64,
}

impl OverdueIo {
    /// All of them.
    pub fn count(self) -> u64 {
        self.at_disk.saturating_add(self.redirected).saturating_add(self.calls)
    }
}

impl fmt::Display for OverdueIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.at_disk, "with the disk, which neither completes nor gives them back"),
            (self.redirected, "redirected writes that a coordinator was sent"),
            (self.calls, "changes that a coordinator was sent"),
        ];
        let there: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        f.write_str(&there.join("; "))
    }
}

/// One way from a node to a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathInfo {
    /// The disk or nexus.
    pub name: String,
    /// Whether it works.
    pub ok: bool,
    /// What is known: `ready`, or why not.
    pub detail: String,
}

/// A volume's state on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeNode {
    /// The node.
    pub node: Node,
    /// How its data travels.
    pub route: Route,
    /// Why, from a closed list; for `unmounted` a sentence. Absent for `direct`.
    pub reason: Option<String>,
    /// Since when.
    pub since: WallTime,
    /// Its paths to the disk.
    pub paths: Vec<PathInfo>,
    /// Whether this node is to have it mounted: `false` after an unmount on request.
    #[serde(default = "wanted")]
    pub wanted: bool,
    /// What to do about the reason, if it is not the usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A node that does not say so has what it is to have.
fn wanted() -> bool {
    true
}

impl VolumeNode {
    /// Whether somebody asked that it is not mounted there: nothing is wrong with that.
    pub fn unmounted_on_request(&self) -> bool {
        self.route == Route::Unmounted && !self.wanted
    }
}

/// How a volume is, in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Mounted, every route direct or as asked for.
    Healthy,
    /// Works, but a node is redirected, waiting, or has not mounted it although it is to.
    Degraded,
    /// This node's requests wait.
    Paused,
    /// Known, and not mounted here yet.
    Pending,
    /// Unmounted here on request.
    Unmounted,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Health::Healthy => "healthy",
            Health::Degraded => "degraded",
            Health::Paused => "paused",
            Health::Pending => "pending",
            Health::Unmounted => "unmounted",
        })
    }
}

/// What the metadata side of a volume does now, seen from the node that was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metadata {
    /// Served.
    Ok,
    /// There is no coordinator at the moment; data under held rights goes on.
    Waiting,
    /// The coordinator takes back what its clients hold.
    Grace,
    /// This node is coordinator and could not renew its lease.
    Suspended,
    /// It is not mounted on the node that was asked, and no other node told.
    Unknown,
}

impl fmt::Display for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Metadata::Ok => "ok",
            Metadata::Waiting => "waiting",
            Metadata::Grace => "grace",
            Metadata::Suspended => "suspended",
            Metadata::Unknown => "-",
        })
    }
}

/// An optional feature of the kernel that is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lack {
    /// The kernel's name of it, as docs/kernel.md has it.
    pub feature: String,
    /// What happens without it.
    pub instead: String,
    /// What is lost by that.
    pub lost: String,
}

/// What a coordinator has given out to all nodes and not got back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Held {
    /// Layouts: rights over ranges of files.
    pub layouts: u64,
    /// Open files.
    pub open_files: u64,
    /// File locks, as stretches.
    pub locks: u64,
    /// Who waits for a file lock.
    pub lock_waiters: u64,
    /// Redirected requests on their way.
    pub redirected: u64,
}

/// What carries a node's requests to a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// A ring for each worker.
    IoUring,
    /// A few threads with plain system calls.
    Threads,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Engine::IoUring => "io_uring",
            Engine::Threads => "threads",
        })
    }
}

/// What a mount has of its kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// What carries its I/O.
    pub engine: Engine,
    /// Why it is not io_uring.
    pub engine_why: Option<String>,
    /// The optional features that it is without.
    pub lacks: Vec<Lack>,
}

/// What kind of disk a volume lies on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskKind {
    /// A file, or a block device, that every node of one host opens.
    #[default]
    File,
    /// A logical unit over iSCSI.
    Iscsi,
    /// A logical unit that the kernels of the nodes have as SCSI disks.
    Scsi,
}

impl DiskKind {
    /// What a user should know of this kind.
    pub const fn note(self) -> Option<&'static str> {
        match self {
            DiskKind::File => None,
            DiskKind::Iscsi | DiskKind::Scsi => Some("untested on hardware"),
        }
    }
}

impl fmt::Display for DiskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            DiskKind::File => "file",
            DiskKind::Iscsi => "iSCSI unit",
            DiskKind::Scsi => "SCSI disk",
        })
    }
}

/// A volume, seen from the node that was asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub id: String,
    /// In one word.
    pub health: Health,
    /// Its disk: one path, or a unit's URL for each of its portals, secrets masked.
    pub disks: Vec<String>,
    /// What kind of disk that is.
    #[serde(default)]
    pub disk_kind: DiskKind,
    /// What should be known of that kind; absent if nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_note: Option<String>,
    /// Where it is mounted here.
    pub mount: Option<PathBuf>,
    /// Size of its data in bytes; 0 if no node that answers knows it.
    pub size_bytes: u64,
    /// Of which in use; 0 if that is not known.
    pub used_bytes: u64,
    /// The node that changes its metadata now.
    pub coordinator: Option<Node>,
    /// The number of that reign; 0 if it is not known.
    pub epoch: u64,
    /// This node's incarnation on it.
    pub incarnation: u64,
    /// The metadata side.
    pub metadata: Metadata,
    /// Its timers: `default` or `fast`.
    pub timing: String,
    /// Every node's route.
    pub nodes: Vec<VolumeNode>,
    /// Sessions at the coordinator, if it is this node.
    pub sessions: Option<u32>,
    /// What the coordinator has given out to all nodes, if it is this node.
    #[serde(default)]
    pub held: Option<Held>,
    /// Locks held through this node.
    pub locks: u64,
    /// What this node moved.
    pub io: IoCounters,
    /// What its mount here has of this node's kernel; absent if it is not mounted here.
    #[serde(default)]
    pub kernel: Option<Kernel>,
}

/// Something an operator should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Which node it is about.
    pub node: Option<Node>,
    /// Which volume.
    pub volume: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do next.
    pub next: String,
}

/// The whole of `status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`super::SCHEMA`].
    pub schema: u32,
    /// The cluster's name.
    pub cluster: String,
    /// Its identity.
    pub cluster_id: String,
    /// The version of the list of nodes.
    pub list_version: u64,
    /// The node that was asked.
    pub node: Node,
    /// Its process.
    pub pid: u32,
    /// Its program's version.
    pub version: String,
    /// When it started.
    pub started: WallTime,
    /// When this was said.
    pub at: WallTime,
    /// All nodes.
    pub nodes: Vec<NodeInfo>,
    /// All volumes.
    pub volumes: Vec<VolumeStatus>,
    /// What is wrong; empty if nothing is.
    pub problems: Vec<Problem>,
}

impl Status {
    /// How long the daemon has run.
    pub fn uptime(&self) -> Duration {
        self.started.until(self.at)
    }

    /// A volume by its name.
    pub fn volume(&self, name: &str) -> Option<&VolumeStatus> {
        self.volumes.iter().find(|v| v.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_is_read_with_and_without_its_prefix_and_within_bounds() {
        assert_eq!("node-3".parse(), Ok(Node(3)));
        assert_eq!("64".parse(), Ok(Node(64)));
        for wrong in ["0", "65", "node-", "n3", "-1"] {
            assert!(wrong.parse::<Node>().is_err(), "{wrong} was taken");
        }
    }

    #[test]
    fn routes_in_json_are_spelled_as_in_tables() {
        for route in Route::ALL {
            assert_eq!(serde_json::to_string(&route).expect("plain enum"), format!("\"{}\"", route.as_str()));
        }
    }
}
