//! A disk that hangs, and one whose errors are passed on.

use super::*;
use crate::core::config::{DiskPolicy, OnIoError};
use crate::core::event::{AppError, DiskError};

/// Node 1 reigns; node 2 is equal and counted if it is there.
fn primary(with_peer: bool) -> Bench {
    let mut bench = Bench::new(&[id(2)]);
    let fx = bench.tell(Event::Promote { force: false });
    bench.metadata(fx);
    assert!(bench.node.is_primary());
    if with_peer {
        assert_eq!(bench.meets(1, A, Generation::NONE).0, Verdict::NoSync);
    }
    bench
}

/// Time passes, and the peer is heard of.
fn passes(bench: &mut Bench, ms: std::ops::RangeInclusive<u64>) -> Vec<Effect> {
    let mut fx = Vec::new();
    for at in ms.step_by(50) {
        if bench.conn != ConnId(0) {
            bench.node.handle(Now(at), Event::Received(id(2), bench.conn, Message::Pong), &mut fx);
        }
        bench.node.handle(Now(at), Event::Tick, &mut fx);
    }
    fx
}

fn told(fx: &[Effect], report: &Report) -> bool {
    fx.iter().any(|f| matches!(f, Effect::Told(r) if r == report))
}

fn error(fx: &[Effect], req: u64) -> Option<AppError> {
    fx.iter().find_map(|f| match f {
        Effect::Complete(r, Err(e)) if *r == ReqId(req) => Some(*e),
        _ => None,
    })
}

fn submit(bench: &mut Bench, req: u64, ask: Ask) -> Vec<Effect> {
    let fx = bench.tell(Event::Submit(ReqId(req), ask));
    bench.metadata(fx)
}

fn block() -> Ask {
    Ask::Write(BLOCK, Bytes::from(vec![1; 64]), false)
}

/// A disk that hangs for ever held up every write, also of a primary whose peer had them all.
#[test]
fn a_disk_that_does_not_answer_is_left_and_a_write_goes_on_through_the_peer() {
    let mut bench = primary(true);
    let fx = submit(&mut bench, 1, block());
    let hangs = write(&fx).expect("it goes to the disk");
    bench.says(Message::WriteAck(Seq(1)));
    let fx = passes(&mut bench, 1..=400);
    assert!(!told(&fx, &Report::DiskHangs), "{fx:?}");
    let fx = passes(&mut bench, 401..=600);
    assert!(told(&fx, &Report::DiskHangs) && told(&fx, &Report::Detached), "{fx:?}");
    assert!(bench.node.is_primary() && bench.node.disk() == DiskState::Diskless);
    assert!(!completes(&fx, 1), "not before a grant without this disk");
    let grant = fx.iter().find_map(|f| match f {
        Effect::Send(_, _, Message::Accept { grant, .. }) => Some(*grant),
        _ => None,
    });
    let grant = grant.expect("one is asked for");
    assert_eq!(grant.members, NodeSet::of(id(2)));
    assert!(completes(&bench.says(Message::Accepted(grant.ballot, grant.version)), 1));
    let fx = bench.tell(Event::Done(hangs, Ok(Bytes::new())));
    assert!(fx.is_empty(), "it landed, and nobody waits for it: {fx:?}");
}

#[test]
fn a_read_of_a_disk_that_does_not_answer_is_asked_of_the_peer() {
    let mut bench = primary(true);
    let fx = submit(&mut bench, 1, Ask::Read(BLOCK));
    assert_eq!(reads(&fx).len(), 1);
    let fx = passes(&mut bench, 1..=600);
    assert!(fx.iter().any(|f| matches!(f, Effect::Send(_, _, Message::RemoteRead(ReqId(1), BLOCK)))), "{fx:?}");
}

#[test]
fn without_a_time_limit_a_disk_is_waited_for() {
    let mut bench = primary(true);
    bench.tell(Event::DiskPolicy(DiskPolicy { timeout: None, on_io_error: OnIoError::Detach }));
    submit(&mut bench, 1, Ask::Read(BLOCK));
    let fx = passes(&mut bench, 1..=100_000);
    assert!(!told(&fx, &Report::Detached));
}

#[test]
fn a_secondary_whose_disk_does_not_answer_leaves_and_stands_alone() {
    let mut bench = Bench::new(&[id(2)]);
    assert_eq!(bench.meets(1, A, Generation::NONE).0, Verdict::NoSync);
    let data = Bytes::from(vec![1; 64]);
    let fx = bench.says(Message::Write { seq: Seq(1), epoch: 1, span: BLOCK, data, fua: false, receipt: false });
    bench.metadata(fx);
    let fx = passes(&mut bench, 1..=600);
    assert!(fx.iter().any(|f| matches!(f, Effect::Close(_, _, false))) && told(&fx, &Report::DiskHangs), "{fx:?}");
}

