//! Layouts, recalls, and who waits for whom.

use std::time::Duration;

use super::util::*;
use crate::core::coord::*;
use crate::core::rules::{Rule, Rules};
use crate::proto::*;

const MIB: u64 = 1 << 20;

fn get(range: BlockRange, want: Want) -> Request {
    Request::LayoutGet { ino: INO, range, want }
}

fn two() -> (World, ClientId, ClientId) {
    let mut w = World::new();
    let (a, b) = (client(1), client(2));
    w.bind(a);
    w.bind(b);
    (w, a, b)
}

#[test]
fn a_lone_client_gets_the_whole_file() {
    let (mut w, a, _) = two();
    let grant = w.layout(a, BlockRange::new(3, 4), Want::Write, MIB);
    assert_eq!((grant.range, grant.mode), (BlockRange::ALL, LayoutMode::Shared));
    assert_eq!(grant.id.0 >> 40, 5, "the epoch is part of its name");
}

#[test]
fn shared_layouts_of_two_clients_live_side_by_side() {
    let (mut w, a, b) = two();
    let one = w.layout(a, BlockRange::new(0, 1), Want::Write, MIB);
    let two = w.layout(b, BlockRange::new(0, 1), Want::Write, MIB);
    assert!(w.coord.holds(a, one.id) && w.coord.holds(b, two.id));
    assert_eq!(two.range, BlockRange::new(0, 256), "whole MiB beside others");
}

#[test]
fn g20_an_exclusive_layout_is_given_after_what_is_in_its_way_was_recalled_and_returned() {
    let (mut w, a, b) = two();
    let held = w.layout(a, BlockRange::new(0, 1), Want::Write, MIB);
    let (tag, effects) = w.call(b, get(BlockRange::new(10, 11), Want::Exclusive));
    let (id, to, ask) = callback(&effects);
    assert_eq!((to, ask, effects.len()), (a, CallbackAsk::Recall { layout: held.id, ino: INO }, 1));
    assert_eq!(w.event(Event::CallbackDone { id, answer: Some(CallbackAnswer::Accepted) }), []);
    let (back, effects) = w.give_back(a, &[held.id]);
    let op = read_op(&effects);
    let ask = ReadAsk::Layout { ino: INO, range: BlockRange::ALL };
    assert_eq!(effects, [Effect::Read { op, ask }, done(back)]);
    let facts = LayoutFacts { extents: vec![], told_to: FileBlock(u64::MAX), size: MIB, kill_privilege: false };
    let effects = w.event(Event::ReadDone { op, done: ReadDone::Layout(facts) });
    assert!(matches!(&effects[..], [Effect::Answer { tag: t, answer: Answer::Ok(Reply::Layout(_)) }] if *t == tag));
}

#[test]
fn g21_first_come_first_served_where_two_conflict_and_no_wait_where_they_do_not() {
    let (mut w, a, b) = two();
    let c = client(3);
    w.bind(c);
    w.layout(a, BlockRange::new(0, 1), Want::Exclusive, 4 * MIB);
    let (_, effects) = w.call_in(b, ordinary(1), get(BlockRange::new(0, 10), Want::Exclusive));
    callback(&effects);
    let (_, effects) = w.call_in(c, ordinary(1), get(BlockRange::new(5, 6), Want::Read));
    assert_eq!(effects, [], "behind b, and a was asked already");
    let (_, effects) = w.call_in(c, ordinary(2), get(BlockRange::new(5, 6), Want::Read));
    assert_eq!(effects, []);
    let held = w.coord.files.layouts_on(INO, a)[0].id;
    let (_, effects) = w.give_back(a, &[held]);
    let reads: Vec<_> = effects.iter().filter(|e| matches!(e, Effect::Read { .. })).collect();
    assert_eq!(reads.len(), 1, "b alone: {effects:?}");
    assert!(
        matches!(reads[0], Effect::Read { ask: ReadAsk::Layout { range, .. }, .. } if range.contains(BlockRange::new(0, 10)))
    );
}

