//! Moves and the end of a reign.

use super::util::*;
use crate::core::coord::*;
use crate::core::rules::Rules;
use crate::proto::*;

#[test]
fn g80_a_drained_coordinator_has_nothing_on_its_way_to_the_disk() {
    let mut w = World::new();
    let a = client(1);
    w.bind(a);
    let held = w.layout(a, BlockRange::new(0, 1), Want::Write, 1 << 20);
    w.fence_path(a);
    let guard = w.redirect(a, held.id, RedirectOp::Write).unwrap();
    let (tag, effects) = w.call(a, mkdir("d"));
    let op = store_op(&effects);
    assert_eq!(w.event(Event::Drain { hint: None }), []);
    assert_eq!(w.redirect(a, held.id, RedirectOp::Write), Err(RedirectAnswer::StaleEpoch { hint: None }));
    let answer = Answer::Ok(Reply::Created { attr: attr(InodeNo(60), 0), opened: false });
    let effects = w.event(Event::StoreDone { op, done: stored(answer.clone()) });
    assert_eq!(effects, [Effect::Answer { tag, answer }], "what the store had is finished and said");
    assert_eq!(w.event(Event::RedirectEnded { guard }), [Effect::Drained]);
    assert_eq!(w.event(Event::Tick), [], "said once");
}

#[test]
fn g81_what_waits_is_sent_elsewhere_when_a_reign_ends() {
    let mut w = World::new();
    let (a, b) = (client(1), client(2));
    w.bind(a);
    w.bind(b);
    w.layout(a, BlockRange::new(0, 1), Want::Exclusive, 0);
    let (waits, _) = w.call(b, Request::LayoutGet { ino: INO, range: BlockRange::new(0, 1), want: Want::Read });
    let hint = Some(CoordinatorHint { epoch: block::shared::Epoch(6), node: b.node });
    let stale = Answer::StaleEpoch { hint: hint.clone() };
    let effects = w.event(Event::Drain { hint: hint.clone() });
    assert_eq!(effects, [Effect::Answer { tag: waits, answer: stale.clone() }, Effect::Drained]);
    let (tag, effects) = w.call_in(b, ordinary(1), mkdir("d"));
    assert_eq!(effects, [Effect::Answer { tag, answer: stale }]);
    let (tag, effects) = w.send_bind(a, vec![]);
    assert_eq!(effects, [Effect::AnswerBind { tag, answer: BindAnswer::NotCoordinator { hint } }]);
}

#[test]
fn g82_after_the_store_failed_nothing_is_acknowledged_not_even_what_it_may_have_committed() {
    let mut w = World::new();
    let a = client(1);
    w.bind(a);
    let (tag, effects) = w.call(a, mkdir("d"));
    let op = store_op(&effects);
    let stale = Answer::StaleEpoch { hint: None };
    let said = w.event(Event::StoreFailed);
    assert_eq!(said, [Effect::Report(Report::StoreFailed), Effect::Answer { tag, answer: stale }, Effect::Drained]);
    let answer = Answer::Ok(Reply::Created { attr: attr(InodeNo(60), 0), opened: false });
    assert_eq!(w.event(Event::StoreDone { op, done: stored(answer) }), []);
    assert_eq!(w.coord.next_deadline(), None);
}

#[test]
fn g83_a_move_leaves_layouts_alone_and_recalls_nothing() {
    let mut w = World::new();
    let a = client(1);
    w.bind(a);
    let held = w.layout(a, BlockRange::new(0, 1), Want::Exclusive, 0);
    assert_eq!(w.event(Event::Drain { hint: None }), [Effect::Drained]);
    let (mut next, _) = World::inherit(Inherited { sessions: vec![live(a)], ..Inherited::default() }, Rules::all());
    let again = Reassert::Layout {
        id: held.id,
        ino: INO,
        range: held.range,
        mode: held.mode,
        uncommitted: vec![],
        size: Some(77),
        mtime: None,
    };
    next.bind_with(a, vec![again]);
    assert!(next.coord.holds(a, held.id));
}

#[test]
fn an_eviction_that_a_move_interrupts_is_left_for_the_next_reign() {
    let mut w = World::new();
    let a = client(1);
    w.bind(a);
    let effects = w.event(Event::ClientDead { client: a });
    assert_eq!(w.event(Event::Drain { hint: None }), []);
    let effects = w.event(Event::StoreDone { op: store_op(&effects), done: StoreDone::Done });
    assert_eq!(effects, [Effect::Drained], "no fence is begun that nobody would wait for");
}

#[test]
fn nothing_is_served_before_the_start() {
    let epoch = block::shared::Epoch(5);
    let verifier = Verifier { epoch, boot: 9, generation: 0 };
    let mut coord = Coord::new(CoordConfig { epoch, verifier, limits: LIMITS }, Rules::all());
    let mut out = Vec::new();
    let call =
        Call { volume: VOLUME, client: client(1), bind: Bind(1), slot: ordinary(0), seq: 1, request: Request::Statfs };
    coord.handle(crate::core::time::Now(0), Event::Call { tag: Tag(1), call }, &mut out);
    assert_eq!(out, [Effect::Answer { tag: Tag(1), answer: Answer::StaleEpoch { hint: None } }]);
}
