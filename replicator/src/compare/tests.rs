//! A test for each rule that bears its name; mirrors of any two sides; what a decision never does.

use super::*;
use crate::ids::{Ballot, NodeSet};

fn node(n: u8) -> NodeId {
    NodeId::new(n).expect("a node")
}

const A: Generation = Generation(0xa);
const B: Generation = Generation(0xb);
const C: Generation = Generation(0xc);
const OLD: Generation = Generation(0x10);

fn side(n: u8, current: Generation) -> Side {
    Side {
        node: node(n),
        current,
        bitmap: Generation::NONE,
        bitmap_others: Vec::new(),
        history: Vec::new(),
        began: 0,
        disk: DiskState::Consistent,
        primary: false,
        crashed_primary: false,
        lost_quorum: false,
        restarted: false,
        reconnect: false,
        stable: true,
        discard_my_data: false,
        lost_primary: None,
        position: Seq(0),
        dirty: 0,
        grant: Grant::default(),
        changed: false,
    }
}

const SOURCE: Verdict = Verdict::Source { full: false };
const TARGET: Verdict = Verdict::Target { full: false };
const ALL_OUT: Verdict = Verdict::Source { full: true };
const ALL_IN: Verdict = Verdict::Target { full: true };

/// Both sides come to the ends of one decision; `me`'s is returned.
fn decide(me: &Side, peer: &Side, policy: &Policy) -> (Verdict, Rule) {
    let (mine, theirs) = (compare(me, peer, policy), compare(peer, me, policy));
    assert_eq!(mine.verdict, theirs.verdict.mirrored(), "{mine:?} and {theirs:?}");
    (mine.verdict, mine.rule())
}

fn plain(me: &Side, peer: &Side) -> (Verdict, Rule) {
    decide(me, peer, &Policy::default())
}

#[test]
fn rule_initial_handshake_changed() {
    let changed = Side { changed: true, ..side(1, A) };
    assert_eq!(plain(&changed, &side(2, B)), (Verdict::Retry, Rule::InitialHandshakeChanged));
}

#[test]
fn rule_just_created_both() {
    let fresh = |n| side(n, Generation::JUST_CREATED);
    assert_eq!(plain(&fresh(1), &fresh(2)), (Verdict::NoSync, Rule::JustCreatedBoth));
}

#[test]
fn rule_just_created_self_and_peer() {
    let fresh = Side { disk: DiskState::Inconsistent, ..side(1, Generation::JUST_CREATED) };
    assert_eq!(plain(&fresh, &side(2, A)), (ALL_IN, Rule::JustCreatedSelf));
    assert_eq!(plain(&side(2, A), &fresh), (ALL_OUT, Rule::JustCreatedPeer));
}

#[test]
fn rule_sync_source_missed_finish() {
    let source = Side { bitmap: OLD, ..side(1, A) };
    assert_eq!(plain(&source, &side(2, A)), (SOURCE, Rule::SyncSourceMissedFinish));
    assert_eq!(plain(&side(2, A), &source), (TARGET, Rule::SyncPeerMissedFinish));
    let promoted = Side { primary: true, ..side(2, A) };
    assert_eq!(plain(&source, &promoted).0, TARGET, "who lives is followed");
}

/// Node 3 was synchronised by a primary while node 2 was left behind, and had not heard that node 2 was back when the
/// primary was lost: its mark for node 2 read as the end of a synchronisation, and it overwrote what node 2 had since.
#[test]
fn an_old_mark_does_not_outweigh_the_stream_of_a_primary_that_both_lost() {
    let lost = Side { lost_primary: Some(node(1)), dirty: 9, ..side(2, A) };
    let further = Side { position: Seq(22), ..lost.clone() };
    let behind = Side { node: node(3), bitmap: OLD, position: Seq(16), ..lost };
    let policy = Policy { unconfirmed: true, ..Policy::default() };
    assert_eq!(decide(&further, &behind, &policy), (SOURCE, Rule::ReconcileDagtag));
}

#[test]
fn rule_lost_cache() {
    let lost = Side { restarted: true, dirty: 4, reconnect: true, ..side(1, A) };
    let kept = Side { reconnect: true, ..side(2, A) };
    assert_eq!(plain(&kept, &lost), (SOURCE, Rule::LostCache));
    let quorum_lost = Side { lost_quorum: true, ..lost.clone() };
    assert_eq!(plain(&kept, &quorum_lost), (SOURCE, Rule::LostCache), "also against a primary that lost quorum");
    assert_eq!(plain(&kept, &Side { primary: true, ..lost }).0, TARGET, "who lives is followed");
}

