//! The redo log's place on the disk, under the same latch as the database's pages.

use block::device::Op;
use block::sync::{Memory, run_batch};
use block::units::ByteOffset;

use super::Shared;
use crate::format::{Features, LOG, LOG_LEN};
use crate::meta::disk;
use crate::meta::error::Result;
use crate::meta::redo::Append;

impl Shared {
    /// Puts a record onto stable storage.
    pub(in crate::meta) fn append(&self, record: Append) -> Result<()> {
        let _inside = self.enter()?;
        let buf = block::buf::AlignedBuf::from_slice(&record.bytes);
        let at = ByteOffset(LOG.0 + record.at as u64);
        for done in run_batch(&*self.dev, vec![(Op::Write { fua: false }, at, Memory::from(buf))]) {
            self.note(done.result)?;
        }
        self.note(disk::flush(&self.dev))
    }

    /// All of the log, as it lies on the disk.
    pub(in crate::meta) fn read_log(&self) -> Result<block::buf::AlignedBuf> {
        self.note(disk::read(&self.dev, LOG, LOG_LEN))
    }

    /// Says in the superblock that the store is only whole together with its log, so that a program that does not know
    /// the log leaves the volume alone.
    pub(in crate::meta) fn declare_log(&self) -> Result<()> {
        let mut superblock = self.superblock.lock();
        if superblock.features.incompat & Features::REDO_LOG != 0 {
            return Ok(());
        }
        let _inside = self.enter()?;
        let mut changed = superblock.clone();
        changed.features.incompat |= Features::REDO_LOG;
        self.write_superblock(&mut superblock, changed)
    }
}
