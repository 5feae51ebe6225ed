//! One compare-and-write from its first submission until its outcome is known, through lost replies and hedges.
//!
//! ```text
//!               Done, or found == new          found is newer
//! Outstanding ───────────────────────► done   ───────────────► lost(found)
//!     │  ▲ Resend (same bytes)
//!     ▼  │ a read started after the loss shows the old value
//! Unsettled: every reply was lost; the request may still land
//! ```
//! Whether a value is newer is told by its counter: a block never returns to an earlier value. So a read that was
//! started before the request shows at most an *older* counter and says nothing; the *old* value says nothing either,
//! for the first request may land a moment later; the same bytes sent again can do no harm, whichever lands.
//! Interleaving prevented: see docs/semantics/fencing.md, `LostCawIsUnsettled`.

use std::time::Duration;

use super::event::{CawResult, ReadSeq, Tag};
use super::view::{LeaseView, SlotView};
use crate::core::rules::{Rule, Rules};
use crate::core::time::Now;

/// A block that changes by compare-and-write.
pub(super) trait Cell: Clone + PartialEq {
    /// Raised by one at each change.
    fn counter(&self) -> u64;
}

impl Cell for SlotView {
    fn counter(&self) -> u64 {
        self.counter
    }
}

impl Cell for LeaseView {
    fn counter(&self) -> u64 {
        self.counter
    }
}

/// One change of one block.
#[derive(Debug)]
pub(super) struct Caw<V> {
    /// The value that must be there.
    pub(super) expect: V,
    /// The value to be written.
    pub(super) new: V,
    /// When the first attempt was submitted.
    pub(super) started: Now,
    /// Attempts not answered yet, and when each was submitted.
    attempts: Vec<(Tag, Now)>,
    /// How many attempts there were.
    tries: u32,
    /// Whether a second attempt was sent beside a slow first.
    pub(super) hedged: bool,
    /// Every reply was lost; only a read of this number or later can settle it.
    settled_by: Option<ReadSeq>,
}

/// What is known of a change.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Settled<V> {
    /// Nothing yet.
    Open,
    /// The block carried the new value.
    Done,
    /// The block carries something newer.
    Lost(V),
    /// The block still carries the old value and no attempt is outstanding: send the same bytes again.
    Resend,
}

impl<V: Cell> Caw<V> {
    pub(super) fn new(expect: V, new: V, tag: Tag, now: Now) -> Caw<V> {
        Caw { expect, new, started: now, attempts: vec![(tag, now)], tries: 1, hedged: false, settled_by: None }
    }

    /// Whether `tag` is one of its attempts.
    pub(super) fn owns(&self, tag: Tag) -> bool {
        self.attempts.iter().any(|(t, _)| *t == tag)
    }

    /// Whether an attempt is still out.
    pub(super) fn is_outstanding(&self) -> bool {
        !self.attempts.is_empty()
    }

    /// Since when an attempt has been out.
    pub(super) fn outstanding_since(&self) -> Option<Now> {
        self.attempts.iter().map(|(_, at)| *at).min()
    }

    /// For so long nobody here could have taken an answer: that time is not held against attempts that are out.
    pub(super) fn postpone(&mut self, by: Duration) {
        self.attempts.iter_mut().for_each(|(_, at)| *at = *at + by);
    }

    /// Whether only a read can settle it, and it should start at once. After the first attempt the ordinary rounds of
    /// reading set the pace, so that a disk that fails everything is not asked without pause.
    pub(super) fn needs_read_now(&self) -> bool {
        self.settled_by.is_some() && self.tries == 1
    }

    /// One more attempt with the same bytes.
    pub(super) fn attempt(&mut self, tag: Tag, now: Now) {
        self.attempts.push((tag, now));
        self.tries += 1;
        self.settled_by = None;
    }

    /// Takes an attempt's result. `next_read` is the first round of reading that starts after this moment.
    pub(super) fn answered(&mut self, rules: Rules, tag: Tag, result: CawResult<V>, next_read: ReadSeq) -> Settled<V> {
        self.attempts.retain(|(t, _)| *t != tag);
        match result {
            CawResult::Done => Settled::Done,
            CawResult::Miscompare(found) => self.compare(found),
            CawResult::Lost if !rules.has(Rule::LostCawIsUnsettled) => Settled::Done,
            CawResult::Lost => {
                if self.attempts.is_empty() {
                    self.settled_by = Some(next_read);
                }
                Settled::Open
            }
        }
    }

    /// Takes what a round of reading showed.
    pub(super) fn seen(&mut self, seq: ReadSeq, view: &V) -> Settled<V> {
        if view.counter() > self.expect.counter() {
            return self.compare(view.clone());
        }
        match self.settled_by {
            Some(from) if seq >= from => Settled::Resend,
            _ => Settled::Open,
        }
    }

    fn compare(&self, found: V) -> Settled<V> {
        if found == self.new { Settled::Done } else { Settled::Lost(found) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T1: Tag = Tag(1);
    const T2: Tag = Tag(2);

    fn slot(counter: u64, nonce: u64) -> SlotView {
        SlotView { counter, nonce, ..SlotView::default() }
    }

    fn caw() -> Caw<SlotView> {
        Caw::new(slot(5, 50), slot(6, 60), T1, Now(0))
    }

    #[test]
    fn a_lost_reply_is_settled_neither_by_the_old_value_nor_by_an_older_read() {
        let mut c = caw();
        assert_eq!(c.answered(Rules::all(), T1, CawResult::Lost, ReadSeq(8)), Settled::Open);
        assert_eq!(c.seen(ReadSeq(7), &slot(5, 50)), Settled::Open);
        assert_eq!(c.seen(ReadSeq(8), &slot(4, 40)), Settled::Resend);
        assert_eq!(c.seen(ReadSeq(8), &slot(5, 50)), Settled::Resend);
    }

    #[test]
    fn reading_back_the_own_nonce_means_done() {
        let mut c = caw();
        c.answered(Rules::all(), T1, CawResult::Lost, ReadSeq(8));
        assert_eq!(c.seen(ReadSeq(8), &slot(6, 60)), Settled::Done);
    }

    #[test]
    fn anything_newer_means_lost() {
        let mut c = caw();
        c.answered(Rules::all(), T1, CawResult::Lost, ReadSeq(8));
        assert_eq!(c.seen(ReadSeq(8), &slot(6, 61)), Settled::Lost(slot(6, 61)));
        assert_eq!(c.seen(ReadSeq(8), &slot(9, 90)), Settled::Lost(slot(9, 90)));
    }

    #[test]
    fn a_hedge_that_miscompares_against_its_own_first_attempt_is_done() {
        let mut c = caw();
        c.attempt(T2, Now(300));
        assert_eq!(c.answered(Rules::all(), T1, CawResult::Lost, ReadSeq(8)), Settled::Open);
        assert!(!c.needs_read_now(), "the hedge is still out");
        assert_eq!(c.answered(Rules::all(), T2, CawResult::Miscompare(slot(6, 60)), ReadSeq(8)), Settled::Done);
    }

    #[test]
    fn without_its_rule_a_lost_reply_counts_as_done() {
        let rules = Rules::without(Rule::LostCawIsUnsettled);
        assert_eq!(caw().answered(rules, T1, CawResult::Lost, ReadSeq(8)), Settled::Done);
    }
}
