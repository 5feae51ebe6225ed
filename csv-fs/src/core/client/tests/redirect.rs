use super::*;

fn rig(mode: LayoutMode) -> Rig {
    let mut rig = Rig::bound();
    rig.hold(grant(70, BlockRange::ALL, mode));
    rig.redirected();
    rig
}

fn rebind(rig: &mut Rig, epoch: u64) -> Vec<Effect> {
    rig.event(Event::Hint(hint(epoch, 3)));
    let bind = rig.core.binder.last;
    let answer = BindAnswer::Bound {
        epoch: Epoch(epoch),
        grace: false,
        grants: Vec::new(),
        refused: Vec::new(),
        fence_gen: FenceGen(4),
        verifier: verifier(epoch),
    };
    rig.event(Event::BindAnswered { bind, answer })
}

#[test]
fn a_flush_lets_go_of_what_was_answered_before_it_was_sent() {
    let mut rig = rig(LayoutMode::Exclusive);
    rig.io(1, RedirectOp::Write);
    rig.io_done(1, 5);
    assert_eq!(sent_io(&rig.io(2, RedirectOp::Write)), vec![2]);
    assert_eq!(sent_io(&rig.io(3, RedirectOp::Flush)), vec![3]);
    rig.io_done(2, 5);
    let out = rig.io_done(3, 5);
    assert_eq!(
        out,
        vec![Effect::Forget { io: IoId(1) }, Effect::RedirectDone { io: IoId(3), result: RedirectResult::Done }]
    );
    assert_eq!(rig.core.load().3, 4096, "write 2 was answered after the flush was sent");
}

#[test]
fn under_an_exclusive_layout_kept_writes_are_sent_again_first_and_in_order() {
    let mut rig = rig(LayoutMode::Exclusive);
    rig.io(1, RedirectOp::Write);
    rig.io_done(1, 5);
    rig.event(Event::Redirect {
        io: IoId(2),
        layout: LayoutId(70),
        op: RedirectOp::Write,
        at: 4096,
        len: 512,
        once: false,
    });
    rig.io_done(2, 5);
    let out = rebind(&mut rig, 6);
    assert_eq!(sent_io(&out), vec![1], "2 overlaps 1 and waits for it");
    assert_eq!(sent_io(&rig.io(5, RedirectOp::Read)), Vec::<u64>::new(), "everything else waits for both");
    assert_eq!(sent_io(&rig.io_done(1, 6)), vec![2]);
    assert_eq!(sent_io(&rig.io_done(2, 6)), vec![5]);
}

fn once(rig: &mut Rig, io: u64) -> Vec<Effect> {
    let (io, layout, op) = (IoId(io), LayoutId(70), RedirectOp::Write);
    rig.event(Event::Redirect { io, layout, op, at: 4096, len: 4096, once: true })
}

/// It may have been executed, and another node may have written the block since.
#[test]
fn what_is_to_be_executed_once_ends_in_doubt_when_its_coordinator_is_gone() {
    let mut rig = rig(LayoutMode::Shared);
    assert_eq!(sent_io(&once(&mut rig, 1)), vec![1]);
    rig.io(2, RedirectOp::Write);
    let before = rig.event(Event::LinkLost { bind: Bind(1) });
    assert!(!before.iter().any(|e| matches!(e, Effect::RedirectDone { .. })), "it may still be executed: {before:?}");
    assert_eq!(sent_io(&once(&mut rig, 3)), Vec::<u64>::new());
    let out = rebind(&mut rig, 6);
    assert!(out.contains(&Effect::RedirectDone { io: IoId(1), result: RedirectResult::InDoubt }), "{out:?}");
    assert_eq!(sent_io(&out), vec![2, 3], "what may be executed again, and what was never sent");
}

/// Not executed by its coordinator's own word.
#[test]
fn what_was_refused_is_sent_again_also_if_it_is_to_be_executed_once() {
    let mut rig = rig(LayoutMode::Shared);
    once(&mut rig, 1);
    let refused = RedirectAnswer::PathNotFenced;
    let call = sent_call(&rig.event(Event::RedirectAnswered { io: IoId(1), bind: Bind(1), answer: refused }));
    let out = rig.answer(&call, Answer::Ok(Reply::PathFenced { fence_gen: FenceGen(5) }));
    assert_eq!(sent_io(&out), vec![1]);
}

#[test]
fn in_doubt_with_its_layout_it_is_still_in_doubt() {
    let mut rig = rig(LayoutMode::Shared);
    once(&mut rig, 1);
    rig.event(Event::Hint(hint(6, 3)));
    let bind = rig.core.binder.last;
    let out = rig.event(Event::BindAnswered { bind, answer: bound_answer(6, vec![LayoutId(70)]) });
    assert!(out.contains(&Effect::RedirectDone { io: IoId(1), result: RedirectResult::InDoubt }), "{out:?}");
}

