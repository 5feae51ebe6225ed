//! What `status` and `volume list` show of a volume, made from what it says of itself.

use std::path::PathBuf;

use block::multipath::{PathState, PathStatus};
use csv_fs::client::session::Session;
use csv_fs::coordinator::Status as Given;
use csv_fs::core::client::{Overdue, Route as CoreRoute};
use csv_fs::types::FS_BLOCK;
use csv_fs::volume::{MetadataState, Volume};
use fuse::features::Row;
use scsi::alua::AccessState;

use super::records::Record;
use super::told::{Known, NOT_KNOWN};
use crate::api::{
    DiskKind, Engine, Health, Held, IoCounters, Kernel, Lack, Link, Metadata, Node, NodeInfo, OverdueIo, PathInfo,
    Problem, Route, RouteIo, VolumeNode, VolumeStatus,
};
use crate::clock::WallTime;
use crate::san;

/// How a node's data travels to a running volume.
pub(super) fn route(node: Node, volume: &Volume) -> VolumeNode {
    let info = volume.route();
    let (route, reason) = (kind(info.route), info.reason.to_string());
    let ok = route == Route::Direct;
    let paths: Vec<PathInfo> = volume.paths().iter().map(path).collect();
    // A file is reached in one way only, which is as its route is.
    let only = || {
        let detail = if ok { "ready".to_owned() } else { reason.clone() };
        vec![PathInfo { name: volume.disk().to_string(), ok, detail }]
    };
    VolumeNode {
        node,
        route,
        reason: (!ok).then(|| reason.clone()),
        since: WallTime::now().earlier(Session::now().since(info.since)),
        paths: if paths.is_empty() { only() } else { paths },
        wanted: true,
        next: None,
    }
}

/// One way to a unit. Through ports that take no requests, as the target has set them, there is none now.
fn path(status: &PathStatus) -> PathInfo {
    let (ok, detail) = match (&status.state, status.access.state) {
        (PathState::Up, AccessState::ActiveOptimized) => (true, "ready".to_owned()),
        (PathState::Up, state) if status.access.takes_requests() => (true, format!("ready, {state}")),
        (PathState::Up, state) => (false, format!("its ports are {state}, as the target says")),
        (state, _) => (false, state.to_string()),
    };
    PathInfo { name: status.name.clone(), ok, detail }
}

/// How its metadata is served, as people read it.
pub(super) fn metadata(state: MetadataState) -> Metadata {
    match state {
        MetadataState::Ok => Metadata::Ok,
        MetadataState::Waiting => Metadata::Waiting,
        MetadataState::Grace => Metadata::Grace,
        MetadataState::Suspended => Metadata::Suspended,
    }
}

/// How much of it is in use, as last heard.
pub(super) fn used(volume: &Volume) -> Option<u64> {
    volume.space().map(|s| (s.blocks - s.free.min(s.blocks)) * FS_BLOCK)
}

fn kind(route: CoreRoute) -> Route {
    match route {
        CoreRoute::Direct => Route::Direct,
        CoreRoute::Draining => Route::Draining,
        CoreRoute::BlockRedirected => Route::BlockRedirected,
        CoreRoute::FileRedirected => Route::FileRedirected,
        CoreRoute::Paused => Route::Paused,
    }
}

/// A volume that runs here.
pub(super) fn running(
    name: &str,
    volume: &Volume,
    disks: &[String],
    mount: PathBuf,
    nodes: Vec<VolumeNode>,
) -> VolumeStatus {
    let office = volume.office();
    let metadata = metadata(office.metadata);
    let health = health(kind(volume.route().route), metadata, &nodes);
    VolumeStatus {
        name: name.to_owned(),
        id: volume.id().to_string(),
        health,
        disks: masked(disks),
        disk_kind: disk_kind(disks),
        disk_note: disk_kind(disks).note().map(str::to_owned),
        mount: Some(mount),
        size_bytes: volume.size_bytes(),
        used_bytes: used(volume).unwrap_or(0),
        coordinator: office.coordinator.and_then(|n| Node::new(n.get())),
        epoch: office.epoch,
        incarnation: office.incarnation,
        metadata,
        timing: volume.timing_name().to_owned(),
        nodes,
        sessions: office.given.as_ref().map(|g| u32::try_from(g.sessions.len()).unwrap_or(u32::MAX)),
        held: office.given.as_ref().map(held),
        locks: volume.session().locks().0 as u64,
        io: io(volume),
        kernel: Some(kernel(volume)),
    }
}

