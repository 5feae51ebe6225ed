//! Exact attributes.

use std::time::Duration;

use super::util::*;
use crate::core::coord::*;
use crate::proto::*;

const MIB: u64 = 1 << 20;

/// The first sync of reign 5.
const FIRST: u64 = (5 << 40) + 1;

fn writer_and_reader() -> (World, ClientId, ClientId, LayoutId) {
    let mut w = World::new();
    let (a, b) = (client(1), client(2));
    w.bind(a);
    w.bind(b);
    let grant = w.layout(a, BlockRange::ALL, Want::Exclusive, 0);
    (w, a, b, grant.id)
}

fn commit(size: u64, sync: u64) -> Request {
    Request::Commit {
        ino: INO,
        commit: CommitBody { size: Some(size), sync, ..CommitBody::default() },
        give_back: vec![],
    }
}

fn getattr() -> Effect {
    Effect::Read { op: OpId(0), ask: ReadAsk::Request(Request::Getattr { ino: INO }) }
}

fn same_read(effects: &[Effect]) -> bool {
    matches!((&effects[0], getattr()), (Effect::Read { ask, .. }, Effect::Read { ask: want, .. }) if *ask == want)
}

#[test]
fn g30_attributes_are_read_after_every_exclusive_holder_has_committed() {
    let (mut w, a, b, _) = writer_and_reader();
    let (tag, effects) = w.call(b, Request::Getattr { ino: INO });
    let (_, to, ask) = callback(&effects);
    assert_eq!((to, ask, effects.len()), (a, CallbackAsk::Sync { ino: INO, number: FIRST }, 1));
    let (_, effects) = w.call(a, commit(MIB, FIRST));
    let effects = w.event(Event::StoreDone { op: store_op(&effects), done: stored(Answer::Ok(Reply::Done)) });
    assert!(same_read(&effects), "{effects:?}");
    let answer = Answer::Ok(Reply::Attr(attr(INO, MIB)));
    let effects = w.event(Event::ReadDone { op: read_op(&effects), done: ReadDone::Answer(answer.clone()) });
    assert_eq!(effects, [Effect::Answer { tag, answer }]);
}

#[test]
fn g31_a_commit_that_was_on_its_way_before_the_sync_does_not_answer_it() {
    let (mut w, a, b, _) = writer_and_reader();
    let (_, early) = w.call(a, commit(4096, 0));
    w.call(b, Request::Getattr { ino: INO });
    let effects = w.event(Event::StoreDone { op: store_op(&early), done: stored(Answer::Ok(Reply::Done)) });
    let (_, _, ask) = callback(&effects);
    assert_eq!(ask, CallbackAsk::Sync { ino: INO, number: FIRST }, "asked again, nobody was let through: {effects:?}");
    assert!(!effects.iter().any(|e| matches!(e, Effect::Read { .. })));
}

#[test]
fn who_asks_while_a_sync_is_outstanding_waits_for_the_next() {
    let (mut w, a, b, _) = writer_and_reader();
    let c = client(3);
    w.bind(c);
    w.call(b, Request::Getattr { ino: INO });
    let (_, effects) = w.call(c, Request::Getattr { ino: INO });
    assert_eq!(effects, []);
    let (_, effects) = w.call(a, commit(MIB, FIRST));
    let effects = w.event(Event::StoreDone { op: store_op(&effects), done: stored(Answer::Ok(Reply::Done)) });
    let (id, _, ask) = callback(&effects);
    assert_eq!(ask, CallbackAsk::Sync { ino: INO, number: FIRST + 1 });
    assert_eq!(effects.iter().filter(|e| matches!(e, Effect::Read { .. })).count(), 1, "b");
    let effects = w.event(Event::CallbackDone { id, answer: Some(CallbackAnswer::NotHeld) });
    assert!(same_read(&effects), "c: nothing was uncommitted");
}

#[test]
fn a_returned_layout_answers_the_sync() {
    let (mut w, a, b, id) = writer_and_reader();
    w.call(b, Request::Getattr { ino: INO });
    let (_, effects) = w.give_back(a, &[id]);
    assert!(effects.iter().any(|e| matches!(e, Effect::Read { .. })));
}

#[test]
fn a_holder_asks_itself_nothing() {
    let (mut w, a, ..) = writer_and_reader();
    let (_, effects) = w.call_in(a, ordinary(1), Request::Getattr { ino: INO });
    assert!(same_read(&effects));
}

#[test]
fn g32_a_lookup_that_finds_a_file_held_elsewhere_looks_again_after_a_sync() {
    let (mut w, a, b, _) = writer_and_reader();
    let (tag, effects) = w.call(b, Request::Lookup { parent: InodeNo::ROOT, name: b"f".to_vec() });
    let found = ReadDone::Answer(Answer::Ok(Reply::Attr(attr(INO, 0))));
    let effects = w.event(Event::ReadDone { op: read_op(&effects), done: found });
    callback(&effects);
    let (_, effects) = w.call(a, commit(MIB, FIRST));
    let effects = w.event(Event::StoreDone { op: store_op(&effects), done: stored(Answer::Ok(Reply::Done)) });
    let exact = Answer::Ok(Reply::Attr(attr(INO, MIB)));
    let effects = w.event(Event::ReadDone { op: read_op(&effects), done: ReadDone::Answer(exact.clone()) });
    assert_eq!(effects, [Effect::Answer { tag, answer: exact }]);
}

