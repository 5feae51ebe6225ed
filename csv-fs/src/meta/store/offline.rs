//! The check of a volume that nobody has open, and its repair.
//!
//! A check changes nothing on the disk: the database is opened on top of it and what that writes stays in memory. It goes
//! from the outside in, and what cannot be used ends it there with one finding:
//!
//! ```text
//! superblocks, lease, slots ─► the database's own checksums and allocator ─► its checkpoint, the redo log taken in
//!   ─► every table
//! ```
//! A repair is a transaction on the store opened as a coordinator opens it. It needs no proof of an epoch, but one that
//! is stronger: that nobody has the volume open, nor can open it meanwhile ([`Unmounted`]).
//!
//! Refused: a volume of a newer version or with unknown features.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use block::device::BlockDevice;
use block::shared::{FileDisk, LiveLock, Nexuses, NodeId};
use redb::{Database, Durability};

use super::{Store, View};
use crate::format::{FormatError, SLOT_COUNT};
use crate::meta::backend::Shared;
use crate::meta::check::{self, Areas, Kind, Limits, Repair, Report, Watch};
use crate::meta::disk;
use crate::meta::error::{Fatal, MetaError, Result};
use crate::meta::latch::Latch;
use crate::meta::redo::{self, Checkpoint};
use crate::meta::repair;
use crate::meta::tables::Tables;
use crate::types::Timestamp;

/// Proof that no node has a volume open, and that none can open it as long as this exists: every node's LIVE lock, or a reservation
/// of the unit for one nexus.
pub struct Unmounted {
    _live: Vec<LiveLock>,
    _held: Option<Arc<dyn Nexuses>>,
}

impl Unmounted {
    /// Takes the LIVE lock of every node that a volume can have. The first one that is held is told: that node has the
    /// volume open.
    pub fn prove(disk: &FileDisk) -> std::io::Result<std::result::Result<Unmounted, NodeId>> {
        let mut live = Vec::new();
        for node in (1..=SLOT_COUNT).filter_map(NodeId::new) {
            match disk.try_lock_live(node)? {
                Some(lock) => live.push(lock),
                None => return Ok(Err(node)),
            }
        }
        Ok(Ok(Unmounted { _live: live, _held: None }))
    }

    /// From a unit that is held for one nexus of this process: call this only after [`Nexuses::alone`] has succeeded. Held as long
    /// as the unit is not left.
    pub(crate) fn by_reservation(nexuses: Arc<dyn Nexuses>) -> Unmounted {
        Unmounted { _live: Vec::new(), _held: Some(nexuses) }
    }

    /// For a device in memory, which nobody else has.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Unmounted {
        Unmounted { _live: Vec::new(), _held: None }
    }
}

impl std::fmt::Debug for Unmounted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unmounted").field("locks", &self._live.len()).finish_non_exhaustive()
    }
}

impl Store {
    /// Checks the volume on a disk. Blocks its thread.
    pub fn check_unmounted(
        dev: &Arc<dyn BlockDevice>,
        _proof: &Unmounted,
        limits: Limits,
        watch: &mut Watch<'_>,
    ) -> Result<Report> {
        let mut report = Report::default();
        let areas = match disk::read_areas(dev) {
            Ok(areas) => areas,
            Err(MetaError::Fatal(Fatal::Format(FormatError::AllDamaged))) => {
                report.add(Kind::Superblock, FormatError::AllDamaged.to_string(), None);
                return Ok(report);
            }
            Err(e) => return Err(e),
        };
        areas.chosen.superblock.fits(&dev.geometry())?;
        // A page that is not what the database wrote may make it panic; that is a finding, too.
        let looked = catch_unwind(AssertUnwindSafe(|| look(dev, &areas, limits, watch)));
        match looked {
            Ok(looked) => looked,
            Err(_) => {
                report.add(Kind::Database, "the database below the metadata store cannot be read", None);
                Ok(report)
            }
        }
    }

    /// Carries out repairs of a check that was just made. All of them, or none.
    pub fn repair_unmounted(
        dev: &Arc<dyn BlockDevice>,
        _proof: &Unmounted,
        repairs: &[Repair],
        now: Timestamp,
    ) -> Result<()> {
        let chosen = disk::read_areas(dev)?.chosen;
        let superblock = chosen.superblock.clone();
        if !superblock.features.writable() {
            let bits = superblock.features.ro_compat;
            return Err(FormatError::Incompatible { bits }.into());
        }
        superblock.fits(&dev.geometry())?;
        let (outside, inside): (Vec<Repair>, Vec<Repair>) =
            repairs.iter().cloned().partition(|r| *r == Repair::WriteSuperblocks);
        if !outside.is_empty() {
            disk::heal_superblocks(dev, &chosen)?;
        }
        if inside.is_empty() {
            return Ok(());
        }
        let store = Store::on(Shared::new(Arc::clone(dev), superblock, Arc::new(Latch::new()), true))?;
        store.inner.shared.declare_log()?;
        store.take_log_in()?;
        let txn = store.write()?;
        repair::apply(&mut Tables::open(&txn.txn, &txn.rows)?, &inside, now)?;
        txn.checkpoint()?;
        store.close()
    }

