//! Session calls: into slots, out to the coordinator, and what their answers change here.

use crate::core::rules::Rule;
use crate::core::time::Now;
use crate::proto::{Answer, Call, LayoutGrant, OpenRequest, Reply, Request};
use crate::types::*;

use super::binding::Binding;
use super::event::{CallFailure, Effect, Ticket};
use super::held::{Recalled, Standing};
use super::ledger::Note;
use super::slots::InSlot;
use super::{Client, OpenFile, Own, UNMOUNTED};

impl Client {
    pub(super) fn submit(&mut self, ticket: Ticket, request: Request, out: &mut Vec<Effect>) {
        if matches!(self.binder.state, Binding::Evicted { .. }) {
            self.forget_open(&request);
            return out.push(Effect::Reply { ticket, result: Err(CallFailure::Evicted) });
        }
        self.place(ticket, request, out);
    }

    /// A handle that is closed is not opened again.
    pub(super) fn forget_open(&mut self, request: &Request) {
        if let Request::Release { handle, .. } = request {
            self.opens.remove(handle);
        }
    }

    /// A release does not pass the request that opens its handle again: it would be open for ever.
    fn is_early(&self, request: &Request) -> bool {
        let Request::Release { handle, .. } = request else { return false };
        self.own.values().any(|own| matches!(own, Own::Reopen { handle: h, .. } if h == handle))
    }

    /// A handle was opened again, or is lost: its release goes out if it has come.
    fn release_reopened(&mut self, handle: HandleId, out: &mut Vec<Effect>) {
        let of = |r: &Request| matches!(r, Request::Release { handle: h, .. } if *h == handle);
        let (go, rest) = std::mem::take(&mut self.early_releases).into_iter().partition(|(_, r)| of(r));
        self.early_releases = rest;
        let go: Vec<(Ticket, Request)> = go;
        for (ticket, request) in go {
            self.place(ticket, request, out);
        }
    }

    /// Nothing after an eviction. Prevents: the proof that nothing is in flight comes when the incarnation is over, and
    /// PATH_LOST waits in a slot for the next one, which then says so while its I/O is direct.
    pub(super) fn submit_own(&mut self, own: Own, request: Request, out: &mut Vec<Effect>) {
        if matches!(self.binder.state, Binding::Evicted { .. }) {
            return;
        }
        let ticket = Ticket(self.next_own);
        self.next_own += 1;
        self.own.insert(ticket, own);
        self.place(ticket, request, out);
    }

    pub(super) fn place(&mut self, ticket: Ticket, request: Request, out: &mut Vec<Effect>) {
        if self.is_early(&request) {
            return self.early_releases.push((ticket, request));
        }
        if self.is_held_back(&request) {
            return self.held_back.push((ticket, request));
        }
        if !self.release_may_go(ticket, &request, out) {
            return;
        }
        match &request {
            // What a release was sent for is never re-asserted.
            Request::Release { handle, .. } => {
                self.opens.remove(handle);
            }
            Request::Commit { give_back, .. } => give_back.iter().for_each(|id| self.layouts.returning(*id)),
            _ => {}
        }
        let slot = self.slots.submit(ticket, request);
        if let (Some(slot), Some(bind)) = (slot, self.binder.bound()) {
            self.send(slot, bind, out);
        }
    }

    /// Whether something of its file has to be answered first.
    fn is_held_back(&self, request: &Request) -> bool {
        if matches!(request, Request::LayoutGet { ino, .. } if self.is_recovering(*ino)) {
            return true;
        }
        if !self.rules.has(Rule::LeftBehindFirst) {
            return false;
        }
        let mut unanswered = self.slots.unanswered();
        match request {
            Request::Commit { ino, .. } => unanswered.any(|(r, left)| left && commits(r, *ino)),
            Request::LayoutGet { ino, .. } => unanswered.any(|(r, left)| left && reshapes(r, *ino)),
            Request::Setattr { ino, set } if set.size.is_some() || set.mtime.is_some() => {
                unanswered.any(|(r, left)| commits(r, *ino) || tells_times(r, *ino) || (left && changes(r)))
            }
            request if changes(request) => unanswered.any(|(r, left)| left && changes(r)),
            _ => false,
        }
    }

    /// Something was answered, or withdrawn: what waited for it goes, in order.
    pub(super) fn let_held_back_go(&mut self, out: &mut Vec<Effect>) {
        for (ticket, request) in std::mem::take(&mut self.held_back) {
            self.place(ticket, request, out);
        }
    }

    fn send(&mut self, slot: SlotRef, bind: Bind, out: &mut Vec<Effect>) {
        self.note_call(slot);
        if let Some((seq, request)) = self.slots.send(slot) {
            let call = Call { volume: self.config.volume, client: self.config.client, bind, slot, seq, request };
            out.push(Effect::SendCall { call: Box::new(call) });
        }
    }

