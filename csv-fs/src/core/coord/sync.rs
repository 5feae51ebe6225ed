//! Syncs: before anybody is told a file's size or times, other nodes' exclusive holders commit what they made.
//!
//! At most one sync per file and client is on its way. Whoever asks while one is outstanding waits for the next: the
//! outstanding one may have been taken up before that somebody asked. A commit answers a sync only if it names its
//! number; one that was on its way before does not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::callbacks::CallbackFor;
use super::event::OpId;
use super::patience::Patience;
use super::session::Life;
use super::work::{Stage, Work};
use super::{Coord, LayoutMode};
use crate::core::rules::Rule;
use crate::proto::CallbackAsk;
use crate::types::*;

/// A client that is asked to commit a file.
#[derive(Debug)]
pub(super) struct Sync {
    /// What a commit must name.
    pub(super) number: u64,
    /// How long still.
    pub(super) patience: Patience,
    waiters: BTreeSet<OpId>,
    later: BTreeSet<OpId>,
}

/// How many ended exclusive layouts are remembered by file; before that all files count as changed.
const ENDS_KEPT: usize = 1024;

/// Which exclusive layouts ended lately: attributes read while one ended may lack its last commit.
#[derive(Debug, Default)]
pub(super) struct Ends {
    count: u64,
    forgotten: u64,
    last: BTreeMap<InodeNo, u64>,
    order: VecDeque<(u64, InodeNo)>,
}

impl Ends {
    /// How many have ended so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// One ended on this file.
    pub(super) fn record(&mut self, ino: InodeNo) {
        self.count += 1;
        self.last.insert(ino, self.count);
        self.order.push_back((self.count, ino));
        if self.order.len() > ENDS_KEPT
            && let Some((n, ino)) = self.order.pop_front()
        {
            self.forgotten = n;
            if self.last.get(&ino) == Some(&n) {
                self.last.remove(&ino);
            }
        }
    }

    /// Whether one may have ended on this file after there were `count`.
    pub(super) fn since(&self, ino: InodeNo, count: u64) -> bool {
        self.forgotten > count || self.last.get(&ino).is_some_and(|n| *n > count)
    }
}

impl Coord {
    /// Has other clients' exclusive holders of `ino` commit; those that `op` must wait for.
    pub(super) fn want_sync(&mut self, op: OpId, ino: InodeNo, except: ClientId) -> BTreeSet<ClientId> {
        if !self.rules.has(Rule::SyncBeforeAttributes) {
            return BTreeSet::new();
        }
        let holders = self.files.exclusive_holders(ino, Some(except));
        for client in &holders {
            match self.syncs.get_mut(&(ino, *client)) {
                Some(sync) => {
                    sync.later.insert(op);
                }
                None => self.send_sync(ino, *client, BTreeSet::from([op])),
            }
        }
        holders
    }

    /// Whether attributes of `ino`, read when `ends` exclusive layouts had ended, may lack what another node made.
    pub(super) fn may_be_inexact(&self, ino: InodeNo, client: ClientId, ends: u64) -> bool {
        let exact = self.rules.has(Rule::SyncBeforeAttributes);
        exact && (self.ends.since(ino, ends) || !self.files.exclusive_holders(ino, Some(client)).is_empty())
    }

    fn send_sync(&mut self, ino: InodeNo, client: ClientId, waiters: BTreeSet<OpId>) {
        self.last_sync += 1;
        let number = self.last_sync;
        let lives = self.sessions.get(&client).is_some_and(|s| s.life == Life::Live);
        let mut patience = match lives {
            true => Patience::new(self.now, &self.config.limits),
            false => Patience::endless(),
        };
        let ask = CallbackAsk::Sync { ino, number };
        let id = self.send_callback(client, CallbackFor::Sync { ino, client, number }, ask);
        if lives {
            patience.ask(self.now, id);
        }
        self.syncs.insert((ino, client), Sync { number, patience, waiters, later: BTreeSet::new() });
    }

    /// Asks again, under the same number.
    pub(super) fn resend_sync(&mut self, ino: InodeNo, client: ClientId) {
        let Some(number) = self.syncs.get(&(ino, client)).map(|s| s.number) else { return };
        let ask = CallbackAsk::Sync { ino, number };
        let id = self.send_callback(client, CallbackFor::Sync { ino, client, number }, ask);
        if let Some(sync) = self.syncs.get_mut(&(ino, client)) {
            sync.patience.ask(self.now, id);
        }
    }

    /// `client` has committed `ino` for the sync of this number; or for all there are, if it holds nothing any more.
    pub(super) fn synced(&mut self, ino: InodeNo, client: ClientId, number: u64) {
        let Some(sync) = self.syncs.get(&(ino, client)) else { return };
        if number < sync.number {
            return;
        }
        let Some(sync) = self.syncs.remove(&(ino, client)) else { return };
        if !sync.later.is_empty() {
            match self.holds_exclusively(ino, client) {
                true => self.send_sync(ino, client, sync.later),
                false => self.wake_synced(&sync.later, client),
            }
        }
        self.wake_synced(&sync.waiters, client);
    }

    /// After a layout of `client` went: a sync of a file that it does not hold exclusively any more is done.
    pub(super) fn synced_if_gone(&mut self, ino: InodeNo, client: ClientId) {
        if !self.holds_exclusively(ino, client) {
            self.synced(ino, client, u64::MAX);
        }
    }

    fn holds_exclusively(&self, ino: InodeNo, client: ClientId) -> bool {
        self.files.layouts_on(ino, client).iter().any(|l| l.mode == LayoutMode::Exclusive)
    }

    fn wake_synced(&mut self, waiters: &BTreeSet<OpId>, client: ClientId) {
        for op in waiters {
            let Some(Work::Call(call)) = self.work.get_mut(op) else { continue };
            let (Stage::Syncing { left } | Stage::RefreshSync { left, .. }) = &mut call.stage else { continue };
            left.remove(&client);
            if left.is_empty() {
                self.all_synced(*op);
            }
        }
    }

    /// Forgets an operation that does not wait any more.
    pub(super) fn forget_sync_waiter(&mut self, op: OpId) {
        for sync in self.syncs.values_mut() {
            sync.waiters.remove(&op);
            sync.later.remove(&op);
        }
    }
}
