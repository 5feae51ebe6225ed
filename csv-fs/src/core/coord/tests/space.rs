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

fn give_back(start: u64) -> Request {
    Request::GrantReturn { ranges: vec![DiskRange { start: DiskBlock(start), len: BlockCount(9) }] }
}

/// A client returns what it has, the store agreeing; what that brings about besides its answer.
fn returned(w: &mut World, c: ClientId) -> Vec<Effect> {
    let (back, effects) = w.call(c, give_back(1));
    let mut effects = w.event(Event::StoreDone { op: store_op(&effects), done: stored(Answer::Ok(Reply::Done)) });
    assert_eq!(effects.remove(0), done(back));
    effects
}

fn tries_again(effects: &[Effect], client: ClientId) -> bool {
    matches!(effects, [Effect::Store { ask: StoreAsk::Request { client: c, .. }, .. }] if *c == client)
}

/// An allocation found no space; what another node gave back for it was granted to a third request that had come later, for
/// a file's blocks ahead, and ENOSPC was said while nobody used them.
#[test]
fn a_grant_that_comes_later_does_not_take_what_is_called_back_for_another() {
    let (mut w, a, b) = two();
    let (_, effects) = w.call(a, Request::Fallocate { ino: INO, offset: 0, len: 4096, keep_size: true });
    let effects = w.event(Event::StoreDone { op: store_op(&effects), done: full() });
    let asked: Vec<CallbackId> =
        effects.iter().filter_map(|e| if let Effect::Callback { id, .. } = e { Some(*id) } else { None }).collect();
    assert_eq!(asked.len(), 2, "its own node may keep space too: {effects:?}");
    let (ahead, effects) = w.call(b, grant());
    assert_eq!(effects, [], "it waits");
    for id in asked {
        w.event(Event::CallbackDone { id, answer: Some(CallbackAnswer::Accepted) });
    }
    assert_eq!(returned(&mut w, a), []);
    let effects = returned(&mut w, b);
    let [Effect::Store { op: first, ask: StoreAsk::Request { client: c, .. } }, Effect::Store { op: second, .. }] =
        effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(c, a, "in the order in which they came");
    w.event(Event::StoreDone { op: first, done: stored(Answer::Ok(Reply::Done)) });
    let granted = Answer::Ok(Reply::Granted(vec![]));
    let effects = w.event(Event::StoreDone { op: second, done: stored(granted.clone()) });
    assert_eq!(effects, [Effect::Answer { tag: ahead, answer: granted }]);
}

/// The same, but the other node's grant had been executed before, and the recall overtook its answer: the node returned
/// what it had, then got more, and kept that.
#[test]
fn a_client_whose_grant_crosses_the_recall_is_asked_again() {
    let (mut w, a, b) = two();
    let (tag, effects) = w.call(a, grant());
    let effects = w.event(Event::StoreDone { op: store_op(&effects), done: full() });
    let (id, ..) = callback(&effects);
    w.event(Event::CallbackDone { id, answer: Some(CallbackAnswer::Draining) });
    assert_eq!(returned(&mut w, b), [], "more is on its way to it");
    let (id, to, ask) = callback(&w.pass(LIMITS.recall / 8));
    assert_eq!((to, ask), (b, CallbackAsk::RecallGrant));
    assert_eq!(returned(&mut w, b), [], "its return may come before its answer");
    let effects = w.event(Event::CallbackDone { id, answer: Some(CallbackAnswer::Accepted) });
    assert!(tries_again(&effects, a), "{effects:?}");
    let effects = w.event(Event::StoreDone { op: store_op(&effects), done: full() });
    assert_eq!(effects, [failed(tag, Errno::NOSPC)]);
    assert_eq!(w.coord.next_deadline(), None, "nothing is called back any more");
}

/// Two nodes ask for space, each with nothing to give: each waited for the other's answer for as long as a recall may take.
#[test]
fn a_client_that_waits_for_space_itself_is_not_waited_for() {
    let (mut w, a, b) = two();
    let (tag, of_a) = w.call(a, grant());
    let (_, of_b) = w.call(b, grant());
    let (from_b, to, _) = callback(&w.event(Event::StoreDone { op: store_op(&of_a), done: full() }));
    assert_eq!(to, b);
    let (from_a, to, _) = callback(&w.event(Event::StoreDone { op: store_op(&of_b), done: full() }));
    assert_eq!(to, a);
    w.event(Event::CallbackDone { id: from_b, answer: Some(CallbackAnswer::Draining) });
    w.event(Event::CallbackDone { id: from_a, answer: Some(CallbackAnswer::Draining) });
    let effects = returned(&mut w, b);
    assert!(tries_again(&effects, a), "{effects:?}");
    assert_eq!(returned(&mut w, a), [], "what it asked for may come now");
    let effects = w.event(Event::StoreDone { op: store_op(&effects), done: full() });
    assert_eq!(effects, [failed(tag, Errno::NOSPC)]);
    let (id, ..) = callback(&w.pass(LIMITS.recall / 8));
    w.event(Event::CallbackDone { id, answer: Some(CallbackAnswer::Accepted) });
    assert!(tries_again(&returned(&mut w, a), b));
}

