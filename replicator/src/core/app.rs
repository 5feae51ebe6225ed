//! The primary's requests: from the application to the disk and the peers, and back.
//!
//! A write completes when it is written here, received at every B peer, written at every C peer of the grant, and no
//! peer of the grant is lost. Only a grant without the lost peer, durable on all that remain and a majority, ends
//! the wait. Bits for peers that a write is not sent to are set before it is written.

use bytes::Bytes;

use super::config::{OnNoQuorum, OnSlowPeer, Protocol};
use super::connect::{Link, State};
use super::event::{AppError, Ask, Content, Effect, Message, Report, ReqId};
use super::ios::Purpose;
use super::requests::{Request, Terms};
use super::rules::Rule;
use super::writes::Why;
use super::{Node, Role};
use crate::ids::{NodeId, NodeSet, Seq, Span};
use crate::meta::superblock::DiskState;

/// Requests that wait at most; more are refused. A front-end has fewer in flight.
const MAX_QUEUE: usize = 4096;

impl Node {
    pub(super) fn submit(&mut self, req: ReqId, ask: Ask) {
        if self.reign().is_none_or(|r| r.hands_over) {
            return self.complete(req, Err(AppError::NotPrimary));
        }
        if self.is_refused(&ask) {
            return self.complete(req, Err(AppError::NoVolume));
        }
        if self.queue.len() >= MAX_QUEUE {
            return self.complete(req, Err(AppError::TooMany));
        }
        self.queue.push_back((req, ask));
    }

    pub(super) fn complete(&mut self, req: ReqId, result: Result<Bytes, AppError>) {
        if Node::is_repair(req) {
            return self.repair_written(result.is_ok());
        }
        self.reads.remove(&req);
        self.fx.push(Effect::Complete(req, result));
    }

    /// Ends everything that waits.
    pub(super) fn fail_all(&mut self, error: AppError) {
        let queued: Vec<ReqId> = self.queue.drain(..).map(|(r, _)| r).collect();
        let reads: Vec<ReqId> = std::mem::take(&mut self.reads).into_keys().collect();
        let writes = self.requests.answer_all();
        let mut flushes = std::mem::take(&mut self.flushes);
        flushes.extend(self.settle.iter_mut().flat_map(|s| std::mem::take(&mut s.answers)));
        for req in queued.into_iter().chain(writes).chain(flushes).chain(reads) {
            self.complete(req, Err(error));
        }
    }

    /// Looks whether there is a quorum; without one requests wait or fail.
    pub(super) fn pump_quorum(&mut self) {
        if !self.is_primary() {
            return;
        }
        let without = !self.has_quorum();
        if without != self.without_quorum {
            self.without_quorum = without;
            self.tell(Report::Quorum(!without));
            self.lost_quorum = without;
            if let Some(replica) = &mut self.replica {
                replica.change(|sb| sb.flags.lost_quorum = without);
            }
        }
        if without && self.config.on_no_quorum == OnNoQuorum::IoError {
            self.fail_all(AppError::NoQuorum);
        }
    }

    /// Takes requests from the queue for as long as nothing stands in the way.
    pub(super) fn pump_app(&mut self) {
        while self.is_primary() && !self.without_quorum && !self.is_full(2) {
            let Some((_, ask)) = self.queue.front() else { return };
            if let Ask::Read(span) | Ask::Write(span, ..) | Ask::Zero(span, _) = ask
                && !self.may_reach(*span)
            {
                return;
            }
            if let Ask::Read(span) = ask
                && self.is_left_over(*span)
            {
                return;
            }
            if let Ask::Write(span, ..) | Ask::Zero(span, _) = ask {
                if self.is_served(*span) && self.has(Rule::WriteDefersToSync) {
                    return;
                }
                if !self.has_room(*span) {
                    self.settle_wanted = true;
                    return;
                }
            }
            let Some((req, ask)) = self.queue.pop_front() else { return };
            match ask {
                Ask::Read(span) => self.app_read(req, span),
                Ask::Write(span, data, fua) => self.app_write(req, span, Content::Data(data), fua),
                Ask::Zero(span, free) => self.app_write(req, span, Content::Zeroes { free }, false),
                Ask::Flush => self.flushes.push(req),
            }
        }
    }

    /// A write that a former reign left is on its way to the disk there. It was acknowledged to nobody, and may be there or
    /// not; but who reads before it lands would see the block change later, although nobody writes it.
    fn is_left_over(&self, span: Span) -> bool {
        let mine = |why: &Why| matches!(why, Why::App(seq) if self.requests.is_known(*seq));
        self.writes.under(span).any(|w| !mine(&w.why))
    }

