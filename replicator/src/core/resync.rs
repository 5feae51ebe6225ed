//! Synchronisation: what both ends have in common, and the target's end. The source's is in `serve`.
//!
//! ```text
//!   Dirty, both ways ──► next run ──► digests of it ──► Pull ──► Pulled ──► written ──► flushed ──► PullAck: bits cleared
//!                            ▲   └──── (all of it) ───────┘        └─ same ──────────────▲              │
//!                            └──────────────────────────────────────────────────────────────────────────┘
//! ```
//! The target pulls what either side has bits for, in runs of adjacent blocks, with digests of what it has; the source sends
//! only blocks that differ, and of those that are zero only that they are. Where nearly everything differs digests cost more than
//! they save: then runs are asked for without, but for one in a while ([`Chooser`]). How much may be asked for at once
//! the source says with each answer (`pace`).
//!
//! The target acknowledges what it has flushed; only then bits are cleared, on both sides. Nothing of it is lost by a crash of
//! either: what is not acknowledged keeps its bits; and that bits were cleared is written down about once a second, so that
//! a long synchronisation goes on where it was.
//!
//! The target compares only where nothing is under way that its source did not order on this connection. Prevents: a
//! write of a former connection is on its way to the disk, the digest is read before it lands and is equal, the write lands
//! and sets bits for all, and the acknowledgement of what was compared clears them on both sides: the two
//! differ, and neither knows.
//!
//! What the target writes makes it differ from others as well: their bits are set first, except for those of which the
//! source knows that they hold the same.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Node;
use super::config::Protocol;
use super::connect::State;
use super::disk::Waiter;
use super::event::{ConnId, Content, Effect, Identity, Message, Now};
use super::ios::Purpose;
use super::pieces::{Digest, Kind, Piece, spread};
use super::progress::Progress;
use super::rules::Rule;
use super::writes::{LocalWrite, Why};
use crate::ids::{Generation, NodeId, NodeSet, SECTOR, Span};
use crate::meta::map::Map;
use crate::meta::superblock::DiskState;

/// Runs under way at most: scattered blocks are runs of one.
pub(super) const RUNS: usize = 256;
/// Runs after which a target flushes, whatever they hold.
const FLUSH_RUNS: usize = 1024;
/// Milliseconds after which it flushes what it has. Prevents: over a slow line the amount that is flushed at once takes a minute, and a
/// connection that breaks more often than that never comes to an end: what was not flushed is sent again.
const FLUSH_AFTER: u64 = 1_000;
/// Spans of one message of bits.
const SPANS: usize = 1024;
/// Milliseconds after which cleared bits are written down.
const SAVE_AFTER: u64 = 1_000;

/// The target's end.
#[derive(Debug, Default)]
pub(super) struct Target {
    /// Both know the bits of both.
    exchanged: bool,
    /// It is written down that the data are in the middle; or nothing is to be done.
    pub(super) ready: bool,
    /// What was asked for, by its start.
    window: BTreeMap<u64, Run>,
    /// Bytes of it.
    asked: u64,
    /// Bytes that may be asked for at once; what the source said last.
    room: Option<u64>,
    /// Same as the source's and not flushed.
    unflushed: Vec<Run>,
    /// Since when there has been any.
    unflushed_since: Option<Now>,
    /// Starts and ends of all of these: they do not overlap.
    claimed: BTreeMap<u64, u64>,
    claimed_sectors: u64,
    /// The bit to look at next.
    next: u64,
    flushing: usize,
    ended: bool,
    chooser: Chooser,
    pub(super) progress: Progress,
}

/// A run of blocks on its way.
#[derive(Debug)]
struct Run {
    span: Span,
    /// Its answer has come.
    answered: bool,
    /// Writes of it that are not done.
    open: usize,
    /// Who else holds the same.
    holders: NodeSet,
    /// What the source said since that others hold as well.
    told: Vec<(NodeId, Span)>,
    /// What was written, and is pinned.
    pins: Vec<Span>,
}

/// Whether runs are asked for with digests.
#[derive(Debug, Default)]
struct Chooser {
    same: u64,
    differ: u64,
    plain: u32,
    /// They always are.
    always: bool,
}

impl Chooser {
    /// Units that are looked back at.
    const BACK: u64 = 4096;
    /// One run in so many has digests, whatever was seen.
    const STILL: u32 = 16;

