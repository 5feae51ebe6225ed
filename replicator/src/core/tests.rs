//! One core, event by event: what exactly it wants done.

use bytes::Bytes;

use super::config::{Config, OnNoQuorum, OnSlowPeer, Timing};
use super::event::Hello;
use super::rules::Rules;
use super::*;
use crate::compare::{Side, Verdict};
use crate::ids::{Ballot, Grant};
use crate::meta::layout::{Layout, Shape};
use crate::meta::superblock::Superblock;
use crate::meta::{MetaError, PAGE, Put, Reader};

const SHAPE: Shape = Shape { data: 64 * 8, bit: 8, extent: 32, peers: 2, log_slots: 4, log_pages: 4 };
const RESOURCE: [u8; 16] = *b"resource-of-test";
const A: Generation = Generation(0x100);
const B: Generation = Generation(0x200);
const BLOCK: Span = Span { at: 8, len: 8 };

fn id(n: u8) -> NodeId {
    NodeId::new(n).expect("a node")
}

/// The bytes of a metadata device.
struct Image(Vec<u8>);

impl Image {
    fn put(&mut self, puts: &[Put]) {
        puts.iter().for_each(|p| self.0[p.at as usize..][..p.bytes.len()].copy_from_slice(&p.bytes));
    }
}

impl Reader for Image {
    fn read(&self, at: u64, len: u64) -> Result<Vec<u8>, MetaError> {
        Ok(self.0[at as usize..(at + len) as usize].to_vec())
    }
}

/// Node 1, and whoever speaks to it.
struct Bench {
    node: Node,
    peer: NodeId,
    peer_reigns: bool,
    conn: ConnId,
}

impl Bench {
    fn new(peers: &[NodeId]) -> Bench {
        Bench::with(peers, None)
    }

    /// With a tie-breaker there is quorum.
    fn with(peers: &[NodeId], tie_breaker: Option<NodeId>) -> Bench {
        let layout = Layout::external(SHAPE);
        let mut sb = Superblock::new(RESOURCE, 1, id(1), layout, peers);
        sb.current = A;
        (sb.flags.consistent, sb.flags.up_to_date) = (true, true);
        sb.peers.iter_mut().for_each(|p| p.connected = true);
        let (_, write) = Replica::format(sb);
        let mut image = Image(vec![0; layout.end().next_multiple_of(PAGE) as usize]);
        image.put(&write.first);
        image.put(&write.then);
        let recovered = Replica::recover(&image, layout.end()).expect("a replica");
        let config = Config {
            me: id(1),
            disks: peers.iter().copied().chain([id(1)]).collect(),
            tie_breaker,
            quorum: tie_breaker.is_some(),
            protocols: BTreeMap::new(),
            on_no_quorum: OnNoQuorum::SuspendIo,
            on_slow_peer: OnSlowPeer::Block,
            policy: Default::default(),
            timing: Timing { ping: 100, dead: 400, slow: 1000, settle: 100, vote: 400 },
            unsettled: 16,
            rules: Rules::all(),
            entropy: 7,
        };
        Bench { node: Node::new(config, recovered, Now(0)), peer: id(2), peer_reigns: true, conn: ConnId(0) }
    }

    fn tell(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        self.node.handle(Now(1), event, &mut out);
        out
    }

    fn says(&mut self, message: Message) -> Vec<Effect> {
        self.tell(Event::Received(self.peer, self.conn, message))
    }

    /// The peer connects with these generations, and comes to the same decision.
    fn meets(&mut self, conn: u64, current: Generation, bitmap: Generation) -> (Verdict, Vec<Effect>) {
        let peer_reigns = self.peer_reigns && !self.node.is_primary();
        self.conn = ConnId(conn);
        let mut fx = self.tell(Event::Connected(self.peer, self.conn));
        let first = fx.iter().find_map(|f| match f {
            Effect::Send(_, _, Message::Hello(hello)) => Some(hello.clone()),
            _ => None,
        });
        let mine = first.expect("a Hello");
        fx = self.says(Message::Hello(Box::new(hello(self.peer, peer_reigns, current, bitmap))));
        let said = fx.iter().find_map(|f| match f {
            Effect::Send(_, _, Message::Agree(verdict, ..)) => Some(verdict.mirrored()),
            _ => None,
        });
        let verdict = said.expect("an Agree");
        (verdict, self.says(Message::Agree(verdict, mine.version, 1)))
    }

