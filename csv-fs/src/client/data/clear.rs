//! Holes made and ranges zeroed: `fallocate(2)` with PUNCH_HOLE and ZERO_RANGE.
//!
//! What the range covers of its first and last block in part is zeroed like any write to part of a block: under an
//! exclusive layout, the block's lock, and with hot writes kept out. Whole blocks are the coordinator's: it recalls
//! every layout on them first, ours included, so ours go back unasked.
//!
//! Prevents: a cut by another node comes between the look at the length and the zeroing, and the zeroes make the file
//! longer again. The length is looked at under the guard of a layout that a cut has to wait for, and what lies behind
//! it is left alone.
//!
//! As with writes, nothing that one life of this node accepted is done in the next: EIO.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::DataPath;
use super::disk::{Again, Fault};
use crate::client::inode::{Inode, wall_nanos};
use crate::client::session::{Caller, EIO, Errno};
use crate::core::client::map::Kind;
use crate::proto::{Clear, ClearInto, Reply, Request, Want};
use crate::types::*;

/// `EOPNOTSUPP`.
const EOPNOTSUPP: i32 = rustix::io::Errno::OPNOTSUPP.raw_os_error();

impl DataPath {
    /// These bytes become a hole: they read as zeroes, and the whole blocks among them are free space.
    ///
    /// # Cancel safety
    /// A dropped future may have cleared a part.
    pub async fn punch(&self, ino: InodeNo, offset: u64, len: u64, caller: &Caller) -> Result<(), Errno> {
        let (inode, life) = (self.inode(ino), self.session.life_of(caller));
        self.zero_edges(&inode, offset, len, (life, caller)).await?;
        self.clear(&inode, offset, len, ClearInto::Hole, (life, caller)).await
    }

    /// These bytes read as zeroes, and have space. Space and length first: without space nothing is zeroed.
    ///
    /// # Cancel safety
    /// A dropped future may have zeroed a part.
    pub async fn zero_range(
        &self,
        ino: InodeNo,
        offset: u64,
        len: u64,
        keep_size: bool,
        caller: &Caller,
    ) -> Result<(), Errno> {
        let (inode, life) = (self.inode(ino), self.session.life_of(caller));
        self.fallocate(ino, offset, len, keep_size, caller).await?;
        self.zero_edges(&inode, offset, len, (life, caller)).await?;
        self.clear(&inode, offset, len, ClearInto::Unwritten, (life, caller)).await
    }

    async fn clear(
        &self,
        inode: &Arc<Inode>,
        offset: u64,
        len: u64,
        into: ClearInto,
        (life, caller): (ClientId, &Caller),
    ) -> Result<(), Errno> {
        let end = FileBlock(offset.saturating_add(len) / FS_BLOCK);
        let mut range = BlockRange { start: FileBlock(offset.div_ceil(FS_BLOCK)), end };
        while !range.is_empty() {
            self.session.unless_given_up(caller, self.let_go(inode)).await?;
            let request = Request::Clear(Clear { ino: inode.ino, range, into });
            match self.session.call_of(life, caller, request).await? {
                Reply::Cleared(upto) if upto > range.start => range.start = upto,
                _ => return Err(Errno(EIO)),
            }
        }
        Ok(())
    }

    /// The parts of blocks at either end.
    async fn zero_edges(
        &self,
        inode: &Arc<Inode>,
        offset: u64,
        len: u64,
        of: (ClientId, &Caller),
    ) -> Result<(), Errno> {
        let end = offset.saturating_add(len);
        let head_end = end.min(offset.next_multiple_of(FS_BLOCK));
        if head_end > offset {
            self.zero_part(inode, offset, head_end, of).await?;
        }
        let tail = end - end % FS_BLOCK;
        if tail < end && tail >= head_end {
            self.zero_part(inode, tail, end, of).await?;
        }
        Ok(())
    }

    /// Zeroes `[from, to)`, which lies in one block, if that block holds data there inside the file.
    async fn zero_part(
        &self,
        inode: &Arc<Inode>,
        from: u64,
        to: u64,
        (life, caller): (ClientId, &Caller),
    ) -> Result<(), Errno> {
        let range = BlockRange::of_bytes(from, to - from);
        loop {
            let guard = self.get_layout(inode, range, Want::Exclusive, caller).await?;
            // Looked at under the guard: it is of this life or is gone.
            if self.session.client() != life {
                return Err(Errno(EIO));
            }
            let _range = self.session.unless_expired(caller, inode.ranges.lock(range)).await?;
            let _alone = self.session.unless_expired(caller, self.keep_hot_writes_out(inode)).await?;
            let (to, piece) = {
                let state = inode.state.lock();
                (to.min(state.map.size()), state.map.pieces(range).first().map(|p| p.kind))
            };
            let disk = match piece {
                Some(Kind::Written { shared: true, .. }) => return Err(Errno(EOPNOTSUPP)),
                Some(Kind::Written { disk, .. }) if from < to => disk.0 * FS_BLOCK,
                _ => return Ok(()),
            };
            let base = range.start.0 * FS_BLOCK;
            let zeroed = match self.disk_read(&guard, disk, FS_BLOCK as usize, caller).await {
                Ok(mut block) => {
                    block[(from - base) as usize..(to - base) as usize].fill(0);
                    let began = Instant::now();
                    let written = self.disk_write(&guard, disk, block, Again::Freely, caller).await;
                    if written.is_ok() {
                        self.recent.wrote(self.outstanding.here(), disk + (from - base), (to - from) as usize, began);
                    }
                    written.map_err(|(fault, _)| fault)
                }
                Err(fault) => Err(fault),
            };
            match zeroed {
                Ok(()) => {
                    inode.touch(wall_nanos());
                    inode.unflushed.store(true, Ordering::SeqCst);
                    self.list_dirty(inode);
                    return Ok(());
                }
                Err(Fault::Restart | Fault::InDoubt) => {}
                Err(Fault::Errno(errno)) => return Err(errno),
            }
        }
    }
}
