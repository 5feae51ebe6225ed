//! The activity log: in which extents replicas may differ without a bit.
//!
//! A slot holds an extent or nothing. A transaction of one page names up to 64 changed slots, and beside them a window
//! of the whole table (the *context*), which moves on with each transaction, so that a ring of a few pages always holds all of
//! it. Replaying the ring from its oldest page gives the table as it was.
//!
//! Pins: an extent with a write that is not settled (stable here and resolved for every peer) cannot leave.
//! How large: [`DEFAULT_SLOTS`] extents are 64 GiB, so that random writes rarely activate one (a log of 5 GiB costs two
//! thirds of the writes per second); after a crash so much is compared at most, by checksum.

use std::collections::{BTreeMap, BTreeSet};

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::PAGE;

/// Extents that can be hot at once, unless the device has fewer: 64 GiB.
pub const DEFAULT_SLOTS: u32 = 16_384;
/// Changes of a transaction.
pub const UPDATES: usize = 64;
/// Slots of the context of a transaction.
pub const CONTEXT: usize = 880;
const MAGIC: [u8; 4] = *b"SHFL";
const EMPTY: u32 = u32::MAX;
/// Where the crc lies.
const CRC_AT: usize = 4;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawUpdate {
    slot: U32,
    extent: U32,
}

#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawPage {
    magic: [u8; 4],
    crc: U32,
    number: U64,
    /// Of the replica, so that a ring of another is not taken for this one's.
    device: U64,
    /// 1: before this transaction every slot was empty.
    initial: U16,
    updates: U16,
    slots: U32,
    context_at: U32,
    reserved: [u8; 28],
    update: [RawUpdate; UPDATES],
    context: [U32; CONTEXT],
}

const _: () = assert!(size_of::<RawPage>() as u64 == PAGE);

/// The log in memory, as it is durable, and what keeps extents in it.
#[derive(Clone, Debug)]
pub struct ActivityLog {
    device: u64,
    slots: Vec<u32>,
    at: BTreeMap<u32, u32>,
    pins: BTreeMap<u32, u32>,
    /// Extents by their last use.
    used: BTreeMap<u32, u64>,
    order: BTreeSet<(u64, u32)>,
    clock: u64,
    /// The number of the next transaction.
    next: u64,
    /// What a transaction under way takes out: nothing more is written there.
    leaving: BTreeSet<u32>,
}

/// A transaction that is planned: what leaves, and its page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Its number, which gives its place in the ring.
    pub number: u64,
    /// What becomes cold. Its bits must be durable before the transaction is.
    pub leaves: Vec<u32>,
    /// What becomes hot.
    pub enters: Vec<u32>,
    changes: Vec<(u32, u32)>,
    initial: bool,
}

/// What a ring holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// The hot extents.
    pub hot: BTreeSet<u32>,
    /// The number after the newest.
    pub next: u64,
    /// Pages that were not good.
    pub bad_pages: usize,
}

impl ActivityLog {
    /// An empty log; its first transaction has this number.
    pub fn new(device: u64, slots: u32, next: u64) -> ActivityLog {
        ActivityLog {
            device,
            slots: vec![EMPTY; slots as usize],
            at: BTreeMap::new(),
            pins: BTreeMap::new(),
            used: BTreeMap::new(),
            order: BTreeSet::new(),
            clock: 0,
            next,
            leaving: BTreeSet::new(),
        }
    }

    /// Gives it room for more extents.
    pub fn grow(&mut self, slots: u32) {
        self.slots.resize(self.slots.len().max(slots as usize), EMPTY);
    }

    /// Transactions that change nothing: as many as hold the whole table between them, for a ring that is written anew.
    pub fn plan_copy(&self) -> Vec<Transaction> {
        let rotation = self.slots.len().div_ceil(CONTEXT).max(1) as u64;
        let none =
            Transaction { number: 0, leaves: Vec::new(), enters: Vec::new(), changes: Vec::new(), initial: false };
        (self.next..self.next + rotation).map(|number| Transaction { number, ..none.clone() }).collect()
    }

    /// Whether an extent is durably hot and stays so: one that a transaction under way takes out is hot no more.
    pub fn is_hot(&self, extent: u32) -> bool {
        self.at.contains_key(&extent) && !self.leaving.contains(&extent)
    }

    /// A transaction is on its way to the disk.
    pub fn begin(&mut self, transaction: &Transaction) {
        self.leaving.extend(&transaction.leaves);
    }

    /// The hot extents.
    pub fn hot(&self) -> impl Iterator<Item = u32> {
        self.at.keys().copied()
    }

    /// Keeps an extent in the log until [`ActivityLog::unpin`], from before it is hot.
    pub fn pin(&mut self, extent: u32) {
        *self.pins.entry(extent).or_default() += 1;
        self.touch(extent);
    }

    /// Takes one pin away.
    pub fn unpin(&mut self, extent: u32) {
        if let Some(n) = self.pins.get_mut(&extent) {
            *n -= 1;
            if *n == 0 {
                self.pins.remove(&extent);
            }
        }
    }

