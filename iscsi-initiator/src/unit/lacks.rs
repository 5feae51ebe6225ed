//! What a unit lacks that a shared volume needs, found by asking and then by trying: some targets claim in page B0h a
//! COMPARE AND WRITE that they refuse.
//!
//! The trial is harmless: block 0 is read, then compared with what was read and written with the same. (One of no blocks
//! would do less, and some targets never answer it.) So is that of PREEMPT AND ABORT: from a nexus without registration.

use std::fmt;

use block::buf::AlignedBuf;
use iscsi::session::{Class, Outcome};
use scsi::action::{self, Action, Failure};
use scsi::cdb::{OpCodeQuery, Read, ReportOpCodes, op};
use scsi::opcodes::{OneCommand, Support};
use scsi::reservations::{Capabilities, Change, InAction, ReservationType};
use scsi::{BlockCount, BlockRange, ByteCount, Cdb, Lba, ReservationKey, Sense};

use super::ask::Asked;
use super::{Identity, UnitError};
use crate::driver::Session;

/// Bytes asked for of the answer about one command.
const ONE_COMMAND: ByteCount = ByteCount(512);

/// What a unit cannot do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lack {
    /// It has no COMPARE AND WRITE, or none that works.
    CompareAndWrite,
    /// It has no persistent reservations.
    Reservations,
    /// Its reservations have no type that all registrants hold and that keeps others from reading.
    AllRegistrants,
    /// It cannot take a key away together with the tasks of its nexus.
    PreemptAndAbort,
    /// Its reservations end when it loses power.
    PersistThroughPowerLoss,
    /// It takes no writes.
    Writable,
    /// It has no name by which two paths to it could be told from paths to two units.
    Name,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lack::CompareAndWrite => "COMPARE AND WRITE",
            Lack::Reservations => "persistent reservations",
            Lack::AllRegistrants => "reservations of type 8 (exclusive access, all registrants)",
            Lack::PreemptAndAbort => "PREEMPT AND ABORT",
            Lack::PersistThroughPowerLoss => "reservations that survive a loss of power",
            Lack::Writable => "the right to write",
            Lack::Name => "a name in page 83h that proves which unit it is",
        })
    }
}

/// Finds out what a unit lacks; nothing if it can be a shared disk. Changes nothing on it. The session's nexus must not be
/// registered.
pub async fn lacks(session: &Session, identity: &Identity) -> Result<Vec<Lack>, UnitError> {
    let asked = Asked::new(session, identity.lun);
    let mut lacks = Vec::new();
    if identity.read_only {
        lacks.push(Lack::Writable);
    }
    if !identity.read_only && !has_compare_and_write(&asked, identity).await? {
        lacks.push(Lack::CompareAndWrite);
    }
    match asked.reservations(InAction::ReportCapabilities, Capabilities::parse).await {
        Ok(can) => {
            if !can.types.is_some_and(|t| t.has(ReservationType::ExclusiveAccessAllRegistrants)) {
                lacks.push(Lack::AllRegistrants);
            }
            if !has_preempt_and_abort(&asked).await? {
                lacks.push(Lack::PreemptAndAbort);
            }
            if !can.persist_through_power_loss {
                lacks.push(Lack::PersistThroughPowerLoss);
            }
        }
        Err(UnitError::Failed { .. } | UnitError::Parse { .. }) => lacks.push(Lack::Reservations),
        Err(e) => return Err(e),
    }
    let names = identity.names(session.target());
    if names.same_disk(&names) != scsi::vpd::Sameness::Same {
        lacks.push(Lack::Name);
    }
    Ok(lacks)
}

async fn has_compare_and_write(asked: &Asked, identity: &Identity) -> Result<bool, UnitError> {
    if !identity.limits.claims_compare_and_write(1) {
        return Ok(false);
    }
    if refuses(asked, OpCodeQuery::One(op::COMPARE_AND_WRITE)).await? {
        return Ok(false);
    }
    compares_and_writes(asked, identity).await
}

/// Tries to preempt without a registration: a unit that knows the action answers RESERVATION CONFLICT and changes nothing.
async fn has_preempt_and_abort(asked: &Asked) -> Result<bool, UnitError> {
    let (key, victim) = (ReservationKey(1), ReservationKey(2));
    let kind = ReservationType::ExclusiveAccessAllRegistrants;
    let (cdb, list) = Change::Preempt { key, victim, kind, abort: true }.command();
    let action = tried(asked, "PREEMPT AND ABORT", cdb, &list, action::Class::Reserve).await?;
    Ok(!matches!(action, Action::Fail(Failure::NotSupported | Failure::Invalid)))
}

/// Whether the unit says that it does not have a command. Not every unit tells.
async fn refuses(asked: &Asked, query: OpCodeQuery) -> Result<bool, UnitError> {
    let cdb = ReportOpCodes { timeouts: false, query, alloc: ONE_COMMAND }.cdb();
    match asked.ask("REPORT SUPPORTED OPERATION CODES", cdb).await {
        Ok(bytes) => Ok(OneCommand::parse(&bytes).is_ok_and(|one| one.support == Support::No)),
        Err(UnitError::Failed { .. }) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Tries it. Only the answer that there is no such command proves that there is none: that another node holds the unit, or
/// that the block has changed meanwhile, does not.
async fn compares_and_writes(asked: &Asked, identity: &Identity) -> Result<bool, UnitError> {
    let block = identity.capacity.block;
    let (read, cdb) = (
        Read::new(BlockRange::new(Lba(0), BlockCount(1))).cdb(block),
        scsi::cdb::CompareAndWrite::new(Lba(0), 1).cdb(block),
    );
    let (Ok(read), Ok(cdb)) = (read, cdb) else { return Ok(false) };
    let same = match asked.ask("READ", read).await {
        Ok(bytes) => [&bytes[..], &bytes[..]].concat(),
        // Reserved by others, most likely: then it cannot be tried, and its word counts.
        Err(UnitError::Failed { .. }) => return Ok(true),
        Err(e) => return Err(e),
    };
    let action = tried(asked, "COMPARE AND WRITE", cdb, &same, action::Class::Once).await?;
    Ok(!matches!(action, Action::Fail(Failure::NotSupported | Failure::Invalid)))
}

/// Sends a command for trial; what its answer asks for is not done.
async fn tried(
    asked: &Asked,
    command: &'static str,
    cdb: Cdb,
    data: &[u8],
    class: action::Class,
) -> Result<Action, UnitError> {
    for _ in 0..action::ATTENTION_TRIES {
        let memory = Some(AlignedBuf::from_slice(data));
        let ended = asked.session.carry_out(asked.lun, cdb.clone(), Class::Control, memory).await;
        let answer = match ended.outcome {
            Outcome::Answered(answer) => answer,
            outcome => return Err(UnitError::Unanswered { command, outcome }),
        };
        let sense = Sense::parse(&answer.sense).ok();
        let reply = action::Reply::Status(answer.status, sense.as_ref());
        match action::verdict(class, reply).action {
            Action::Retry { .. } => {}
            action => return Ok(action),
        }
    }
    Err(UnitError::Failed { command, failure: Failure::Attention })
}
