//! Names of one directory: created, removed, renamed and looked at, one after the other in some order that agrees with time.
//!
//! A file is known by its inode number, which is never given twice. A creation that was not answered made a file whose number
//! nobody knows yet: it is whichever unknown number is found first under its name.
//!
//! A kernel looks its two names of a rename up one after the other, and where it finds one file under both it answers that it is
//! done and asks nobody. So a rename whose target another rename reached while it went on may be done and have changed nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Event, NEVER, Op, Outcome, Violation, Wrong, violation};
use crate::search::{Found, Model, search};

/// Calls that are shown before the one that has no place.
const SHOWN: usize = 24;

/// A file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum File {
    /// By its number.
    Inode(u64),
    /// Of a creation without an answer: its process, and when it began.
    Of(u32, i64),
}

/// What each name stands for.
type Names = BTreeMap<String, File>;

/// The model.
pub struct Directory {
    /// Numbers that creations were answered with.
    known: BTreeSet<u64>,
    /// Renames, by process and start, during which another file may have come to their target.
    overtaken: BTreeSet<(u32, i64)>,
}

impl Directory {
    /// For these calls.
    pub fn new(events: &[&Event]) -> Directory {
        let known = |e: &&Event| match (&e.op, &e.outcome) {
            (Op::Create { .. }, Outcome::Inode(number)) => Some(*number),
            _ => None,
        };
        let target = |e: &Event| match &e.op {
            Op::Rename { to, .. } => Some(to.clone()),
            _ => None,
        };
        let renames: Vec<(&Event, String)> = events.iter().filter_map(|e| Some((*e, target(e)?))).collect();
        let overtaken = |one: &&(&Event, String)| {
            let (one, to) = (one.0, &one.1);
            let meets = |other: &Event| !one.is_before(other) && !other.is_before(one);
            renames.iter().any(|(other, target)| !std::ptr::eq(*other, one) && target == to && meets(other))
        };
        Directory {
            known: events.iter().filter_map(known).collect(),
            overtaken: renames.iter().filter(overtaken).map(|(e, _)| (e.process, e.start)).collect(),
        }
    }

    fn create(state: &Names, name: &str, event: &Event) -> Option<Names> {
        let file = match event.outcome {
            Outcome::Taken => return state.contains_key(name).then(|| state.clone()),
            Outcome::Inode(number) => File::Inode(number),
            _ => File::Of(event.process, event.start),
        };
        let mut after = state.clone();
        after.insert(name.to_owned(), file).is_none().then_some(after)
    }

    /// What is removed under a name, and what is left.
    fn remove(state: &Names, name: &str, outcome: &Outcome) -> Option<(Option<File>, Names)> {
        let mut after = state.clone();
        let file = after.remove(name);
        // What fails for want of the name needs that; everything else needs it to be there.
        (file.is_some() != (*outcome == Outcome::Absent)).then_some((file, after))
    }

    fn rename(&self, state: &Names, from: &str, to: &str, event: &Event) -> Vec<Names> {
        let moved = Directory::remove(state, from, &event.outcome).map(|(file, mut after)| {
            after.extend(file.map(|file| (to.to_owned(), file)));
            after
        });
        let overtaken = event.outcome == Outcome::Done && self.overtaken.contains(&(event.process, event.start));
        let nothing = (overtaken && state.contains_key(to)).then(|| state.clone());
        moved.into_iter().chain(nothing).collect()
    }

    fn stat(&self, state: &Names, name: &str, outcome: &Outcome) -> Option<Names> {
        match (state.get(name), outcome) {
            (None, Outcome::Absent) => Some(state.clone()),
            (Some(File::Inode(is)), Outcome::Inode(found)) if is == found => Some(state.clone()),
            (Some(File::Of(..)), Outcome::Inode(found))
                if !self.known.contains(found) && !state.values().any(|f| *f == File::Inode(*found)) =>
            {
                let mut after = state.clone();
                after.insert(name.to_owned(), File::Inode(*found));
                Some(after)
            }
            _ => None,
        }
    }
}

impl Model for Directory {
    type State = Names;

