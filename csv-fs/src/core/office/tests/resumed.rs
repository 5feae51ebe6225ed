//! Lives that go on in another process.

use super::lab::{Lab, client, node};
use super::scsi;
use crate::core::office::*;
use crate::core::rules::{Rule, Rules};
use crate::core::time::Now;
use block::shared::{FenceGen, Incarnation};

fn life(incarnation: u64) -> Resumes {
    Resumes { incarnation: Incarnation(incarnation), fence_gen: FenceGen(0), ended: false }
}

/// Node 1, which is not in office, makes room; its last write lands a little later.
fn restarted(lab: &mut Lab, n: u8, resumes: Resumes) -> (ClientId, FenceGen) {
    lab.resumes = Some(resumes);
    let since = lab.now;
    lab.start(n);
    lab.run_until("it registers", |l| l.office(n).client().is_some());
    let registered = lab.acts(n, since).into_iter().find_map(|e| match e {
        Effect::Registered { client, fence_gen } => Some((client, fence_gen)),
        _ => None,
    });
    registered.expect("registered")
}

use crate::types::ClientId;

#[test]
fn a_life_goes_on_in_the_next_process_only_when_the_last_write_has_landed() {
    let mut lab = Lab::three_with_3_in_office();
    let before = lab.slots[&node(1)];
    lab.kill(1, 300);
    let began = lab.now;
    assert_eq!(restarted(&mut lab, 1, life(1)), (client(1, 1), FenceGen(0)));
    assert!(lab.now.since(began).as_millis() >= 300, "its LIVE lock comes first");
    let after = lab.slots[&node(1)];
    assert!(after.pid_start > before.pid_start && after.counter > before.counter, "it is another process");
    lab.run_for(20_000);
    assert_eq!(lab.coordinators(), [3], "and nobody took it for dead");
    assert_eq!(lab.fence_gen(1), FenceGen(0));
}

#[test]
fn a_life_that_was_fenced_meanwhile_goes_on_as_one_that_is_fenced() {
    let mut lab = Lab::three_with_3_in_office();
    lab.kill(1, 10);
    let ask =
        Event::RequestFence { ticket: Ticket(7), client: client(1, 1), purpose: Purpose::Eviction, answered: false };
    lab.give(3, ask);
    lab.run_until("it is fenced", |l| l.fence_gen(1) == FenceGen(1));
    let since = lab.now;
    assert_eq!(restarted(&mut lab, 1, life(1)), (client(1, 1), FenceGen(1)));
    assert!(stops_direct(&lab, 1, since), "it does nothing under the generation that it had");
}

fn stops_direct(lab: &Lab, n: u8, since: Now) -> bool {
    lab.acts(n, since).iter().any(|e| matches!(e, Effect::StopDirect { fence_gen: FenceGen(1) }))
}

/// The fencer has not raised the generation yet when the next process looks, and has when it registers.
#[test]
fn a_fence_that_comes_between_the_look_and_the_registration_is_met() {
    let mut lab = Lab::three_with_3_in_office();
    lab.kill(1, 0);
    lab.run_for(5);
    lab.resumes = Some(life(1));
    let since = lab.now;
    lab.start(1);
    let registers = |l: &Lab| l.acts(1, since).iter().any(|e| matches!(e, Effect::TryLiveLock { .. }));
    lab.run_until("it begins", registers);
    let raised = lab.slots[&node(1)];
    lab.run_for(1);
    lab.slots.insert(node(1), SlotView { fence_gen: FenceGen(1), ..raised.next(1) });
    lab.run_until("it registers", |l| l.office(1).client().is_some());
    assert_eq!(lab.office(1).client(), Some(client(1, 1)));
    assert!(stops_direct(&lab, 1, since), "it is fenced");
}

