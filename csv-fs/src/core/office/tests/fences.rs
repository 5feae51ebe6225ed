//! Fences that a coordinator asks for, and their victims.

use super::lab::{Lab, client, node};
use crate::core::office::*;
use crate::core::rules::{Rule, Rules};
use crate::proto::PeerAnswer;
use block::shared::{FenceGen, Incarnation};

fn request(n: u8, incarnation: u64, answered: bool) -> Event {
    Event::RequestFence { ticket: Ticket(7), client: client(n, incarnation), purpose: Purpose::Eviction, answered }
}

fn outcome(lab: &Lab, n: u8, since: Now) -> Option<Result<FenceProof, FenceFailed>> {
    lab.acts(n, since).into_iter().find_map(|e| match e {
        Effect::FenceDone { ticket: Ticket(7), result } => Some(result),
        _ => None,
    })
}

fn fence(lab: &mut Lab, by: u8, event: Event) -> FenceProof {
    let since = lab.now;
    lab.give(by, event);
    lab.run_until("the fence ends", |l| outcome(l, by, since).is_some());
    outcome(lab, by, since).expect("an outcome").expect("a proof")
}

/// A renewal of node 3's own slot hangs at the disk.
fn a_renewal_is_out(lab: &mut Lab) {
    lab.host(3).hang = true;
    lab.run_for(300);
}

#[test]
fn a_living_client_stops_first_and_then_answers() {
    let mut lab = Lab::three_with_3_in_office();
    let since = lab.now;
    let proof = fence(&mut lab, 3, request(1, 1, false));
    assert_eq!((proof.how(), proof.fence_gen()), (HowFenced::Answered, FenceGen(1)));
    let acts = lab.acts(1, since);
    let stop = acts.iter().position(|e| *e == Effect::StopDirect { fence_gen: FenceGen(1) }).expect("stopped");
    let said =
        acts.iter().position(|e| matches!(e, Effect::Answer { answer: PeerAnswer::Fenced, .. })).expect("answered");
    assert!(stop < said);
}

#[test]
fn fenced_is_not_said_while_a_request_is_in_flight() {
    let mut lab = Lab::three_with_3_in_office();
    let ask = Ask::Fence { client: client(1, 1), fence_gen: FenceGen(1) };
    let out = lab.give(1, Event::Asked { id: AskId(9), from: node(3), ask });
    assert!(out.contains(&Effect::StopDirect { fence_gen: FenceGen(1) }));
    assert!(!out.iter().any(|e| matches!(e, Effect::Answer { .. })), "{out:#?}");
    let out = lab.give(1, Event::NothingInFlight { fence_gen: FenceGen(1) });
    assert!(out.contains(&Effect::Answer { id: AskId(9), answer: PeerAnswer::Fenced }));
}

#[test]
fn a_coordinator_says_fenced_only_after_its_metadata_has_ended_too() {
    let mut lab = Lab::three_with_3_in_office();
    lab.host(3).never_drains = true;
    let ask = Ask::Fence { client: client(3, 1), fence_gen: FenceGen(1) };
    let out = lab.give(3, Event::Asked { id: AskId(9), from: node(1), ask });
    let trip = out.iter().position(|e| matches!(e, Effect::TripLatch { .. })).expect("latch");
    let stop = out.iter().position(|e| matches!(e, Effect::StopDirect { .. })).expect("stop");
    assert!(trip < stop, "the latch first");
    let out = lab.give(3, Event::NothingInFlight { fence_gen: FenceGen(1) });
    assert!(!out.iter().any(|e| matches!(e, Effect::Answer { .. })));
    let out = lab.give(3, Event::Drained { epoch: block::shared::Epoch(1) });
    assert!(out.contains(&Effect::Answer { id: AskId(9), answer: PeerAnswer::Fenced }));
}

#[test]
fn a_client_that_has_said_already_that_nothing_is_in_flight_is_not_asked_again() {
    let mut lab = Lab::three_with_3_in_office();
    let since = lab.now;
    let proof = fence(&mut lab, 3, request(1, 1, true));
    assert_eq!(proof.how(), HowFenced::Answered);
    assert!(!lab.acts(3, since).iter().any(|e| matches!(e, Effect::AskFence { .. } | Effect::TryLiveLock { .. })));
}

