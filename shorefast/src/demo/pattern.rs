//! The pattern that the demo writes: every 4 KiB block says who wrote it, where and in which version, and carries
//! a checksum. A block from elsewhere, of another writer, torn, stale or never written is recognised on reading.
//!
//! Called by the writers (fill, check) and by the verification at the end.

use std::fmt;

/// Size of one stamped block in bytes.
pub(crate) const BLOCK: usize = 4096;

const MAGIC: &[u8; 8] = b"SFdemo1\0";
const HEADER: usize = 48;

/// What a block says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamp {
    /// The node whose writer wrote it.
    pub(crate) node: u8,
    /// Which of the writer's files.
    pub(crate) file: u8,
    /// The block's place in the file, in units of [`BLOCK`].
    pub(crate) index: u64,
    /// How many times this place was written before, plus one.
    pub(crate) version: u64,
}

/// Why a block is not what it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Mismatch {
    /// All zeroes: never written, or lost.
    Zero,
    /// Not one of ours.
    Foreign,
    /// The checksum does not fit: torn or damaged.
    Torn(Stamp),
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::Zero => write!(f, "the block is all zeroes"),
            Mismatch::Foreign => write!(f, "the block was not written by the demo"),
            Mismatch::Torn(s) => {
                write!(f, "the checksum of block {} (node {}, version {}) does not fit", s.index, s.node, s.version)
            }
        }
    }
}

/// Fills one block.
pub(crate) fn fill(block: &mut [u8], stamp: Stamp) {
    debug_assert_eq!(block.len(), BLOCK);
    let mut state =
        stamp.index ^ stamp.version.rotate_left(24) ^ (u64::from(stamp.node) << 56) ^ (u64::from(stamp.file) << 48) | 1;
    for word in block[HEADER..].chunks_exact_mut(8) {
        // xorshift64: fast, and different for each stamp.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    block[..8].copy_from_slice(MAGIC);
    block[8] = stamp.node;
    block[9] = stamp.file;
    block[10..16].fill(0);
    block[16..24].copy_from_slice(&stamp.index.to_le_bytes());
    block[24..32].copy_from_slice(&stamp.version.to_le_bytes());
    block[32..HEADER].fill(0);
    let crc = crc32c::crc32c(block);
    block[32..36].copy_from_slice(&crc.to_le_bytes());
}

/// Reads one block's stamp, if it is whole.
pub(crate) fn check(block: &[u8]) -> Result<Stamp, Mismatch> {
    if block.len() != BLOCK || &block[..8] != MAGIC {
        return Err(if block.iter().all(|&b| b == 0) { Mismatch::Zero } else { Mismatch::Foreign });
    }
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| block[at + i]));
    let stamp = Stamp { node: block[8], file: block[9], index: word(16), version: word(24) };
    let stored = u32::from_le_bytes(std::array::from_fn(|i| block[32 + i]));
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&block[..32]), &[0; 4]), &block[36..]);
    if crc == stored { Ok(stamp) } else { Err(Mismatch::Torn(stamp)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { node: 2, file: 1, index: 77, version: 9 };

    #[test]
    fn a_filled_block_tells_its_stamp() {
        let mut b = vec![0; BLOCK];
        fill(&mut b, STAMP);
        assert_eq!(check(&b), Ok(STAMP));
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let mut b = vec![0; BLOCK];
        fill(&mut b, STAMP);
        for at in 0..BLOCK {
            b[at] ^= 1;
            assert!(check(&b).is_err(), "byte {at}");
            b[at] ^= 1;
        }
    }

    #[test]
    fn zeroes_are_told_from_foreign_data() {
        assert_eq!(check(&[0; BLOCK]), Err(Mismatch::Zero));
        assert_eq!(check(&[7; BLOCK]), Err(Mismatch::Foreign));
    }
}