    /// Extents that are pinned.
    pub fn pinned(&self) -> usize {
        self.pins.len()
    }

    fn touch(&mut self, extent: u32) {
        self.clock += 1;
        if let Some(old) = self.used.insert(extent, self.clock) {
            self.order.remove(&(old, extent));
        }
        self.order.insert((self.clock, extent));
    }

    /// The transaction that makes as many of `wanted` hot as there is room for: none if no room or nothing wanted.
    pub fn plan(&self, wanted: &BTreeSet<u32>) -> Option<Transaction> {
        let mut free = (0_u32..).zip(&self.slots).filter(|(_, e)| **e == EMPTY).map(|(s, _)| s);
        let mut old = self.order.iter().map(|(_, e)| *e).filter(|e| self.is_hot(*e) && !self.pins.contains_key(e));
        let mut planned = Transaction {
            number: self.next,
            leaves: Vec::new(),
            enters: Vec::new(),
            changes: Vec::new(),
            initial: false,
        };
        for extent in wanted.iter().filter(|e| !self.is_hot(**e)).take(UPDATES) {
            let slot = match free.next() {
                Some(slot) => slot,
                None => {
                    let Some(leaver) = old.find(|e| !wanted.contains(e)) else { break };
                    planned.leaves.push(leaver);
                    self.at[&leaver]
                }
            };
            planned.enters.push(*extent);
            planned.changes.push((slot, *extent));
        }
        (!planned.enters.is_empty()).then_some(planned)
    }

    /// The transaction that empties the log.
    pub fn plan_reset(&self) -> Transaction {
        let leaves = self.hot().collect();
        Transaction { number: self.next, leaves, enters: Vec::new(), changes: Vec::new(), initial: true }
    }