#[test]
fn a_frozen_client_is_asked_marked_killed_and_proved_dead_by_its_lock() {
    let mut lab = Lab::three_with_3_in_office();
    let since = lab.now;
    lab.host(1).frozen = true;
    let proof = fence(&mut lab, 3, request(1, 1, false));
    assert_eq!(proof.how(), HowFenced::Dead);
    let steps: Vec<Effect> =
        lab.acts(3, since).into_iter().filter(|e| !matches!(e, Effect::TryLiveLock { .. })).collect();
    assert!(
        matches!(
            &steps[..],
            [
                Effect::CawSlot { .. },
                Effect::AskFence { .. },
                Effect::CawSlot { .. },
                Effect::Kill { node: killed, pid: 100, .. },
                Effect::ReleaseLiveLock { .. },
                Effect::FenceDone { .. },
            ] if *killed == node(1)
        ),
        "{steps:#?}"
    );
}

#[test]
fn a_client_cut_from_the_network_answers_by_its_slot() {
    let mut lab = Lab::three_with_3_in_office();
    lab.cut(1, 3);
    lab.run_for(100);
    let proof = fence(&mut lab, 3, request(1, 1, false));
    assert_eq!(proof.how(), HowFenced::Answered);
    assert!(lab.hosts[&node(1)].up);
    assert_eq!(lab.slots[&node(1)].answer, FenceGen(1));
}

/// A machine that was busy with other things: the daemon of the node that was cut off was ended in the middle of draining.
#[test]
fn a_victim_that_renews_its_slot_and_still_drains_is_waited_for_and_not_killed() {
    let mut lab = Lab::three_with_3_in_office();
    lab.host(3).never_drains = true;
    lab.cut(3, 1);
    lab.cut(3, 2);
    lab.run_until("it is fenced", |l| l.fence_gen(3) > FenceGen(0));
    lab.run_for(5000);
    assert!(lab.hosts[&node(3)].up, "it was killed while it drained");
    lab.host(3).never_drains = false;
    let epoch = lab.lease.epoch;
    lab.give(3, Event::Drained { epoch });
    lab.run_until("the majority takes over", |l| l.coordinators().iter().any(|n| *n != 3));
    assert!(lab.hosts[&node(3)].up, "it has answered");
}

#[test]
fn a_late_fencer_leaves_a_rejoined_node_alone() {
    let mut lab = Lab::three_with_3_in_office();
    lab.kill(1, 0);
    lab.run_for(1);
    lab.start(1);
    lab.run_until("node 1 rejoined", |l| l.office(1).client() == Some(client(1, 2)));
    lab.run_for(500);
    let since = lab.now;
    let proof = fence(&mut lab, 3, request(1, 1, false));
    assert_eq!((proof.client(), proof.how()), (client(1, 1), HowFenced::Superseded));
    assert_eq!(lab.fence_gen(1), FenceGen(0), "the new life is not fenced");
    assert!(!lab.acts(1, since).iter().any(|e| matches!(e, Effect::StopDirect { .. })));
}

#[test]
fn a_fencer_whose_compare_comes_after_the_rejoin_starts_over_and_sees_the_incarnation() {
    let mut lab = Lab::three_with_3_in_office();
    lab.kill(1, 0);
    lab.run_for(1);
    // The coordinator's look at the slot is from before the rejoin; its CAW arrives after it.
    let since = lab.now;
    let out = lab.give(3, request(1, 1, false));
    assert!(out.iter().any(|e| matches!(e, Effect::CawSlot { expect, .. } if expect.incarnation == Incarnation(1))));
    let old = lab.slots[&node(1)];
    lab.slots.insert(node(1), SlotView { incarnation: Incarnation(2), ..old.next(4711) });
    lab.run_until("the fence ends", |l| outcome(l, 3, since).is_some());
    assert_eq!(outcome(&lab, 3, since).expect("ended").map(|p| p.how()), Ok(HowFenced::Superseded));
    assert_eq!(lab.fence_gen(1), FenceGen(0));
}

#[test]
fn without_its_rule_a_late_fencer_fences_the_new_life() {
    let mut lab = Lab::new(&[1, 2, 3]);
    lab.rules = Rules::without(Rule::FenceNamesIncarnation);
    for n in [3, 1, 2] {
        lab.start(n);
        lab.run_for(3000);
    }
    lab.kill(1, 0);
    lab.run_for(1);
    lab.start(1);
    lab.run_for(2000);
    lab.give(3, request(1, 1, false));
    lab.run_for(3000);
    assert_ne!(lab.fence_gen(1), FenceGen(0));
}

