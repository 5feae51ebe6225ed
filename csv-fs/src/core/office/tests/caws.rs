//! Lost replies, hedges, suspension.

use super::lab::{Lab, node};
use crate::core::office::*;
use crate::core::rules::{Rule, Rules};
use block::shared::Epoch;

/// Node 1 alone, its lease CAW for epoch 1 submitted and its reply lost; returns what it does at that moment.
fn taking_with_a_lost_reply(lab: &mut Lab) {
    lab.start(1);
    lab.host(1).stick_lease = true;
    lab.run_until("the lease is being taken", |l| {
        l.acts(1, Now(0)).iter().any(|e| matches!(e, Effect::CawLease { .. }))
    });
    lab.run_for(1);
}

#[test]
fn a_lost_lease_reply_makes_neither_holder_nor_loser() {
    let mut lab = Lab::new(&[1]);
    taking_with_a_lost_reply(&mut lab);
    lab.run_for(100);
    assert_eq!(lab.office(1).in_office(), None, "the old value does not make it a holder");
    let sent = lab
        .acts(1, Now(0))
        .into_iter()
        .filter_map(|e| if let Effect::CawLease { new, .. } = e { Some(new) } else { None });
    let sent: Vec<LeaseView> = sent.collect();
    assert!(sent.len() > 1, "nor a loser: it sends again");
    assert!(sent.iter().all(|new| *new == sent[0]), "the very same bytes");
}

#[test]
fn the_late_landing_of_a_lost_lease_caw_is_recognised_by_its_nonce() {
    let mut lab = Lab::new(&[1]);
    taking_with_a_lost_reply(&mut lab);
    assert!(lab.land_stuck(1));
    lab.run_until("in office", |l| l.coordinators() == [1]);
    assert_eq!(lab.lease.epoch, Epoch(1));
}

#[test]
fn a_newer_value_makes_it_a_loser() {
    let mut lab = Lab::new(&[1, 2]);
    taking_with_a_lost_reply(&mut lab);
    lab.lease = lab.lease.taken_by(super::lab::client(2, 1), "elsewhere", 4711);
    lab.run_for(200);
    assert_eq!(lab.office(1).in_office(), None);
    assert_eq!(lab.office(1).hint().map(|h| h.node), Some(node(2)));
    assert!(!lab.land_stuck(1), "the first request cannot land any more");
}

#[test]
fn without_its_rule_two_nodes_reign_in_one_epoch() {
    let mut lab = Lab::new(&[1, 2]);
    lab.rules = Rules::without(Rule::LostCawIsUnsettled);
    taking_with_a_lost_reply(&mut lab);
    assert_eq!(lab.coordinators(), [1], "it believes a reply that never came");
    assert_eq!(lab.lease.epoch, Epoch(0));
}

#[test]
fn a_renewal_whose_reply_was_lost_after_it_landed_goes_on() {
    let mut lab = Lab::three_with_3_in_office();
    let since = lab.now;
    lab.host(3).lose_lease_replies = 1;
    lab.run_for(3000);
    assert_eq!(lab.coordinators(), [3]);
    assert_eq!(lab.acts(3, since), []);
}

#[test]
fn a_slow_lease_caw_is_hedged_over_a_second_nexus_with_the_same_bytes() {
    let mut lab = Lab::new(&[1]);
    lab.nexuses = 2;
    // Long enough that the path is not called lost meanwhile.
    lab.timing.path_timeout = std::time::Duration::from_millis(900);
    lab.start(1);
    lab.run_for(2000);
    lab.host(1).hang = true;
    let since = lab.now;
    lab.run_for(599);
    let attempt = |e: &Effect| if let Effect::CawLease { via, new, .. } = e { Some((*via, new.clone())) } else { None };
    let log = lab.hosts[&node(1)].log.iter().filter(|(at, _)| *at >= since);
    let sent: Vec<(Via, LeaseView)> = log.filter_map(|(_, e)| attempt(e)).collect();
    assert_eq!(sent.iter().map(|(via, _)| *via).collect::<Vec<_>>(), [Via::First, Via::Second]);
    assert_eq!(sent[0].1, sent[1].1);
    lab.unhang(1);
    lab.run_for(1000);
    assert_eq!(lab.coordinators(), [1], "the second of them miscompares against the first, and that is done");
}

#[test]
fn with_one_nexus_a_slow_lease_caw_is_not_hedged() {
    let mut lab = Lab::new(&[1]);
    lab.start(1);
    lab.run_for(2000);
    lab.host(1).hang = true;
    let since = lab.now;
    lab.run_for(450);
    let sent =
        lab.hosts[&node(1)].log.iter().filter(|(at, e)| *at >= since && matches!(e, Effect::CawLease { .. })).count();
    assert_eq!(sent, 1);
}

#[test]
fn a_suspended_holder_that_finds_the_block_unchanged_goes_on() {
    let mut lab = Lab::new(&[1]);
    lab.start(1);
    lab.run_for(2000);
    let since = lab.now;
    // The disk swallows every lease CAW for longer than suspend_after; nothing lands.
    lab.host(1).stick_lease = true;
    lab.run_until("it suspends", |l| l.office(1).suspended());
    lab.host(1).stick_lease = false;
    lab.run_until("it goes on", |l| !l.office(1).suspended());
    assert_eq!(lab.acts(1, since), [Effect::Suspend { epoch: Epoch(1) }, Effect::Resume { epoch: Epoch(1) }]);
    assert_eq!(lab.coordinators(), [1]);
}

#[test]
fn a_suspended_holder_that_finds_another_in_office_trips_its_latch() {
    let mut lab = Lab::new(&[1, 2]);
    lab.start(1);
    lab.run_for(2000);
    let since = lab.now;
    lab.host(1).stick_lease = true;
    lab.run_until("it suspends", |l| l.office(1).suspended());
    lab.lease = lab.lease.taken_by(super::lab::client(2, 1), "elsewhere", 4711);
    lab.run_until("it finds out", |l| l.coordinators().is_empty());
    assert_eq!(
        lab.acts(1, since),
        [
            Effect::Suspend { epoch: Epoch(1) },
            Effect::TripLatch { epoch: Epoch(1) },
            Effect::LostOffice { epoch: Epoch(1), why: LostWhy::Superseded }
        ]
    );
}
