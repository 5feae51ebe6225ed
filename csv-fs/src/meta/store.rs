//! The store: opened by a new coordinator after the epoch before is over, used by one metadata thread and some
//! readers, left behind when the latch trips.
//!
//! ```text
//!            open(FencedEpoch)            close()  → the database is closed cleanly
//!   (disk) ───────────────────► open ──┤
//!                                         drop, or the latch tripped → the backend refuses everything, then it is
//!                                                                      dropped: its Drop would write
//! ```
//! - One [`Txn`] at a time; a second [`Store::write`] waits for the first. Every commit is durable when it returns, and
//!   no [`View`] shows it before: as a record in the [redo log](super::redo), or, when that has no room left, as a
//!   checkpoint of the database. A checkpoint keeps the next open quick (`quick_repair`), without exception.
//! - A [`Reader`] may live on any thread; each [`View`] is one committed state, shared by all who ask between two
//!   commits. No view is given once the latch is tripped: the database would go on serving what it has cached.
//! - After a commit that used up the reserved range, the next one is taken from free space in a transaction of its
//!   own, zeroed, and entered in the superblock; a crash in between is finished by the next open, which finds the
//!   range in table `metarange` but not in the superblock.

mod live;
mod offline;

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use block::device::BlockDevice;
use parking_lot::Mutex;
use redb::{Database, Durability, ReadTransaction, ReadableTable, WriteTransaction};

pub use self::offline::Unmounted;
use super::backend::{FencedBackend, Shared};
use super::error::{Fatal, MetaError, Result};
use super::latch::Latch;
use super::ops::{Ops, Root, State, VALUE_BYTES};
use super::reads::Limits;
use super::recent::Recent;
use super::redo::{self, Checkpoint, Rows, Tail};
use super::tables::{ReadTables, Tables};
use crate::core::office::FencedEpoch;
use crate::format::{BlockSpan, Superblock};
use crate::types::{Attr, FS_BLOCK, InodeNo, Timestamp};

/// Memory of the database's cache: what the coordinator of a volume with some 100 000 files touches (reference
/// figures in docs/benchmarks.md).
const CACHE_BYTES: usize = 64 << 20;

/// A store that cannot grow makes a checkpoint when what it has copied since the last is this part of it. Prevents: it runs
/// full of pages that nobody needs any more, and the reign ends; and the next, whatever is removed.
const COPIED: u64 = 16;

/// The metadata store of a volume, in the hands of its coordinator.
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    /// There until `close` takes it or all of this is dropped.
    db: Option<Database>,
    shared: Arc<Shared>,
    state: Mutex<State>,
    /// Where the next record of the redo log goes. `None` until the log was read.
    log: Mutex<Option<Tail>>,
    /// The view of the last commit, if somebody asked for one since. Emptied after a commit and before it is
    /// acknowledged, so whoever saw an acknowledgement sees its change.
    current: Mutex<Option<Arc<View>>>,
    recent: Recent,
    repaired: bool,
    /// Records that lay behind a damaged one when the log was read.
    cut_off: AtomicUsize,
}

/// One write transaction: any number of operations, then a commit. Dropped, it changes nothing.
pub struct Txn<'s> {
    store: &'s Store,
    txn: WriteTransaction,
    state: State,
    /// What was changed so far.
    rows: RefCell<Rows>,
}

/// Makes views; may be cloned and sent to reader threads.
#[derive(Clone)]
pub struct Reader {
    inner: Arc<Inner>,
}

/// One committed state of the volume.
pub struct View {
    pub(super) tables: ReadTables,
    pub(super) limits: Limits,
    /// See [`Recent`].
    number: u64,
    // Keeps the pages of this state from being reused.
    _txn: ReadTransaction,
}

