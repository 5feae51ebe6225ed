//! Who challenges whom, and when not.

use super::lab::{Lab, client, node};
use crate::core::office::*;
use crate::core::rules::Rules;
use block::shared::{Epoch, FenceGen};

#[test]
fn a_silent_holder_is_asked_first_and_then_fenced() {
    let mut lab = Lab::new(&[1, 2]);
    lab.start(2);
    lab.run_for(2000);
    lab.start(1);
    lab.run_for(3000);
    let since = lab.now;
    lab.host(2).frozen = true;
    lab.run_until("node 1 takes over", |l| l.lease.epoch == Epoch(2));
    lab.run_for(10);
    let acts = lab.acts(1, since);
    let steps: Vec<&Effect> = acts.iter().filter(|e| !matches!(e, Effect::TryLiveLock { .. })).collect();
    assert!(
        matches!(
            steps[..],
            [
                Effect::AskAlive { .. },
                Effect::CawSlot { .. },
                Effect::AskFence { .. },
                Effect::CawSlot { new: marked, .. },
                Effect::Kill { .. },
                Effect::ReleaseLiveLock { .. },
                Effect::CawLease { .. },
                Effect::TookOffice { .. },
                Effect::Tell { .. },
            ] if marked.mark == Some(Mark { by: node(1), incarnation: marked.incarnation, fence_gen: marked.fence_gen })
        ),
        "{steps:#?}"
    );
}

#[test]
fn a_holder_that_lives_with_a_stalled_disk_defers_the_challenge() {
    let mut lab = Lab::three_with_3_in_office();
    // Its lease CAWs do not land; everything else of it does.
    lab.host(3).stick_lease = true;
    let mut asked = None;
    lab.run_until("somebody asks", |l| {
        (1..=2).any(|n| l.acts(n, Now(4000)).iter().any(|e| matches!(e, Effect::AskAlive { .. })))
    });
    for n in 1..=2 {
        if lab.acts(n, Now(4000)).iter().any(|e| matches!(e, Effect::AskAlive { .. })) {
            asked = asked.or(Some(n));
        }
    }
    let n = asked.expect("an asker");
    let out = lab
        .give(n, Event::Alive { node: node(3), epoch: Epoch(1), answer: AliveAnswer::InOffice { disk_stalled: true } });
    let deferred = |e: &Effect| matches!(e, Effect::Report(Report::ChallengeDeferred { .. }));
    assert!(out.iter().any(deferred), "{out:#?}");
    assert!(!out.iter().any(|e| matches!(e, Effect::CawSlot { node: v, .. } if *v == node(3))), "no fence");
    lab.host(3).stick_lease = false;
    lab.run_for(10_000);
    assert_eq!((lab.coordinators(), lab.lease.epoch), (vec![3], Epoch(1)));
}

#[test]
fn a_challenge_counts_only_time_covered_by_the_challengers_own_reads() {
    let mut lab = Lab::three_with_3_in_office();
    // Everybody's disk stalls at once, for longer than any timer; the clock of all of them goes on.
    let since = lab.now;
    (1..=3).for_each(|n| lab.host(n).hang = true);
    lab.run_for(400);
    (1..=3).for_each(|n| lab.unhang(n));
    lab.run_for(5000);
    assert_eq!((lab.coordinators(), lab.lease.epoch), (vec![3], Epoch(1)));
    // One pauses for a minute, as a virtual machine does, and the holder renews meanwhile.
    lab.host(1).frozen = true;
    lab.run_for(60_000);
    lab.thaw(1);
    lab.run_for(5000);
    assert_eq!((lab.coordinators(), lab.lease.epoch), (vec![3], Epoch(1)));
    for n in 1..=2 {
        assert!(
            !lab.acts(n, since).iter().any(|e| matches!(e, Effect::AskAlive { .. } | Effect::CawSlot { .. })),
            "node {n}"
        );
    }
}

#[test]
fn a_stall_of_everybody_longer_than_the_challenge_makes_no_challenge() {
    let mut lab = Lab::three_with_3_in_office();
    let since = lab.now;
    (1..=3).for_each(|n| lab.host(n).frozen = true);
    lab.run_for(30_000);
    [1, 2, 3].into_iter().for_each(|n| lab.thaw(n));
    lab.run_for(3000);
    assert_eq!((lab.coordinators(), lab.lease.epoch), (vec![3], Epoch(1)));
    assert!(!lab.acts(1, since).iter().any(|e| matches!(e, Effect::AskAlive { .. })));
}

