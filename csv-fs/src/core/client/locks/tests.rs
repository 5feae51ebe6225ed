//! What goes out for what comes in, about locks.

use super::*;
use crate::core::client::event::Event;
use crate::core::client::tests::{INO, Rig, bound_answer, hint, me, open, sent_call};
use crate::proto::{Answer, Call, CallbackAsk, Reassert};

const SPACE: LockSpace = LockSpace::Record;

fn own(owner: u64, start: u64, end: u64, mode: LockMode) -> OwnLock {
    OwnLock { owner, handle: HandleId(1), pid: 9, range: ByteRange { start, end }, mode }
}

fn write(owner: u64, start: u64, end: u64) -> OwnLock {
    own(owner, start, end, LockMode::Write)
}

fn read(owner: u64, start: u64, end: u64) -> OwnLock {
    own(owner, start, end, LockMode::Read)
}

fn placed(lock: OwnLock) -> PlacedLock {
    PlacedLock { ino: INO, space: SPACE, lock }
}

fn done() -> Answer {
    Answer::Ok(Reply::Done)
}

fn waits() -> Answer {
    Answer::Ok(Reply::Locks(LockReply::Waits))
}

fn heard() -> Answer {
    Answer::Ok(Reply::Locks(LockReply::Refused(Vec::new())))
}

fn told(ticket: u64) -> Effect {
    Effect::Reply { ticket: Ticket(ticket), result: Ok(Reply::Done) }
}

fn interrupted(ticket: u64) -> Effect {
    Effect::Reply { ticket: Ticket(ticket), result: Err(CallFailure::Interrupted) }
}

fn asks(call: &Call) -> LockRequest {
    let Request::Locks(ask) = &call.request else { panic!("{call:?}") };
    ask.clone()
}

impl Rig {
    /// Bound, with handle 1 open.
    fn opened() -> Rig {
        let mut rig = Rig::bound();
        let call = sent_call(&rig.submit(1, open(1)));
        rig.answer(&call, done());
        rig
    }

    fn lock(&mut self, ticket: u64, lock: OwnLock, wait: bool) -> Vec<Effect> {
        let op = LockOp::Take { ino: INO, space: SPACE, lock, wait };
        self.event(Event::Lock { ticket: Ticket(ticket), op })
    }

    fn unlock(&mut self, ticket: u64, owner: u64) -> Vec<Effect> {
        let op = LockOp::Drop { ino: INO, space: SPACE, owner, range: ByteRange::ALL };
        self.event(Event::Lock { ticket: Ticket(ticket), op })
    }

    fn holds(&mut self, ticket: u64, lock: OwnLock) {
        let call = sent_call(&self.lock(ticket, lock, false));
        assert_eq!(self.answer(&call, done()), [told(ticket)]);
    }

    fn ready(&mut self, wait: WaitId) -> Vec<Effect> {
        self.event(Event::Asked { client: me(), ask: CallbackAsk::LockReady { wait }, dirty: false })
    }

    fn on_record(&mut self, lock: OwnLock) -> bool {
        let ask = CallbackAsk::LockHeld { ino: INO, space: SPACE, lock };
        match self.event(Event::Asked { client: me(), ask, dirty: false })[..] {
            [Effect::AnswerCallback(CallbackAnswer::Accepted)] => true,
            [Effect::AnswerCallback(CallbackAnswer::NotHeld)] => false,
            ref other => panic!("{other:?}"),
        }
    }

    fn cancel(&mut self, ticket: u64) -> Vec<Effect> {
        self.event(Event::Cancel { ticket: Ticket(ticket) })
    }

    /// The coordinator dies; the BIND to the next one.
    fn next_bind(&mut self, epoch: u64) -> (Bind, Vec<Reassert>) {
        let out = self.event(Event::Hint(hint(epoch, 3)));
        let bind = out.iter().find_map(|e| match e {
            Effect::SendBind { request, .. } => Some((request.bind, request.reassert.clone())),
            _ => None,
        });
        bind.unwrap_or_else(|| panic!("{out:?}"))
    }

    fn bound_by(&mut self, bind: Bind, epoch: u64) -> Vec<Call> {
        let out = self.event(Event::BindAnswered { bind, answer: bound_answer(epoch, Vec::new()) });
        calls(&out)
    }

    fn records(&self) -> Vec<PlacedLock> {
        self.core.locks_held()
    }
}

fn calls(out: &[Effect]) -> Vec<Call> {
    out.iter().filter_map(|e| if let Effect::SendCall { call } = e { Some((**call).clone()) } else { None }).collect()
}

