//! A volume is taken away on all nodes, or on none, or on each when it meets one where it was.

use super::*;
use crate::core::event::{AppError, RemoveRefusal};
use crate::ids::{Lives, Sizes, Volume};
use crate::meta::further::Further;

const SECTORS: u64 = 64;

fn one() -> Volume {
    Volume::new(1).expect("a volume")
}

/// Node 1 with a second volume, in this life of it; and its peer node 2.
fn bench(life: u32) -> Bench {
    bench_of(life, &[id(2)], None)
}

/// The same, with these peers, and with a tie-breaker a quorum.
fn bench_of(life: u32, peers: &[NodeId], tie_breaker: Option<NodeId>) -> Bench {
    let layout = Layout::external(SHAPE);
    let mut sb = Superblock::new(RESOURCE, 1, id(1), layout, peers);
    sb.current = A;
    (sb.flags.consistent, sb.flags.up_to_date) = (true, true);
    sb.peers.iter_mut().for_each(|p| p.connected = true);
    sb.set_further(Further::new(one(), 7, 64 << 10, 2, Some(SECTORS)).expect("room").of_life(life));
    Bench::of(sb, peers, tie_breaker)
}

/// Node 1 reigns by the vote of a tie-breaker, node 9; node 2 is away.
fn alone_with_quorum() -> Bench {
    let mut bench = bench_of(1, &[id(2)], Some(id(9)));
    bench.reigns_by_a_vote();
    assert!(bench.node.has_quorum());
    bench
}

/// Node 1 reigns, node 2 is equal.
fn equal() -> Bench {
    let mut bench = bench(1);
    let fx = bench.tell(Event::Promote { force: false });
    bench.metadata(fx);
    assert_eq!(bench.meets_with(1, A, &two_sizes(), None).0, Verdict::NoSync);
    bench
}

fn two_sizes() -> Sizes {
    Sizes::one(SHAPE.data).with(one(), SECTORS)
}

fn take_away(force: bool) -> Event {
    Event::TakeAway { volume: one(), force }
}

fn told(fx: &[Effect]) -> Vec<Report> {
    let report = |f: &Effect| if let Effect::Told(r) = f { Some(r.clone()) } else { None };
    fx.iter().filter_map(report).collect()
}

fn says(fx: &[Effect], message: &Message) -> bool {
    fx.iter().any(|f| matches!(f, Effect::Send(_, _, m) if m == message))
}

fn there(bench: &Bench) -> (u64, u32) {
    (bench.node.sizes().of(one()), bench.node.lives().of(one()))
}

#[test]
fn a_volume_goes_when_nothing_is_under_way_there_and_the_peer_has_written_it_down() {
    let mut bench = equal();
    let in_it = Span::new(one().base() + 8, 8);
    let fx = bench.tell(Event::Submit(ReqId(1), Ask::Write(in_it, Bytes::from(vec![1; 64]), false)));
    let fx = bench.metadata(fx);
    let write = fx.iter().find_map(|f| if let Effect::Write(io, ..) = f { Some(*io) } else { None });
    let fx = bench.tell(take_away(false));
    assert!(told(&fx).is_empty() && !says(&fx, &Message::Leave(1, 2)), "a write is under way: {fx:?}");
    let fx = bench.tell(Event::Submit(ReqId(2), Ask::Read(in_it)));
    assert!(fx.contains(&Effect::Complete(ReqId(2), Err(AppError::NoVolume))), "nothing new: {fx:?}");
    let fx = bench.tell(Event::Done(write.expect("a write"), Ok(Bytes::new())));
    let flush = fx.iter().find_map(|f| if let Effect::Flush(io) = f { Some(*io) } else { None });
    let fx = bench.says(Message::WriteAck(Seq(1)));
    assert!(fx.iter().any(|f| matches!(f, Effect::Complete(ReqId(1), Ok(_)))), "what was accepted is done: {fx:?}");
    assert!(flush.is_some() && !says(&fx, &Message::Leave(1, 2)), "it is not stable everywhere: {fx:?}");
    bench.tell(Event::Done(flush.expect("a flush"), Ok(Bytes::new())));
    let fx = bench.says(Message::BarrierAck(Seq(1)));
    assert!(says(&fx, &Message::Leave(1, 2)) && !fx.iter().any(|f| matches!(f, Effect::Meta(..))), "{fx:?}");
    let fx = bench.says(Message::Left(1, 2));
    assert!(fx.iter().any(|f| matches!(f, Effect::Meta(..))) && told(&fx).is_empty(), "it is not durable here: {fx:?}");
    assert_eq!(bench.node.sizes().of(one()), SECTORS);
    let fx = bench.metadata(fx);
    assert_eq!(told(&fx), [Report::TakenAway(one()), Report::Removed(one())]);
    assert_eq!(there(&bench), (0, 2));
    let replica = bench.node.replica().expect("a disk");
    assert!(replica.bitmap(id(2)).is_some_and(|m| m.bits_of(in_it).is_empty()) && replica.superblock().gone.len() == 1);
    let fx = bench.tell(Event::Submit(ReqId(3), Ask::Read(in_it)));
    assert!(fx.contains(&Effect::Complete(ReqId(3), Err(AppError::NoVolume))));
    let fx = bench.tell(Event::Submit(ReqId(4), Ask::Write(BLOCK, Bytes::from(vec![1; 64]), false)));
    let fx = bench.metadata(fx);
    assert!(write_at(&fx, BLOCK), "the other volume is as it was: {fx:?}");
}