/// A record has no secrets; whoever wrote one into it by hand is not to find it in a status.
fn masked(disks: &[String]) -> Vec<String> {
    disks.iter().map(|disk| san::masked(disk)).collect()
}

fn disk_kind(disks: &[String]) -> DiskKind {
    match disks.first() {
        Some(disk) if san::is_unit(disk) => DiskKind::Iscsi,
        Some(disk) if san::local::is_named(disk) => DiskKind::Scsi,
        _ => DiskKind::File,
    }
}

/// What the coordinator has given out.
fn held(given: &Given) -> Held {
    Held {
        layouts: given.layouts as u64,
        open_files: given.open_files as u64,
        locks: given.locks as u64,
        lock_waiters: given.lock_waiters as u64,
        redirected: given.redirects_in_progress as u64,
    }
}

/// What a mount here has of this kernel.
fn kernel(volume: &Volume) -> Kernel {
    let engine_why = volume.why_threads();
    let lack = |row: &Row| Lack { feature: row.name.into(), instead: row.fallback.into(), lost: row.lost.into() };
    Kernel {
        engine: if engine_why.is_some() { Engine::Threads } else { Engine::IoUring },
        engine_why,
        lacks: volume.kernel_lacks().map(lack).collect(),
    }
}

/// How a volume that runs here is, with its other nodes.
fn health(own: Route, metadata: Metadata, nodes: &[VolumeNode]) -> Health {
    match own {
        Route::Paused => Health::Paused,
        _ if metadata != Metadata::Ok || nodes.iter().any(is_a_problem) => Health::Degraded,
        _ => Health::Healthy,
    }
}

/// Whether a node's state on a volume is not as it should be.
fn is_a_problem(n: &VolumeNode) -> bool {
    n.route != Route::Direct && !n.unmounted_on_request()
}

fn io(volume: &Volume) -> IoCounters {
    let c = volume.counters();
    IoCounters {
        direct: RouteIo { read_bytes: c.direct_read, written_bytes: c.direct_written },
        block_redirected: RouteIo { read_bytes: c.redirected_read, written_bytes: c.redirected_written },
        file_redirected: RouteIo::default(),
        in_flight: c.in_flight,
        coordinator_calls: c.calls,
        timed_out: c.timed_out,
        overdue: overdue(volume.overdue()),
    }
}

/// What has waited for `io_timeout` and cannot be given up.
pub(super) fn overdue(o: Overdue) -> OverdueIo {
    OverdueIo { at_disk: o.at_disk, redirected: o.redirected, calls: o.calls }
}

/// A volume that does not run on `me`: what is known of it is what other nodes told, if any did.
pub(super) fn absent(me: Node, record: &Record, nodes: Vec<VolumeNode>, known: Option<Known>) -> VolumeStatus {
    let on_request = nodes.iter().any(|n| n.node == me && n.unmounted_on_request());
    let (metadata, timing) = known.as_ref().map_or((Metadata::Unknown, ""), |k| (k.metadata, &k.timing));
    VolumeStatus {
        name: record.name.clone(),
        id: record.id.clone(),
        health: if on_request { Health::Unmounted } else { Health::Pending },
        disks: masked(&record.disks),
        disk_kind: disk_kind(&record.disks),
        disk_note: disk_kind(&record.disks).note().map(str::to_owned),
        mount: None,
        size_bytes: known.as_ref().map_or(0, |k| k.size_bytes),
        used_bytes: known.as_ref().and_then(|k| k.used_bytes).unwrap_or(0),
        coordinator: known.as_ref().and_then(|k| k.coordinator),
        epoch: known.as_ref().map_or(0, |k| k.epoch),
        incarnation: 0,
        metadata,
        timing: timing.to_owned(),
        nodes,
        sessions: None,
        held: None,
        locks: 0,
        io: IoCounters::default(),
        kernel: None,
    }
}