#[test]
fn a_life_that_left_an_office_behind_gives_it_up_when_its_last_write_has_landed_and_goes_on() {
    let mut lab = Lab::new(&[1]);
    lab.start(1);
    lab.run_until("it takes office", |l| l.office(1).in_office().is_some());
    let before = lab.lease.clone();
    lab.kill(1, 300);
    let began = lab.now;
    assert_eq!(restarted(&mut lab, 1, life(1)).0, client(1, 1));
    assert!(lab.now.since(began).as_millis() >= 300, "its LIVE lock comes first");
    assert_eq!((lab.lease.epoch, lab.lease.is_vacant()), (before.epoch, false), "nothing was done before that");
    lab.run_until("it is given up", |l| l.lease.is_vacant());
    let took = lab.run_until("it takes office again", |l| l.office(1).in_office().is_some());
    assert!(lab.lease.epoch > before.epoch && took < 1500, "{took} ms");
}

/// The others are at it: the generation of the one that died in office is raised before its next process looks.
#[test]
fn a_life_that_was_fenced_for_the_office_that_it_left_goes_on_as_one_that_is_fenced() {
    let mut lab = Lab::three_with_3_in_office();
    lab.kill(3, 10);
    lab.run_until("it is fenced", |l| l.fence_gen(3) == FenceGen(1));
    let since = lab.now;
    assert_eq!(restarted(&mut lab, 3, life(1)).0, client(3, 1));
    assert!(stops_direct(&lab, 3, since));
    lab.run_until("another is in office", |l| l.coordinators().iter().any(|n| *n != 3));
}

/// It has a vote again, and what it does is not taken for that of a dead one: with two of three nodes, they coordinate.
#[test]
fn a_life_that_goes_on_after_it_was_proved_dead_counts_again() {
    let mut lab = Lab::three_with_3_in_office();
    lab.kill(3, 10);
    lab.run_until("another is in office", |l| l.coordinators().iter().any(|n| *n != 3));
    let coordinator = lab.coordinators()[0];
    let other = 3 - coordinator;
    assert_eq!(restarted(&mut lab, 3, life(1)).0, client(3, 1));
    lab.run_for(5_000);
    lab.kill(other, 10);
    lab.run_for(20_000);
    assert_eq!(lab.coordinators(), [coordinator], "it and the one that goes on are two of three");
    lab.give(coordinator, Event::Resign { to: Some(node(3)) });
    lab.run_until("the one that goes on is in office", |l| l.coordinators() == [3]);
    lab.run_for(20_000);
    assert_eq!((lab.coordinators(), lab.fence_gen(3)), (vec![3], FenceGen(1)), "and nobody takes it for dead");
}

#[test]
fn an_office_that_was_resigned_in_the_own_favour_is_taken_again_at_once_by_the_life_that_goes_on() {
    let mut lab = Lab::new(&[1]);
    lab.start(1);
    lab.run_until("it takes office", |l| l.office(1).in_office().is_some());
    lab.give(1, Event::Resign { to: Some(node(1)) });
    lab.run_until("it resigns", |l| l.lease.is_vacant());
    lab.kill(1, 10);
    assert_eq!(restarted(&mut lab, 1, life(1)).0, client(1, 1));
    let took = lab.run_until("it takes office again", |l| l.office(1).in_office().is_some());
    assert!(took < 1500, "{took} ms");
}

#[test]
fn an_earlier_life_of_another_process_is_not_taken_up_again() {
    let mut lab = Lab::three_with_3_in_office();
    lab.kill(1, 10);
    lab.start(1);
    lab.run_until("its second life registers", |l| l.office(1).client() == Some(client(1, 2)));
    lab.kill(1, 10);
    assert_eq!(restarted(&mut lab, 1, life(1)).0, client(1, 3));
}

/// On a unit, whose process has proved its end.
fn ended(incarnation: u64) -> Resumes {
    Resumes { ended: true, ..life(incarnation) }
}

/// There is no LIVE lock that would say so.
#[test]
fn on_a_unit_a_life_goes_on_only_if_its_process_has_proved_its_end() {
    let mut lab = scsi::lab(Rules::all());
    lab.kill(1, 0);
    assert_eq!(restarted(&mut lab, 1, ended(1)), (client(1, 1), FenceGen(0)));
    lab.run_for(20_000);
    assert_eq!((lab.coordinators(), lab.fence_gen(1)), (vec![2], FenceGen(0)), "and nobody took it for dead");
    lab.kill(1, 0);
    assert_eq!(restarted(&mut lab, 1, life(1)), (client(1, 2), FenceGen(0)), "it was killed");
}