fn write_at(fx: &[Effect], at: Span) -> bool {
    fx.iter().any(|f| matches!(f, Effect::Write(_, span, ..) if *span == at))
}

#[test]
fn who_may_not_take_a_volume_away_is_told_why_and_nothing_changes() {
    let refused = |bench: &mut Bench, event: Event| {
        // That a peer was lost is written down.
        let lost = matches!(event, Event::Lost(..));
        let fx = bench.tell(event);
        assert!(lost || !fx.iter().any(|f| matches!(f, Effect::Meta(..))), "{fx:?}");
        assert!(!says(&fx, &Message::Leave(1, 2)), "{fx:?}");
        assert_eq!(there(bench), (SECTORS, 1));
        told(&fx).into_iter().find_map(|r| if let Report::NotRemoved(why) = r { Some(why) } else { None })
    };
    let mut alone = bench(1);
    assert_eq!(refused(&mut alone, take_away(true)), Some(RemoveRefusal::NotPrimary));
    let fx = alone.tell(Event::Promote { force: false });
    alone.metadata(fx);
    assert_eq!(refused(&mut alone, take_away(false)), Some(RemoveRefusal::Away(id(2))));
    let mut bench = equal();
    let of = |n| Event::TakeAway { volume: Volume::new(n).expect("a volume"), force: true };
    assert_eq!(refused(&mut bench, of(0)), Some(RemoveRefusal::First));
    assert_eq!(refused(&mut bench, of(3)), Some(RemoveRefusal::NotThere));
    bench.tell(Event::Resize { volume: Volume::FIRST, size: None, clean: false });
    assert_eq!(refused(&mut bench, take_away(false)), Some(RemoveRefusal::Busy));
    // It is lost before it was told.
    let mut bench = equal();
    let fx = bench.tell(Event::Submit(ReqId(1), Ask::Read(Span::new(one().base(), 8))));
    let read = reads(&fx)[0].0;
    bench.tell(take_away(false));
    assert_eq!(refused(&mut bench, Event::Lost(id(2), ConnId(1))), Some(RemoveRefusal::Away(id(2))));
    bench.tell(Event::Done(read, Ok(Bytes::from(vec![0; 64]))));
    assert_eq!(there(&bench), (SECTORS, 1));
}

/// From the moment in which a peer was told there is no way back: it may have done so.
#[test]
fn it_goes_forward_when_a_peer_is_lost_that_was_told_and_by_force_without_it() {
    let mut bench = equal();
    let fx = bench.tell(take_away(false));
    assert!(says(&fx, &Message::Leave(1, 2)), "{fx:?}");
    let fx = bench.tell(Event::Lost(id(2), ConnId(1)));
    let fx = bench.metadata(fx);
    assert!(told(&fx).contains(&Report::Removed(one())), "{fx:?}");
    assert_eq!(there(&bench), (0, 2));
    let mut alone = super::leave::bench(1);
    let fx = alone.tell(Event::Promote { force: false });
    alone.metadata(fx);
    let fx = alone.tell(take_away(true));
    let fx = alone.metadata(fx);
    assert_eq!(told(&fx), [Report::TakenAway(one()), Report::Removed(one())]);
}