/// A recall that could not be delivered counted as answered, and ENOSPC was said while that node kept what it had.
#[test]
fn a_client_that_cannot_be_reached_is_asked_when_it_has_come_back() {
    let (mut w, a, b) = two();
    let (_, effects) = w.call(a, grant());
    let (id, ..) = callback(&w.event(Event::StoreDone { op: store_op(&effects), done: full() }));
    w.event(Event::ConnLost { conn: ConnId(1002) });
    assert_eq!(w.event(Event::CallbackDone { id, answer: None }), []);
    let (id, to, ask) = callback(&w.bind_with(b, vec![]));
    assert_eq!((to, ask), (b, CallbackAsk::RecallGrant));
    w.event(Event::CallbackDone { id, answer: Some(CallbackAnswer::Accepted) });
    assert!(tries_again(&returned(&mut w, b), a));
}

/// Who came while space was being called back for another may need what a node has got since.
#[test]
fn who_comes_while_space_is_called_back_has_it_called_back_anew() {
    let (mut w, a, b) = two();
    let create =
        |name: &str| Request::Symlink { parent: InodeNo::ROOT, name: name.into(), target: vec![b'x'], uid: 0, gid: 0 };
    let (_, first) = w.call_in(a, ordinary(1), create("one"));
    let (_, second) = w.call_in(a, ordinary(2), create("two"));
    let (id, ..) = callback(&w.event(Event::StoreDone { op: store_op(&first), done: full() }));
    assert_eq!(w.event(Event::StoreDone { op: store_op(&second), done: full() }), []);
    w.event(Event::CallbackDone { id, answer: Some(CallbackAnswer::Accepted) });
    let effects = returned(&mut w, b);
    let (id, to, _) = callback(&effects);
    assert_eq!((to, effects.len()), (b, 2), "the next recall, and the first tries again: {effects:?}");
    w.event(Event::CallbackDone { id, answer: Some(CallbackAnswer::Accepted) });
    assert!(tries_again(&returned(&mut w, b), a));
}

/// A volume was full and its office moved: the answer of the store came when nothing was called back any more, and ENOSPC
/// was said beside everything that other nodes had been granted.
#[test]
fn enospc_that_is_found_while_the_office_is_given_up_is_left_to_the_next_reign() {
    let (mut w, a, _) = two();
    let (tag, effects) = w.call(a, grant());
    w.event(Event::Drain { hint: None });
    let effects = w.event(Event::StoreDone { op: store_op(&effects), done: full() });
    assert_eq!(effects[0], Effect::Answer { tag, answer: Answer::StaleEpoch { hint: None } });
}

/// What a client has that is being evicted was not waited for: it is free after the fence.
#[test]
fn a_client_that_is_being_evicted_is_waited_for_before_enospc_is_said() {
    let (mut w, a, b) = two();
    let evicting = w.event(Event::ClientDead { client: b });
    let (tag, effects) = w.call(a, grant());
    assert_eq!(w.event(Event::StoreDone { op: store_op(&effects), done: full() }), []);
    assert_eq!(w.pass(LIMITS.recall * 2), [], "the fence takes its time");
    let effects = w.finish_eviction(b, EvictReason::Dead, &evicting);
    let again: Vec<Effect> = effects.into_iter().filter(|e| matches!(e, Effect::Store { .. })).collect();
    assert!(tries_again(&again, a), "{again:?}");
    let effects = w.event(Event::StoreDone { op: store_op(&again), done: full() });
    assert_eq!(effects, [failed(tag, Errno::NOSPC)]);
}

#[test]
fn a_fence_that_does_not_succeed_holds_enospc_up_for_a_bounded_time_only() {
    let (mut w, a, b) = two();
    w.event(Event::ClientDead { client: b });
    let (_, effects) = w.call(a, grant());
    w.event(Event::StoreDone { op: store_op(&effects), done: full() });
    assert!(tries_again(&w.pass(LIMITS.recall + LIMITS.fence), a));
}

