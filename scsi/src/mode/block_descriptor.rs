//! Block descriptors of a disk (SBC-3 6.5.2): size and block length once more.

use zerocopy::IntoBytes;

use crate::units::BlockCount;
use crate::wire::{U32, U64, wire};

wire!(
    /// SBC-3 table 160: short.
    WireShort [8] { blocks: U32, reserved: u8, block: [u8; 3] }
);
wire!(
    /// SBC-3 table 161: long.
    WireLong [16] { blocks: U64, reserved: [u8; 4], block: U32 }
);

/// A block descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockDescriptor {
    /// NUMBER OF LOGICAL BLOCKS; in the short form FFFFFFFFh stands for any number that does not fit.
    pub blocks: BlockCount,
    /// LOGICAL BLOCK LENGTH in bytes; in MODE SELECT 0 leaves it.
    pub block_bytes: u32,
}

impl BlockDescriptor {
    /// Reads the first descriptor of a list.
    pub(super) fn parse(long: bool, list: &[u8]) -> Option<BlockDescriptor> {
        if long {
            let wire: WireLong = zerocopy::transmute!(*list.first_chunk::<16>()?);
            return Some(BlockDescriptor { blocks: BlockCount(wire.blocks.get()), block_bytes: wire.block.get() });
        }
        let wire: WireShort = zerocopy::transmute!(*list.first_chunk::<8>()?);
        let [b0, b1, b2] = wire.block;
        let block_bytes = u32::from_be_bytes([0, b0, b1, b2]);
        Some(BlockDescriptor { blocks: BlockCount(u64::from(wire.blocks.get())), block_bytes })
    }

    pub(super) fn to_bytes(self, long: bool) -> Vec<u8> {
        if long {
            let (blocks, block) = (U64::new(self.blocks.0), U32::new(self.block_bytes));
            return WireLong { blocks, reserved: [0; 4], block }.as_bytes().to_vec();
        }
        let blocks = U32::new(u32::try_from(self.blocks.0).unwrap_or(u32::MAX));
        let [_, block @ ..] = self.block_bytes.to_be_bytes();
        WireShort { blocks, reserved: 0, block }.as_bytes().to_vec()
    }
}
