//! Settling: a barrier to every peer and a flush here; then it is known who has everything up to a position stable.
//!
//! A flush of the application is a settlement that it waits for. Other reasons: too much is unsettled, the log is full of
//! it, time has passed, a peer is about to join. One is under way at a time. Who is lost meanwhile is not asked any more:
//! else a peer that comes back is counted, is owed a barrier of the old connection, and every flush waits for ever.

use bytes::Bytes;

use super::config::Protocol;
use super::connect::State;
use super::event::{Effect, Message, ReqId};
use super::ios::Purpose;
use super::rules::Rule;
use super::{Node, Role};
use crate::ids::{NodeId, NodeSet, Seq};

/// A settlement under way.
#[derive(Debug)]
pub(super) struct Settle {
    pub(super) upto: Seq,
    /// Peers that were asked and have not answered.
    pub(super) waits: NodeSet,
    asked: NodeSet,
    acked: NodeSet,
    flushing: bool,
    /// Stable here, or there is no disk here.
    pub(super) flushed: bool,
    /// Flushes of the application that wait for it.
    pub(super) answers: Vec<ReqId>,
}

impl Settle {
    /// The connection on which a peer was asked is gone: no answer comes on it any more. If the peer comes back it is
    /// synchronised first, where nothing was settled too, and that is stable before it counts.
    pub(super) fn left(&mut self, node: NodeId) {
        (self.waits, self.asked) = (self.waits.without(node), self.asked.without(node));
    }
}

impl Node {
    pub(super) fn pump_settle(&mut self) {
        if !self.is_primary() {
            return;
        }
        if self.settle.is_none() {
            self.begin_settle();
        }
        let here = self.replica.is_some();
        let Some(settle) = &mut self.settle else { return };
        let upto = settle.upto;
        if settle.flushing || settle.flushed {
            return;
        }
        if !here {
            settle.flushed = true;
        } else if self.requests.is_written(upto) {
            settle.flushing = true;
            let io = self.io(Purpose::Settle(upto));
            self.fx.push(Effect::Flush(io));
        }
    }

    fn begin_settle(&mut self) {
        let asks = |l: &super::connect::Link| l.join.is_some_and(|j| l.stable < j || l.barriers == 0);
        let joining = self.links.values().any(|l| asks(l) && matches!(l.state, State::Equal));
        let joining = joining || self.owes_heirs();
        let wanted = self.settle_wanted && self.requests.has_open();
        if !wanted && self.flushes.is_empty() && !joining {
            return;
        }
        let to = self.streaming();
        let Role::Primary(reign) = &mut self.role else { return };
        reign.open = false;
        reign.epoch += 1;
        let upto = reign.seq;
        self.settle_wanted = false;
        self.settled_at = self.now;
        let answers = std::mem::take(&mut self.flushes);
        let none = NodeSet::EMPTY;
        self.settle =
            Some(Settle { upto, waits: to, asked: to, acked: none, flushing: false, flushed: false, answers });
        for node in to.iter() {
            self.send(node, Message::Barrier(upto));
        }
    }

    pub(super) fn settle_flushed(&mut self, upto: Seq) {
        if let Some(settle) = self.settle.as_mut().filter(|s| s.upto == upto) {
            settle.flushed = true;
        }
    }

    pub(super) fn barrier_acked(&mut self, node: NodeId, seq: Seq) {
        if let Some(link) = self.links.get_mut(&node) {
            link.stable = link.stable.max(seq);
            link.barriers += 1;
        }
        if let Some(settle) = self.settle.as_mut().filter(|s| s.upto == seq && s.waits.has(node)) {
            settle.waits = settle.waits.without(node);
            settle.acked = settle.acked.with(node);
        }
    }

    /// Answers flushes that are done; ends the settlement when nobody is waited for any more.
    pub(super) fn answer_flushes(&mut self, counted: NodeSet, waits_for_grant: bool) {
        let must = |n: &NodeId| self.protocol(*n) == Protocol::C && self.has(Rule::FlushWaitsForPeer);
        let Some(settle) = &self.settle else { return };
        let missing = counted.and(settle.asked).minus(settle.acked).iter().any(|n| must(&n));
        if settle.flushed && !missing && !waits_for_grant {
            let answers = self.settle.as_mut().map(|s| std::mem::take(&mut s.answers)).unwrap_or_default();
            for req in answers {
                self.complete(req, Ok(Bytes::new()));
            }
        }
        if self.settle.as_ref().is_some_and(|s| s.flushed && s.waits.is_empty() && s.answers.is_empty()) {
            self.end_settle();
        }
    }

    fn end_settle(&mut self) {
        let Some(settle) = self.settle.take() else { return };
        let upto = settle.upto;
        let settled = self.requests.settle(upto);
        let mut holders = settled.iter().fold(settle.acked, |all, (_, _, sent)| all.and(*sent));
        for (span, ..) in settled.into_iter().filter(|(_, local, _)| *local) {
            self.release(span);
        }
        if self.replica.is_some() {
            holders = holders.with(self.me());
        }
        if !self.has(Rule::SettlementNamesHolders) {
            holders = self.config.disks;
        }
        for node in self.streaming().iter() {
            self.send(node, Message::Settled(upto, holders));
        }
        self.again = true;
    }
}
