//! File locks at the coordinator.

use std::time::Duration;

use rustix::io::Errno;

use super::util::*;
use crate::core::coord::*;
use crate::core::rules::{Rule, Rules};
use crate::proto::*;

pub(super) const SPACE: LockSpace = LockSpace::Record;

pub(super) fn own(owner: u64, start: u64, end: u64, mode: LockMode) -> OwnLock {
    OwnLock { owner, handle: HandleId(owner), pid: 77, range: ByteRange { start, end }, mode }
}

pub(super) fn write(owner: u64, start: u64, end: u64) -> OwnLock {
    own(owner, start, end, LockMode::Write)
}

pub(super) fn read(owner: u64, start: u64, end: u64) -> OwnLock {
    own(owner, start, end, LockMode::Read)
}

pub(super) fn take(lock: OwnLock, wait: Option<u64>) -> Request {
    Request::Locks(LockRequest::Take { ino: INO, space: SPACE, lock, wait: wait.map(WaitId), weaken: true })
}

pub(super) fn drop_all(owner: u64) -> Request {
    Request::Locks(LockRequest::Drop { ino: INO, space: SPACE, owner, range: ByteRange::ALL })
}

pub(super) fn held(bind: u64, locks: &[OwnLock], last: bool) -> Request {
    let locks = locks.iter().map(|lock| PlacedLock { ino: INO, space: SPACE, lock: *lock }).collect();
    Request::Locks(LockRequest::Held { bind: Bind(bind), locks, last })
}

fn waits(tag: Tag) -> Effect {
    ok(tag, Reply::Locks(LockReply::Waits))
}

fn refused(tag: Tag, locks: Vec<PlacedLock>) -> Effect {
    ok(tag, Reply::Locks(LockReply::Refused(locks)))
}

fn placed(lock: OwnLock) -> PlacedLock {
    PlacedLock { ino: INO, space: SPACE, lock }
}

/// A client that is bound and has opened the file under the handles of these owners.
pub(super) fn opened(w: &mut World, node: u8, owners: &[u64]) -> ClientId {
    let c = client(node);
    w.bind(c);
    owners.iter().for_each(|owner| open(w, c, *owner));
    c
}

fn open(w: &mut World, c: ClientId, handle: u64) {
    let open = OpenRequest { handle: HandleId(handle), flags: 2 };
    let (_, effects) = w.call(c, Request::Open { ino: INO, open });
    let answer = Answer::Ok(Reply::Attr(attr(INO, 0)));
    w.event(Event::ReadDone { op: read_op(&effects), done: ReadDone::Answer(answer) });
}

pub(super) fn reopened(handle: u64) -> Reassert {
    Reassert::Open { ino: INO, handle: HandleId(handle), flags: 2 }
}

fn calls(effects: &[Effect]) -> Vec<(ClientId, u64)> {
    let call = |e: &Effect| match e {
        Effect::Callback { client, ask: CallbackAsk::LockReady { wait }, .. } => Some((*client, wait.0)),
        _ => None,
    };
    effects.iter().filter_map(call).collect()
}

/// Who is asked whether it has which lock on record.
pub(super) fn asked(effects: &[Effect]) -> Vec<(CallbackId, ClientId, OwnLock)> {
    let ask = |e: &Effect| match e {
        Effect::Callback { id, client, ask: CallbackAsk::LockHeld { ino: INO, space: SPACE, lock }, .. } => {
            Some((*id, *client, *lock))
        }
        _ => None,
    };
    effects.iter().filter_map(ask).collect()
}

/// The one client that is asked says this.
pub(super) fn says(w: &mut World, effects: &[Effect], answer: CallbackAnswer) -> Vec<Effect> {
    let [(id, ..)] = asked(effects)[..] else { panic!("one is asked: {effects:?}") };
    w.event(Event::CallbackDone { id, answer: Some(answer) })
}

