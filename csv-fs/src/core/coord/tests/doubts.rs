//! Refusals for locks of which their holder may not have heard.

use std::time::Duration;

use rustix::io::Errno;

use super::locks::*;
use super::util::*;
use crate::core::coord::*;
use crate::core::rules::{Rule, Rules};
use crate::proto::*;

/// C1, cut off, gives a lock, the answer is lost, and it refuses others for that; C2 knows nothing of it. (Found by the history
/// checker, once in some 130 rounds of faults.)
#[test]
fn g116_nobody_is_refused_for_a_lock_of_which_its_holder_has_not_heard() {
    let mut w = World::new();
    let (a, b) = (opened(&mut w, 1, &[1]), opened(&mut w, 2, &[1]));
    w.call_in(a, ordinary(3), take(write(1, 0, 10), None));
    let (tag, effects) = w.call(b, take(write(1, 5, 20), None));
    assert_eq!(asked(&effects).iter().map(|(_, c, l)| (*c, *l)).collect::<Vec<_>>(), [(a, write(1, 0, 10))]);
    assert_eq!(says(&mut w, &effects, CallbackAnswer::NotHeld), []);
    // It has heard by now.
    let again = w.pass(Duration::from_millis(11));
    assert_eq!(asked(&again).len(), 1);
    assert_eq!(says(&mut w, &again, CallbackAnswer::Accepted), [failed(tag, Errno::AGAIN)]);
    let (tag, effects) = w.call(b, take(read(1, 0, 1), None));
    assert_eq!((effects, w.coord.locks()), (vec![failed(tag, Errno::AGAIN)], (1, 0)), "from now on at once");
    w.call(a, take(write(1, 10, 11), None));
    let (_, effects) = w.call(b, take(read(1, 10, 20), None));
    assert_eq!(asked(&effects).len(), 1, "more of it is another gift");
    w.coord.check_locks();
}

#[test]
fn without_the_rule_others_are_refused_for_what_nobody_may_ever_have() {
    let mut w = World::without(Rules::without(Rule::RefusedByRecord));
    let (a, b) = (opened(&mut w, 1, &[1]), opened(&mut w, 2, &[1]));
    w.call(a, take(write(1, 0, 10), None));
    let (tag, effects) = w.call(b, take(write(1, 5, 20), None));
    assert_eq!(effects, [failed(tag, Errno::AGAIN)]);
}

/// The office moves: a try in doubt is asked of the next coordinator.
#[test]
fn g117_a_try_in_doubt_goes_to_the_next_coordinator_and_is_given_what_is_given_up() {
    let mut w = World::new();
    let (a, b, c) = (opened(&mut w, 1, &[1]), opened(&mut w, 2, &[1]), opened(&mut w, 3, &[1]));
    w.call(a, take(write(1, 0, 10), None));
    let (first, effects) = w.call(b, take(write(1, 5, 20), None));
    let [(id, ..)] = asked(&effects)[..] else { panic!("{effects:?}") };
    w.call(a, drop_all(1));
    assert_eq!(w.event(Event::Tick), [done(first)], "nothing is in its way any more");
    assert_eq!(w.event(Event::CallbackDone { id, answer: Some(CallbackAnswer::Accepted) }), []);
    let (second, effects) = w.call(c, take(write(1, 5, 20), None));
    assert_eq!(asked(&effects).iter().map(|(_, c, _)| *c).collect::<Vec<_>>(), [b]);
    let effects = w.event(Event::Drain { hint: None });
    assert!(
        effects.contains(&Effect::Answer { tag: second, answer: Answer::StaleEpoch { hint: None } }),
        "{effects:?}"
    );
    assert_eq!(w.event(Event::Tick), []);
}

