//! Planned restarts of a daemon under its holder on a unit: the next one has no LIVE lock that tells it that the one before has ended.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use super::array::Array;
use super::lab::Lab;
use crate::fixture::{background, run, until, within};
use crate::kills::verifies_on;
use crate::lockers::Locker;
use crate::restarts::{daemon, evicted_while_no_daemon_runs, kill, restart, restarted_under_programs};

/// A fence that is not kept from its end is over well within this.
const FENCED_WITHIN: Duration = Duration::from_secs(4);

/// Nodes whose daemons have holders, with a volume on a unit; node 1 coordinates it.
fn held(nodes: usize) -> Option<Lab> {
    held_on(nodes, |array| array)
}

/// The same on such an array.
fn held_on(nodes: usize, such: impl FnOnce(Array) -> Array) -> Option<Lab> {
    let mut lab = Lab::with_array(nodes, such)?.held();
    lab.begin("fast");
    lab.make_coordinator(1);
    Some(lab)
}

fn stays_open(nodes: usize, n: usize) {
    let Some(mut lab) = held(nodes) else { return };
    let old = lab.array.keys_of(n);
    restarted_under_programs(&mut lab.cluster, nodes, n);
    assert!(lab.array.keys_of(n).is_disjoint(&old), "no key of a process that has ended is left");
}

#[test]
fn what_is_open_survives_a_planned_restart_of_a_nodes_daemon_on_a_unit() {
    stays_open(2, 2);
}

#[test]
fn what_is_open_survives_a_planned_restart_of_the_coordinators_daemon_on_a_unit() {
    stays_open(3, 1);
}

#[test]
fn what_is_open_survives_a_planned_restart_of_the_only_daemon_on_a_unit() {
    stays_open(1, 1);
}

/// What was written is flushed before the daemon ends, so that a cache which loses it cannot lose anything of it.
#[test]
fn what_is_open_survives_a_planned_restart_on_a_unit_with_a_volatile_cache() {
    if let Some(mut lab) = held_on(2, Array::that_caches) {
        restarted_under_programs(&mut lab.cluster, 2, 2);
    }
}

#[test]
fn fio_verifies_what_it_wrote_across_planned_restarts_of_its_coordinator_on_a_unit() {
    if let Some(mut lab) = held(3) {
        verifies_on(&mut lab.cluster, 3, true, restart);
    }
}

#[test]
fn a_node_on_a_unit_that_is_evicted_while_no_daemon_runs_begins_anew_and_its_locks_fail() {
    let Some(mut lab) = held(2) else { return };
    let Lab { cluster, array, .. } = &mut lab;
    evicted_while_no_daemon_runs(cluster, |_| array.stands_still(true), || array.stands_still(false));
}

/// A write is stuck in the array's disk when its daemon is told to make room. It cannot prove its end, so its incarnation ends with it, and
/// whoever fences that waits for the write, although the array tells early which keys are gone.
#[test]
fn a_daemon_that_leaves_with_a_write_stuck_in_the_array_is_followed_by_another_life() {
    let Some(lab) = held_on(2, |array| array.that_sticks(true)) else { return };
    lab.write(2, 0, 1);
    // A process of its own: every child of this one closes what this one has open, and would wait for a daemon that is not there.
    let path = lab.cluster.mount(2, "v").join("file");
    let mut program = within("opening", move || Locker::with(&path, rustix::fs::OFlags::DIRECT.bits()));
    program.does("block 0 2");
    lab.array.hold(true);
    program.begin("block 0 3");
    until("the write is stuck", || lab.array.log().contains("is stuck in the disk"));
    let before = u32::try_from(daemon(&lab.cluster, 2).expect("it answers")).expect("a pid");
    let ended = || fs::read_to_string(format!("/proc/{before}/stat")).is_ok_and(|s| s.contains(") Z "));
    kill(Signal::HUP, lab.cluster.pid(2));
    until("the daemon leaves", || lab.cluster.log(2).contains("asked to make room"));
    kill(Signal::STOP, lab.cluster.pid(2));
    until("the daemon's end", ended);
    let evicts = background({
        let socket = lab.cluster.socket(1);
        move || run(&["--socket", &socket, "debug", "evict", "v", "--node", "2"])
    });
    std::thread::sleep(FENCED_WITHIN);
    assert_eq!(lab.count(1, "client-evicted"), 0, "its write is still in the disk: {}", lab.array.log());
    lab.array.hold(false);
    evicts.ended("the eviction").expect(0, &[]);
    lab.cluster.until_event(1, "client-evicted", "node 2");
    kill(Signal::CONT, lab.cluster.pid(2));
    until("the next daemon", || {
        daemon(&lab.cluster, 2).is_some_and(|pid| pid != u64::from(before)) && lab.cluster.is_mounted(2)
    });
    println!("the write that was stuck: {}", program.answer("the write"));
    drop(program);
    assert_eq!(lab.count(2, "mount-resumed"), 0);
    lab.ends_well();
}
