//! SEEK_DATA and SEEK_HOLE: the mapping under a layout, a piece of the file at a time.
//!
//! Unwritten space is a hole, since it reads as zeroes; the end of the file is one too. Each piece is looked at under a
//! guard of its own, so a file that others change meanwhile is seen as it was piece by piece, as with reads.

use std::sync::Arc;

use super::DataPath;
use crate::client::inode::Inode;
use crate::client::session::{Caller, Errno};
use crate::core::client::map::Kind;
use crate::proto::Want;
use crate::types::*;

/// Blocks asked for at least: as many as a read may ask for. What is granted is usually the whole file.
const SPAN: u64 = 256;
/// `ENXIO`.
const ENXIO: i32 = rustix::io::Errno::NXIO.raw_os_error();

/// What is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seek {
    /// The next byte that was written.
    Data,
    /// The next byte that was not.
    Hole,
}

impl DataPath {
    /// The first place at or behind `offset` that is what is looked for. ENXIO at or behind the end, and if no data
    /// follows.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub(crate) async fn seek(
        &self,
        inode: &Arc<Inode>,
        offset: u64,
        what: Seek,
        caller: &Caller,
    ) -> Result<u64, Errno> {
        let mut at = offset;
        loop {
            let first = at / FS_BLOCK;
            let asked = BlockRange::new(first, first + SPAN);
            let guard = match self.guard_for_read(inode, asked) {
                Some(guard) => guard,
                None => self.get_layout(inode, asked, Want::Read, caller).await?,
            };
            let state = inode.state.lock();
            let size = state.map.size();
            if at >= size {
                return if what == Seek::Hole && offset < size { Ok(size) } else { Err(Errno(ENXIO)) };
            }
            let end = guard.range.end.0.min(size.div_ceil(FS_BLOCK));
            for piece in state.map.pieces(BlockRange::new(first, end)) {
                let data = matches!(piece.kind, Kind::Written { .. });
                if data == (what == Seek::Data) {
                    return Ok(at.max(piece.range.start.0 * FS_BLOCK));
                }
            }
            at = end * FS_BLOCK;
        }
    }
}
