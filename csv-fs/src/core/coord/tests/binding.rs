//! Binds.

use block::shared::Incarnation;

use super::util::*;
use crate::core::coord::*;
use crate::core::rules::{Rule, Rules};
use crate::proto::*;

fn bound(grace: bool, refused: Vec<LayoutId>) -> BindAnswer {
    BindAnswer::Bound {
        epoch: block::shared::Epoch(5),
        grace,
        grants: vec![],
        refused,
        fence_gen: GEN,
        verifier: Verifier { epoch: block::shared::Epoch(5), boot: 9, generation: 0 },
    }
}

#[test]
fn a_new_client_is_recorded_before_its_bind_is_answered() {
    let mut w = World::new();
    let a = client(1);
    let (tag, effects) = w.send_bind(a, vec![]);
    let ask = StoreAsk::Session { client: a, fence_gen: GEN, create: true, verify: vec![] };
    assert_eq!(effects, [Effect::Store { op: store_op(&effects), ask }]);
    let done = StoreDone::Session { grants: vec![], outside: None };
    let effects = w.event(Event::StoreDone { op: store_op(&effects), done });
    assert_eq!(effects, [Effect::AnswerBind { tag, answer: bound(false, vec![]) }]);
}

fn redirected_client_with_a_write_on_its_way(rules: Rules) -> (World, ClientId, GuardId, LayoutId) {
    let mut w = World::without(rules);
    let a = client(1);
    w.bind(a);
    let grant = w.layout(a, BlockRange::new(0, 1), Want::Write, 1 << 20);
    w.fence_path(a);
    let guard = w.redirect(a, grant.id, RedirectOp::Write).unwrap();
    (w, a, guard, grant.id)
}

fn still_held(id: LayoutId) -> Reassert {
    Reassert::Layout {
        id,
        ino: INO,
        range: BlockRange::ALL,
        mode: LayoutMode::Shared,
        uncommitted: vec![],
        size: None,
        mtime: None,
    }
}

#[test]
fn g10_a_bind_is_answered_only_after_redirected_requests_of_lower_binds_have_ended() {
    let (mut w, a, guard, id) = redirected_client_with_a_write_on_its_way(Rules::all());
    let queued =
        Redirect { volume: VOLUME, client: a, bind: Bind(1), layout: id, op: RedirectOp::Write, at: 0, len: 4096 };
    let (_, effects) = w.send_bind(a, vec![still_held(id)]);
    assert_eq!(effects, [], "one is on its way to the disk");
    assert_eq!(w.coord.redirect_begin(&queued), Err(RedirectAnswer::StaleBind), "one is queued: it is cancelled");
    let effects = w.event(Event::RedirectEnded { guard });
    assert!(matches!(effects[..], [Effect::Store { ask: StoreAsk::Session { .. }, .. }]));
    assert_eq!(w.redirect(a, id, RedirectOp::Write), Err(RedirectAnswer::StaleBind), "not bound yet");
    let done = StoreDone::Session { grants: vec![], outside: None };
    w.event(Event::StoreDone { op: store_op(&effects), done });
    assert!(w.redirect(a, id, RedirectOp::Write).is_ok());
}

#[test]
fn without_the_rule_a_bind_passes_a_redirected_write_by() {
    let (mut w, a, _, id) = redirected_client_with_a_write_on_its_way(Rules::without(Rule::BindCancelsOlder));
    let (_, effects) = w.send_bind(a, vec![still_held(id)]);
    assert!(matches!(effects[..], [Effect::Store { .. }]));
}

#[test]
fn a_second_bind_turns_the_first_away() {
    let mut w = World::new();
    let a = client(1);
    let (first, _) = w.send_bind(a, vec![]);
    let (_, effects) = w.send_bind(a, vec![]);
    assert!(effects.contains(&Effect::AnswerBind { tag: first, answer: BindAnswer::Busy }));
}

#[test]
fn a_bind_that_is_not_higher_is_turned_away() {
    let mut w = World::new();
    let a = client(1);
    w.bind(a);
    let mut request = w.bind_request(a, vec![]);
    request.bind = Bind(1);
    let tag = w.next_tag();
    let effects = w.event(Event::Bind { tag, conn: ConnId(1), request });
    assert_eq!(effects, [Effect::AnswerBind { tag, answer: BindAnswer::Busy }]);
}