    /// Everything unanswered again, each in its slot under its number.
    pub(super) fn resend(&mut self, bind: Bind, out: &mut Vec<Effect>) {
        for (slot, _) in self.slots.occupied() {
            self.send(slot, bind, out);
        }
    }

    pub(super) fn cancel(&mut self, ticket: Ticket, out: &mut Vec<Effect>) {
        if self.cancel_lock(ticket, out) {
            return;
        }
        let held_back = self.held_back.iter().position(|(t, _)| *t == ticket);
        let gone = held_back.map(|at| self.held_back.remove(at)).is_some();
        if gone || self.slots.cancel(ticket, self.binder.bound().is_some()) {
            self.forget_origin(ticket);
            out.push(Effect::Reply { ticket, result: Err(CallFailure::Interrupted) });
            self.let_held_back_go(out);
        }
    }

    pub(super) fn let_interrupted_go(&mut self, out: &mut Vec<Effect>) {
        for ticket in self.slots.abandon_interrupted() {
            out.push(Effect::Reply { ticket, result: Err(CallFailure::Interrupted) });
        }
        self.let_interrupted_locks_go(out);
    }

    pub(super) fn answered(
        &mut self,
        now: Now,
        bind: Bind,
        slot: SlotRef,
        seq: u64,
        answer: Answer,
        out: &mut Vec<Effect>,
    ) {
        if self.binder.bound() != Some(bind) || self.slots.get(slot, seq).is_none() {
            return;
        }
        let result = match answer {
            Answer::Ok(reply) => Ok(reply),
            Answer::Errno(errno) => Err(errno),
            Answer::StaleEpoch { hint } => {
                let newer = hint.is_some_and(|h| self.binder.heard(h));
                return self.unbind(now, newer, out);
            }
            Answer::StaleBind => return self.unbind(now, false, out),
            Answer::Evicted { reason } => return self.evict(reason, out),
            Answer::BadSequence { expected } => {
                return self.evict(format!("slot {slot:?}: sent {seq}, the coordinator expected {expected}"), out);
            }
        };
        let Some((done, next)) = self.slots.finish(slot, seq) else { return };
        self.note_answered((slot, seq), &done, &result);
        if let Some(next) = next {
            self.send(next, bind, out);
        }
        self.finished(now, done, result, out);
        self.let_held_back_go(out);
    }

    fn finished(&mut self, now: Now, done: InSlot, result: Result<Reply, i32>, out: &mut Vec<Effect>) {
        if done.withdrawn && matches!(result, Ok(Reply::Space(_))) {
            self.forget_ask(&done);
            return self.was_withdrawn(&done, out);
        }
        if let Ok(Reply::Layout(grant)) = &result
            && (done.inherited || self.layouts.is_overtaken(grant))
        {
            let InSlot { ticket, request, abandoned, .. } = done;
            return self.send_back_untold(ticket, request, abandoned, grant, out);
        }
        let recall_at_once = self.take_effect(&done, &result, out);
        self.keep_for_caller(&done, &result);
        let InSlot { ticket, request, abandoned, .. } = done;
        match self.own.remove(&ticket) {
            Some(own) => self.own_answered(now, own, result, out),
            None if abandoned => {}
            None => out.push(Effect::Reply { ticket, result: result.map_err(CallFailure::Errno) }),
        }
        if let Some((layout, ino)) = recall_at_once {
            let recalled = self.recall(layout, ino, out);
            debug_assert_eq!(recalled, Recalled::Start);
        }
        if let Request::LayoutGet { ino, .. } = request
            && !self.asks_for(ino)
        {
            self.layouts.nothing_asked(ino);
        }
    }

    /// It has not brought a layout, and does not any more.
    fn forget_ask(&mut self, done: &InSlot) {
        if let Request::LayoutGet { ino, .. } = done.request
            && !self.asks_for(ino)
        {
            self.layouts.nothing_asked(ino);
        }
    }

    /// A grant whose mapping may be older than what was committed here: nobody is told, it goes back, and whoever asked
    /// asks again.
    fn send_back_untold(
        &mut self,
        ticket: Ticket,
        request: Request,
        abandoned: bool,
        grant: &LayoutGrant,
        out: &mut Vec<Effect>,
    ) {
        let back = Request::Commit { ino: grant.ino, commit: Default::default(), give_back: vec![grant.id] };
        self.submit_own(Own::Return, back, out);
        match abandoned {
            false => self.place(ticket, request, out),
            true if !self.asks_for(grant.ino) => self.layouts.nothing_asked(grant.ino),
            true => {}
        }
    }