    /// The metadata that is on its way is durable, and what follows from it, until none is.
    fn metadata(&mut self, mut fx: Vec<Effect>) -> Vec<Effect> {
        while let Some(n) = fx.iter().position(|f| matches!(f, Effect::Meta(..))) {
            let Effect::Meta(io, _) = fx.remove(n) else { break };
            fx.extend(self.tell(Event::Done(io, Ok(Bytes::new()))));
        }
        fx
    }
}

/// What a peer says of itself.
fn hello(node: NodeId, reigns: bool, current: Generation, bitmap: Generation) -> Hello {
    let side = Side {
        node,
        current,
        bitmap,
        bitmap_others: Vec::new(),
        history: Vec::new(),
        began: 0,
        disk: DiskState::UpToDate,
        primary: reigns,
        crashed_primary: false,
        lost_quorum: false,
        restarted: false,
        reconnect: bitmap == Generation::NONE,
        stable: true,
        discard_my_data: false,
        lost_primary: None,
        position: Seq(0),
        dirty: 0,
        grant: Grant::default(),
        changed: false,
    };
    let promised = Ballot::default();
    let reigns = reigns.then_some(Ballot { round: 1, node: node.get() });
    Hello { side, version: 1, resource: RESOURCE, size: SHAPE.data, promised, reigns, log_slots: 4, follows: None }
}

fn reads(fx: &[Effect]) -> Vec<(IoId, Span)> {
    let read = |f: &Effect| match f {
        Effect::Read(io, span) => Some((*io, *span)),
        _ => None,
    };
    fx.iter().filter_map(read).collect()
}

fn write(fx: &[Effect]) -> Option<IoId> {
    fx.iter().find_map(|f| match f {
        Effect::Write(io, span, ..) if *span == BLOCK => Some(*io),
        _ => None,
    })
}

/// A peer is the target of the stream; the connection breaks while a write of it is on its way to the disk.
fn with_an_orphan() -> (Bench, IoId) {
    let mut bench = Bench::new(&[id(2)]);
    let (verdict, _) = bench.meets(1, A, Generation::NONE);
    assert_eq!(verdict, Verdict::NoSync);
    let data = Bytes::from(vec![1; 64]);
    let fx = bench.says(Message::Write { seq: Seq(1), epoch: 1, span: BLOCK, data, fua: false, receipt: false });
    let fx = bench.metadata(fx);
    let orphan = write(&fx).expect("the extent is hot, so it is written");
    bench.tell(Event::Lost(id(2), ConnId(1)));
    (bench, orphan)
}

/// Node 1 lost the primary while a write of it was on its way to the disk, and came back as target. It read the block
/// for its digest before the write landed, the source said "equal", the write landed and set the bit, and the
/// flush of what was compared cleared it again, here and at the source: the two differed and nobody knew.
#[test]
fn a_target_compares_a_block_only_when_a_write_of_a_former_connection_has_landed() {
    let (mut bench, orphan) = with_an_orphan();
    let (verdict, fx) = bench.meets(2, B, A);
    assert_eq!(verdict, Verdict::Target { full: false });
    let dirty = fx.iter().any(|f| matches!(f, Effect::Send(_, _, Message::Dirty(spans, true)) if *spans == [BLOCK]));
    assert!(dirty, "what the lost primary had not settled is dirty: {fx:?}");
    let other = Span::new(64, 8);
    let fx = bench.says(Message::Dirty(vec![other], true));
    let fx = bench.metadata(fx);
    assert_eq!(reads(&fx).iter().map(|(_, s)| *s).collect::<Vec<_>>(), [other], "the block is not at rest");
    let fx = bench.tell(Event::Done(orphan, Ok(Bytes::new())));
    assert_eq!(reads(&fx).iter().map(|(_, s)| *s).collect::<Vec<_>>(), [BLOCK], "now it is");
    let marked = bench.node.replica().and_then(|r| r.bitmap(id(2))).map(|m| m.covers(BLOCK));
    assert_eq!(marked, Some(true));
}

