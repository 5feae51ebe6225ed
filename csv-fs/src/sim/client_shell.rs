//! The thin shell around a client core: what it keeps for files and callers, and how effects reach the wire and the
//! disk. It decides nothing; what waits (settling, syncing, committing) is a task in `files`.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use block::shared::{FenceGen, NodeId};

use super::disk::{self, Block, Claim, Req, Res};
use super::exec::{Sender, oneshot};
use super::oracle::WriteId;
use super::restarts::{GoesOn, Left};
use super::world::{Core, MS, World, micros};
use crate::core::client::map::FileMap;
use crate::core::client::{
    Binding, CallFailure, Client, ClientConfig, Effect, Event, IoId, Ledger, LockOp, Origin, Patience, Reason,
    RedirectResult, Route, Sweep, Ticket,
};
use crate::core::coord::CallbackId;
use crate::core::office;
use crate::core::rules::Rule;
use crate::proto::{
    Answer, BindAnswer, BindRequest, Call, CallbackAsk, CoordinatorHint, LayoutGrant, Reassert, Redirect,
    RedirectAnswer, RedirectOp, Reply, Request,
};
use crate::types::*;

/// Redirected writes kept until flushed: small, so that the limit is met.
const KEPT: u64 = 4 * FS_BLOCK;

/// What the kernel sends again has been read after this, in microseconds.
const COMES_AGAIN: u64 = 3000 * MS;

/// A request that is overdue is said to be again after this.
const SAID_AGAIN: Duration = Duration::from_millis(200);

/// A layout in use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) ino: InodeNo,
    pub(super) range: BlockRange,
    pub(super) mode: LayoutMode,
    pub(super) guards: u32,
    pub(super) withdrawn: bool,
}

/// A file as this node's data path knows it.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) map: FileMap,
    pub(super) locked: BTreeSet<u64>,
    pub(super) committing: bool,
    pub(super) appending: bool,
    /// The highest sync asked for.
    pub(super) sync: u64,
    /// Written directly since the last flush.
    pub(super) unflushed: bool,
    /// The next fsync fails.
    pub(super) lost: bool,
}

/// A reply, and the guard that a granted layout came with.
pub(super) type Called = (Result<Reply, CallFailure>, Option<LayoutId>);

/// A redirected request.
pub(super) struct Io {
    write: Option<disk::Write>,
    read: Option<Block>,
    answered: bool,
    waiter: Option<Sender<(RedirectResult, Option<Block>)>>,
}

/// What became of a direct request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Direct {
    Done,
    Data(Block),
    /// Not done: another way, or once more.
    Again,
}

/// A client and what its shell keeps.
pub(super) struct ClientShell {
    pub(super) core: Client,
    pub(super) layouts: BTreeMap<LayoutId, Held>,
    pub(super) files: BTreeMap<InodeNo, File>,
    pub(super) grant: BTreeSet<u64>,
    /// Handles of files that requests of the kernel opened in the process before, and requests that appended there.
    pub(super) promised: BTreeMap<u64, HandleId>,
    pub(super) appended: BTreeSet<u64>,
    waiters: BTreeMap<Ticket, Sender<Called>>,
    granted: BTreeMap<Ticket, LayoutId>,
    ios: BTreeMap<IoId, Io>,
    conns: BTreeMap<Bind, u64>,
    /// Direct reads that are out, and direct writes and flushes.
    reads: BTreeMap<u64, Sender<Direct>>,
    others: BTreeMap<u64, Sender<Direct>>,
    callbacks: Vec<(NodeId, CallbackId, u64)>,
    /// Sweeps made, and since when requests of programs wait, by the number of ticket or request.
    sweeps: u64,
    ages: BTreeMap<u64, Sweep>,
    pub(super) last: u64,
}

impl World {
    pub(super) fn client_is(&self, n: NodeId) -> Option<ClientId> {
        self.nodes[&n].proc.as_ref()?.client.as_ref().map(|c| c.core.client())
    }

    pub(super) fn shell(&mut self, n: NodeId) -> Option<&mut ClientShell> {
        self.proc(n)?.client.as_mut()
    }

    fn client_config(&self, client: ClientId, fence_gen: FenceGen) -> ClientConfig {
        let t = &self.timing;
        let rides_out = t.suspend_after.saturating_sub(t.path_timeout);
        ClientConfig { volume: VolumeId(1), client, fence_gen, probe_every: t.renew, kept_limit: KEPT, rides_out }
    }