/// Another node may have written the block since: repeating the write would undo that.
#[test]
fn under_a_shared_layout_kept_writes_are_not_repeated_and_the_next_flush_covers_them() {
    let mut rig = rig(LayoutMode::Shared);
    rig.io(1, RedirectOp::Write);
    rig.io_done(1, 5);
    assert_eq!(sent_io(&rebind(&mut rig, 6)), Vec::<u64>::new());
    assert_eq!(sent_io(&rig.io(2, RedirectOp::Flush)), vec![2]);
    assert_eq!(rig.io_done(2, 6)[0], Effect::Forget { io: IoId(1) });
}

#[test]
fn a_device_reset_under_the_same_coordinator_loses_shared_writes_aloud() {
    let mut rig = rig(LayoutMode::Shared);
    rig.io(1, RedirectOp::Write);
    rig.io_done(1, 5);
    rig.io(2, RedirectOp::Flush);
    let reset = Verifier { generation: 1, ..verifier(5) };
    let out = rig.event(Event::RedirectAnswered {
        io: IoId(2),
        bind: Bind(1),
        answer: RedirectAnswer::Done { verifier: reset },
    });
    assert_eq!(out[..2], [Effect::WritesLost { layout: LayoutId(70) }, Effect::Forget { io: IoId(1) }]);
}

#[test]
fn a_flush_that_meets_a_new_history_waits_until_the_kept_writes_were_repeated() {
    let mut rig = rig(LayoutMode::Exclusive);
    rig.io(1, RedirectOp::Write);
    rig.io_done(1, 5);
    rig.io(2, RedirectOp::Flush);
    let reset = Verifier { generation: 1, ..verifier(5) };
    let answer =
        |io| Event::RedirectAnswered { io: IoId(io), bind: Bind(1), answer: RedirectAnswer::Done { verifier: reset } };
    assert_eq!(sent_io(&rig.event(answer(2))), vec![1]);
    assert_eq!(sent_io(&rig.event(answer(1))), vec![2]);
    let out = rig.event(answer(2));
    assert_eq!(
        out,
        vec![Effect::Forget { io: IoId(1) }, Effect::RedirectDone { io: IoId(2), result: RedirectResult::Done }]
    );
}

#[test]
fn above_the_bound_new_writes_wait_for_a_flush_of_its_own() {
    let mut rig = rig(LayoutMode::Exclusive);
    for io in [1, 2] {
        rig.io(io, RedirectOp::Write);
        rig.io_done(io, 5);
    }
    let out = rig.io(3, RedirectOp::Write);
    let flush = IoId(IoId::OWN);
    assert_eq!(rig.core.load().3, 8192);
    assert!(!sent_io(&out).contains(&3), "{out:?}");
    let done =
        Event::RedirectAnswered { io: flush, bind: Bind(1), answer: RedirectAnswer::Done { verifier: verifier(5) } };
    assert!(sent_io(&rig.event(done)).contains(&3));
}

#[test]
fn a_refused_layout_takes_its_redirected_io_with_it() {
    let mut rig = rig(LayoutMode::Exclusive);
    rig.io(1, RedirectOp::Write);
    rig.io_done(1, 5);
    rig.io(2, RedirectOp::Write);
    rig.event(Event::Hint(hint(6, 3)));
    let bind = rig.core.binder.last;
    let out = rig.event(Event::BindAnswered { bind, answer: bound_answer(6, vec![LayoutId(70)]) });
    assert_eq!(
        out[1..5],
        [
            Effect::WritesLost { layout: LayoutId(70) },
            Effect::Forget { io: IoId(1) },
            Effect::RedirectDone { io: IoId(2), result: RedirectResult::NoLayout },
            Effect::Dropped { layout: LayoutId(70), ino: INO, lost: true },
        ]
    );
}

fn done_after_reset(rig: &mut Rig, io: u64, generation: u64) -> Vec<Effect> {
    let verifier = Verifier { generation, ..verifier(5) };
    let answer = RedirectAnswer::Done { verifier };
    rig.event(Event::RedirectAnswered { io: IoId(io), bind: Bind(1), answer })
}

fn write_at(rig: &mut Rig, io: u64, at: u64) -> Vec<Effect> {
    rig.event(Event::Redirect { io: IoId(io), layout: LayoutId(70), op: RedirectOp::Write, at, len: 512, once: false })
}

