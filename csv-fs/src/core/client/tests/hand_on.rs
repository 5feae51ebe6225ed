use super::*;
use crate::proto::{ByteRange, LockMode, LockReply, LockRequest, LockSpace, OwnLock, PlacedLock, WaitId};

fn left(out: &[Effect]) -> Option<Known> {
    let found =
        out.iter().find_map(|e| if let Effect::Left { known } = e { Some(known.as_deref().cloned()) } else { None });
    found.expect("it is told whether it has left")
}

fn lock(owner: u64) -> LockOp {
    let lock = OwnLock { owner, handle: HandleId(11), pid: 1, range: ByteRange::ALL, mode: LockMode::Write };
    LockOp::Take { ino: INO, space: LockSpace::Record, lock, wait: true }
}

/// With handle 11 open, and owner 5's lock.
fn with_a_lock() -> Rig {
    let mut rig = Rig::bound();
    let call = sent_call(&rig.submit(2, open(11)));
    rig.answer(&call, Answer::Ok(Reply::Done));
    let call = sent_call(&rig.event(Event::Lock { ticket: Ticket(3), op: lock(5) }));
    rig.answer(&call, Answer::Ok(Reply::Done));
    rig
}

fn next_life(known: &Known) -> Rig {
    let mut rig = Rig::new();
    rig.core = Client::resume(rig.core.config, known, Rules::all(), Now(0));
    rig
}

#[test]
fn a_life_leaves_only_with_empty_hands() {
    let mut rig = Rig::bound();
    let call = sent_call(&rig.submit(1, Request::Getattr { ino: INO }));
    assert_eq!(rig.event(Event::Leave), vec![Effect::Left { known: None }], "a request is unanswered");
    rig.answer(&call, Answer::Errno(2));
    rig.hold(grant(70, BlockRange::ALL, LayoutMode::Exclusive));
    assert_eq!(rig.event(Event::Leave), vec![Effect::Left { known: None }], "a layout is held");
    rig.event(Event::GiveBack { layout: LayoutId(70) });
    rig.event(Event::Drained { layout: LayoutId(70) });
    let call = sent_call(&rig.event(Event::Settled { layout: LayoutId(70) }));
    assert_eq!(rig.event(Event::Leave), vec![Effect::Left { known: None }], "its return is unanswered");
    rig.answer(&call, Answer::Ok(Reply::Done));
    let out = rig.event(Event::Leave);
    let known = left(&out).expect("nothing is under way");
    assert_eq!(out[0], Effect::CloseDirect);
    assert_eq!((known.client, known.bind, known.epoch), (me(), Bind(1), Epoch(5)));
    // One number in the lowest slot for each ordinary request, which went one after the other; one for the return.
    assert_eq!((known.ordinary[..2].to_vec(), known.returns[..2].to_vec()), (vec![2, 0], vec![1, 0]));
}

#[test]
fn without_that_rule_a_life_leaves_with_what_it_holds() {
    let mut rig = Rig::with(Rules::without(Rule::LeavesWithEmptyHands));
    rig.bind_to(5, 1);
    rig.hold(grant(70, BlockRange::ALL, LayoutMode::Exclusive));
    assert!(left(&rig.event(Event::Leave)).is_some());
}

#[test]
fn what_has_left_does_nothing_and_says_no_wrong_word() {
    let mut rig = with_a_lock();
    assert!(left(&rig.event(Event::Leave)).is_some());
    assert_eq!(rig.submit(9, open(12)), vec![Effect::Reply { ticket: Ticket(9), result: Err(CallFailure::Evicted) }]);
    assert_eq!(rig.event(Event::Hint(hint(6, 3))), vec![], "it binds to nobody");
    assert_eq!(rig.after(60_000), vec![]);
    assert_eq!(rig.recall(70), vec![Effect::AnswerCallback(CallbackAnswer::NotHeld)]);
    let ask = CallbackAsk::RecallGrant;
    let out = rig.event(Event::Asked { client: me(), ask, dirty: false });
    assert_eq!(out, vec![Effect::AnswerCallback(CallbackAnswer::Draining)], "not: another incarnation");
    assert_eq!(left(&rig.event(Event::Leave)), None, "it has left already");
}