    /// A run with digests was answered.
    fn learn(&mut self, pieces: &[Piece]) {
        for piece in pieces {
            let sum = if piece.kind == Kind::Same { &mut self.same } else { &mut self.differ };
            *sum += u64::from(piece.units);
        }
        if self.same + self.differ > Chooser::BACK {
            (self.same, self.differ) = (self.same / 2, self.differ / 2);
        }
    }

    /// True if the next run goes without.
    fn goes_without(&mut self) -> bool {
        let without =
            !self.always && self.differ > 256 && self.same * 8 < self.differ && self.plain + 1 < Chooser::STILL;
        self.plain = if without { self.plain + 1 } else { 0 };
        without
    }
}

impl Target {
    /// One that begins, or goes on: then what came last before may be there and have bits all the same, among much that differs. It
    /// is not sent again, so nothing is asked for without digests.
    pub(super) fn new(goes_on: bool) -> Target {
        Target { chooser: Chooser { always: goes_on, ..Chooser::default() }, ..Target::default() }
    }

    fn claim(&mut self, span: Span) {
        self.claimed.insert(span.at, span.end());
        self.claimed_sectors += span.len;
        self.asked += span.len * SECTOR;
        let run = Run { span, answered: false, open: 0, holders: NodeSet::EMPTY, told: Vec::new(), pins: Vec::new() };
        self.window.insert(span.at, run);
    }

    /// The end of what is claimed there.
    fn claimed_until(&self, span: Span) -> Option<u64> {
        let (_, end) = self.claimed.range(..span.end()).next_back()?;
        (*end > span.at).then_some(*end)
    }

    /// A run is the same as the source's.
    fn settled(&mut self, at: u64) {
        if let Some(run) = self.window.remove(&at) {
            self.asked -= run.span.len * SECTOR;
            self.unflushed.push(run);
        }
    }

    /// The source and another hold the same there; this node will when its answers are stable.
    pub(super) fn told(&mut self, peer: NodeId, span: Span) {
        let all = self.window.values_mut().chain(&mut self.unflushed).filter(|r| r.answered);
        for run in all.filter(|r| r.span.overlaps(span)) {
            let (from, end) = (run.span.at.max(span.at), run.span.end().min(span.end()));
            run.told.push((peer, Span::new(from, end - from)));
        }
    }

    fn unflushed_bytes(&self) -> u64 {
        self.unflushed.iter().map(|r| r.span.len * SECTOR).sum()
    }

    fn runs(&self) -> impl Iterator<Item = &Run> {
        self.window.values().chain(&self.unflushed)
    }
}

impl Node {
    fn target(&mut self, node: NodeId) -> Option<&mut Target> {
        match self.links.get_mut(&node).map(|l| &mut l.state) {
            Some(State::Target(target)) => Some(target),
            _ => None,
        }
    }

    /// Whatever is to be sent in full is marked. If both sides have done that before, and it was not over, what differs has bits
    /// ever since, and it goes on: the bits are durable before the flag that says so.
    ///
    /// Nobody had bits for what a new replica holds, since it had to be sent everything; when it is filled that is so no more. So it is
    /// marked for the others as well, before its first block is found equal, and what the source knows that they hold is cleared.
    /// Prevents: the bit for the source is cleared on the disk, the mark for another is lost by a crash, and the synchronisation
    /// that goes on does not come to that block again.
    ///
    /// True if it goes on.
    pub(super) fn begin_sync(&mut self, node: NodeId, full: bool) -> bool {
        let theirs = self.links.get(&node).and_then(|l| l.hello.as_ref()).is_some_and(|h| h.begun);
        let Some(sb) = self.replica.as_ref().map(|r| r.superblock()).filter(|_| full) else { return false };
        if theirs && sb.peer(node).is_some_and(|p| p.full_sync) {
            return true;
        }
        let (volumes, peers) = (sb.sizes(), NodeSet::of(node).or(self.unmarked()));
        volumes.iter().for_each(|(volume, sectors)| self.mark(peers, volume.span(sectors)));
        self.save_all |= self.has(Rule::BegunAfterBits);
        if let Some(replica) = &mut self.replica {
            replica.change(|sb| {
                if let Some(peer) = sb.peer_mut(node) {
                    peer.full_sync = true;
                }
            });
        }
        false
    }