    /// The node's slot is registered: its client begins, or its next life does.
    pub(super) fn registered(&mut self, n: NodeId, client: ClientId, fence_gen: FenceGen) {
        self.trace(|| format!("{n}: registered as {client} under generation {}", fence_gen.0));
        let reborn = self.proc(n).and_then(|p| p.office.reborn.take());
        if let Some(poisoned) = reborn {
            self.coverage.count("client", "reborn");
            // Whoever of the old life was still about has left its marks here.
            self.forget_files(n);
            return self.at_node(n, 10, move |w| w.client(n, Event::Reborn { client, fence_gen, poisoned }));
        }
        let (config, rules, now) = (self.client_config(client, fence_gen), self.setup.rules, self.clock(n));
        let known = self.goes_on(n, client);
        let (core, ledger) = match &known {
            Some((Left::InOrder(known), ..)) => {
                (Client::resume(config, known, rules, now).noting(), Ledger::of_known(known, (1, 1)))
            }
            Some((Left::Killed(ledger), ..)) => {
                let mut ledger = ledger.clone();
                (Client::recover(config, &mut ledger, rules, now), *ledger)
            }
            None => (Client::new(config, rules, now).noting(), Ledger::new(client, 1, 1)),
        };
        self.oracle.keeps_only(client, &ledger.layouts.keys().copied().collect());
        let held = |(id, (ino, range)): (&LayoutId, &(InodeNo, BlockRange))| {
            let held = Held { ino: *ino, range: *range, mode: LayoutMode::Exclusive, guards: 0, withdrawn: true };
            (*id, held)
        };
        let shell = ClientShell {
            core,
            layouts: ledger.layouts.iter().map(held).collect(),
            files: files_of(&ledger, known.as_ref()),
            promised: ledger.promised(),
            appended: ledger.appended.keys().copied().collect(),
            grant: BTreeSet::new(),
            waiters: BTreeMap::new(),
            granted: BTreeMap::new(),
            ios: BTreeMap::new(),
            conns: BTreeMap::new(),
            reads: BTreeMap::new(),
            others: BTreeMap::new(),
            callbacks: Vec::new(),
            sweeps: 0,
            ages: BTreeMap::new(),
            last: 0,
        };
        if let Some(proc) = self.proc(n) {
            proc.client = Some(shell);
        }
        if known.as_ref().is_some_and(|(left, ..)| left.fence_gen() < fence_gen) {
            self.at_node(n, 0, move |w| w.client(n, Event::FenceAsked { fence_gen }));
        }
        for layout in ledger.layouts.keys().copied() {
            self.at_node(n, 0, move |w| w.client(n, Event::GiveBack { layout }));
        }
        self.ledgers.insert(n, ledger);
        self.at_node(n, 0, move |w| w.client(n, Event::Tick));
        self.at_node(n, COMES_AGAIN, move |w| w.client(n, Event::NoneComesAgain));
        self.sweep_later(n);
        let hint = self.proc(n).and_then(|p| p.office.core.hint());
        if let Some(hint) = hint {
            self.at_node(n, 10, move |w| w.client(n, Event::Hint(hint)));
        }
        if matches!(known, Some((Left::InOrder(known), ..)) if known.forced) {
            self.at_node(n, 5, move |w| w.client(n, Event::Forced { redirect: true }));
        }
        if self.busy && self.apps.get(&n).copied().unwrap_or(0) == 0 {
            self.apps_begin(n);
        }
    }

    /// One event for a node's client.
    pub(super) fn client(&mut self, n: NodeId, event: Event) {
        let now = self.clock(n);
        let Some(shell) = self.shell(n) else { return };
        let mut out = Vec::new();
        let generation = shell.core.fence_gen();
        shell.core.handle(now, event.clone(), &mut out);
        let deadline = shell.core.next_deadline();
        let granted = shell.core.fence_gen();
        let evicted = matches!(shell.core.binding(), Binding::Evicted { .. });
        self.events += 1;
        self.coverage.variant("client event", &event);
        for effect in out {
            self.coverage.variant("client effect", &effect);
            self.client_effect(n, effect);
        }
        self.arm(n, Core::Client, deadline);
        if granted > generation && !evicted {
            self.at_node(n, 10, move |w| w.office(n, office::Event::Granted { fence_gen: granted }));
        }
    }

