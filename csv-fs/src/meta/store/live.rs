//! The check of a volume that is mounted: at its coordinator, of one moment.
//!
//! **The moment** is taken while no transaction is under way, since one is held: a view of what is committed, the redo
//! log as it lies on the disk, and how many records the store wrote to it since its checkpoint. So view and log must say
//! the same, row by row. The superblock is taken before the view: a range that the store sets aside is in its table
//! first, and in the superblock after.
//!
//! **Grants.** What clients hold and have not committed is not asked for. They map new blocks only from what the view
//! shows as granted to them, and a mapping that is not committed is not in the view: there those blocks are granted, and
//! exactly that. So a client that writes meanwhile changes nothing in what is proved.
//!
//! The view keeps its pages from being reused as long as the check goes on; the store grows by what is changed meanwhile.

use super::{Reader, View};
use crate::format::Superblock;
use crate::meta::check::{self, Limits, Report, Watch};
use crate::meta::error::{Fatal, MetaError, Result};
use crate::meta::redo::{Checkpoint, Tail};

/// See the module.
struct Moment {
    superblock: Superblock,
    view: View,
    log: block::buf::AlignedBuf,
    written: (Checkpoint, u64),
}

impl Reader {
    /// Checks what is committed now, and what lies on the disk beside the store. Blocks its thread for as long as it
    /// takes to read everything; commits wait for the reading of the redo log only.
    pub fn check(&self, limits: Limits, watch: &mut Watch<'_>) -> Result<Report> {
        let moment = self.moment()?;
        let mut report = moment.view.check(&moment.superblock, limits, watch)?;
        let volume = moment.superblock.volume;
        check::live_log(&moment.view.tables, &moment.log, volume, moment.written, &mut report)?;
        let areas = self.inner.shared.read_areas()?;
        check::areas(&areas, &moment.view.tables, &mut report)?;
        // What was read while the latch was tripped may be anything.
        if self.inner.shared.is_failed() {
            return Err(MetaError::Fatal(Fatal::Latched));
        }
        Ok(report)
    }

    fn moment(&self) -> Result<Moment> {
        let inner = &self.inner;
        let superblock = inner.shared.superblock();
        let nobody_else = inner.db()?.begin_write()?;
        // Not one that is kept: the commit before may not have dropped it yet.
        let view = inner.fresh_view()?;
        let log = inner.shared.read_log()?;
        let written = inner.log.lock().as_ref().map(|tail: &Tail| (tail.checkpoint(), tail.records()));
        nobody_else.abort()?;
        let written = written.ok_or(MetaError::Fatal(Fatal::Latched))?;
        Ok(Moment { superblock, view, log, written })
    }
}

impl View {
    /// Checks the state that this shows against the superblock of the same moment.
    pub fn check(&self, superblock: &Superblock, limits: Limits, watch: &mut Watch<'_>) -> Result<Report> {
        let mut report = Report::default();
        check::store(&self.tables, superblock, limits, &mut report, watch)?;
        Ok(report)
    }
}
