//! Redirected I/O: what waits, what is on its way, what was acknowledged but is not yet stable.
//!
//! A redirected write that was answered is *kept* until a flush under the same stability verifier was answered.
//! When the verifier has changed (a new coordinator, a device that was reset):
//! - under an **exclusive** layout it is sent again, in the order of the answers and before anything else. Newer ones that
//!   overlap it are sent again behind it, although the new history has them. Prevents: write 1 is kept; the disk is reset;
//!   write 2 of the same block is executed, and its answer is what tells of the reset; write 1 is repeated on top of it. So
//!   repetition begins only when no request is on its way any more whose answer would bring another such write, and a
//!   repeated write keeps its place in the order, also for a second repetition. A read whose answer brought the news may
//!   have missed what is repeated, and starts over;
//! - under a **shared** one it is not sent again. Prevents: another node has written the same block since (it needs
//!   to ask nobody), and the repetition would undo that. A new *coordinator* loses nothing, because the cache that
//!   took the write is the disk's own, and the next flush covers it. A device that was *reset* under the same
//!   coordinator may have lost it: then the next fsync fails (`WritesLost`).
//!
//! A write that is to be executed **once** at most (in place, beside other writers: `client::data::doubt`) is not sent again when it
//! is unanswered and the binding ends: it ends [`RedirectResult::InDoubt`] when a coordinator is bound anew, after which nothing that
//! was sent before is executed any more (rule `AskedBeforeRepeated`). Prevents: it was executed and its answer is lost; another node
//! writes the same block, and reads that; then it is executed once more.
//!
//! Kept data is bounded ([`Redirects::limit`]): above three quarters of it the core flushes by itself, at the bound new
//! writes wait for that.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::rules::{Rule, Rules};
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
    /// A write that is not to be sent again once it may have been executed.
    pub(super) once: bool,
}

impl Wire {
    /// Its bytes of the disk, the end not included.
    fn span(&self) -> (u64, u64) {
        (self.at, self.at + u64::from(self.len))
    }
}

/// Bytes of the disk; runs that touch are one.
#[derive(Debug, Default)]
struct Spans(BTreeMap<u64, u64>);

impl Spans {
    fn overlap(&self, (start, end): (u64, u64)) -> bool {
        self.0.range(..end).next_back().is_some_and(|(_, stop)| *stop > start)
    }

    fn add(&mut self, (mut start, mut end): (u64, u64)) {
        while let Some((from, to)) =
            self.0.range(..=end).next_back().map(|(f, t)| (*f, *t)).filter(|(_, t)| *t >= start)
        {
            self.0.remove(&from);
            (start, end) = (start.min(from), end.max(to));
        }
        self.0.insert(start, end);
    }
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
    /// Its caller has waited long enough: it ends as soon as it cannot be executed any more, see `expiry`.
    expired: bool,
    /// It may have been executed, and is not sent again.
    doubtful: bool,
}

#[derive(Debug)]
struct Kept {
    wire: Wire,
    exclusive: bool,
    verifier: Verifier,
    /// The number of its latest answer; it is kept by that of its first.
    answered: u64,
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
    /// By the number of their first answer: in the order in which they are repeated.
    kept: BTreeMap<u64, Kept>,
    kept_by_io: BTreeMap<IoId, u64>,
    /// Numbers of kept writes whose repetition is due or on its way.
    replaying: BTreeSet<u64>,
    /// What has to be repeated is not known yet: answers of what was sent before are missing.
    gathering: bool,
    kept_bytes: u64,
    answered: u64,
    verifier: Option<Verifier>,
    own: u64,
    own_flush: Option<IoId>,
    limit: u64,
    rules: Rules,
}