/// Write 1 is kept, the disk is reset, write 2 of the same block is executed, and its answer tells of the reset: when
/// write 1 has been repeated, write 2 must be on top again. Write 3 lies elsewhere and is of the new history.
#[test]
fn what_was_written_over_a_repeated_write_is_repeated_behind_it() {
    let mut rig = rig(LayoutMode::Exclusive);
    write_at(&mut rig, 1, 0);
    rig.io_done(1, 5);
    write_at(&mut rig, 2, 0);
    write_at(&mut rig, 3, 8192);
    assert_eq!(sent_io(&done_after_reset(&mut rig, 2, 1)), Vec::<u64>::new(), "3 is not answered yet");
    assert_eq!(sent_io(&done_after_reset(&mut rig, 3, 1)), vec![1]);
    assert_eq!(sent_io(&done_after_reset(&mut rig, 1, 1)), vec![2]);
    assert_eq!(sent_io(&rig.io(4, RedirectOp::Flush)), Vec::<u64>::new());
    assert_eq!(sent_io(&done_after_reset(&mut rig, 2, 1)), vec![4]);
    let forgotten = done_after_reset(&mut rig, 4, 1).into_iter().filter(|e| matches!(e, Effect::Forget { .. })).count();
    assert_eq!(forgotten, 3);
}

/// The disk is reset once more while 1 and 2 are being repeated: 1 was repeated already, 2 is on its way.
#[test]
fn repeated_writes_keep_their_order_over_a_second_reset() {
    let mut rig = rig(LayoutMode::Exclusive);
    write_at(&mut rig, 1, 0);
    rig.io_done(1, 5);
    write_at(&mut rig, 2, 0);
    assert_eq!(sent_io(&done_after_reset(&mut rig, 2, 1)), vec![1]);
    assert_eq!(sent_io(&done_after_reset(&mut rig, 1, 1)), vec![2]);
    assert_eq!(sent_io(&done_after_reset(&mut rig, 2, 2)), vec![1]);
    assert_eq!(sent_io(&done_after_reset(&mut rig, 1, 2)), vec![2]);
    done_after_reset(&mut rig, 2, 2);
    assert_eq!(sent_io(&rig.io(4, RedirectOp::Flush)), vec![4]);
}

#[test]
fn a_read_whose_answer_tells_of_a_reset_starts_over_behind_what_is_repeated() {
    let mut rig = rig(LayoutMode::Exclusive);
    rig.io(1, RedirectOp::Write);
    rig.io_done(1, 5);
    rig.io(2, RedirectOp::Read);
    assert_eq!(sent_io(&done_after_reset(&mut rig, 2, 1)), vec![1]);
    assert_eq!(sent_io(&done_after_reset(&mut rig, 1, 1)), vec![2]);
    let out = done_after_reset(&mut rig, 2, 1);
    assert_eq!(out, vec![Effect::RedirectDone { io: IoId(2), result: RedirectResult::Done }]);
}

/// Answers overtake one another: one of before the reset that is known already takes nothing back.
#[test]
fn a_late_answer_of_before_a_reset_is_of_the_past() {
    let mut rig = rig(LayoutMode::Exclusive);
    write_at(&mut rig, 1, 0);
    write_at(&mut rig, 2, 4096);
    rig.io(3, RedirectOp::Flush);
    done_after_reset(&mut rig, 1, 1);
    let out = rig.io_done(2, 5);
    assert_eq!(sent_io(&out), Vec::<u64>::new(), "the flush is not answered yet: {out:?}");
    assert_eq!(sent_io(&rig.io_done(3, 5)), vec![2], "2 may be lost, 1 is not");
    assert_eq!(sent_io(&done_after_reset(&mut rig, 2, 1)), vec![3]);
    let forgotten = done_after_reset(&mut rig, 3, 1).into_iter().filter(|e| matches!(e, Effect::Forget { .. })).count();
    assert_eq!(forgotten, 2);
}

#[test]
fn a_late_answer_of_before_a_reset_loses_a_shared_write_aloud() {
    let mut rig = rig(LayoutMode::Shared);
    write_at(&mut rig, 1, 0);
    write_at(&mut rig, 2, 4096);
    done_after_reset(&mut rig, 1, 1);
    let out = rig.io_done(2, 5);
    let done = Effect::RedirectDone { io: IoId(2), result: RedirectResult::Done };
    let lost = Effect::WritesLost { layout: LayoutId(70) };
    assert_eq!(out, [done, lost, Effect::Forget { io: IoId(2) }], "answered before it is forgotten");
}

/// Rule RepeatInOrder taken out: the older write is repeated on top of the newer one.
#[test]
fn without_the_order_rule_a_repeated_write_covers_a_newer_one() {
    let mut rig = Rig::with(Rules::without(Rule::RepeatInOrder));
    rig.bind_to(5, 1);
    rig.hold(grant(70, BlockRange::ALL, LayoutMode::Exclusive));
    rig.redirected();
    write_at(&mut rig, 1, 0);
    rig.io_done(1, 5);
    write_at(&mut rig, 2, 0);
    assert_eq!(sent_io(&done_after_reset(&mut rig, 2, 1)), vec![1]);
    assert_eq!(sent_io(&done_after_reset(&mut rig, 1, 1)), Vec::<u64>::new());
}
