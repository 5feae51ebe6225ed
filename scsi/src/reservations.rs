//! Persistent reservations (SPC-4 5.13): who has registered which key, who holds what, and how either is changed.
//!
//! [`Change`] is a change with its parameter list, for both ends. [`Keys`], [`Reservation`], [`Capabilities`] and
//! [`FullStatus`] are what PERSISTENT RESERVE IN answers; [`settle()`] finds out by them whether a change was made. [`ReservationType::permits`] is the table of what a
//! reservation forbids, so that both ends agree on it.
//!
//! A fence reads the *whole* list of keys or fails: an answer that was cut off is
//! [`Truncated`](crate::ParseError::Truncated) with the bytes that the next try must allow, never a shorter list.

mod capabilities;
mod change;
mod full_status;
mod holder;
mod keys;
mod kind;
mod settle;
#[cfg(test)]
mod tests;
mod transport_id;

use std::fmt;

pub use capabilities::{AllowedCommands, Capabilities, TypeSet};
pub use change::{Change, Registration};
pub use full_status::{FullStatus, Registrant};
pub use holder::{Held, Reservation};
pub use keys::Keys;
pub use kind::{Access, ReservationType, Role};
pub use settle::{Settled, settle};
pub use transport_id::{Isid, MAX_TRANSPORT_ID, TransportId};

/// PRGENERATION: counts the changes of registrations; wraps. Not changed by RESERVE and RELEASE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Generation(pub u32);

/// What PERSISTENT RESERVE IN asks (SPC-4 table 197).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InAction {
    /// 0: every registered key; [`Keys`].
    ReadKeys,
    /// 1: the reservation; [`Held`].
    ReadReservation,
    /// 2: [`Capabilities`].
    ReportCapabilities,
    /// 3: every registration with its I_T nexus; [`FullStatus`].
    ReadFullStatus,
}

/// What PERSISTENT RESERVE OUT does (SPC-4 table 212).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutAction {
    /// 0: register, re-register or unregister this I_T nexus.
    Register,
    /// 1: take the reservation.
    Reserve,
    /// 2: give it back.
    Release,
    /// 3: remove all registrations and the reservation.
    Clear,
    /// 4: remove the registrations with a key, and take over the reservation if they held it.
    Preempt,
    /// 5: the same, and abort what their nexuses have outstanding.
    PreemptAndAbort,
    /// 6: register without naming the key that was registered.
    RegisterAndIgnore,
    /// 7: register another I_T nexus and give it the reservation.
    RegisterAndMove,
    /// 8: say that reservations which were lost were dealt with.
    ReplaceLost,
}

impl InAction {
    /// The service action.
    pub const fn code(self) -> u8 {
        match self {
            InAction::ReadKeys => 0,
            InAction::ReadReservation => 1,
            InAction::ReportCapabilities => 2,
            InAction::ReadFullStatus => 3,
        }
    }

    /// The action of a service action; `None` for a reserved one.
    pub const fn from_code(code: u8) -> Option<InAction> {
        match code {
            0 => Some(InAction::ReadKeys),
            1 => Some(InAction::ReadReservation),
            2 => Some(InAction::ReportCapabilities),
            3 => Some(InAction::ReadFullStatus),
            _ => None,
        }
    }
}

impl OutAction {
    /// The service action.
    pub const fn code(self) -> u8 {
        match self {
            OutAction::Register => 0,
            OutAction::Reserve => 1,
            OutAction::Release => 2,
            OutAction::Clear => 3,
            OutAction::Preempt => 4,
            OutAction::PreemptAndAbort => 5,
            OutAction::RegisterAndIgnore => 6,
            OutAction::RegisterAndMove => 7,
            OutAction::ReplaceLost => 8,
        }
    }

    /// The action of a service action; `None` for a reserved one.
    pub const fn from_code(code: u8) -> Option<OutAction> {
        match code {
            0 => Some(OutAction::Register),
            1 => Some(OutAction::Reserve),
            2 => Some(OutAction::Release),
            3 => Some(OutAction::Clear),
            4 => Some(OutAction::Preempt),
            5 => Some(OutAction::PreemptAndAbort),
            6 => Some(OutAction::RegisterAndIgnore),
            7 => Some(OutAction::RegisterAndMove),
            8 => Some(OutAction::ReplaceLost),
            _ => None,
        }
    }

    /// True if SCOPE and TYPE of the command mean something (SPC-4 table 212).
    pub const fn has_type(self) -> bool {
        matches!(self, OutAction::Reserve | OutAction::Release | OutAction::Preempt | OutAction::PreemptAndAbort)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {}", self.0)
    }
}