#[test]
fn g100_a_lock_is_given_or_refused_at_once_and_one_that_waits_is_called() {
    let mut w = World::new();
    let (a, b) = (opened(&mut w, 1, &[1]), opened(&mut w, 2, &[1]));
    let (tag, effects) = w.call(a, take(write(1, 0, 10), None));
    assert_eq!(effects, [done(tag)]);
    // The first to meet it is refused once a is known to have it, all others at once.
    let (tag, effects) = w.call(b, take(read(1, 5, 6), None));
    assert_eq!(says(&mut w, &effects, CallbackAnswer::Accepted), [failed(tag, Errno::AGAIN)]);
    let (tag, effects) = w.call(b, take(read(1, 5, 6), None));
    assert_eq!(effects, [failed(tag, Errno::AGAIN)]);
    let (tag, effects) = w.call(b, take(read(1, 5, 6), Some(4)));
    assert_eq!(effects, [waits(tag)]);
    assert_eq!(w.coord.locks(), (1, 1));
    let (tag, effects) = w.call(a, drop_all(1));
    assert_eq!(effects[1..], [done(tag)]);
    assert_eq!(calls(&effects), [(b, 4)]);
    let (tag, effects) = w.call(b, take(read(1, 5, 6), Some(4)));
    assert_eq!((effects, w.coord.locks()), (vec![done(tag)], (1, 0)));
    w.coord.check_locks();
}

#[test]
fn g101_who_is_in_the_way_is_told_with_its_node() {
    let mut w = World::new();
    let (a, b) = (opened(&mut w, 1, &[1]), opened(&mut w, 2, &[1]));
    w.call(a, take(write(1, 3, 10), None));
    let test = |lock| Request::Locks(LockRequest::Test { ino: INO, space: SPACE, lock });
    let (tag, effects) = w.call(b, test(read(1, 0, 100)));
    let range = ByteRange { start: 3, end: 10 };
    let holder = LockHolder { node: a.node, pid: 77, range, mode: LockMode::Write };
    let in_the_way = |tag| [ok(tag, Reply::Locks(LockReply::InTheWay(Some(holder))))];
    assert_eq!(says(&mut w, &effects, CallbackAnswer::Accepted), in_the_way(tag));
    let (tag, effects) = w.call(b, test(read(1, 0, 100)));
    assert_eq!(effects, in_the_way(tag));
    let (tag, effects) = w.call(b, test(write(1, 10, 100)));
    assert_eq!(effects, [ok(tag, Reply::Locks(LockReply::InTheWay(None)))]);
}

#[test]
fn g102_a_circle_over_nodes_is_refused() {
    let mut w = World::new();
    let (a, b) = (opened(&mut w, 1, &[1]), opened(&mut w, 2, &[1]));
    w.call(a, take(write(1, 0, 1), None));
    w.call(b, take(write(1, 5, 6), None));
    let (tag, effects) = w.call(a, take(write(1, 5, 6), Some(1)));
    assert_eq!(effects, [waits(tag)]);
    let (tag, effects) = w.call(b, take(write(1, 0, 1), Some(1)));
    assert_eq!(effects, [failed(tag, Errno::DEADLK)]);
    assert_eq!(w.coord.locks(), (2, 1));
}

/// A program killed by SIGKILL sends no unlock for the locks of an open file.
#[test]
fn g103_release_ends_what_was_taken_through_its_handle_and_a_lock_needs_an_open_one() {
    let mut w = World::new();
    let (a, b) = (opened(&mut w, 1, &[1, 2]), opened(&mut w, 2, &[1]));
    w.call(a, take(write(1, 0, 10), None));
    w.call(a, take(write(2, 20, 30), None));
    w.call(b, take(write(1, 0, 1), Some(1)));
    let (tag, effects) = w.call(a, Request::Release { ino: INO, handle: HandleId(1) });
    assert_eq!((calls(&effects), effects.last()), (vec![(b, 1)], Some(&done(tag))));
    assert_eq!(w.coord.locks_of(a), [placed(write(2, 20, 30))]);
    // It was on its way while its handle was released: nobody would ever drop it.
    let (tag, effects) = w.call(a, take(write(1, 50, 60), Some(2)));
    assert_eq!(effects, [failed(tag, Errno::BADF)]);
}

#[test]
fn g104_a_lock_that_becomes_weaker_lets_others_in() {
    let mut w = World::new();
    let (a, b) = (opened(&mut w, 1, &[1]), opened(&mut w, 2, &[1]));
    w.call(a, take(write(1, 0, 10), None));
    w.call(b, take(read(1, 0, 10), Some(1)));
    let (_, effects) = w.call(a, take(read(1, 0, 10), None));
    assert_eq!(calls(&effects), [(b, 1)]);
}

/// A reader's lock is asked for over what the owner has as a writer: it keeps that until it is sure to get the rest.
#[test]
fn g114_a_lock_that_may_not_weaken_leaves_what_is_stronger() {
    let mut w = World::new();
    let a = opened(&mut w, 1, &[1]);
    w.call(a, take(write(1, 5, 10), None));
    let ask = LockRequest::Take { ino: INO, space: SPACE, lock: read(1, 0, 20), wait: None, weaken: false };
    let (tag, effects) = w.call(a, Request::Locks(ask));
    assert_eq!(effects, [done(tag)]);
    assert_eq!(w.coord.locks_of(a), [read(1, 0, 5), write(1, 5, 10), read(1, 10, 20)].map(placed));
}

