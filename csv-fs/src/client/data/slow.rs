//! Reads off the hot path, and how an operation comes by its layout.
//!
//! An operation that holds nothing asks for a layout and gets its first guard with the answer, so a recall that is
//! already on its way cannot take the layout before it was used once. Prevents: two nodes that want the same block
//! recall it from one another for ever without either using it.

use std::sync::Arc;

use block::buf::AlignedBuf;

use super::disk::Fault;
use super::{DataPath, OpenFile, ReadData, ReadTo};
use crate::client::counters::add;
use crate::client::inode::Inode;
use crate::client::layout::LayoutGuard;
use crate::client::session::{Caller, EIO, Errno};
use crate::core::client::Sweep;
use crate::core::client::map::{Kind, Piece};
use crate::proto::{Reply, Request, Want};
use crate::types::*;

/// The answer would not be one buffer: the kernel asks for no more than this, plus alignment.
const READ_MAX: u64 = (1 << 20) + 8192;

impl DataPath {
    pub(super) fn slow_read(&self, file: Arc<OpenFile>, offset: u64, size: u32, to: ReadTo, since: Sweep) {
        add(&self.counters().slow, 1);
        let Some(me) = self.me() else { return to.answer(Err(Errno(EIO))) };
        self.run(to.unique(), since, |caller| async move {
            to.answer(me.read_in_any_life(&file, offset, size, &caller).await);
        });
    }

    /// A read changes nothing: one that ended with a life of this node is done in the next, if its handle goes on.
    async fn read_in_any_life(
        &self,
        file: &OpenFile,
        offset: u64,
        size: u32,
        caller: &Caller,
    ) -> Result<ReadData, Errno> {
        loop {
            let life = self.life();
            self.session.next_life(caller).await?;
            if file.is_poisoned() {
                return Err(Errno(EIO));
            }
            match self.read_anywhere(&file.inode, offset, size, caller).await {
                Err(Errno(EIO)) if self.session.settled(|| self.life()) != life => {}
                done => return done,
            }
        }
    }

    pub(super) async fn read_anywhere(
        &self,
        inode: &Arc<Inode>,
        offset: u64,
        size: u32,
        caller: &Caller,
    ) -> Result<ReadData, Errno> {
        let asked = BlockRange::of_bytes(offset, u64::from(size));
        loop {
            let guard = match self.guard_for_read(inode, asked) {
                Some(guard) => guard,
                None => self.get_layout(inode, asked, Want::Read, caller).await?,
            };
            match self.read_under(inode, &guard, offset, size, caller).await {
                Ok(data) => return Ok(data),
                Err(Fault::Errno(errno)) => return Err(errno),
                Err(Fault::Restart | Fault::InDoubt) => {}
            }
        }
    }

    pub(super) fn guard_for_read(&self, inode: &Inode, range: BlockRange) -> Option<LayoutGuard> {
        let cell = {
            let mut state = inode.state.lock();
            inode.missed(&mut state);
            state.covering(range, false, None).cloned()
        };
        cell?.guard()
    }

    async fn read_under(
        &self,
        inode: &Inode,
        guard: &LayoutGuard,
        offset: u64,
        size: u32,
        caller: &Caller,
    ) -> Result<ReadData, Fault> {
        let (end, pieces) = {
            let state = inode.state.lock();
            let end = state.map.size().min(offset.saturating_add(u64::from(size)));
            (end, if end > offset { state.map.pieces(BlockRange::of_bytes(offset, end - offset)) } else { Vec::new() })
        };
        if end <= offset {
            return Ok(ReadData { buf: AlignedBuf::with_capacity(0), part: 0..0 });
        }
        let start = offset - offset % self.logical;
        let stop = end.next_multiple_of(self.logical);
        if stop - start > READ_MAX {
            return Err(Fault::Errno(Errno(EIO)));
        }
        let part = (offset - start) as usize..(end - start) as usize;
        if let [Piece { kind: Kind::Written { disk, .. }, range }] = pieces[..] {
            let at = disk.0 * FS_BLOCK + (start - range.start.0 * FS_BLOCK);
            let buf = self.disk_read(guard, at, (stop - start) as usize, caller).await?;
            return Ok(ReadData { buf, part });
        }
        let mut buf = AlignedBuf::zeroed((stop - start) as usize);
        for piece in pieces {
            let Kind::Written { disk, .. } = piece.kind else { continue };
            let from = (piece.range.start.0 * FS_BLOCK).max(start);
            let to = (piece.range.end.0 * FS_BLOCK).min(stop);
            let at = disk.0 * FS_BLOCK + (from - piece.range.start.0 * FS_BLOCK);
            let got = self.disk_read(guard, at, (to - from) as usize, caller).await?;
            buf[(from - start) as usize..(to - start) as usize].copy_from_slice(&got);
        }
        Ok(ReadData { buf, part })
    }

    /// A layout over at least `range`, with its first guard. The caller holds nothing.
    pub(super) async fn get_layout(
        &self,
        inode: &Arc<Inode>,
        range: BlockRange,
        want: Want,
        caller: &Caller,
    ) -> Result<LayoutGuard, Errno> {
        let _one = self.session.unless_given_up(caller, inode.asking.lock()).await?;
        // Whoever asked before may have brought what is wanted; a shared one does not do for every write, so only
        // readers and those who want it exclusive look.
        if want != Want::Write {
            let cell = inode.state.lock().covering(range, want == Want::Exclusive, None).cloned();
            if let Some(guard) = cell.and_then(|c| c.guard()) {
                return Ok(guard);
            }
        }
        let answered = self.session.ask(caller, Request::LayoutGet { ino: inode.ino, range, want }).await?;
        match (answered.reply, answered.guard) {
            (Reply::Layout(_), Some(guard)) => Ok(guard),
            _ => Err(Errno(EIO)),
        }
    }
}
