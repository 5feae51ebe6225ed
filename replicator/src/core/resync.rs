//! Synchronisation, both ends. The target pulls what either side has bits for, with a digest of what it has; the source sends
//! bytes only where its own differ.
//!
//! The source reads a span when nothing older is being written there, and its applications' writes to the span wait
//! until the answer is on its way: so the answer and the stream, on one connection, are in the order in which they have to
//! be written. The target acknowledges what it has flushed; only then bits are cleared, on both sides. Nothing of it
//! is lost by a crash of either: what is not acknowledged keeps its bits.
//!
//! The target compares only where nothing is under way that its source did not order on this connection. Prevents: a
//! write of a former connection is on its way to the disk, the digest is read before it lands and is equal, the write lands
//! and sets bits for all, and the acknowledgement of what was compared clears them on both sides: the two
//! differ, and neither knows.
//!
//! What the target writes makes it differ from others as well: their bits are set first, except for those of which the
//! source knows that they hold the same.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::Node;
use super::connect::State;
use super::disk::{Purpose, Waiter, Why};
use super::event::{ConnId, Effect, Identity, Message, Report};
use super::rules::Rule;
use crate::ids::{Generation, NodeId, NodeSet, Span};
use crate::meta::superblock::DiskState;

/// Spans that a target asks for at once.
const WINDOW: usize = 8;
/// Spans after which a target flushes.
const FLUSH_AFTER: usize = 16;
/// Spans of one message of bits.
const SPANS: usize = 1024;

/// The source's end.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// What was asked for: span, digest, whether it is being read.
    serves: VecDeque<(Span, [u8; 32], bool)>,
    /// What the target was told that it is.
    pub(super) told: Option<Generation>,
    sent: u64,
    equal: u64,
}

/// The target's end.
#[derive(Debug, Default)]
pub(super) struct Target {
    /// Both know the bits of both.
    exchanged: bool,
    /// It is written down that the data are in the middle; or nothing is to be done.
    pub(super) ready: bool,
    window: BTreeMap<u64, Span>,
    /// Same as the source's and not flushed: span, who else holds the same, whether its extents are pinned.
    unflushed: Vec<(Span, NodeSet, bool)>,
    flushing: usize,
    ended: bool,
}

impl Node {
    fn source(&mut self, node: NodeId) -> Option<&mut Source> {
        match self.links.get_mut(&node).map(|l| &mut l.state) {
            Some(State::Source(source)) => Some(source),
            _ => None,
        }
    }

    fn target(&mut self, node: NodeId) -> Option<&mut Target> {
        match self.links.get_mut(&node).map(|l| &mut l.state) {
            Some(State::Target(target)) => Some(target),
            _ => None,
        }
    }

    /// Whatever is to be sent in full is marked.
    pub(super) fn begin_sync(&mut self, node: NodeId, full: bool) {
        if full && let Some(data) = self.replica.as_ref().map(|r| r.layout().shape.data) {
            self.mark(NodeSet::of(node), Span::new(0, data));
            self.save_all = true;
        }
    }