    /// Whether the logs of everybody who has the stream can hold what is unsettled and this: else they would wait for a
    /// settlement, and it for them.
    pub(super) fn has_room(&self, span: Span) -> bool {
        let own = self.replica.as_ref().map(|r| r.layout().shape.log_slots);
        let theirs = self.links.values().filter_map(|l| l.hello.as_ref()).map(|h| h.log_slots);
        let slots = theirs.chain(own).filter(|s| *s > 0).min().unwrap_or(1);
        !self.requests.has_open() || self.requests.extents_with(span) <= slots as usize
    }

    /// Whether so many times the bound is not settled.
    pub(super) fn is_full(&self, times: usize) -> bool {
        let (most, requests) = (self.config.unsettled, &self.requests);
        requests.len() >= most.writes * times || requests.bytes() >= most.bytes * times as u64
    }

    fn app_read(&mut self, req: ReqId, span: Span) {
        self.reads.insert(req, span);
        if self.replica.is_some() && self.disk == DiskState::UpToDate {
            let io = self.io(Purpose::AppRead(req, span));
            self.fx.push(Effect::Read(io, span));
        } else {
            self.read_elsewhere(req, span);
        }
    }

    /// From a peer that has everything.
    pub(super) fn read_elsewhere(&mut self, req: ReqId, span: Span) {
        if !self.reads.contains_key(&req) {
            return;
        }
        let equal = self.linked(|s| matches!(s, State::Equal));
        let from = self.reign().and_then(|r| r.present.and(equal).iter().next());
        match from {
            Some(node) => self.send(node, Message::RemoteRead(req, span)),
            None => self.complete(req, Err(AppError::NoData)),
        }
    }

    pub(super) fn remote_read(&mut self, node: NodeId, req: ReqId, span: Span) {
        let Some(conn) = self.conn(node) else { return };
        if self.replica.is_none() || self.disk < DiskState::Outdated {
            return self.send(node, Message::RemoteData(req, None));
        }
        let io = self.io(Purpose::RemoteRead(node, conn, req, span));
        self.fx.push(Effect::Read(io, span));
    }

    pub(super) fn remote_data(&mut self, req: ReqId, data: Option<Bytes>) {
        if Node::is_repair(req) {
            self.repair_read(data);
        } else if self.reads.contains_key(&req) {
            self.complete(req, data.ok_or(AppError::NoData));
        }
    }

    /// Reads that a lost peer was to answer: whatever is not with the own disk, be that there or not.
    ///
    /// Prevents: a read fails on the own disk, which is kept (`PassOn`), or the own disk does not have everything yet; the peer that is
    /// asked for it is lost, and its application waits for ever.
    pub(super) fn reads_again(&mut self) {
        let elsewhere: Vec<(ReqId, Span)> =
            self.reads.iter().filter(|(req, _)| !self.ios.has_read(**req)).map(|(req, span)| (*req, *span)).collect();
        for (req, span) in elsewhere {
            self.read_elsewhere(req, span);
        }
    }

    pub(super) fn app_write(&mut self, req: ReqId, span: Span, content: Content, fua: bool) {
        let to = self.streaming();
        let away = self.peers().minus(to);
        self.mark(away, span);
        let here = self.replica.is_some();
        let Role::Primary(reign) = &mut self.role else { return };
        reign.seq = reign.seq.next();
        reign.open = true;
        let (seq, epoch) = (reign.seq, reign.epoch);
        self.stream.last = seq;
        let bytes = if let Content::Data(data) = &content { data.len() as u64 } else { 0 };
        self.requests.insert(seq, span, bytes, req, to, self.now);
        for node in to.iter() {
            let receipt = self.config.protocol(node) == Protocol::B;
            let message = match &content {
                Content::Data(data) => Message::Write { seq, epoch, span, data: data.clone(), fua, receipt },
                Content::Zeroes { free } => Message::Zero { seq, epoch, span, free: *free, receipt },
            };
            self.send(node, message);
        }
        if here {
            self.enqueue(span, content, fua, Why::App(seq));
        }
        if self.is_full(1) {
            self.settle_wanted = true;
        }
    }

    /// Peers that the stream goes to.
    pub(super) fn streaming(&self) -> NodeSet {
        let all = self.links.iter().filter(|(_, l)| !l.ahead && matches!(l.state, State::Equal | State::Source(_)));
        all.map(|(n, _)| *n).collect()
    }

    pub(super) fn app_written(&mut self, seq: Seq, span: Span) {
        if !self.requests.written(seq) {
            // Its reign is over, and its bits are set.
            self.leftover(span, false);
        }
    }

