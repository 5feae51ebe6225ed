use super::*;
use crate::proto::CommitBody;

fn getattr() -> Request {
    Request::Getattr { ino: INO }
}

#[test]
fn asks_who_then_binds_to_the_best_hint_and_sends_what_waited() {
    let mut rig = Rig::new();
    assert_eq!(rig.event(Event::Tick), vec![Effect::AskWho]);
    assert_eq!(rig.submit(1, getattr()), vec![]);
    let out = rig.event(Event::Hint(hint(5, 1)));
    let request = BindRequest {
        volume: VolumeId(1),
        client: me(),
        bind: Bind(1),
        fence_gen: FenceGen(3),
        has_path: true,
        reassert: Vec::new(),
    };
    assert_eq!(out, vec![Effect::SendBind { to: hint(5, 1), request: Box::new(request) }]);
    let out = rig.event(Event::BindAnswered { bind: Bind(1), answer: bound_answer(5, Vec::new()) });
    assert_eq!(out[0], Effect::Bound { epoch: Epoch(5), first: true, grants: Vec::new() });
    let call = sent_call(&out);
    assert_eq!((call.bind, call.seq, call.slot.index), (Bind(1), 1, 0));
    assert_eq!(out.len(), 2);
}

#[test]
fn nothing_is_resent_before_bind_is_answered_and_then_with_slot_and_number_unchanged() {
    let mut rig = Rig::bound();
    let first = sent_call(&rig.submit(1, getattr()));
    assert_eq!(rig.event(Event::LinkLost { bind: Bind(1) }), vec![Effect::Unbound]);
    let out = rig.event(Event::Hint(hint(6, 3)));
    assert!(matches!(out[..], [Effect::SendBind { .. }]), "only the bind: {out:?}");
    assert_eq!(rig.submit(2, getattr()), vec![], "a new request waits too");
    let out = rig.event(Event::BindAnswered { bind: Bind(2), answer: bound_answer(6, Vec::new()) });
    let calls: Vec<_> = out
        .iter()
        .filter_map(|e| if let Effect::SendCall { call } = e { Some((call.slot, call.seq, call.bind)) } else { None })
        .collect();
    let slot = |index| SlotRef { table: SlotTable::Ordinary, index };
    assert_eq!(calls, vec![(slot(0), first.seq, Bind(2)), (slot(1), 1, Bind(2))]);
}

#[test]
fn an_answer_over_the_old_connection_is_not_looked_at() {
    let mut rig = Rig::bound();
    let call = sent_call(&rig.submit(1, getattr()));
    rig.event(Event::LinkLost { bind: Bind(1) });
    assert_eq!(rig.answer(&call, Answer::Errno(2)), vec![]);
    assert_eq!(rig.core.load().0, 1, "still in its slot");
}

#[test]
fn a_newer_epoch_ends_the_binding_and_an_older_one_is_not_heard() {
    let mut rig = Rig::bound();
    assert_eq!(rig.event(Event::Hint(hint(4, 3))), vec![]);
    let out = rig.event(Event::Hint(hint(6, 3)));
    assert!(matches!(&out[..], [Effect::Unbound, Effect::SendBind { to, .. }] if *to == hint(6, 3)), "{out:?}");
    let out = rig.event(Event::BindAnswered { bind: Bind(2), answer: bound_answer(4, Vec::new()) });
    assert!(!out.iter().any(|e| matches!(e, Effect::Bound { .. })), "a lower epoch is refused: {out:?}");
}

#[test]
fn a_failed_bind_is_tried_again_under_a_higher_number_after_a_growing_pause_and_others_are_asked() {
    let mut rig = Rig::new();
    rig.event(Event::Hint(hint(5, 1)));
    assert_eq!(rig.event(Event::BindFailed { bind: Bind(1) }), vec![]);
    assert_eq!(rig.core.next_deadline(), Some(Now(50)));
    let out = rig.after(50);
    assert!(
        matches!(&out[..], [Effect::AskWho, Effect::SendBind { request, .. }] if request.bind == Bind(2)),
        "{out:?}"
    );
    rig.event(Event::BindFailed { bind: Bind(2) });
    assert_eq!(rig.core.next_deadline(), Some(Now(150)));
}

