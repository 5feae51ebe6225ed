//! statfs: what the coordinator counts, less what this node has written and not committed.
//!
//! The coordinator counts granted blocks as free, since whoever needs them gets them; those that a write has filled are
//! granted until its commit. Prevents: a program writes, asks, and is told of space that it has used itself. What other
//! nodes have not committed yet (for about five seconds, or until close or fsync) is still told as free.

use std::sync::Arc;

use super::DataPath;
use crate::client::inode::Inode;
use crate::client::session::{Caller, EIO, Errno};
use crate::proto::{Reply, Request, Space};

/// So often the question is asked again when a commit came between; a node that commits all the time gets an answer too.
const TRIES: usize = 4;

impl DataPath {
    /// Space and numbers of files.
    ///
    /// # Cancel safety
    /// Safe: it changes nothing.
    pub async fn statfs(&self, caller: &Caller) -> Result<Space, Errno> {
        let mut tries = 0;
        loop {
            let told = self.told();
            let mut space = match self.session.call(caller, Request::Statfs).await? {
                Reply::Space(space) => space,
                _ => return Err(Errno(EIO)),
            };
            let written = self.uncounted();
            tries += 1;
            if self.told() == told || tries == TRIES {
                space.free = space.free.saturating_sub(written);
                return Ok(space);
            }
        }
    }

    /// Blocks filled here that the coordinator still counts as granted.
    fn uncounted(&self) -> u64 {
        let all: Vec<Arc<Inode>> = self.inodes.lock().values().cloned().collect();
        all.iter().map(|inode| inode.state.lock().map.new_blocks()).sum()
    }
}
