//! A bitmap: where a peer may differ from us.
//!
//! In memory whole, on the disk in pages of eight cells. A cell is one sector, which a disk writes whole or not at all:
//! `crc32c, number of the cell, 4032 bits`. A cell whose checksum or number is wrong counts as all set.

use std::collections::BTreeSet;

use super::PAGE;
use crate::ids::Span;

/// Bits of a bitmap at most: 32 MiB of memory for each peer. So 4 KiB a bit up to 1 TiB, 1 MiB a bit up to 256 TiB.
pub const MAX_BITS: u64 = 1 << 28;
/// Bytes of a cell.
const CELL: usize = 512;
/// Bytes of its head.
const HEAD: usize = 8;
/// Bits of a cell.
const BITS_PER_CELL: u64 = ((CELL - HEAD) * 8) as u64;
/// Bits of a page.
pub const BITS_PER_PAGE: u64 = BITS_PER_CELL * (PAGE / CELL as u64);

/// A bitmap in memory.
#[derive(Clone, Debug)]
pub struct Bitmap {
    words: Vec<u64>,
    bits: u64,
    /// Sectors of a bit.
    unit: u64,
    /// Bits that are set.
    set: u64,
    /// Pages in which a bit is set that is not on the disk.
    unsaved: BTreeSet<u64>,
    /// Pages that on the disk have bits which are clear here.
    stale: BTreeSet<u64>,
}

impl Bitmap {
    /// A clear one of `bits` bits of `unit` sectors.
    pub fn new(bits: u64, unit: u64) -> Bitmap {
        let words = vec![0; usize::try_from(bits.div_ceil(64)).unwrap_or(0)];
        Bitmap { words, bits, unit, set: 0, unsaved: BTreeSet::new(), stale: BTreeSet::new() }
    }

    /// The same for a device that has grown to so many bits of so many sectors, no fewer than they were; what was set is.
    #[must_use]
    pub fn grown(&self, bits: u64, unit: u64) -> Bitmap {
        let mut grown = Bitmap::new(bits, unit);
        if unit == self.unit {
            grown.words[..self.words.len()].copy_from_slice(&self.words);
            grown.set = self.set;
        } else {
            let mut from = 0;
            while let Some(bit) = self.next_set(from) {
                grown.mark(self.span_of(bit));
                from = bit + 1;
            }
        }
        // All of it is to be written, and by whoever does is known to be.
        grown.unsaved = (0..bits.div_ceil(BITS_PER_PAGE)).collect();
        grown
    }

    /// How many bits there are.
    pub fn bits(&self) -> u64 {
        self.bits
    }

    /// Pages that hold them.
    pub fn pages(&self) -> u64 {
        self.bits.div_ceil(BITS_PER_PAGE)
    }

    /// How many are set.
    pub fn set_bits(&self) -> u64 {
        self.set
    }

    /// Sectors that they stand for; the last bit may stand for more than there are.
    pub fn set_sectors(&self) -> u64 {
        self.set * self.unit
    }

    /// Whether a bit is set.
    pub fn is_set(&self, bit: u64) -> bool {
        bit < self.bits && self.words[(bit / 64) as usize] >> (bit % 64) & 1 == 1
    }

    /// The bits that a span touches.
    pub fn bits_of(&self, span: Span) -> std::ops::Range<u64> {
        let units = span.units(self.unit);
        units.start.min(self.bits)..units.end.min(self.bits)
    }

    /// Whether every bit of a span is set.
    pub fn covers(&self, span: Span) -> bool {
        self.bits_of(span).all(|b| self.is_set(b))
    }

    /// Sets the bits of a span.
    pub fn mark(&mut self, span: Span) {
        for bit in self.bits_of(span) {
            if !self.is_set(bit) {
                self.words[(bit / 64) as usize] |= 1 << (bit % 64);
                self.set += 1;
                self.unsaved.insert(bit / BITS_PER_PAGE);
            }
        }
    }

    /// Clears one bit. The caller has the proof.
    pub fn clear(&mut self, bit: u64) {
        if self.is_set(bit) {
            self.words[(bit / 64) as usize] &= !(1 << (bit % 64));
            self.set -= 1;
            self.stale.insert(bit / BITS_PER_PAGE);
        }
    }

    /// The first set bit from `from` on.
    pub fn next_set(&self, from: u64) -> Option<u64> {
        let mut word = usize::try_from(from / 64).ok()?;
        let mut mask = u64::MAX << (from % 64);
        while let Some(value) = self.words.get(word) {
            if value & mask != 0 {
                return Some(word as u64 * 64 + u64::from((value & mask).trailing_zeros()));
            }
            mask = u64::MAX;
            word += 1;
        }
        None
    }

    /// The sectors of a bit.
    pub fn span_of(&self, bit: u64) -> Span {
        Span::new(bit * self.unit, self.unit)
    }

    /// Pages that a span's bits lie in.
    pub fn pages_of(&self, span: Span) -> std::ops::Range<u64> {
        let bits = self.bits_of(span);
        if bits.is_empty() { 0..0 } else { bits.start / BITS_PER_PAGE..(bits.end - 1) / BITS_PER_PAGE + 1 }
    }

