//! Repair: what two replicas differ in is read from the one that the user named, and written as a write of the primary.
//!
//! So it has its place in the stream, and everybody has it afterwards. One range is repaired at a time. While it is read no
//! write goes there: those under way end first, on the named side too, and later ones wait. Prevents: an application's write
//! between the reading and the writing is undone.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Node;
use super::connect::State;
use super::event::{Content, Effect, Message, Report, ReqId};
use super::ios::Purpose;
use crate::ids::{NodeId, SECTOR, Span};

/// The number of the request that a repair writes by: no application's is as high.
const REPAIR: ReqId = ReqId(u64::MAX);

/// What is to be repaired.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    queue: VecDeque<(Span, NodeId)>,
    now: Option<Now>,
    /// Bytes that were repaired since there was last nothing to do.
    done: u64,
}

/// The range that is being repaired.
#[derive(Debug)]
struct Now {
    span: Span,
    from: NodeId,
    reading: bool,
    writing: bool,
}

impl Repairs {
    /// Sectors that are not repaired yet.
    pub(super) fn left(&self) -> u64 {
        self.queue.iter().map(|(s, _)| s.len).sum::<u64>() + self.now.as_ref().map_or(0, |n| n.span.len)
    }
}

impl Node {
    /// Whether a repair can begin: this node is primary, and the data are to be its own or those of an equal peer.
    pub fn may_repair(&self, from: NodeId) -> bool {
        let goes = self.leaving.is_busy();
        !goes && self.is_primary() && (from == self.me() || self.linked(|s| matches!(s, State::Equal)).has(from))
    }

    /// What the last verification with a peer found is to be as this node has it, or as the peer has it.
    pub(super) fn repair(&mut self, from: NodeId) {
        if !self.may_repair(from) {
            return;
        }
        let most = self.config.resync.run_sectors;
        for (peer, verified) in &mut self.verified {
            if from != self.config.me && from != *peer {
                continue;
            }
            for span in verified.differing.drain(..) {
                for at in (span.at..span.end()).step_by(usize::try_from(most).unwrap_or(usize::MAX)) {
                    let piece = Span::new(at, most.min(span.end() - at));
                    self.repairs.queue.push_back((piece, from));
                }
            }
            verified.differs = 0;
        }
    }

    /// Begins the next range, reads it when nothing is written there.
    pub(super) fn pump_repairs(&mut self) {
        if self.reign().is_none_or(|r| r.hands_over) {
            return self.give_up_repairs();
        }
        if self.without_quorum || self.is_full(2) {
            return;
        }
        if self.repairs.now.is_none() {
            let Some((span, from)) = self.repairs.queue.pop_front() else { return };
            self.repairs.now = Some(Now { span, from, reading: false, writing: false });
        }
        let Some(Now { span, from, reading: false, .. }) = self.repairs.now else { return };
        let here = from == self.me();
        let there = self.linked(|s| matches!(s, State::Equal)).has(from);
        let readable = if here { self.replica.is_some() } else { there };
        if !readable {
            return self.give_up_repairs();
        }
        let owed = self.requests.iter().any(|r| r.span.overlaps(span) && r.sent.has(from) && !r.acked.has(from));
        if !self.has_room(span) {
            self.settle_wanted = true;
            return;
        }
        if self.is_writing(span) || (!here && owed) {
            return;
        }
        if let Some(now) = &mut self.repairs.now {
            now.reading = true;
        }
        if here {
            let io = self.io(Purpose::Repair);
            self.fx.push(Effect::Read(io, span));
        } else {
            self.send(from, Message::RemoteRead(REPAIR, span));
        }
    }

    /// A range was read: it is written. `None`: it cannot be read.
    pub(super) fn repair_read(&mut self, data: Option<Bytes>) {
        let Some(now) = self.repairs.now.as_mut().filter(|n| n.reading && !n.writing) else { return };
        let (span, sector) = (now.span, self.config.resync.sector_bytes);
        let Some(data) = data.filter(|d| d.len() as u64 == span.len * sector as u64) else {
            return self.give_up_repairs();
        };
        now.writing = true;
        self.app_write(REPAIR, span, Content::Data(data), false);
    }

    /// Whether it is the answer to a repair's request.
    pub(super) fn is_repair(req: ReqId) -> bool {
        req == REPAIR
    }

    /// A range was written, or could not be.
    pub(super) fn repair_written(&mut self, good: bool) {
        let Some(now) = self.repairs.now.take() else { return };
        if !good {
            return self.give_up_repairs();
        }
        self.repairs.done += now.span.len * SECTOR;
        self.again = true;
        if self.repairs.queue.is_empty() {
            let done = std::mem::take(&mut self.repairs.done);
            self.tell(Report::Repaired(now.from, done));
        }
    }

    fn give_up_repairs(&mut self) {
        let left = self.repairs.left() * SECTOR;
        if left > 0 {
            self.repairs = Repairs::default();
            self.tell(Report::NotRepaired(left));
        }
    }

    /// No write goes there until it is repaired.
    pub(super) fn is_repaired(&self, span: Span) -> bool {
        self.repairs.now.as_ref().is_some_and(|n| !n.writing && n.span.overlaps(span))
    }
}