#[test]
fn the_next_life_names_what_is_open_and_locked_and_goes_on_with_the_numbers() {
    let mut rig = with_a_lock();
    let known = left(&rig.event(Event::Leave)).expect("nothing is under way");
    let mut next = next_life(&known);
    assert_eq!(next.event(Event::Hint(hint(4, 3))), vec![Effect::AskWho], "not to a lower epoch");
    let out = next.event(Event::Hint(hint(5, 1)));
    let request = BindRequest {
        volume: VolumeId(1),
        client: me(),
        bind: Bind(2),
        fence_gen: FenceGen(3),
        has_path: true,
        reassert: vec![Reassert::Open { ino: INO, handle: HandleId(11), flags: 2 }, Reassert::LocksFollow],
    };
    assert_eq!(out, vec![Effect::SendBind { to: hint(5, 1), request: Box::new(request) }]);
    let out = next.event(Event::BindAnswered { bind: Bind(2), answer: bound_answer(5, Vec::new()) });
    assert_eq!(out[0], Effect::Bound { epoch: Epoch(5), first: true, grants: Vec::new() }, "the grant is taken over");
    let named = sent_call(&out);
    let own = OwnLock { owner: 5, handle: HandleId(11), pid: 1, range: ByteRange::ALL, mode: LockMode::Write };
    let locks = vec![PlacedLock { ino: INO, space: LockSpace::Record, lock: own }];
    assert_eq!(named.request, Request::Locks(LockRequest::Held { bind: Bind(2), locks, last: true }));
    assert_eq!((named.slot.table, named.seq), (SlotTable::Return, 1));
    let call = sent_call(&next.submit(1, open(12)));
    assert_eq!((call.slot.table, call.seq), (SlotTable::Ordinary, 3), "the life before used this slot twice");
}

#[test]
fn who_waits_for_a_lock_is_not_answered_and_asks_the_next_life() {
    let mut rig = with_a_lock();
    let call = sent_call(&rig.event(Event::Lock { ticket: Ticket(4), op: lock(6) }));
    assert_eq!(rig.event(Event::Leave), vec![Effect::Left { known: None }], "whether it is given is not known");
    rig.answer(&call, Answer::Ok(Reply::Locks(LockReply::Waits)));
    let out = rig.event(Event::Leave);
    assert!(!out.iter().any(|e| matches!(e, Effect::Reply { .. })), "{out:?}");
    let known = left(&out).expect("waiting holds nothing");
    assert_eq!(known.waiting, 1);
    let mut next = next_life(&known);
    next.bind_to(5, 1);
    let named = next.core.slots.occupied()[0];
    let answer = Answer::Ok(Reply::Locks(LockReply::Refused(Vec::new())));
    next.event(Event::Answered { bind: Bind(2), slot: named.0, seq: named.1, answer });
    let call = sent_call(&next.event(Event::Lock { ticket: Ticket(1), op: lock(6) }));
    let Request::Locks(LockRequest::Take { wait: Some(WaitId(wait)), .. }) = call.request else { panic!("{call:?}") };
    assert!(wait > known.waiter, "a name that nobody waited under before");
}

#[test]
fn a_life_that_was_evicted_meanwhile_ends_as_any_other() {
    let mut rig = with_a_lock();
    let known = left(&rig.event(Event::Leave)).expect("nothing is under way");
    let mut next = next_life(&known);
    next.event(Event::Hint(hint(6, 1)));
    let answer = BindAnswer::Evicted { reason: "it was away".into() };
    let out = next.event(Event::BindAnswered { bind: Bind(2), answer });
    let evicted = Effect::Evicted { reason: "it was away".into(), locked: vec![HandleId(11)] };
    assert!(out.contains(&evicted), "{out:?}");
}
