//! The stream at a peer: writes as they come, barriers, and what is not settled yet.
//!
//! An entry is remembered until the primary says who has it. If the primary is lost first, every other replica may lack
//! it or not: its bits are set for all. Without that two secondaries differ in a block, and neither knows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Node;
use super::connect::State;
use super::event::{ConnId, Content, Effect, Message};
use super::ios::Purpose;
use super::rules::Rule;
use super::spans::SpanIndex;
use super::writes::Why;
use crate::ids::{NodeId, NodeSet, Seq, Span, Volume};

/// What came from a primary and is not settled.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) from: Option<(NodeId, ConnId)>,
    pub(super) last: Seq,
    entries: BTreeMap<Seq, Entry>,
    /// Those of them that are not written, and where all of them are.
    unwritten: BTreeSet<Seq>,
    spans: SpanIndex,
    /// Positions, and whether the flush is under way.
    barriers: VecDeque<(Seq, bool)>,
    /// A settlement was asked for.
    pub(super) asked: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    span: Span,
    epoch: u64,
    done: bool,
    settled: bool,
}

impl Stream {
    /// Nothing came yet; the position is the disk's.
    pub(super) fn after(last: Seq) -> Stream {
        Stream { last, ..Stream::default() }
    }

    /// Nothing is remembered.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.barriers.is_empty()
    }

    fn insert(&mut self, seq: Seq, span: Span, epoch: u64) {
        self.entries.insert(seq, Entry { span, epoch, done: false, settled: false });
        self.unwritten.insert(seq);
        self.spans.insert(span, seq.0);
    }

    /// It is written; true if it is to be remembered.
    fn written(&mut self, seq: Seq, live: bool) -> bool {
        self.unwritten.remove(&seq);
        match self.entries.get_mut(&seq) {
            Some(entry) if live && !entry.settled => {
                entry.done = true;
                true
            }
            _ => {
                self.forget(seq);
                false
            }
        }
    }

    fn forget(&mut self, seq: Seq) {
        if let Some(entry) = self.entries.remove(&seq) {
            self.spans.remove(entry.span, seq.0);
        }
        self.unwritten.remove(&seq);
    }

    /// Everything up to a position is settled: it comes back, and what of it is written is forgotten. That is thousands at a time, and few
    /// are left: what is kept of those is made anew.
    fn settle(&mut self, upto: Seq) -> Vec<Entry> {
        let later = self.entries.split_off(&upto.next());
        let settled = std::mem::replace(&mut self.entries, later);
        self.spans.clear();
        self.entries.iter().for_each(|(seq, e)| self.spans.insert(e.span, seq.0));
        for (seq, entry) in settled.iter().filter(|(_, e)| !e.done) {
            self.spans.insert(entry.span, seq.0);
            self.entries.insert(*seq, Entry { settled: true, ..*entry });
        }
        settled.into_values().collect()
    }

    /// Whether everything up to a position is written.
    fn is_written(&self, upto: Seq) -> bool {
        self.unwritten.first().is_none_or(|s| *s > upto)
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.unwritten.clear();
        self.spans.clear();
        self.barriers.clear();
        self.from = None;
        self.asked = false;
    }
}

