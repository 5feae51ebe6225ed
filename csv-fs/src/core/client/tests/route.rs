use super::*;

fn routes(out: &[Effect]) -> Vec<(Route, Reason)> {
    out.iter()
        .filter_map(|e| if let Effect::Route { to, .. } = e { Some((to.route, to.reason)) } else { None })
        .collect()
}

/// A direct write hangs in the fabric. Its redirected twin must not be sent while the first can still land.
#[test]
fn no_redirected_write_before_nothing_in_flight_is_proved_and_the_path_fence_answered() {
    let mut rig = Rig::bound();
    rig.hold(grant(70, BlockRange::ALL, LayoutMode::Shared));
    let out = rig.event(Event::PathSuspect { reason: Reason::IoTimedOut });
    assert_eq!(out[..3], [Effect::CloseDirect, Effect::Abort, Effect::ReissueReads]);
    assert_eq!(routes(&out), vec![(Route::Draining, Reason::IoTimedOut)]);
    assert_eq!(rig.io(1, RedirectOp::Write), vec![], "not proved yet");
    let call = sent_call(&rig.event(Event::NothingInFlight));
    assert_eq!(call.request, Request::PathLost { nothing_in_flight: true });
    assert_eq!(rig.io(2, RedirectOp::Write), vec![], "not fenced yet");
    let out = rig.answer(&call, Answer::Ok(Reply::PathFenced { fence_gen: FenceGen(4) }));
    assert_eq!(sent_io(&out), vec![1, 2]);
    assert_eq!(routes(&out), vec![(Route::BlockRedirected, Reason::IoTimedOut)]);
    assert_eq!(rig.core.fence_gen(), FenceGen(4));
}

#[test]
fn stuck_reads_are_redirected_at_once() {
    let mut rig = Rig::bound();
    rig.hold(grant(70, BlockRange::ALL, LayoutMode::Shared));
    rig.event(Event::PathSuspect { reason: Reason::IoTimedOut });
    assert_eq!(sent_io(&rig.io(1, RedirectOp::Read)), vec![1]);
}

#[test]
fn a_proof_that_could_not_be_had_is_asked_for_again() {
    let mut rig = Rig::bound();
    rig.event(Event::PathSuspect { reason: Reason::IoFailed });
    assert_eq!(rig.event(Event::AbortFailed), vec![]);
    assert_eq!(rig.after(499), vec![]);
    assert_eq!(rig.after(1), vec![Effect::Abort]);
}

#[test]
fn without_a_coordinator_the_redirected_route_is_paused_and_goes_on_with_the_next_one() {
    let mut rig = Rig::bound();
    rig.hold(grant(70, BlockRange::ALL, LayoutMode::Shared));
    rig.redirected();
    assert_eq!(sent_io(&rig.io(1, RedirectOp::Write)), vec![1]);
    let out = rig.event(Event::LinkLost { bind: Bind(1) });
    assert_eq!(routes(&out), vec![(Route::Paused, Reason::NoCoordinator)]);
    let out = rig.event(Event::Hint(hint(6, 3)));
    let Effect::SendBind { request, .. } = &out[0] else { panic!("{out:?}") };
    assert_eq!((request.has_path, request.fence_gen), (false, FenceGen(4)));
    let answer = BindAnswer::Bound {
        epoch: Epoch(6),
        grace: false,
        grants: Vec::new(),
        refused: Vec::new(),
        fence_gen: FenceGen(4),
        verifier: verifier(6),
    };
    let out = rig.event(Event::BindAnswered { bind: Bind(2), answer });
    assert_eq!(sent_io(&out), vec![1], "executed, not failed");
    assert_eq!(routes(&out), vec![(Route::BlockRedirected, Reason::IoTimedOut)]);
}