#[test]
fn a_peer_takes_it_away_as_its_primary_says_and_answers_when_that_is_durable() {
    let mut bench = bench(1);
    assert_eq!(bench.meets_with(1, A, &two_sizes(), None).0, Verdict::NoSync);
    let fx = bench.says(Message::Leave(1, 2));
    assert!(!says(&fx, &Message::Left(1, 2)), "not yet");
    let fx = bench.metadata(fx);
    assert!(says(&fx, &Message::Left(1, 2)) && told(&fx).contains(&Report::TakenAway(one())), "{fx:?}");
    let fx = bench.says(Message::Leave(1, 2));
    assert!(says(&fx, &Message::Left(1, 2)), "asked again");
    assert_eq!(there(&bench), (0, 2));
}

/// It was away, or the primary died in the middle: nobody brings the volume back.
#[test]
fn who_meets_one_that_has_taken_it_away_does_so_unless_it_uses_it() {
    let gone = Lives::plain(&Sizes::one(8)).with(one(), 2);
    let mut bench = bench(1);
    let fx = bench.hears(1, A, &Sizes::one(SHAPE.data), Some(&gone));
    assert!(!fx.iter().any(|f| matches!(f, Effect::Send(_, _, Message::Agree(..)))), "{fx:?}");
    let fx = bench.metadata(fx);
    assert!(told(&fx).contains(&Report::TakenAway(one())), "{fx:?}");
    assert!(fx.iter().any(|f| matches!(f, Effect::Close(_, _, true))), "they meet anew: {fx:?}");
    assert_eq!(bench.meets_with(2, A, &Sizes::one(SHAPE.data), Some(&gone)).0, Verdict::NoSync);
    // The one that has it not any more waits for the other.
    let fx = bench.hears(3, A, &two_sizes(), None);
    assert!(told(&fx).is_empty() && !fx.contains(&Effect::Measure), "it is not added again: {fx:?}");
    // A primary keeps what its programs use, and says why the two are not connected.
    let mut bench = super::leave::bench(1);
    let fx = bench.tell(Event::Promote { force: false });
    bench.metadata(fx);
    let fx = bench.hears(1, A, &Sizes::one(SHAPE.data), Some(&gone));
    assert_eq!((told(&fx), there(&bench)), (vec![Report::OtherLife(id(2), one())], (SECTORS, 1)));
}

/// It was taken away and added again while this node was away: what this one holds is of another volume.
#[test]
fn a_later_life_of_a_volume_is_synchronised_in_full() {
    let again = Lives::plain(&two_sizes()).with(one(), 3);
    let mut bench = bench(1);
    let fx = bench.hears(1, A, &two_sizes(), Some(&again));
    let fx = bench.metadata(fx);
    assert!(told(&fx).contains(&Report::Grown(one(), SECTORS)), "{fx:?}");
    assert_eq!(there(&bench), (SECTORS, 3));
    let marked =
        bench.node.replica().and_then(|r| r.bitmap(id(2))).map(|m| (m.set_bits(), m.covers(one().span(SECTORS))));
    assert_eq!(marked, Some((SECTORS / 8, true)), "of that volume alone");
    let later = bench.hears(2, A, &two_sizes(), Some(&again));
    assert!(later.iter().any(|f| matches!(f, Effect::Send(_, _, Message::Agree(..)))), "now they are: {later:?}");
}

/// It was asked for by force with a quorum, and waits for what is under way there. Prevents: the quorum is lost meanwhile, the volume goes
/// here all the same, and the others promote a node that has it.
#[test]
fn by_force_it_is_refused_when_the_quorum_is_lost_before_it_goes_forward() {
    let mut bench = alone_with_quorum();
    let fx = bench.tell(Event::Submit(ReqId(1), Ask::Read(Span::new(one().base(), 8))));
    let read = reads(&fx)[0].0;
    assert!(told(&bench.tell(take_away(true))).is_empty(), "it waits for the read");
    let fx = bench.tell(Event::Lost(id(9), ConnId(90)));
    assert!(told(&fx).contains(&Report::NotRemoved(RemoveRefusal::NoQuorum)), "{fx:?}");
    bench.metadata(fx);
    let fx = bench.tell(Event::Done(read, Ok(Bytes::from(vec![0; 64]))));
    assert!(completes(&fx, 1), "{fx:?}");
    bench.metadata(fx);
    assert_eq!(there(&bench), (SECTORS, 1));
}