/// What an operator should look at. A message is whole: it names the volume and the node itself.
pub(super) fn problems(nodes: &[NodeInfo], volumes: &[VolumeStatus]) -> Vec<Problem> {
    let mut found = Vec::new();
    for n in nodes.iter().filter(|n| matches!(n.link, Link::Down | Link::Refused)) {
        let reason = n.reason.clone().unwrap_or_default();
        found.push(Problem {
            node: Some(n.node),
            volume: None,
            message: format!("{} cannot be reached: {reason}", n.node),
            next: "See whether its daemon runs, and the network between both.".into(),
        });
    }
    for v in volumes {
        let drained = nodes.iter().find(|n| n.link == Link::Myself && n.drained).map(|n| n.node);
        volume_problems(v, drained, &mut found);
    }
    found
}

fn volume_problems(v: &VolumeStatus, drained: Option<Node>, found: &mut Vec<Problem>) {
    let mut say =
        |node, message: String, next: String| found.push(Problem { node, volume: Some(v.name.clone()), message, next });
    // What another node's metadata side does is that node's to complain about.
    if v.mount.is_some() && v.metadata != Metadata::Ok {
        let next = match drained {
            Some(me) if v.metadata == Metadata::Waiting => {
                let n = me.number();
                format!("{me} is drained and takes no office: if no other node can, `shorefast node resume {n}`.")
            }
            _ => "Nothing, unless it stays.".into(),
        };
        say(None, format!("{}: metadata {}", v.name, v.metadata), next);
    }
    let late = v.io.overdue;
    if late.count() > 0 {
        let message = format!(
            "{}: {} requests wait for longer than io_timeout, since they may still be executed: {late}",
            v.name,
            late.count()
        );
        say(
            None,
            message,
            "They end once it is known what becomes of them: look at the disk of this node, and at who coordinates."
                .into(),
        );
    }
    for n in v.nodes.iter().filter(|n| n.route == Route::Direct) {
        let lost: Vec<String> =
            n.paths.iter().filter(|p| !p.ok).map(|p| format!("{} ({})", p.name, p.detail)).collect();
        if !lost.is_empty() {
            let message = format!(
                "{}: {} has lost {} of its {} paths: {}",
                v.name,
                n.node,
                lost.len(),
                n.paths.len(),
                lost.join(", ")
            );
            let next =
                "Look at that way to the disk; it goes on over the others, and has none in reserve if they fail, too.";
            say(Some(n.node), message, next.into());
        }
    }
    for n in v.nodes.iter().filter(|n| is_a_problem(n)) {
        let reason = n.reason.as_deref().unwrap_or("no reason known");
        let message = match n.route {
            Route::Unmounted if reason == NOT_KNOWN => format!("{}: not known on {}", v.name, n.node),
            Route::Unmounted => format!("{}: {} has not mounted it: {reason}", v.name, n.node),
            route if has_no_path(v, n) => {
                let paths: Vec<String> = n.paths.iter().map(|p| format!("{} ({})", p.name, p.detail)).collect();
                format!("{}: the data of {} is {route} ({reason}); no path works: {}", v.name, n.node, paths.join(", "))
            }
            route => format!("{}: the data of {} is {route} ({reason})", v.name, n.node),
        };
        say(Some(n.node), message, advice(v, n));
    }
}

/// Whether it has lost every path to a unit. The one way to a file is as its route is, and says nothing besides.
fn has_no_path(v: &VolumeStatus, n: &VolumeNode) -> bool {
    v.disk_kind != DiskKind::File && !n.paths.is_empty() && n.paths.iter().all(|p| !p.ok)
}

/// What to do about a node's state on a volume.
fn advice(v: &VolumeStatus, n: &VolumeNode) -> String {
    if let Some(next) = &n.next {
        return next.clone();
    }
    match (n.route, n.reason.as_deref()) {
        (Route::Unmounted, _) => {
            "It is tried again by itself; put right what the reason names, or see `shorefast events` on that node."
                .into()
        }
        (_, Some("administrator")) => {
            format!(
                "Somebody asked for it; `shorefast volume redirect {} off --node {}` ends it.",
                v.name,
                n.node.number()
            )
        }
        (_, Some("device-on-coordinator")) => "Nothing: only the coordinator has that disk.".into(),
        // Nobody can coordinate without the disk: that is what to look at, not the nodes.
        (_, Some("no-coordinator")) if has_no_path(v, n) => {
            "Look at the disk or array and at that node's ways to it; it goes on by itself once a path is good again."
                .into()
        }
        (_, Some("no-coordinator")) => "Nothing, unless it stays: see which nodes are up.".into(),
        _ => "Look at that node's path to the disk; it goes on meanwhile.".into(),
    }
}

#[cfg(test)]
mod tests;
