//! The SCSI kind: keys, and nexuses that register again.

use super::lab::{Lab, client, node};
use crate::core::office::*;
use crate::core::rules::{Rule, Rules};
use block::shared::FenceGen;

const KIND: DiskKind = DiskKind::Scsi { volume_tag: 9 };

pub(super) fn lab(rules: Rules) -> Lab {
    let mut lab = Lab::new(&[1, 2]);
    lab.kind = KIND;
    lab.nexuses = 2;
    lab.rules = rules;
    lab.start(2);
    lab.run_for(2000);
    lab.start(1);
    lab.run_for(3000);
    assert_eq!(lab.coordinators(), [2]);
    lab
}

pub(super) fn step(out: &[Effect]) -> (Tag, FenceStep) {
    let steps: Vec<(Tag, FenceStep)> = out
        .iter()
        .filter_map(|e| if let Effect::Scsi { tag, step } = e { Some((*tag, *step)) } else { None })
        .collect();
    assert_eq!(steps.len(), 1, "{out:#?}");
    steps[0]
}

#[test]
fn every_key_of_the_victim_is_preempted_until_none_is_left_and_the_reservation_is_checked() {
    let mut lab = lab(Rules::all());
    let (mine, theirs, others) =
        (Key::new(9, client(1, 1), 0), Key::new(9, client(1, 1), 1), Key::new(9, client(2, 1), 0));
    lab.give(
        2,
        Event::RequestFence { ticket: Ticket(7), client: client(1, 1), purpose: Purpose::Eviction, answered: false },
    );
    lab.run_for(1);
    let (tag, read) = step(&lab.acts(2, lab.now));
    assert_eq!((read, lab.fence_gen(1)), (FenceStep::ReadKeys, FenceGen(1)), "the raise comes first");
    let (tag, preempt) = step(&lab.give(2, Event::Scsi { tag, result: ScsiResult::Keys(vec![others, mine, theirs]) }));
    assert_eq!(preempt, FenceStep::PreemptAndAbort { victim: mine });
    let (tag, read) = step(&lab.give(2, Event::Scsi { tag, result: ScsiResult::Conflict }));
    assert_eq!(read, FenceStep::ReadKeys, "a conflict is settled by READ KEYS");
    let (tag, preempt) = step(&lab.give(2, Event::Scsi { tag, result: ScsiResult::Keys(vec![others, theirs]) }));
    assert_eq!(preempt, FenceStep::PreemptAndAbort { victim: theirs });
    let (tag, _) = step(&lab.give(2, Event::Scsi { tag, result: ScsiResult::Done }));
    let (tag, check) = step(&lab.give(2, Event::Scsi { tag, result: ScsiResult::Keys(vec![others]) }));
    assert_eq!(check, FenceStep::ReadReservation);
    let (tag, reserve) = step(&lab.give(2, Event::Scsi { tag, result: ScsiResult::Reservation { right_type: false } }));
    assert_eq!(reserve, FenceStep::Reserve);
    let (tag, _) = step(&lab.give(2, Event::Scsi { tag, result: ScsiResult::Done }));
    assert_eq!(lab.slots[&node(1)].mark.map(|m| m.by), Some(node(2)), "until then its mark is in the slot");
    let since = lab.now;
    lab.give(2, Event::Scsi { tag, result: ScsiResult::Reservation { right_type: true } });
    lab.run_for(5);
    let out = lab.acts(2, since);
    assert!(
        out.iter().any(|e| matches!(e, Effect::FenceDone { result: Ok(p), .. } if p.how() == HowFenced::KeysGone)),
        "{out:#?}"
    );
    assert_eq!(lab.slots[&node(1)].mark, None);
}

/// Node 1's nexus drops, node 2 fences it, and the nexus comes back and registers once more.
fn register_again_after_a_fence(lab: &mut Lab) -> Vec<Effect> {
    let raised = SlotView { fence_gen: FenceGen(1), ..lab.slots[&node(1)].next(4711) };
    let (tag, register) = step(&lab.give(1, Event::NexusUp { nexus: 1 }));
    assert_eq!(register, FenceStep::Register { nexus: 1, key: Key::new(9, client(1, 1), 1) });
    lab.slots.insert(node(1), raised);
    lab.give(1, Event::Scsi { tag, result: ScsiResult::Done })
}

