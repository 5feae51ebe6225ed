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
    rig.event(Event::Redirect { io: IoId(2), layout: LayoutId(70), op: RedirectOp::Write, at: 4096, len: 512 });
    rig.io_done(2, 5);
    let out = rebind(&mut rig, 6);
    assert_eq!(sent_io(&out), vec![1], "2 overlaps 1 and waits for it");
    assert_eq!(sent_io(&rig.io(5, RedirectOp::Read)), Vec::<u64>::new(), "everything else waits for both");
    assert_eq!(sent_io(&rig.io_done(1, 6)), vec![2]);
    assert_eq!(sent_io(&rig.io_done(2, 6)), vec![5]);
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
