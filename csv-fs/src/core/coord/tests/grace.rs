//! Takeovers.

use std::time::Duration;

use block::shared::{FenceGen, Incarnation};

use super::util::*;
use crate::core::coord::*;
use crate::core::rules::{Rule, Rules};
use crate::proto::*;

fn heir(sessions: Vec<DurableSession>) -> (World, Vec<Effect>) {
    World::inherit(Inherited { sessions, ..Inherited::default() }, Rules::all())
}

fn exclusive(id: u64, range: BlockRange, uncommitted: Vec<Extent>) -> Reassert {
    Reassert::Layout {
        id: LayoutId(id),
        ino: INO,
        range,
        mode: LayoutMode::Exclusive,
        uncommitted,
        size: None,
        mtime: None,
    }
}

fn extent() -> Extent {
    Extent { file: FileBlock(4), disk: DiskBlock(900), len: BlockCount(2), state: ExtentState::Written, shared: false }
}

#[test]
fn g50_grace_ends_as_soon_as_everybody_has_come_back_and_holds_ordinary_calls_until_then() {
    let (a, b) = (client(1), client(2));
    let (mut w, effects) = heir(vec![live(a), live(b)]);
    assert_eq!(effects, [Effect::Report(Report::GraceBegan { waiting_for: 2 })]);
    w.bind_with(a, vec![]);
    let (_, effects) = w.call(a, mkdir("d"));
    assert_eq!(effects, [], "b may hold anything");
    let effects = w.bind_with(b, vec![]);
    assert_eq!(effects[0], Effect::Report(Report::GraceEnded));
    assert!(matches!(effects[1], Effect::Store { .. }));
    assert!(matches!(effects[2], Effect::AnswerBind { answer: BindAnswer::Bound { grace: false, .. }, .. }));
}

#[test]
fn g51_who_has_not_come_when_grace_ends_is_evicted_and_only_then_is_anything_given() {
    let (a, b) = (client(1), client(2));
    let (mut w, _) = heir(vec![live(a), live(b)]);
    w.bind_with(a, vec![]);
    w.call(a, mkdir("d"));
    let effects = w.pass(LIMITS.grace);
    assert!(w.coord.in_grace());
    let effects = w.finish_eviction(b, EvictReason::NotReasserted, &effects);
    assert!(effects.contains(&Effect::Report(Report::GraceEnded)));
    assert!(effects.iter().any(|e| matches!(e, Effect::Store { ask: StoreAsk::Request { .. }, .. })));
}

#[test]
fn g52_the_killed_coordinators_own_client_is_evicted_at_once_with_one_commit() {
    let (a, b) = (client(1), client(2));
    let dead = DurableSession { fate: Fate::Dead { fence_gen: FenceGen(4) }, ..live(a) };
    let (mut w, effects) = heir(vec![dead, live(b)]);
    let why = EvictReason::DeadAtTakeover;
    let ask = StoreAsk::Evicted { client: a, fence_gen: FenceGen(4), why };
    let op = store_op(&effects);
    assert_eq!(
        effects[1..],
        [Effect::Report(Report::Evicting { client: a, why }), Effect::Store { op, ask }],
        "its fence is proved already"
    );
    w.event(Event::StoreDone { op, done: StoreDone::Done });
    w.bind_with(b, vec![]);
    assert!(!w.coord.in_grace());
}

#[test]
fn g53_a_coordinator_that_lost_its_path_is_path_fenced_not_evicted() {
    let a = client(1);
    let alive = DurableSession { fate: Fate::PathFenced { fence_gen: FenceGen(4) }, ..live(a) };
    let (mut w, effects) = heir(vec![alive]);
    let ask = StoreAsk::PathFenced { client: a, fence_gen: FenceGen(4) };
    let op = store_op(&effects);
    assert_eq!(effects[1..], [Effect::Store { op, ask }]);
    w.event(Event::StoreDone { op, done: StoreDone::Done });
    let effects = w.bind_with(a, vec![exclusive(40, BlockRange::ALL, vec![])]);
    let [_, Effect::AnswerBind { answer: BindAnswer::Bound { fence_gen, .. }, .. }] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(*fence_gen, FenceGen(4));
    assert!(w.redirect(a, LayoutId(40), RedirectOp::Write).is_ok());
}

fn heir_that_hears_not(sessions: Vec<DurableSession>, silent: ClientId, since: Duration) -> (World, Vec<Effect>) {
    let unheard = [(silent.node, since)].into();
    World::inherit(Inherited { sessions, unheard, ..Inherited::default() }, Rules::all())
}

fn fenced_alive(c: ClientId) -> DurableSession {
    DurableSession { fate: Fate::PathFenced { fence_gen: FenceGen(4) }, ..live(c) }
}