#[test]
fn rule_reconnected() {
    let was = |n| Side { reconnect: true, ..side(n, A) };
    assert_eq!(plain(&was(1), &was(2)), (Verdict::NoSync, Rule::Reconnected));
}

#[test]
fn rule_crashed_primary() {
    let crashed = Side { crashed_primary: true, ..side(1, A) };
    let other = Side { reconnect: true, ..side(2, A) };
    let unconfirmed = Policy { unconfirmed: true, ..Policy::default() };
    assert_eq!(decide(&crashed, &other, &unconfirmed), (SOURCE, Rule::CrashedPrimary));
}

#[test]
fn rule_lost_quorum() {
    let lost = |n| Side { lost_quorum: true, ..side(n, A) };
    assert_eq!(plain(&lost(2), &side(1, A)), (SOURCE, Rule::LostQuorum));
    let lives = Side { primary: true, ..side(1, A) };
    assert_eq!(plain(&lost(2), &lives), (TARGET, Rule::LostQuorum));
    assert_eq!(plain(&lost(2), &lost(1)), (TARGET, Rule::LostQuorumBoth));
}

#[test]
fn rule_post_crash() {
    let crashed = Side { crashed_primary: true, dirty: 3, ..side(1, A) };
    let was = Side { reconnect: true, ..side(2, A) };
    assert_eq!(plain(&was, &crashed), (SOURCE, Rule::PostCrash));
}

#[test]
fn rule_one_was_connected() {
    let was = Side { reconnect: true, ..side(2, A) };
    assert_eq!(plain(&was, &side(1, A)), (Verdict::NoSync, Rule::OneWasConnected));
}

#[test]
fn rule_both_off() {
    let crashed = |n| Side { crashed_primary: true, ..side(n, A) };
    assert_eq!(plain(&side(1, A), &crashed(2)), (TARGET, Rule::BothOffCrashed));
    assert_eq!(plain(&crashed(1), &crashed(2)), (SOURCE, Rule::BothOffTie));
    assert_eq!(plain(&side(1, A), &side(2, A)), (Verdict::NoSync, Rule::BothOff));
}

#[test]
fn rule_reconcile_bitmap() {
    let lost = |n, dirty| Side { lost_primary: Some(node(3)), dirty, reconnect: true, ..side(n, A) };
    assert_eq!(plain(&lost(2, 1), &lost(1, 0)), (SOURCE, Rule::ReconcileBitmap));
}

#[test]
fn rule_reconcile_dagtag() {
    let at = |n, position| Side { position: Seq(position), dirty: 1, lost_primary: Some(node(3)), ..side(n, A) };
    assert_eq!(plain(&at(2, 8), &at(1, 7)), (SOURCE, Rule::ReconcileDagtag));
    assert_eq!(plain(&at(2, 7), &at(1, 7)), (TARGET, Rule::ReconcileDagtag), "the lower node breaks the tie");
}

#[test]
fn rule_leftover_bits_are_compared_and_never_forgotten() {
    let dirty = Side { dirty: 16, reconnect: true, ..side(1, A) };
    let peer = Side { reconnect: true, ..side(2, A) };
    assert_eq!(plain(&dirty, &peer), (SOURCE, Rule::LeftoverBits));
    let survivor = Side { primary: true, dirty: 16, ..side(2, A) };
    assert_eq!(plain(&survivor, &side(1, A)), (SOURCE, Rule::LeftoverBits));
}

#[test]
fn rule_bitmap_peer_and_self() {
    let newer = Side { bitmap: A, ..side(2, B) };
    assert_eq!(plain(&side(1, A), &newer), (TARGET, Rule::BitmapPeer));
    assert_eq!(plain(&newer, &side(1, A)), (SOURCE, Rule::BitmapSelf));
}

#[test]
fn rule_bitmap_other() {
    let newer = Side { bitmap_others: vec![A], ..side(2, B) };
    assert_eq!(plain(&side(1, A), &newer), (TARGET, Rule::BitmapPeerOther));
    assert_eq!(plain(&newer, &side(1, A)), (SOURCE, Rule::BitmapSelfOther));
}

