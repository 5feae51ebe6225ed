//! Mounts: refused places, stale ones, and files that are there after a restart.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::fixture::{Cluster, background, can_mount, mounts_below, until, within};

#[test]
fn what_was_written_on_one_node_is_read_on_another_and_after_a_restart() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::new(2);
    cluster.start(1);
    cluster.start(2);
    cluster.create_volume("v");
    until("the mount on node 2", || cluster.is_mounted(2));
    let (here, there) = (cluster.mount(1, "v").join("a"), cluster.mount(2, "v").join("a"));
    within("the write", move || fs::write(here, "told once")).expect("writes");
    let again = there.clone();
    assert_eq!(within("the read", move || fs::read_to_string(there)).expect("reads"), "told once");
    assert_eq!((cluster.stop(1), cluster.stop(2)), (0, 0), "{}\n{}", cluster.log(1), cluster.log(2));
    assert_eq!(mounts_below(&cluster.dir), Vec::<std::path::PathBuf>::new());
    cluster.start(2);
    until("the mount after the restart", || cluster.is_mounted(2));
    assert_eq!(within("the read", move || fs::read_to_string(again)).expect("reads"), "told once");
}

#[test]
fn a_mount_point_that_is_not_empty_is_refused_and_named() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::new(1);
    cluster.start(1);
    let point = cluster.mount(1, "v");
    fs::create_dir_all(&point).expect("a folder");
    fs::write(point.join("precious"), "x").expect("writes");
    let disk = cluster.disk("v.img", 2 << 30);
    let create = ["volume", "create", "v", "--timing", "fast", "--disk", disk.to_str().expect("plain")];
    cluster.ask(1, &create).expect(4, &["not empty", "Nothing was written to the disk", "`mount_root`"]);
    assert!(point.join("precious").exists() && mounts_below(&cluster.dir).is_empty());
    // Otherwise it would ask for --wipe.
    fs::remove_file(point.join("precious")).expect("removes");
    cluster.ask(1, &create).expect(0, &[]);
}

/// It was mounted again by a restart, and nothing had said so.
#[test]
fn what_was_unmounted_on_request_stays_so_over_a_restart_until_it_is_mounted() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::with_volume(1);
    until("the unmounting", || cluster.ask(1, &["volume", "unmount", "v"]).code == 0);
    cluster.ask(1, &["volume", "unmount", "v"]).expect(1, &["not mounted on node-1 anyway"]);
    assert_eq!(cluster.stop(1), 0, "{}", cluster.log(1));
    cluster.start(1);
    cluster.ask(1, &["status", "--check"]).expect(0, &["1 volume not mounted here, on request"]);
    assert!(mounts_below(&cluster.dir).is_empty());
    cluster.ask(1, &["volume", "mount", "v"]).expect(0, &["mounted on"]);
    assert_eq!(cluster.stop(1), 0, "{}", cluster.log(1));
    cluster.start(1);
    until("the mount", || cluster.is_mounted(1));
}

#[test]
fn a_mount_point_where_something_is_mounted_is_refused_and_named() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::new(1);
    let point = cluster.mount(1, "v");
    fs::create_dir_all(&point).expect("a folder");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&point).status().is_ok_and(|s| s.success());
    if !mounted {
        println!("skipped: nothing can be mounted here without being root");
        return;
    }
    cluster.start(1);
    let disk = cluster.disk("v.img", 2 << 30);
    let ended = cluster.ask(1, &["volume", "create", "v", "--timing", "fast", "--disk", disk.to_str().expect("plain")]);
    ended.expect(4, &["is already mounted", "Nothing was written to the disk"]);
    cluster.ask(1, &["volume", "list"]).expect(0, &[]);
    assert!(cluster.volume(1, "v").is_none(), "there is no such volume");
    assert_eq!(mounts_below(&cluster.dir), [point]);
}

