//! One core, event by event: what exactly it wants done.

use bytes::Bytes;

use super::config::{Config, DiskPolicy, Limits, OnIoError, OnNoQuorum, OnSlowPeer, Timing, Unsettled};
use super::event::Hello;
use super::rules::Rules;
use super::*;
use crate::compare::{Side, Verdict};
use crate::ids::{Ballot, Grant, Lives, SECTOR, Seq, Sizes, Volume};
use crate::meta::layout::{Layout, Shape};
use crate::meta::superblock::Superblock;
use crate::meta::{MetaError, PAGE, Put, Reader};

mod again;
mod contest;
mod disk;
mod heirs;
mod leave;
mod pairs;
mod resize;
mod rest;
mod together;

const SHAPE: Shape = Shape { data: 64 * 8, bit: 8, extent: 32, peers: 2, log_slots: 4, log_pages: 4 };
const RESOURCE: [u8; 16] = *b"resource-of-test";
const A: Generation = Generation(0x100);
const B: Generation = Generation(0x200);
const BLOCK: Span = Span { at: 8, len: 8 };
const LIMITS: Limits = Limits { run_sectors: 16, room: (64 << 10, 1 << 20), flush_bytes: 64 << 10, sector_bytes: 8 };

fn id(n: u8) -> NodeId {
    NodeId::new(n).expect("a node")
}

/// The bytes of a metadata device.
struct Image(Vec<u8>);

/// Bytes of a further volume's disk, which lies behind those of the first.
const FURTHER: usize = 64 << 10;

impl Image {
    fn place(&self, at: u64) -> usize {
        let first = (self.0.len() - FURTHER) as u64;
        let volume = Volume::of(at / SECTOR).unwrap_or_default();
        let from = if volume == Volume::FIRST { 0 } else { first };
        (from + at - volume.base() * SECTOR) as usize
    }

    fn put(&mut self, puts: &[Put]) {
        for put in puts {
            let at = self.place(put.at);
            self.0[at..][..put.bytes.len()].copy_from_slice(&put.bytes);
        }
    }
}

impl Reader for Image {
    fn read(&self, at: u64, len: u64) -> Result<Vec<u8>, MetaError> {
        Ok(self.0[self.place(at)..][..len as usize].to_vec())
    }
}

/// A node that starts with this superblock.
fn node_of(sb: Superblock, peers: &[NodeId], tie_breaker: Option<NodeId>) -> Node {
    let (layout, me) = (sb.layout, sb.node);
    let (_, write) = Replica::format(sb);
    let mut image = Image(vec![0; layout.end().next_multiple_of(PAGE) as usize + FURTHER]);
    image.put(&write.first);
    image.put(&write.then);
    let recovered = Replica::recover(&image, layout.end(), Life::UNKNOWN).expect("a replica");
    let config = Config {
        me,
        disks: peers.iter().copied().chain([me]).collect(),
        tie_breaker,
        quorum: tie_breaker.is_some(),
        protocols: BTreeMap::new(),
        on_no_quorum: OnNoQuorum::SuspendIo,
        on_slow_peer: OnSlowPeer::Block,
        disk: DiskPolicy { timeout: Some(400), on_io_error: OnIoError::Detach },
        policy: Default::default(),
        timing: Timing { ping: 100, dead: 400, slow: 1000, settle: 100, vote: 400, rest: 1000 },
        unsettled: Unsettled { writes: 16, bytes: 1 << 30 },
        resync: LIMITS,
        rules: Rules::all(),
        entropy: 7 + u64::from(me.get()) - 1,
    };
    Node::new(config, recovered, Now(0))
}

