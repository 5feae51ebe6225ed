//! WRITE ATOMIC (16) (SBC-4 5.48): a write of which all or nothing is on the medium.

use zerocopy::IntoBytes;

use super::block::{Cdb, Transfer};
use super::op;
use super::range::{Caching, Fit, layout};
use crate::error::{BuildError, CdbError};
use crate::units::{BlockCount, BlockLen, Lba};
use crate::wire::{U16, U64, wire};

wire!(
    /// SBC-4, WRITE ATOMIC (16).
    WireAtomic [16] { code: u8, flags: u8, lba: U64, boundary: U16, blocks: U16, group: u8, control: u8 }
);

/// WRITE ATOMIC(16). Its limits are in the block limits page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteAtomic {
    /// The first block.
    pub lba: Lba,
    /// How many blocks.
    pub blocks: u16,
    /// ATOMIC BOUNDARY in blocks: the write may be cut there; 0 for nowhere.
    pub boundary: u16,
    /// DPO and FUA.
    pub caching: Caching,
    /// WRPROTECT, 3 bits; 0 for none.
    pub protect: u8,
    /// GROUP NUMBER, 6 bits; 0 for none.
    pub group: u8,
}

impl WriteAtomic {
    /// The command without options.
    pub const fn new(lba: Lba, blocks: u16) -> WriteAtomic {
        WriteAtomic { lba, blocks, boundary: 0, caching: Caching::NONE, protect: 0, group: 0 }
    }

    /// The command descriptor block for blocks of `block` bytes.
    pub fn cdb(&self, block: BlockLen) -> Result<Cdb, BuildError> {
        let fit = Fit { what: "WRITE ATOMIC" };
        fit.unprotected(self.protect)?;
        let data = fit.data(BlockCount(u64::from(self.blocks)), block)?;
        let wire = WireAtomic {
            code: op::WRITE_ATOMIC_16.0,
            flags: self.caching.bits(),
            lba: U64::new(self.lba.0),
            boundary: U16::new(self.boundary),
            blocks: U16::new(self.blocks),
            group: self.group & 0x3f,
            control: 0,
        };
        Ok(Cdb::short(wire.as_bytes(), Transfer::output(data)))
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<WriteAtomic, CdbError> {
        let wire: &WireAtomic = layout(cdb)?;
        Ok(WriteAtomic {
            lba: Lba(wire.lba.get()),
            blocks: wire.blocks.get(),
            boundary: wire.boundary.get(),
            caching: Caching::from_bits(wire.flags),
            protect: wire.flags >> 5,
            group: wire.group & 0x3f,
        })
    }
}