    pub(super) fn write_acked(&mut self, node: NodeId, seq: Seq, receipt: bool) {
        self.requests.acked(node, seq, receipt);
    }

    /// A peer that was left behind has taken in everything that was sent: now it is synchronised.
    pub(super) fn pump_ahead(&mut self) {
        let owes = |n: &NodeId| self.requests.iter().any(|r| r.sent.has(*n) && !r.acked.has(*n));
        let ahead = self.links.iter().filter(|(_, l)| l.ahead).map(|(n, _)| *n);
        let done: Vec<NodeId> = ahead.filter(|n| !owes(n)).collect();
        for node in done {
            self.link_close(node, true);
        }
    }

    /// Answers what is done.
    pub(super) fn pump_completions(&mut self) {
        let Some(reign) = self.reign() else { return };
        let (counted, waits) = (self.counted(), self.waits_for_grant());
        let here = self.replica.is_some();
        let none = !here && reign.present.minus(NodeSet::of(self.me())).is_empty();
        if none {
            return self.fail_all(AppError::NoData);
        }
        let (config, full) = (&self.config, self.has(Rule::WriteWaitsForPeer));
        let protocol = |n: NodeId| if here { config.protocol(n) } else { Protocol::C };
        let is_done = |request: &Request| {
            let missing = |n: NodeId| match protocol(n) {
                Protocol::A => false,
                Protocol::B => !request.received.has(n),
                Protocol::C => !request.acked.has(n) && full,
            };
            !waits && !counted.and(request.sent).iter().any(missing) && (request.local || !here)
        };
        let done = self.requests.done(Terms { counted, waits, here }, is_done);
        for seq in done {
            if self.requests.is_owed(seq) {
                self.end_epoch();
            }
            if let Some(req) = self.requests.answer(seq) {
                self.complete(req, Ok(Bytes::new()));
            }
        }
        self.answer_flushes(counted, waits);
    }

    /// Something was answered that a peer has not written yet: what is written from now on may rely on it. (What every peer has written
    /// comes before what is sent from now on without that: at C, writes wait for one another only while a peer is being synchronised.)
    fn end_epoch(&mut self) {
        if let Role::Primary(reign) = &mut self.role
            && reign.open
        {
            reign.open = false;
            reign.epoch += 1;
        }
    }

    /// Peers whose acknowledgements count: those of the grant, of one that is asked for, and those about to join.
    pub(super) fn counted(&self) -> NodeSet {
        let Some(reign) = self.reign() else { return NodeSet::EMPTY };
        let asked = reign.change.as_ref().map_or(NodeSet::EMPTY, |c| c.present);
        let joins = |l: &Link| l.join.is_some() || matches!(&l.state, State::Source(s) if s.told.is_some());
        let joining = self.links.iter().filter(|(_, l)| joins(l)).map(|(n, _)| *n).collect();
        let joining = if self.has(Rule::JoinAfterDrain) { joining } else { NodeSet::EMPTY };
        reign.present.or(asked).or(joining).without(self.me())
    }

    /// A peer of the grant is lost, and there is no grant without it.
    fn waits_for_grant(&self) -> bool {
        !self.lost().is_empty() && self.has(Rule::DropIsGrantedFirst)
    }

    pub(super) fn slow_peers(&mut self) {
        let slow = |r: &&Request| self.now.0.saturating_sub(r.since.0) > self.config.timing.slow;
        let late = self.requests.iter().filter(slow).fold(NodeSet::EMPTY, |set, r| set.or(r.sent.minus(r.acked)));
        let late = late.and(self.streaming());
        for node in late.iter().filter(|_| self.is_primary()).collect::<Vec<_>>() {
            match self.config.on_slow_peer {
                OnSlowPeer::Block => {}
                OnSlowPeer::Disconnect => {
                    self.tell(Report::LeftBehind(node));
                    self.link_close(node, true);
                }
                OnSlowPeer::GoAhead => {
                    self.tell(Report::LeftBehind(node));
                    self.go_ahead(node);
                }
            }
        }
    }

    /// From now on the peer's blocks are only marked.
    fn go_ahead(&mut self, node: NodeId) {
        self.unsettled_at(node);
        self.verify_lost(node);
        if let Some(link) = self.links.get_mut(&node) {
            link.ahead = true;
            link.join = None;
            link.verify = None;
        }
        if let Some(settle) = &mut self.settle {
            settle.waits = settle.waits.without(node);
        }
    }

    /// What is not settled may not be stable at a peer: its bits are set.
    pub(super) fn unsettled_at(&mut self, node: NodeId) {
        for span in self.requests.open_spans() {
            self.mark(NodeSet::of(node), span);
        }
    }
}
