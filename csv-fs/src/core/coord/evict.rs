//! Evictions: the end of a client's incarnation, in an order that a coordinator which dies half-way leaves finishable.
//!
//! `evicting` is committed, the office fences, redirected I/O of the client that is on its way to the disk ends,
//! `evicted` is committed (its grants are free space from then on), and only then what it held is given to others.

use block::shared::FenceGen;

use super::Coord;
use super::event::{Effect, EvictReason, FencePurpose, OpId, Report, StoreAsk};
use super::patience::{FENCE_AGAIN, Patience};
use super::session::{Eviction, Life};
use super::work::Work;
use crate::core::time::Now;
use crate::proto::Answer;
use crate::types::*;

impl Coord {
    /// Begins an eviction, unless one is under way or done.
    pub(super) fn evict(&mut self, client: ClientId, why: EvictReason) {
        if !self.is_serving() || self.sessions.get(&client).is_none_or(|s| s.life != Life::Live) {
            return;
        }
        self.leave_service(client, Eviction::Marking, why);
        self.out.push(Effect::Report(Report::Evicting { client, why }));
        let op = self.new_op(Work::Evict(client));
        self.store(op, StoreAsk::Evicting { client, why });
    }

    /// Begins with an eviction whose fence is proved already: one commit instead of two.
    pub(super) fn evict_fenced(&mut self, client: ClientId, why: EvictReason, fence_gen: FenceGen) {
        self.leave_service(client, Eviction::Draining(fence_gen), why);
        self.out.push(Effect::Report(Report::Evicting { client, why }));
        self.close_if_drained(client);
    }

    /// Goes on with an eviction that an earlier coordinator began.
    pub(super) fn evict_again(&mut self, client: ClientId) {
        self.leave_service(client, Eviction::Fencing, EvictReason::Unfinished);
        self.out.push(Effect::Report(Report::Evicting { client, why: EvictReason::Unfinished }));
        self.out.push(Effect::Fence { client, purpose: FencePurpose::Eviction });
    }

    /// Nothing of this client is served any more; what it waits for is answered, what is with the store runs out.
    fn leave_service(&mut self, client: ClientId, stage: Eviction, why: EvictReason) {
        let Some(session) = self.sessions.get_mut(&client) else { return };
        session.life = Life::Evicting(stage);
        session.evict_reason = Some(why);
        if session.reason.is_empty() {
            session.reason = why.to_string();
        }
        session.bound = false;
        let layouts: Vec<LayoutId> = session.layouts.iter().copied().collect();
        for id in layouts {
            self.recalls.remove(&id);
        }
        for ((_, holder), sync) in &mut self.syncs {
            if *holder == client {
                sync.patience = Patience::endless();
            }
        }
        self.turn_bind_away(client);
        self.drop_waiters(client);
        let waiting = |op: &OpId, work: &Work| {
            matches!(work, Work::Call(call) if call.client == client) && !self.storing.contains(op)
        };
        let doomed: Vec<OpId> = self.work.iter().filter(|(op, w)| waiting(op, w)).map(|(op, _)| *op).collect();
        for op in doomed {
            self.forget_sync_waiter(op);
            self.waiting_for_space.remove(&op);
            self.parked.retain(|o| *o != op);
            self.finish(op, Answer::StaleBind);
        }
        self.look_for_space();
    }

    /// `evicting` or `evicted` is committed.
    pub(super) fn evict_stored(&mut self, client: ClientId) {
        if !self.is_serving() {
            return;
        }
        let Some(session) = self.sessions.get_mut(&client) else { return };
        match session.life {
            Life::Evicting(Eviction::Marking) => {
                session.life = Life::Evicting(Eviction::Fencing);
                self.out.push(Effect::Fence { client, purpose: FencePurpose::Eviction });
            }
            Life::Evicting(Eviction::Closing) => {
                session.life = Life::Evicted;
                self.out.push(Effect::Report(Report::Evicted { client }));
                self.release_everything(client);
                self.came_back(client);
            }
            _ => {}
        }
    }

    pub(super) fn fenced_for_eviction(&mut self, client: ClientId, result: Result<FenceGen, String>) {
        let Some(session) = self.sessions.get_mut(&client) else { return };
        if session.life != Life::Evicting(Eviction::Fencing) {
            return;
        }
        match result {
            Ok(fence_gen) => {
                session.life = Life::Evicting(Eviction::Draining(fence_gen));
                self.close_if_drained(client);
            }
            Err(why) => {
                session.life = Life::Evicting(Eviction::FenceAgain(self.now + FENCE_AGAIN));
                self.out.push(Effect::Report(Report::FenceFailed { client, why }));
            }
        }
    }

    /// Commits `evicted` once no redirected request of the client is in progress.
    pub(super) fn close_if_drained(&mut self, client: ClientId) {
        if !self.is_serving() {
            return;
        }
        let Some(session) = self.sessions.get_mut(&client) else { return };
        let Life::Evicting(Eviction::Draining(fence_gen)) = session.life else { return };
        if session.guards.is_empty() {
            session.life = Life::Evicting(Eviction::Closing);
            let why = session.evict_reason.unwrap_or(EvictReason::Unfinished);
            let op = self.new_op(Work::Evict(client));
            self.store(op, StoreAsk::Evicted { client, fence_gen, why });
        }
    }

    /// Fences that failed are asked for again.
    pub(super) fn fence_again(&mut self) {
        for (client, session) in &mut self.sessions {
            if let Life::Evicting(Eviction::FenceAgain(at)) = session.life
                && at <= self.now
            {
                session.life = Life::Evicting(Eviction::Fencing);
                self.out.push(Effect::Fence { client: *client, purpose: FencePurpose::Eviction });
            }
        }
    }

    pub(super) fn fence_retries(&self) -> impl Iterator<Item = Now> + '_ {
        self.sessions.values().filter_map(|s| match s.life {
            Life::Evicting(Eviction::FenceAgain(at)) => Some(at),
            _ => None,
        })
    }
}