impl Redirects {
    pub(super) fn new(limit: u64, rules: Rules) -> Redirects {
        Redirects {
            pending: BTreeMap::new(),
            queued: BTreeSet::new(),
            kept: BTreeMap::new(),
            kept_by_io: BTreeMap::new(),
            replaying: BTreeSet::new(),
            gathering: false,
            kept_bytes: 0,
            answered: 0,
            verifier: None,
            own: IoId::OWN,
            own_flush: None,
            limit,
            rules,
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
        let progress = Progress::Queued;
        let pending = Pending { wire, exclusive, progress, began: false, expired: false, doubtful: false };
        self.pending.insert(wire.io, pending);
        self.queued.insert(wire.io);
    }

    /// A flush of the core's own, unless one is there.
    pub(super) fn flush_kept(&mut self) {
        if self.own_flush.is_none() {
            let io = IoId(self.own);
            self.own += 1;
            self.own_flush = Some(io);
            self.submit(Wire { io, layout: LayoutId(0), op: RedirectOp::Flush, at: 0, len: 0, once: false }, false);
        }
    }

    /// What to send now, in this order.
    pub(super) fn pump(&mut self, permit: Permit, out: &mut Vec<Wire>) {
        if !self.replaying.is_empty() {
            if permit.again && self.gathered() {
                self.pump_replay(out);
            }
            return;
        }
        self.gathering = false;
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
            return permit.again && !p.doubtful;
        }
        match p.wire.op {
            RedirectOp::Read => permit.reads,
            RedirectOp::Write => permit.writes && !full,
            // The core's own flush is part of the way back, where new requests wait.
            RedirectOp::Flush => permit.writes || (permit.again && io.0 >= IoId::OWN),
        }
    }

    /// Whether it is known what has to be repeated: nothing is on its way, and whatever overlaps an older write that is
    /// repeated is repeated too. That is safe under whatever layout it was written: while the older one is kept, its
    /// exclusive layout is held, and no other node writes there.
    fn gathered(&mut self) -> bool {
        if !self.gathering || !self.rules.has(Rule::RepeatInOrder) {
            return true;
        }
        let sent = self.pending.values().any(|p| p.progress != Progress::Queued);
        if sent || self.replaying.iter().any(|n| self.kept.get(n).is_some_and(|k| k.repeated)) {
            return false;
        }
        let mut spans = Spans::default();
        for (number, k) in &self.kept {
            if self.replaying.contains(number) || spans.overlap(k.wire.span()) {
                self.replaying.insert(*number);
                spans.add(k.wire.span());
            }
        }
        self.gathering = false;
        true
    }

