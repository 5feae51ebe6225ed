//! What an initiator does about how a command ended: one pure function, [`verdict`].
//!
//! The function knows the command's [`Class`] and the [`Reply`]; it does not count tries, keep time or know how many
//! paths there are. So each answer that tries again names what comes [`First`], at which [`Pace`], and the
//! [`Failure`] to report once tries, time or paths are used up.
//!
//! Rules that every row obeys, and what each prevents:
//!
//! - **What may have been executed is not repeated blindly.** A row says whether the command was executed
//!   ([`Executed`]). A command whose outcome matters (COMPARE AND WRITE, PERSISTENT RESERVE OUT) and that may have been
//!   executed is *settled* by reads. Prevents: a lease that was won is taken for lost, because its own second try found
//!   what the first had written.
//! - **A write whose task may still run is not repeated before its nexus is dead.** Prevents: the first copy lands after
//!   newer data was written over the second.
//! - **RESERVATION CONFLICT is never retried and never tried elsewhere**, and preemption stops this nexus. Prevents: a
//!   node that was fenced writes on through a path that the fence has not reached yet. "Register, then try again" does
//!   not exist here.
//! - **After a reset, reservations are looked at before the command goes out again.** Prevents: a target that forgot
//!   its registrations takes writes from nodes that were fenced before it restarted.
//! - **After a change of identity, the unit is identified before the command goes out again.** Prevents: a number that
//!   was given to another unit takes writes that were meant for the former.
//! - **A deferred error is a lost write**, whatever command brought it.

mod aborted;
mod attention;
mod check;
mod failure;
#[cfg(test)]
mod tests;

pub use failure::Failure;

use crate::cdb::op;
use crate::sense::{Sense, SenseKey};
use crate::status::Status;
use crate::units::OpCode;

/// Tries of a command that brought a unit attention. Several may be queued for one nexus, and each try takes one.
pub const ATTENTION_TRIES: u8 = 5;

/// Tries of a command that the target gave up: enough for a transfer that was disturbed, too few to hide a broken path.
pub const ABORT_TRIES: u8 = 3;

/// What repeating a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It changes nothing: it may be repeated at any time.
    Ask,
    /// It leaves the same state each time: it may be repeated as long as nothing newer came between.
    Write,
    /// Its outcome is an answer: COMPARE AND WRITE. Repeating it asks another question.
    Once,
    /// PERSISTENT RESERVE OUT. The same, settled by READ KEYS and READ RESERVATION.
    Reserve,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// With a status, and sense data if it came and could be read.
    Status(Status, Option<&'a Sense>),
    /// The transport says that the target could not complete it (iSCSI: response code other than 0).
    TargetFailure,
    /// Without an answer: the connection was lost, or the time is over. It may still run.
    Lost,
}

/// What is known about the command itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executed {
    /// It was.
    Yes,
    /// It was not.
    No,
    /// Wholly, partly or not at all; it has ended and cannot do more.
    Ended,
    /// Wholly, partly or not at all; and it may still go on.
    Running,
}

/// What is done before a command goes out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// Nothing.
    Nothing,
    /// READ KEYS and READ RESERVATION: this nexus is still registered, the right type is held. If not, this node is
    /// fenced.
    VerifyReservation {
        /// True if the unit lost power or restarted: writes that were acknowledged without FUA since the last
        /// SYNCHRONIZE CACHE may be gone, and a SYNCHRONIZE CACHE that now succeeds proves nothing about them.
        cache_lost: bool,
    },
    /// Inquiry and page 83h: it is still the same unit. Before that no write goes to it.
    Identify,
    /// READ CAPACITY (16): a change of size is told upwards.
    ReadCapacity,
    /// REPORT TARGET PORT GROUPS: paths are sorted anew.
    ReadPortGroups,
    /// MODE SENSE: write protection, caches and sense format may have changed.
    ReadModePages,
    /// The thin unit's space is running out; that is told upwards.
    TellThreshold,
    /// START STOP UNIT with START.
    StartUnit,
    /// CLEAR ACA, the task management function.
    ClearAca,
    /// Proof that nothing of the failed nexus can land any more: preemption of its own key from another nexus, or
    /// reinstatement of its session.
    NexusDead,
}

/// When a command goes out again on the same path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// At once, up to so many tries in all.
    AtOnce(u8),
    /// After a delay that grows; until the caller's own time is over.
    Later,
    /// The same; and at most as many commands are sent from now on as are in flight now, which grows back slowly.
    FewerAtOnce,
    /// Each second; until the implicit transition time of the port group is over (60 s where it tells none).
    WhileTransitioning,
    /// Each second; as long as the unit says that it is becoming ready, and at most the caller's own time.
    UntilReady,
}

/// What becomes of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathFate {
    /// It stays in use for what it is good for.
    Keep,
    /// It is down until its check succeeds.
    Down,
}

/// What the initiator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It reports success. The caller compares the residual with what it asked for: a read that is short is no success.
    Done,
    /// It reports that the compared data differ.
    Differs,
    /// It tries again on the same path.
    Retry {
        /// What comes before.
        first: First,
        /// When.
        pace: Pace,
        /// What it reports when it has tried enough.
        or: Failure,
    },
    /// It tries again on another path.
    Elsewhere {
        /// What comes before.
        first: First,
        /// What becomes of this path.
        path: PathFate,
        /// What it reports where there is no other path.
        or: Failure,
    },
    /// It finds out by reading whether the command was executed.
    Settle {
        /// What comes before: as long as the task may run, a read proves nothing.
        first: First,
        /// What it reports if the command was not executed.
        or: Failure,
    },
    /// It reports a failure.
    Fail(Failure),
}

