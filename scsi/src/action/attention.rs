//! Key 6h, UNIT ATTENTION (SAM-5 5.14): something happened, and the command that brings the news was not executed, so
//! that any command may be tried again, once what happened was looked into. Called by [`super::check`] only.

use super::{ATTENTION_TRIES, Executed, Failure, First, Pace, Verdict, fail, retry};
use crate::sense::AdditionalCode;

pub(super) fn row(code: AdditionalCode) -> Verdict {
    let first = match code {
        // Another nexus has taken what this one had. A fence looks like this; nothing is tried before somebody asked.
        AdditionalCode::RESERVATIONS_PREEMPTED | AdditionalCode::REGISTRATIONS_PREEMPTED => {
            return fail(Executed::No, Failure::Preempted);
        }
        // Power on, restart of the device: what was only in its cache is gone. 29/00 may be any of 29/01 to 29/07.
        AdditionalCode::POWER_ON_OR_RESET | AdditionalCode::POWER_ON | AdditionalCode::INTERNAL_RESET => {
            First::VerifyReservation { cache_lost: true }
        }
        AdditionalCode { asc: 0x29, .. } => First::VerifyReservation { cache_lost: false },
        AdditionalCode::RESERVATIONS_RELEASED | AdditionalCode::PREVIOUS_RESERVATION_CONFLICT => {
            First::VerifyReservation { cache_lost: false }
        }
        // 2F/01: cleared because power is about to go.
        AdditionalCode::COMMANDS_CLEARED_BY_POWER_LOSS => First::VerifyReservation { cache_lost: true },
        AdditionalCode { asc: 0x2f, .. } | AdditionalCode::SOME_COMMANDS_CLEARED => {
            First::VerifyReservation { cache_lost: false }
        }
        AdditionalCode::CAPACITY_CHANGED => First::ReadCapacity,
        AdditionalCode::ACCESS_STATE_CHANGED | AdditionalCode::IMPLICIT_TRANSITION_FAILED => First::ReadPortGroups,
        AdditionalCode::PARAMETERS_CHANGED | AdditionalCode::MODE_PARAMETERS_CHANGED => First::ReadModePages,
        AdditionalCode { asc: 0x28, .. } => First::Identify,
        // 3F/00 to 3F/0E: microcode, inquiry data, identifier, list of units.
        AdditionalCode { asc: 0x3f, ascq: 0x00..=0x0e } => First::Identify,
        AdditionalCode::THIN_PROVISIONING_THRESHOLD => First::TellThreshold,
        _ => First::Nothing,
    };
    retry(Executed::No, first, Pace::AtOnce(ATTENTION_TRIES), Failure::Attention)
}
