//! What `status` and `volume list` show of a volume, made from what it says of itself.

use std::path::PathBuf;

use csv_fs::client::session::Session;
use csv_fs::core::client::Route as CoreRoute;
use csv_fs::types::FS_BLOCK;
use csv_fs::volume::{MetadataState, Volume};

use super::records::Record;
use crate::api::{
    Health, IoCounters, Link, Metadata, Node, NodeInfo, PathInfo, Problem, Route, RouteIo, VolumeNode, VolumeStatus,
};
use crate::clock::WallTime;

/// How a node's data travels to a running volume.
pub(super) fn route(node: Node, volume: &Volume) -> VolumeNode {
    let info = volume.route();
    let (route, reason) = (kind(info.route), info.reason.to_string());
    let ok = route == Route::Direct;
    VolumeNode {
        node,
        route,
        reason: (!ok).then(|| reason.clone()),
        since: WallTime::now().earlier(Session::now().since(info.since)),
        paths: vec![PathInfo {
            name: volume.disk().display().to_string(),
            ok,
            detail: if ok { "ready".into() } else { reason },
        }],
    }
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
    disks: Vec<String>,
    mount: PathBuf,
    nodes: Vec<VolumeNode>,
) -> VolumeStatus {
    let office = volume.office();
    let metadata = match office.metadata {
        MetadataState::Ok => Metadata::Ok,
        MetadataState::Waiting => Metadata::Waiting,
        MetadataState::Grace => Metadata::Grace,
        MetadataState::Suspended => Metadata::Suspended,
    };
    let own = kind(volume.route().route);
    let health = match own {
        Route::Paused => Health::Paused,
        _ if metadata != Metadata::Ok || nodes.iter().any(|n| n.route != Route::Direct) => Health::Degraded,
        _ => Health::Healthy,
    };
    VolumeStatus {
        name: name.to_owned(),
        id: volume.id().to_string(),
        health,
        disks,
        mount: Some(mount),
        size_bytes: volume.size_bytes(),
        used_bytes: volume.space().map_or(0, |s| (s.blocks - s.free.min(s.blocks)) * FS_BLOCK),
        coordinator: office.coordinator.and_then(|n| Node::new(n.get())),
        epoch: office.epoch,
        incarnation: office.incarnation,
        metadata,
        timing: volume.timing_name().to_owned(),
        nodes,
        sessions: office.sessions,
        locks: 0,
        io: io(volume),
    }
}

fn io(volume: &Volume) -> IoCounters {
    let c = volume.counters();
    IoCounters {
        direct: RouteIo { read_bytes: c.direct_read, written_bytes: c.direct_written },
        block_redirected: RouteIo { read_bytes: c.redirected_read, written_bytes: c.redirected_written },
        file_redirected: RouteIo::default(),
        in_flight: c.in_flight,
        coordinator_calls: c.calls,
    }
}

/// A volume that does not run here; `why` says why not.
pub(super) fn absent(
    me: Node,
    record: &Record,
    why: &str,
    unmounted: bool,
    mut nodes: Vec<VolumeNode>,
) -> VolumeStatus {
    nodes.push(VolumeNode {
        node: me,
        route: Route::Unmounted,
        reason: Some(why.to_owned()),
        since: WallTime::now(),
        paths: Vec::new(),
    });
    nodes.sort_by_key(|n| n.node);
    VolumeStatus {
        name: record.name.clone(),
        id: record.id.clone(),
        health: if unmounted { Health::Unmounted } else { Health::Pending },
        disks: record.disks.clone(),
        mount: None,
        size_bytes: 0,
        used_bytes: 0,
        coordinator: None,
        epoch: 0,
        incarnation: 0,
        metadata: Metadata::Waiting,
        timing: String::new(),
        nodes,
        sessions: None,
        locks: 0,
        io: IoCounters::default(),
    }
}

/// What an operator should look at.
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
        volume_problems(v, &mut found);
    }
    found
}

fn volume_problems(v: &VolumeStatus, found: &mut Vec<Problem>) {
    let mut say = |node, message: String, next: &str| {
        found.push(Problem { node, volume: Some(v.name.clone()), message, next: next.into() })
    };
    match v.health {
        Health::Pending => {
            return say(
                None,
                format!("{} is not mounted here yet", v.name),
                "`shorefast events` has the reason; it is tried again by itself.",
            );
        }
        Health::Unmounted => return,
        _ => {}
    }
    if v.metadata != Metadata::Ok {
        say(None, format!("{}: metadata {}", v.name, v.metadata), "Nothing, unless it stays.");
    }
    for n in v.nodes.iter().filter(|n| n.route != Route::Direct) {
        let reason = n.reason.as_deref().unwrap_or("no reason known");
        say(
            Some(n.node),
            format!("{}: the data of {} is {} ({reason})", v.name, n.node, n.route),
            "Look at that node's path to the disk; it goes on meanwhile.",
        );
    }
}
