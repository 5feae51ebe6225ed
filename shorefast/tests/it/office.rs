//! The coordinator's office: moved, lost with its holder's life, given back; and the volumes' coming and going.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::fixture::{Cluster, PATIENCE, PROGRAM, background, can_mount, mounts_below, until, within};

/// Writes a file and makes it stable.
fn write(cluster: &Cluster, n: usize, name: &str) {
    let path = cluster.mount(n, "v").join(name);
    let text = name.to_owned();
    let write = move || {
        let file = File::create(path)?;
        (&file).write_all(text.as_bytes())?;
        file.sync_all()
    };
    within("a write", write).unwrap_or_else(|e| panic!("{name} through node {n}: {e}"));
}

/// Reads files through a node; each holds its own name.
fn read(cluster: &Cluster, n: usize, names: &[&str]) {
    for name in names {
        let path = cluster.mount(n, "v").join(name);
        let found = within("a read", move || fs::read_to_string(path)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(found, *name, "through node {n}");
    }
}

#[test]
fn the_office_moves_and_survives_the_killing_of_its_holder_without_a_failed_call_elsewhere() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::with_volume(3);
    write(&cluster, 1, "first");
    // Asked on a node that neither holds nor gets the office.
    cluster.ask(2, &["volume", "move", "v", "--to", "node-3"]).expect(0, &[]);
    for n in 1..=3 {
        until("the new coordinator", || cluster.coordinator(n) == 3);
    }
    write(&cluster, 1, "moved");
    write(&cluster, 3, "at-home");
    cluster.ask(1, &["volume", "move", "v", "--to", "9"]).expect(3, &["node-9"]);
    let before = cluster.volume(1, "v").expect("it runs")["epoch"].as_u64();
    // A program that works all the time, on a node that lives on.
    let (stop, told) = mpsc::channel::<()>();
    let dir = cluster.mount(1, "v");
    let worker = background(move || {
        let mut done = 0;
        while matches!(told.try_recv(), Err(mpsc::TryRecvError::Empty)) {
            let path = dir.join(format!("during-{}", done % 10));
            fs::write(&path, done.to_string()).unwrap_or_else(|e| panic!("operation {done}: {e}"));
            assert_eq!(fs::read_to_string(&path).unwrap_or_else(|e| panic!("operation {done}: {e}")), done.to_string());
            done += 1;
        }
        done
    });
    cluster.kill(3);
    until("another coordinator", || [1, 2].contains(&cluster.coordinator(1)));
    write(&cluster, 2, "after-the-kill");
    drop(stop);
    assert!(worker.ended("the program that works all the time") > 0);
    read(&cluster, 2, &["first", "moved", "at-home", "after-the-kill"]);
    assert!(cluster.volume(1, "v").expect("it runs")["epoch"].as_u64() > before, "the epoch did not grow");
    cluster.start(3);
    until("node 3 back", || cluster.is_mounted(3) && cluster.route(3).0 == "direct");
    cluster.until_event(3, "stale-mount-cleaned", "");
    read(&cluster, 3, &["first", "moved", "at-home", "after-the-kill"]);
    write(&cluster, 3, "back");
    read(&cluster, 1, &["back"]);
    cluster.checks_clean(3);
}

#[test]
fn a_volume_is_unmounted_when_nothing_is_open_and_mounted_again_and_the_others_go_on() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with_volume(2);
    write(&cluster, 1, "file");
    let path = cluster.mount(1, "v").join("file");
    let open = within("opening", move || File::open(path)).expect("opens");
    cluster.ask(1, &["volume", "unmount", "v"]).expect(4, &["open"]);
    read(&cluster, 1, &["file"]);
    within("closing", move || drop(open));
    // The kernel tells of that close some time after; node 1 is the coordinator: the office goes to node 2 first.
    cluster.ask(1, &["volume", "unmount", "v"]).expect(0, &[]);
    assert_eq!(mounts_below(&cluster.node_dir(1)), Vec::<std::path::PathBuf>::new());
    assert_eq!(cluster.volume(1, "v").expect("it is known")["health"], "unmounted");
    until("the office on node 2", || cluster.coordinator(2) == 2);
    write(&cluster, 2, "meanwhile");
    cluster.ask(1, &["volume", "mount", "v"]).expect(0, &[]);
    read(&cluster, 1, &["file", "meanwhile"]);
    let path = cluster.mount(1, "v").join("file");
    let open = within("opening", move || File::open(path)).expect("opens");
    let closing = background(move || {
        std::thread::sleep(Duration::from_millis(300));
        drop(open);
    });
    // Whoever is just closing a file is waited for.
    cluster.ask(1, &["volume", "unmount", "v"]).expect(0, &[]);
    closing.ended("closing");
    cluster.ask(1, &["volume", "mount", "v"]).expect(0, &[]);
    let path = cluster.mount(1, "v").join("file");
    let open = within("opening", move || File::open(path)).expect("opens");
    cluster.ask(1, &["volume", "unmount", "v", "--force"]).expect(0, &[]);
    assert_eq!(mounts_below(&cluster.node_dir(1)), Vec::<std::path::PathBuf>::new());
    within("closing", move || drop(open));
    read(&cluster, 2, &["file", "meanwhile"]);
}