#[test]
fn ranges_that_do_not_meet_do_not_wait_for_each_other() {
    let (mut w, a, b) = two();
    w.layout(b, BlockRange::new(5000, 5001), Want::Exclusive, 40 * MIB);
    let all = w.coord.files.layouts_on(INO, b)[0].id;
    w.give_back(b, &[all]);
    w.layout(a, BlockRange::new(0, 1), Want::Read, 40 * MIB);
    let all = w.coord.files.layouts_on(INO, a)[0].id;
    let (_, effects) = w.call_in(b, ordinary(1), get(BlockRange::new(5000, 5001), Want::Exclusive));
    callback(&effects);
    let (_, effects) = w.call_in(a, ordinary(1), get(BlockRange::new(300, 301), Want::Read));
    let ask = ReadAsk::Layout { ino: INO, range: BlockRange::new(256, 512) };
    assert_eq!(effects, [Effect::Read { op: read_op(&effects), ask }], "not in b's way, and not widened into it");
    assert!(w.coord.holds(a, all));
}

#[test]
fn g22_a_write_to_what_is_not_plainly_written_gets_an_exclusive_layout() {
    let (mut w, a, _) = two();
    let grant = w.layout(a, BlockRange::new(300, 301), Want::Write, MIB);
    assert_eq!(grant.mode, LayoutMode::Exclusive, "beyond the end of file");
}

#[test]
fn g23_authority_over_the_size_reaches_down_to_the_present_end() {
    let (mut w, a, b) = two();
    w.layout(b, BlockRange::new(0, 1), Want::Read, MIB);
    let held = w.coord.files.layouts_on(INO, b)[0].id;
    w.give_back(b, &[held]);
    w.layout(a, BlockRange::new(0, 1), Want::Read, MIB);
    let beyond = BlockRange { start: FileBlock(5000), end: BlockRange::ALL.end };
    let (_, effects) = w.call_in(b, ordinary(3), get(beyond, Want::Exclusive));
    let (id, ..) = callback(&effects);
    w.event(Event::CallbackDone { id, answer: Some(CallbackAnswer::Accepted) });
    let held = w.coord.files.layouts_on(INO, a)[0].id;
    let (_, effects) = w.call_in(a, ordinary(1), get(BlockRange::new(0, 1), Want::Read));
    assert!(matches!(effects[..], [Effect::Read { .. }]), "a small one of a stays aside");
    let facts = |size| LayoutFacts { extents: vec![], told_to: FileBlock(u64::MAX), size, kill_privilege: false };
    w.event(Event::ReadDone { op: read_op(&effects), done: ReadDone::Layout(facts(MIB)) });
    let (_, effects) = w.give_back(a, &[held]);
    let effects = w.event(Event::ReadDone { op: read_op(&effects), done: ReadDone::Layout(facts(MIB)) });
    let again = read_op(&effects);
    assert!(
        matches!(effects[0], Effect::Read { ask: ReadAsk::Layout { range, .. }, .. } if range.start.0 <= MIB / FS_BLOCK),
        "it would let b grow the file over blocks whose holders know an older end: {effects:?}"
    );
    let effects = w.event(Event::ReadDone { op: again, done: ReadDone::Layout(facts(MIB)) });
    assert!(matches!(&effects[..], [Effect::Answer { answer: Answer::Ok(Reply::Layout(_)), .. }]));
}

#[test]
fn g24_a_recall_answered_not_held_counts_only_once_the_grant_is_known_to_have_arrived() {
    let (mut w, a, b) = two();
    let held = w.layout(a, BlockRange::new(0, 1), Want::Write, MIB);
    let (_, effects) = w.call(b, get(BlockRange::new(0, 1), Want::Exclusive));
    let (id, ..) = callback(&effects);
    let not_held = Some(CallbackAnswer::NotHeld);
    assert_eq!(w.event(Event::CallbackDone { id, answer: not_held }), [], "the grant may still be on its way to a");
    assert!(w.coord.holds(a, held.id));
    w.call(a, Request::Statfs);
    let effects = w.pass(LIMITS.recall / 4);
    let (id, ..) = callback(&effects);
    let effects = w.event(Event::CallbackDone { id, answer: not_held });
    assert!(matches!(effects[..], [Effect::Read { .. }]), "a has used the slot again: {effects:?}");
}