/// Both of its peers have taken the volume away while it was promoted by the vote of one of them: it has no quorum for as long as it has the
/// volume. So it may take it away without one, in the life that it has there, and what waits there for a quorum is told that it is gone.
#[test]
fn a_primary_without_quorum_takes_away_by_force_what_a_peer_has_taken_away() {
    for life in [2, 4] {
        let gone = Lives::plain(&Sizes::one(8)).with(one(), life);
        let mut bench = alone_with_quorum();
        let submit = |at: u64| Ask::Write(Span::new(at, 8), Bytes::from(vec![1; 64]), false);
        let fx = bench.tell(Event::Submit(ReqId(1), submit(one().base() + 8)));
        let fx = bench.metadata(fx);
        let write = fx.iter().find_map(|f| if let Effect::Write(io, ..) = f { Some(*io) } else { None });
        let fx = bench.tell(Event::Lost(id(9), ConnId(90)));
        bench.metadata(fx);
        bench.tell(Event::Submit(ReqId(2), submit(one().base())));
        bench.tell(Event::Submit(ReqId(3), submit(8)));
        let refused = vec![Report::NotRemoved(RemoveRefusal::NoQuorum)];
        assert_eq!(told(&bench.tell(take_away(true))), refused, "nobody has done so");
        let fx = bench.hears(1, A, &Sizes::one(SHAPE.data), Some(&gone));
        assert_eq!((told(&fx), there(&bench)), (vec![Report::OtherLife(id(2), one())], (SECTORS, 1)));
        assert_eq!(told(&bench.tell(take_away(false))), [Report::NotRemoved(RemoveRefusal::Away(id(2)))]);
        let fx = bench.tell(take_away(true));
        let ended = |fx: &[Effect], req| fx.contains(&Effect::Complete(ReqId(req), Err(AppError::NoVolume)));
        assert!(ended(&fx, 1) && ended(&fx, 2) && !ended(&fx, 3), "{fx:?}");
        assert!(!fx.iter().any(|f| matches!(f, Effect::Meta(..))), "a write is on its way to the disk: {fx:?}");
        let fx = bench.tell(Event::Done(write.expect("a write"), Ok(Bytes::new())));
        assert!(!completes(&fx, 1), "it was answered: {fx:?}");
        let fx = bench.metadata(fx);
        assert_eq!(told(&fx), [Report::TakenAway(one()), Report::Removed(one())]);
        assert_eq!(there(&bench), (0, life));
        assert!(fx.iter().any(|f| matches!(f, Effect::Close(_, _, true))), "they meet anew: {fx:?}");
        let fx = bench.hears(2, A, &Sizes::one(SHAPE.data), Some(&gone));
        assert!(fx.iter().any(|f| matches!(f, Effect::Send(_, _, Message::Agree(..)))), "now they are: {fx:?}");
    }
}

/// Node 1 was about to come to terms with node 3, which has the volume, when it met node 2, which has taken it away. Prevents: it becomes
/// target of node 3 and asks it for ever for a volume that it has not.
#[test]
fn who_takes_it_away_is_nothing_to_whom_it_judged_before() {
    let gone = Lives::plain(&Sizes::one(8)).with(one(), 2);
    for durable in [false, true] {
        let mut bench = bench_of(1, &[id(2), id(3)], None);
        (bench.peer, bench.peer_reigns) = (id(3), false);
        let fx = bench.hears(1, A, &two_sizes(), None);
        let said = fx.iter().find_map(|f| match f {
            Effect::Send(_, _, Message::Agree(verdict, _, mine)) => Some((verdict.mirrored(), *mine)),
            _ => None,
        });
        let (verdict, mine) = said.expect("an Agree");
        (bench.peer, bench.peer_reigns) = (id(2), true);
        let mut fx = bench.hears(2, A, &Sizes::one(SHAPE.data), Some(&gone));
        if durable {
            fx = bench.metadata(fx);
            assert!(told(&fx).contains(&Report::TakenAway(one())), "{fx:?}");
        }
        (bench.peer, bench.conn) = (id(3), ConnId(1));
        fx = bench.says(Message::Agree(verdict, mine, 1));
        assert!(!fx.iter().any(|f| matches!(f, Effect::Told(Report::Decided(..)))), "{durable}: {fx:?}");
        assert!(fx.contains(&Effect::Close(id(3), ConnId(1), true)), "{durable}: {fx:?}");
    }
}
