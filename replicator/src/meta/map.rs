//! The bitmaps of all volumes for one peer, as one: a bit's number has its volume in the upper bits, as a sector's address has.

use std::ops::Range;

use super::bitmap::Bitmap;
use crate::ids::{Span, Volume};

/// Where a peer may differ from us.
#[derive(Clone, Debug)]
pub struct Map {
    /// Ascending.
    parts: Vec<(Volume, Bitmap)>,
}

impl Map {
    /// Of these volumes.
    pub(super) fn new(mut parts: Vec<(Volume, Bitmap)>) -> Map {
        parts.sort_by_key(|(v, _)| *v);
        Map { parts }
    }

    /// That of a volume.
    pub(super) fn part_mut(&mut self, volume: Volume) -> Option<&mut Bitmap> {
        self.parts.iter_mut().find(|(v, _)| *v == volume).map(|(_, map)| map)
    }

    /// A volume was added, or has another one.
    pub(super) fn replace(&mut self, volume: Volume, map: Bitmap) {
        self.parts.retain(|(v, _)| *v != volume);
        self.parts.push((volume, map));
        self.parts.sort_by_key(|(v, _)| *v);
    }

    /// A volume is not there any more.
    pub(super) fn remove(&mut self, volume: Volume) {
        self.parts.retain(|(v, _)| *v != volume);
    }

    /// Of which volumes.
    pub(super) fn parts(&self) -> impl Iterator<Item = (Volume, &Bitmap)> {
        self.parts.iter().map(|(v, map)| (*v, map))
    }

    fn at(&self, address: u64) -> Option<(u64, &Bitmap)> {
        let volume = Volume::of(address)?;
        self.parts.iter().find(|(v, _)| *v == volume).map(|(v, map)| (v.base(), map))
    }

    /// Bits that are set.
    pub fn set_bits(&self) -> u64 {
        self.parts.iter().map(|(_, map)| map.set_bits()).sum()
    }

    /// Sectors that they stand for.
    pub fn set_sectors(&self) -> u64 {
        self.parts.iter().map(|(_, map)| map.set_sectors()).sum()
    }

    /// Those of a volume.
    pub fn set_sectors_of(&self, volume: Volume) -> u64 {
        self.parts.iter().filter(|(v, _)| *v == volume).map(|(_, map)| map.set_sectors()).sum()
    }

    /// Whether a bit is set.
    pub fn is_set(&self, bit: u64) -> bool {
        self.at(bit).is_some_and(|(base, map)| map.is_set(bit - base))
    }

    /// The bits that a span touches.
    pub fn bits_of(&self, span: Span) -> Range<u64> {
        let Some((base, map)) = self.at(span.at) else { return 0..0 };
        let bits = map.bits_of(Span::new(span.at - base, span.len));
        base + bits.start..base + bits.end
    }

    /// Whether every bit of a span is set.
    pub fn covers(&self, span: Span) -> bool {
        self.bits_of(span).all(|b| self.is_set(b))
    }

    /// Sets the bits of a span.
    pub fn mark(&mut self, span: Span) {
        let volume = Volume::of(span.at);
        if let Some(map) = volume.and_then(|v| self.part_mut(v)) {
            map.mark(Span::new(Volume::local(span.at), span.len));
        }
    }

    /// Clears one bit. The caller has the proof.
    pub fn clear(&mut self, bit: u64) {
        let volume = Volume::of(bit);
        if let Some(map) = volume.and_then(|v| self.part_mut(v)) {
            map.clear(Volume::local(bit));
        }
    }

    /// The first set bit from `from` on.
    pub fn next_set(&self, from: u64) -> Option<u64> {
        let found = |(volume, map): &(Volume, Bitmap)| {
            let base = volume.base();
            map.next_set(from.saturating_sub(base)).map(|bit| base + bit)
        };
        // A volume whose bits all lie before `from` finds none.
        self.parts.iter().find_map(found)
    }

    /// The sectors of a bit.
    pub fn span_of(&self, bit: u64) -> Span {
        let Some((base, map)) = self.at(bit) else { return Span::default() };
        let span = map.span_of(bit - base);
        Span::new(base + span.at, span.len)
    }

    /// Pages that are to be written: all that differ from the disk's, or those of some spans with a bit that is not there.
    pub(super) fn unsaved(&self, spans: Option<&[Span]>) -> Vec<(Volume, u64)> {
        let mut pages = Vec::new();
        for (volume, map) in &self.parts {
            match spans {
                None => pages.extend(map.changed().map(|p| (*volume, p))),
                Some(spans) => {
                    let of_it = spans.iter().filter(|s| Volume::of(s.at) == Some(*volume));
                    let touched = of_it.flat_map(|s| map.pages_of(Span::new(Volume::local(s.at), s.len)));
                    pages.extend(touched.filter(|p| map.is_unsaved(*p)).map(|p| (*volume, p)));
                }
            }
        }
        pages.sort_unstable();
        pages.dedup();
        pages
    }

    /// The bytes of a page, which from now on counts as saved.
    pub(super) fn save(&mut self, volume: Volume, page: u64) -> Vec<u8> {
        self.part_mut(volume).map(|map| map.save(page)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_of_all_volumes_are_found_in_order_and_counted_by_volume() {
        let [first, two, nine] = [0, 2, 9].map(|n| Volume::new(n).expect("a volume"));
        let mut map =
            Map::new(vec![(nine, Bitmap::new(100, 16)), (first, Bitmap::new(10, 8)), (two, Bitmap::new(4, 8))]);
        for span in [Span::new(72, 8), two.span(1), Span::new(nine.base() + 16, 32)] {
            map.mark(span);
            assert!(map.covers(span));
        }
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(bit) = map.next_set(from) {
            found.push(map.span_of(bit));
            from = bit + 1;
        }
        let nines = |n: u64| Span::new(nine.base() + n * 16, 16);
        assert_eq!(found, [Span::new(72, 8), two.span(8), nines(1), nines(2)]);
        assert_eq!((map.set_bits(), map.set_sectors(), map.set_sectors_of(nine)), (4, 48, 32));
        map.clear(map.bits_of(two.span(8)).start);
        map.mark(Volume::new(5).expect("a volume").span(8));
        map.mark(Span::new(u64::MAX - 8, 8));
        assert_eq!(
            (map.set_bits(), map.next_set(10), map.bits_of(Span::new(u64::MAX, 1))),
            (3, Some(nine.base() + 1), 0..0)
        );
        assert_eq!(map.unsaved(None), [(first, 0), (two, 0), (nine, 0)]);
        assert_eq!(map.unsaved(Some(&[Span::new(nine.base(), 8), two.span(1)])), [(two, 0), (nine, 0)]);
        map.save(nine, 0);
        assert_eq!(map.unsaved(Some(&[Span::new(nine.base(), 8)])), []);
    }
}
