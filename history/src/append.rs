//! A file of records that only grows: each record that was acknowledged is there once, whole, in an order that agrees with time.
//!
//! What is compared is the file as it was found when all was quiet (its last scan from the beginning) with every append, and
//! with every scan made meanwhile. A record that an append acknowledged is visible at once and to all; it is *durable* once an
//! fsync of its node that began later was acknowledged, or once another node has read it (which made its node commit it). One that
//! is not may be lost with its node's life, and with nothing else (DESIGN invariant 2).

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Event, History, Op, Outcome, Violation, Wrong, violation};

/// Checks the calls on one file, which begins empty.
pub fn check(events: &[&Event], history: &History) -> Result<(), Violation> {
    let torn = events.iter().find(|e| e.outcome == Outcome::Torn);
    if let Some(torn) = torn {
        return Err(violation(Wrong::Torn, "a record was read that is not whole".to_owned(), &[torn]));
    }
    let Some(file) = File::new(events, history) else { return Ok(()) };
    file.records_are_known_and_single()?;
    file.order_agrees_with_time()?;
    file.what_was_acknowledged_is_there()?;
    file.scans.iter().try_for_each(|scan| file.agrees(scan))
}

struct File<'a> {
    events: &'a [&'a Event],
    history: &'a History,
    appends: BTreeMap<u64, &'a Event>,
    scans: Vec<&'a Event>,
    last: &'a Event,
    /// The records that were found last.
    records: &'a [u64],
}

fn records(event: &Event) -> Option<(u64, &[u64])> {
    match (&event.op, &event.outcome) {
        (Op::Scan { from }, Outcome::Records(records)) => Some((*from, records)),
        _ => None,
    }
}