/// The call is sent again in its slot over the next connection, and runs again.
#[test]
fn g105_a_lock_whose_answer_was_lost_is_given_once() {
    let mut w = World::new();
    let (a, b) = (opened(&mut w, 1, &[1]), opened(&mut w, 2, &[1]));
    w.call_in(a, ordinary(3), take(write(1, 0, 10), Some(1)));
    w.bind_with(a, vec![reopened(1)]);
    let (tag, effects) = w.call_as(a, ordinary(3), 1, take(write(1, 0, 10), Some(1)));
    assert_eq!((effects, w.coord.locks()), (vec![done(tag)], (1, 0)));
    w.call(b, take(write(1, 0, 10), Some(1)));
    let (_, effects) = w.call(a, drop_all(1));
    assert_eq!((calls(&effects), w.coord.locks()), (vec![(b, 1)], (0, 1)));
}

#[test]
fn g106_a_waiter_that_gave_up_while_it_was_called_lets_the_next_one_go() {
    let mut w = World::new();
    let (a, b, c) = (opened(&mut w, 1, &[1]), opened(&mut w, 2, &[1]), opened(&mut w, 3, &[1]));
    w.call(a, take(write(1, 0, 10), None));
    w.call(b, take(write(1, 0, 10), Some(1)));
    w.call(c, take(write(1, 0, 10), Some(1)));
    let (_, effects) = w.call(a, drop_all(1));
    let (id, client, _) = callback(&effects);
    assert_eq!((client, calls(&effects).len()), (b, 1));
    let effects = w.event(Event::CallbackDone { id, answer: Some(CallbackAnswer::NotHeld) });
    assert_eq!(calls(&effects), [(c, 1)]);
    // The word that it gave up comes after.
    let (tag, effects) = w.call(b, Request::Locks(LockRequest::Forget { wait: WaitId(1) }));
    assert_eq!((effects, w.coord.locks()), (vec![done(tag)], (0, 1)));
}

#[test]
fn g107_a_waiter_that_does_not_come_is_called_again_and_holds_nobody_up() {
    let mut w = World::new();
    let (a, b, c) = (opened(&mut w, 1, &[1]), opened(&mut w, 2, &[1]), opened(&mut w, 3, &[1]));
    w.call(a, take(write(1, 0, 10), None));
    w.call(b, take(write(1, 0, 10), Some(1)));
    w.call(c, take(write(1, 0, 10), Some(1)));
    let (_, effects) = w.call(a, drop_all(1));
    assert_eq!(calls(&effects), [(b, 1)]);
    let again = w.coord.next_deadline().expect("it is called again").since(w.now);
    let effects = w.pass(again);
    assert_eq!(calls(&effects), [(b, 1), (c, 1)]);
}

#[test]
fn g108_locks_survive_a_takeover_and_nothing_is_given_before_all_are_named() {
    let (a, b) = (client(1), client(2));
    let inherited = Inherited { sessions: vec![live(a), live(b)], ..Inherited::default() };
    let (mut w, _) = World::inherit(inherited, Rules::all());
    w.bind_with(b, vec![reopened(1)]);
    let (waiting, effects) = w.call(b, take(write(1, 0, 10), None));
    assert_eq!(effects, [], "nothing is given in grace");
    w.bind_with(a, vec![reopened(1), Reassert::LocksFollow]);
    assert!(w.coord.in_grace(), "a has not named its locks");
    let (tag, effects) = w.call(a, held(1, &[write(1, 50, 51)], false));
    assert_eq!(effects, [refused(tag, vec![])]);
    let (tag, effects) = w.call(a, held(1, &[write(1, 5, 6)], true));
    assert!(effects.contains(&refused(tag, vec![])) && effects.contains(&failed(waiting, Errno::AGAIN)), "{effects:?}");
    assert_eq!((w.coord.in_grace(), w.coord.locks()), (false, (2, 0)));
}

#[test]
fn without_the_rule_a_lock_is_given_twice_over_a_takeover() {
    let (a, b) = (client(1), client(2));
    let inherited = Inherited { sessions: vec![live(a), live(b)], ..Inherited::default() };
    let (mut w, _) = World::inherit(inherited, Rules::without(Rule::GraceWaitsForLocks));
    w.bind_with(a, vec![reopened(1), Reassert::LocksFollow]);
    w.bind_with(b, vec![reopened(1)]);
    let (tag, effects) = w.call(b, take(write(1, 0, 10), None));
    assert_eq!(effects, [done(tag)], "a holds it too");
}

