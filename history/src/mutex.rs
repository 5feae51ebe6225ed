//! A file's lock, tried by many programs: one has it at a time, and who is told that somebody has it was told the truth.
//!
//! A program that has the lock and whose node's life ends loses it at some moment of that life's end that nobody told it; from the
//! moment it took the lock on, the lock may go.

use crate::event::{Event, History, NEVER, Op, Outcome, Violation, Wrong, violation};
use crate::search::{Found, Model, search};

/// Calls that are shown before the one that has no place.
const SHOWN: usize = 12;

/// The model: which process has it.
struct Lock;

impl Model for Lock {
    type State = Option<u32>;

    fn step(&self, state: &Option<u32>, event: &Event) -> Vec<Option<u32>> {
        let after = match (&event.op, &event.outcome) {
            (Op::Lock, Outcome::Taken) => state.is_some_and(|holder| holder != event.process).then_some(*state),
            (Op::Lock, _) => state.is_none().then_some(Some(event.process)),
            (Op::Unlock, _) => (*state == Some(event.process)).then_some(None),
            _ => None,
        };
        after.into_iter().collect()
    }
}

/// Checks the calls on one lock, which begins free.
pub fn check(events: &[&Event], history: &History) -> Result<(), Violation> {
    let mut all: Vec<Event> = events.iter().map(|e| (*e).clone()).collect();
    for taken in events.iter().filter(|e| e.op == Op::Lock && e.outcome != Outcome::Taken) {
        let given = events.iter().find(|e| e.op == Op::Unlock && e.process == taken.process && e.start > taken.start);
        let given = given.filter(|e| e.must()).map_or(NEVER, |e| e.end);
        // Its node's end before it gave it back, or a call that failed on its handle, ends what it has.
        let ended = history.life_ended(taken.node, taken.start);
        if ended.is_some_and(|ended| ended < given) || !taken.must() {
            let lost = Event { op: Op::Unlock, outcome: Outcome::Unknown, end: NEVER, ..(*taken).clone() };
            all.push(lost);
        }
    }
    let all: Vec<&Event> = all.iter().collect();
    match search(&Lock, None, &all) {
        Found::Order => Ok(()),
        Found::TooMany(at) => {
            let said = "there are too many orders to tell whether one is right".to_owned();
            Err(violation(Wrong::Invented, said, &[at]))
        }
        Found::None(at, _) => {
            let mut shown: Vec<&Event> = events.iter().copied().filter(|e| e.start <= at.end).collect();
            shown.drain(..shown.len().saturating_sub(SHOWN));
            let said = "two had the lock, or one was told that somebody had it while nobody did".to_owned();
            Err(violation(Wrong::Invented, said, &shown))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::brute::call;
    use crate::event::{Happening, Turn};

    fn wrong(events: &[Event], happenings: &[Happening]) -> Option<Wrong> {
        let history = History { happenings: happenings.to_vec(), ..History::default() };
        check(&events.iter().collect::<Vec<_>>(), &history).err().map(|v| v.wrong)
    }

    #[test]
    fn one_has_it_after_the_other() {
        let good = [
            call(1, 0, 10, Op::Lock, Outcome::Done),
            call(2, 20, 30, Op::Lock, Outcome::Taken),
            call(1, 40, 50, Op::Unlock, Outcome::Done),
            call(2, 45, 60, Op::Lock, Outcome::Done),
        ];
        assert_eq!(wrong(&good, &[]), None);
        let mut both = good.clone();
        both[1].outcome = Outcome::Done;
        assert_eq!(wrong(&both[..2], &[]), Some(Wrong::Invented));
        let mut nobody = good;
        nobody[3] = call(2, 60, 70, Op::Lock, Outcome::Taken);
        assert_eq!(wrong(&nobody, &[]), Some(Wrong::Invented));
    }

    /// A coordinator that was cut off gave it to 1, who was never told, and refused 2 for that; the next one gave it to 3 first.
    #[test]
    fn whoever_is_refused_is_refused_for_what_somebody_had() {
        let calls = |third: i64| {
            [
                call(1, 0, 90, Op::Lock, Outcome::Taken),
                call(2, 20, 30, Op::Lock, Outcome::Taken),
                call(3, third, 60, Op::Lock, Outcome::Done),
            ]
        };
        assert_eq!(wrong(&calls(40), &[]), Some(Wrong::Invented));
        assert_eq!(wrong(&calls(25), &[]), None, "3 may have had it by then");
        let mut failed = calls(40);
        failed[0].outcome = Outcome::Failed(5);
        assert_eq!(wrong(&failed, &[]), None, "1 may have had it, and lost it with its failure");
    }

    /// Each lock of a node whose life ended much later was once taken for pending until the end: too many to be searched.
    #[test]
    fn what_was_given_back_before_its_node_ended_is_no_more_possibility() {
        let each = |n: i64| {
            [
                call(1, 100 * n, 100 * n + 10, Op::Lock, Outcome::Done),
                call(1, 100 * n + 20, 100 * n + 30, Op::Unlock, Outcome::Done),
            ]
        };
        let calls: Vec<Event> = (0..200).flat_map(each).collect();
        assert_eq!(wrong(&calls, &[Happening { at: 100_000, node: 1, turn: Turn::Ended }]), None);
    }

    #[test]
    fn a_lock_goes_with_its_node() {
        let calls = [call(1, 0, 10, Op::Lock, Outcome::Done), call(2, 50, 60, Op::Lock, Outcome::Done)];
        assert_eq!(wrong(&calls, &[]), Some(Wrong::Invented));
        assert_eq!(wrong(&calls, &[Happening { at: 30, node: 1, turn: Turn::Ended }]), None);
        assert_eq!(wrong(&calls, &[Happening { at: 30, node: 2, turn: Turn::Ended }]), Some(Wrong::Invented));
    }
}