    fn step(&self, state: &Names, event: &Event) -> Vec<Names> {
        let after = match &event.op {
            Op::Create { name } => Directory::create(state, name, event),
            Op::Unlink { name } => Directory::remove(state, name, &event.outcome).map(|(_, after)| after),
            Op::Rename { from, to } => return self.rename(state, from, to, event),
            Op::Stat { name } => self.stat(state, name, &event.outcome),
            _ => None,
        };
        after.into_iter().collect()
    }
}

/// Checks the calls on the names of one directory, which begins empty.
pub fn check(events: &[&Event]) -> Result<(), Violation> {
    let relevant: Vec<&Event> =
        events.iter().copied().filter(|e| e.must() || !matches!(e.op, Op::Stat { .. })).collect();
    let model = Directory::new(&relevant);
    let (at, states) = match search(&model, Names::new(), &relevant) {
        Found::Order => return Ok(()),
        Found::TooMany(at) => {
            let said = "there are too many orders to tell whether one is right: fewer calls at once".to_owned();
            return Err(violation(Wrong::Invented, said, &[at]));
        }
        Found::None(at, states) => (at, states),
    };
    let later: Vec<Event> =
        relevant.iter().map(|e| if e.must() { (*e).clone() } else { Event { end: NEVER, ..(*e).clone() } }).collect();
    let late = search(&model, Names::new(), &later.iter().collect::<Vec<_>>()) == Found::Order;
    let wrong = if late { Wrong::ExecutedAfterFailure } else { Wrong::Lost };
    let said =
        format!("in no order could the last call come to that; before it the names were {}", shown_states(&states));
    let mut shown: Vec<&Event> = relevant.iter().copied().filter(|e| e.start <= at.end).collect();
    shown.drain(..shown.len().saturating_sub(SHOWN));
    shown.push(at);
    Err(violation(wrong, said, &shown))
}

