//! The status byte with which a device server ends a command (SAM-5 5.3.1).

use std::fmt;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// 00h: done.
    Good,
    /// 02h: not done, or done with something to say; sense data tells.
    CheckCondition,
    /// 04h: the search or pre-fetch condition is met.
    ConditionMet,
    /// 08h: the logical unit cannot take the command now.
    Busy,
    /// 18h: a reservation of another I_T nexus forbids the command.
    ReservationConflict,
    /// 28h: no room for another task; it was not executed.
    TaskSetFull,
    /// 30h: an auto contingent allegiance of an earlier command must be cleared first.
    AcaActive,
    /// 40h: another I_T nexus aborted the task (only where the control mode page's TAS bit is set).
    TaskAborted,
    /// A value that SAM-5 reserves or calls obsolete.
    Unknown(u8),
}

impl Status {
    /// The status of a response.
    pub const fn from_byte(byte: u8) -> Status {
        match byte {
            0x00 => Status::Good,
            0x02 => Status::CheckCondition,
            0x04 => Status::ConditionMet,
            0x08 => Status::Busy,
            0x18 => Status::ReservationConflict,
            0x28 => Status::TaskSetFull,
            0x30 => Status::AcaActive,
            0x40 => Status::TaskAborted,
            other => Status::Unknown(other),
        }
    }

    /// The byte of a response.
    pub const fn to_byte(self) -> u8 {
        match self {
            Status::Good => 0x00,
            Status::CheckCondition => 0x02,
            Status::ConditionMet => 0x04,
            Status::Busy => 0x08,
            Status::ReservationConflict => 0x18,
            Status::TaskSetFull => 0x28,
            Status::AcaActive => 0x30,
            Status::TaskAborted => 0x40,
            Status::Unknown(other) => other,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Good => "GOOD",
            Status::CheckCondition => "CHECK CONDITION",
            Status::ConditionMet => "CONDITION MET",
            Status::Busy => "BUSY",
            Status::ReservationConflict => "RESERVATION CONFLICT",
            Status::TaskSetFull => "TASK SET FULL",
            Status::AcaActive => "ACA ACTIVE",
            Status::TaskAborted => "TASK ABORTED",
            Status::Unknown(other) => return write!(f, "unknown status {other:02x}h"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_a_status_and_goes_back_to_itself() {
        for byte in 0..=u8::MAX {
            assert_eq!(Status::from_byte(byte).to_byte(), byte);
        }
        assert_eq!(Status::from_byte(0x18), Status::ReservationConflict);
        assert_eq!(Status::from_byte(0x22), Status::Unknown(0x22), "COMMAND TERMINATED is obsolete");
    }
}
