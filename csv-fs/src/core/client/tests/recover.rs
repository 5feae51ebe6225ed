use super::*;
use crate::proto::{ByteRange, CommitBody, LockMode, LockReply, LockRequest, LockSpace, OwnLock, PlacedLock, WaitId};

/// A life whose notes are kept, bound to node 1 in epoch 5.
struct Life {
    rig: Rig,
    ledger: Ledger,
}

fn life() -> Life {
    life_with(Rules::all())
}

fn life_with(rules: Rules) -> Life {
    let mut rig = Rig::with(rules);
    rig.core = rig.core.noting();
    let mut life = Life { rig, ledger: Ledger::new(me(), 1, 1) };
    life.bind(1, Vec::new());
    life
}

impl Life {
    /// What an event brings; the notes come first, and are kept.
    fn event(&mut self, event: Event) -> Vec<Effect> {
        let mut out = self.rig.event(event);
        let first = !out.is_empty() && matches!(out[0], Effect::Note(_));
        if first && let Effect::Note(notes) = out.remove(0) {
            notes.iter().for_each(|note| self.ledger.note(note));
        }
        assert!(!out.iter().any(|e| matches!(e, Effect::Note(_))), "all notes come in one piece, and first: {out:?}");
        // What it comes to is the same from the beginning again.
        let again = Ledger::of(self.ledger.notes().iter()).expect("it begins with a life");
        assert_eq!(again.notes(), self.ledger.notes());
        out
    }

    fn bind(&mut self, number: u64, grants: Vec<DiskRange>) -> Vec<Effect> {
        let sent = self.event(Event::Hint(hint(5, 1)));
        let BindAnswer::Bound { epoch, grace, refused, fence_gen, verifier, .. } = bound_answer(5, Vec::new()) else {
            panic!("it is bound")
        };
        let answer = BindAnswer::Bound { epoch, grace, grants, refused, fence_gen, verifier };
        let out = self.event(Event::BindAnswered { bind: Bind(number), answer });
        assert!(out.iter().any(|e| matches!(e, Effect::Bound { .. })), "{out:?}");
        sent.into_iter().chain(out).collect()
    }

    fn for_kernel(&mut self, ticket: u64, request: Request, unique: u64) -> Vec<Effect> {
        let origin = Origin { unique, nth: if matches!(request, Request::Open { .. }) { u32::MAX } else { 0 } };
        self.event(Event::SubmitFor { ticket: Ticket(ticket), request, origin })
    }

    fn answer(&mut self, call: &Call, answer: Answer) -> Vec<Effect> {
        self.event(Event::Answered { bind: call.bind, slot: call.slot, seq: call.seq, answer })
    }

    /// SIGKILL; the next process.
    fn killed(self) -> Life {
        assert_eq!(self.ledger.resumable(), Ok(FenceGen(3)));
        self.killed_with(Rules::all())
    }

    fn killed_with(mut self, rules: Rules) -> Life {
        let mut rig = Rig::with(rules);
        rig.core = Client::recover(rig.core.config, &mut self.ledger, rules, Now(0));
        Life { rig, ledger: self.ledger }
    }
}

fn calls(out: &[Effect]) -> Vec<Call> {
    out.iter().filter_map(|e| if let Effect::SendCall { call } = e { Some((**call).clone()) } else { None }).collect()
}

fn rebind(out: &[Effect]) -> BindRequest {
    let sent = out
        .iter()
        .find_map(|e| if let Effect::SendBind { request, .. } = e { Some((**request).clone()) } else { None });
    sent.expect("it binds")
}

fn unlink() -> Request {
    Request::Unlink { parent: InodeNo::ROOT, name: b"a".to_vec() }
}

fn reply(ticket: u64, reply: Reply) -> Effect {
    Effect::Reply { ticket: Ticket(ticket), result: Ok(reply) }
}

#[test]
fn a_call_is_sent_again_under_its_number_and_answers_the_request_that_comes_again() {
    let mut life = life();
    let before = sent_call(&life.for_kernel(1, unlink(), 40));
    let mut next = life.killed();
    let again = calls(&next.bind(2, Vec::new()));
    assert_eq!(again, vec![Call { bind: Bind(2), ..before.clone() }]);
    assert_eq!(next.for_kernel(1, unlink(), 40), vec![], "it is under way");
    assert_eq!(next.answer(&again[0], Answer::Ok(Reply::Done)), vec![reply(1, Reply::Done)]);
    // The same with the answer there before the request.
    let mut next = next.killed();
    let out = next.bind(3, Vec::new());
    assert_eq!(calls(&out), vec![], "nothing is unanswered");
    assert_eq!(next.for_kernel(7, unlink(), 40), vec![reply(7, Reply::Done)]);
    let other = sent_call(&next.for_kernel(8, unlink(), 41));
    assert_eq!((other.slot, other.seq), (before.slot, before.seq + 1), "another request is another call");
}

