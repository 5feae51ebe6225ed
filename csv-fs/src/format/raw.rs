//! The bytes of each structure, as they lie on the disk. Nothing outside `format` sees these types.
//!
//! All integers are little-endian and unaligned-safe; reserved bytes are written as zeroes and not looked at.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{CAW_BYTES, CELL, FormatError};

/// `SHOREFST`, in the first eight bytes of a superblock.
pub(super) const SUPER_MAGIC: [u8; 8] = *b"SHOREFST";
/// Of the lease block.
pub(super) const LEASE_MAGIC: [u8; 8] = *b"SHFLEASE";
/// Of a slot.
pub(super) const SLOT_MAGIC: [u8; 8] = *b"SHFSLOT\0";

/// A run of blocks of 4096 bytes.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawSpan {
    pub(super) start: U64,
    pub(super) len: U64,
}

/// Superblock: one cell.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawSuper {
    pub(super) magic: [u8; 8],
    pub(super) version: U32,
    pub(super) crc: U32,
    pub(super) generation: U64,
    pub(super) compat: U64,
    pub(super) ro_compat: U64,
    pub(super) incompat: U64,
    pub(super) uuid: [u8; 16],
    pub(super) name: [u8; 64],
    pub(super) created_secs: U64,
    pub(super) volume_len: U64,
    pub(super) logical_block: U32,
    pub(super) nodes: U32,
    pub(super) renew_ms: U32,
    pub(super) suspend_after_ms: U32,
    pub(super) challenge_after_ms: U32,
    pub(super) path_timeout_ms: U32,
    pub(super) recall_ms: U32,
    pub(super) grace_ms: U32,
    pub(super) meta_len: U64,
    pub(super) range_count: U16,
    pub(super) next_count: U16,
    pub(super) reserved: [u8; 4],
    pub(super) ranges: [RawSpan; 128],
    pub(super) next: [RawSpan; 64],
    pub(super) tail: [u8; 832],
}

/// Lease block: 512 bytes at the start of its cell.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawLease {
    pub(super) magic: [u8; 8],
    pub(super) version: U32,
    pub(super) crc: U32,
    pub(super) uuid: [u8; 16],
    pub(super) counter: U64,
    pub(super) nonce: U64,
    pub(super) epoch: U64,
    pub(super) incarnation: U64,
    pub(super) node: u8,
    pub(super) resigned: u8,
    pub(super) in_favour: u8,
    pub(super) address_len: u8,
    pub(super) reserved: [u8; 4],
    pub(super) address: [u8; 64],
    pub(super) tail: [u8; 376],
}

/// Slot: 512 bytes at the start of its cell.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawSlot {
    pub(super) magic: [u8; 8],
    pub(super) version: U32,
    pub(super) crc: U32,
    pub(super) uuid: [u8; 16],
    pub(super) counter: U64,
    pub(super) nonce: U64,
    pub(super) incarnation: U64,
    pub(super) fence_gen: U64,
    pub(super) boot_id: [u8; 16],
    pub(super) pid_start: U64,
    pub(super) pid: U32,
    pub(super) node: u8,
    pub(super) mark_by: u8,
    pub(super) reserved: [u8; 2],
    pub(super) peers_heard: U64,
    pub(super) mark_incarnation: U64,
    pub(super) mark_gen: U64,
    pub(super) answer: U64,
    pub(super) tail: [u8; 384],
}

const _: () = assert!(size_of::<RawSuper>() as u64 == CELL);
const _: () = assert!(size_of::<RawLease>() == CAW_BYTES);
const _: () = assert!(size_of::<RawSlot>() == CAW_BYTES);

/// Where the crc lies in each of the three.
const CRC_AT: usize = 12;

/// The crc32c of a structure whose crc field counts as zero.
pub(super) fn crc_of(bytes: &[u8]) -> u32 {
    let head = crc32c::crc32c(&bytes[..CRC_AT]);
    let zeroed = crc32c::crc32c_append(head, &[0; 4]);
    crc32c::crc32c_append(zeroed, &bytes[CRC_AT + 4..])
}

/// Writes the crc into an encoded structure.
pub(super) fn seal(bytes: &mut [u8]) {
    let crc = crc_of(bytes);
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Magic, then crc, then version: what every structure is checked for first. `bytes` may be longer.
pub(super) fn open<T: FromBytes + Immutable + KnownLayout>(
    bytes: &[u8],
    magic: [u8; 8],
    what: &'static str,
) -> Result<T, FormatError> {
    let damaged = |why| FormatError::Damaged { what, why };
    let bytes = bytes.get(..size_of::<T>()).ok_or(damaged("it is cut short"))?;
    if bytes[..8] != magic {
        return Err(damaged("its magic number is missing"));
    }
    let stored = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
    if stored != crc_of(bytes) {
        return Err(damaged("its checksum does not fit"));
    }
    let version = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    if version > super::VERSION {
        return Err(FormatError::NewerVersion { found: version });
    }
    T::read_from_bytes(bytes).map_err(|_| damaged("it is cut short"))
}
