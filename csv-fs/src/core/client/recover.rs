//! Going on after a SIGKILL, from what was noted ([`super::ledger`]).
//!
//! The next life is the client that it was, of which every caller has gone:
//! - *What is unanswered* stays in its slot, under its number, and is sent again after the bind. What only would have to go back (a
//!   layout, space) is withdrawn, as in `expiry`: something else that changes nothing is sent under the number.
//! - *A request of the kernel that comes again* takes up the call that it led to, or gets the answer that it had (`claims`). One
//!   that does not come again was killed meanwhile; its call ends as that of any caller that has gone.
//! - *A lock that was asked for* is one whose caller has gone: what it was given is undone, and the kernel asks again.
//! - *Layouts under which something is uncommitted* are re-asserted with it, committed, and given back; all others are not named, so
//!   the coordinator takes them back. Until then nothing else of such a file is asked for.
//!   Prevents: of its mapping only what is uncommitted is known here, and the rest is taken for holes.
//! - *The grant on record* is taken over, without what is in files already or on its way back.
//!   Prevents: a block is in two files.
//!
//! What is not known is not done: a call whose answer nobody waits for any more is only looked at for what it leaves behind.

use std::collections::{BTreeMap, BTreeSet};

use super::calls::changes;
use super::event::{CallFailure, Effect, Ticket};
use super::held::Standing;
use super::ledger::{LastCall, Ledger, Note, Origin, matters};
use super::slots::InSlot;
use super::{Client, ClientConfig, OpenFile};
use crate::core::rules::{Rule, Rules};
use crate::core::time::Now;
use crate::proto::{LayoutGrant, Reply, Request};
use crate::types::*;

/// What is noted.
#[derive(Debug, Default)]
pub(super) struct Noted {
    on: bool,
    /// Of the event that is being handled.
    notes: Vec<Note>,
    /// What was noted last of the way that data go.
    direct: Option<Option<block::shared::FenceGen>>,
    /// Which requests of the kernel led to what was not sent yet.
    origins: BTreeMap<Ticket, Origin>,
}

/// A call of another process that a request of the kernel may come back for.
#[derive(Debug)]
enum Claim {
    InSlot(SlotRef, u64),
    Answered(Box<Request>, Result<Reply, i32>),
    /// Nobody knows any more.
    Lost,
}

/// What came from another process.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    claims: BTreeMap<Origin, Claim>,
    /// Layouts under which something is uncommitted.
    recovering: BTreeMap<LayoutId, InodeNo>,
    /// Granted blocks that are not free.
    withheld: Vec<DiskRange>,
    /// The grant as it was taken over.
    taken_over: Vec<DiskRange>,
    /// Requests of the kernel that nobody came back for in time.
    lapsed: BTreeSet<u64>,
}

impl Inherited {
    /// Whether a request of the kernel may still come back for a call.
    pub(super) fn is_claimable(&self) -> bool {
        self.claims.values().any(|claim| !matches!(claim, Claim::Lost))
    }
}

impl Client {
    /// The same client, which says what is to be noted.
    #[must_use]
    pub fn noting(mut self) -> Client {
        self.noted.on = true;
        self
    }

    /// A client that goes on where another process was killed. Of `ledger` is left what this one has.
    pub fn recover(config: ClientConfig, ledger: &mut Ledger, rules: Rules, now: Now) -> Client {
        let fence_gen = ledger.direct.unwrap_or(config.fence_gen);
        let config = ClientConfig { client: ledger.client, fence_gen, ..config };
        let mut client = Client::new(config, rules, now).noting();
        client.noted.direct = Some(ledger.direct);
        client.binder.resume(ledger.bind, ledger.epoch);
        let opens = ledger.opens.iter().map(|(handle, o)| (*handle, OpenFile { ino: o.ino, flags: o.flags }));
        client.opens.extend(opens);
        client.locks_recover(ledger.locks(), ledger.waiter);
        for (slot, call) in &ledger.slots {
            client.inherit(*slot, call);
        }
        let answers = ledger.answers.iter();
        let answered = answers.map(|(o, (asked, result))| (*o, Claim::Answered(asked.clone(), result.clone())));
        client.inherited.claims.extend(answered);
        client.recover_layouts(ledger);
        client
    }

