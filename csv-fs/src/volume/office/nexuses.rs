//! An office on a SCSI unit: its steps as questions to the unit's nexuses, its answers as events. Decides nothing.

use block::shared::{Entrance, FenceGen, NexusNumber, Nexuses, NodeId, ReservationKey, ReserveError};
use tokio::sync::mpsc;

use super::actor::{Links, cell_len};
use super::convert;
use crate::core::office::{Event, FenceStep, Key, ScsiResult, Tag};
use crate::format::slot_at;
use crate::types::VolumeId;

/// The next nexus that has entered; never, on a disk that has none.
pub(super) async fn next(entered: &mut Option<mpsc::UnboundedReceiver<Entrance>>) -> Option<Entrance> {
    match entered {
        Some(entered) => entered.recv().await,
        None => std::future::pending().await,
    }
}

/// One step of a fence, or a registration.
pub(super) fn step(links: &Links, tag: Tag, step: FenceStep) {
    let links = links.clone();
    tokio::spawn(async move {
        let result = match links.disk.nexuses() {
            Some(nexuses) => taken(&**nexuses, step).await,
            None => ScsiResult::Failed,
        };
        links.event(Event::Scsi { tag, result });
    });
}

async fn taken(nexuses: &dyn Nexuses, step: FenceStep) -> ScsiResult {
    let done = |result: Result<(), ReserveError>| match result {
        Ok(()) => ScsiResult::Done,
        Err(ReserveError::NotRegistered | ReserveError::Reserved | ReserveError::Gone) => ScsiResult::Conflict,
        Err(e) => {
            tracing::debug!("a change of reservations has failed: {e}");
            ScsiResult::Failed
        }
    };
    match step {
        FenceStep::Register { nexus, key } => match nexuses.register(NexusNumber(nexus), ReservationKey(key.0)).await {
            Ok(()) => ScsiResult::Done,
            Err(e) => {
                tracing::debug!("nexus {nexus} is not registered: {e}");
                ScsiResult::Failed
            }
        },
        FenceStep::ReadKeys => match nexuses.keys().await {
            Ok(keys) => ScsiResult::Keys(keys.into_iter().map(|key| Key(key.0)).collect()),
            Err(_) => ScsiResult::Failed,
        },
        FenceStep::PreemptAndAbort { victim } => done(nexuses.preempt(ReservationKey(victim.0)).await),
        FenceStep::ResetUnit => done(nexuses.reset_unit().await),
        FenceStep::Reserve => done(nexuses.reserve().await),
        FenceStep::ReadReservation => match nexuses.is_reserved().await {
            Ok(right_type) => ScsiResult::Reservation { right_type },
            Err(_) => ScsiResult::Failed,
        },
    }
}

/// The own slot, read over that very nexus.
pub(super) fn read_own_slot(links: &Links, volume: VolumeId, node: NodeId, nexus: u16) {
    let links = links.clone();
    tokio::spawn(async move {
        let slot = match links.disk.nexuses() {
            Some(nexuses) => nexuses.read_over(NexusNumber(nexus), slot_at(node), cell_len()).await.ok(),
            None => None,
        };
        let slot = slot.and_then(|cell| convert::slot_view(volume, node, &cell).ok());
        links.event(Event::OwnSlotVia { nexus, slot });
    });
}

/// The nexus may carry data.
pub(super) fn good(links: &Links, nexus: u16, fence_gen: FenceGen) {
    if let Some(nexuses) = links.disk.nexuses() {
        nexuses.admit(NexusNumber(nexus), fence_gen);
    }
}

/// The nexus may not.
pub(super) fn refused(links: &Links, nexus: u16) {
    if let Some(nexuses) = links.disk.nexuses() {
        nexuses.refuse(NexusNumber(nexus));
    }
}
