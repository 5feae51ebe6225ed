//! Taking, keeping and giving up office.

use super::lab::{Lab, SILENCE, client, node};
use crate::core::office::*;
use crate::core::rules::{Rule, Rules};
use block::shared::{Epoch, FenceGen};

#[test]
fn of_three_that_start_together_exactly_one_takes_office() {
    let mut lab = Lab::new(&[1, 2, 3]);
    (1..=3).for_each(|n| lab.start(n));
    lab.run_for(5000);
    assert_eq!(lab.coordinators().len(), 1);
    assert_eq!(lab.lease.epoch, Epoch(1));
    let taken = (1..=3).flat_map(|n| lab.acts(n, Now(0))).filter(|e| matches!(e, Effect::TookOffice { .. })).count();
    assert_eq!(taken, 1, "and nobody else ever did");
}

#[test]
fn a_new_volume_is_taken_without_a_fence() {
    let mut lab = Lab::new(&[1]);
    lab.start(1);
    lab.run_for(2000);
    let acts = lab.acts(1, Now(0));
    assert!(
        matches!(
            &acts[..],
            [
                Effect::TryLiveLock { .. },
                Effect::Registered { fence_gen: FenceGen(0), .. },
                Effect::CawLease { .. },
                Effect::TookOffice { proof, .. },
                Effect::Tell { to: None, what: Tell::NewEpoch(_) },
            ] if proof.before() == Before::New && proof.client() == client(1, 1)
        ),
        "{acts:#?}"
    );
}

#[test]
fn a_coordinator_that_renews_keeps_office_and_nobody_challenges() {
    let mut lab = Lab::three_with_3_in_office();
    let since = lab.now;
    lab.run_for(60_000);
    assert_eq!(lab.coordinators(), [3]);
    for n in 1..=3 {
        assert_eq!(lab.acts(n, since), []);
    }
}

#[test]
fn a_killed_coordinator_is_succeeded_in_well_under_half_a_second() {
    let mut lab = Lab::three_with_3_in_office();
    let since = lab.now;
    lab.kill(3, 40);
    let took = lab.run_until("somebody takes over", |l| !l.coordinators().is_empty());
    assert!(took < 100, "took {took} ms with 40 ms of draining");
    assert_eq!(lab.lease.epoch, Epoch(2));
    let heir = lab.coordinators()[0];
    let acts = lab.acts(heir, since);
    let tries = acts.iter().take_while(|e| matches!(e, Effect::TryLiveLock { .. })).count();
    assert!(tries > 4, "the lock is tried while the dead process' writes land");
    assert!(
        matches!(
            &acts[tries..],
            [
                Effect::CawSlot { node: victim, expect, new, .. },
                Effect::ReleaseLiveLock { node: released },
                Effect::CawLease { .. },
                Effect::TookOffice { proof, .. },
                Effect::Tell { .. },
            ] if *victim == node(3)
                && *released == node(3)
                && new.fence_gen.0 == expect.fence_gen.0 + 1
                && matches!(proof.before(), Before::Fenced(p) if p.client() == client(3, 1) && p.is_dead(false))
        ),
        "{acts:#?}"
    );
}

#[test]
fn no_takeover_while_a_write_of_the_killed_coordinator_can_still_land() {
    let mut lab = Lab::three_with_3_in_office();
    lab.kill(3, 10_000);
    lab.run_for(9_900);
    assert_eq!((lab.coordinators(), lab.lease.epoch), (vec![], Epoch(1)));
    lab.run_until("the last write has landed, and somebody takes over", |l| !l.coordinators().is_empty());
    assert!(lab.now.0 >= 10_000);
}

#[test]
fn without_fence_before_lease_the_office_is_taken_while_writes_can_still_land() {
    let mut lab = Lab::new(&[1, 2, 3]);
    lab.rules = Rules::without(Rule::FenceBeforeLease);
    for n in [3, 1, 2] {
        lab.start(n);
        lab.run_for(3000);
    }
    lab.kill(3, 60_000);
    lab.run_for(20_000);
    assert!(!lab.coordinators().is_empty(), "the rule is what holds it back");
}

#[test]
fn a_move_drains_then_resigns_then_the_named_node_takes_over() {
    let mut lab = Lab::three_with_3_in_office();
    let since = lab.now;
    lab.give(3, Event::Resign { to: Some(node(2)) });
    let took = lab.run_until("node 2 takes over", |l| l.coordinators() == [2]);
    assert!(took < 50, "took {took} ms");
    let acts = lab.acts(3, since);
    assert!(
        matches!(
            &acts[..],
            [
                Effect::StartDrain { epoch: Epoch(1) },
                Effect::CawLease { new, .. },
                Effect::LostOffice { epoch: Epoch(1), why: LostWhy::Resigned },
                Effect::Tell { what: Tell::TakeOffice { epoch: Epoch(1) }, .. },
                ..
            ] if new.resigned == Some(Resigned { in_favour: Some(node(2)) })
        ),
        "{acts:#?}"
    );
    let proof = lab.office(2).in_office().expect("in office");
    assert_eq!(proof.before(), Before::Resigned(client(3, 1)));
    assert_eq!(lab.fence_gen(3), FenceGen(0), "nobody was fenced");
    lab.run_for(5000);
    assert_eq!(lab.coordinators(), [2], "and it keeps it");
}