#[test]
fn g25_a_client_that_does_not_give_back_in_time_is_evicted_and_only_then_is_its_layout_given_away() {
    let (mut w, a, b) = two();
    let held = w.layout(a, BlockRange::new(0, 1), Want::Write, MIB);
    w.call(b, get(BlockRange::new(0, 1), Want::Exclusive));
    w.pass(Duration::from_millis(4999));
    assert!(w.coord.holds(a, held.id));
    let effects = w.pass(Duration::from_millis(1));
    assert!(effects.contains(&Effect::Report(Report::Evicting { client: a, why: EvictReason::RecallOverdue })));
    let op = store_op(&effects);
    assert!(!effects.iter().any(|e| matches!(e, Effect::Read { .. } | Effect::Fence { .. })));
    let effects = w.event(Event::StoreDone { op, done: StoreDone::Done });
    assert_eq!(effects, [Effect::Fence { client: a, purpose: FencePurpose::Eviction }], "committed, then fenced");
    assert!(w.coord.holds(a, held.id));
    let effects = w.fenced(a, EvictReason::RecallOverdue);
    assert_eq!(effects[0], Effect::Report(Report::Evicted { client: a }));
    assert!(matches!(effects[1], Effect::Read { .. }), "now b");
}

fn hung_path(rules: Rules) -> (World, ClientId, Vec<Effect>) {
    let mut w = World::without(rules);
    let (a, b) = (client(1), client(2));
    w.bind(a);
    w.bind(b);
    w.layout(a, BlockRange::new(0, 1), Want::Write, MIB);
    let (_, effects) = w.call(b, get(BlockRange::new(0, 1), Want::Exclusive));
    (w, a, effects)
}

fn keep_saying_draining(w: &mut World, mut effects: Vec<Effect>, until: Duration) -> Option<Duration> {
    let start = w.now;
    while w.now.since(start) < until {
        for e in &effects {
            match e {
                Effect::Callback { id, .. } => {
                    w.event(Event::CallbackDone { id: *id, answer: Some(CallbackAnswer::Draining) });
                }
                Effect::Report(Report::Evicting { .. }) => return Some(w.now.since(start)),
                _ => {}
            }
        }
        effects = w.pass(Duration::from_millis(100));
    }
    None
}

#[test]
fn g26_draining_counts_as_progress_of_a_recall_but_only_up_to_a_bound() {
    let (mut w, _, effects) = hung_path(Rules::all());
    let after = keep_saying_draining(&mut w, effects, Duration::from_secs(60)).expect("not for ever");
    assert!(after > LIMITS.recall, "{after:?}");
    assert!(after <= LIMITS.path_timeout + LIMITS.fence + Duration::from_secs(1), "{after:?}");
}

/// A coordinator that had been paused found a recall overdue and, at the same moment, that client's answer to another one:
/// that its route was draining. The client was evicted.
#[test]
fn draining_said_of_one_layout_counts_for_all_that_is_asked_of_that_client() {
    let (mut w, a, b) = two();
    let mut asked = Vec::new();
    for n in 0..2 {
        let (ino, range) = (InodeNo(1000 + u64::from(n)), BlockRange::new(0, 1));
        let get = Request::LayoutGet { ino, range, want: Want::Exclusive };
        let (_, effects) = w.call_in(a, ordinary(n), get.clone());
        let facts = LayoutFacts { extents: vec![], told_to: FileBlock(u64::MAX), size: 0, kill_privilege: false };
        w.event(Event::ReadDone { op: read_op(&effects), done: ReadDone::Layout(facts) });
        asked.push(callback(&w.call_in(b, ordinary(n), get).1).0);
    }
    w.now = w.now + LIMITS.recall;
    w.event(Event::CallbackDone { id: asked[0], answer: Some(CallbackAnswer::Draining) });
    let effects = w.event(Event::Tick);
    assert!(!effects.iter().any(|e| matches!(e, Effect::Report(Report::Evicting { .. }))), "{effects:?}");
}

#[test]
fn without_the_rule_a_hung_path_gets_its_node_evicted() {
    let (mut w, _, effects) = hung_path(Rules::without(Rule::DrainingCountsAsProgress));
    let after = keep_saying_draining(&mut w, effects, Duration::from_secs(60)).unwrap();
    assert!(after <= LIMITS.recall + Duration::from_millis(200), "{after:?}");
}

