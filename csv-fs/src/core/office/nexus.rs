//! This node's nexuses to a SCSI disk: which are registered, and which may carry I/O.
//!
//! ```text
//! NexusUp ─► Due ─ an incarnation is there: REGISTER ─► Out ─ done, slot read over it, admitted ─► good
//!             ▲                                          └ not done, or not admitted ─► Refused ─┐
//!             └─ granted, answered, ended, or the own slot renewed: it may be admitted now ◄─────┘
//! ```
//! - A nexus registers, *then* reads its slot over itself (rule `RegisterThenReadSlot`), and is admitted under a generation
//!   that this node's client was granted, or of which everything older has ended.
//! - While what a lost office of this node left has not ended, none is admitted (rule `EndedBeforeAdmitted`). An office that
//!   drains in order is not lost: it needs its path for that.
//! - One that is gone (`NexusGone`) is forgotten: whatever is still answered of it says nothing.
//! - One that was refused is registered anew as soon as it may be admitted, at the latest with the next renewal of the own
//!   slot. Its shell waits for that and does nothing; a new session begins from the start by `NexusUp`.

use super::effect::{Effect, FenceStep};
use super::event::Tag;
use super::role::Role;
use super::view::{Key, SlotView};
use super::{DiskKind, Office};
use crate::core::rules::Rule;
use block::shared::FenceGen;

/// How far the registration of a nexus is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Registration {
    /// It has none yet.
    Due,
    /// REGISTER was sent, and perhaps more since.
    Out(Tag),
    /// It was not admitted.
    Refused,
}

impl Office {
    pub(super) fn on_nexus_up(&mut self, nexus: u16, out: &mut Vec<Effect>) {
        self.nexuses.insert(nexus, Registration::Due);
        self.register_nexuses(out);
    }

    /// REGISTER for each nexus that has none, once there is an incarnation to register.
    pub(super) fn register_nexuses(&mut self, out: &mut Vec<Effect>) {
        let (DiskKind::Scsi { volume_tag }, Some(client)) = (self.config.kind, self.client()) else { return };
        for (nexus, how_far) in self.nexuses.iter_mut().filter(|(_, how_far)| **how_far == Registration::Due) {
            let tag = self.ids.tag();
            *how_far = Registration::Out(tag);
            let key = Key::new(volume_tag, client, *nexus);
            out.push(Effect::Scsi { tag, step: FenceStep::Register { nexus: *nexus, key } });
        }
    }

    /// The nexus whose registration has this tag.
    pub(super) fn registers(&self, tag: Tag) -> Option<u16> {
        self.nexuses.iter().find(|(_, how_far)| **how_far == Registration::Out(tag)).map(|(nexus, _)| *nexus)
    }

    /// Registered: the slot is read over that very nexus before it carries anything.
    pub(super) fn nexus_registered(&mut self, nexus: u16, done: bool, out: &mut Vec<Effect>) {
        let Some(life) = self.life() else { return };
        match done {
            false => self.refuse_nexus(nexus, out),
            true if self.rules.has(Rule::RegisterThenReadSlot) => out.push(Effect::ReadOwnSlotVia { nexus }),
            true => out.push(Effect::NexusGood { nexus, fence_gen: life.granted }),
        }
    }

    pub(super) fn on_own_slot_via(&mut self, nexus: u16, slot: Option<SlotView>, out: &mut Vec<Effect>) {
        let Some(client) = self.client().filter(|_| self.nexuses.contains_key(&nexus)) else { return };
        match slot.filter(|s| s.incarnation == client.incarnation && self.admits(s.fence_gen)) {
            Some(slot) => out.push(Effect::NexusGood { nexus, fence_gen: slot.fence_gen }),
            None => self.refuse_nexus(nexus, out),
        }
        self.look.want();
    }

    /// What is answered of one that is gone says nothing.
    fn refuse_nexus(&mut self, nexus: u16, out: &mut Vec<Effect>) {
        let Some(how_far) = self.nexuses.get_mut(&nexus) else { return };
        *how_far = Registration::Refused;
        out.push(Effect::NexusRefused { nexus });
    }

    /// Whether a nexus may carry I/O that shows this generation in the own slot. What ended before an answer cannot come back
    /// over it: the client's own gate stays shut until its generation is granted, but an office held here needs the path to
    /// its store. What a lost office left may wait for a path, and would go out over this one.
    fn admits(&self, fence_gen: FenceGen) -> bool {
        let Some(life) = self.life() else { return false };
        let left_behind = self.undrained.is_some() && !matches!(self.role, Role::Reigning(_));
        let ended = !left_behind || !self.rules.has(Rule::EndedBeforeAdmitted);
        ended && fence_gen <= life.granted.max(life.answered)
    }

    /// What kept nexuses out may be over: those that were refused register anew, and read the slot again.
    pub(super) fn register_refused(&mut self, out: &mut Vec<Effect>) {
        let Some(life) = self.life() else { return };
        if !self.admits(life.slot.fence_gen) {
            return;
        }
        for how_far in self.nexuses.values_mut().filter(|how_far| **how_far == Registration::Refused) {
            *how_far = Registration::Due;
        }
        self.register_nexuses(out);
    }
}
