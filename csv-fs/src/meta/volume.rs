//! A disk as a whole: what lies on it, and making a volume of it.

use std::sync::Arc;

use block::buf::AlignedBuf;
use block::device::BlockDevice;
use block::shared::NodeId;
use block::units::{ByteLen, ByteOffset};

use super::error::{Fatal, Result};
use super::ops::Root;
use super::{Store, disk};
use crate::format::{
    CELL, Chosen, Foreign, LEASE, LeaseBlock, SCAN_HEAD, SCAN_TAIL, SLOT_COUNT, SUPERBLOCKS, Slot, Superblock,
    TimingMs, VolumeName, choose, recognise, slot_at,
};
use crate::types::{FS_BLOCK, VolumeId};

/// What a new volume shall be.
#[derive(Clone, Debug)]
pub struct FormatOptions {
    /// Its identity, random.
    pub volume: VolumeId,
    /// Its name.
    pub name: VolumeName,
    /// How many nodes will share it.
    pub nodes: u32,
    /// Timing, the same for all nodes.
    pub timing: TimingMs,
    /// The root directory.
    pub root: Root,
    /// The identity that [`identity`] gave for what is there and may be destroyed.
    pub wipe: Option<String>,
}

/// Reads the superblocks and chooses; the [`Chosen`] says which copies are damaged. Blocks its thread.
pub fn read_superblock(dev: &Arc<dyn BlockDevice>) -> Result<Chosen> {
    let copies = disk::read_superblocks(dev);
    let [a, b, c] = &copies;
    let chosen = choose([bytes(a), bytes(b), bytes(c)])?;
    chosen.superblock.fits(&dev.geometry())?;
    for remark in chosen.remarks() {
        tracing::warn!(volume = %chosen.superblock.volume, "{remark}");
    }
    Ok(chosen)
}

fn bytes(copy: &Option<AlignedBuf>) -> Option<&[u8]> {
    copy.as_deref()
}

/// Everything known that lies on a disk. Blocks its thread.
pub fn foreign(dev: &Arc<dyn BlockDevice>) -> Result<Vec<Foreign>> {
    let geometry = dev.geometry();
    let block = geometry.logical_block.bytes();
    let whole = geometry.len.0 / block * block;
    let head = disk::read(dev, ByteOffset::ZERO, whole.min(SCAN_HEAD as u64))?;
    let tail_len = whole.min(SCAN_TAIL as u64);
    let tail = disk::read(dev, ByteOffset(whole - tail_len), tail_len)?;
    let mut found = recognise(&head, &tail);
    // The third superblock alone is a shorefast volume too.
    if found.is_empty()
        && let Ok(chosen) = read_superblock(dev)
    {
        let (name, id) = (chosen.superblock.name, chosen.superblock.volume.to_string());
        found.push(Foreign { kind: "shorefast", what: format!("shorefast \"{name}\", {id}"), id });
    }
    Ok(found)
}

/// What `--wipe` must be given for these contents.
pub fn identity(found: &[Foreign]) -> String {
    found.iter().map(|f| f.id.as_str()).collect::<Vec<_>>().join("+")
}

impl Store {
    /// Makes a volume of a disk: empty slots, an empty lease block, an empty store, and last the superblocks; so a disk
    /// whose formatting was cut off carries no volume. Refuses a disk that carries anything known, unless
    /// `options.wipe` names it. Blocks its thread.
    pub fn format(dev: &Arc<dyn BlockDevice>, options: &FormatOptions) -> Result<Superblock> {
        let created_secs = u64::try_from(options.root.now.secs).unwrap_or(0);
        let superblock = Superblock::new(
            &dev.geometry(),
            options.volume,
            options.name.clone(),
            options.nodes,
            options.timing,
            created_secs,
        )?;
        let found = foreign(dev)?;
        let id = identity(&found);
        if !found.is_empty() && options.wipe.as_ref() != Some(&id) {
            return Err(Fatal::Occupied { found, id, given: options.wipe.clone() }.into());
        }
        wipe(dev, !found.is_empty())?;
        for span in superblock.ranges.iter().chain(&superblock.next) {
            disk::zero(dev, ByteOffset(span.start * FS_BLOCK), ByteLen(span.len * FS_BLOCK))?;
        }
        write_cells(dev, &superblock)?;
        let superblock = Store::initialise(Arc::clone(dev), &superblock, options.root)?;
        disk::write_superblocks(dev, &superblock)?;
        Ok(superblock)
    }
}

/// Takes away what would be recognised later: the superblock copies always; signatures at both ends if there were any.
fn wipe(dev: &Arc<dyn BlockDevice>, signatures: bool) -> Result<()> {
    for at in SUPERBLOCKS {
        disk::zero(dev, at, ByteLen(CELL))?;
    }
    if signatures {
        let len = dev.geometry().len.0 / FS_BLOCK * FS_BLOCK;
        disk::zero(dev, ByteOffset::ZERO, ByteLen(SCAN_HEAD as u64))?;
        disk::zero(dev, ByteOffset(len - SCAN_TAIL as u64), ByteLen(SCAN_TAIL as u64))?;
        let rest = dev.geometry().len.0 - len;
        disk::zero(dev, ByteOffset(len), ByteLen(rest))?;
    }
    disk::flush(dev)?;
    Ok(())
}

/// The lease block and all slots, each in its cell.
fn write_cells(dev: &Arc<dyn BlockDevice>, superblock: &Superblock) -> Result<()> {
    let cell = |bytes: &[u8]| {
        let mut cell = [0; CELL as usize];
        cell[..bytes.len()].copy_from_slice(bytes);
        cell
    };
    disk::write(dev, LEASE, &cell(&LeaseBlock::empty().encode(superblock.volume)?))?;
    for node in (1..=SLOT_COUNT).filter_map(NodeId::new) {
        disk::write(dev, slot_at(node), &cell(&Slot::empty(node).encode(superblock.volume)))?;
    }
    disk::flush(dev)?;
    Ok(())
}
