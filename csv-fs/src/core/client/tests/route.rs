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
    assert_eq!(out[..3], [Effect::CloseDirect, Effect::Abort { number: 1 }, Effect::ReissueReads]);
    assert_eq!(routes(&out), vec![(Route::Draining, Reason::IoTimedOut)]);
    assert_eq!(rig.io(1, RedirectOp::Write), vec![], "not proved yet");
    let call = sent_call(&rig.proved());
    assert_eq!(call.request, Request::PathLost { nothing_in_flight: true });
    assert_eq!(rig.io(2, RedirectOp::Write), vec![], "not fenced yet");
    let out = rig.answer(&call, Answer::Ok(Reply::PathFenced { fence_gen: FenceGen(4) }));
    assert_eq!(sent_io(&out), vec![1, 2]);
    assert_eq!(routes(&out), vec![(Route::BlockRedirected, Reason::IoTimedOut)]);
    assert_eq!(rig.core.fence_gen(), FenceGen(4));
}

/// What is to be taken back still waits for a path. A generation that is taken meanwhile opens that path for it.
#[test]
fn no_generation_is_taken_while_a_proof_is_awaited() {
    for (rules, taken) in [(Rules::all(), FenceGen(3)), (Rules::without(Rule::EndedBeforeAdmitted), FenceGen(7))] {
        let mut rig = Rig::with(rules);
        rig.bind_to(5, 1);
        rig.event(Event::PathSuspect { reason: Reason::IoTimedOut });
        rig.event(Event::LinkLost { bind: Bind(1) });
        rig.event(Event::Hint(hint(6, 3)));
        let answer = BindAnswer::Bound {
            epoch: Epoch(6),
            grace: false,
            grants: Vec::new(),
            refused: Vec::new(),
            fence_gen: FenceGen(7),
            verifier: verifier(6),
        };
        rig.event(Event::BindAnswered { bind: Bind(2), answer });
        assert_eq!(rig.core.fence_gen(), taken);
        let call = sent_call(&rig.proved());
        rig.answer(&call, Answer::Ok(Reply::PathFenced { fence_gen: FenceGen(8) }));
        assert_eq!(rig.core.fence_gen(), FenceGen(8), "the fence after the proof grants one");
    }
}

