//! `copy_file_range(2)`, and what makes everything on this node stable.
//!
//! A copy reads and writes here, so that the data does not pass through the program: at each step as a read and a write
//! would, under the same rights.

use std::sync::Arc;
use std::time::Instant;

use block::buf::AlignedBuf;

use super::write::How;
use super::{DataPath, OpenFile};
use crate::client::inode::Inode;
use crate::client::session::{Caller, EIO, Errno};

/// At one step: as much as the kernel asks for at once.
const STEP: u64 = 1 << 20;
/// In one call; a caller goes on from there. Bounds for how long a signal waits.
const CALL_MAX: u64 = 64 << 20;

impl DataPath {
    /// Copies, fewer bytes only at the end of the source or after so many; tells how many. What was copied before a
    /// failure is told as if it had been all.
    ///
    /// # Cancel safety
    /// A dropped future may have copied a part.
    pub async fn copy(
        &self,
        (from, from_at): (&Arc<OpenFile>, u64),
        (to, to_at): (&Arc<OpenFile>, u64),
        len: u64,
        unprivileged: bool,
        caller: &Caller,
    ) -> Result<u64, Errno> {
        // In this order: who is of the next life finds its handles poisoned.
        let how = (unprivileged, self.life());
        if from.is_poisoned() || to.is_poisoned() {
            return Err(Errno(EIO));
        }
        let mut copied = 0;
        while copied < len.min(CALL_MAX) {
            let step = (len.min(CALL_MAX) - copied).min(STEP) as u32;
            match self.copy_step((from, from_at + copied), (to, to_at + copied), step, how, caller).await {
                Ok(0) => break,
                Ok(n) => copied += u64::from(n),
                Err(errno) if copied == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(copied)
    }

    async fn copy_step(
        &self,
        (from, from_at): (&Arc<OpenFile>, u64),
        (to, to_at): (&Arc<OpenFile>, u64),
        len: u32,
        (kill, life): (bool, u64),
        caller: &Caller,
    ) -> Result<u32, Errno> {
        let data = self.read_anywhere(&from.inode, from_at, len, caller).await?;
        if data.is_empty() {
            return Ok(0);
        }
        if to.is_poisoned() {
            return Err(Errno(EIO));
        }
        let how = How { kill, life, began: Instant::now(), doubtful: false };
        self.write_anywhere(&to.inode, Some(to_at), AlignedBuf::from_slice(&data), how, caller).await
    }

    /// Everything that was acknowledged on this node becomes stable.
    ///
    /// # Cancel safety
    /// A dropped future may have made a part stable.
    pub async fn sync_all(&self, caller: &Caller) -> Result<(), Errno> {
        let all: Vec<Arc<Inode>> = self.inodes.lock().values().cloned().collect();
        let mut result = Ok(());
        for inode in all {
            result = result.and(self.fsync(&inode, caller).await);
        }
        result
    }
}