fn shown_states(states: &[Names]) -> String {
    let one = |names: &Names| {
        let names: Vec<String> = names
            .iter()
            .map(|(name, file)| match file {
                File::Inode(number) => format!("{name}={number}"),
                File::Of(process, _) => format!("{name}=made by {process}"),
            })
            .collect();
        format!("{{{}}}", names.join(" "))
    };
    states.iter().take(6).map(one).collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::brute::{self, call};

    fn create(name: &str) -> Op {
        Op::Create { name: name.to_owned() }
    }

    fn unlink(name: &str) -> Op {
        Op::Unlink { name: name.to_owned() }
    }

    fn rename(from: &str, to: &str) -> Op {
        Op::Rename { from: from.to_owned(), to: to.to_owned() }
    }

    fn stat(name: &str) -> Op {
        Op::Stat { name: name.to_owned() }
    }

    fn wrong(events: &[Event]) -> Option<Wrong> {
        check(&events.iter().collect::<Vec<_>>()).err().map(|v| v.wrong)
    }

    #[test]
    fn names_that_come_move_and_go_in_order_are_right() {
        let history = [
            call(1, 0, 10, create("a"), Outcome::Inode(7)),
            call(2, 20, 30, rename("a", "b"), Outcome::Done),
            call(3, 40, 50, stat("a"), Outcome::Absent),
            call(1, 40, 50, stat("b"), Outcome::Inode(7)),
            call(2, 60, 70, unlink("b"), Outcome::Done),
            call(2, 80, 90, unlink("b"), Outcome::Absent),
        ];
        assert_eq!(wrong(&history), None);
    }

    /// The story of a stored answer that is not: the creation is executed, its answer is lost, it is sent again.
    #[test]
    fn a_creation_that_is_told_its_own_name_is_taken_has_no_place() {
        let history = [call(1, 0, 10, create("a"), Outcome::Taken), call(2, 20, 30, stat("a"), Outcome::Inode(7))];
        assert_eq!(wrong(&history), Some(Wrong::Lost));
        let removed_twice = [
            call(1, 0, 10, create("a"), Outcome::Inode(7)),
            call(1, 20, 30, unlink("a"), Outcome::Absent),
            call(2, 40, 50, stat("a"), Outcome::Absent),
        ];
        assert_eq!(wrong(&removed_twice), Some(Wrong::Lost));
    }

    #[test]
    fn a_name_that_was_acknowledged_and_is_not_there_is_lost() {
        let history = [call(1, 0, 10, create("a"), Outcome::Inode(7)), call(2, 20, 30, stat("a"), Outcome::Absent)];
        assert_eq!(wrong(&history), Some(Wrong::Lost));
    }

    #[test]
    fn what_failed_may_have_been_done_and_is_not_done_later() {
        let made = call(1, 0, 10, create("a"), Outcome::Inode(7));
        let failed = call(2, 20, 30, unlink("a"), Outcome::Failed(5));
        let there = call(3, 40, 50, stat("a"), Outcome::Inode(7));
        let gone = call(3, 60, 70, stat("a"), Outcome::Absent);
        assert_eq!(wrong(&[made.clone(), failed.clone(), there.clone()]), None);
        assert_eq!(wrong(&[made.clone(), failed.clone(), gone.clone()]), None);
        assert_eq!(wrong(&[made.clone(), failed, there.clone(), gone.clone()]), Some(Wrong::ExecutedAfterFailure));
        let unknown = call(2, 20, NEVER, unlink("a"), Outcome::Unknown);
        assert_eq!(wrong(&[made, unknown, there, gone]), None);
    }

    #[test]
    fn a_file_whose_creation_was_not_answered_keeps_the_number_that_is_found_first() {
        let history = |second| {
            [
                call(1, 0, 15, create("a"), Outcome::Unknown),
                call(2, 20, 30, stat("a"), Outcome::Inode(9)),
                call(2, 40, 50, stat("a"), Outcome::Inode(second)),
            ]
        };
        assert_eq!((wrong(&history(9)), wrong(&history(10))), (None, Some(Wrong::Lost)));
    }

    /// The story: `c` is looked up, another node renames it to `b`, `b` is looked up and is the same file.
    #[test]
    fn a_rename_that_another_overtook_may_be_done_without_an_effect() {
        let made = call(1, 0, 10, create("c"), Outcome::Inode(7));
        let both = |second: i64| {
            let first = call(1, 20, 40, rename("c", "b"), Outcome::Done);
            wrong(&[made.clone(), first, call(2, second, 90, rename("c", "b"), Outcome::Done)])
        };
        assert_eq!((both(30), both(50)), (None, Some(Wrong::Lost)));
    }

    /// Random small histories of two names: the search agrees with every order.
    #[test]
    fn search_says_what_every_order_says() {
        let (mut good, mut bad) = (0, 0);
        for seed in 0..brute::SEEDS {
            let mut chance = brute::Chance::new(seed);
            let events: Vec<Event> = (0..3 + chance.below(4)).map(|n| random(&mut chance, n as u32)).collect();
            let relevant: Vec<&Event> = events.iter().collect();
            let model = Directory::new(&relevant);
            let any = brute::any_order(&events, &Names::new(), &|state: &Names, event| model.step(state, event));
            assert_eq!(wrong(&events).is_none(), any, "seed {seed}: {events:#?}");
            *(if any { &mut good } else { &mut bad }) += 1;
        }
        assert!(
            good > brute::SEEDS / 20 && bad > brute::SEEDS / 20,
            "{good} good, {bad} bad: the test sees one side only"
        );
    }

    fn random(chance: &mut brute::Chance, process: u32) -> Event {
        let (start, end) = chance.interval();
        let name = |n: u64| if n == 0 { "a" } else { "b" };
        let one = name(chance.below(2));
        let (op, good, bad) = match chance.below(5) {
            0 | 1 => (create(one), Outcome::Inode(u64::from(process)), Outcome::Taken),
            2 => (unlink(one), Outcome::Done, Outcome::Absent),
            3 => (rename(one, name(u64::from(one == "a"))), Outcome::Done, Outcome::Absent),
            _ => (stat(one), Outcome::Inode(chance.below(5)), Outcome::Absent),
        };
        let (outcome, end) = match chance.below(8) {
            0 if !matches!(op, Op::Stat { .. }) => (Outcome::Failed(5), end),
            1 if !matches!(op, Op::Stat { .. }) => (Outcome::Unknown, NEVER),
            2..=5 => (good, end),
            _ => (bad, end),
        };
        call(process, start, end, op, outcome)
    }
}
