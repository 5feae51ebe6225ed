//! File locks of real processes on three nodes, and what becomes of them when processes and daemons die.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::fixture::{Cluster, background, can_mount, path, until, within};
use crate::lockers::{AGAIN, DEADLK, IO, Locker};
use crate::shared::{Folder, PAIRS};

impl Folder {
    fn locker(&self, n: usize, name: &str) -> Locker {
        let file = self.path(n).join(name);
        within("opening", move || Locker::new(&file))
    }

    fn file(&self, name: &'static str) {
        self.through(1, move |dir| fs::write(dir.join(name), "x")).expect("writes");
    }
}

fn file(cluster: &Cluster, n: usize) -> PathBuf {
    cluster.mount(n, "v").join("file")
}

fn locker(cluster: &Cluster, n: usize) -> Locker {
    let file = file(cluster, n);
    within("opening", move || Locker::new(&file))
}

/// Three nodes, a file, and a cluster of the test's own: daemons of it die.
fn own_cluster() -> Option<Cluster> {
    if !can_mount() {
        return None;
    }
    let cluster = Cluster::with_volume(3);
    let file = file(&cluster, 1);
    within("a write", move || fs::write(file, vec![7; 10_000])).expect("writes");
    Some(cluster)
}

fn locks(cluster: &Cluster, n: usize) -> u64 {
    cluster.volume(n, "v").and_then(|v| v["locks"].as_u64()).unwrap_or(u64::MAX)
}

#[test]
fn a_lock_of_any_kind_taken_through_one_node_keeps_others_out_on_every_node_until_it_is_given_up() {
    let Some(folder) = Folder::new("kinds") else { return };
    folder.file("file");
    for (a, b) in PAIRS {
        let (mut one, mut two) = (folder.locker(a, "file"), folder.locker(b, "file"));
        for (set, wait) in [("set", "wait"), ("ofd", "ofdwait")] {
            one.does(&format!("{set} w 10 10"));
            assert_eq!(two.ask(&format!("{set} r 19 1")), AGAIN);
            two.does(&format!("{set} w 20 5"));
            two.does(&format!("{set} r 0 10"));
            one.does(&format!("{set} r 0 10"));
            two.begin(&format!("{wait} w 15 10"));
            assert!(two.is_waiting());
            one.does(&format!("{set} u 0 0"));
            assert_eq!(two.answer("the wait"), "ok");
            assert_eq!(one.ask(&format!("{set} r 15 1")), AGAIN);
            two.does(&format!("{set} u 0 0"));
        }
        one.does("flock 5");
        two.does("flock 5");
        assert_eq!(two.ask("flock 6"), AGAIN);
        two.does("set w 0 0");
        two.does("set u 0 0");
        two.does("flock 8");
        one.does("flock 6");
        two.begin("flock 1");
        assert!(two.is_waiting());
        one.does("flock 8");
        assert_eq!(two.answer("flock"), "ok");
    }
}

#[test]
fn getlk_tells_who_is_in_the_way_and_the_process_only_on_its_own_node() {
    let Some(folder) = Folder::new("getlk") else { return };
    folder.file("file");
    let mut one = folder.locker(2, "file");
    one.does("set w 100 50");
    one.does("set r 500 0");
    for n in 1..=3 {
        let mut other = folder.locker(n, "file");
        let pid = if n == 2 { one.pid } else { 0 };
        assert_eq!(other.ask("get r 0 0"), format!("1 100 50 {pid}"));
        assert_eq!(other.ask("get w 600 1"), format!("0 500 0 {pid}"));
        assert_eq!(other.ask("get r 600 1").split(' ').next(), Some("2"), "nothing is in the way of a reader");
        // The kernel itself names no process to who asks as an open file.
        assert_eq!(other.ask("ofdget w 149 1"), "1 100 50 -1");
    }
}