/// Away the coordinator preempts this node's keys, and that ends what is on its way. At home nobody does.
#[test]
fn only_a_coordinator_elsewhere_ends_what_is_in_flight_by_its_fence() {
    for (mut rig, ended) in [(Rig::bound(), true), (Rig::at_home(), false)] {
        rig.event(Event::PathSuspect { reason: Reason::IoFailed });
        let call = sent_call(&rig.proved());
        let out = rig.answer(&call, Answer::Ok(Reply::PathFenced { fence_gen: FenceGen(4) }));
        assert_eq!(out.contains(&Effect::PathFenced), ended, "{out:?}");
        assert_eq!(routes(&out), vec![(Route::BlockRedirected, Reason::IoFailed)]);
    }
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
    assert_eq!(rig.event(Event::AbortFailed { number: 1 }), vec![]);
    assert_eq!(rig.after(499), vec![Effect::Probe], "of the path, and no abort yet");
    assert_eq!(rig.after(1), vec![Effect::Abort { number: 2 }]);
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
    for told in [vec![Effect::OwnPath { ok: true }], vec![]] {
        assert_eq!(rig.after(250), vec![Effect::Probe]);
        assert_eq!(rig.event(Event::Probed { fence_gen: Some(FenceGen(4)) }), told);
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
    for (seen, told) in [(Some(FenceGen(4)), 1), (None, 0), (Some(FenceGen(4)), 0)] {
        rig.after(250);
        let told = vec![Effect::OwnPath { ok: true }; told];
        assert_eq!(rig.event(Event::Probed { fence_gen: seen }), told, "and nothing is asked of the coordinator");
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

/// The way back was granted under 4, and the answer is slow; meanwhile this node was fenced at 5, and said that it had stopped.
#[test]
fn an_answer_to_the_way_back_that_is_older_than_a_fence_opens_no_gate() {
    let on_its_way = |rules| {
        let mut rig = Rig::with(rules);
        rig.bind_to(5, 1);
        rig.redirected();
        rig.after(250);
        rig.event(Event::Probed { fence_gen: Some(FenceGen(4)) });
        rig.after(250);
        let call = sent_call(&rig.event(Event::Probed { fence_gen: Some(FenceGen(4)) }));
        assert_eq!(rig.event(Event::FenceAsked { fence_gen: FenceGen(5) }), vec![], "the gate is closed already");
        let out = rig.answer(&call, Answer::Ok(Reply::Done));
        (rig, out)
    };
    let (_, out) = on_its_way(Rules::without(Rule::FenceOutlastsAnswers));
    assert!(out.contains(&Effect::OpenDirect), "what the rule prevents: {out:?}");
    let (mut rig, out) = on_its_way(Rules::all());
    assert!(!out.contains(&Effect::OpenDirect), "{out:?}");
    assert_eq!(rig.core.route().route, Route::BlockRedirected);
    // It asks again under the new generation, is fenced anew, and comes back.
    for (seen, answer) in [(5, Reply::PathFenced { fence_gen: FenceGen(6) }), (6, Reply::Done)] {
        rig.after(250);
        rig.event(Event::Probed { fence_gen: Some(FenceGen(seen)) });
        rig.after(250);
        let call = sent_call(&rig.event(Event::Probed { fence_gen: Some(FenceGen(seen)) }));
        assert_eq!(call.request, Request::PathBack { fence_gen: FenceGen(seen) });
        rig.answer(&call, Answer::Ok(answer));
    }
    assert_eq!(rig.core.route().route, Route::Direct);
}

#[test]
fn the_administrator_redirects_and_gives_back() {
    let mut rig = Rig::bound();
    let out = rig.event(Event::Forced { redirect: true });
    assert_eq!(routes(&out), vec![(Route::Draining, Reason::Administrator)]);
    let call = sent_call(&rig.proved());
    rig.answer(&call, Answer::Ok(Reply::PathFenced { fence_gen: FenceGen(4) }));
    assert_eq!(rig.after(1000), vec![], "no probe while it is wanted so");
    rig.event(Event::Forced { redirect: false });
    assert_eq!(rig.after(250), vec![Effect::Probe]);
}

/// What the office hears of the path.
fn told(out: &[Effect]) -> Vec<bool> {
    out.iter().filter_map(|e| if let Effect::OwnPath { ok } = e { Some(*ok) } else { None }).collect()
}

/// The only node with permission had left the direct route while there was no coordinator. It took office, its client was
/// bound to it and published why it was redirected; that was taken for a path lost just then, and the office was given
/// up. So it went on for as long as anybody watched.
#[test]
fn the_office_is_told_of_the_path_and_not_of_the_route() {
    let mut rig = Rig::bound();
    assert_eq!(told(&rig.event(Event::PathSuspect { reason: Reason::IoTimedOut })), [false]);
    rig.event(Event::LinkLost { bind: Bind(1) });
    assert!(
        rig.after(250).contains(&Effect::Probe),
        "nobody to ask, nothing proved: the path is looked at all the same"
    );
    assert_eq!(rig.event(Event::Probed { fence_gen: None }), vec![]);
    assert!(rig.after(250).contains(&Effect::Probe));
    assert_eq!(told(&rig.event(Event::Probed { fence_gen: Some(FenceGen(3)) })), [true]);
    assert!(!rig.after(60_000).contains(&Effect::Probe), "good until a request fails again");
    let mut out = rig.proved();
    out.extend(rig.event(Event::Hint(hint(6, 3))));
    let bind = rig.core.binder.last;
    out.extend(rig.event(Event::BindAnswered { bind, answer: bound_answer(6, Vec::new()) }));
    let call = sent_call(&out);
    out.extend(rig.answer(&call, Answer::Ok(Reply::PathFenced { fence_gen: FenceGen(4) })));
    assert!(routes(&out).contains(&(Route::BlockRedirected, Reason::IoTimedOut)), "{out:?}");
    assert_eq!(told(&out), Vec::<bool>::new(), "redirected for what is long over");
}

/// The reason of a wish that was withdrawn went on being shown.
#[test]
fn an_administrators_wish_shows_while_it_lasts_and_not_the_path_behind_it() {
    let mut rig = Rig::bound();
    rig.redirected();
    let out = rig.event(Event::Forced { redirect: true });
    assert_eq!(routes(&out), vec![(Route::BlockRedirected, Reason::Administrator)]);
    let out = rig.event(Event::Forced { redirect: false });
    assert_eq!(routes(&out), vec![(Route::BlockRedirected, Reason::IoTimedOut)]);
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

/// The disk of the coordinator's own node stalls: the client of that node had everything withdrawn after the time-out of a
/// path, the commit of the store among it.
#[test]
fn at_home_an_overdue_request_is_waited_for_as_long_as_an_office_waits_and_recalls_hear_of_it() {
    let mut rig = Rig::at_home();
    rig.hold(grant(70, BlockRange::ALL, LayoutMode::Exclusive));
    let began = rig.now;
    while rig.now.since(began) < RIDES_OUT {
        let out = rig.event(Event::Overdue);
        assert_eq!(out, [], "after {:?}", rig.now.since(began));
        rig.now = rig.now + Duration::from_millis(500);
    }
    let out = rig.recall(70);
    assert!(out.contains(&Effect::AnswerCallback(CallbackAnswer::Draining)), "{out:?}");
    let out = rig.event(Event::Overdue);
    assert_eq!(routes(&out), vec![(Route::Draining, Reason::IoTimedOut)]);
}

#[test]
fn at_home_each_stall_is_counted_for_itself_and_a_request_that_failed_is_not_waited_for() {
    let mut rig = Rig::at_home();
    for _ in 0..3 {
        rig.event(Event::Overdue);
        rig.now = rig.now + RIDES_OUT;
    }
    assert_eq!(rig.core.route().route, Route::Direct);
    let out = rig.event(Event::PathSuspect { reason: Reason::IoTimedOut });
    assert_eq!(routes(&out), vec![(Route::Draining, Reason::IoTimedOut)]);
}

#[test]
fn away_from_the_coordinator_an_overdue_request_leaves_the_direct_route_at_once() {
    let mut rig = Rig::bound();
    let out = rig.event(Event::Overdue);
    assert_eq!(routes(&out), vec![(Route::Draining, Reason::IoTimedOut)]);
}