#[test]
fn rule_history() {
    let newer = Side { history: vec![C, A], ..side(2, B) };
    assert_eq!(plain(&side(1, A), &newer), (ALL_IN, Rule::HistoryPeer));
    assert_eq!(plain(&newer, &side(1, A)), (ALL_OUT, Rule::HistorySelf));
}

fn split() -> (Side, Side) {
    (Side { bitmap: OLD, dirty: 5, began: 50, ..side(1, A) }, Side { bitmap: OLD, dirty: 9, began: 40, ..side(2, B) })
}

#[test]
fn rule_bitmap_both_is_a_split_brain_that_nobody_overwrites() {
    let (me, peer) = split();
    assert_eq!(plain(&me, &peer), (Verdict::SplitBrain, Rule::BitmapBoth));
}

#[test]
fn rule_history_both_is_settled_only_if_always_asked_for() {
    let me = Side { history: vec![OLD], ..side(1, A) };
    let peer = Side { history: vec![C, OLD], ..side(2, B) };
    assert_eq!(plain(&me, &peer), (Verdict::SplitBrain, Rule::HistoryBoth));
    let mut policy = Policy::default();
    policy.after_split_brain.zero = ZeroPrimaries::DiscardNode(node(1));
    assert_eq!(decide(&me, &peer, &policy), (Verdict::SplitBrain, Rule::HistoryBoth));
    policy.after_split_brain.always = true;
    assert_eq!(decide(&me, &peer, &policy), (ALL_IN, Rule::AfterSplitBrain));
}

/// A replica was brought back from a newer generation to an older one, that of a member of the grant which had crashed
/// before it knew the newer: the two then took each other for strangers, for ever.
#[test]
fn each_a_former_generation_of_the_other_is_not_unrelated() {
    let back = Side { history: vec![B], ..side(1, A) };
    let on = Side { history: vec![A], ..side(2, B) };
    assert_eq!(plain(&back, &on), (Verdict::SplitBrain, Rule::HistoryBoth));
    let generation = B;
    let newest = Grant { ballot: Ballot { round: 3, node: 2 }, version: 0, generation, members: NodeSet::of(node(2)) };
    let on = Side { grant: newest, ..on };
    let policy = Policy { quorum: true, ..Policy::default() };
    assert_eq!(decide(&back, &on, &policy), (TARGET, Rule::Granted));
}

#[test]
fn rule_unrelated_data() {
    assert_eq!(plain(&side(1, A), &side(2, B)), (Verdict::Unrelated, Rule::UnrelatedData));
    let gives = Side { discard_my_data: true, ..side(1, A) };
    assert_eq!(plain(&gives, &side(2, B)).0, Verdict::Unrelated, "not even then");
}

#[test]
fn rule_disk_states() {
    let broken = Side { disk: DiskState::Inconsistent, reconnect: true, ..side(1, A) };
    let whole = Side { reconnect: true, ..side(2, A) };
    assert_eq!(plain(&broken, &whole), (TARGET, Rule::DiskStates));
    let crashed = |n, disk| Side { crashed_primary: true, disk, ..side(n, A) };
    let (one, two) = (crashed(1, DiskState::Outdated), crashed(2, DiskState::Consistent));
    assert_eq!(plain(&one, &two), (TARGET, Rule::DiskStates), "a tie is broken by the better disk");
}

#[test]
fn rule_unstable() {
    let (me, peer) = split();
    let moving = Side { stable: false, ..peer };
    assert_eq!(plain(&me, &moving), (Verdict::Retry, Rule::Unstable));
}

fn grant(round: u32, members: &[u8]) -> Grant {
    let members = members.iter().map(|n| node(*n)).collect();
    Grant { ballot: Ballot { round, node: 1 }, members, ..Grant::default() }
}

#[test]
fn rule_granted_side_wins() {
    let quorum = Policy { quorum: true, ..Policy::default() };
    let (mut me, mut peer) = split();
    me.grant = grant(3, &[1]);
    peer.grant = grant(2, &[1, 2]);
    assert_eq!(decide(&me, &peer, &quorum), (SOURCE, Rule::Granted));
    assert_eq!(decide(&peer, &me, &quorum), (TARGET, Rule::Granted));
    let (mut fresh, mut full) = (side(2, Generation::JUST_CREATED), side(1, A));
    full.grant = grant(3, &[1]);
    fresh.disk = DiskState::Inconsistent;
    assert_eq!(decide(&full, &fresh, &quorum).0, ALL_OUT, "and everything is sent to one that has nothing");
}

