use super::*;
use crate::api::{DiskKind, Health, Kernel, Metadata, Node, PathInfo, SCHEMA};

fn node(n: u8) -> Node {
    Node::new(n).expect("a node")
}

fn info(n: u8, link: Link) -> NodeInfo {
    let address = format!("192.0.2.{n}:7440");
    let (since, round_trip_us) = (WallTime(0), Some(90));
    NodeInfo {
        node: node(n),
        address,
        link,
        since,
        reason: None,
        round_trip_us,
        version: None,
        messages: None,
        drained: false,
    }
}

fn at(n: u8, route: Route, reason: Option<&str>) -> VolumeNode {
    let paths = vec![PathInfo { name: "disk0".to_owned(), ok: reason.is_none(), detail: "ready".to_owned() }];
    VolumeNode {
        node: node(n),
        route,
        reason: reason.map(str::to_owned),
        since: WallTime(1_000),
        paths,
        wanted: true,
        next: None,
    }
}

pub(crate) fn sample() -> Status {
    let volume = VolumeStatus {
        name: "vm1".to_owned(),
        id: "0000".to_owned(),
        health: Health::Degraded,
        disks: vec!["/disk.img".to_owned()],
        disk_kind: DiskKind::File,
        disk_note: None,
        mount: Some("/shorefast/vm1".into()),
        size_bytes: 4 << 30,
        used_bytes: 300 << 20,
        coordinator: Some(node(1)),
        epoch: 3,
        incarnation: 1,
        metadata: Metadata::Ok,
        timing: "fast".to_owned(),
        nodes: vec![at(1, Route::Direct, None), at(3, Route::BlockRedirected, Some("io-failed"))],
        sessions: Some(2),
        held: None,
        locks: 0,
        io: IoCounters::default(),
        kernel: Some(Kernel { engine: Engine::IoUring, engine_why: None, lacks: Vec::new() }),
    };
    Status {
        schema: SCHEMA,
        cluster: "lab".to_owned(),
        cluster_id: "0".repeat(32),
        list_version: 1,
        node: node(1),
        pid: 7,
        version: "0.1.0".to_owned(),
        started: WallTime(1_000),
        at: WallTime(181_000),
        nodes: vec![info(1, Link::Myself), info(2, Link::Down), info(3, Link::Up)],
        volumes: vec![volume],
        problems: vec![Problem {
            node: Some(node(2)),
            volume: None,
            message: "node-2 cannot be reached: refused".to_owned(),
            next: "See whether it runs.".to_owned(),
        }],
    }
}

#[test]
fn status_shows_each_nodes_route_with_its_reason_and_every_problem() {
    assert_eq!(
        status(&sample()),
        "\
cluster lab   asked node-1 (up 3m)   nodes 2 of 3 up   list version 1

VOLUME  STATE     SIZE     USED     COORDINATOR  EPOCH  METADATA  MOUNT
vm1     degraded  4.0 GiB  300 MiB  node-1       3      ok        /shorefast/vm1

NODE    STATE      NET     ROUTES
node-1  this node  0.09ms  vm1 direct
node-2  down       0.09ms  -
node-3  up         0.09ms  vm1 block-redirected via node-1 3m (io-failed)
! node-2 cannot be reached: refused → See whether it runs.
"
    );
}

#[test]
fn status_says_what_a_mount_does_without_and_what_is_lost_by_it() {
    let mut s = sample();
    let lack = Lack { feature: "MAX_PAGES".into(), instead: "requests of 128 KiB".into(), lost: "throughput".into() };
    let why = Some("io_uring is refused (Operation not permitted (os error 1))".to_owned());
    s.volumes[0].kernel = Some(Kernel { engine: Engine::Threads, engine_why: why, lacks: vec![lack] });
    let text = status(&s);
    let lines: Vec<&str> = text.lines().filter(|l| l.starts_with("- ")).collect();
    assert_eq!(
        lines,
        [
            "- vm1: node-1 does its I/O with threads, since io_uring is refused (Operation not permitted (os error 1)); \
             lost: about half of the speed",
            "- vm1: the kernel of node-1 lacks MAX_PAGES: requests of 128 KiB; lost: throughput",
        ]
    );
    let info = volume(&s.volumes[0]);
    assert!(info.ends_with("disk I/O by threads   the kernel lacks MAX_PAGES\n"), "{info}");
}

#[test]
fn a_long_reason_is_told_below_the_table_and_not_in_it() {
    let mut s = sample();
    let reason = "the mount point /shorefast/vm1 is not empty: move its files away or name another directory";
    s.volumes[0].nodes[1] = at(3, Route::Unmounted, Some(reason));
    s.problems[0].message = format!("vm1: node-3 has not mounted it: {reason}");
    let text = status(&s);
    assert!(text.contains("vm1 unmounted 3m (see below)\n"), "{text}");
    assert_eq!(text.matches("is not empty").count(), 1, "{text}");
}

#[test]
fn a_node_is_not_said_to_go_through_itself() {
    let mut s = sample();
    s.volumes[0].coordinator = Some(node(3));
    assert!(status(&s).contains("vm1 block-redirected 3m (io-failed)"), "{}", status(&s));
}

#[test]
fn a_new_volume_uses_nothing_and_one_of_which_nothing_is_told_is_unknown() {
    let mut s = sample();
    let row = |s: &Status| volumes(&s.volumes).lines().nth(1).expect("a row").to_owned();
    s.volumes[0].used_bytes = 0;
    assert!(row(&s).contains("4.0 GiB  0 B"), "{}", row(&s));
    s.volumes[0].metadata = Metadata::Waiting;
    assert!(row(&s).contains("4.0 GiB  - "), "{}", row(&s));
}

#[test]
fn check_is_one_line_that_names_the_first_problem() {
    let mut s = sample();
    assert_eq!(check(&s), "PROBLEM: node-2 cannot be reached: refused\n");
    s.problems.clear();
    assert_eq!(check(&s), "OK: cluster lab, 1 volume, 3 nodes\n");
}

#[test]
fn check_says_ok_of_what_was_unmounted_on_request_and_says_that_it_was() {
    let mut s = sample();
    s.problems.clear();
    let on_request = |n| VolumeNode { wanted: false, ..at(n, Route::Unmounted, Some("on request")) };
    s.volumes[0].nodes = vec![on_request(1), at(2, Route::Direct, None), on_request(3)];
    assert_eq!(
        check(&s),
        "OK: cluster lab, 1 volume, 3 nodes; 1 volume not mounted here, on request; \
         1 volume not mounted on node-3, on request\n"
    );
}

#[test]
fn what_no_node_told_of_a_volume_is_shown_as_unknown() {
    let mut s = sample();
    let v = &mut s.volumes[0];
    (v.mount, v.size_bytes, v.used_bytes, v.epoch, v.coordinator) = (None, 0, 0, 0, None);
    (v.health, v.metadata) = (Health::Unmounted, Metadata::Unknown);
    let text = volumes(&s.volumes);
    let row: Vec<&str> = text.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(row, ["vm1", "unmounted", "-", "-", "-", "-", "-", "-"]);
}

#[test]
fn volume_info_shows_reasons_paths_and_counters() {
    let text = volume(&sample().volumes[0]);
    for part in ["node-3  block-redirected", "io-failed", "disk0: ready", "calls to coordinators 0", "timing fast"] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
}
