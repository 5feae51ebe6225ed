use super::*;
use crate::proto::CommitBody;

#[test]
fn a_recalled_layout_is_returned_only_after_guards_are_gone_and_it_is_committed() {
    let mut rig = Rig::bound();
    rig.hold(grant(70, BlockRange::ALL, LayoutMode::Exclusive));
    let withdraw = Effect::Withdraw { layout: LayoutId(70), ino: INO };
    assert_eq!(rig.recall(70), vec![withdraw, Effect::AnswerCallback(CallbackAnswer::Accepted)]);
    assert_eq!(rig.recall(70), vec![Effect::AnswerCallback(CallbackAnswer::Accepted)], "asked twice, begun once");
    assert_eq!(rig.event(Event::Settled { layout: LayoutId(70) }), vec![], "not before it is drained");
    assert_eq!(
        rig.event(Event::Drained { layout: LayoutId(70) }),
        vec![Effect::Settle { layout: LayoutId(70), ino: INO }]
    );
    let call = sent_call(&rig.event(Event::Settled { layout: LayoutId(70) }));
    assert_eq!(call.slot.table, SlotTable::Return);
    assert_eq!(
        call.request,
        Request::Commit { ino: INO, commit: CommitBody::default(), give_back: vec![LayoutId(70)] }
    );
    let out = rig.answer(&call, Answer::Ok(Reply::Done));
    assert_eq!(out, vec![Effect::Dropped { layout: LayoutId(70), ino: INO, lost: false }]);
    assert_eq!(rig.recall(70), vec![Effect::AnswerCallback(CallbackAnswer::NotHeld)]);
}

/// The recall travels in its own task and overtakes the answer that grants the layout.
#[test]
fn a_recall_that_overtakes_its_grant_is_not_answered_with_not_held() {
    let mut rig = Rig::bound();
    let call = sent_call(&rig.submit(1, Request::LayoutGet { ino: INO, range: BlockRange::ALL, want: Want::Read }));
    assert_eq!(rig.recall(70), vec![Effect::AnswerCallback(CallbackAnswer::Accepted)]);
    let given = grant(70, BlockRange::ALL, LayoutMode::Shared);
    let out = rig.answer(&call, Answer::Ok(Reply::Layout(given.clone())));
    assert_eq!(
        out,
        vec![
            Effect::Granted { ticket: Ticket(1), grant: given.clone() },
            Effect::Reply { ticket: Ticket(1), result: Ok(Reply::Layout(given)) },
            Effect::Withdraw { layout: LayoutId(70), ino: INO },
        ]
    );
}

#[test]
fn a_recall_while_the_route_is_draining_says_so() {
    let mut rig = Rig::bound();
    rig.hold(grant(70, BlockRange::ALL, LayoutMode::Shared));
    rig.event(Event::PathSuspect { reason: Reason::IoTimedOut });
    let out = rig.recall(70);
    assert_eq!(
        out,
        vec![Effect::Withdraw { layout: LayoutId(70), ino: INO }, Effect::AnswerCallback(CallbackAnswer::Draining)]
    );
    let progress = Event::Asked { client: me(), ask: CallbackAsk::Progress, dirty: false };
    assert_eq!(rig.event(progress), vec![Effect::AnswerCallback(CallbackAnswer::Draining)]);
}

#[test]
fn a_sync_of_a_clean_file_is_answered_not_held() {
    let mut rig = Rig::bound();
    let ask = CallbackAsk::Sync { ino: INO, number: 4 };
    let clean = Event::Asked { client: me(), ask: ask.clone(), dirty: false };
    assert_eq!(rig.event(clean), vec![Effect::AnswerCallback(CallbackAnswer::NotHeld)]);
    let dirty = Event::Asked { client: me(), ask, dirty: true };
    assert_eq!(
        rig.event(dirty),
        vec![Effect::Sync { ino: INO, number: 4 }, Effect::AnswerCallback(CallbackAnswer::Accepted)]
    );
}