#[test]
fn rule_neither_granted_waits() {
    let quorum = Policy { quorum: true, ..Policy::default() };
    let old = |n| Side { grant: grant(3, &[3]), dirty: 1, ..side(n, A) };
    assert_eq!(decide(&old(1), &old(2), &quorum), (Verdict::Wait, Rule::NeitherGranted));
}

#[test]
fn rule_after_split_brain_without_a_primary() {
    let (me, peer) = split();
    let verdict = |zero| {
        let after_split_brain = AfterSplitBrain { zero, ..AfterSplitBrain::default() };
        decide(&me, &peer, &Policy { after_split_brain, ..Policy::default() }).0
    };
    assert_eq!(verdict(ZeroPrimaries::Disconnect), Verdict::SplitBrain);
    assert_eq!(verdict(ZeroPrimaries::DiscardYoungerPrimary), TARGET);
    assert_eq!(verdict(ZeroPrimaries::DiscardOlderPrimary), SOURCE);
    assert_eq!(verdict(ZeroPrimaries::DiscardZeroChanges), Verdict::SplitBrain, "both changed something");
    assert_eq!(verdict(ZeroPrimaries::DiscardLeastChanges), TARGET);
    assert_eq!(verdict(ZeroPrimaries::DiscardNode(node(2))), SOURCE);
    assert_eq!(verdict(ZeroPrimaries::DiscardNode(node(3))), Verdict::SplitBrain);
}

#[test]
fn rule_after_split_brain_with_primaries() {
    let (mut me, mut peer) = split();
    me.primary = true;
    let verdict = |me: &Side, peer: &Side, one, two| {
        let zero = ZeroPrimaries::DiscardLeastChanges;
        let after_split_brain = AfterSplitBrain { zero, one, two, always: false };
        let rr_conflict = RrConflict::Violently;
        decide(me, peer, &Policy { after_split_brain, rr_conflict, ..Policy::default() }).0
    };
    let none = TwoPrimaries::Disconnect;
    assert_eq!(verdict(&me, &peer, OnePrimary::Disconnect, none), Verdict::SplitBrain);
    assert_eq!(verdict(&me, &peer, OnePrimary::Consensus, none), Verdict::SplitBrain, "the primary changed less");
    assert_eq!(verdict(&me, &peer, OnePrimary::ViolentlyAsZero, none), TARGET);
    assert_eq!(verdict(&me, &peer, OnePrimary::DiscardSecondary, none), SOURCE);
    peer.primary = true;
    assert_eq!(verdict(&me, &peer, OnePrimary::DiscardSecondary, none), Verdict::SplitBrain);
    assert_eq!(verdict(&me, &peer, OnePrimary::Disconnect, TwoPrimaries::ViolentlyAsZero), TARGET);
}

#[test]
fn rule_discard_my_data() {
    let (me, peer) = split();
    let gives = Side { discard_my_data: true, ..me.clone() };
    assert_eq!(plain(&gives, &peer), (TARGET, Rule::DiscardMyData));
    let primary = Side { primary: true, ..gives.clone() };
    assert_eq!(plain(&primary, &peer).0, Verdict::SplitBrain, "a primary gives nothing up");
    let both = Side { discard_my_data: true, ..peer };
    assert_eq!(plain(&gives, &both).0, Verdict::SplitBrain);
}

/// After a split brain a replica was made anew, and told to give up its changes, of which it had none: it was sent what its peer
/// had marked, and counted as equal.
#[test]
fn a_new_replica_that_gives_up_its_data_is_sent_everything() {
    let (_, peer) = split();
    let new = side(1, Generation::JUST_CREATED);
    let gives = Side { discard_my_data: true, disk: DiskState::Inconsistent, dirty: 3, ..new };
    assert_eq!(plain(&gives, &peer).0, ALL_IN);
}

#[test]
fn rule_rr_conflict() {
    let newer = Side { bitmap: A, dirty: 1, ..side(2, B) };
    let lives = Side { primary: true, ..side(1, A) };
    let by = |rr_conflict| decide(&lives, &newer, &Policy { rr_conflict, ..Policy::default() });
    assert_eq!(by(RrConflict::Disconnect), (Verdict::PrimaryWouldLose, Rule::RrConflict));
    assert_eq!(by(RrConflict::RetryConnect), (Verdict::Retry, Rule::RrConflict));
    assert_eq!(by(RrConflict::Violently), (TARGET, Rule::BitmapPeer));
}

