//! Requests that have waited for `io_timeout`: when they end, and that nothing of them is executed afterwards.

use super::*;
use crate::proto::{ByteRange, LockMode, LockReply, LockRequest, LockSpace, OwnLock};

fn expired_call(rig: &mut Rig, ticket: u64) -> Vec<Effect> {
    rig.event(Event::Expired { calls: vec![Ticket(ticket)], ios: Vec::new() })
}

fn expired_io(rig: &mut Rig, io: u64) -> Vec<Effect> {
    rig.event(Event::Expired { calls: Vec::new(), ios: vec![IoId(io)] })
}

fn eio(ticket: u64) -> Effect {
    Effect::Reply { ticket: Ticket(ticket), result: Err(CallFailure::Expired) }
}

fn io_eio(io: u64) -> Effect {
    Effect::RedirectDone { io: IoId(io), result: RedirectResult::Expired }
}

fn remove() -> Request {
    Request::Unlink { parent: InodeNo::ROOT, name: b"f".to_vec() }
}

fn space() -> Answer {
    Answer::Ok(Reply::Space(crate::proto::Space { blocks: 9, free: 9, files: 1, files_free: 9 }))
}

fn lose(rig: &mut Rig) -> Vec<Effect> {
    let bind = rig.core.binder.last;
    rig.event(Event::LinkLost { bind })
}

/// Bound to the next coordinator; what goes out.
fn next(rig: &mut Rig, epoch: u64) -> Vec<Effect> {
    rig.event(Event::Hint(hint(epoch, 3)));
    let bind = rig.core.binder.last;
    let answer = bound_answer(epoch, Vec::new());
    rig.event(Event::BindAnswered { bind, answer })
}

fn replies(out: &[Effect]) -> Vec<Effect> {
    let told = |e: &&Effect| matches!(e, Effect::Reply { .. } | Effect::RedirectDone { .. });
    out.iter().filter(told).cloned().collect()
}

/// Redirected, under an exclusive layout.
fn redirected(rules: Rules) -> Rig {
    let mut rig = Rig::with(rules);
    rig.bind_to(5, 1);
    rig.hold(grant(70, BlockRange::ALL, LayoutMode::Exclusive));
    rig.redirected();
    rig
}

fn without() -> Rules {
    Rules::without(Rule::ExpiredIsWithdrawn)
}

#[test]
fn a_redirected_write_that_was_never_sent_gets_eio_at_once_and_is_never_sent() {
    let mut rig = redirected(Rules::all());
    lose(&mut rig);
    assert_eq!(rig.io(1, RedirectOp::Write), []);
    assert_eq!(expired_io(&mut rig, 1), [io_eio(1)]);
    assert_eq!(sent_io(&next(&mut rig, 6)), Vec::<u64>::new());
    assert_eq!(rig.core.load().2, 0);
    // Without the rule its program is told the same, and it is executed by the next coordinator.
    let mut rig = redirected(without());
    lose(&mut rig);
    rig.io(1, RedirectOp::Write);
    assert_eq!(expired_io(&mut rig, 1), [io_eio(1)]);
    assert_eq!(sent_io(&next(&mut rig, 6)), [1]);
}

#[test]
fn a_redirected_write_that_was_sent_waits_for_the_next_bind_and_is_not_sent_again() {
    let mut rig = redirected(Rules::all());
    assert_eq!(sent_io(&rig.io(1, RedirectOp::Write)), [1]);
    assert_eq!(sent_io(&rig.io(2, RedirectOp::Write)), [2]);
    assert_eq!(expired_io(&mut rig, 1), []);
    assert_eq!(rig.core.waits_longer(), Overdue { redirected: 1, ..Overdue::default() });
    assert_eq!(replies(&lose(&mut rig)), []);
    assert_eq!(expired_io(&mut rig, 1), [], "its coordinator may be at it");
    let out = next(&mut rig, 6);
    assert_eq!((replies(&out), sent_io(&out)), (vec![io_eio(1)], vec![2]));
    assert_eq!(rig.core.waits_longer(), Overdue::default());
}

#[test]
fn a_redirected_write_whose_answer_comes_was_executed_whatever_its_age() {
    let mut rig = redirected(Rules::all());
    rig.io(1, RedirectOp::Write);
    assert_eq!(expired_io(&mut rig, 1), []);
    assert_eq!(replies(&rig.io_done(1, 5)), [Effect::RedirectDone { io: IoId(1), result: RedirectResult::Done }]);
    assert_eq!(rig.core.load().3, 4096, "kept until it is flushed, as ever");
}

