//! All become larger together, or none, or each when it meets one that is.

use super::*;
use crate::core::event::ResizeRefusal;
use crate::ids::Volume;
use crate::meta::layout::Devices;

const OLD: u64 = SHAPE.data;
const NEW: u64 = OLD + 64;

fn sectors(data: u64) -> Event {
    Event::Measured(Some(Devices::one(data * 512, 1 << 20)))
}

fn first(node: &Node) -> u64 {
    node.sizes().of(Volume::FIRST)
}

fn told(fx: &[Effect]) -> Vec<Report> {
    let report = |f: &Effect| if let Effect::Told(r) = f { Some(r.clone()) } else { None };
    fx.iter().filter_map(report).collect()
}

fn says(fx: &[Effect], message: &Message) -> bool {
    fx.iter().any(|f| matches!(f, Effect::Send(_, _, m) if m == message))
}

/// Node 1 reigns, node 2 is equal.
fn equal() -> Bench {
    let mut bench = Bench::new(&[id(2)]);
    let fx = bench.tell(Event::Promote { force: false });
    bench.metadata(fx);
    assert_eq!(bench.meets(1, A, Generation::NONE).0, Verdict::NoSync);
    bench
}

fn resize(size: Option<u64>) -> Event {
    Event::Resize { volume: Volume::FIRST, size, clean: false }
}

fn behind() -> Ask {
    Ask::Write(Span::new(OLD, 8), Bytes::from(vec![1; 64]), false)
}

#[test]
fn the_primary_grows_when_all_have_and_meets_them_again_before_it_uses_it() {
    let mut bench = equal();
    let fx = bench.tell(resize(None));
    assert!(fx.contains(&Effect::Measure) && says(&fx, &Message::Room), "{fx:?}");
    bench.says(Message::HasRoom(NEW));
    let fx = bench.tell(sectors(NEW + 800));
    assert!(says(&fx, &Message::Resize(NEW, false)), "the least that all have room for: {fx:?}");
    assert!(!fx.iter().any(|f| matches!(f, Effect::Meta(..))), "not before the peer has");
    let fx = bench.says(Message::Resized(NEW));
    assert!(fx.contains(&Effect::Measure));
    let fx = bench.tell(sectors(NEW + 800));
    assert!(told(&fx).is_empty() && first(&bench.node) == OLD, "not before it is durable");
    let fx = bench.metadata(fx);
    assert!(told(&fx).contains(&Report::Resized(Volume::FIRST, NEW)) && first(&bench.node) == NEW);
    assert!(fx.iter().any(|f| matches!(f, Effect::Close(_, _, true))), "what is new has bits: {fx:?}");
    let marked =
        bench.node.replica().and_then(|r| r.bitmap(id(2))).map(|m| (m.set_bits(), m.covers(Span::new(OLD, 64))));
    assert_eq!(marked, Some((8, true)));
}

#[test]
fn what_is_new_is_not_written_to_a_peer_that_lacks_it() {
    let mut bench = equal();
    bench.tell(resize(None));
    bench.says(Message::HasRoom(NEW));
    bench.tell(sectors(NEW));
    bench.says(Message::Resized(NEW));
    let fx = bench.tell(Event::Submit(ReqId(1), behind()));
    assert!(!fx.iter().any(|f| matches!(f, Effect::Send(_, _, Message::Write { .. }))), "it is not durable here");
    let fx = bench.tell(sectors(NEW));
    let fx = bench.metadata(fx);
    assert!(fx.iter().any(|f| matches!(f, Effect::Write(_, span, ..) if span.at == OLD)), "now it is: {fx:?}");
}

/// A peer had grown, and asked for a verification before the primary had met it again: all that was new was told as different, though
/// it was about to be synchronised.
#[test]
fn a_verification_tells_nothing_of_what_is_new_before_the_two_have_met_again() {
    let mut bench = equal();
    bench.tell(resize(None));
    bench.says(Message::HasRoom(NEW));
    bench.tell(sectors(NEW));
    bench.says(Message::Resized(NEW));
    let (old, new) = (Span::new(OLD - 8, 8), Span::new(OLD, 8));
    let fx = bench.says(Message::Check(old, vec![[1; 32]]));
    assert!(fx.iter().any(|f| matches!(f, Effect::Compare(_, run, _) if *run == old)), "{fx:?}");
    let fx = bench.says(Message::Check(new, vec![[1; 32]]));
    assert!(
        matches!(&fx[..], [Effect::Send(_, _, Message::Checked(run, pieces, _))] if *run == new && pieces.is_empty()),
        "{fx:?}"
    );
}