    /// Peers for which a new replica has not marked everything yet.
    fn unmarked(&self) -> NodeSet {
        let sb = self.replica.as_ref().map(|r| r.superblock());
        let new = sb.filter(|s| s.current == Generation::JUST_CREATED && self.has(Rule::NewcomerMarksOthers));
        let peers = new.into_iter().flat_map(|s| &s.peers);
        peers.filter(|p| !p.full_sync).map(|p| p.node).collect()
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
        while let Some(run) = self.next_run(node) {
            let Some(target) = self.target(node) else { return };
            target.claim(run);
            if target.chooser.goes_without() {
                self.send(node, Message::Pull(run, Vec::new()));
            } else {
                let io = self.io(Purpose::PullDigest(node, conn, run));
                self.fx.push(Effect::Digest(io, run));
            }
        }
        let (dirty, flush_bytes, now) = (self.dirty(node), self.config.resync.flush_bytes, self.now);
        let Some(target) = self.target(node).filter(|t| t.ready && t.exchanged) else { return };
        let idle = target.window.is_empty();
        let some = !target.unflushed.is_empty();
        target.unflushed_since = target.unflushed_since.or(Some(now)).filter(|_| some);
        let long = target.unflushed_since.is_some_and(|since| now.0.saturating_sub(since.0) >= FLUSH_AFTER);
        let many = target.unflushed.len() >= FLUSH_RUNS || target.unflushed_bytes() >= flush_bytes;
        if many || long || (idle && some) {
            return self.flush_sync();
        }
        if idle && dirty == 0 && !target.ended {
            target.ended = true;
            self.send(node, Message::PullEnd);
        }
    }

    /// The next run to ask for, if there is room for it.
    fn next_run(&mut self, node: NodeId) -> Option<Span> {
        let limits = self.config.resync;
        let map = self.replica.as_ref()?.bitmap(node)?;
        let Some(State::Target(target)) = self.links.get(&node).map(|l| &l.state) else { return None };
        let room = target.room.unwrap_or(limits.room.0);
        let all_claimed = map.set_sectors() <= target.claimed_sectors;
        let full = !target.window.is_empty() && (target.asked >= room || target.window.len() >= RUNS);
        if !target.ready || !target.exchanged || all_claimed || full {
            return None;
        }
        // A run has at least one bit, however much that is.
        let most = (room / 4 / SECTOR).min(limits.run_sectors);
        let run = self.run_from(node, target, map, target.next, most);
        let run = run.or_else(|| self.run_from(node, target, map, 0, most))?;
        let next = map.bits_of(run).end;
        self.target(node)?.next = next;
        Some(run)
    }

    /// The first run of set bits from one on that are not claimed, and where nobody else writes; of one extent.
    ///
    /// Prevents: the log is full of writes of the stream that are not settled, but for one slot, and the oldest write that waits is of a run and
    /// wants two. A write of the stream behind it wants one, and the settlement that would make room waits for that: all wait for ever. What the
    /// stream has open fits into every log, the primary sees to that; and a run that is written is made stable, and gives its slot back.
    fn run_from(&self, node: NodeId, target: &Target, map: &Map, from: u64, most: u64) -> Option<Span> {
        let moving = |span| self.has(Rule::CompareAtRest) && self.is_written_by_others(node, span);
        let extent = |span| self.replica.as_ref().map(|r| r.extents(span).start);
        let mut from = from;
        let mut run: Option<Span> = None;
        while let Some(bit) = map.next_set(from) {
            let span = map.span_of(bit);
            let ends = |run: Span| run.end() != span.at || run.len + span.len > most || extent(run) != extent(span);
            if run.is_some_and(ends) {
                break;
            }
            let taken = target.claimed_until(span);
            match &mut run {
                Some(_) if taken.is_some() || moving(span) => break,
                Some(run) => run.len += span.len,
                None if taken.is_none() && !moving(span) => run = Some(span),
                None => {}
            }
            let behind = |end: u64| map.bits_of(Span::new(span.at, end - span.at)).end;
            from = taken.map_or(bit + 1, |end| behind(end).max(bit + 1));
        }
        run
    }

