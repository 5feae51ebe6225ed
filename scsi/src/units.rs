//! Units and identities of SCSI: block addresses and counts, byte counts, keys, operation codes.
//!
//! Each is a newtype, so that a count of blocks is never sent where a count of bytes belongs. Arithmetic that could
//! wrap is offered as `checked_*` only.

use std::fmt;
use std::num::NonZeroU32;

/// The address of a logical block (LBA, SBC-3 4.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lba(pub u64);

/// A count of logical blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockCount(pub u64);

/// A count of bytes in one transfer. A transfer's length has 32 bits in every transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteCount(pub u32);

/// A count of bytes in a field of 16 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortByteCount(pub u16);

/// A run of logical blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BlockRange {
    /// Its first block.
    pub lba: Lba,
    /// How many there are.
    pub blocks: BlockCount,
}

/// Bytes of a logical block, as READ CAPACITY tells it; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockLen(NonZeroU32);

/// A reservation key (SPC-4 5.13): what an I_T nexus registers with. 0 is no key.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReservationKey(pub u64);

/// The operation code of a command, byte 0 of its descriptor block; see [`crate::cdb::op`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpCode(pub u8);

impl Lba {
    /// The address `count` blocks further on, or `None` past 2^64.
    pub fn checked_add(self, count: BlockCount) -> Option<Lba> {
        self.0.checked_add(count.0).map(Lba)
    }

    /// The blocks from `earlier` up to here, or `None` if `earlier` lies behind.
    pub fn checked_since(self, earlier: Lba) -> Option<BlockCount> {
        self.0.checked_sub(earlier.0).map(BlockCount)
    }
}

impl BlockCount {
    /// No blocks.
    pub const ZERO: BlockCount = BlockCount(0);

    /// The sum, or `None` past 2^64.
    pub fn checked_add(self, more: BlockCount) -> Option<BlockCount> {
        self.0.checked_add(more.0).map(BlockCount)
    }

    /// The bytes of that many blocks, or `None` where one transfer cannot carry them.
    pub fn to_bytes(self, block: BlockLen) -> Option<ByteCount> {
        let bytes = self.0.checked_mul(u64::from(block.get()))?;
        u32::try_from(bytes).ok().map(ByteCount)
    }
}

impl ByteCount {
    /// No bytes.
    pub const ZERO: ByteCount = ByteCount(0);

    /// The length of a slice, or `None` where one transfer cannot carry it.
    pub fn of(bytes: &[u8]) -> Option<ByteCount> {
        u32::try_from(bytes.len()).ok().map(ByteCount)
    }

    /// The count as a memory size; lossless on every platform Linux runs on.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Whole blocks in that many bytes, or `None` if a part of a block is left over.
    pub fn to_blocks(self, block: BlockLen) -> Option<BlockCount> {
        self.0.is_multiple_of(block.get()).then(|| BlockCount(u64::from(self.0 / block.get())))
    }
}

impl From<ShortByteCount> for ByteCount {
    fn from(short: ShortByteCount) -> ByteCount {
        ByteCount(u32::from(short.0))
    }
}

impl BlockRange {
    /// The run of `blocks` blocks from `lba` on.
    pub const fn new(lba: Lba, blocks: BlockCount) -> BlockRange {
        BlockRange { lba, blocks }
    }

    /// The block behind the last one, or `None` past 2^64.
    pub fn end(self) -> Option<Lba> {
        self.lba.checked_add(self.blocks)
    }
}

impl BlockLen {
    /// 512 bytes.
    pub const B512: BlockLen = BlockLen(NonZeroU32::new(512).unwrap());
    /// 4096 bytes.
    pub const B4096: BlockLen = BlockLen(NonZeroU32::new(4096).unwrap());

    /// A block length, or `None` for 0.
    pub fn new(bytes: u32) -> Option<BlockLen> {
        NonZeroU32::new(bytes).map(BlockLen)
    }

    /// The length in bytes.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl ReservationKey {
    /// No key: in REGISTER, it takes a registration away.
    pub const NONE: ReservationKey = ReservationKey(0);

    /// True for the value that is no key.
    pub fn is_none(self) -> bool {
        self == ReservationKey::NONE
    }
}

impl fmt::Display for Lba {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {}", self.0)
    }
}

impl fmt::Display for BlockCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} blocks", self.0)
    }
}

impl fmt::Display for BlockRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.blocks, self.lba)
    }
}

impl fmt::Display for ShortByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ByteCount::from(*self).fmt(f)
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0)
    }
}

impl fmt::Display for BlockLen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-byte blocks", self.0)
    }
}

impl fmt::Display for ReservationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

impl fmt::Debug for ReservationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReservationKey({self})")
    }
}

impl fmt::Display for OpCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}h", self.0)
    }
}

impl fmt::Debug for OpCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpCode({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_never_wraps() {
        assert_eq!(Lba(u64::MAX).checked_add(BlockCount(1)), None);
        assert_eq!(Lba(3).checked_since(Lba(4)), None);
        assert_eq!(BlockCount(u64::MAX).checked_add(BlockCount(1)), None);
        assert_eq!(BlockCount(u64::MAX).to_bytes(BlockLen::B512), None);
        assert_eq!(BlockCount(1 << 23).to_bytes(BlockLen::B512), None);
        assert_eq!(BlockCount((1 << 23) - 1).to_bytes(BlockLen::B512), Some(ByteCount(0xffff_fe00)));
    }

    #[test]
    fn bytes_are_blocks_only_if_nothing_is_left_over() {
        assert_eq!(ByteCount(4096).to_blocks(BlockLen::B512), Some(BlockCount(8)));
        assert_eq!(ByteCount(4097).to_blocks(BlockLen::B512), None);
        assert_eq!(BlockLen::new(0), None);
    }
}
