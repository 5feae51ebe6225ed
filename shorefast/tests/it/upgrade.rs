//! A rolling upgrade: nodes of this version and of the one before (`daemon --compat`) in one cluster.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::fixture::{Cluster, PROGRAM, can_mount, until, within};
use crate::restarts::{Appends, restart};

/// The program as the release before speaks.
fn before() -> [String; 4] {
    ["sh".into(), "-c".into(), format!("exec {PROGRAM} \"$@\" --compat"), "sh".into()]
}

fn write_and_read(cluster: &Cluster, writer: usize, reader: usize, name: &str) {
    let (to, from) = (cluster.mount(writer, "v").join(name), cluster.mount(reader, "v").join(name));
    let text = name.to_owned();
    within("a write", move || fs::write(to, text)).unwrap_or_else(|e| panic!("{name} through node {writer}: {e}"));
    let found = within("a read", move || fs::read_to_string(from)).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(found, name, "through node {reader}");
}

fn messages(cluster: &Cluster, asked: usize, n: usize) -> String {
    let nodes = cluster.ask(asked, &["--json", "node", "list"]).json()["nodes"].clone();
    nodes[n - 1]["messages"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_cluster_is_upgraded_node_by_node_and_what_needs_all_waits_until_all_can() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::new(4);
    for n in 1..=4 {
        cluster.start_as(n, &before());
    }
    cluster.create_volume("v");
    for n in 1..=4 {
        until("the mount", || cluster.is_mounted(n));
    }
    // Nodes 1 and 4 are upgraded; the volume is used meanwhile, whoever coordinates.
    for n in [1, 4] {
        assert_eq!(cluster.stop(n), 0);
        write_and_read(&cluster, 2, 3, &format!("while-{n}"));
        cluster.start(n);
        until("the mount", || cluster.is_mounted(n) && cluster.ask(n, &["status", "--check"]).code == 0);
    }
    assert_eq!([(1, 2), (1, 4), (2, 1)].map(|(asked, n)| messages(&cluster, asked, n)), ["2.0", "2.1", "2.0"]);
    for (to, writer, reader) in [(1, 2, 4), (2, 1, 3), (4, 3, 1)] {
        let moved = cluster.ask(3, &["volume", "move", "v", "--to", &to.to_string()]);
        moved.expect(0, &[&format!("node-{to} is coordinator of v")]);
        write_and_read(&cluster, writer, reader, &format!("under-{to}"));
    }
    cluster.kill(4);
    until("another coordinator", || (1..=3).contains(&cluster.coordinator(1)));
    write_and_read(&cluster, 1, 2, "after-the-kill");
    // Between nodes that can, at once; with one that cannot, refused by its name; what all take part in waits for all.
    cluster.ask(1, &["node", "drain", "2"]).expect(4, &["node-2 runs an older version", "Upgrade node-2"]);
    cluster.ask(1, &["node", "remove", "4"]).expect(4, &["node-2 runs an older version", "waits until all can"]);
    for n in [2, 3] {
        assert_eq!(cluster.stop(n), 0);
        cluster.start(n);
        until("the mount", || cluster.is_mounted(n));
    }
    until("all speak the new version", || messages(&cluster, 1, 2) == "2.1" && messages(&cluster, 1, 3) == "2.1");
    until("the office is not node 4's", || (1..=3).contains(&cluster.coordinator(1)));
    until("the list changes", || cluster.ask(1, &["node", "remove", "4"]).code == 0);
    cluster.ask(1, &["node", "drain", "2"]).expect(0, &["node-2 is drained"]);
    cluster.ask(1, &["node", "resume", "2"]).expect(0, &["node-2 is in service"]);
    write_and_read(&cluster, 3, 2, "upgraded");
    cluster.checks_clean(1);
}

/// A program of a node's own that speaks as the release before does, and can be replaced.
fn installed(cluster: &Cluster, n: usize) -> (PathBuf, [String; 4]) {
    let program = cluster.node_dir(n).join("shorefast");
    // By another process: one that a test of this one is just starting would have it open for writing.
    let copied = Command::new("cp").arg(PROGRAM).arg(&program).status().expect("cp runs");
    assert!(copied.success());
    let run = format!("exec {} \"$@\" --compat", program.display());
    (program, ["sh".into(), "-c".into(), run, "sh".into()])
}

/// Puts this version in its place. Its holder, which still runs the one before, hands over what it was called with.
fn replaced(program: &PathBuf) {
    let new = program.with_extension("new");
    let text = format!(
        "#!/bin/sh\nfor word do shift; [ \"$word\" = --compat ] || set -- \"$@\" \"$word\"; done\nexec {PROGRAM} \"$@\"\n"
    );
    fs::write(&new, text).expect("writes");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("may be run");
    fs::rename(&new, program).expect("is there");
}

#[test]
fn programs_go_on_while_node_after_node_gets_a_new_version_under_its_mount() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::new(3);
    let programs: Vec<PathBuf> = (1..=3)
        .map(|n| {
            cluster.configure(n, "holder = true\n");
            let (program, run) = installed(&cluster, n);
            cluster.start_as(n, &run);
            program
        })
        .collect();
    cluster.create_volume("v");
    (1..=3).for_each(|n| until("the mount", || cluster.is_mounted(n)));
    let writers: Vec<Appends> = (1..=3).map(|n| Appends::begin(&cluster.mount(n, "v"), &format!("by-{n}"))).collect();
    // The coordinator is the last one, as who upgrades a cluster would have it, and then it is another.
    for (n, of_all) in [(3, "2.0"), (2, "2.0"), (1, "2.1")] {
        writers.iter().for_each(Appends::goes_on);
        replaced(&programs[n - 1]);
        println!("node {n} has the new version after {} ms", restart(&cluster, n).as_millis());
        cluster.until_event(n, "mount-resumed", "stays open");
        until("what it speaks", || messages(&cluster, 1, 3) == of_all);
        writers.iter().for_each(Appends::goes_on);
    }
    writers.into_iter().for_each(Appends::end);
    for n in 1..=3 {
        assert!(!cluster.events(n).iter().any(|(code, _)| code.contains("evict")), "{:#?}", cluster.events(n));
    }
    cluster.checks_clean(1);
    (1..=3).for_each(|n| assert_eq!(cluster.stop(n), 0));
}