#[test]
fn rule_auto_discard() {
    let crashed = Side { crashed_primary: true, dirty: 2, ..side(2, A) };
    let lives = Side { primary: true, ..side(1, A) };
    let rr_conflict = RrConflict::AutoDiscard;
    let policy = Policy { rr_conflict, unconfirmed: true, asynchronous: true, ..Policy::default() };
    assert_eq!(decide(&lives, &crashed, &policy), (SOURCE, Rule::AutoDiscard));
    let b = Policy { asynchronous: false, ..policy };
    assert_eq!(decide(&lives, &crashed, &b), (Verdict::PrimaryWouldLose, Rule::RrConflict));
}

/// Sides drawn from few values, so that every rule is met.
fn any_side(n: u8, rng: &mut impl FnMut(u64) -> u64) -> Side {
    let generations = [A, B, C, OLD, Generation::JUST_CREATED, Generation::NONE];
    let mut one = |from: usize| generations[from + rng(6 - from as u64) as usize];
    let (current, bitmap, other, history) = ([A, B, A, B][(one(0).0 % 4) as usize], one(0), one(0), one(0));
    let fresh = rng(30) == 0;
    let disks = [DiskState::Inconsistent, DiskState::Outdated, DiskState::Consistent, DiskState::UpToDate];
    let mut flag = |of: u64| rng(of) == 0;
    let (primary, crashed, lost, reconnect) = (flag(4), flag(3), flag(4), flag(2));
    let (stable, discard, changed, third) = (!flag(6), flag(5), flag(40), flag(2));
    Side {
        current: if fresh { Generation::JUST_CREATED } else { current },
        bitmap,
        bitmap_others: vec![other],
        history: vec![history],
        began: rng(3),
        disk: disks[rng(4) as usize],
        primary,
        crashed_primary: crashed && !primary,
        lost_quorum: lost,
        restarted: rng(3) == 0,
        reconnect,
        stable,
        discard_my_data: discard,
        lost_primary: third.then(|| node(3)),
        position: Seq(rng(3)),
        dirty: rng(3),
        grant: grant(rng(3) as u32, [&[1][..], &[2], &[1, 2], &[3], &[]][rng(5) as usize]),
        changed,
        ..side(n, A)
    }
}

#[test]
fn any_two_sides_come_to_the_ends_of_one_decision_that_forgets_no_bits() {
    let mut state = 7_u64;
    let mut rng = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..200_000 {
        let (mut me, mut peer) = (any_side(1, &mut rng), any_side(2, &mut rng));
        // Grants of one number are the same grant.
        if me.grant.number() == peer.grant.number() {
            peer.grant = me.grant;
        }
        me.began += 1;
        peer.began += 1;
        let policy = Policy {
            after_split_brain: AfterSplitBrain {
                zero: [
                    ZeroPrimaries::Disconnect,
                    ZeroPrimaries::DiscardLeastChanges,
                    ZeroPrimaries::DiscardOlderPrimary,
                ][rng(3) as usize],
                one: [OnePrimary::Disconnect, OnePrimary::Consensus, OnePrimary::DiscardSecondary][rng(3) as usize],
                two: [TwoPrimaries::Disconnect, TwoPrimaries::ViolentlyAsZero][rng(2) as usize],
                always: rng(2) == 0,
            },
            rr_conflict: [RrConflict::Disconnect, RrConflict::RetryConnect, RrConflict::AutoDiscard][rng(3) as usize],
            quorum: rng(2) == 0,
            unconfirmed: rng(2) == 0,
            asynchronous: rng(2) == 0,
        };
        let decision = compare(&me, &peer, &policy);
        let (verdict, _) = decide(&me, &peer, &policy);
        seen.extend(decision.rules.iter().copied());
        let fresh = decision.rules[0] == Rule::JustCreatedBoth;
        assert!(verdict != Verdict::NoSync || fresh || me.dirty + peer.dirty == 0, "bits are forgotten: {decision:?}");
        if me.primary {
            assert!(!matches!(verdict, Verdict::Target { full: true }), "a primary is overwritten: {decision:?}");
            assert!(verdict != TARGET || me.current == peer.current, "{decision:?}");
        }
    }
    assert_eq!(seen.len(), 36, "some rule never spoke: {seen:?}");
}
