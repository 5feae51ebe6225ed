//! A gate that many pass without a lock and one can close: a count and a closed bit in one word.
//!
//! The rule is *count, then look*: who enters raises the count first and looks at the bit in the same instruction, so
//! whoever closes the gate sees either the count or a visitor that turned away. Prevents: an operation that saw an
//! open gate, slept, and submits after the gate was closed and found empty.
//!
//! `interleavings` goes through those of a few threads.

use super::sync::{AtomicU64, Ordering};

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
