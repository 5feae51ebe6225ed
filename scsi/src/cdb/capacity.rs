//! READ CAPACITY (SBC-3 5.15, 5.16) and GET LBA STATUS (SBC-3 5.4): how large a unit is, and which blocks are mapped.

use zerocopy::IntoBytes;

use super::block::{Cdb, Transfer};
use super::op;
use super::range::layout;
use crate::error::CdbError;
use crate::units::{ByteCount, Lba};
use crate::wire::{U16, U32, U64, bit, wire};

wire!(
    /// SBC-3 table 52.
    WireCapacity10 [10] { code: u8, obsolete: u8, lba: U32, reserved: U16, flags: u8, control: u8 }
);
wire!(
    /// SBC-3 table 54 and table 37: READ CAPACITY (16) and GET LBA STATUS.
    WireIn16 [16] { code: u8, action: u8, lba: U64, alloc: U32, last: u8, control: u8 }
);

/// READ CAPACITY(10): last address and block length in 8 bytes; FFFFFFFFh means that the 16-byte form must be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadCapacity10;

/// READ CAPACITY(16): 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadCapacity16 {
    /// Bytes that the initiator takes.
    pub alloc: ByteCount,
}

/// GET LBA STATUS: which blocks from an address on are mapped, deallocated or anchored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetLbaStatus {
    /// The first block that is asked about.
    pub from: Lba,
    /// Bytes that the initiator takes: 8 and 16 for each extent.
    pub alloc: ByteCount,
}

impl ReadCapacity10 {
    /// The command descriptor block.
    pub fn cdb(&self) -> Cdb {
        let code = op::READ_CAPACITY_10.0;
        let (lba, reserved) = (U32::ZERO, U16::ZERO);
        let wire = WireCapacity10 { code, obsolete: 0, lba, reserved, flags: 0, control: 0 };
        Cdb::short(wire.as_bytes(), Transfer::In(ByteCount(8)))
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<ReadCapacity10, CdbError> {
        let wire: &WireCapacity10 = layout(cdb)?;
        // PMI and its address are obsolete since SBC-3.
        if bit(wire.flags, 0) {
            return Err(CdbError::bit(8, 0));
        }
        if wire.lba.get() != 0 { Err(CdbError::byte(2)) } else { Ok(ReadCapacity10) }
    }
}

impl ReadCapacity16 {
    /// The command with room for all of the answer.
    pub const FULL: ReadCapacity16 = ReadCapacity16 { alloc: ByteCount(32) };

    /// The command descriptor block.
    pub fn cdb(&self) -> Cdb {
        in16(op::SA_READ_CAPACITY_16, Lba(0), self.alloc)
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<ReadCapacity16, CdbError> {
        let wire: &WireIn16 = layout(cdb)?;
        if bit(wire.last, 0) {
            return Err(CdbError::bit(14, 0));
        }
        if wire.lba.get() != 0 {
            return Err(CdbError::byte(2));
        }
        Ok(ReadCapacity16 { alloc: ByteCount(wire.alloc.get()) })
    }
}

impl GetLbaStatus {
    /// The command descriptor block.
    pub fn cdb(&self) -> Cdb {
        in16(op::SA_GET_LBA_STATUS, self.from, self.alloc)
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<GetLbaStatus, CdbError> {
        let wire: &WireIn16 = layout(cdb)?;
        Ok(GetLbaStatus { from: Lba(wire.lba.get()), alloc: ByteCount(wire.alloc.get()) })
    }
}

fn in16(action: super::ServiceAction, lba: Lba, alloc: ByteCount) -> Cdb {
    let wire = WireIn16 {
        code: op::SERVICE_ACTION_IN_16.0,
        action: action.0,
        lba: U64::new(lba.0),
        alloc: U32::new(alloc.0),
        last: 0,
        control: 0,
    };
    Cdb::short(wire.as_bytes(), Transfer::input(alloc))
}