#[test]
fn without_its_rule_a_life_goes_on_whose_process_has_proved_nothing() {
    let mut lab = scsi::lab(Rules::without(Rule::EndedBeforeHandedOn));
    lab.kill(1, 0);
    assert_eq!(restarted(&mut lab, 1, life(1)), (client(1, 1), FenceGen(0)));
}

/// The fencer has found no key of it, since they were given back.
#[test]
fn on_a_unit_a_life_that_was_fenced_meanwhile_goes_on_and_none_of_its_nexuses_is_admitted() {
    let mut lab = scsi::lab(Rules::all());
    lab.kill(1, 0);
    let raised = lab.slots[&node(1)];
    lab.slots.insert(node(1), SlotView { fence_gen: FenceGen(1), ..raised.next(1) });
    let since = lab.now;
    assert_eq!(restarted(&mut lab, 1, ended(1)), (client(1, 1), FenceGen(1)));
    assert!(stops_direct(&lab, 1, since), "it does nothing under the generation that it had");
    let (tag, register) = scsi::step(&lab.give(1, Event::NexusUp { nexus: 3 }));
    assert_eq!(register, FenceStep::Register { nexus: 3, key: Key::new(9, client(1, 1), 3) });
    assert_eq!(lab.give(1, Event::Scsi { tag, result: ScsiResult::Done }), [Effect::ReadOwnSlotVia { nexus: 3 }]);
    let slot = lab.slots[&node(1)];
    let out = lab.give(1, Event::OwnSlotVia { nexus: 3, slot: Some(slot) });
    assert_eq!(out[0], Effect::NexusRefused { nexus: 3 });
}

#[test]
fn on_a_unit_a_life_that_left_an_office_behind_gives_it_up_and_takes_it_again() {
    let mut lab = Lab::new(&[1]);
    lab.kind = DiskKind::Scsi { volume_tag: 9 };
    lab.start(1);
    lab.run_until("it takes office", |l| l.office(1).in_office().is_some());
    let before = lab.lease.epoch;
    lab.kill(1, 0);
    assert_eq!(restarted(&mut lab, 1, ended(1)).0, client(1, 1));
    lab.run_until("it is given up", |l| l.lease.is_vacant());
    lab.run_until("it takes office again", |l| l.office(1).in_office().is_some());
    assert!(lab.lease.epoch > before);
}

/// The process before had the lease in the disk behind the target when it left; it lands when the next one has registered.
#[test]
fn a_lease_of_the_process_before_that_lands_late_is_given_up_by_the_next() {
    let mut lab = scsi::lab(Rules::all());
    lab.kill(1, 0);
    assert_eq!(restarted(&mut lab, 1, ended(1)), (client(1, 1), FenceGen(0)));
    lab.run_for(1_000);
    let late = lab.lease.given_up(None, 4711).taken_by(client(1, 1), "", 4712);
    lab.lease = late.clone();
    let since = lab.now;
    let took = lab.run_until("it is given up", |l| l.lease.is_vacant());
    assert!(took < Timing::FAST.challenge_after.as_millis() as u64, "nobody has to challenge it: {took} ms");
    let acts = lab.acts(1, since);
    let of_lease: Vec<_> = acts
        .iter()
        .filter_map(|e| if let Effect::CawLease { expect, new, .. } = e { Some((expect, new)) } else { None })
        .collect();
    let (expect, new) = of_lease[0];
    assert_eq!((of_lease.len(), expect, new), (1, &late, &late.given_up(Some(node(1)), new.nonce)));
    assert!(!acts.iter().any(|e| matches!(e, Effect::TookOffice { .. } | Effect::LostOffice { .. })), "{acts:#?}");
    lab.run_until("somebody takes it as any other", |l| l.coordinators().len() == 1 && l.lease.epoch > late.epoch);
    assert_eq!((lab.fence_gen(1), lab.fence_gen(2)), (FenceGen(0), FenceGen(0)), "nobody was fenced for it");
}