    fn client_effect(&mut self, n: NodeId, effect: Effect) {
        match effect {
            Effect::Note(notes) => self.keeps_notes(n, &notes),
            Effect::AskWho => self.ask_who(n),
            Effect::SendBind { to, request } => self.send_bind(n, to, *request),
            Effect::SendCall { call } => self.send_call(n, *call),
            Effect::SendRedirect { io, redirect } => self.send_redirect(n, io, redirect),
            Effect::Bound { first, grants, .. } => {
                if first && let Some(shell) = self.shell(n) {
                    shell.grant = grants.iter().flat_map(|r| r.start.0..r.start.0 + r.len.0).collect();
                }
            }
            Effect::Unbound => {
                let conns = self.shell(n).map(|s| std::mem::take(&mut s.conns)).unwrap_or_default();
                conns.into_values().for_each(|c| self.hang_up(c));
            }
            Effect::Reply { ticket, result } => {
                let Some(shell) = self.shell(n) else { return };
                let guard = shell.granted.remove(&ticket);
                if let Some(waiter) = shell.waiters.remove(&ticket) {
                    waiter.send((result, guard));
                }
            }
            Effect::Granted { ticket, grant } => self.layout_granted(n, ticket, &grant),
            Effect::AnswerCallback(answer) => {
                let Some((server, id, conn)) = self.shell(n).and_then(|s| s.callbacks.pop()) else { return };
                self.towards_server(conn, move |w| w.callback_answered(server, id, Some(answer)));
            }
            Effect::RedirectDone { io, result } => self.redirect_done(n, io, result),
            Effect::Forget { io } => {
                if let Some(shell) = self.shell(n) {
                    shell.ios.remove(&io);
                }
            }
            other => self.client_files(n, other),
        }
    }

    fn client_files(&mut self, n: NodeId, effect: Effect) {
        match effect {
            Effect::Withdraw { layout, .. } => {
                let Some(held) = self.shell(n).and_then(|s| s.layouts.get_mut(&layout)) else { return };
                held.withdrawn = true;
                if held.guards == 0 {
                    self.at_node(n, 0, move |w| w.client(n, Event::Drained { layout }));
                }
            }
            Effect::Settle { layout, ino } => self.settle(n, layout, ino),
            Effect::Dropped { layout, ino, lost } => self.layout_dropped(n, layout, ino, lost),
            Effect::Sync { ino, number } => self.sync(n, ino, number),
            Effect::ReturnGrant => self.return_grant(n),
            Effect::CloseDirect | Effect::OpenDirect => {}
            Effect::PathFenced => self.tasks_ended(n),
            Effect::Abort { number } => {
                let begins = self.abort_begins();
                self.at_node(n, begins, move |w| {
                    w.stop_all(n, move |w| w.client(n, Event::NothingInFlight { number }));
                });
            }
            Effect::ReissueReads => {
                let reads = self.shell(n).map(|s| std::mem::take(&mut s.reads)).unwrap_or_default();
                reads.into_values().for_each(|r| r.send(Direct::Again));
            }
            Effect::Probe => self.probe(n),
            Effect::Route { from, to } => {
                self.coverage.count("route", &format!("{}->{}", from.route, to.route));
                self.trace(|| format!("{n}: route {} -> {} ({})", from.route, to.route, to.reason));
                let Some(shell) = self.shell(n) else { return };
                // Nothing of its own can land any more: what is still out is executed by redirection.
                let left = match to.route {
                    Route::BlockRedirected => std::mem::take(&mut shell.others),
                    _ => BTreeMap::new(),
                };
                left.into_values().for_each(|s| s.send(Direct::Again));
            }
            Effect::OwnPath { ok } => self.at_node(n, 0, move |w| w.office(n, office::Event::OwnPath { ok })),
            Effect::WritesLost { layout } => {
                if let Some(shell) = self.shell(n)
                    && let Some(ino) = shell.layouts.get(&layout).map(|h| h.ino)
                {
                    shell.files.entry(ino).or_default().lost = true;
                }
            }
            Effect::LocksLost { handles } => {
                let Some(client) = self.client_is(n) else { return };
                self.oracle.locks_lost(client, &handles);
            }
            Effect::Left { known } => self.has_left(n, known),
            Effect::Evicted { reason, .. } => {
                if let Some(client) = self.client_is(n) {
                    self.oracle.lockers_gone(client);
                }
                self.life_ended(n, &reason);
            }
            _ => {}
        }
    }

