//! The client's core: what one node, for one volume, has agreed with the coordinator.
//!
//! It finds the coordinator and binds to it (`binding`), keeps each request in its slot until it is answered
//! (`slots`), knows the layouts held and brings them back when asked (`held`), decides how data travels
//! (`route`) and keeps redirected writes until they are stable (`redirect`). What has waited for too long is ended
//! (`expiry`), and an incarnation goes on in another process: one that makes room in order hands it on (`hand_on`); what one
//! knows is noted as it comes (`ledger`), so that the next goes on also after a SIGKILL (`recover`). [`map`] is the mapping of one file as
//! its client sees it.
//!
//! **What it refuses**: to send anything unanswered before its BIND was answered; to send a redirected write before
//! the path fence; to be direct again before redirected I/O was drained; to give back a layout somebody still uses;
//! to go back to a lower epoch. Each refusal is a rule named in the module that has it, with its interleaving.
//!
//! **What it does not hold**: data, and the guards of operations in flight. In-place direct I/O under held layouts
//! therefore asks it nothing and goes on while there is no coordinator.
//!
//! Called by the shell ([`crate::client::session`]) under one lock, and by the simulation.

mod binding;
mod calls;
mod event;
mod expiry;
mod hand_on;
mod held;
mod ledger;
mod locks;
pub mod map;
mod recover;
mod redirect;
mod route;
mod slots;
mod wayback;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use block::shared::{Epoch, FenceGen};

use crate::core::rules::{Rule, Rules};
use crate::core::time::Now;
use crate::proto::{BindAnswer, BindRequest, CallbackAnswer, CallbackAsk, Reassert, Redirect, RedirectAnswer, Request};
use crate::types::*;

use binding::Binder;
pub use binding::Binding;
pub(crate) use calls::changes;
pub use event::{CallFailure, Effect, Event, IoId, RedirectResult, Ticket};
pub use expiry::{Overdue, Patience, Story, Sweep};
pub use hand_on::{Known, KnownOpen, LEFT};
pub use held::{HeldLayout, Standing};
use held::{Layouts, Recalled};
pub use ledger::{Ledger, Note, NotedFile, NotedOpen, Origin};
pub use locks::LockOp;
use locks::{JobId, Locks};
use recover::{Inherited, Noted};
use redirect::{Permit, Redirects, Wire};
pub use route::{Reason, Route, RouteInfo};
use route::{Router, Stage};
use slots::Slots;

/// What a client needs to know before it starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientConfig {
    /// The volume.
    pub volume: VolumeId,
    /// Which node, and which of its lives.
    pub client: ClientId,
    /// The generation in the node's own slot when this life began.
    pub fence_gen: FenceGen,
    /// Without a direct path, the own slot is read this often.
    pub probe_every: Duration,
    /// Redirected writes kept until flushed, in bytes at most.
    pub kept_limit: u64,
    /// On the coordinator's own node an overdue request is waited for so much longer.
    pub rides_out: Duration,
}

impl ClientConfig {
    /// Bound of [`ClientConfig::kept_limit`] that a daemon uses: what a takeover can send again well within a second.
    pub const KEPT_LIMIT: u64 = 64 << 20;
}

/// The reason of an incarnation's end that its own goodbye brought about.
pub const UNMOUNTED: &str = "unmounted";

/// What the core does on its own account.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Own {
    PathLost,
    PathBack,
    Return,
    /// Releases what an interrupted caller's open left behind.
    Release,
    /// Opens a handle again after an eviction.
    Reopen {
        handle: HandleId,
        ino: InodeNo,
        flags: u32,
    },
    /// A lock, an unlock.
    Lock(JobId),
    /// Names locks, under this bind.
    Named(Bind),
    /// What needs no answer.
    Told,
}

/// An open file, as it is re-asserted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct OpenFile {
    ino: InodeNo,
    flags: u32,
}