#[test]
fn a_coordinator_that_was_fenced_alive_and_was_silent_for_longer_than_grace_is_evicted_with_one_commit() {
    let a = client(1);
    let (mut w, effects) = heir_that_hears_not(vec![fenced_alive(a)], a, LIMITS.grace);
    let why = EvictReason::Unheard;
    let op = store_op(&effects);
    let ask = StoreAsk::Evicted { client: a, fence_gen: FenceGen(4), why };
    assert_eq!(effects[1..], [Effect::Report(Report::Evicting { client: a, why }), Effect::Store { op, ask }]);
    let effects = w.event(Event::StoreDone { op, done: StoreDone::Done });
    assert!(effects.contains(&Effect::Report(Report::GraceEnded)), "{effects:?}");
}

#[test]
fn a_fenced_coordinator_that_was_silent_for_less_than_grace_is_awaited() {
    let a = client(1);
    let (mut w, effects) = heir_that_hears_not(vec![fenced_alive(a)], a, LIMITS.grace - Duration::from_millis(1));
    let op = store_op(&effects);
    assert_eq!(effects[1..], [Effect::Store { op, ask: StoreAsk::PathFenced { client: a, fence_gen: FenceGen(4) } }]);
    assert!(w.coord.in_grace());
    w.event(Event::StoreDone { op, done: StoreDone::Done });
    assert!(w.bind_with(a, vec![]).contains(&Effect::Report(Report::GraceEnded)));
}

#[test]
fn a_coordinator_that_gave_way_and_was_silent_for_longer_than_grace_is_evicted() {
    let a = client(1);
    let gave_way = DurableSession { fate: Fate::Resigned, ..live(a) };
    let (mut w, effects) = heir_that_hears_not(vec![gave_way.clone()], a, LIMITS.grace);
    let effects = w.finish_eviction(a, EvictReason::Unheard, &effects);
    assert!(effects.contains(&Effect::Report(Report::GraceEnded)), "{effects:?}");
    let (w, effects) = heir(vec![gave_way]);
    assert_eq!(effects, [Effect::Report(Report::GraceBegan { waiting_for: 1 })], "it is heard: a planned move");
    assert!(w.coord.in_grace());
}

#[test]
fn others_that_are_not_heard_get_all_of_grace() {
    let a = client(1);
    let (mut w, effects) = heir_that_hears_not(vec![live(a)], a, LIMITS.grace * 2);
    assert_eq!(effects, [Effect::Report(Report::GraceBegan { waiting_for: 1 })]);
    let effects = w.bind_with(a, vec![]);
    assert_eq!(effects[0], Effect::Report(Report::GraceEnded));
}

#[test]
fn g54_who_may_re_assert_is_decided_by_the_table_and_the_slot_alone() {
    let (a, b, c) = (client(1), client(2), client(3));
    let earlier = SlotSeen { incarnation: a.incarnation, fence_gen: FenceGen(GEN.0 - 1) };
    let set_back = DurableSession { slot: Some(earlier), ..live(a) };
    let reborn = DurableSession { slot: Some(SlotSeen { incarnation: Incarnation(8), fence_gen: GEN }), ..live(b) };
    let (mut w, effects) = heir(vec![set_back, reborn]);
    for victim in [a, b] {
        let why = EvictReason::SlotDisagrees;
        assert!(effects.contains(&Effect::Report(Report::Evicting { client: victim, why })));
    }
    let (tag, effects) = w.send_bind(c, vec![exclusive(40, BlockRange::ALL, vec![])]);
    assert!(
        matches!(&effects[..], [Effect::AnswerBind { tag: t, answer: BindAnswer::Evicted { .. } }] if *t == tag),
        "not in the table: {effects:?}"
    );
}

#[test]
fn a_fence_that_was_raised_and_not_committed_costs_a_client_nothing_and_is_done_anew() {
    let a = client(1);
    let raised = SlotSeen { incarnation: a.incarnation, fence_gen: FenceGen(GEN.0 + 1) };
    let (mut w, effects) = heir(vec![DurableSession { slot: Some(raised), ..live(a) }]);
    assert_eq!(effects, [Effect::Report(Report::GraceBegan { waiting_for: 1 })]);
    w.bind_with(a, vec![exclusive(40, BlockRange::ALL, vec![])]);
    assert!(w.coord.holds(a, LayoutId(40)));
    assert!(
        w.redirect(a, LayoutId(40), RedirectOp::Write).is_err(),
        "nothing redirected before this reign's own fence"
    );
    w.fence_path(a);
    assert!(w.redirect(a, LayoutId(40), RedirectOp::Write).is_ok());
}

#[test]
fn without_the_rule_a_stranger_re_asserts() {
    let inherited = Inherited { sessions: vec![live(client(1))], ..Inherited::default() };
    let (mut w, _) = World::inherit(inherited, Rules::without(Rule::ReassertBySessionTable));
    let stranger = client(3);
    w.bind_with(stranger, vec![exclusive(40, BlockRange::ALL, vec![])]);
    assert!(w.coord.holds(stranger, LayoutId(40)));
}

