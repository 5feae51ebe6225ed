//! Calls in both directions, with TLS unless said.

use block::buf::AlignedBuf;
use bytes::Bytes;
use net::{CallError, CloseReason, Conn, Message, Payload, Role, Security};

use crate::certs::Authority;
use crate::rig::{CALL_BACK, DROP, ECHO, HOLD, Seen, pair, plain, subject, tls};

async fn tls_pair() -> (crate::rig::Node, crate::rig::Node, net::Dialer, std::sync::Arc<Conn>) {
    let ca = Authority::new();
    pair(tls(&ca, 1), tls(&ca, 2)).await
}

fn pattern(len: usize, seed: u32) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13) as u8).collect()
}

async fn echo(conn: &Conn, body: Vec<u8>, payload: Vec<u8>) {
    let msg = Message::new(ECHO, 42, body.clone());
    let answer = conn.call(msg.with_payload(Payload::Aligned(AlignedBuf::from_slice(&payload)))).await.unwrap();
    assert_eq!((answer.opcode, answer.epoch), (ECHO, 42));
    assert!(answer.body == body && answer.payload.as_slice() == &payload[..], "what came back was changed");
}

#[tokio::test]
async fn both_ends_call_over_one_connection_and_know_who_the_other_is() {
    let (_a, mut b, _dialer, conn) = tls_pair().await;
    let accepted = b.wait(|s| if let Seen::Opened(c) = s { Some(c) } else { None }).await;
    assert_eq!((conn.peer().subject.as_str(), conn.peer().proved), (subject(2).as_str(), true));
    assert_eq!((accepted.peer().subject.as_str(), accepted.peer().proved), (subject(1).as_str(), true));
    assert_eq!((conn.role(), accepted.role()), (Role::Dialer, Role::Acceptor));
    echo(&conn, b"there".to_vec(), pattern(4096, 1)).await;
    echo(&accepted, b"back".to_vec(), pattern(4096, 2)).await;
    assert_eq!(conn.call(Message::new(CALL_BACK, 0, "")).await.unwrap().body, "back");
}

#[tokio::test]
async fn payloads_of_every_awkward_length_arrive_unchanged() {
    for (a, b) in [(plain(1), plain(2)), {
        let ca = Authority::new();
        (tls(&ca, 1), tls(&ca, 2))
    }] {
        let (_a, _b, _dialer, conn) = pair(a, b).await;
        for len in [0, 1, 511, 4095, 4096, 4097, 16_384, 65_537, 1 << 20, (1 << 20) + 1, 4 << 20] {
            echo(&conn, pattern(len % 5000, 3), pattern(len, 4)).await;
        }
        echo(&conn, pattern(1 << 20, 5), Vec::new()).await;
    }
}

#[tokio::test]
async fn shared_memory_can_be_sent_many_times() {
    let (_a, _b, _dialer, conn) = tls_pair().await;
    let shared = Bytes::from(pattern(1 << 20, 6));
    for _ in 0..3 {
        let msg = Message::new(ECHO, 0, "").with_payload(Payload::Shared(shared.clone()));
        let back = conn.call(msg).await.unwrap().payload.into_aligned().unwrap();
        assert!(back.is_aligned_to(4096) && back[..] == shared[..]);
    }
}

async fn a_thousand(a: Security, b: Security) {
    let (_a, _b, _dialer, conn) = pair(a, b).await;
    let calls: Vec<_> = (0..1000_u32)
        .map(|i| {
            let conn = conn.clone();
            tokio::spawn(async move { echo(&conn, i.to_le_bytes().to_vec(), pattern(4096, i)).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(conn.outstanding(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_concurrent_calls_each_get_their_own_answer() {
    let ca = Authority::new();
    a_thousand(tls(&ca, 1), tls(&ca, 2)).await;
    a_thousand(plain(1), plain(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_works_from_any_thread_and_any_runtime() {
    let (_a, _b, _dialer, conn) = tls_pair().await;
    let threads: Vec<_> = (0..4_u32)
        .map(|i| {
            let conn = conn.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(async {
                    for n in 0..50 {
                        echo(&conn, vec![], pattern(512, i * 1000 + n)).await;
                    }
                });
            })
        })
        .collect();
    tokio::task::spawn_blocking(|| threads.into_iter().for_each(|t| t.join().unwrap())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_calls_among_others_harm_nobody() {
    let (_a, _b, _dialer, conn) = tls_pair().await;
    for round in 0..200_u32 {
        let (dropper, keeper) = (conn.clone(), conn.clone());
        let dropped = tokio::spawn(async move { echo(&dropper, vec![1], pattern(8192, round)).await });
        let kept = tokio::spawn(async move { echo(&keeper, vec![2], pattern(4096, !round)).await });
        if round % 3 == 0 {
            tokio::task::yield_now().await;
        }
        dropped.abort();
        kept.await.unwrap();
    }
    // Every late answer comes home and gives its slot back.
    while conn.outstanding() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_request_that_the_service_drops_is_unanswered() {
    let (_a, _b, _dialer, conn) = tls_pair().await;
    let why = conn.call(Message::new(DROP, 0, "")).await.unwrap_err();
    assert!(matches!(why, CallError::Unanswered(_)), "{why}");
    echo(&conn, vec![], vec![]).await;
}

#[tokio::test]
async fn one_way_messages_arrive() {
    let (_a, mut b, _dialer, conn) = tls_pair().await;
    conn.post(Message::new(77, 0, "x")).unwrap();
    assert_eq!(b.wait(|s| if let Seen::Oneway(op) = s { Some(op) } else { None }).await, 77);
}

#[tokio::test]
async fn shutdown_completes_every_outstanding_call() {
    let (a, b, _dialer, conn) = tls_pair().await;
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let conn = conn.clone();
            tokio::spawn(async move { conn.call(Message::new(HOLD, 0, "")).await })
        })
        .collect();
    while conn.outstanding() < 100 {
        tokio::task::yield_now().await;
    }
    a.net.shutdown().await;
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap_err(), CallError::Closed(CloseReason::ShuttingDown));
    }
    assert_eq!(conn.post(Message::default()), Err(CallError::Closed(CloseReason::ShuttingDown)));
    let mut b = b;
    assert_eq!(b.close().await, CloseReason::Peer("shutting down".into()));
    assert!(b.net.conns().is_empty() || b.net.conns().iter().all(|c| !c.is_open()));
}
