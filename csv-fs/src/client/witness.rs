//! What this node wrote lately, and what "since" means between nodes that have no common clock.
//!
//! A node that wants to know later what others wrote *since now* sends a **mark**: a number, that everybody notes with the moment at
//! which it came ([`Recent::heard`]). A write that began here after that came began after the mark was sent, whatever the clocks say. One
//! that began before may have been before or after, and counts as before.
//! Prevents: two nodes' clocks run apart, or one machine is paused for a second; a write that came first is taken for the later one, and
//! what was written after it under a lock is thought to be overwritten.
//!
//! Numbers go on over the processes of one life: they are microseconds of the machine's clock since it was started. Prevents: a daemon is
//! killed and followed by one that goes on for it and counts from 1; its mark is taken for one of an hour ago, and everything that was
//! written in that hour for later.
//!
//! Writes are kept as long as there is room: [`KEPT`] on each worker. Who has forgotten has seen nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::types::ClientId;

/// Writes that a worker remembers; 256 KiB.
const KEPT: usize = 8192;
/// Marks that are remembered of each client; a minute of them.
const MARKS: usize = 600;
/// Marks that nobody needs more of are so far apart.
const APART: Duration = Duration::from_millis(100);

/// A write that was executed.
#[derive(Clone, Copy, Debug)]
struct Wrote {
    /// Byte of the disk.
    at: u64,
    len: u64,
    /// Not later than anything of it was executed.
    began: Instant,
}

/// Where bytes of the disk begin, and how many they are.
pub(super) type Span = (u64, u64);

/// The same bytes in order, those that touch together.
pub(super) fn joined(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable();
    let mut joined: Vec<Span> = Vec::with_capacity(spans.len());
    for (at, len) in spans {
        match joined.last_mut() {
            Some((first, l)) if *first + *l >= at => *l = (*l).max(at + len - *first),
            _ => joined.push((at, len)),
        }
    }
    joined
}

/// What was written here lately.
#[derive(Debug)]
pub(super) struct Recent {
    /// Of each worker, so that no two meet at one; of other threads the last.
    tables: Vec<Mutex<VecDeque<Wrote>>>,
    heard: Mutex<BTreeMap<ClientId, VecDeque<(u64, Instant)>>>,
}

impl Recent {
    pub(super) fn new(workers: usize) -> Recent {
        let table = || Mutex::new(VecDeque::new());
        Recent { tables: (0..=workers).map(|_| table()).collect(), heard: Mutex::default() }
    }

    /// A program's bytes were written, and those alone: not what was written back around them. Said before the program, or anybody who gets
    /// its layout, hears of it. Prevents: a write of 100 bytes writes its block back as it found it, that counts as a write of all of the
    /// block, and another one in doubt is left out of which nothing was overwritten.
    pub(super) fn wrote(&self, table: usize, at: u64, len: usize, began: Instant) {
        let mut table = self.tables[table].lock();
        if table.len() >= KEPT {
            table.pop_front();
        }
        table.push_back(Wrote { at, len: len as u64, began });
    }

    /// A mark has come. Of a client's former lives nothing is remembered.
    pub(super) fn heard(&self, of: ClientId, number: u64, now: Instant) {
        let mut heard = self.heard.lock();
        if heard.keys().any(|c| c.node == of.node && c.incarnation > of.incarnation) {
            return;
        }
        heard.retain(|c, _| c.node != of.node || *c == of);
        let marks = heard.entry(of).or_default();
        if marks.len() >= MARKS {
            marks.pop_front();
        }
        marks.push_back((number, now));
    }

    #[cfg(test)]
    pub(super) fn last_heard(&self, of: ClientId) -> u64 {
        self.heard.lock().get(&of).and_then(|m| m.back()).map_or(0, |(n, _)| *n)
    }

    /// Which of these bytes were overwritten by writes that began after this mark or a later one had come.
    pub(super) fn since_mark(&self, of: ClientId, mark: u64, spans: &[Span]) -> Vec<Span> {
        let heard = self.heard.lock();
        let came = heard.get(&of).and_then(|m| m.iter().filter(|(n, _)| *n >= mark).map(|(_, at)| *at).min());
        drop(heard);
        came.map(|came| self.since(came, spans)).unwrap_or_default()
    }

    /// Which of these bytes were overwritten by writes of this node that began after that.
    pub(super) fn since(&self, when: Instant, spans: &[Span]) -> Vec<Span> {
        let mut found = Vec::new();
        for table in &self.tables {
            // Copied, so that who writes meanwhile does not wait for the search.
            let after: Vec<Wrote> = table.lock().iter().filter(|w| w.began > when).copied().collect();
            for w in after {
                let shared = |(at, len): &Span| {
                    let (from, to) = (w.at.max(*at), (w.at + w.len).min(at.saturating_add(*len)));
                    (from < to).then(|| (from, to - from))
                };
                found.extend(spans.iter().filter_map(shared));
            }
        }
        joined(found)
    }
}

/// The marks that this node has sent.
#[derive(Debug, Default)]
pub(super) struct Marks(Mutex<VecDeque<(u64, Instant)>>);

