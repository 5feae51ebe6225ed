//! Superblock, log and bitmaps together, and what must be durable before what.
//!
//! Pure: a change is planned ([`Replica::plan`]) as a [`MetaWrite`], executed by whoever has the device, and told back
//! ([`Replica::committed`]). One plan is under way at a time; what is asked for meanwhile goes into the next.

use std::collections::{BTreeMap, BTreeSet};

use super::bitmap::Bitmap;
use super::layout::Layout;
use super::log::{self, ActivityLog, Transaction};
use super::map::Map;
use super::superblock::{Flags, Life, Superblock, newest};
use super::{MetaError, MetaWrite, PAGE, Put, Reader};
use crate::ids::{Lives, NodeId, NodeSet, Sizes, Span, Volume};
pub use swap::Swap;

mod grow;
mod leave;
mod swap;

/// A replica's metadata in memory.
#[derive(Clone, Debug)]
pub struct Replica {
    superblock: Superblock,
    log: ActivityLog,
    bitmaps: BTreeMap<NodeId, Map>,
    changed: bool,
    under_way: bool,
    /// What is to be written over what was left: superblocks of another place, labels of volumes that were taken away.
    left: Vec<Put>,
}

/// A plan that is on its way to the disk.
#[derive(Clone, Debug)]
pub struct Commit {
    /// What to write.
    pub write: MetaWrite,
    transaction: Option<Transaction>,
}

/// A replica as it was found.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The replica, its hot extents turned into bits.
    pub replica: Replica,
    /// What makes that durable; to be written before anything else.
    pub write: MetaWrite,
    /// Extents that were hot.
    pub hot: usize,
    /// Damaged cells of bitmaps, now all set.
    pub damaged_cells: usize,
    /// The log could not be read: every bit is set.
    pub log_damaged: bool,
    /// What the flags said when it was found.
    pub found: Flags,
    /// The life in which it is opened.
    pub life: Life,
    /// Nothing that was acknowledged here is missing: it was at rest, or only its process has ended.
    pub kept: bool,
}

impl Commit {
    /// Whether something becomes hot by it.
    pub fn makes_hot(&self) -> bool {
        self.transaction.as_ref().is_some_and(|t| !t.enters.is_empty())
    }
}

impl Replica {
    /// A new replica and all of its bytes.
    pub fn format(superblock: Superblock) -> (Replica, MetaWrite) {
        let shape = superblock.layout.shape;
        let bitmaps: BTreeMap<NodeId, Map> = superblock.peers.iter().map(|p| (p.node, clear(&superblock))).collect();
        let log = ActivityLog::new(superblock.device, shape.log_slots, 1);
        let mut replica = Replica { superblock, log, bitmaps, changed: false, under_way: false, left: Vec::new() };
        let layout = replica.superblock.layout;
        let ring = Put { at: layout.log, bytes: vec![0; (u64::from(shape.log_pages) * PAGE) as usize] };
        let mut first = vec![ring];
        let sb = &replica.superblock;
        for (volume, empty) in clear(sb).parts() {
            for slot in 0..usize::from(shape.peers) {
                let pages = 0..empty.pages();
                first.extend(pages.map(|p| Put { at: sb.bitmap_page(volume, slot, p), bytes: empty.encode(p) }));
            }
        }
        first.extend(sb.further.iter().map(|f| f.put_label(sb, false)));
        let reset = replica.log.plan_reset();
        let mut then = vec![replica.put_log(&reset)];
        replica.log.committed(&reset);
        for _ in 0..2 {
            then.push(replica.put_superblock());
        }
        (replica, MetaWrite { first, then })
    }

    /// Reads what is on a device of `len` bytes, in this life of the machine and the disk.
    pub fn recover(reader: &dyn Reader, len: u64, life: Life) -> Result<Recovered, MetaError> {
        Replica::recover_grown(reader, len, &[], life)
    }

    /// The same on a device that may have grown since; `known` is how long it was when its metadata were found by its end, or were
    /// about to be moved there.
    pub fn recover_grown(reader: &dyn Reader, len: u64, known: &[u64], life: Life) -> Result<Recovered, MetaError> {
        Replica::recover_with(reader, len, known, life, None)
    }

