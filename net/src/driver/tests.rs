//! A whole connection over an in-memory stream, against a peer whose every byte the test chooses. Time is
//! paused: the keep-alive's seconds pass in no time.

use bytes::{Bytes, BytesMut};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use super::*;
use crate::error::Refusal;
use crate::frame::{Header, Version};
use crate::hello::Agreed;
use crate::limits::{MAX_CALLS, MAX_CALLS_KIB};
use crate::message::{Message, Payload};
use crate::outgoing::OutFrame;
use crate::service::{PeerHello, PeerIdentity, Role};

/// What the service saw.
#[derive(Debug)]
enum Seen {
    Opened,
    Request(Message, ReplyTo),
    Oneway(Message),
    Closed(CloseReason),
}

impl std::fmt::Debug for ReplyTo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReplyTo")
    }
}

struct Recorder(mpsc::UnboundedSender<Seen>);

impl Service for Recorder {
    fn hello(&self, _: &PeerHello) -> Result<Bytes, Refusal> {
        Ok(Bytes::new())
    }
    fn opened(&self, _: &Arc<Conn>) {
        drop(self.0.send(Seen::Opened));
    }
    fn request(&self, _: &Arc<Conn>, msg: Message, reply: ReplyTo) {
        assert_ne!(msg.opcode, 666, "the service panics on purpose");
        drop(self.0.send(Seen::Request(msg, reply)));
    }
    fn oneway(&self, _: &Arc<Conn>, msg: Message) {
        drop(self.0.send(Seen::Oneway(msg)));
    }
    fn closed(&self, _: &Arc<Conn>, why: &CloseReason) {
        drop(self.0.send(Seen::Closed(why.clone())));
    }
}

/// The peer: raw frames in and out.
struct Peer {
    io: DuplexStream,
    framer: Framer,
}

impl Peer {
    async fn send(&mut self, frame: &OutFrame) {
        let mut bytes = BytesMut::new();
        frame.copy_to(&mut bytes);
        self.io.write_all(&bytes).await.unwrap();
    }

    async fn request(&mut self, id: u64, opcode: u16, payload: usize) {
        let payload = Payload::Shared(Bytes::from(vec![1; payload]));
        let msg = Message::new(opcode, 0, "").with_payload(payload);
        self.send(&OutFrame::message(Kind::Request, id, msg)).await;
    }

    /// The next frame that is no PING, or `None` at the end.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            let n = self.io.read(self.framer.space()).await.unwrap();
            if n == 0 {
                return None;
            }
            match self.framer.filled(n).unwrap() {
                Some(frame) if frame.header.kind == Kind::Ping => {
                    self.send(&OutFrame::control(Kind::Pong, 0, Bytes::new())).await;
                }
                Some(frame) => return Some(frame),
                None => {}
            }
        }
    }

    async fn bye(&mut self) -> String {
        let frame = self.next().await.unwrap();
        assert_eq!(frame.header.kind, Kind::Bye);
        frame.sentence()
    }
}

struct Rig {
    conn: Arc<Conn>,
    peer: Peer,
    seen: mpsc::UnboundedReceiver<Seen>,
}

impl Rig {
    /// A connection whose stream holds `room` bytes each way.
    async fn new(room: usize) -> Self {
        let (ours, theirs) = tokio::io::duplex(room);
        let identity = PeerIdentity { subject: "peer".into(), proved: false };
        let remote = ([127, 0, 0, 1], 1).into();
        let hello = PeerHello { role: Role::Acceptor, identity, remote, features: 0, app: Bytes::new() };
        let conn = Conn::new(1, hello, Agreed { version: Version::V1, features: 0 });
        let mut framer = Framer::default();
        framer.open(Version::V1);
        let timing = Timing { interval: Duration::from_millis(500), dead_after: Duration::from_secs(3) };
        let (tx, mut seen) = mpsc::unbounded_channel();
        let halves = tokio::io::split(ours);
        tokio::spawn(run(conn.clone(), Arc::new(Recorder(tx)), halves, framer, timing));
        assert!(matches!(seen.recv().await, Some(Seen::Opened)));
        let mut framer = Framer::default();
        framer.open(Version::V1);
        Self { conn, peer: Peer { io: theirs, framer }, seen }
    }