#[test]
fn a_victim_that_registers_again_reads_its_slot_and_stays_fenced() {
    let mut lab = lab(Rules::all());
    let out = register_again_after_a_fence(&mut lab);
    assert_eq!(out, [Effect::ReadOwnSlotVia { nexus: 1 }]);
    let slot = lab.slots[&node(1)];
    let out = lab.give(1, Event::OwnSlotVia { nexus: 1, slot: Some(slot) });
    assert_eq!(out[0], Effect::NexusRefused { nexus: 1 });
    assert!(!out.iter().any(|e| matches!(e, Effect::NexusGood { .. })));
}

#[test]
fn without_its_rule_a_victim_un_fences_itself() {
    let mut lab = lab(Rules::without(Rule::RegisterThenReadSlot));
    let out = register_again_after_a_fence(&mut lab);
    assert_eq!(out, [Effect::NexusGood { nexus: 1, fence_gen: FenceGen(0) }]);
}

#[test]
fn a_nexus_of_a_client_that_is_not_fenced_is_good() {
    let mut lab = lab(Rules::all());
    let (tag, _) = step(&lab.give(1, Event::NexusUp { nexus: 0 }));
    lab.give(1, Event::Scsi { tag, result: ScsiResult::Done });
    let slot = lab.slots[&node(1)];
    let out = lab.give(1, Event::OwnSlotVia { nexus: 0, slot: Some(slot) });
    assert_eq!(out[0], Effect::NexusGood { nexus: 0, fence_gen: FenceGen(0) });
}

/// A nexus of node 2 comes up and registers; what the office makes of its slot, which is as it was.
fn comes_up(lab: &mut Lab) -> Effect {
    let (tag, _) = step(&lab.give(2, Event::NexusUp { nexus: 0 }));
    reads_its_slot(lab, tag)
}

fn reads_its_slot(lab: &mut Lab, tag: Tag) -> Effect {
    assert_eq!(lab.give(2, Event::Scsi { tag, result: ScsiResult::Done }), [Effect::ReadOwnSlotVia { nexus: 0 }]);
    let slot = lab.slots[&node(2)];
    lab.give(2, Event::OwnSlotVia { nexus: 0, slot: Some(slot) })[0].clone()
}

/// Coordinator 2 loses its path with a commit waiting for it, and that is not taken back yet.
fn lost_and_not_drained(rules: Rules) -> (Lab, block::shared::Epoch) {
    let mut lab = lab(rules);
    lab.host(2).never_drains = true;
    let epoch = lab.office(2).in_office().expect("in office").epoch();
    let out = lab.give(2, Event::OwnPath { ok: false });
    assert_eq!(out[0], Effect::TripLatch { epoch });
    (lab, epoch)
}

#[test]
fn no_nexus_is_admitted_before_what_a_lost_office_left_has_ended() {
    let (mut lab, epoch) = lost_and_not_drained(Rules::all());
    assert_eq!(comes_up(&mut lab), Effect::NexusRefused { nexus: 0 });
    lab.run_for(2000);
    let asked_again = |e: &Effect| matches!(e, Effect::Scsi { step: FenceStep::Register { .. }, .. });
    assert!(!lab.acts(2, lab.now - std::time::Duration::from_millis(1900)).iter().any(asked_again), "it waits");
    let (tag, register) = step(&lab.give(2, Event::Drained { epoch }));
    assert_eq!(register, FenceStep::Register { nexus: 0, key: Key::new(9, client(2, 1), 0) }, "and is not stuck");
    // Node 1 has fenced it meanwhile, and everything from before has ended.
    assert_eq!(reads_its_slot(&mut lab, tag), Effect::NexusGood { nexus: 0, fence_gen: FenceGen(1) });
}

#[test]
fn without_its_rule_a_nexus_is_admitted_while_a_lost_office_has_something_waiting() {
    let (mut lab, _) = lost_and_not_drained(Rules::without(Rule::EndedBeforeAdmitted));
    assert_eq!(comes_up(&mut lab), Effect::NexusGood { nexus: 0, fence_gen: FenceGen(0) });
}