#[test]
fn a_node_that_is_barred_keeps_its_office_takes_no_other_and_takes_again_once_it_may() {
    let mut lab = Lab::three_with_3_in_office();
    for n in [1, 3] {
        lab.give(n, Event::Barred { barred: true });
    }
    lab.run_for(5000);
    assert_eq!(lab.coordinators(), [3], "what it holds it keeps");
    // In its favour, or in nobody's: it is not the one that follows.
    lab.give(3, Event::Resign { to: Some(node(1)) });
    lab.run_until("node 2 takes over", |l| l.coordinators() == [2]);
    lab.kill(2, 0);
    lab.run_for(30_000);
    assert_eq!(lab.coordinators(), [], "nobody else may");
    let killed = lab.hosts.values().flat_map(|h| &h.log).any(|(_, e)| matches!(e, Effect::Kill { .. }));
    assert!(!killed, "who takes no office fences nobody for it");
    lab.give(1, Event::Barred { barred: false });
    lab.run_until("node 1 takes over", |l| l.coordinators() == [1]);
}

#[test]
fn a_resignation_waits_for_the_page_write_that_is_still_in_the_fabric() {
    let mut lab = Lab::three_with_3_in_office();
    lab.host(3).never_drains = true;
    lab.give(3, Event::Resign { to: Some(node(2)) });
    lab.run_for(2000);
    assert_eq!((lab.lease.resigned, lab.lease.epoch), (None, Epoch(1)), "nothing drained: nothing resigned");
    assert_eq!(lab.coordinators(), [3]);
    lab.give(3, Event::Drained { epoch: Epoch(1) });
    lab.run_until("node 2 takes over", |l| l.coordinators() == [2]);
}

#[test]
fn without_drain_before_resign_the_successor_reigns_while_pages_are_in_flight() {
    let mut lab = Lab::new(&[1, 2, 3]);
    lab.rules = Rules::without(Rule::DrainBeforeResign);
    for n in [3, 1, 2] {
        lab.start(n);
        lab.run_for(3000);
    }
    lab.host(3).never_drains = true;
    lab.give(3, Event::Resign { to: Some(node(2)) });
    lab.run_for(1000);
    assert_eq!(lab.coordinators(), [2]);
}

#[test]
fn what_cannot_drain_does_not_resign_and_is_fenced() {
    let mut lab = Lab::three_with_3_in_office();
    let since = lab.now;
    lab.host(3).never_drains = true;
    lab.give(3, Event::Resign { to: Some(node(2)) });
    lab.run_until("another takes over", |l| l.lease.epoch == Epoch(2) && !l.coordinators().is_empty());
    let heir = lab.coordinators()[0];
    let killed = lab.acts(heir, since).iter().any(|e| matches!(e, Effect::Kill { node: n, .. } if *n == node(3)));
    assert!(killed, "it never said that nothing is in flight, so its process was ended");
}

#[test]
fn a_coordinator_without_a_path_trips_its_latch_and_another_takes_over() {
    let mut lab = Lab::three_with_3_in_office();
    let since = lab.now;
    lab.host(3).hang = true;
    lab.give(3, Event::OwnPath { ok: false });
    let took = lab.run_until("another takes over", |l| l.coordinators().iter().any(|n| *n != 3));
    assert!(took < 200, "took {took} ms");
    let acts = lab.acts(3, since);
    let heard_of = |e: &Effect| {
        matches!(
            e,
            Effect::TripLatch { .. } | Effect::LostOffice { .. } | Effect::StopDirect { .. } | Effect::Answer { .. }
        )
    };
    let mine: Vec<&Effect> = acts.iter().filter(|e| heard_of(e)).collect();
    assert!(
        matches!(
            mine[..],
            [
                Effect::TripLatch { epoch: Epoch(1) },
                Effect::LostOffice { why: LostWhy::NoPath, .. },
                Effect::StopDirect { fence_gen: FenceGen(1) },
                Effect::Answer { .. },
                ..
            ]
        ),
        "{mine:#?}"
    );
    let heir = lab.coordinators()[0];
    let proof = lab.office(heir).in_office().expect("in office");
    assert!(matches!(proof.before(), Before::Fenced(p) if p.how() == HowFenced::Answered && !p.is_dead(false)));
    assert!(lab.hosts[&node(3)].up, "nobody was killed");
}