#[test]
fn a_circle_of_waiting_processes_on_three_nodes_is_edeadlk_for_the_last() {
    let Some(folder) = Folder::new("circle") else { return };
    folder.file("file");
    let mut all: Vec<Locker> = (1..=3).map(|n| folder.locker(n, "file")).collect();
    for (n, locker) in all.iter_mut().enumerate() {
        locker.does(&format!("set w {n} 1"));
    }
    all[0].begin("wait w 1 1");
    all[1].begin("wait w 2 1");
    all[2].begin("wait w 0 1");
    // Whoever comes last to the coordinator.
    let mut refused = None;
    until("one of them is refused", || {
        refused = (0..3).find_map(|n| Some((n, all[n].answered()?)));
        refused.is_some()
    });
    let (last, said) = refused.expect("one was");
    assert_eq!(said, DEADLK);
    // It gives up its own, and the others get on, one after the other.
    all[last].does("set u 0 0");
    let next = (last + 2) % 3;
    assert_eq!(all[next].answer("the wait"), "ok");
    all[next].does("set u 0 0");
    assert_eq!(all[(last + 1) % 3].answer("the wait"), "ok");
}

#[test]
fn a_waiter_ended_by_sigterm_or_sigkill_goes_at_once_and_leaves_nothing() {
    let Some(folder) = Folder::new("waiters") else { return };
    folder.file("file");
    for (a, b) in PAIRS {
        for wait in ["wait w 0 10", "ofdwait w 0 10", "flock 2"] {
            for signal in ["-TERM", "-KILL"] {
                let (mut holder, mut waiter) = (folder.locker(a, "file"), folder.locker(b, "file"));
                holder.does(match wait {
                    "flock 2" => "flock 2",
                    _ => "set w 0 0",
                });
                waiter.begin(wait);
                assert!(waiter.is_waiting());
                assert_eq!(waiter.killed(signal).code(), None);
                holder.does("set u 0 0");
                holder.does("flock 8");
                // Nobody was given what the dead one waited for.
                let mut next = folder.locker(3, "file");
                next.does("set w 0 0");
                next.does("ofd u 0 0");
                next.does("flock 6");
            }
        }
    }
}

/// A program killed with locks of an open file sends no unlock; its RELEASE ends them. QEMU's image was locked for ever.
#[test]
fn a_holder_ended_by_sigkill_frees_its_locks_of_every_kind() {
    let Some(folder) = Folder::new("holders") else { return };
    folder.file("file");
    for (a, b) in PAIRS {
        for (take, wait) in [("set w 0 10", "wait w 5 1"), ("ofd w 0 10", "ofdwait w 5 1"), ("flock 2", "flock 2")] {
            let (mut holder, mut waiter) = (folder.locker(a, "file"), folder.locker(b, "file"));
            holder.does(take);
            waiter.begin(wait);
            assert!(waiter.is_waiting());
            holder.killed("-KILL");
            assert_eq!(waiter.answer(wait), "ok");
        }
    }
}

/// As POSIX wants it: any descriptor of the file, closed by the process.
#[test]
fn closing_a_file_ends_the_records_of_its_process() {
    let Some(folder) = Folder::new("closing") else { return };
    folder.file("file");
    let (mut holder, mut other) = (folder.locker(2, "file"), folder.locker(3, "file"));
    holder.does("set w 0 10");
    assert_eq!(other.ask("set w 0 10"), AGAIN);
    holder.does("close");
    other.does("set w 0 10");
}

#[test]
fn thousands_of_locks_on_one_file_are_taken_counted_and_freed_with_their_process() {
    let Some(folder) = Folder::new("thousands") else { return };
    folder.file("file");
    let (mut holder, mut other) = (folder.locker(2, "file"), folder.locker(3, "file"));
    holder.does("many w 0 3000");
    until("the count", || locks(&folder.cluster, 2) >= 3000);
    assert_eq!(other.ask("set w 5998 1"), AGAIN);
    other.does("set w 5999 1");
    holder.killed("-KILL");
    other.does("wait w 0 0");
}

