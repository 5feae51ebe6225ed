//! Granted space is called back before ENOSPC is said.

use rustix::io::Errno;

use super::util::*;
use crate::core::coord::*;
use crate::proto::*;

fn full() -> StoreDone {
    stored(Answer::Errno(Errno::NOSPC.raw_os_error()))
}

fn grant() -> Request {
    Request::Grant { blocks: BlockCount(256) }
}

fn two() -> (World, ClientId, ClientId) {
    let mut w = World::new();
    let (a, b) = (client(1), client(2));
    w.bind(a);
    w.bind(b);
    (w, a, b)
}

#[test]
fn g90_grants_are_recalled_before_enospc_is_said() {
    let (mut w, a, b) = two();
    let (tag, effects) = w.call(a, grant());
    let effects = w.event(Event::StoreDone { op: store_op(&effects), done: full() });
    let (id, to, ask) = callback(&effects);
    assert_eq!((to, ask, effects.len()), (b, CallbackAsk::RecallGrant, 1));
    w.event(Event::CallbackDone { id, answer: Some(CallbackAnswer::Accepted) });
    let ranges = vec![DiskRange { start: DiskBlock(1), len: BlockCount(9) }];
    let (back, effects) = w.call(b, Request::GrantReturn { ranges });
    let effects = w.event(Event::StoreDone { op: store_op(&effects), done: stored(Answer::Ok(Reply::Done)) });
    assert_eq!(effects[0], done(back));
    let granted = Answer::Ok(Reply::Granted(vec![DiskRange { start: DiskBlock(1), len: BlockCount(9) }]));
    let effects = w.event(Event::StoreDone { op: store_op(&effects), done: stored(granted.clone()) });
    assert_eq!(effects, [Effect::Answer { tag, answer: granted }]);
}

#[test]
fn when_nobody_has_anything_to_give_enospc_is_said() {
    let (mut w, a, _) = two();
    let (tag, effects) = w.call(a, grant());
    let effects = w.event(Event::StoreDone { op: store_op(&effects), done: full() });
    let (id, ..) = callback(&effects);
    let effects = w.event(Event::CallbackDone { id, answer: Some(CallbackAnswer::NotHeld) });
    let effects = w.event(Event::StoreDone { op: store_op(&effects), done: full() });
    assert_eq!(effects, [failed(tag, Errno::NOSPC)], "once, not for ever");
}

#[test]
fn a_client_that_says_nothing_holds_enospc_up_for_a_bounded_time_only() {
    let (mut w, a, _) = two();
    let (_, effects) = w.call(a, grant());
    w.event(Event::StoreDone { op: store_op(&effects), done: full() });
    assert_eq!(w.pass(LIMITS.recall / 2), []);
    let effects = w.pass(LIMITS.recall);
    assert!(matches!(effects[..], [Effect::Store { ask: StoreAsk::Request { .. }, .. }]), "{effects:?}");
}

#[test]
fn files_that_are_being_freed_are_waited_for() {
    let mut w = World::new();
    let a = client(1);
    w.bind(a);
    let (_, effects) = w.call_in(a, ordinary(1), Request::Unlink { parent: InodeNo::ROOT, name: b"big".to_vec() });
    let orphaned = StoreDone::Request { answer: Answer::Ok(Reply::Done), orphaned: vec![INO], truncated: None };
    let freeing = w.event(Event::StoreDone { op: store_op(&effects), done: orphaned });
    let (_, effects) = w.call(a, grant());
    assert_eq!(w.event(Event::StoreDone { op: store_op(&effects), done: full() }), []);
    let freed = StoreDone::Reaped { more: false };
    let effects = w.event(Event::StoreDone { op: store_op(&freeing), done: freed });
    assert!(matches!(effects[..], [Effect::Store { ask: StoreAsk::Request { .. }, .. }]), "{effects:?}");
}
