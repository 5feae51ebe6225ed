//! Units of the block layer: a byte position, a byte count, a block number and a block size.
//!
//! Each is a newtype, so that a position is never added to a position and a block number is never
//! taken for bytes. Arithmetic that could wrap is offered as `checked_*` only; what comes from a
//! peer or a disk goes through those.

use std::fmt;

/// A position in bytes from the start of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteOffset(pub u64);

/// A count of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteLen(pub u64);

/// The number of a logical block, counted from the start of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lba(pub u64);

/// The size of a logical or physical block: a power of two, 512 to 4096 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockSize(u32);

impl ByteOffset {
    /// Start of the device.
    pub const ZERO: ByteOffset = ByteOffset(0);

    /// The position `len` further on, or `None` past 2^64.
    pub fn checked_add(self, len: ByteLen) -> Option<ByteOffset> {
        self.0.checked_add(len.0).map(ByteOffset)
    }

    /// The distance from `earlier` to `self`, or `None` if `earlier` lies behind.
    pub fn checked_since(self, earlier: ByteOffset) -> Option<ByteLen> {
        self.0.checked_sub(earlier.0).map(ByteLen)
    }

    /// True if the position is a multiple of `align`; false for `align` 0.
    pub fn is_aligned_to(self, align: u64) -> bool {
        align != 0 && self.0.is_multiple_of(align)
    }
}

impl ByteLen {
    /// No bytes.
    pub const ZERO: ByteLen = ByteLen(0);

    /// The sum, or `None` past 2^64.
    pub fn checked_add(self, more: ByteLen) -> Option<ByteLen> {
        self.0.checked_add(more.0).map(ByteLen)
    }

    /// The difference, or `None` if `less` is larger.
    pub fn checked_sub(self, less: ByteLen) -> Option<ByteLen> {
        self.0.checked_sub(less.0).map(ByteLen)
    }

    /// True if the count is a multiple of `align`; false for `align` 0.
    pub fn is_aligned_to(self, align: u64) -> bool {
        align != 0 && self.0.is_multiple_of(align)
    }

    /// The count as a memory size, or `None` where the address space is smaller.
    pub fn as_usize(self) -> Option<usize> {
        usize::try_from(self.0).ok()
    }

    /// The length of a slice.
    pub fn of(bytes: &[u8]) -> ByteLen {
        ByteLen::from_usize(bytes.len())
    }

    /// A memory size as a count; lossless on every platform Linux runs on.
    pub fn from_usize(len: usize) -> ByteLen {
        ByteLen(len as u64)
    }
}

impl Lba {
    /// Where the block begins, or `None` past 2^64.
    pub fn to_offset(self, block: BlockSize) -> Option<ByteOffset> {
        self.0.checked_mul(block.bytes()).map(ByteOffset)
    }

    /// The block that contains `at`.
    pub fn containing(at: ByteOffset, block: BlockSize) -> Lba {
        Lba(at.0 / block.bytes())
    }
}

impl BlockSize {
    /// 512 bytes, the smallest.
    pub const B512: BlockSize = BlockSize(512);
    /// 4096 bytes, the largest and the allocation unit of the shared volume.
    pub const B4096: BlockSize = BlockSize(4096);

    /// A block size, or `None` unless it is a power of two from 512 to 4096.
    pub fn new(bytes: u32) -> Option<BlockSize> {
        (bytes.is_power_of_two() && (512..=4096).contains(&bytes)).then_some(BlockSize(bytes))
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// The size in bytes as the 32-bit number that formats store.
    pub fn get(self) -> u32 {
        self.0
    }

    /// The size in bytes as a memory size.
    pub fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ByteOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}", self.0)
    }
}

impl fmt::Display for ByteLen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0)
    }
}

impl fmt::Display for Lba {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {}", self.0)
    }
}

impl fmt::Display for BlockSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-byte blocks", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_size_is_a_power_of_two_from_512_to_4096() {
        for bytes in [512, 1024, 2048, 4096] {
            assert_eq!(BlockSize::new(bytes).map(BlockSize::get), Some(bytes));
        }
        for bytes in [0, 1, 256, 513, 3072, 8192, u32::MAX] {
            assert_eq!(BlockSize::new(bytes), None, "{bytes}");
        }
    }

    #[test]
    fn arithmetic_never_wraps() {
        assert_eq!(ByteOffset(u64::MAX).checked_add(ByteLen(1)), None);
        assert_eq!(ByteOffset(1).checked_since(ByteOffset(2)), None);
        assert_eq!(ByteLen(1).checked_sub(ByteLen(2)), None);
        assert_eq!(Lba(u64::MAX).to_offset(BlockSize::B512), None);
        assert_eq!(Lba::containing(ByteOffset(4095), BlockSize::B512), Lba(7));
        assert!(!ByteLen(8).is_aligned_to(0));
    }
}
