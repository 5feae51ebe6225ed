//! Between the core's views and the disk's blocks.
//!
//! A view must stand for its block exactly, because the core compares views where the disk compares bytes: a block
//! whose view does not encode to the very same bytes is treated as damaged.

use block::shared::NodeId;

use crate::core::office::{LeaseView, Mark, NodeSet, Resigned, SlotView, Timing};
use crate::format::{self, FenceMark, FormatError, LeaseBlock, Slot, TimingMs};
use crate::types::{ClientId, VolumeId};

/// The bytes of a slot.
pub(super) fn slot_bytes(volume: VolumeId, node: NodeId, view: &SlotView) -> Vec<u8> {
    let slot = Slot {
        node,
        incarnation: view.incarnation,
        boot_id: view.boot.to_be_bytes(),
        pid: view.pid,
        pid_start: view.pid_start,
        fence_gen: view.fence_gen,
        counter: view.counter,
        nonce: view.nonce,
        peers_heard: view.heard.0,
        mark: view.mark.map(|m| FenceMark { by: m.by, incarnation: m.incarnation, fence_gen: m.fence_gen }),
        answer: view.answer,
    };
    slot.encode(volume).to_vec()
}

/// A slot from its cell.
pub(super) fn slot_view(volume: VolumeId, node: NodeId, cell: &[u8]) -> Result<SlotView, FormatError> {
    let slot = Slot::decode(cell, volume, node)?;
    let view = SlotView {
        incarnation: slot.incarnation,
        boot: u128::from_be_bytes(slot.boot_id),
        pid: slot.pid,
        pid_start: slot.pid_start,
        fence_gen: slot.fence_gen,
        counter: slot.counter,
        nonce: slot.nonce,
        heard: NodeSet(slot.peers_heard),
        mark: slot.mark.map(|m| Mark { by: m.by, incarnation: m.incarnation, fence_gen: m.fence_gen }),
        answer: slot.answer,
    };
    same_bytes(cell, &slot_bytes(volume, node, &view), "slot").map(|()| view)
}

/// The bytes of a lease block.
pub(super) fn lease_bytes(volume: VolumeId, view: &LeaseView) -> Result<Vec<u8>, FormatError> {
    let block = LeaseBlock {
        epoch: view.epoch,
        node: view.holder.map(|h| h.node),
        incarnation: view.holder.map(|h| h.incarnation).unwrap_or_default(),
        address: view.address.clone(),
        counter: view.counter,
        nonce: view.nonce,
        resigned: view.resigned.map(|r| format::Resigned { in_favour: r.in_favour }),
    };
    Ok(block.encode(volume)?.to_vec())
}

/// The lease from its cell.
pub(super) fn lease_view(volume: VolumeId, cell: &[u8]) -> Result<LeaseView, FormatError> {
    let block = LeaseBlock::decode(cell, volume)?;
    let view = LeaseView {
        epoch: block.epoch,
        holder: block.node.map(|node| ClientId { node, incarnation: block.incarnation }),
        address: block.address,
        counter: block.counter,
        nonce: block.nonce,
        resigned: block.resigned.map(|r| Resigned { in_favour: r.in_favour }),
    };
    same_bytes(cell, &lease_bytes(volume, &view)?, "lease block").map(|()| view)
}

fn same_bytes(cell: &[u8], again: &[u8], what: &'static str) -> Result<(), FormatError> {
    match cell.strip_prefix(again) {
        Some(rest) if rest.iter().all(|b| *b == 0) => Ok(()),
        _ => Err(FormatError::Damaged { what, why: "it carries something that this version does not know" }),
    }
}

impl From<TimingMs> for Timing {
    /// What the superblock does not carry is the same for all volumes, but that nobody is asked or marked for longer than it
    /// takes to hear from who renews as often as this.
    fn from(ms: TimingMs) -> Timing {
        let of = |ms: u32| std::time::Duration::from_millis(u64::from(ms));
        Timing {
            renew: of(ms.renew),
            suspend_after: of(ms.suspend_after),
            challenge_after: of(ms.challenge_after),
            path_timeout: of(ms.path_timeout),
            recall: of(ms.recall),
            grace: of(ms.grace),
            ask: of(ms.renew).min(Timing::DEFAULT.ask),
            mark: (of(ms.renew) * 2).min(Timing::DEFAULT.mark),
            ..Timing::DEFAULT
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use block::shared::{Epoch, FenceGen, Incarnation};

    fn node(n: u8) -> NodeId {
        NodeId::new(n).expect("a node id")
    }

    const VOLUME: VolumeId = VolumeId(0x1234);

    #[test]
    fn a_slot_survives_the_round_trip() {
        let view = SlotView {
            incarnation: Incarnation(7),
            boot: 1 << 100,
            pid: 42,
            pid_start: 99,
            fence_gen: FenceGen(3),
            counter: 5,
            nonce: 6,
            heard: NodeSet(0b101),
            mark: Some(Mark { by: node(2), incarnation: Incarnation(7), fence_gen: FenceGen(3) }),
            answer: FenceGen(2),
        };
        assert_eq!(slot_view(VOLUME, node(9), &slot_bytes(VOLUME, node(9), &view)), Ok(view));
    }

    #[test]
    fn a_formatted_slot_is_the_default_view() {
        let bytes = Slot::empty(node(4)).encode(VOLUME);
        assert_eq!(slot_view(VOLUME, node(4), &bytes), Ok(SlotView::default()));
    }

    #[test]
    fn a_lease_survives_the_round_trip_in_a_larger_cell() {
        let holder = ClientId { node: node(3), incarnation: Incarnation(8) };
        let taken = LeaseView::new_volume().taken_by(holder, "127.0.0.3:7", 77);
        for view in
            [LeaseView::new_volume(), taken.clone(), taken.given_up(Some(node(1)), 78), taken.given_up(None, 79)]
        {
            let mut cell = lease_bytes(VOLUME, &view).expect("fits");
            cell.resize(4096, 0);
            assert_eq!(lease_view(VOLUME, &cell), Ok(view));
        }
        assert_eq!(taken.epoch, Epoch(1));
    }

    #[test]
    fn another_volumes_block_is_refused() {
        let bytes = slot_bytes(VOLUME, node(1), &SlotView::default());
        assert!(slot_view(VolumeId(9), node(1), &bytes).is_err());
        assert!(slot_view(VOLUME, node(2), &bytes).is_err());
    }

    #[test]
    fn the_formats_presets_are_the_cores() {
        assert_eq!(Timing::from(TimingMs::DEFAULT), Timing::DEFAULT);
        assert_eq!(Timing::from(TimingMs::FAST), Timing::FAST);
    }
}