#[test]
fn who_cannot_grow_is_named_and_nothing_changes() {
    let refused = |bench: &mut Bench, fx: Vec<Effect>| {
        let why = told(&fx).into_iter().find_map(|r| if let Report::NotResized(why) = r { Some(why) } else { None });
        assert!(first(&bench.node) == OLD && !fx.iter().any(|f| matches!(f, Effect::Meta(..))));
        why
    };
    let mut alone = Bench::new(&[id(2)]);
    let fx = alone.tell(resize(None));
    assert_eq!(refused(&mut alone, fx), Some(ResizeRefusal::NotPrimary));
    let fx = alone.tell(Event::Promote { force: false });
    alone.metadata(fx);
    let fx = alone.tell(resize(None));
    assert_eq!(refused(&mut alone, fx), Some(ResizeRefusal::Away(id(2))));
    for (want, theirs, ours, why) in [
        (None, OLD, NEW, ResizeRefusal::NoRoom(id(2), OLD)),
        (None, NEW, OLD, ResizeRefusal::NoRoom(id(1), OLD)),
        (Some(NEW + 8), NEW, NEW + 80, ResizeRefusal::NoRoom(id(2), NEW)),
        (Some(OLD), NEW, NEW, ResizeRefusal::Same),
    ] {
        let mut bench = equal();
        bench.tell(resize(want));
        bench.says(Message::HasRoom(theirs));
        let fx = bench.tell(sectors(ours));
        assert_eq!(refused(&mut bench, fx), Some(why), "{want:?}");
    }
    let mut bench = equal();
    let fx = bench.tell(resize(Some(OLD - 8)));
    assert_eq!(refused(&mut bench, fx), Some(ResizeRefusal::Shrinks));
    bench.tell(resize(None));
    let fx = bench.tell(resize(None));
    assert_eq!(refused(&mut bench, fx), Some(ResizeRefusal::Busy));
    let fx = bench.tell(Event::Lost(id(2), bench.conn));
    assert_eq!(refused(&mut bench, fx), Some(ResizeRefusal::Lost(id(2))));
}

/// A peer had grown, and the primary was gone before it did so itself.
#[test]
fn who_meets_a_larger_one_becomes_as_large_before_they_are_anything_to_one_another() {
    let mut bench = Bench::new(&[id(2)]);
    bench.conn = ConnId(1);
    let larger = || Message::Hello(Box::new(Hello { size: NEW, ..hello(id(2), true, A, Generation::NONE) }));
    bench.tell(Event::Connected(id(2), bench.conn));
    let fx = bench.says(larger());
    assert!(fx.contains(&Effect::Measure) && !fx.iter().any(|f| matches!(f, Effect::Send(_, _, Message::Agree(..)))));
    let fx = bench.tell(sectors(NEW));
    let fx = bench.metadata(fx);
    assert!(told(&fx).contains(&Report::Grown(Volume::FIRST, NEW)) && first(&bench.node) == NEW);
    assert!(fx.iter().any(|f| matches!(f, Effect::Close(_, _, true))), "they meet anew: {fx:?}");
    // Without room for it the two stand alone.
    let mut bench = Bench::new(&[id(2)]);
    bench.conn = ConnId(1);
    bench.tell(Event::Connected(id(2), bench.conn));
    bench.says(larger());
    let fx = bench.tell(sectors(OLD));
    assert!(told(&fx).contains(&Report::OtherSize(id(2), Volume::FIRST, NEW)), "{fx:?}");
    assert!(fx.iter().any(|f| matches!(f, Effect::Close(_, _, false))) && first(&bench.node) == OLD);
}

/// A replica that was just made says nothing of how large a device is that has data.
#[test]
fn a_new_replica_that_is_larger_makes_nobody_grow() {
    let mut bench = Bench::new(&[id(2)]);
    bench.conn = ConnId(1);
    bench.tell(Event::Connected(id(2), bench.conn));
    let new = Hello { size: NEW, ..hello(id(2), false, Generation::JUST_CREATED, Generation::NONE) };
    let fx = bench.says(Message::Hello(Box::new(new)));
    assert!(
        !fx.contains(&Effect::Measure) && told(&fx).contains(&Report::OtherSize(id(2), Volume::FIRST, NEW)),
        "{fx:?}"
    );
}

#[test]
fn a_peer_grows_as_its_primary_says_and_answers_when_that_is_durable() {
    let mut bench = Bench::new(&[id(2)]);
    assert_eq!(bench.meets(1, A, Generation::NONE).0, Verdict::NoSync);
    bench.says(Message::Room);
    let fx = bench.tell(sectors(NEW));
    assert!(says(&fx, &Message::HasRoom(NEW)), "{fx:?}");
    bench.says(Message::Resize(NEW, false));
    let fx = bench.tell(sectors(NEW));
    assert!(!says(&fx, &Message::Resized(NEW)), "not yet");
    let fx = bench.metadata(fx);
    assert!(says(&fx, &Message::Resized(NEW)) && first(&bench.node) == NEW);
    let fx = bench.says(Message::Resize(NEW, false));
    assert!(says(&fx, &Message::Resized(NEW)), "asked again");
}
