//! A file as this node's data path knows it: layouts held, mapping, length, and a snapshot of that for the hot path.
//!
//! The snapshot is immutable and swapped whole, under the inode's lock, whenever layouts or mapping change. A hot
//! operation loads it, finds its layout and its extent in it, takes a guard and goes. Prevents: an operation uses a mapping
//! of before a recall (the guard is taken on the very layout the snapshot names, and a withdrawn one gives none).
//!
//! Lock order: the session's core, then `state`. No event is posted and no guard dropped while `state` is held.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::core::client::map::FileMap;
use crate::core::rules::{Rule, Rules};
use crate::proto::LayoutGrant;
use crate::types::*;

use super::gate::Gate;
use super::layout::{LayoutCell, LayoutGuard};
use super::ranges::RangeLocks;
use super::space::Reserved;
use super::writes::Writes;

/// A mapping with more extents than this is not copied at every change, only after so many operations missed it.
const REPUBLISH: usize = 64;

/// One inode.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) ino: InodeNo,
    rules: Rules,
    pub(crate) snapshot: ArcSwap<Snapshot>,
    /// Open while hot writes may pass; closed while sub-block writes are about.
    pub(crate) hot_writes: Gate,
    /// Told when the last hot write has left a closed gate, and when the gate opens again.
    pub(crate) hot_left: Notify,
    pub(crate) state: Mutex<State>,
    pub(crate) ranges: RangeLocks,
    /// Writes that were accepted and not answered.
    pub(crate) writes: Writes,
    /// One LayoutGet at a time. Whoever waits for it holds nothing, so it is not part of the lock order.
    pub(crate) asking: tokio::sync::Mutex<()>,
    /// One commit at a time; nobody who holds a guard or a range waits for it.
    pub(crate) committing: tokio::sync::Mutex<()>,
    /// One append at a time: it fixes the offset.
    pub(crate) appending: tokio::sync::Mutex<()>,
    /// Time of the last write in place that no message has carried yet, in nanoseconds since 1970; 0 for none.
    pub(crate) touched: AtomicU64,
    /// Something was written since the last flush began.
    pub(crate) unflushed: AtomicBool,
    /// Acknowledged writes were lost: the next fsync says so.
    pub(crate) lost: AtomicBool,
    /// What no commit has covered was lost with the disk's cache: it is forgotten before the next commit.
    pub(crate) forgets: AtomicBool,
    /// Told when a layout is gone.
    pub(crate) layout_gone: Notify,
    /// An exclusive right, or something uncommitted, was lost: whatever is open fails until it is closed.
    pub(crate) forfeited: AtomicBool,
    /// On the list of inodes with something to commit.
    pub(crate) listed: AtomicBool,
    /// Open handles on this node.
    pub(crate) opens: AtomicU64,
    /// Raised whenever the coordinator comes to know what only this node knew. An answer that was given before and is
    /// looked at after is older than both.
    pub(crate) told: AtomicU64,
}

/// What is guarded by the inode's lock.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) map: FileMap,
    pub(crate) cells: Vec<Arc<LayoutCell>>,
    /// Space taken from the grant for this file's next blocks, so that it grows contiguously.
    pub(crate) reserve: Option<Reserved>,
    /// The highest sync asked for, and the highest that a commit has named.
    pub(crate) sync_asked: u64,
    pub(crate) sync_named: u64,
    /// Sub-block writes that are about.
    pub(crate) sub_block: u32,
    /// The length as an answer of the coordinator last showed it: a hint about what to ask for, never the truth.
    pub(crate) size_hint: u64,
    /// Seconds for which something has been uncommitted.
    pub(crate) dirty_for: u32,
    stale: bool,
    missed: usize,
}

/// What the hot path sees.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    cells: Vec<Arc<LayoutCell>>,
    /// Written, unshared extents by file block. Some may be missing: what is not found here is looked for off the hot
    /// path.
    extents: Arc<Vec<Extent>>,
    /// Never older than the answer of a write: nothing is looked for behind the end.
    size: u64,
}

/// A contiguous place on the disk, and the right to use it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) guard: LayoutGuard,
    /// Byte offset on the disk.
    pub(crate) disk: u64,
}

impl Inode {
    pub(crate) fn new(ino: InodeNo, rules: Rules) -> Inode {
        Inode {
            ino,
            rules,
            snapshot: ArcSwap::default(),
            hot_writes: Gate::default(),
            hot_left: Notify::new(),
            state: Mutex::default(),
            ranges: RangeLocks::default(),
            writes: Writes::default(),
            asking: tokio::sync::Mutex::default(),
            committing: tokio::sync::Mutex::default(),
            appending: tokio::sync::Mutex::default(),
            touched: AtomicU64::new(0),
            unflushed: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            forgets: AtomicBool::new(false),
            layout_gone: Notify::new(),
            forfeited: AtomicBool::new(false),
            listed: AtomicBool::new(false),
            opens: AtomicU64::new(0),
            told: AtomicU64::new(0),
        }
    }

    /// Something was written in place.
    pub(crate) fn touch(&self, now_nanos: u64) {
        self.touched.fetch_max(now_nanos, Ordering::Relaxed);
        if !self.unflushed.load(Ordering::Relaxed) {
            self.unflushed.store(true, Ordering::SeqCst);
        }
    }