#[test]
fn g109_who_announces_locks_and_does_not_name_them_is_evicted_when_grace_ends() {
    let a = client(1);
    let (mut w, _) = World::inherit(Inherited { sessions: vec![live(a)], ..Inherited::default() }, Rules::all());
    w.bind_with(a, vec![Reassert::LocksFollow]);
    let effects = w.pass(LIMITS.grace + Duration::from_secs(1));
    let evicting = Report::Evicting { client: a, why: EvictReason::NotReasserted };
    assert!(effects.contains(&Effect::Report(evicting)), "{effects:?}");
}

/// Its bind was with the store when grace was to end, so it was spared; it announced locks, and died before it named them.
/// Nobody looked again: grace lasted for ever, and the volume with it.
#[test]
fn who_is_binding_when_grace_ends_and_then_names_no_locks_is_evicted_all_the_same() {
    let a = client(1);
    let (mut w, _) = World::inherit(Inherited { sessions: vec![live(a)], ..Inherited::default() }, Rules::all());
    let (_, effects) = w.send_bind(a, vec![Reassert::LocksFollow]);
    assert_eq!(w.pass(LIMITS.grace + Duration::from_secs(1)), [], "it is just coming");
    w.event(Event::StoreDone { op: store_op(&effects), done: StoreDone::Session { grants: vec![], outside: None } });
    assert!(w.coord.in_grace());
    let effects = w.pass(LIMITS.recall + Duration::from_secs(1));
    let evicting = Report::Evicting { client: a, why: EvictReason::NotReasserted };
    assert!(effects.contains(&Effect::Report(evicting)), "{effects:?}");
}

/// The part was composed for the coordinator before, or for a bind before; what it names may have been dropped since.
#[test]
fn g110_parts_of_another_bind_or_after_the_last_are_not_looked_at() {
    let (a, b) = (client(1), client(2));
    let inherited = Inherited { sessions: vec![live(a), live(b)], ..Inherited::default() };
    let (mut w, _) = World::inherit(inherited, Rules::all());
    w.bind_with(a, vec![reopened(1), Reassert::LocksFollow]);
    w.bind_with(a, vec![reopened(1), Reassert::LocksFollow]);
    w.call(a, held(1, &[write(1, 0, 1)], true));
    assert!(w.coord.in_grace());
    assert_eq!(w.coord.locks(), (0, 0));
    w.call(a, held(2, &[write(1, 5, 6)], true));
    w.call(a, drop_all(1));
    w.call(a, held(2, &[write(1, 5, 6)], true));
    assert_eq!(w.coord.locks(), (0, 0), "the resend brings nothing back");
    // The same coordinator knows the locks of a client that binds anew better than its list.
    w.bind_with(a, vec![reopened(1), Reassert::LocksFollow]);
    w.call(a, held(3, &[write(1, 5, 6)], true));
    assert_eq!(w.coord.locks(), (0, 0));
}

#[test]
fn g111_what_an_undone_request_was_given_goes_and_what_the_owner_had_stays() {
    let mut w = World::new();
    let (a, b) = (opened(&mut w, 1, &[1]), opened(&mut w, 2, &[1]));
    w.call(a, take(read(1, 0, 10), None));
    w.call(a, take(write(1, 0, 20), Some(1)));
    w.call(b, take(read(1, 0, 20), Some(1)));
    let range = ByteRange { start: 0, end: 20 };
    let restore = LockRequest::Restore { ino: INO, space: SPACE, owner: 1, range, held: vec![read(1, 0, 10)] };
    let (tag, effects) = w.call(a, Request::Locks(restore));
    assert_eq!((calls(&effects), effects.last()), (vec![(b, 1)], Some(&refused(tag, vec![]))));
    assert_eq!(w.coord.locks_of(a), [placed(read(1, 0, 10))]);
}