    /// As opening does, but without looking at what the counters say: they may be what is wrong.
    fn take_log_in(&self) -> Result<()> {
        let view = self.reader().view()?;
        let known = Checkpoint::load(&view.tables.counter)?;
        drop(view);
        let log = self.inner.shared.read_log()?;
        let volume = self.superblock().volume;
        let txn = self.write()?;
        if let Some(checkpoint) = known {
            let mut tables = Tables::open(&txn.txn, &txn.rows)?;
            for record in redo::records(&log, volume, checkpoint) {
                redo::rows(record).try_for_each(|row| tables.redo(row?))?;
            }
        }
        *self.inner.log.lock() = Some(redo::Tail::new(volume, redo::CAPACITY, known.unwrap_or_default()));
        txn.checkpoint()
    }
}

fn look(dev: &Arc<dyn BlockDevice>, areas: &Areas, limits: Limits, watch: &mut Watch<'_>) -> Result<Report> {
    let superblock = &areas.chosen.superblock;
    let mut report = Report::default();
    let Some(store) = open(dev, areas, &mut report)? else { return Ok(report) };
    let Some((view, log, checkpoint)) = take_log_in(&store, &mut report)? else { return Ok(report) };
    check::store(&view.tables, superblock, limits, &mut report, watch)?;
    if let Some(checkpoint) = checkpoint {
        check::lying_log(&view.tables, &log, superblock.volume, checkpoint, &mut report)?;
    }
    check::areas(areas, &view.tables, &mut report)?;
    Ok(report)
}

/// Opens the database and has it prove itself. `None` if it cannot be used; the finding says why.
fn open(dev: &Arc<dyn BlockDevice>, areas: &Areas, report: &mut Report) -> Result<Option<Store>> {
    let damaged = |report: &mut Report, why: String| {
        let what = format!("the database below the metadata store is damaged ({why}); nothing in it was looked at");
        report.add(Kind::Database, what, None);
        Ok(None)
    };
    let superblock = areas.chosen.superblock.clone();
    if superblock.meta_len == 0 {
        return damaged(report, "the superblock names none".to_owned());
    }
    let mut store = match Store::on(Shared::frozen(Arc::clone(dev), superblock)) {
        Ok(store) => store,
        Err(e) => return damaged(report, e.to_string()),
    };
    let before = checkpoint(&store);
    let proved = match store.database() {
        Some(database) => database.check_integrity(),
        None => return damaged(report, "it cannot be opened".to_owned()),
    };
    match proved {
        Err(e) => damaged(report, e.to_string()),
        // Without another checkpoint only the allocator was not up to date, which each opening mends.
        Ok(false) if before.is_none() || checkpoint(&store) != before => {
            damaged(report, "a page of it is not as it was written".to_owned())
        }
        Ok(_) => Ok(Some(store)),
    }
}

impl Store {
    fn database(&mut self) -> Option<&mut Database> {
        Arc::get_mut(&mut self.inner)?.db.as_mut()
    }
}

/// The checkpoint that the database is, if it can be read.
fn checkpoint(store: &Store) -> Option<Checkpoint> {
    let view = store.reader().view().ok()?;
    *store.inner.current.lock() = None;
    Checkpoint::load(&view.tables.counter).ok()?
}

type Taken = (Arc<View>, block::buf::AlignedBuf, Option<Checkpoint>);

/// Takes the redo log in, in memory. `None` if it cannot be; the finding says why.
fn take_log_in(store: &Store, report: &mut Report) -> Result<Option<Taken>> {
    let known = Checkpoint::load(&store.view()?.tables.counter)?;
    let log = store.inner.shared.read_log()?;
    let volume = store.superblock().volume;
    let mut txn = store.write()?;
    if let Some(checkpoint) = known {
        let mut tables = Tables::open(&txn.txn, &txn.rows)?;
        let taken = redo::records(&log, volume, checkpoint)
            .try_for_each(|record| redo::rows(record).try_for_each(|row| tables.redo(row?)));
        match taken {
            Err(e) if e.is_damage() => {
                report.add(Kind::RedoRow, format!("the redo log cannot be taken in: {e}"), None);
                return Ok(None);
            }
            taken => taken?,
        }
    }
    txn.txn.set_durability(Durability::None)?;
    txn.finish()?;
    Ok(Some((store.view()?, log, known)))
}