#[test]
fn g27_a_ring_of_recalls_cannot_eat_the_slots_that_would_end_it() {
    let (mut w, a, b) = two();
    let file = |n: u64| InodeNo(1000 + n);
    let get = |n| Request::LayoutGet { ino: file(n), range: BlockRange::new(0, 1), want: Want::Exclusive };
    let mut held = Vec::new();
    for n in 0..u64::from(ORDINARY_SLOTS) * 2 {
        let c = if n % 2 == 0 { a } else { b };
        let (_, effects) = w.call_in(c, ordinary((n / 2) as u8), get(n));
        let facts = LayoutFacts { extents: vec![], told_to: FileBlock(u64::MAX), size: 0, kill_privilege: false };
        let effects = w.event(Event::ReadDone { op: read_op(&effects), done: ReadDone::Layout(facts) });
        let [Effect::Answer { answer: Answer::Ok(Reply::Layout(ref grant)), .. }] = effects[..] else { panic!() };
        held.push((c, n, grant.id));
    }
    for n in 0..u64::from(ORDINARY_SLOTS) * 2 {
        let c = if n % 2 == 0 { b } else { a };
        let (_, effects) = w.call_in(c, ordinary((n / 2) as u8), get(n));
        callback(&effects);
    }
    for (n, (c, file_no, id)) in held.into_iter().enumerate() {
        let commit = CommitBody { mtime: Some(Timestamp::default()), ..CommitBody::default() };
        let request = Request::Commit { ino: file(file_no), commit, give_back: vec![id] };
        let (tag, effects) = w.call_in(c, returns((n % 8) as u8), request);
        let effects = w.event(Event::StoreDone { op: store_op(&effects), done: stored(Answer::Ok(Reply::Done)) });
        assert!(effects.contains(&done(tag)));
        assert!(effects.iter().any(|e| matches!(e, Effect::Read { .. })), "the other one gets in");
    }
}

#[test]
fn g28_a_layout_goes_only_after_redirected_requests_under_it_have_ended() {
    let (mut w, a, b) = two();
    let held = w.layout(a, BlockRange::new(0, 1), Want::Write, MIB);
    w.fence_path(a);
    let guard = w.redirect(a, held.id, RedirectOp::Write).unwrap();
    w.call(b, get(BlockRange::new(0, 1), Want::Exclusive));
    let (tag, effects) = w.give_back(a, &[held.id]);
    assert_eq!(effects, [], "its write is on its way to the disk");
    let effects = w.event(Event::RedirectEnded { guard });
    assert_eq!(effects.last(), Some(&done(tag)));
    assert!(matches!(effects[0], Effect::Read { .. }), "then b");
}

#[test]
fn g29_a_change_of_size_recalls_everybody_and_holds_them_off_while_it_runs() {
    let (mut w, a, b) = two();
    let held = w.layout(a, BlockRange::new(0, 1), Want::Write, MIB);
    let set = SetAttr { size: Some(0), ..SetAttr::default() };
    let (tag, effects) = w.call(b, Request::Setattr { ino: INO, set });
    callback(&effects);
    let (_, effects) = w.give_back(a, &[held.id]);
    let op = store_op(&effects);
    let (_, effects) = w.call_in(a, ordinary(5), get(BlockRange::new(0, 1), Want::Read));
    assert_eq!(effects, [], "the truncation runs");
    let answer = Answer::Ok(Reply::Attr(attr(INO, 0)));
    let effects = w.event(Event::StoreDone { op, done: stored(answer.clone()) });
    assert_eq!(effects[0], Effect::Answer { tag, answer });
    assert!(matches!(effects[1], Effect::Read { .. }));
}

#[test]
fn without_the_rule_space_is_freed_under_a_layout() {
    let mut w = World::without(Rules::without(Rule::FreeAfterReturn));
    let (a, b) = (client(1), client(2));
    w.bind(a);
    w.bind(b);
    let held = w.layout(a, BlockRange::new(0, 1), Want::Write, MIB);
    let set = SetAttr { size: Some(0), ..SetAttr::default() };
    let (_, effects) = w.call(b, Request::Setattr { ino: INO, set });
    assert!(matches!(effects[..], [Effect::Store { .. }]));
    assert!(w.coord.holds(a, held.id));
}