/// The coordinator has not fenced this path: it said so of the write, which is not under way then.
#[test]
fn a_redirected_write_that_was_refused_for_now_gets_eio_under_the_same_bind() {
    let mut rig = redirected(Rules::all());
    rig.io(1, RedirectOp::Write);
    let bind = rig.core.binder.last;
    rig.event(Event::RedirectAnswered { io: IoId(1), bind, answer: RedirectAnswer::PathNotFenced });
    assert_eq!(expired_io(&mut rig, 1), [io_eio(1)]);
}

#[test]
fn redirected_reads_and_flushes_end_at_once_wherever_they_are() {
    let mut rig = redirected(Rules::all());
    for (io, op) in [(1, RedirectOp::Read), (2, RedirectOp::Flush)] {
        assert_eq!(sent_io(&rig.io(io, op)), [io]);
        assert_eq!(expired_io(&mut rig, io), [io_eio(io)]);
        assert_eq!(rig.io_done(io, 5), [], "nobody waits for it");
    }
}

#[test]
fn a_call_that_was_never_sent_gets_eio_at_once_and_its_number_is_not_used() {
    let mut rig = Rig::bound();
    lose(&mut rig);
    assert_eq!(rig.submit(1, remove()), []);
    assert_eq!(expired_call(&mut rig, 1), [eio(1)]);
    rig.submit(2, remove());
    let call = sent_call(&next(&mut rig, 6));
    assert_eq!((call.slot.index, call.seq, call.request), (0, 1, remove()));
}

#[test]
fn a_call_that_waits_for_a_slot_or_for_another_gets_eio_at_once() {
    let mut rig = Rig::bound();
    for ticket in 1..=u64::from(ORDINARY_SLOTS) {
        sent_call(&rig.submit(ticket, Request::Statfs));
    }
    assert_eq!(rig.submit(100, remove()), []);
    assert_eq!(expired_call(&mut rig, 100), [eio(100)]);
    assert_eq!(rig.core.load().1, 0);
    let mut rig = Rig::bound();
    let commit = Request::Commit { ino: INO, commit: Default::default(), give_back: Vec::new() };
    let set = crate::proto::SetAttr { size: Some(0), ..Default::default() };
    let first = sent_call(&rig.submit(1, commit));
    assert_eq!(rig.submit(2, Request::Setattr { ino: INO, set }), [], "behind the commit");
    assert_eq!(expired_call(&mut rig, 2), [eio(2)]);
    assert_eq!(replies(&rig.answer(&first, Answer::Ok(Reply::Done))).len(), 1);
    assert_eq!(rig.core.load(), (0, 0, 0, 0));
}

/// The whole of it: sent, too old, its coordinator gone, and the next executes something else under its number.
#[test]
fn a_change_that_was_sent_gets_eio_only_once_another_request_has_used_its_number() {
    let mut rig = Rig::bound();
    let first = sent_call(&rig.submit(1, remove()));
    assert_eq!(expired_call(&mut rig, 1), [], "its coordinator may be at it");
    assert_eq!(rig.core.waits_longer(), Overdue { calls: 1, ..Overdue::default() });
    assert_eq!(replies(&lose(&mut rig)), []);
    assert_eq!(expired_call(&mut rig, 1), [], "or the next may have its answer");
    let instead = sent_call(&next(&mut rig, 6));
    assert_eq!((instead.slot, instead.seq, &instead.request), (first.slot, first.seq, &Request::Statfs));
    assert_eq!(rig.answer(&instead, space()), [eio(1)]);
    assert_eq!(rig.core.waits_longer(), Overdue::default());
    let later = sent_call(&rig.submit(2, remove()));
    assert_eq!((later.slot, later.seq), (first.slot, first.seq + 1));
    // Without the rule EIO comes at once, and the next coordinator executes it.
    let mut rig = Rig::with(without());
    rig.bind_to(5, 1);
    rig.submit(1, remove());
    assert_eq!(expired_call(&mut rig, 1), [eio(1)]);
    lose(&mut rig);
    assert_eq!(sent_call(&next(&mut rig, 6)).request, remove());
}

