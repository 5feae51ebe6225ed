//! Synchronisation: the source's end.
//!
//! The source reads a run when nothing older is being written there, and its applications' writes to the run wait until the
//! answer is on its way: so the answer and the stream, on one connection, are in the order in which they have to be
//! written. Writes wait also for a run that cannot be read yet. Prevents: an application always has a write under way
//! somewhere in the run, it is never read, and the synchronisation never ends; this way what is under way ends, and is
//! finite.
//!
//! A write that the disk fails, and that is passed on, leaves nobody knows what: it is *spoiled* for a target until a run that covers it is
//! read again, and an acknowledgement does not clear it before (`SpoiledStays`). Prevents: a run is on its way to the target; a write there goes to
//! the target, too, and fails here; it is marked, and the acknowledgement of the run, which says nothing of it, clears the mark. The two
//! are equal then, and differ.

use std::collections::VecDeque;

use super::Node;
use super::connect::State;
use super::event::{ConnId, Effect, Message, Moved, Report};
use super::ios::Purpose;
use super::pieces::{Compared, Digest, Kind};
use super::progress::Progress;
use super::resync::RUNS;
use super::rules::Rule;
use crate::ids::{Generation, NodeId, NodeSet, Span};

/// Beyond so many spoiled spans a connection begins anew, with the bits as they are.
const SPOILED: usize = 256;

/// The source's end.
#[derive(Debug, Default)]
pub(super) struct Source {
    serves: VecDeque<Serve>,
    /// What a failed write may have left since it was read for the target.
    spoiled: Vec<Span>,
    /// What the target was told that it is.
    pub(super) told: Option<Generation>,
    moved: Moved,
    pub(super) progress: Progress,
}

/// What was asked for.
#[derive(Debug)]
struct Serve {
    run: Span,
    digests: Vec<Digest>,
    reading: bool,
}

impl Node {
    fn source(&mut self, node: NodeId) -> Option<&mut Source> {
        match self.links.get_mut(&node).map(|l| &mut l.state) {
            Some(State::Source(source)) => Some(source),
            _ => None,
        }
    }

    /// The target asks for a run. More at once than it may ends the connection.
    pub(super) fn pull(&mut self, node: NodeId, run: Span, digests: Vec<Digest>) {
        let Some(source) = self.source(node) else { return };
        if source.serves.len() >= RUNS {
            return self.link_close(node, true);
        }
        source.serves.push_back(Serve { run, digests, reading: false });
    }

    /// Reads what was asked for and is not being written.
    pub(super) fn pump_serves(&mut self) {
        let mut ready = Vec::new();
        for (node, link) in &self.links {
            let State::Source(source) = &link.state else { continue };
            let waiting = source.serves.iter().enumerate().filter(|(_, s)| !s.reading && !self.is_writing(s.run));
            ready.extend(waiting.map(|(n, _)| (*node, link.conn, n)));
        }
        for (node, conn, n) in ready {
            if let Some(serve) = self.source(node).and_then(|s| s.serves.get_mut(n)) {
                serve.reading = true;
                let (run, digests) = (serve.run, std::mem::take(&mut serve.digests));
                let io = self.io(Purpose::Serve(node, conn, run));
                self.fx.push(Effect::Compare(io, run, digests));
            }
        }
    }

    /// A synchronisation, a verification or a repair reads there, or is about to, and its answer is not on its way.
    pub(super) fn is_served(&self, span: Span) -> bool {
        self.is_compared(span) || self.is_repaired(span) || self.is_pulled(span)
    }

    fn is_pulled(&self, span: Span) -> bool {
        self.links.values().any(|l| match &l.state {
            State::Source(source) => source.serves.iter().any(|s| s.run.overlaps(span)),
            _ => false,
        })
    }