impl Node {
    // long: the fields of the one message, in its order; a struct of them would be the message again.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn stream_write(
        &mut self,
        node: NodeId,
        seq: Seq,
        epoch: u64,
        span: Span,
        content: Content,
        fua: bool,
        receipt: bool,
    ) {
        let Some(conn) = self.conn(node) else { return };
        if !self.may_follow(node) {
            return self.link_close(node, true);
        }
        if self.stream.from != Some((node, conn)) {
            self.stream.clear();
            self.stream.from = Some((node, conn));
            self.lost_primary = None;
        }
        self.stream.last = seq;
        self.stream.insert(seq, span, epoch);
        self.touch_checks(span);
        self.enqueue(span, content, fua, Why::Stream(node, conn, seq));
        if receipt {
            self.send(node, Message::RecvAck(seq));
        }
    }

    /// Whether this node takes the stream of a peer: not under a ballot lower than it promised.
    fn may_follow(&self, node: NodeId) -> bool {
        let Some(link) = self.links.get(&node) else { return false };
        let reigns = link.hello.as_ref().and_then(|h| h.reigns);
        let promised = self.replica.as_ref().map(|r| r.superblock().promised).unwrap_or_default();
        let low = self.config.quorum && reigns.is_some_and(|b| b < promised) && self.has(Rule::LowerBallotRefused);
        let streams = matches!(link.state, State::Equal | State::Target(_));
        streams && reigns.is_some() && !low && self.replica.is_some() && !self.is_primary()
    }

    /// Whether an entry's turn has come.
    pub(super) fn stream_may_write(&self, node: NodeId, conn: ConnId, seq: Seq) -> bool {
        if self.stream.from != Some((node, conn)) {
            return true;
        }
        let waits = self.links.get(&node).filter(|l| l.conn == conn).is_some_and(|l| match &l.state {
            State::Target(target) => !target.ready,
            _ => false,
        });
        let epoch = |seq: &Seq| self.stream.entries.get(seq).map_or(0, |e| e.epoch);
        let volume = |seq: &Seq| self.stream.entries.get(seq).and_then(|e| Volume::of(e.span.at));
        let ordered = self.has(Rule::BarrierBeforeLater);
        let one_order = self.has(Rule::VolumesInOneOrder);
        // Epochs and barriers grow along the stream: the first that is not over stands for all, of whichever volume.
        let mut before = self.stream.unwritten.range(..seq);
        let first = before.find(|s| one_order || volume(s) == volume(&seq));
        let earlier = ordered && first.is_some_and(|first| epoch(first) < epoch(&seq));
        let barrier = ordered && self.stream.barriers.front().is_some_and(|(upto, _)| *upto < seq);
        !waits && !earlier && !barrier
    }

    pub(super) fn stream_written(&mut self, node: NodeId, conn: ConnId, seq: Seq, span: Span) {
        let live = self.conn(node) == Some(conn);
        let remembered = self.stream.from == Some((node, conn)) && self.stream.written(seq, live);
        if !remembered {
            self.leftover(span, live);
        }
        if live {
            self.send(node, Message::WriteAck(seq));
        }
    }

    /// A write is done that nobody settles any more. If who asked for it is gone, its bits may have been cleared since.
    /// That no comparison from before clears them again is said by the target (`resync`).
    pub(super) fn leftover(&mut self, span: Span, live: bool) {
        if !live && self.has(Rule::UnsettledBecomesDirty) {
            let all = self.peers();
            self.mark(all, span);
        }
        self.release(span);
    }

    pub(super) fn stream_barrier(&mut self, node: NodeId, seq: Seq) {
        let Some(conn) = self.conn(node) else { return };
        if !self.may_follow(node) {
            return self.link_close(node, true);
        }
        if self.stream.from != Some((node, conn)) {
            self.stream.clear();
            self.stream.from = Some((node, conn));
        }
        self.stream.barriers.push_back((seq, false));
    }

    /// The oldest barrier is flushed when everything before it is written.
    pub(super) fn pump_barriers(&mut self) {
        let Some((_, conn)) = self.stream.from else { return };
        let Some((seq, flushing)) = self.stream.barriers.front().copied() else { return };
        if !flushing && self.stream.is_written(seq) {
            self.stream.barriers[0].1 = true;
            let io = self.io(Purpose::Barrier(conn, seq));
            self.fx.push(Effect::Flush(io));
        }
    }

    pub(super) fn barrier_flushed(&mut self, conn: ConnId, seq: Seq) {
        let Some((node, from)) = self.stream.from.filter(|(_, c)| *c == conn) else { return };
        if self.stream.barriers.front().is_some_and(|(s, f)| *s == seq && *f) {
            self.stream.barriers.pop_front();
            if self.conn(node) == Some(from) {
                self.send(node, Message::BarrierAck(seq));
            }
        }
    }

    pub(super) fn stream_settled(&mut self, node: NodeId, upto: Seq, holders: NodeSet) {
        self.stream.asked = false;
        if self.stream.from.map(|(n, _)| n) != Some(node) {
            return;
        }
        let others = self.peers().minus(holders);
        for Entry { span, done, .. } in self.stream.settle(upto) {
            self.mark(others, span);
            if done {
                self.release(span);
            }
        }
    }

    /// The primary of the stream is gone: nobody knows who has what is not settled.
    pub(super) fn stream_lost(&mut self, node: NodeId, farewell: bool) {
        if self.stream.from.map(|(n, _)| n) != Some(node) {
            return;
        }
        if !farewell {
            self.lost_primary = Some(node);
        }
        self.stream.barriers.clear();
        self.stream.asked = false;
        let all = self.peers();
        let entries: Vec<(Seq, Span, bool)> = self.stream.entries.iter().map(|(s, e)| (*s, e.span, e.done)).collect();
        for (seq, span, done) in entries {
            if self.has(Rule::UnsettledBecomesDirty) {
                self.mark(all, span);
            }
            if done {
                self.stream.forget(seq);
                self.release(span);
            }
        }
    }

    /// The primary knows that a peer holds what it holds there, and so does this node.
    pub(super) fn peer_in_sync(&mut self, node: NodeId, peer: NodeId, span: Span) {
        if self.stream.spans.hits(span) || self.follows() != Some(node) {
            return;
        }
        match self.links.get_mut(&node).map(|l| &mut l.state) {
            Some(State::Equal) => self.clear_bits(NodeSet::of(peer), span),
            Some(State::Target(target)) => {
                target.told(peer, span);
                self.clear_where_clean(node, peer, span);
            }
            _ => {}
        }
    }

    /// Clears the bits for a peer that lie wholly in a span, where this node has what the source has.
    fn clear_where_clean(&mut self, source: NodeId, peer: NodeId, span: Span) {
        let Some(map) = self.replica.as_ref().and_then(|r| r.bitmap(source)) else { return };
        let clean: Vec<Span> = map.bits_of(span).filter(|b| !map.is_set(*b)).map(|b| map.span_of(b)).collect();
        let whole = |s: &Span| s.at >= span.at && s.end() <= span.end();
        clean.into_iter().filter(whole).for_each(|s| self.clear_bits(NodeSet::of(peer), s));
    }

    /// Clears the bits that lie wholly in a span.
    pub(super) fn clear_bits(&mut self, peers: NodeSet, span: Span) {
        let Some(replica) = &mut self.replica else { return };
        for peer in peers.iter() {
            let Some(map) = replica.bitmap(peer) else { continue };
            let whole = |b: &u64| map.span_of(*b).at >= span.at && map.span_of(*b).end() <= span.end();
            let bits: Vec<u64> = map.bits_of(span).filter(whole).collect();
            bits.into_iter().for_each(|b| replica.clear(peer, b));
        }
    }
}