/// What is named to a new coordinator, and what a client says that an owner has after all, is on its record.
#[test]
fn g118_what_is_named_is_on_record_and_a_second_gift_is_not() {
    let (a, b) = (client(1), client(2));
    let inherited = Inherited { sessions: vec![live(a), live(b)], ..Inherited::default() };
    let (mut w, _) = World::inherit(inherited, Rules::all());
    w.bind_with(b, vec![reopened(1)]);
    w.bind_with(a, vec![reopened(1), Reassert::LocksFollow]);
    w.call(a, held(1, &[read(1, 0, 10)], true));
    let (tag, effects) = w.call(b, take(write(1, 5, 20), None));
    assert_eq!(effects, [failed(tag, Errno::AGAIN)]);
    // It asks for more, and has gone meanwhile: what it was given is undone.
    w.call(a, take(write(1, 0, 10), None));
    let (tag, effects) = w.call(b, take(read(1, 5, 20), None));
    assert_eq!(says(&mut w, &effects, CallbackAnswer::NotHeld), []);
    let range = ByteRange { start: 0, end: 10 };
    let held = vec![read(1, 0, 10)];
    w.call(a, Request::Locks(LockRequest::Restore { ino: INO, space: SPACE, owner: 1, range, held }));
    assert_eq!(w.event(Event::Tick), [done(tag)]);
}

/// "On record" comes late: its lock was given up and taken again. Whoever it was asked for is refused, nobody else.
#[test]
fn a_late_word_of_one_gift_says_nothing_of_the_next() {
    let mut w = World::new();
    let (a, b, c) = (opened(&mut w, 1, &[1]), opened(&mut w, 2, &[1]), opened(&mut w, 3, &[1]));
    w.call(a, take(write(1, 0, 10), None));
    let (tag, effects) = w.call(b, take(write(1, 5, 20), None));
    w.call(a, drop_all(1));
    w.call(a, take(write(1, 0, 10), None));
    assert_eq!(says(&mut w, &effects, CallbackAnswer::Accepted), [failed(tag, Errno::AGAIN)]);
    let (_, effects) = w.call(c, take(write(1, 5, 20), None));
    assert_eq!(asked(&effects).len(), 1);
}

/// It is cut off, and may have been succeeded: what it knows to be on record may have been given up at the next coordinator.
#[test]
fn a_coordinator_without_permission_asks_before_it_refuses() {
    let mut w = World::new();
    let (a, b) = (opened(&mut w, 1, &[1]), opened(&mut w, 2, &[1]));
    w.call(a, take(write(1, 0, 10), None));
    let (_, effects) = w.call(b, take(write(1, 5, 20), None));
    says(&mut w, &effects, CallbackAnswer::Accepted);
    w.event(Event::Permitted { may: false });
    let (tag, effects) = w.call(b, take(write(1, 5, 20), None));
    assert_eq!(says(&mut w, &effects, CallbackAnswer::NotHeld), []);
    w.event(Event::Permitted { may: true });
    assert_eq!(w.pass(Duration::from_millis(300)), [failed(tag, Errno::AGAIN)]);
}

#[test]
fn whose_lock_is_in_doubt_is_asked_again_over_its_next_connection_and_an_evicted_asker_is_not_answered_later() {
    let mut w = World::new();
    let (a, b) = (opened(&mut w, 1, &[1]), opened(&mut w, 2, &[1]));
    w.call_in(a, ordinary(3), take(write(1, 0, 10), None));
    w.event(Event::ConnLost { conn: ConnId(1001) });
    let (tag, effects) = w.call(b, take(write(1, 5, 20), None));
    assert_eq!(effects, []);
    w.bind_with(a, vec![reopened(1)]);
    let effects = w.event(Event::Tick);
    assert_eq!(asked(&effects).len(), 1);
    let gone = w.event(Event::ClientDead { client: b });
    assert!(gone.contains(&Effect::Answer { tag, answer: Answer::StaleBind }), "{gone:?}");
    assert_eq!(says(&mut w, &effects, CallbackAnswer::Accepted), []);
    assert_eq!(w.pass(Duration::from_secs(1)), []);
}
