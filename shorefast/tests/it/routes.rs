//! Routes: data goes on whichever way it must, every change has a reason, and `status` says what is wrong.

use std::fs;
use std::path::PathBuf;

use crate::fixture::{Cluster, can_mount, until, within};

/// Writes through one node and reads through another.
fn exchange(cluster: &Cluster, from: usize, to: usize, text: &'static str) {
    let at = |n: usize| -> PathBuf { cluster.mount(n, "v").join("note") };
    let (here, there) = (at(from), at(to));
    within("a write", move || fs::write(here, text)).expect("writes");
    assert_eq!(within("a read", move || fs::read_to_string(there)).expect("reads"), text);
}

fn redirected_bytes(cluster: &Cluster, n: usize) -> u64 {
    let io = cluster.volume(n, "v").expect("it runs")["io"].clone();
    ["block_redirected", "file_redirected"]
        .iter()
        .flat_map(|route| ["read_bytes", "written_bytes"].map(|kind| io[route][kind].as_u64().expect("a number")))
        .sum()
}

#[test]
fn an_administrator_redirects_the_data_of_any_node_and_takes_that_back() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with_volume(3);
    exchange(&cluster, 2, 3, "all direct");
    until("everything in order", || cluster.ask(1, &["status", "--check"]).code == 0);
    // Asked on one node for another.
    let ended = cluster.ask(1, &["volume", "redirect", "v", "on", "--node", "2"]);
    ended.expect(0, &["node-2", "through the coordinator", "redirect v off --node 2"]);
    cluster.until_route(2, "block-redirected");
    assert_eq!(cluster.route(2).1, "administrator");
    cluster.ask(1, &["status", "--check"]).expect(5, &["PROBLEM: v: the data of node-2 is block-redirected"]);
    cluster.ask(1, &["status"]).expect(0, &["! v: the data of node-2", "(administrator) → Somebody asked for it"]);
    cluster.ask(3, &["status"]).expect(0, &["block-redirected", "administrator"]);
    let before = redirected_bytes(&cluster, 2);
    exchange(&cluster, 2, 3, "through the coordinator");
    exchange(&cluster, 3, 2, "and back through it");
    assert!(redirected_bytes(&cluster, 2) > before, "nothing was redirected");
    cluster.ask(2, &["volume", "redirect", "v", "off"]).expect(0, &["of node-2 on v goes straight to the disk again"]);
    assert_eq!(cluster.route(2).0, "direct", "the command ends when it is done");
    cluster.ask(1, &["volume", "redirect", "v", "off", "--node", "2"]).expect(0, &["Nobody had redirected", "node-2"]);
    cluster.ask(1, &["volume", "redirect", "v", "on", "--node", "9"]).expect(3, &["There is no node-9"]);
    // Who would redirect it to itself?
    for n in [1, 2] {
        cluster
            .ask(n, &["volume", "redirect", "v", "on", "--node", "1"])
            .expect(1, &["node-1 is the coordinator of v"]);
    }
    exchange(&cluster, 2, 1, "direct again");
    until("everything in order", || cluster.ask(1, &["status", "--check"]).code == 0);
    cluster.until_event(2, "route-changed", "block-redirected: administrator");
    cluster.until_event(2, "route-direct", "direct");
}

#[test]
fn a_node_whose_disk_fails_goes_on_through_the_coordinator_and_every_change_is_an_event_with_its_reason() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with_volume(2);
    for fault in ["fail", "hang"] {
        exchange(&cluster, 2, 1, "before");
        cluster.ask(2, &["debug", "disk", fault]).expect(0, &[fault]);
        exchange(&cluster, 2, 1, "meanwhile");
        exchange(&cluster, 1, 2, "and the other way");
        cluster.until_route(2, "block-redirected");
        cluster.ask(2, &["status", "--check"]).expect(5, &["block-redirected"]);
        cluster.ask(2, &["debug", "disk", "heal"]).expect(0, &["heal"]);
        cluster.until_route(2, "direct");
        exchange(&cluster, 2, 1, "afterwards");
    }
    cluster.until_event(2, "route-changed", "block-redirected");
    cluster.until_event(2, "route-direct", "direct");
    cluster.until_event(1, "path-fenced", "");
    cluster.checks_clean(2);
}

/// What a node shows of the volume's health, and what its status says of a node.
fn seen(cluster: &Cluster, by: usize, of: usize) -> (String, String, String) {
    let v = cluster.volume(by, "v").expect("it is known");
    let node = v["nodes"].as_array().and_then(|l| l.iter().find(|n| n["node"] == of)).cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    (text(&v["health"]), text(&node["route"]), text(&node["reason"]))
}

#[test]
fn right_after_create_every_node_that_can_be_reached_has_mounted_the_volume() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::new(3);
    for n in 1..=3 {
        cluster.start(n);
    }
    let links = || cluster.ask(1, &["--json", "node", "list"]).json()["nodes"].clone();
    until("the links", || links().as_array().is_some_and(|l| l.iter().filter(|n| n["link"] == "up").count() == 2));
    cluster.create_volume("v");
    cluster.ask(1, &["status", "--check"]).expect(0, &["OK"]);
    assert!((1..=3).all(|n| cluster.is_mounted(n)));
}

#[test]
fn an_unmount_on_request_is_no_problem_and_every_node_says_so() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with_volume(2);
    until("everything in order", || cluster.ask(1, &["status", "--check"]).code == 0);
    until("the unmounting", || cluster.ask(2, &["volume", "unmount", "v"]).code == 0);
    cluster.ask(1, &["status", "--check"]).expect(0, &["1 volume not mounted on node-2, on request"]);
    cluster.ask(2, &["status", "--check"]).expect(0, &["OK", "1 volume not mounted here, on request"]);
    assert_eq!(seen(&cluster, 1, 2), ("healthy".into(), "unmounted".into(), "on request".into()));
    assert_eq!(seen(&cluster, 2, 2), ("unmounted".into(), "unmounted".into(), "on request".into()));
    // What node 2 cannot know by itself node 1 tells.
    let (here, there) = (cluster.volume(2, "v").expect("it is known"), cluster.volume(1, "v").expect("it runs"));
    for field in ["size_bytes", "epoch", "coordinator", "metadata", "timing"] {
        assert_eq!(here[field], there[field], "{field}");
    }
}

#[test]
fn a_node_that_cannot_mount_is_a_problem_on_every_node_with_its_reason_told_once_until_it_is_put_right() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::with_volume(2);
    assert_eq!(cluster.stop(2), 0, "{}", cluster.log(2));
    // Something stands where node 2 mounts.
    let place = cluster.mount(2, "v");
    let _ = fs::remove_dir(&place);
    fs::write(&place, "in the way").expect("writes");
    cluster.start(2);
    for n in [1, 2] {
        until("the problem", || {
            let ended = cluster.ask(n, &["status", "--check"]);
            ended.code == 5 && ended.out.contains("node-2 has not mounted it") && ended.out.contains("mnt/v")
        });
    }
    let (health, route, reason) = seen(&cluster, 1, 2);
    assert_eq!((health.as_str(), route.as_str()), ("degraded", "unmounted"));
    cluster.ask(1, &["status"]).expect(0, &["v unmounted", &reason]);
    fs::remove_file(&place).expect("removes");
    cluster.ask(2, &["volume", "mount", "v"]).expect(0, &["mounted on"]);
    until("everything in order", || cluster.ask(1, &["status", "--check"]).code == 0);
    let pending = cluster.events(2).into_iter().filter(|(code, _)| code == "volume-pending").count();
    assert_eq!(pending, 1, "the cause is told once: {:?}", cluster.events(2));
}
