//! The oracles: what must hold whatever the cores think of themselves. They see applications, the disk and the wire,
//! and ask no core anything.
//!
//! - [`Invariant::SingleWriter`]: a page of the metadata store lands only while its epoch is the last that opened it.
//! - [`Invariant::Acknowledged`]: a name whose creation was acknowledged is there; no durable request is executed twice.
//! - [`Invariant::OwnLayout`]: held layouts of two clients never conflict; data lands only under a held layout, of an
//!   incarnation that was not evicted, and not past a path fence; blocks are freed only when nobody holds them.
//! - [`Invariant::Fsynced`]: what an fsync covered is not undone by a crash, an eviction or a reset of the disk.
//! - [`Invariant::NeverWritten`]: a read shows what was written to that place of that file, or zeroes.
//! - [`Invariant::AsIfNothingHappened`]: half blocks are registers, each read explained by some order of the writes
//!   (a write acknowledged before another began comes before it); no error reaches an application whose client was not
//!   evicted, but for EIO after `io_timeout`, and what got that is not executed later; a write that was acknowledged does not
//!   land again on top of a newer one.
//! - [`Invariant::HalfBlocks`]: a write of one half does not undo the other half.
//! - [`Invariant::Heals`]: with the faults off everything goes on within bounded virtual time.

mod files;
mod locks;
mod rights;

use std::collections::{BTreeMap, BTreeSet};

use crate::core::locks::refusals::Refusals;
use crate::proto::Request;
use crate::types::*;
use block::shared::{Epoch, FenceGen, NodeId};

pub(super) use files::{SizeId, Value, WriteId};
pub(super) use locks::Wanted;
pub(super) use rights::Claim;

/// Which oracle spoke.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[expect(missing_docs, reason = "described in the module that checks them, DESIGN 5.5 by number")]
pub enum Invariant {
    SingleWriter,
    Acknowledged,
    OwnLayout,
    Fsynced,
    NeverWritten,
    AsIfNothingHappened,
    HalfBlocks,
    OneHolder,
    Heals,
}

/// What an oracle found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which oracle.
    pub invariant: Invariant,
    /// What it saw.
    pub what: String,
}

/// A layout that a client holds, as the client was told.
#[derive(Clone, Debug)]
pub(super) struct Right {
    pub(super) client: ClientId,
    pub(super) ino: InodeNo,
    pub(super) range: BlockRange,
    pub(super) mode: LayoutMode,
    pub(super) ended: Option<&'static str>,
}

/// Locks of an evicted client may be in the way of others for so long, in microseconds: its eviction is committed, and its
/// coordinator hears of that, or dies and the next one reads it.
const GIVEN_AWAY: u64 = 1_000_000;

/// Everything the oracles remember.
#[derive(Default)]
pub(super) struct Oracle {
    pub(super) violation: Option<Violation>,
    writes: Vec<files::Write>,
    registers: BTreeMap<(InodeNo, u64, u8), files::Register>,
    sizes: BTreeMap<InodeNo, files::Size>,
    cuts: BTreeMap<InodeNo, Vec<files::Cut>>,
    rights: BTreeMap<(ClientId, LayoutId), Right>,
    /// Those that have not ended, by file.
    in_force: BTreeMap<InodeNo, BTreeSet<(ClientId, LayoutId)>>,
    told_evicted: BTreeSet<ClientId>,
    evicted: BTreeMap<ClientId, u64>,
    path_fenced: BTreeMap<ClientId, FenceGen>,
    opened: (Epoch, Option<NodeId>),
    draining: BTreeMap<(Epoch, ClientId), (u64, u64)>,
    executed: BTreeSet<(ClientId, SlotRef, u64)>,
    /// Requests whose programs got EIO for their age, of those that nobody makes twice.
    given_up: Vec<(ClientId, Request)>,
    names: BTreeMap<Vec<u8>, files::Name>,
    handles: BTreeMap<(ClientId, HandleId), InodeNo>,
    locked: locks::Belief,
    refusals: Refusals,
    pub(super) reads_checked: u64,
    pub(super) writes_acknowledged: u64,
}

impl Oracle {
    pub(super) fn fail(&mut self, invariant: Invariant, what: String) {
        self.violation.get_or_insert(Violation { invariant, what });
    }

    // ---- the metadata store

    /// The store was opened under an epoch.
    pub(super) fn store_opened(&mut self, epoch: Epoch, node: NodeId) {
        let (last, by) = self.opened;
        if epoch == last && by.is_some_and(|by| by != node) {
            let what = format!("nodes {by:?} and {node} both open the store in epoch {}", epoch.0);
            self.fail(Invariant::SingleWriter, what);
        }
        if epoch >= last {
            self.opened = (epoch, Some(node));
        }
    }

