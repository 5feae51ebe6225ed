//! What a peer may have outstanding with us: the receiving side of the two request limits. Pure.
//!
//! Both ends count the same way: a request is paid for when it is sent, and paid back when its answer is *sent*
//! here and *received* there. The answer is on the way between the two, so this count is never above the
//! caller's own, and a caller that keeps to the limits is never refused.

use crate::frame::HEADER_LEN;
use crate::limits::{MAX_CALLS, MAX_CALLS_KIB};

/// What a request costs, in KiB.
pub fn cost_kib(body: usize, payload: usize) -> u32 {
    let bytes = HEADER_LEN.saturating_add(body).saturating_add(payload);
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

/// A peer has more outstanding than the protocol allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more requests outstanding than the protocol allows ({calls} requests, {kib} KiB)")]
pub struct OverBudget {
    /// Requests outstanding, this one included.
    pub calls: usize,
    /// Their KiB.
    pub kib: u64,
}

/// The count of one connection.
#[derive(Debug, Default)]
pub struct Budget {
    calls: usize,
    kib: u64,
}

impl Budget {
    /// A request of this cost has come in.
    pub fn admit(&mut self, cost_kib: u32) -> Result<(), OverBudget> {
        let (calls, kib) = (self.calls + 1, self.kib + u64::from(cost_kib));
        if calls > MAX_CALLS || kib > u64::from(MAX_CALLS_KIB) {
            return Err(OverBudget { calls, kib });
        }
        (self.calls, self.kib) = (calls, kib);
        Ok(())
    }

    /// A request of this cost was answered.
    pub fn release(&mut self, cost_kib: u32) {
        assert!(self.calls > 0 && self.kib >= u64::from(cost_kib), "released more than admitted");
        self.calls -= 1;
        self.kib -= u64::from(cost_kib);
    }

    /// Requests outstanding.
    pub fn calls(&self) -> usize {
        self.calls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_513th_unanswered_request_is_over_budget() {
        let mut b = Budget::default();
        for _ in 0..MAX_CALLS {
            b.admit(1).unwrap();
        }
        assert_eq!(b.admit(1), Err(OverBudget { calls: 513, kib: 513 }));
        b.release(1);
        b.admit(1).unwrap();
    }

    #[test]
    fn bytes_are_bounded_before_requests_are() {
        let mut b = Budget::default();
        let each = cost_kib(0, 4 << 20);
        assert_eq!(each, 4097);
        for _ in 0..15 {
            b.admit(each).unwrap();
        }
        assert!(b.admit(each).is_err());
        assert_eq!(b.calls(), 15);
    }

    #[test]
    fn a_bare_request_costs_one_kib() {
        assert_eq!(cost_kib(0, 0), 1);
        assert_eq!(cost_kib(960, 0), 1);
        assert_eq!(cost_kib(961, 0), 2);
    }
}
