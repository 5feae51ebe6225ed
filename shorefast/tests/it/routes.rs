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
    cluster.ask(1, &["volume", "redirect", "v", "on", "--node", "2"]).expect(0, &[]);
    cluster.until_route(2, "block-redirected");
    assert_eq!(cluster.route(2).1, "administrator");
    cluster.ask(1, &["status", "--check"]).expect(5, &["PROBLEM"]);
    cluster.ask(3, &["status"]).expect(0, &["block-redirected", "administrator"]);
    let before = redirected_bytes(&cluster, 2);
    exchange(&cluster, 2, 3, "through the coordinator");
    exchange(&cluster, 3, 2, "and back through it");
    assert!(redirected_bytes(&cluster, 2) > before, "nothing was redirected");
    cluster.ask(2, &["volume", "redirect", "v", "off"]).expect(0, &[]);
    cluster.until_route(2, "direct");
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
}