#[test]
fn a_fence_starts_over_when_the_victim_renewed_meanwhile() {
    let mut lab = Lab::three_with_3_in_office();
    let since = lab.now;
    lab.give(3, request(1, 1, true));
    let renewed = lab.slots[&node(1)].next(4711);
    lab.slots.insert(node(1), renewed);
    lab.run_until("the fence ends", |l| outcome(l, 3, since).is_some());
    let raises: Vec<(SlotView, SlotView)> = lab
        .acts(3, since)
        .into_iter()
        .filter_map(|e| match e {
            Effect::CawSlot { expect, new, .. } => Some((expect, new)),
            _ => None,
        })
        .collect();
    assert_eq!(raises.len(), 2);
    assert_eq!(raises[1].0, renewed, "compared with what was found");
    assert_eq!(raises[1].1.fence_gen, FenceGen(1));
}

#[test]
fn another_fencers_raise_is_not_taken_for_the_own() {
    let mut lab = Lab::three_with_3_in_office();
    let since = lab.now;
    lab.give(3, request(1, 1, true));
    let other = SlotView { fence_gen: FenceGen(1), ..lab.slots[&node(1)].next(4711) };
    lab.slots.insert(node(1), other);
    lab.run_until("the fence ends", |l| outcome(l, 3, since).is_some());
    assert_eq!(outcome(&lab, 3, since).expect("ended").map(|p| p.fence_gen()), Ok(FenceGen(2)));
}

#[test]
fn a_victim_that_renews_does_not_take_its_fence_back() {
    let mut lab = Lab::three_with_3_in_office();
    fence(&mut lab, 3, request(1, 1, true));
    lab.run_for(3000);
    assert_eq!(lab.fence_gen(1), FenceGen(1), "renewals carry it on");
    lab.give(1, Event::Granted { fence_gen: FenceGen(1) });
    let since = lab.now;
    lab.run_for(3000);
    assert!(!lab.acts(1, since).iter().any(|e| matches!(e, Effect::StopDirect { .. })), "granted: it goes on under it");
}

#[test]
fn a_stale_question_about_a_generation_granted_since_is_refused() {
    let mut lab = Lab::three_with_3_in_office();
    fence(&mut lab, 3, request(1, 1, true));
    lab.run_for(1000);
    lab.give(1, Event::Granted { fence_gen: FenceGen(2) });
    let ask = Ask::Fence { client: client(1, 1), fence_gen: FenceGen(2) };
    let out = lab.give(1, Event::Asked { id: AskId(9), from: node(2), ask });
    assert!(out.iter().any(|e| matches!(e, Effect::Answer { answer: PeerAnswer::NotFenced { .. }, .. })), "{out:#?}");
}

#[test]
fn the_coordinators_own_client_is_fenced_without_losing_office() {
    let mut lab = Lab::three_with_3_in_office();
    let proof = fence(&mut lab, 3, request(3, 1, false));
    assert_eq!((proof.how(), proof.fence_gen()), (HowFenced::Answered, FenceGen(1)));
    assert_eq!(lab.coordinators(), [3]);
}

/// A coordinator that had been stopped in its grace evicted everybody who had not come back, its own client with them. A
/// renewal of its own slot was out already when the fence of that client began; its landing was taken for that of the
/// raise, which was then never sent. The eviction never ended, and the client was told to try again for ever.
#[test]
fn a_renewal_that_was_out_before_a_fence_of_the_own_client_is_not_its_raise() {
    let mut lab = Lab::three_with_3_in_office();
    a_renewal_is_out(&mut lab);
    let since = lab.now;
    lab.give(3, request(3, 1, false));
    lab.unhang(3);
    lab.run_until("the fence ends", |l| outcome(l, 3, since).is_some());
    assert_eq!(outcome(&lab, 3, since).expect("ended").map(|p| p.fence_gen()), Ok(FenceGen(1)));
    assert!(lab.acts(3, since).contains(&Effect::StopDirect { fence_gen: FenceGen(1) }));
}

/// The same with a client that was fenced and granted the new generation before: the renewal that was out carried just
/// that generation, and the fence was called proved although nothing had stopped.
#[test]
fn a_second_fence_of_the_own_client_is_not_proved_by_the_first() {
    let mut lab = Lab::three_with_3_in_office();
    fence(&mut lab, 3, request(3, 1, false));
    lab.give(3, Event::Granted { fence_gen: FenceGen(1) });
    a_renewal_is_out(&mut lab);
    let since = lab.now;
    lab.give(3, request(3, 1, false));
    lab.unhang(3);
    lab.run_until("the fence ends", |l| outcome(l, 3, since).is_some());
    assert_eq!(outcome(&lab, 3, since).expect("ended").map(|p| p.fence_gen()), Ok(FenceGen(2)));
    assert!(
        lab.acts(3, since).contains(&Effect::StopDirect { fence_gen: FenceGen(2) }),
        "stopped before it was proved"
    );
}

