//! `status`, `node list`, `volume list` and `volume info` as tables.

use std::fmt::Write as _;
use std::time::Duration;

use super::table::{bytes, plain_table};
use crate::api::{
    Engine, IoCounters, Lack, Link, Metadata, Node, NodeInfo, Problem, Route, RouteIo, Status, VolumeNode, VolumeStatus,
};
use crate::clock::{WallTime, short};

/// Characters of a reason in a cell: the reasons that have names fit, and the table stays one.
const CELL_REASON_MAX: usize = 24;

/// As docs/kernel.md has it.
const THREADS_LOSE: &str = "about half of the speed";

/// The whole picture: cluster, volumes, nodes by volumes, problems.
pub(crate) fn status(s: &Status) -> String {
    let up = s.nodes.iter().filter(|n| matches!(n.link, Link::Myself | Link::Up)).count();
    let mut text = format!(
        "cluster {}   asked {} (up {})   nodes {up} of {} up   list version {}\n\n",
        s.cluster,
        s.node,
        short(s.uptime()),
        s.nodes.len(),
        s.list_version
    );
    if s.volumes.is_empty() {
        text += "There is no volume yet: `shorefast volume create NAME --disk URL`.\n";
    } else {
        text += &volumes(&s.volumes);
    }
    text.push('\n');
    text += &routes(s);
    for problem in &s.problems {
        text += &problem_line(problem);
    }
    for volume in &s.volumes {
        text += &kernel_lines(volume, s.node);
        text += &disk_line(volume);
    }
    text
}

/// What should be known of the kind of disk.
fn disk_line(v: &VolumeStatus) -> String {
    v.disk_note
        .as_ref()
        .map_or_else(String::new, |note| format!("- {}: its disk is an {}: {note}\n", v.name, v.disk_kind))
}

/// What a mount does without, a line each; nothing where the kernel has it all.
fn kernel_lines(v: &VolumeStatus, node: Node) -> String {
    let Some(kernel) = &v.kernel else { return String::new() };
    let mut text = String::new();
    if kernel.engine != Engine::IoUring {
        let why = kernel.engine_why.as_deref().unwrap_or("no reason known");
        let _ = writeln!(
            text,
            "- {}: {node} does its I/O with {}, since {why}; lost: {THREADS_LOSE}",
            v.name, kernel.engine
        );
    }
    for Lack { feature, instead, lost } in &kernel.lacks {
        let _ = writeln!(text, "- {}: the kernel of {node} lacks {feature}: {instead}; lost: {lost}", v.name);
    }
    text
}

/// `status --check`: one line, problems first.
pub(crate) fn check(s: &Status) -> String {
    match s.problems.split_first() {
        None => {
            let (volumes, nodes) = (counted(s.volumes.len(), "volume"), counted(s.nodes.len(), "node"));
            format!("OK: cluster {}, {volumes}, {nodes}{}\n", s.cluster, unmounted_on_request(s))
        }
        Some((first, [])) => format!("PROBLEM: {}\n", first.message),
        Some((first, rest)) => format!("PROBLEM: {} (and {} more)\n", first.message, rest.len()),
    }
}