/// A new reign has not fenced this path itself: it says so, and is asked to before anything is sent again.
#[test]
fn a_reign_that_did_not_fence_the_path_is_asked_to_fence_it() {
    let mut rig = Rig::bound();
    rig.hold(grant(70, BlockRange::ALL, LayoutMode::Shared));
    rig.redirected();
    rig.io(1, RedirectOp::Write);
    let refused = Event::RedirectAnswered { io: IoId(1), bind: Bind(1), answer: RedirectAnswer::PathNotFenced };
    let call = sent_call(&rig.event(refused));
    assert_eq!(call.request, Request::PathLost { nothing_in_flight: true });
    assert_eq!(sent_io(&rig.io(2, RedirectOp::Read)), Vec::<u64>::new());
    let out = rig.answer(&call, Answer::Ok(Reply::PathFenced { fence_gen: FenceGen(5) }));
    assert_eq!(sent_io(&out), vec![1, 2]);
}

#[test]
fn the_path_is_taken_back_only_after_redirected_io_was_answered_and_flushed() {
    let mut rig = Rig::bound();
    rig.hold(grant(70, BlockRange::ALL, LayoutMode::Shared));
    rig.redirected();
    rig.io(1, RedirectOp::Write);
    rig.io_done(1, 5);
    rig.io(2, RedirectOp::Write);
    for _ in 0..2 {
        assert_eq!(rig.after(250), vec![Effect::Probe]);
        assert_eq!(rig.event(Event::Probed { fence_gen: Some(FenceGen(4)) }), vec![]);
    }
    assert_eq!(rig.io(3, RedirectOp::Write), vec![], "new ones wait for the outcome");
    let out = rig.io_done(2, 5);
    let flush = IoId(IoId::OWN);
    assert_eq!(out[0], Effect::RedirectDone { io: IoId(2), result: RedirectResult::Done });
    assert_eq!(sent_io(&out), vec![flush.0], "what was written is flushed first");
    let done =
        Event::RedirectAnswered { io: flush, bind: Bind(1), answer: RedirectAnswer::Done { verifier: verifier(5) } };
    let out = rig.event(done);
    assert_eq!(out[..2], [Effect::Forget { io: IoId(1) }, Effect::Forget { io: IoId(2) }]);
    let call = sent_call(&out);
    assert_eq!(call.request, Request::PathBack { fence_gen: FenceGen(4) });
    let out = rig.answer(&call, Answer::Ok(Reply::Done));
    assert_eq!(out[..2], [Effect::OpenDirect, Effect::RedirectDone { io: IoId(3), result: RedirectResult::Direct }]);
    assert_eq!(routes(&out), vec![(Route::Direct, Reason::Healthy)]);
}

#[test]
fn a_slot_of_another_generation_is_no_good_path() {
    let mut rig = Rig::bound();
    rig.redirected();
    for _ in 0..3 {
        rig.after(250);
        rig.event(Event::Probed { fence_gen: Some(FenceGen(3)) });
    }
    assert_eq!(rig.core.route().route, Route::BlockRedirected);
    assert_eq!(rig.core.load().0, 0, "nothing was asked");
}

/// Two nodes fenced a coordinator at once. One took office and granted the generation it had raised; the other's raise
/// landed after that, and was given up. The slot showed 5, 4 was granted, and the node stayed redirected for ever.
#[test]
fn a_generation_that_nobody_granted_is_named_to_the_coordinator_and_replaced_by_a_new_fence() {
    let mut rig = Rig::bound();
    rig.redirected();
    rig.after(250);
    rig.event(Event::Probed { fence_gen: Some(FenceGen(5)) });
    rig.after(250);
    let call = sent_call(&rig.event(Event::Probed { fence_gen: Some(FenceGen(5)) }));
    assert_eq!(call.request, Request::PathBack { fence_gen: FenceGen(5) });
    let out = rig.answer(&call, Answer::Ok(Reply::PathFenced { fence_gen: FenceGen(6) }));
    assert!(!out.contains(&Effect::OpenDirect), "fenced, not back: {out:?}");
    rig.after(250);
    rig.event(Event::Probed { fence_gen: Some(FenceGen(6)) });
    rig.after(250);
    let call = sent_call(&rig.event(Event::Probed { fence_gen: Some(FenceGen(6)) }));
    assert_eq!(call.request, Request::PathBack { fence_gen: FenceGen(6) });
}