/// A node was killed; nothing else recalled anything of it, so all that it was granted was lost to the others.
#[test]
fn who_was_granted_space_and_says_nothing_is_evicted_before_enospc_is_said() {
    let (mut w, a, b) = two();
    let (_, effects) = w.call(b, grant());
    let granted = stored(Answer::Ok(Reply::Granted(vec![DiskRange { start: DiskBlock(1), len: BlockCount(9) }])));
    w.event(Event::StoreDone { op: store_op(&effects), done: granted });
    w.event(Event::ConnLost { conn: ConnId(1002) });
    let (_, effects) = w.call(a, grant());
    assert_eq!(w.event(Event::StoreDone { op: store_op(&effects), done: full() }), [], "it cannot be asked");
    assert_eq!(w.pass(LIMITS.recall / 2), []);
    let evicting = w.pass(LIMITS.recall / 2);
    let effects = w.finish_eviction(b, EvictReason::RecallOverdue, &evicting);
    let again: Vec<Effect> = effects.into_iter().filter(|e| matches!(e, Effect::Store { .. })).collect();
    assert!(tries_again(&again, a), "{again:?}");
}

/// Metadata was suspended while a node's return waited for its commit: that is not the node's silence.
#[test]
fn who_has_sent_its_space_back_is_not_evicted_while_the_store_takes_its_time() {
    let (mut w, a, b) = two();
    let (_, effects) = w.call(b, grant());
    let granted = stored(Answer::Ok(Reply::Granted(vec![DiskRange { start: DiskBlock(1), len: BlockCount(9) }])));
    w.event(Event::StoreDone { op: store_op(&effects), done: granted });
    let (_, effects) = w.call(a, grant());
    let (id, ..) = callback(&w.event(Event::StoreDone { op: store_op(&effects), done: full() }));
    w.event(Event::CallbackDone { id, answer: Some(CallbackAnswer::Accepted) });
    let (_, back) = w.call(b, give_back(1));
    assert_eq!(w.pass(LIMITS.recall * 2), []);
    let effects = w.event(Event::StoreDone { op: store_op(&back), done: stored(Answer::Ok(Reply::Done)) });
    assert!(tries_again(&effects[1..], a), "{effects:?}");
}

/// A grant had found no space when its client was evicted; it waited for space that others gave back, and was then executed
/// for a client that was gone: space that nobody would ever use, or an allocation whose program had been told EIO.
#[test]
fn what_an_evicted_client_asked_for_does_not_wait_for_space() {
    let (mut w, a, b) = two();
    let (tag, asked) = w.call(a, grant());
    let evicting = w.event(Event::ClientDead { client: a });
    let effects = w.event(Event::StoreDone { op: store_op(&asked), done: full() });
    assert_eq!(effects, [Effect::Answer { tag, answer: Answer::StaleBind }]);
    w.finish_eviction(a, EvictReason::Dead, &evicting);
    assert_eq!(w.coord.next_deadline(), None, "nothing is called back for it from {b}");
}

/// Two requests found no space one after the other; the second waited for the next answer of a node that then ended its
/// session in order, and was asked for space nevertheless, until the time for that was over.
#[test]
fn a_client_that_said_goodbye_is_not_asked_for_space_again() {
    let mut w = World::new();
    let (a, b, c) = (client(1), client(2), client(3));
    for one in [a, b, c] {
        w.bind(one);
    }
    let (_, first) = w.call(a, grant());
    let (_, second) = w.call(c, grant());
    let effects = w.event(Event::StoreDone { op: store_op(&first), done: full() });
    let to_c = |e: &Effect| match e {
        Effect::Callback { id, client, .. } if *client == c => Some(*id),
        _ => None,
    };
    let from_c = effects.iter().find_map(to_c).expect("c is asked");
    w.event(Event::CallbackDone { id: from_c, answer: Some(CallbackAnswer::NotHeld) });
    let effects = w.event(Event::StoreDone { op: store_op(&second), done: full() });
    let (from_a, ..) = callback(&effects);
    w.event(Event::CallbackDone { id: from_a, answer: Some(CallbackAnswer::NotHeld) });
    let (tag, effects) = w.call(b, Request::Goodbye);
    let effects = w.event(Event::StoreDone { op: store_op(&effects), done: StoreDone::Done });
    assert_eq!(effects[0], done(tag));
    assert_eq!(effects.len(), 3, "both try again at once: {effects:?}");
}