/// Space that was granted while it was called back stayed with its node: its answer came after the return.
#[test]
fn a_recall_of_space_while_more_is_being_asked_for_says_so() {
    let mut rig = Rig::bound();
    let ask = |dirty| Event::Asked { client: me(), ask: CallbackAsk::RecallGrant, dirty };
    let accepted = vec![Effect::ReturnGrant, Effect::AnswerCallback(CallbackAnswer::Accepted)];
    assert_eq!(rig.event(ask(false)), accepted);
    let again = vec![Effect::ReturnGrant, Effect::AnswerCallback(CallbackAnswer::Draining)];
    assert_eq!(rig.event(ask(true)), again);
}

#[test]
fn a_callback_to_another_incarnation_changes_nothing() {
    let mut rig = Rig::bound();
    rig.hold(grant(70, BlockRange::ALL, LayoutMode::Shared));
    let old = ClientId { incarnation: Incarnation(8), ..me() };
    let out = rig.event(Event::Asked {
        client: old,
        ask: CallbackAsk::Recall { layout: LayoutId(70), ino: INO },
        dirty: false,
    });
    assert_eq!(out, vec![Effect::AnswerCallback(CallbackAnswer::WrongIncarnation)]);
    assert_eq!(rig.core.layout(LayoutId(70)).map(|l| l.standing), Some(Standing::Held));
}

#[test]
fn layouts_are_reasserted_and_those_refused_are_dropped_as_lost() {
    let mut rig = Rig::bound();
    rig.hold(grant(70, BlockRange::new(0, 8), LayoutMode::Exclusive));
    rig.hold(grant(71, BlockRange::new(8, 16), LayoutMode::Shared));
    let out = rig.event(Event::Hint(hint(6, 3)));
    let Effect::SendBind { request, .. } = &out[1] else { panic!("{out:?}") };
    assert_eq!(request.reassert.len(), 2);
    assert!(rig.core.gate_open(), "in-place direct I/O goes on while there is no coordinator");
    let out = rig.event(Event::BindAnswered { bind: Bind(2), answer: bound_answer(6, vec![LayoutId(70)]) });
    assert_eq!(out[1], Effect::Dropped { layout: LayoutId(70), ino: INO, lost: true });
    assert!(rig.core.layout(LayoutId(70)).is_none());
    assert!(rig.core.layout(LayoutId(71)).is_some());
}

/// A layout whose return was sent may belong to somebody else by now.
#[test]
fn a_layout_being_returned_is_not_claimed_again() {
    let mut rig = Rig::bound();
    rig.hold(grant(70, BlockRange::ALL, LayoutMode::Exclusive));
    rig.hold(grant(71, BlockRange::ALL, LayoutMode::Exclusive));
    rig.recall(70);
    rig.event(Event::Drained { layout: LayoutId(70) });
    rig.event(Event::Settled { layout: LayoutId(70) });
    let commit = CommitBody { size: Some(9), ..CommitBody::default() };
    let call = sent_call(&rig.submit(9, Request::Commit { ino: INO, commit, give_back: vec![LayoutId(71)] }));
    let out = rig.event(Event::Hint(hint(6, 3)));
    let Effect::SendBind { request, .. } = &out[1] else { panic!("{out:?}") };
    let releasing = Reassert::Releasing {
        id: LayoutId(71),
        ino: INO,
        range: BlockRange::ALL,
        mode: LayoutMode::Exclusive,
        slot: call.slot,
        seq: call.seq,
    };
    assert_eq!(request.reassert, vec![releasing]);
}

#[test]
fn a_return_that_fails_is_settled_again() {
    let mut rig = Rig::bound();
    rig.hold(grant(70, BlockRange::ALL, LayoutMode::Exclusive));
    rig.event(Event::GiveBack { layout: LayoutId(70) });
    rig.event(Event::Drained { layout: LayoutId(70) });
    let call = sent_call(&rig.event(Event::Settled { layout: LayoutId(70) }));
    assert_eq!(rig.answer(&call, Answer::Errno(5)), vec![Effect::Settle { layout: LayoutId(70), ino: INO }]);
}

