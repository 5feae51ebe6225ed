//! The database's storage: ranges of the shared disk, written only while this node's latch is armed.
//!
//! Writes are gathered in memory as 4096-byte pages and go to the device in one batch at `sync_data`, followed by a
//! flush; so a durable commit costs two batches and two flushes, whatever it changed. (Most commits only append to the redo
//! log, which `log` puts on the disk.) A read sees the gathered pages first,
//! then those that are being written, then the device. The database's header is shorter than a page: it is patched
//! into its page in memory.
//!
//! States: *good*, and *failed* for ever after the latch was tripped or the device failed a request. A failed backend
//! refuses every call, so the database can be dropped then, although its Drop tries to write.
//!
//! Length: the store's length is the smallest that the superblock records, no less than what the database asked for.
//! Growing goes into the metadata ranges, then into the range reserved ahead (moved to the ranges by one superblock
//! write), so that growing never asks the store that grows. Shrinking is remembered in memory only: a recorded length
//! that is too large makes the database recompute its layout when it is opened, nothing else.
//!
//! Interleaving prevented: a page write or sync that passes the latch is inside it until the device has answered, so
//! whoever tripped the latch can wait for the last one before it resigns.
//!
//! Another: pages are written; the disk loses its cache, and tells so to a flush that is not the store's (a program's fsync on the
//! same node); the store's own flush succeeds, and a commit is acknowledged whose pages are gone. So a flush is believed only if
//! the device told no loss since the first write before it.

mod frozen;
mod log;
mod pages;
mod space;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use block::device::{BlockDevice, Op};
use block::error::{IoError, IoErrorKind};
use block::sync::{Memory, run_batch};
use block::units::{ByteLen, ByteOffset};
use parking_lot::Mutex;
use redb::StorageBackend;

use super::disk;
use super::error::{Fatal, MetaError, Result};
use super::latch::{Inside, Latch};
use crate::format::{BlockSpan, MAX_NEXT, Superblock};
use crate::types::FS_BLOCK;
use pages::{PAGE, Pages};
use space::Ranges;

/// Gathered pages are written out early (without a flush) above this, so that one huge transaction cannot take
/// unbounded memory: 64 MiB.
const MAX_GATHERED: usize = (64 << 20) / PAGE;

/// What the backend and the store share.
pub(super) struct Shared {
    dev: Arc<dyn BlockDevice>,
    latch: Arc<Latch>,
    failed: AtomicBool,
    superblock: Mutex<Superblock>,
    /// False while a volume is being made: its superblocks come last.
    published: bool,
    /// Nothing reaches the device: see `frozen`.
    frozen: bool,
    ranges: Mutex<Ranges>,
    pages: Mutex<Pages>,
    /// Held while pages travel, so that two write-outs never carry the same page in unknown order.
    writing: Mutex<()>,
    /// The device's count of losses before the first write that no flush has covered.
    unflushed: Mutex<Option<u64>>,
}

/// See the module.
pub(super) struct FencedBackend(pub(super) Arc<Shared>);

impl Shared {
    /// For the store described by `superblock`. If it is not `published`, changes of it stay in memory.
    pub(super) fn new(
        dev: Arc<dyn BlockDevice>,
        superblock: Superblock,
        latch: Arc<Latch>,
        published: bool,
    ) -> Arc<Shared> {
        Arc::new(Shared::made(dev, superblock, latch, published))
    }

    fn made(dev: Arc<dyn BlockDevice>, superblock: Superblock, latch: Arc<Latch>, published: bool) -> Shared {
        let ranges = Ranges::new(&superblock.ranges);
        let pages = Pages::new(superblock.meta_len);
        Shared {
            dev,
            latch,
            failed: AtomicBool::new(false),
            superblock: Mutex::new(superblock),
            published,
            frozen: false,
            ranges: Mutex::new(ranges),
            pages: Mutex::new(pages),
            writing: Mutex::new(()),
            unflushed: Mutex::new(None),
        }
    }

    /// The superblock as last written.
    pub(super) fn superblock(&self) -> Superblock {
        self.superblock.lock().clone()
    }

