//! Nodes that are drained, put back into service, and removed.

use std::fs;
use std::io::Write;

use crate::fixture::{Cluster, can_mount, path, run, until, within};

fn write_through(cluster: &Cluster, n: usize, name: &str) {
    let file = cluster.mount(n, "v").join(name);
    let text = name.to_owned();
    within("a write", move || fs::write(file, text)).unwrap_or_else(|e| panic!("{name} through node {n}: {e}"));
}

/// What a node's status says of a node: its state in `node list`.
fn is_drained(cluster: &Cluster, asked: usize, n: usize) -> bool {
    let nodes = cluster.ask(asked, &["--json", "node", "list"]).json()["nodes"].clone();
    nodes[n - 1]["drained"].as_bool().unwrap_or_else(|| panic!("node {n}: {nodes}"))
}

#[test]
fn a_drained_node_coordinates_nothing_and_takes_nothing_until_it_is_resumed_and_its_files_go_on() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::with_volume(3);
    cluster.create_volume("w");
    let file = cluster.mount(1, "v").join("open");
    let mut open = within("opening", move || fs::File::create(file)).expect("opens");
    // Asked of another node than the one that is drained.
    cluster.ask(2, &["node", "drain", "1"]).expect(0, &["node-1 is drained", "coordinates nothing"]);
    assert!(is_drained(&cluster, 1, 1) && is_drained(&cluster, 3, 1) && !is_drained(&cluster, 1, 3));
    let coordinator = |volume: &str| cluster.volume(2, volume).and_then(|v| v["coordinator"].as_u64()).unwrap_or(0);
    let (v, w) = (coordinator("v"), coordinator("w"));
    assert!(v > 1 && w > 1 && v != w, "moved, and to different nodes: {v} and {w}");
    cluster.until_event(1, "node-drained", "");
    cluster.ask(1, &["status"]).expect(0, &["this node, drained"]);
    until("all is well", || cluster.ask(3, &["status", "--check"]).code == 0);
    // Programs there go on.
    within("a write", move || open.write_all(b"still").and_then(|()| open.sync_all())).expect("the file goes on");
    // It takes no office: not when it is asked to, nor when it is the last that could.
    cluster.ask(2, &["volume", "move", "v", "--to", "1"]).expect(4, &["not moved to node-1", "it is drained"]);
    // And it mounts nothing new, also after a restart.
    cluster.ask(1, &["volume", "create", "x", "--disk", "/x"]).expect(4, &["node-1 is drained"]);
    let third = cluster.disk("third.img", 2 << 30);
    cluster.ask(2, &["volume", "create", "third", "--disk", path(&third), "--timing", "fast"]).expect(0, &[]);
    until("word of the new volume", || cluster.volume(1, "third").is_some());
    assert_eq!(cluster.volume(1, "third").expect("known")["health"], "unmounted");
    cluster.ask(1, &["volume", "mount", "third"]).expect(4, &["node-1 is drained", "node resume 1"]);
    assert_eq!(cluster.stop(1), 0);
    cluster.start(1);
    until("the mount of before", || cluster.is_mounted(1));
    assert!(is_drained(&cluster, 1, 1) && cluster.volume(1, "third").expect("known")["mount"].is_null());
    for n in [2, 3] {
        cluster.kill(n);
    }
    cluster.until_event(1, "metadata-waiting", "");
    let told = cluster.ask(1, &["status"]);
    told.expect(0, &["v: metadata waiting", "node-1 is drained and takes no office", "shorefast node resume 1"]);
    assert_eq!(cluster.events(1).iter().filter(|(code, _)| code == "office-taken").count(), 0);
    cluster.ask(1, &["node", "resume"]).expect(0, &["This node is in service"]);
    until("the office", || cluster.coordinator(1) == 1);
    until("the volume that was held back", || cluster.volume(1, "third").is_some_and(|v| v["mount"].is_string()));
    cluster.until_event(1, "node-resumed", "");
    write_through(&cluster, 1, "after");
    cluster.checks_clean(1);
}

#[test]
fn a_node_whose_office_nobody_else_can_have_is_not_drained_and_goes_on() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with_volume(1);
    let ended = cluster.ask(1, &["node", "drain"]);
    ended.expect(4, &["node-1 was not drained", "coordinator of v cannot move", "goes on as before"]);
    assert!(!is_drained(&cluster, 1, 1));
    assert_eq!(cluster.coordinator(1), 1);
    cluster.create_volume("w");
    write_through(&cluster, 1, "on");
    cluster.ask(1, &["node", "drain", "9"]).expect(3, &["There is no node-9"]);
}

#[test]
fn a_removed_node_is_refused_by_name_and_what_it_held_is_free() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::with_volume(3);
    cluster.ask(1, &["node", "remove", "3"]).expect(4, &["node-3 is up", "node drain 3"]);
    cluster.ask(1, &["node", "remove", "1"]).expect(4, &["node-1 cannot remove itself"]);
    write_through(&cluster, 3, "of-three");
    cluster.kill(3);
    // Nobody may be left with the older list.
    assert_eq!(cluster.stop(2), 0);
    until("node 2 is not heard", || cluster.ask(1, &["node", "remove", "3"]).err.contains("node-2 cannot be reached"));
    cluster.start(2);
    until("node 3 is removed", || cluster.ask(1, &["node", "remove", "3"]).code == 0);
    for n in [1, 2] {
        cluster.until_event(n, "node-removed", "node-3");
        let status = cluster.ask(n, &["--json", "status"]).json();
        assert_eq!(
            (&status["list_version"], status["nodes"].as_array().map(Vec::len)),
            (&2.into(), Some(2)),
            "{status}"
        );
        assert!(fs::read_to_string(cluster.bundle(n)).expect("a bundle").contains("list_version = 2"));
    }
    cluster.until_event(1, "client-evicted", "node 3");
    cluster.ask(1, &["node", "remove", "3"]).expect(3, &["There is no node-3"]);
    cluster.start(3);
    cluster.until_event(1, "peer-refused", "node-3 is not on version 2 of the list of nodes");
    until("node 3 is told", || cluster.ask(3, &["status"]).out.contains("it was removed"));
    cluster.stop(3);
    // It holds over restarts, and those that stay go on with one another.
    assert_eq!(cluster.stop(1), 0);
    cluster.start(1);
    until("both", || cluster.ask(1, &["status", "--check"]).code == 0);
    write_through(&cluster, 1, "after");
    cluster.checks_clean(2);
}

#[test]
fn bundles_are_changed_without_a_daemon_all_or_none() {
    let cluster = Cluster::new(3);
    let (one, two, three) = (cluster.bundle(1), cluster.bundle(2), cluster.bundle(3));
    let before = fs::read_to_string(&one).expect("a bundle");
    run(&["node", "remove", "3", "--bundle", path(&one), "--bundle", path(&three)]).expect(4, &["node-3 itself"]);
    assert_eq!(fs::read_to_string(&one).expect("a bundle"), before, "nothing was written");
    let ended = run(&["node", "remove", "3", "--bundle", path(&one), "--bundle", path(&two)]);
    ended.expect(0, &["version 2 of the list, without node-3"]);
    let after = fs::read_to_string(&one).expect("a bundle");
    assert!(
        after.contains("list_version = 2") && after.contains("PRIVATE KEY") && !after.contains("id = 3"),
        "{after}"
    );
    run(&["node", "remove", "3", "--bundle", path(&one)]).expect(3, &["no node-3 in version 2"]);
}