#[test]
fn g112_an_evicted_client_stops_waiting_at_once_and_loses_its_locks_after_its_fence() {
    let mut w = World::new();
    let (a, b, c) = (opened(&mut w, 1, &[1]), opened(&mut w, 2, &[1]), opened(&mut w, 3, &[1]));
    w.call(a, take(write(1, 0, 10), None));
    w.call(b, take(write(1, 20, 30), None));
    w.call(b, take(write(1, 0, 10), Some(1)));
    w.call(c, take(write(1, 20, 30), Some(1)));
    let effects = w.event(Event::ClientDead { client: b });
    assert_eq!((calls(&effects), w.coord.locks()), (vec![], (2, 1)), "still held: it may be alive");
    let effects = w.finish_eviction(b, EvictReason::Dead, &effects);
    assert_eq!((calls(&effects), w.coord.locks()), (vec![(c, 1)], (1, 1)));
}

#[test]
fn g113_a_session_that_ends_in_order_holds_nothing_any_more() {
    let mut w = World::new();
    let (a, b) = (opened(&mut w, 1, &[1]), opened(&mut w, 2, &[1]));
    w.call(a, take(write(1, 0, 10), None));
    w.call(b, take(write(1, 0, 10), Some(1)));
    let (_, effects) = w.call(a, Request::Goodbye);
    let effects = w.event(Event::StoreDone { op: store_op(&effects), done: StoreDone::Done });
    assert_eq!((calls(&effects), w.coord.locks()), (vec![(b, 1)], (0, 1)));
}

#[test]
fn a_range_that_is_none_is_refused_and_nothing_panics() {
    let mut w = World::new();
    let a = opened(&mut w, 1, &[1]);
    for (start, end) in [(5, 5), (6, 5), (0, u64::MAX)] {
        let range = ByteRange { start, end };
        let lock = write(1, start, end);
        let asks = [
            LockRequest::Take { ino: INO, space: SPACE, lock, wait: None, weaken: true },
            LockRequest::Test { ino: INO, space: SPACE, lock },
            LockRequest::Drop { ino: INO, space: SPACE, owner: 1, range },
            LockRequest::Restore { ino: INO, space: SPACE, owner: 1, range, held: vec![] },
            LockRequest::Restore { ino: INO, space: SPACE, owner: 1, range: ByteRange::ALL, held: vec![lock] },
            LockRequest::Held { bind: Bind(1), locks: vec![placed(lock)], last: true },
        ];
        for ask in asks {
            let (tag, effects) = w.call(a, Request::Locks(ask));
            assert_eq!(effects, [failed(tag, Errno::INVAL)]);
        }
    }
}

/// A node was killed while it had locked an image, and did not come back: whoever waited waited for ever, and whoever asked
/// without waiting (a virtual machine that is started again elsewhere) was refused for ever.
#[test]
fn g115_who_is_away_for_long_is_evicted_if_others_want_its_locks() {
    for (wait, heard) in [(None, true), (Some(1), true), (None, false)] {
        let mut w = World::new();
        let (a, b) = (opened(&mut w, 1, &[1]), opened(&mut w, 2, &[1]));
        w.call(a, take(write(1, 0, 10), None));
        if heard {
            let (_, effects) = w.call(b, take(write(1, 0, 10), None));
            says(&mut w, &effects, CallbackAnswer::Accepted);
        }
        w.event(Event::ConnLost { conn: ConnId(1001) });
        assert_eq!(w.pass(LIMITS.absence() * 3), [], "nobody wants it");
        let (tag, effects) = w.call(b, take(write(1, 5, 6), wait));
        assert_eq!(effects.is_empty(), !heard, "{effects:?}");
        let effects = w.pass(LIMITS.absence());
        let effects = w.finish_eviction(a, EvictReason::RecallOverdue, &effects);
        assert_eq!(w.coord.locks().0, 0);
        assert_eq!(calls(&effects).len(), usize::from(wait.is_some()));
        match heard {
            true => assert_eq!(w.call(b, take(write(1, 5, 6), wait)).1.len(), 1),
            false => assert_eq!(w.event(Event::Tick), [done(tag)], "whoever asked has waited for it"),
        }
        assert_eq!(w.coord.locks(), (1, 0));
    }
}

#[test]
fn who_comes_back_keeps_its_locks_whoever_wants_them() {
    let mut w = World::new();
    let (a, b) = (opened(&mut w, 1, &[1]), opened(&mut w, 2, &[1]));
    w.call(a, take(write(1, 0, 10), None));
    w.event(Event::ConnLost { conn: ConnId(1001) });
    w.call(b, take(write(1, 5, 6), Some(1)));
    w.pass(LIMITS.absence() / 2);
    w.bind_with(a, vec![reopened(1), Reassert::LocksFollow]);
    assert_eq!(w.pass(LIMITS.absence() * 2), []);
    assert_eq!(w.coord.locks(), (1, 1));
}
