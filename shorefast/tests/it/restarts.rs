//! Planned restarts of a daemon under its holder, with everything open that a program can have open.

use std::ffi::OsString;
use std::fs::{self, File, ReadDir};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::fixture::{Background, Cluster, background, can_mount, until, within};
use crate::lockers::{AGAIN, IO, Locker};

const RECORD: usize = 700;
/// Names in a folder: a listing of so many long ones takes several system calls.
const NAMES: usize = 600;

fn name(n: usize) -> String {
    format!("{n:04}-{}", "long".repeat(30))
}

/// Nodes whose daemons have holders, with a volume; node 1 coordinates it.
pub(crate) fn held(nodes: usize) -> Cluster {
    let mut cluster = Cluster::new(nodes);
    (1..=nodes).for_each(|n| cluster.configure(n, "holder = true\n"));
    cluster.begin("fast");
    until("node 1 coordinates", || cluster.coordinator(1) == 1);
    cluster
}

pub(crate) fn daemon(cluster: &Cluster, n: usize) -> Option<u64> {
    let status = cluster.ask(n, &["--json", "status"]);
    (status.code == 0).then(|| status.json()["pid"].as_u64().expect("a pid"))
}

pub(crate) fn kill(signal: Signal, pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, signal).expect("it runs");
}

/// SIGHUP to the holder, and waits until the next daemon serves the volume. How long that took.
pub(crate) fn restart(cluster: &Cluster, n: usize) -> Duration {
    let before = daemon(cluster, n).expect("it answers");
    let began = Instant::now();
    kill(Signal::HUP, cluster.pid(n));
    until("the next daemon", || daemon(cluster, n).is_some_and(|pid| pid != before) && cluster.is_mounted(n));
    began.elapsed()
}

/// Appends records through one open file until it is told to end, and then reads all of them.
pub(crate) struct Appends {
    ends: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: Background<(PathBuf, u64, Duration)>,
}

fn record(n: u64) -> Vec<u8> {
    let mut bytes = format!("record {n} ").into_bytes();
    bytes.resize(RECORD, b'a' + (n % 26) as u8);
    bytes
}

impl Appends {
    pub(crate) fn begin(dir: &Path, name: &str) -> Appends {
        let path = dir.join(name);
        let (ends, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, count) = (Arc::clone(&ends), Arc::clone(&written));
        let thread = background(move || {
            let mut file = File::options().append(true).create(true).open(&path).expect("opens");
            let (mut n, mut longest) = (0, Duration::ZERO);
            while !told.load(Ordering::SeqCst) {
                let began = Instant::now();
                file.write_all(&record(n)).expect("appends");
                n += 1;
                if n % 16 == 0 {
                    file.sync_all().expect("is stable");
                }
                longest = longest.max(began.elapsed());
                count.store(n, Ordering::SeqCst);
            }
            (path, n, longest)
        });
        Appends { ends, written, thread }
    }

    pub(crate) fn goes_on(&self) {
        let before = self.written.load(Ordering::SeqCst);
        until("more records", || self.written.load(Ordering::SeqCst) > before + 20);
    }

    pub(crate) fn end(self) {
        self.ends.store(true, Ordering::SeqCst);
        let (path, n, longest) = self.thread.ended("the writer");
        println!("{n} records, the longest write took {} ms", longest.as_millis());
        let all = within("a read", move || fs::read(path).expect("reads"));
        assert_eq!(all.len() as u64, n * RECORD as u64);
        for (n, found) in (0..).zip(all.chunks(RECORD)) {
            assert!(found == record(n), "record {n}");
        }
    }
}

/// Everything else that a program can have open.
pub(crate) struct Open {
    written: File,
    unlinked: File,
    listing: ReadDir,
    listed: Vec<OsString>,
    process: Locker,
    open_file: Locker,
    whole: Locker,
}

impl Open {
    pub(crate) fn new(dir: &Path) -> Open {
        let at = dir.to_owned();
        let (written, unlinked, listing, listed) = within("files", move || {
            fs::create_dir(at.join("many")).expect("creates");
            for n in 0..NAMES {
                File::create(at.join("many").join(name(n))).expect("creates");
            }
            let open = |name: &str| {
                let path = at.join(name);
                let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
                let file = file.expect("opens");
                file.write_all_at(&[7; 20_000], 0).expect("writes");
                (file, path)
            };
            let (written, _) = open("written");
            let (unlinked, path) = open("unlinked");
            fs::remove_file(path).expect("unlinks");
            for name in ["process", "open-file", "whole"] {
                fs::write(at.join(name), "x").expect("writes");
            }
            let mut listing = fs::read_dir(at.join("many")).expect("opens");
            let listed = listing.by_ref().take(100).map(|e| e.expect("lists").file_name()).collect();
            (written, unlinked, listing, listed)
        });
        let locker = |name: &str, command: &str| {
            let path = dir.join(name);
            let mut locker = within("opening", move || Locker::new(&path));
            locker.does(command);
            locker
        };
        let process = locker("process", "set w 10 5");
        let open_file = locker("open-file", "ofd w 10 5");
        let whole = locker("whole", "flock 2");
        Open { written, unlinked, listing, listed, process, open_file, whole }
    }

