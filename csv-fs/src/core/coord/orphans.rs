//! Opens, and inodes without a name: freed in steps when nobody has them open, never in grace, and only under an
//! exclusive hold of the whole file, so that every layout on the space came back first. Who has one open, or a lock that
//! others want, and has no connection for long is evicted.

use std::collections::{BTreeMap, BTreeSet};

use super::Coord;
use super::event::{EvictReason, OpId, StoreAsk};
use super::files::Claim;
use super::session::Life;
use super::work::{Work, returned_before_freed};
use crate::core::rules::Rule;
use crate::core::time::Now;
use crate::types::*;

/// How many orphans are freed at once; each takes part in every commit of the store until it is done.
const REAPS_AT_ONCE: usize = 4;

/// Opens by file, and orphans.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    open: BTreeMap<InodeNo, usize>,
    waiting: BTreeSet<InodeNo>,
    freeing: BTreeMap<InodeNo, OpId>,
    tails: BTreeSet<InodeNo>,
    freeing_tails: BTreeSet<InodeNo>,
}

/// Whether a file may be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OpenVerdict {
    /// It is noted as open from now on; the store says whether it is there.
    Noted,
    /// Its freeing has begun: it has no name and nobody had it open.
    BeingFreed,
}

impl Coord {
    pub(super) fn try_open(&mut self, client: ClientId, handle: HandleId, ino: InodeNo) -> OpenVerdict {
        if self.orphans.freeing.contains_key(&ino) {
            return OpenVerdict::BeingFreed;
        }
        self.opened(client, handle, ino);
        OpenVerdict::Noted
    }

    /// A handle is open on a file. Saying it twice changes nothing.
    pub(super) fn opened(&mut self, client: ClientId, handle: HandleId, ino: InodeNo) {
        let Some(session) = self.sessions.get_mut(&client) else { return };
        if session.opens.insert(handle, ino) != Some(ino) {
            *self.orphans.open.entry(ino).or_default() += 1;
        }
    }

    /// A handle is closed. Saying it twice changes nothing.
    pub(super) fn closed(&mut self, client: ClientId, handle: HandleId) {
        let Some(ino) = self.sessions.get_mut(&client).and_then(|s| s.opens.remove(&handle)) else { return };
        let Some(count) = self.orphans.open.get_mut(&ino) else { return };
        *count -= 1;
        if *count == 0 {
            self.orphans.open.remove(&ino);
            self.reap_what_can_be();
        }
    }

    /// A file lost its last name.
    pub(super) fn orphaned(&mut self, ino: InodeNo) {
        if !self.orphans.freeing.contains_key(&ino) {
            self.orphans.waiting.insert(ino);
            self.reap_what_can_be();
        }
    }

    /// A file that was made without a name has one now. Prevents: it is freed when it is closed.
    pub(super) fn named(&mut self, ino: InodeNo) {
        self.orphans.waiting.remove(&ino);
    }

    /// A truncation left something to free. It is part of the file no more, and every layout on it came back before;
    /// so it waits for no close and no hold.
    pub(super) fn tail_left(&mut self, ino: InodeNo) {
        self.orphans.tails.insert(ino);
        self.reap_what_can_be();
    }

    fn reap_tails(&mut self) {
        let tails: Vec<InodeNo> = self.orphans.tails.iter().copied().collect();
        for ino in tails {
            if self.orphans.freeing_tails.insert(ino) {
                self.orphans.tails.remove(&ino);
                let op = self.new_op(Work::ReapTail(ino));
                self.store(op, StoreAsk::ReapTail { ino });
            }
        }
    }

    pub(super) fn tail_reaped(&mut self, op: OpId, ino: InodeNo, more: bool) {
        if more && self.is_serving() {
            return self.store(op, StoreAsk::ReapTail { ino });
        }
        self.work.remove(&op);
        self.orphans.freeing_tails.remove(&ino);
        self.reap_what_can_be();
        self.look_for_space();
    }

    /// Begins to free orphans that nobody has open, and tails.
    pub(super) fn reap_what_can_be(&mut self) {
        if self.is_serving() && !self.in_grace() {
            self.reap_tails();
        }
        while self.is_serving() && !self.in_grace() && self.orphans.freeing.len() < REAPS_AT_ONCE {
            let Orphans { open, waiting, .. } = &self.orphans;
            let kept = |i: &InodeNo| open.contains_key(i) && self.rules.has(Rule::OpenKeepsOrphan);
            let Some(ino) = waiting.iter().find(|i| !kept(i)).copied() else { return };
            self.orphans.waiting.remove(&ino);
            let op = self.new_op(Work::Reap(ino));
            self.orphans.freeing.insert(ino, op);
            if returned_before_freed(self.rules) {
                let (range, mode) = (BlockRange::ALL, LayoutMode::Exclusive);
                self.files.queue(ino, Claim { op, client: None, beside_own: false, range, mode });
                self.advance(ino);
            } else {
                self.reap_step(op, ino);
            }
        }
    }

    /// One step of freeing.
    pub(super) fn reap_step(&mut self, op: OpId, ino: InodeNo) {
        if self.is_serving() {
            self.store(op, StoreAsk::Reap { ino });
        }
    }

    pub(super) fn reaped(&mut self, op: OpId, ino: InodeNo, more: bool) {
        if more {
            return self.reap_step(op, ino);
        }
        self.work.remove(&op);
        self.orphans.freeing.remove(&ino);
        self.files.leave(ino, op);
        self.advance(ino);
        self.reap_what_can_be();
        self.look_for_space();
    }

    /// Whether it has a file open that waits to be freed.
    pub(super) fn keeps_an_orphan(&self, client: ClientId) -> bool {
        let waiting = &self.orphans.waiting;
        !waiting.is_empty()
            && self.sessions.get(&client).is_some_and(|s| s.opens.values().any(|ino| waiting.contains(ino)))
    }

    /// Clients without a connection that may hold others up, and when to look whether they do.
    fn absent(&self) -> impl Iterator<Item = (ClientId, Now)> + '_ {
        let bound = self.config.limits.absence();
        let absent = self.sessions.iter().filter(|(_, s)| s.life == Life::Live && s.binding.is_none());
        let since = absent.filter_map(move |(c, s)| Some((*c, s.absent_since? + bound)));
        since.filter(|(c, _)| self.keeps_an_orphan(*c) || self.holds_locks(*c))
    }

    pub(super) fn absences(&self) -> impl Iterator<Item = Now> + '_ {
        self.absent().map(|(_, at)| at)
    }

    /// Whoever has been away for long while it has a file open that has no name any more, or a lock that others want, is
    /// evicted. Prevents: a node that is killed and never comes back keeps that space for ever; a program that ran there is
    /// to be started on another node, which is told for ever that its file is locked.
    pub(super) fn absent_overdue(&mut self) {
        let now = self.now;
        let late: Vec<ClientId> = self.absent().filter(|(_, at)| *at <= now).map(|(c, _)| c).collect();
        for client in late {
            if self.keeps_an_orphan(client) || self.holds_locks_up(client) {
                self.evict(client, EvictReason::RecallOverdue);
            } else if let Some(session) = self.sessions.get_mut(&client) {
                // Looked at again after as long.
                session.absent_since = Some(now);
            }
        }
    }

    /// Whether space is about to become free.
    pub(super) fn is_freeing(&self) -> bool {
        !self.orphans.freeing.is_empty() || !self.orphans.freeing_tails.is_empty()
    }
}
