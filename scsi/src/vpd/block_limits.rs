//! Page B0h (SBC-3 6.6.3, SBC-4 for atomic writes): how much one command may carry.

use zerocopy::IntoBytes;

use super::{PageCode, body, fixed, page};
use crate::error::ParseError;
use crate::units::{BlockCount, Lba};
use crate::wire::{U16, U32, U64, bit, flag, wire};

wire!(
    /// SBC-4 6.6.4, behind the page's header; SBC-2 had the first 12 bytes, SBC-3 40 without atomic writes.
    WireLimits [60] {
        flags: u8, max_caw: u8, granularity: U16, max_transfer: U32, optimal_transfer: U32, max_prefetch: U32,
        max_unmap_blocks: U32, max_unmap_ranges: U32, unmap_granularity: U32, unmap_alignment: U32,
        max_write_same: U64, max_atomic: U32, atomic_alignment: U32, atomic_granularity: U32,
        max_atomic_bounded: U32, max_atomic_boundary: U32,
    }
);

/// The limits of a unit. Counts are of logical blocks; `None` is what the unit does not report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockLimits {
    /// WSNZ: WRITE SAME with a count of 0 is refused.
    pub write_same_needs_count: bool,
    /// MAXIMUM COMPARE AND WRITE LENGTH; 0 means that there is no COMPARE AND WRITE.
    pub max_compare_and_write: u8,
    /// OPTIMAL TRANSFER LENGTH GRANULARITY.
    pub granularity: Option<BlockCount>,
    /// MAXIMUM TRANSFER LENGTH of one read or write.
    pub max_transfer: Option<BlockCount>,
    /// OPTIMAL TRANSFER LENGTH.
    pub optimal_transfer: Option<BlockCount>,
    /// MAXIMUM PREFETCH LENGTH.
    pub max_prefetch: Option<BlockCount>,
    /// MAXIMUM UNMAP LBA COUNT of one UNMAP; `None` means that there is no UNMAP, `u32::MAX` no limit.
    pub max_unmap_blocks: Option<BlockCount>,
    /// MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT of one UNMAP; `None` means that there is no UNMAP.
    pub max_unmap_ranges: Option<u32>,
    /// OPTIMAL UNMAP GRANULARITY.
    pub unmap_granularity: Option<BlockCount>,
    /// UNMAP GRANULARITY ALIGNMENT: the address from which the granules count (with UGAVALID).
    pub unmap_alignment: Option<Lba>,
    /// MAXIMUM WRITE SAME LENGTH.
    pub max_write_same: Option<BlockCount>,
    /// MAXIMUM ATOMIC TRANSFER LENGTH.
    pub max_atomic: Option<BlockCount>,
    /// ATOMIC ALIGNMENT.
    pub atomic_alignment: Option<BlockCount>,
    /// ATOMIC TRANSFER LENGTH GRANULARITY.
    pub atomic_granularity: Option<BlockCount>,
    /// MAXIMUM ATOMIC TRANSFER LENGTH WITH ATOMIC BOUNDARY.
    pub max_atomic_bounded: Option<BlockCount>,
    /// MAXIMUM ATOMIC BOUNDARY SIZE.
    pub max_atomic_boundary: Option<BlockCount>,
}

/// UGAVALID, in front of the alignment's 31 bits.
const ALIGNMENT_VALID: u32 = 1 << 31;

impl BlockLimits {
    /// True if the unit says that it has COMPARE AND WRITE on at least `blocks` blocks at once. Without this it has none;
    /// with it, it may still have none (tgt 1.0.85 says 128 and answers the command with 20/00): only a command that
    /// succeeded, or [`crate::opcodes`], proves it.
    pub fn claims_compare_and_write(&self, blocks: u8) -> bool {
        blocks != 0 && self.max_compare_and_write >= blocks
    }

    /// The largest transfer of one read or write, `own` if the unit tells none or more than that.
    pub fn transfer_up_to(&self, own: BlockCount) -> BlockCount {
        self.max_transfer.map_or(own, |max| max.min(own))
    }

    /// Reads the page.
    pub fn parse(bytes: &[u8]) -> Result<BlockLimits, ParseError> {
        let body: [u8; 60] = fixed(body("VPD page B0h", PageCode::BLOCK_LIMITS, bytes)?);
        let wire: WireLimits = zerocopy::transmute!(body);
        let alignment = wire.unmap_alignment.get();
        Ok(BlockLimits {
            write_same_needs_count: bit(wire.flags, 0),
            max_compare_and_write: wire.max_caw,
            granularity: count(u64::from(wire.granularity.get())),
            max_transfer: told(wire.max_transfer),
            optimal_transfer: told(wire.optimal_transfer),
            max_prefetch: told(wire.max_prefetch),
            max_unmap_blocks: told(wire.max_unmap_blocks),
            max_unmap_ranges: Some(wire.max_unmap_ranges.get()).filter(|n| *n != 0),
            unmap_granularity: told(wire.unmap_granularity),
            unmap_alignment: (alignment & ALIGNMENT_VALID != 0).then(|| Lba(u64::from(alignment & !ALIGNMENT_VALID))),
            max_write_same: count(wire.max_write_same.get()),
            max_atomic: told(wire.max_atomic),
            atomic_alignment: told(wire.atomic_alignment),
            atomic_granularity: told(wire.atomic_granularity),
            max_atomic_bounded: told(wire.max_atomic_bounded),
            max_atomic_boundary: told(wire.max_atomic_boundary),
        })
    }

    /// The page's bytes. Counts that do not fit their field are told as its largest value.
    pub fn to_bytes(&self) -> Vec<u8> {
        let alignment = self
            .unmap_alignment
            .map_or(0, |lba| ALIGNMENT_VALID | u32::try_from(lba.0).unwrap_or(u32::MAX) & !ALIGNMENT_VALID);
        let granularity = self.granularity.map_or(0, |n| u16::try_from(n.0).unwrap_or(u16::MAX));
        let wire = WireLimits {
            flags: flag(self.write_same_needs_count, 0),
            max_caw: self.max_compare_and_write,
            granularity: U16::new(granularity),
            max_transfer: tell(self.max_transfer),
            optimal_transfer: tell(self.optimal_transfer),
            max_prefetch: tell(self.max_prefetch),
            max_unmap_blocks: tell(self.max_unmap_blocks),
            max_unmap_ranges: U32::new(self.max_unmap_ranges.unwrap_or(0)),
            unmap_granularity: tell(self.unmap_granularity),
            unmap_alignment: U32::new(alignment),
            max_write_same: U64::new(self.max_write_same.map_or(0, |n| n.0)),
            max_atomic: tell(self.max_atomic),
            atomic_alignment: tell(self.atomic_alignment),
            atomic_granularity: tell(self.atomic_granularity),
            max_atomic_bounded: tell(self.max_atomic_bounded),
            max_atomic_boundary: tell(self.max_atomic_boundary),
        };
        page(PageCode::BLOCK_LIMITS, wire.as_bytes())
    }
}

fn count(blocks: u64) -> Option<BlockCount> {
    (blocks != 0).then_some(BlockCount(blocks))
}

fn told(field: U32) -> Option<BlockCount> {
    count(u64::from(field.get()))
}

fn tell(blocks: Option<BlockCount>) -> U32 {
    U32::new(blocks.map_or(0, |n| u32::try_from(n.0).unwrap_or(u32::MAX)))
}
