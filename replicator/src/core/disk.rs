//! The local disk: one queue of writes, metadata, and what becomes of a failure.
//!
//! A write starts when its extents are hot, nothing older that overlaps it is unfinished, and its epoch's turn has come. Its
//! extents are pinned from its start until it is settled. Hot extents are asked for in the order of the queue, no more
//! at once than the log has room for: so the oldest write always gets all of its own.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::config::OnIoError;
use super::connect::State;
use super::event::{AppError, ConnId, Content, DiskError, Effect, IoId, Message, Refusal, Report};
use super::ios::Purpose;
use super::pieces::{Compared, Digest};
use super::reign::Voice;
use super::rules::Rule;
use super::writes::{LocalWrite, Why};
use super::{Node, Role};
use crate::ids::{Ballot, NodeId, Span};
use crate::meta::replica::Commit;
use crate::meta::superblock::DiskState;

/// What goes on when metadata is durable.
#[derive(Debug)]
pub(super) enum Waiter {
    Answer(NodeId, ConnId, Message),
    Voice(Voice, Ballot, u32),
    Inconsistent(NodeId, ConnId),
    SyncDone(NodeId, ConnId),
    Demoted,
    Grown,
    Left,
}

impl Node {
    pub(super) fn io(&mut self, purpose: Purpose) -> IoId {
        let io = IoId(self.number());
        self.ios.begin(io, purpose, self.now);
        io
    }

    /// Metadata was changed; `waiter` goes on when that is durable.
    pub(super) fn persist(&mut self, waiter: Waiter) {
        if self.replica.is_some() {
            self.waiters.push(waiter);
        }
    }

    pub(super) fn enqueue(&mut self, span: Span, content: Content, fua: bool, why: Why) {
        let number = self.number();
        let hot = self.may_be_written(span);
        self.writes.push(number, span, content, fua, why, hot);
    }

    /// Its extents are hot.
    fn may_be_written(&self, span: Span) -> bool {
        !self.has(Rule::HotBeforeData) || self.replica.as_ref().is_some_and(|r| r.is_hot(span))
    }

    /// Starts what may start.
    pub(super) fn pump_writes(&mut self) {
        if self.replica.is_none() {
            return;
        }
        // The stream is in order: what has to wait holds up what is behind it.
        let its_turn = |write: &LocalWrite| match write.why {
            Why::Stream(node, conn, seq) => self.stream_may_write(node, conn, seq),
            Why::App(_) | Why::Sync(..) => true,
        };
        let one_order = self.has(Rule::VolumesInOneOrder);
        let of_stream = self.writes.ready_of_stream().map_while(|(n, w)| match its_turn(w) {
            true => Some(Some((n, w.span))),
            false => (!one_order).then_some(None),
        });
        let others = self.writes.ready_others().map(|(n, w)| (n, w.span));
        let mut ready: Vec<(u64, Span)> = of_stream.flatten().chain(others).collect();
        ready.sort_unstable_by_key(|(n, _)| *n);
        for (number, span) in ready {
            if self.may_be_written(span) {
                self.start_write(number);
            } else {
                self.writes.is_cold(number);
            }
        }
    }

    fn start_write(&mut self, number: u64) {
        let io = self.io(Purpose::Write(number));
        let (Some(write), Some(replica)) = (self.writes.start(number), &mut self.replica) else { return };
        replica.pin(write.span);
        self.fx.push(match &write.content {
            Content::Data(data) => Effect::Write(io, write.span, data.clone(), write.fua),
            Content::Zeroes { free } => Effect::Zero(io, write.span, *free),
        });
    }

    /// Something on the disk under this span is not finished.
    pub(super) fn is_writing(&self, span: Span) -> bool {
        self.writes.hits(span)
    }

    pub(super) fn done(&mut self, io: IoId, result: Result<Bytes, DiskError>) {
        let Some(purpose) = self.ios.end(io) else { return };
        let Ok(bytes) = result else { return self.failed(purpose) };
        match purpose {
            Purpose::Write(id) => self.written(id),
            Purpose::Meta => self.persisted(),
            Purpose::AppRead(req, _) => {
                if self.reads.contains_key(&req) {
                    self.complete(req, Ok(bytes));
                }
            }
            Purpose::RemoteRead(node, conn, req, _) => {
                if self.conn(node) == Some(conn) {
                    self.send(node, Message::RemoteData(req, Some(bytes)));
                }
            }
            Purpose::Settle(upto) => self.settle_flushed(upto),
            Purpose::Barrier(conn, seq) => self.barrier_flushed(conn, seq),
            Purpose::Repair => self.repair_read(Some(bytes)),
            // They are told as digested and compared.
            Purpose::PullDigest(..) | Purpose::Serve(..) | Purpose::CheckDigest(..) | Purpose::CheckCompare(..) => {}
            Purpose::SyncFlush(node, conn) => self.sync_flushed(node, conn),
        }
    }

