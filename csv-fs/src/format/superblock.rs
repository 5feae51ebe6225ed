//! The superblock: what a volume is, and where its metadata store lies.
//!
//! Three copies, each with a crc and a generation. A change writes copy B with a higher generation, flushes, then
//! A and C, and flushes; [`choose`] takes the newest good one. So a torn write costs at most the copy that was being
//! written, and one good copy always names ranges that exist.
//!
//! Written when a volume is formatted, and by the coordinator's metadata store when it grows (under its latch).

use std::fmt;

use block::device::Geometry;
use block::units::BlockSize;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

use super::raw::{RawSpan, RawSuper, SUPER_MAGIC, open, seal};
use super::{CELL, FIRST_RANGE, FormatError, MIN_VOLUME, RANGE_LEN, VERSION};
use crate::types::{FS_BLOCK, VolumeId};

const WHAT: &str = "superblock";

/// Metadata ranges a superblock can list.
pub const MAX_RANGES: usize = 128;
/// Reserved ranges it can list.
pub const MAX_NEXT: usize = 64;

/// Feature flags. A bit that is not known here may be ignored (`compat`), allows reading only (`ro_compat`), or makes
/// the volume unusable (`incompat`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Unknown bits do no harm.
    pub compat: u64,
    /// With unknown bits the volume must not be changed.
    pub ro_compat: u64,
    /// With unknown bits the volume must not be used.
    pub incompat: u64,
}

impl Features {
    /// `incompat`: the metadata store is whole only together with its redo log.
    pub const REDO_LOG: u64 = 1;
    /// The `incompat` bits this program knows.
    pub const KNOWN_INCOMPAT: u64 = Self::REDO_LOG;
    /// The `ro_compat` bits this program knows.
    pub const KNOWN_RO_COMPAT: u64 = 0;

    /// Whether the volume may be changed by this program.
    pub fn writable(self) -> bool {
        self.ro_compat & !Self::KNOWN_RO_COMPAT == 0
    }
}

/// The timing that all nodes of a volume share, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimingMs {
    /// Renewal of lease and slots.
    pub renew: u32,
    /// Metadata is suspended when the last good renewal began this long ago.
    pub suspend_after: u32,
    /// A challenger starts to fence.
    pub challenge_after: u32,
    /// A request that is outstanding this long makes the route drain.
    pub path_timeout: u32,
    /// A recall without progress is answered with eviction.
    pub recall: u32,
    /// The longest grace.
    pub grace: u32,
}

impl TimingMs {
    /// For real disks.
    pub const DEFAULT: TimingMs = TimingMs {
        renew: 1000,
        suspend_after: 8000,
        challenge_after: 12_000,
        path_timeout: 3000,
        recall: 5000,
        grace: 10_000,
    };
    /// For the demo and for tests.
    pub const FAST: TimingMs = TimingMs {
        renew: 250,
        suspend_after: 2000,
        challenge_after: 3000,
        path_timeout: 500,
        recall: 2000,
        grace: 2000,
    };
}

/// The name of a volume: 1 to 63 letters, digits, `-`, `_`, `.`; begins with neither `-` nor `.`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VolumeName(String);

