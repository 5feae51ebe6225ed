//! Request slots.

use super::util::*;
use crate::core::coord::*;
use crate::core::rules::{Rule, Rules};
use crate::proto::*;

fn created() -> Answer {
    Answer::Ok(Reply::Created { attr: attr(InodeNo(50), 0), opened: false })
}

#[test]
fn g01_nothing_is_answered_before_it_is_committed() {
    let mut w = World::new();
    let a = client(1);
    w.bind(a);
    let (tag, effects) = w.call(a, mkdir("d"));
    let request = mkdir("d");
    assert_eq!(
        effects,
        [Effect::Store {
            op: store_op(&effects),
            ask: StoreAsk::Request { client: a, slot: ordinary(0), seq: 1, request }
        }]
    );
    let effects = w.event(Event::StoreDone { op: store_op(&effects), done: stored(created()) });
    assert_eq!(effects, [Effect::Answer { tag, answer: created() }]);
}

#[test]
fn g02_a_resend_of_an_answered_durable_request_gets_the_stored_answer() {
    let mut w = World::new();
    let a = client(1);
    w.bind(a);
    let (_, effects) = w.call(a, mkdir("d"));
    w.event(Event::StoreDone { op: store_op(&effects), done: stored(created()) });
    let (tag, effects) = w.call_as(a, ordinary(0), 1, mkdir("d"));
    assert_eq!(effects, [Effect::Answer { tag, answer: created() }]);
}

#[test]
fn without_stored_answers_a_resend_is_executed_twice() {
    let mut w = World::without(Rules::without(Rule::StoredAnswers));
    let a = client(1);
    w.bind(a);
    let (_, effects) = w.call(a, mkdir("d"));
    w.event(Event::StoreDone { op: store_op(&effects), done: stored(created()) });
    let (_, effects) = w.call_as(a, ordinary(0), 1, mkdir("d"));
    assert!(matches!(effects[..], [Effect::Store { .. }]));
}

#[test]
fn g03_a_resend_of_a_request_in_progress_waits_with_it() {
    let mut w = World::new();
    let a = client(1);
    w.bind(a);
    let (first, effects) = w.call(a, mkdir("d"));
    let op = store_op(&effects);
    let (second, effects) = w.call_as(a, ordinary(0), 1, mkdir("d"));
    assert_eq!(effects, []);
    let effects = w.event(Event::StoreDone { op, done: stored(created()) });
    assert_eq!(
        effects,
        [Effect::Answer { tag: first, answer: created() }, Effect::Answer { tag: second, answer: created() }]
    );
}

#[test]
fn g04_what_is_not_durable_runs_again_when_resent() {
    let mut w = World::new();
    let a = client(1);
    w.bind(a);
    let (_, effects) = w.call(a, Request::Statfs);
    let space = Answer::Ok(Reply::Space(Space { blocks: 9, free: 8, files: 1, files_free: 8 }));
    w.event(Event::ReadDone { op: read_op(&effects), done: ReadDone::Answer(space) });
    let (_, effects) = w.call_as(a, ordinary(0), 1, Request::Statfs);
    assert!(matches!(effects[..], [Effect::Read { ask: ReadAsk::Request(Request::Statfs), .. }]));
}

#[test]
fn a_sequence_that_is_neither_last_nor_next_is_a_defect() {
    let mut w = World::new();
    let a = client(1);
    w.bind(a);
    let (_, effects) = w.call(a, mkdir("d"));
    w.event(Event::StoreDone { op: store_op(&effects), done: stored(created()) });
    let (tag, effects) = w.call_as(a, ordinary(0), 7, mkdir("e"));
    assert_eq!(effects, [Effect::Answer { tag, answer: Answer::BadSequence { expected: 2 } }]);
}

#[test]
fn g05_answers_stored_by_an_earlier_reign_are_replayed_and_later_numbers_are_new() {
    let a = client(1);
    let session = DurableSession { answers: vec![(ordinary(0), 9, created())], ..live(a) };
    let (mut w, _) = World::inherit(Inherited { sessions: vec![session], ..Inherited::default() }, Rules::all());
    w.bind_with(a, vec![]);
    let (tag, effects) = w.call_as(a, ordinary(0), 9, mkdir("d"));
    assert_eq!(effects, [Effect::Answer { tag, answer: created() }]);
    let (_, effects) = w.call_as(a, ordinary(0), 12, mkdir("e"));
    assert!(matches!(effects[..], [Effect::Store { .. }]), "10 and 11 left no answer: they changed nothing durable");
    let (tag, effects) = w.call_as(a, ordinary(0), 8, mkdir("e"));
    assert_eq!(effects, [Effect::Answer { tag, answer: Answer::BadSequence { expected: 12 } }]);
}

#[test]
fn g06_the_open_of_a_replayed_create_is_noted_again() {
    let a = client(1);
    let answer = Answer::Ok(Reply::Created { attr: attr(INO, 0), opened: true });
    let session = DurableSession { answers: vec![(ordinary(0), 9, answer.clone())], ..live(a) };
    let inherited = Inherited { sessions: vec![session, live(client(2))], ..Inherited::default() };
    let (mut w, _) = World::inherit(inherited, Rules::all());
    w.bind_with(a, vec![]);
    w.bind_with(client(2), vec![]);
    let request = Request::Create {
        parent: InodeNo::ROOT,
        name: b"f".to_vec(),
        mode: 0o100644,
        umask: 0,
        rdev: 0,
        uid: 0,
        gid: 0,
        exclusive: true,
        open: Some(OpenRequest { handle: HandleId(4), flags: 0 }),
    };
    let (tag, effects) = w.call_as(a, ordinary(0), 9, request);
    assert_eq!(effects, [Effect::Answer { tag, answer }]);
    let (tag, effects) = w.call(client(2), Request::Unlink { parent: InodeNo::ROOT, name: b"f".to_vec() });
    let unlinked = StoreDone::Request { answer: Answer::Ok(Reply::Done), orphaned: vec![INO], truncated: None };
    let effects = w.event(Event::StoreDone { op: store_op(&effects), done: unlinked });
    assert_eq!(effects, [done(tag)], "open at a: not freed");
}

#[test]
fn calls_of_another_bind_or_of_nobody_are_stale() {
    let mut w = World::new();
    let a = client(1);
    w.bind(a);
    let call = |bind, c| Call { volume: VOLUME, client: c, bind, slot: ordinary(0), seq: 1, request: Request::Statfs };
    for call in [call(Bind(9), a), call(Bind(1), client(2))] {
        let tag = w.next_tag();
        assert_eq!(w.event(Event::Call { tag, call }), [Effect::Answer { tag, answer: Answer::StaleBind }]);
    }
}