#[test]
fn a_commit_of_a_range_that_another_holds_is_refused() {
    let (mut w, a, b) = two();
    w.layout(b, BlockRange::new(0, 1), Want::Exclusive, MIB);
    let extent = Extent {
        file: FileBlock(0),
        disk: DiskBlock(9),
        len: BlockCount(1),
        state: ExtentState::Written,
        shared: false,
    };
    let commit = CommitBody { extents: vec![extent], ..CommitBody::default() };
    let (tag, effects) = w.call(a, Request::Commit { ino: INO, commit, give_back: vec![] });
    assert_eq!(effects, [failed(tag, rustix::io::Errno::STALE)]);
}

/// Blocks 4 and 5 were written under a layout each and lie side by side on the disk: one extent. The client asks for a
/// layout over both meanwhile, and has to wait.
#[test]
fn one_extent_under_two_exclusive_layouts_is_committed_while_its_client_asks_for_more() {
    let (mut w, a, b) = two();
    let other = files::Layout {
        id: LayoutId(1),
        client: b,
        range: BlockRange::new(0, 1),
        mode: LayoutMode::Shared,
        told_in: None,
    };
    assert!(w.coord.files.reassert(INO, other));
    for n in [4, 5] {
        let (range, mode) = (BlockRange::new(n, n + 1), LayoutMode::Exclusive);
        let held = files::Layout { id: LayoutId(n), client: a, range, mode, told_in: None };
        assert!(w.coord.files.reassert(INO, held));
    }
    let (_, effects) = w.call_in(a, ordinary(5), get(BlockRange::new(3, 6), Want::Read));
    read_op(&effects);
    let extent = Extent {
        file: FileBlock(4),
        disk: DiskBlock(9),
        len: BlockCount(2),
        state: ExtentState::Written,
        shared: false,
    };
    let commit = CommitBody { extents: vec![extent], ..CommitBody::default() };
    let (_, effects) = w.call(a, Request::Commit { ino: INO, commit, give_back: vec![] });
    store_op(&effects);
}

#[test]
fn a_mapping_outside_the_grant_evicts() {
    let (mut w, a, _) = two();
    w.layout(a, BlockRange::new(0, 1), Want::Exclusive, MIB);
    let commit = CommitBody { size: Some(2 * MIB), ..CommitBody::default() };
    let (tag, effects) = w.call(a, Request::Commit { ino: INO, commit, give_back: vec![] });
    let why = "a mapping lies outside the client's grant".to_owned();
    let effects = w.event(Event::StoreDone { op: store_op(&effects), done: StoreDone::Contradiction { why } });
    assert_eq!(effects[0], failed(tag, rustix::io::Errno::INVAL));
    assert!(effects.contains(&Effect::Report(Report::Evicting { client: a, why: EvictReason::OutsideGrant })));
}

/// The disk stalled for longer than a client is waited for. What the client had to say waited in the store, or behind that.
#[test]
fn a_client_whose_commit_waits_for_a_store_that_stands_still_is_not_late() {
    let (mut w, a, b) = two();
    let held = w.layout(a, BlockRange::new(0, 1), Want::Exclusive, MIB);
    let (_, effects) = w.call(b, get(BlockRange::new(0, 1), Want::Exclusive));
    let (id, ..) = callback(&effects);
    w.event(Event::CallbackDone { id, answer: Some(CallbackAnswer::Accepted) });
    // Something else of it is with the store, and only then it gives back.
    let times = CommitBody { size: Some(MIB), ..CommitBody::default() };
    let (_, commit) = w.call(a, Request::Commit { ino: InodeNo(77), commit: times, give_back: vec![] });
    let evicts = |effects: &[Effect]| effects.iter().any(|e| matches!(e, Effect::Report(Report::Evicting { .. })));
    assert!(!evicts(&w.pass(LIMITS.recall * 2)), "evicted while the store stands still");
    w.event(Event::StoreDone { op: store_op(&commit), done: stored(Answer::Ok(Reply::Done)) });
    assert!(!evicts(&w.pass(LIMITS.recall / 2)), "evicted before it could say more");
    let (_, effects) = w.give_back(a, &[held.id]);
    read_op(&effects);
}