#[test]
fn the_coordinator_is_tried_at_once_when_its_node_can_be_reached_again() {
    let mut rig = Rig::new();
    rig.event(Event::Hint(hint(5, 1)));
    for bind in 1..6 {
        rig.event(Event::BindFailed { bind: Bind(bind) });
        rig.after(1000);
    }
    rig.event(Event::BindFailed { bind: Bind(6) });
    assert_eq!(rig.event(Event::Reachable { node: hint(5, 3).node }), vec![], "nobody coordinates there");
    let out = rig.event(Event::Reachable { node: hint(5, 1).node });
    assert!(matches!(&out[..], [Effect::SendBind { request, .. }] if request.bind == Bind(7)), "{out:?}");
    rig.event(Event::BindFailed { bind: Bind(7) });
    assert_eq!(rig.after(50).len(), 2, "and its pauses are short again");
}

#[test]
fn stale_epoch_leads_to_the_coordinator_it_names_and_the_call_goes_there() {
    let mut rig = Rig::bound();
    let call = sent_call(&rig.submit(1, getattr()));
    let out = rig.answer(&call, Answer::StaleEpoch { hint: Some(hint(6, 3)) });
    assert!(matches!(&out[..], [Effect::Unbound, Effect::SendBind { to, .. }] if *to == hint(6, 3)), "{out:?}");
    let out = rig.event(Event::BindAnswered { bind: Bind(2), answer: bound_answer(6, Vec::new()) });
    assert_eq!((sent_call(&out).slot, sent_call(&out).seq), (call.slot, call.seq));
}

#[test]
fn opens_are_reasserted_until_their_release_was_sent() {
    let mut rig = Rig::bound();
    for handle in [1, 2] {
        let call = sent_call(&rig.submit(handle, open(handle)));
        rig.answer(&call, Answer::Ok(Reply::Done));
    }
    rig.submit(3, Request::Release { ino: INO, handle: HandleId(1) });
    let out = rig.event(Event::Hint(hint(6, 3)));
    let Effect::SendBind { request, .. } = &out[1] else { panic!("{out:?}") };
    assert_eq!(request.reassert, vec![Reassert::Open { ino: INO, handle: HandleId(2), flags: 2 }]);
}

#[test]
fn an_interrupt_takes_effect_without_a_coordinator_and_not_with_one() {
    let mut rig = Rig::bound();
    rig.submit(1, getattr());
    assert_eq!(rig.event(Event::Cancel { ticket: Ticket(1) }), vec![]);
    let out = rig.event(Event::LinkLost { bind: Bind(1) });
    assert_eq!(out, vec![Effect::Unbound, Effect::Reply { ticket: Ticket(1), result: Err(CallFailure::Interrupted) }]);
    rig.submit(2, getattr());
    let out = rig.event(Event::Cancel { ticket: Ticket(2) });
    assert_eq!(out, vec![Effect::Reply { ticket: Ticket(2), result: Err(CallFailure::Interrupted) }]);
    rig.bind_to(6, 3);
    assert_eq!(rig.core.load().0, 1, "what was sent keeps its slot, what was not is gone");
}

#[test]
fn what_an_interrupted_open_leaves_behind_is_released() {
    let mut rig = Rig::bound();
    rig.submit(1, open(4));
    rig.event(Event::LinkLost { bind: Bind(1) });
    rig.event(Event::Cancel { ticket: Ticket(1) });
    rig.event(Event::Hint(hint(6, 3)));
    let out = rig.event(Event::BindAnswered { bind: Bind(2), answer: bound_answer(6, Vec::new()) });
    let out = rig.answer(&sent_call(&out), Answer::Ok(Reply::Done));
    assert_eq!(sent_call(&out).request, Request::Release { ino: INO, handle: HandleId(4) });
}