/// Whoever asked for the promotion waited for an answer for ever.
#[test]
fn a_candidate_whose_disk_does_not_answer_is_told_that_it_does_not_become_primary() {
    let mut bench = Bench::with(&[id(2)], Some(id(9)));
    bench.tell(Event::Promote { force: false });
    let fx = passes(&mut bench, 1..=350);
    assert!(fx.is_empty(), "{fx:?}");
    bench.tell(Event::DiskPolicy(DiskPolicy { timeout: Some(100), on_io_error: OnIoError::Detach }));
    let fx = passes(&mut bench, 351..=390);
    assert!(
        told(&fx, &Report::NotPromoted(crate::core::event::Refusal::Data)) && told(&fx, &Report::Detached),
        "{fx:?}"
    );
}

fn passing(with_peer: bool) -> Bench {
    let mut bench = primary(with_peer);
    bench.tell(Event::DiskPolicy(DiskPolicy { timeout: None, on_io_error: OnIoError::PassOn }));
    bench
}

/// One bad sector of the last replica made all of its data unreachable.
#[test]
fn an_error_that_is_passed_on_fails_one_request_and_the_disk_is_kept() {
    let mut bench = passing(false);
    let fx = submit(&mut bench, 1, Ask::Read(BLOCK));
    let fx = bench.tell(Event::Done(reads(&fx)[0].0, Err(DiskError)));
    assert_eq!(error(&fx, 1), Some(AppError::NoData));
    assert!(told(&fx, &Report::PassedOn(BLOCK)) && bench.node.is_primary());
    let fx = submit(&mut bench, 2, block());
    let fx = bench.tell(Event::Done(write(&fx).expect("written"), Err(DiskError)));
    assert_eq!(error(&fx, 2), Some(AppError::NoData));
    let marked = bench.node.replica().and_then(|r| r.bitmap(id(2))).map(|m| m.covers(BLOCK));
    assert_eq!(marked, Some(true), "nobody knows what it left");
    let fx = submit(&mut bench, 3, block());
    assert!(completes(&bench.tell(Event::Done(write(&fx).expect("written"), Ok(Bytes::new()))), 3));
    let fx = submit(&mut bench, 4, Ask::Flush);
    assert!(completes(&bench.tell(Event::Done(flush(&fx).expect("a flush"), Ok(Bytes::new()))), 4));
}

#[test]
fn a_read_that_fails_is_asked_of_the_peer_and_a_write_that_it_has_leaves_the_disk() {
    let mut bench = passing(true);
    let fx = submit(&mut bench, 1, Ask::Read(BLOCK));
    let fx = bench.tell(Event::Done(reads(&fx)[0].0, Err(DiskError)));
    assert!(fx.iter().any(|f| matches!(f, Effect::Send(_, _, Message::RemoteRead(ReqId(1), BLOCK)))), "{fx:?}");
    assert_eq!(bench.node.disk(), DiskState::UpToDate);
    let fx = submit(&mut bench, 2, block());
    let fx = bench.tell(Event::Done(write(&fx).expect("written"), Err(DiskError)));
    assert!(told(&fx, &Report::Detached) && error(&fx, 2).is_none() && bench.node.is_primary(), "{fx:?}");
}

/// Seed 1458 of the simulation, with other times of the log: the peer was killed before it had answered, and the read waited for ever.
#[test]
fn a_read_that_was_passed_on_ends_when_the_peer_that_was_asked_is_lost() {
    let mut bench = passing(true);
    let fx = submit(&mut bench, 1, Ask::Read(BLOCK));
    bench.tell(Event::Done(reads(&fx)[0].0, Err(DiskError)));
    let fx = submit(&mut bench, 2, Ask::Read(BLOCK));
    let with_the_disk = reads(&fx)[0].0;
    let fx = bench.tell(Event::Lost(id(2), ConnId(1)));
    assert_eq!(error(&fx, 1), Some(AppError::NoData), "nobody else has it: {fx:?}");
    assert_eq!(error(&fx, 2), None, "the own disk may still answer");
    assert!(completes(&bench.tell(Event::Done(with_the_disk, Ok(Bytes::new()))), 2));
}

/// After a flush that failed nothing is known of anything that was acknowledged.
#[test]
fn a_flush_that_fails_is_never_passed_on() {
    let mut bench = passing(false);
    let fx = submit(&mut bench, 1, block());
    bench.tell(Event::Done(write(&fx).expect("written"), Ok(Bytes::new())));
    let fx = submit(&mut bench, 2, Ask::Flush);
    let fx = bench.tell(Event::Done(flush(&fx).expect("a flush"), Err(DiskError)));
    assert_eq!(error(&fx, 2), Some(AppError::NoData));
    assert!(told(&fx, &Report::Detached) && !bench.node.is_primary());
}