    /// A write is under way there that this connection to the source did not bring: an order of a former connection, or
    /// of a former reign of this node.
    fn is_written_by_others(&self, source: NodeId, span: Span) -> bool {
        let conn = self.conn(source);
        let brought = |why: &Why| match why {
            Why::Stream(node, by, _) | Why::Sync(node, by, _) => *node == source && Some(*by) == conn,
            Why::App(_) => false,
        };
        self.writes.under(span).any(|w| !brought(&w.why))
    }

    /// Whether nothing that is compared, or counts as equal, is changed by others than the source.
    pub(super) fn compares_at_rest(&self) -> bool {
        let moves = |node: NodeId, target: &Target| target.runs().any(|r| self.is_written_by_others(node, r.span));
        self.links.iter().all(|(node, l)| match &l.state {
            State::Target(target) => !moves(*node, target),
            _ => true,
        })
    }

    pub(super) fn pull_digested(&mut self, node: NodeId, conn: ConnId, run: Span, digests: Vec<Digest>) {
        if self.conn(node) == Some(conn) && self.target(node).is_some() {
            self.send(node, Message::Pull(run, digests));
        }
    }

    /// An answer. What does not fit what was asked for ends the connection.
    pub(super) fn pulled(
        &mut self,
        node: NodeId,
        run: Span,
        pieces: &[Piece],
        data: &Bytes,
        holders: NodeSet,
        room: u64,
    ) {
        let end = self.replica.as_ref().map_or(0, |r| r.sizes().end_of(run.at));
        let sector = self.config.resync.sector_bytes;
        let (Some(conn), others) = (self.conn(node), self.peers().minus(holders).without(node)) else { return };
        let Some(target) = self.target(node) else { return };
        let asked = target.window.get(&run.at).is_some_and(|r| r.span == run && !r.answered);
        let Some(parts) = spread(run, pieces, data, end, sector).filter(|_| asked) else {
            return self.link_close(node, true);
        };
        target.room = Some(room);
        target.chooser.learn(pieces);
        let parts: Vec<_> = parts.into_iter().filter(|(_, kind, _)| *kind != Kind::Same).collect();
        if self.has(Rule::TargetMarksOthers) {
            parts.iter().for_each(|(span, ..)| self.mark(others, *span));
        }
        let Some(target) = self.target(node) else { return };
        if let Some(run) = target.window.get_mut(&run.at) {
            (run.answered, run.holders, run.open) = (true, holders, parts.len());
        }
        if parts.is_empty() {
            target.settled(run.at);
        }
        for (span, kind, data) in parts {
            let content = if kind == Kind::Zero { Content::Zeroes { free: true } } else { Content::Data(data) };
            self.enqueue(span, content, false, Why::Sync(node, conn, run.at));
        }
    }

