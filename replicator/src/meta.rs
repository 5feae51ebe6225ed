//! What a replica writes down about itself: superblocks, activity log, a bitmap for each peer.
//!
//! ```text
//!  layout      where things lie: at the end of the data's device, or on a device of their own
//!  superblock  A/B, checksummed, numbered: generations, flags, promises, what is known of each peer
//!  log         the activity log: extents of 4 MiB in which replicas may differ without a bit
//!  bitmap      a bit for 4 KiB to 1 MiB, for each peer: here the peer may differ from us    map  those of all volumes
//!  further     the volumes besides the first: where each has its bitmaps, and whose its disk is
//!  replica     the three together: what must be durable before what
//!  store       the same on a block device          audit  the look of an outsider
//!  vote        a tie-breaker's, in a file
//! ```
//!
//! **The invariant.** For every pair of replicas and every block in which they differ, on at least one of the
//! two the block is *covered*: its bit for the other is set, or its extent is hot (in the log). It is kept by four
//! rules, each of which every change of a block obeys, whoever asked for it (application, primary, resync):
//! 1. *Hot before data.* A block is written only when its extent is in the durable log. Prevents: a crash between two
//!    replicas' writes of a block, after which nobody knows that they differ.
//! 2. *Bits before cold.* An extent leaves the log only when every write in it is stable here, every peer was proved
//!    to hold it or has its bit, and those bits are durable. Prevents: the log forgets, the bit was only in memory.
//! 3. *Clear on proof.* A bit is cleared only when the peer was proved to hold what is here: by a write that it
//!    acknowledged as stable, or by a comparison. An agreement that there is nothing to do clears none.
//! 4. *Hot becomes dirty.* After a crash the bits of every hot extent are set for every peer, and are durable before
//!    the log is emptied.
//!
//! **Crash safety.** Superblocks are written alternately, each with a higher sequence, so a torn write costs only the
//! copy being written. The log is a ring of checksummed pages; only the newest can be torn, and what it would have
//! made hot was not written yet. Bitmaps lie in cells of one sector, which is atomic; a damaged cell counts as all set.
//!
//! Refuses: an unknown version or incompatible feature, a device smaller than its metadata says, a bitmap of more
//! than [`bitmap::MAX_BITS`] bits, a disk of a further volume that is not the one it was made with. The bytes are drawn in docs/formats/replica.md.

pub mod audit;
pub mod bitmap;
pub mod further;
pub mod layout;
pub mod log;
pub mod map;
pub mod replica;
pub mod store;
pub mod superblock;
pub mod vote;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

/// Bytes of a page of metadata.
pub const PAGE: u64 = 4096;

/// Why metadata cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetaError {
    /// Neither superblock is one.
    #[error("there is no replica here: neither superblock has its magic")]
    NotThere,
    /// Both superblocks are damaged.
    #[error("both superblocks are damaged; the replica must be made anew and synchronised in full")]
    Damaged,
    /// A newer program wrote it.
    #[error("the metadata is of version {version} with features {incompat:#x}; this program knows less")]
    Newer {
        /// The version found.
        version: u32,
        /// Its incompatible features.
        incompat: u64,
    },
    /// The device is smaller than what was written on it.
    #[error("the metadata describes {needed} bytes, the device has {len}")]
    TooSmall {
        /// What it needs.
        needed: u64,
        /// What there is.
        len: u64,
    },
    /// Sizes that cannot be.
    #[error("{0}")]
    Shape(&'static str),
    /// The replica has this volume, and nobody said which disk is its.
    #[error("the replica has volume {0}, and there is no disk for it")]
    NoDisk(u8),
    /// The disk of a volume is not the one that the replica was made with.
    #[error("the disk given for volume {volume} {}", said(found.as_ref()))]
    OtherDisk {
        /// Which.
        volume: u8,
        /// What it says of itself.
        found: Option<further::Label>,
    },
    /// The device failed.
    #[error("reading or writing metadata failed: {0}")]
    Io(#[from] block::IoError),
}

/// What a disk that is not the right one says of itself.
fn said(found: Option<&further::Label>) -> String {
    match found {
        None => "carries no label of a volume".to_owned(),
        Some(label) => {
            format!("is that of volume {} of another replica, or of this one: of {}", label.volume, label.node)
        }
    }
}

/// Bytes to be written at a place of the metadata.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Put {
    /// Where, in bytes from the start of the first volume's disk, or of the metadata's own; with a further volume's number in the upper
    /// bits (as in [`Volume::base`](crate::ids::Volume::base), in bytes) from the start of that one's.
    pub at: u64,
    /// What: whole sectors.
    pub bytes: Vec<u8>,
}

/// A change of metadata in two steps. Each is preceded and followed by a flush: `flush; first; flush; then; flush`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MetaWrite {
    /// What must be durable first.
    pub first: Vec<Put>,
    /// What relies on it.
    pub then: Vec<Put>,
}

/// Reads bytes of the metadata.
pub trait Reader {
    /// `len` bytes at `at`, a place as in [`Put::at`].
    fn read(&self, at: u64, len: u64) -> Result<Vec<u8>, MetaError>;
}