    /// The same; `swap`: a volume that is to have another disk from now on, of so many bytes, and what that is numbered.
    fn recover_with(
        reader: &dyn Reader,
        len: u64,
        known: &[u64],
        life: Life,
        swap: Option<Swap>,
    ) -> Result<Recovered, MetaError> {
        let (mut superblock, left) = find(reader, len, known)?;
        let layout = superblock.layout;
        if layout.end() > len {
            return Err(MetaError::TooSmall { needed: layout.end(), len });
        }
        let shape = layout.shape;
        let swapped = swap.map(|s| s.volume);
        for further in superblock.further.iter().filter(|f| Some(f.volume) != swapped) {
            further.find(reader, &superblock)?;
        }
        swap.map_or(Ok(()), |swap| swap.begin(&mut superblock))?;
        let (mut bitmaps, mut damaged_cells) = (BTreeMap::new(), 0);
        for (slot, peer) in superblock.peers.iter().enumerate() {
            let (map, damaged) = load(reader, &superblock, slot, swapped)?;
            damaged_cells += damaged;
            bitmaps.insert(peer.node, map);
        }
        let ring = reader.read(layout.log, u64::from(shape.log_pages) * PAGE)?;
        let replayed = log::replay(&ring, shape.log_slots, superblock.device);
        let next = replayed.as_ref().map_or_else(|| newest_number(&ring) + 1, |r| r.next);
        let log = ActivityLog::new(superblock.device, shape.log_slots, next);
        let found = superblock.flags;
        let left = left.into_iter().map(|at| Put { at, bytes: vec![0; PAGE as usize] }).collect();
        let mut replica = Replica { superblock, log, bitmaps, changed: false, under_way: false, left };
        let all = replica.peers();
        let hot = replayed.as_ref().map_or(0, |r| r.hot.len());
        match &replayed {
            Some(r) => {
                r.hot.iter().filter_map(|e| shape.span_of(*e)).for_each(|span| replica.mark(all, span));
            }
            None => replica.mark_everything(all),
        }
        let log_damaged = replayed.is_none();
        let at_rest = found.at_rest && hot == 0 && !log_damaged;
        let kept = swap.is_none() && (at_rest || life.goes_on(replica.superblock.life));
        replica.superblock.flags.at_rest = kept;
        replica.superblock.life = if kept { life } else { Life::UNKNOWN };
        let write = match swap {
            None => replica.apply_log(),
            Some(swap) => replica.put_swap(swap),
        };
        Ok(Recovered { replica, write, hot, damaged_cells, log_damaged, found, life, kept })
    }

    /// Bits first, then the empty log and the superblock.
    fn apply_log(&mut self) -> MetaWrite {
        let mut first = self.put_left();
        first.extend(self.save_pages(None));
        let reset = self.log.plan_reset();
        let page = self.put_log(&reset);
        self.log.committed(&reset);
        MetaWrite { first, then: vec![page, self.put_superblock()] }
    }

    /// What it is.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Changes the superblock; it is part of the next plan.
    pub fn change(&mut self, change: impl FnOnce(&mut Superblock)) {
        change(&mut self.superblock);
        self.changed = true;
    }

    /// Sectors of all volumes.
    pub fn sizes(&self) -> Sizes {
        self.superblock.sizes()
    }

    /// The lives of all volumes.
    pub fn lives(&self) -> Lives {
        self.superblock.lives()
    }

    /// Sectors of a bit of the volume whose bits are the coarsest.
    pub fn coarsest_bit(&self) -> u64 {
        let further = self.superblock.further.iter().map(|f| f.bit);
        further.fold(self.superblock.layout.shape.bit, u64::max)
    }

    /// All peers.
    pub fn peers(&self) -> NodeSet {
        self.superblock.peers.iter().map(|p| p.node).collect()
    }

    /// Where things lie.
    pub fn layout(&self) -> &Layout {
        &self.superblock.layout
    }

    /// The bitmap for a peer.
    pub fn bitmap(&self, peer: NodeId) -> Option<&Map> {
        self.bitmaps.get(&peer)
    }

    /// The log.
    pub fn log(&self) -> &ActivityLog {
        &self.log
    }

    /// The extents of a span.
    pub fn extents(&self, span: Span) -> std::ops::Range<u32> {
        self.superblock.layout.shape.extents(span)
    }

    /// Whether a span may be written now (rule *hot before data*).
    pub fn is_hot(&self, span: Span) -> bool {
        self.extents(span).all(|e| self.log.is_hot(e))
    }