#[test]
fn a_coordinator_whose_requests_hang_finds_out_by_itself() {
    let mut lab = Lab::three_with_3_in_office();
    lab.host(3).hang = true;
    let took = lab.run_until("another takes over", |l| l.coordinators().iter().any(|n| *n != 3));
    // As soon as its lease would be suspended; the others need not challenge it.
    assert!(u128::from(took) < lab.timing.suspend_after.as_millis() + 250, "took {took} ms");
    assert!(!lab.office(3).own_path_ok());
    lab.unhang(3);
    lab.run_until("its path is good again", |l| l.office(3).own_path_ok());
    lab.run_for(5000);
    assert_eq!(lab.coordinators().len(), 1);
}

/// At the default timing: its requests were out for longer than a path may take (3 s), it gave its office up, and a disk that
/// had stalled for everybody for 5 s had no coordinator afterwards until somebody could take over.
#[test]
fn a_coordinator_whose_disk_stalls_for_less_than_its_lease_keeps_its_office() {
    for stalled in [&[3][..], &[1, 2, 3]] {
        let mut lab = Lab::three_at(Timing::DEFAULT);
        let since = lab.now;
        for n in stalled {
            lab.host(*n).hang = true;
        }
        lab.run_for(5000);
        for n in stalled {
            lab.unhang(*n);
        }
        lab.run_for(20_000);
        assert_eq!((lab.coordinators(), lab.lease.epoch), (vec![3], Epoch(1)), "stalled: {stalled:?}");
        let acts = lab.acts(3, since);
        let gave_up = |e: &Effect| matches!(e, Effect::LostOffice { .. } | Effect::Suspend { .. });
        assert!(!acts.iter().any(gave_up), "stalled: {stalled:?}: {acts:#?}");
        assert!(lab.office(3).own_path_ok());
    }
}

/// The process of the coordinator stood still for less than its lease lasts, and its connections had timed out. It goes on, they
/// come back, and the slot that it renews first of all still says that it hears nobody: it was called outvoted and succeeded
/// within milliseconds.
#[test]
fn a_coordinator_that_is_heard_again_is_not_outvoted_by_what_its_slot_said_before() {
    let mut lab = Lab::three_at(Timing::DEFAULT);
    lab.host(3).frozen = true;
    lab.run_for(3000);
    for n in 1..=2 {
        lab.give(n, Event::PeerLost { node: node(3), how: PeerLoss::Silent });
        lab.give(3, Event::PeerLost { node: node(n), how: PeerLoss::Closed });
    }
    // Between two looks of the others: they see the second slot that it writes, not the first.
    lab.run_for(5700);
    assert_eq!(lab.office(1).permission(), Permission::Given { clique: [node(1), node(2)].into_iter().collect() });
    (1..=2).for_each(|n| drop(lab.give(n, Event::PeerHeard { node: node(3) })));
    lab.thaw(3);
    lab.run_for(600);
    (1..=2).for_each(|n| drop(lab.give(3, Event::PeerHeard { node: node(n) })));
    lab.run_for(10_000);
    assert_eq!((lab.coordinators(), lab.lease.epoch), (vec![3], Epoch(1)));
}

/// The disk failed, the store with it, and office was given up because of that: nobody was told, since only the disk could
/// have said so, and the others waited for the whole challenge.
#[test]
fn a_resignation_that_the_disk_does_not_take_is_told_over_the_network() {
    let mut lab = Lab::three_with_3_in_office();
    let since = lab.now;
    lab.host(3).hang = true;
    lab.give(3, Event::Resign { to: None });
    lab.run_for(10);
    lab.give(3, Event::OwnPath { ok: false });
    let took = lab.run_until("another takes over", |l| l.coordinators().iter().any(|n| *n != 3));
    assert!(took < 200, "took {took} ms");
    let lost: Vec<_> = lab.acts(3, since).into_iter().filter(|e| matches!(e, Effect::LostOffice { .. })).collect();
    assert_eq!(lost, [Effect::LostOffice { epoch: Epoch(1), why: LostWhy::NoPath }]);
}

/// A coordinator was stopped for longer than a path may take, with a request out. When it went on, it found that request
/// overdue before it had looked whether the answer was there, and gave its office up.
#[test]
fn time_in_which_a_node_did_not_run_is_not_held_against_its_path() {
    let mut lab = Lab::three_with_3_in_office();
    let since = lab.now;
    lab.host(3).hang = true;
    lab.run_for(300);
    lab.host(3).frozen = true;
    lab.run_for(2200);
    lab.host(3).frozen = false;
    lab.give(3, Event::Tick);
    assert!(lab.office(3).suspended());
    lab.run_for(100);
    lab.unhang(3);
    lab.run_for(1000);
    let acts = lab.acts(3, since);
    assert!(!acts.iter().any(|e| matches!(e, Effect::LostOffice { .. })), "{acts:#?}");
    assert!(acts.contains(&Effect::Resume { epoch: lab.lease.epoch }) && !lab.office(3).suspended());
    assert_eq!(lab.coordinators(), [3]);
    // Now that it runs, a request that hangs is overdue in time.
    lab.host(3).hang = true;
    lab.run_until("it finds out", |l| l.office(3).in_office().is_none());
}