#[test]
fn locks_survive_a_planned_move_a_killed_coordinator_and_a_change_of_route_and_waiters_get_their_turn() {
    let Some(mut cluster) = own_cluster() else { return };
    let (mut holder, mut waiter, mut other) = (locker(&cluster, 2), locker(&cluster, 3), locker(&cluster, 3));
    holder.does("set w 0 10");
    holder.does("ofd r 100 10");
    holder.does("flock 2");
    waiter.begin("wait w 5 1");
    let kept = |other: &mut Locker, when: &str| {
        assert_eq!(other.ask("set r 0 1"), AGAIN, "{when}");
        assert_eq!(other.ask("ofd w 105 1"), AGAIN, "{when}");
        assert_eq!(other.ask("flock 5"), AGAIN, "{when}");
        assert_eq!(other.ask("ofd r 100 10"), "ok", "{when}");
        assert_eq!(other.ask("ofd u 100 10"), "ok", "{when}");
    };
    kept(&mut other, "at first");
    cluster.ask(1, &["volume", "move", "v", "--to", "3"]).expect(0, &[]);
    kept(&mut other, "after a move");
    assert!(waiter.is_waiting());
    cluster.ask(1, &["volume", "move", "v", "--to", "1"]).expect(0, &[]);
    cluster.ask(1, &["volume", "redirect", "v", "on", "--node", "2"]).expect(0, &[]);
    cluster.until_route(2, "block-redirected");
    kept(&mut other, "redirected");
    cluster.kill(1);
    kept(&mut other, "after the coordinator was killed");
    assert!(waiter.is_waiting());
    assert_eq!(locks(&cluster, 2), 3);
    holder.does("set u 0 0");
    assert_eq!(waiter.answer("the wait through two moves and a takeover"), "ok");
    other.does("flock 8");
    holder.does("ofd u 0 0");
    other.does("ofd w 105 1");
}

#[test]
fn a_waiter_killed_while_there_is_no_coordinator_goes_and_leaves_nothing() {
    let Some(mut cluster) = own_cluster() else { return };
    let (mut holder, mut one, mut two) = (locker(&cluster, 2), locker(&cluster, 3), locker(&cluster, 2));
    holder.does("set w 0 10");
    one.begin("wait w 0 10");
    two.begin("flock 2");
    assert_eq!(two.answer("flock"), "ok");
    two.begin("wait w 5 1");
    assert!(one.is_waiting() && two.is_waiting());
    cluster.kill(1);
    one.killed("-TERM");
    two.killed("-KILL");
    holder.does("set u 0 0");
    let mut next = locker(&cluster, 3);
    next.does("set w 0 0");
    next.does("flock 6");
}

#[test]
fn what_a_killed_node_held_is_free_once_it_is_fenced_and_a_circle_after_a_takeover_is_found() {
    let Some(mut cluster) = own_cluster() else { return };
    let (mut dead, mut one, mut two) = (locker(&cluster, 1), locker(&cluster, 2), locker(&cluster, 3));
    dead.does("set w 0 10");
    one.does("set w 50 1");
    two.does("set w 60 1");
    one.begin("wait w 60 1");
    assert!(one.is_waiting());
    // The coordinator's own node.
    cluster.kill(1);
    two.begin("wait w 50 1");
    // Whoever of both asks the new coordinator last is refused; the other goes on waiting.
    let mut answered = None;
    until("one of them is refused", || {
        answered = one.answered().map(|said| (1, said)).or_else(|| two.answered().map(|said| (2, said)));
        answered.is_some()
    });
    let (refused, said) = answered.expect("one was");
    assert_eq!(said, DEADLK);
    let (last, first) = if refused == 1 { (&mut one, &mut two) } else { (&mut two, &mut one) };
    last.does("wait w 0 10");
    last.does("set u 50 20");
    assert_eq!(first.answer("the wait"), "ok");
}