impl Store {
    /// Opens the store of the volume that `superblock` describes, for the reign of `epoch`. The latch is that reign's.
    pub fn open(
        dev: Arc<dyn BlockDevice>,
        superblock: &Superblock,
        epoch: &FencedEpoch,
        latch: Arc<Latch>,
    ) -> Result<Store> {
        tracing::debug!(epoch = epoch.epoch().0, volume = %superblock.volume, "opening the metadata store");
        Store::open_unfenced(dev, superblock, latch)
    }

    /// Without a proof: for formatting and for tests, where nobody else can have the volume open.
    pub(super) fn open_unfenced(
        dev: Arc<dyn BlockDevice>,
        superblock: &Superblock,
        latch: Arc<Latch>,
    ) -> Result<Store> {
        superblock.fits(&dev.geometry())?;
        if superblock.meta_len == 0 {
            return Err(Fatal::Damaged("the superblock names no metadata store").into());
        }
        let mut store = Store::on(Shared::new(dev, superblock.clone(), latch, true))?;
        store.load()?;
        Ok(store)
    }

    /// Makes an empty store; used once, when the volume is formatted.
    pub(super) fn initialise(dev: Arc<dyn BlockDevice>, superblock: &Superblock, root: Root) -> Result<Superblock> {
        let store = Store::on(Shared::new(dev, superblock.clone(), Arc::new(Latch::new()), false))?;
        let mut txn = store.write()?;
        txn.run(root.now, |ops| ops.initialise(superblock, root))??;
        txn.checkpoint()?;
        let superblock = store.superblock();
        store.close()?;
        Ok(superblock)
    }

    fn on(shared: Arc<Shared>) -> Result<Store> {
        let repaired = Arc::new(AtomicBool::new(false));
        let noted = Arc::clone(&repaired);
        let db = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .set_repair_callback(move |_| noted.store(true, Ordering::Relaxed))
            .create_with_backend(FencedBackend(Arc::clone(&shared)))?;
        let repaired = repaired.load(Ordering::Relaxed);
        if repaired {
            tracing::warn!("the metadata store was not left by this program: all of it was read to open it");
        }
        let (state, log, current) = (Mutex::new(State::default()), Mutex::new(None), Mutex::new(None));
        Ok(Store {
            inner: Arc::new(Inner {
                db: Some(db),
                shared,
                state,
                log,
                current,
                recent: Recent::default(),
                repaired,
                cut_off: AtomicUsize::new(0),
            }),
        })
    }

    /// Whether opening had to read the whole store. Every commit prevents that, so it means that something else than
    /// a crash of this program befell it.
    pub fn was_repaired(&self) -> bool {
        self.inner.repaired
    }

    /// How many records of the redo log lay whole behind a damaged one when the store was opened. They are not replayed: with that one,
    /// changes that were acknowledged are lost. No crash leaves such a gap.
    pub fn cut_off(&self) -> usize {
        self.inner.cut_off.load(Ordering::Relaxed)
    }

    fn load(&mut self) -> Result<()> {
        self.inner.shared.heal_superblocks()?;
        self.inner.shared.declare_log()?;
        self.replay()?;
        let view = self.reader().view()?;
        *self.inner.state.lock() = State::load(&view.tables.counter)?;
        if view.tables.counter.get(VALUE_BYTES)?.is_none() {
            let mut txn = self.write()?;
            txn.run(Timestamp::default(), |ops| ops.count_values())??;
            txn.checkpoint()?;
        }
        let known = self.superblock();
        let mut lost = Vec::new();
        for row in view.tables.metarange.iter()? {
            let (start, len) = row?;
            let span = BlockSpan { start: start.value(), len: len.value() };
            if !known.ranges.contains(&span) && !known.next.contains(&span) {
                lost.push(span);
            }
        }
        drop(view);
        if !lost.is_empty() {
            self.reserve(&lost)?;
        }
        self.reserve_ahead()
    }