    /// Tells the peer this side's bits for it.
    pub(super) fn send_dirty(&mut self, node: NodeId) {
        let Some(map) = self.replica.as_ref().and_then(|r| r.bitmap(node)) else { return };
        let mut spans: Vec<Span> = Vec::new();
        let mut from = 0;
        while let Some(bit) = map.next_set(from) {
            let span = map.span_of(bit);
            match spans.last_mut().filter(|s| s.end() == span.at) {
                Some(last) => last.len += span.len,
                None => spans.push(span),
            }
            from = bit + 1;
        }
        let mut parts: Vec<Vec<Span>> = spans.chunks(SPANS).map(<[Span]>::to_vec).collect();
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            self.send(node, Message::Dirty(part, false));
        }
        self.send(node, Message::Dirty(last, true));
    }

    pub(super) fn peer_dirty(&mut self, node: NodeId, spans: &[Span], last: bool) {
        for span in spans {
            self.mark(NodeSet::of(node), *span);
        }
        let dirty = self.dirty(node);
        let ready = self.target(node).is_some_and(|t| t.ready);
        let Some(conn) = self.conn(node) else { return };
        let Some(target) = self.target(node).filter(|_| last) else { return };
        target.exchanged = true;
        target.ended = false;
        if dirty == 0 || ready {
            target.ready = true;
            return;
        }
        self.disk = DiskState::Inconsistent;
        if let Some(replica) = &mut self.replica {
            replica.change(|sb| (sb.flags.consistent, sb.flags.up_to_date) = (false, false));
        }
        self.persist(Waiter::Inconsistent(node, conn));
    }

    pub(super) fn target_ready(&mut self, node: NodeId, conn: ConnId) {
        if self.conn(node) == Some(conn)
            && let Some(target) = self.target(node)
        {
            target.ready = true;
        }
    }

    /// Asks for more, flushes, or says that there is no more.
    pub(super) fn pump_pulls(&mut self) {
        let Some(node) = self.linked(|s| matches!(s, State::Target(_))).iter().next() else { return };
        let Some(conn) = self.conn(node) else { return };
        let spans = self.next_pulls(node);
        for span in spans {
            let io = self.io(Purpose::PullRead(node, conn, span));
            self.fx.push(Effect::Read(io, span));
        }
        let dirty = self.dirty(node);
        let Some(target) = self.target(node).filter(|t| t.ready && t.exchanged) else { return };
        let idle = target.window.is_empty();
        if target.unflushed.len() >= FLUSH_AFTER || (idle && !target.unflushed.is_empty()) {
            return self.flush_sync();
        }
        if idle && dirty == 0 && !target.ended {
            target.ended = true;
            self.send(node, Message::PullEnd);
        }
    }

    fn next_pulls(&mut self, node: NodeId) -> Vec<Span> {
        let Some(map) = self.replica.as_ref().and_then(|r| r.bitmap(node)) else { return Vec::new() };
        let Some(State::Target(target)) = self.links.get(&node).map(|l| &l.state) else { return Vec::new() };
        if !target.ready || !target.exchanged {
            return Vec::new();
        }
        let (mut spans, mut from) = (Vec::new(), 0);
        while target.window.len() + spans.len() < WINDOW
            && let Some(bit) = map.next_set(from)
        {
            let span = map.span_of(bit);
            let known = target.window.contains_key(&span.at) || target.unflushed.iter().any(|(s, ..)| *s == span);
            let moving = self.has(Rule::CompareAtRest) && self.is_written_by_others(node, span);
            if !known && !moving {
                spans.push(span);
            }
            from = bit + 1;
        }
        if let Some(target) = self.target(node) {
            target.window.extend(spans.iter().map(|s| (s.at, *s)));
        }
        spans
    }

    /// A write is under way there that this connection to the source did not bring: an order of a former connection, or
    /// of a former reign of this node.
    fn is_written_by_others(&self, source: NodeId, span: Span) -> bool {
        let conn = self.conn(source);
        let brought = |why: &Why| match why {
            Why::Stream(node, by, _) | Why::Sync(node, by, _) => *node == source && Some(*by) == conn,
            Why::App(_) => false,
        };
        self.writes.iter().any(|w| w.span.overlaps(span) && !brought(&w.why))
    }

    /// Whether nothing that is compared, or counts as equal, is changed by others than the source.
    pub(super) fn compares_at_rest(&self) -> bool {
        let moves = |node: NodeId, target: &Target| {
            let compared = target.window.values().chain(target.unflushed.iter().map(|(s, ..)| s));
            compared.copied().any(|s| self.is_written_by_others(node, s))
        };
        self.links.iter().all(|(node, l)| match &l.state {
            State::Target(target) => !moves(*node, target),
            _ => true,
        })
    }

    pub(super) fn pull_read(&mut self, node: NodeId, conn: ConnId, span: Span, bytes: &Bytes) {
        if self.conn(node) == Some(conn) && self.target(node).is_some() {
            self.send(node, Message::Pull(span, digest(bytes)));
        }
    }

    pub(super) fn pull(&mut self, node: NodeId, span: Span, digest: [u8; 32]) {
        if let Some(source) = self.source(node) {
            source.serves.push_back((span, digest, false));
        }
    }

    /// Reads what was asked for and is not being written.
    pub(super) fn pump_serves(&mut self) {
        let mut ready = Vec::new();
        for (node, link) in &self.links {
            let State::Source(source) = &link.state else { continue };
            let waiting = source.serves.iter().enumerate().filter(|(_, (_, _, reading))| !reading);
            ready.extend(
                waiting.filter(|(_, (s, ..))| !self.is_writing(*s)).map(|(n, (s, ..))| (*node, link.conn, n, *s)),
            );
        }
        for (node, conn, n, span) in ready {
            if let Some(serve) = self.source(node).and_then(|s| s.serves.get_mut(n)) {
                serve.2 = true;
                let io = self.io(Purpose::Serve(node, conn, span));
                self.fx.push(Effect::Read(io, span));
            }
        }
    }

    /// A synchronisation reads there, and its answer is not on its way.
    pub(super) fn is_served(&self, span: Span) -> bool {
        self.links.values().any(|l| match &l.state {
            State::Source(source) => source.serves.iter().any(|(s, _, reading)| *reading && s.overlaps(span)),
            _ => false,
        })
    }

    pub(super) fn serve_read(&mut self, node: NodeId, conn: ConnId, span: Span, bytes: Bytes) {
        if self.conn(node) != Some(conn) {
            return;
        }
        let holders = self.holders(node, span);
        let Some(source) = self.source(node) else { return };
        let Some(at) = source.serves.iter().position(|(s, _, reading)| *s == span && *reading) else { return };
        let Some((_, asked, _)) = source.serves.remove(at) else { return };
        let equal = asked == digest(&bytes);
        if equal {
            source.equal += 1;
        } else {
            source.sent += 1;
        }
        self.send(node, Message::Pulled(span, (!equal).then_some(bytes), holders));
    }

    /// Who holds what this primary holds there, for certain.
    fn holders(&self, node: NodeId, span: Span) -> NodeSet {
        if !self.is_primary() {
            return NodeSet::EMPTY;
        }
        if self.requests.values().any(|r| !r.settled && r.span.overlaps(span)) {
            return NodeSet::EMPTY;
        }
        let clean = |n: &NodeId| {
            let map = self.replica.as_ref().and_then(|r| r.bitmap(*n));
            map.is_some_and(|m| m.bits_of(span).all(|b| !m.is_set(b)))
        };
        let with = self.streaming().without(node);
        with.iter().filter(clean).collect()
    }

    pub(super) fn pulled(&mut self, node: NodeId, span: Span, data: Option<Bytes>, holders: NodeSet) {
        let Some(conn) = self.conn(node) else { return };
        let others = self.peers().minus(holders).without(node);
        if data.is_none() && self.is_new() && self.has(Rule::NewcomerMarksOthers) {
            self.mark(others, span);
        }
        let Some(target) = self.target(node).filter(|t| t.window.contains_key(&span.at)) else { return };
        match data {
            None => {
                target.window.remove(&span.at);
                target.unflushed.push((span, holders, false));
            }
            Some(data) => {
                if self.has(Rule::TargetMarksOthers) {
                    self.mark(others, span);
                }
                self.enqueue(span, data, false, Why::Sync(node, conn, holders));
            }
        }
    }

    /// The replica was just made: nobody has bits for what it holds, since it had to be sent everything. When it is filled that is so
    /// no more, and whoever may not hold the same is marked.
    fn is_new(&self) -> bool {
        self.replica.as_ref().is_some_and(|r| r.superblock().current == Generation::JUST_CREATED)
    }

    pub(super) fn sync_written(&mut self, node: NodeId, conn: ConnId, span: Span, holders: NodeSet) {
        let live = self.conn(node) == Some(conn);
        match self.target(node).filter(|_| live) {
            Some(target) => {
                target.window.remove(&span.at);
                target.unflushed.push((span, holders, true));
            }
            None => self.leftover(span, false),
        }
    }

    /// Makes stable what was pulled.
    pub(super) fn flush_sync(&mut self) {
        let Some(node) = self.linked(|s| matches!(s, State::Target(_))).iter().next() else { return };
        let Some(conn) = self.conn(node) else { return };
        let Some(target) = self.target(node).filter(|t| t.flushing == 0 && !t.unflushed.is_empty()) else { return };
        target.flushing = target.unflushed.len();
        let io = self.io(Purpose::SyncFlush(node, conn));
        self.fx.push(Effect::Flush(io));
    }

    pub(super) fn sync_flushed(&mut self, node: NodeId, conn: ConnId) {
        if self.conn(node) != Some(conn) {
            return;
        }
        let Some(target) = self.target(node) else { return };
        let stable: Vec<(Span, NodeSet, bool)> = target.unflushed.drain(..target.flushing).collect();
        target.flushing = 0;
        for (span, holders, pinned) in &stable {
            self.clear_bits(holders.with(node), *span);
            if *pinned {
                self.release(*span);
            }
        }
        self.send(node, Message::PullAck(stable.into_iter().map(|(s, ..)| s).collect()));
    }

    /// A synchronisation ends before its time: what was not acknowledged keeps its bits.
    pub(super) fn sync_lost(&mut self, node: NodeId, conn: ConnId, target: Target) {
        for (span, _, _) in target.unflushed.iter().filter(|(_, _, pinned)| *pinned) {
            self.release(*span);
        }
        let dropped =
            |w: &super::disk::LocalWrite| !w.started && matches!(w.why, Why::Sync(n, c, _) if (n, c) == (node, conn));
        self.writes.retain(|w| !dropped(w));
    }

    /// Bits were set: what was thought to be in sync there is not to be cleared.
    pub(super) fn not_in_sync(&mut self, peers: NodeSet, span: Span) {
        for link in self.links.values_mut() {
            if let State::Target(target) = &mut link.state {
                let hit = target.unflushed.iter_mut().filter(|(s, ..)| s.overlaps(span));
                hit.for_each(|(_, holders, _)| *holders = holders.minus(peers));
            }
        }
        for write in self.writes.iter_mut().filter(|w| w.span.overlaps(span)) {
            if let Why::Sync(_, _, holders) = &mut write.why {
                *holders = holders.minus(peers);
            }
        }
    }

    pub(super) fn pull_acked(&mut self, node: NodeId, spans: &[Span]) {
        let ahead = self.links.get(&node).is_some_and(|l| l.ahead);
        if self.source(node).is_none() || ahead {
            return;
        }
        let others = self.streaming().without(node);
        for span in spans {
            self.clear_bits(NodeSet::of(node), *span);
            if self.is_primary() && !self.requests.values().any(|r| !r.settled && r.span.overlaps(*span)) {
                for other in others.iter() {
                    self.send(other, Message::PeerInSync(node, *span));
                }
            }
        }
    }

    pub(super) fn pull_end(&mut self, node: NodeId) {
        let dirty = self.dirty(node);
        let Some(identity) = self.identity() else { return };
        let Some(source) = self.source(node) else { return };
        if dirty > 0 {
            return self.send_dirty(node);
        }
        source.told = Some(identity.current);
        self.send(node, Message::SyncDone(Box::new(identity)));
    }

    /// The target is what the source is.
    pub(super) fn sync_done(&mut self, node: NodeId, identity: Identity) {
        let (Some(conn), me) = (self.conn(node), self.me()) else { return };
        if self.target(node).is_none() {
            return;
        }
        let quorum = self.config.quorum;
        // Its bits were of no account before.
        self.save_all |= self.is_new();
        let Some(replica) = &mut self.replica else { return };
        replica.change(|sb| {
            let former = sb.current;
            sb.history.clone_from(&identity.history);
            sb.remember(former);
            sb.history.retain(|g| *g != identity.current);
            (sb.current, sb.began) = (identity.current, identity.began);
            for (other, bitmap) in identity.bitmaps.iter().filter(|(n, _)| *n != me && *n != node) {
                if let Some(peer) = sb.peer_mut(*other) {
                    peer.bitmap = *bitmap;
                }
            }
            if let Some(peer) = sb.peer_mut(node) {
                (peer.bitmap, peer.connected, peer.full_sync) = (Generation::NONE, true, false);
            }
            let member = !quorum || sb.grant.members.has(me);
            sb.flags.primary = false;
            (sb.flags.consistent, sb.flags.up_to_date) = (true, identity.up_to_date && member);
            sb.flags.lost_quorum = false;
        });
        self.persist(Waiter::SyncDone(node, conn));
    }

    pub(super) fn target_done(&mut self, node: NodeId, conn: ConnId) {
        if self.conn(node) != Some(conn) || self.target(node).is_none() {
            return;
        }
        let good = self.replica.as_ref().is_some_and(|r| r.superblock().flags.up_to_date);
        self.disk = if good { DiskState::UpToDate } else { DiskState::Outdated };
        (self.crashed, self.lost_quorum, self.lost_primary, self.discard) = (false, false, None, false);
        self.restarted &= self.links.get(&node).and_then(|l| l.hello.as_ref()).is_some_and(|h| h.side.restarted);
        if let Some(link) = self.links.get_mut(&node) {
            link.state = State::Equal;
        }
        self.send(node, Message::SyncDoneAck);
        self.regroup();
    }

    pub(super) fn sync_done_acked(&mut self, node: NodeId) {
        let Some(source) = self.source(node) else { return };
        let (told, sent, equal) = (source.told, source.sent, source.equal);
        if let Some(link) = self.links.get_mut(&node) {
            link.state = State::Equal;
        }
        if let Some(replica) = &mut self.replica {
            replica.change(|sb| {
                let current = sb.current;
                if let Some(peer) = sb.peer_mut(node) {
                    let old = peer.bitmap;
                    peer.bitmap = told.filter(|t| *t != current).unwrap_or(Generation::NONE);
                    peer.connected = peer.bitmap == Generation::NONE;
                    sb.remember(old);
                }
            });
        }
        self.crashed &= self.is_primary();
        self.tell(Report::Synchronised(node, sent, equal));
        self.joins(node);
        self.regroup();
    }
}

/// What stands for bytes: two that differ have different ones, for all that is known.
fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