    /// In order, stopping at the first that overlaps one whose repetition is unanswered.
    fn pump_replay(&mut self, out: &mut Vec<Wire>) {
        let mut flying: Vec<(u64, u64)> = Vec::new();
        for number in &self.replaying {
            let Some(k) = self.kept.get_mut(number) else { continue };
            let span = k.wire.span();
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

    /// Whoever waits for it has waited long enough. A write ends if it was never sent, or if a coordinator is bound that has
    /// not been sent it: whatever was sent under an older bind has ended. Anything else changes nothing.
    pub(super) fn expire(&mut self, io: IoId, bound: bool, out: &mut Vec<Effect>) {
        let Some(p) = self.pending.get_mut(&io) else { return };
        let write = p.wire.op == RedirectOp::Write;
        let over = !p.began || (bound && p.progress == Progress::Queued);
        if !self.rules.has(Rule::ExpiredIsWithdrawn) && write {
            return out.push(Effect::RedirectDone { io, result: RedirectResult::Expired });
        }
        if over || !write {
            return self.end(io, RedirectResult::Expired, out);
        }
        p.expired = true;
    }

    /// Bound anew: nothing that was sent before is executed any more, and what has waited long enough is not sent again.
    pub(super) fn end_expired(&mut self, out: &mut Vec<Effect>) {
        let over: Vec<IoId> = self.pending.values().filter(|p| p.expired).map(|p| p.wire.io).collect();
        for io in over {
            self.end(io, RedirectResult::Expired, out);
        }
    }

    /// Bound anew: what may have been executed, and was to be once at most, is not sent again.
    pub(super) fn end_doubtful(&mut self, out: &mut Vec<Effect>) {
        let over: Vec<IoId> = self.pending.values().filter(|p| p.doubtful).map(|p| p.wire.io).collect();
        for io in over {
            self.end(io, RedirectResult::InDoubt, out);
        }
    }

    /// Writes that have waited long enough and may still be executed.
    pub(super) fn expired(&self) -> u64 {
        self.pending.values().filter(|p| p.expired).count() as u64
    }

    /// The connection is gone: what is on its way waits for the next one.
    pub(super) fn unbind(&mut self) {
        for (io, p) in &mut self.pending {
            if p.progress != Progress::Queued {
                p.progress = Progress::Queued;
                p.doubtful = p.wire.once && self.rules.has(Rule::AskedBeforeRepeated);
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
        if self.verifier == Some(now) || self.is_past(now) {
            return;
        }
        self.verifier = Some(now);
        for number in self.kept.keys().copied().collect::<Vec<_>>() {
            self.belongs(number, out);
        }
    }

    /// Whether it is of before the reset that is known: answers may overtake one another.
    fn is_past(&self, of: Verifier) -> bool {
        let is_newer = |now: Verifier| (now.epoch, now.boot) == (of.epoch, of.boot) && now.generation > of.generation;
        self.rules.has(Rule::RepeatInOrder) && self.verifier.is_some_and(is_newer)
    }

    /// What is to become of a kept write if it is of another history.
    fn belongs(&mut self, number: u64, out: &mut Vec<Effect>) {
        let Some((now, k)) = self.verifier.zip(self.kept.get_mut(&number)) else { return };
        if k.verifier == now {
        } else if k.exclusive {
            self.replaying.insert(number);
            self.gathering = true;
        } else if (k.verifier.epoch, k.verifier.boot) == (now.epoch, now.boot) {
            self.lose(number, out);
        } else {
            k.verifier = now;
        }
    }

    /// Executed, under this verifier.
    pub(super) fn done(&mut self, io: IoId, verifier: Verifier, out: &mut Vec<Effect>) {
        self.history(verifier, out);
        if let Some(number) = self.kept_by_io.get(&io).copied() {
            return self.replayed(number, verifier, out);
        }
        let Some(Pending { wire, progress: Progress::Sent { covers }, exclusive, .. }) = self.pending.get(&io) else {
            return;
        };
        let (wire, covers, exclusive) = (*wire, *covers, *exclusive);
        match wire.op {
            // What it should show has to be written again first.
            RedirectOp::Read if !self.replaying.is_empty() => return self.again(io),
            RedirectOp::Read => {}
            // Answered first. Prevents: its answer is of before a reset that is known already; it is lost at once and forgotten, and its
            // program hears nothing of it but an error.
            RedirectOp::Write => {
                self.end(io, RedirectResult::Done, out);
                return self.keep(wire, exclusive, verifier, out);
            }
            // Some of what it should cover has to be written again first.
            RedirectOp::Flush if self.is_past(verifier) || !self.flushed(covers, out) => return self.again(io),
            RedirectOp::Flush => {}
        }
        self.end(io, RedirectResult::Done, out);
    }

    fn keep(&mut self, wire: Wire, exclusive: bool, verifier: Verifier, out: &mut Vec<Effect>) {
        self.answered += 1;
        let answered = self.answered;
        self.kept_bytes += u64::from(wire.len);
        self.kept_by_io.insert(wire.io, answered);
        self.kept.insert(answered, Kept { wire, exclusive, verifier, answered, repeated: false });
        self.belongs(answered, out);
    }

    /// A flush sent before a repetition does not cover it.
    fn replayed(&mut self, number: u64, verifier: Verifier, out: &mut Vec<Effect>) {
        self.replaying.remove(&number);
        self.answered += 1;
        if let Some(k) = self.kept.get_mut(&number) {
            (k.verifier, k.answered, k.repeated) = (verifier, self.answered, false);
            self.belongs(number, out);
        }
    }

    /// `false` if a write that was answered before the flush is not of its history.
    fn flushed(&mut self, covers: u64, out: &mut Vec<Effect>) -> bool {
        let covered = |k: &Kept| k.answered <= covers;
        if self.replaying.iter().any(|n| self.kept.get(n).is_some_and(covered)) {
            return false;
        }
        let gone: Vec<u64> = self.kept.iter().filter(|(_, k)| covered(k)).map(|(n, _)| *n).collect();
        for number in gone {
            self.forget(number, out);
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
        let over: Vec<(IoId, bool)> =
            self.pending.values().filter(|p| of(&p.wire)).map(|p| (p.wire.io, p.doubtful)).collect();
        for (io, doubtful) in over {
            let result = if doubtful { RedirectResult::InDoubt } else { RedirectResult::NoLayout };
            self.end(io, result, out);
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
        if let Some(k) = self.kept.get(&number) {
            out.push(Effect::WritesLost { layout: k.wire.layout });
        }
        self.forget(number, out);
    }

    fn forget(&mut self, number: u64, out: &mut Vec<Effect>) {
        self.replaying.remove(&number);
        if let Some(k) = self.kept.remove(&number) {
            self.kept_bytes -= u64::from(k.wire.len);
            self.kept_by_io.remove(&k.wire.io);
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