#[test]
fn g32a_a_name_whose_file_was_replaced_during_a_sync_is_not_said_to_be_gone() {
    let (mut w, a, b, _) = writer_and_reader();
    let (tag, effects) = w.call(b, Request::Lookup { parent: InodeNo::ROOT, name: b"f".to_vec() });
    let found = Answer::Ok(Reply::Attr(attr(INO, 0)));
    let effects = w.event(Event::ReadDone { op: read_op(&effects), done: ReadDone::Answer(found.clone()) });
    callback(&effects);
    let (_, effects) = w.call(a, commit(MIB, FIRST));
    let effects = w.event(Event::StoreDone { op: store_op(&effects), done: stored(Answer::Ok(Reply::Done)) });
    let gone = ReadDone::Answer(Answer::Errno(rustix::io::Errno::NOENT.raw_os_error()));
    let effects = w.event(Event::ReadDone { op: read_op(&effects), done: gone });
    assert_eq!(effects, [Effect::Answer { tag, answer: found }]);
}

#[test]
fn g33_a_lookup_that_read_before_a_holder_returned_looks_again() {
    let (mut w, a, b, id) = writer_and_reader();
    let (_, looked) = w.call(b, Request::Lookup { parent: InodeNo::ROOT, name: b"f".to_vec() });
    w.give_back(a, &[id]);
    let stale = ReadDone::Answer(Answer::Ok(Reply::Attr(attr(INO, 0))));
    let effects = w.event(Event::ReadDone { op: read_op(&looked), done: stale });
    assert!(same_read(&effects), "its last commit may have come after the view: {effects:?}");
}

#[test]
fn directory_entries_carry_no_attributes_that_may_be_old() {
    let (mut w, _, b, _) = writer_and_reader();
    let (tag, effects) = w.call(b, Request::Readdir { dir: InodeNo::ROOT, after: 0, max_bytes: 4096, plus: true });
    let entry = |ino, attr| DirEntry { ino, kind: 0o100000, cookie: 3, name: b"f".to_vec(), attr };
    let other = InodeNo(7);
    let entries = vec![entry(INO, Some(attr(INO, 0))), entry(other, Some(attr(other, 5)))];
    let read = ReadDone::Answer(Answer::Ok(Reply::Entries { entries, end: true }));
    let effects = w.event(Event::ReadDone { op: read_op(&effects), done: read });
    let entries = vec![entry(INO, None), entry(other, Some(attr(other, 5)))];
    assert_eq!(effects, [ok(tag, Reply::Entries { entries, end: true })]);
}

#[test]
fn a_holder_that_does_not_commit_in_time_is_evicted_and_the_question_answered_without_it() {
    let (mut w, a, b, _) = writer_and_reader();
    w.call(b, Request::Getattr { ino: INO });
    let effects = w.pass(LIMITS.recall + Duration::from_millis(1));
    let effects = w.finish_eviction(a, EvictReason::RecallOverdue, &effects);
    assert!(effects.iter().any(|e| matches!(e, Effect::Read { .. })), "{effects:?}");
}

#[test]
fn a_create_that_finds_a_file_held_elsewhere_answers_with_exact_attributes() {
    let (mut w, _, b, _) = writer_and_reader();
    let request = Request::Create {
        parent: InodeNo::ROOT,
        name: b"f".to_vec(),
        mode: 0o100644,
        umask: 0,
        rdev: 0,
        uid: 0,
        gid: 0,
        exclusive: false,
        open: None,
    };
    let (tag, effects) = w.call(b, request);
    let found = Answer::Ok(Reply::Created { attr: attr(INO, 0), opened: false });
    let effects = w.event(Event::StoreDone { op: store_op(&effects), done: stored(found) });
    let (id, ..) = callback(&effects);
    let effects = w.event(Event::CallbackDone { id, answer: Some(CallbackAnswer::NotHeld) });
    let exact = ReadDone::Answer(Answer::Ok(Reply::Attr(attr(INO, MIB))));
    let effects = w.event(Event::ReadDone { op: read_op(&effects), done: exact });
    assert_eq!(effects, [ok(tag, Reply::Created { attr: attr(INO, MIB), opened: false })]);
}

#[test]
fn g34_a_sync_of_an_earlier_reign_answers_none_of_this() {
    let (mut w, a, b, _) = writer_and_reader();
    w.call(b, Request::Getattr { ino: INO });
    let of_reign_4 = (4 << 40) + 999;
    let (_, effects) = w.call(a, commit(MIB, of_reign_4));
    let effects = w.event(Event::StoreDone { op: store_op(&effects), done: stored(Answer::Ok(Reply::Done)) });
    assert!(!effects.iter().any(|e| matches!(e, Effect::Read { .. })), "{effects:?}");
}
