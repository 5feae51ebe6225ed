//! Commands that ask a target about itself: REPORT LUNS (SPC-4 6.33), REPORT and SET TARGET PORT GROUPS (6.37, 6.45),
//! REPORT SUPPORTED OPERATION CODES (6.35), REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (6.36).

use zerocopy::IntoBytes;

use super::block::{Cdb, Transfer};
use super::op::{self, ServiceAction};
use super::range::layout;
use crate::error::CdbError;
use crate::units::{ByteCount, OpCode};
use crate::wire::{U16, U32, bit, flag, wire};

wire!(
    /// SPC-4 table 283.
    WireLuns [12] { code: u8, reserved: u8, select: u8, more: [u8; 3], alloc: U32, end: u8, control: u8 }
);
wire!(
    /// MAINTENANCE IN and MAINTENANCE OUT.
    WireMaintenance [12] { code: u8, action: u8, b2: u8, b3: u8, b4: U16, len: U32, end: u8, control: u8 }
);

/// REPORT LUNS. Executed also where other commands are not, as INQUIRY is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportLuns {
    /// Which logical units.
    pub select: SelectReport,
    /// Bytes that the initiator takes: 8 and 8 for each unit; at least 16.
    pub alloc: ByteCount,
}

/// Which logical units REPORT LUNS tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectReport {
    /// 00h: all but the well-known ones.
    Addressable,
    /// 01h: the well-known ones.
    WellKnown,
    /// 02h: all.
    All,
}

/// REPORT TARGET PORT GROUPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportTargetPortGroups {
    /// PARAMETER DATA FORMAT 1: a header with the implicit transition time in front.
    pub extended: bool,
    /// Bytes that the initiator takes.
    pub alloc: ByteCount,
}

/// SET TARGET PORT GROUPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetTargetPortGroups {
    /// Bytes of the parameter list: 4 and 4 for each group.
    pub list: ByteCount,
}

/// Which commands REPORT SUPPORTED OPERATION CODES asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpCodeQuery {
    /// 000b: all of them.
    All,
    /// 001b: one that has no service actions.
    One(OpCode),
    /// 010b: one service action of one that has some.
    Action(OpCode, u16),
    /// 011b: one, with the service action looked at only if the operation code has some.
    Either(OpCode, u16),
}

/// REPORT SUPPORTED OPERATION CODES.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportOpCodes {
    /// RCTD: tell timeouts too.
    pub timeouts: bool,
    /// Which commands.
    pub query: OpCodeQuery,
    /// Bytes that the initiator takes.
    pub alloc: ByteCount,
}

/// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportTaskManagement {
    /// REPD: the 16-byte answer with timeouts.
    pub extended: bool,
    /// Bytes that the initiator takes.
    pub alloc: ByteCount,
}

/// The service action of a block of this kind.
pub(super) fn action(cdb: &[u8]) -> ServiceAction {
    ServiceAction(cdb.get(1).copied().unwrap_or(0) & 0x1f)
}