    /// Keeps a span's extents from leaving the log until its write is settled.
    pub fn pin(&mut self, span: Span) {
        self.extents(span).for_each(|e| self.log.pin(e));
    }

    /// The write is settled: stable here, and each peer was proved to hold it or has its bits.
    pub fn unpin(&mut self, span: Span) {
        self.extents(span).for_each(|e| self.log.unpin(e));
    }

    /// Sets the bits of a span for these peers.
    pub fn mark(&mut self, peers: NodeSet, span: Span) {
        for (_, map) in self.bitmaps.iter_mut().filter(|(n, _)| peers.has(**n)) {
            map.mark(span);
        }
    }

    /// Sets all bits for these peers.
    pub fn mark_everything(&mut self, peers: NodeSet) {
        let volumes: Vec<Volume> = self.superblock.sizes().iter().map(|(v, _)| v).collect();
        for volume in volumes {
            let data = self.superblock.data(volume);
            self.mark(peers, volume.span(data));
        }
    }

    /// Clears a bit (rule *clear on proof*: the caller has it).
    pub fn clear(&mut self, peer: NodeId, bit: u64) {
        if let Some(map) = self.bitmaps.get_mut(&peer) {
            map.clear(bit);
        }
    }

    /// Whether a span is covered towards a peer.
    pub fn covers(&self, peer: NodeId, span: Span) -> bool {
        let bits = self.bitmaps.get(&peer).is_some_and(|m| m.covers(span));
        bits || self.extents(span).all(|e| self.log.is_hot(e))
    }

    /// What is to be written: extents that are wanted hot, a changed superblock, and with `pages` every page whose
    /// bits are not durable. None if there is nothing, or a plan is under way.
    pub fn plan(&mut self, wanted: &BTreeSet<u32>, pages: bool) -> Option<Commit> {
        if self.under_way {
            return None;
        }
        let transaction = self.log.plan(wanted);
        if transaction.is_none() && !self.changed && !pages && self.left.is_empty() {
            return None;
        }
        if transaction.is_some() && self.superblock.flags.at_rest {
            self.change(|sb| sb.flags.at_rest = false);
        }
        let leaves = transaction.as_ref().map(|t| t.leaves.clone()).unwrap_or_default();
        let mut first = self.put_left();
        first.extend(if pages { self.save_pages(None) } else { self.save_pages(Some(&leaves)) });
        let mut then = Vec::new();
        if let Some(transaction) = &transaction {
            then.push(self.put_log(transaction));
            self.log.begin(transaction);
        }
        if self.changed {
            self.changed = false;
            then.push(self.put_superblock());
        }
        self.under_way = true;
        Some(Commit { write: MetaWrite { first, then }, transaction })
    }

    /// The log is to be empty, and that is written down; with `kept` also that everything acknowledged is stable. Only for who has
    /// nothing under way and nothing pinned. None if a plan is under way, or that is written down already.
    pub fn plan_rest(&mut self, kept: bool) -> Option<Commit> {
        let empty = self.log.hot().next().is_none();
        if self.under_way || !self.left.is_empty() || (empty && !self.changed && self.superblock.flags.at_rest == kept)
        {
            return None;
        }
        let first = self.save_pages(None);
        let transaction = self.log.plan_reset();
        let page = self.put_log(&transaction);
        self.log.begin(&transaction);
        self.superblock.flags.at_rest = kept;
        (self.changed, self.under_way) = (false, true);
        Some(Commit {
            write: MetaWrite { first, then: vec![page, self.put_superblock()] },
            transaction: Some(transaction),
        })
    }

    /// Whether it is written down, or on its way, that nothing is hot; with `kept` also that everything acknowledged is stable.
    pub fn is_at_rest(&self, kept: bool) -> bool {
        self.log.hot().next().is_none() && self.superblock.flags.at_rest == kept
    }

    /// A plan is durable.
    pub fn committed(&mut self, commit: &Commit) {
        self.under_way = false;
        if let Some(transaction) = &commit.transaction {
            self.log.committed(transaction);
        }
    }

    /// Unsaved pages: all, or those of some extents.
    fn save_pages(&mut self, extents: Option<&[u32]>) -> Vec<Put> {
        let shape = self.superblock.layout.shape;
        let spans: Option<Vec<Span>> = extents.map(|all| all.iter().filter_map(|e| shape.span_of(*e)).collect());
        let mut puts = Vec::new();
        for (slot, peer) in self.superblock.peers.iter().enumerate() {
            let Some(map) = self.bitmaps.get_mut(&peer.node) else { continue };
            for (volume, page) in map.unsaved(spans.as_deref()) {
                puts.push(Put { at: self.superblock.bitmap_page(volume, slot, page), bytes: map.save(volume, page) });
            }
        }
        puts
    }

