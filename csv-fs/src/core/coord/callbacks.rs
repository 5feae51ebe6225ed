//! Callbacks: recalls and what is answered to them, and what is due when time passes.

use super::Coord;
use super::event::{CallbackId, ConnId, Effect, EvictReason, OpId};
use super::patience::Patience;
use super::session::Life;
use super::work::Work;
use crate::core::rules::Rule;
use crate::proto::{CallbackAnswer, CallbackAsk, WaitId};
use crate::types::*;

/// What a callback was about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CallbackFor {
    /// A layout.
    Recall { layout: LayoutId, client: ClientId },
    /// A file's size, times and mappings.
    Sync { ino: InodeNo, client: ClientId, number: u64 },
    /// Granted space.
    Grant { client: ClientId },
    /// A waiter for a file lock.
    Lock { client: ClientId, wait: WaitId },
    /// A file lock that is in the way of this call.
    Doubt { client: ClientId, op: OpId },
}

impl CallbackFor {
    fn client(self) -> ClientId {
        match self {
            CallbackFor::Recall { client, .. }
            | CallbackFor::Sync { client, .. }
            | CallbackFor::Grant { client }
            | CallbackFor::Lock { client, .. }
            | CallbackFor::Doubt { client, .. } => client,
        }
    }
}

impl Coord {
    /// Sends a callback over the connection of a bound client; `None` if there is none.
    pub(super) fn send_callback(
        &mut self,
        client: ClientId,
        about: CallbackFor,
        ask: CallbackAsk,
    ) -> Option<CallbackId> {
        let session = self.sessions.get(&client).filter(|s| s.bound && s.life == Life::Live)?;
        let conn = session.conn?;
        self.last_callback += 1;
        let id = CallbackId(self.last_callback);
        self.callbacks.insert(id, about);
        self.out.push(Effect::Callback { id, conn, client, ask });
        Some(id)
    }

    /// Asks a layout back, unless it is being asked back already.
    pub(super) fn recall(&mut self, layout: LayoutId) {
        let live = |c: ClientId| self.sessions.get(&c).is_some_and(|s| s.life == Life::Live);
        let of_living = self.files.layout(layout).is_some_and(|(_, l)| live(l.client));
        if of_living && !self.recalls.contains_key(&layout) {
            self.recalls.insert(layout, Patience::new(self.now, &self.config.limits));
            self.ask_recall(layout);
        }
    }

    pub(super) fn ask_recall(&mut self, layout: LayoutId) {
        let Some((ino, l)) = self.files.layout(layout) else {
            self.recalls.remove(&layout);
            return;
        };
        let about = CallbackFor::Recall { layout, client: l.client };
        let id = self.send_callback(l.client, about, CallbackAsk::Recall { layout, ino });
        if let Some(patience) = self.recalls.get_mut(&layout) {
            patience.ask(self.now, id);
        }
    }

    pub(super) fn callback_done(&mut self, id: CallbackId, answer: Option<CallbackAnswer>) {
        let Some(about) = self.callbacks.remove(&id) else { return };
        if answer == Some(CallbackAnswer::WrongIncarnation) {
            self.evict(about.client(), EvictReason::Replaced);
        }
        if let CallbackFor::Recall { client, .. } | CallbackFor::Sync { client, .. } = about
            && answer == Some(CallbackAnswer::Draining)
            && self.rules.has(Rule::DrainingCountsAsProgress)
        {
            self.drains(client);
        }
        match about {
            CallbackFor::Recall { layout, client } => self.recall_answered(id, layout, client, answer),
            CallbackFor::Sync { ino, client, number } => self.sync_answered(id, (ino, client), number, answer),
            CallbackFor::Lock { client, wait } => self.lock_call_answered(client, wait, answer),
            CallbackFor::Doubt { op, .. } => self.doubt_answered(id, op, answer),
            CallbackFor::Grant { client } => self.grant_recall_answered(id, client, answer),
        }
    }

    fn recall_answered(&mut self, id: CallbackId, layout: LayoutId, client: ClientId, answer: Option<CallbackAnswer>) {
        if let Some(patience) = self.recalls.get_mut(&layout).filter(|p| p.asked == Some(id)) {
            patience.asked = None;
        }
        if answer == Some(CallbackAnswer::NotHeld) && self.is_truly_not_held(layout, client) {
            self.drop_layouts(client, &[layout]);
        }
    }

