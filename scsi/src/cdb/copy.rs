//! EXTENDED COPY and RECEIVE COPY RESULTS (SPC-3 6.3 and 6.17; SPC-4 has them as LID1, list identifiers of one byte).
//!
//! The blocks only: what a copy is made of, its parameter list, is not read here.

use zerocopy::IntoBytes;

use super::block::{Cdb, Transfer};
use super::op;
use super::range::layout;
use crate::error::CdbError;
use crate::units::ByteCount;
use crate::wire::{U32, wire};

wire!(
    /// SPC-3 table 61: EXTENDED COPY.
    WireCopy [16] { code: u8, action: u8, reserved: [u8; 8], list: U32, r14: u8, control: u8 }
);
wire!(
    /// SPC-3 table 167: RECEIVE COPY RESULTS.
    WireResults [16] { code: u8, action: u8, list_id: u8, reserved: [u8; 7], alloc: U32, r14: u8, control: u8 }
);

/// EXTENDED COPY: the unit copies by itself, as its parameter list says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedCopy {
    /// Bytes of the parameter list.
    pub list: ByteCount,
}

/// What RECEIVE COPY RESULTS asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyQuestion {
    /// 00h: how far a copy is.
    Status,
    /// 01h: data that a copy kept for the initiator.
    Data,
    /// 03h: which copies the unit can make, and how long they may be.
    OperatingParameters,
    /// 04h: why a copy failed.
    FailureDetails,
}

/// RECEIVE COPY RESULTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveCopyResults {
    /// What is asked.
    pub question: CopyQuestion,
    /// LIST IDENTIFIER: of which copy. Not looked at for operating parameters.
    pub list_id: u8,
    /// Bytes that the initiator takes.
    pub alloc: ByteCount,
}

impl ExtendedCopy {
    /// The command descriptor block.
    pub fn cdb(&self) -> Cdb {
        let list = U32::new(self.list.0);
        let wire = WireCopy { code: op::EXTENDED_COPY.0, action: 0, reserved: [0; 8], list, r14: 0, control: 0 };
        Cdb::short(wire.as_bytes(), Transfer::output(self.list))
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<ExtendedCopy, CdbError> {
        let wire: &WireCopy = layout(cdb)?;
        // LID4 and the token commands (SPC-4, SBC-4) are others.
        if wire.action & 0x1f != 0 {
            return Err(CdbError::bit(1, 4));
        }
        Ok(ExtendedCopy { list: ByteCount(wire.list.get()) })
    }
}

impl CopyQuestion {
    fn code(self) -> u8 {
        match self {
            CopyQuestion::Status => 0,
            CopyQuestion::Data => 1,
            CopyQuestion::OperatingParameters => 3,
            CopyQuestion::FailureDetails => 4,
        }
    }

    fn from_code(code: u8) -> Option<CopyQuestion> {
        Some(match code {
            0 => CopyQuestion::Status,
            1 => CopyQuestion::Data,
            3 => CopyQuestion::OperatingParameters,
            4 => CopyQuestion::FailureDetails,
            _ => return None,
        })
    }
}

impl ReceiveCopyResults {
    /// The command descriptor block.
    pub fn cdb(&self) -> Cdb {
        let (code, action, alloc) = (op::RECEIVE_COPY_RESULTS.0, self.question.code(), U32::new(self.alloc.0));
        let list_id = self.list_id;
        let wire = WireResults { code, action, list_id, reserved: [0; 7], alloc, r14: 0, control: 0 };
        Cdb::short(wire.as_bytes(), Transfer::input(self.alloc))
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<ReceiveCopyResults, CdbError> {
        let wire: &WireResults = layout(cdb)?;
        let question = CopyQuestion::from_code(wire.action & 0x1f).ok_or(CdbError::bit(1, 4))?;
        Ok(ReceiveCopyResults { question, list_id: wire.list_id, alloc: ByteCount(wire.alloc.get()) })
    }
}
