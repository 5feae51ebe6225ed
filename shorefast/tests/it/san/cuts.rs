//! Networks that are cut under load: packets are dropped at the switch, and nobody is told.

use std::time::Duration;

use super::lab::Lab;
use super::networks::{ARRAY, Net};
use crate::fixture::until;

/// Longer than a dead path takes to be noticed.
const UNMOVED: Duration = Duration::from_secs(4);

#[test]
fn one_storage_network_cut_changes_no_route_and_both_cut_send_the_data_over_the_other_nodes() {
    let Some(mut lab) = Lab::apart(3) else { return };
    // A machine that stalls for half a second must not show.
    lab.begin_under_load("default");
    lab.make_coordinator(1);
    let moved = lab.count(2, "route-changed");
    lab.cut(2, &[Net::StorageA]);
    until("one path is told to be lost", || lab.paths(2) == (1, 2));
    std::thread::sleep(UNMOVED);
    lab.until_they_get_on(&[1, 2, 3]);
    assert_eq!((lab.cluster.route(2).0.as_str(), lab.count(2, "route-changed")), ("direct", moved));
    lab.mend();
    lab.until_well();
    lab.cut(2, &Net::STORAGE);
    lab.cluster.until_route(2, "block-redirected");
    lab.until_they_get_on(&[1, 2, 3]);
    // One path is enough to go back.
    lab.mend();
    lab.cut(2, &[Net::StorageB]);
    lab.cluster.until_route(2, "direct");
    lab.mend();
    lab.until_well();
    lab.only_these_saw_errors(&[]);
    lab.ends_well();
}

#[test]
fn a_coordinator_cut_from_both_storage_networks_is_succeeded_and_no_program_sees_an_error() {
    let Some(mut lab) = Lab::apart(3) else { return };
    lab.begin_under_load("fast");
    lab.make_coordinator(1);
    lab.cut(1, &Net::STORAGE);
    until("another takes over", || [2, 3].contains(&lab.cluster.coordinator(2)) && lab.coordinator() != 0);
    lab.cluster.until_route(1, "block-redirected");
    lab.until_they_get_on(&[1, 2, 3]);
    lab.mend();
    lab.until_well();
    lab.only_these_saw_errors(&[]);
    lab.ends_well();
}

#[test]
fn an_array_that_nobody_reaches_stops_every_program_and_no_one_of_them_sees_an_error() {
    let Some(mut lab) = Lab::apart(3) else { return };
    lab.begin_under_load("fast");
    lab.cut(ARRAY, &Net::STORAGE);
    for n in lab.all() {
        until(&format!("node {n} waits"), || ["paused", "draining"].contains(&lab.cluster.route(n).0.as_str()));
    }
    lab.mend();
    lab.until_well();
    lab.only_these_saw_errors(&[]);
    lab.ends_well();
}

/// It has its storage, and nobody hears it: only the unit can keep it out.
#[test]
fn a_node_that_is_not_heard_is_evicted_the_unit_refuses_its_writes_and_reads_and_it_rejoins_by_itself() {
    let Some(mut lab) = Lab::apart(3) else { return };
    lab.begin_under_load("fast");
    lab.make_coordinator(1);
    let (before, life) = (lab.array.refused(3), lab.cluster.volume(3, "v").expect("runs")["incarnation"].clone());
    let keys = lab.array.keys_of(3);
    let _held = lab.hold(3);
    lab.cut(3, &[Net::Heartbeat]);
    let wanted = lab.want(2, 3);
    lab.cluster.until_event(1, "client-evicted", "node 3");
    wanted.ended("what node 2 wants");
    assert!(lab.array.keys_of(3).is_disjoint(&keys), "its keys are left: {:?}", lab.array.reservations());
    // What it had under way and what it tried since, whatever that was; and what anybody tries under its name.
    assert!(lab.array.refuses(&lab.door(3), 3), "whoever has no registration reads or writes");
    // Told while it has a session: between two of them nothing is.
    until("the unit tells what it refused", || {
        let now = lab.array.refused(3);
        now.0 > before.0 && now.1 > before.1
    });
    println!("the unit refused reads and writes of node 3: {before:?}, then {:?}", lab.array.refused(3));
    lab.until_they_get_on(&[1, 2]);
    lab.mend();
    until("it takes part in a new session", || {
        lab.cluster.volume(3, "v").is_some_and(|v| v["incarnation"].as_u64() > life.as_u64())
    });
    lab.until_well();
    assert!(lab.count(3, "self-evicted") > 0, "it did not say that it was shut out: {:?}", lab.cluster.events(3));
    lab.only_these_saw_errors(&[3]);
    lab.ends_well();
}

#[test]
fn a_coordinator_that_is_not_heard_gives_way_is_fenced_by_the_unit_and_rejoins() {
    let Some(mut lab) = Lab::apart(3) else { return };
    lab.begin_under_load("fast");
    lab.make_coordinator(2);
    lab.cut(2, &[Net::Heartbeat]);
    until("another takes over", || [1, 3].contains(&lab.cluster.coordinator(1)));
    lab.until_they_get_on(&[1, 3]);
    lab.mend();
    lab.until_well();
    lab.only_these_saw_errors(&[2]);
    lab.ends_well();
}
