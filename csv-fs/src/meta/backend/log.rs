//! The redo log's place on the disk, under the same latch as the database's pages.

use block::device::Op;
use block::sync::{Memory, run_batch};
use block::units::ByteOffset;

use super::Shared;
use crate::format::{Features, LOG, LOG_LEN, choose};
use crate::meta::check::Areas;
use crate::meta::disk;
use crate::meta::error::Result;
use crate::meta::redo::Append;

impl Shared {
    /// Puts a record onto stable storage.
    pub(in crate::meta) fn append(&self, record: Append) -> Result<()> {
        let _inside = self.enter()?;
        let buf = block::buf::AlignedBuf::from_slice(&record.bytes);
        let at = ByteOffset(LOG.0 + record.at as u64);
        self.writes();
        for done in run_batch(&*self.dev, vec![(Op::Write { fua: false }, at, Memory::from(buf))]) {
            self.note(done.result)?;
        }
        self.flush()
    }

    /// All of the log, as it lies on the disk.
    pub(in crate::meta) fn read_log(&self) -> Result<block::buf::AlignedBuf> {
        self.note(disk::read(&self.dev, LOG, LOG_LEN))
    }

    /// Superblocks, lease block and slots. The superblock is not written meanwhile.
    pub(in crate::meta) fn read_areas(&self) -> Result<Areas> {
        let _unchanged = self.superblock.lock();
        disk::read_areas(&self.dev)
    }

    /// Writes copies of the superblock anew that are damaged or old. Prevents: the next change of it, which begins with
    /// copy B, is cut off when B is the only good one.
    pub(in crate::meta) fn heal_superblocks(&self) -> Result<()> {
        let superblock = self.superblock.lock();
        let _inside = self.enter()?;
        let copies = disk::read_superblocks(&self.dev);
        let [a, b, c] = &copies;
        let chosen = choose([a.as_deref(), b.as_deref(), c.as_deref()])?;
        if chosen.superblock != *superblock {
            return Ok(());
        }
        self.note(disk::heal_superblocks(&self.dev, &chosen))
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