/// The core.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    rules: Rules,
    binder: Binder,
    slots: Slots,
    layouts: Layouts,
    redirects: Redirects,
    router: Router,
    opens: BTreeMap<HandleId, OpenFile>,
    locks: Locks,
    own: BTreeMap<Ticket, Own>,
    /// Releases of handles that are being opened again: they go out when that is answered.
    early_releases: Vec<(Ticket, Request)>,
    /// What waits for something of its file that is unanswered, see `slots`.
    held_back: Vec<(Ticket, Request)>,
    next_own: u64,
    first_bind: bool,
    gate_open: bool,
    noted: Noted,
    inherited: Inherited,
}

impl Client {
    /// A client that is not bound yet; its gate of direct I/O is open, though it holds no layout.
    pub fn new(config: ClientConfig, rules: Rules, now: Now) -> Client {
        Client {
            config,
            rules,
            binder: Binder::new(now),
            slots: Slots::new(rules),
            layouts: Layouts::new(rules),
            redirects: Redirects::new(config.kept_limit, rules),
            router: Router::new(now, config.fence_gen, config.probe_every),
            opens: BTreeMap::new(),
            locks: Locks::default(),
            own: BTreeMap::new(),
            early_releases: Vec::new(),
            held_back: Vec::new(),
            next_own: Ticket::OWN,
            first_bind: true,
            gate_open: true,
            noted: Noted::default(),
            inherited: Inherited::default(),
        }
    }

