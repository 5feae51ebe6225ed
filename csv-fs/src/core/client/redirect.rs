//! Redirected I/O: what waits, what is on its way, what was acknowledged but is not yet stable.
//!
//! A redirected write that was answered is *kept* until a flush under the same stability verifier was answered.
//! When the verifier has changed (a new coordinator, a device that was reset):
//! - under an **exclusive** layout it is sent again, in the order of the answers and before anything else;
//! - under a **shared** one it is not sent again. Prevents: another node has written the same block since (it needs
//!   to ask nobody), and the repetition would undo that. A new *coordinator* loses nothing, because the cache that
//!   took the write is the disk's own, and the next flush covers it. A device that was *reset* under the same
//!   coordinator may have lost it: then the next fsync fails (`WritesLost`).
//!
//! Kept data is bounded ([`Redirects::limit`]): above three quarters of it the core flushes by itself, at the bound new
//! writes wait for that.

use std::collections::{BTreeMap, BTreeSet};

use crate::proto::{RedirectOp, Verifier};
use crate::types::LayoutId;

use super::event::{Effect, IoId, RedirectResult};

/// Kept writes that are repeated at the same time; bounds the burst on a coordinator that has just taken office.
const REPLAY_WINDOW: usize = 16;

/// A request as it is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wire {
    pub(super) io: IoId,
    pub(super) layout: LayoutId,
    pub(super) op: RedirectOp,
    pub(super) at: u64,
    pub(super) len: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Progress {
    Queued,
    /// `covers`: answered writes up to this number precede a flush.
    Sent {
        covers: u64,
    },
}

#[derive(Debug)]
struct Pending {
    wire: Wire,
    exclusive: bool,
    progress: Progress,
    /// It was sent at least once: it may have been executed, and cannot go another way any more.
    began: bool,
}

#[derive(Debug)]
struct Kept {
    wire: Wire,
    exclusive: bool,
    verifier: Verifier,
    /// Its repetition is on its way.
    repeated: bool,
}

/// What may be sent now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permit {
    /// New reads.
    pub(super) reads: bool,
    /// New writes and flushes.
    pub(super) writes: bool,
    /// Repetitions of what was sent before.
    pub(super) again: bool,
}

/// All redirected I/O of one incarnation.
#[derive(Debug)]
pub(super) struct Redirects {
    pending: BTreeMap<IoId, Pending>,
    queued: BTreeSet<IoId>,
    /// By the number of their answer.
    kept: BTreeMap<u64, Kept>,
    kept_by_io: BTreeMap<IoId, u64>,
    /// Numbers of kept writes whose repetition is due or on its way.
    replaying: BTreeSet<u64>,
    kept_bytes: u64,
    answered: u64,
    verifier: Option<Verifier>,
    own: u64,
    own_flush: Option<IoId>,
    limit: u64,
}

impl Redirects {
    pub(super) fn new(limit: u64) -> Redirects {
        Redirects {
            pending: BTreeMap::new(),
            queued: BTreeSet::new(),
            kept: BTreeMap::new(),
            kept_by_io: BTreeMap::new(),
            replaying: BTreeSet::new(),
            kept_bytes: 0,
            answered: 0,
            verifier: None,
            own: IoId::OWN,
            own_flush: None,
            limit,
        }
    }

    /// Nothing on its way that began, and nothing kept.
    pub(super) fn is_drained(&self) -> bool {
        self.kept.is_empty() && self.nothing_began()
    }

    /// Nothing on its way that was ever sent.
    pub(super) fn nothing_began(&self) -> bool {
        !self.pending.values().any(|p| p.began)
    }