    /// Whether nothing is to be had from here any more.
    pub(super) fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire) || self.latch.is_tripped()
    }

    /// From now on nothing is to be had from here.
    pub(super) fn refuse_everything(&self) {
        self.failed.store(true, Ordering::Release);
    }

    /// The reign's latch.
    pub(super) fn latch(&self) -> &Arc<Latch> {
        &self.latch
    }

    /// Bytes that the store should have reserved ahead: as much again as it has and a little more, so that the database,
    /// which doubles what it can use and needs some pages besides, always finds room.
    pub(super) fn wanted_ahead(&self) -> u64 {
        let superblock = self.superblock.lock();
        let capacity = superblock.capacity();
        let want = (capacity + capacity / 64).min(MAX_AHEAD);
        if superblock.next.len() >= MAX_NEXT { 0 } else { want.saturating_sub(superblock.reserved_ahead()) }
    }

    /// Zeroes spans that the store has set aside and records them as reserved ahead.
    pub(super) fn reserve(&self, spans: &[BlockSpan]) -> Result<()> {
        let _inside = self.enter()?;
        for span in spans {
            self.writes();
            self.note(disk::zero(&self.dev, ByteOffset(span.start * FS_BLOCK), ByteLen(span.len * FS_BLOCK)))?;
        }
        let mut superblock = self.superblock.lock();
        let mut changed = superblock.clone();
        changed.next.extend_from_slice(spans);
        self.write_superblock(&mut superblock, changed)
    }

    fn enter(&self) -> Result<Inside<'_>> {
        match self.latch.enter() {
            Some(inside) if !self.failed.load(Ordering::Acquire) => Ok(inside),
            _ => Err(MetaError::Fatal(Fatal::Latched)),
        }
    }

    /// Something is about to be written that is to be stable after the next flush.
    fn writes(&self) {
        self.unflushed.lock().get_or_insert_with(|| self.dev.losses());
    }

    /// Puts everything that was written before onto stable storage, or fails for good.
    fn flush(&self) -> Result<()> {
        let since = self.unflushed.lock().take();
        self.note(disk::flush(&self.dev))?;
        since.map_or(Ok(()), |since| self.nothing_lost(since))
    }

    /// Fails for good if the device has told a loss since its count was this, whoever was told.
    fn nothing_lost(&self, since: u64) -> Result<()> {
        if since == self.dev.losses() {
            return Ok(());
        }
        self.note(Err(IoError { kind: IoErrorKind::CacheLost, op: Some(Op::Flush), ..IoError::dropped() }))
    }

    /// A failed request makes the backend failed: nothing is known about what the device holds.
    fn note<T, E: Into<MetaError>>(&self, result: std::result::Result<T, E>) -> Result<T> {
        result.map_err(|e| {
            self.failed.store(true, Ordering::Release);
            e.into()
        })
    }

    /// Writes all three copies; `held` is replaced once they are stable.
    fn write_superblock(&self, held: &mut Superblock, mut changed: Superblock) -> Result<()> {
        if self.published {
            changed.generation = held.generation + 1;
            let since = self.dev.losses();
            self.note(disk::write_superblocks(&self.dev, &changed))?;
            self.nothing_lost(since)?;
        }
        *held = changed;
        Ok(())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        if self.is_failed() {
            return Err(MetaError::Fatal(Fatal::Latched));
        }
        let cached = self.pages.lock().cached(offset, out.len());
        if cached.is_whole() {
            cached.overlay(offset, out);
            return Ok(());
        }
        let start = offset / PAGE as u64 * PAGE as u64;
        let end = (offset + out.len() as u64).next_multiple_of(PAGE as u64);
        let requests = self.ranges.lock().pieces(start, end - start)?;
        let requests = requests.into_iter().map(|(at, len)| (Op::Read, at, Memory::from(len))).collect();
        let mut bytes = Vec::with_capacity(out.len() + 2 * PAGE);
        for done in run_batch(&*self.dev, requests) {
            self.note(done.result)?;
            bytes.extend_from_slice(&done.buf.ok_or_else(block::error::IoError::dropped)?);
        }
        let from = usize::try_from(offset - start).map_err(|_| Fatal::Damaged("a page offset does not fit memory"))?;
        out.copy_from_slice(&bytes[from..from + out.len()]);
        cached.overlay(offset, out);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let _inside = self.enter()?;
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let within = (at % PAGE as u64) as usize;
            let n = (PAGE - within).min(data.len() - done);
            let part = &data[done..done + n];
            if n == PAGE {
                self.pages.lock().put(at / PAGE as u64, part);
            } else {
                self.patch(at, within, part)?;
            }
            done += n;
        }
        if self.pages.lock().gathered() > MAX_GATHERED {
            self.write_out()?;
        }
        Ok(())
    }

    fn patch(&self, at: u64, within: usize, part: &[u8]) -> Result<()> {
        let mut page = [0; PAGE];
        let start = at - within as u64;
        self.read(start, &mut page)?;
        page[within..within + part.len()].copy_from_slice(part);
        self.pages.lock().put(start / PAGE as u64, &page);
        Ok(())
    }

    /// Sends every gathered page to the device, in one batch of requests of up to 1 MiB. The disk may still hold them
    /// in its cache.
    fn write_out(&self) -> Result<()> {
        if self.frozen {
            return self.stay_small();
        }
        let _one = self.writing.lock();
        self.writes();
        let going = self.pages.lock().start_writing();
        let mut requests = Vec::new();
        for run in pages::runs(&going) {
            let writes = run.into_writes(&self.ranges.lock())?;
            requests.extend(writes.into_iter().map(|(at, buf)| (Op::Write { fua: false }, at, Memory::from(buf))));
        }
        for done in run_batch(&*self.dev, requests) {
            self.note(done.result)?;
        }
        self.pages.lock().end_writing();
        Ok(())
    }

    /// The same, onto stable storage. (To write the lone header of a commit through instead was measured: on a file it
    /// is a third slower than write and flush.)
    fn sync(&self) -> Result<()> {
        let _inside = self.enter()?;
        self.write_out()?;
        if self.frozen {
            return Ok(());
        }
        self.flush()
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let _inside = self.enter()?;
        let old = self.pages.lock().len();
        if len > old {
            self.make_room(len)?;
            if let Some((from, to)) = self.pages.lock().stale_above(old, len) {
                self.zero_stale(from, to)?;
            }
        }
        self.pages.lock().set_len(len);
        Ok(())
    }

    /// Makes the ranges and the recorded length reach `len`.
    fn make_room(&self, len: u64) -> Result<()> {
        let mut superblock = self.superblock.lock();
        if len <= superblock.meta_len {
            return Ok(());
        }
        let mut changed = superblock.clone();
        if len > changed.capacity() {
            let next = std::mem::take(&mut changed.next);
            changed.ranges.extend(next);
        }
        if len > changed.capacity() || changed.ranges.len() > crate::format::MAX_RANGES {
            self.failed.store(true, Ordering::Release);
            return Err(MetaError::Fatal(Fatal::Damaged("the metadata store has no room left to grow")));
        }
        changed.meta_len = len;
        *self.ranges.lock() = Ranges::new(&changed.ranges);
        self.write_superblock(&mut superblock, changed)
    }

    /// What a shrunk store left behind is not zero; a grown one must be.
    fn zero_stale(&self, from: u64, to: u64) -> Result<()> {
        if self.frozen {
            return self.keep_zeroes(from, to);
        }
        let pieces = self.ranges.lock().pieces(from, to - from)?;
        for (at, len) in pieces {
            self.writes();
            self.note(disk::zero(&self.dev, at, len))?;
        }
        Ok(())
    }
}

/// The most that is reserved ahead: the database grows by at most two of its regions of 4 GiB at a time.
const MAX_AHEAD: u64 = 9 << 30;

fn as_io(e: MetaError) -> io::Error {
    io::Error::other(e)
}

impl StorageBackend for FencedBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.pages.lock().len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out).map_err(as_io)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len).map_err(as_io)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync().map_err(as_io)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data).map_err(as_io)
    }
}

impl fmt::Debug for FencedBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FencedBackend({})", self.0.dev.describe())
    }
}