/// What is known, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the command was executed.
    pub executed: Executed,
    /// What the initiator does.
    pub action: Action,
}

impl Class {
    /// The class of an operation code. One that is not known counts as one whose outcome matters.
    pub fn of(code: OpCode) -> Class {
        match code {
            op::COMPARE_AND_WRITE => Class::Once,
            op::PERSISTENT_RESERVE_OUT | op::RESERVE_6 | op::RELEASE_6 => Class::Reserve,
            op::WRITE_6
            | op::WRITE_10
            | op::WRITE_12
            | op::WRITE_16
            | op::WRITE_AND_VERIFY_10
            | op::WRITE_AND_VERIFY_12
            | op::WRITE_AND_VERIFY_16
            | op::WRITE_ATOMIC_16
            | op::WRITE_SAME_10
            | op::WRITE_SAME_16
            | op::ORWRITE_16
            | op::UNMAP
            | op::MODE_SELECT_6
            | op::MODE_SELECT_10
            | op::MAINTENANCE_OUT
            | op::PREVENT_ALLOW_MEDIUM_REMOVAL
            | op::START_STOP_UNIT => Class::Write,
            op::EXTENDED_COPY => Class::Once,
            known if known.name().is_some() => Class::Ask,
            _ => Class::Once,
        }
    }
}

/// What an initiator does about a reply to a command of a class.
pub fn verdict(class: Class, reply: Reply<'_>) -> Verdict {
    let row = match reply {
        Reply::Status(Status::CheckCondition, Some(sense)) if sense.deferred => deferred(sense),
        Reply::Status(Status::CheckCondition, Some(sense)) => check::row(class, sense),
        Reply::Status(status, _) => of_status(class, status),
        // A target that fails within says nothing about what it had begun.
        Reply::TargetFailure | Reply::Lost => elsewhere(Executed::Running, PathFate::Down, Failure::Path),
    };
    careful(class, row)
}

/// Every status but CHECK CONDITION with sense data (SAM-5 5.3.1).
fn of_status(class: Class, status: Status) -> Verdict {
    match status {
        Status::Good | Status::ConditionMet => Verdict { executed: Executed::Yes, action: Action::Done },
        Status::Busy => retry(Executed::No, First::Nothing, Pace::Later, Failure::Busy),
        Status::TaskSetFull => retry(Executed::No, First::Nothing, Pace::FewerAtOnce, Failure::Busy),
        // Of a change of reservations it says that another nexus was faster or that an earlier try had succeeded.
        Status::ReservationConflict if class == Class::Reserve => {
            let action = Action::Settle { first: First::Nothing, or: Failure::ReservationConflict };
            Verdict { executed: Executed::Ended, action }
        }
        Status::ReservationConflict => fail(Executed::No, Failure::ReservationConflict),
        Status::AcaActive => retry(Executed::No, First::ClearAca, Pace::AtOnce(ABORT_TRIES), Failure::Aborted),
        // Another nexus aborted it, most likely by PREEMPT AND ABORT: the key first.
        Status::TaskAborted => {
            let first = First::VerifyReservation { cache_lost: false };
            retry(Executed::Ended, first, Pace::AtOnce(ABORT_TRIES), Failure::Aborted)
        }
        // Without sense data nobody knows what is wrong. Some targets answer so to a command that they do not have, so
        // that it proves nothing against the path.
        Status::CheckCondition => retry(Executed::Ended, First::Nothing, Pace::AtOnce(ABORT_TRIES), Failure::Protocol),
        Status::Unknown(_) => elsewhere(Executed::Ended, PathFate::Down, Failure::Protocol),
    }
}

/// SPC-4 4.5.5: the sense data is about an earlier command; the one that brought it was not executed.
fn deferred(sense: &Sense) -> Verdict {
    match sense.key {
        SenseKey::NoSense | SenseKey::RecoveredError => {
            retry(Executed::No, First::Nothing, Pace::AtOnce(ATTENTION_TRIES), Failure::Aborted)
        }
        _ => fail(Executed::No, Failure::LostWrite),
    }
}

/// Replaces what a class must not do with what it may have executed: a failure is no answer either.
fn careful(class: Class, row: Verdict) -> Verdict {
    let Verdict { executed, action } = row;
    let (first, or) = match action {
        Action::Retry { first, or, .. } | Action::Elsewhere { first, or, .. } => (first, or),
        Action::Fail(or) => (First::Nothing, or),
        Action::Done | Action::Differs | Action::Settle { .. } => return row,
    };
    let action = match (class, executed, action) {
        (Class::Once | Class::Reserve, Executed::Ended, _) => Action::Settle { first, or },
        (Class::Once | Class::Reserve, Executed::Running, _) => Action::Settle { first: First::NexusDead, or },
        (Class::Write, Executed::Running, Action::Elsewhere { path, or, .. }) => {
            Action::Elsewhere { first: First::NexusDead, path, or }
        }
        (_, _, action) => action,
    };
    Verdict { executed, action }
}

fn retry(executed: Executed, first: First, pace: Pace, or: Failure) -> Verdict {
    Verdict { executed, action: Action::Retry { first, pace, or } }
}

fn elsewhere(executed: Executed, path: PathFate, or: Failure) -> Verdict {
    Verdict { executed, action: Action::Elsewhere { first: First::Nothing, path, or } }
}

fn fail(executed: Executed, failure: Failure) -> Verdict {
    Verdict { executed, action: Action::Fail(failure) }
}
