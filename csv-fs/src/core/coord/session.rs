//! One client's session: its request slots, its binding, its opens, the state of its path, and how its life goes.
//!
//! ```text
//!            bind accepted                  evict                fence ok            committed
//! (durable) ─────────────► Live ───────► Evicting: marking ─► fencing ─► draining ─► closing ─► Evicted
//!                            │ goodbye          ▲                 │ fence failed: again after a pause
//!                            ▼                  └─ an `evicting` row found at takeover starts at "fencing"
//!                          (gone)
//! ```

use std::collections::{BTreeMap, BTreeSet};

use block::shared::FenceGen;

use super::event::{ConnId, EvictReason, GuardId, OpId};
use crate::core::time::Now;
use crate::proto::Answer;
use crate::types::*;

/// What became of a slot's last request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum SlotState {
    /// Loaded from the store, or never used in this reign: requests in between may have left no answer, so any
    /// sequence above is new.
    Inherited {
        /// The answer that is stored, and its sequence.
        stored: Option<(u64, Answer)>,
    },
    /// Being worked on.
    Running {
        /// Its sequence.
        seq: u64,
        /// The work.
        op: OpId,
    },
    /// Answered.
    Idle {
        /// Its sequence.
        seq: u64,
        /// Kept if it changed something durable; else a resend runs again.
        answer: Option<Answer>,
    },
}

/// What a call is to its slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum SlotVerdict {
    /// Run it.
    New,
    /// It ran and left no answer: run it again.
    Again,
    /// It ran; this is its answer.
    Replay(Answer),
    /// It is being worked on; wait with it.
    InProgress(OpId),
    /// A defect of the client.
    BadSequence {
        /// What would have been right.
        expected: u64,
    },
}

/// Where a session is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Life {
    /// Served.
    Live,
    /// On its way out; nothing of it is served.
    Evicting(Eviction),
    /// Out. Kept so that it can be told.
    Evicted,
}

/// Steps of an eviction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Eviction {
    /// `evicting` is being committed.
    Marking,
    /// The office fences.
    Fencing,
    /// The fence failed; again at this time.
    FenceAgain(Now),
    /// Fenced; its redirected requests end.
    Draining(FenceGen),
    /// `evicted` is being committed.
    Closing,
}

/// Where a session's data I/O goes, as the coordinator knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Path {
    /// Straight to the disk, by itself.
    Direct,
    /// Its path is being fenced for this call.
    Fencing(OpId),
    /// Fenced: redirected I/O is taken.
    Redirected,
    /// Redirected until what is outstanding has ended; new redirected I/O is not taken.
    ComingBack(OpId),
}

/// A redirected request in progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Guard {
    /// Under which bind it came.
    pub(super) bind: Bind,
    /// Under which layout; a flush has none.
    pub(super) layout: Option<LayoutId>,
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    /// Generation under which it may do direct I/O; what the store has.
    pub(super) fence_gen: FenceGen,
    /// Its life.
    pub(super) life: Life,
    /// Why it is on its way out, or out.
    pub(super) reason: String,
    /// The same, of an eviction of this reign.
    pub(super) evict_reason: Option<EvictReason>,
    /// The highest bind taken up; calls and redirected I/O of others are stale.
    pub(super) bind: Bind,
    /// The bind in progress, if any.
    pub(super) binding: Option<OpId>,
    /// Whether that bind was answered: only then is anything served under it.
    pub(super) bound: bool,
    /// Whether it has bound in this reign: then the tables know what it was given.
    pub(super) known: bool,
    /// Its file locks are still to be named, under this bind: until then it has not come back.
    pub(super) locks_due: Option<Bind>,
    /// Where callbacks go.
    pub(super) conn: Option<ConnId>,
    /// Since when it has had no connection, or when that was looked at last.
    pub(super) absent_since: Option<Now>,
    /// A lock of it was in somebody's way since.
    pub(super) lock_wanted: bool,
    /// Whether it may have granted space that it does not use.
    pub(super) may_keep_space: bool,
    /// Where its data I/O goes.
    pub(super) path: Path,
    /// Open handles.
    pub(super) opens: BTreeMap<HandleId, InodeNo>,
    /// Layouts held.
    pub(super) layouts: BTreeSet<LayoutId>,
    /// Redirected requests in progress.
    pub(super) guards: BTreeMap<GuardId, Guard>,
    /// Commits that wait for redirected requests under the layouts they give back.
    pub(super) returning: Vec<OpId>,
    slots: BTreeMap<SlotRef, SlotState>,
}

