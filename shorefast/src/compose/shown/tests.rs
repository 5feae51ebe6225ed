use super::*;

fn node(n: u8) -> Node {
    Node::new(n).expect("a node")
}

fn at(n: u8, route: Route, reason: Option<&str>, wanted: bool) -> VolumeNode {
    let reason = reason.map(str::to_owned);
    VolumeNode { node: node(n), route, reason, since: WallTime(0), paths: Vec::new(), wanted, next: None }
}

fn pending(n: u8) -> VolumeNode {
    at(n, Route::Unmounted, Some("the disk is away"), true)
}

fn on_request(n: u8) -> VolumeNode {
    at(n, Route::Unmounted, Some("on request"), false)
}

fn record() -> Record {
    let (id, name, disks) = ("0123".into(), "vm1".into(), vec!["/disk".into()]);
    Record { id, name, disks, wanted: true, version: 1, deleted: false }
}

#[test]
fn a_node_that_should_have_mounted_a_volume_and_has_not_makes_it_degraded() {
    let direct = at(1, Route::Direct, None, true);
    let judged = |other: VolumeNode| health(Route::Direct, Metadata::Ok, &[direct.clone(), other]);
    assert_eq!(judged(pending(2)), Health::Degraded);
    assert_eq!(judged(on_request(2)), Health::Healthy);
    assert_eq!(judged(at(2, Route::BlockRedirected, Some("io-failed"), true)), Health::Degraded);
}

#[test]
fn an_unmount_on_request_is_no_problem_and_a_failed_mount_is_one_with_its_reason() {
    let status = |nodes| absent(node(1), &record(), nodes, None);
    assert_eq!(problems(&[], &[status(vec![on_request(1), on_request(2)])]), []);
    let found = problems(&[], &[status(vec![on_request(1), pending(2)])]);
    let said: Vec<&str> = found.iter().map(|p| p.message.as_str()).collect();
    assert_eq!(said, ["vm1: node-2 has not mounted it: the disk is away"]);
}

/// Nothing is redirected, and the next failure would be.
#[test]
fn a_path_that_is_lost_beside_others_is_a_problem_that_names_it() {
    let path = |name: &str, ok, detail: &str| PathInfo { name: name.into(), ok, detail: detail.into() };
    let paths = vec![path("10.0.0.1:3260", false, "failed: silent"), path("10.0.1.1:3260", true, "ready")];
    let status =
        |paths| absent(node(1), &record(), vec![VolumeNode { paths, ..at(2, Route::Direct, None, true) }], None);
    let found = problems(&[], &[status(paths.clone())]);
    let said: Vec<&str> = found.iter().map(|p| p.message.as_str()).collect();
    assert_eq!(said, ["vm1: node-2 has lost 1 of its 2 paths: 10.0.0.1:3260 (failed: silent)"]);
    assert_eq!(problems(&[], &[status(paths[1..].to_vec())]), []);
}

/// Nobody coordinates, and the nodes have nothing to do with it.
#[test]
fn an_array_that_no_path_leads_to_is_named_and_not_the_nodes() {
    let path = |ok| PathInfo { name: "10.0.0.1:3260".into(), ok, detail: "failed: silent".into() };
    let found_on = |disk: &str, paths| {
        let waits = VolumeNode { paths, ..at(2, Route::Paused, Some("no-coordinator"), true) };
        let record = Record { disks: vec![disk.into()], ..record() };
        problems(&[], &[absent(node(1), &record, vec![waits], None)]).remove(0)
    };
    let found = |paths| found_on("iscsi://10.0.0.1/iqn.t/0", paths);
    let dead = found(vec![path(false)]);
    let said = "vm1: the data of node-2 is paused (no-coordinator); no path works: 10.0.0.1:3260 (failed: silent)";
    assert_eq!(dead.message, said);
    assert!(dead.next.starts_with("Look at the disk or array") && !dead.next.contains("nodes are up"), "{}", dead.next);
    for paths in [vec![path(false), path(true)], Vec::new()] {
        assert!(found(paths).next.contains("see which nodes are up"));
    }
    assert!(found_on("/disk", vec![path(false)]).next.contains("see which nodes are up"), "a file tells no more");
}

#[test]
fn a_secret_that_somebody_wrote_into_a_record_is_not_shown() {
    let disks = vec!["iscsi://u%secret-of-12@h/iqn.t/0".to_owned()];
    let shown = absent(node(1), &Record { disks, ..record() }, vec![pending(1)], None);
    assert_eq!(shown.disks, ["iscsi://u%***@h:3260/iqn.t/0"]);
    assert_eq!((shown.disk_kind, shown.disk_note.as_deref()), (DiskKind::Iscsi, Some("untested on hardware")));
}

#[test]
fn a_volume_that_is_not_mounted_here_shows_what_other_nodes_know_and_invents_nothing() {
    let known = Known {
        epoch: 7,
        coordinator: Some(node(2)),
        metadata: Metadata::Ok,
        size_bytes: 5,
        used_bytes: Some(3),
        timing: "fast".into(),
    };
    let shown = absent(node(1), &record(), vec![on_request(1)], Some(known));
    assert_eq!((shown.health, shown.epoch, shown.size_bytes, shown.used_bytes), (Health::Unmounted, 7, 5, 3));
    assert_eq!((shown.coordinator, shown.metadata), (Some(node(2)), Metadata::Ok));
    let unknown = absent(node(1), &record(), vec![pending(1)], None);
    assert_eq!((unknown.health, unknown.epoch, unknown.metadata), (Health::Pending, 0, Metadata::Unknown));
}

#[test]
fn advice_fits_the_reason_and_a_message_names_its_volume_once() {
    let status = |n| VolumeStatus {
        mount: Some("/m".into()),
        metadata: Metadata::Ok,
        ..absent(node(1), &record(), vec![n], None)
    };
    for (reason, advised) in [
        ("administrator", "volume redirect vm1 off --node 2"),
        ("io-failed", "path"),
        ("device-on-coordinator", "Nothing"),
    ] {
        let found = problems(&[], &[status(at(2, Route::BlockRedirected, Some(reason), true))]);
        assert!(found[0].next.contains(advised), "{found:?}");
        assert_eq!(found[0].message, format!("vm1: the data of node-2 is block-redirected ({reason})"));
    }
}
