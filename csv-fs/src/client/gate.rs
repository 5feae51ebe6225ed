//! A gate that many pass without a lock and one can close: a count and a closed bit in one word.
//!
//! The rule is *count, then look*: who enters raises the count first and looks at the bit in the same instruction, so
//! whoever closes the gate sees either the count or a visitor that turned away. Prevents: an operation that saw an
//! open gate, slept, and submits after the gate was closed and found empty.

use std::sync::atomic::{AtomicU64, Ordering};

const CLOSED: u64 = 1 << 63;

/// The gate.
#[derive(Debug, Default)]
pub(crate) struct Gate(AtomicU64);

impl Gate {
    /// Enters, unless it is closed. Who entered must [`leave`](Gate::leave).
    #[must_use]
    pub(crate) fn enter(&self) -> Entered {
        if self.arrive() {
            return Entered::Inside;
        }
        if self.leave() { Entered::ClosedAndEmpty } else { Entered::Closed }
    }

    /// Counts, then looks: whether it is open.
    fn arrive(&self) -> bool {
        self.0.fetch_add(1, Ordering::SeqCst) & CLOSED == 0
    }

    /// Leaves. `true`: the gate is closed and this was the last inside.
    #[must_use]
    pub(crate) fn leave(&self) -> bool {
        self.0.fetch_sub(1, Ordering::SeqCst) == CLOSED | 1
    }

    /// Closes it. `true`: nobody is inside.
    #[must_use]
    pub(crate) fn close(&self) -> bool {
        self.0.fetch_or(CLOSED, Ordering::SeqCst) & !CLOSED == 0
    }

    /// Opens it.
    pub(crate) fn open(&self) {
        self.0.fetch_and(!CLOSED, Ordering::SeqCst);
    }

    /// How many are inside.
    pub(crate) fn inside(&self) -> u64 {
        self.0.load(Ordering::SeqCst) & !CLOSED
    }

    /// Whether it is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.load(Ordering::SeqCst) & CLOSED != 0
    }
}

/// What [`Gate::enter`] led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entered {
    /// Inside.
    Inside,
    /// Turned away.
    Closed,
    /// Turned away, and by looking in became the last to leave: whoever closed it must be told.
    ClosedAndEmpty,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_to_leave_a_closed_gate_is_told() {
        let gate = Gate::default();
        assert_eq!(gate.enter(), Entered::Inside);
        assert_eq!(gate.enter(), Entered::Inside);
        assert!(!gate.close());
        assert_eq!(gate.enter(), Entered::Closed);
        assert!(!gate.leave());
        assert!(gate.leave());
        assert_eq!(gate.inside(), 0);
        gate.open();
        assert_eq!(gate.enter(), Entered::Inside);
    }

    /// Every order of some steps, each of which is one of several that come one after the other.
    fn orders(left: &mut [usize], so_far: &mut Vec<usize>, look: &mut impl FnMut(&[usize])) {
        if left.iter().all(|n| *n == 0) {
            return look(so_far);
        }
        for who in 0..left.len() {
            if left[who] > 0 {
                left[who] -= 1;
                so_far.push(who);
                orders(left, so_far, look);
                so_far.pop();
                left[who] += 1;
            }
        }
    }

    /// Each step is one atomic operation, sequentially consistent, so these orders are all there are: three visitors who arrive and
    /// leave (also those who are turned away), and one who closes.
    #[test]
    fn whoever_closes_it_is_told_once_nobody_is_inside_in_every_order_of_steps() {
        let mut looked = 0;
        orders(&mut [2, 2, 2, 1], &mut Vec::new(), &mut |order| {
            looked += 1;
            let (gate, mut inside, mut arrived, mut told) = (Gate::default(), [false; 3], [false; 3], 0);
            for who in order {
                let says_empty = match *who {
                    3 => gate.close(),
                    n if !arrived[n] => {
                        arrived[n] = true;
                        inside[n] = gate.arrive();
                        assert!(
                            !inside[n] || told == 0,
                            "{order:?}: let in although somebody was told that it is empty"
                        );
                        false
                    }
                    n => {
                        inside[n] = false;
                        gate.leave()
                    }
                };
                told += usize::from(says_empty);
                assert!(!says_empty || inside == [false; 3], "{order:?}: said to be empty while somebody is inside");
            }
            assert!(told > 0 && gate.inside() == 0, "{order:?}: nobody was told");
        });
        assert_eq!(looked, 630);
    }

    #[test]
    fn an_empty_gate_says_so_when_it_is_closed() {
        let gate = Gate::default();
        assert!(gate.close());
        assert_eq!(gate.enter(), Entered::ClosedAndEmpty);
        assert!(gate.is_closed());
    }
}