    /// The time of the last write in place.
    pub(crate) fn touched(&self) -> Option<Timestamp> {
        match self.touched.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(timestamp(nanos)),
        }
    }

    /// The coordinator knows of this time, unless a newer write came.
    pub(crate) fn touch_sent(&self, sent: Option<Timestamp>) {
        let now = self.touched.load(Ordering::Relaxed);
        if now != 0 && Some(timestamp(now)) <= sent {
            // A write in between raises the value, and the exchange fails.
            let _ = self.touched.compare_exchange(now, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

/// Nanoseconds since 1970 as a timestamp.
pub(crate) fn timestamp(nanos: u64) -> Timestamp {
    Timestamp::from_epoch(std::time::Duration::from_nanos(nanos))
}

/// Now, in nanoseconds since 1970.
pub(crate) fn wall_nanos() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl State {
    /// A layout came: its mapping, and the length unless ours is authoritative.
    pub(crate) fn granted(&mut self, grant: &LayoutGrant, cell: Arc<LayoutCell>) {
        let own: Vec<BlockRange> = self.cells.iter().filter(|c| c.rules()).map(|c| c.range).collect();
        let size = (!self.cells.iter().any(|c| c.rules_size())).then_some(grant.size);
        self.map.merge(grant.range, &grant.extents, size, &own);
        self.size_hint = self.map.size();
        self.cells.push(cell);
    }

    /// A layout is gone. What was uncommitted is forgotten with it: it was committed, or it is lost.
    pub(crate) fn dropped(&mut self, id: LayoutId) {
        self.cells.retain(|c| c.id != id);
        let held: Vec<BlockRange> = self.cells.iter().map(|c| c.range).collect();
        self.map.keep_only(&held);
        if !self.cells.iter().any(|c| c.rules_size()) {
            self.map.forget_size();
        }
    }

    /// A layout over these blocks that is not withdrawn; an exclusive one if there is one. One that the caller has a
    /// guard on (`held`) serves it even if it was withdrawn since.
    pub(crate) fn covering(
        &self,
        range: BlockRange,
        exclusive: bool,
        held: Option<LayoutId>,
    ) -> Option<&Arc<LayoutCell>> {
        let fits = |c: &&Arc<LayoutCell>| c.range.contains(range) && (held == Some(c.id) || !c.is_withdrawn());
        let best = self.cells.iter().filter(fits).find(|c| c.mode == LayoutMode::Exclusive);
        best.or_else(|| self.cells.iter().filter(fits).find(|_| !exclusive))
    }

    /// The length here, if a layout held makes it the truth.
    pub(crate) fn ruled_size(&self) -> Option<u64> {
        self.cells.iter().any(|c| c.rules_size()).then(|| self.map.size())
    }
}

impl Inode {
    /// Publishes what the lock guards. Called with the lock held, after every change. Layouts and length are always
    /// those of now; of a mapping with many extents the former copy goes on, which lacks what is new and is right in
    /// what it has, since a mapping changes otherwise only with the layouts.
    pub(crate) fn publish(&self, state: &mut State, layouts_changed: bool) {
        state.stale = !layouts_changed && state.map.extents() > REPUBLISH && state.missed < state.map.extents();
        if state.stale && !self.rules.has(Rule::LengthIsPublished) {
            return;
        }
        let extents = if state.stale {
            Arc::clone(&self.snapshot.load().extents)
        } else {
            state.missed = 0;
            Arc::new(state.map.in_place())
        };
        let cells = state.cells.iter().filter(|c| !c.is_withdrawn()).cloned().collect();
        self.snapshot.store(Arc::new(Snapshot { cells, extents, size: state.map.size() }));
    }

    /// A slow operation found everything it needed: had the snapshot been fresh, it would have been a hot one.
    pub(crate) fn missed(&self, state: &mut State) {
        if state.stale {
            state.missed += 1;
            if state.missed >= state.map.extents() {
                self.publish(state, false);
            }
        }
    }
}

impl Snapshot {
    /// The length as of this snapshot; right for reads inside a layout of this snapshot.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Where `len` bytes at `offset` lie, if they lie together and one layout covers all of `asked`. For a read that
    /// reaches past the end `asked` is more than what is read: only who covers the block of the end knows the end.
    pub(crate) fn place(&self, asked: BlockRange, offset: u64, len: usize) -> Option<Place> {
        let range = BlockRange::of_bytes(offset, len as u64);
        let cell = self.cells.iter().find(|c| c.range.contains(asked))?;
        let at = self.extents.partition_point(|e| e.file.0 + e.len.0 <= range.start.0);
        let extent = self.extents.get(at).filter(|e| e.range().contains(range))?;
        let guard = cell.guard()?;
        Some(Place { guard, disk: extent.disk.0 * FS_BLOCK + (offset - extent.file.0 * FS_BLOCK) })
    }

    /// A guard on a layout that covers these blocks.
    pub(crate) fn cover(&self, range: BlockRange) -> Option<LayoutGuard> {
        self.cells.iter().find(|c| c.range.contains(range))?.guard()
    }

    /// Whether a write has to clear suid, sgid (if the writer is `unprivileged`) or capabilities first.
    pub(crate) fn kills(&self, unprivileged: bool) -> bool {
        self.cells.iter().any(|c| c.kills(unprivileged))
    }
}
