//! The SCSI kind: one fence of a node at a time, and what is done where one was begun and not finished.

use super::lab::{Lab, client, node};
use super::scsi::{lab, step};
use crate::core::office::*;
use crate::core::rules::{Rule, Rules};
use block::shared::FenceGen;

const RIGHT: ScsiResult = ScsiResult::Reservation { right_type: true };

fn key() -> Key {
    Key::new(9, client(1, 1), 0)
}

/// Coordinator 2 wants node 1 fenced.
fn wanted(lab: &mut Lab) {
    let client = client(1, 1);
    lab.give(2, Event::RequestFence { ticket: Ticket(7), client, purpose: Purpose::Eviction, answered: false });
}

/// The last SCSI step that it asks for.
fn asked(lab: &mut Lab) -> Option<(Tag, FenceStep)> {
    let steps = lab.acts(2, Now(0)).into_iter();
    steps.filter_map(|e| if let Effect::Scsi { tag, step } = e { Some((tag, step)) } else { None }).last()
}

/// READ KEYS is out: one fence has begun.
fn begun(lab: &mut Lab) -> Tag {
    wanted(lab);
    lab.run_for(1);
    reads_keys(lab)
}

fn reads_keys(lab: &mut Lab) -> Tag {
    let (tag, step) = asked(lab).expect("a step");
    assert_eq!(step, FenceStep::ReadKeys);
    tag
}

fn answer(lab: &mut Lab, tag: Tag, result: ScsiResult) -> (Tag, FenceStep) {
    step(&lab.give(2, Event::Scsi { tag, result }))
}

/// How the fence ended, within a moment.
fn ended(lab: &mut Lab) -> Option<Result<FenceProof, FenceFailed>> {
    lab.run_for(5);
    let acts = lab.acts(2, Now(0)).into_iter();
    acts.filter_map(|e| if let Effect::FenceDone { result, .. } = e { Some(result) } else { None }).last()
}

/// Another node's mark is put into the slot of node 1, with another raise; node 3 is not heard.
fn marked_by_another(lab: &mut Lab) {
    let slot = lab.slots[&node(1)];
    let fence_gen = FenceGen(slot.fence_gen.0 + 1);
    let mark = Some(Mark { by: node(3), incarnation: slot.incarnation, fence_gen });
    lab.slots.insert(node(1), SlotView { fence_gen, mark, ..slot.next(4711) });
    lab.run_for(300);
}

fn unmark(lab: &mut Lab) {
    let slot = lab.slots[&node(1)];
    lab.slots.insert(node(1), SlotView { mark: None, ..slot.next(4712) });
}

#[test]
fn anothers_fence_is_waited_for_and_that_it_was_finished_is_believed() {
    let mut lab = lab(Rules::all());
    marked_by_another(&mut lab);
    wanted(&mut lab);
    lab.run_for(200);
    assert_eq!((asked(&mut lab), lab.fence_gen(1)), (None, FenceGen(1)), "it waits, and raises nothing");
    unmark(&mut lab);
    lab.run_for(300);
    assert_eq!(lab.fence_gen(1), FenceGen(2));
    let tag = reads_keys(&mut lab);
    let (tag, _) = answer(&mut lab, tag, ScsiResult::Keys(Vec::new()));
    let out = lab.give(2, Event::Scsi { tag, result: RIGHT });
    assert!(!out.iter().any(|e| matches!(e, Effect::Scsi { .. })), "without a reset: {out:#?}");
    let proof = ended(&mut lab).expect("ends").expect("proved");
    assert_eq!((proof.fence_gen(), lab.slots[&node(1)].mark), (FenceGen(2), None));
}

#[test]
fn a_fence_that_was_begun_and_never_finished_is_followed_by_a_reset_of_the_unit() {
    let mut lab = lab(Rules::all());
    marked_by_another(&mut lab);
    wanted(&mut lab);
    lab.run_for(1500);
    assert_eq!(
        lab.slots[&node(1)].mark.map(|m| (m.by, m.fence_gen)),
        Some((node(2), FenceGen(2))),
        "it goes on over it"
    );
    let tag = reads_keys(&mut lab);
    let (tag, _) = answer(&mut lab, tag, ScsiResult::Keys(Vec::new()));
    let (tag, reset) = answer(&mut lab, tag, RIGHT);
    assert_eq!((reset, ended(&mut lab)), (FenceStep::ResetUnit, None), "its keys are gone, which proves nothing");
    lab.give(2, Event::Scsi { tag, result: ScsiResult::Done });
    assert!(ended(&mut lab).expect("ends").is_ok());
}

#[test]
fn without_its_rule_keys_that_are_gone_are_the_proof() {
    let mut lab = lab(Rules::without(Rule::AnsweredPreempt));
    marked_by_another(&mut lab);
    let tag = begun(&mut lab);
    let (tag, _) = answer(&mut lab, tag, ScsiResult::Keys(Vec::new()));
    lab.give(2, Event::Scsi { tag, result: RIGHT });
    assert!(ended(&mut lab).expect("ends").is_ok());
}