/// At A and B a primary whose disk failed waited for ever: no grant could be made of those that are left.
#[test]
fn at_a_a_primary_without_its_disk_goes_on_as_at_c() {
    let mut bench = Bench::new(&[id(2)]);
    bench.node.config.protocols.insert(id(2), Protocol::A);
    let fx = bench.tell(Event::Promote { force: false });
    bench.metadata(fx);
    assert_eq!(bench.meets(1, A, Generation::NONE).0, Verdict::NoSync);
    let fx = submit(&mut bench, 1, block());
    let fx = bench.tell(Event::Done(write(&fx).expect("written"), Err(DiskError)));
    let accept = |fx: &[Effect]| {
        fx.iter()
            .find_map(|f| if let Effect::Send(_, _, Message::Accept { grant, .. }) = f { Some(*grant) } else { None })
    };
    let grant = accept(&fx).expect("a grant without this disk");
    assert_eq!(grant.members, NodeSet::of(id(2)));
    let fx = bench.says(Message::Accepted(grant.ballot, grant.version));
    assert!(!completes(&fx, 1), "it is nowhere yet");
    assert!(completes(&bench.says(Message::WriteAck(Seq(1))), 1));
}

/// A run was on its way to the target when a write in it failed; the acknowledgement of the run took the mark away, and the two were equal and
/// differed (seed 2313).
#[test]
fn what_a_failed_write_left_stays_marked_until_it_is_read_for_the_target_again() {
    let (run, rest) = (Span::new(0, 16), Span::new(0, 8));
    let mut bench = passing(false);
    bench.peer_reigns = false;
    let (verdict, fx) = bench.meets(1, Generation::JUST_CREATED, Generation::NONE);
    assert_eq!(verdict, Verdict::Source { full: true });
    bench.metadata(fx);
    bench.says(Message::Dirty(Vec::new(), true));
    let marked =
        |bench: &Bench, span| bench.node.replica().and_then(|r| r.bitmap(id(2))).is_some_and(|m| m.covers(span));
    let pulled = |bench: &mut Bench| {
        let fx = bench.says(Message::Pull(run, Vec::new()));
        let io = fx.iter().find_map(|f| if let Effect::Compare(io, ..) = f { Some(*io) } else { None });
        let found = pieces::compare(&Bytes::from(vec![3; 128]), 64, &[]);
        let fx = bench.tell(Event::Compared(io.expect("it is read"), found));
        assert!(fx.iter().any(|f| matches!(f, Effect::Send(_, _, Message::Pulled { .. }))), "{fx:?}");
    };
    pulled(&mut bench);
    let fx = submit(&mut bench, 1, block());
    let fx = bench.tell(Event::Done(write(&fx).expect("written"), Err(DiskError)));
    assert!(told(&fx, &Report::PassedOn(BLOCK)), "{fx:?}");
    bench.says(Message::PullAck(vec![run]));
    assert_eq!((marked(&bench, BLOCK), marked(&bench, rest)), (true, false), "only what is spoiled stays");
    pulled(&mut bench);
    bench.says(Message::PullAck(vec![run]));
    assert!(!marked(&bench, BLOCK));
}

/// Three of the four slots were taken by writes that were not settled, a run wanted two, and the write that the settlement waited for came after it:
/// nobody went on (seed 2767).
#[test]
fn a_run_of_two_extents_needs_one_slot_at_a_time() {
    let mut bench = Bench::new(&[id(2)]);
    let (verdict, fx) = bench.meets(1, B, A);
    assert_eq!(verdict, Verdict::Target { full: false });
    bench.metadata(fx);
    let runs = [Span::new(120, 8), Span::new(128, 8)];
    let fx = bench.says(Message::Dirty(vec![Span::new(120, 16)], true));
    let fx = bench.metadata(fx);
    let found = looks(&fx);
    assert_eq!(found.iter().map(|(_, run)| *run).collect::<Vec<_>>(), runs);
    for (look, _) in found {
        bench.tell(Event::Digested(look, vec![[1; 32]]));
    }
    let written = |fx: &[Effect]| {
        fx.iter().find_map(|f| if let Effect::Write(io, span, ..) = f { Some((*io, *span)) } else { None })
    };
    for n in 0..3 {
        let (span, data) = (Span::new(n * 32, 8), Bytes::from(vec![1; 64]));
        let fx = bench.says(Message::Write { seq: Seq(n + 1), epoch: 1, span, data, fua: false, receipt: false });
        let fx = bench.metadata(fx);
        bench.tell(Event::Done(written(&fx).expect("it is written").0, Ok(Bytes::new())));
    }
    let mut fx = Vec::new();
    for run in runs {
        let pieces = vec![pieces::Piece { kind: pieces::Kind::Data, units: 1 }];
        let data = Bytes::from(vec![2; 64]);
        fx.extend(bench.says(Message::Pulled { run, pieces, data, holders: NodeSet::EMPTY, room: 1 << 20 }));
    }
    let fx = bench.metadata(fx);
    let (io, span) = written(&fx).expect("the run that the fourth slot is for");
    assert_eq!(span, runs[0]);
    let fx = bench.tell(Event::Done(io, Ok(Bytes::new())));
    let stable = flush(&fx).expect("it is made stable, since the log is full");
    let fx = bench.tell(Event::Done(stable, Ok(Bytes::new())));
    let fx = bench.metadata(fx);
    assert_eq!(written(&fx).map(|(_, span)| span), Some(runs[1]));
}