/// A writer was interrupted while it waited for space and there was no coordinator. The next one granted it; nobody knew of
/// that space until the node's session ended.
#[test]
fn space_that_was_granted_to_an_interrupted_caller_goes_back() {
    let mut rig = Rig::bound();
    rig.submit(1, Request::Grant { blocks: BlockCount(9) });
    rig.event(Event::LinkLost { bind: Bind(1) });
    rig.event(Event::Cancel { ticket: Ticket(1) });
    rig.event(Event::Hint(hint(6, 3)));
    let out = rig.event(Event::BindAnswered { bind: Bind(2), answer: bound_answer(6, Vec::new()) });
    let call = sent_call(&out);
    let recall = || Event::Asked { client: me(), ask: CallbackAsk::RecallGrant, dirty: false };
    let said = rig.event(recall());
    assert_eq!(said, [Effect::ReturnGrant, Effect::AnswerCallback(CallbackAnswer::Draining)], "it is on its way");
    let ranges = vec![DiskRange { start: DiskBlock(70), len: BlockCount(9) }];
    let out = rig.answer(&call, Answer::Ok(Reply::Granted(ranges.clone())));
    assert_eq!(sent_call(&out).request, Request::GrantReturn { ranges });
    assert_eq!(rig.event(recall()), [Effect::ReturnGrant, Effect::AnswerCallback(CallbackAnswer::Accepted)]);
}

#[test]
fn requests_beyond_the_slots_wait_and_returns_do_not_wait_with_them() {
    let mut rig = Rig::bound();
    for ticket in 1..=65 {
        let out = rig.submit(ticket, getattr());
        assert_eq!(out.len(), usize::from(ticket <= 64));
    }
    let commit = Request::Commit { ino: INO, commit: CommitBody::default(), give_back: Vec::new() };
    assert_eq!(sent_call(&rig.submit(100, commit)).slot, SlotRef { table: SlotTable::Return, index: 0 });
}

#[test]
fn eviction_fails_every_caller_drops_every_layout_and_a_new_life_opens_the_sound_handles_again() {
    let mut rig = Rig::bound();
    for handle in [1, 2] {
        let call = sent_call(&rig.submit(handle, open(handle)));
        rig.answer(&call, Answer::Ok(Reply::Done));
    }
    rig.hold(grant(70, BlockRange::ALL, LayoutMode::Exclusive));
    let call = sent_call(&rig.submit(5, getattr()));
    let out = rig.answer(&call, Answer::Evicted { reason: "no answer to a recall".into() });
    assert_eq!(
        out,
        vec![
            Effect::Unbound,
            Effect::CloseDirect,
            Effect::Dropped { layout: LayoutId(70), ino: INO, lost: true },
            Effect::Reply { ticket: Ticket(5), result: Err(CallFailure::Evicted) },
            Effect::Evicted { reason: "no answer to a recall".into(), locked: Vec::new() },
        ]
    );
    assert_eq!(rig.submit(6, getattr()), vec![Effect::Reply { ticket: Ticket(6), result: Err(CallFailure::Evicted) }]);
    let next = ClientId { incarnation: Incarnation(10), ..me() };
    let out = rig.event(Event::Reborn { client: next, fence_gen: FenceGen(8), poisoned: vec![HandleId(1)] });
    assert_eq!(out[0], Effect::OpenDirect);
    let Effect::SendBind { request, .. } = &out[1] else { panic!("{out:?}") };
    assert_eq!(
        (request.client, request.bind, request.fence_gen, request.reassert.len()),
        (next, Bind(2), FenceGen(8), 0)
    );
    let answer = BindAnswer::Bound {
        epoch: Epoch(5),
        grace: false,
        grants: Vec::new(),
        refused: Vec::new(),
        fence_gen: FenceGen(8),
        verifier: verifier(5),
    };
    let out = rig.event(Event::BindAnswered { bind: Bind(2), answer });
    assert_eq!(sent_call(&out).request, open(2));
    assert_eq!(sent_call(&out).seq, 1, "a new session counts from 1");
}

/// What was created and opened, and not heard of, is named: until it is asked for again its file must not be freed.
#[test]
fn a_creation_without_an_answer_is_named_at_the_next_bind() {
    let mut rig = Rig::bound();
    let create = Request::Create {
        parent: InodeNo::ROOT,
        name: b"f".to_vec(),
        mode: 0o100_644,
        umask: 0,
        rdev: 0,
        uid: 0,
        gid: 0,
        exclusive: true,
        open: Some(OpenRequest { handle: HandleId(4), flags: 0 }),
    };
    let call = sent_call(&rig.submit(1, create));
    let out = rig.event(Event::Hint(hint(6, 3)));
    let Effect::SendBind { request, .. } = &out[1] else { panic!("{out:?}") };
    assert_eq!(request.reassert, vec![Reassert::Creating { handle: HandleId(4), slot: call.slot, seq: call.seq }]);
}

