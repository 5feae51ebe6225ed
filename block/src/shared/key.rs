//! Reservation keys: which volume, node, life and nexus a registration belongs to.
//!
//! ```text
//!  63          48 47       36 35                16 15          0
//! ┌──────────────┬───────────┬────────────────────┬─────────────┐
//! │ volume tag   │ node      │ incarnation (low)  │ nexus       │
//! └──────────────┴───────────┴────────────────────┴─────────────┘
//! ```
//! Keys are not stored anywhere but at the target: a fence reads them there and takes away every one of the victim.
//! So a key must tell whose it is, and two nexuses never share one: preempting a dead nexus of one's own must not take a
//! living one with it. The tag is never 0, so that no key is [`ReservationKey::NONE`].

use std::num::NonZeroU16;

use scsi::ReservationKey;

use super::{Incarnation, NodeId};

/// Incarnations count on; 20 bits of them are enough to tell lives apart whose keys are registered together.
const INCARNATION_BITS: u32 = 20;
const INCARNATION_MASK: u64 = (1 << INCARNATION_BITS) - 1;

/// Which volume: 16 bits of its identity, so that a foreign volume's key on the same LUN is not taken for one's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeTag(NonZeroU16);

/// Which of a node's nexuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NexusNumber(pub u16);

/// What a key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NexusKey {
    /// The volume.
    pub volume: VolumeTag,
    /// The node.
    pub node: NodeId,
    /// The lowest 20 bits of its incarnation.
    incarnation: u32,
    /// The nexus.
    pub nexus: NexusNumber,
}

impl VolumeTag {
    /// The tag of a volume's identity: two of its bytes, 1 where they are zero.
    pub fn of(id: &[u8; 16]) -> VolumeTag {
        VolumeTag(NonZeroU16::new(u16::from_be_bytes([id[0], id[1]])).unwrap_or(NonZeroU16::MIN))
    }

    /// As a number; never 0.
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

impl NexusKey {
    /// The key of a nexus.
    pub fn new(volume: VolumeTag, node: NodeId, incarnation: Incarnation, nexus: NexusNumber) -> NexusKey {
        NexusKey { volume, node, incarnation: low(incarnation), nexus }
    }

    /// The key as it is registered.
    pub fn key(self) -> ReservationKey {
        let volume = u64::from(self.volume.0.get()) << 48;
        let node = u64::from(self.node.get()) << 36;
        ReservationKey(volume | node | u64::from(self.incarnation) << 16 | u64::from(self.nexus.0))
    }

    /// What a registered key says; `None` if it is none of this form.
    pub fn parse(key: ReservationKey) -> Option<NexusKey> {
        let [t1, t2, ..] = key.0.to_be_bytes();
        let volume = VolumeTag(NonZeroU16::new(u16::from_be_bytes([t1, t2]))?);
        let node = NodeId::new(u8::try_from(key.0 >> 36 & 0xfff).ok()?)?;
        let incarnation = u32::try_from(key.0 >> 16 & INCARNATION_MASK).ok()?;
        let nexus = NexusNumber(u16::try_from(key.0 & 0xffff).ok()?);
        Some(NexusKey { volume, node, incarnation, nexus })
    }

    /// Whether both are of one life of a node, as far as keys tell.
    pub fn is_same_life(self, other: NexusKey) -> bool {
        (self.volume, self.node, self.incarnation) == (other.volume, other.node, other.incarnation)
    }

    /// Whether it belongs to this life of this node on this volume.
    pub fn is_of(self, volume: VolumeTag, node: NodeId, incarnation: Incarnation) -> bool {
        (self.volume, self.node, self.incarnation) == (volume, node, low(incarnation))
    }
}

fn low(incarnation: Incarnation) -> u32 {
    u32::try_from(incarnation.0 & INCARNATION_MASK).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 16] = [0xab, 0xcd, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14];

    fn key(nexus: u16) -> NexusKey {
        let node = NodeId::new(3).expect("a node");
        NexusKey::new(VolumeTag::of(&ID), node, Incarnation(0x7_1234_5678), NexusNumber(nexus))
    }

    /// The form is frozen: nodes of two versions must read each other's keys.
    #[test]
    fn a_key_says_volume_node_incarnation_and_nexus_in_frozen_places() {
        assert_eq!(key(0x0102).key(), ReservationKey(0xabcd_0034_5678_0102));
        assert_eq!(NexusKey::parse(ReservationKey(0xabcd_0034_5678_0102)), Some(key(0x0102)));
    }

    #[test]
    fn a_key_is_of_one_volume_node_and_incarnation_only() {
        let (tag, node) = (VolumeTag::of(&ID), key(1).node);
        assert!(key(1).is_of(tag, node, Incarnation(0x4_5678)));
        assert!(!key(1).is_of(tag, node, Incarnation(0x4_5679)));
        assert!(!key(1).is_of(VolumeTag::of(&[1; 16]), node, Incarnation(0x4_5678)));
        assert!(!key(1).is_of(tag, NodeId::new(4).expect("a node"), Incarnation(0x4_5678)));
    }

    #[test]
    fn foreign_keys_are_told_apart_and_no_tag_is_zero() {
        for foreign in [0, 1, 0xabcd_0000_0000_0000, 0xabcd_0410_0000_0000, 0x0000_0034_5678_0102] {
            assert_eq!(NexusKey::parse(ReservationKey(foreign)), None, "{foreign:#x}");
        }
        assert_eq!(VolumeTag::of(&[0; 16]).0.get(), 1);
    }
}
