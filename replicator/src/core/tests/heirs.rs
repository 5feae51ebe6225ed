//! Quorum at A and B: nobody but the primary is a member while it reigns, and who has everything is one when it ends in order.

use super::*;
use crate::core::event::AppError;

/// Node 1 reigns at A with a tie-breaker, node 9, and node 2 follows.
fn primary() -> Bench {
    let mut bench = Bench::with(&[id(2)], Some(id(9)));
    bench.node.config.protocols.insert(id(2), Protocol::A);
    bench.reigns_by_a_vote();
    // Who is granted counts: the other one is synchronised, with no bits to do.
    let (verdict, fx) = bench.meets(1, A, Generation::NONE);
    assert_eq!(verdict, Verdict::Source { full: false });
    bench.metadata(fx);
    for said in [Message::Dirty(Vec::new(), true), Message::PullEnd] {
        let fx = bench.says(said);
        bench.metadata(fx);
    }
    let fx = bench.says(Message::SyncDoneAck);
    let mut fx = bench.metadata(fx);
    // The peer joins: a barrier, then a grant that both voters accept.
    fx.extend(settles(&mut bench, fx.clone()));
    accepts(&mut bench, fx);
    bench
}

/// Answers flushes and barriers.
fn settles(bench: &mut Bench, fx: Vec<Effect>) -> Vec<Effect> {
    let mut more = Vec::new();
    for effect in fx {
        match effect {
            Effect::Flush(io) => more.extend(bench.tell(Event::Done(io, Ok(Bytes::new())))),
            Effect::Send(_, _, Message::Barrier(seq)) => more.extend(bench.says(Message::BarrierAck(seq))),
            _ => {}
        }
    }
    more
}

/// Everybody accepts what is asked for; the last grant that is in force.
fn accepts(bench: &mut Bench, mut fx: Vec<Effect>) -> (Option<Grant>, Vec<Effect>) {
    let (mut last, mut all) = (None, Vec::new());
    for _ in 0..8 {
        fx = bench.metadata(fx);
        let mut next = Vec::new();
        for effect in &fx {
            match effect {
                Effect::Send(node, conn, Message::Accept { grant, .. }) => {
                    next.extend(bench.tell(Event::Received(
                        *node,
                        *conn,
                        Message::Accepted(grant.ballot, grant.version),
                    )));
                }
                Effect::Told(Report::Granted(grant)) => last = Some(*grant),
                _ => {}
            }
        }
        all.append(&mut fx);
        fx = next;
    }
    (last, all)
}

#[test]
fn at_a_with_quorum_only_the_primary_is_granted_and_its_peer_when_it_ends() {
    let mut bench = primary();
    let reign = bench.node.reign().map(|r| (r.grant.members, r.present));
    assert_eq!(
        reign,
        Some((NodeSet::of(id(1)), NodeSet::of(id(1)).with(id(2)))),
        "it has the stream, and does not count"
    );
    let fx = bench.tell(Event::Submit(ReqId(1), Ask::Write(BLOCK, Bytes::from(vec![1; 64]), false)));
    let fx = bench.metadata(fx);
    let fx = bench.tell(Event::Done(write(&fx).expect("written"), Ok(Bytes::new())));
    assert!(completes(&fx, 1), "written here and handed to the connection");
    let fx = bench.tell(Event::Demote);
    let asks = |fx: &[Effect]| fx.iter().any(|f| matches!(f, Effect::Send(_, _, Message::Accept { .. })));
    assert!(!asks(&fx) && fx.iter().any(|f| matches!(f, Effect::Send(_, _, Message::Barrier(Seq(1))))), "{fx:?}");
    let mut more = bench.says(Message::WriteAck(Seq(1)));
    assert!(!asks(&more), "it is not stable there");
    let mut fx = fx;
    fx.append(&mut more);
    for _ in 0..4 {
        let more = settles(&mut bench, fx.clone());
        fx.extend(more);
    }
    let late = bench.tell(Event::Submit(ReqId(2), Ask::Flush));
    assert!(
        late.contains(&Effect::Complete(ReqId(2), Err(AppError::NotPrimary))),
        "nothing is accepted any more: {late:?}"
    );
    let (grant, fx) = accepts(&mut bench, fx);
    assert_eq!(grant.map(|g| g.members), Some(NodeSet::of(id(1)).with(id(2))));
    assert!(fx.iter().any(|f| matches!(f, Effect::Told(Report::Demoted))), "{fx:?}");
}
