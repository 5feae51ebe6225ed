//! Before the coordinator itself makes a file longer, what lies behind its present end in its last block is zeroed on
//! the disk and flushed: else a truncate there and back would show old bytes. (A client that makes a file longer does
//! so under its own exclusive layout.) The change runs under an exclusive hold of the whole file, so nobody writes that
//! block meanwhile.

use std::sync::Arc;

use block::device::{BlockDevice, Op};
use block::error::IoError;
use block::sync::{Memory, run_batch};
use block::units::{ByteLen, ByteOffset};

use super::actor::StoreItem;
use crate::core::coord::StoreAsk;
use crate::meta::{MetaError, Reads, Store, Tail};
use crate::proto::Request;
use crate::types::{FS_BLOCK, InodeNo};

/// Zeroes what must be for the changes of this batch.
pub(super) fn zero_before_growth(
    store: &Store,
    device: &Arc<dyn BlockDevice>,
    batch: &[StoreItem],
) -> Result<(), MetaError> {
    let growing: Vec<(InodeNo, u64)> = batch.iter().filter_map(|item| grows(&item.ask)).collect();
    if growing.is_empty() {
        return Ok(());
    }
    let view = store.view()?;
    let mut zeroed = false;
    for (ino, size) in growing {
        // A file that is not there is the operation's to complain about.
        let Ok(attr) = view.getattr(ino) else { continue };
        if let Some(tail) = if attr.size < size { view.tail(ino)? } else { None } {
            zero(device, tail)?;
            zeroed = true;
        }
    }
    if zeroed {
        one(device, Op::Flush, ByteOffset::ZERO, Memory::Len(ByteLen::ZERO))?;
    }
    Ok(())
}

fn grows(ask: &StoreAsk) -> Option<(InodeNo, u64)> {
    let StoreAsk::Request { request, .. } = ask else { return None };
    match request {
        Request::Setattr { ino, set } => set.size.map(|size| (*ino, size)),
        Request::Fallocate { ino, offset, len, keep_size: false } => Some((*ino, offset.saturating_add(*len))),
        _ => None,
    }
}

fn zero(device: &Arc<dyn BlockDevice>, tail: Tail) -> Result<(), IoError> {
    let at = ByteOffset(tail.disk.0 * FS_BLOCK);
    let mut block = one(device, Op::Read, at, Memory::Len(ByteLen(FS_BLOCK)))?.ok_or_else(IoError::dropped)?;
    let from = usize::try_from(tail.from).unwrap_or(0).min(block.len());
    block[from..].fill(0);
    one(device, Op::Write { fua: false }, at, Memory::Buf(block)).map(drop)
}

fn one(
    device: &Arc<dyn BlockDevice>,
    op: Op,
    at: ByteOffset,
    memory: Memory,
) -> Result<Option<block::buf::AlignedBuf>, IoError> {
    let done = run_batch(&**device, vec![(op, at, memory)]).pop().ok_or_else(IoError::dropped)?;
    done.result?;
    Ok(done.buf)
}