#[test]
fn an_answer_waits_for_the_request_that_comes_again_until_the_kernel_has_it() {
    let mut life = life();
    life.for_kernel(1, unlink(), 40);
    let mut next = life.killed();
    let again = calls(&next.bind(2, Vec::new()));
    assert_eq!(next.answer(&again[0], Answer::Errno(2)), vec![], "nobody has come back for it");
    next.ledger.note(&Note::Replied(39));
    assert_eq!(
        next.for_kernel(5, unlink(), 40),
        vec![Effect::Reply { ticket: Ticket(5), result: Err(CallFailure::Errno(2)) }]
    );
    assert_eq!(next.ledger.answers.len(), 1, "it may come once more");
    next.ledger.note(&Note::Replied(40));
    assert!(next.ledger.answers.is_empty());
}

#[test]
fn without_the_rule_the_request_that_comes_again_is_executed_again() {
    let mut life = life();
    life.for_kernel(1, unlink(), 40);
    let mut next = life.killed_with(Rules::without(Rule::ClaimedOnce));
    let again = calls(&next.bind(2, Vec::new()));
    assert_eq!(next.for_kernel(1, unlink(), 40), vec![], "behind what a caller that has gone left");
    assert_eq!(sent_call(&next.answer(&again[0], Answer::Ok(Reply::Done))).request, unlink());
}

#[test]
fn without_the_rule_a_number_is_used_twice() {
    let mut life = life_with(Rules::without(Rule::NotedBeforeSent));
    let before = sent_call(&life.for_kernel(1, unlink(), 40));
    let mut next = life.killed();
    next.bind(2, Vec::new());
    let call = sent_call(&next.event(Event::Submit { ticket: Ticket(1), request: open(11) }));
    assert_eq!((call.slot, call.seq), (before.slot, before.seq));
}

#[test]
fn what_is_not_asked_for_again_in_time_is_not_answered_any_more() {
    let mut life = life();
    life.for_kernel(1, unlink(), 40);
    let mut next = life.killed();
    let again = calls(&next.bind(2, Vec::new()));
    next.event(Event::NoneComesAgain);
    assert_eq!(next.answer(&again[0], Answer::Ok(Reply::Done)), vec![]);
    let late = next.for_kernel(9, unlink(), 40);
    assert_eq!(
        late,
        vec![Effect::Reply { ticket: Ticket(9), result: Err(CallFailure::Evicted) }],
        "it is not done twice"
    );
}

#[test]
fn an_eviction_meanwhile_ends_what_was_in_flight_with_an_error() {
    let mut life = life();
    life.for_kernel(1, unlink(), 40);
    let mut next = life.killed();
    next.event(Event::Hint(hint(5, 1)));
    let answer = BindAnswer::Evicted { reason: "it was away".into() };
    next.event(Event::BindAnswered { bind: Bind(2), answer });
    assert!(next.ledger.over, "nobody goes on from there");
    let late = next.for_kernel(9, unlink(), 40);
    assert_eq!(late, vec![Effect::Reply { ticket: Ticket(9), result: Err(CallFailure::Evicted) }]);
    next.event(Event::Reborn {
        client: ClientId { incarnation: Incarnation(10), ..me() },
        fence_gen: FenceGen(4),
        poisoned: Vec::new(),
    });
    let late = next.for_kernel(10, unlink(), 40);
    assert_eq!(
        late,
        vec![Effect::Reply { ticket: Ticket(10), result: Err(CallFailure::Evicted) }],
        "nor by the next incarnation"
    );
}