    pub(super) fn digested(&mut self, io: IoId, digests: Vec<Digest>) {
        match self.ios.end(io) {
            Some(Purpose::PullDigest(node, conn, run)) => self.pull_digested(node, conn, run, digests),
            Some(Purpose::CheckDigest(node, conn, run)) => self.check_digested(node, conn, run, digests),
            _ => {}
        }
    }

    pub(super) fn compared(&mut self, io: IoId, found: Compared) {
        match self.ios.end(io) {
            Some(Purpose::Serve(node, conn, run)) => self.serve_compared(node, conn, run, found),
            Some(Purpose::CheckCompare(node, conn, run)) => self.check_compared(node, conn, run, found),
            _ => {}
        }
    }

    fn written(&mut self, id: u64) {
        let Some(write) = self.writes.remove(id) else { return };
        match write.why {
            Why::App(seq) => self.app_written(seq, write.span),
            Why::Stream(node, conn, seq) => self.stream_written(node, conn, seq, write.span),
            Why::Sync(node, conn, run) => self.sync_written(node, conn, write.span, run),
        }
    }

    /// Takes a pin away.
    pub(super) fn release(&mut self, span: Span) {
        if let Some(replica) = &mut self.replica {
            replica.unpin(span);
        }
    }

    /// Writes metadata: extents that the oldest writes want, and what was changed.
    pub(super) fn pump_meta(&mut self) {
        if self.commit.is_some() {
            return;
        }
        let wanted = self.wanted();
        let keep_order = self.has(Rule::BitsBeforeCold);
        let Some(replica) = &mut self.replica else { return };
        let pages = std::mem::take(&mut self.save_all);
        let commit = replica.plan(&wanted, pages);
        let cold = wanted.iter().any(|e| !replica.log().is_hot(*e));
        let starved = cold && commit.as_ref().is_none_or(|c| !c.makes_hot());
        if let Some(mut commit) = commit {
            if !keep_order && !pages {
                commit.write.first.clear();
            }
            self.begin_commit(commit);
        }
        if starved {
            self.starved();
        }
    }

    pub(super) fn begin_commit(&mut self, commit: Commit) {
        let io = self.io(Purpose::Meta);
        self.fx.push(Effect::Meta(io, commit.write.clone()));
        let waiters = std::mem::take(&mut self.waiters);
        self.commit = Some((io, commit, waiters));
    }

    /// Extents of the oldest writes that wait, hot ones too: those must not make room for one another.
    fn wanted(&self) -> BTreeSet<u32> {
        let Some(replica) = self.replica.as_ref().filter(|_| self.writes.has_cold()) else { return BTreeSet::new() };
        let room = replica.layout().shape.log_slots as usize;
        let mut wanted = BTreeSet::new();
        for span in self.writes.waiting() {
            wanted.extend(replica.extents(span));
            if wanted.len() + replica.log().pinned() >= room {
                break;
            }
        }
        wanted
    }

    /// The log is full of what is not settled.
    fn starved(&mut self) {
        if self.is_primary() {
            self.settle_wanted = true;
        } else if let Some(primary) = self.follows().filter(|_| !self.stream.asked) {
            self.stream.asked = true;
            self.send(primary, Message::NeedSettle);
        }
        self.flush_sync();
    }

    fn persisted(&mut self) {
        let Some((_, commit, waiters)) = self.commit.take() else { return };
        if let Some(replica) = &mut self.replica {
            replica.committed(&commit);
            self.writes.warm(|span| replica.is_hot(span));
        }
        for waiter in waiters {
            self.go_on(waiter);
        }
    }

    fn go_on(&mut self, waiter: Waiter) {
        match waiter {
            Waiter::Answer(node, conn, message) => {
                if self.conn(node) == Some(conn) {
                    self.send(node, message);
                }
            }
            Waiter::Voice(voice, ballot, version) => self.own_voice(voice, ballot, version),
            Waiter::Inconsistent(node, conn) => self.target_ready(node, conn),
            Waiter::SyncDone(node, conn) => self.target_done(node, conn),
            Waiter::Demoted => self.demoted(),
            Waiter::Grown => self.growth_durable(),
            Waiter::Left => self.leave_durable(),
        }
    }

    /// A request of the disk failed: the disk is left, unless the policy says otherwise.
    fn failed(&mut self, purpose: Purpose) {
        if self.config.disk.on_io_error == OnIoError::PassOn && self.passes_on(&purpose) {
            return self.pass_on(purpose);
        }
        match purpose {
            Purpose::AppRead(req, span) => {
                self.detach();
                self.read_elsewhere(req, span);
            }
            Purpose::RemoteRead(node, conn, req, _) => {
                if self.conn(node) == Some(conn) {
                    self.send(node, Message::RemoteData(req, None));
                }
                self.detach();
            }
            _ => self.detach(),
        }
    }