    fn inherit(&mut self, slot: SlotRef, call: &LastCall) {
        if !call.open {
            return self.slots.inherit_number(slot, call.seq);
        }
        let ticket = Ticket(self.next_own);
        self.next_own += 1;
        let request = call.request.as_deref().cloned();
        match &request {
            Some(Request::Locks(ask)) => self.inherit_lock(ticket, ask),
            Some(Request::Commit { commit, .. }) => {
                let blocks = commit.extents.iter().map(|e| DiskRange { start: e.disk, len: e.len });
                self.inherited.withheld.extend(blocks);
            }
            Some(Request::GrantReturn { ranges }) => self.inherited.withheld.extend(ranges),
            _ => {}
        }
        if let (Some(origin), true) = (call.origin, request.as_ref().is_some_and(changes)) {
            self.inherited.claims.insert(origin, Claim::InSlot(slot, call.seq));
        }
        self.slots.inherit((slot, call.seq), ticket, request, call.origin);
    }

    fn recover_layouts(&mut self, ledger: &mut Ledger) {
        let returning: BTreeSet<LayoutId> = self
            .slots
            .requests()
            .filter_map(|(_, _, r)| match &r.request {
                Request::Commit { give_back, .. } => Some(give_back.clone()),
                _ => None,
            })
            .flatten()
            .collect();
        let Ledger { layouts, files, .. } = ledger;
        layouts.retain(|id, (ino, _)| files.contains_key(ino) && !returning.contains(id));
        for (id, (ino, range)) in layouts {
            self.layouts.recover(*id, *ino, *range);
            self.inherited.recovering.insert(*id, *ino);
        }
        let blocks = files.values().flat_map(|f| f.extents()).map(|e| DiskRange { start: e.disk, len: e.len });
        self.inherited.withheld.extend(blocks);
    }

    /// A request of the kernel. What it led to in another process is not asked for a second time.
    pub(super) fn submit_for(&mut self, ticket: Ticket, request: Request, origin: Origin, out: &mut Vec<Effect>) {
        let claim = match self.rules.has(Rule::ClaimedOnce) {
            true => self.inherited.claims.remove(&origin),
            false => None,
        };
        match claim {
            Some(Claim::Lost) => {
                self.inherited.claims.insert(origin, Claim::Lost);
                return out.push(Effect::Reply { ticket, result: Err(CallFailure::Evicted) });
            }
            Some(Claim::Answered(asked, result)) if is_same(&asked, &request) => {
                return out.push(Effect::Reply { ticket, result: result.map_err(CallFailure::Errno) });
            }
            Some(Claim::InSlot(slot, seq))
                if self.slots.get(slot, seq).is_some_and(|r| is_same(&r.request, &request)) =>
            {
                return self.slots.reclaim(slot, ticket);
            }
            None if self.inherited.lapsed.contains(&origin.unique) => {
                return out.push(Effect::Reply { ticket, result: Err(CallFailure::Evicted) });
            }
            _ => {}
        }
        if self.noted.on {
            self.noted.origins.insert(ticket, origin);
        }
        self.submit(ticket, request, out);
    }

    /// What nobody came back for is what callers that have gone left behind. A file that was opened for one of them stays open: its
    /// program may have had the answer just before the kill.
    pub(super) fn none_comes_again(&mut self, out: &mut Vec<Effect>) {
        let left = std::mem::take(&mut self.inherited.claims);
        self.inherited.lapsed.extend(left.keys().map(|origin| origin.unique));
        self.let_held_back_go(out);
    }

    /// What was inherited and asked for by the kernel is lost with the incarnation.
    pub(super) fn inherited_is_lost(&mut self) {
        self.inherited.claims.values_mut().for_each(|claim| *claim = Claim::Lost);
        self.inherited.recovering.clear();
        self.noted.origins.clear();
    }

    pub(super) fn is_recovering(&self, ino: InodeNo) -> bool {
        self.inherited.recovering.values().any(|i| *i == ino)
    }

    /// Whether somebody may come back for a call that another process made.
    pub(super) fn is_claimed(&self, done: &InSlot) -> bool {
        let claim = done.origin.filter(|_| done.inherited).and_then(|o| self.inherited.claims.get(&o));
        matches!(claim, Some(Claim::InSlot(..)))
    }

    /// The answer to a call that another process made waits for the one that comes back for it.
    pub(super) fn keep_for_caller(&mut self, done: &InSlot, result: &Result<Reply, i32>) {
        if let Some(origin) = done.origin.filter(|_| self.is_claimed(done)) {
            let answered = Claim::Answered(Box::new(done.request.clone()), result.clone());
            self.inherited.claims.insert(origin, answered);
        }
    }

    /// The grant on record, without what is in use or on its way back.
    pub(super) fn not_withheld(&mut self, grants: Vec<DiskRange>) -> Vec<DiskRange> {
        self.inherited.taken_over.clone_from(&grants);
        std::mem::take(&mut self.inherited.withheld).into_iter().fold(grants, without)
    }

