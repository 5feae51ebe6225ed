//! Access states (SPC-4 5.15.2.4 to 5.15.2.8, table 306).

use std::fmt;

use crate::wire::{bit, flag};

/// How a unit is reached through the ports of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AccessState {
    /// 0h: well.
    ActiveOptimized,
    /// 1h: all commands, but slower.
    ActiveNonOptimized,
    /// 2h: only commands that do not touch the medium.
    Standby,
    /// 3h: hardly any command.
    Unavailable,
    /// 4h: active, but some blocks are elsewhere (logical block dependent).
    LogicalBlockDependent,
    /// Eh: the ports are not there.
    Offline,
    /// Fh: on the way from one state to another.
    Transitioning,
}

/// The states that a group can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SupportedStates {
    /// AO_SUP.
    pub active_optimized: bool,
    /// AN_SUP.
    pub active_non_optimized: bool,
    /// S_SUP.
    pub standby: bool,
    /// U_SUP.
    pub unavailable: bool,
    /// LBD_SUP.
    pub logical_block_dependent: bool,
    /// O_SUP.
    pub offline: bool,
    /// T_SUP: transitioning is told, not only passed through.
    pub transitioning: bool,
}

impl AccessState {
    /// The state's four bits.
    pub const fn code(self) -> u8 {
        match self {
            AccessState::ActiveOptimized => 0x0,
            AccessState::ActiveNonOptimized => 0x1,
            AccessState::Standby => 0x2,
            AccessState::Unavailable => 0x3,
            AccessState::LogicalBlockDependent => 0x4,
            AccessState::Offline => 0xe,
            AccessState::Transitioning => 0xf,
        }
    }

    /// The state of four bits; `None` for reserved ones.
    pub const fn from_code(code: u8) -> Option<AccessState> {
        match code {
            0x0 => Some(AccessState::ActiveOptimized),
            0x1 => Some(AccessState::ActiveNonOptimized),
            0x2 => Some(AccessState::Standby),
            0x3 => Some(AccessState::Unavailable),
            0x4 => Some(AccessState::LogicalBlockDependent),
            0xe => Some(AccessState::Offline),
            0xf => Some(AccessState::Transitioning),
            _ => None,
        }
    }

    /// True if reads and writes are executed.
    pub const fn takes_io(self) -> bool {
        matches!(
            self,
            AccessState::ActiveOptimized | AccessState::ActiveNonOptimized | AccessState::LogicalBlockDependent
        )
    }
}

impl SupportedStates {
    pub(super) fn from_bits(byte: u8) -> SupportedStates {
        SupportedStates {
            active_optimized: bit(byte, 0),
            active_non_optimized: bit(byte, 1),
            standby: bit(byte, 2),
            unavailable: bit(byte, 3),
            logical_block_dependent: bit(byte, 4),
            offline: bit(byte, 6),
            transitioning: bit(byte, 7),
        }
    }

    pub(super) fn bits(self) -> u8 {
        flag(self.active_optimized, 0)
            | flag(self.active_non_optimized, 1)
            | flag(self.standby, 2)
            | flag(self.unavailable, 3)
            | flag(self.logical_block_dependent, 4)
            | flag(self.offline, 6)
            | flag(self.transitioning, 7)
    }
}

impl fmt::Display for AccessState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AccessState::ActiveOptimized => "active/optimized",
            AccessState::ActiveNonOptimized => "active/non-optimized",
            AccessState::Standby => "standby",
            AccessState::Unavailable => "unavailable",
            AccessState::LogicalBlockDependent => "logical block dependent",
            AccessState::Offline => "offline",
            AccessState::Transitioning => "transitioning",
        })
    }
}
