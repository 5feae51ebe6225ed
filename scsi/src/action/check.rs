//! CHECK CONDITION with current sense data, by sense key. Called by [`super::verdict`] only.

use super::{
    ABORT_TRIES, Action, Class, Executed, Failure, First, Pace, PathFate, Verdict, aborted, attention, elsewhere, fail,
    retry,
};
use crate::sense::{AdditionalCode, Sense, SenseKey};

/// The row of the table. What a [`Class`] must not do with it is replaced afterwards.
pub(super) fn row(class: Class, sense: &Sense) -> Verdict {
    let done = Verdict { executed: Executed::Yes, action: Action::Done };
    match sense.key {
        // Also 5D/xx, a failure that is predicted: the command itself succeeded.
        SenseKey::NoSense | SenseKey::RecoveredError | SenseKey::Completed => done,
        SenseKey::NotReady => not_ready(sense.code),
        SenseKey::MediumError => medium(sense.code),
        SenseKey::HardwareError => elsewhere(Executed::Ended, PathFate::Keep, Failure::Hardware),
        SenseKey::IllegalRequest => illegal(sense.code),
        SenseKey::UnitAttention => attention::row(sense.code),
        SenseKey::DataProtect => protected(sense.code),
        SenseKey::AbortedCommand => aborted::row(sense.code),
        SenseKey::Miscompare => Verdict { executed: miscompared(class), action: Action::Differs },
        SenseKey::BlankCheck
        | SenseKey::VendorSpecific
        | SenseKey::CopyAborted
        | SenseKey::VolumeOverflow
        | SenseKey::Reserved => fail(Executed::Ended, Failure::Unexpected),
    }
}

/// WRITE AND VERIFY miscompares after it has written; everything else has changed nothing.
fn miscompared(class: Class) -> Executed {
    match class {
        Class::Write => Executed::Ended,
        Class::Ask | Class::Once | Class::Reserve => Executed::No,
    }
}

/// Key 2h. The command was not executed (SPC-4 4.5.6, and 5.15.2 for target port groups).
fn not_ready(code: AdditionalCode) -> Verdict {
    match code {
        AdditionalCode::ACCESS_STATE_TRANSITION => {
            retry(Executed::No, First::Nothing, Pace::WhileTransitioning, Failure::NotAccessible)
        }
        AdditionalCode::STANDBY | AdditionalCode::UNAVAILABLE => Verdict {
            executed: Executed::No,
            action: Action::Elsewhere {
                first: First::ReadPortGroups,
                path: PathFate::Keep,
                or: Failure::NotAccessible,
            },
        },
        AdditionalCode::START_REQUIRED => retry(Executed::No, First::StartUnit, Pace::UntilReady, Failure::NotReady),
        AdditionalCode::MANUAL_INTERVENTION
        | AdditionalCode::OFFLINE
        | AdditionalCode::MICROCODE_ACTIVATION_REQUIRED => fail(Executed::No, Failure::NotReady),
        AdditionalCode { asc: 0x3a, .. } => fail(Executed::No, Failure::NoMedium),
        AdditionalCode { asc: 0x30 | 0x31, .. } => fail(Executed::No, Failure::MediumCorrupt),
        // 04/01, 04/04 and the like: it will be ready, or says nothing else.
        _ => retry(Executed::No, First::Nothing, Pace::UntilReady, Failure::NotReady),
    }
}

/// Key 3h. Another path leads to the same medium.
fn medium(code: AdditionalCode) -> Verdict {
    match code {
        AdditionalCode { asc: 0x30 | 0x31, .. } => fail(Executed::Ended, Failure::MediumCorrupt),
        AdditionalCode { asc: 0x10, .. } => fail(Executed::Ended, Failure::Protection),
        _ => fail(Executed::Ended, Failure::Medium),
    }
}

/// Key 5h: nothing was executed, and the same command will not be.
fn illegal(code: AdditionalCode) -> Verdict {
    match code {
        AdditionalCode::LOGICAL_UNIT_NOT_SUPPORTED => elsewhere(Executed::No, PathFate::Down, Failure::NoSuchUnit),
        AdditionalCode::INVALID_OPERATION_CODE => fail(Executed::No, Failure::NotSupported),
        AdditionalCode::LBA_OUT_OF_RANGE => fail(Executed::No, Failure::OutOfRange),
        AdditionalCode::INSUFFICIENT_REGISTRATION_RESOURCES | AdditionalCode::INSUFFICIENT_RESERVATION_RESOURCES => {
            fail(Executed::No, Failure::NoReservationRoom)
        }
        AdditionalCode::INSUFFICIENT_RESOURCES => retry(Executed::No, First::Nothing, Pace::Later, Failure::Busy),
        _ => fail(Executed::No, Failure::Invalid),
    }
}

/// Key 7h.
fn protected(code: AdditionalCode) -> Verdict {
    match code {
        // SBC-3 4.7.3.6: part of a write may be on the medium when the space runs out.
        AdditionalCode::SPACE_ALLOCATION_FAILED => fail(Executed::Ended, Failure::NoSpace),
        _ => fail(Executed::No, Failure::WriteProtected),
    }
}

/// How often something that was given up is tried.
pub(super) const AGAIN: Pace = Pace::AtOnce(ABORT_TRIES);