    async fn closed(&mut self) -> CloseReason {
        let closed = async {
            loop {
                if let Seen::Closed(why) = self.seen.recv().await.unwrap() {
                    return why;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(3600), closed).await.expect("never closed")
    }

    async fn request(&mut self) -> (Message, ReplyTo) {
        match self.seen.recv().await.unwrap() {
            Seen::Request(msg, reply) => (msg, reply),
            other => panic!("{other:?}"),
        }
    }

    /// Starts a call in the background.
    fn call(&self, opcode: u16) -> JoinHandle<Result<Message, CallError>> {
        let conn = self.conn.clone();
        tokio::spawn(async move { conn.call(Message::new(opcode, 0, "")).await })
    }
}

fn reply(id: u64, body: &'static str) -> OutFrame {
    OutFrame::message(Kind::Reply, id, Message::new(1, 0, body))
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_dead_after_the_timeout_and_not_before() {
    let mut rig = Rig::new(1 << 20).await;
    let opened = tokio::time::Instant::now();
    let call = rig.call(1);
    assert_eq!(rig.closed().await, CloseReason::TimedOut);
    let lived = opened.elapsed();
    assert!((Duration::from_secs(3)..=Duration::from_millis(3600)).contains(&lived), "{lived:?}");
    assert_eq!(call.await.unwrap().unwrap_err(), CallError::Closed(CloseReason::TimedOut));
    assert!(!rig.conn.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_pings_lives_for_ever() {
    let mut rig = Rig::new(1 << 20).await;
    let said = tokio::time::timeout(Duration::from_secs(3600), rig.peer.next()).await;
    assert!(said.is_err(), "an idle connection carries PINGs only");
    assert!(rig.conn.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_talks_but_never_reads_is_dead() {
    let mut rig = Rig::new(4096).await;
    for _ in 0..10 {
        let payload = Payload::Shared(Bytes::from(vec![0; 4096]));
        rig.conn.post(Message::new(1, 0, "").with_payload(payload)).unwrap();
    }
    let talk = async {
        loop {
            rig.peer.send(&OutFrame::control(Kind::Pong, 0, Bytes::new())).await;
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    };
    let conn = rig.conn.clone();
    tokio::select! {
        why = conn.closed() => assert_eq!(why, CloseReason::TimedOut),
        () = talk => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_ping_is_answered() {
    let mut rig = Rig::new(4096).await;
    rig.peer.send(&OutFrame::control(Kind::Ping, 0, Bytes::new())).await;
    assert_eq!(rig.peer.next().await.unwrap().header.kind, Kind::Pong);
}

#[tokio::test(start_paused = true)]
async fn answers_in_any_order_reach_their_calls() {
    let mut rig = Rig::new(4096).await;
    let (a, b) = (rig.call(10), rig.call(20));
    let first = rig.peer.next().await.unwrap().header;
    let second = rig.peer.next().await.unwrap().header;
    let body = |h: Header| if h.opcode == 10 { "ten" } else { "twenty" };
    rig.peer.send(&reply(second.request_id, body(second))).await;
    rig.peer.send(&reply(first.request_id, body(first))).await;
    assert_eq!(a.await.unwrap().unwrap().body, "ten");
    assert_eq!(b.await.unwrap().unwrap().body, "twenty");
    assert_eq!(rig.conn.outstanding(), 0);
}

/// A call without a task; what it is told comes over the channel.
fn call_then(conn: &Conn, opcode: u16, told: &mpsc::UnboundedSender<Result<Message, CallError>>) -> bool {
    let told = told.clone();
    conn.call_then(Message::new(opcode, 0, ""), move |answer| drop(told.send(answer))).is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_task_is_told_its_answer_and_the_end() {
    let mut rig = Rig::new(4096).await;
    let (sender, mut told) = mpsc::unbounded_channel();
    assert!(call_then(&rig.conn, 1, &sender) && call_then(&rig.conn, 2, &sender));
    let first = rig.peer.next().await.unwrap().header;
    rig.peer.send(&reply(first.request_id, "one")).await;
    assert_eq!(told.recv().await.unwrap().unwrap().body, "one");
    rig.conn.close("enough");
    let end = CallError::Closed(CloseReason::Local("enough".to_owned()));
    assert_eq!(told.recv().await.unwrap().unwrap_err(), end);
    assert!(call_then(&rig.conn, 3, &sender), "told at once");
    assert_eq!(told.recv().await.unwrap().unwrap_err(), end);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_task_never_waits_and_keeps_to_the_limits() {
    let mut rig = Rig::new(1 << 20).await;
    let (sender, mut told) = mpsc::unbounded_channel();
    for _ in 0..MAX_CALLS {
        assert!(call_then(&rig.conn, 1, &sender));
    }
    assert!(!call_then(&rig.conn, 1, &sender), "given back, unsent");
    let asked = rig.peer.next().await.unwrap().header;
    rig.peer.send(&reply(asked.request_id, "")).await;
    told.recv().await.unwrap().unwrap();
    assert!(call_then(&rig.conn, 1, &sender));
    assert_eq!(rig.conn.outstanding(), MAX_CALLS);
}

/// Reads are small questions with large answers: what the answers take at the peer is bounded all the same.
#[tokio::test(start_paused = true)]
async fn expected_answers_count_against_the_bytes_outstanding() {
    let rig = Rig::new(1 << 20).await;
    let read = || Message::new(1, 0, "").expecting(1 << 20);
    let most = MAX_CALLS_KIB as usize / 1024;
    let sent = (0..MAX_CALLS).take_while(|_| rig.conn.call_then(read(), |_| {}).is_ok()).count();
    assert!((most - 1..=most).contains(&sent), "{sent}");
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_a_dropped_call_is_discarded_and_its_slot_used_until_then() {
    let mut rig = Rig::new(4096).await;
    let call = rig.call(1);
    let asked = rig.peer.next().await.unwrap().header;
    call.abort();
    drop(call.await);
    assert_eq!(rig.conn.outstanding(), 1);
    let next = rig.call(2);
    let asked_next = rig.peer.next().await.unwrap().header;
    rig.peer.send(&reply(asked.request_id, "late")).await;
    rig.peer.send(&reply(asked_next.request_id, "mine")).await;
    assert_eq!(next.await.unwrap().unwrap().body, "mine");
    assert_eq!(rig.conn.outstanding(), 0);
    assert!(rig.conn.is_open());
}

#[tokio::test(start_paused = true)]
async fn late_answers_give_back_what_their_calls_cost() {
    let mut rig = Rig::new(1 << 20).await;
    let dropped: Vec<_> = (0..MAX_CALLS).map(|_| rig.call(1)).collect();
    let mut ids = Vec::new();
    for _ in 0..MAX_CALLS {
        ids.push(rig.peer.next().await.unwrap().header.request_id);
    }
    dropped.iter().for_each(JoinHandle::abort);
    let next = rig.call(2);
    assert!(tokio::time::timeout(Duration::from_secs(60), rig.peer.next()).await.is_err(), "dropped is not answered");
    for id in ids {
        rig.peer.send(&reply(id, "late")).await;
    }
    let id = rig.peer.next().await.unwrap().header.request_id;
    rig.peer.send(&reply(id, "mine")).await;
    assert_eq!(next.await.unwrap().unwrap().body, "mine");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_asked_for_closes() {
    let mut rig = Rig::new(4096).await;
    rig.peer.send(&reply(5, "?")).await;
    assert!(rig.peer.bye().await.contains("0x5, which is not outstanding"));
    assert!(matches!(rig.closed().await, CloseReason::Protocol(_)));
}

#[tokio::test(start_paused = true)]
async fn the_513th_call_waits_for_an_answer_and_the_wire_sees_512() {
    let mut rig = Rig::new(4 << 20).await;
    let calls: Vec<_> = (0..600).map(|_| rig.call(1)).collect();
    let mut ids = Vec::new();
    for _ in 0..MAX_CALLS {
        ids.push(rig.peer.next().await.unwrap().header.request_id);
    }
    let more = tokio::time::timeout(Duration::from_secs(60), rig.peer.next()).await;
    assert!(more.is_err(), "a 513th request was sent");
    assert_eq!(rig.conn.outstanding(), MAX_CALLS);
    for _ in 0..600 {
        let id = match ids.pop() {
            Some(id) => id,
            None => rig.peer.next().await.unwrap().header.request_id,
        };
        rig.peer.send(&reply(id, "")).await;
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn request_bytes_in_flight_are_bounded() {
    let mut rig = Rig::new(1 << 20).await;
    let conn = rig.conn.clone();
    let shared = Bytes::from(vec![0; 4 << 20]);
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let (conn, payload) = (conn.clone(), Payload::Shared(shared.clone()));
            tokio::spawn(async move { conn.call(Message::new(1, 0, "").with_payload(payload)).await })
        })
        .collect();
    let fits = MAX_CALLS_KIB / 4097;
    for _ in 0..fits {
        rig.peer.next().await.unwrap();
    }
    assert!(tokio::time::timeout(Duration::from_secs(60), rig.peer.next()).await.is_err());
    rig.conn.close("enough");
    for call in calls {
        assert!(matches!(call.await.unwrap(), Err(CallError::Closed(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_with_more_requests_than_allowed_is_cut_off() {
    let mut rig = Rig::new(8 << 20).await;
    let mut held = Vec::new();
    for id in 1..=MAX_CALLS as u64 {
        rig.peer.request(id, 1, 0).await;
        held.push(rig.request().await);
    }
    // One answered, one more allowed.
    held.pop().unwrap().1.send(Message::default());
    rig.peer.next().await.unwrap();
    rig.peer.request(9000, 1, 0).await;
    held.push(rig.request().await);
    rig.peer.request(9001, 1, 0).await;
    assert!(rig.peer.bye().await.contains("513 requests"));
    let why = rig.closed().await;
    assert!(matches!(why, CloseReason::Protocol(_)), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_request_dropped_by_the_service_is_told_to_the_caller() {
    let mut rig = Rig::new(4096).await;
    rig.peer.request(77, 1, 0).await;
    drop(rig.request().await);
    let answer = rig.peer.next().await.unwrap();
    assert_eq!((answer.header.kind, answer.header.request_id), (Kind::Fail, 77));
    assert!(answer.sentence().contains("dropped"));
}

#[tokio::test(start_paused = true)]
async fn a_fail_is_an_unanswered_call() {
    let mut rig = Rig::new(4096).await;
    let call = rig.call(1);
    let id = rig.peer.next().await.unwrap().header.request_id;
    rig.peer.send(&OutFrame::control(Kind::Fail, id, Bytes::from_static(b"no idea"))).await;
    assert_eq!(call.await.unwrap().unwrap_err(), CallError::Unanswered("no idea".into()));
}

#[tokio::test(start_paused = true)]
async fn close_completes_calls_sends_queued_answers_and_says_why() {
    let mut rig = Rig::new(1 << 20).await;
    rig.peer.request(5, 1, 0).await;
    let (_, reply) = rig.request().await;
    let call = rig.call(3);
    assert_eq!(rig.peer.next().await.unwrap().header.opcode, 3);
    reply.send(Message::new(8, 0, "answer"));
    rig.conn.close("maintenance");
    let why = CloseReason::Local("maintenance".into());
    assert_eq!(call.await.unwrap().unwrap_err(), CallError::Closed(why.clone()));
    assert_eq!(rig.peer.next().await.unwrap().body, "answer");
    assert_eq!(rig.peer.bye().await, "maintenance");
    assert!(rig.peer.next().await.is_none());
    assert_eq!(rig.closed().await, why);
    assert_eq!(rig.conn.call(Message::default()).await.unwrap_err(), CallError::Closed(why.clone()));
    assert_eq!(rig.conn.post(Message::default()), Err(CallError::Closed(why)));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_cannot_hold_up_the_close() {
    let mut rig = Rig::new(64).await;
    rig.conn.post(Message::new(1, 0, vec![0; 4096])).unwrap();
    tokio::task::yield_now().await;
    let asked = tokio::time::Instant::now();
    rig.conn.close("now");
    assert_eq!(rig.closed().await, CloseReason::Local("now".into()));
    assert!(asked.elapsed() <= CLOSE_GRACE + Duration::from_millis(1));
}

#[tokio::test(start_paused = true)]
async fn a_bye_carries_the_peers_sentence() {
    let mut rig = Rig::new(4096).await;
    rig.peer.send(&OutFrame::control(Kind::Bye, 0, Bytes::from_static(b"leaving"))).await;
    assert_eq!(rig.closed().await, CloseReason::Peer("leaving".into()));
}

#[tokio::test(start_paused = true)]
async fn the_bare_end_of_the_stream_is_a_reset() {
    let mut rig = Rig::new(4096).await;
    let call = rig.call(1);
    rig.peer.next().await.unwrap();
    drop(std::mem::replace(&mut rig.peer.io, tokio::io::duplex(1).0));
    assert_eq!(rig.closed().await, CloseReason::Reset);
    assert_eq!(call.await.unwrap().unwrap_err(), CallError::Closed(CloseReason::Reset));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_panics_costs_its_connection_only() {
    let mut rig = Rig::new(4096).await;
    rig.peer.request(1, 666, 0).await;
    assert_eq!(rig.closed().await, CloseReason::ServicePanicked);
}

#[tokio::test(start_paused = true)]
async fn messages_longer_than_the_protocol_allows_are_refused_before_they_are_queued() {
    let mut rig = Rig::new(1 << 20).await;
    let long = || Message::new(1, 0, vec![0; (1 << 20) + 1]);
    let what = CallError::TooLarge { what: "body", len: (1 << 20) + 1, max: 1 << 20 };
    assert_eq!(rig.conn.call(long()).await.unwrap_err(), what);
    assert_eq!(rig.conn.post(long()), Err(what));
    rig.peer.request(1, 1, 0).await;
    rig.request().await.1.send(long());
    assert_eq!(rig.peer.next().await.unwrap().header.kind, Kind::Fail);
    let payload = Payload::Shared(Bytes::from(vec![0; (4 << 20) + 1]));
    let too = rig.conn.call(Message::default().with_payload(payload)).await.unwrap_err();
    assert!(matches!(too, CallError::TooLarge { what: "payload", .. }));
}

#[tokio::test(start_paused = true)]
async fn one_way_messages_arrive_in_aligned_memory() {
    let mut rig = Rig::new(1 << 20).await;
    let payload = Payload::Shared(Bytes::from(vec![3; 5000]));
    let msg = Message::new(9, 4, "b").with_payload(payload);
    rig.peer.send(&OutFrame::message(Kind::Oneway, 0, msg)).await;
    match rig.seen.recv().await.unwrap() {
        Seen::Oneway(Message { opcode: 9, epoch: 4, body, payload: Payload::Aligned(buf), .. }) => {
            assert_eq!((&body[..], &buf[..]), (&b"b"[..], &[3; 5000][..]));
        }
        other => panic!("{other:?}"),
    }
}