#[test]
fn a_change_that_was_executed_after_all_is_answered_as_it_was() {
    for answer in [Answer::Ok(Reply::Done), Answer::Errno(2)] {
        let mut rig = Rig::bound();
        rig.submit(1, remove());
        assert_eq!(expired_call(&mut rig, 1), []);
        lose(&mut rig);
        let instead = sent_call(&next(&mut rig, 6));
        let result = match &answer {
            Answer::Ok(reply) => Ok(reply.clone()),
            _ => Err(CallFailure::Errno(2)),
        };
        assert_eq!(rig.answer(&instead, answer), [Effect::Reply { ticket: Ticket(1), result }]);
    }
    // The same with the answer of the first coordinator.
    let mut rig = Rig::bound();
    let call = sent_call(&rig.submit(1, remove()));
    expired_call(&mut rig, 1);
    let done = Effect::Reply { ticket: Ticket(1), result: Ok(Reply::Done) };
    assert_eq!(rig.answer(&call, Answer::Ok(Reply::Done)), [done]);
}

#[test]
fn the_coordinator_that_used_the_number_may_die_before_it_is_heard() {
    let mut rig = Rig::bound();
    let first = sent_call(&rig.submit(1, remove()));
    expired_call(&mut rig, 1);
    for epoch in 6..9 {
        lose(&mut rig);
        let instead = sent_call(&next(&mut rig, epoch));
        assert_eq!((instead.slot, instead.seq, instead.request), (first.slot, first.seq, Request::Statfs));
    }
    lose(&mut rig);
    let instead = sent_call(&next(&mut rig, 9));
    assert_eq!(rig.answer(&instead, space()), [eio(1)]);
}

#[test]
fn a_creation_that_took_place_is_open_and_its_program_is_told() {
    let mut rig = Rig::bound();
    let open = OpenRequest { handle: HandleId(4), flags: 2 };
    let (parent, name, mode) = (InodeNo::ROOT, b"f".to_vec(), 0o100_600);
    let make =
        Request::Create { parent, name, mode, umask: 0, rdev: 0, uid: 0, gid: 0, exclusive: true, open: Some(open) };
    let first = sent_call(&rig.submit(1, make));
    expired_call(&mut rig, 1);
    lose(&mut rig);
    let out = rig.event(Event::Hint(hint(6, 3)));
    let Some(Effect::SendBind { request, .. }) = out.last() else { panic!("{out:?}") };
    let creating = Reassert::Creating { handle: HandleId(4), slot: first.slot, seq: first.seq };
    assert_eq!(request.reassert, [creating], "so that it stays open there if it was executed");
    let bind = rig.core.binder.last;
    let instead = sent_call(&rig.event(Event::BindAnswered { bind, answer: bound_answer(6, Vec::new()) }));
    assert_eq!(rig.answer(&instead, space()), [eio(1)]);
    assert!(rig.core.opens.is_empty());
}

#[test]
fn what_makes_no_difference_ends_at_once_and_what_it_brings_is_kept_in_order() {
    let mut rig = Rig::bound();
    let call = sent_call(&rig.submit(1, Request::Getattr { ino: INO }));
    assert_eq!(expired_call(&mut rig, 1), [eio(1)]);
    assert_eq!(expired_call(&mut rig, 1), [], "once");
    assert_eq!(rig.answer(&call, Answer::Errno(5)), []);
    let call = sent_call(&rig.submit(2, open(4)));
    assert_eq!(expired_call(&mut rig, 2), [eio(2)]);
    let out = rig.answer(&call, Answer::Ok(Reply::Done));
    assert_eq!(sent_call(&out).request, Request::Release { ino: INO, handle: HandleId(4) });
    let call = sent_call(&rig.submit(3, Request::LayoutGet { ino: INO, range: BlockRange::ALL, want: Want::Write }));
    assert_eq!(expired_call(&mut rig, 3), [eio(3)]);
    let out = rig.answer(&call, Answer::Ok(Reply::Layout(grant(71, BlockRange::ALL, LayoutMode::Shared))));
    assert!(matches!(out[..], [Effect::Granted { .. }]), "{out:?}");
}

#[test]
fn a_withdrawn_call_whose_program_is_killed_is_withdrawn_all_the_same() {
    let mut rig = Rig::bound();
    rig.submit(1, remove());
    expired_call(&mut rig, 1);
    rig.event(Event::Cancel { ticket: Ticket(1) });
    let interrupted = Effect::Reply { ticket: Ticket(1), result: Err(CallFailure::Interrupted) };
    assert_eq!(replies(&lose(&mut rig)), [interrupted]);
    assert_eq!(rig.core.waits_longer(), Overdue::default(), "nobody waits");
    let instead = sent_call(&next(&mut rig, 6));
    assert_eq!(instead.request, Request::Statfs);
    assert_eq!(rig.answer(&instead, space()), []);
}

