//! The metadata thread: the one that writes the store.
//!
//! ```text
//!   open ──► load what the last reign left ──► (take what is queued, at most 256 ─► one transaction ─► one commit
//!            ─► answers) again and again ──► queue closed ──► readers and check joined ──► store closed, or left behind
//! ```
//! A commit begins when the one before has ended; there is no timer. While it runs the queue fills, so many clients
//! share a commit and one alone waits for no other. A batch in which nothing changed is not committed.
//!
//! After an error that is not an operation's own the latch is tripped, and everybody is told to go elsewhere: what the
//! disk holds of that batch only the next reign can tell.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use block::sync::ThreadRing;
use tokio::sync::oneshot;

use super::actor::{Inner, StoreItem};
use super::inherit::{self, Heritage};
use super::{check, execute, reader, tails};
use crate::core::coord::{Event, Inherited, StoreDone};
use crate::core::office::FencedEpoch;
use crate::format::Superblock;
use crate::meta::{MetaError, Store};
use crate::types::Timestamp;

/// Changes in one commit at most: what a client waits for others is bounded by this many small changes.
const BATCH: usize = 256;

/// What the thread starts with.
pub(super) struct Opening {
    pub(super) inner: Arc<Inner>,
    pub(super) superblock: Superblock,
    pub(super) epoch: FencedEpoch,
    pub(super) comes_back: bool,
    pub(super) opened: oneshot::Sender<Result<Inherited, MetaError>>,
}

/// Starts the thread.
pub(super) fn start(opening: Opening) -> std::io::Result<()> {
    thread::Builder::new().name("csv-metadata".into()).spawn(move || run(opening)).map(drop)
}

fn run(opening: Opening) {
    let Opening { inner, superblock, epoch, comes_back, opened } = opening;
    let runtime = inner.runtime.clone();
    let _tasks = runtime.enter();
    let ring = ThreadRing::attach();
    if let Err(e) = &ring {
        tracing::debug!("the metadata thread has no ring of its own: {e}");
    }
    match open(&inner, &superblock, (&epoch, comes_back)) {
        Ok((store, inherited)) => {
            // Set once: this thread is the only one that opens it.
            let _ = inner.recent.set(store.recent());
            inner.cut_off.store(store.cut_off(), Ordering::Release);
            // A starter that is gone has closed the queues, or will.
            let _ = opened.send(Ok(inherited));
            serve(&inner, store);
        }
        Err(e) => drop(opened.send(Err(e))),
    }
    inner.ending.send_modify(|e| e.store_closed = true);
}

fn open(
    inner: &Inner,
    superblock: &Superblock,
    (epoch, comes_back): (&FencedEpoch, bool),
) -> Result<(Store, Inherited), MetaError> {
    let store = Store::open(Arc::clone(&inner.device), superblock, epoch, Arc::clone(&inner.latch))?;
    let heritage = Heritage { device: &inner.device, volume: superblock.volume, before: epoch.before(), comes_back };
    let view = store.view()?;
    let inherited = inherit::load(&view, &heritage)?;
    drop(view);
    Ok((store, inherited))
}

fn serve(inner: &Arc<Inner>, store: Store) {
    let mut readers: Vec<_> = reader::start(inner, &store.reader());
    readers.extend(check::start(inner, &store.reader()));
    let mut healthy = true;
    while let Some(batch) = inner.writes.take(BATCH) {
        if !healthy {
            continue;
        }
        match commit(inner, &store, batch) {
            Ok(events) => inner.events(events),
            Err(e) => {
                healthy = false;
                inner.store_failed("written", &e);
            }
        }
    }
    inner.reads.close();
    inner.checks.close();
    for reader in readers {
        if reader.join().is_err() {
            tracing::error!("a reader thread panicked");
        }
    }
    if healthy
        && !inner.latch.is_tripped()
        && let Err(e) = store.close()
    {
        tracing::warn!("the metadata store did not close cleanly; the next reign opens it all the same: {e}");
    }
}

/// One transaction and one commit for a whole batch.
fn commit(inner: &Inner, store: &Store, batch: Vec<StoreItem>) -> Result<Vec<Event>, MetaError> {
    tails::zero_before_growth(store, &inner.device, &batch)?;
    let now = Timestamp::from_epoch(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default());
    let mut txn = store.write()?;
    let mut events = Vec::with_capacity(batch.len());
    let mut changes = 0;
    txn.run(now, |ops| {
        for StoreItem { op, ask } in batch {
            let (done, changed) = execute::run(store, ops, ask)?;
            changes += u64::from(changed);
            events.push(Event::StoreDone { op, done });
        }
        Ok::<(), MetaError>(())
    })??;
    if changes > 0 {
        txn.commit()?;
        inner.metrics.commits.add(1);
        inner.metrics.changes.add(changes);
    }
    Ok(events)
}

/// What an operation came to, and whether it changed anything that must be committed.
pub(super) type Outcome = Result<(StoreDone, bool), MetaError>;