/// A node was evicted twice in a row. What the first of its new lives had not opened again yet was forgotten by the second:
/// the file could be freed under its handle, and a lock through it was EBADF.
#[test]
fn a_second_eviction_before_a_handle_was_opened_again_does_not_forget_it() {
    let mut rig = Rig::bound();
    let call = sent_call(&rig.submit(1, open(1)));
    rig.answer(&call, Answer::Ok(Reply::Done));
    for life in 10..=11 {
        let call = sent_call(&rig.submit(life, getattr()));
        rig.answer(&call, Answer::Evicted { reason: "again".into() });
        let client = ClientId { incarnation: Incarnation(life), ..me() };
        rig.event(Event::Reborn { client, fence_gen: FenceGen(3), poisoned: Vec::new() });
        let bind = rig.core.binder.last;
        let out = rig.event(Event::BindAnswered { bind, answer: bound_answer(5, Vec::new()) });
        assert_eq!(sent_call(&out).request, open(1), "in life {life}");
    }
}

fn release(handle: u64) -> Request {
    Request::Release { ino: INO, handle: HandleId(handle) }
}

/// A node was evicted and opened its files again in its next life. One was closed while that was on its way: the release
/// passed it, and the file was open for ever; when it lost its name, its space was never free again.
#[test]
fn a_release_does_not_pass_the_request_that_opens_its_handle_again() {
    let mut rig = Rig::bound();
    let call = sent_call(&rig.submit(1, open(1)));
    rig.answer(&call, Answer::Ok(Reply::Done));
    let call = sent_call(&rig.submit(2, getattr()));
    rig.answer(&call, Answer::Evicted { reason: "once".into() });
    rig.event(Event::Reborn {
        client: ClientId { incarnation: Incarnation(10), ..me() },
        fence_gen: FenceGen(3),
        poisoned: Vec::new(),
    });
    let bind = rig.core.binder.last;
    let reopen = sent_call(&rig.event(Event::BindAnswered { bind, answer: bound_answer(5, Vec::new()) }));
    assert_eq!(reopen.request, open(1));
    assert_eq!(rig.submit(3, release(1)), vec![]);
    let out = rig.answer(&reopen, Answer::Ok(Reply::Done));
    assert_eq!(sent_call(&out).request, release(1));
    assert!(rig.core.opens.is_empty());
}

/// The same, closed before the next life began, or ended before the request was answered.
#[test]
fn a_handle_that_was_closed_between_two_lives_is_not_opened_in_the_next() {
    let mut rig = Rig::bound();
    for handle in [1, 2] {
        let call = sent_call(&rig.submit(handle, open(handle)));
        rig.answer(&call, Answer::Ok(Reply::Done));
    }
    let evicted = Answer::Evicted { reason: "again".into() };
    let call = sent_call(&rig.submit(3, getattr()));
    rig.answer(&call, evicted.clone());
    let failed = |ticket| vec![Effect::Reply { ticket: Ticket(ticket), result: Err(CallFailure::Evicted) }];
    assert_eq!(rig.submit(4, release(1)), failed(4));
    let reborn = |life| Event::Reborn {
        client: ClientId { incarnation: Incarnation(life), ..me() },
        fence_gen: FenceGen(3),
        poisoned: Vec::new(),
    };
    rig.event(reborn(10));
    let bind = rig.core.binder.last;
    let reopen = sent_call(&rig.event(Event::BindAnswered { bind, answer: bound_answer(5, Vec::new()) }));
    assert_eq!(reopen.request, open(2), "and not the other");
    assert_eq!(rig.submit(5, release(2)), vec![]);
    let out = rig.answer(&reopen, evicted);
    assert!(out.contains(&failed(5)[0]), "{out:?}");
    rig.event(reborn(11));
    assert!(rig.core.opens.is_empty() && rig.core.own.is_empty());
}