/// A store that goes on proves nothing for a client that is silent.
#[test]
fn after_a_stall_of_the_store_a_silent_client_is_waited_for_once_more_and_then_evicted() {
    let (mut w, a, b) = two();
    w.layout(a, BlockRange::new(0, 1), Want::Exclusive, MIB);
    let (_, effects) = w.call(b, get(BlockRange::new(0, 1), Want::Exclusive));
    callback(&effects);
    let times = CommitBody { size: Some(MIB), ..CommitBody::default() };
    let (_, commit) = w.call(a, Request::Commit { ino: InodeNo(77), commit: times, give_back: vec![] });
    w.pass(LIMITS.recall * 2);
    w.event(Event::StoreDone { op: store_op(&commit), done: stored(Answer::Ok(Reply::Done)) });
    let effects = w.pass(LIMITS.recall);
    assert!(effects.iter().any(|e| matches!(e, Effect::Report(Report::Evicting { client, .. }) if *client == a)));
}

/// The network is cut, and the majority is on the other side. It found everybody there evicted by the coordinator before.
#[test]
fn a_coordinator_that_may_not_be_one_any_more_evicts_nobody_for_silence() {
    let (mut w, a, b) = two();
    w.layout(a, BlockRange::new(0, 1), Want::Exclusive, MIB);
    let (_, effects) = w.call(b, get(BlockRange::new(0, 1), Want::Exclusive));
    callback(&effects);
    w.pass(LIMITS.recall / 2);
    w.event(Event::Permitted { may: false });
    assert_eq!(w.pass(LIMITS.recall * 3), []);
    assert_eq!(w.coord.next_deadline(), None);
    w.event(Event::Permitted { may: true });
    let evicting = |effects: &[Effect]| {
        effects.iter().any(|e| matches!(e, Effect::Report(Report::Evicting { client, .. }) if *client == a))
    };
    assert!(!evicting(&w.pass(LIMITS.recall / 4)), "the time without permission was counted");
    assert!(evicting(&w.pass(LIMITS.recall / 4)), "what is left of it is not forgiven");
}

/// The process stands still with a recall under way, for longer than a client is waited for. Its clock comes first, then the
/// answer that came meanwhile.
#[test]
fn time_in_which_the_coordinator_did_not_run_is_not_held_against_its_clients() {
    let (mut w, a, b) = two();
    let held = w.layout(a, BlockRange::new(0, 1), Want::Write, MIB);
    let (_, effects) = w.call(b, get(BlockRange::new(0, 1), Want::Exclusive));
    let (id, ..) = callback(&effects);
    assert_eq!(w.stand_still(Duration::from_secs(600)), [], "nobody is evicted");
    w.event(Event::CallbackDone { id, answer: Some(CallbackAnswer::Accepted) });
    let (_, effects) = w.give_back(a, &[held.id]);
    read_op(&effects);
    assert!(w.coord.next_deadline().is_none(), "nothing is waited for any more");
}

/// The same, and the client is silent: it is waited for as long as if the clock had not run on.
#[test]
fn after_a_stop_a_silent_client_is_waited_for_once_more_and_then_evicted() {
    let (mut w, a, b) = two();
    w.layout(a, BlockRange::new(0, 1), Want::Write, MIB);
    let (_, effects) = w.call(b, get(BlockRange::new(0, 1), Want::Exclusive));
    callback(&effects);
    assert_eq!(w.stand_still(Duration::from_secs(600)), []);
    let wait = w.coord.next_deadline().expect("the recall").since(w.now);
    assert!(wait > Duration::ZERO, "it is counted from now on");
    let effects = w.pass(wait);
    assert!(effects.iter().any(|e| matches!(e, Effect::Report(Report::Evicting { client, .. }) if *client == a)));
}

#[test]
fn a_recall_reaches_a_client_that_was_away() {
    let (mut w, a, b) = two();
    let held = w.layout(a, BlockRange::new(0, 1), Want::Write, MIB);
    w.event(Event::ConnLost { conn: ConnId(1001) });
    let (_, effects) = w.call(b, get(BlockRange::new(0, 1), Want::Exclusive));
    assert_eq!(effects, [], "nowhere to send it");
    let still = Reassert::Layout {
        id: held.id,
        ino: INO,
        range: held.range,
        mode: held.mode,
        uncommitted: vec![],
        size: None,
        mtime: None,
    };
    let effects = w.bind_with(a, vec![still]);
    let (_, to, ask) = callback(&effects);
    assert_eq!((to, ask), (a, CallbackAsk::Recall { layout: held.id, ino: INO }));
}