#[test]
fn g55_two_takeovers_in_a_row_do_not_cost_a_client_what_it_holds() {
    let a = client(1);
    let (mut first, _) = heir(vec![live(a)]);
    assert!(first.coord.in_grace(), "a has not come; this coordinator dies");
    first.event(Event::Stop { hint: None });
    let (mut second, _) = heir(vec![live(a)]);
    let id = (3 << 40) | 17;
    let effects = second.bind_with(a, vec![exclusive(id, BlockRange::ALL, vec![])]);
    let refused = effects.iter().find_map(|e| match e {
        Effect::AnswerBind { answer: BindAnswer::Bound { refused, .. }, .. } => Some(refused.clone()),
        _ => None,
    });
    assert_eq!(refused, Some(vec![]), "it last spoke to epoch 3");
    assert!(second.coord.holds(a, LayoutId(id)));
}

#[test]
fn g56_a_re_asserted_mapping_outside_the_grant_is_refused_and_evicts() {
    let a = client(1);
    let (mut w, _) = heir(vec![live(a)]);
    let (tag, effects) = w.send_bind(a, vec![exclusive(40, BlockRange::ALL, vec![extent()])]);
    let op = store_op(&effects);
    let ask = StoreAsk::Session { client: a, fence_gen: GEN, create: false, verify: vec![(INO, vec![extent()])] };
    assert_eq!(effects, [Effect::Store { op, ask }]);
    let reason = "block 900 is not granted".to_owned();
    let done = StoreDone::Session { grants: vec![], outside: Some(reason.clone()) };
    let effects = w.event(Event::StoreDone { op, done });
    assert_eq!(effects[0], Effect::AnswerBind { tag, answer: BindAnswer::Evicted { reason } });
    w.finish_eviction(a, EvictReason::OutsideGrant, &effects);
    assert!(!w.coord.holds(a, LayoutId(40)));
}

#[test]
fn g57_what_a_release_was_sent_for_is_held_again_only_if_the_release_is_not_stored() {
    let a = client(1);
    let releasing = |seq| Reassert::Releasing {
        id: LayoutId(40),
        ino: INO,
        range: BlockRange::ALL,
        mode: LayoutMode::Exclusive,
        slot: returns(0),
        seq,
    };
    let answers = vec![(returns(0), 6, Answer::Ok(Reply::Done))];
    let (mut done, _) = heir(vec![DurableSession { answers: answers.clone(), ..live(a) }]);
    done.bind_with(a, vec![releasing(6)]);
    assert!(!done.coord.holds(a, LayoutId(40)), "released: another may have had it since");
    let (mut undone, _) = heir(vec![DurableSession { answers, ..live(a) }]);
    undone.bind_with(a, vec![releasing(7)]);
    assert!(undone.coord.holds(a, LayoutId(40)), "the resent commit finds its layout");
    let commit = CommitBody { extents: vec![extent()], ..CommitBody::default() };
    let request = Request::Commit { ino: INO, commit, give_back: vec![LayoutId(40)] };
    let (tag, effects) = undone.call_as(a, returns(0), 7, request);
    let effects = undone.event(Event::StoreDone { op: store_op(&effects), done: stored(Answer::Ok(Reply::Done)) });
    assert_eq!(effects, [super::util::done(tag)]);
    assert!(!undone.coord.holds(a, LayoutId(40)));
}

#[test]
fn two_clients_cannot_re_assert_the_same_range() {
    let (a, b) = (client(1), client(2));
    let (mut w, _) = heir(vec![live(a), live(b)]);
    w.bind_with(a, vec![exclusive(40, BlockRange::ALL, vec![])]);
    let effects = w.bind_with(b, vec![exclusive(41, BlockRange::new(0, 1), vec![])]);
    let refused = effects.iter().find_map(|e| match e {
        Effect::AnswerBind { answer: BindAnswer::Bound { refused, .. }, .. } => Some(refused.clone()),
        _ => None,
    });
    assert_eq!(refused, Some(vec![LayoutId(41)]));
}

#[test]
fn the_return_table_is_served_in_grace() {
    let (a, b) = (client(1), client(2));
    let (mut w, _) = heir(vec![live(a), live(b)]);
    w.bind_with(a, vec![exclusive(40, BlockRange::ALL, vec![extent()])]);
    let commit = CommitBody { extents: vec![extent()], ..CommitBody::default() };
    let (_, effects) = w.call(a, Request::Commit { ino: INO, commit, give_back: vec![] });
    assert!(matches!(effects[..], [Effect::Store { .. }]));
}

#[test]
fn a_client_that_is_just_coming_when_grace_ends_is_not_evicted() {
    let a = client(1);
    let (mut w, _) = heir(vec![live(a)]);
    let (_, effects) = w.send_bind(a, vec![]);
    assert_eq!(w.pass(LIMITS.grace + Duration::from_secs(1)), []);
    let done = StoreDone::Session { grants: vec![], outside: None };
    let effects = w.event(Event::StoreDone { op: store_op(&effects), done });
    assert!(effects.contains(&Effect::Report(Report::GraceEnded)));
}