#[test]
fn an_office_that_drains_in_order_keeps_its_path() {
    let mut lab = lab(Rules::all());
    lab.host(2).never_drains = true;
    lab.give(2, Event::Resign { to: None });
    assert_eq!(comes_up(&mut lab), Effect::NexusGood { nexus: 0, fence_gen: FenceGen(0) });
}

/// Coordinator 2 has no path and does not know yet that it was fenced; its client heard of it from the successor.
#[test]
fn a_grant_of_another_reign_ends_the_office_before_anything_is_admitted_under_it() {
    let mut lab = lab(Rules::all());
    lab.host(2).never_drains = true;
    let epoch = lab.office(2).in_office().expect("in office").epoch();
    let out = lab.give(2, Event::Granted { fence_gen: FenceGen(1) });
    assert_eq!(out[..2], [Effect::TripLatch { epoch }, Effect::LostOffice { epoch, why: LostWhy::Fenced }]);
    assert_eq!(comes_up(&mut lab), Effect::NexusRefused { nexus: 0 });
}

#[test]
fn without_its_rule_a_grant_of_another_reign_leaves_the_office() {
    let mut lab = lab(Rules::without(Rule::EndedBeforeAdmitted));
    lab.give(2, Event::Granted { fence_gen: FenceGen(1) });
    assert_eq!(lab.coordinators(), [2]);
}

#[test]
fn what_a_coordinator_grants_its_own_client_does_not_end_its_office() {
    let mut lab = lab(Rules::all());
    lab.give(
        2,
        Event::RequestFence { ticket: Ticket(8), client: client(2, 1), purpose: Purpose::Path, answered: true },
    );
    lab.run_for(1000);
    assert_eq!(lab.fence_gen(2), FenceGen(1));
    lab.give(2, Event::Granted { fence_gen: FenceGen(1) });
    assert_eq!(lab.coordinators(), [2]);
}

#[test]
fn a_nexus_that_could_not_read_its_slot_registers_anew_with_the_next_renewal() {
    let mut lab = lab(Rules::all());
    let (tag, _) = step(&lab.give(2, Event::NexusUp { nexus: 0 }));
    lab.give(2, Event::Scsi { tag, result: ScsiResult::Done });
    assert_eq!(lab.give(2, Event::OwnSlotVia { nexus: 0, slot: None })[0], Effect::NexusRefused { nexus: 0 });
    lab.run_for(1);
    let since = lab.now;
    lab.run_for(1000);
    let key = Key::new(9, client(2, 1), 0);
    let (tag, register) = step(&lab.acts(2, since));
    assert_eq!(register, FenceStep::Register { nexus: 0, key }, "once, as it was not answered yet");
    assert_eq!(reads_its_slot(&mut lab, tag), Effect::NexusGood { nexus: 0, fence_gen: FenceGen(0) });
}

#[test]
fn a_nexus_of_a_fenced_client_registers_anew_when_the_generation_is_granted() {
    let mut lab = lab(Rules::all());
    register_again_after_a_fence(&mut lab);
    let slot = lab.slots[&node(1)];
    lab.give(1, Event::OwnSlotVia { nexus: 1, slot: Some(slot) });
    let (tag, _) = step(&lab.give(1, Event::Granted { fence_gen: FenceGen(1) }));
    lab.give(1, Event::Scsi { tag, result: ScsiResult::Done });
    let out = lab.give(1, Event::OwnSlotVia { nexus: 1, slot: Some(slot) });
    assert_eq!(out[0], Effect::NexusGood { nexus: 1, fence_gen: FenceGen(1) });
}

#[test]
fn keys_tell_volume_node_incarnation_and_nexus_apart() {
    let key = Key::new(9, client(3, 0x1_2345), 7);
    assert_eq!(key, Key(0x0009_0031_2345_0007));
    assert!(key.belongs_to(9, client(3, 0x1_2345)));
    assert!(!key.belongs_to(8, client(3, 0x1_2345)));
    assert!(!key.belongs_to(9, client(3, 0x1_2346)));
    assert!(!key.belongs_to(9, client(4, 0x1_2345)));
}
