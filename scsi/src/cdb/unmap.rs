//! UNMAP (SBC-3 5.28): blocks that are not needed. The blocks are in [`crate::unmap`]'s parameter list.

use zerocopy::IntoBytes;

use super::block::{Cdb, Transfer};
use super::op;
use super::range::layout;
use crate::error::CdbError;
use crate::units::ShortByteCount;
use crate::wire::{U16, bit, flag, wire};

wire!(
    /// SBC-3 table 86.
    WireUnmap [10] { code: u8, flags: u8, reserved: [u8; 4], group: u8, list: U16, control: u8 }
);

/// UNMAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmap {
    /// ANCHOR: the blocks are anchored rather than deallocated.
    pub anchor: bool,
    /// GROUP NUMBER, 6 bits; 0 for none.
    pub group: u8,
    /// Bytes of the parameter list.
    pub list: ShortByteCount,
}

impl Unmap {
    /// The command descriptor block.
    pub fn cdb(&self) -> Cdb {
        let wire = WireUnmap {
            code: op::UNMAP.0,
            flags: flag(self.anchor, 0),
            reserved: [0; 4],
            group: self.group & 0x3f,
            list: U16::new(self.list.0),
            control: 0,
        };
        Cdb::short(wire.as_bytes(), Transfer::output(self.list.into()))
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<Unmap, CdbError> {
        let wire: &WireUnmap = layout(cdb)?;
        let list = ShortByteCount(wire.list.get());
        Ok(Unmap { anchor: bit(wire.flags, 0), group: wire.group & 0x3f, list })
    }
}