    /// Nobody else gets what is locked here.
    pub(crate) fn is_locked(&self, dir: &Path) {
        for (name, command) in [("process", "set w 12 1"), ("open-file", "ofd r 12 1"), ("whole", "flock 6")] {
            let path = dir.join(name);
            assert_eq!(within("opening", move || Locker::new(&path)).ask(command), AGAIN, "{name}");
        }
    }

    pub(crate) fn is_usable(&mut self, round: u8) {
        let (written, unlinked) =
            (self.written.try_clone().expect("a copy"), self.unlinked.try_clone().expect("a copy"));
        within("files from before", move || {
            for file in [written, unlinked] {
                let mut bytes = vec![0; 20_000];
                file.read_exact_at(&mut bytes[..10_000], 10_000).expect("reads");
                assert!(bytes[..10_000].iter().all(|b| *b == 7));
                file.write_all_at(&[round; 100], 30_000).expect("writes");
                file.sync_all().expect("is stable");
                file.read_exact_at(&mut bytes[..100], 30_000).expect("reads");
                assert!(bytes[..100].iter().all(|b| *b == round));
            }
        });
    }

    pub(crate) fn ends(self, dir: &Path) {
        let Open { listing, mut listed, mut process, mut open_file, mut whole, .. } = self;
        let listed = within("the rest of a listing", move || {
            listed.extend(listing.map(|e| e.expect("lists").file_name()));
            listed.sort();
            listed
        });
        let all: Vec<OsString> = (0..NAMES).map(|n| name(n).into()).collect();
        assert!(listed == all, "each name once");
        process.does("set u 0 0");
        open_file.does("ofd u 0 0");
        whole.does("flock 8");
        for (name, command) in [("process", "set w 12 1"), ("open-file", "ofd w 12 1"), ("whole", "flock 6")] {
            let path = dir.join(name);
            within("opening", move || Locker::new(&path)).does(command);
        }
    }
}

fn stays_open(nodes: usize, n: usize) {
    if can_mount() {
        restarted_under_programs(&mut held(nodes), nodes, n);
    }
}

/// Restarts of a node's daemon under programs; others ask for the locks through another node, if there is one.
pub(crate) fn restarted_under_programs(cluster: &mut Cluster, nodes: usize, n: usize) {
    let (here, there) = (cluster.mount(n, "v"), cluster.mount(if n == nodes { 1 } else { nodes }, "v"));
    let mut open = Open::new(&here);
    let appends = Appends::begin(&here, "appends");
    let mapped = within("a program", {
        let program = here.join("program");
        move || {
            // By a process of its own: what is open for writing in this one is also open in what another test just starts.
            let copied = std::process::Command::new("cp").arg("/bin/sleep").arg(&program).status().expect("cp runs");
            assert!(copied.success(), "{copied}");
            std::process::Command::new(&program).arg("600").spawn().expect("runs from there")
        }
    });
    let mut mapped = Kills(mapped);
    appends.goes_on();
    for round in 0..3 {
        let began = Instant::now();
        restart(cluster, n);
        println!("restart {round} of node {n} took {} ms", began.elapsed().as_millis());
        open.is_locked(&there);
        open.is_usable(round);
        appends.goes_on();
        assert!(matches!(mapped.0.try_wait(), Ok(None)), "a program that was run from there runs on");
        cluster.until_event(n, "mount-resumed", "stays open");
    }
    appends.end();
    open.ends(&there);
    drop(mapped);
    for n in 1..=nodes {
        assert!(!cluster.events(n).iter().any(|(code, _)| code.contains("evict")), "{:#?}", cluster.events(n));
    }
    cluster.checks_clean(1);
    assert_eq!(cluster.stop(n), 0);
}

pub(crate) struct Kills(pub(crate) std::process::Child);

