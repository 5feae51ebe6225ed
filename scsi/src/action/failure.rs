//! Why a command failed for good, in kinds that a caller can act on.

use std::fmt;

/// Why a command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Failure {
    /// RESERVATION CONFLICT: this nexus may not. It is fenced, or was never registered.
    ReservationConflict,
    /// The registration of this nexus, or the reservation, was preempted by another: it is fenced.
    Preempted,
    /// The medium cannot be read or written there. The sense data's INFORMATION tells the block.
    Medium,
    /// The medium is corrupt as a whole: its format, not one block.
    MediumCorrupt,
    /// A write that was acknowledged earlier never reached the medium.
    LostWrite,
    /// The device is broken.
    Hardware,
    /// The medium takes no writes.
    WriteProtected,
    /// A thin unit has no space left.
    NoSpace,
    /// The unit is not ready and does not say that it will be.
    NotReady,
    /// There is no medium.
    NoMedium,
    /// The blocks are not on the unit.
    OutOfRange,
    /// The unit does not have this command.
    NotSupported,
    /// The unit refuses a field of the command or of its parameters.
    Invalid,
    /// There is no such logical unit here.
    NoSuchUnit,
    /// The target has no room for another registration or reservation.
    NoReservationRoom,
    /// The unit is not accessible through this port now (standby, unavailable, transitioning).
    NotAccessible,
    /// Protection information does not fit the data: what arrived is not what was written.
    Protection,
    /// The unit is busy.
    Busy,
    /// The target gave the command up.
    Aborted,
    /// The path to the target failed.
    Path,
    /// The target does not keep to the protocol.
    Protocol,
    /// A unit attention came again and again.
    Attention,
    /// A condition that no disk should have.
    Unexpected,
}

impl Failure {
    /// True if this node must take itself for fenced.
    pub fn is_fence(self) -> bool {
        matches!(self, Failure::ReservationConflict | Failure::Preempted)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::ReservationConflict => "a reservation of another node forbids it",
            Failure::Preempted => "this node's registration was preempted",
            Failure::Medium => "the medium cannot be read or written there",
            Failure::MediumCorrupt => "the medium is corrupt",
            Failure::LostWrite => "a write that was acknowledged earlier never reached the medium",
            Failure::Hardware => "the device is broken",
            Failure::WriteProtected => "the medium is write-protected",
            Failure::NoSpace => "the thin unit has no space left",
            Failure::NotReady => "the unit is not ready",
            Failure::NoMedium => "there is no medium",
            Failure::OutOfRange => "the blocks are outside the unit",
            Failure::NotSupported => "the unit does not have this command",
            Failure::Invalid => "the unit refuses a field of the command",
            Failure::NoSuchUnit => "there is no such logical unit",
            Failure::NoReservationRoom => "the target has no room for another registration",
            Failure::NotAccessible => "the unit is not accessible through this port now",
            Failure::Protection => "protection information does not fit the data",
            Failure::Busy => "the unit is busy",
            Failure::Aborted => "the target gave the command up",
            Failure::Path => "the path to the target failed",
            Failure::Protocol => "the target does not keep to the protocol",
            Failure::Attention => "the unit reports one change after the other",
            Failure::Unexpected => "the unit reports a condition that no disk should have",
        })
    }
}