    /// Takes in what the last reign committed after its last checkpoint, and makes the next one.
    fn replay(&self) -> Result<()> {
        let view = self.reader().view()?;
        let known = Checkpoint::load(&view.tables.counter)?;
        drop(view);
        let log = self.inner.shared.read_log()?;
        let volume = self.superblock().volume;
        let mut txn = self.write()?;
        let mut records = 0_u64;
        if let Some(checkpoint) = known {
            let mut tables = Tables::open(&txn.txn, &txn.rows)?;
            for record in redo::records(&log, volume, checkpoint) {
                redo::rows(record).try_for_each(|row| tables.redo(row?))?;
                records += 1;
            }
            txn.state = State::load(&*tables.counter)?;
            let cut_off = redo::whole_after(&log, volume, checkpoint, records);
            if cut_off > 0 {
                tracing::error!(%volume, records, "a record of the redo log is damaged although {cut_off} later ones are whole");
            }
            self.inner.cut_off.store(cut_off, Ordering::Relaxed);
            tracing::debug!(records, generation = checkpoint.generation, "replayed the redo log");
        }
        *self.inner.log.lock() = Some(Tail::new(volume, redo::CAPACITY, known.unwrap_or_default()));
        // Always, whatever there was: its number by chance makes strangers of all records that lie in the log, and of one that somebody else still
        // has under way. Prevents: a record of the reign before lands late on the first of this one, and is taken for it.
        txn.checkpoint()
    }

    /// Begins a write transaction; waits for the one before.
    pub fn write(&self) -> Result<Txn<'_>> {
        if self.inner.shared.is_failed() {
            return Err(MetaError::Fatal(Fatal::Latched));
        }
        let txn = self.inner.db()?.begin_write()?;
        let state = self.inner.state.lock().clone();
        Ok(Txn { store: self, txn, state, rows: RefCell::default() })
    }

    /// For the reader threads.
    pub fn reader(&self) -> Reader {
        Reader { inner: Arc::clone(&self.inner) }
    }

    /// A view of what is committed now.
    pub fn view(&self) -> Result<Arc<View>> {
        self.inner.view()
    }

    /// What readers noted lately, for whoever must not wait for the disk.
    pub fn recent(&self) -> Recent {
        self.inner.recent.clone()
    }

    /// The superblock as it is on the disk now: it changes when the store grows.
    pub fn superblock(&self) -> Superblock {
        self.inner.shared.superblock()
    }

    /// The reign's latch.
    pub fn latch(&self) -> Arc<Latch> {
        Arc::clone(self.inner.shared.latch())
    }

    /// Closes the database cleanly, so that the next open has nothing to look at. Everything is committed already:
    /// this is a courtesy. If the latch was tripped, or a reader is left, it is left as a crash would leave it.
    pub fn close(self) -> Result<()> {
        self.write()?.checkpoint()?;
        self.inner.recent.close();
        let Some(mut inner) = Arc::into_inner(self.inner) else {
            return Ok(());
        };
        *inner.current.lock() = None;
        let result = inner.db.take().map_or(Ok(()), Database::close);
        inner.shared.latch().trip();
        Ok(result?)
    }

    /// Reserves the next range if the last one was used up or never could be. Less than wanted is taken if the volume
    /// has no more; nothing at all is no error until the store must grow.
    fn reserve_ahead(&self) -> Result<()> {
        let want = self.inner.shared.wanted_ahead() / FS_BLOCK;
        if want == 0 {
            return Ok(());
        }
        let mut txn = self.write()?;
        let spans = txn.run(Timestamp::default(), |ops| ops.take_metadata_ranges(want))??;
        if spans.is_empty() {
            return Ok(());
        }
        txn.checkpoint()?;
        self.reserve(&spans)
    }

    /// Zeroes and records spans that table `metarange` already has. The view of now counts them as data.
    fn reserve(&self, spans: &[BlockSpan]) -> Result<()> {
        self.inner.shared.reserve(spans)?;
        *self.inner.current.lock() = None;
        Ok(())
    }
}

impl Drop for Inner {
    /// What the database writes when it is dropped must not reach the disk: the next coordinator may have it by now. It is
    /// dropped all the same, since it holds the disk open, and this node's LIVE lock with it.
    fn drop(&mut self) {
        self.shared.refuse_everything();
        self.recent.close();
    }
}

