//! A block as a register: reads return the last value written, in some order that agrees with time.
//!
//! Each value is written once, so each read names its write. A write and its reads are a *cluster*; in any order of a register
//! the calls of a cluster stand together, the write first. Cluster A comes before B in every order if some call of A ended
//! before some call of B began: if `f(A) < s(B)`, where `f` is the earliest end in a cluster and `s` the latest start. The
//! history is that of a register exactly if no read ended before its write began, and no two clusters come before one another
//! (Gibbons and Korach, *Testing shared memories*, 1997: circles of more than two always contain one of two). With
//! `f < s` a cluster is an interval (*forward zone*) `f..s`, else `s..=f` (*backward*): the conflict is two forward zones that
//! overlap, or a backward one inside a forward one, found by sorting.
//!
//! A write that failed or whose outcome is unknown is in the history if its value was read; if not, it can be left out of every
//! order. A block holds [`INITIAL`] before all. That this agrees with the definition is tested against a search through all orders.

use std::collections::BTreeMap;

use crate::event::{EVER, Event, NEVER, Nanos, Op, Outcome, Violation, Wrong, violation};

/// What a block holds before the first write.
pub const INITIAL: u64 = 0;

/// A value's write and its reads.
struct Cluster<'a> {
    write: Option<&'a Event>,
    reads: Vec<&'a Event>,
    /// The earliest end, and whose; none: the beginning's.
    f: (Nanos, Option<&'a Event>),
    /// The latest start, and whose.
    s: (Nanos, Option<&'a Event>),
}

/// Whether a failed write counts until it returned, or for ever.
#[derive(Clone, Copy, PartialEq)]
enum Failed {
    Bounded,
    Unbounded,
}

impl<'a> Cluster<'a> {
    fn new(write: Option<&'a Event>, reads: Vec<&'a Event>, failed: Failed) -> Cluster<'a> {
        let end = |e: &Event| if failed == Failed::Unbounded && !e.must() { NEVER } else { e.end };
        let own = write.map_or((EVER, None), |w| (end(w), Some(w)));
        let f = reads.iter().map(|r| (r.end, Some(*r))).chain([own]).min_by_key(|(t, _)| *t).unwrap_or(own);
        let own = write.map_or((EVER, None), |w| (w.start, Some(w)));
        let s = reads.iter().map(|r| (r.start, Some(*r))).chain([own]).max_by_key(|(t, _)| *t).unwrap_or(own);
        Cluster { write, reads, f, s }
    }

    fn is_forward(&self) -> bool {
        self.f.0 < self.s.0
    }

    fn value(&self) -> u64 {
        match self.write.map(|w| &w.op) {
            Some(Op::Write { value, .. }) => *value,
            _ => INITIAL,
        }
    }
}

/// Checks the calls of one block.
pub fn check(events: &[&Event]) -> Result<(), Violation> {
    let Err(found) = order(events, Failed::Bounded) else { return Ok(()) };
    if found.wrong == Wrong::Lost && order(events, Failed::Unbounded).is_ok() {
        return Err(Violation { wrong: Wrong::ExecutedAfterFailure, ..found });
    }
    Err(found)
}

fn order(events: &[&Event], failed: Failed) -> Result<(), Violation> {
    let clusters = clusters(events, failed)?;
    let (mut forward, backward): (Vec<_>, Vec<_>) = clusters.iter().partition(|c| c.is_forward());
    forward.sort_by_key(|c| c.f.0);
    if let Some(pair) = forward.windows(2).find(|pair| pair[1].f.0 < pair[0].s.0) {
        return Err(conflict(pair[0], pair[1]));
    }
    for inner in backward {
        let at = forward.partition_point(|c| c.f.0 < inner.s.0);
        if let Some(outer) = at.checked_sub(1).map(|i| forward[i]).filter(|outer| inner.f.0 < outer.s.0) {
            return Err(conflict(outer, inner));
        }
    }
    Ok(())
}

/// The clusters of values that were certainly there.
fn clusters<'a>(events: &[&'a Event], failed: Failed) -> Result<Vec<Cluster<'a>>, Violation> {
    let mut writes = BTreeMap::new();
    let mut reads: BTreeMap<u64, Vec<&Event>> = BTreeMap::new();
    for event in events.iter().copied() {
        match (&event.op, &event.outcome) {
            (Op::Write { .. }, Outcome::Torn) => {
                return Err(violation(Wrong::Torn, "a part of a block was written".to_owned(), &[event]));
            }
            (Op::Write { value, .. }, _) => {
                writes.insert(*value, event);
            }
            (Op::Read { .. }, Outcome::Value(value)) => reads.entry(*value).or_default().push(event),
            (Op::Read { .. }, Outcome::Torn) => {
                return Err(violation(Wrong::Torn, "a block was read that is no one value".to_owned(), &[event]));
            }
            _ => (),
        }
    }
    let mut found = Vec::new();
    let initial = reads.remove(&INITIAL).unwrap_or_default();
    found.push(Cluster::new(None, initial, failed));
    for (value, write) in &writes {
        let reads = reads.remove(value).unwrap_or_default();
        if let Some(early) = reads.iter().find(|r| r.is_before(write)) {
            let said = format!("{value} was read before it was written");
            return Err(violation(Wrong::Invented, said, &[early, write]));
        }
        if write.must() || !reads.is_empty() {
            found.push(Cluster::new(Some(write), reads, failed));
        }
    }
    if let Some((value, reads)) = reads.first_key_value() {
        return Err(violation(Wrong::Invented, format!("{value} was read, and nobody wrote it"), &reads[..1]));
    }
    Ok(found)
}