impl Drop for Kills {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn r08_what_is_open_survives_a_planned_restart_of_a_nodes_daemon() {
    stays_open(2, 2);
}

#[test]
fn r09_what_is_open_survives_a_planned_restart_of_the_coordinators_daemon() {
    stays_open(3, 1);
}

#[test]
fn r10_what_is_open_survives_a_planned_restart_of_the_only_daemon() {
    stays_open(1, 1);
}

#[test]
fn r11_who_waits_for_a_lock_waits_on_across_a_planned_restart_and_gets_it_in_the_end() {
    if !can_mount() {
        return;
    }
    let cluster = held(2);
    let path = |n: usize| cluster.mount(n, "v").join("file");
    within("a write", {
        let path = path(1);
        move || fs::write(path, "x").expect("writes")
    });
    let locker = |n: usize| {
        let path = path(n);
        within("opening", move || Locker::new(&path))
    };
    let (mut holder, mut waits, mut flocks) = (locker(1), locker(2), locker(2));
    holder.does("set w 0 10");
    holder.does("flock 2");
    waits.begin("wait w 5 1");
    flocks.begin("flock 2");
    std::thread::sleep(Duration::from_millis(300));
    restart(&cluster, 2);
    std::thread::sleep(Duration::from_millis(300));
    assert!(waits.is_waiting() && flocks.is_waiting());
    holder.does("set u 0 0");
    assert_eq!(waits.answer("the wait"), "ok");
    holder.does("flock 8");
    assert_eq!(flocks.answer("the flock"), "ok");
    assert_eq!(holder.ask("set w 5 1"), AGAIN);
    assert_eq!(holder.ask("flock 6"), AGAIN);
    // One that is killed while nobody serves its mount is let go.
    let mut killed = locker(2);
    killed.begin("wait w 5 1");
    std::thread::sleep(Duration::from_millis(300));
    restart(&cluster, 2);
    killed.killed("-KILL");
    cluster.checks_clean(1);
}

#[test]
fn r12_node_that_is_evicted_while_no_daemon_runs_begins_anew_and_its_locks_fail() {
    if !can_mount() {
        return;
    }
    // It takes a while to leave: its last flush does.
    let slowly = |cluster: &Cluster| cluster.ask(2, &["debug", "disk", "delay", "300"]).expect(0, &[]);
    evicted_while_no_daemon_runs(&mut held(2), slowly, || ());
}

/// The holder of node 2 is stopped while its daemon leaves, so no next one is started; meanwhile the node is evicted. The disk is made slow
/// `slowly`, so that there is time for that, until `again`.
pub(crate) fn evicted_while_no_daemon_runs(cluster: &mut Cluster, slowly: impl FnOnce(&Cluster), again: impl FnOnce()) {
    let dir = cluster.mount(2, "v");
    // Open in other processes: this one starts programs, each of which closes its duplicates of what is open here first, and would
    // wait for the daemon that is not there.
    let (mut plain, mut locked) = within("files", {
        let dir = dir.clone();
        move || {
            fs::write(dir.join("plain"), "plain").expect("writes");
            fs::write(dir.join("locked"), "x").expect("writes");
            (Locker::new(&dir.join("plain")), Locker::new(&dir.join("locked")))
        }
    });
    locked.does("set w 0 1");
    let before = u32::try_from(daemon(cluster, 2).expect("it answers")).expect("a pid");
    let ended = || fs::read_to_string(format!("/proc/{before}/stat")).is_ok_and(|s| s.contains(") Z "));
    slowly(cluster);
    kill(Signal::HUP, cluster.pid(2));
    until("the daemon leaves", || cluster.log(2).contains("asked to make room"));
    kill(Signal::STOP, cluster.pid(2));
    again();
    until("the daemon's end", ended);
    cluster.ask(1, &["debug", "evict", "v", "--node", "2"]).expect(0, &[]);
    cluster.until_event(1, "client-evicted", "node 2");
    let other = cluster.mount(1, "v").join("locked");
    within("opening", {
        let other = other.clone();
        move || Locker::new(&other)
    })
    .does("set w 0 1");
    kill(Signal::CONT, cluster.pid(2));
    until("the next daemon", || {
        daemon(cluster, 2).is_some_and(|pid| pid != u64::from(before)) && cluster.is_mounted(2)
    });
    assert_eq!(locked.ask("set w 0 1"), IO, "its lock was given away");
    // What is asked between the end of an incarnation and the beginning of the next fails with it.
    cluster.until_event(2, "self-reborn", "node 2");
    plain.does("write");
    cluster.checks_clean(1);
    drop((plain, locked));
    assert_eq!(cluster.stop(2), 0);
}