#[test]
fn open_files_and_locks_are_there_and_what_was_given_to_a_caller_that_has_gone_is_undone() {
    let mut life = life();
    let call = sent_call(&life.for_kernel(1, open(11), 40));
    life.answer(&call, Answer::Ok(Reply::Done));
    assert_eq!(life.ledger.promised().get(&40), Some(&HandleId(11)), "its program may not know of it");
    let lock = OwnLock {
        owner: 5,
        handle: HandleId(11),
        pid: 1,
        range: ByteRange { start: 0, end: 10 },
        mode: LockMode::Write,
    };
    let op = |lock, wait| LockOp::Take { ino: INO, space: LockSpace::Record, lock, wait };
    let call = sent_call(&life.event(Event::Lock { ticket: Ticket(2), op: op(lock, false) }));
    life.answer(&call, Answer::Ok(Reply::Done));
    // Another one, whose answer does not come before the kill.
    let more = OwnLock { range: ByteRange { start: 20, end: 30 }, ..lock };
    let asked = sent_call(&life.event(Event::Lock { ticket: Ticket(3), op: op(more, true) }));
    let mut next = life.killed();
    let out = next.bind(2, Vec::new());
    let asserted = vec![Reassert::Open { ino: INO, handle: HandleId(11), flags: 2 }, Reassert::LocksFollow];
    assert_eq!(rebind(&out).reassert, asserted);
    let sent = calls(&out);
    let locks = vec![PlacedLock { ino: INO, space: LockSpace::Record, lock }];
    let named = sent.iter().find(|c| matches!(c.request, Request::Locks(LockRequest::Held { .. }))).expect("named");
    assert_eq!(named.request, Request::Locks(LockRequest::Held { bind: Bind(2), locks: locks.clone(), last: true }));
    let again = sent.iter().find(|c| c.slot == asked.slot).expect("asked again");
    assert_eq!((again.seq, &again.request), (asked.seq, &asked.request));
    next.answer(named, Answer::Ok(Reply::Locks(LockReply::Refused(Vec::new()))));
    let undone = sent_call(&next.answer(again, Answer::Ok(Reply::Done)));
    let Request::Locks(LockRequest::Restore { range, held, .. }) = &undone.request else { panic!("{undone:?}") };
    assert_eq!((*range, held.len()), (more.range, 0));
    // The kernel asks again, behind that.
    assert_eq!(calls(&next.event(Event::Lock { ticket: Ticket(1), op: op(more, true) })), vec![]);
    let out = next.answer(&undone, Answer::Ok(Reply::Locks(LockReply::Refused(Vec::new()))));
    let Request::Locks(LockRequest::Take { wait: Some(WaitId(wait)), .. }) = sent_call(&out).request else {
        panic!("{out:?}")
    };
    let Request::Locks(LockRequest::Take { wait: Some(WaitId(before)), .. }) = asked.request else {
        panic!("{asked:?}")
    };
    assert!(wait > before, "a name that nobody waited under before");
    assert_eq!(next.ledger.locks(), locks);
}

#[test]
fn an_unlock_and_a_release_that_were_sent_have_happened_for_the_next_life() {
    let mut life = life();
    for handle in [11, 12] {
        let call = sent_call(&life.for_kernel(handle, open(handle), 40 + handle));
        life.answer(&call, Answer::Ok(Reply::Done));
        let lock =
            OwnLock { owner: handle, handle: HandleId(handle), pid: 1, range: ByteRange::ALL, mode: LockMode::Read };
        let op = LockOp::Take { ino: INO, space: LockSpace::Record, lock, wait: false };
        let call = sent_call(&life.event(Event::Lock { ticket: Ticket(50 + handle), op }));
        life.answer(&call, Answer::Ok(Reply::Done));
    }
    let drops = LockOp::Drop { ino: INO, space: LockSpace::Record, owner: 11, range: ByteRange::ALL };
    sent_call(&life.event(Event::Lock { ticket: Ticket(1), op: drops }));
    sent_call(
        &life.event(Event::Submit { ticket: Ticket(2), request: Request::Release { ino: INO, handle: HandleId(12) } }),
    );
    assert!(life.ledger.locks().is_empty());
    let mut next = life.killed();
    let out = next.bind(2, Vec::new());
    assert_eq!(rebind(&out).reassert, vec![Reassert::Open { ino: INO, handle: HandleId(11), flags: 2 }]);
    assert_eq!(calls(&out).len(), 2, "both are sent again");
}