/// Two values each of which must have been there before the other.
fn conflict(one: &Cluster<'_>, other: &Cluster<'_>) -> Violation {
    let (a, b) = (one.value(), other.value());
    let said = format!("{a} was there before {b}, and {b} before {a}: what was acknowledged was lost, or is old");
    let ends = [one.write, other.write, one.f.1, one.s.1, other.f.1, other.s.1];
    // The first reads of both show what was seen when.
    let reads = one.reads.iter().take(2).chain(other.reads.iter().take(2)).copied();
    let shown: Vec<&Event> = ends.into_iter().flatten().chain(reads).collect();
    violation(Wrong::Lost, said, &shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::brute::{self, call};

    const BLOCK: u64 = 7;

    fn write(process: u32, start: Nanos, end: Nanos, value: u64, outcome: Outcome) -> Event {
        call(process, start, end, Op::Write { block: BLOCK, value }, outcome)
    }

    fn read(process: u32, start: Nanos, end: Nanos, value: u64) -> Event {
        call(process, start, end, Op::Read { block: BLOCK }, Outcome::Value(value))
    }

    fn wrong(events: &[Event]) -> Option<Wrong> {
        check(&events.iter().collect::<Vec<_>>()).err().map(|v| v.wrong)
    }

    #[test]
    fn reads_beside_a_write_may_see_either_value_but_not_the_older_after_the_newer() {
        let history = |second: u64| {
            [write(1, 0, 100, 5, Outcome::Done), read(2, 10, 20, 5), read(3, 30, 40, second), read(2, 110, 120, 5)]
        };
        assert_eq!((wrong(&history(5)), wrong(&history(INITIAL))), (None, Some(Wrong::Lost)));
    }

    #[test]
    fn a_write_that_was_acknowledged_and_not_read_again_is_lost() {
        let history = [write(1, 0, 10, 5, Outcome::Done), write(1, 20, 30, 6, Outcome::Done), read(2, 40, 50, 5)];
        assert_eq!(wrong(&history), Some(Wrong::Lost));
    }

    #[test]
    fn what_failed_may_be_there_before_its_end_and_not_come_after_it() {
        let failed = write(1, 0, 10, 5, Outcome::Failed(5));
        let newer = write(2, 20, 30, 6, Outcome::Done);
        assert_eq!(wrong(&[failed.clone(), newer.clone(), read(3, 40, 50, 6)]), None);
        assert_eq!(wrong(&[failed.clone(), read(3, 12, 18, 5), newer.clone(), read(3, 40, 50, 6)]), None);
        let late = [failed, newer.clone(), read(3, 40, 50, 5)];
        assert_eq!(wrong(&late), Some(Wrong::ExecutedAfterFailure));
        let unknown = write(1, 0, NEVER, 5, Outcome::Unknown);
        assert_eq!(wrong(&[unknown, newer, read(3, 40, 50, 5)]), None);
    }

    #[test]
    fn what_nobody_wrote_or_only_later_is_invented_and_a_mixture_is_torn() {
        assert_eq!(wrong(&[read(1, 0, 10, 9)]), Some(Wrong::Invented));
        assert_eq!(wrong(&[read(1, 0, 10, 9), write(2, 20, 30, 9, Outcome::Done)]), Some(Wrong::Invented));
        assert_eq!(wrong(&[call(1, 0, 10, Op::Read { block: BLOCK }, Outcome::Torn)]), Some(Wrong::Torn));
        assert_eq!(wrong(&[write(1, 0, 10, 9, Outcome::Torn)]), Some(Wrong::Torn));
    }

    /// Random small histories: the zones agree with a search through every order.
    #[test]
    fn zones_say_what_a_search_through_every_order_says() {
        let (mut good, mut bad) = (0, 0);
        for seed in 0..brute::SEEDS {
            let mut chance = brute::Chance::new(seed);
            let mut events = Vec::new();
            let calls = 3 + chance.below(5);
            for n in 0..calls {
                let (start, end) = chance.interval();
                let written = 1 + chance.below(calls);
                events.push(match chance.below(5) {
                    0 => write(n as u32, start, end, n + 1, Outcome::Done),
                    1 => write(n as u32, start, end, n + 1, Outcome::Failed(5)),
                    2 => write(n as u32, start, NEVER, n + 1, Outcome::Unknown),
                    3 => read(n as u32, start, end, written),
                    _ => read(n as u32, start, end, INITIAL),
                });
            }
            let any =
                brute::any_order(&events, &INITIAL, &|state: &u64, event: &Event| match (&event.op, &event.outcome) {
                    (Op::Write { value, .. }, _) => vec![*value],
                    (_, Outcome::Value(value)) if value == state => vec![*state],
                    _ => vec![],
                });
            assert_eq!(wrong(&events).is_none(), any, "seed {seed}: {events:#?}");
            *(if any { &mut good } else { &mut bad }) += 1;
        }
        assert!(
            good > brute::SEEDS / 20 && bad > brute::SEEDS / 20,
            "{good} good, {bad} bad: the test sees one side only"
        );
    }
}