    /// Requests that wait or are on their way.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn kept_bytes(&self) -> u64 {
        self.kept_bytes
    }

    pub(super) fn submit(&mut self, wire: Wire, exclusive: bool) {
        self.pending.insert(wire.io, Pending { wire, exclusive, progress: Progress::Queued, began: false });
        self.queued.insert(wire.io);
    }

    /// A flush of the core's own, unless one is there.
    pub(super) fn flush_kept(&mut self) {
        if self.own_flush.is_none() {
            let io = IoId(self.own);
            self.own += 1;
            self.own_flush = Some(io);
            self.submit(Wire { io, layout: LayoutId(0), op: RedirectOp::Flush, at: 0, len: 0 }, false);
        }
    }

    /// What to send now, in this order.
    pub(super) fn pump(&mut self, permit: Permit, out: &mut Vec<Wire>) {
        if !self.replaying.is_empty() {
            if permit.again {
                self.pump_replay(out);
            }
            return;
        }
        // Well before the bound, so that new writes need not wait while it is under way.
        if self.kept_bytes >= self.limit / 4 * 3 && permit.writes {
            self.flush_kept();
        }
        let full = self.kept_bytes >= self.limit;
        let ready: Vec<IoId> = self.queued.iter().copied().filter(|io| self.may_go(*io, permit, full)).collect();
        for io in ready {
            self.queued.remove(&io);
            if let Some(p) = self.pending.get_mut(&io) {
                p.progress = Progress::Sent { covers: self.answered };
                p.began = true;
                out.push(p.wire);
            }
        }
    }

    fn may_go(&self, io: IoId, permit: Permit, full: bool) -> bool {
        let Some(p) = self.pending.get(&io) else { return false };
        if p.began {
            return permit.again;
        }
        match p.wire.op {
            RedirectOp::Read => permit.reads,
            RedirectOp::Write => permit.writes && !full,
            // The core's own flush is part of the way back, where new requests wait.
            RedirectOp::Flush => permit.writes || (permit.again && io.0 >= IoId::OWN),
        }
    }

    /// In order, stopping at the first that overlaps one whose repetition is unanswered.
    fn pump_replay(&mut self, out: &mut Vec<Wire>) {
        let mut flying: Vec<(u64, u64)> = Vec::new();
        for number in &self.replaying {
            let Some(k) = self.kept.get_mut(number) else { continue };
            let span = (k.wire.at, k.wire.at + u64::from(k.wire.len));
            let clash = flying.iter().any(|f| f.0 < span.1 && span.0 < f.1);
            if !k.repeated {
                if clash || flying.len() >= REPLAY_WINDOW {
                    return;
                }
                k.repeated = true;
                out.push(k.wire);
            }
            flying.push(span);
        }
    }

    /// Not executed, and to be sent again.
    pub(super) fn again(&mut self, io: IoId) {
        if let Some(p) = self.pending.get_mut(&io) {
            p.progress = Progress::Queued;
            self.queued.insert(io);
        } else if let Some(k) = self.kept_by_io.get(&io).and_then(|n| self.kept.get_mut(n)) {
            k.repeated = false;
        }
    }

    /// The connection is gone: what is on its way waits for the next one.
    pub(super) fn unbind(&mut self) {
        for (io, p) in &mut self.pending {
            if p.progress != Progress::Queued {
                p.progress = Progress::Queued;
                self.queued.insert(*io);
            }
        }
        for number in &self.replaying {
            if let Some(k) = self.kept.get_mut(number) {
                k.repeated = false;
            }
        }
    }

    /// The history that answers from now on belong to.
    pub(super) fn history(&mut self, now: Verifier, out: &mut Vec<Effect>) {
        if self.verifier == Some(now) {
            return;
        }
        self.verifier = Some(now);
        let mut lost = Vec::new();
        for (number, k) in self.kept.iter_mut().filter(|(_, k)| k.verifier != now) {
            if k.exclusive {
                self.replaying.insert(*number);
            } else if (k.verifier.epoch, k.verifier.boot) == (now.epoch, now.boot) {
                lost.push(*number);
            } else {
                k.verifier = now;
            }
        }
        for number in lost {
            self.lose(number, out);
        }
    }

    /// Executed, under this verifier.
    pub(super) fn done(&mut self, io: IoId, verifier: Verifier, out: &mut Vec<Effect>) {
        self.history(verifier, out);
        if let Some(number) = self.kept_by_io.get(&io).copied() {
            return self.replayed(number, verifier);
        }
        let Some(Pending { wire, progress: Progress::Sent { covers }, exclusive, .. }) = self.pending.get(&io) else {
            return;
        };
        let (wire, covers, exclusive) = (*wire, *covers, *exclusive);
        match wire.op {
            RedirectOp::Read => {}
            RedirectOp::Write => self.keep(wire, exclusive, verifier),
            RedirectOp::Flush if !self.flushed(covers, out) => {
                // Some of what it should cover has to be written again first.
                if let Some(p) = self.pending.get_mut(&io) {
                    p.progress = Progress::Queued;
                    self.queued.insert(io);
                }
                return;
            }
            RedirectOp::Flush => {}
        }
        self.end(io, RedirectResult::Done, out);
    }

    fn keep(&mut self, wire: Wire, exclusive: bool, verifier: Verifier) {
        self.answered += 1;
        self.kept_bytes += u64::from(wire.len);
        self.kept_by_io.insert(wire.io, self.answered);
        self.kept.insert(self.answered, Kept { wire, exclusive, verifier, repeated: false });
    }

    /// A repetition counts as a new write: a flush sent before it does not cover it.
    fn replayed(&mut self, number: u64, verifier: Verifier) {
        self.replaying.remove(&number);
        if let Some(k) = self.kept.remove(&number) {
            self.kept_bytes -= u64::from(k.wire.len);
            self.kept_by_io.remove(&k.wire.io);
            self.keep(k.wire, k.exclusive, verifier);
        }
    }

    /// `false` if a write that was answered before the flush is not of its history.
    fn flushed(&mut self, covers: u64, out: &mut Vec<Effect>) -> bool {
        if self.replaying.range(..=covers).next().is_some() {
            return false;
        }
        let rest = self.kept.split_off(&(covers + 1));
        for k in std::mem::replace(&mut self.kept, rest).into_values() {
            self.kept_bytes -= u64::from(k.wire.len);
            self.kept_by_io.remove(&k.wire.io);
            out.push(Effect::Forget { io: k.wire.io });
        }
        true
    }

    /// Ended without having been executed.
    pub(super) fn failed(&mut self, io: IoId, result: RedirectResult, out: &mut Vec<Effect>) {
        if let Some(number) = self.kept_by_io.get(&io).copied() {
            return self.lose(number, out);
        }
        self.end(io, result, out);
    }

    /// The layout is gone: what waits under it starts over, what is kept under it is lost.
    pub(super) fn layout_gone(&mut self, layout: LayoutId, out: &mut Vec<Effect>) {
        let of = |w: &Wire| w.layout == layout && w.op != RedirectOp::Flush;
        let lost: Vec<u64> = self.kept.iter().filter(|(_, k)| of(&k.wire)).map(|(n, _)| *n).collect();
        for number in lost {
            self.lose(number, out);
        }
        let over: Vec<IoId> = self.pending.values().filter(|p| of(&p.wire)).map(|p| p.wire.io).collect();
        for io in over {
            self.end(io, RedirectResult::NoLayout, out);
        }
    }

    /// The route is direct: what was never sent goes there.
    pub(super) fn go_direct(&mut self, out: &mut Vec<Effect>) {
        let rest: Vec<IoId> = self.pending.values().filter(|p| !p.began).map(|p| p.wire.io).collect();
        for io in rest {
            self.end(io, RedirectResult::Direct, out);
        }
    }

    /// The incarnation is over.
    pub(super) fn evict(&mut self, out: &mut Vec<Effect>) {
        for number in self.kept.keys().copied().collect::<Vec<_>>() {
            self.lose(number, out);
        }
        for io in self.pending.keys().copied().collect::<Vec<_>>() {
            self.end(io, RedirectResult::Evicted, out);
        }
        self.verifier = None;
    }

    fn lose(&mut self, number: u64, out: &mut Vec<Effect>) {
        self.replaying.remove(&number);
        if let Some(k) = self.kept.remove(&number) {
            self.kept_bytes -= u64::from(k.wire.len);
            self.kept_by_io.remove(&k.wire.io);
            out.push(Effect::WritesLost { layout: k.wire.layout });
            out.push(Effect::Forget { io: k.wire.io });
        }
    }

    fn end(&mut self, io: IoId, result: RedirectResult, out: &mut Vec<Effect>) {
        if self.pending.remove(&io).is_none() {
            return;
        }
        self.queued.remove(&io);
        if self.own_flush == Some(io) {
            self.own_flush = None;
        } else {
            out.push(Effect::RedirectDone { io, result });
        }
    }
}
