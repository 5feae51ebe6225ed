//! Key Bh, ABORTED COMMAND: the target gave the command up, most often because its data did not arrive whole. It has
//! ended; how much of a write it had done is not known. Called by [`super::check`] only.

use super::check::AGAIN;
use super::{Executed, Failure, First, Pace, Verdict, fail, retry};
use crate::sense::AdditionalCode;

pub(super) fn row(code: AdditionalCode) -> Verdict {
    match code {
        // The data itself is wrong, not its way.
        AdditionalCode { asc: 0x10, .. } => fail(Executed::Ended, Failure::Protection),
        AdditionalCode::INSUFFICIENT_RESOURCES | AdditionalCode::SYSTEM_BUFFER_FULL => {
            retry(Executed::Ended, First::Nothing, Pace::Later, Failure::Busy)
        }
        AdditionalCode::ACCESS_STATE_TRANSITION => {
            retry(Executed::Ended, First::Nothing, Pace::WhileTransitioning, Failure::NotAccessible)
        }
        AdditionalCode { asc: 0x2f, .. } => {
            retry(Executed::Ended, First::VerifyReservation { cache_lost: false }, AGAIN, Failure::Aborted)
        }
        _ => retry(Executed::Ended, First::Nothing, AGAIN, Failure::Aborted),
    }
}
