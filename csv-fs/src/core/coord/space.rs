//! Before ENOSPC is said, granted space that others do not need is called back, and orphans that are being freed are
//! waited for; once per request.

use std::collections::BTreeSet;

use super::Coord;
use super::callbacks::CallbackFor;
use super::event::OpId;
use super::work::{Stage, Work};
use crate::core::time::Now;
use crate::proto::CallbackAsk;
use crate::types::*;

impl Coord {
    /// A request found no space. True if it waits for some.
    pub(super) fn call_back_grants(&mut self, op: OpId, client: ClientId) -> bool {
        let Some(call) = self.call_work(op) else { return false };
        if std::mem::replace(&mut call.asked_for_space, true) || self.in_grace() || !self.is_serving() {
            return false;
        }
        let mut left = BTreeSet::new();
        let others: Vec<ClientId> = self.sessions().filter(|c| *c != client).collect();
        for other in others {
            if self.send_callback(other, CallbackFor::Grant { client: other }, CallbackAsk::RecallGrant).is_some() {
                left.insert(other);
            }
        }
        if left.is_empty() && !self.is_freeing() {
            return false;
        }
        let until = self.now + self.config.limits.recall;
        self.set_stage(op, Stage::AwaitingSpace { left, until });
        self.waiting_for_space.insert(op);
        true
    }

    /// A client gave space back, or has none to give.
    pub(super) fn space_answered(&mut self, client: ClientId) {
        self.look_for_space(|left, _| {
            left.remove(&client);
            false
        });
    }

    /// Orphans were freed.
    pub(super) fn space_freed(&mut self) {
        self.look_for_space(|_, _| false);
    }

    /// Those who waited long enough try again with what there is.
    pub(super) fn space_overdue(&mut self) {
        let now = self.now;
        self.look_for_space(|_, until| until <= now);
    }

    fn look_for_space(&mut self, mut is_over: impl FnMut(&mut BTreeSet<ClientId>, Now) -> bool) {
        let freeing = self.is_freeing();
        let waiting: Vec<OpId> = self.waiting_for_space.iter().copied().collect();
        for op in waiting {
            let Some(Work::Call(call)) = self.work.get_mut(&op) else { continue };
            let Stage::AwaitingSpace { left, until } = &mut call.stage else { continue };
            let over = is_over(left, *until);
            if over || (left.is_empty() && !freeing) {
                self.waiting_for_space.remove(&op);
                self.store_request(op);
            }
        }
    }

    pub(super) fn space_deadlines(&self) -> impl Iterator<Item = Now> + '_ {
        self.waiting_for_space.iter().filter_map(|op| match self.work.get(op) {
            Some(Work::Call(call)) => match call.stage {
                Stage::AwaitingSpace { until, .. } => Some(until),
                _ => None,
            },
            _ => None,
        })
    }
}
