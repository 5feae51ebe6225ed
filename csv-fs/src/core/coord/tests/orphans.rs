//! Opens, and files without a name.

use super::util::*;
use crate::core::coord::*;
use crate::core::rules::Rules;
use crate::proto::*;

fn open(handle: u64) -> Request {
    Request::Open { ino: INO, open: OpenRequest { handle: HandleId(handle), flags: 0 } }
}

fn opened(w: &mut World, c: ClientId, handle: u64) {
    let (tag, effects) = w.call(c, open(handle));
    let found = ReadDone::Answer(Answer::Ok(Reply::Attr(attr(INO, 0))));
    assert_eq!(w.event(Event::ReadDone { op: read_op(&effects), done: found }), [done(tag)]);
}

fn unlinked(w: &mut World, c: ClientId) -> Vec<Effect> {
    let (_, effects) = w.call(c, Request::Unlink { parent: InodeNo::ROOT, name: b"f".to_vec() });
    let answer = Answer::Ok(Reply::Done);
    let done = StoreDone::Request { answer, orphaned: vec![INO], truncated: None };
    w.event(Event::StoreDone { op: store_op(&effects), done })
}

fn reaps(effects: &[Effect]) -> bool {
    effects.iter().any(|e| matches!(e, Effect::Store { ask: StoreAsk::Reap { ino: INO }, .. }))
}

fn release(handle: u64) -> Request {
    Request::Release { ino: INO, handle: HandleId(handle) }
}

#[test]
fn g70_an_orphan_is_freed_at_the_last_release_of_all_clients() {
    let mut w = World::new();
    let (a, b) = (client(1), client(2));
    w.bind(a);
    w.bind(b);
    opened(&mut w, a, 1);
    opened(&mut w, b, 1);
    assert!(!reaps(&unlinked(&mut w, a)));
    assert!(!reaps(&w.call(a, release(1)).1));
    let (_, effects) = w.call(b, release(1));
    assert!(reaps(&effects));
    let more = StoreDone::Reaped { more: true };
    let effects = w.event(Event::StoreDone { op: store_op(&effects), done: more });
    assert!(reaps(&effects), "in steps");
    assert_eq!(w.event(Event::StoreDone { op: store_op(&effects), done: StoreDone::Reaped { more: false } }), []);
}

#[test]
fn g71_an_orphan_is_freed_only_after_every_layout_on_it_came_back() {
    let mut w = World::new();
    let (a, b) = (client(1), client(2));
    w.bind(a);
    w.bind(b);
    let held = w.layout(a, BlockRange::new(0, 1), Want::Read, 4096);
    let effects = unlinked(&mut w, b);
    assert!(!reaps(&effects));
    callback(&effects);
    assert!(reaps(&w.give_back(a, &[held.id]).1));
}

#[test]
fn g72_no_orphan_is_freed_in_grace() {
    let a = client(1);
    let inherited =
        Inherited { sessions: vec![live(a)], orphans: vec![INO], truncated: vec![InodeNo(7)], ..Inherited::default() };
    let (mut w, effects) = World::inherit(inherited, Rules::all());
    assert!(!effects.iter().any(|e| matches!(e, Effect::Store { .. })));
    let open = Reassert::Open { ino: INO, handle: HandleId(1), flags: 0 };
    let effects = w.bind_with(a, vec![open]);
    assert!(!reaps(&effects), "a has it open");
    let tail = StoreAsk::ReapTail { ino: InodeNo(7) };
    assert!(effects.iter().any(|e| matches!(e, Effect::Store { ask, .. } if *ask == tail)));
    assert!(reaps(&w.call(a, release(1)).1));
}

#[test]
fn a_file_that_is_being_freed_is_not_opened_any_more() {
    let mut w = World::new();
    let a = client(1);
    w.bind(a);
    assert!(reaps(&unlinked(&mut w, a)));
    let (tag, effects) = w.call(a, open(1));
    assert_eq!(effects, [failed(tag, rustix::io::Errno::NOENT)]);
}

#[test]
fn an_open_that_fails_leaves_nothing_open() {
    let mut w = World::new();
    let a = client(1);
    w.bind(a);
    let (tag, effects) = w.call(a, open(1));
    let missing = ReadDone::Answer(Answer::Errno(2));
    let effects = w.event(Event::ReadDone { op: read_op(&effects), done: missing });
    assert_eq!(effects, [failed(tag, rustix::io::Errno::NOENT)]);
    assert!(reaps(&unlinked(&mut w, a)));
}

