//! The layouts this client holds, and the way each goes back.
//!
//! ```text
//!   Held ── recall, or own wish ──► Draining ── last guard gone ──► Settling ── flushed, committed ──► Returning ──► gone
//! ```
//! - *Draining*: no new operation may take it (`Withdraw`); those that hold a guard end first.
//!   Prevents: the coordinator gives the range to another node while a write of ours is still on its way to the disk
//!   (rule `DrainBeforeReturn`).
//! - *Settling*: the shell flushes the device, then commits what was made under the layout.
//!   Prevents: a mapping that points at blocks whose data was never stable.
//! - *Returning*: a commit that names it is in a slot. It is not re-asserted as held any more, because the coordinator
//!   may have given it away already: re-asserting it would take it back from its next holder.
//!
//! A recall may overtake the answer that grants its layout (answers and callbacks are different tasks). A recall of an
//! unknown layout is therefore remembered while a LayoutGet of that inode is unanswered.
//!
//! A grant may also be overtaken by the end of another exclusive layout of the same file: its mapping was read while that
//! one was held, and lacks what was committed and returned with it. Exclusive layouts that were sent back are therefore
//! remembered while a LayoutGet of that inode is unanswered, and a grant that may be older goes back untold.

use std::collections::BTreeMap;

use crate::core::rules::{Rule, Rules};
use crate::proto::LayoutGrant;
use crate::types::{BlockRange, InodeNo, LayoutId, LayoutMode};

/// Where a layout stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// In use.
    Held,
    /// Withdrawn; guards are outstanding.
    Draining,
    /// No guard is left; what was made under it is being committed.
    Settling,
    /// A call that gives it back is on its way.
    Returning,
}

/// A layout and where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeldLayout {
    /// Of which file.
    pub ino: InodeNo,
    /// Over which blocks.
    pub range: BlockRange,
    /// For what.
    pub mode: LayoutMode,
    /// Where it stands.
    pub standing: Standing,
}

/// What a recall leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Recalled {
    /// Withdraw it now.
    Start,
    /// Already under way.
    UnderWay,
    /// Remembered for the grant that is on its way.
    Early,
    /// Not held.
    Unknown,
}

/// All layouts of one incarnation.
#[derive(Debug)]
pub(super) struct Layouts {
    held: BTreeMap<LayoutId, HeldLayout>,
    early: BTreeMap<LayoutId, InodeNo>,
    sent_back: BTreeMap<LayoutId, InodeNo>,
    rules: Rules,
}

impl Layouts {
    pub(super) fn new(rules: Rules) -> Layouts {
        Layouts { held: BTreeMap::new(), early: BTreeMap::new(), sent_back: BTreeMap::new(), rules }
    }

    pub(super) fn get(&self, id: LayoutId) -> Option<&HeldLayout> {
        self.held.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (LayoutId, &HeldLayout)> {
        self.held.iter().map(|(id, l)| (*id, l))
    }

    /// One that another process held.
    pub(super) fn put_back(&mut self, id: LayoutId, layout: HeldLayout) {
        self.held.insert(id, layout);
    }

    /// A new layout; whether a recall of it has come already.
    pub(super) fn grant(&mut self, grant: &LayoutGrant) -> bool {
        let layout = HeldLayout { ino: grant.ino, range: grant.range, mode: grant.mode, standing: Standing::Held };
        self.held.insert(grant.id, layout);
        self.early.remove(&grant.id).is_some()
    }

    /// A recall, or the own wish to give back. `asking`: a LayoutGet of the inode is unanswered.
    pub(super) fn recall(&mut self, id: LayoutId, ino: InodeNo, asking: bool) -> Recalled {
        match self.held.get_mut(&id) {
            Some(l) if l.standing == Standing::Held => {
                l.standing =
                    if self.rules.has(Rule::DrainBeforeReturn) { Standing::Draining } else { Standing::Settling };
                Recalled::Start
            }
            Some(_) => Recalled::UnderWay,
            None if asking => {
                self.early.insert(id, ino);
                Recalled::Early
            }
            None => Recalled::Unknown,
        }
    }

    /// Moves a layout on if it stands at `from`.
    pub(super) fn advance(&mut self, id: LayoutId, from: Standing, to: Standing) -> Option<HeldLayout> {
        let layout = self.held.get_mut(&id).filter(|l| l.standing == from)?;
        layout.standing = to;
        if from == Standing::Returning {
            self.sent_back.remove(&id);
        }
        Some(*layout)
    }

    /// A call that gives it back has been made, by whatever way it came to that.
    pub(super) fn returning(&mut self, id: LayoutId) {
        if let Some(l) = self.held.get_mut(&id) {
            l.standing = Standing::Returning;
            if l.mode == LayoutMode::Exclusive {
                self.sent_back.insert(id, l.ino);
            }
        }
    }

    /// Whether a grant's mapping may lack what was committed with a layout that was sent back since: one that was held
    /// when it was read, or that was given out later and came first.
    pub(super) fn is_overtaken(&self, grant: &LayoutGrant) -> bool {
        let newer = |id: &LayoutId| *id > grant.id || grant.beside.contains(id);
        self.sent_back.iter().any(|(id, ino)| *ino == grant.ino && newer(id))
    }

    /// Layouts whose return the coordinator had executed when it read the mapping of this grant, though its answer has
    /// not come yet: they are gone, and what is known under them is older than the grant.
    pub(super) fn ended_before(&self, grant: &LayoutGrant) -> Vec<LayoutId> {
        let ended = |(id, l): (&LayoutId, &HeldLayout)| {
            let exclusive = l.ino == grant.ino && l.mode == LayoutMode::Exclusive;
            let before = *id < grant.id && !grant.beside.contains(id);
            (exclusive && before && l.standing == Standing::Returning).then_some(*id)
        };
        self.held.iter().filter_map(ended).collect()
    }

    pub(super) fn remove(&mut self, id: LayoutId) -> Option<HeldLayout> {
        self.held.remove(&id)
    }

    /// No LayoutGet of this inode is unanswered any more: what was remembered for one is not needed, or never came.
    pub(super) fn nothing_asked(&mut self, ino: InodeNo) {
        let held = &self.held;
        self.early.retain(|_, i| *i != ino);
        self.sent_back.retain(|id, i| *i != ino || held.contains_key(id));
    }

    pub(super) fn clear(&mut self) -> Vec<(LayoutId, HeldLayout)> {
        self.early.clear();
        self.sent_back.clear();
        std::mem::take(&mut self.held).into_iter().collect()
    }
}
