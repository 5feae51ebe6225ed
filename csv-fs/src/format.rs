//! What lies on the disk outside the metadata store: superblocks, the lease block, the slots.
//!
//! ```text
//! 0          superblock A                  192 KiB    slots of nodes 1..=64, one per 4096-byte cell
//! 64 KiB     superblock B                  1..65 MiB  witness area (not of this file system)
//! 128 KiB    lease block                   65 MiB     redo log of the metadata store
//! 512 MiB    superblock C                  66 MiB     first metadata range; the next one is reserved behind it
//!                                          the rest   data
//! ```
//!
//! This module encodes, decodes and recognises; it starts no I/O. Every structure is little-endian and carries a
//! crc32c over itself with the crc field zero. Lease block and slots are at most 512 bytes, because they change by
//! compare-and-write of one logical block; they carry the volume's id, so that a block of another volume that once
//! lay here is never believed.
//!
//! Refused: an unknown `incompat` feature (with a sentence that names it), a format version newer than
//! [`VERSION`], a logical block larger than 4096, a device smaller than [`MIN_VOLUME`]. docs/formats/volume.md
//! draws the bytes; a test freezes them.

mod describe;
#[cfg(test)]
mod fuzz;
mod lease;
mod raw;
mod recognise;
mod slot;
mod superblock;
#[cfg(test)]
mod tests;

pub use describe::{ReadAt, describe};
pub use lease::{LeaseBlock, Resigned};
pub use recognise::{Foreign, REPLICA, SCAN_HEAD, SCAN_TAIL, recognise};
pub use slot::{FenceMark, Slot};
pub use superblock::{
    BlockSpan, Chosen, CopyState, Features, MAX_NEXT, MAX_RANGES, Superblock, TimingMs, VolumeName, choose,
};

use block::shared::NodeId;
use block::units::ByteOffset;

/// Version of the format.
/// 1: first.
pub const VERSION: u32 = 1;

/// Bytes of a cell: the room that each structure has, whatever the logical block.
pub const CELL: u64 = 4096;

/// Bytes of a lease block or slot: they fit the smallest logical block.
pub const CAW_BYTES: usize = 512;

/// The three places of the superblock. The third is far from the first two, out of the way of whatever partitions
/// or formats the front of a disk by mistake.
pub const SUPERBLOCKS: [ByteOffset; 3] = [ByteOffset(0), ByteOffset(64 << 10), ByteOffset(512 << 20)];

/// The lease block.
pub const LEASE: ByteOffset = ByteOffset(128 << 10);

/// The slot of node 1.
pub const SLOTS: ByteOffset = ByteOffset(192 << 10);

/// The number of slots, one for each possible node.
pub const SLOT_COUNT: u8 = 64;

/// The redo log of the metadata store.
pub const LOG: ByteOffset = ByteOffset(65 << 20);

/// Its length: some 250 small commits between two checkpoints, and a replay of milliseconds.
pub const LOG_LEN: u64 = 1 << 20;

/// The first metadata range.
pub const FIRST_RANGE: ByteOffset = ByteOffset(66 << 20);

/// Length of the first metadata range, and of the first one reserved behind it.
pub const RANGE_LEN: u64 = 64 << 20;

/// The smallest device that is formatted.
pub const MIN_VOLUME: u64 = 1 << 30;

/// Where a node's slot lies.
pub fn slot_at(node: NodeId) -> ByteOffset {
    ByteOffset(SLOTS.0 + (u64::from(node.get()) - 1) * CELL)
}

/// Why a structure on the disk was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The magic number of none of the superblocks is there.
    #[error("this disk carries no shorefast volume")]
    NotAVolume,
    /// All superblocks are damaged.
    #[error("all three superblocks are damaged (at 0, 64 KiB and 512 MiB); restore one from a backup of the disk")]
    AllDamaged,
    /// A structure is damaged.
    #[error("the {what} is damaged: {why}")]
    Damaged {
        /// Which structure.
        what: &'static str,
        /// What does not fit.
        why: &'static str,
    },
    /// A structure belongs to another volume.
    #[error("the {what} belongs to another volume")]
    OtherVolume {
        /// Which structure.
        what: &'static str,
    },
    /// Written by a newer version.
    #[error("this volume has format version {found}; this program knows version {VERSION}: use a newer shorefast")]
    NewerVersion {
        /// The version on the disk.
        found: u32,
    },
    /// Unknown incompatible features.
    #[error(
        "this volume uses features that this program does not know (incompat bits {bits:#x}): use a newer shorefast"
    )]
    Incompatible {
        /// The unknown bits.
        bits: u64,
    },
    /// The device is smaller than a volume must be.
    #[error("the disk has {len} bytes; a volume needs at least {MIN_VOLUME} (1 GiB)")]
    TooSmall {
        /// Its length.
        len: u64,
    },
    /// The device is smaller than the volume on it.
    #[error(
        "the disk has {len} bytes, but its volume was made for {recorded}: the disk was shrunk, or it is not the same"
    )]
    Shrunk {
        /// The device's length.
        len: u64,
        /// The volume's.
        recorded: u64,
    },
    /// The logical block is not 512..=4096.
    #[error("the disk has logical blocks of {bytes} bytes; 512 to 4096 can be used")]
    BlockSize {
        /// Its logical block.
        bytes: u32,
    },
    /// The volume was made with another logical block.
    #[error("the disk has logical blocks of {found} bytes, but the volume was made for {recorded}")]
    OtherBlockSize {
        /// The device's.
        found: u32,
        /// The volume's.
        recorded: u32,
    },
    /// The name of a volume cannot be used.
    #[error("a volume's name has 1 to 63 letters, digits, '-', '_' or '.', and does not begin with '-' or '.'")]
    BadName,
    /// An address that does not fit the lease block.
    #[error("an address in the lease block has at most 64 bytes")]
    AddressTooLong,
}
