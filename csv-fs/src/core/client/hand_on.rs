//! An incarnation that goes on in another process: what one life knows at its end, and the beginning of the next.
//!
//! The daemon of a node is replaced while programs have files open. It takes nothing new from the kernel, ends what it has,
//! gives every layout back, and then asks this core to leave ([`Event::Leave`](super::Event::Leave)). The core gives what is to be
//! known ([`Known`]) and does nothing any more. The next life begins with that, as the same incarnation, and binds with the next
//! number: to the coordinator it is a client that comes back over a new connection.
//!
//! # Rules, and the interleaving that each prevents
//! - **A life leaves only with empty hands** (rule `LeavesWithEmptyHands`): no layout, nothing in a slot or on its way to one, nothing
//!   redirected that is not stable, no lock half-way. What is not known to the next life it cannot finish. Prevents: a write was
//!   acknowledged, its mapping is not committed; the next life does not name it when it binds, and the coordinator gives its
//!   blocks to another file.
//! - **The next life goes on with the numbers of the one before**: of binds, slots and waiters. Prevents: an answer to the life before
//!   is taken for one to this; a request under a number that was used is answered with what is stored under it.
//! - **What has left says nothing more**, so what it has given is the last word. Prevents: a lock is given to the life before behind its
//!   word, its program goes on, and the next life does not name it to the next coordinator.
//!
//! Whoever waits for a lock holds nothing and is in no slot. He is not answered: his request is the kernel's to send again, and he
//! asks the next life.
//!
//! Not here: the proof that the life before has ended and that the incarnation was not fenced meanwhile (the office's, which
//! registers the next life in the node's slot), and which of its open files fail (the shell's).

use block::shared::{Epoch, FenceGen};
use serde::{Deserialize, Serialize};

use super::binding::Binding;
use super::event::Effect;
use super::locks::Idle;
use super::route::Stage;
use super::{Client, ClientConfig, OpenFile, Rules};
use crate::core::rules::Rule;
use crate::core::time::Now;
use crate::proto::{CallbackAnswer, CallbackAsk, PlacedLock};
use crate::types::*;

/// The reason that a core gives for doing nothing once it has left.
pub const LEFT: &str = "its daemon makes room for the next";

/// An open file, as the coordinator knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KnownOpen {
    /// Its name.
    pub handle: HandleId,
    /// Which file.
    pub ino: InodeNo,
    /// As the program opened it.
    pub flags: u32,
}

/// What a life of a client knows at its end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Known {
    /// Which incarnation.
    pub client: ClientId,
    /// Under which generation its data may go directly.
    pub fence_gen: FenceGen,
    /// The highest epoch it was bound to.
    pub epoch: Epoch,
    /// The last bind that was asked for.
    pub bind: Bind,
    /// The last number used in each ordinary slot.
    pub ordinary: Vec<u64>,
    /// The same of the return table.
    pub returns: Vec<u64>,
    /// Open files.
    pub opens: Vec<KnownOpen>,
    /// Locks held.
    pub locks: Vec<PlacedLock>,
    /// The last name of a waiter.
    pub waiter: u64,
    /// The administrator wants it redirected.
    pub forced: bool,
    /// Callers that wait for a lock: nobody has answered them.
    pub waiting: u64,
}

impl Client {
    /// What has left holds no layout and has nothing to commit; who is called for a lock asks again after the next bind; the locks on
    /// its record are those that it hands on.
    ///
    /// Prevents: "another incarnation" is answered, and the coordinator evicts the one that is about to go on.
    pub(super) fn answered_after_leaving(&self, ask: &CallbackAsk) -> CallbackAnswer {
        match ask {
            CallbackAsk::Recall { .. } | CallbackAsk::Sync { .. } => CallbackAnswer::NotHeld,
            CallbackAsk::LockReady { .. } => CallbackAnswer::Accepted,
            CallbackAsk::LockHeld { ino, space, lock } => self.lock_on_record(*ino, *space, lock),
            CallbackAsk::RecallGrant | CallbackAsk::Progress => CallbackAnswer::Draining,
        }
    }

    /// A client that goes on where another process has left. Direct; whoever has it redirected says so anew ([`Known::forced`]),
    /// and its path is fenced anew.
    pub fn resume(config: ClientConfig, known: &Known, rules: Rules, now: Now) -> Client {
        let config = ClientConfig { client: known.client, fence_gen: known.fence_gen, ..config };
        let mut client = Client::new(config, rules, now);
        client.binder.resume(known.bind, known.epoch);
        client.slots.resume(&known.ordinary, &known.returns);
        let opens = known.opens.iter().map(|o| (o.handle, OpenFile { ino: o.ino, flags: o.flags }));
        client.opens.extend(opens);
        client.locks_resume(known);
        client
    }

    /// The process makes room for the next.
    pub(super) fn leave(&mut self, out: &mut Vec<Effect>) {
        let idle = self.locks_idle();
        let known = match idle {
            Idle::With { waiting } if self.has_empty_hands() => Some(Box::new(self.known(waiting))),
            _ => None,
        };
        if known.is_some() {
            self.binder.evict(LEFT.to_owned());
            if std::mem::take(&mut self.gate_open) {
                out.push(Effect::CloseDirect);
            }
            self.redirects.evict(out);
        }
        out.push(Effect::Left { known });
    }

    /// Whether it has made room for another process.
    pub(super) fn has_left(&self) -> bool {
        matches!(&self.binder.state, Binding::Evicted { reason } if reason == LEFT)
    }

    /// Whether it has nothing that the next life could not finish.
    fn has_empty_hands(&self) -> bool {
        if matches!(self.binder.state, Binding::Evicted { .. }) {
            return false;
        }
        if !self.rules.has(Rule::LeavesWithEmptyHands) {
            return true;
        }
        let settled = match self.router.stage {
            Stage::Open => true,
            Stage::Redirected { .. } => self.router.forced,
            Stage::Aborting { .. } | Stage::Asking { .. } | Stage::Returning { .. } => false,
        };
        let unanswered = self.slots.unanswered().next().is_some() || !self.own.is_empty();
        let behind = !self.held_back.is_empty() || !self.early_releases.is_empty() || self.inherited.is_claimable();
        let redirected = !self.redirects.is_drained() || self.redirects.len() > 0;
        settled && !unanswered && !behind && !redirected && self.layouts.iter().next().is_none()
    }

    fn known(&self, waiting: u64) -> Known {
        let (ordinary, returns) = self.slots.numbers();
        let open = |(handle, o): (&HandleId, &OpenFile)| KnownOpen { handle: *handle, ino: o.ino, flags: o.flags };
        Known {
            client: self.config.client,
            fence_gen: self.router.fence_gen,
            epoch: self.binder.epoch(),
            bind: self.binder.last,
            ordinary,
            returns,
            opens: self.opens.iter().map(open).collect(),
            locks: self.locks_held(),
            waiter: self.last_waiter(),
            forced: self.router.forced,
            waiting,
        }
    }
}
