//! LOG SENSE (SPC-4 6.9). The page of thin provisioning is in [`crate::log`].

use zerocopy::IntoBytes;

use super::block::{Cdb, Transfer};
use super::op;
use super::range::layout;
use crate::error::CdbError;
use crate::units::ShortByteCount;
use crate::wire::{U16, bit, flag, wire};

wire!(
    /// SPC-4 table 172.
    WireLog [10] {
        code: u8, flags: u8, page: u8, subpage: u8, reserved: u8, from: U16, alloc: U16, control: u8,
    }
);

/// LOG SENSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSense {
    /// PAGE CODE, 6 bits.
    pub page: u8,
    /// SUBPAGE CODE.
    pub subpage: u8,
    /// PC: 0 threshold, 1 cumulative, 2 and 3 their defaults; as 2 bits.
    pub control: u8,
    /// SP: save the parameters.
    pub save: bool,
    /// PARAMETER POINTER: the first parameter wanted.
    pub from: u16,
    /// Bytes that the initiator takes.
    pub alloc: ShortByteCount,
}

impl LogSense {
    /// The cumulative values of a page.
    pub const fn page(page: u8, subpage: u8, alloc: ShortByteCount) -> LogSense {
        LogSense { page, subpage, control: 1, save: false, from: 0, alloc }
    }

    /// The command descriptor block.
    pub fn cdb(&self) -> Cdb {
        let wire = WireLog {
            code: op::LOG_SENSE.0,
            flags: flag(self.save, 0),
            page: self.control << 6 | self.page & 0x3f,
            subpage: self.subpage,
            reserved: 0,
            from: U16::new(self.from),
            alloc: U16::new(self.alloc.0),
            control: 0,
        };
        Cdb::short(wire.as_bytes(), Transfer::input(self.alloc.into()))
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<LogSense, CdbError> {
        let wire: &WireLog = layout(cdb)?;
        Ok(LogSense {
            page: wire.page & 0x3f,
            subpage: wire.subpage,
            control: wire.page >> 6,
            save: bit(wire.flags, 0),
            from: wire.from.get(),
            alloc: ShortByteCount(wire.alloc.get()),
        })
    }
}