    /// The page of a transaction planned on the log as it is.
    pub fn encode(&self, transaction: &Transaction) -> Vec<u8> {
        let mut slots = if transaction.initial { vec![EMPTY; self.slots.len()] } else { self.slots.clone() };
        for (slot, extent) in &transaction.changes {
            slots[*slot as usize] = *extent;
        }
        let start = window(transaction.number, slots.len());
        let mut page = RawPage {
            magic: MAGIC,
            crc: U32::ZERO,
            number: transaction.number.into(),
            device: self.device.into(),
            initial: u16::from(transaction.initial).into(),
            updates: (transaction.changes.len() as u16).into(),
            slots: (slots.len() as u32).into(),
            context_at: (start as u32).into(),
            reserved: [0; 28],
            update: [RawUpdate { slot: EMPTY.into(), extent: EMPTY.into() }; UPDATES],
            context: [EMPTY.into(); CONTEXT],
        };
        for (to, (slot, extent)) in page.update.iter_mut().zip(&transaction.changes) {
            *to = RawUpdate { slot: (*slot).into(), extent: (*extent).into() };
        }
        for (to, from) in page.context.iter_mut().zip(&slots[start..]) {
            *to = (*from).into();
        }
        let mut bytes = page.as_bytes().to_vec();
        let crc = crc_of(&bytes);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The transaction is durable.
    pub fn committed(&mut self, transaction: &Transaction) {
        for extent in &transaction.leaves {
            self.leaving.remove(extent);
            if let Some(slot) = self.at.remove(extent) {
                self.slots[slot as usize] = EMPTY;
            }
            if let Some(old) = self.used.remove(extent) {
                self.order.remove(&(old, *extent));
            }
        }
        if transaction.initial {
            self.slots.fill(EMPTY);
        }
        for (slot, extent) in &transaction.changes {
            self.slots[*slot as usize] = *extent;
            self.at.insert(*extent, *slot);
            if !self.used.contains_key(extent) {
                self.touch(*extent);
            }
        }
        self.next = self.next.max(transaction.number + 1);
    }
}

/// The first slot of the context of a transaction.
fn window(number: u64, slots: usize) -> usize {
    (number % slots.div_ceil(CONTEXT).max(1) as u64) as usize * CONTEXT
}

fn crc_of(bytes: &[u8]) -> u32 {
    let head = crc32c::crc32c_append(crc32c::crc32c(&bytes[..CRC_AT]), &[0; 4]);
    crc32c::crc32c_append(head, &bytes[CRC_AT + 4..])
}

/// A page of the ring, if it is good, of this replica, and in its place.
fn decode(bytes: &[u8], place: u64, pages: u64, device: u64) -> Option<RawPage> {
    let page = RawPage::read_from_bytes(bytes).ok()?;
    let good = page.magic == MAGIC && page.crc.get() == crc_of(bytes) && page.device.get() == device;
    (good && page.number.get() % pages == place && usize::from(page.updates.get()) <= UPDATES).then_some(page)
}

/// The hot extents that a ring holds; none if what is there does not make up a whole table (then everything counts as
/// hot).
pub fn replay(ring: &[u8], slots: u32, device: u64) -> Option<Replayed> {
    let pages = ring.len() as u64 / PAGE;
    let found = ring.chunks_exact(PAGE as usize).enumerate();
    let good: BTreeMap<u64, RawPage> =
        found.filter_map(|(n, b)| decode(b, n as u64, pages, device)).map(|p| (p.number.get(), p)).collect();
    let (&newest, _) = good.last_key_value()?;
    let mut first = newest;
    while first > 0 && good.contains_key(&(first - 1)) && good[&first].initial.get() == 0 {
        first -= 1;
    }
    let rotation = u64::from(slots).div_ceil(CONTEXT as u64);
    if good[&first].initial.get() == 0 && newest - first + 1 < rotation {
        return None;
    }
    let mut table = vec![EMPTY; slots as usize];
    for page in good.range(first..=newest).map(|(_, p)| p) {
        if page.slots.get() != slots {
            return None;
        }
        let from = table.iter_mut().skip(page.context_at.get() as usize);
        from.zip(&page.context).for_each(|(to, c)| *to = c.get());
        for update in &page.update[..usize::from(page.updates.get())] {
            *table.get_mut(update.slot.get() as usize)? = update.extent.get();
        }
    }
    let hot = table.into_iter().filter(|e| *e != EMPTY).collect();
    Some(Replayed { hot, next: newest + 1, bad_pages: (pages as usize).saturating_sub(good.len()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGES: u64 = 5;

    fn commit(log: &mut ActivityLog, ring: &mut [u8], transaction: &Transaction) {
        let at = (transaction.number % PAGES * PAGE) as usize;
        ring[at..at + PAGE as usize].copy_from_slice(&log.encode(transaction));
        log.committed(transaction);
    }

    fn started(slots: u32) -> (ActivityLog, Vec<u8>) {
        let (mut log, mut ring) = (ActivityLog::new(9, slots, 1), vec![0; (PAGES * PAGE) as usize]);
        let first = log.plan_reset();
        commit(&mut log, &mut ring, &first);
        (log, ring)
    }

    #[test]
    fn ring_gives_the_table_back_after_any_number_of_transactions() {
        let (mut log, mut ring) = started(2000);
        for n in 0..300_u32 {
            let wanted = (n * 37..n * 37 + 40).collect();
            let transaction = log.plan(&wanted).expect("room");
            assert_eq!(transaction.enters.len(), wanted.iter().filter(|e| !log.is_hot(**e)).count());
            commit(&mut log, &mut ring, &transaction);
            let found = replay(&ring, 2000, 9).expect("whole");
            assert_eq!(found.hot, log.hot().collect(), "after {n}");
        }
        assert!(log.hot().count() == 2000 && replay(&ring, 2000, 8).is_none(), "of another replica");
    }

    #[test]
    fn torn_newest_page_gives_the_table_before_it() {
        let (mut log, mut ring) = started(1800);
        for n in 0..40_u32 {
            let before: BTreeSet<u32> = log.hot().collect();
            let transaction = log.plan(&(n * 60..n * 60 + 60).collect()).expect("room");
            let at = (transaction.number % PAGES * PAGE) as usize;
            let page = log.encode(&transaction);
            for sectors in 1..8 {
                let mut torn = ring.clone();
                torn[at..at + sectors * 512].copy_from_slice(&page[..sectors * 512]);
                let found = replay(&torn, 1800, 9).expect("whole");
                // Where the rest of the page was the same before, it is the whole new one.
                let whole = torn[at..at + PAGE as usize] == page;
                assert!(found.hot == before || whole, "{sectors} sectors of transaction {}", transaction.number);
            }
            commit(&mut log, &mut ring, &transaction);
        }
    }

    #[test]
    fn pinned_extents_stay_and_the_longest_unused_leaves() {
        let (mut log, mut ring) = started(3);
        for extent in [1, 2, 3] {
            log.pin(extent);
        }
        let all = log.plan(&BTreeSet::from([1, 2, 3])).expect("room");
        commit(&mut log, &mut ring, &all);
        assert_eq!(log.plan(&BTreeSet::from([4])), None, "all pinned");
        log.unpin(3);
        log.unpin(2);
        let next = log.plan(&BTreeSet::from([4])).expect("room");
        assert_eq!((next.leaves.as_slice(), next.enters.as_slice()), (&[2][..], &[4][..]));
        assert_eq!(log.plan(&BTreeSet::from([4, 2, 3])).map(|t| t.leaves), None, "who is wanted does not leave");
    }

    #[test]
    fn a_hole_in_the_ring_that_hides_a_part_of_the_table_is_told() {
        let (mut log, mut ring) = started(880 * 3);
        for n in 0..20_u32 {
            let transaction = log.plan(&BTreeSet::from([n])).expect("room");
            commit(&mut log, &mut ring, &transaction);
        }
        // Newest is 21; 20 is damaged: one page is not three windows.
        ring[(20 % PAGES * PAGE) as usize + 70] ^= 1;
        assert_eq!(replay(&ring, 880 * 3, 9), None);
    }
}