    /// A superblock that proves nothing of what was acknowledged here.
    pub fn disowned(&mut self) -> Put {
        (self.superblock.life, self.superblock.flags.at_rest) = (Life::UNKNOWN, false);
        self.put_superblock()
    }

    fn put_log(&self, transaction: &Transaction) -> Put {
        Put { at: self.superblock.layout.log_page(transaction.number), bytes: self.log.encode(transaction) }
    }

    fn put_superblock(&mut self) -> Put {
        self.superblock.sequence += 1;
        Put { at: self.superblock.place(), bytes: self.superblock.encode() }
    }
}

/// Bitmaps of all volumes, clear.
fn clear(sb: &Superblock) -> Map {
    let shape = sb.layout.shape;
    let first = (Volume::FIRST, Bitmap::new(shape.bits(), shape.bit));
    let further = sb.further.iter().map(|f| (f.volume, Bitmap::new(f.bits(), f.bit)));
    Map::new([first].into_iter().chain(further).collect())
}

/// The bitmaps of the peer in a slot, and how many cells of them are damaged.
///
/// Of a volume that has another disk from now on nothing is read.
pub(super) fn load(
    reader: &dyn Reader,
    sb: &Superblock,
    slot: usize,
    swapped: Option<Volume>,
) -> Result<(Map, usize), MetaError> {
    let (mut damaged, mut parts) = (0, Vec::new());
    for (volume, map) in clear(sb).parts() {
        let mut map = map.clone();
        let pages = if Some(volume) == swapped { 0 } else { map.pages() };
        for page in 0..pages {
            damaged += map.load(page, &reader.read(sb.bitmap_page(volume, slot, page), PAGE)?);
        }
        parts.push((volume, map));
    }
    Ok((Map::new(parts), damaged))
}

/// The newest superblock, at the end of the device or where that was before it has grown, else at its start. Older copies that lie at
/// other ends come as well: they are to go.
///
/// A device that grew and whose metadata were not moved, or not to the end, has them where it ended before. Once they are good at a
/// new end the old ones are of the past, whatever they say: the sequence tells.
pub(crate) fn find(reader: &dyn Reader, len: u64, known: &[u64]) -> Result<(Superblock, Vec<u64>), MetaError> {
    if len < 2 * PAGE {
        return Err(MetaError::NotThere);
    }
    let read = |at: u64| Superblock::decode(&reader.read(at, PAGE)?);
    let look = |place: [u64; 2]| newest(place.map(read));
    let [end, start] = Layout::places(len);
    let before = known.iter().filter(|k| (2 * PAGE..len / PAGE * PAGE).contains(k)).map(|k| Layout::places(*k)[0]);
    let places: Vec<[u64; 2]> = [end].into_iter().chain(before).collect();
    let (mut found, mut damaged) = (None::<Superblock>, false);
    for place in &places {
        match look(*place) {
            Ok(sb) if found.as_ref().is_none_or(|f| f.device == sb.device && f.sequence < sb.sequence) => {
                found = Some(sb)
            }
            Ok(_) | Err(MetaError::NotThere) => {}
            Err(MetaError::Damaged) => damaged = true,
            Err(e) => return Err(e),
        }
    }
    match found {
        Some(sb) => {
            let old = |at: &u64| {
                let other = !sb.layout.supers.contains(at);
                other && read(*at).is_ok_and(|c| c.device == sb.device && c.sequence < sb.sequence)
            };
            let left = places.into_iter().flatten().filter(old).collect();
            Ok((sb, left))
        }
        None if damaged => Err(MetaError::Damaged),
        None => Ok((look(start)?, Vec::new())),
    }
}

/// The highest number that any page claims, also one that is not good: a new log begins above it.
fn newest_number(ring: &[u8]) -> u64 {
    let number = |page: &[u8]| page.get(8..16)?.try_into().ok().map(u64::from_le_bytes);
    // A damaged number may be anything; what is absurd would leave no numbers above it.
    ring.chunks_exact(PAGE as usize).filter_map(number).filter(|n| *n < 1 << 48).max().unwrap_or(0)
}