#[test]
fn the_minority_neither_renews_nor_fences_and_the_majority_takes_over() {
    let mut lab = Lab::three_with_3_in_office();
    let since = lab.now;
    lab.cut(3, 1);
    lab.cut(3, 2);
    lab.run_until("the majority takes over", |l| l.coordinators().iter().any(|n| *n != 3));
    lab.run_for(500);
    assert_eq!(lab.coordinators().len(), 1, "node 3 tripped its latch before it answered by its slot");
    assert_ne!(lab.coordinators(), [3]);
    assert!(lab.acts(3, since).contains(&Effect::TripLatch { epoch: Epoch(1) }));
    assert_eq!(lab.office(3).permission(), Permission::Withheld);
    assert!(lab.hosts[&node(3)].up, "its mark on the disk was answered; no need to kill");
}

#[test]
fn a_cut_pair_stays_with_its_holder() {
    let mut lab = Lab::new(&[1, 2]);
    lab.start(2);
    lab.run_for(2000);
    lab.start(1);
    lab.run_for(3000);
    let since = lab.now;
    lab.cut(1, 2);
    lab.run_for(30_000);
    assert_eq!((lab.coordinators(), lab.lease.epoch), (vec![2], Epoch(1)));
    assert_eq!(lab.acts(1, since).iter().filter(|e| matches!(e, Effect::CawSlot { .. })).count(), 0);
}

#[test]
fn a_node_of_the_minority_that_proves_the_holder_dead_first_lets_it_go() {
    let mut lab = Lab::three_with_3_in_office();
    // Node 1 is cut from both others; {2, 3} has the holder and wins.
    lab.cut(1, 2);
    lab.cut(1, 3);
    lab.run_for(2000);
    assert_eq!(lab.coordinators(), [3]);
    assert_eq!(lab.office(1).permission(), Permission::Withheld);
    let since = lab.now;
    lab.kill(3, 40);
    let took = lab.run_until("node 2 takes over", |l| l.coordinators() == [2]);
    assert!(took < 100, "took {took} ms");
    assert_eq!(lab.acts(1, since), [], "node 1 had no permission and did nothing");
}

#[test]
fn the_arbiter_withdraws_permission_in_the_middle_of_a_fence() {
    let mut lab = Lab::three_with_3_in_office();
    lab.host(3).frozen = true;
    lab.run_until("a fence has raised the generation", |l| l.fence_gen(3).0 > 0);
    let fencers: Vec<u8> =
        (1..=2).filter(|n| lab.acts(*n, Now(4000)).iter().any(|e| matches!(e, Effect::CawSlot { .. }))).collect();
    let since = lab.now;
    // The two challengers lose each other: none of {1}, {2}, {3} but the holder's own wins.
    lab.cut(1, 2);
    lab.cut(1, 3);
    lab.cut(2, 3);
    for n in fencers {
        assert_eq!(lab.office(n).permission(), Permission::Withheld);
        let after: Vec<Effect> = lab
            .acts(n, since)
            .into_iter()
            .filter(|e| !matches!(e, Effect::ReleaseLiveLock { .. } | Effect::TryLiveLock { .. }))
            .collect();
        let stopped = !after.iter().any(|e| matches!(e, Effect::Kill { .. } | Effect::CawLease { .. }));
        assert!(stopped, "{after:#?}");
        assert!(lab.reports(n, since).contains(&Report::NotPermitted));
    }
    lab.run_for(100);
    assert!(lab.hosts[&node(3)].up);
    assert_eq!(lab.lease.epoch, Epoch(1));
}

#[test]
fn two_challengers_at_once_leave_one_coordinator() {
    let mut lab = Lab::three_with_3_in_office();
    lab.kill(3, 0);
    lab.run_until("somebody takes over", |l| !l.coordinators().is_empty());
    lab.run_for(5000);
    assert_eq!(lab.coordinators().len(), 1);
    assert_eq!(lab.lease.epoch, Epoch(2), "one reign, not two");
}

