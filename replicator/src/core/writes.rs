//! The writes on their way to the local disk, in order.
//!
//! ```text
//!   enqueued ──► waits for older ones under it ──► ready ──► started ──► finished
//!        └─────────► cold: an extent of it is not hot ──┘
//! ```
//! For each event only what may have changed is looked at: thousands may be under way. A write counts the older ones that it
//! overlaps, and is ready when none is left; what is cold is looked at again when metadata became durable. Writes of a
//! stream are ready in its order: if one has to wait for its epoch, so have all behind it.

use std::collections::{BTreeMap, BTreeSet};

use super::event::{ConnId, Content};
use super::spans::SpanIndex;
use crate::ids::{NodeId, Seq, Span};

/// A write on its way to the disk.
#[derive(Debug)]
pub(super) struct LocalWrite {
    pub(super) span: Span,
    pub(super) content: Content,
    pub(super) fua: bool,
    pub(super) started: bool,
    pub(super) why: Why,
    /// Older writes under it that are not finished.
    older: u32,
}

/// Who wants it.
#[derive(Clone, Debug)]
pub(super) enum Why {
    App(Seq),
    Stream(NodeId, ConnId, Seq),
    /// Of a run of a synchronisation, by its start.
    Sync(NodeId, ConnId, u64),
}

/// The queue. Numbers grow.
#[derive(Debug, Default)]
pub(super) struct Writes {
    all: BTreeMap<u64, LocalWrite>,
    spans: SpanIndex,
    /// Not started.
    waiting: BTreeSet<u64>,
    /// Of them those of an extent that was cold when it was last looked at.
    cold: BTreeSet<u64>,
    /// Of them those that nothing older lies under, and that are not known to be cold: writes of a stream, and others.
    stream: BTreeSet<u64>,
    others: BTreeSet<u64>,
    /// Overlapping writes wait for one another.
    ordered: bool,
}

impl Writes {
    /// None yet; `ordered`: what overlaps is written in the order of the queue.
    pub(super) fn new(ordered: bool) -> Writes {
        Writes { ordered, ..Writes::default() }
    }

    pub(super) fn push(&mut self, number: u64, span: Span, content: Content, fua: bool, why: Why, hot: bool) {
        let older = if self.ordered { self.spans.overlapping(span).count() } else { 0 };
        let older = u32::try_from(older).unwrap_or(u32::MAX);
        self.spans.insert(span, number);
        self.all.insert(number, LocalWrite { span, content, fua, started: false, why, older });
        self.waiting.insert(number);
        if !hot {
            self.cold.insert(number);
        }
        self.look(number);
    }

    /// Puts a write where it belongs.
    fn look(&mut self, number: u64) {
        let Some(write) = self.all.get(&number) else { return };
        let ready = !write.started && write.older == 0 && !self.cold.contains(&number);
        let set = if matches!(write.why, Why::Stream(..)) { &mut self.stream } else { &mut self.others };
        if ready {
            set.insert(number);
        } else {
            set.remove(&number);
        }
    }

    /// Ready writes of a stream, in order.
    pub(super) fn ready_of_stream(&self) -> impl Iterator<Item = (u64, &LocalWrite)> {
        self.stream.iter().filter_map(|n| Some((*n, self.all.get(n)?)))
    }

    /// The others that are ready.
    pub(super) fn ready_others(&self) -> impl Iterator<Item = (u64, &LocalWrite)> {
        self.others.iter().filter_map(|n| Some((*n, self.all.get(n)?)))
    }

    /// An extent of it is cold.
    pub(super) fn is_cold(&mut self, number: u64) {
        self.cold.insert(number);
        self.look(number);
    }

    /// Metadata became durable: what was cold may be hot.
    pub(super) fn warm(&mut self, hot: impl Fn(Span) -> bool) {
        let cold = std::mem::take(&mut self.cold);
        let (warm, cold): (BTreeSet<u64>, BTreeSet<u64>) =
            cold.into_iter().partition(|n| self.all.get(n).is_some_and(|w| hot(w.span)));
        self.cold = cold;
        warm.into_iter().for_each(|n| self.look(n));
    }

    /// Whether any waits for an extent.
    pub(super) fn has_cold(&self) -> bool {
        !self.cold.is_empty()
    }

