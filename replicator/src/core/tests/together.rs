//! What comes together is handled together: the same is done as for one after the other.

use super::*;

fn together(bench: &mut Bench, events: impl IntoIterator<Item = Event>) -> Vec<Effect> {
    let (mut events, mut fx) = (events.into_iter().collect(), Vec::new());
    bench.node.handle_all(Now(1), &mut events, &mut fx);
    assert!(events.is_empty());
    fx
}

fn said(bench: &Bench, message: Message) -> Event {
    Event::Received(bench.peer, bench.conn, message)
}

fn epoch(fx: &[Effect]) -> Option<u64> {
    fx.iter().find_map(|f| match f {
        Effect::Send(_, _, Message::Write { epoch, .. }) => Some(*epoch),
        _ => None,
    })
}

#[test]
fn acknowledgements_that_come_together_with_what_ended_on_the_disk_answer_their_writes() {
    let mut bench = primary();
    let (first, second) = (BLOCK, Span::new(16, 8));
    let fx = ask(&mut bench, 1, first);
    let (one, began) = (writes(&fx)[0].0, epoch(&fx));
    let two = writes(&ask(&mut bench, 2, second))[0].0;
    let events = [
        said(&bench, Message::WriteAck(Seq(2))),
        Event::Done(one, Ok(Bytes::new())),
        said(&bench, Message::WriteAck(Seq(1))),
        Event::Done(two, Ok(Bytes::new())),
    ];
    let fx = together(&mut bench, events);
    let answered = [1, 2].map(|req| Effect::Complete(ReqId(req), Ok(Bytes::new())));
    assert_eq!(fx, answered);
    // The peer has written both: what comes now need not wait for them there.
    assert_eq!(epoch(&ask(&mut bench, 3, first)), began);
}

#[test]
fn writes_of_the_stream_that_come_together_begin_together_as_far_as_their_order_allows() {
    let mut bench = Bench::new(&[id(2)]);
    assert_eq!(bench.meets(1, A, Generation::NONE).0, Verdict::NoSync);
    let message = |seq, epoch, at| {
        let data = Bytes::from(vec![1; 64]);
        Message::Write { seq: Seq(seq), epoch, span: Span::new(at, 8), data, fua: false, receipt: false }
    };
    let all =
        [(1, 1, 8), (2, 1, 16), (3, 1, 8), (4, 2, 24)].map(|(seq, epoch, at)| said(&bench, message(seq, epoch, at)));
    let fx = together(&mut bench, all);
    let fx = bench.metadata(fx);
    let begun = writes(&fx);
    assert_eq!(
        begun.iter().map(|(_, span)| span.at).collect::<Vec<_>>(),
        [8, 16],
        "one under it, and one of a later epoch, wait"
    );
    let fx = together(&mut bench, begun.into_iter().map(|(io, _)| Event::Done(io, Ok(Bytes::new()))));
    let acked = |seq| Effect::Send(id(2), ConnId(1), Message::WriteAck(Seq(seq)));
    assert!(fx.contains(&acked(1)) && fx.contains(&acked(2)), "{fx:?}");
    assert_eq!(writes(&fx).iter().map(|(_, span)| span.at).collect::<Vec<_>>(), [8]);
}

#[test]
#[should_panic(expected = "is to be handled alone")]
fn what_changes_a_connection_is_handled_alone() {
    let mut bench = primary();
    let event = said(&bench, Message::Farewell);
    together(&mut bench, [event]);
}