/// A paused machine finds its sessions gone, and its first look fails: that is no path that was silent for as long as the pause.
#[test]
fn a_look_that_fails_right_after_a_pause_is_no_silence() {
    let mut lab = Lab::three_with_3_in_office();
    lab.host(1).frozen = true;
    lab.run_for(2000);
    lab.host(1).reads_fail = true;
    lab.thaw(1);
    for _ in 0..40 {
        assert!(lab.office(1).own_path_ok());
        lab.run_for(10);
    }
    // Now that it runs, reads that go on failing are a lost path in time.
    lab.run_for(2000);
    assert!(!lab.office(1).own_path_ok());
}

#[test]
fn a_coordinator_whose_path_comes_back_before_anybody_took_over_resigns_and_takes_office_anew() {
    let mut lab = Lab::new(&[1]);
    lab.start(1);
    lab.run_for(2000);
    lab.give(1, Event::OwnPath { ok: false });
    assert_eq!(lab.coordinators(), []);
    lab.run_for(100);
    assert_eq!(lab.lease.resigned, None, "without a path nothing is written");
    lab.give(1, Event::OwnPath { ok: true });
    lab.run_until("in office again", |l| l.coordinators() == [1]);
    assert_eq!(lab.lease.epoch, Epoch(2), "under a new epoch: the old latch is tripped for ever");
    assert_eq!(lab.office(1).in_office().map(|p| p.before()), Some(Before::Resigned(client(1, 1))));
}

#[test]
fn a_higher_epoch_heard_of_ends_a_reign_at_once() {
    let mut lab = Lab::three_with_3_in_office();
    let hint = CoordinatorHint { epoch: Epoch(9), node: node(1) };
    let out = lab.give(3, Event::Asked { id: AskId(0), from: node(1), ask: Ask::NewEpoch(hint.clone()) });
    assert_eq!(out[0], Effect::TripLatch { epoch: Epoch(1) });
    assert_eq!(lab.office(3).in_office(), None);
    assert_eq!(lab.office(3).hint(), Some(hint));
}

#[test]
fn a_restarted_coordinator_succeeds_itself_as_a_later_incarnation() {
    let mut lab = Lab::new(&[1]);
    lab.start(1);
    lab.run_for(2000);
    lab.kill(1, 100);
    lab.start(1);
    lab.run_until("in office again", |l| l.coordinators() == [1]);
    let proof = lab.office(1).in_office().expect("in office");
    assert_eq!(proof.client(), client(1, 2));
    assert!(
        matches!(proof.before(), Before::Fenced(p) if p.client() == client(1, 1) && p.how() == HowFenced::Superseded)
    );
}

#[test]
fn who_takes_office_says_for_how_long_it_has_not_heard_whom() {
    let mut lab = Lab::three_with_3_in_office();
    let since = lab.now;
    lab.cut(1, 3);
    lab.cut(2, 3);
    // Told once more, in another way: it has still said nothing since.
    lab.run_for(100);
    (1..=2).for_each(|n| drop(lab.give(n, Event::PeerLost { node: node(3), how: PeerLoss::Refused })));
    lab.run_until("somebody takes over", |l| l.coordinators().iter().any(|n| *n != 3));
    let heir = if lab.coordinators().contains(&1) { 1 } else { 2 };
    assert_eq!(unheard(&lab, heir, since), [(node(3), lab.now.since(since) + SILENCE)].into());
}

/// What a node said of those it did not hear when it took office.
fn unheard(lab: &Lab, heir: u8, since: Now) -> BTreeMap<NodeId, Duration> {
    let taken = |e: Effect| if let Effect::TookOffice { unheard, .. } = e { Some(unheard) } else { None };
    lab.acts(heir, since).into_iter().find_map(taken).expect("it took office")
}

#[test]
fn the_silence_of_an_earlier_life_is_not_held_against_the_next() {
    let mut lab = Lab::three_with_3_in_office();
    lab.cut(1, 2);
    lab.run_for(5000);
    lab.kill(2, 0);
    let begun = lab.now;
    lab.start(2);
    lab.run_for(1000);
    lab.kill(3, 0);
    lab.run_until("1 takes over", |l| l.coordinators() == [1]);
    let silent = unheard(&lab, 1, begun)[&node(2)];
    assert!(silent <= lab.now.since(begun), "{silent:?} of a life that began at {begun}");
}
