//! The units and identities of the file system. Nothing here does anything; every other module speaks in it.
//!
//! File and disk blocks are always [`FS_BLOCK`] bytes, whatever the device's logical block is.

use std::fmt;
use std::time::Duration;

use block::shared::{Incarnation, NodeId};
use serde::{Deserialize, Serialize};

/// The allocation unit in bytes.
pub const FS_BLOCK: u64 = 4096;

/// The longest name of a directory entry in bytes (`NAME_MAX`).
pub const NAME_MAX: usize = 255;

/// An inode number within a tree: 48 bits, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct InodeNo(pub u64);

impl InodeNo {
    /// The root directory.
    pub const ROOT: InodeNo = InodeNo(1);
}

impl fmt::Display for InodeNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ino {}", self.0)
    }
}

/// A block of a file, counted from its start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct FileBlock(pub u64);

/// A block of the volume, counted from its start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct DiskBlock(pub u64);

/// A number of blocks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct BlockCount(pub u64);

/// Half-open range of file blocks; `end == FileBlock(u64::MAX)` reaches past every end of file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct BlockRange {
    /// First block.
    pub start: FileBlock,
    /// First block after the range.
    pub end: FileBlock,
}

impl BlockRange {
    /// The whole file and whatever it may grow to.
    pub const ALL: BlockRange = BlockRange { start: FileBlock(0), end: FileBlock(u64::MAX) };

    /// `[start, end)`.
    pub const fn new(start: u64, end: u64) -> BlockRange {
        BlockRange { start: FileBlock(start), end: FileBlock(end) }
    }

    /// The blocks that `len` bytes from `offset` touch.
    pub fn of_bytes(offset: u64, len: u64) -> BlockRange {
        BlockRange::new(offset / FS_BLOCK, offset.saturating_add(len).div_ceil(FS_BLOCK))
    }

    /// Whether it holds no block.
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// Whether both share a block.
    pub fn overlaps(self, other: BlockRange) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Whether `other` lies inside.
    pub fn contains(self, other: BlockRange) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// What both share; may be empty.
    pub fn intersect(self, other: BlockRange) -> BlockRange {
        BlockRange { start: self.start.max(other.start), end: self.end.min(other.end) }
    }
}

/// What a mapped run of blocks holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum ExtentState {
    /// Data that was flushed before the mapping was committed.
    Written,
    /// Reserved space that reads as zeroes.
    Unwritten,
}

/// A run of file blocks on consecutive disk blocks. What no extent covers is a hole.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Extent {
    /// First block in the file.
    pub file: FileBlock,
    /// First block on the disk.
    pub disk: DiskBlock,
    /// Length.
    pub len: BlockCount,
    /// What it holds.
    pub state: ExtentState,
    /// Whether another file or snapshot refers to these blocks too (reference count > 1).
    pub shared: bool,
}

impl Extent {
    /// The file blocks it covers. What a peer sends may end beyond all numbers; there it ends at the last.
    pub fn range(&self) -> BlockRange {
        BlockRange::new(self.file.0, self.file.0.saturating_add(self.len.0))
    }
}

/// A run of disk blocks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct DiskRange {
    /// First block.
    pub start: DiskBlock,
    /// Length.
    pub len: BlockCount,
}

/// A time of an inode: seconds and nanoseconds since the epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Timestamp {
    /// Seconds; negative before 1970.
    pub secs: i64,
    /// Nanoseconds, below 1 000 000 000.
    pub nanos: u32,
}

impl Timestamp {
    /// From a duration since the epoch.
    pub fn from_epoch(d: Duration) -> Timestamp {
        Timestamp { secs: i64::try_from(d.as_secs()).unwrap_or(i64::MAX), nanos: d.subsec_nanos() }
    }
}

/// What `stat` shows of an inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attr {
    /// Number.
    pub ino: InodeNo,
    /// Type and permission bits, as in `st_mode`.
    pub mode: u32,
    /// Hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node, as the kernel encodes it.
    pub rdev: u32,
    /// Length in bytes.
    pub size: u64,
    /// Allocated blocks of [`FS_BLOCK`] bytes.
    pub blocks: BlockCount,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the data.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Birth.
    pub btime: Timestamp,
}

/// One life of one node's client of a volume.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ClientId {
    /// The node.
    pub node: NodeId,
    /// Which life.
    pub incarnation: Incarnation,
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} incarnation {}", self.node, self.incarnation.0)
    }
}

/// A volume's identity, random at format.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct VolumeId(pub u128);

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let x = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            x >> 96,
            (x >> 80) & 0xffff,
            (x >> 64) & 0xffff,
            (x >> 48) & 0xffff,
            x & 0xffff_ffff_ffff
        )
    }
}

impl std::str::FromStr for VolumeId {
    type Err = String;

    /// What [`Display`](fmt::Display) wrote.
    fn from_str(text: &str) -> Result<VolumeId, String> {
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        let read = (digits.len() == 32).then(|| u128::from_str_radix(&digits, 16).ok()).flatten();
        let id = read.map(VolumeId).filter(|id| id.to_string() == text);
        id.ok_or_else(|| format!("{text:?} is no identity of a volume"))
    }
}

/// An open file of one client; unique within its incarnation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct HandleId(pub u64);

/// A layout; given out by coordinators, unique within a volume (epoch in the upper 24 bits).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct LayoutId(pub u64);

/// What a layout allows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum LayoutMode {
    /// Reads, and aligned in-place writes of written, unshared extents, by many nodes.
    Shared,
    /// Also allocating, unwritten to written, growing, and sub-block writes; by one node.
    Exclusive,
}

/// The number of a client's binding to a coordinator; each new connection raises it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Bind(pub u64);

/// Which of a session's two slot tables.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum SlotTable {
    /// 64 slots; a request here may wait for recalls.
    Ordinary,
    /// 8 slots for commit, return, release; never waits for a recall, a lock or an ordinary request.
    Return,
}

/// A request slot of a session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct SlotRef {
    /// The table.
    pub table: SlotTable,
    /// The place in it.
    pub index: u8,
}

/// Slots in the ordinary table of a session.
pub const ORDINARY_SLOTS: u8 = 64;
/// Slots in the return table of a session.
pub const RETURN_SLOTS: u8 = 8;