/// The first of two layouts was recalled, committed and sent back while the grant of the second was on its way. That
/// grant's mapping was from before the commit: the file seemed shorter than what had been appended, and the next append
/// overwrote it.
#[test]
fn a_grant_that_the_end_of_another_layout_overtook_goes_back_untold_and_is_asked_for_again() {
    let mut rig = Rig::bound();
    rig.hold(grant(70, BlockRange::ALL, LayoutMode::Exclusive));
    let asked = Request::LayoutGet { ino: INO, range: BlockRange::ALL, want: Want::Read };
    let get = sent_call(&rig.submit(2, asked.clone()));
    rig.recall(70);
    rig.event(Event::Drained { layout: LayoutId(70) });
    let back = sent_call(&rig.event(Event::Settled { layout: LayoutId(70) }));
    rig.answer(&back, Answer::Ok(Reply::Done));
    let old = LayoutGrant { beside: vec![LayoutId(70)], ..grant(71, BlockRange::ALL, LayoutMode::Shared) };
    let out = rig.answer(&get, Answer::Ok(Reply::Layout(old)));
    let calls: Vec<&Request> =
        out.iter().filter_map(|e| if let Effect::SendCall { call } = e { Some(&call.request) } else { None }).collect();
    let given_back = Request::Commit { ino: INO, commit: CommitBody::default(), give_back: vec![LayoutId(71)] };
    assert_eq!(calls, [&given_back, &asked], "and nothing is told: {out:?}");
    assert_eq!(out.len(), 2);
    assert!(rig.core.layout(LayoutId(71)).is_none());
}

/// The same, but the coordinator had executed the return before it read the mapping; only the answer to the return was
/// late. What is known under the old layout must not win over the grant.
#[test]
fn a_grant_that_is_newer_than_a_return_on_its_way_ends_that_layout_first() {
    let mut rig = Rig::bound();
    rig.hold(grant(70, BlockRange::ALL, LayoutMode::Exclusive));
    rig.recall(70);
    rig.event(Event::Drained { layout: LayoutId(70) });
    let back = sent_call(&rig.event(Event::Settled { layout: LayoutId(70) }));
    let get = sent_call(&rig.submit(2, Request::LayoutGet { ino: INO, range: BlockRange::ALL, want: Want::Read }));
    let out = rig.answer(&get, Answer::Ok(Reply::Layout(grant(71, BlockRange::ALL, LayoutMode::Shared))));
    assert_eq!(out[0], Effect::Dropped { layout: LayoutId(70), ino: INO, lost: false });
    assert!(matches!(out[1], Effect::Granted { .. }), "{out:?}");
    assert_eq!(rig.answer(&back, Answer::Ok(Reply::Done)), vec![], "gone already");
}

fn commit(size: u64) -> Request {
    Request::Commit {
        ino: INO,
        commit: CommitBody { size: Some(size), ..CommitBody::default() },
        give_back: Vec::new(),
    }
}

/// An fsync was interrupted while there was no coordinator; its commit stayed in its slot. The layout went back, the file was
/// cut through another node, and then that commit was executed: the file was as long as before.
#[test]
fn nothing_that_a_commit_left_behind_may_undo_passes_it() {
    let mut rig = Rig::bound();
    rig.hold(grant(70, BlockRange::ALL, LayoutMode::Exclusive));
    let left = sent_call(&rig.submit(2, commit(9)));
    rig.event(Event::LinkLost { bind: Bind(1) });
    let interrupted = |ticket| vec![Effect::Reply { ticket: Ticket(ticket), result: Err(CallFailure::Interrupted) }];
    assert_eq!(rig.event(Event::Cancel { ticket: Ticket(2) }), interrupted(2));
    rig.bind_to(6, 3);
    rig.event(Event::GiveBack { layout: LayoutId(70) });
    rig.event(Event::Drained { layout: LayoutId(70) });
    assert_eq!(rig.submit(3, commit(9)), vec![], "it may be older than this one");
    assert_eq!(rig.event(Event::Settled { layout: LayoutId(70) }), vec![]);
    let other = Request::Commit { ino: InodeNo(8), commit: CommitBody::default(), give_back: Vec::new() };
    sent_call(&rig.submit(4, other));
    assert_eq!(rig.submit(5, commit(10)), vec![]);
    assert_eq!(rig.event(Event::Cancel { ticket: Ticket(5) }), interrupted(5), "it was never sent");
    let out =
        rig.event(Event::Answered { bind: Bind(2), slot: left.slot, seq: left.seq, answer: Answer::Ok(Reply::Done) });
    let sent = |e: &Effect| if let Effect::SendCall { call } = e { Some(call.request.clone()) } else { None };
    let back = Request::Commit { ino: INO, commit: CommitBody::default(), give_back: vec![LayoutId(70)] };
    assert_eq!(out.iter().filter_map(sent).collect::<Vec<_>>(), [commit(9), back]);
}