/// The same, to the end: the synchronisation does not call itself over before the block was compared.
#[test]
fn a_synchronisation_does_not_end_while_a_write_of_a_former_connection_is_under_way() {
    let (mut bench, orphan) = with_an_orphan();
    bench.meets(2, B, A);
    let fx = bench.says(Message::Dirty(Vec::new(), true));
    let mut fx = bench.metadata(fx);
    fx.extend(bench.tell(Event::Tick));
    let ends = |fx: &[Effect]| fx.iter().any(|f| matches!(f, Effect::Send(_, _, Message::PullEnd)));
    assert!(!ends(&fx) && reads(&fx).is_empty(), "{fx:?}");
    let fx = bench.tell(Event::Done(orphan, Ok(Bytes::new())));
    let (io, _) = reads(&fx)[0];
    bench.tell(Event::Done(io, Ok(Bytes::from(vec![1; 64]))));
    let fx = bench.says(Message::Pulled(BLOCK, None, NodeSet::EMPTY));
    assert!(!ends(&fx), "what was compared is not stable yet");
    let fx = bench.tell(Event::Done(flush(&fx).expect("a flush"), Ok(Bytes::new())));
    assert!(ends(&fx), "{fx:?}");
}

fn flush(fx: &[Effect]) -> Option<IoId> {
    fx.iter().find_map(|f| if let Effect::Flush(io) = f { Some(*io) } else { None })
}

fn completes(fx: &[Effect], req: u64) -> bool {
    fx.iter().any(|f| matches!(f, Effect::Complete(r, Ok(_)) if *r == ReqId(req)))
}

/// A peer was asked for a barrier and lost, a grant without it was made, and it came back synchronised before the flush
/// here was done. As one about to join it was counted again, and owed a barrier that nobody would ever send: this
/// flush, and every one behind it, waited for ever.
#[test]
fn a_flush_does_not_wait_for_a_barrier_of_a_lost_connection() {
    let mut bench = Bench::new(&[id(2)]);
    let fx = bench.tell(Event::Promote { force: false });
    bench.metadata(fx);
    assert!(bench.node.is_primary());
    let (verdict, _) = bench.meets(1, A, Generation::NONE);
    assert_eq!(verdict, Verdict::NoSync);
    let fx = bench.tell(Event::Submit(ReqId(1), Ask::Write(BLOCK, Bytes::from(vec![1; 64]), false)));
    let fx = bench.metadata(fx);
    bench.tell(Event::Done(write(&fx).expect("a hot extent"), Ok(Bytes::new())));
    assert!(completes(&bench.says(Message::WriteAck(Seq(1))), 1));
    let fx = bench.tell(Event::Submit(ReqId(2), Ask::Flush));
    assert!(fx.iter().any(|f| matches!(f, Effect::Send(_, _, Message::Barrier(Seq(1))))), "{fx:?}");
    let stable = flush(&fx).expect("a flush");

    let fx = bench.tell(Event::Lost(id(2), ConnId(1)));
    let fx = bench.metadata(fx);
    let alone = NodeSet::of(id(1));
    assert!(fx.iter().any(|f| matches!(f, Effect::Told(Report::Granted(g)) if g.members == alone)), "{fx:?}");
    let (verdict, _) = bench.meets(2, A, Generation::NONE);
    assert_eq!(verdict, Verdict::Source { full: false });
    bench.says(Message::Dirty(Vec::new(), true));
    bench.says(Message::PullAck(vec![BLOCK]));
    let fx = bench.says(Message::PullEnd);
    assert!(fx.iter().any(|f| matches!(f, Effect::Send(_, _, Message::SyncDone(_)))), "{fx:?}");
    bench.says(Message::SyncDoneAck);
    let fx = bench.tell(Event::Done(stable, Ok(Bytes::new())));
    assert!(completes(&fx, 2), "{fx:?}");
}

