//! Plain reads and writes of structures on the disk, from a thread that may block.

use std::sync::Arc;

use block::buf::AlignedBuf;
use block::device::{BlockDevice, Op};
use block::error::{IoError, IoErrorKind};
use block::sync::{Memory, run_batch};
use block::units::{ByteLen, ByteOffset};

use super::check::Areas;
use super::error::MetaError;
use crate::format::{CELL, Chosen, CopyState, LEASE, SLOT_COUNT, SLOTS, SUPERBLOCKS, Superblock, choose};

/// The largest single write-zeroes request: 64 MiB, so that a slow disk does not sit on one request for minutes.
const ZERO_STEP: u64 = 64 << 20;

/// Reads `len` bytes.
pub(super) fn read(dev: &Arc<dyn BlockDevice>, at: ByteOffset, len: u64) -> Result<AlignedBuf, IoError> {
    one(dev, Op::Read, at, Memory::from(ByteLen(len)))?.ok_or_else(IoError::dropped)
}

/// Writes bytes, a multiple of the logical block.
pub(super) fn write(dev: &Arc<dyn BlockDevice>, at: ByteOffset, bytes: &[u8]) -> Result<(), IoError> {
    one(dev, Op::Write { fua: false }, at, Memory::from(AlignedBuf::from_slice(bytes))).map(drop)
}

/// Puts all earlier writes on stable storage.
pub(super) fn flush(dev: &Arc<dyn BlockDevice>) -> Result<(), IoError> {
    one(dev, Op::Flush, ByteOffset::ZERO, Memory::from(ByteLen::ZERO)).map(drop)
}

/// Makes a range read as zeroes, by writing them where the device cannot do it itself.
pub(super) fn zero(dev: &Arc<dyn BlockDevice>, at: ByteOffset, len: ByteLen) -> Result<(), IoError> {
    let mut done = 0;
    while done < len.0 {
        let step = (len.0 - done).min(ZERO_STEP);
        let here = ByteOffset(at.0 + done);
        match one(dev, Op::WriteZeroes, here, Memory::from(ByteLen(step))) {
            Err(e) if e.kind == IoErrorKind::NotSupported => write_zeroes(dev, here, step)?,
            other => drop(other?),
        }
        done += step;
    }
    Ok(())
}

fn write_zeroes(dev: &Arc<dyn BlockDevice>, at: ByteOffset, len: u64) -> Result<(), IoError> {
    const CHUNK: u64 = 1 << 20;
    let mut done = 0;
    while done < len {
        let step = (len - done).min(CHUNK);
        let zeroes = AlignedBuf::zeroed(usize::try_from(step).unwrap_or(0));
        one(dev, Op::Write { fua: false }, ByteOffset(at.0 + done), Memory::from(zeroes))?;
        done += step;
    }
    Ok(())
}

/// Writes all three superblocks so that one good copy is there at every moment: B, flush, A and C, flush.
pub(super) fn write_superblocks(dev: &Arc<dyn BlockDevice>, superblock: &Superblock) -> Result<(), IoError> {
    let bytes = superblock.encode();
    write(dev, SUPERBLOCKS[1], &bytes)?;
    flush(dev)?;
    write(dev, SUPERBLOCKS[0], &bytes)?;
    write(dev, SUPERBLOCKS[2], &bytes)?;
    flush(dev)
}

/// Writes those copies of the superblock anew that are not good, and only those: what is good is never at risk.
pub(super) fn heal_superblocks(dev: &Arc<dyn BlockDevice>, chosen: &Chosen) -> Result<(), IoError> {
    let bytes = chosen.superblock.encode();
    let bad = chosen.copies.iter().zip(SUPERBLOCKS).filter(|(copy, _)| **copy != CopyState::Good);
    let mut any = false;
    for (_, at) in bad {
        write(dev, at, &bytes)?;
        any = true;
    }
    if any { flush(dev) } else { Ok(()) }
}

/// The three copies as they lie on the disk; `None` for one that cannot be read.
pub(super) fn read_superblocks(dev: &Arc<dyn BlockDevice>) -> [Option<AlignedBuf>; 3] {
    let len = dev.geometry().len.0;
    SUPERBLOCKS.map(|at| if at.0 + CELL <= len { read(dev, at, CELL).ok() } else { None })
}

/// Superblocks, lease block and slots. An error if no superblock can be used.
pub(super) fn read_areas(dev: &Arc<dyn BlockDevice>) -> Result<Areas, MetaError> {
    let copies = read_superblocks(dev);
    let [a, b, c] = &copies;
    let chosen = choose([a.as_deref(), b.as_deref(), c.as_deref()])?;
    let lease = read(dev, LEASE, CELL)?.to_vec();
    let slots = read(dev, SLOTS, CELL * u64::from(SLOT_COUNT))?.to_vec();
    Ok(Areas { chosen, lease, slots })
}

fn one(dev: &Arc<dyn BlockDevice>, op: Op, at: ByteOffset, memory: Memory) -> Result<Option<AlignedBuf>, IoError> {
    let done = run_batch(&**dev, vec![(op, at, memory)]).pop().ok_or_else(IoError::dropped)?;
    done.result?;
    Ok(done.buf)
}