    fn sync_answered(&mut self, id: CallbackId, of: (InodeNo, ClientId), number: u64, answer: Option<CallbackAnswer>) {
        if let Some(sync) = self.syncs.get_mut(&of).filter(|s| s.patience.asked == Some(id)) {
            sync.patience.asked = None;
        }
        if answer == Some(CallbackAnswer::NotHeld) {
            self.synced(of.0, of.1, number);
        }
    }

    /// A client's route is draining: that holds up whatever is asked of it, not only what it was asked just now.
    fn drains(&mut self, client: ClientId) {
        let (now, limits) = (self.now, self.config.limits);
        let files = &self.files;
        let of_client = |l: &LayoutId| files.layout(*l).is_some_and(|(_, l)| l.client == client);
        let recalls = self.recalls.iter_mut().filter(|(l, _)| of_client(l)).map(|(_, p)| p);
        let syncs = self.syncs.iter_mut().filter(|((_, c), _)| *c == client).map(|(_, s)| &mut s.patience);
        recalls.chain(syncs).for_each(|patience| patience.draining(now, &limits));
    }

    /// "Not held" is believed once the client has had the answer that gave the layout out, and nothing of its
    /// redirected I/O under it is in progress; until then it is asked again.
    fn is_truly_not_held(&self, layout: LayoutId, client: ClientId) -> bool {
        let (Some(session), Some((_, l))) = (self.sessions.get(&client), self.files.layout(layout)) else {
            return false;
        };
        let had_it = l.told_in.is_none_or(|(slot, seq)| session.moved_on(slot, seq));
        had_it && !session.has_guards_on(&[layout])
    }

    /// The client moved: recalls and the sync of this file have longer.
    pub(super) fn progressed(&mut self, ino: InodeNo, client: ClientId) {
        let (now, limits) = (self.now, self.config.limits);
        for layout in self.files.layouts_on(ino, client) {
            if let Some(patience) = self.recalls.get_mut(&layout.id) {
                patience.progress(now, &limits);
            }
        }
        if let Some(sync) = self.syncs.get_mut(&(ino, client)) {
            sync.patience.progress(now, &limits);
        }
    }

    /// A new connection: what is asked of this client is asked over it.
    pub(super) fn ask_everything_again(&mut self, client: ClientId) {
        let of_client = |l: &LayoutId| self.files.layout(*l).is_some_and(|(_, l)| l.client == client);
        let recalls: Vec<LayoutId> = self.recalls.keys().filter(|l| of_client(l)).copied().collect();
        for layout in recalls {
            self.ask_recall(layout);
        }
        let syncs: Vec<InodeNo> = self.syncs.keys().filter(|(_, c)| *c == client).map(|(ino, _)| *ino).collect();
        for ino in syncs {
            self.resend_sync(ino, client);
        }
        self.ask_grant_back(client);
        self.locks.doubts.ask_again(client, self.now);
    }

    /// A connection has broken, also one whose bind has not been answered. Prevents: the node dies while the store is at its
    /// bind, and counts as connected for ever.
    pub(super) fn conn_lost(&mut self, conn: ConnId) {
        for work in self.work.values_mut() {
            if let Work::Bind(bind) = work
                && bind.conn == Some(conn)
            {
                bind.conn = None;
            }
        }
        for session in self.sessions.values_mut().filter(|s| s.conn == Some(conn)) {
            session.conn = None;
            session.absent_since = Some(self.now);
        }
    }

    /// What is due: overdue clients go, others are asked again.
    pub(super) fn tick(&mut self) {
        if !self.is_serving() {
            return;
        }
        self.forgive_while_it_stands_still();
        let (now, limits) = (self.now, self.config.limits);
        let overdue = self.recalls.iter().filter(|(_, p)| p.is_over(now)).filter_map(|(l, _)| self.files.layout(*l));
        let mut late: Vec<ClientId> = overdue.map(|(_, l)| l.client).collect();
        late.extend(self.syncs.iter().filter(|(_, s)| s.patience.is_over(now)).map(|((_, c), _)| *c));
        for client in late {
            self.evict(client, EvictReason::RecallOverdue);
        }
        let recalls: Vec<LayoutId> =
            self.recalls.iter().filter(|(_, p)| p.asks_again(now, &limits)).map(|(l, _)| *l).collect();
        for layout in recalls {
            self.ask_recall(layout);
        }
        let syncs: Vec<_> =
            self.syncs.iter().filter(|(_, s)| s.patience.asks_again(now, &limits)).map(|(of, _)| *of).collect();
        for (ino, client) in syncs {
            self.resend_sync(ino, client);
        }
        self.space_overdue();
        self.absent_overdue();
        self.locks_overdue();
        self.look_at_doubts();
        self.fence_again();
        self.grace_overdue();
    }
}
