//! A store that is only looked at: what the database writes when it is opened stays in memory, on top of a disk that
//! nothing changes. It ends with the process.

use std::sync::Arc;

use block::device::BlockDevice;

use super::{PAGE, Shared};
use crate::format::Superblock;
use crate::meta::error::{Fatal, Result};
use crate::meta::latch::Latch;

/// Pages that may be kept: opening and taking in the redo log change a few thousand. 128 MiB; beyond it the check ends
/// with an error instead of the host's memory.
const MAX_KEPT: usize = (128 << 20) / PAGE;

impl Shared {
    /// For looking at the store described by `superblock`, which nobody has open.
    pub(in crate::meta) fn frozen(dev: Arc<dyn BlockDevice>, superblock: Superblock) -> Arc<Shared> {
        // Not published either: a grown store is grown in memory.
        let made = Shared::made(dev, superblock, Arc::new(Latch::new()), false);
        Arc::new(Shared { frozen: true, ..made })
    }

    /// What is gathered stays gathered.
    pub(super) fn stay_small(&self) -> Result<()> {
        if self.pages.lock().gathered() > MAX_KEPT {
            return Err(Fatal::Damaged("looking at it changes more than can be kept in memory").into());
        }
        Ok(())
    }

    /// Zeroes on top of what a shrunk store left.
    pub(super) fn keep_zeroes(&self, from: u64, to: u64) -> Result<()> {
        let mut pages = self.pages.lock();
        for page in from / PAGE as u64..to.div_ceil(PAGE as u64) {
            pages.put(page, &[0; PAGE]);
        }
        Ok(())
    }
}