    /// Whether a page has a set bit that is not on the disk.
    pub fn is_unsaved(&self, page: u64) -> bool {
        self.unsaved.contains(&page)
    }

    /// Pages that differ from the disk's.
    pub fn changed(&self) -> impl Iterator<Item = u64> {
        self.unsaved.union(&self.stale).copied()
    }

    /// The bytes of a page. From now on the page counts as changed only by what comes after, until
    /// [`Bitmap::not_saved`] says that it did not get there.
    pub fn save(&mut self, page: u64) -> Vec<u8> {
        self.unsaved.remove(&page);
        self.stale.remove(&page);
        self.encode(page)
    }

    /// A page that was to be saved is not on the disk.
    pub fn not_saved(&mut self, page: u64) {
        self.unsaved.insert(page);
    }

    /// The bytes of a page.
    pub fn encode(&self, page: u64) -> Vec<u8> {
        let mut bytes = vec![0; PAGE as usize];
        for (n, cell) in bytes.chunks_exact_mut(CELL).enumerate() {
            let number = page * (PAGE / CELL as u64) + n as u64;
            for (i, byte) in cell[HEAD..].iter_mut().enumerate() {
                *byte = self.byte(number * BITS_PER_CELL + i as u64 * 8);
            }
            cell[4..HEAD].copy_from_slice(&(number as u32).to_le_bytes());
            let crc = crc32c::crc32c(&cell[4..]);
            cell[..4].copy_from_slice(&crc.to_le_bytes());
        }
        bytes
    }

    /// Takes a page from the disk into a bitmap that is clear there; the number of damaged cells comes back.
    pub fn load(&mut self, page: u64, bytes: &[u8]) -> usize {
        let mut damaged = 0;
        for (n, cell) in bytes.chunks_exact(CELL).enumerate() {
            let number = page * (PAGE / CELL as u64) + n as u64;
            let first = number * BITS_PER_CELL;
            if first >= self.bits {
                break;
            }
            let word = |at: usize| u32::from_le_bytes([cell[at], cell[at + 1], cell[at + 2], cell[at + 3]]);
            let good = word(0) == crc32c::crc32c(&cell[4..]) && word(4) == number as u32;
            damaged += usize::from(!good);
            for (i, byte) in cell[HEAD..].iter().enumerate() {
                self.put_byte(first + i as u64 * 8, if good { *byte } else { 0xff });
            }
            if !good {
                self.unsaved.insert(page);
            }
        }
        damaged
    }

    fn byte(&self, bit: u64) -> u8 {
        self.words.get((bit / 64) as usize).map_or(0, |w| (w >> (bit % 64)) as u8)
    }

    fn put_byte(&mut self, bit: u64, byte: u8) {
        let known = self.bits.saturating_sub(bit).min(8) as u32;
        let byte = if known >= 8 { byte } else { byte & ((1 << known) - 1) };
        if let Some(word) = self.words.get_mut((bit / 64) as usize) {
            let old = (*word >> (bit % 64)) as u8;
            *word = *word & !(0xff << (bit % 64)) | u64::from(byte) << (bit % 64);
            self.set = self.set + u64::from(byte.count_ones()) - u64::from(old.count_ones());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_comes_back_as_it_was_saved() {
        let mut map = Bitmap::new(BITS_PER_PAGE + 100, 8);
        for bit in [0, 63, 64, 4031, 4032, BITS_PER_PAGE - 1, BITS_PER_PAGE + 99] {
            map.mark(map.span_of(bit));
        }
        assert_eq!(map.set_bits(), 7);
        let pages: Vec<Vec<u8>> = (0..2).map(|p| map.save(p)).collect();
        assert_eq!(map.changed().count(), 0);
        let mut read = Bitmap::new(BITS_PER_PAGE + 100, 8);
        assert_eq!(read.load(0, &pages[0]) + read.load(1, &pages[1]), 0);
        assert_eq!((read.words, read.set), (map.words, 7));
    }

    #[test]
    fn a_damaged_or_misplaced_cell_counts_as_all_set() {
        let map = Bitmap::new(3 * BITS_PER_CELL, 8);
        let mut page = map.encode(0);
        page[CELL + 100] ^= 1;
        let (first, last) = page.split_at_mut(2 * CELL);
        last[..CELL].copy_from_slice(&first[..CELL]);
        let mut read = Bitmap::new(3 * BITS_PER_CELL, 8);
        assert_eq!(read.load(0, &page), 2);
        assert_eq!(read.set_bits(), 2 * BITS_PER_CELL);
        assert_eq!(read.next_set(0), Some(BITS_PER_CELL));
        assert!(read.is_unsaved(0), "what was repaired is to be written");
    }

    #[test]
    fn bits_are_counted_once_and_found_in_order() {
        let mut map = Bitmap::new(130, 8);
        map.mark(Span::new(4, 8));
        map.mark(Span::new(0, 8));
        map.mark(Span::new(129 * 8, 800));
        assert_eq!(map.set_bits(), 3);
        assert_eq!([map.next_set(0), map.next_set(2), map.next_set(130)], [Some(0), Some(129), None]);
        map.clear(129);
        map.clear(129);
        assert_eq!(map.set_bits(), 2);
        assert!(map.covers(Span::new(3, 9)) && !map.covers(Span::new(3, 20)));
    }
}
