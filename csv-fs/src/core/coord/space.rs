//! Before ENOSPC is said, granted space that others do not use is called back, and orphans that are being freed are
//! waited for; once per request.
//!
//! ```text
//!   Asked ── the answer, and one GrantReturn (in either order) ──► done
//!     ▲                │ answered `Draining`: more is being asked for
//!     └── after a while┘    (done all the same if that very request waits here)
//! ```
//! Two interleavings are prevented. Both end with an ENOSPC that is not true, and space that nobody uses at a node:
//! - **The grant that crosses the recall.** A node asks for space ahead; before that is executed another node's request
//!   finds none, and the recall reaches the first node before its answer does. It returns what it has, and then gets more.
//!   So a client says whether anything it asked for is unanswered, and is asked again if so.
//! - **The grant that takes what came back.** It arrives when space was returned and the one for whom it was called back
//!   has not been tried again. So grants wait while anything is being called back, and go in the order in which they came.
//!
//! A client whose own request waits here is not asked again: nothing is on its way to it, and it would wait for those who
//! wait for it.
//!
//! Who does not answer within the recall time is evicted if it may have something to give (a grant, or a file open that
//! has no name any more), and whoever is being evicted is waited for: what it has is free after its fence. Prevents: a node
//! is killed, ENOSPC is said beside all that it was granted. A request waits for a recall and a fence at most.

use std::collections::BTreeSet;

use super::Coord;
use super::callbacks::CallbackFor;
use super::event::{CallbackId, EvictReason, OpId};
use super::session::Life;
use super::work::{CallWork, Stage, Work};
use crate::core::time::Now;
use crate::proto::{CallbackAnswer, CallbackAsk, Request};
use crate::types::*;

/// Granted space of one client, called back.
#[derive(Debug)]
pub(super) struct SpaceRecall {
    /// The callback that is unanswered.
    asked: Option<CallbackId>,
    asked_at: Now,
    /// When it last said anything, or was first asked.
    heard_at: Now,
    /// The answer to the last callback: whether the client had asked for more.
    more: Option<bool>,
    /// A return was executed since it was asked.
    returned: bool,
    waiters: BTreeSet<OpId>,
    /// Came while it was out: they wait for the next.
    later: BTreeSet<OpId>,
}

impl Coord {
    /// A request found no space. True if it waits for some.
    pub(super) fn call_back_grants(&mut self, op: OpId, client: ClientId) -> bool {
        let Some(call) = self.call_work(op) else { return false };
        // What the client of an allocation itself keeps is as good as anybody's; who asks for a grant has used it up.
        let own_too = matches!(call.request, Request::Fallocate { .. });
        if std::mem::replace(&mut call.asked_for_space, true) || self.in_grace() || !self.is_serving() {
            return false;
        }
        let lives = self.sessions.iter().filter(|(_, s)| s.life != Life::Evicted).map(|(c, _)| *c);
        let left: BTreeSet<ClientId> = lives.filter(|c| own_too || *c != client).collect();
        if left.is_empty() && !self.is_freeing() {
            return false;
        }
        let until = self.now + self.config.limits.space();
        self.set_stage(op, Stage::AwaitingSpace { left: left.clone(), until });
        self.waiting_for_space.insert(op);
        for holder in left {
            match self.space_recalls.get_mut(&holder) {
                Some(recall) => drop(recall.later.insert(op)),
                None => self.recall_grant(holder, BTreeSet::from([op])),
            }
        }
        true
    }

    /// Whether space is being called back for somebody: grants wait then.
    pub(super) fn is_calling_space_back(&self) -> bool {
        self.waiting_for_space.iter().any(|op| self.space_wait(*op).is_some_and(|(left, _, _)| !left.is_empty()))
    }

    /// Lets a grant wait behind those for whom space is being called back.
    pub(super) fn wait_behind_recalls(&mut self, op: OpId) {
        let until = self.now + self.config.limits.space();
        self.set_stage(op, Stage::AwaitingSpace { left: BTreeSet::new(), until });
        self.waiting_for_space.insert(op);
    }

    fn recall_grant(&mut self, client: ClientId, waiters: BTreeSet<OpId>) {
        let (asked_at, heard_at, later) = (self.now, self.now, BTreeSet::new());
        let recall = SpaceRecall { asked: None, asked_at, heard_at, more: None, returned: false, waiters, later };
        self.space_recalls.insert(client, recall);
        self.ask_grant_back(client);
    }

    /// Asks, or asks again. Whoever is not bound is asked when it is.
    pub(super) fn ask_grant_back(&mut self, client: ClientId) {
        if !self.space_recalls.contains_key(&client) {
            return;
        }
        let id = self.send_callback(client, CallbackFor::Grant { client }, CallbackAsk::RecallGrant);
        if let Some(recall) = self.space_recalls.get_mut(&client) {
            (recall.asked, recall.asked_at, recall.more, recall.returned) = (id, self.now, None, false);
        }
    }

    pub(super) fn grant_recall_answered(&mut self, id: CallbackId, client: ClientId, answer: Option<CallbackAnswer>) {
        let Some(recall) = self.space_recalls.get_mut(&client).filter(|r| r.asked == Some(id)) else { return };
        recall.asked = None;
        if answer.is_some() {
            recall.heard_at = self.now;
        }
        match answer {
            // Not heard, perhaps: it is asked again.
            None => return,
            Some(CallbackAnswer::Accepted) => recall.more = Some(false),
            Some(CallbackAnswer::Draining) => recall.more = Some(true),
            Some(CallbackAnswer::NotHeld | CallbackAnswer::WrongIncarnation) => {
                (recall.more, recall.returned) = (Some(false), true);
            }
        }
        self.look_at_recall(client);
    }