#[test]
fn g11_what_only_one_side_knows_of_is_dropped_at_a_rebind() {
    let mut w = World::new();
    let (a, b) = (client(1), client(2));
    w.bind(a);
    w.bind(b);
    let lost = w.layout(a, BlockRange::new(0, 1), Want::Write, 1 << 20);
    let effects = w.bind_with(a, vec![still_held(LayoutId(77))]);
    let Effect::AnswerBind { answer, .. } = &effects[0] else { panic!("{effects:?}") };
    assert_eq!(*answer, bound(false, vec![LayoutId(77)]));
    assert!(!w.coord.holds(a, lost.id), "its answer never came through");
    let grant = w.layout(b, BlockRange::new(0, 1), Want::Exclusive, 1 << 20);
    assert_eq!(grant.range, BlockRange::ALL, "nobody is in the way");
}

#[test]
fn a_later_life_of_a_node_has_the_earlier_one_evicted_first() {
    let mut w = World::new();
    let a = client(1);
    w.bind(a);
    let reborn = ClientId { incarnation: Incarnation(8), ..a };
    let (tag, effects) = w.send_bind(reborn, vec![]);
    assert!(effects.contains(&Effect::AnswerBind { tag, answer: BindAnswer::Busy }));
    w.finish_eviction(a, EvictReason::Replaced, &effects);
    w.bind(reborn);
    let (tag, effects) = w.send_bind(a, vec![]);
    assert!(
        matches!(&effects[..], [Effect::AnswerBind { tag: t, answer: BindAnswer::Evicted { .. } }] if *t == tag),
        "the earlier life stays out: {effects:?}"
    );
}

#[test]
fn an_evicted_client_is_told_why() {
    let mut w = World::new();
    let a = client(1);
    w.bind(a);
    let effects = w.event(Event::ClientDead { client: a });
    w.finish_eviction(a, EvictReason::Dead, &effects);
    let (tag, effects) = w.send_bind(a, vec![]);
    let reason = EvictReason::Dead.to_string();
    assert_eq!(effects, [Effect::AnswerBind { tag, answer: BindAnswer::Evicted { reason } }]);
}

#[test]
fn g12_a_layout_that_was_given_to_a_connection_already_gone_is_not_held() {
    let mut w = World::new();
    let (a, b) = (client(1), client(2));
    w.bind(a);
    w.bind(b);
    let held = w.layout(b, BlockRange::new(0, 1), Want::Exclusive, 4096);
    let get = Request::LayoutGet { ino: INO, range: BlockRange::new(0, 1), want: Want::Exclusive };
    w.call_as(a, ordinary(9), 1, get.clone());
    w.bind(a);
    let (_, effects) = w.give_back(b, &[held.id]);
    let facts = || {
        let facts = LayoutFacts { extents: vec![], told_to: FileBlock(u64::MAX), size: 0, kill_privilege: false };
        ReadDone::Layout(facts)
    };
    w.event(Event::ReadDone { op: read_op(&effects), done: facts() });
    assert_eq!(w.coord.layouts(), 1, "let in, and told to the connection that is gone");
    let (_, effects) = w.call_as(a, ordinary(9), 1, get);
    w.event(Event::ReadDone { op: read_op(&effects), done: facts() });
    assert_eq!(w.coord.layouts(), 1, "the second answer is the one that counts");
}

/// The connection broke while the store was at its bind, and the node was never heard of again. It counted as connected for
/// ever: the file that it had open was never freed, and what was asked of it went into nothing.
#[test]
fn a_connection_that_breaks_while_its_bind_is_with_the_store_counts_as_broken() {
    let mut w = World::new();
    let (a, b) = (client(1), client(2));
    w.bind(a);
    w.bind(b);
    let (_, effects) = w.send_bind(a, vec![Reassert::Open { ino: INO, handle: HandleId(1), flags: 0 }]);
    w.event(Event::ConnLost { conn: ConnId(1001) });
    w.event(Event::StoreDone { op: store_op(&effects), done: StoreDone::Session { grants: vec![], outside: None } });
    let (_, effects) = w.call(b, Request::Unlink { parent: InodeNo::ROOT, name: b"f".to_vec() });
    let orphaned = StoreDone::Request { answer: Answer::Ok(Reply::Done), orphaned: vec![INO], truncated: None };
    w.event(Event::StoreDone { op: store_op(&effects), done: orphaned });
    let effects = w.pass(LIMITS.absence() + std::time::Duration::from_secs(1));
    let evicting = Report::Evicting { client: a, why: EvictReason::RecallOverdue };
    assert!(effects.contains(&Effect::Report(evicting)), "{effects:?}");
}