/// READ KEYS shows a key, and what PREEMPT AND ABORT of it has come to is lost.
fn lost(lab: &mut Lab) -> Tag {
    let tag = begun(lab);
    let (tag, preempt) = answer(lab, tag, ScsiResult::Keys(vec![key()]));
    assert_eq!(preempt, FenceStep::PreemptAndAbort { victim: key() });
    lab.give(2, Event::Scsi { tag, result: ScsiResult::Failed });
    lab.run_for(100);
    reads_keys(lab)
}

#[test]
fn a_preemption_whose_answer_was_lost_is_followed_by_a_reset_where_its_key_is_gone() {
    let mut lab = lab(Rules::all());
    let tag = lost(&mut lab);
    let (tag, _) = answer(&mut lab, tag, ScsiResult::Keys(Vec::new()));
    assert_eq!(answer(&mut lab, tag, RIGHT).1, FenceStep::ResetUnit);
}

#[test]
fn a_preemption_whose_answer_was_lost_is_made_once_more_where_its_key_is_still_there() {
    let mut lab = lab(Rules::all());
    let tag = lost(&mut lab);
    let (tag, _) = answer(&mut lab, tag, ScsiResult::Keys(vec![key()]));
    let (tag, _) = answer(&mut lab, tag, ScsiResult::Done);
    let (tag, _) = answer(&mut lab, tag, ScsiResult::Keys(Vec::new()));
    lab.give(2, Event::Scsi { tag, result: RIGHT });
    assert!(ended(&mut lab).expect("ends").is_ok(), "without a reset");
}

/// Node 3 has waited for long enough, and has raised over this fence's mark: it may just be taking keys away.
#[test]
fn a_fence_whose_mark_was_raised_over_begins_again() {
    let mut lab = lab(Rules::all());
    let tag = begun(&mut lab);
    let (tag, _) = answer(&mut lab, tag, ScsiResult::Keys(Vec::new()));
    let slot = lab.slots[&node(1)];
    let mark = Some(Mark { by: node(3), incarnation: slot.incarnation, fence_gen: FenceGen(2) });
    lab.slots.insert(node(1), SlotView { fence_gen: FenceGen(2), mark, ..slot.next(4711) });
    lab.give(2, Event::Scsi { tag, result: RIGHT });
    assert_eq!(ended(&mut lab), None);
    unmark(&mut lab);
    lab.run_for(300);
    assert_eq!(lab.slots[&node(1)].mark.map(|m| (m.by, m.fence_gen)), Some((node(2), FenceGen(3))));
    reads_keys(&mut lab);
}

#[test]
fn a_fence_that_nobody_wants_any_more_takes_its_mark_out() {
    let mut lab = lab(Rules::all());
    let tag = begun(&mut lab);
    let (tag, _) = answer(&mut lab, tag, ScsiResult::Keys(vec![key()]));
    lab.give(2, Event::OwnPath { ok: false });
    assert_eq!(ended(&mut lab), Some(Err(FenceFailed::NotInOffice)));
    assert!(lab.slots[&node(1)].mark.is_some(), "what it has begun is not answered");
    lab.give(2, Event::Scsi { tag, result: ScsiResult::Done });
    lab.run_for(5);
    assert_eq!(lab.slots[&node(1)].mark, None);
}

#[test]
fn a_fence_that_nobody_wants_any_more_leaves_its_mark_where_something_is_in_doubt() {
    let mut lab = lab(Rules::all());
    let tag = begun(&mut lab);
    let (tag, _) = answer(&mut lab, tag, ScsiResult::Keys(vec![key()]));
    lab.give(2, Event::OwnPath { ok: false });
    lab.give(2, Event::Scsi { tag, result: ScsiResult::Failed });
    lab.run_for(50);
    assert_eq!(lab.slots[&node(1)].mark.map(|m| m.by), Some(node(2)));
}

#[test]
fn the_next_life_of_a_node_keeps_the_mark_of_a_fence_that_was_not_finished() {
    let mut lab = lab(Rules::all());
    lab.kill(1, 0);
    marked_by_another(&mut lab);
    let mark = lab.slots[&node(1)].mark;
    lab.start(1);
    lab.run_for(1000);
    assert_eq!(lab.slots[&node(1)].incarnation, client(1, 2).incarnation);
    assert!(mark.is_some() && lab.slots[&node(1)].mark == mark);
    // And the fence of the life before is waited for, too.
    wanted(&mut lab);
    lab.run_for(1500);
    assert_eq!(lab.slots[&node(1)].mark.map(|m| (m.by, m.incarnation)), Some((node(2), client(1, 1).incarnation)));
    let tag = reads_keys(&mut lab);
    let (tag, _) = answer(&mut lab, tag, ScsiResult::Keys(Vec::new()));
    assert_eq!(answer(&mut lab, tag, RIGHT).1, FenceStep::ResetUnit);
}
