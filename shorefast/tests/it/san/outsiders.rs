//! What an array and its administrators do to a volume in use: it is killed, its reservation is released by hand, keys are taken by hand;
//! and an array that cannot do what is needed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::lab::Lab;
use crate::fixture::{Background, background, until};

/// As long as an array takes to be switched on again, nearly.
const OFF: Duration = Duration::from_millis(1500);
/// From when a file of a node that is dead is wanted until its eviction is under way.
const EVICTS_WITHIN: Duration = Duration::from_secs(9);

#[test]
fn an_array_killed_under_load_keeps_its_registrations_and_every_node_comes_back() {
    let Some(mut lab) = Lab::plain(3) else { return };
    lab.begin_under_load("fast");
    let before = lab.array.reservations();
    lab.array.kill();
    std::thread::sleep(OFF);
    lab.array.start(lab.nodes);
    let after = lab.array.reservations();
    assert_eq!(after.1, before.1);
    assert!(!after.0.is_empty(), "every registration is gone");
    lab.until_well();
    lab.only_these_saw_errors(&[]);
    lab.ends_well();
}

/// Somebody's tool has released it: from then on a stranger could write.
#[test]
fn a_reservation_removed_by_hand_is_noticed_and_held_again() {
    let Some(mut lab) = Lab::plain(3) else { return };
    lab.begin_under_load("fast");
    let (_, held) = lab.array.reservations();
    lab.array.outsider("release", None);
    until("it is held again", || lab.array.reservations().1 == held);
    until("it is told as an event", || lab.all().any(|n| lab.count(n, "reservation-released") > 0));
    lab.until_well();
    lab.only_these_saw_errors(&[]);
    lab.ends_well();
}

/// What everybody has in it ends, and nobody is answered but who asked for it; each nexus is told with its next command.
#[test]
fn a_unit_that_is_reset_under_load_loses_nothing_and_no_program_sees_an_error() {
    let Some(mut lab) = Lab::plain(3) else { return };
    lab.begin_under_load("fast");
    let refused = lab.array.reset(&[]);
    assert!(refused.code == 4 && refused.err.contains("every command that any host has"), "{refused:?}");
    let held = lab.array.reservations().1;
    for round in 1..=5 {
        if round == 1 {
            // One write is sure to be in it.
            lab.array.hold(true);
            until("a write is held up", || lab.array.log().contains("is held up"));
        }
        lab.array.reset(&["--yes"]).expect(0, &["was reset"]);
        if round == 1 {
            assert!(lab.array.log().contains("was held up was aborted"), "the reset was answered: {}", lab.array.log());
            lab.array.hold(false);
        }
        lab.until_they_get_on(&[1, 2, 3]);
    }
    for n in lab.all() {
        until(&format!("node {n} has told of it"), || lab.count(n, "unit-reset") > 0);
    }
    assert_eq!(lab.array.log().matches("was held up begins").count(), 0, "{}", lab.array.log());
    lab.until_well();
    assert_eq!(lab.array.reservations().1, held, "a reset takes no reservation away");
    lab.only_these_saw_errors(&[]);
    lab.ends_well();
}

/// It cannot know whether that was a fence: it registers nothing by itself, and asks.
#[test]
fn a_node_whose_keys_were_taken_by_hand_asks_the_coordinator_before_it_registers_again() {
    let Some(mut lab) = Lab::plain(3) else { return };
    lab.begin_under_load("fast");
    lab.make_coordinator(1);
    let before = lab.array.keys_of(2);
    let (moved, life) =
        (lab.count(2, "route-changed"), lab.cluster.volume(2, "v").expect("runs")["incarnation"].clone());
    lab.array.outsider("take", Some(2));
    until("it stopped using the disk", || lab.count(2, "route-changed") > moved);
    lab.until_well();
    assert!(lab.array.keys_of(2).len() >= before.len(), "{:?}", lab.array.reservations());
    let now = lab.cluster.volume(2, "v").expect("runs")["incarnation"].clone();
    let evicted = now != life;
    println!("it was {}", if evicted { "evicted, and began a new session" } else { "let in again in its session" });
    lab.only_these_saw_errors(if evicted { &[2] } else { &[] });
    lab.ends_well();
}