fn wait_of(call: &Call) -> WaitId {
    match asks(call) {
        LockRequest::Take { wait: Some(wait), .. } => wait,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_waiter_is_in_no_slot_and_asks_again_when_it_is_called() {
    let mut rig = Rig::opened();
    let call = sent_call(&rig.lock(2, write(5, 0, 10), true));
    assert_eq!(rig.answer(&call, waits()), []);
    assert_eq!((rig.core.load().0, rig.core.locks()), (0, (0, 1)));
    let out = rig.ready(wait_of(&call));
    let again = sent_call(&out);
    assert_eq!((asks(&again), out.last()), (asks(&call), Some(&Effect::AnswerCallback(CallbackAnswer::Accepted))));
    assert_eq!(rig.answer(&again, done()), [told(2)]);
    assert_eq!(rig.records(), [placed(write(5, 0, 10))]);
    assert_eq!(rig.ready(wait_of(&call)), [Effect::AnswerCallback(CallbackAnswer::NotHeld)]);
}

/// Answers and callbacks travel in different tasks.
#[test]
fn a_call_that_overtakes_the_answer_waits_is_not_lost() {
    let mut rig = Rig::opened();
    let call = sent_call(&rig.lock(2, write(5, 0, 10), true));
    assert_eq!(rig.ready(wait_of(&call)), [Effect::AnswerCallback(CallbackAnswer::Accepted)]);
    let again = sent_call(&rig.answer(&call, waits()));
    assert_eq!(asks(&again), asks(&call));
}

#[test]
fn a_waiter_that_is_interrupted_goes_at_once_and_the_coordinator_is_told() {
    let mut rig = Rig::opened();
    let call = sent_call(&rig.lock(2, write(5, 0, 10), true));
    rig.answer(&call, waits());
    let out = rig.cancel(2);
    assert_eq!(asks(&sent_call(&out)), LockRequest::Forget { wait: wait_of(&call) });
    assert_eq!(out.last(), Some(&interrupted(2)));
    assert_eq!(rig.ready(wait_of(&call)), [Effect::AnswerCallback(CallbackAnswer::NotHeld)]);
}

/// The process was killed while its request was on its way; nobody would drop what it is given.
#[test]
fn what_an_interrupted_request_is_given_after_all_is_undone_and_what_the_owner_had_stays() {
    let mut rig = Rig::opened();
    rig.holds(2, read(5, 0, 10));
    let call = sent_call(&rig.lock(3, write(5, 0, 20), true));
    assert_eq!(rig.cancel(3), [interrupted(3)]);
    let undo = sent_call(&rig.answer(&call, done()));
    let range = ByteRange { start: 0, end: 20 };
    assert_eq!(
        asks(&undo),
        LockRequest::Restore { ino: INO, space: SPACE, owner: 5, range, held: vec![read(5, 0, 10)] }
    );
    assert_eq!(rig.answer(&undo, heard()), []);
    assert_eq!(rig.records(), [placed(read(5, 0, 10))]);
}

#[test]
fn an_unlock_passes_an_abandoned_request_and_a_lock_waits_for_it() {
    let mut rig = Rig::opened();
    rig.holds(2, write(5, 90, 91));
    let call = sent_call(&rig.lock(3, write(5, 0, 20), true));
    rig.cancel(3);
    let unlock = sent_call(&rig.unlock(4, 5));
    assert_eq!(rig.answer(&unlock, done()), [told(4)]);
    assert_eq!(rig.lock(5, write(5, 0, 1), false), []);
    let out = rig.answer(&call, done());
    let undo = sent_call(&out);
    assert!(matches!(asks(&undo), LockRequest::Restore { held, .. } if held.is_empty()));
    assert!(matches!(asks(&sent_call(&rig.answer(&undo, heard()))), LockRequest::Take { .. }));
}

#[test]
fn requests_of_one_owner_go_one_after_the_other_and_those_of_others_side_by_side() {
    let mut rig = Rig::opened();
    let first = sent_call(&rig.lock(2, write(5, 0, 1), false));
    assert_eq!(rig.unlock(3, 5), []);
    sent_call(&rig.lock(4, write(6, 8, 9), false));
    let out = rig.answer(&first, done());
    assert_eq!(out[0], told(2));
    assert!(matches!(asks(&sent_call(&out)), LockRequest::Drop { .. }));
    assert_eq!(rig.records(), [], "out of the record when the unlock is sent");
}

#[test]
fn closing_a_file_without_a_lock_sends_nothing() {
    let mut rig = Rig::opened();
    assert_eq!(rig.unlock(2, 5), [told(2)]);
}

#[test]
fn locks_are_named_to_a_new_coordinator_before_anything_is_dropped_and_waiters_ask_again() {
    let mut rig = Rig::opened();
    rig.holds(2, write(5, 0, 10));
    let waiting = sent_call(&rig.lock(3, write(6, 20, 30), true));
    rig.answer(&waiting, waits());
    let (bind, reassert) = rig.next_bind(6);
    assert_eq!(reassert, [Reassert::Open { ino: INO, handle: HandleId(1), flags: 2 }, Reassert::LocksFollow]);
    let named = rig.bound_by(bind, 6);
    assert_eq!(named.len(), 1, "{named:?}");
    assert_eq!(asks(&named[0]), LockRequest::Held { bind, locks: vec![placed(write(5, 0, 10))], last: true });
    assert_eq!(rig.unlock(4, 5), []);
    assert_eq!(rig.submit(5, Request::Release { ino: INO, handle: HandleId(1) }), []);
    let after = calls(&rig.answer(&named[0], heard()));
    let what: Vec<&Request> = after.iter().map(|c| &c.request).collect();
    assert!(matches!(what[0], Request::Release { .. }), "{what:?}");
}

#[test]
fn two_takeovers_in_a_row_name_everything_again_under_the_new_bind() {
    let mut rig = Rig::opened();
    rig.holds(2, write(5, 0, 10));
    let (bind, _) = rig.next_bind(6);
    let first = rig.bound_by(bind, 6);
    let (bind, reassert) = rig.next_bind(7);
    assert!(reassert.contains(&Reassert::LocksFollow));
    let sent = rig.bound_by(bind, 7);
    assert_eq!(sent.len(), 2, "the old part in its slot, and the new one: {sent:?}");
    assert_eq!(rig.answer(&sent[0], heard()), [], "the old one means nothing");
    assert_eq!(asks(&sent[0]), asks(&first[0]));
    assert_eq!(asks(&sent[1]), LockRequest::Held { bind, locks: vec![placed(write(5, 0, 10))], last: true });
    assert_eq!(rig.unlock(3, 5), []);
    assert!(matches!(asks(&sent_call(&rig.answer(&sent[1], heard()))), LockRequest::Drop { .. }));
}

/// The coordinator made the lock weaker, another node got its share, and the answer was lost with the coordinator. Or it
/// refused: then its owner believes in the stronger.
#[test]
fn a_lock_becomes_weaker_once_the_rest_is_given_and_is_named_as_the_weaker_from_then_on() {
    let mut rig = Rig::opened();
    rig.holds(2, write(5, 5, 10));
    let first = sent_call(&rig.lock(3, read(5, 0, 7), true));
    let asked = |lock, wait, weaken| LockRequest::Take { ino: INO, space: SPACE, lock, wait, weaken };
    assert_eq!(asks(&first), asked(read(5, 0, 7), Some(wait_of(&first)), false));
    rig.answer(&first, waits());
    assert_eq!(rig.records(), [placed(write(5, 5, 10))], "it waits, and has what it had");
    let again = sent_call(&rig.ready(wait_of(&first)));
    let weaker = sent_call(&rig.answer(&again, done()));
    assert_eq!(asks(&weaker), asked(read(5, 0, 7), None, true));
    assert_eq!(rig.records(), [placed(read(5, 0, 7)), placed(write(5, 7, 10))]);
    assert_eq!(rig.cancel(3), [], "it has what it asked for");
    let (bind, _) = rig.next_bind(6);
    let sent = rig.bound_by(bind, 6);
    let locks = rig.records();
    assert_eq!((asks(&sent[0]), asks(&sent[1])), (asks(&weaker), LockRequest::Held { bind, locks, last: true }));
    assert_eq!(rig.answer(&sent[0], done()), [told(3)]);
}

#[test]
fn flock_lets_go_before_it_asks_for_the_other_kind() {
    let mut rig = Rig::opened();
    let whole = |mode| LockOp::Take {
        ino: INO,
        space: LockSpace::Whole,
        lock: OwnLock { range: ByteRange::ALL, ..own(5, 0, 1, mode) },
        wait: false,
    };
    let call = sent_call(&rig.event(Event::Lock { ticket: Ticket(2), op: whole(LockMode::Read) }));
    rig.answer(&call, done());
    assert_eq!(rig.records().len(), 1);
    let call = sent_call(&rig.event(Event::Lock { ticket: Ticket(3), op: whole(LockMode::Write) }));
    assert_eq!(rig.records(), []);
    rig.answer(&call, Answer::Errno(11));
    assert_eq!(rig.records(), []);
}

#[test]
fn without_a_coordinator_whoever_was_interrupted_is_let_go_and_an_unlock_goes_on_without_him() {
    let mut rig = Rig::opened();
    rig.holds(2, write(5, 0, 10));
    let call = sent_call(&rig.unlock(3, 5));
    assert_eq!(rig.cancel(3), []);
    let out = rig.event(Event::LinkLost { bind: call.bind });
    assert_eq!(out, [Effect::Unbound, interrupted(3)]);
    assert_eq!(rig.lock(4, write(6, 0, 1), false), []);
    assert_eq!(rig.cancel(4), [interrupted(4)]);
    let (bind, reassert) = rig.next_bind(6);
    assert!(!reassert.contains(&Reassert::LocksFollow), "its unlock was sent");
    let sent = rig.bound_by(bind, 6);
    assert_eq!(asks(&sent[0]), asks(&call));
}

#[test]
fn release_takes_its_locks_out_of_the_record_and_ends_who_waits_through_it() {
    let mut rig = Rig::opened();
    rig.holds(2, write(5, 0, 10));
    let call = sent_call(&rig.lock(3, write(6, 20, 30), true));
    rig.answer(&call, waits());
    let out = rig.submit(4, Request::Release { ino: INO, handle: HandleId(1) });
    let bad = Err(CallFailure::Errno(Errno::BADF.raw_os_error()));
    assert_eq!(out[0], Effect::Reply { ticket: Ticket(3), result: bad });
    assert_eq!((rig.records(), rig.core.locks()), (vec![], (0, 0)));
    let out = rig.lock(5, write(5, 0, 1), false);
    assert_eq!(out, [Effect::Reply { ticket: Ticket(5), result: Err(CallFailure::Errno(9)) }]);
}

#[test]
fn eviction_ends_locks_and_names_the_handles_that_had_one() {
    let mut rig = Rig::opened();
    rig.holds(2, write(5, 0, 10));
    let waiting = sent_call(&rig.lock(3, write(6, 20, 30), true));
    rig.answer(&waiting, waits());
    let call = sent_call(&rig.submit(4, Request::Statfs));
    let out = rig.answer(&call, Answer::Evicted { reason: "why".into() });
    assert!(out.contains(&Effect::Reply { ticket: Ticket(3), result: Err(CallFailure::Evicted) }), "{out:?}");
    assert_eq!(out.last(), Some(&Effect::Evicted { reason: "why".into(), locked: vec![HandleId(1)] }));
    assert_eq!(rig.core.locks(), (0, 0));
}

#[test]
fn what_a_new_coordinator_refuses_is_lost_aloud() {
    let mut rig = Rig::opened();
    rig.holds(2, write(5, 0, 10));
    let (bind, _) = rig.next_bind(6);
    let sent = rig.bound_by(bind, 6);
    let refused = Answer::Ok(Reply::Locks(LockReply::Refused(vec![placed(write(5, 0, 10))])));
    assert_eq!(rig.answer(&sent[0], refused), [Effect::LocksLost { handles: vec![HandleId(1)] }]);
    assert_eq!(rig.records(), []);
}

#[test]
fn many_locks_are_named_in_parts() {
    let mut rig = Rig::opened();
    for n in 0..PART as u64 + 1 {
        rig.core.locks.record.put(INO, SPACE, Lock::of(me(), write(5, n * 2, n * 2 + 1)));
    }
    let (bind, _) = rig.next_bind(6);
    let sent = rig.bound_by(bind, 6);
    let LockRequest::Held { locks, last: false, .. } = asks(&sent[0]) else { panic!() };
    assert_eq!(locks.len(), PART);
    let next = sent_call(&rig.answer(&sent[0], heard()));
    let LockRequest::Held { locks, last: true, .. } = asks(&next) else { panic!() };
    assert_eq!(locks.len(), 1);
    let bytes = postcard::to_stdvec(&sent[0]).expect("fits").len();
    assert!(bytes < 512 << 10, "{bytes} bytes");
}

/// For what is on record others may be refused: a program has it, and the next coordinator is told.
#[test]
fn on_record_is_what_was_heard_and_not_given_up_since() {
    let mut rig = Rig::opened();
    let call = sent_call(&rig.lock(2, write(1, 0, 10), false));
    assert!(!rig.on_record(write(1, 0, 10)), "the answer has not come");
    rig.answer(&call, done());
    assert!(rig.on_record(write(1, 0, 10)) && rig.on_record(read(1, 3, 4)));
    assert!(!rig.on_record(write(1, 5, 11)) && !rig.on_record(write(2, 0, 1)));
    rig.holds(3, read(1, 10, 20));
    assert!(rig.on_record(read(1, 5, 20)) && !rig.on_record(write(1, 5, 20)));
    rig.unlock(4, 1);
    assert!(!rig.on_record(write(1, 0, 10)), "the unlock is on its way");
}

/// Its caller has gone: nobody holds what it is given, whether its answer has come or not.
#[test]
fn what_an_interrupted_request_is_given_is_never_on_record() {
    let mut rig = Rig::opened();
    let call = sent_call(&rig.lock(2, write(1, 0, 10), true));
    assert_eq!(rig.cancel(2), [interrupted(2)]);
    assert!(!rig.on_record(write(1, 0, 10)));
    rig.answer(&call, done());
    assert!(!rig.on_record(write(1, 0, 10)), "it is being undone");
}