    /// Pages written under an epoch land.
    pub(super) fn pages_land(&mut self, epoch: Epoch, node: NodeId) {
        let (last, by) = self.opened;
        if epoch < last || by != Some(node) {
            let what = format!(
                "pages of node {node}, epoch {} land after {by:?} opened the store in epoch {}",
                epoch.0, last.0
            );
            self.fail(Invariant::SingleWriter, what);
        }
    }

    /// A durable request is executed.
    pub(super) fn executed(&mut self, client: ClientId, slot: SlotRef, seq: u64, request: &Request) {
        if self.given_up.iter().any(|(c, r)| *c == client && r == request) {
            let what = format!("{client}: {request:?} is executed, and its program had been told that it failed");
            self.fail(Invariant::AsIfNothingHappened, what);
        }
        if !self.executed.insert((client, slot, seq)) {
            self.fail(Invariant::Acknowledged, format!("{client}: request {seq} of {slot:?} is executed twice"));
        }
    }

    /// A program got EIO for the age of its request: it has waited for so long, and nothing of it is executed from now on.
    pub(super) fn gave_up(&mut self, client: ClientId, request: Request, waited: u64, io_timeout: u64) {
        if waited < io_timeout || io_timeout == 0 {
            let what =
                format!("{client}: {request:?} was given up after {waited} us, and may wait for {io_timeout} us");
            self.fail(Invariant::AsIfNothingHappened, what);
        }
        let once = match &request {
            Request::Create { open, .. } => open.is_some(),
            Request::Setattr { set, .. } => set.atime.is_some(),
            Request::Unlink { name, .. } => name.starts_with(b"private-"),
            _ => false,
        };
        if once {
            self.given_up.push((client, request));
        }
    }

    /// `evicted` is committed.
    pub(super) fn evicted(&mut self, client: ClientId, now: u64) {
        self.evicted.entry(client).or_insert(now);
        let of_client = (client, LayoutId(0))..=(client, LayoutId(u64::MAX));
        for (_, right) in self.rights.range_mut(of_client) {
            right.ended.get_or_insert("its client was evicted");
        }
        self.in_force.values_mut().for_each(|of_file| of_file.retain(|(c, _)| *c != client));
        self.handles.retain(|(c, _), _| *c != client);
        self.lockers_gone(client);
        // Given away as soon as the coordinator knows that it is committed.
        self.refusals.ended(now + GIVEN_AWAY, client);
    }

    /// A client said to the coordinator of a reign that its route is draining.
    pub(super) fn says_draining(&mut self, to: Epoch, client: ClientId, now: u64) {
        let (first, last) = self.draining.entry((to, client)).or_insert((now, now));
        if now - *last > 10_000_000 {
            *first = now;
        }
        *last = now;
    }

    /// A coordinator calls a recall overdue. What said to it that it is draining has `bound` for that, and `recall` after
    /// saying so. What was said in another reign does not count: a coordinator that was paused may call something
    /// overdue when its office is long gone, and then it cannot commit that. In whole milliseconds, which is how a core counts: what came in the
    /// middle of one counts from its beginning.
    pub(super) fn overdue(&mut self, to: Epoch, client: ClientId, now: u64, recall: u64, bound: u64) {
        let ms = |micros: u64| micros / 1000;
        if let Some((first, last)) = self.draining.get(&(to, client)).copied()
            && ms(now) < ms(last) + ms(recall)
            && ms(now) < ms(first) + ms(bound)
        {
            let what = format!("{client} is evicted although it was draining, for {} ms so far", (now - first) / 1000);
            self.fail(Invariant::AsIfNothingHappened, what);
        }
    }

    /// Whether `evicted` was committed for it.
    pub(super) fn is_evicted(&self, client: ClientId) -> bool {
        self.evicted.contains_key(&client)
    }

    /// How many incarnations were evicted.
    pub(super) fn evictions(&self) -> usize {
        self.evicted.len()
    }

    /// A path fence is committed.
    pub(super) fn path_fenced(&mut self, client: ClientId, fence_gen: FenceGen) {
        let known = self.path_fenced.entry(client).or_insert(fence_gen);
        *known = (*known).max(fence_gen);
    }

    // ---- applications

    /// An application was told that its client was evicted: by the end of the run that must be so.
    pub(super) fn app_told_evicted(&mut self, client: ClientId) {
        self.told_evicted.insert(client);
    }

    pub(super) fn evictions_were_real(&mut self) {
        if let Some(client) = self.told_evicted.iter().find(|c| !self.is_evicted(**c)).copied() {
            self.app_error(client, "evicted");
        }
    }

    /// An application was told of an error.
    pub(super) fn app_error(&mut self, client: ClientId, what: &str) {
        if !self.is_evicted(client) {
            self.fail(
                Invariant::AsIfNothingHappened,
                format!("{client} was not evicted, and its application got: {what}"),
            );
        }
    }
}