/// The write has timed out, and is complete in the array: it may be executed whenever the array likes. It is dead before it is sent again
/// over another path, or over the coordinator.
#[test]
fn a_write_that_is_stuck_in_the_array_cannot_land_any_more_when_it_is_let_go() {
    let Some(mut lab) = Lab::plain(3) else { return };
    lab.begin_under_load("fast");
    lab.make_coordinator(1);
    for round in 1..=2 {
        lab.array.hold(true);
        until("a write is held up", || lab.array.log().matches("is held up").count() == round);
        until("it is aborted before it began", || lab.array.log().matches("was held up was aborted").count() == round);
        lab.until_they_get_on(&[1, 2, 3]);
        lab.array.hold(false);
        std::thread::sleep(OFF);
        assert_eq!(lab.array.log().matches("was held up begins").count(), 0, "{}", lab.array.log());
        lab.until_well();
    }
    lab.only_these_saw_errors(&[]);
    lab.ends_well();
}

/// A write of node 2 is in the disk behind the array when node 2 dies. The coordinator has sent PREEMPT AND ABORT, which waits for it, and
/// dies in turn. Its successor finds none of node 2's keys, and finishes what was begun. The lab, with the newer write of node 3 on its way
/// or done.
fn two_fencers_die_over_a_write_in_the_disk(tells_early: bool) -> Option<(Lab, Background<()>, Background<()>)> {
    let mut lab = Lab::with_array(3, |array| array.that_sticks(tells_early))?;
    lab.begin("fast");
    lab.make_coordinator(1);
    lab.write(2, 0, 1);
    lab.array.hold(true);
    let path = lab.cluster.mount(2, "v").join("file");
    let stuck = background(move || {
        let file = File::options().write(true).open(path);
        // Its daemon dies meanwhile, however it ends then.
        let _ = file.and_then(|file| file.write_all_at(&[9; 4096], 0));
    });
    until("the write is in the disk", || lab.array.log().contains("is stuck in the disk"));
    let keys = lab.array.keys_of(2);
    lab.cluster.kill(2);
    // Wants the file: it is recalled, and whoever holds it is evicted after a while.
    let path = lab.cluster.mount(3, "v").join("file");
    let newer = background(move || {
        let file = File::options().write(true).open(path).expect("opens");
        file.write_all_at(&[2; 4096], 0).expect("writes");
        file.sync_all().expect("syncs");
    });
    match tells_early {
        true => until("its keys are being taken away", || lab.array.keys_of(2).len() < keys.len()),
        // Nobody is told anything then.
        false => std::thread::sleep(EVICTS_WITHIN),
    }
    assert!(!newer.is_done(), "the file was given away while a write of its former holder was in the disk");
    lab.cluster.kill(1);
    std::thread::sleep(OFF * 4);
    Some((lab, stuck, newer))
}

fn a_write_in_the_disk_outlasts_two_fencers(tells_early: bool) {
    let Some((mut lab, stuck, newer)) = two_fencers_die_over_a_write_in_the_disk(tells_early) else { return };
    assert!(!newer.is_done(), "the file was given away while a write of its former holder was in the disk");
    lab.array.hold(false);
    until("the write has gone on", || lab.array.log().contains("stuck in the disk goes on"));
    newer.ended("the newer write");
    std::thread::sleep(OFF);
    assert_eq!(lab.read(3)[..4096], [2; 4096], "the older write has landed over the newer one");
    lab.cluster.start(1);
    lab.cluster.start(2);
    stuck.ended("the write of the node that died");
    lab.until_well();
    assert_eq!(lab.read(2)[..4096], [2; 4096]);
    lab.ends_well();
}

#[test]
fn a_write_stuck_in_the_disk_lands_under_no_newer_one_although_two_fencers_have_died_over_it() {
    a_write_in_the_disk_outlasts_two_fencers(false);
}

/// What protects is the fence: the array tells that the keys are gone as soon as they are.
#[test]
fn a_write_stuck_in_the_disk_lands_under_no_newer_one_although_the_array_tells_early_that_its_keys_are_gone() {
    a_write_in_the_disk_outlasts_two_fencers(true);
}
