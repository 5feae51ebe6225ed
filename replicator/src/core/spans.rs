//! Spans under numbers, in which what overlaps a span is found fast.
//!
//! A span whose length lies in `[2^k, 2^(k+1))` sectors is in class `k`, by start. What overlaps `[a, b)` has, in class `k`, a
//! start in `(a - 2^(k+1), b)`. Lengths are few, so classes are; of spans that do not overlap one another at most two in a
//! class are looked at in vain.

use std::collections::BTreeMap;

use crate::ids::Span;

/// The index. Numbers may come with the same span.
#[derive(Clone, Debug, Default)]
pub(super) struct SpanIndex {
    /// By class; within it by start and number.
    classes: BTreeMap<u32, BTreeMap<(u64, u64), u64>>,
    len: usize,
}

impl SpanIndex {
    pub(super) fn insert(&mut self, span: Span, number: u64) {
        let class = self.classes.entry(class(span)).or_default();
        if class.insert((span.at, number), span.len).is_none() {
            self.len += 1;
        }
    }

    pub(super) fn remove(&mut self, span: Span, number: u64) {
        let k = class(span);
        let Some(found) = self.classes.get_mut(&k) else { return };
        if found.remove(&(span.at, number)).is_some() {
            self.len -= 1;
        }
        if found.is_empty() {
            self.classes.remove(&k);
        }
    }

    pub(super) fn clear(&mut self) {
        self.classes.clear();
        self.len = 0;
    }

    /// The numbers of what overlaps a span.
    pub(super) fn overlapping(&self, span: Span) -> impl Iterator<Item = u64> + '_ {
        self.classes.iter().flat_map(move |(k, found)| {
            let reach = 1_u64.checked_shl(k + 1).unwrap_or(u64::MAX);
            let from = (span.at.saturating_sub(reach - 1), 0);
            let near = found.range(from..(span.end(), 0));
            let hit = move |at: u64, len: u64| Span::new(at, len).overlaps(span);
            near.filter(move |((at, _), len)| hit(*at, **len)).map(|((_, number), _)| *number)
        })
    }

    /// Whether anything overlaps a span.
    pub(super) fn hits(&self, span: Span) -> bool {
        self.overlapping(span).next().is_some()
    }
}

fn class(span: Span) -> u32 {
    span.len.checked_ilog2().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Against a list that is gone through: spans of every length, many at the same place.
    #[test]
    fn what_overlaps_is_found_as_by_looking_at_all() {
        let mut seed = 7_u64;
        let mut below = move |n: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % n
        };
        let (mut index, mut all) = (SpanIndex::default(), Vec::new());
        for number in 0..4000 {
            let long = below(12);
            let span = Span::new(below(2000), 1 + below(1 << long));
            index.insert(span, number);
            all.push((span, number));
            if below(3) == 0 {
                let (span, number) = all.swap_remove(usize::try_from(below(all.len() as u64)).expect("few"));
                index.remove(span, number);
            }
            let asked = Span::new(below(2500), 1 + below(600));
            let found: BTreeSet<u64> = index.overlapping(asked).collect();
            let expected: BTreeSet<u64> = all.iter().filter(|(s, _)| s.overlaps(asked)).map(|(_, n)| *n).collect();
            assert_eq!(found, expected, "{asked:?}");
            assert_eq!((index.hits(asked), index.len), (!expected.is_empty(), all.len()));
        }
    }

    #[test]
    fn the_longest_span_and_the_last_sector_do_not_wrap() {
        let mut index = SpanIndex::default();
        index.insert(Span::new(0, u64::MAX), 1);
        index.insert(Span::new(u64::MAX - 1, 8), 2);
        assert_eq!(index.overlapping(Span::new(u64::MAX - 1, 1)).collect::<Vec<_>>(), [2, 1]);
        index.remove(Span::new(0, u64::MAX), 1);
        assert!(!index.hits(Span::new(5, 5)) && index.len == 1);
    }
}
