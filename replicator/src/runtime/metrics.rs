//! What a resource counts and measures. Nothing here decides anything.
//!
//! *Lag*: how long ago the oldest write was sent that a peer has not written, and the bytes of all such writes. At C an application
//! waits for it; at A it is what a loss of this node would cost.

use std::collections::{BTreeMap, VecDeque};

use super::status::Status;
use crate::ids::{NodeId, Seq};

/// Upper bounds of the classes of a histogram, in microseconds: from a fast disk's write to a peer that is about to be given up.
pub const BOUNDS_US: [u64; 16] = [
    50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 102_400, 204_800, 819_200, 3_276_800,
    13_107_200,
];
/// Writes under way to a peer whose times are kept; of more than that (a settlement bounds them to half) the youngest go unmeasured.
const MAX_OPEN: usize = 16_384;

/// How long things took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// How many there were in each class, the last one has no bound.
    pub classes: [u64; BOUNDS_US.len() + 1],
    /// Of all, in microseconds.
    pub sum_us: u64,
}

impl Histogram {
    /// One more.
    pub fn add(&mut self, us: u64) {
        let class = BOUNDS_US.partition_point(|bound| *bound < us);
        self.classes[class] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.classes.iter().sum()
    }
}

/// Of applications' requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Reads, from when they came to their answer.
    pub reads: Histogram,
    /// Writes, zeroings and discards.
    pub writes: Histogram,
    /// Flushes.
    pub flushes: Histogram,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
}

/// Of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerMetrics {
    /// From when a write was handed to the connection until the peer had written it.
    pub acknowledgements: Histogram,
    /// Microseconds since the oldest write was sent that it has not written.
    pub lag_us: u64,
    /// Bytes of all such writes.
    pub lag_bytes: u64,
    /// Bytes sent to it, with everything that belongs to messages.
    pub sent_bytes: u64,
    /// Bytes that came from it.
    pub received_bytes: u64,
    /// Meetings at which both had written apart.
    pub split_brains: u64,
}

/// Of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// How it is.
    pub status: Status,
    /// Of applications' requests, since it was started.
    pub requests: Requests,
    /// Changes of the metadata that were written.
    pub metadata_writes: u64,
    /// By peer.
    pub peers: BTreeMap<NodeId, PeerMetrics>,
}

/// What is measured of a peer while it goes on.
#[derive(Debug, Default)]
pub(super) struct Peering {
    pub(super) totals: PeerMetrics,
    /// Writes that it has not written, in order: position, when, bytes; those that it has written meanwhile have no time.
    open: VecDeque<(Seq, Option<u64>, u64)>,
}

impl Peering {
    /// A write of the stream goes out.
    pub(super) fn wrote(&mut self, seq: Seq, bytes: u64, now_us: u64) {
        if self.open.len() < MAX_OPEN && self.open.back().is_none_or(|(last, ..)| *last < seq) {
            self.open.push_back((seq, Some(now_us), bytes));
            self.totals.lag_bytes += bytes;
        }
    }

    /// The peer has written it.
    pub(super) fn acknowledged(&mut self, seq: Seq, now_us: u64) {
        let at = self.open.partition_point(|(s, ..)| *s < seq);
        let Some((_, since, bytes)) = self.open.get_mut(at).filter(|(s, ..)| *s == seq) else { return };
        if let Some(since) = since.take() {
            self.totals.lag_bytes -= *bytes;
            self.totals.acknowledgements.add(now_us.saturating_sub(since));
        }
        while self.open.front().is_some_and(|(_, since, _)| since.is_none()) {
            self.open.pop_front();
        }
    }

    /// The connection is over: no answer comes any more.
    pub(super) fn lost(&mut self) {
        self.open.clear();
        self.totals.lag_bytes = 0;
    }

    /// What it came to.
    pub(super) fn metrics(&self, now_us: u64) -> PeerMetrics {
        let oldest = self.open.front().and_then(|(_, since, _)| *since);
        PeerMetrics { lag_us: oldest.map_or(0, |since| now_us.saturating_sub(since)), ..self.totals.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_written_yet_is_the_lag_and_what_is_was_an_acknowledgement() {
        let mut peer = Peering::default();
        for (n, at) in [(1, 100), (2, 200), (3, 300)] {
            peer.wrote(Seq(n), 4096, at);
        }
        assert_eq!((peer.metrics(1000).lag_us, peer.metrics(1000).lag_bytes), (900, 3 * 4096));
        peer.acknowledged(Seq(2), 1000);
        assert_eq!((peer.metrics(1000).lag_us, peer.metrics(1000).lag_bytes), (900, 2 * 4096), "1 is the oldest still");
        peer.acknowledged(Seq(1), 1100);
        peer.acknowledged(Seq(1), 1200);
        peer.acknowledged(Seq(9), 1200);
        let now = peer.metrics(1200);
        assert_eq!((now.lag_us, now.lag_bytes, now.acknowledgements.count()), (900, 4096, 2));
        assert_eq!(now.acknowledgements.sum_us, 800 + 1000);
        peer.lost();
        assert_eq!((peer.metrics(9000).lag_us, peer.metrics(9000).lag_bytes), (0, 0));
        peer.wrote(Seq(1), 512, 9000);
        assert_eq!(peer.metrics(9001).lag_bytes, 512, "a new connection begins anew");
    }

    #[test]
    fn a_time_is_of_the_first_class_whose_bound_it_does_not_exceed() {
        let mut histogram = Histogram::default();
        for us in [0, 50, 51, 100, 13_107_200, 13_107_201, u64::MAX] {
            histogram.add(us);
        }
        assert_eq!((histogram.classes[0], histogram.classes[1]), (2, 2));
        assert_eq!((histogram.classes[15], histogram.classes[16], histogram.count()), (1, 2, 7));
        assert_eq!(histogram.sum_us, u64::MAX, "it does not wrap");
    }
}