impl Session {
    /// A session that has not bound yet.
    pub(super) fn new(fence_gen: FenceGen, answers: Vec<(SlotRef, u64, Answer)>) -> Session {
        let inherited = |(slot, seq, answer)| (slot, SlotState::Inherited { stored: Some((seq, answer)) });
        Session {
            fence_gen,
            life: Life::Live,
            reason: String::new(),
            evict_reason: None,
            bind: Bind(0),
            binding: None,
            bound: false,
            known: false,
            locks_due: None,
            conn: None,
            absent_since: None,
            lock_wanted: false,
            may_keep_space: false,
            path: Path::Direct,
            opens: BTreeMap::new(),
            layouts: BTreeSet::new(),
            guards: BTreeMap::new(),
            returning: Vec::new(),
            slots: answers.into_iter().map(inherited).collect(),
        }
    }

    /// What a call with this sequence is. `replay`: whether stored answers count at all.
    pub(super) fn classify(&self, slot: SlotRef, seq: u64, replay: bool) -> SlotVerdict {
        match self.slots.get(&slot) {
            None => SlotVerdict::New,
            Some(SlotState::Running { seq: last, op }) if seq == *last => SlotVerdict::InProgress(*op),
            Some(SlotState::Running { seq: last, .. }) => SlotVerdict::BadSequence { expected: *last },
            Some(SlotState::Inherited { stored: Some((last, answer)) }) if seq == *last && replay => {
                SlotVerdict::Replay(answer.clone())
            }
            Some(SlotState::Inherited { stored: Some((last, _)) }) if seq < *last => {
                SlotVerdict::BadSequence { expected: last + 1 }
            }
            Some(SlotState::Inherited { .. }) => SlotVerdict::New,
            Some(SlotState::Idle { seq: last, answer: Some(answer) }) if seq == *last && replay => {
                SlotVerdict::Replay(answer.clone())
            }
            Some(SlotState::Idle { seq: last, .. }) if seq == *last => SlotVerdict::Again,
            Some(SlotState::Idle { seq: last, .. }) if Some(seq) == last.checked_add(1) => SlotVerdict::New,
            Some(SlotState::Idle { seq: last, .. }) => SlotVerdict::BadSequence { expected: last + 1 },
        }
    }

    /// A call starts in its slot.
    pub(super) fn begin(&mut self, slot: SlotRef, seq: u64, op: OpId) {
        self.slots.insert(slot, SlotState::Running { seq, op });
    }

    /// A call ended; the answer is kept if the store keeps it.
    pub(super) fn end(&mut self, slot: SlotRef, seq: u64, keep: Option<Answer>) {
        self.slots.insert(slot, SlotState::Idle { seq, answer: keep });
    }

    /// The stored answer of exactly this request, if there is one.
    pub(super) fn stored(&self, slot: SlotRef, seq: u64) -> Option<&Answer> {
        match self.slots.get(&slot)? {
            SlotState::Inherited { stored: Some((last, answer)) } if *last == seq => Some(answer),
            SlotState::Idle { seq: last, answer: Some(answer) } if *last == seq => Some(answer),
            _ => None,
        }
    }

    /// Whether the client has used a slot again since `seq`: then it has had that answer.
    pub(super) fn moved_on(&self, slot: SlotRef, seq: u64) -> bool {
        match self.slots.get(&slot) {
            Some(SlotState::Running { seq: last, .. } | SlotState::Idle { seq: last, .. }) => *last > seq,
            Some(SlotState::Inherited { stored }) => stored.as_ref().is_some_and(|(last, _)| *last > seq),
            None => false,
        }
    }

    /// Whether anything waits for redirected requests of this session to end.
    pub(super) fn is_waited_for(&self) -> bool {
        let leaving = matches!(self.life, Life::Evicting(Eviction::Draining(_)));
        let coming_back = matches!(self.path, Path::ComingBack(_));
        leaving || coming_back || self.binding.is_some() || !self.returning.is_empty()
    }

    /// Whether a redirected request of a bind below `bind` is in progress.
    pub(super) fn has_guards_below(&self, bind: Bind) -> bool {
        self.guards.values().any(|g| g.bind < bind)
    }

    /// Whether a redirected request under one of these layouts is in progress.
    pub(super) fn has_guards_on(&self, layouts: &[LayoutId]) -> bool {
        self.guards.values().any(|g| g.layout.is_some_and(|l| layouts.contains(&l)))
    }
}
