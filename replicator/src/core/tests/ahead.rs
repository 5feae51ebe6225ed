//! Extents that become hot before a synchronisation comes to them.

use super::*;

/// Blocks of twelve extents, of which each has four blocks, in a log of 64 slots.
const MANY: Span = Span { at: 0, len: 12 * 32 };

fn roomy() -> Bench {
    let mut sb = Superblock::new(RESOURCE, 1, id(1), Layout::external(Shape { log_slots: 64, ..SHAPE }), &[id(2)]);
    sb.current = A;
    (sb.flags.consistent, sb.flags.up_to_date) = (true, true);
    sb.peers.iter_mut().for_each(|p| p.connected = true);
    Bench::of(sb, &[id(2)], None)
}

/// Node 1 is the target of all of [`MANY`], and its metadata are durable.
fn target(bench: &mut Bench) -> Vec<Effect> {
    let (verdict, fx) = bench.meets(1, B, A);
    assert_eq!(verdict, Verdict::Target { full: false });
    bench.metadata(fx);
    let fx = bench.says(Message::Dirty(vec![MANY], true));
    bench.metadata(fx)
}

fn hot(bench: &Bench) -> Vec<u32> {
    bench.node.replica().map(|r| r.log().hot().collect()).unwrap_or_default()
}

/// The source's answer to a run, with data.
fn data(run: Span) -> Message {
    let units = u32::try_from(run.len / pieces::UNIT).expect("short");
    let (pieces, data) = (vec![pieces::Piece { kind: pieces::Kind::Data, units }], vec![2; run.len as usize * 8]);
    Message::Pulled { run, pieces, data: data.into(), holders: NodeSet::EMPTY, room: 64 << 10 }
}

/// Each extent was a change of the log of its own, which had to be stable before its first write: a synchronisation on a fast link waited for
/// that most of the time.
#[test]
fn extents_are_hot_before_a_synchronisation_comes_to_them_many_in_one_change() {
    let mut bench = roomy();
    let asked = looks(&target(&mut bench));
    assert_eq!(
        hot(&bench),
        (4..12).collect::<Vec<_>>(),
        "what is behind the runs that are asked for, and nothing has come yet"
    );
    let mut next = Vec::new();
    for (look, run) in asked {
        bench.tell(Event::Digested(look, vec![[1; 32]; (run.len / pieces::UNIT) as usize]));
        next.extend(looks(&bench.says(same(run))));
    }
    assert!(!next.is_empty());
    for (look, run) in next {
        bench.tell(Event::Digested(look, vec![[1; 32]; (run.len / pieces::UNIT) as usize]));
        let fx = bench.says(data(run));
        let written = |f: &Effect| matches!(f, Effect::Write(_, span, ..) if *span == run);
        assert!(fx.iter().any(written), "it is written at once: {fx:?}");
        assert!(!fx.iter().any(|f| matches!(f, Effect::Meta(..))), "and the log need not change: {fx:?}");
    }
}

/// The log of four slots: one of them at most.
#[test]
fn a_small_log_is_not_filled_with_what_nobody_waits_for() {
    let mut bench = Bench::new(&[id(2)]);
    target(&mut bench);
    assert_eq!(hot(&bench), [4]);
}

/// A change of the log waited for a flush of everything that was written, of which nothing depended on it.
#[test]
fn only_a_change_that_relies_on_data_waits_for_them() {
    let mut bench = roomy();
    let (_, fx) = bench.meets(1, A, Generation::NONE);
    bench.metadata(fx);
    let only_hot =
        |fx: &[Effect]| fx.iter().find_map(|f| if let Effect::Meta(_, w) = f { Some(w.only_hot) } else { None });
    let write = |n: u64| {
        let (span, data) = (Span::new(n * 32, 8), Bytes::from(vec![1; 64]));
        Message::Write { seq: Seq(n + 1), epoch: 1, span, data, fua: false, receipt: false }
    };
    let fx = bench.says(write(0));
    assert_eq!(only_hot(&fx), Some(false), "it takes back that it was at rest: {fx:?}");
    bench.metadata(fx);
    let fx = bench.says(write(1));
    assert_eq!(only_hot(&fx), Some(true));
    bench.metadata(fx);
}