#[test]
fn the_stale_mount_of_a_killed_daemon_is_cleaned_and_acknowledged_files_are_there() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::new(1);
    cluster.start(1);
    cluster.create_volume("v");
    let file = cluster.mount(1, "v").join("kept");
    let (to_write, to_read) = (file.clone(), file);
    within("the write", move || {
        let file = fs::File::create(to_write)?;
        std::io::Write::write_all(&mut &file, b"stable")?;
        file.sync_all()
    })
    .expect("writes and makes stable");
    cluster.kill(1);
    assert_eq!(mounts_below(&cluster.dir).len(), 1, "the dead mount should still be there");
    cluster.start(1);
    until("the new mount", || cluster.is_mounted(1));
    let said = cluster.events(1);
    assert!(said.iter().any(|(code, _)| code == "stale-mount-cleaned"), "{said:?}");
    assert_eq!(within("the read", move || fs::read(to_read)).expect("reads"), b"stable");
    assert_eq!(mounts_below(&cluster.dir).len(), 1);
}

/// A program that made files all the time went on in the bare directory between the dead mount and the new one: thousands
/// of files that were fsynced, and none of them on the volume.
#[test]
fn what_is_acknowledged_while_a_daemon_is_killed_and_started_again_is_on_the_volume() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::with_volume(2);
    let (root, stop) = (cluster.mount(1, "v"), Arc::new(AtomicBool::new(false)));
    let told = Arc::clone(&stop);
    let writer = background(move || {
        let mut acknowledged = Vec::new();
        for n in 0.. {
            if told.load(Ordering::Relaxed) {
                break;
            }
            let name = format!("n{n}");
            let made = fs::File::create_new(root.join(&name)).and_then(|file| file.sync_all());
            match made {
                Ok(()) => acknowledged.push(name),
                // Dead, or not mounted yet: as fast as one can, to meet the moment in between.
                Err(_) => std::thread::yield_now(),
            }
        }
        acknowledged
    });
    for _ in 0..2 {
        cluster.kill(1);
        cluster.start(1);
        until("the new mount", || cluster.is_mounted(1));
    }
    let written = writer_has_more(&cluster);
    stop.store(true, Ordering::Relaxed);
    let acknowledged = writer.ended("the writer");
    assert!(written && !acknowledged.is_empty());
    let there = cluster.mount(2, "v");
    let missing = within("looking", move || {
        acknowledged.into_iter().filter(|name| !there.join(name).exists()).collect::<Vec<_>>()
    });
    assert_eq!(missing, Vec::<String>::new(), "acknowledged and not on the volume");
}

/// Waits until the writer has made a file after the last restart.
fn writer_has_more(cluster: &Cluster) -> bool {
    let there = cluster.mount(2, "v");
    let count = move || {
        let there = there.clone();
        within("counting", move || fs::read_dir(there).expect("lists").count())
    };
    let before = count();
    until("more files", || count() > before);
    true
}

#[test]
fn where_a_volume_is_not_mounted_nothing_can_be_written_and_waiting_costs_no_incarnation() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with_volume(1);
    let point = cluster.mount(1, "v");
    let life = |c: &Cluster| c.volume(1, "v").and_then(|v| v["incarnation"].as_u64()).unwrap_or(0);
    let first = life(&cluster);
    cluster.ask(1, &["volume", "unmount", "v"]).expect(0, &[]);
    fs::write(point.join("lost"), "x").expect_err("there is no such directory");
    // In the way on purpose: every attempt to mount finds it.
    fs::create_dir(&point).expect("a folder");
    fs::write(point.join("mine"), "x").expect("writes");
    // Not 6, which is said when waiting may help.
    cluster.ask(1, &["volume", "mount", "v"]).expect(1, &["not empty", "shorefast volume mount v"]);
    fs::remove_file(point.join("mine")).expect("removes");
    cluster.ask(1, &["volume", "mount", "v"]).expect(0, &[]);
    assert_eq!(life(&cluster), first + 1, "attempts that could not mount have begun incarnations");
}

