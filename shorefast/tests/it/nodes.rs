//! Daemons: their life, and how they refuse one another.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use crate::fixture::{Cluster, can_mount, make_bundles, mounts_below, run, until};

/// How node 1 sees node 2: its link and the reason.
fn link(cluster: &Cluster) -> (String, String) {
    let nodes = cluster.ask(1, &["--json", "node", "list"]).json();
    let other = nodes["nodes"].as_array().and_then(|l| l.iter().find(|n| n["node"] == 2)).cloned().unwrap_or_default();
    let text = |name: &str| other[name].as_str().unwrap_or_default().to_owned();
    (text("link"), text("reason"))
}

#[test]
fn a_daemon_starts_answers_and_ends_in_order_with_0() {
    let mut cluster = Cluster::new(1);
    cluster.start(1);
    let status = cluster.ask(1, &["--json", "status"]).json();
    assert_eq!((&status["schema"], &status["node"], &status["cluster"]), (&1.into(), &1.into(), &"test".into()));
    cluster.ask(1, &["status", "--check"]).expect(0, &["OK"]);
    cluster.ask(1, &["volume", "info", "none"]).expect(3, &["no volume none"]);
    cluster.ask(1, &["volume", "mount", "none"]).expect(3, &["none"]);
    assert_eq!(cluster.stop(1), 0, "{}", cluster.log(1));
    assert!(!Path::new(&cluster.socket(1)).exists(), "the socket was left behind");
}

/// `timeout` signals the process and then its group: it ended with "Ended by a second signal", and left its mounts behind.
#[test]
fn two_signals_at_once_are_one_wish_and_the_daemon_ends_in_order() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::with_volume(1);
    cluster.signal(1, "INT");
    assert_eq!(cluster.stop(1), 0, "{}", cluster.log(1));
    assert_eq!(mounts_below(&cluster.dir), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_second_daemon_on_the_same_socket_is_refused_with_4() {
    let mut cluster = Cluster::new(1);
    cluster.start(1);
    run(&["daemon", "--config", &cluster.config(1)]).expect(4, &["another daemon answers"]);
    cluster.ask(1, &["status"]).expect(0, &[]);
}

#[test]
fn a_busy_port_is_named_and_exits_4() {
    let cluster = Cluster::new(1);
    let busy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = busy.local_addr().expect("an address").to_string();
    cluster.configure(1, &format!("listen = \"{address}\"\n"));
    run(&["daemon", "--config", &cluster.config(1)]).expect(4, &[&address, "stop it"]);
}

#[test]
fn nodes_of_one_cluster_find_each_other() {
    let mut cluster = Cluster::new(2);
    cluster.start(1);
    cluster.start(2);
    until("the link", || link(&cluster).0 == "up");
    let nodes = cluster.ask(1, &["--json", "node", "list"]).json();
    let round_trips: Vec<bool> =
        nodes["nodes"].as_array().expect("a list").iter().map(|n| n["round_trip_us"].is_u64()).collect();
    assert_eq!(round_trips, [false, true], "to itself there is none, to the other there is: {nodes}");
}

/// Right after a restart one answer said of a node that it is down, refuses connections, and answered within 0.28 ms.
#[test]
fn a_node_that_has_called_and_answers_is_up_before_this_one_has_reached_it() {
    let mut cluster = Cluster::new(2);
    // So that node 1 never reaches it where the bundle says.
    cluster.configure(2, "listen = \"127.0.0.1:0\"\n");
    cluster.start(1);
    until("the refused calls", || link(&cluster).0 == "down");
    cluster.start(2);
    until("the link", || {
        let nodes = cluster.ask(1, &["--json", "node", "list"]).json();
        let found = nodes["nodes"].as_array().and_then(|l| l.iter().find(|n| n["node"] == 2)).cloned();
        let other = found.unwrap_or_default();
        let (up, answers) = (other["link"] == "up", other["round_trip_us"].is_u64());
        assert!(up || !answers, "it answers and is not up: {other}");
        assert!(!up || other["reason"].is_null(), "{other}");
        up && answers
    });
    cluster.ask(1, &["status", "--check"]).expect(0, &["OK"]);
}

#[test]
fn a_node_with_a_foreign_certificate_is_refused_and_the_reason_is_said() {
    let mut cluster = Cluster::new(2);
    let own = fs::read_to_string(cluster.bundle(2)).expect("reads");
    let addresses: Vec<String> = own
        .lines()
        .filter_map(|l| l.strip_prefix("address = "))
        .zip(1..)
        .map(|(a, n)| format!("{n}={}", a.trim_matches('"')))
        .collect();
    let foreign = cluster.dir.join("foreign");
    make_bundles(&addresses, &foreign);
    fs::copy(foreign.join("node-2.bundle"), cluster.bundle(2)).expect("copies");
    cluster.start(1);
    cluster.start(2);
    until("the refusal", || {
        let (link, reason) = link(&cluster);
        assert_ne!(link, "up", "a foreign node was let in");
        link == "refused" && !reason.is_empty()
    });
    cluster.until_event(1, "peer-refused", "was not let in");
}

#[test]
fn a_node_with_the_certificate_of_another_node_is_refused_and_the_reason_is_said() {
    let mut cluster = Cluster::new(3);
    let bundle = |n: usize| -> toml::Table {
        fs::read_to_string(cluster.bundle(n)).expect("reads").parse().expect("a bundle is TOML")
    };
    // Of this cluster, and not its own.
    let (mut wrong, other) = (bundle(2), bundle(3));
    for key in ["certificate", "key"] {
        wrong.insert(key.to_owned(), other[key].clone());
    }
    let wrong = toml::to_string(&wrong).expect("writes TOML");
    fs::write(cluster.bundle(2), wrong).expect("writes");
    cluster.start(1);
    cluster.start(2);
    until("the refusal", || {
        let (link, reason) = link(&cluster);
        assert_ne!(link, "up", "node 2 was let in as node 3");
        link == "refused" && !reason.is_empty()
    });
    cluster.until_event(1, "peer-refused", "was not let in");
}

#[test]
fn lists_of_different_versions_are_refused_and_the_older_node_is_named() {
    let mut cluster = Cluster::new(2);
    let newer = fs::read_to_string(cluster.bundle(1)).expect("reads").replace("list_version = 1", "list_version = 2");
    fs::write(cluster.bundle(1), newer).expect("writes");
    cluster.start(1);
    cluster.start(2);
    until("the refusal", || {
        let (link, reason) = link(&cluster);
        assert_ne!(link, "up", "a node with another list was let in");
        link == "refused" && reason.contains("node-2")
    });
}

#[test]
fn a_disk_may_be_hurt_only_where_the_configuration_allows_it() {
    let mut cluster = Cluster::new(1);
    let config = fs::read_to_string(cluster.config(1)).expect("reads");
    fs::write(cluster.config(1), config.replace("debug = true\nfault_device = true\n", "")).expect("writes");
    cluster.start(1);
    cluster.ask(1, &["debug", "disk", "hang"]).expect(4, &["debug = true"]);
}