/// Without quorum nodes 2 and 3 reign, apart. Node 1 was equal to node 2, counted by it, and met node 3, of whose
/// generation its own is a former one: it became target, wrote down that its data were in the middle, and node 2 went on
/// counting it.
#[test]
fn who_follows_a_primary_is_not_target_of_another() {
    let mut bench = Bench::new(&[id(2), id(3)]);
    let (verdict, _) = bench.meets(1, A, Generation::NONE);
    assert_eq!(verdict, Verdict::NoSync);
    bench.peer = id(3);
    let (verdict, fx) = bench.meets(2, B, A);
    assert_eq!(verdict, Verdict::Wait);
    assert!(!fx.iter().any(|f| matches!(f, Effect::Meta(..))), "{fx:?}");
    let fx = bench.tell(Event::Lost(id(2), ConnId(1)));
    assert!(fx.contains(&Effect::Close(id(3), ConnId(2), true)), "now they meet anew: {fx:?}");
    let (verdict, _) = bench.meets(3, B, A);
    assert_eq!(verdict, Verdict::Target { full: false });
}

/// Node 1 was the source of node 3 when it met the primary, and stayed it. A write of the stream came, which node 3 did not
/// get, and its settlement set the bit for node 3; then node 3 acknowledged the block that it had compared before, and
/// the bit was cleared. Node 1 reigned next and counted node 3 as equal: what was acknowledged was not there.
#[test]
fn who_meets_a_primary_is_no_source_any_more() {
    let mut bench = Bench::new(&[id(2), id(3)]);
    (bench.peer, bench.peer_reigns) = (id(3), false);
    let (verdict, _) = bench.meets(1, Generation::JUST_CREATED, Generation::NONE);
    assert_eq!(verdict, Verdict::Source { full: true });
    (bench.peer, bench.peer_reigns) = (id(2), true);
    let (verdict, fx) = bench.meets(2, A, Generation::NONE);
    assert_eq!(verdict, Verdict::NoSync);
    assert!(fx.contains(&Effect::Close(id(3), ConnId(1), true)), "{fx:?}");
    assert!(bench.node.synchronising().is_empty());
}

/// A write of the former primary was still on its way to the disk of node 1 when that was promoted. A read found what was
/// there before; then the write landed, and the next read found something else, although nobody had written.
#[test]
fn a_read_waits_for_a_write_that_a_former_reign_left() {
    let (mut bench, landing) = with_an_orphan();
    let fx = bench.tell(Event::Promote { force: false });
    bench.metadata(fx);
    assert!(bench.node.is_primary());
    let fx = bench.tell(Event::Submit(ReqId(1), Ask::Read(BLOCK)));
    assert!(reads(&fx).is_empty(), "{fx:?}");
    let fx = bench.tell(Event::Done(landing, Ok(Bytes::new())));
    assert_eq!(reads(&fx).iter().map(|(_, s)| *s).collect::<Vec<_>>(), [BLOCK], "{fx:?}");
}

/// A member that lost its cache was granted nothing because another member, which may have kept its own, did not answer; it was
/// told that no majority had.
#[test]
fn a_candidate_that_waits_for_a_kept_cache_is_told_so() {
    let mut bench = Bench::with(&[id(2)], Some(id(9)));
    bench.tell(Event::Connected(id(9), ConnId(1)));
    let fx = bench.tell(Event::Promote { force: false });
    let fx = bench.metadata(fx);
    let asked = fx.iter().find_map(|f| if let Effect::Send(_, _, Message::Prepare(b)) = f { Some(*b) } else { None });
    (bench.peer, bench.conn) = (id(9), ConnId(1));
    let members = NodeSet::of(id(1)).with(id(2));
    let newest = Grant { ballot: Ballot { round: 1, node: 2 }, version: 0, generation: A, members };
    let ballot = asked.expect("a ballot");
    let fx = bench.says(Message::Promise(ballot, newest, false));
    assert!(!fx.iter().any(|f| matches!(f, Effect::Told(_))), "{fx:?}");
    let mut out = Vec::new();
    bench.node.handle(Now(1000), Event::Tick, &mut out);
    assert!(out.contains(&Effect::Told(Report::NotPromoted(super::event::Refusal::LostCache))), "{out:?}");
    assert_eq!(bench.node.view().grant, newest, "what it heard of is shown");
}