#[test]
fn one_failed_probe_starts_the_count_again() {
    let mut rig = Rig::bound();
    rig.redirected();
    for seen in [Some(FenceGen(4)), None, Some(FenceGen(4))] {
        rig.after(250);
        assert_eq!(rig.event(Event::Probed { fence_gen: seen }), vec![]);
    }
    rig.after(250);
    let out = rig.event(Event::Probed { fence_gen: Some(FenceGen(4)) });
    assert_eq!(sent_call(&out).request, Request::PathBack { fence_gen: FenceGen(4) });
}

#[test]
fn a_fence_of_this_generation_or_later_closes_the_gate() {
    let mut rig = Rig::bound();
    assert_eq!(rig.event(Event::FenceAsked { fence_gen: FenceGen(3) }), vec![], "the one it runs under");
    let out = rig.event(Event::FenceAsked { fence_gen: FenceGen(4) });
    assert_eq!(out[0], Effect::CloseDirect);
    assert_eq!(routes(&out), vec![(Route::Draining, Reason::Fenced)]);
}

#[test]
fn the_administrator_redirects_and_gives_back() {
    let mut rig = Rig::bound();
    let out = rig.event(Event::Forced { redirect: true });
    assert_eq!(routes(&out), vec![(Route::Draining, Reason::Administrator)]);
    let call = sent_call(&rig.event(Event::NothingInFlight));
    rig.answer(&call, Answer::Ok(Reply::PathFenced { fence_gen: FenceGen(4) }));
    assert_eq!(rig.after(1000), vec![], "no probe while it is wanted so");
    rig.event(Event::Forced { redirect: false });
    assert_eq!(rig.after(250), vec![Effect::Probe]);
}

/// Rule AbortBeforeRedirect taken out: the redirected write goes out while a direct one may still land.
#[test]
fn without_the_abort_rule_a_redirected_write_overtakes_the_proof() {
    let mut rig = Rig::with(Rules::without(Rule::AbortBeforeRedirect));
    rig.bind_to(5, 1);
    rig.hold(grant(70, BlockRange::ALL, LayoutMode::Shared));
    let call = sent_call(&rig.event(Event::PathSuspect { reason: Reason::IoTimedOut }));
    rig.answer(&call, Answer::Ok(Reply::PathFenced { fence_gen: FenceGen(4) }));
    assert_eq!(sent_io(&rig.io(1, RedirectOp::Write)), vec![1]);
}

/// A lone coordinator whose path had hung for a moment gave office up again each time its own client bound to it: the
/// client showed an old loss, and only a coordinator could lead it back.
#[test]
fn a_reign_that_began_after_a_path_was_lost_is_not_told_of_it_again() {
    let now = |route, reason| RouteInfo { route, reason, since: Now(0) };
    let direct = now(Route::Direct, Reason::Healthy);
    let draining = now(Route::Draining, Reason::IoTimedOut);
    let redirected = now(Route::BlockRedirected, Reason::IoTimedOut);
    let paused = now(Route::Paused, Reason::NoCoordinator);
    let forced = now(Route::BlockRedirected, Reason::Administrator);
    let serving = true;
    assert_eq!(draining.says_of_path(&direct, serving), Some(false), "lost in this very reign");
    assert_eq!(draining.says_of_path(&paused, serving), None);
    assert_eq!(redirected.says_of_path(&draining, serving), None);
    assert_eq!(direct.says_of_path(&redirected, serving), Some(true));
    assert_eq!(paused.says_of_path(&draining, !serving), Some(true), "office's own requests tell");
    assert_eq!(draining.says_of_path(&paused, !serving), Some(false), "who coordinates leads it back");
    assert_eq!(forced.says_of_path(&direct, serving), Some(true));
}