impl VolumeName {
    /// Checks a name.
    pub fn new(name: &str) -> Result<VolumeName, FormatError> {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let ok = (1..=63).contains(&name.len()) && name.bytes().all(good) && !name.starts_with(['-', '.']);
        if ok { Ok(VolumeName(name.to_owned())) } else { Err(FormatError::BadName) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A run of 4096-byte blocks of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockSpan {
    /// First block.
    pub start: u64,
    /// Length.
    pub len: u64,
}

impl BlockSpan {
    /// First block after it.
    pub fn end(self) -> u64 {
        self.start + self.len
    }
}

/// The superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Raised by each change.
    pub generation: u64,
    /// Feature flags.
    pub features: Features,
    /// The volume's identity.
    pub volume: VolumeId,
    /// Its name.
    pub name: VolumeName,
    /// When it was made, in seconds since 1970.
    pub created_secs: u64,
    /// Its length in bytes, a multiple of 4096.
    pub volume_len: u64,
    /// The device's logical block.
    pub logical_block: BlockSize,
    /// How many nodes share it: bounds each node's grant.
    pub nodes: u32,
    /// Timing.
    pub timing: TimingMs,
    /// Bytes of the metadata ranges in use: no less than the store's length.
    pub meta_len: u64,
    /// Where the metadata store lies, in order. Never empty.
    pub ranges: Vec<BlockSpan>,
    /// Reserved and zeroed: what the store grows into next. May be empty until the next is reserved.
    pub next: Vec<BlockSpan>,
}

impl Superblock {
    /// The superblock of a new volume on a device of this shape; refuses one that cannot carry a volume.
    pub fn new(
        geometry: &Geometry,
        volume: VolumeId,
        name: VolumeName,
        nodes: u32,
        timing: TimingMs,
        created_secs: u64,
    ) -> Result<Superblock, FormatError> {
        if geometry.len.0 < MIN_VOLUME {
            return Err(FormatError::TooSmall { len: geometry.len.0 });
        }
        let first = BlockSpan { start: FIRST_RANGE.0 / FS_BLOCK, len: RANGE_LEN / FS_BLOCK };
        Ok(Superblock {
            generation: 1,
            features: Features { incompat: Features::REDO_LOG, ..Features::default() },
            volume,
            name,
            created_secs,
            volume_len: geometry.len.0 / FS_BLOCK * FS_BLOCK,
            logical_block: geometry.logical_block,
            nodes: nodes.max(1),
            timing,
            meta_len: 0,
            ranges: vec![first],
            next: vec![BlockSpan { start: first.end(), len: RANGE_LEN / FS_BLOCK }],
        })
    }

    /// All blocks of the volume.
    pub fn blocks(&self) -> u64 {
        self.volume_len / FS_BLOCK
    }

    /// Bytes that the metadata ranges hold.
    pub fn capacity(&self) -> u64 {
        self.ranges.iter().map(|r| r.len * FS_BLOCK).sum()
    }

    /// Bytes that lie reserved for growth.
    pub fn reserved_ahead(&self) -> u64 {
        self.next.iter().map(|r| r.len * FS_BLOCK).sum()
    }

    /// Whether the volume fits the device it was found on.
    pub fn fits(&self, geometry: &Geometry) -> Result<(), FormatError> {
        if geometry.len.0 < self.volume_len {
            return Err(FormatError::Shrunk { len: geometry.len.0, recorded: self.volume_len });
        }
        if geometry.logical_block != self.logical_block {
            return Err(FormatError::OtherBlockSize {
                found: geometry.logical_block.get(),
                recorded: self.logical_block.get(),
            });
        }
        Ok(())
    }

    /// The bytes of one copy (all three are the same).
    pub fn encode(&self) -> [u8; CELL as usize] {
        let mut raw = RawSuper {
            magic: SUPER_MAGIC,
            version: U32::new(VERSION),
            crc: U32::ZERO,
            generation: U64::new(self.generation),
            compat: U64::new(self.features.compat),
            ro_compat: U64::new(self.features.ro_compat),
            incompat: U64::new(self.features.incompat),
            uuid: self.volume.0.to_be_bytes(),
            name: [0; 64],
            created_secs: U64::new(self.created_secs),
            volume_len: U64::new(self.volume_len),
            logical_block: U32::new(self.logical_block.get()),
            nodes: U32::new(self.nodes),
            renew_ms: U32::new(self.timing.renew),
            suspend_after_ms: U32::new(self.timing.suspend_after),
            challenge_after_ms: U32::new(self.timing.challenge_after),
            path_timeout_ms: U32::new(self.timing.path_timeout),
            recall_ms: U32::new(self.timing.recall),
            grace_ms: U32::new(self.timing.grace),
            meta_len: U64::new(self.meta_len),
            range_count: U16::ZERO,
            next_count: U16::ZERO,
            reserved: [0; 4],
            ranges: [EMPTY_SPAN; MAX_RANGES],
            next: [EMPTY_SPAN; MAX_NEXT],
            tail: [0; 832],
        };
        raw.name[..self.name.0.len()].copy_from_slice(self.name.0.as_bytes());
        raw.range_count = put_spans(&mut raw.ranges, &self.ranges);
        raw.next_count = put_spans(&mut raw.next, &self.next);
        let mut bytes = [0; CELL as usize];
        bytes.copy_from_slice(raw.as_bytes());
        seal(&mut bytes);
        bytes
    }

    /// From the bytes of one copy. A good checksum of an unusable volume (newer, incompatible) is an error of its own.
    pub fn decode(bytes: &[u8]) -> Result<Superblock, FormatError> {
        let damaged = |why| FormatError::Damaged { what: WHAT, why };
        let raw: RawSuper = open(bytes, SUPER_MAGIC, WHAT)?;
        let features =
            Features { compat: raw.compat.get(), ro_compat: raw.ro_compat.get(), incompat: raw.incompat.get() };
        let unknown = features.incompat & !Features::KNOWN_INCOMPAT;
        if unknown != 0 {
            return Err(FormatError::Incompatible { bits: unknown });
        }
        let name_len = raw.name.iter().position(|b| *b == 0).unwrap_or(raw.name.len());
        let name = std::str::from_utf8(&raw.name[..name_len]).map_err(|_| damaged("its name is no text"))?;
        let superblock = Superblock {
            generation: raw.generation.get(),
            features,
            volume: VolumeId(u128::from_be_bytes(raw.uuid)),
            name: VolumeName::new(name)?,
            created_secs: raw.created_secs.get(),
            volume_len: raw.volume_len.get(),
            logical_block: BlockSize::new(raw.logical_block.get())
                .ok_or(FormatError::BlockSize { bytes: raw.logical_block.get() })?,
            nodes: raw.nodes.get().max(1),
            timing: TimingMs {
                renew: raw.renew_ms.get(),
                suspend_after: raw.suspend_after_ms.get(),
                challenge_after: raw.challenge_after_ms.get(),
                path_timeout: raw.path_timeout_ms.get(),
                recall: raw.recall_ms.get(),
                grace: raw.grace_ms.get(),
            },
            meta_len: raw.meta_len.get(),
            ranges: take_spans(&raw.ranges, raw.range_count.get()).ok_or(damaged("it counts too many ranges"))?,
            next: take_spans(&raw.next, raw.next_count.get()).ok_or(damaged("it counts too many ranges"))?,
        };
        superblock.check_spans()?;
        Ok(superblock)
    }

    /// A checksum proves what was written, not that it makes sense.
    fn check_spans(&self) -> Result<(), FormatError> {
        let damaged = |why| FormatError::Damaged { what: WHAT, why };
        let blocks = self.blocks();
        let inside = |s: &BlockSpan| s.len > 0 && s.start.checked_add(s.len).is_some_and(|end| end <= blocks);
        if !self.ranges.iter().chain(&self.next).all(inside) {
            return Err(damaged("a metadata range lies outside the volume"));
        }
        let mut spans: Vec<BlockSpan> = self.ranges.iter().chain(&self.next).copied().collect();
        spans.sort_unstable();
        if spans.windows(2).any(|w| w[0].end() > w[1].start) {
            return Err(damaged("two metadata ranges overlap"));
        }
        // Only now do they add up to no more than the volume.
        if self.ranges.is_empty() || self.meta_len > self.capacity() {
            return Err(damaged("its metadata ranges are shorter than the store"));
        }
        Ok(())
    }
}

const EMPTY_SPAN: RawSpan = RawSpan { start: U64::ZERO, len: U64::ZERO };

/// Fills the front of a table; what does not fit is not written, which [`crate::meta`] prevents by not growing then.
fn put_spans(table: &mut [RawSpan], spans: &[BlockSpan]) -> U16 {
    assert!(spans.len() <= table.len(), "a superblock lists at most {} ranges", table.len());
    for (raw, span) in table.iter_mut().zip(spans) {
        *raw = RawSpan { start: U64::new(span.start), len: U64::new(span.len) };
    }
    U16::new(u16::try_from(spans.len()).unwrap_or(u16::MAX))
}

fn take_spans(table: &[RawSpan], count: u16) -> Option<Vec<BlockSpan>> {
    let used = table.get(..usize::from(count))?;
    Some(used.iter().map(|s| BlockSpan { start: s.start.get(), len: s.len.get() }).collect())
}

/// The state of one copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// Good, and the newest.
    Good,
    /// Good, but of an earlier generation: its rewriting was cut off.
    Old {
        /// Its generation.
        generation: u64,
    },
    /// Not readable or not valid; why.
    Damaged(String),
}

/// The superblock that counts, and what each copy (A, B, C) was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The newest good copy.
    pub superblock: Superblock,
    /// The state of A, B and C.
    pub copies: [CopyState; 3],
}