#[test]
fn a_handle_with_a_lock_fails_after_its_node_was_evicted_and_others_get_the_lock() {
    let Some(cluster) = own_cluster() else { return };
    let (mut holder, mut plain, mut other) = (locker(&cluster, 2), locker(&cluster, 2), locker(&cluster, 3));
    holder.does("set w 0 10");
    other.begin("wait w 0 10");
    assert!(other.is_waiting());
    cluster.ask(1, &["debug", "evict", "v", "--node", "2"]).expect(0, &["node-2"]);
    assert_eq!(other.answer("the wait"), "ok");
    cluster.until_event(2, "self-reborn", "node 2");
    assert_eq!(holder.ask("write"), IO);
    assert_eq!(holder.ask("set w 50 1"), IO);
    // It is not to believe that it was alone up to here: for a time this was told "ok".
    assert_eq!(holder.ask("set u 0 10"), IO);
    plain.does("set w 50 1");
    assert_eq!(plain.ask("set w 0 1"), AGAIN);
    let mut again = locker(&cluster, 2);
    assert_eq!(again.ask("set w 50 1"), AGAIN);
    again.does("set w 70 1");
}

/// What is needed of another program, or why the test is skipped.
pub(crate) fn has(program: &str) -> bool {
    let there = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    assert!(there || std::env::var_os("REQUIRE_ALL").is_none(), "may not be skipped: no {program}");
    if !there {
        println!("skipped: no {program}");
    }
    there
}

#[test]
fn sqlite_on_three_nodes_loses_no_row() {
    let Some(folder) = Folder::new("sqlite").filter(|_| has("sqlite3")) else { return };
    let sql = |file: PathBuf, text: String| {
        let out = Command::new("sqlite3").args(["-cmd", ".timeout 25000"]).arg(file).arg(text).output();
        let out = out.expect("sqlite3 runs");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    };
    let at = |n: usize| folder.path(n).join("db");
    let first = at(1);
    within("making the table", move || sql(first, "create table t (node int, n int)".into()));
    const ROWS: usize = 12;
    let writers: Vec<_> = (1..=3)
        .map(|n| {
            let file = at(n);
            background(move || {
                for row in 0..ROWS {
                    sql(file.clone(), format!("insert into t values ({n}, {row})"));
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|w| w.ended("sqlite"));
    for n in 1..=3 {
        let file = at(n);
        let text = "select count(*), count(distinct node * 1000 + n) from t; pragma integrity_check";
        let found = within("counting", move || sql(file, text.into()));
        assert_eq!(found, format!("{0}|{0}\nok", 3 * ROWS));
    }
}

/// Two hosts must never start one virtual machine; and after one was killed the other must be able to. (qemu-io shares a raw
/// image, as nothing but the image's format forbids it; one in qcow2 it opens as a virtual machine does.)
#[test]
fn qemus_image_lock_refuses_a_second_start_on_another_node_until_the_first_is_gone() {
    let Some(folder) = Folder::new("qemu").filter(|_| has("qemu-io") && has("qemu-img")) else { return };
    let image = |n: usize| folder.path(n).join("disk.qcow2");
    let made = image(1);
    let made = within("making the image", move || {
        Command::new("qemu-img").args(["create", "-q", "-f", "qcow2", path(&made), "4M"]).status()
    });
    assert!(made.expect("qemu-img runs").success());
    let open = |n: usize| {
        let image = image(n);
        within("opening the image", move || {
            let args = ["-f", "qcow2", path(&image), "-c", "write -P 7 0 4k"];
            let out = Command::new("qemu-io").args(args).output().expect("qemu-io runs");
            (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())
        })
    };
    let first = image(2);
    let mut first = within("the first start", move || {
        let mut command = Command::new("qemu-io");
        command.args(["-f", "qcow2", path(&first)]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("qemu-io runs");
        // It asks for commands once it has the image.
        let mut prompt = [0; 8];
        let out = child.stdout.as_mut().expect("it is piped");
        out.read_exact(&mut prompt).expect("it has opened the image");
        assert_eq!(&prompt, b"qemu-io>");
        child
    });
    for n in 1..=3 {
        let (opened, said) = open(n);
        assert!(!opened && said.contains("Failed to get \"write\" lock"), "through node {n}: {said}");
    }
    first.kill().expect("it is our child");
    first.wait().expect("it is our child");
    // The kernel tells of an end without an unlock when it gets to it.
    until("the start elsewhere", || open(3).0);
    until("the start on the coordinator", || open(1).0);
}