    /// A return of granted space was executed.
    pub(super) fn grant_returned(&mut self, client: ClientId) {
        if let Some(recall) = self.space_recalls.get_mut(&client) {
            (recall.returned, recall.heard_at) = (true, self.now);
        }
        self.look_at_recall(client);
    }

    fn look_at_recall(&mut self, client: ClientId) {
        let waits_itself = self.awaits_grant(client);
        let Some(recall) = self.space_recalls.get_mut(&client) else { return };
        match (recall.returned, recall.more) {
            (false, _) | (_, None) => {}
            (true, Some(true)) if !waits_itself => (recall.more, recall.returned) = (None, false),
            (true, Some(_)) => self.space_answered(client),
        }
    }

    /// Whether a grant to this client is waiting.
    fn awaits_grant(&self, client: ClientId) -> bool {
        self.waiting_for_space.iter().any(|op| match self.work.get(op) {
            Some(Work::Call(call)) => call.client == client && matches!(call.request, Request::Grant { .. }),
            _ => false,
        })
    }

    /// A client gave back what it did not use, has none to give, or is gone.
    pub(super) fn space_answered(&mut self, client: ClientId) {
        let Some(SpaceRecall { mut waiters, mut later, .. }) = self.space_recalls.remove(&client) else { return };
        let lives = self.sessions.get(&client).is_some_and(|s| s.life == Life::Live);
        if !lives {
            waiters.append(&mut later);
        }
        for op in waiters {
            if let Some(Stage::AwaitingSpace { left, .. }) = self.call_work(op).map(|call| &mut call.stage) {
                left.remove(&client);
            }
        }
        if !later.is_empty() {
            self.recall_grant(client, later);
        }
        self.look_for_space();
    }

    /// What an operation waits for: whose space, how long, and whether only for those before it.
    fn space_wait(&self, op: OpId) -> Option<(&BTreeSet<ClientId>, Now, bool)> {
        match self.work.get(&op) {
            Some(Work::Call(call)) => match &call.stage {
                Stage::AwaitingSpace { left, until } => Some((left, *until, !call.asked_for_space)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Those who need not wait any more try again with what there is, in the order in which they came.
    pub(super) fn look_for_space(&mut self) {
        let (freeing, now) = (self.is_freeing(), self.now);
        let waiting: Vec<OpId> = self.waiting_for_space.iter().copied().collect();
        let mut behind_recall = false;
        for op in waiting {
            let Some((left, until, only_behind)) = self.space_wait(op) else {
                self.waiting_for_space.remove(&op);
                continue;
            };
            let (recalling, done) = (!left.is_empty(), left.is_empty() && (only_behind || !freeing));
            if until <= now || done && !behind_recall {
                self.waiting_for_space.remove(&op);
                self.store_request(op);
            } else {
                behind_recall |= recalling;
            }
        }
        let waiting = &self.waiting_for_space;
        self.space_recalls.retain(|_, r| r.waiters.union(&r.later).any(|op| waiting.contains(op)));
    }

    /// Time has passed: who did not answer is asked again, who waited long enough tries again.
    pub(super) fn space_overdue(&mut self) {
        let due: Vec<ClientId> = self
            .space_recalls
            .iter()
            .filter(|(_, r)| self.asks_at(r).is_some_and(|at| at <= self.now))
            .map(|(c, _)| *c)
            .collect();
        for client in due {
            self.ask_grant_back(client);
        }
        let silent: Vec<ClientId> = self.silences().filter(|(_, at)| *at <= self.now).map(|(c, _)| c).collect();
        for client in silent {
            self.give_up_on(client);
        }
        self.look_for_space();
    }

    /// Clients that are asked and served, and when their silence is too long. Whose return is with the store is not
    /// silent.
    fn silences(&self) -> impl Iterator<Item = (ClientId, Now)> + '_ {
        let recall = self.config.limits.recall;
        let served = |c: &ClientId| self.sessions.get(c).is_some_and(|s| s.life == Life::Live);
        let asked = self.space_recalls.iter().filter(move |(c, _)| served(c) && !self.is_returning_space(**c));
        asked.map(move |(c, r)| (*c, r.heard_at + recall))
    }

    fn is_returning_space(&self, client: ClientId) -> bool {
        let returns = |call: &CallWork| call.client == client && matches!(call.request, Request::GrantReturn { .. });
        self.storing.iter().any(|op| matches!(self.work.get(op), Some(Work::Call(call)) if returns(call)))
    }

    /// It has said nothing for too long.
    fn give_up_on(&mut self, client: ClientId) {
        let may_keep = self.sessions.get(&client).is_some_and(|s| s.may_keep_space) || self.keeps_an_orphan(client);
        match may_keep {
            true => self.evict(client, EvictReason::RecallOverdue),
            false => self.space_answered(client),
        }
    }

    /// When a client is asked again.
    fn asks_at(&self, recall: &SpaceRecall) -> Option<Now> {
        (recall.asked.is_none() && recall.more.is_none()).then(|| recall.asked_at + self.config.limits.ask_again())
    }

    pub(super) fn space_deadlines(&self) -> impl Iterator<Item = Now> + '_ {
        let overdue = self.waiting_for_space.iter().filter_map(|op| self.space_wait(*op).map(|(_, until, _)| until));
        let silent = self.silences().map(|(_, at)| at);
        overdue.chain(silent).chain(self.space_recalls.values().filter_map(|r| self.asks_at(r)))
    }
}
