//! What fsync says, when the coordinator through which the data went is killed: the data is there, or fsync fails.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use block::buf::AlignedBuf;

use crate::fixture::{Cluster, background, can_mount, until, within};

const O_DIRECT: i32 = rustix::fs::OFlags::DIRECT.bits().cast_signed();
const BLOCK: usize = 4096;

fn path(cluster: &Cluster, n: usize) -> PathBuf {
    cluster.mount(n, "v").join("file")
}

fn block(value: u8) -> AlignedBuf {
    AlignedBuf::from_slice(&[value; BLOCK])
}

/// What the blocks hold as a node reads them.
fn blocks(cluster: &Cluster, n: usize, count: usize) -> Vec<u8> {
    let path = path(cluster, n);
    within("reading", move || {
        let file = File::options().read(true).custom_flags(O_DIRECT).open(path).expect("opens");
        let read = |at: usize| {
            let mut found = AlignedBuf::zeroed(BLOCK);
            file.read_exact_at(&mut found, (at * BLOCK) as u64).expect("reads");
            assert!(found.iter().all(|b| *b == found[0]), "block {at} is torn");
            found[0]
        };
        (0..count).map(read).collect()
    })
}

/// Through the coordinator node 2 overwrites one block and makes the file longer by another, which is acknowledged; then the
/// coordinator's disk hangs with more of both on its way and an fsync behind it, and its process is killed. All of it goes to
/// the next coordinator. Once fsync has said that it is stable, the killed one has nothing to add: it is everywhere.
#[test]
fn what_fsync_acknowledged_over_a_coordinator_that_was_killed_is_there_on_every_node() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::with_volume(3);
    let made = path(&cluster, 2);
    let file = within("making the file", move || {
        let open = File::options().read(true).write(true).create_new(true).custom_flags(O_DIRECT).open(made);
        let file = open.expect("creates");
        (0..3).for_each(|at| file.write_all_at(&block(1), at * BLOCK as u64).expect("writes"));
        file.sync_all().expect("makes stable");
        Arc::new(file)
    });
    cluster.ask(2, &["volume", "redirect", "v", "on"]).expect(0, &[]);
    cluster.until_route(2, "block-redirected");
    let handle = Arc::clone(&file);
    within("redirected writes", move || {
        handle.write_all_at(&block(2), 0).expect("overwrites");
        handle.write_all_at(&block(3), 3 * BLOCK as u64).expect("makes it longer");
    });
    cluster.ask(1, &["debug", "disk", "hang"]).expect(0, &[]);
    let late = |value: u8, at: u64| {
        let handle = Arc::clone(&file);
        background(move || handle.write_all_at(&block(value), at * BLOCK as u64))
    };
    let (over, longer) = (late(4, 1), late(5, 4));
    let handle = Arc::clone(&file);
    let stable = background(move || handle.sync_all());
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(!over.is_done() && !stable.is_done(), "the coordinator's disk has answered");
    cluster.kill(1);
    over.ended("the overwriting on its way").expect("goes to the next coordinator");
    longer.ended("the lengthening on its way").expect("goes to the next coordinator");
    stable.ended("the fsync on its way").expect("what was acknowledged before it is kept until it is stable");
    let handle = Arc::clone(&file);
    within("fsync", move || handle.sync_all()).expect("all of it is stable");
    until("another coordinator", || [2, 3].contains(&cluster.coordinator(3)));
    for n in [2, 3] {
        assert_eq!(blocks(&cluster, n, 5), [2, 4, 1, 3, 5], "through node {n}");
    }
    // It is on the disk, not in a daemon: both others are killed as well.
    cluster.kill(2);
    cluster.kill(3);
    for n in 1..=3 {
        cluster.start(n);
    }
    until("the mount", || cluster.is_mounted(3));
    assert_eq!(blocks(&cluster, 3, 5), [2, 4, 1, 3, 5], "after the end of all daemons");
    cluster.checks_clean(3);
}