    /// Takes one event; appends what to do, in order.
    pub fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        let begin = out.len();
        match event {
            Event::Tick => self.tick(now, out),
            Event::Hint(hint) => {
                if self.binder.heard(hint) {
                    self.unbind(now, true, out);
                }
            }
            Event::Reachable { node } => self.binder.reachable(now, node),
            Event::BindAnswered { bind, answer } => self.bind_answered(now, bind, answer, out),
            Event::BindFailed { bind } => {
                if self.binder.awaited(bind).is_some() {
                    self.unbind(now, false, out);
                }
            }
            Event::LinkLost { bind } => {
                if self.binder.bound() == Some(bind) || self.binder.awaited(bind).is_some() {
                    self.unbind(now, false, out);
                }
            }
            Event::Submit { ticket, request } => self.submit(ticket, request, out),
            Event::SubmitFor { ticket, request, origin } => self.submit_for(ticket, request, origin, out),
            Event::NoneComesAgain => self.none_comes_again(out),
            Event::Lock { ticket, op } => self.lock(ticket, op, out),
            Event::Cancel { ticket } => self.cancel(ticket, out),
            Event::Expired { calls, ios } => self.expired(&calls, &ios, out),
            Event::Answered { bind, slot, seq, answer } => self.answered(now, bind, slot, seq, answer, out),
            Event::Asked { client, ask, dirty } => self.asked(now, client, ask, dirty, out),
            Event::Drained { layout } => self.drained(layout, out),
            Event::Settled { layout } => self.settled(layout, out),
            Event::GiveBack { layout } => {
                if let Some(ino) = self.layouts.get(layout).map(|l| l.ino) {
                    self.recall(layout, ino, out);
                }
            }
            Event::Redirect { io, layout, op, at, len, once } => {
                self.redirect(Wire { io, layout, op, at, len, once }, out);
            }
            Event::RedirectAnswered { io, bind, answer } => self.redirect_answered(now, io, bind, answer, out),
            Event::Overdue => self.overdue(now, out),
            Event::PathSuspect { reason } => self.leave_direct(now, reason, out),
            Event::FenceAsked { fence_gen } => {
                if self.router.fence_asked(fence_gen) {
                    self.leave_direct(now, Reason::Fenced, out);
                }
            }
            Event::NothingInFlight { number } => self.nothing_in_flight(number, out),
            Event::AbortFailed { number } => self.router.abort_failed(now, number),
            Event::Probed { fence_gen } => self.probed(now, fence_gen, out),
            Event::Forced { redirect } => self.forced(now, redirect, out),
            Event::Over { reason } => self.evict(reason, out),
            Event::Leave => self.leave(out),
            Event::Reborn { client, fence_gen, poisoned } => self.reborn(now, client, fence_gen, &poisoned, out),
        }
        self.advance(now, out);
        self.check();
        self.tell_notes(begin, out);
    }

    /// When [`Event::Tick`] is due next.
    pub fn next_deadline(&self) -> Option<Now> {
        [self.binder.deadline(), self.router.deadline()].into_iter().flatten().min()
    }

    /// The binding.
    pub fn binding(&self) -> &Binding {
        &self.binder.state
    }

    /// The highest epoch this client was bound to.
    pub fn epoch(&self) -> Epoch {
        self.binder.epoch()
    }

    /// Who this is, in which life.
    pub fn client(&self) -> ClientId {
        self.config.client
    }

    /// The published route.
    pub fn route(&self) -> RouteInfo {
        self.router.published
    }

    /// The generation under which this client may do direct I/O.
    pub fn fence_gen(&self) -> FenceGen {
        self.router.fence_gen
    }

    /// Whether a direct request may be submitted now, given that its operation holds a layout.
    pub fn gate_open(&self) -> bool {
        self.gate_open
    }

    /// A layout, wherever it stands.
    pub fn layout(&self, id: LayoutId) -> Option<&HeldLayout> {
        self.layouts.get(id)
    }

    /// All layouts, wherever they stand.
    pub fn layouts(&self) -> impl Iterator<Item = (LayoutId, &HeldLayout)> {
        self.layouts.iter()
    }

    /// Whether a handle is open, as the coordinator is told.
    pub fn has_open(&self, handle: HandleId) -> bool {
        self.opens.contains_key(&handle)
    }

    /// Requests in slots, requests that wait to get into one, redirected requests, bytes of redirected writes kept.
    pub fn load(&self) -> (usize, usize, usize, u64) {
        let waiting = self.slots.waiting() + self.held_back.len();
        (self.slots.occupied().len(), waiting, self.redirects.len(), self.redirects.kept_bytes())
    }

    /// What was waiting for this moment: binding, route, redirected I/O; then the route is published if it changed.
    fn advance(&mut self, now: Now, out: &mut Vec<Effect>) {
        let step = self.binder.step(now);
        if step.ask {
            out.push(Effect::AskWho);
        }
        if let Some((to, bind)) = step.attempt {
            self.note(|| Note::Bind(bind));
            let request = Box::new(self.bind_request(bind));
            out.push(Effect::SendBind { to, request });
            if !self.rules.has(Rule::ResendAfterBind) {
                self.resend(bind, out);
            }
        }
        self.way_back(out);
        self.pump(out);
        let to = self.router.now_published(now, self.binder.bound().is_some());
        if to != self.router.published {
            out.push(Effect::Route { from: self.router.published, to });
            self.router.published = to;
            if !self.rules.has(Rule::PathIsNotRoute) {
                out.push(Effect::OwnPath { ok: !matches!(to.reason, Reason::IoTimedOut | Reason::IoFailed) });
            }
        }
    }

    fn pump(&mut self, out: &mut Vec<Effect>) {
        let Some(bind) = self.binder.bound() else { return };
        let permit = Permit {
            reads: self.router.takes_new(true),
            writes: self.router.takes_new(false),
            again: self.router.takes_redirected(false),
        };
        let mut wires = Vec::new();
        self.redirects.pump(permit, &mut wires);
        out.extend(wires.into_iter().map(|w| self.send_redirect(w, bind)));
    }

    fn send_redirect(&self, w: Wire, bind: Bind) -> Effect {
        let redirect = Redirect {
            volume: self.config.volume,
            client: self.config.client,
            bind,
            layout: w.layout,
            op: w.op,
            at: w.at,
            len: w.len,
        };
        Effect::SendRedirect { io: w.io, redirect }
    }

    fn bind_request(&mut self, bind: Bind) -> BindRequest {
        let mut reassert: Vec<Reassert> = self
            .opens
            .iter()
            .map(|(handle, o)| Reassert::Open { ino: o.ino, handle: *handle, flags: o.flags })
            .collect();
        reassert.extend(self.slots.requests().filter_map(|(slot, seq, r)| match &r.request {
            Request::Create { open: Some(open), .. } if r.sent => {
                Some(Reassert::Creating { handle: open.handle, slot, seq })
            }
            _ => None,
        }));
        reassert.extend(self.layouts.iter().filter_map(|(id, l)| self.reassert_layout(id, l)));
        reassert.extend(self.announce_locks().then_some(Reassert::LocksFollow));
        BindRequest {
            volume: self.config.volume,
            client: self.config.client,
            bind,
            fence_gen: self.router.fence_gen,
            has_path: self.router.stage == Stage::Open,
            reassert,
        }
    }

    /// A layout whose return was sent is never claimed as held: somebody else may have it by now.
    fn reassert_layout(&self, id: LayoutId, l: &HeldLayout) -> Option<Reassert> {
        let HeldLayout { ino, range, mode, standing } = *l;
        let returning = || {
            self.slots.requests().find_map(|(slot, seq, r)| match &r.request {
                Request::Commit { commit, give_back, .. } if r.sent && give_back.contains(&id) => {
                    Some((slot, seq, *commit != Default::default()))
                }
                _ => None,
            })
        };
        match if standing == Standing::Returning { returning() } else { None } {
            Some((slot, seq, true)) => Some(Reassert::Releasing { id, ino, range, mode, slot, seq }),
            Some((_, _, false)) => None,
            None => Some(Reassert::Layout { id, ino, range, mode, uncommitted: Vec::new(), size: None, mtime: None }),
        }
    }

    fn bind_answered(&mut self, now: Now, bind: Bind, answer: BindAnswer, out: &mut Vec<Effect>) {
        if self.binder.awaited(bind).is_none() {
            return;
        }
        match answer {
            BindAnswer::Bound { epoch, grants, refused, fence_gen, verifier, .. } => {
                if !self.binder.accepted(bind, epoch) {
                    return self.unbind(now, false, out);
                }
                self.note(|| Note::Epoch(epoch));
                let grants = if self.first_bind { self.not_withheld(grants) } else { grants };
                out.push(Effect::Bound { epoch, first: self.first_bind, grants });
                self.first_bind = false;
                for id in refused {
                    self.refused(id, out);
                    self.let_held_back_go(out);
                }
                self.generation_told(now, fence_gen, out);
                self.redirects.history(verifier, out);
                self.redirects.end_expired(out);
                self.redirects.end_doubtful(out);
                if self.rules.has(Rule::ResendAfterBind) {
                    self.resend(bind, out);
                }
                self.locks_bound(bind, out);
            }
            BindAnswer::NotCoordinator { hint } => {
                let newer = hint.is_some_and(|h| self.binder.heard(h));
                self.unbind(now, newer, out);
            }
            BindAnswer::Busy => self.unbind(now, false, out),
            BindAnswer::Evicted { reason } => self.evict(reason, out),
        }
    }

    fn refused(&mut self, id: LayoutId, out: &mut Vec<Effect>) {
        if self.layouts.get(id).is_none_or(|l| l.standing == Standing::Returning) {
            return;
        }
        self.drop_layout(id, true, out);
    }

    fn drop_layout(&mut self, id: LayoutId, lost: bool, out: &mut Vec<Effect>) {
        if let Some(l) = self.layouts.remove(id) {
            self.note_dropped(id, l.mode);
            self.redirects.layout_gone(id, out);
            out.push(Effect::Dropped { layout: id, ino: l.ino, lost });
            if !self.asks_for(l.ino) {
                self.layouts.nothing_asked(l.ino);
            }
        }
    }

    /// Whether a LayoutGet of this inode is unanswered.
    fn asks_for(&self, ino: InodeNo) -> bool {
        self.slots.requests().any(|(_, _, r)| matches!(r.request, Request::LayoutGet { ino: i, .. } if i == ino))
    }

    /// The binding is over. Whoever was interrupted meanwhile is let go now.
    fn unbind(&mut self, now: Now, at_once: bool, out: &mut Vec<Effect>) {
        if matches!(self.binder.state, Binding::Evicted { .. }) {
            return;
        }
        if self.binder.bound().is_some() {
            out.push(Effect::Unbound);
        }
        self.binder.lose(now, at_once);
        self.redirects.unbind();
        self.let_interrupted_go(out);
    }

    fn asked(&mut self, now: Now, client: ClientId, ask: CallbackAsk, dirty: bool, out: &mut Vec<Effect>) {
        if client == self.config.client && self.has_left() {
            return out.push(Effect::AnswerCallback(self.answered_after_leaving(&ask)));
        }
        if client != self.config.client || matches!(self.binder.state, Binding::Evicted { .. }) {
            return out.push(Effect::AnswerCallback(CallbackAnswer::WrongIncarnation));
        }
        let under_way = if self.router.published.route == Route::Draining || self.router.is_stalled(now) {
            CallbackAnswer::Draining
        } else {
            CallbackAnswer::Accepted
        };
        let answer = match ask {
            CallbackAsk::Recall { layout, ino } => match self.recall(layout, ino, out) {
                Recalled::Unknown => CallbackAnswer::NotHeld,
                Recalled::Start | Recalled::UnderWay | Recalled::Early => under_way,
            },
            CallbackAsk::Sync { ino, number } if dirty => {
                out.push(Effect::Sync { ino, number });
                under_way
            }
            CallbackAsk::Sync { .. } => CallbackAnswer::NotHeld,
            CallbackAsk::RecallGrant => {
                out.push(Effect::ReturnGrant);
                // What was asked for and has not come cannot go back now.
                let abandoned = |r: &slots::InSlot| r.abandoned && matches!(r.request, Request::Grant { .. });
                let more = dirty || self.slots.requests().any(|(_, _, r)| abandoned(r));
                if more { CallbackAnswer::Draining } else { CallbackAnswer::Accepted }
            }
            CallbackAsk::Progress => under_way,
            CallbackAsk::LockReady { wait } => self.lock_ready(wait, out),
            CallbackAsk::LockHeld { ino, space, lock } => self.lock_on_record(ino, space, &lock),
        };
        out.push(Effect::AnswerCallback(answer));
    }

    fn recall(&mut self, layout: LayoutId, ino: InodeNo, out: &mut Vec<Effect>) -> Recalled {
        let recalled = self.layouts.recall(layout, ino, self.asks_for(ino));
        if recalled == Recalled::Start {
            out.push(Effect::Withdraw { layout, ino });
            if self.layouts.get(layout).is_some_and(|l| l.standing == Standing::Settling) {
                out.push(Effect::Settle { layout, ino });
            }
        }
        recalled
    }

    fn drained(&mut self, layout: LayoutId, out: &mut Vec<Effect>) {
        if let Some(l) = self.layouts.advance(layout, Standing::Draining, Standing::Settling) {
            out.push(Effect::Settle { layout, ino: l.ino });
        }
    }

    fn settled(&mut self, layout: LayoutId, out: &mut Vec<Effect>) {
        if let Some(l) = self.layouts.get(layout).filter(|l| l.standing == Standing::Settling).copied() {
            let request = Request::Commit { ino: l.ino, commit: Default::default(), give_back: vec![layout] };
            self.submit_own(Own::Return, request, out);
        }
    }

    fn redirect(&mut self, wire: Wire, out: &mut Vec<Effect>) {
        let io = wire.io;
        let early = |result| Effect::RedirectDone { io, result };
        if matches!(self.binder.state, Binding::Evicted { .. }) {
            return out.push(early(RedirectResult::Evicted));
        }
        if self.router.stage == Stage::Open {
            return out.push(early(RedirectResult::Direct));
        }
        let exclusive = match (wire.op, self.layouts.get(wire.layout)) {
            (crate::proto::RedirectOp::Flush, _) => false,
            (_, Some(l)) if l.standing != Standing::Returning => l.mode == LayoutMode::Exclusive,
            _ => return out.push(early(RedirectResult::NoLayout)),
        };
        self.redirects.submit(wire, exclusive);
    }

    fn redirect_answered(&mut self, now: Now, io: IoId, bind: Bind, answer: RedirectAnswer, out: &mut Vec<Effect>) {
        if self.binder.bound() != Some(bind) {
            return;
        }
        match answer {
            RedirectAnswer::Done { verifier } => self.redirects.done(io, verifier, out),
            RedirectAnswer::Errno(errno) => self.redirects.failed(io, RedirectResult::Errno(errno), out),
            RedirectAnswer::NoLayout => self.redirects.failed(io, RedirectResult::NoLayout, out),
            RedirectAnswer::StaleEpoch { hint } => {
                let newer = hint.is_some_and(|h| self.binder.heard(h));
                self.unbind(now, newer, out);
            }
            RedirectAnswer::StaleBind => self.unbind(now, false, out),
            RedirectAnswer::Evicted { reason } => self.evict(reason, out),
            RedirectAnswer::PathNotFenced => {
                self.redirects.again(io);
                self.fence_again(out);
            }
        }
    }

    /// Nothing that this incarnation accepted is ever issued under the next one.
    fn evict(&mut self, reason: String, out: &mut Vec<Effect>) {
        if matches!(self.binder.state, Binding::Evicted { .. }) {
            return;
        }
        if self.binder.bound().is_some() {
            out.push(Effect::Unbound);
        }
        self.binder.evict(reason.clone());
        self.inherited_is_lost();
        if std::mem::take(&mut self.gate_open) {
            out.push(Effect::CloseDirect);
        }
        self.redirects.evict(out);
        for (layout, l) in self.layouts.clear() {
            out.push(Effect::Dropped { layout, ino: l.ino, lost: true });
        }
        let held_back = std::mem::take(&mut self.held_back).into_iter().map(|(ticket, _)| ticket);
        for ticket in self.slots.clear().into_iter().chain(held_back) {
            if ticket.0 < Ticket::OWN {
                out.push(Effect::Reply { ticket, result: Err(CallFailure::Evicted) });
            }
        }
        // What was just being opened again is opened again by the next life.
        for own in std::mem::take(&mut self.own).into_values() {
            if let Own::Reopen { handle, ino, flags } = own {
                self.opens.insert(handle, OpenFile { ino, flags });
            }
        }
        // What was closed meanwhile is not.
        let early = std::mem::take(&mut self.early_releases);
        let closed: Vec<Request> =
            early.iter().map(|(_, request)| request.clone()).chain(self.releases_behind_locks()).collect();
        closed.iter().for_each(|request| self.forget_open(request));
        for (ticket, _) in early.into_iter().filter(|(ticket, _)| ticket.0 < Ticket::OWN) {
            out.push(Effect::Reply { ticket, result: Err(CallFailure::Evicted) });
        }
        let locked = self.locks_evicted(out);
        out.push(Effect::Evicted { reason, locked });
    }

    fn reborn(
        &mut self,
        now: Now,
        client: ClientId,
        fence_gen: FenceGen,
        poisoned: &[HandleId],
        out: &mut Vec<Effect>,
    ) {
        if !matches!(self.binder.state, Binding::Evicted { .. }) {
            return;
        }
        self.config.client = client;
        self.config.fence_gen = fence_gen;
        self.binder.reborn(now);
        self.first_bind = true;
        let (published, forced, aborts) = (self.router.published, self.router.forced, self.router.aborts);
        if self.router.path_bad() {
            out.push(Effect::OwnPath { ok: true });
        }
        self.router = Router::new(now, fence_gen, self.config.probe_every);
        (self.router.published, self.router.aborts) = (published, aborts);
        self.gate_open = true;
        out.push(Effect::OpenDirect);
        for (handle, o) in std::mem::take(&mut self.opens) {
            if !poisoned.contains(&handle) {
                let open = crate::proto::OpenRequest { handle, flags: o.flags };
                self.submit_own(
                    Own::Reopen { handle, ino: o.ino, flags: o.flags },
                    Request::Open { ino: o.ino, open },
                    out,
                );
            }
        }
        if forced {
            self.forced(now, true, out);
        }
    }

    /// What must hold after every event.
    fn check(&self) {
        let evicted = matches!(self.binder.state, Binding::Evicted { .. });
        assert_eq!(
            self.gate_open,
            !evicted && self.router.stage == Stage::Open,
            "the gate is open exactly on the direct route"
        );
        if self.gate_open && self.rules.has(Rule::DrainBeforePathBack) {
            assert!(self.redirects.is_drained(), "redirected I/O is outstanding on the direct route");
        }
        assert!(!evicted || self.redirects.len() == 0, "an evicted incarnation has nothing under way");
    }
}