impl Marks {
    /// The number of a mark that is to be sent now, unless one was a moment ago.
    pub(super) fn due(&self, now: Instant, clock: Duration) -> Option<u64> {
        let mut marks = self.0.lock();
        let recent = marks.back().is_some_and(|(_, at)| now.saturating_duration_since(*at) < APART);
        (!recent).then(|| next(&mut marks, now, clock))
    }

    /// The first mark since then, and whether it is to be sent now.
    pub(super) fn first_since(&self, when: Instant, now: Instant, clock: Duration) -> (u64, bool) {
        let mut marks = self.0.lock();
        match marks.iter().find(|(_, at)| *at >= when) {
            Some((number, _)) => (*number, false),
            None => (next(&mut marks, now, clock), true),
        }
    }
}

/// `clock`: since the machine was started.
fn next(marks: &mut VecDeque<(u64, Instant)>, now: Instant, clock: Duration) -> u64 {
    let above = marks.back().map_or(1, |(number, _)| number + 1);
    let number = above.max(u64::try_from(clock.as_micros()).unwrap_or(u64::MAX));
    if marks.len() >= MARKS {
        marks.pop_front();
    }
    marks.push_back((number, now));
    number
}

#[cfg(test)]
mod tests {
    use block::shared::{Incarnation, NodeId};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn client(incarnation: u64) -> ClientId {
        ClientId { node: NodeId::new(2).unwrap(), incarnation: Incarnation(incarnation) }
    }

    #[test]
    fn only_a_write_that_began_after_a_mark_was_heard_counts_as_later() {
        let (recent, t) = (Recent::new(1), Instant::now());
        recent.wrote(0, 0, 4096, t);
        recent.wrote(1, 8192, 4096, t + 3 * MS);
        let all = [(0, 16_384)];
        assert_eq!(recent.since_mark(client(1), 1, &all), [], "nothing was heard");
        recent.heard(client(1), 1, t + MS);
        recent.heard(client(1), 2, t + 4 * MS);
        assert_eq!(recent.since_mark(client(1), 1, &all), [(8192, 4096)]);
        assert_eq!(recent.since_mark(client(1), 2, &all), []);
        assert_eq!(recent.since(t - MS, &all), [(0, 4096), (8192, 4096)], "by the own clock");
    }

    #[test]
    fn only_the_bytes_that_were_asked_for_and_written_are_told() {
        let (recent, t) = (Recent::new(0), Instant::now());
        recent.heard(client(1), 1, t);
        recent.wrote(0, 500, 100, t + MS);
        recent.wrote(0, 600, 1000, t + MS);
        recent.wrote(0, 3000, 10, t + MS);
        let told = recent.since_mark(client(1), 1, &[(0, 512), (1024, 1024), (2990, 15)]);
        assert_eq!(told, [(500, 12), (1024, 576), (3000, 5)]);
        assert_eq!(recent.since_mark(client(1), 1, &[(u64::MAX - 1, 4)]), []);
    }

    #[test]
    fn marks_of_another_life_are_not_taken_for_those_of_this_one() {
        let (recent, t) = (Recent::new(0), Instant::now());
        recent.heard(client(1), 7, t);
        recent.heard(client(2), 1, t + 2 * MS);
        recent.heard(client(1), 8, t + 2 * MS);
        recent.wrote(0, 0, 512, t + MS);
        assert_eq!(recent.since_mark(client(1), 7, &[(0, 512)]), []);
        assert_eq!(recent.since_mark(client(2), 1, &[(0, 512)]), []);
    }

    #[test]
    fn what_is_forgotten_was_not_seen() {
        let (recent, t) = (Recent::new(0), Instant::now());
        recent.heard(client(1), 1, t);
        (0..=KEPT as u64).for_each(|i| recent.wrote(0, i * 1024, 512, t + MS));
        assert_eq!(recent.since_mark(client(1), 1, &[(0, 2048)]), [(1024, 512)]);
    }

    #[test]
    fn the_first_mark_since_a_moment_is_one_that_was_sent_or_the_next() {
        let (marks, t) = (Marks::default(), Instant::now());
        assert_eq!(marks.due(t, 9 * MS), Some(9000));
        assert_eq!(marks.due(t + MS, 10 * MS), None);
        assert_eq!(marks.due(t + APART, 109 * MS), Some(109_000));
        assert_eq!(marks.first_since(t + MS, t + 2 * APART, 209 * MS), (109_000, false));
        assert_eq!(marks.first_since(t + APART + MS, t + 2 * APART, 109 * MS), (109_001, true));
    }

    #[test]
    fn the_next_process_of_a_life_counts_on() {
        let (recent, t) = (Recent::new(0), Instant::now());
        let (before, after) = (Marks::default(), Marks::default());
        recent.heard(client(1), before.due(t, 10 * MS).unwrap(), t);
        recent.wrote(0, 0, 512, t + MS);
        let number = after.due(t + 2 * MS, 12 * MS).unwrap();
        recent.heard(client(1), number, t + 2 * MS);
        assert_eq!(recent.since_mark(client(1), number, &[(0, 512)]), []);
    }
}