/// A client asked for a second layout beside an exclusive one of its own. The mapping was read; then the first layout's
/// last commit was stored and the layout came back; then the mapping, which lacked that commit, was given out: the
/// client read zeroes where it had written.
#[test]
fn g35_a_mapping_that_was_read_while_an_exclusive_layout_ended_is_read_again() {
    let mut w = World::new();
    let a = client(1);
    w.bind(a);
    let first = w.layout(a, BlockRange::new(0, 1), Want::Exclusive, 4096);
    assert_eq!(first.beside, []);
    let get = Request::LayoutGet { ino: INO, range: BlockRange::new(0, 1), want: Want::Read };
    let (tag, effects) = w.call_in(a, ordinary(1), get);
    let op = read_op(&effects);
    w.give_back(a, &[first.id]);
    let facts =
        || ReadDone::Layout(LayoutFacts { extents: vec![], told_to: FileBlock(1), size: 4096, kill_privilege: false });
    let effects = w.event(Event::ReadDone { op, done: facts() });
    assert!(matches!(effects[..], [Effect::Read { op: again, .. }] if again == op), "{effects:?}");
    let effects = w.event(Event::ReadDone { op, done: facts() });
    assert!(matches!(&effects[..], [Effect::Answer { tag: t, answer: Answer::Ok(Reply::Layout(_)) }] if *t == tag));
}

#[test]
fn a_grant_names_the_exclusive_layouts_that_its_client_held_when_the_mapping_was_read() {
    let mut w = World::new();
    let a = client(1);
    w.bind(a);
    let first = w.layout(a, BlockRange::new(0, 1), Want::Exclusive, 4096);
    let second = w.layout(a, BlockRange::new(0, 1), Want::Read, 4096);
    assert_eq!(second.beside, [first.id]);
}

#[test]
fn g36_blocks_are_cleared_only_after_every_layout_on_them_came_back() {
    let (mut w, a, b) = two();
    let held = w.layout(a, BlockRange::new(0, 1), Want::Write, MIB);
    for into in [ClearInto::Hole, ClearInto::Unwritten] {
        let held =
            if w.coord.holds(a, held.id) { held.id } else { w.layout(a, BlockRange::new(0, 1), Want::Write, MIB).id };
        let clear = Request::Clear(Clear { ino: INO, range: BlockRange::new(3, 9), into });
        let (tag, effects) = w.call(b, clear.clone());
        let (_, to, ask) = callback(&effects);
        assert_eq!(
            (to, ask, effects.len()),
            (a, CallbackAsk::Recall { layout: held, ino: INO }, 1),
            "and no change yet"
        );
        let (_, effects) = w.give_back(a, &[held]);
        let op = store_op(&effects);
        let reply = Reply::Cleared(FileBlock(9));
        let effects = w.event(Event::StoreDone { op, done: stored(Answer::Ok(reply.clone())) });
        assert_eq!(effects, [ok(tag, reply)]);
    }
}

#[test]
fn the_own_layouts_of_whoever_clears_blocks_are_in_its_way_too() {
    let (mut w, a, _) = two();
    let held = w.layout(a, BlockRange::new(0, 1), Want::Exclusive, MIB);
    let clear = Clear { ino: INO, range: BlockRange::new(3, 9), into: ClearInto::Hole };
    let (_, effects) = w.call_in(a, ordinary(2), Request::Clear(clear));
    assert_eq!(callback(&effects).2, CallbackAsk::Recall { layout: held.id, ino: INO });
}

#[test]
fn g37_capabilities_are_set_only_after_everybody_who_writes_without_clearing_them_gave_that_back() {
    let (mut w, a, b) = two();
    let held = w.layout(a, BlockRange::new(0, 1), Want::Write, MIB);
    let set = |name: &[u8]| {
        Request::Xattr(XattrCall::Set { ino: INO, name: name.into(), value: vec![1], flags: 0, kill_sgid: false })
    };
    let (_, effects) = w.call_in(b, ordinary(1), set(b"user.colour"));
    store_op(&effects);
    let (_, effects) = w.call_in(b, ordinary(2), set(CAPABILITY));
    assert_eq!(callback(&effects).2, CallbackAsk::Recall { layout: held.id, ino: INO });
}