impl ReportLuns {
    /// The command descriptor block.
    pub fn cdb(&self) -> Cdb {
        let select = match self.select {
            SelectReport::Addressable => 0,
            SelectReport::WellKnown => 1,
            SelectReport::All => 2,
        };
        let (code, alloc) = (op::REPORT_LUNS.0, U32::new(self.alloc.0));
        let wire = WireLuns { code, reserved: 0, select, more: [0; 3], alloc, end: 0, control: 0 };
        Cdb::short(wire.as_bytes(), Transfer::input(self.alloc))
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<ReportLuns, CdbError> {
        let wire: &WireLuns = layout(cdb)?;
        let select = match wire.select {
            0 => SelectReport::Addressable,
            1 => SelectReport::WellKnown,
            2 => SelectReport::All,
            _ => return Err(CdbError::byte(2)),
        };
        let alloc = ByteCount(wire.alloc.get());
        // SPC-4 6.33: fewer than 16 bytes are an error.
        if alloc < ByteCount(16) { Err(CdbError::byte(6)) } else { Ok(ReportLuns { select, alloc }) }
    }
}

impl ReportTargetPortGroups {
    /// The command descriptor block.
    pub fn cdb(&self) -> Cdb {
        let form = flag(self.extended, 5);
        let head = (op::MAINTENANCE_IN, op::SA_REPORT_TARGET_PORT_GROUPS.0 | form);
        maintenance(head, (0, 0, 0), self.alloc, Transfer::input(self.alloc))
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<ReportTargetPortGroups, CdbError> {
        let wire: &WireMaintenance = layout(cdb)?;
        let alloc = ByteCount(wire.len.get());
        match wire.action >> 5 {
            0 => Ok(ReportTargetPortGroups { extended: false, alloc }),
            1 => Ok(ReportTargetPortGroups { extended: true, alloc }),
            _ => Err(CdbError::bit(1, 7)),
        }
    }
}

impl SetTargetPortGroups {
    /// The command descriptor block.
    pub fn cdb(&self) -> Cdb {
        let head = (op::MAINTENANCE_OUT, op::SA_SET_TARGET_PORT_GROUPS.0);
        maintenance(head, (0, 0, 0), self.list, Transfer::output(self.list))
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<SetTargetPortGroups, CdbError> {
        let wire: &WireMaintenance = layout(cdb)?;
        Ok(SetTargetPortGroups { list: ByteCount(wire.len.get()) })
    }
}

impl ReportOpCodes {
    /// The command descriptor block.
    pub fn cdb(&self) -> Cdb {
        let (options, code, action) = match self.query {
            OpCodeQuery::All => (0, 0, 0),
            OpCodeQuery::One(code) => (1, code.0, 0),
            OpCodeQuery::Action(code, action) => (2, code.0, action),
            OpCodeQuery::Either(code, action) => (3, code.0, action),
        };
        let head = (op::MAINTENANCE_IN, op::SA_REPORT_SUPPORTED_OPERATION_CODES.0);
        let options = flag(self.timeouts, 7) | options;
        maintenance(head, (options, code, action), self.alloc, Transfer::input(self.alloc))
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<ReportOpCodes, CdbError> {
        let wire: &WireMaintenance = layout(cdb)?;
        let (code, action) = (OpCode(wire.b3), wire.b4.get());
        let query = match wire.b2 & 7 {
            0 => OpCodeQuery::All,
            1 => OpCodeQuery::One(code),
            2 => OpCodeQuery::Action(code, action),
            3 => OpCodeQuery::Either(code, action),
            _ => return Err(CdbError::bit(2, 2)),
        };
        Ok(ReportOpCodes { timeouts: bit(wire.b2, 7), query, alloc: ByteCount(wire.len.get()) })
    }
}

impl ReportTaskManagement {
    /// The command descriptor block.
    pub fn cdb(&self) -> Cdb {
        let head = (op::MAINTENANCE_IN, op::SA_REPORT_SUPPORTED_TASK_MANAGEMENT.0);
        maintenance(head, (flag(self.extended, 7), 0, 0), self.alloc, Transfer::input(self.alloc))
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<ReportTaskManagement, CdbError> {
        let wire: &WireMaintenance = layout(cdb)?;
        let alloc = ByteCount(wire.len.get());
        // SPC-4 6.36: fewer than 4 bytes are an error.
        if alloc < ByteCount(4) {
            return Err(CdbError::byte(6));
        }
        Ok(ReportTaskManagement { extended: bit(wire.b2, 7), alloc })
    }
}

fn maintenance(head: (OpCode, u8), middle: (u8, u8, u16), len: ByteCount, transfer: Transfer) -> Cdb {
    let ((code, action), (b2, b3, b4)) = (head, middle);
    let (b4, len) = (U16::new(b4), U32::new(len.0));
    let wire = WireMaintenance { code: code.0, action, b2, b3, b4, len, end: 0, control: 0 };
    Cdb::short(wire.as_bytes(), transfer)
}