impl<'a> File<'a> {
    /// None if nobody looked at the whole of it.
    fn new(events: &'a [&'a Event], history: &'a History) -> Option<File<'a>> {
        let value = |e: &&'a Event| match e.op {
            Op::Append { value } => Some((value, *e)),
            _ => None,
        };
        let scans: Vec<&Event> = events.iter().copied().filter(|e| records(e).is_some()).collect();
        let whole = |e: &&&Event| matches!(e.op, Op::Scan { from: 0 });
        let last = scans.iter().filter(whole).max_by_key(|e| e.start).copied()?;
        let records = records(last)?.1;
        Some(File { events, history, appends: events.iter().filter_map(value).collect(), scans, last, records })
    }

    fn records_are_known_and_single(&self) -> Result<(), Violation> {
        let mut at = BTreeMap::new();
        for (n, value) in self.records.iter().enumerate() {
            let Some(append) = self.appends.get(value) else {
                let said = format!("record {n} is {value}, which nobody appended");
                return Err(violation(Wrong::Invented, said, &[self.last]));
            };
            if let Some(before) = at.insert(value, n) {
                let said = format!("{value} is there twice, as records {before} and {n}");
                return Err(violation(Wrong::Invented, said, &[append]));
            }
        }
        Ok(())
    }

    fn order_agrees_with_time(&self) -> Result<(), Violation> {
        let mut latest: Option<&Event> = None;
        for append in self.records.iter().map(|value| self.appends[value]) {
            if let Some(before) = latest.filter(|latest| append.is_before(latest)) {
                let wrong = if append.must() { Wrong::Invented } else { Wrong::ExecutedAfterFailure };
                let said = "a record stands behind one that was appended after its own append was over".to_owned();
                return Err(violation(wrong, said, &[before, append]));
            }
            if latest.is_none_or(|latest| append.start > latest.start) {
                latest = Some(append);
            }
        }
        Ok(())
    }

    fn what_was_acknowledged_is_there(&self) -> Result<(), Violation> {
        let there: BTreeSet<u64> = self.records.iter().copied().collect();
        for (value, append) in self.appends.iter().filter(|(_, e)| e.must() && e.is_before(self.last)) {
            if !there.contains(value) && !self.may_be_lost(append) {
                let mut shown = vec![*append, self.last];
                shown.extend(self.covering(append));
                return Err(violation(Wrong::Lost, format!("{value} was acknowledged and is not there"), &shown));
            }
        }
        Ok(())
    }

    /// The fsyncs of the same node that cover an append.
    fn covering(&self, append: &Event) -> Option<&'a Event> {
        let covers = |e: &&&Event| e.op == Op::Fsync && e.must() && e.node == append.node && append.is_before(e);
        self.events.iter().filter(covers).min_by_key(|e| e.end).copied()
    }

    /// Whether an append that was acknowledged may be gone: with its node's life, if it was not durable before.
    fn may_be_lost(&self, append: &Event) -> bool {
        let Some(ended) = self.history.life_ended(append.node, append.start) else { return false };
        let Op::Append { value } = append.op else { return false };
        let synced = self.covering(append).is_some_and(|fsync| fsync.start < ended);
        let others = self.scans.iter().filter(|e| e.node != append.node || e.start > ended);
        !synced && !others.filter_map(|e| records(e)).any(|(_, found)| found.contains(&value))
    }

    /// Whether a scan saw what was there: the same records at the same places, nothing of the future, and all of the past.
    fn agrees(&self, scan: &'a Event) -> Result<(), Violation> {
        let Some((from, found)) = records(scan) else { return Ok(()) };
        for (place, value) in (from..).zip(found) {
            let Some(append) = self.appends.get(value) else {
                let said = format!("record {place} was {value}, which nobody appended");
                return Err(violation(Wrong::Invented, said, &[scan]));
            };
            if scan.is_before(append) {
                let said = format!("{value} was read before it was appended");
                return Err(violation(Wrong::Invented, said, &[scan, append]));
            }
            let stays = self.records.get(place as usize) == Some(value);
            // What its own node saw before its life ended may be gone with it.
            let own = append.node == scan.node && self.may_be_lost(append);
            if !stays && !own {
                let said = format!("record {place} was {value} and is not any more");
                return Err(violation(Wrong::Lost, said, &[scan, append, self.last]));
            }
        }
        let end = from as usize + found.len();
        let missed = self.records.iter().skip(end).map(|value| self.appends[value]);
        match missed.into_iter().find(|append| append.must() && append.is_before(scan)) {
            None => Ok(()),
            Some(missed) => {
                let said = format!("{} records were found, and one more had been acknowledged", found.len());
                Err(violation(Wrong::Lost, said, &[missed, scan]))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::brute::call;
    use crate::event::{Happening, Turn};

    fn append(process: u32, start: i64, end: i64, value: u64) -> Event {
        call(process, start, end, Op::Append { value }, Outcome::Done)
    }

    fn scan(process: u32, start: i64, end: i64, from: u64, found: &[u64]) -> Event {
        call(process, start, end, Op::Scan { from }, Outcome::Records(found.to_vec()))
    }

    fn wrong(events: &[Event], ended: &[(i64, u8)]) -> Option<Wrong> {
        let happenings = ended.iter().map(|(at, node)| Happening { at: *at, node: *node, turn: Turn::Ended }).collect();
        let history = History { happenings, ..History::default() };
        check(&events.iter().collect::<Vec<_>>(), &history).err().map(|v| v.wrong)
    }

    #[test]
    fn records_are_there_once_in_an_order_that_agrees_with_time() {
        let appends = [append(1, 0, 10, 1), append(2, 5, 15, 2), append(1, 20, 30, 3)];
        let with = |found: &[u64]| {
            let mut all = appends.to_vec();
            all.push(scan(3, 90, 99, 0, found));
            wrong(&all, &[])
        };
        assert_eq!((with(&[1, 2, 3]), with(&[2, 1, 3])), (None, None));
        assert_eq!(with(&[1, 3, 2]), Some(Wrong::Invented), "the order");
        assert_eq!(with(&[1, 2, 2, 3]), Some(Wrong::Invented), "twice");
        assert_eq!(with(&[1, 2, 3, 4]), Some(Wrong::Invented), "nobody's");
        assert_eq!(with(&[1, 3]), Some(Wrong::Lost));
    }

    #[test]
    fn what_was_not_made_stable_may_go_with_its_node_and_only_with_that() {
        let fsync = |process, start, end| call(process, start, end, Op::Fsync, Outcome::Done);
        let gone = |more: &[Event], ended: &[(i64, u8)]| {
            let mut all = vec![append(1, 0, 10, 1), scan(2, 90, 99, 0, &[])];
            all.extend_from_slice(more);
            wrong(&all, ended)
        };
        assert_eq!(gone(&[], &[]), Some(Wrong::Lost));
        assert_eq!(gone(&[], &[(50, 1)]), None);
        assert_eq!(gone(&[], &[(50, 2)]), Some(Wrong::Lost), "another node's end");
        assert_eq!(gone(&[fsync(3, 20, 30)], &[(50, 1)]), Some(Wrong::Lost), "an fsync of the same node");
        assert_eq!(gone(&[fsync(2, 20, 30)], &[(50, 1)]), None, "an fsync of another");
        assert_eq!(gone(&[fsync(3, 60, 70)], &[(50, 1)]), None, "an fsync of the next life");
        assert_eq!(gone(&[scan(2, 20, 30, 0, &[1])], &[(50, 1)]), Some(Wrong::Lost), "another node read it");
        assert_eq!(gone(&[scan(3, 20, 30, 0, &[1])], &[(50, 1)]), None, "only its own node read it");
    }

    #[test]
    fn what_failed_may_be_there_where_it_belongs_in_time() {
        let mut failed = append(1, 0, 10, 1);
        failed.outcome = Outcome::Failed(5);
        let with = |found: &[u64]| wrong(&[failed.clone(), append(2, 20, 30, 2), scan(3, 90, 99, 0, found)], &[]);
        assert_eq!((with(&[2]), with(&[1, 2])), (None, None));
        assert_eq!(with(&[2, 1]), Some(Wrong::ExecutedAfterFailure));
    }

    #[test]
    fn a_scan_sees_all_of_the_past_and_nothing_of_the_future() {
        let with =
            |seen: Event| wrong(&[append(1, 0, 10, 1), append(2, 40, 50, 2), seen, scan(3, 90, 99, 0, &[1, 2])], &[]);
        assert_eq!(with(scan(3, 20, 30, 0, &[1])), None);
        assert_eq!(with(scan(3, 20, 30, 1, &[])), None);
        assert_eq!(with(scan(3, 20, 30, 0, &[])), Some(Wrong::Lost));
        assert_eq!(with(scan(3, 20, 30, 0, &[1, 2])), Some(Wrong::Invented));
        assert_eq!(with(scan(3, 20, 60, 0, &[2])), Some(Wrong::Lost), "at another place");
        assert_eq!(wrong(&[call(1, 0, 9, Op::Scan { from: 0 }, Outcome::Torn)], &[]), Some(Wrong::Torn));
    }
}