/// Node 1, and whoever speaks to it.
struct Bench {
    node: Node,
    peer: NodeId,
    peer_reigns: bool,
    /// It remembers a full synchronisation.
    peer_begun: bool,
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
        Bench::of(sb, peers, tie_breaker)
    }

    /// With this superblock.
    fn of(sb: Superblock, peers: &[NodeId], tie_breaker: Option<NodeId>) -> Bench {
        Bench {
            node: node_of(sb, peers, tie_breaker),
            peer: id(2),
            peer_reigns: true,
            peer_begun: false,
            conn: ConnId(0),
        }
    }

    fn tell(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        self.node.handle(Now(1), event, &mut out);
        out
    }

    fn says(&mut self, message: Message) -> Vec<Effect> {
        self.tell(Event::Received(self.peer, self.conn, message))
    }

    /// The peer connects and tells the sizes and lives of its volumes, and its generation.
    fn hears(&mut self, conn: u64, current: Generation, sizes: &Sizes, lives: Option<&Lives>) -> Vec<Effect> {
        let peer_reigns = self.peer_reigns && !self.node.is_primary();
        self.conn = ConnId(conn);
        self.tell(Event::Connected(self.peer, self.conn));
        if let Some(lives) = lives {
            self.says(Message::Lives(Volume::all().map(|v| lives.of(v)).collect()));
        }
        if sizes.are_several() {
            self.says(Message::Sizes(Volume::all().map(|v| sizes.of(v)).collect()));
        }
        self.says(Message::Hello(Box::new(hello(self.peer, peer_reigns, current, Generation::NONE))))
    }

    /// The same, and comes to the same decision.
    fn meets_with(
        &mut self,
        conn: u64,
        current: Generation,
        sizes: &Sizes,
        lives: Option<&Lives>,
    ) -> (Verdict, Vec<Effect>) {
        let fx = self.hears(conn, current, sizes, lives);
        let said = fx.iter().find_map(|f| match f {
            Effect::Send(_, _, Message::Agree(verdict, _, mine)) => Some((verdict.mirrored(), *mine)),
            _ => None,
        });
        let (verdict, mine) = said.expect("an Agree");
        (verdict, self.says(Message::Agree(verdict, mine, 1)))
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
        let said = Hello { begun: self.peer_begun, ..hello(self.peer, peer_reigns, current, bitmap) };
        fx = self.says(Message::Hello(Box::new(said)));
        let said = fx.iter().find_map(|f| match f {
            Effect::Send(_, _, Message::Agree(verdict, ..)) => Some(verdict.mirrored()),
            _ => None,
        });
        let verdict = said.expect("an Agree");
        (verdict, self.says(Message::Agree(verdict, mine.version, 1)))
    }

    /// The tie-breaker, node 9, gives the first reign to node 1.
    fn reigns_by_a_vote(&mut self) {
        let ballot = Ballot { round: 1, node: 1 };
        let fx = self.tell(Event::Connected(id(9), ConnId(90)));
        self.metadata(fx);
        let fx = self.tell(Event::Promote { force: false });
        self.metadata(fx);
        for vote in [Message::Promise(ballot, Grant::default(), false), Message::Accepted(ballot, 0)] {
            let fx = self.tell(Event::Received(id(9), ConnId(90), vote));
            self.metadata(fx);
        }
        assert!(self.node.is_primary());
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
    Hello {
        side,
        version: 1,
        resource: RESOURCE,
        size: SHAPE.data,
        promised,
        reigns,
        log_slots: 4,
        follows: None,
        begun: false,
    }
}

/// What is to be digested.
fn looks(fx: &[Effect]) -> Vec<(IoId, Span)> {
    let read = |f: &Effect| match f {
        Effect::Digest(io, span) => Some((*io, *span)),
        _ => None,
    };
    fx.iter().filter_map(read).collect()
}

/// What is to be read.
fn reads(fx: &[Effect]) -> Vec<(IoId, Span)> {
    let read = |f: &Effect| match f {
        Effect::Read(io, span) => Some((*io, *span)),
        _ => None,
    };
    fx.iter().filter_map(read).collect()
}