/// Both found the holder silent and fenced it; the one that came second learned from its own compare-and-write who has the lease
/// now, believed that lease to be as old as the one before, and fenced the heir a moment after it had taken office.
#[test]
fn a_challenger_that_comes_second_watches_the_new_holder_from_the_beginning() {
    let mut seconds = 0;
    for wakes_after in (0..400).step_by(10) {
        let mut lab = Lab::three_with_3_in_office();
        lab.host(3).frozen = true;
        lab.run_until("it is fenced", |l| l.fence_gen(3) > FenceGen(0));
        lab.run_for(wakes_after);
        lab.thaw(3);
        lab.run_until("somebody takes over", |l| l.coordinators().iter().any(|n| *n != 3));
        lab.run_for(5000);
        assert_eq!((lab.coordinators().len(), lab.lease.epoch), (1, Epoch(2)), "woken after {wakes_after} ms");
        let heir = lab.coordinators()[0];
        let fenced = |r: &Report| matches!(r, Report::Fenced { .. });
        seconds += usize::from(heir != 3 && lab.reports(3 - heir, Now(0)).iter().any(fenced));
    }
    assert!(seconds > 0, "never did both fence it");
}

/// Two nodes fenced the coordinator at once; one of them took over, and the other kept its proof. Later the fenced
/// client, alive, was coordinator again in due form, and the other took office over it by that old proof: two reigned.
fn a_fenced_client_reigns_again(rules: Rules) -> Lab {
    let mut lab = Lab::new(&[1, 2, 3]);
    lab.rules = rules;
    for n in [3, 1, 2] {
        lab.start(n);
        lab.run_for(3000);
    }
    // Outvoted, and its answer comes by its slot: one of the two sees it in the very round that shows the other's lease.
    lab.cut(3, 1);
    lab.cut(3, 2);
    lab.run_until("another takes over", |l| l.coordinators().iter().any(|n| *n != 3));
    lab.run_for(500);
    let heir = lab.coordinators()[0];
    let proved = |r: &Report| matches!(r, Report::Fenced { .. });
    assert!(lab.reports(3 - heir, Now(0)).iter().any(proved), "both had fenced it");
    lab.heal(3, 1);
    lab.heal(3, 2);
    lab.give(3, Event::Granted { fence_gen: lab.fence_gen(3) });
    lab.run_until("node 3 may hold office again", |l| l.office(3).permission() != Permission::Withheld);
    lab.give(heir, Event::Resign { to: Some(node(3)) });
    lab.run_until("node 3 is coordinator again", |l| l.coordinators().contains(&3));
    lab.run_for(50);
    lab
}

#[test]
fn a_proof_of_one_reign_says_nothing_of_a_later_reign_of_the_same_client() {
    let mut lab = a_fenced_client_reigns_again(Rules::all());
    lab.run_for(5000);
    assert_eq!(lab.coordinators(), [3]);
}

/// 1 and 2 fenced coordinator 3 at once; 1 was quicker and took office. 2 read that, together with a slot that had
/// changed, and raised the generation of 3 once more before it gave up: a healthy node lost its direct path, and stood
/// under a generation that nobody granted.
#[test]
fn a_challenger_that_reads_of_another_in_office_raises_nothing_more() {
    let mut lab = Lab::three_with_3_in_office();
    lab.host(2).hang = true;
    let since = lab.now;
    lab.give(2, Event::Asked { id: AskId(0), from: node(3), ask: Ask::NoPath { epoch: Epoch(1) } });
    let raises = |e: &Effect| matches!(e, Effect::CawSlot { node: n, .. } if *n == node(3));
    assert!(lab.acts(2, since).iter().any(raises), "{:#?}", lab.acts(2, since));
    lab.run_for(200);
    let seqs = lab.hosts[&node(2)].log.iter();
    let seq = seqs.filter_map(|(_, e)| if let Effect::Read { seq } = e { Some(*seq) } else { None }).max();
    let mut sight = Sight { lease: lab.lease.clone(), slots: lab.slots.clone() };
    sight.lease =
        LeaseView { epoch: Epoch(2), holder: Some(client(1, 1)), counter: sight.lease.counter + 1, ..sight.lease };
    let slot = sight.slots.get_mut(&node(3)).expect("slot 3");
    *slot = SlotView { fence_gen: FenceGen(1), ..slot.next(9) };
    let out = lab.give(2, Event::Read { seq: seq.expect("a read"), sight: Some(sight) });
    assert!(!out.iter().any(raises), "{out:#?}");
    assert!(out.contains(&Effect::Report(Report::FenceAbandoned { client: client(3, 1) })), "{out:#?}");
}
