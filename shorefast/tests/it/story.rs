//! What a person finds: the log of a takeover, and events that are followed over restarts of the daemon.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use serde_json::Value;

use crate::fixture::{Cluster, PATIENCE, PROGRAM, can_mount, until};

/// A command that goes on until it is ended; ended with this value, also when a test fails.
struct Follower(Child);

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Most that somebody wants to read of one takeover.
const LINES: usize = 10;

/// The lines of a node's log that are new since `before` bytes.
fn new_lines(cluster: &Cluster, n: usize, before: usize) -> Vec<String> {
    cluster.log(n)[before..].lines().map(str::to_owned).collect()
}

/// Fails unless those things are told in that order, each on a line of its own.
fn in_order(lines: &[String], told: &[&[&str]]) {
    let mut rest = lines.iter();
    for words in told {
        let found = rest.any(|line| words.iter().all(|word| line.contains(word)));
        assert!(found, "{words:?} is not told in its place:\n{}", lines.join("\n"));
    }
}

/// Waits until one of two nodes has taken over; which.
fn heir(cluster: &Cluster, nodes: [usize; 2]) -> usize {
    let mut heir = 0;
    until("the end of grace", || {
        heir =
            nodes.into_iter().find(|n| cluster.events(*n).iter().any(|(code, _)| code == "grace-ended")).unwrap_or(0);
        heir != 0
    });
    heir
}

#[test]
fn the_log_of_the_node_that_takes_over_tells_the_story_in_ten_lines() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::new(3);
    for n in 1..=3 {
        cluster.start(n);
    }
    // What a busy machine adds (a path that times out) is another story.
    cluster.create_timed("v", "default");
    for n in 1..=3 {
        until("the mount", || cluster.is_mounted(n));
    }
    // The nodes have seen one another for long enough to act at once.
    std::thread::sleep(std::time::Duration::from_secs(4));
    let before = [2, 3].map(|n| cluster.log(n).len());
    cluster.kill(1);
    let heir = heir(&cluster, [2, 3]);
    let lines = new_lines(&cluster, heir, before[heir - 2]);
    let until_grace = lines.iter().position(|l| l.contains("grace-ended")).expect("it has ended");
    let story = &lines[..=until_grace];
    assert!(story.len() <= LINES, "{} lines:\n{}", story.len(), story.join("\n"));
    let me = format!("node=node-{heir}");
    in_order(
        story,
        &[
            &["takeover-started", "the coordinator of epoch 1, node 1, is cut off from the disk: its ", &me],
            &["client-fenced", "session 1 of node 1 can write no more: its process is gone", &me],
            &["the session of node 1 incarnation 1 is being ended: "],
            &["office-taken", "epoch 2", "node 1, was cut off", &me],
            &["client-evicted", "session 1 of node 1 has ended", &me],
            &["grace-ended", &me],
        ],
    );
    assert!(story.iter().any(|l| l.contains("peer-down") && l.contains("node 1")), "{}", story.join("\n"));
    // Each with its time, to the microsecond; all of one moment.
    let mut times: Vec<&str> = story.iter().map(|l| l.split(' ').next().unwrap_or_default()).collect();
    assert!(times.iter().all(|t| t.len() == "2026-01-01T00:00:00.000000Z".len() && t.ends_with('Z')), "{times:?}");
    times.dedup();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn a_coordinator_without_a_path_is_told_of_with_that_reason() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with_volume(3);
    cluster.ask(1, &["debug", "disk", "fail"]).expect(0, &[]);
    let heir = heir(&cluster, [2, 3]);
    cluster.until_event(heir, "takeover-started", "node 1, is cut off from the disk: it has no path to the disk");
    cluster.ask(1, &["debug", "disk", "heal"]).expect(0, &[]);
}

#[test]
fn who_follows_events_sees_those_of_the_next_daemon_too_none_twice_and_none_left_out() {
    let mut cluster = Cluster::new(2);
    cluster.start(1);
    let follower = Command::new(PROGRAM)
        .args(["--socket", &cluster.socket(1), "--json", "events", "--follow"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program runs");
    let mut follower = Follower(follower);
    let out = follower.0.stdout.take().expect("it is piped");
    let (tx, lines) = mpsc::channel();
    let reader =
        std::thread::spawn(move || BufReader::new(out).lines().map_while(Result::ok).try_for_each(|l| tx.send(l)));
    let mut seen: Vec<(u64, String)> = Vec::new();
    let mut until_code = |code: &str| loop {
        let line = lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{code} did not come"));
        let event: Value = serde_json::from_str(&line).expect("an object a line");
        let (seq, found) = (event["event"]["seq"].as_u64(), event["event"]["code"].as_str());
        seen.push((seq.expect("a number"), found.expect("a code").to_owned()));
        if seen.last().is_some_and(|(_, last)| last == code) {
            return;
        }
    };
    until_code("daemon-started");
    cluster.kill(1);
    cluster.start(1);
    until_code("daemon-started");
    cluster.start(2);
    until_code("peer-up");
    drop(follower);
    drop(lines);
    reader.join().expect("it reads to the end").ok();
    // Each life's numbers from 1 on, without a gap.
    let mut expected = 0;
    for (seq, code) in &seen {
        expected = if *seq == 1 { 1 } else { expected + 1 };
        assert_eq!(*seq, expected, "{code}: {seen:?}");
    }
    assert_eq!(seen.iter().filter(|(seq, _)| *seq == 1).count(), 2, "{seen:?}");
}

#[test]
fn events_are_chosen_by_gravity_and_volume() {
    let mut cluster = Cluster::new(1);
    cluster.start(1);
    cluster.ask(1, &["debug", "disk", "delay", "1"]).expect(0, &[]);
    let said = |args: &[&str]| cluster.ask(1, &[&["events"], args].concat()).out;
    assert!(said(&[]).contains("daemon-started") && said(&[]).contains("disk-fault-set"));
    let warnings = said(&["--severity", "warning"]);
    assert!(warnings.contains("disk-fault-set") && !warnings.contains("daemon-started"), "{warnings}");
    assert_eq!(said(&["--volume", "v"]), "");
    cluster.ask(1, &["events", "--severity", "dreadful"]).expect(2, &["dreadful"]);
}
