//! Commands without data that concern the logical unit as a whole.

use zerocopy::IntoBytes;

use super::block::{Cdb, Transfer};
use super::op;
use super::range::layout;
use crate::error::CdbError;
use crate::units::OpCode;
use crate::wire::{bit, flag, wire};

wire!(
    /// Six bytes of which this crate reads the second to the fifth.
    WireSix [6] { code: u8, b1: u8, b2: u8, b3: u8, b4: u8, control: u8 }
);

fn six(code: OpCode, b1: u8, b3: u8, b4: u8) -> Cdb {
    Cdb::short(WireSix { code: code.0, b1, b2: 0, b3, b4, control: 0 }.as_bytes(), Transfer::None)
}

/// TEST UNIT READY (SPC-4 6.47): GOOD if the medium can be accessed; brings pending unit attentions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TestUnitReady;

/// START STOP UNIT (SBC-3 5.25).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartStopUnit {
    /// IMMED: status comes before it is done.
    pub immediate: bool,
    /// POWER CONDITION, 4 bits: 0 lets START and LOEJ decide, 1 active, 2 idle, 3 standby.
    pub power_condition: u8,
    /// POWER CONDITION MODIFIER, 4 bits.
    pub power_modifier: u8,
    /// NO_FLUSH: a cache may stay unwritten.
    pub no_flush: bool,
    /// LOEJ: load (with START) or eject the medium.
    pub load_eject: bool,
    /// START: become active; stop if false.
    pub start: bool,
}

/// PREVENT ALLOW MEDIUM REMOVAL (SBC-3 5.10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PreventAllow {
    /// True keeps the medium in.
    pub prevent: bool,
}

/// RESERVE(6) of SPC-2: the whole logical unit for this I_T nexus until it releases it, a reset, or the nexus is lost.
/// Refused with RESERVATION CONFLICT where persistent reservations are in use (SPC-4 5.13.3 allows exceptions).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserve6;

/// RELEASE(6) of SPC-2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Release6;

impl TestUnitReady {
    /// The command descriptor block.
    pub fn cdb(&self) -> Cdb {
        six(op::TEST_UNIT_READY, 0, 0, 0)
    }
}

impl StartStopUnit {
    /// The unit is started.
    pub const START: StartStopUnit = StartStopUnit {
        immediate: false,
        power_condition: 0,
        power_modifier: 0,
        no_flush: false,
        load_eject: false,
        start: true,
    };

    /// The command descriptor block.
    pub fn cdb(&self) -> Cdb {
        let last = self.power_condition << 4 | flag(self.no_flush, 2) | flag(self.load_eject, 1) | flag(self.start, 0);
        six(op::START_STOP_UNIT, flag(self.immediate, 0), self.power_modifier & 0xf, last)
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<StartStopUnit, CdbError> {
        let wire: &WireSix = layout(cdb)?;
        Ok(StartStopUnit {
            immediate: bit(wire.b1, 0),
            power_condition: wire.b4 >> 4,
            power_modifier: wire.b3 & 0xf,
            no_flush: bit(wire.b4, 2),
            load_eject: bit(wire.b4, 1),
            start: bit(wire.b4, 0),
        })
    }
}

impl PreventAllow {
    /// The command descriptor block.
    pub fn cdb(&self) -> Cdb {
        six(op::PREVENT_ALLOW_MEDIUM_REMOVAL, 0, 0, flag(self.prevent, 0))
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<PreventAllow, CdbError> {
        let wire: &WireSix = layout(cdb)?;
        match wire.b4 & 3 {
            0 => Ok(PreventAllow { prevent: false }),
            1 => Ok(PreventAllow { prevent: true }),
            // 2 and 3 are obsolete.
            _ => Err(CdbError::bit(4, 1)),
        }
    }
}

impl Reserve6 {
    /// The command descriptor block.
    pub fn cdb(&self) -> Cdb {
        six(op::RESERVE_6, 0, 0, 0)
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<Reserve6, CdbError> {
        whole_unit(cdb).map(|()| Reserve6)
    }
}

impl Release6 {
    /// The command descriptor block.
    pub fn cdb(&self) -> Cdb {
        six(op::RELEASE_6, 0, 0, 0)
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<Release6, CdbError> {
        whole_unit(cdb).map(|()| Release6)
    }
}

/// Refuses third-party and extent reservations (SPC-2 5.5 bits 4 and 0), which no target has any more.
fn whole_unit(cdb: &[u8]) -> Result<(), CdbError> {
    let wire: &WireSix = layout(cdb)?;
    if bit(wire.b1, 4) {
        Err(CdbError::bit(1, 4))
    } else if bit(wire.b1, 0) {
        Err(CdbError::bit(1, 0))
    } else {
        Ok(())
    }
}