fn lock(rig: &mut Rig, ticket: u64, wait: bool) -> Vec<Effect> {
    let range = ByteRange { start: 0, end: 10 };
    let lock = OwnLock { owner: ticket, handle: HandleId(1), pid: 9, range, mode: LockMode::Write };
    rig.event(Event::Lock {
        ticket: Ticket(ticket),
        op: LockOp::Take { ino: INO, space: LockSpace::Record, lock, wait },
    })
}

#[test]
fn a_lock_is_waited_for_as_long_as_it_takes_and_one_that_is_not_waited_for_is_not() {
    let mut rig = Rig::bound();
    let call = sent_call(&rig.submit(1, open(1)));
    rig.answer(&call, Answer::Ok(Reply::Done));
    let call = sent_call(&lock(&mut rig, 2, true));
    assert_eq!(expired_call(&mut rig, 2), []);
    rig.answer(&call, Answer::Ok(Reply::Locks(LockReply::Waits)));
    assert_eq!(expired_call(&mut rig, 2), []);
    let call = sent_call(&lock(&mut rig, 3, false));
    assert_eq!(expired_call(&mut rig, 3), [eio(3)]);
    let undo = sent_call(&rig.answer(&call, Answer::Ok(Reply::Done)));
    assert!(matches!(undo.request, Request::Locks(LockRequest::Restore { owner: 3, .. })), "{undo:?}");
    let call = sent_call(&lock(&mut rig, 4, false));
    rig.answer(&call, Answer::Ok(Reply::Done));
    let op = LockOp::Drop { ino: INO, space: LockSpace::Record, owner: 4, range: ByteRange::ALL };
    let call = sent_call(&rig.event(Event::Lock { ticket: Ticket(5), op }));
    assert_eq!(expired_call(&mut rig, 5), [], "an unlock is due");
    lose(&mut rig);
    assert_eq!(expired_call(&mut rig, 5), []);
    let again = next(&mut rig, 6);
    let same = |e: &Effect| matches!(e, Effect::SendCall { call: c } if c.request == call.request && c.seq == call.seq);
    assert!(again.iter().any(same), "{again:?}");
}

#[test]
fn nobodys_time_is_over_too_soon_however_short_or_long_it_is() {
    for ms in [1, 19, 20, 500, 1000, 2000, 120_000, 86_400_000] {
        let time = Duration::from_millis(ms);
        let patience = Patience::of(time).expect("bounded");
        let whole = u64::try_from(patience.every().as_millis()).expect("fits");
        // It begins just before sweep 8.
        let over = (8..).find(|n| patience.is_over(Sweep(7), Sweep(*n))).expect("some time");
        let waited = (over - 8) * whole;
        assert!(waited >= ms, "{ms} ms are over after {waited}");
        assert!(waited <= ms + ms / 8 + whole, "{ms} ms last for {waited}");
    }
    assert_eq!(Patience::of(Duration::ZERO), None, "for ever");
    let patience = Patience::of(Duration::from_secs(16)).expect("bounded");
    assert_eq!(patience.began(Sweep(100), Duration::from_millis(2999)), Sweep(98));
    assert_eq!(patience.began(Sweep(1), Duration::from_secs(3600)), Sweep(0));
}

#[test]
fn people_are_told_of_each_kind_of_waiting_when_it_begins_and_of_eio_once_in_io_timeout() {
    let patience = Patience::of(Duration::from_secs(16)).expect("bounded");
    let (mut story, none) = (Story::default(), Overdue::default());
    let disk = Overdue { at_disk: 1, ..none };
    let both = Overdue { at_disk: 2, calls: 1, ..none };
    let said: Vec<_> = [(none, 0), (disk, 0), (disk, 0), (both, 3), (disk, 1), (both, 0), (none, 2)]
        .into_iter()
        .zip(1..)
        .map(|((overdue, ended), now)| story.sweep(patience, Sweep(now), overdue, ended))
        .collect();
    let expected = [
        (None, None),
        (Some(disk), None),
        (None, None),
        (Some(both), Some(3)),
        (None, None),
        (Some(both), None),
        (None, None),
    ];
    assert_eq!(said, expected);
    assert_eq!(story.sweep(patience, Sweep(4 + patience.sweeps()), none, 0), (None, Some(3)));
}