    // ---- the wire

    fn send_bind(&mut self, n: NodeId, to: CoordinatorHint, mut request: BindRequest) {
        let (bind, who) = (request.bind, request.client);
        if let Some(shell) = self.shell(n) {
            request.reassert.iter_mut().for_each(|r| shell.fill(r));
        }
        for thing in &request.reassert {
            self.coverage.variant("reassert", thing);
        }
        let Some(conn) = self.dial(n, who, to.node, bind) else {
            return self.at_node(n, MS, move |w| w.client(n, Event::BindFailed { bind }));
        };
        let old =
            self.shell(n).map(|s| std::mem::replace(&mut s.conns, BTreeMap::from([(bind, conn)]))).unwrap_or_default();
        old.into_values().for_each(|c| self.hang_up(c));
        self.towards_server(conn, move |w| w.bind_arrives(to.node, conn, &to, request));
    }

    /// An answer for the client of a connection, if it still is the one that dialled.
    fn at_client(&self, conn: u64) -> Option<(NodeId, Bind)> {
        let c = self.net.conn(conn)?;
        (self.client_is(c.client) == Some(c.who)).then_some((c.client, c.bind))
    }

    pub(super) fn bind_answered(&mut self, conn: u64, answer: BindAnswer) {
        if let Some((n, bind)) = self.at_client(conn) {
            self.client(n, Event::BindAnswered { bind, answer });
        }
    }

    pub(super) fn call_answered(&mut self, conn: u64, slot: SlotRef, seq: u64, answer: Answer) {
        if let Some((n, bind)) = self.at_client(conn) {
            self.client(n, Event::Answered { bind, slot, seq, answer });
        }
    }

    pub(super) fn redirect_answered(&mut self, conn: u64, io: IoId, answer: RedirectAnswer, data: Option<Block>) {
        let Some((n, bind)) = self.at_client(conn) else { return };
        if let Some(entry) = self.shell(n).and_then(|s| s.ios.get_mut(&io)) {
            entry.read = data;
        }
        self.client(n, Event::RedirectAnswered { io, bind, answer });
    }

    pub(super) fn called_back(
        &mut self,
        conn: u64,
        server: NodeId,
        id: CallbackId,
        client: ClientId,
        ask: CallbackAsk,
    ) {
        let Some(c) = self.net.conn(conn) else { return };
        let n = c.client;
        let Some(shell) = self.shell(n) else { return };
        shell.callbacks.push((server, id, conn));
        let dirty = match &ask {
            CallbackAsk::Sync { ino, .. } => shell.files.get(ino).is_some_and(|f| f.map.is_dirty() || f.committing),
            _ => false,
        };
        self.client(n, Event::Asked { client, ask, dirty });
    }

    fn send_call(&mut self, n: NodeId, call: Call) {
        let (bind, server) = (call.bind, self.conn_of(n, call.bind));
        if let Request::Commit { give_back, .. } = &call.request {
            for layout in give_back {
                self.oracle.gave_back(call.client, *layout);
            }
        }
        let Some((conn, server)) = server else {
            return self.at_node(n, MS, move |w| w.client(n, Event::LinkLost { bind }));
        };
        self.coverage.variant("call", &call.request);
        self.towards_server(conn, move |w| w.call_arrives(server, conn, call));
    }

    fn conn_of(&mut self, n: NodeId, bind: Bind) -> Option<(u64, NodeId)> {
        let conn = *self.shell(n)?.conns.get(&bind)?;
        self.net.conn(conn).map(|c| (conn, c.server))
    }

    fn send_redirect(&mut self, n: NodeId, io: IoId, redirect: Redirect) {
        let bind = redirect.bind;
        let Some((conn, server)) = self.conn_of(n, bind) else {
            return self.at_node(n, MS, move |w| w.client(n, Event::LinkLost { bind }));
        };
        let write = self
            .shell(n)
            .and_then(|s| s.ios.get(&io))
            .and_then(|e| e.write.clone().map(|w| disk::Write { again: e.answered, ..w }));
        self.towards_server(conn, move |w| w.redirect_arrives(server, conn, io, redirect, write));
    }