    /// Spans of those that are not started, in order.
    pub(super) fn waiting(&self) -> impl Iterator<Item = Span> {
        self.waiting.iter().filter_map(|n| self.all.get(n)).map(|w| w.span)
    }

    /// That of a number.
    pub(super) fn get(&self, number: u64) -> Option<&LocalWrite> {
        self.all.get(&number)
    }

    /// None.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// All, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &LocalWrite> {
        self.all.values()
    }

    /// It goes to the disk.
    pub(super) fn start(&mut self, number: u64) -> Option<&LocalWrite> {
        self.all.get_mut(&number)?.started = true;
        self.waiting.remove(&number);
        self.cold.remove(&number);
        self.look(number);
        self.all.get(&number)
    }

    /// It is written, or given up.
    pub(super) fn remove(&mut self, number: u64) -> Option<LocalWrite> {
        let write = self.all.remove(&number)?;
        self.spans.remove(write.span, number);
        for set in [&mut self.waiting, &mut self.cold, &mut self.stream, &mut self.others] {
            set.remove(&number);
        }
        let younger = |n: &u64| *n > number && self.ordered;
        let younger: Vec<u64> = self.spans.overlapping(write.span).filter(younger).collect();
        for other in younger {
            if let Some(other) = self.all.get_mut(&other) {
                other.older -= 1;
            }
            self.look(other);
        }
        Some(write)
    }

    /// Gives up what is not started and is said to be.
    pub(super) fn drop_waiting(&mut self, gone: impl Fn(&LocalWrite) -> bool) {
        let waiting = self.waiting.iter().copied();
        let gone: Vec<u64> = waiting.filter(|n| self.all.get(n).is_some_and(&gone)).collect();
        for number in gone {
            self.remove(number);
        }
    }

    /// Whether something under a span is not finished.
    pub(super) fn hits(&self, span: Span) -> bool {
        self.spans.hits(span)
    }

    /// What is not finished under a span.
    pub(super) fn under(&self, span: Span) -> impl Iterator<Item = &LocalWrite> {
        self.spans.overlapping(span).filter_map(|n| self.all.get(&n))
    }

    pub(super) fn clear(&mut self) {
        *self = Writes::new(self.ordered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(writes: &mut Writes, number: u64, at: u64, len: u64, hot: bool) {
        let content = Content::Zeroes { free: false };
        writes.push(number, Span::new(at, len), content, false, Why::App(Seq(number)), hot);
    }

    fn ready(writes: &Writes) -> Vec<u64> {
        writes.ready_others().map(|(n, _)| n).collect()
    }

    #[test]
    fn what_overlaps_is_ready_when_everything_older_under_it_is_finished() {
        let mut writes = Writes::new(true);
        for (number, at, len) in [(1, 0, 8), (2, 8, 8), (3, 4, 8), (4, 0, 2), (5, 100, 1)] {
            push(&mut writes, number, at, len, true);
        }
        assert_eq!(ready(&writes), [1, 2, 5]);
        for number in [1, 2] {
            writes.start(number);
        }
        assert_eq!(ready(&writes), [5]);
        writes.remove(1);
        assert_eq!(ready(&writes), [4, 5], "3 waits for 2");
        writes.remove(2);
        assert_eq!(ready(&writes), [3, 4, 5]);
        writes.remove(3);
        writes.drop_waiting(|w| w.span.at == 100);
        assert_eq!(ready(&writes), [4]);
        assert!(writes.hits(Span::new(1, 1)) && !writes.hits(Span::new(8, 100)));
    }

    #[test]
    fn what_is_cold_is_looked_at_again_when_it_may_be_hot() {
        let mut writes = Writes::new(true);
        push(&mut writes, 1, 0, 8, false);
        push(&mut writes, 2, 8, 8, false);
        push(&mut writes, 3, 16, 8, true);
        assert_eq!((ready(&writes), writes.has_cold()), (vec![3], true));
        writes.warm(|span| span.at == 8);
        assert_eq!(ready(&writes), [2, 3]);
        writes.is_cold(2);
        writes.warm(|_| true);
        assert_eq!((ready(&writes), writes.has_cold()), (vec![1, 2, 3], false));
        assert_eq!(writes.waiting().count(), 3);
        writes.start(1);
        assert_eq!(writes.waiting().count(), 2);
    }
}