    pub(super) fn sync_written(&mut self, node: NodeId, conn: ConnId, span: Span, run: u64) {
        let live = self.conn(node) == Some(conn);
        let Some(target) = self.target(node).filter(|_| live) else { return self.leftover(span, false) };
        let Some(found) = target.window.get_mut(&run) else { return };
        found.pins.push(span);
        found.open -= 1;
        if found.open == 0 {
            target.settled(run);
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
        let stable: Vec<Run> = target.unflushed.drain(..target.flushing).collect();
        target.flushing = 0;
        target.unflushed_since = None;
        for run in &stable {
            target.claimed.remove(&run.span.at);
            target.claimed_sectors -= run.span.len;
        }
        for run in &stable {
            self.clear_bits(run.holders.with(node), run.span);
            run.told.iter().for_each(|(peer, span)| self.clear_bits(NodeSet::of(*peer), *span));
            run.pins.iter().for_each(|span| self.release(*span));
        }
        self.send(node, Message::PullAck(stable.into_iter().map(|r| r.span).collect()));
        self.save_cleared();
    }

    /// Bits were cleared: now and then that is written down.
    pub(super) fn save_cleared(&mut self) {
        if self.now.0.saturating_sub(self.saved_at.0) >= SAVE_AFTER {
            self.saved_at = self.now;
            self.save_all = true;
        }
    }

    /// A synchronisation ends before its time: what was not acknowledged keeps its bits.
    pub(super) fn sync_lost(&mut self, node: NodeId, conn: ConnId, target: &Target) {
        for span in target.runs().flat_map(|r| &r.pins) {
            self.release(*span);
        }
        let of_it = |w: &LocalWrite| matches!(w.why, Why::Sync(n, c, _) if (n, c) == (node, conn));
        self.writes.drop_waiting(of_it);
    }

    /// Bits were set: what was thought to be in sync there is not to be cleared.
    pub(super) fn not_in_sync(&mut self, peers: NodeSet, span: Span) {
        for link in self.links.values_mut().filter(|_| !peers.is_empty()) {
            if let State::Target(target) = &mut link.state {
                let all = target.window.values_mut().chain(&mut target.unflushed);
                for run in all.filter(|r| r.span.overlaps(span)) {
                    run.holders = run.holders.minus(peers);
                    run.told.retain(|(n, s)| !(peers.has(*n) && s.overlaps(span)));
                }
            }
        }
    }

    /// The target is what the source is.
    pub(super) fn sync_done(&mut self, node: NodeId, identity: Identity) {
        let (Some(conn), me) = (self.conn(node), self.me()) else { return };
        if self.target(node).is_none() {
            return;
        }
        let counts = self.config.quorum && self.config.protocol(node) == Protocol::C;
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
            let member = !counts || sb.grant.members.has(me);
            sb.flags.primary = false;
            (sb.flags.consistent, sb.flags.up_to_date) = (true, identity.up_to_date && member);
            sb.flags.lost_quorum = false;
        });
        self.save_all = true;
        self.persist(Waiter::SyncDone(node, conn));
    }

    pub(super) fn target_done(&mut self, node: NodeId, conn: ConnId) {
        if self.conn(node) != Some(conn) || self.target(node).is_none() {
            return;
        }
        let good = self.replica.as_ref().is_some_and(|r| r.superblock().flags.up_to_date);
        self.disk = if good { DiskState::UpToDate } else { DiskState::Outdated };
        (self.crashed, self.lost_quorum, self.lost_primary, self.discard) = (false, false, None, false);
        let lost = self.links.get(&node).and_then(|l| l.hello.as_ref()).is_some_and(|h| h.side.restarted);
        if !(self.restarted && lost) {
            self.cache_is_whole();
        }
        if let Some(link) = self.links.get_mut(&node) {
            link.state = State::Equal;
        }
        self.send(node, Message::SyncDoneAck);
        self.regroup();
    }

    /// Looks how far synchronisations are.
    pub(super) fn look_at_progress(&mut self, now: Now) {
        let nodes: Vec<NodeId> = self.synchronising().iter().collect();
        for node in nodes {
            let left = self.dirty_sectors(node) * SECTOR;
            match self.links.get_mut(&node).map(|l| &mut l.state) {
                Some(State::Target(target)) if target.exchanged => target.progress.look(now, left),
                Some(State::Source(source)) => source.progress.look(now, left),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(kind: Kind, units: u32) -> Vec<Piece> {
        vec![Piece { kind, units }]
    }

    #[test]
    fn digests_are_left_out_where_nearly_everything_differs_and_tried_again() {
        let mut chooser = Chooser::default();
        assert!(!chooser.goes_without());
        chooser.learn(&pieces(Kind::Data, 300));
        let without = (0..64).filter(|_| chooser.goes_without()).count();
        assert_eq!(without, 60, "one in sixteen has digests");
        chooser.learn(&pieces(Kind::Same, 256));
        assert!(!chooser.goes_without(), "now they pay");
    }

    /// What an application wrote meanwhile differed, lay first, and digests were left out: dozens of MiB that were there came again.
    #[test]
    fn a_synchronisation_that_goes_on_never_leaves_digests_out() {
        let mut chooser = Target::new(true).chooser;
        chooser.learn(&pieces(Kind::Data, 4000));
        assert!((0..64).all(|_| !chooser.goes_without()));
        let mut chooser = Target::new(false).chooser;
        chooser.learn(&pieces(Kind::Data, 4000));
        assert!(chooser.goes_without());
    }

    #[test]
    fn what_was_long_ago_counts_less() {
        let mut chooser = Chooser::default();
        (0..100).for_each(|_| chooser.learn(&pieces(Kind::Same, 256)));
        (0..60).for_each(|_| chooser.learn(&pieces(Kind::Zero, 256)));
        assert!(chooser.goes_without(), "{chooser:?}");
    }
}