    fn redirect_done(&mut self, n: NodeId, io: IoId, result: RedirectResult) {
        self.coverage.variant("redirect result", &result);
        let rules = self.setup.rules;
        let Some(shell) = self.shell(n) else { return };
        let Some(entry) = shell.ios.get_mut(&io) else { return };
        entry.answered = true;
        let (read, waiter) = (entry.read.take(), entry.waiter.take());
        // Without that rule it is still to be sent.
        let stays = result == RedirectResult::Expired && !rules.has(Rule::ExpiredIsWithdrawn);
        if (result != RedirectResult::Done && !stays) || entry.write.is_none() {
            shell.ios.remove(&io);
        }
        if let Some(waiter) = waiter {
            waiter.send((result, read));
        }
    }

    // ---- what tasks ask for

    pub(super) fn call(
        &mut self,
        n: NodeId,
        request: Request,
        origin: Option<Origin>,
        program: bool,
        sender: Sender<Called>,
    ) {
        let Some(shell) = self.shell(n) else { return };
        let ticket = Ticket(shell.next(program));
        shell.waiters.insert(ticket, sender);
        let event = match origin {
            Some(origin) => Event::SubmitFor { ticket, request, origin },
            None => Event::Submit { ticket, request },
        };
        self.client(n, event);
    }

    /// A program asks for a file lock, or gives one up; its ticket.
    pub(super) fn lock(&mut self, n: NodeId, op: LockOp, sender: Sender<Called>) -> Option<Ticket> {
        let shell = self.shell(n)?;
        let ticket = Ticket(shell.next(true));
        shell.waiters.insert(ticket, sender);
        self.client(n, Event::Lock { ticket, op });
        Some(ticket)
    }

    pub(super) fn redirect(
        &mut self,
        n: NodeId,
        layout: LayoutId,
        op: RedirectOp,
        block: u64,
        write: Option<disk::Write>,
        (program, sender): (bool, Sender<(RedirectResult, Option<Block>)>),
    ) {
        let Some(shell) = self.shell(n) else { return };
        let io = IoId(shell.next(program));
        shell.ios.insert(io, Io { write, read: None, answered: false, waiter: Some(sender) });
        let len = if op == RedirectOp::Flush { 0 } else { FS_BLOCK as u32 };
        self.client(n, Event::Redirect { io, layout, op, at: block * FS_BLOCK, len, once: false });
    }

    /// The next sweep over what programs of this node wait for.
    fn sweep_later(&mut self, n: NodeId) {
        let Some(patience) = Patience::of(Duration::from_millis(self.setup.io_timeout)) else { return };
        self.at_node(n, micros(patience.every()), move |w| {
            let Some(shell) = w.shell(n) else { return };
            shell.sweeps += 1;
            let now = Sweep(shell.sweeps);
            let ClientShell { ages, waiters, ios, .. } = shell;
            let waits = |n: &u64| waiters.contains_key(&Ticket(*n)) || ios.get(&IoId(*n)).is_some_and(Io::waits);
            ages.retain(|n, _| waits(n));
            let over: Vec<u64> =
                ages.iter().filter(|(_, since)| patience.is_over(**since, now)).map(|(n, _)| *n).collect();
            let (calls, ios): (Vec<u64>, Vec<u64>) = over.iter().partition(|n| waiters.contains_key(&Ticket(**n)));
            if !over.is_empty() {
                let calls = calls.into_iter().map(Ticket).collect();
                w.client(n, Event::Expired { calls, ios: ios.into_iter().map(IoId).collect() });
            }
            w.sweep_later(n);
        });
    }

    /// A direct request, under the gate. A read can be taken back.
    pub(super) fn direct(&mut self, n: NodeId, req: Req, sender: Sender<Direct>) {
        let who = self.client_is(n);
        let Some(shell) = self.shell(n) else { return };
        shell.last += 1;
        let number = shell.last;
        match req {
            Req::Read { .. } => shell.reads.insert(number, sender),
            _ => shell.others.insert(number, sender),
        };
        let done = Rc::new(Cell::new(false));
        self.overdue_after(n, who, self.timing.path_timeout, Rc::clone(&done));
        self.submit(n, req, move |w, res| {
            done.set(true);
            let suspect = match res {
                Res::NoPath | Res::Lost => Some(Reason::IoFailed),
                Res::Conflict => Some(Reason::Fenced),
                _ => None,
            };
            // The next life counts from the beginning.
            if w.client_is(n) != who {
                return;
            }
            let sender = w.shell(n).and_then(|s| s.reads.remove(&number).or_else(|| s.others.remove(&number)));
            if let Some(reason) = suspect {
                w.client(n, Event::PathSuspect { reason });
            }
            if let Some(sender) = sender {
                sender.send(match res {
                    Res::Done => Direct::Done,
                    Res::Data(data) => Direct::Data(data),
                    _ => Direct::Again,
                });
            }
        });
    }

