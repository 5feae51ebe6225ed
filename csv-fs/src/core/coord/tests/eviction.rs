//! Evictions.

use std::time::Duration;

use block::shared::FenceGen;

use super::util::*;
use crate::core::coord::*;
use crate::core::rules::{Rule, Rules};
use crate::proto::*;

#[test]
fn g40_an_eviction_is_committed_before_the_fence_and_again_after_it() {
    let mut w = World::new();
    let a = client(1);
    w.bind(a);
    let effects = w.event(Event::ClientDead { client: a });
    let why = EvictReason::Dead;
    let op = store_op(&effects);
    let marks = Effect::Store { op, ask: StoreAsk::Evicting { client: a, why } };
    assert_eq!(effects, [Effect::Report(Report::Evicting { client: a, why }), marks]);
    let effects = w.event(Event::StoreDone { op, done: StoreDone::Done });
    assert_eq!(effects, [Effect::Fence { client: a, purpose: FencePurpose::Eviction }]);
    assert_eq!(w.fenced(a, why), [Effect::Report(Report::Evicted { client: a })]);
}

#[test]
fn g41_a_fence_that_fails_is_tried_again_and_nothing_is_given_away_meanwhile() {
    let mut w = World::new();
    let (a, b) = (client(1), client(2));
    w.bind(a);
    w.bind(b);
    w.layout(a, BlockRange::new(0, 1), Want::Exclusive, 0);
    let effects = w.event(Event::ClientDead { client: a });
    w.event(Event::StoreDone { op: store_op(&effects), done: StoreDone::Done });
    let purpose = FencePurpose::Eviction;
    let result = Err("the disk does not answer".to_owned());
    w.event(Event::FenceDone { client: a, purpose, result });
    let (_, effects) = w.call(b, Request::LayoutGet { ino: INO, range: BlockRange::new(0, 1), want: Want::Read });
    assert_eq!(effects, [], "still a's");
    assert_eq!(w.pass(Duration::from_millis(999)), []);
    assert_eq!(w.pass(Duration::from_millis(1)), [Effect::Fence { client: a, purpose }]);
    let effects = w.fenced(a, EvictReason::Dead);
    assert!(effects.iter().any(|e| matches!(e, Effect::Read { .. })));
}

#[test]
fn g42_what_the_victim_had_redirected_ends_before_it_counts_as_evicted() {
    let mut w = World::new();
    let a = client(1);
    w.bind(a);
    let held = w.layout(a, BlockRange::new(0, 1), Want::Write, 1 << 20);
    w.fence_path(a);
    let guard = w.redirect(a, held.id, RedirectOp::Write).unwrap();
    let effects = w.event(Event::ClientDead { client: a });
    assert_eq!(w.redirect(a, held.id, RedirectOp::Write), Err(RedirectAnswer::StaleBind), "nothing new");
    w.event(Event::StoreDone { op: store_op(&effects), done: StoreDone::Done });
    let purpose = FencePurpose::Eviction;
    assert_eq!(w.event(Event::FenceDone { client: a, purpose, result: Ok(FenceGen(8)) }), []);
    let effects = w.event(Event::RedirectEnded { guard });
    let why = EvictReason::Dead;
    let ask = StoreAsk::Evicted { client: a, fence_gen: FenceGen(8), why };
    assert_eq!(effects, [Effect::Store { op: store_op(&effects), ask }]);
}

#[test]
fn what_a_victim_waits_for_is_answered_and_what_the_store_has_runs_out() {
    let mut w = World::new();
    let (a, b) = (client(1), client(2));
    w.bind(a);
    w.bind(b);
    w.layout(b, BlockRange::new(0, 1), Want::Exclusive, 0);
    let (tag, _) =
        w.call_in(a, ordinary(0), Request::LayoutGet { ino: INO, range: BlockRange::new(0, 1), want: Want::Read });
    let (made, effects) = w.call_in(a, ordinary(1), mkdir("d"));
    let op = store_op(&effects);
    let effects = w.event(Event::ClientDead { client: a });
    assert!(effects.contains(&Effect::Answer { tag, answer: Answer::StaleBind }));
    let answer = Answer::Ok(Reply::Created { attr: attr(InodeNo(60), 0), opened: false });
    let effects = w.event(Event::StoreDone { op, done: stored(answer.clone()) });
    assert_eq!(effects, [Effect::Answer { tag: made, answer }]);
}

#[test]
fn g43_an_eviction_that_a_dead_coordinator_began_is_finished_before_anything_is_served() {
    let (a, b) = (client(1), client(2));
    let begun = DurableSession { state: DurableState::Evicting, ..live(a) };
    let inherited = Inherited { sessions: vec![begun, live(b)], ..Inherited::default() };
    let (mut w, effects) = World::inherit(inherited, Rules::all());
    assert!(effects.contains(&Effect::Fence { client: a, purpose: FencePurpose::Eviction }));
    w.bind_with(b, vec![]);
    let (_, effects) = w.call(b, Request::LayoutGet { ino: INO, range: BlockRange::new(0, 1), want: Want::Exclusive });
    assert_eq!(effects, [], "a may still be writing there");
    let (tag, effects) = w.send_bind(a, vec![]);
    assert_eq!(effects, [Effect::AnswerBind { tag, answer: BindAnswer::Busy }]);
    let effects = w.fenced(a, EvictReason::Unfinished);
    assert!(effects.contains(&Effect::Report(Report::GraceEnded)));
    assert!(effects.iter().any(|e| matches!(e, Effect::Read { .. })), "now b: {effects:?}");
}

#[test]
fn without_the_rule_a_half_evicted_client_is_forgotten() {
    let begun = DurableSession { state: DurableState::Evicting, ..live(client(1)) };
    let inherited = Inherited { sessions: vec![begun], ..Inherited::default() };
    let (w, effects) = World::inherit(inherited, Rules::without(Rule::FinishEvicting));
    assert!(!effects.iter().any(|e| matches!(e, Effect::Fence { .. })));
    assert!(!w.coord.in_grace());
}

#[test]
fn a_callback_answered_by_another_incarnation_has_this_one_evicted() {
    let mut w = World::new();
    let (a, b) = (client(1), client(2));
    w.bind(a);
    w.bind(b);
    w.layout(a, BlockRange::new(0, 1), Want::Exclusive, 0);
    let (_, effects) = w.call(b, Request::Getattr { ino: INO });
    let (id, ..) = callback(&effects);
    let effects = w.event(Event::CallbackDone { id, answer: Some(CallbackAnswer::WrongIncarnation) });
    assert!(effects.contains(&Effect::Report(Report::Evicting { client: a, why: EvictReason::Replaced })));
}