/// Node 3's raise of its own generation for its own client meets that of a fencer, to the same generation. Taken for its
/// own, it left node 3 in office: it answered the fencer as soon as direct I/O had ended, with its metadata still going.
#[test]
fn a_fencers_raise_to_the_generation_that_was_to_be_the_own_ends_the_office() {
    let mut lab = Lab::three_with_3_in_office();
    lab.host(3).never_drains = true;
    let since = lab.now;
    lab.give(3, request(3, 1, false));
    lab.host(3).hang = true;
    lab.run_for(300);
    let other = SlotView { fence_gen: FenceGen(1), ..lab.slots[&node(3)].next(4711) };
    lab.slots.insert(node(3), other);
    lab.unhang(3);
    lab.run_for(20);
    let lost = Effect::LostOffice { epoch: lab.lease.epoch, why: LostWhy::Fenced };
    assert!(lab.acts(3, since).contains(&lost), "{:#?}", lab.acts(3, since));
    assert_eq!(outcome(&lab, 3, since), Some(Err(FenceFailed::NotInOffice)));
    lab.run_for(1000);
    assert_eq!(lab.slots[&node(3)].answer, FenceGen(0), "not said before its metadata has ended");
    assert_eq!(lab.fence_gen(3), FenceGen(1), "nobody wants it raised any more");
}

#[test]
fn fences_end_with_the_office_that_asked_for_them() {
    let mut lab = Lab::three_with_3_in_office();
    lab.host(1).frozen = true;
    let since = lab.now;
    lab.give(3, request(1, 1, false));
    lab.run_for(100);
    lab.give(3, Event::OwnPath { ok: false });
    assert_eq!(outcome(&lab, 3, since), Some(Err(FenceFailed::NotInOffice)));
    let out = lab.give(2, request(1, 1, false));
    assert!(out.contains(&Effect::FenceDone { ticket: Ticket(7), result: Err(FenceFailed::NotInOffice) }));
}

#[test]
fn a_second_process_for_the_same_node_ends_the_first() {
    let mut lab = Lab::three_with_3_in_office();
    let since = lab.now;
    let taken = SlotView { incarnation: Incarnation(2), ..lab.slots[&node(1)].next(4711) };
    lab.slots.insert(node(1), taken);
    lab.run_until("it notices", |l| l.office(1).is_over());
    assert!(lab.acts(1, since).contains(&Effect::SelfEvicted));
}

/// The coordinator is frozen, node 1 raises its generation, and the answer is lost. What node 1 does when it has read the disk again, and the lease
/// is as `lease` makes it.
fn after_an_unanswered_raise(lease: impl Fn(&LeaseView) -> LeaseView) -> Vec<Effect> {
    let mut lab = Lab::three_with_3_in_office();
    let since = lab.now;
    lab.host(3).frozen = true;
    let raise = |l: &Lab| {
        l.acts(1, since).into_iter().find_map(|e| match e {
            Effect::CawSlot { tag, node: whose, .. } if whose == node(3) => Some(tag),
            _ => None,
        })
    };
    lab.run_until("the raise", |l| raise(l).is_some());
    let tag = raise(&lab).expect("it is out");
    let out = lab.give(1, Event::SlotCaw { tag, result: CawResult::Lost });
    let read = |e: &Effect| if let Effect::Read { seq } = e { Some(*seq) } else { None };
    let seq = out.iter().find_map(read).expect("it looks at once");
    let sight = Sight { lease: lease(&lab.lease), slots: lab.slots.clone() };
    lab.give(1, Event::Read { seq, sight: Some(sight) })
}

#[test]
fn a_raise_for_office_that_went_unanswered_is_not_sent_again_once_another_has_the_office() {
    let raises = |out: &[Effect]| out.iter().any(|e| matches!(e, Effect::CawSlot { node: n, .. } if *n == node(3)));
    let again = after_an_unanswered_raise(LeaseView::clone);
    assert!(raises(&again), "nobody has taken it: {again:#?}");
    let out = after_an_unanswered_raise(|lease| lease.taken_by(client(2, 1), "elsewhere", 4711));
    assert!(!raises(&out), "{out:#?}");
}
