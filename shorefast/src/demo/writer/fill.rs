//! The image before the writers begin: preallocated, then filled with version 0 of every block, and made stable.
//!
//! Runs in a process of its own (hidden subcommand `demo-fill`).

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use block::buf::AlignedBuf;
use rustix::fs::{FallocateFlags, OFlags, fallocate};

use super::{IMAGE, SLOT_BLOCKS};
use crate::demo::pattern::{self, BLOCK, Stamp};

/// Blocks written at once (1 MiB).
const CHUNK_BLOCKS: u64 = 256;

/// Arguments of `demo-fill`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct FillArgs {
    /// Where the volume is mounted.
    #[arg(long)]
    pub(crate) mount: PathBuf,
    /// Slots in the image.
    #[arg(long)]
    pub(crate) slots: u64,
    /// How many writers share it.
    #[arg(long)]
    pub(crate) nodes: u8,
}

/// Makes the image.
pub(crate) fn fill(args: &FillArgs) -> io::Result<()> {
    let path = args.mount.join(IMAGE);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let direct = OFlags::DIRECT.bits() as i32;
    let file = OpenOptions::new().write(true).create_new(true).custom_flags(direct).open(&path)?;
    let blocks = args.slots * SLOT_BLOCKS;
    fallocate(&file, FallocateFlags::empty(), 0, blocks * BLOCK as u64)?;
    let mut at = 0;
    while at < blocks {
        let n = CHUNK_BLOCKS.min(blocks - at);
        let mut buf = AlignedBuf::zeroed(n as usize * BLOCK);
        for (i, block) in buf.chunks_exact_mut(BLOCK).enumerate() {
            let index = at + i as u64;
            let owner = u8::try_from(index / SLOT_BLOCKS % u64::from(args.nodes)).unwrap_or(0) + 1;
            pattern::fill(block, Stamp { node: owner, file: 0, index, version: 0 });
        }
        file.write_all_at(&buf, at * BLOCK as u64)?;
        at += n;
    }
    file.sync_all()
}