/// Two tasks told the time of one write, `utimensat` set an earlier one, and the second of them came last.
#[test]
fn a_length_or_a_time_is_set_after_every_commit_and_every_time_of_its_file() {
    let set = |size, mtime, mode| {
        let set = crate::proto::SetAttr { size, mtime, mode, ..Default::default() };
        Request::Setattr { ino: INO, set }
    };
    let time = Timestamp { secs: 1, nanos: 0 };
    let times = |ino| Request::Times { changes: vec![(InodeNo(8), time), (ino, time)] };
    for first in [times(INO), commit(5)] {
        for then in [set(Some(0), None, None), set(None, Some(time), None)] {
            let mut rig = Rig::bound();
            let first = sent_call(&rig.submit(1, first.clone()));
            assert_eq!(rig.submit(2, then.clone()), vec![]);
            sent_call(&rig.submit(3, set(None, None, Some(0o600))));
            assert_eq!(sent_call(&rig.answer(&first, Answer::Ok(Reply::Done))).request, then);
        }
    }
    let mut rig = Rig::bound();
    rig.submit(1, times(InodeNo(9)));
    sent_call(&rig.submit(2, set(Some(0), None, None)));
}

/// A removal was interrupted, its program made the file anew, and the removal, which was still in its slot, was executed after
/// that.
#[test]
fn nothing_that_changes_names_or_files_passes_what_an_interrupted_caller_left() {
    let remove = Request::Unlink { parent: InodeNo::ROOT, name: b"f".to_vec() };
    let make = Request::Symlink { parent: InodeNo::ROOT, name: b"f".to_vec(), target: vec![b't'], uid: 0, gid: 0 };
    let cut = || Request::Setattr { ino: INO, set: crate::proto::SetAttr { size: Some(0), ..Default::default() } };
    let get = |ino| Request::LayoutGet { ino, range: BlockRange::ALL, want: Want::Write };
    for (left, then, beside) in
        [(remove.clone(), make, Request::Getattr { ino: INO }), (cut(), get(INO), get(InodeNo(8)))]
    {
        let mut rig = Rig::bound();
        let first = sent_call(&rig.submit(1, left));
        rig.event(Event::LinkLost { bind: Bind(1) });
        rig.event(Event::Cancel { ticket: Ticket(1) });
        assert_eq!(rig.submit(2, then.clone()), vec![]);
        rig.bind_to(6, 3);
        sent_call(&rig.submit(3, beside));
        sent_call(&rig.submit(4, Request::Commit { ino: INO, commit: CommitBody::default(), give_back: Vec::new() }));
        let answer = Answer::Ok(Reply::Done);
        let out = rig.event(Event::Answered { bind: Bind(2), slot: first.slot, seq: first.seq, answer });
        assert_eq!(sent_call(&out).request, then);
    }
    let mut rig = Rig::bound();
    rig.submit(1, remove);
    sent_call(&rig.submit(2, cut()));
}

#[test]
fn an_eviction_ends_what_is_held_back() {
    let mut rig = Rig::bound();
    let first = sent_call(&rig.submit(1, commit(5)));
    let set = crate::proto::SetAttr { size: Some(0), ..Default::default() };
    assert_eq!(rig.submit(2, Request::Setattr { ino: INO, set }), vec![]);
    assert_eq!(rig.core.load().1, 1);
    let out = rig.answer(&first, Answer::Evicted { reason: "no answer to a recall".into() });
    let told: Vec<u64> =
        out.iter().filter_map(|e| if let Effect::Reply { ticket, .. } = e { Some(ticket.0) } else { None }).collect();
    assert_eq!(told, [1, 2]);
    assert_eq!(rig.core.load().1, 0);
}