/// The source says that the target has what it has.
fn same(run: Span) -> Message {
    let units = u32::try_from(run.len / pieces::UNIT).expect("short");
    let pieces = vec![pieces::Piece { kind: pieces::Kind::Same, units }];
    Message::Pulled { run, pieces, data: Bytes::new(), holders: NodeSet::EMPTY, room: 64 << 10 }
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
    assert_eq!(looks(&fx).iter().map(|(_, s)| *s).collect::<Vec<_>>(), [other], "the block is not at rest");
    let fx = bench.tell(Event::Done(orphan, Ok(Bytes::new())));
    assert_eq!(looks(&fx).iter().map(|(_, s)| *s).collect::<Vec<_>>(), [BLOCK], "now it is");
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
    assert!(!ends(&fx) && looks(&fx).is_empty(), "{fx:?}");
    let fx = bench.tell(Event::Done(orphan, Ok(Bytes::new())));
    let (io, _) = looks(&fx)[0];
    bench.tell(Event::Digested(io, vec![[1; 32]]));
    let fx = bench.says(same(BLOCK));
    assert!(!ends(&fx), "what was compared is not stable yet");
    let fx = bench.tell(Event::Done(flush(&fx).expect("a flush"), Ok(Bytes::new())));
    assert!(ends(&fx), "{fx:?}");
}

