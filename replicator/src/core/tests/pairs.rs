//! Two secondaries are compared where neither follows a primary.

use super::*;

/// Node 1, equal to node 2, which is no primary either, and to node 3 if it is there.
fn secondaries(peers: &[NodeId]) -> Bench {
    let mut bench = Bench::new(peers);
    bench.peer_reigns = false;
    assert_eq!(bench.meets(1, A, Generation::NONE).0, Verdict::NoSync);
    bench
}

fn digests(fx: &[Effect]) -> Vec<(IoId, Span)> {
    let digest = |f: &Effect| if let Effect::Digest(io, span) = f { Some((*io, *span)) } else { None };
    fx.iter().filter_map(digest).collect()
}

fn closes(fx: &[Effect], node: NodeId) -> bool {
    fx.iter().any(|f| matches!(f, Effect::Close(n, _, true) if *n == node))
}

#[test]
fn of_two_secondaries_the_lower_one_drives_and_the_other_answers() {
    let mut bench = secondaries(&[id(2)]);
    let fx = bench.tell(Event::Verify);
    let (io, run) = digests(&fx)[0];
    let fx = bench.tell(Event::Digested(io, vec![[0; 32]; (run.len / 8) as usize]));
    assert!(fx.iter().any(|f| matches!(f, Effect::Send(_, _, Message::Check(r, _)) if *r == run)), "{fx:?}");
    // Asked by a lower one it answers.
    let mut bench = secondaries(&[id(2)]);
    let fx = bench.says(Message::Check(run, vec![[0; 32]; (run.len / 8) as usize]));
    assert!(fx.iter().any(|f| matches!(f, Effect::Compare(_, r, _) if *r == run)), "{fx:?}");
}

/// One of two secondaries had the new primary's first write, the other had not yet.
#[test]
fn who_follows_a_primary_is_compared_with_nobody_else() {
    let mut bench = secondaries(&[id(2), id(3)]);
    bench.tell(Event::Verify);
    (bench.peer, bench.peer_reigns) = (id(3), true);
    let (verdict, fx) = bench.meets(2, A, Generation::NONE);
    assert!(verdict == Verdict::NoSync && closes(&fx, id(2)), "{fx:?}");
    let found = bench.node.view().verified;
    assert!(found.iter().any(|(n, v)| *n == id(2) && v.over && v.broken), "{found:?}");
    bench.tell(Event::Verify);
    (bench.peer, bench.conn) = (id(2), ConnId(1));
    assert!(bench.node.verifiable() == [id(3)], "only with the primary");
}

/// A write that a lost primary left lands at one of the two after they have met: that is known, and no difference to be told.
#[test]
fn where_two_secondaries_are_marked_they_meet_anew_instead() {
    let mut bench = secondaries(&[id(2)]);
    bench.node.mark(NodeSet::of(id(2)), BLOCK);
    let fx = bench.says(Message::Check(Span::new(0, 32), vec![[0; 32]; 4]));
    assert!(closes(&fx, id(2)) && digests(&fx).is_empty(), "{fx:?}");
}
