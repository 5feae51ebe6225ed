//! COMPARE AND WRITE (SBC-3 5.2): the lock of a shared disk.

use zerocopy::IntoBytes;

use super::block::{Cdb, Transfer};
use super::op;
use super::range::{Caching, Fit, layout};
use crate::error::{BuildError, CdbError};
use crate::units::{BlockCount, BlockLen, Lba};
use crate::wire::{U64, wire};

wire!(
    /// SBC-3 table 24.
    WireCaw [16] { code: u8, flags: u8, lba: U64, reserved: [u8; 3], blocks: u8, group: u8, control: u8 }
);

/// COMPARE AND WRITE: if the blocks hold the first half of the data, they are overwritten with the second half, with no
/// other command between. If not, the status is CHECK CONDITION with MISCOMPARE, 1D/00, and INFORMATION is the offset of
/// the first byte that differs; not every target fills it in, so nothing may rest on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompareAndWrite {
    /// The first block.
    pub lba: Lba,
    /// How many: 1 up to MAXIMUM COMPARE AND WRITE LENGTH of the block limits page. 0 compares and writes nothing.
    pub blocks: u8,
    /// DPO and FUA. A lease needs FUA.
    pub caching: Caching,
    /// WRPROTECT, 3 bits; 0 for none.
    pub protect: u8,
    /// GROUP NUMBER, 6 bits; 0 for none.
    pub group: u8,
}

impl CompareAndWrite {
    /// The command on `blocks` blocks, with FUA: what it wrote is on the medium.
    pub const fn new(lba: Lba, blocks: u8) -> CompareAndWrite {
        CompareAndWrite { lba, blocks, caching: Caching::FUA, protect: 0, group: 0 }
    }

    /// Blocks of data that go to the target: twice as many as are compared.
    pub fn data_blocks(&self) -> BlockCount {
        BlockCount(u64::from(self.blocks) * 2)
    }

    /// The command descriptor block for blocks of `block` bytes.
    pub fn cdb(&self, block: BlockLen) -> Result<Cdb, BuildError> {
        let fit = Fit { what: "COMPARE AND WRITE" };
        fit.unprotected(self.protect)?;
        let data = fit.data(self.data_blocks(), block)?;
        let wire = WireCaw {
            code: op::COMPARE_AND_WRITE.0,
            flags: self.caching.bits(),
            lba: U64::new(self.lba.0),
            reserved: [0; 3],
            blocks: self.blocks,
            group: self.group & 0x3f,
            control: 0,
        };
        Ok(Cdb::short(wire.as_bytes(), Transfer::output(data)))
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<CompareAndWrite, CdbError> {
        let wire: &WireCaw = layout(cdb)?;
        Ok(CompareAndWrite {
            lba: Lba(wire.lba.get()),
            blocks: wire.blocks,
            caching: Caching::from_bits(wire.flags),
            protect: wire.flags >> 5,
            group: wire.group & 0x3f,
        })
    }
}