    /// Says that a request is overdue, once it is and for as long as it is.
    fn overdue_after(&mut self, n: NodeId, who: Option<ClientId>, wait: Duration, done: Rc<Cell<bool>>) {
        self.at_node(n, micros(wait), move |w| {
            if !done.get() && w.client_is(n) == who {
                w.client(n, Event::Overdue);
                w.overdue_after(n, who, SAID_AGAIN, done);
            }
        });
    }

    fn probe(&mut self, n: NodeId) {
        let who = self.client_is(n);
        let open = Rc::new(Cell::new(true));
        let timer = Rc::clone(&open);
        self.at_node(n, micros(self.timing.path_timeout), move |w| {
            if timer.replace(false) && w.client_is(n) == who {
                w.client(n, Event::Probed { fence_gen: None });
            }
        });
        self.submit(n, Req::OwnSlot { via: None }, move |w, res| {
            let seen = if let Res::OwnSlot(slot) = res { Some(slot.fence_gen) } else { None };
            if open.replace(false) && w.client_is(n) == who {
                w.client(n, Event::Probed { fence_gen: seen });
            }
        });
    }

    fn layout_granted(&mut self, n: NodeId, ticket: Ticket, grant: &LayoutGrant) {
        let Some(client) = self.client_is(n) else { return };
        self.oracle.holds(client, grant.id, grant.ino, grant.range, grant.mode);
        self.trace(|| {
            let LayoutGrant { id, ino, range, mode, size, .. } = grant;
            format!("{client} holds layout {:#x} of {ino} {range:?} {mode:?}, told {size} bytes", id.0)
        });
        let Some(shell) = self.shell(n) else { return };
        let mine = |h: &&Held| h.ino == grant.ino && h.mode == LayoutMode::Exclusive;
        let own: Vec<BlockRange> = shell.layouts.values().filter(mine).map(|h| h.range).collect();
        let rules = own.iter().any(|r| r.end == BlockRange::ALL.end);
        let file = shell.files.entry(grant.ino).or_default();
        file.map.merge(grant.range, &grant.extents, (!rules).then_some(grant.size), &own);
        let waits = shell.waiters.contains_key(&ticket);
        let guards = u32::from(waits);
        let held = Held { ino: grant.ino, range: grant.range, mode: grant.mode, guards, withdrawn: false };
        shell.layouts.insert(grant.id, held);
        if waits {
            shell.granted.insert(ticket, grant.id);
        }
    }

    fn layout_dropped(&mut self, n: NodeId, layout: LayoutId, ino: InodeNo, lost: bool) {
        let Some(client) = self.client_is(n) else { return };
        self.trace(|| format!("{client} drops layout {:#x} of {ino}, lost: {lost}", layout.0));
        self.oracle.gave_back(client, layout);
        let Some(shell) = self.shell(n) else { return };
        shell.layouts.remove(&layout);
        let of_file = || shell.layouts.values().filter(|h| h.ino == ino);
        let held: Vec<BlockRange> = of_file().map(|h| h.range).collect();
        let rules = of_file().any(|h| h.mode == LayoutMode::Exclusive && h.range.end == BlockRange::ALL.end);
        let file = shell.files.entry(ino).or_default();
        file.map.keep_only(&held);
        if !rules {
            file.map.forget_size();
        }
    }

    /// A guard is let go.
    pub(super) fn let_go(&mut self, n: NodeId, layout: LayoutId) {
        let Some(held) = self.shell(n).and_then(|s| s.layouts.get_mut(&layout)) else { return };
        held.guards = held.guards.saturating_sub(1);
        if held.guards == 0 && held.withdrawn {
            self.at_node(n, 0, move |w| w.client(n, Event::Drained { layout }));
        }
    }

