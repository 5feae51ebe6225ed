//! A daemon under its holder: what its death, and that of its holder, mean to programs and to whoever runs them.

use std::fs::{self, File};
use std::io::{Read, Write};

use rustix::process::{Pid, Signal, kill_process};

use crate::fixture::{Cluster, background, can_mount, children, mounts_below, run, until, within};
use crate::restarts;

/// A node whose daemon has a holder, with a volume.
fn held() -> Cluster {
    let mut cluster = Cluster::new(1);
    cluster.configure(1, "holder = true\n");
    cluster.start(1);
    cluster.create_volume("v");
    cluster
}

/// The daemon's own process, as it says itself.
fn daemon(cluster: &Cluster) -> Option<u64> {
    let status = cluster.ask(1, &["--json", "status"]);
    (status.code == 0).then(|| status.json()["pid"].as_u64().expect("a pid"))
}

/// By a system call: a program that is started closes its duplicates of this process's open files first, and would wait for the
/// daemon that it is to kill.
fn kill(signal: Signal, pid: u64) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid");
    // One that has just ended by itself is what was wanted.
    let _ = kill_process(pid, signal);
}

/// A daemon that has no holder to end it.
struct Ends(u64);

impl Drop for Ends {
    fn drop(&mut self) {
        kill(Signal::KILL, self.0);
    }
}

/// The number of the mount's connection: another mount has another one.
fn connection(cluster: &Cluster) -> String {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("readable");
    let at = cluster.mount(1, "v").display().to_string();
    let line = table.lines().find(|line| line.split(' ').nth(4) == Some(&at)).expect("it is mounted");
    line.split(' ').nth(2).expect("a device").to_owned()
}

#[test]
fn r01_mount_outlives_its_daemon_and_what_is_asked_meanwhile_is_done_by_the_next() {
    if !can_mount() {
        return;
    }
    let mut cluster = held();
    let at = cluster.mount(1, "v");
    let mount = connection(&cluster);
    for n in 0..3 {
        let (old, new) = (at.join(format!("old-{n}")), at.join(format!("new-{n}")));
        let mut file = within("a write", move || {
            let mut file = File::create(old).expect("creates");
            file.write_all(b"before").expect("writes");
            file.sync_all().expect("is stable");
            file
        });
        let first = daemon(&cluster).expect("it answers");
        kill(Signal::KILL, first);
        until("the end of the daemon", || !fs::exists(format!("/proc/{first}")).expect("readable"));
        let meanwhile = background(move || fs::write(&new, "meanwhile").and_then(|()| fs::read_to_string(&new)));
        until("the next daemon", || daemon(&cluster).is_some_and(|pid| pid != first) && cluster.is_mounted(1));
        assert_eq!(meanwhile.ended("a write across the death").expect("no error"), "meanwhile");
        assert_eq!(connection(&cluster), mount, "it is the same mount");
        within("a write to a file from before", move || file.write_all(b"after")).expect("it is open");
        let old = at.join(format!("old-{n}"));
        assert_eq!(within("a read", move || fs::read_to_string(old)).expect("opened anew"), "beforeafter");
        cluster.until_event(1, "mount-resumed", "stays open");
    }
    cluster.checks_clean(1);
    assert_eq!(cluster.stop(1), 0);
    assert!(mounts_below(&cluster.dir).is_empty(), "a requested stop takes the mount away");
}

#[test]
fn r02_handle_of_the_life_before_is_never_taken_for_one_of_this_life() {
    if !can_mount() {
        return;
    }
    let mut cluster = restarts::held(2);
    let at = cluster.mount(2, "v");
    let open = |name: &str, text: &'static [u8]| {
        let path = at.join(name);
        within("a file", move || {
            let mut file =
                File::options().create(true).truncate(true).read(true).write(true).open(path).expect("opens");
            file.write_all(text).expect("writes");
            file
        })
    };
    let before: Vec<_> = (0..20).map(|n| open(&format!("before-{n}"), b"before")).collect();
    // Of one whose data go over the coordinator nobody goes on.
    cluster.ask(2, &["volume", "redirect", "v", "on"]).expect(0, &[]);
    cluster.until_route(2, "block-redirected");
    let first = restarts::daemon(&cluster, 2).expect("it answers");
    kill(Signal::KILL, first);
    let next = || restarts::daemon(&cluster, 2).is_some_and(|pid| pid != first) && cluster.is_mounted(2);
    until("the next daemon", next);
    cluster.until_event(2, "mount-taken-over", "EIO");
    let after: Vec<_> = (0..20).map(|n| open(&format!("after-{n}"), b"after")).collect();
    within("reads of files from before", move || {
        for mut file in before {
            let read = file.read(&mut [0; 8]).expect_err("must fail");
            assert_eq!(read.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
        }
        drop(after);
    });
    for n in 0..20 {
        let path = at.join(format!("after-{n}"));
        assert_eq!(within("a read", move || fs::read_to_string(path)).expect("reads"), "after");
    }
    assert_eq!(cluster.stop(2), 0);
}