    /// What an answer changes here, whether or not its caller is still there. The layout returned has been recalled
    /// already.
    fn take_effect(
        &mut self,
        done: &InSlot,
        result: &Result<Reply, i32>,
        out: &mut Vec<Effect>,
    ) -> Option<(LayoutId, InodeNo)> {
        let (ticket, abandoned) = (done.ticket, done.abandoned);
        match (&done.request, result) {
            (Request::LayoutGet { .. }, Ok(Reply::Layout(grant))) => {
                for ended in self.layouts.ended_before(grant) {
                    self.drop_layout(ended, false, out);
                }
                self.note_layout(grant);
                let recalled = self.layouts.grant(grant);
                out.push(Effect::Granted { ticket, grant: grant.clone() });
                return recalled.then_some((grant.id, grant.ino));
            }
            (Request::Open { ino, open }, Ok(_)) => self.opened(*ino, *open, done, abandoned, out),
            // The program that asked another process for it comes back.
            (Request::Create { open: Some(open), .. }, Ok(Reply::Created { attr, opened: true })) => {
                self.opened(attr.ino, *open, done, abandoned && !self.is_claimed(done), out)
            }
            (Request::Commit { give_back, .. }, Ok(_)) => {
                give_back.iter().for_each(|id| self.drop_layout(*id, false, out))
            }
            // A return that failed is tried again when the shell says once more that it is settled.
            (Request::Commit { give_back, .. }, Err(_)) => {
                for id in give_back {
                    if let Some(l) = self.layouts.advance(*id, Standing::Returning, Standing::Settling) {
                        out.push(Effect::Settle { layout: *id, ino: l.ino });
                    }
                }
            }
            // Whoever asked has gone, and nobody else would ever use it.
            (Request::Grant { .. }, Ok(Reply::Granted(ranges))) if done.inherited && self.was_taken_over(ranges) => {}
            (Request::Grant { .. }, Ok(Reply::Granted(ranges))) if abandoned => {
                let back = Request::GrantReturn { ranges: ranges.clone() };
                self.submit_own(Own::Return, back, out);
            }
            (Request::Goodbye, Ok(_)) => self.evict(UNMOUNTED.to_owned(), out),
            _ => {}
        }
        None
    }

    fn opened(&mut self, ino: InodeNo, open: OpenRequest, done: &InSlot, unwanted: bool, out: &mut Vec<Effect>) {
        self.opens.insert(open.handle, OpenFile { ino, flags: open.flags });
        let (OpenRequest { handle, flags }, unique) = (open, done.origin.map(|o| o.unique));
        self.note(|| Note::Opened { handle, ino, flags, unique });
        if unwanted {
            self.submit_own(Own::Release, Request::Release { ino, handle: open.handle }, out);
        }
    }

    fn own_answered(&mut self, now: Now, own: Own, result: Result<Reply, i32>, out: &mut Vec<Effect>) {
        match own {
            Own::PathLost => self.path_lost_answered(now, result, out),
            Own::PathBack => self.path_back_answered(now, result, out),
            Own::Return | Own::Release | Own::Told => {}
            Own::Lock(job) => self.lock_answered(job, result, out),
            Own::Named(bind) => self.named(bind, result, out),
            Own::Reopen { handle, ino, .. } if result.is_err() => {
                self.opens.remove(&handle);
                out.push(Effect::HandleLost { handle, ino });
                self.pump_all_lanes(out);
                self.release_reopened(handle, out);
            }
            Own::Reopen { handle, ino, flags } => {
                self.opens.insert(handle, OpenFile { ino, flags });
                self.pump_all_lanes(out);
                self.release_reopened(handle, out);
            }
        }
    }
}

/// Whether it commits something of that file.
fn commits(request: &Request, of: InodeNo) -> bool {
    matches!(request, Request::Commit { ino, .. } if *ino == of)
}

/// Whether it changes names or attributes, or what a file has of space.
pub(crate) fn changes(request: &Request) -> bool {
    let space = matches!(request, Request::Grant { .. });
    request.is_durable() && request.table() == SlotTable::Ordinary && !space
}

/// Whether it may take away what was written to that file.
fn reshapes(request: &Request, of: InodeNo) -> bool {
    match request {
        Request::Setattr { ino, set } => *ino == of && set.size.is_some(),
        Request::Fallocate { ino, .. } => *ino == of,
        Request::Clear(clear) => clear.ino == of,
        _ => false,
    }
}

/// Whether it tells of a time of that file.
fn tells_times(request: &Request, of: InodeNo) -> bool {
    matches!(request, Request::Times { changes } if changes.iter().any(|(ino, _)| *ino == of))
}
