//! What the last reign left: sessions with their stored answers and the slots of their nodes, orphans, and what the
//! takeover knows about the client of the coordinator before.

use std::collections::BTreeMap;
use std::sync::Arc;

use block::device::{BlockDevice, Op};
use block::shared::NodeId;
use block::sync::{Memory, run_batch};
use block::units::ByteLen;

use crate::core::coord::{DurableSession, DurableState, Fate, Inherited, SlotSeen};
use crate::core::office::Before;
use crate::format::{CELL, Slot, slot_at};
use crate::meta::{MetaError, OrphanKind, Reads, Session, SessionState, View};
use crate::types::VolumeId;

/// What the loading needs besides the store.
pub(super) struct Heritage<'a> {
    pub(super) device: &'a Arc<dyn BlockDevice>,
    pub(super) volume: VolumeId,
    pub(super) before: Before,
    /// Whether the daemon of the coordinator before, if it was killed, is followed by one that goes on.
    pub(super) comes_back: bool,
}

/// Loads everything. Blocks its thread.
pub(super) fn load(view: &View, heritage: &Heritage<'_>) -> Result<Inherited, MetaError> {
    let rows = view.sessions()?;
    let slots = read_slots(heritage, rows.iter().map(|s| s.client.node))?;
    let mut inherited = Inherited::default();
    for row in rows {
        let answers = view.answers(row.client)?.into_iter().map(|a| (a.slot, a.seq, a.answer)).collect();
        let slot = slots.get(&row.client.node).copied();
        inherited.sessions.push(session(&row, answers, slot, (heritage.before, heritage.comes_back)));
    }
    for (ino, kind) in view.orphans()? {
        match kind {
            OrphanKind::Unlinked => inherited.orphans.push(ino),
            OrphanKind::Truncated => inherited.truncated.push(ino),
        }
    }
    Ok(inherited)
}

fn session(
    row: &Session,
    answers: Vec<(crate::types::SlotRef, u64, crate::proto::Answer)>,
    slot: Option<SlotSeen>,
    (before, comes_back): (Before, bool),
) -> DurableSession {
    let (state, reason) = match &row.state {
        SessionState::Live => (DurableState::Live, String::new()),
        SessionState::Evicting { reason } => (DurableState::Evicting, reason.clone()),
        SessionState::Evicted { reason } => (DurableState::Evicted, reason.clone()),
    };
    let fate = match before {
        Before::Fenced(proof) if proof.client() == row.client => match proof.is_dead(comes_back) {
            true => Fate::Dead { fence_gen: proof.fence_gen() },
            false => Fate::PathFenced { fence_gen: proof.fence_gen() },
        },
        Before::Resigned(holder) if holder == row.client => Fate::Resigned,
        Before::Fenced(_) | Before::Resigned(_) | Before::New => Fate::Unknown,
    };
    DurableSession { client: row.client, fence_gen: row.fence_gen, state, answers, slot, fate, reason }
}

/// The slots of these nodes. One that holds nothing valid is left out; one that cannot be read is an error, since a
/// session must not be evicted because of that.
fn read_slots(
    heritage: &Heritage<'_>,
    nodes: impl Iterator<Item = NodeId>,
) -> Result<BTreeMap<NodeId, SlotSeen>, MetaError> {
    let mut nodes: Vec<NodeId> = nodes.collect();
    nodes.dedup();
    let reads = nodes.iter().map(|n| (Op::Read, slot_at(*n), Memory::Len(ByteLen(CELL)))).collect();
    let mut slots = BTreeMap::new();
    for (node, done) in nodes.iter().zip(run_batch(&**heritage.device, reads)) {
        done.result?;
        let bytes = done.buf.as_deref().unwrap_or_default();
        match Slot::decode(bytes, heritage.volume, *node) {
            Ok(slot) => {
                slots.insert(*node, SlotSeen { incarnation: slot.incarnation, fence_gen: slot.fence_gen });
            }
            Err(e) => tracing::warn!(volume = %heritage.volume, %node, "its slot is not valid: {e}"),
        }
    }
    Ok(slots)
}
