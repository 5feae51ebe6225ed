//! Path fences and the way back.

use block::shared::FenceGen;

use super::util::*;
use crate::core::coord::*;
use crate::core::rules::{Rule, Rules};
use crate::proto::*;

fn one(rules: Rules) -> (World, ClientId, LayoutId) {
    let mut w = World::without(rules);
    let a = client(1);
    w.bind(a);
    let id = w.layout(a, BlockRange::new(0, 1), Want::Write, 1 << 20).id;
    (w, a, id)
}

#[test]
fn g60_redirected_writes_are_taken_only_after_the_path_was_fenced() {
    let (mut w, a, id) = one(Rules::all());
    assert_eq!(w.redirect(a, id, RedirectOp::Write), Err(RedirectAnswer::PathNotFenced));
    assert_eq!(w.redirect(a, id, RedirectOp::Flush), Err(RedirectAnswer::PathNotFenced));
    let (tag, effects) = w.call(a, Request::PathLost { nothing_in_flight: false });
    assert_eq!(effects, [failed(tag, rustix::io::Errno::AGAIN)], "its own requests have not ended");
    w.fence_path(a);
    assert!(w.redirect(a, id, RedirectOp::Write).is_ok());
}

#[test]
fn reads_are_taken_before_the_path_fence() {
    let (mut w, a, id) = one(Rules::all());
    assert!(w.redirect(a, id, RedirectOp::Read).is_ok());
}

#[test]
fn without_the_rule_redirected_writes_pass_stuck_ones() {
    let (mut w, a, id) = one(Rules::without(Rule::AbortBeforeRedirect));
    let (tag, effects) = w.call(a, Request::PathLost { nothing_in_flight: false });
    assert_eq!(effects, [ok(tag, Reply::PathFenced { fence_gen: GEN })]);
    assert!(w.redirect(a, id, RedirectOp::Write).is_ok());
}

#[test]
fn g61_redirected_io_needs_a_layout_of_that_very_client() {
    let (mut w, a, _) = one(Rules::all());
    w.fence_path(a);
    assert_eq!(w.redirect(a, LayoutId(1), RedirectOp::Read), Err(RedirectAnswer::NoLayout));
    assert!(w.redirect(a, LayoutId(1), RedirectOp::Flush).is_ok(), "a flush is under none");
}

#[test]
fn a_repeated_path_lost_is_answered_with_the_same_generation() {
    let (mut w, a, _) = one(Rules::all());
    w.fence_path(a);
    let (tag, effects) = w.call(a, Request::PathLost { nothing_in_flight: true });
    assert_eq!(effects, [ok(tag, Reply::PathFenced { fence_gen: FenceGen(GEN.0 + 1) })]);
}

#[test]
fn a_path_fence_that_fails_leaves_the_client_where_it_was() {
    let (mut w, a, id) = one(Rules::all());
    let (tag, _) = w.call(a, Request::PathLost { nothing_in_flight: true });
    let purpose = FencePurpose::Path;
    let effects = w.event(Event::FenceDone { client: a, purpose, result: Err("no".into()) });
    assert_eq!(effects.last(), Some(&failed(tag, rustix::io::Errno::AGAIN)));
    assert_eq!(w.redirect(a, id, RedirectOp::Write), Err(RedirectAnswer::PathNotFenced));
}

#[test]
fn g62_a_path_is_back_only_after_redirected_requests_have_ended_and_takes_no_new_ones() {
    let (mut w, a, id) = one(Rules::all());
    w.fence_path(a);
    let guard = w.redirect(a, id, RedirectOp::Write).unwrap();
    let (tag, effects) = w.call(a, Request::PathBack { fence_gen: FenceGen(GEN.0 + 1) });
    assert_eq!(effects, []);
    assert_eq!(w.redirect(a, id, RedirectOp::Write), Err(RedirectAnswer::PathNotFenced));
    let effects = w.event(Event::RedirectEnded { guard });
    assert_eq!(effects, [Effect::Report(Report::PathBack { client: a }), done(tag)]);
}

#[test]
fn a_path_under_an_older_generation_does_not_come_back() {
    let (mut w, a, _) = one(Rules::all());
    w.fence_path(a);
    let (tag, effects) = w.call(a, Request::PathBack { fence_gen: GEN });
    assert_eq!(effects, [failed(tag, rustix::io::Errno::STALE)]);
}

#[test]
fn a_fence_that_ends_after_an_eviction_began_makes_nobody_redirected() {
    let (mut w, a, _) = one(Rules::all());
    w.call(a, Request::PathLost { nothing_in_flight: true });
    w.event(Event::ClientDead { client: a });
    let result = Ok(FenceGen(GEN.0 + 1));
    assert_eq!(w.event(Event::FenceDone { client: a, purpose: FencePurpose::Path, result }), []);
}

/// Somebody who wanted this node's office raised its generation and gave up. The node could not come back under the
/// one it was granted, and nobody granted the other.
#[test]
fn a_client_whose_slot_was_raised_behind_the_table_is_fenced_anew_when_it_comes_back() {
    let (mut w, a, id) = one(Rules::all());
    w.fence_path(a);
    fenced_anew_when_it_comes_back(&mut w, a);
    assert!(w.redirect(a, id, RedirectOp::Write).is_ok(), "redirected as before");
}

/// The same in a reign that has not fenced it. A node on which programs only looked at names stayed redirected for good.
#[test]
fn a_client_that_an_earlier_reign_fenced_is_fenced_anew_if_its_slot_was_raised_behind_the_table() {
    let (mut w, a, _) = one(Rules::all());
    fenced_anew_when_it_comes_back(&mut w, a);
    let (tag, effects) = w.call(a, Request::PathBack { fence_gen: FenceGen(GEN.0 + 3) });
    assert_eq!(effects, [Effect::Report(Report::PathBack { client: a }), done(tag)]);
}

fn fenced_anew_when_it_comes_back(w: &mut World, a: ClientId) {
    let raised = FenceGen(GEN.0 + 2);
    let (tag, effects) = w.call(a, Request::PathBack { fence_gen: raised });
    assert_eq!(effects, [Effect::Fence { client: a, purpose: FencePurpose::Path }]);
    let fence_gen = FenceGen(GEN.0 + 3);
    let effects = w.event(Event::FenceDone { client: a, purpose: FencePurpose::Path, result: Ok(fence_gen) });
    let [Effect::Store { op, ask: StoreAsk::PathFenced { .. } }] = effects[..] else { panic!("{effects:?}") };
    let effects = w.event(Event::StoreDone { op, done: StoreDone::Done });
    assert_eq!(effects, [Effect::Report(Report::PathFenced { client: a }), ok(tag, Reply::PathFenced { fence_gen })]);
}