/// What is well and still worth saying: where somebody unmounted something.
fn unmounted_on_request(s: &Status) -> String {
    let at = |node: Node| {
        let on_request = |v: &&VolumeStatus| v.nodes.iter().any(|n| n.node == node && n.unmounted_on_request());
        s.volumes.iter().filter(on_request).count()
    };
    let said = |node: Node| {
        let place = if node == s.node { "here".to_owned() } else { format!("on {node}") };
        format!("; {} not mounted {place}, on request", counted(at(node), "volume"))
    };
    let nodes = std::iter::once(s.node).chain(s.nodes.iter().map(|n| n.node).filter(|n| *n != s.node));
    nodes.filter(|n| at(*n) > 0).map(said).collect()
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// How much of a volume is in use: nothing of one that is mounted here and served is known to be nothing.
fn used(v: &VolumeStatus) -> String {
    let asked = v.mount.is_some() && v.metadata == Metadata::Ok;
    if asked { bytes(v.used_bytes) } else { known(v.used_bytes, bytes) }
}

/// What no node told stays open; nothing that exists has no size and no epoch.
fn known(n: u64, shown: impl FnOnce(u64) -> String) -> String {
    if n == 0 { "-".to_owned() } else { shown(n) }
}

/// `volume list`.
pub(crate) fn volumes(volumes: &[VolumeStatus]) -> String {
    let header = ["VOLUME", "STATE", "SIZE", "USED", "COORDINATOR", "EPOCH", "METADATA", "MOUNT"];
    plain_table(
        header,
        volumes.iter().map(|v| {
            [
                v.name.clone(),
                v.health.to_string(),
                known(v.size_bytes, bytes),
                used(v),
                v.coordinator.map_or_else(|| "-".to_owned(), |n| n.to_string()),
                known(v.epoch, |epoch| epoch.to_string()),
                v.metadata.to_string(),
                v.mount.as_ref().map_or_else(|| "-".to_owned(), |m| m.display().to_string()),
            ]
        }),
    )
}

/// `node list`.
pub(crate) fn nodes(nodes: &[NodeInfo]) -> String {
    let now = WallTime::now();
    plain_table(
        ["NODE", "ADDRESS", "STATE", "SINCE", "ROUND-TRIP", "VERSION", "REASON"],
        nodes.iter().map(|n| {
            [
                n.node.to_string(),
                n.address.clone(),
                state(n),
                short(n.since.until(now)),
                n.round_trip_us.map_or_else(|| "-".to_owned(), round_trip),
                n.version.clone().unwrap_or_else(|| "-".to_owned()),
                n.reason.clone().unwrap_or_default(),
            ]
        }),
    )
}

/// How a node can be reached, and whether it is drained.
fn state(n: &NodeInfo) -> String {
    if n.drained { format!("{}, drained", n.link) } else { n.link.to_string() }
}

/// `volume info`.
pub(crate) fn volume(v: &VolumeStatus) -> String {
    let now = WallTime::now();
    let mut text = volumes(std::slice::from_ref(v));
    let note = v.disk_note.as_ref().map_or_else(String::new, |note| format!(", {note}"));
    let disks = format!("{} ({}{note})", v.disks.join(", "), v.disk_kind);
    let incarnation = known(v.incarnation, |n| n.to_string());
    let timing = if v.timing.is_empty() { "-" } else { &v.timing };
    let _ = writeln!(text, "\nid {}   incarnation {incarnation}   timing {timing}   disk {disks}\n", v.id);
    text += &plain_table(
        ["NODE", "ROUTE", "SINCE", "REASON", "PATHS"],
        v.nodes.iter().map(|n| {
            let paths: Vec<String> = n.paths.iter().map(|p| format!("{}: {}", p.name, p.detail)).collect();
            let reason = n.reason.clone().unwrap_or_default();
            [n.node.to_string(), n.route.to_string(), short(n.since.until(now)), reason, paths.join("; ")]
        }),
    );
    text.push('\n');
    text += &io(&v.io);
    if let Some(kernel) = &v.kernel {
        let lacks: Vec<&str> = kernel.lacks.iter().map(|l| l.feature.as_str()).collect();
        let lacks = if lacks.is_empty() { "nothing optional".to_owned() } else { lacks.join(", ") };
        let _ = writeln!(text, "disk I/O by {}   the kernel lacks {lacks}", kernel.engine);
    }
    text
}

fn io(io: &IoCounters) -> String {
    let row = |route: Route, r: RouteIo| [route.to_string(), bytes(r.read_bytes), bytes(r.written_bytes)];
    let mut text = plain_table(
        ["IO OF THIS NODE", "READ", "WRITTEN"],
        [
            row(Route::Direct, io.direct),
            row(Route::BlockRedirected, io.block_redirected),
            row(Route::FileRedirected, io.file_redirected),
        ],
    );
    let _ = writeln!(text, "in flight {}   calls to coordinators {}", io.in_flight, io.coordinator_calls);
    if io.timed_out > 0 || io.overdue.count() > 0 {
        let _ = writeln!(text, "timed out {}   overdue {}", io.timed_out, io.overdue.count());
    }
    text
}

/// One row a node; one column a volume. The width is not known before: built by hand around the table.
fn routes(s: &Status) -> String {
    plain_table(
        ["NODE", "STATE", "NET", "ROUTES"],
        s.nodes.iter().map(|node| {
            let cells: Vec<String> = s
                .volumes
                .iter()
                .filter_map(|v| v.nodes.iter().find(|n| n.node == node.node).map(|n| route_cell(s, v, n)))
                .collect();
            [
                node.node.to_string(),
                state(node),
                node.round_trip_us.map_or_else(|| "-".to_owned(), round_trip),
                if cells.is_empty() { "-".to_owned() } else { cells.join("   ") },
            ]
        }),
    )
}

/// `vm1 block-redirected via node-1 3m (io-failed)`.
fn route_cell(s: &Status, v: &VolumeStatus, n: &VolumeNode) -> String {
    let mut cell = format!("{} {}", v.name, n.route);
    // One that was redirected and has become coordinator since goes by no other node.
    if let (Route::BlockRedirected | Route::FileRedirected, Some(via)) = (n.route, v.coordinator)
        && via != n.node
    {
        let _ = write!(cell, " via {via}");
    }
    if n.route != Route::Direct {
        let _ = write!(cell, " {}", short(n.since.until(s.at)));
    }
    if let Some(reason) = &n.reason {
        // Whole sentences are told below the table, where every problem is.
        let long = reason.chars().count() > CELL_REASON_MAX;
        let _ = write!(cell, " ({})", if long { "see below" } else { reason });
    }
    cell
}

/// The message names volume and node itself.
fn problem_line(p: &Problem) -> String {
    format!("! {} → {}\n", p.message, p.next)
}

fn round_trip(us: u64) -> String {
    format!("{:.2}ms", Duration::from_micros(us).as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests;