/// Over a slow line a connection that broke within a minute lost what had come until then, again and again.
#[test]
fn what_a_slow_synchronisation_has_is_made_stable_about_once_a_second() {
    let mut bench = Bench::new(&[id(2)]);
    bench.meets(1, B, A);
    let runs = [Span::new(0, 8), Span::new(64, 8)];
    let fx = bench.says(Message::Dirty(runs.to_vec(), true));
    let fx = bench.metadata(fx);
    for (io, _) in looks(&fx) {
        bench.tell(Event::Digested(io, vec![[1; 32]]));
    }
    assert_eq!(flush(&bench.says(same(runs[0]))), None, "the other one is on its way");
    let mut at = |ms| {
        let mut fx = Vec::new();
        bench.node.handle(Now(ms), Event::Received(id(2), ConnId(1), Message::Ping), &mut fx);
        flush(&fx)
    };
    assert_eq!(at(900), None);
    let io = at(1_100).expect("a flush");
    assert_eq!(at(1_200), None, "one at a time");
    let fx = bench.tell(Event::Done(io, Ok(Bytes::new())));
    assert!(fx.iter().any(|f| matches!(f, Effect::Send(_, _, Message::PullAck(s)) if *s == [runs[0]])), "{fx:?}");
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

/// Three nodes met at the same moment, node 2 primary. Nodes 1 and 3 had told one another that they followed nobody; node 1 met
/// the primary, and then became target of node 3, which was dropped meanwhile: what was acknowledged was overwritten here.
#[test]
fn who_met_a_primary_since_is_target_of_nobody_else() {
    let mut bench = Bench::new(&[id(2), id(3)]);
    let (verdict, _) = bench.meets(1, A, Generation::NONE);
    assert_eq!(verdict, Verdict::NoSync);
    bench.tell(Event::Lost(id(2), ConnId(1)));
    bench.tell(Event::Connected(id(3), ConnId(1)));
    let fx = bench.tell(Event::Received(id(3), ConnId(1), Message::Hello(Box::new(hello(id(3), false, B, A)))));
    let agree = fx.into_iter().find_map(|f| match f {
        Effect::Send(_, _, Message::Agree(verdict, theirs, mine)) => {
            Some(Message::Agree(verdict.mirrored(), mine, theirs))
        }
        _ => None,
    });
    let agree = agree.expect("an Agree");
    assert!(matches!(agree, Message::Agree(Verdict::Target { full: false }, ..)), "{agree:?}");
    let (verdict, fx) = bench.meets(2, A, Generation::NONE);
    assert_eq!(verdict, Verdict::NoSync);
    assert!(!fx.iter().any(|f| matches!(f, Effect::Close(..))), "{fx:?}");
    let fx = bench.tell(Event::Received(id(3), ConnId(1), agree));
    assert!(fx.contains(&Effect::Close(id(3), ConnId(1), true)), "{fx:?}");
    assert!(bench.node.synchronising().is_empty());
}

/// Writes that are started, in order, and their spans.
fn writes(fx: &[Effect]) -> Vec<(IoId, Span)> {
    let write = |f: &Effect| match f {
        Effect::Write(io, span, ..) => Some((*io, *span)),
        _ => None,
    };
    fx.iter().filter_map(write).collect()
}

/// A primary with an equal peer.
fn primary() -> Bench {
    let mut bench = Bench::new(&[id(2)]);
    let fx = bench.tell(Event::Promote { force: false });
    bench.metadata(fx);
    bench.peer_reigns = false;
    let (verdict, _) = bench.meets(1, A, Generation::NONE);
    assert_eq!(verdict, Verdict::NoSync);
    bench
}

fn ask(bench: &mut Bench, req: u64, span: Span) -> Vec<Effect> {
    let data = Bytes::from(vec![1; span.len as usize * 8]);
    let fx = bench.tell(Event::Submit(ReqId(req), Ask::Write(span, data, false)));
    bench.metadata(fx)
}

/// The bound was 64 writes, because each looked at all others.
#[test]
fn thousands_of_writes_are_under_way_before_one_has_to_be_settled() {
    let mut bench = primary();
    bench.node.config.unsettled = Unsettled { writes: 4096, bytes: 1 << 30 };
    let (mut started, mut sent, mut settled) = (0, 0, None);
    for req in 0..9000 {
        // Each block of the first extents again and again, most of which wait for the one before.
        let fx = ask(&mut bench, req, Span::new(req % 128, 1));
        started += writes(&fx).len();
        sent += fx.iter().filter(|f| matches!(f, Effect::Send(_, _, Message::Write { .. }))).count();
        if fx.iter().any(|f| matches!(f, Effect::Send(_, _, Message::Barrier(_)))) {
            settled.get_or_insert(req);
        }
    }
    assert_eq!((started, sent, settled), (128, 2 * 4096, Some(4095)));
}

#[test]
fn what_overlaps_is_written_in_order_however_much_is_under_way() {
    let mut bench = primary();
    bench.node.config.unsettled = Unsettled { writes: 4096, bytes: 1 << 30 };
    let (mut open, mut order) = (Vec::new(), Vec::new());
    for req in 0..1000 {
        let span = if req % 2 == 0 { Span::new(16, 8) } else { Span::new(20, 8) };
        open.extend(writes(&ask(&mut bench, req, span)));
        assert!(open.len() <= 1, "one at a time");
    }
    while let Some((io, span)) = open.pop() {
        order.push(span.at);
        open.extend(writes(&bench.tell(Event::Done(io, Ok(Bytes::new())))));
        assert!(open.len() <= 1, "one at a time");
    }
    let expected: Vec<u64> = (0..1000).map(|n| if n % 2 == 0 { 16 } else { 20 }).collect();
    assert_eq!(order, expected);
}

/// An application wrote one block after the other of a run, and always had two writes under way in it: the source never came to
/// read the run, and the synchronisation never ended.
#[test]
fn a_run_is_read_though_an_application_writes_in_it_without_a_pause() {
    let mut bench = Bench::new(&[id(2)]);
    let fx = bench.tell(Event::Promote { force: false });
    bench.metadata(fx);
    bench.peer_reigns = false;
    let (verdict, fx) = bench.meets(1, Generation::JUST_CREATED, Generation::NONE);
    assert_eq!(verdict, Verdict::Source { full: true });
    bench.metadata(fx);
    bench.says(Message::Dirty(Vec::new(), true));
    let mut open = writes(&ask(&mut bench, 0, Span::new(0, 8)));
    open.extend(writes(&ask(&mut bench, 1, Span::new(8, 8))));
    assert_eq!(open.len(), 2);
    bench.says(Message::Pull(Span::new(0, 16), Vec::new()));
    let (mut read, mut under_way) = (None, open.len());
    for req in 2..50 {
        // One ends, the application has its next.
        if let Some((io, _)) = (!open.is_empty()).then(|| open.remove(0)) {
            let fx = bench.tell(Event::Done(io, Ok(Bytes::new())));
            read = read.or(fx.iter().find_map(|f| if let Effect::Compare(io, ..) = f { Some(*io) } else { None }));
            open.extend(writes(&fx));
        }
        open.extend(writes(&ask(&mut bench, req, Span::new(req % 2 * 8, 8))));
        under_way = under_way.max(open.len());
        if read.is_some() {
            break;
        }
    }
    let read = read.expect("the run is read");
    assert!(open.is_empty() && under_way == 2, "what came after it waits for it");
    let found = pieces::compare(&Bytes::from(vec![3; 128]), 64, &[]);
    let fx = bench.tell(Event::Compared(read, found));
    let at =
        |what: fn(&Message) -> bool| fx.iter().position(|f| matches!(f, Effect::Send(_, _, message) if what(message)));
    let (answer, write) = (at(|m| matches!(m, Message::Pulled { .. })), at(|m| matches!(m, Message::Write { .. })));
    assert!(answer.is_some() && answer < write, "the answer first, then what came after it: {fx:?}");
}

/// Bits that were cleared were written down when a log's extent became cold, or never: after a crash in the last minute of hours
/// all of it was compared again.
#[test]
fn how_far_a_synchronisation_is_is_written_down_while_it_goes_on() {
    let (mut bench, orphan) = with_an_orphan();
    bench.tell(Event::Done(orphan, Ok(Bytes::new())));
    bench.meets(2, B, A);
    let fx = bench.says(Message::Dirty(vec![Span::new(64, 8), Span::new(256, 8)], true));
    let fx = bench.metadata(fx);
    for (io, _) in looks(&fx) {
        bench.tell(Event::Digested(io, vec![[1; 32]]));
    }
    let mut fx = Vec::new();
    for run in [BLOCK, Span::new(64, 8), Span::new(256, 8)] {
        fx = bench.says(same(run));
    }
    let mut out = Vec::new();
    bench.node.handle(Now(5_000), Event::Done(flush(&fx).expect("a flush"), Ok(Bytes::new())), &mut out);
    let saved = out.iter().find_map(|f| if let Effect::Meta(_, write) = f { Some(write.first.len()) } else { None });
    assert_eq!(saved, Some(1), "the page of the bitmap: {out:?}");
}

/// A new replica has no generation until it has everything: at each meeting all of it was to be sent again.
#[test]
fn a_synchronisation_of_everything_goes_on_if_both_sides_remember_it() {
    let mut bench = Bench::new(&[id(2)]);
    let fx = bench.tell(Event::Promote { force: false });
    bench.metadata(fx);
    bench.peer_reigns = false;
    let all = Span::new(0, SHAPE.data);
    let dirty = |fx: &[Effect]| {
        fx.iter().find_map(|f| match f {
            Effect::Send(_, _, Message::Dirty(spans, true)) => Some(spans.clone()),
            _ => None,
        })
    };
    let (verdict, fx) = bench.meets(1, Generation::JUST_CREATED, Generation::NONE);
    assert_eq!((verdict, dirty(&fx)), (Verdict::Source { full: true }, Some(vec![all])));
    let write = fx.iter().find_map(|f| if let Effect::Meta(_, write) = f { Some(write.clone()) } else { None });
    let write = write.expect("the bits, and then that they are set");
    assert!(!write.first.is_empty() && !write.then.is_empty());
    bench.metadata(fx);
    bench.says(Message::Dirty(Vec::new(), true));
    bench.says(Message::PullAck(vec![Span::new(0, 256)]));
    bench.tell(Event::Lost(id(2), ConnId(1)));

    bench.peer_begun = true;
    let (_, fx) = bench.meets(2, Generation::JUST_CREATED, Generation::NONE);
    assert_eq!(dirty(&fx), Some(vec![Span::new(256, SHAPE.data - 256)]), "it goes on");
    bench.tell(Event::Lost(id(2), ConnId(2)));
    bench.peer_begun = false;
    let (_, fx) = bench.meets(3, Generation::JUST_CREATED, Generation::NONE);
    assert_eq!(dirty(&fx), Some(vec![all]), "another disk");
}

/// A secondary that is compared with its primary.
fn driver() -> (Bench, Vec<Effect>) {
    let mut bench = Bench::new(&[id(2)]);
    let (verdict, _) = bench.meets(1, A, Generation::NONE);
    assert_eq!(verdict, Verdict::NoSync);
    let fx = bench.tell(Event::Verify);
    (bench, fx)
}

fn checked(run: Span, kinds: &[pieces::Kind]) -> Message {
    let pieces = kinds.iter().map(|kind| pieces::Piece { kind: *kind, units: 1 }).collect();
    Message::Checked(run, pieces, 1 << 20)
}

fn found(fx: &[Effect]) -> Option<(Vec<Span>, u64, u64)> {
    fx.iter().find_map(|f| match f {
        Effect::Send(_, _, Message::Differs(spans, differs, skipped, true)) => {
            Some((spans.clone(), *differs, *skipped))
        }
        _ => None,
    })
}

/// Answers every run that is asked about: the same, but for one block.
fn answer_all(bench: &mut Bench, mut fx: Vec<Effect>, wrong: Span) -> Vec<Effect> {
    for _ in 0..200 {
        if found(&fx).is_some() {
            break;
        }
        let next: Vec<Message> = looks(&fx)
            .into_iter()
            .map(|(io, run)| {
                let kind =
                    |at: u64| if wrong.overlaps(Span::new(at, 8)) { pieces::Kind::Data } else { pieces::Kind::Same };
                let kinds: Vec<_> = (run.at..run.end()).step_by(8).map(kind).collect();
                bench.tell(Event::Digested(io, vec![[0; 32]; kinds.len()]));
                checked(run, &kinds)
            })
            .collect();
        fx = next.into_iter().flat_map(|m| bench.says(m)).collect();
    }
    fx
}

#[test]
fn a_verification_finds_exactly_what_differs() {
    let (mut bench, fx) = driver();
    let fx = answer_all(&mut bench, fx, Span::new(88, 16));
    assert_eq!(found(&fx), Some((vec![Span::new(88, 16)], 16, 0)), "neighbours are one range");
    assert!(fx.iter().any(|f| matches!(f, Effect::Told(Report::Verified(_, 16, 0)))));
}

/// A write was on its way when the two were compared: the primary had it, the secondary not yet.
#[test]
fn what_is_written_while_it_is_compared_is_compared_again() {
    let (mut bench, fx) = driver();
    let (io, run) = looks(&fx)[0];
    bench.tell(Event::Digested(io, vec![[0; 32]; (run.len / 8) as usize]));
    let data = Bytes::from(vec![1; 64]);
    bench.says(Message::Write { seq: Seq(1), epoch: 1, span: BLOCK, data, fua: false, receipt: false });
    let kind = |at: u64| if at == BLOCK.at { pieces::Kind::Data } else { pieces::Kind::Same };
    let kinds: Vec<_> = (run.at..run.end()).step_by(8).map(kind).collect();
    let mut all = bench.says(checked(run, &kinds));
    all.extend(fx.into_iter().filter(|f| matches!(f, Effect::Digest(other, _) if *other != io)));
    assert!(looks(&all).iter().any(|(_, again)| *again == BLOCK), "only what differed: {all:?}");
    let fx = answer_all(&mut bench, all, Span::new(9999, 1));
    assert_eq!(found(&fx), Some((Vec::new(), 0, 0)));
}

#[test]
fn the_primary_compares_where_nothing_is_written_and_its_writes_wait() {
    let mut bench = primary();
    let under_way = writes(&ask(&mut bench, 1, BLOCK));
    bench.tell(Event::Verify);
    let is_compare = |f: &Effect| if let Effect::Compare(io, ..) = f { Some(*io) } else { None };
    let fx = bench.says(Message::Check(Span::new(0, 32), vec![[0; 32]; 4]));
    assert!(fx.iter().find_map(is_compare).is_none(), "a write is under way there");
    assert!(writes(&ask(&mut bench, 2, BLOCK)).is_empty(), "and the next one waits");
    let fx = bench.tell(Event::Done(under_way[0].0, Ok(Bytes::new())));
    let io = fx.iter().find_map(is_compare).expect("now it is read");
    let fx = bench.tell(Event::Compared(io, pieces::compare(&Bytes::from(vec![0; 256]), 64, &[])));
    let at = |what: fn(&Message) -> bool| fx.iter().position(|f| matches!(f, Effect::Send(_, _, m) if what(m)));
    let (answer, write) = (at(|m| matches!(m, Message::Checked(..))), at(|m| matches!(m, Message::Write { .. })));
    assert!(answer.is_some() && answer < write, "{fx:?}");
}

/// An application wrote a block again and again. Where a comparison took longer than that, each met a write, and after eight the block was
/// told as not compared.
#[test]
fn what_differed_is_not_written_until_it_is_compared_again() {
    let mut bench = primary();
    bench.tell(Event::Verify);
    let compared = |bench: &mut Bench, kind| {
        let fx = bench.says(Message::Check(BLOCK, vec![[0; 32]]));
        let io = fx.iter().find_map(|f| if let Effect::Compare(io, ..) = f { Some(*io) } else { None });
        let pieces = vec![pieces::Piece { kind, units: 1 }];
        bench.tell(Event::Compared(io.expect("it is read"), pieces::Compared { pieces, data: Bytes::new() }))
    };
    compared(&mut bench, pieces::Kind::Data);
    let io = writes(&ask(&mut bench, 1, BLOCK))[0].0;
    bench.tell(Event::Done(io, Ok(Bytes::new())));
    compared(&mut bench, pieces::Kind::Data);
    assert!(writes(&ask(&mut bench, 2, BLOCK)).is_empty(), "it waits for the third comparison");
    assert_eq!(writes(&compared(&mut bench, pieces::Kind::Same)).len(), 1, "and comes after it");

    let mut bench = primary();
    bench.tell(Event::Verify);
    compared(&mut bench, pieces::Kind::Data);
    compared(&mut bench, pieces::Kind::Data);
    assert!(writes(&ask(&mut bench, 1, BLOCK)).is_empty());
    let mut fx = Vec::new();
    bench.node.handle(Now(1100), Event::Received(id(2), ConnId(1), Message::Ping), &mut fx);
    let fx = bench.metadata(fx);
    assert_eq!(writes(&fx).len(), 1, "it differs for certain: nobody asks again");
}

/// What the peer has is read where nothing is under way, and written to all; an application's write waits for that.
#[test]
fn a_repair_takes_the_named_sides_data_and_undoes_no_write() {
    let mut bench = primary();
    let under_way = writes(&ask(&mut bench, 1, BLOCK));
    bench.tell(Event::Verify);
    bench.says(Message::Differs(vec![BLOCK], 8, 0, true));
    let asks = |fx: &[Effect]| fx.iter().any(|f| matches!(f, Effect::Send(_, _, Message::RemoteRead(_, BLOCK))));
    assert!(!asks(&bench.tell(Event::Repair(id(2)))), "a write is under way there");
    assert!(writes(&ask(&mut bench, 2, BLOCK)).is_empty(), "and the next one waits");
    assert!(!asks(&bench.tell(Event::Done(under_way[0].0, Ok(Bytes::new())))), "the peer has not written it yet");
    assert!(asks(&bench.says(Message::WriteAck(Seq(1)))));
    let theirs = Bytes::from(vec![9; 64]);
    let fx = bench.says(Message::RemoteData(ReqId(u64::MAX), Some(theirs.clone())));
    let sent: Vec<(u64, bool)> = fx
        .iter()
        .filter_map(|f| match f {
            Effect::Send(_, _, Message::Write { seq, data, .. }) => Some((seq.0, *data == theirs)),
            _ => None,
        })
        .collect();
    assert_eq!(sent, [(2, true), (3, false)], "first the repair, then what waited");
    let io = writes(&fx)[0].0;
    bench.tell(Event::Done(io, Ok(Bytes::new())));
    let fx = bench.says(Message::WriteAck(Seq(2)));
    assert!(fx.contains(&Effect::Told(Report::Repaired(id(2), 4096))), "{fx:?}");
    assert!(!fx.iter().any(|f| matches!(f, Effect::Complete(ReqId(u64::MAX), _))), "nobody asked for it");
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
