use super::*;
use crate::message::{Message, Payload};

fn frame(kind: Kind, payload: usize) -> OutFrame {
    let payload = Payload::Shared(Bytes::from(vec![0; payload]));
    OutFrame::message(kind, u64::from(kind != Kind::Oneway), Message::new(1, 0, "").with_payload(payload))
}

/// Takes and writes everything; the kinds in order.
fn flush(outbox: &Outbox) -> (Vec<Kind>, Taken) {
    let (mut kinds, mut batch) = (Vec::new(), Outgoing::default());
    loop {
        let taken = outbox.take(&mut batch);
        if taken != Taken::Frames {
            return (kinds, taken);
        }
        while !batch.is_empty() {
            let mut gone = Gone::default();
            batch.advance(batch.first_len(), |kind, len| {
                kinds.push(kind);
                gone.count(kind, len);
            });
            outbox.written(&gone);
        }
    }
}

#[test]
fn one_way_messages_are_bounded_until_they_are_written() {
    let outbox = Outbox::default();
    for _ in 0..MAX_POSTS {
        outbox.push(frame(Kind::Oneway, 0)).unwrap();
    }
    assert_eq!(outbox.push(frame(Kind::Oneway, 0)), Err(NotQueued::Full));
    let mut batch = Outgoing::default();
    outbox.take(&mut batch);
    assert_eq!(outbox.push(frame(Kind::Oneway, 0)), Err(NotQueued::Full), "taken is not written");
    let mut gone = Gone::default();
    batch.advance(batch.first_len(), |kind, len| gone.count(kind, len));
    outbox.written(&gone);
    outbox.push(frame(Kind::Oneway, 0)).unwrap();
    assert_eq!(outbox.push(frame(Kind::Oneway, 0)), Err(NotQueued::Full));
    // Requests and answers have bounds of their own.
    outbox.push(frame(Kind::Request, 0)).unwrap();
    outbox.push(frame(Kind::Reply, 0)).unwrap();
}

#[test]
fn one_way_bytes_are_bounded() {
    let outbox = Outbox::default();
    let fits = MAX_POST_BYTES / ((4 << 20) + 64);
    for _ in 0..fits {
        outbox.push(frame(Kind::Oneway, 4 << 20)).unwrap();
    }
    assert_eq!(outbox.push(frame(Kind::Oneway, 4 << 20)), Err(NotQueued::Full));
}

#[test]
fn answers_beyond_their_bound_are_an_overflow() {
    let outbox = Outbox::default();
    let shared = Bytes::from(vec![0; 4 << 20]);
    let reply = || {
        let msg = Message::new(1, 0, "").with_payload(Payload::Shared(shared.clone()));
        OutFrame::message(Kind::Reply, 1, msg)
    };
    let fits = MAX_REPLY_BYTES / ((4 << 20) + 64);
    for _ in 0..fits {
        outbox.push(reply()).unwrap();
    }
    assert_eq!(outbox.push(reply()), Err(NotQueued::Overflow));
}

#[test]
fn a_thousand_pings_owe_one_pong() {
    let outbox = Outbox::default();
    (0..1000).for_each(|_| outbox.pong());
    assert_eq!(flush(&outbox), (vec![Kind::Pong], Taken::Nothing));
}

#[test]
fn ping_overtakes_a_long_queue() {
    let outbox = Outbox::default();
    outbox.push(frame(Kind::Request, 100)).unwrap();
    outbox.ping();
    assert_eq!(flush(&outbox).0, [Kind::Ping, Kind::Request]);
}

#[test]
fn draining_forgets_requests_sends_answers_and_ends_with_bye() {
    let outbox = Outbox::default();
    for kind in [Kind::Request, Kind::Reply, Kind::Oneway, Kind::Request] {
        outbox.push(frame(kind, 10)).unwrap();
    }
    outbox.drain("enough");
    assert_eq!(outbox.push(frame(Kind::Reply, 0)), Err(NotQueued::Closed));
    outbox.drain("again");
    assert_eq!(flush(&outbox), (vec![Kind::Reply, Kind::Oneway, Kind::Bye], Taken::Finished));
}

#[test]
fn a_dead_outbox_gives_its_memory_back_and_sends_nothing() {
    let outbox = Outbox::default();
    outbox.push(frame(Kind::Reply, 10)).unwrap();
    outbox.drain("x");
    outbox.kill();
    assert!(outbox.queue.lock().frames.is_empty());
    assert_eq!(flush(&outbox), (vec![], Taken::Finished));
}

#[test]
fn backlog_is_what_is_queued_or_being_written() {
    let outbox = Outbox::default();
    assert!(!outbox.backlog());
    outbox.push(frame(Kind::Request, 0)).unwrap();
    assert!(outbox.backlog());
    outbox.take(&mut Outgoing::default());
    assert!(outbox.backlog());
    let mut gone = Gone::default();
    gone.count(Kind::Request, 64);
    outbox.written(&gone);
    assert!(!outbox.backlog());
}
