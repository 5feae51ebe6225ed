//! Eviction of a node that is well: its incarnation ends, the node begins the next one by itself.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use crate::fixture::{Cluster, can_mount, until, within};

fn file(cluster: &Cluster, n: usize, name: &str) -> PathBuf {
    cluster.mount(n, "v").join(name)
}

fn incarnation(cluster: &Cluster, n: usize) -> u64 {
    cluster.volume(n, "v").and_then(|v| v["incarnation"].as_u64()).unwrap_or(0)
}

/// A node writes and the other one reads it.
fn exchange(cluster: &Cluster, from: usize, to: usize, text: &'static str) {
    let (here, there) = (file(cluster, from, text), file(cluster, to, text));
    within("a write", move || fs::write(here, text)).expect("writes");
    assert_eq!(within("a read", move || fs::read_to_string(there)).expect("reads"), text);
}

#[test]
fn an_evicted_node_begins_a_new_incarnation_and_only_files_that_lost_something_fail() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with_volume(2);
    exchange(&cluster, 1, 2, "before");
    let (plain, dirty) = (file(&cluster, 2, "before"), file(&cluster, 2, "dirty"));
    let plain = Arc::new(within("opening", move || File::open(plain)).expect("opens"));
    // Grown and not fsynced: what it wrote lives under an exclusive right, and is lost with it.
    let dirty = Arc::new(within("writing", move || {
        let mut file = File::create(dirty).expect("creates");
        file.write_all(&[7; 10_000]).expect("writes");
        file
    }));
    let first = incarnation(&cluster, 2);
    cluster.ask(1, &["debug", "evict", "v", "--node", "2"]).expect(0, &["node-2"]);
    cluster.until_event(1, "client-evicted", "node 2");
    cluster.until_event(2, "self-evicted", "");
    cluster.until_event(2, "self-reborn", "node 2");
    until("the next incarnation", || incarnation(&cluster, 2) > first);
    exchange(&cluster, 2, 1, "after");
    exchange(&cluster, 1, 2, "and the other way");
    cluster.until_route(2, "direct");
    let handle = Arc::clone(&dirty);
    let failed = within("a write to what was lost", move || (&*handle).write_all(b"more")).expect_err("must fail");
    assert_eq!(failed.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    let handle = Arc::clone(&plain);
    let read = within("a read of what was not", move || std::io::read_to_string(&*handle));
    assert_eq!(read.expect("reads"), "before");
    until("everything in order", || cluster.ask(2, &["status", "--check"]).code == 0);
    cluster.checks_clean(2);
}

#[test]
fn a_coordinator_whose_own_client_is_evicted_hands_over_or_comes_back() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with_volume(2);
    exchange(&cluster, 1, 2, "before");
    let first = incarnation(&cluster, 1);
    cluster.ask(1, &["debug", "evict", "v", "--node", "1"]).expect(0, &["node-1"]);
    cluster.until_event(1, "self-reborn", "node 1");
    until("the next incarnation", || incarnation(&cluster, 1) > first);
    exchange(&cluster, 2, 1, "after");
    exchange(&cluster, 1, 2, "and the other way");
    until("everything in order", || cluster.ask(1, &["status", "--check"]).code == 0);
    cluster.checks_clean(1);
}

#[test]
fn only_the_coordinator_of_a_debug_configuration_evicts() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with_volume(2);
    cluster.ask(2, &["debug", "evict", "v", "--node", "1"]).expect(1, &["not its coordinator"]);
    cluster.ask(1, &["debug", "evict", "v", "--node", "7"]).expect(1, &["no session"]);
    cluster.ask(1, &["debug", "evict", "none", "--node", "1"]).expect(3, &["none"]);
}