#[test]
fn events_come_to_whoever_follows_them_as_they_happen() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with_volume(1);
    let mut follower = Command::new(PROGRAM)
        .args(["--socket", &cluster.socket(1), "--json", "events", "--follow"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let out = follower.stdout.take().expect("it is piped");
    let (tx, lines) = mpsc::channel();
    let reader =
        std::thread::spawn(move || BufReader::new(out).lines().map_while(Result::ok).try_for_each(|l| tx.send(l)));
    let next = |code: &str| loop {
        let line = lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{code} did not come"));
        let event: serde_json::Value = serde_json::from_str(&line).expect("an object a line");
        if event["event"]["code"] == code {
            return;
        }
    };
    // What was remembered comes first, then what happens.
    next("volume-mounted");
    cluster.ask(1, &["debug", "disk", "delay", "1"]).expect(0, &[]);
    next("disk-fault-set");
    cluster.ask(1, &["debug", "disk", "heal"]).expect(0, &[]);
    next("disk-fault-healed");
    follower.kill().expect("it is our child");
    follower.wait().expect("it is our child");
    drop(lines);
    reader.join().expect("it reads to the end").ok();
}

/// How often a node had events of a code.
fn count(cluster: &Cluster, n: usize, code: &str) -> usize {
    cluster.events(n).into_iter().filter(|(c, _)| c == code).count()
}

/// What a node says of the office, and of what takes it away.
fn offices(cluster: &Cluster, n: usize) -> Vec<(String, String)> {
    let of_it = |code: &str| code.starts_with("office-") || code.starts_with("path-") || code.starts_with("metadata-");
    cluster.events(n).into_iter().filter(|(code, _)| of_it(code) || code == "takeover-started").collect()
}

/// The office was resigned to a node that may not hold it yet (it had not been seen for long enough), came back, and was
/// offered again: three seconds without a coordinator.
#[test]
fn a_move_straight_after_create_waits_until_the_target_may_hold_office_and_makes_no_detour() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::new(3);
    for n in 1..=3 {
        cluster.start(n);
    }
    cluster.create_volume("v");
    cluster.ask(1, &["volume", "move", "v", "--to", "2"]).expect(0, &["node-2 is coordinator of v"]);
    until("the new coordinator", || cluster.coordinator(1) == 2);
    assert_eq!((count(&cluster, 1, "office-taken"), count(&cluster, 1, "office-resigned")), (1, 1));
    assert_eq!(count(&cluster, 2, "office-taken"), 1);
}

/// "Moving the coordinator of v to node-3." and then "node-2 is coordinator of v": the node that was asked had not heard yet.
#[test]
fn moves_that_follow_one_another_end_at_the_node_that_was_asked_for_and_say_so() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with_volume(3);
    for (asked, to) in [(1, 2), (1, 3), (2, 1), (3, 2), (1, 3), (3, 1), (2, 3), (1, 2)] {
        let ended = cluster.ask(asked, &["volume", "move", "v", "--to", &to.to_string()]);
        ended.expect(0, &[&format!("node-{to} is coordinator of v")]);
        let seen = (cluster.coordinator(asked), cluster.coordinator(to));
        assert_eq!(
            seen,
            (to as u64, to as u64),
            "as nodes {asked} and {to} see it: {:#?}",
            [1, 2, 3].map(|n| offices(&cluster, n))
        );
    }
}

#[test]
fn a_move_to_a_node_that_does_not_know_the_volume_is_refused_at_once() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::new(2);
    cluster.start(1);
    cluster.start(2);
    fs::remove_dir(cluster.node_dir(2).join("state/volumes")).expect("nothing is in it yet");
    cluster.create_volume("v");
    // Not 6 or 1, which end a wait.
    cluster.ask(1, &["volume", "move", "v", "--to", "2"]).expect(4, &["it does not know the volume"]);
}

#[test]
fn a_move_to_a_node_that_may_never_hold_office_is_refused_and_the_office_stays() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with_volume(3);
    until("the unmounting", || cluster.ask(2, &["volume", "unmount", "v"]).code == 0);
    // Asked at the coordinator, and through a node that is not.
    for n in [1, 3] {
        let ended = cluster.ask(n, &["volume", "move", "v", "--to", "2"]);
        ended.expect(4, &["not moved to node-2", "unmounted there, on request", "stays where it is"]);
        assert_eq!(ended.err.matches("was not moved").count(), 1, "{ended:?}");
    }
    assert_eq!((cluster.coordinator(1), count(&cluster, 1, "office-resigned")), (1, 0));
}
