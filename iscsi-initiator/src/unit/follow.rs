//! What is done before a command goes out again, as the table of verdicts says; and what the unit's owner is told.
//!
//! - After a reset, or when reservations may have changed: READ KEYS and READ RESERVATION. A nexus that is not registered
//!   any more is given up, and the request is answered as fenced; it is **never registered again**. A reservation that is gone while
//!   this nexus is registered was released by hand: of a shared unit it is held again. Prevents: a node is
//!   fenced, meets a unit attention, registers, and writes on.
//! - After a change of identity: the unit's names. Another unit gets no request any more. Prevents: a number that was given
//!   to another unit takes writes that were meant for the former.
//! - After a change of capacity or of mode pages: they are read, and the new size is told. Mode pages also after a reset,
//!   which may have brought back older ones.

use std::sync::Arc;

use block::error::IoErrorKind;
use scsi::ReservationKey;
use scsi::action::First;
use scsi::capacity::Capacity;
use scsi::cdb::ReadCapacity16;
use scsi::reservations::{Held, InAction, Keys, ReservationType};
use scsi::vpd::Sameness;

use super::attach::geometry;
use super::device::Inner;
use super::identify::names;

/// How many things that questions brought up are looked into in one go; the next one takes the rest.
const MORE: usize = 8;

/// Does what comes first, and what the questions for that have brought up; an error ends the request with it.
pub(super) async fn follow(inner: &Arc<Inner>, first: First) -> Result<(), IoErrorKind> {
    step(inner, first).await?;
    for _ in 0..MORE {
        let Some(next) = inner.asked().noted.lock().pop() else { break };
        step(inner, next).await?;
    }
    Ok(())
}

async fn step(inner: &Arc<Inner>, first: First) -> Result<(), IoErrorKind> {
    match first {
        First::Nothing | First::StartUnit | First::ClearAca | First::NexusDead => Ok(()),
        First::VerifyReservation { cache_lost } => {
            if cache_lost {
                inner.notice(|n| n.cache_lost += 1);
            }
            verify_reservation(inner).await?;
            read_mode_if_in_doubt(inner).await;
            Ok(())
        }
        First::Identify => {
            verify_identity(inner).await?;
            read_mode_if_in_doubt(inner).await;
            Ok(())
        }
        First::ReadCapacity => read_capacity(inner).await,
        First::ReadModePages => read_mode(inner).await,
        First::ReadPortGroups => {
            inner.notice(|n| n.port_groups += 1);
            Ok(())
        }
        First::TellThreshold => {
            inner.notice(|n| n.space_low += 1);
            Ok(())
        }
    }
}

/// Whether this nexus still is registered, and the unit held, as far as it ever was.
pub(super) async fn still_registered(inner: &Arc<Inner>) -> Result<(), IoErrorKind> {
    step(inner, First::VerifyReservation { cache_lost: false }).await
}

/// Still registered, and still held as it was. Nothing is asked of a unit where this nexus never registered.
async fn verify_reservation(inner: &Arc<Inner>) -> Result<(), IoErrorKind> {
    let Some(registered) = inner.registered() else { return Ok(()) };
    let asked = inner.asked();
    let keys = asked.reservations(InAction::ReadKeys, Keys::parse).await.map_err(|_| IoErrorKind::NoPath)?;
    if !keys.keys.contains(&registered.key) {
        inner.lost_registration();
        return Err(IoErrorKind::Fenced);
    }
    let Some(kind) = registered.holds else { return Ok(()) };
    let held = asked.reservations(InAction::ReadReservation, Held::parse).await.map_err(|_| IoErrorKind::NoPath)?;
    if held.reservation.is_some_and(|r| r.kind == kind) {
        return Ok(());
    }
    // Without the reservation strangers could write: this nexus does not write beside them.
    if inner.is_judged() && held.reservation.is_none() {
        hold_again(inner, registered.key, kind).await
    } else {
        Err(IoErrorKind::Fenced)
    }
}

/// Somebody has released the reservation of a shared unit, and left the registrations: it is held again at once. What strangers, or a node
/// that was fenced, have written in between has landed; there is no telling.
async fn hold_again(inner: &Arc<Inner>, key: ReservationKey, kind: ReservationType) -> Result<(), IoErrorKind> {
    tracing::warn!("somebody has released the reservation of {}; it is held again", inner.lun());
    inner.notice(|n| n.released += 1);
    super::reserve::hold(inner, key, kind).await.map_err(|e| {
        tracing::error!("iSCSI: the reservation of {} that somebody has released is not held again: {e}", inner.lun());
        IoErrorKind::Fenced
    })
}

/// Write protection and write cache.
pub(super) async fn read_mode(inner: &Arc<Inner>) -> Result<(), IoErrorKind> {
    let news = inner.known().news();
    let mode = inner.asked().mode().await.map_err(|_| IoErrorKind::NoPath)?;
    inner.known().learn(news, mode.cache);
    inner.learn(|g| g.read_only = mode.write_protected);
    Ok(())
}

/// The same where nobody has read them since something put them in doubt. Without an answer they stay in doubt, which is safe.
async fn read_mode_if_in_doubt(inner: &Arc<Inner>) {
    if inner.known().is_in_doubt()
        && let Err(kind) = read_mode(inner).await
    {
        tracing::debug!("iSCSI: the mode pages of {} cannot be read: {kind}", inner.lun());
    }
}

async fn verify_identity(inner: &Arc<Inner>) -> Result<(), IoErrorKind> {
    let now = names(&inner.asked()).await.map_err(|_| IoErrorKind::NoPath)?;
    if inner.names().same_disk(&now) == Sameness::Same {
        return Ok(());
    }
    tracing::error!("iSCSI: another unit is at {} now: {}; nothing is sent to it", inner.lun(), now.name());
    inner.is_another();
    Err(IoErrorKind::NoPath)
}

async fn read_capacity(inner: &Arc<Inner>) -> Result<(), IoErrorKind> {
    let bytes = inner.asked().ask("READ CAPACITY (16)", ReadCapacity16::FULL.cdb()).await;
    let capacity = Capacity::parse(&bytes.map_err(|_| IoErrorKind::NoPath)?).map_err(|_| IoErrorKind::Medium)?;
    let old = inner.geometry();
    let new = geometry(&capacity, old.read_only, old.discard).map_err(|_| IoErrorKind::Medium)?;
    if new.logical_block != old.logical_block {
        tracing::error!("iSCSI: the blocks of {} have another size now; nothing is sent to it", inner.lun());
        inner.is_another();
        return Err(IoErrorKind::NoPath);
    }
    inner.learn(|g| g.len = new.len);
    Ok(())
}
