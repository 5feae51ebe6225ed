//! What lies on the disk beside the store: superblocks, lease block, slots; and the sessions against the slots.

use block::shared::NodeId;

use super::finding::{Kind, Repair, Report};
use super::source::Source;
use crate::format::{CELL, Chosen, CopyState, LeaseBlock, SLOT_COUNT, Slot};
use crate::meta::error::Result;

/// Those places as read. Read after the view of the store was made: slots only grow.
#[derive(Clone, Debug)]
pub struct Areas {
    /// The superblock that counts, and the state of each copy.
    pub chosen: Chosen,
    /// The cell of the lease block.
    pub lease: Vec<u8>,
    /// The cells of all slots.
    pub slots: Vec<u8>,
}

/// Checks them.
pub(in crate::meta) fn areas(areas: &Areas, source: &dyn Source, report: &mut Report) -> Result<()> {
    superblocks(&areas.chosen, report);
    let volume = areas.chosen.superblock.volume;
    if let Err(e) = LeaseBlock::decode(&areas.lease, volume) {
        report.add(Kind::Lease, e.to_string(), None);
    }
    let mut slots: Vec<Option<Slot>> = Vec::new();
    let cells = areas.slots.chunks_exact(CELL as usize);
    for (node, cell) in (1..=SLOT_COUNT).filter_map(NodeId::new).zip(cells) {
        let slot = Slot::decode(cell, volume, node);
        if let Err(e) = &slot {
            report.add(Kind::Slot, format!("{node}: {e}; it cannot mount the volume"), None);
        }
        slots.push(slot.ok());
    }
    for row in source.sessions()? {
        let Some(session) = row?.session else { continue };
        let of = session.client.node;
        let Some(Some(slot)) = slots.get(usize::from(of.get()) - 1) else { continue };
        if slot.incarnation < session.client.incarnation || slot.fence_gen < session.fence_gen {
            let what = format!(
                "the session of {} has fence generation {}, but its slot incarnation {} and generation {}",
                session.client, session.fence_gen.0, slot.incarnation.0, slot.fence_gen.0
            );
            report.add(Kind::SessionSlot, what, None);
        }
    }
    Ok(())
}

fn superblocks(chosen: &Chosen, report: &mut Report) {
    let places = ["A (at 0)", "B (at 64 KiB)", "C (at 512 MiB)"];
    for (copy, place) in chosen.copies.iter().zip(places) {
        match copy {
            CopyState::Good => {}
            CopyState::Old { generation } => report.notes.push(format!(
                "superblock {place} is of the earlier generation {generation}; the next opening writes it anew"
            )),
            CopyState::Damaged(why) => {
                let what = format!("superblock {place} is damaged ({why}); another copy is used");
                report.add(Kind::SuperblockCopy, what, Repair::WriteSuperblocks);
            }
        }
    }
}