    /// Whether an error of the disk can be kept to what was asked. Not one after which nothing is known of what was acknowledged: a
    /// flush, metadata, a write that a peer asked for. Nor an application's write that an equal peer has: it is not failed for want
    /// of this disk.
    fn passes_on(&self, purpose: &Purpose) -> bool {
        match purpose {
            Purpose::Write(id) => {
                let mine = |w: &LocalWrite| matches!(w.why, Why::App(seq) if self.requests.is_known(seq));
                let alone = self.reign().is_some_and(|r| r.present.and(self.established()).is_empty());
                alone && self.writes.get(*id).is_some_and(mine)
            }
            Purpose::Meta | Purpose::Settle(_) | Purpose::Barrier(..) | Purpose::SyncFlush(..) => false,
            _ => true,
        }
    }

    /// The disk is kept, and who asked gets the error, or does without. What a failed write left is not known: it is marked for all.
    fn pass_on(&mut self, purpose: Purpose) {
        match purpose {
            Purpose::AppRead(req, span) => {
                self.tell(Report::PassedOn(span));
                self.read_elsewhere(req, span);
            }
            Purpose::RemoteRead(node, conn, req, span) => {
                self.tell(Report::PassedOn(span));
                if self.conn(node) == Some(conn) {
                    self.send(node, Message::RemoteData(req, None));
                }
            }
            Purpose::Write(id) => self.write_failed(id),
            // What is there is overwritten: it need not be read.
            Purpose::PullDigest(node, conn, run) => self.pull_digested(node, conn, run, Vec::new()),
            Purpose::Serve(node, conn, span) => {
                // What cannot be read here cannot be synchronised from here, and trying again and again would not change that.
                self.tell(Report::PassedOn(span));
                self.close_if(node, conn, false);
            }
            Purpose::CheckDigest(node, conn, span) | Purpose::CheckCompare(node, conn, span) => {
                self.tell(Report::PassedOn(span));
                self.close_if(node, conn, true);
            }
            Purpose::Repair => self.repair_read(None),
            Purpose::Meta | Purpose::Settle(_) | Purpose::Barrier(..) | Purpose::SyncFlush(..) => self.detach(),
        }
    }

    fn close_if(&mut self, node: NodeId, conn: ConnId, again: bool) {
        if self.conn(node) == Some(conn) {
            self.link_close(node, again);
        }
    }

    fn write_failed(&mut self, id: u64) {
        let Some(LocalWrite { span, why: Why::App(seq), .. }) = self.writes.remove(id) else { return };
        self.tell(Report::PassedOn(span));
        let all = self.peers();
        self.mark(all, span);
        self.spoil(span);
        self.app_written(seq, span);
        if let Some(req) = self.requests.answer(seq) {
            self.complete(req, Err(AppError::NoData));
        }
    }

    /// A disk that does not answer is left as one that failed. Prevents: everybody waits for ever for one disk, although the data are
    /// at hand elsewhere.
    ///
    /// What hangs may land yet, long after. It lies in extents that stay hot in the log on that disk, since nothing is written there
    /// any more: the next start marks them. It must not begin before the last of it has landed, else what was marked is compared,
    /// found equal and cleared, and lands then: that is for whoever opens disks to see to (rule *attach at rest*).
    pub(super) fn look_at_disk(&mut self) {
        // What a replica that grows writes down is as long as its bitmaps, and counts as one request.
        let times = if self.growing.is_under_way() || self.leaving.is_under_way() { 10 } else { 1 };
        let limit = self.config.disk.timeout.map(|t| t * times);
        if self.replica.is_some() && self.ios.hangs(self.now, limit) {
            self.tell(Report::DiskHangs);
            self.detach();
        }
    }

    /// The disk is left. A primary goes on through its peers; a secondary is of no use until it starts anew.
    pub(super) fn detach(&mut self) {
        self.stand_down(Refusal::Data);
        self.disown();
        if self.replica.take().is_none() {
            return;
        }
        self.tell(Report::Detached);
        if self.resting {
            self.tell(Report::AtRest(false));
        }
        self.disk = DiskState::Diskless;
        self.commit = None;
        self.waiters.clear();
        self.writes.clear();
        self.stream.clear();
        self.growing.detached();
        self.leaving.detached();
        let reads = self.ios.give_up();
        self.requests.detached();
        let equal = self.linked(|s| matches!(s, State::Equal));
        let shared = self.reign().is_some_and(|r| !r.present.and(equal).is_empty());
        if !shared {
            let all: Vec<NodeId> = self.links.keys().copied().collect();
            for node in all {
                self.link_close(node, false);
            }
            self.fail_all(AppError::NoData);
            self.role = Role::Secondary;
            return;
        }
        if let Some(settle) = &mut self.settle {
            settle.flushed = true;
        }
        let syncing = self.linked(|s| matches!(s, State::Source(_)));
        for node in syncing.iter() {
            self.link_close(node, true);
        }
        for (req, span) in reads {
            self.read_elsewhere(req, span);
        }
    }
}