#[test]
fn a_goodbye_closes_what_was_open() {
    let mut w = World::new();
    let (a, b) = (client(1), client(2));
    w.bind(a);
    w.bind(b);
    opened(&mut w, a, 1);
    unlinked(&mut w, b);
    let (tag, effects) = w.call(a, Request::Goodbye);
    let op = store_op(&effects);
    assert_eq!(effects, [Effect::Store { op, ask: StoreAsk::EndSession { client: a } }]);
    let effects = w.event(Event::StoreDone { op, done: StoreDone::Done });
    assert_eq!(effects[0], done(tag));
    assert!(reaps(&effects));
    assert_eq!(w.coord.sessions().collect::<Vec<_>>(), [b]);
}

/// A client created and opened a file; the answer was lost with its coordinator. Another had unlinked the file meanwhile.
/// The next coordinator freed it when grace ended, a moment before the creation was sent again and replayed: the
/// application got a handle of nothing.
#[test]
fn a_file_whose_creation_was_not_heard_of_is_open_after_a_takeover() {
    let a = client(1);
    let answer = Answer::Ok(Reply::Created { attr: attr(INO, 0), opened: true });
    let session = DurableSession { answers: vec![(ordinary(3), 9, answer)], ..live(a) };
    let inherited = Inherited { sessions: vec![session], orphans: vec![INO], ..Inherited::default() };
    let creating = |seq| Reassert::Creating { handle: HandleId(4), slot: ordinary(3), seq };
    let (mut w, _) = World::inherit(inherited.clone(), Rules::all());
    assert!(!reaps(&w.bind_with(a, vec![creating(9)])), "a has it open");
    assert!(reaps(&w.call(a, release(4)).1));
    let (mut w, _) = World::inherit(inherited, Rules::all());
    assert!(reaps(&w.bind_with(a, vec![creating(10)])), "another creation, which did not take place");
}

fn made_without_a_name(w: &mut World, c: ClientId) {
    let open = Some(OpenRequest { handle: HandleId(1), flags: 0 });
    let Request::Create { parent, rdev, uid, gid, .. } = mkdir("") else { unreachable!("it makes a folder") };
    let (name, mode, umask, exclusive) = (Vec::new(), 0o100_600, 0, false);
    let request = Request::Create { parent, name, mode, umask, rdev, uid, gid, exclusive, open };
    let (_, effects) = w.call(c, request);
    let answer = Answer::Ok(Reply::Created { attr: attr(INO, 0), opened: true });
    let done = StoreDone::Request { answer, orphaned: vec![INO], truncated: None };
    let effects = w.event(Event::StoreDone { op: store_op(&effects), done });
    assert!(!reaps(&effects), "it is open");
}

#[test]
fn g73_a_file_without_a_name_is_freed_when_it_is_closed_unless_it_got_one() {
    let a = client(1);
    let mut w = World::new();
    w.bind(a);
    made_without_a_name(&mut w, a);
    assert!(reaps(&w.call(a, release(1)).1));
    let mut w = World::new();
    w.bind(a);
    made_without_a_name(&mut w, a);
    let (_, effects) = w.call(a, Request::Link { ino: INO, parent: InodeNo::ROOT, name: b"f".to_vec() });
    let linked = stored(Answer::Ok(Reply::Attr(attr(INO, 0))));
    w.event(Event::StoreDone { op: store_op(&effects), done: linked });
    assert!(!reaps(&w.call(a, release(1)).1));
}

/// A file was unlinked while a node had it open; the node was killed and never came back, and the space was never free
/// again.
#[test]
fn g74_a_node_that_stays_away_does_not_keep_a_file_without_a_name() {
    let mut w = World::new();
    let (a, b) = (client(1), client(2));
    w.bind(a);
    w.bind(b);
    opened(&mut w, b, 1);
    w.event(Event::ConnLost { conn: ConnId(1002) });
    assert_eq!(w.pass(LIMITS.recall * 30), [], "it is in nobody's way");
    unlinked(&mut w, a);
    let evicting = w.event(Event::Tick);
    assert!(reaps(&w.finish_eviction(b, EvictReason::RecallOverdue, &evicting)));
}

#[test]
fn a_node_that_comes_back_in_time_keeps_its_file_without_a_name() {
    let mut w = World::new();
    let (a, b) = (client(1), client(2));
    w.bind(a);
    w.bind(b);
    opened(&mut w, b, 1);
    unlinked(&mut w, a);
    w.event(Event::ConnLost { conn: ConnId(1002) });
    assert_eq!(w.pass(LIMITS.recall * 3 - std::time::Duration::from_millis(1)), []);
    let open = Reassert::Open { ino: INO, handle: HandleId(1), flags: 0 };
    w.bind_with(b, vec![open]);
    assert_eq!(w.pass(LIMITS.recall * 30), []);
    assert!(reaps(&w.call(b, release(1)).1));
}