#[test]
fn r03_unmounted_volume_is_not_kept() {
    if !can_mount() {
        return;
    }
    let cluster = held();
    cluster.ask(1, &["volume", "unmount", "v"]).expect(0, &[]);
    let before = daemon(&cluster).expect("it answers");
    kill(Signal::KILL, before);
    until("the next daemon", || daemon(&cluster).is_some_and(|pid| pid != before));
    assert!(mounts_below(&cluster.dir).is_empty());
    cluster.ask(1, &["volume", "mount", "v"]).expect(0, &[]);
    let path = cluster.mount(1, "v").join("file");
    within("a write", move || fs::write(path, "text")).expect("writes");
}

#[test]
fn r04_daemon_that_dies_again_and_again_is_given_up_and_nobody_waits_for_ever() {
    if !can_mount() {
        return;
    }
    let mut cluster = held();
    let holder = cluster.pid(1);
    let path = cluster.mount(1, "v").join("file");
    let frozen = daemon(&cluster).expect("it answers");
    kill(Signal::STOP, frozen);
    let waits = background(move || fs::write(path, "text"));
    until("the end of the holder", || {
        children(holder).into_iter().for_each(|daemon| kill(Signal::KILL, daemon.into()));
        cluster.log(1).contains("times in a row")
    });
    // One of the daemons may have lived long enough to do it.
    let _ = waits.ended("a write that nobody answers");
    let path = cluster.mount(1, "v").join("file");
    let failed = within("a write", move || fs::write(path, "text")).expect_err("must fail");
    assert_eq!(failed.raw_os_error(), Some(rustix::io::Errno::NOTCONN.raw_os_error()));
    assert!(cluster.log(1).contains("whoever uses them gets errors"), "{}", cluster.log(1));
    assert_eq!(cluster.stop(1), 1);
}

#[test]
fn r05_daemon_survives_its_holder_and_says_so() {
    if !can_mount() {
        return;
    }
    let mut cluster = held();
    let pid = daemon(&cluster).expect("it answers");
    let _ends = Ends(pid);
    cluster.kill(1);
    cluster.until_event(1, "holder-gone", "not started again");
    let path = cluster.mount(1, "v").join("file");
    within("a write", move || fs::write(path, "text")).expect("writes");
    assert_eq!(daemon(&cluster), Some(pid));
    kill(Signal::TERM, pid);
    until("the end of the daemon", || daemon(&cluster).is_none() && mounts_below(&cluster.dir).is_empty());
}

#[test]
fn r06_sighup_starts_the_next_daemon_after_an_orderly_end() {
    if !can_mount() {
        return;
    }
    let mut cluster = held();
    let before = daemon(&cluster).expect("it answers");
    cluster.signal(1, "HUP");
    until("the next daemon", || daemon(&cluster).is_some_and(|pid| pid != before) && cluster.is_mounted(1));
    assert!(cluster.log(1).contains("the daemon has ended: with exit code 0"), "{}", cluster.log(1));
    assert_eq!(cluster.stop(1), 0);
}

#[test]
fn r07_daemon_that_refuses_to_start_is_believed() {
    let mut cluster = Cluster::new(1);
    cluster.configure(1, "holder = true\n");
    cluster.start(1);
    run(&["daemon", "--config", &cluster.config(1)]).expect(4, &["another daemon answers"]);
    assert_eq!(cluster.stop(1), 0);
    run(&["daemon", "--held", "--config", &cluster.config(1)]).expect(2, &["no holder on the standard input"]);
}