/// A worker was busy while its node was evicted and began its next life; an answer to the old life, which lay there, had the
/// bind, the slot and the number of a request of the new one, and was taken for its answer.
#[test]
fn a_late_answer_to_the_life_before_is_not_looked_at() {
    let mut rig = Rig::bound();
    let old = sent_call(&rig.submit(1, getattr()));
    rig.submit(2, getattr());
    rig.event(Event::Answered { seq: 1, slot: slot(1), bind: Bind(1), answer: evicted() });
    let client = ClientId { incarnation: Incarnation(10), ..me() };
    rig.event(Event::Reborn { client, fence_gen: FenceGen(3), poisoned: Vec::new() });
    let bind = rig.core.binder.last;
    rig.event(Event::BindAnswered { bind, answer: bound_answer(5, Vec::new()) });
    let new = sent_call(&rig.submit(3, getattr()));
    assert_eq!((new.slot, new.seq), (old.slot, old.seq), "as in the life before");
    assert_eq!(rig.answer(&old, Answer::Errno(2)), vec![]);
    assert_eq!(rig.event(Event::LinkLost { bind: old.bind }), vec![], "nor the end of its connection");
    let done = vec![Effect::Reply { ticket: Ticket(3), result: Err(CallFailure::Errno(3)) }];
    assert_eq!(rig.answer(&new, Answer::Errno(3)), done);
}

/// A node was evicted while it waited for the proof that nothing of its own is in flight. The proof came then, and the next
/// life, whose I/O was direct, said in its first request that its path was lost and nothing in flight.
#[test]
fn a_proof_that_comes_after_the_eviction_is_of_no_use_to_the_next_life() {
    let mut rig = Rig::bound();
    rig.submit(1, getattr());
    rig.event(Event::PathSuspect { reason: Reason::IoTimedOut });
    rig.event(Event::Answered { seq: 1, slot: slot(0), bind: Bind(1), answer: evicted() });
    rig.proved();
    let client = ClientId { incarnation: Incarnation(10), ..me() };
    rig.event(Event::Reborn { client, fence_gen: FenceGen(3), poisoned: Vec::new() });
    let bind = rig.core.binder.last;
    let out = rig.event(Event::BindAnswered { bind, answer: bound_answer(5, Vec::new()) });
    assert!(!out.iter().any(|e| matches!(e, Effect::SendCall { .. })), "{out:?}");
}

/// The proof of the life before was there, and the task that brings it was late: it came when the next life had left the direct
/// route in its turn, and was taken for the proof that none of *its* writes is in flight.
#[test]
fn a_proof_that_the_life_before_asked_for_does_not_answer_the_question_of_the_next() {
    let mut rig = Rig::bound();
    rig.submit(1, getattr());
    let first = rig.event(Event::PathSuspect { reason: Reason::IoTimedOut });
    assert!(first.contains(&Effect::Abort { number: 1 }), "{first:?}");
    rig.event(Event::Answered { seq: 1, slot: slot(0), bind: Bind(1), answer: evicted() });
    let client = ClientId { incarnation: Incarnation(10), ..me() };
    rig.event(Event::Reborn { client, fence_gen: FenceGen(3), poisoned: Vec::new() });
    let bind = rig.core.binder.last;
    rig.event(Event::BindAnswered { bind, answer: bound_answer(5, Vec::new()) });
    let second = rig.event(Event::PathSuspect { reason: Reason::IoTimedOut });
    assert!(second.contains(&Effect::Abort { number: 2 }), "{second:?}");
    assert_eq!(rig.event(Event::NothingInFlight { number: 1 }), vec![]);
    assert_eq!(rig.event(Event::AbortFailed { number: 1 }), vec![], "nor does its failure");
    assert!(!rig.after(500).iter().any(|e| matches!(e, Effect::Abort { .. })), "the second is still awaited");
    let call = sent_call(&rig.event(Event::NothingInFlight { number: 2 }));
    assert_eq!(call.request, Request::PathLost { nothing_in_flight: true });
}

fn slot(index: u8) -> SlotRef {
    SlotRef { table: SlotTable::Ordinary, index }
}

fn evicted() -> Answer {
    Answer::Evicted { reason: "no answer to a recall".into() }
}