    pub(super) fn serve_compared(&mut self, node: NodeId, conn: ConnId, run: Span, found: Compared) {
        if self.conn(node) != Some(conn) {
            return;
        }
        let (holders, room) = (self.holders(node, run), self.pace.room());
        let Some(source) = self.source(node) else { return };
        let Some(at) = source.serves.iter().position(|s| s.run == run && s.reading) else { return };
        source.serves.remove(at);
        source.spoiled = source.spoiled.drain(..).flat_map(|s| s.without(run)).collect();
        for piece in &found.pieces {
            let sum = match piece.kind {
                Kind::Same => &mut source.moved.equal,
                Kind::Zero => &mut source.moved.zeroed,
                Kind::Data => &mut source.moved.sent,
            };
            *sum += u64::from(piece.units);
        }
        let Compared { pieces, data } = found;
        self.send(node, Message::Pulled { run, pieces, data, holders, room });
    }

    /// Who holds what this primary holds there, for certain.
    fn holders(&self, node: NodeId, span: Span) -> NodeSet {
        let with = self.streaming().without(node);
        if with.is_empty() || !self.is_primary() || self.requests.is_open(span) {
            return NodeSet::EMPTY;
        }
        let clean = |n: &NodeId| {
            let map = self.replica.as_ref().and_then(|r| r.bitmap(*n));
            map.is_some_and(|m| m.bits_of(span).all(|b| !m.is_set(b)))
        };
        with.iter().filter(clean).collect()
    }

    pub(super) fn pull_acked(&mut self, node: NodeId, spans: &[Span]) {
        let ahead = self.links.get(&node).is_some_and(|l| l.ahead);
        if self.source(node).is_none() || ahead {
            return;
        }
        let others = self.streaming().without(node);
        for span in spans {
            self.clear_bits(NodeSet::of(node), *span);
            let spoiled = self.marks_spoiled(node, *span);
            if !others.is_empty() && self.is_primary() && !self.requests.is_open(*span) && !spoiled {
                for other in others.iter() {
                    self.send(other, Message::PeerInSync(node, *span));
                }
            }
        }
        self.save_cleared();
    }

    /// A write that failed here may have left anything there, after that was read for a target.
    pub(super) fn spoil(&mut self, span: Span) {
        let mut anew = Vec::new();
        for (node, link) in &mut self.links {
            let State::Source(source) = &mut link.state else { continue };
            if !source.spoiled.contains(&span) {
                source.spoiled.push(span);
            }
            // One that was told that it has everything is not marked under that: it begins anew.
            if source.spoiled.len() > SPOILED || source.told.is_some() {
                anew.push(*node);
            }
        }
        anew.into_iter().for_each(|node| self.link_close(node, true));
    }

    /// Marks again what is spoiled of a span; whether any of it is.
    fn marks_spoiled(&mut self, node: NodeId, span: Span) -> bool {
        if !self.has(Rule::SpoiledStays) {
            return false;
        }
        let Some(source) = self.source(node) else { return false };
        let spoiled: Vec<Span> = source.spoiled.iter().filter_map(|s| s.and(span)).collect();
        spoiled.iter().for_each(|s| self.mark(NodeSet::of(node), *s));
        !spoiled.is_empty()
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

    pub(super) fn sync_done_acked(&mut self, node: NodeId) {
        let Some(source) = self.source(node) else { return };
        let (told, moved) = (source.told, source.moved);
        if let Some(link) = self.links.get_mut(&node) {
            link.state = State::Equal;
        }
        if let Some(replica) = &mut self.replica {
            replica.change(|sb| {
                let current = sb.current;
                if let Some(peer) = sb.peer_mut(node) {
                    let old = peer.bitmap;
                    peer.full_sync = false;
                    peer.bitmap = told.filter(|t| *t != current).unwrap_or(Generation::NONE);
                    peer.connected = peer.bitmap == Generation::NONE;
                    sb.remember(old);
                }
            });
        }
        self.save_all = true;
        self.crashed &= self.is_primary();
        self.tell(Report::Synchronised(node, moved));
        self.joins(node);
        self.regroup();
    }
}