    /// Whether space that another process had asked for was in the grant already when that was taken over.
    pub(super) fn was_taken_over(&self, ranges: &[DiskRange]) -> bool {
        let inside = |r: &DiskRange, g: &DiskRange| g.start <= r.start && r.start.0 + r.len.0 <= g.start.0 + g.len.0;
        ranges.iter().all(|r| r.len.0 == 0 || self.inherited.taken_over.iter().any(|g| inside(r, g)))
    }

    // ---- notes

    pub(super) fn note(&mut self, note: impl FnOnce() -> Note) {
        if self.noted.on {
            self.noted.notes.push(note());
        }
    }

    /// A call is about to be sent.
    pub(super) fn note_call(&mut self, slot: SlotRef) {
        if !self.noted.on {
            return;
        }
        let Some((seq, call)) = self.slots.unsent(slot) else { return };
        call.origin = self.noted.origins.remove(&call.ticket);
        let request = matters(&call.request).then(|| Box::new(call.request.clone()));
        let note = Note::Sent { slot, seq, request, origin: call.origin };
        if self.rules.has(Rule::NotedBeforeSent) {
            self.noted.notes.push(note);
        }
    }

    pub(super) fn note_answered(&mut self, (slot, seq): (SlotRef, u64), done: &InSlot, result: &Result<Reply, i32>) {
        if matters(&done.request) {
            // Of most answers it matters only that they came.
            let told = changes(&done.request) && done.origin.is_some();
            let result = if told { result.clone() } else { result.as_ref().map(|_| Reply::Done).map_err(|e| *e) };
            self.note(|| Note::Answered { slot, seq, result });
        }
    }

    pub(super) fn note_layout(&mut self, grant: &LayoutGrant) {
        if grant.mode == LayoutMode::Exclusive {
            self.note(|| Note::Layout { id: grant.id, ino: grant.ino, range: grant.range });
        }
    }

    pub(super) fn note_dropped(&mut self, id: LayoutId, mode: LayoutMode) {
        self.inherited.recovering.remove(&id);
        if mode == LayoutMode::Exclusive {
            self.note(|| Note::LayoutGone(id));
        }
    }

    /// A caller was let go before its call was sent.
    pub(super) fn forget_origin(&mut self, ticket: Ticket) {
        self.noted.origins.remove(&ticket);
    }

    /// All that this event brought is noted first.
    pub(super) fn tell_notes(&mut self, begin: usize, out: &mut Vec<Effect>) {
        if !self.noted.on {
            return;
        }
        let direct = self.gate_open.then_some(self.router.fence_gen);
        if self.noted.direct != Some(direct) {
            self.noted.direct = Some(direct);
            self.noted.notes.push(Note::Direct(direct));
        }
        // What a program is still to be told of is not told by the next life.
        let loses = |effect: &Effect| {
            matches!(
                effect,
                Effect::WritesLost { .. }
                    | Effect::LocksLost { .. }
                    | Effect::HandleLost { .. }
                    | Effect::Evicted { .. }
                    | Effect::Dropped { lost: true, .. }
            )
        };
        if out[begin..].iter().any(loses) {
            self.noted.notes.push(Note::Over);
            self.noted.on = false;
        }
        let notes = std::mem::take(&mut self.noted.notes);
        if !notes.is_empty() {
            out.insert(begin, Effect::Note(notes));
        }
    }
}

impl super::held::Layouts {
    fn recover(&mut self, id: LayoutId, ino: InodeNo, range: BlockRange) {
        self.put_back(id, super::HeldLayout { ino, range, mode: LayoutMode::Exclusive, standing: Standing::Held });
    }
}

/// Whether a request of the kernel led to the same call once more. A file is opened under a name of the second process's choice.
fn is_same(before: &Request, now: &Request) -> bool {
    match (before, now) {
        (Request::Create { open: Some(then), .. }, Request::Create { open: Some(_), .. }) => {
            let mut now = now.clone();
            if let Request::Create { open: Some(open), .. } = &mut now {
                open.handle = then.handle;
            }
            *before == now
        }
        (before, now) => before == now,
    }
}

/// What is left of some ranges without another.
fn without(ranges: Vec<DiskRange>, cut: DiskRange) -> Vec<DiskRange> {
    let (from, to) = (cut.start.0, cut.start.0 + cut.len.0);
    let part = |start: u64, end: u64| {
        (start < end).then(|| DiskRange { start: DiskBlock(start), len: BlockCount(end - start) })
    };
    let parts = |r: DiskRange| {
        let (start, end) = (r.start.0, r.start.0 + r.len.0);
        part(start, end.min(from)).into_iter().chain(part(start.max(to), end))
    };
    if cut.len.0 == 0 { ranges } else { ranges.into_iter().flat_map(parts).collect() }
}