#[test]
fn what_is_uncommitted_is_asserted_and_its_file_asks_for_nothing_else_until_it_is_committed() {
    let mut life = life();
    let call = sent_call(&life.event(Event::Submit {
        ticket: Ticket(1),
        request: Request::LayoutGet { ino: INO, range: BlockRange::ALL, want: Want::Exclusive },
    }));
    life.answer(&call, Answer::Ok(Reply::Layout(grant(70, BlockRange::ALL, LayoutMode::Exclusive))));
    let clean = LayoutGrant { ino: InodeNo(8), ..grant(71, BlockRange::ALL, LayoutMode::Exclusive) };
    let call = sent_call(&life.event(Event::Submit {
        ticket: Ticket(2),
        request: Request::LayoutGet { ino: InodeNo(8), range: BlockRange::ALL, want: Want::Exclusive },
    }));
    life.answer(&call, Answer::Ok(Reply::Layout(clean)));
    let extent = Extent {
        file: FileBlock(0),
        disk: DiskBlock(100),
        len: BlockCount(2),
        state: ExtentState::Written,
        shared: false,
    };
    life.ledger.note(&Note::Wrote { ino: INO, extents: vec![extent], size: 8192, grew: true, appended: None });
    let mut next = life.killed();
    assert_eq!(next.ledger.layouts.len(), 1, "of the other file nothing is kept");
    let map = next.ledger.files[&INO].map();
    assert_eq!((map.uncommitted(BlockRange::ALL), map.dirty_size()), (vec![extent], Some(8192)));
    let out = next.bind(2, vec![DiskRange { start: DiskBlock(96), len: BlockCount(10) }]);
    let [Reassert::Layout { id: LayoutId(70), .. }] = rebind(&out).reassert[..] else { panic!("{out:?}") };
    let free = out.iter().find_map(|e| if let Effect::Bound { grants, .. } = e { Some(grants.clone()) } else { None });
    let part = |start, len| DiskRange { start: DiskBlock(start), len: BlockCount(len) };
    assert_eq!(free, Some(vec![part(96, 4), part(102, 4)]), "its blocks are not free");
    let asks = Request::LayoutGet { ino: INO, range: BlockRange::ALL, want: Want::Read };
    assert_eq!(next.event(Event::Submit { ticket: Ticket(5), request: asks.clone() }), vec![]);
    next.event(Event::GiveBack { layout: LayoutId(70) });
    let out = next.event(Event::Drained { layout: LayoutId(70) });
    assert_eq!(out, vec![Effect::Settle { layout: LayoutId(70), ino: INO }]);
    let body = CommitBody { extents: vec![extent], size: Some(8192), ..CommitBody::default() };
    let commit = Request::Commit { ino: INO, commit: body, give_back: Vec::new() };
    let call = sent_call(&next.event(Event::Submit { ticket: Ticket(6), request: commit }));
    next.answer(&call, Answer::Ok(Reply::Done));
    assert!(next.ledger.files.is_empty(), "it is committed");
    let call = sent_call(&next.event(Event::Settled { layout: LayoutId(70) }));
    let out = next.answer(&call, Answer::Ok(Reply::Done));
    assert_eq!(sent_call(&out).request, asks, "now it may be asked for");
    assert!(next.ledger.layouts.is_empty());
}

#[test]
fn space_that_was_asked_for_is_in_the_grant_or_goes_back() {
    for (granted, goes_back) in
        [(vec![DiskRange { start: DiskBlock(8), len: BlockCount(4) }], false), (Vec::new(), true)]
    {
        let mut life = life();
        let call = sent_call(
            &life.event(Event::Submit { ticket: Ticket(1), request: Request::Grant { blocks: BlockCount(4) } }),
        );
        let mut next = life.killed();
        let again = sent_call(&next.bind(2, granted));
        assert_eq!((again.slot, again.seq, &again.request), (call.slot, call.seq, &Request::Statfs));
        let ranges = vec![DiskRange { start: DiskBlock(8), len: BlockCount(4) }];
        let out = next.answer(&again, Answer::Ok(Reply::Granted(ranges)));
        assert_eq!(calls(&out).len(), usize::from(goes_back), "{out:?}");
    }
}

#[test]
fn nobody_goes_on_from_a_life_whose_data_went_over_the_coordinator_or_that_lost_something() {
    let mut life = life();
    life.event(Event::PathSuspect { reason: Reason::IoTimedOut });
    assert_eq!(life.ledger.resumable(), Err("its data went over the coordinator"));
    let mut life = self::life();
    life.event(Event::Over { reason: "the volume is gone".into() });
    assert_eq!(life.ledger.resumable(), Err("its life was over, or had lost something"));
    let mut life = self::life();
    life.event(Event::Submit { ticket: Ticket(1), request: Request::Goodbye });
    assert!(life.ledger.resumable().is_err());
}
