//! What an array and its administrators do to a volume in use: it is killed, its reservation is released by hand, keys are taken by hand;
//! and an array that cannot do what is needed.

use std::time::Duration;

use super::lab::Lab;
use crate::fixture::until;

/// As long as an array takes to be switched on again, nearly.
const OFF: Duration = Duration::from_millis(1500);

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