    /// The claim under which this node's client writes by itself now.
    pub(super) fn claim(&mut self, n: NodeId, layout: LayoutId) -> Option<Claim> {
        let shell = self.shell(n)?;
        Some(Claim { client: shell.core.client(), layout, direct: Some(shell.core.fence_gen()) })
    }

    // ---- the end of a life

    /// The incarnation is over. Its own requests end, an office held here is given up, and a new one begins.
    fn life_ended(&mut self, n: NodeId, reason: &str) {
        self.coverage.count("client", "evicted");
        self.trace(|| format!("{n}: its client was evicted: {reason}"));
        let (sender, ended) = oneshot();
        self.prove_nothing_flies(n, move |_| sender.send(()));
        self.forget_files(n);
        self.resign(n, None);
        let me = self.me.clone();
        self.spawn_at(n, async move {
            ended.await;
            loop {
                let Some(world) = me.upgrade() else { return };
                let wait = {
                    let mut w = world.borrow_mut();
                    let busy =
                        w.in_office(n) || w.proc(n).is_some_and(|p| p.reign.as_ref().is_some_and(|r| !r.is_over()));
                    if !busy {
                        return w.new_office(n, Vec::new());
                    }
                    // It may have taken office meanwhile, which knows nothing of the end of its client.
                    if w.in_office(n) {
                        w.resign(n, None);
                    }
                    let (sender, wait) = oneshot();
                    w.wake_after(n, 50 * MS, sender);
                    wait
                };
                drop(world);
                wait.await;
            }
        });
    }

    fn forget_files(&mut self, n: NodeId) {
        if let Some(shell) = self.shell(n) {
            shell.files.clear();
            shell.layouts.clear();
            shell.grant.clear();
            shell.granted.clear();
            shell.appended.clear();
            shell.promised.clear();
        }
    }

    /// A reset of the disk: files with unflushed direct writes fail their next fsync, as a unit attention would say.
    pub(super) fn unflushed_is_poisoned(&mut self) {
        for node in self.nodes.values_mut() {
            let Some(shell) = node.proc.as_mut().and_then(|p| p.client.as_mut()) else { continue };
            for file in shell.files.values_mut() {
                file.lost |= file.unflushed;
            }
        }
    }
}

/// What a process begins with of its files.
fn files_of(ledger: &Ledger, known: Option<&GoesOn>) -> BTreeMap<InodeNo, File> {
    let noted = ledger.files.iter().map(|(ino, f)| (*ino, File { map: f.map(), ..File::default() }));
    let mut files: BTreeMap<InodeNo, File> = noted.collect();
    if let Some((_, lost, unflushed)) = known {
        lost.iter().for_each(|ino| files.entry(*ino).or_default().lost = true);
        unflushed.iter().for_each(|ino| files.entry(*ino).or_default().unflushed = true);
    }
    files
}

impl Io {
    fn waits(&self) -> bool {
        self.waiter.is_some()
    }
}

impl ClientShell {
    /// The next number of a ticket or request; of a program's since when it waits.
    fn next(&mut self, program: bool) -> u64 {
        self.last += 1;
        if program {
            self.ages.insert(self.last, Sweep(self.sweeps));
        }
        self.last
    }

    /// Adds to a re-assertion what only the files know.
    fn fill(&self, reassert: &mut Reassert) {
        if let Reassert::Layout { ino, range, mode: LayoutMode::Exclusive, uncommitted, size, .. } = reassert
            && let Some(file) = self.files.get(ino)
        {
            *uncommitted = file.map.uncommitted(*range);
            *size = file.map.dirty_size().filter(|_| range.end == BlockRange::ALL.end);
        }
    }

    /// A layout over these blocks that is not withdrawn.
    pub(super) fn covering(&self, ino: InodeNo, range: BlockRange, exclusive: bool) -> Option<LayoutId> {
        let fits = |h: &Held| h.ino == ino && !h.withdrawn && h.range.contains(range);
        let of = |mode| self.layouts.iter().find(|(_, h)| fits(h) && h.mode == mode).map(|(id, _)| *id);
        of(LayoutMode::Exclusive).or_else(|| if exclusive { None } else { of(LayoutMode::Shared) })
    }
}

/// New data for a block.
pub(super) fn write_of(block: u64, data: Block, new: Vec<WriteId>, claim: Claim) -> disk::Write {
    disk::Write { block, data, new, claim, again: false }
}