impl Inner {
    fn db(&self) -> Result<&Database> {
        self.db.as_ref().ok_or(MetaError::Fatal(Fatal::Latched))
    }

    fn view(&self) -> Result<Arc<View>> {
        if self.shared.is_failed() {
            return Err(MetaError::Fatal(Fatal::Latched));
        }
        // Made under the lock: a view begun before a commit is never kept after it.
        let mut current = self.current.lock();
        if let Some(view) = &*current {
            return Ok(Arc::clone(view));
        }
        let view = Arc::new(self.fresh_view()?);
        *current = Some(Arc::clone(&view));
        Ok(view)
    }

    /// A view made now, whatever was kept.
    fn fresh_view(&self) -> Result<View> {
        let number = self.recent.number();
        let txn = redb::ReadableDatabase::begin_read(self.db()?)?;
        let limits = Limits::of(&self.shared.superblock());
        Ok(View { tables: ReadTables::open(&txn)?, limits, number, _txn: txn })
    }
}

impl Reader {
    /// A view of what is committed now.
    pub fn view(&self) -> Result<Arc<View>> {
        self.inner.view()
    }

    /// Has the attributes that `view` showed kept in memory, and the name by which they were found.
    pub fn note(&self, view: &View, name: Option<(InodeNo, &[u8])>, attr: &Attr) {
        self.inner.recent.note(view.number, name, attr);
    }
}

impl Txn<'_> {
    /// Runs operations at the time `now`. May be called several times.
    ///
    /// An operation that fails with [`MetaError::Errno`] or [`MetaError::Contradiction`] changed nothing, so the
    /// others may go on and be committed; after a fatal one the transaction must be dropped.
    pub fn run<T>(&mut self, now: Timestamp, work: impl FnOnce(&mut Ops<'_>) -> T) -> Result<T> {
        let limits = Limits::of(&self.store.superblock());
        let before = self.state.clone();
        let mut ops = Ops { t: Tables::open(&self.txn, &self.rows)?, s: &mut self.state, limits, now };
        let out = work(&mut ops);
        ops.save_state(&before)?;
        Ok(out)
    }

    /// Makes everything durable.
    pub fn commit(self) -> Result<()> {
        let store = self.store;
        let limits = Limits::of(&store.superblock());
        let record = store.inner.log.lock().as_mut().and_then(|tail| {
            let spare = limits.can_grow() || tail.copied() * FS_BLOCK < limits.file / COPIED;
            if spare { tail.append(&self.rows.borrow()) } else { None }
        });
        match record {
            Some(record) => self.log(record)?,
            None => self.checkpoint()?,
        }
        store.reserve_ahead()
    }

    /// The record first, then the database's memory: a view must not show what a crash could take back.
    fn log(mut self, record: redo::Append) -> Result<()> {
        self.store.inner.shared.append(record)?;
        self.txn.set_durability(Durability::None)?;
        self.finish()
    }

    /// Makes everything durable in the database itself, with all that was only in the log.
    fn checkpoint(mut self) -> Result<()> {
        let store = self.store;
        let mut log = store.inner.log.lock();
        let next = log.as_ref().map(Tail::checkpoint).unwrap_or_default().next()?;
        next.save(&mut Tables::open(&self.txn, &self.rows)?.counter)?;
        self.txn.set_quick_repair(true);
        self.finish()?;
        *log = Some(Tail::new(store.superblock().volume, redo::CAPACITY, next));
        Ok(())
    }

    fn finish(self) -> Result<()> {
        let inner = &self.store.inner;
        inner.recent.commit_begins(&self.rows.borrow());
        let committed = self.txn.commit();
        if committed.is_ok() {
            // Before the view is dropped: one made in between would be kept under a number that is over.
            inner.recent.commit_ended();
        }
        *inner.current.lock() = None;
        committed?;
        *inner.state.lock() = self.state;
        Ok(())
    }
}