/// Somebody's `umount` went unnoticed: status stayed healthy, `volume mount` said that it was mounted, and programs filled
/// the directory below.
#[test]
fn a_mount_that_somebody_else_takes_away_is_told_at_once_and_mounted_again_on_request() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with_volume(2);
    let point = cluster.mount(1, "v");
    unmount(&point);
    cluster.until_event(1, "mount-lost", "umount");
    let status = cluster.ask(1, &["status", "--check"]);
    status.expect(5, &["node-1 has not mounted it: its mount was taken away from outside"]);
    cluster.ask(1, &["status"]).expect(0, &["`shorefast volume mount v` on that node mounts it again"]);
    cluster.ask(2, &["status"]).expect(0, &["node-1 has not mounted it: its mount was taken away"]);
    // What it held is given back: the other node goes on.
    until("the office at node 2", || cluster.coordinator(2) == 2);
    until("the end of the bare directory", || !point.exists());
    fs::write(point.join("lost"), "x").expect_err("there is no such directory");
    cluster.ask(1, &["volume", "mount", "v"]).expect(0, &[]);
    assert_eq!(mounts_below(&cluster.node_dir(1)), std::slice::from_ref(&point));
    let (here, there) = (point.join("kept"), cluster.mount(2, "v").join("kept"));
    within("the write", move || fs::write(here, "told")).expect("writes");
    assert_eq!(within("the read", move || fs::read_to_string(there)).expect("reads"), "told");
    until("health", || cluster.ask(1, &["status", "--check"]).code == 0);
}

/// As an administrator does it, who need not be root.
fn unmount(point: &std::path::Path) {
    let by = |program: &str, args: &[&str]| {
        let done = Command::new(program).args(args).arg(point).stderr(std::process::Stdio::null()).status();
        done.is_ok_and(|s| s.success())
    };
    assert!(by("umount", &[]) || by("fusermount3", &["-u"]), "{} cannot be unmounted", point.display());
}

/// Its maker could not mount a new volume, and the other nodes never heard of it.
#[test]
fn a_volume_that_its_maker_cannot_mount_is_told_to_the_other_nodes() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::new(2);
    let config = fs::read_to_string(cluster.config(1)).expect("reads");
    let own = cluster.node_dir(1).join("mnt").display().to_string();
    // No directory can be made there, which shows only when it is made.
    fs::write(cluster.config(1), config.replace(&own, "/proc/shorefast-test/mnt")).expect("writes");
    cluster.start(1);
    cluster.start(2);
    let disk = cluster.disk("v.img", 2 << 30);
    let create = ["volume", "create", "v", "--timing", "fast", "--disk", disk.to_str().expect("plain")];
    cluster.ask(1, &create).expect(1, &["/proc/shorefast-test/mnt/v", "cannot be made"]);
    until("the mount on node 2", || cluster.is_mounted(2));
    cluster.ask(2, &["status"]).expect(0, &["node-1 has not mounted it: the mount point /proc/shorefast-test"]);
}

/// A node that could not take what it was told never heard of it again.
#[test]
fn a_node_that_does_not_know_a_volume_is_named_and_told_again() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::new(2);
    cluster.start(1);
    cluster.start(2);
    until("the link", || cluster.ask(1, &["node", "list"]).out.matches(" up ").count() == 1);
    let records = cluster.node_dir(2).join("state/volumes");
    fs::remove_dir(&records).expect("nothing is in it yet");
    cluster.create_volume("v");
    cluster.ask(1, &["status", "--check"]).expect(5, &["v: not known on node-2"]);
    cluster.ask(2, &["volume", "mount", "v"]).expect(3, &["knows no volume"]);
    fs::create_dir(&records).expect("a folder");
    until("the mount on node 2", || cluster.is_mounted(2));
    until("health", || cluster.ask(1, &["status", "--check"]).code == 0);
}