impl Chosen {
    /// One sentence for each copy that is not as it should be.
    pub fn remarks(&self) -> Vec<String> {
        let names = ["A (at 0)", "B (at 64 KiB)", "C (at 512 MiB)"];
        let remark = |(state, name): (&CopyState, &str)| match state {
            CopyState::Good => None,
            CopyState::Old { generation } => Some(format!(
                "superblock {name} is of the earlier generation {generation}; the next coordinator writes it anew"
            )),
            CopyState::Damaged(why) => Some(format!(
                "superblock {name} is damaged ({why}); another copy is used, and the next coordinator writes it anew"
            )),
        };
        self.copies.iter().zip(names).filter_map(remark).collect()
    }
}

/// Chooses among the three copies as read from the disk (`None`: could not be read).
///
/// A good copy of a newer format or with unknown incompatible features decides alone: an older copy beside it is
/// what an unfinished upgrade left, and must not be used.
pub fn choose(copies: [Option<&[u8]>; 3]) -> Result<Chosen, FormatError> {
    let decoded = copies.map(|bytes| match bytes {
        Some(bytes) => Superblock::decode(bytes),
        None => Err(FormatError::Damaged { what: WHAT, why: "it cannot be read" }),
    });
    for result in &decoded {
        if let Err(
            refusal @ (FormatError::NewerVersion { .. }
            | FormatError::Incompatible { .. }
            | FormatError::BlockSize { .. }),
        ) = result
        {
            return Err(refusal.clone());
        }
    }
    let Some(best) = decoded.iter().flatten().max_by_key(|s| s.generation).cloned() else {
        let magic_somewhere = copies.iter().flatten().any(|bytes| bytes.starts_with(&SUPER_MAGIC));
        return Err(if magic_somewhere { FormatError::AllDamaged } else { FormatError::NotAVolume });
    };
    let states = decoded.map(|result| match result {
        Ok(s) if s.volume != best.volume => CopyState::Damaged(FormatError::OtherVolume { what: WHAT }.to_string()),
        Ok(s) if s.generation == best.generation => CopyState::Good,
        Ok(s) => CopyState::Old { generation: s.generation },
        Err(e) => CopyState::Damaged(e.to_string()),
    });
    Ok(Chosen { superblock: best, copies: states })
}
