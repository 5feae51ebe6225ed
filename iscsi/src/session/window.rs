//! The command window (RFC 7143, 4.2.2.1), and how many data may travel without being asked for (4.2.5.2).

use crate::ids::CmdSn;
use crate::keys::params::Params;

/// Numbers of commands: the next to be sent, and what the target said last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Window {
    pub(super) next: CmdSn,
    pub(super) exp: CmdSn,
    pub(super) max: CmdSn,
}

impl Window {
    /// A new connection's, from its login.
    pub(super) fn new(next: CmdSn, exp: CmdSn, max: CmdSn) -> Window {
        let mut window = Window { next, exp: next, max: next.previous() };
        window.update(exp, max);
        window
    }

    /// What a PDU said. If MaxCmdSN lies before ExpCmdSN - 1, both are passed over; else each counts if it is larger.
    pub(super) fn update(&mut self, exp: CmdSn, max: CmdSn) {
        if max.before(exp.previous()) {
            return;
        }
        if self.exp.before(exp) {
            self.exp = exp;
        }
        if self.max.before(max) {
            self.max = max;
        }
    }

    /// Whether a command may be sent.
    pub(super) fn is_open(&self) -> bool {
        self.next.up_to(self.max)
    }

    /// The number of the next command.
    pub(super) fn take(&mut self) -> CmdSn {
        let sn = self.next;
        self.next = sn.next();
        sn
    }
}

/// What of a write travels unasked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unasked {
    /// Bytes in the command itself.
    pub(super) immediate: u32,
    /// Bytes in Data-Outs behind it.
    pub(super) unsolicited: u32,
}

/// How `len` bytes begin to travel.
pub(super) fn unasked(params: &Params, len: u32) -> Unasked {
    let first = len.min(params.first_burst);
    let immediate = if params.immediate_data { first.min(params.max_send_segment) } else { 0 };
    let unsolicited = if params.initial_r2t { 0 } else { first - immediate };
    Unasked { immediate, unsolicited }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digests;

    #[test]
    fn window_moves_forward_only_and_ignores_nonsense() {
        let mut w = Window::new(CmdSn(u32::MAX), CmdSn(u32::MAX), CmdSn(0));
        assert!(w.is_open());
        assert_eq!((w.take(), w.take()), (CmdSn(u32::MAX), CmdSn(0)));
        assert!(!w.is_open(), "closed: MaxCmdSN is 0");
        w.update(CmdSn(1), CmdSn(0));
        assert!(!w.is_open() && w.exp == CmdSn(1), "MaxCmdSN = ExpCmdSN - 1 closes it");
        w.update(CmdSn(5), CmdSn(1));
        assert_eq!((w.exp, w.max), (CmdSn(1), CmdSn(0)), "MaxCmdSN < ExpCmdSN - 1: both ignored");
        w.update(CmdSn(1), CmdSn(9));
        w.update(CmdSn(0), CmdSn(3));
        assert_eq!((w.exp, w.max), (CmdSn(1), CmdSn(9)), "older values change nothing");
    }

    /// The table of RFC 7143, 4.2.5.2 and 13.10 to 13.14.
    #[test]
    fn data_travel_unasked_as_the_keys_say() {
        let params = |initial_r2t, immediate_data| Params {
            digests: Digests::default(),
            max_send_segment: 8192,
            max_recv_segment: 8192,
            max_burst: 262_144,
            first_burst: 65536,
            initial_r2t,
            immediate_data,
            max_outstanding_r2t: 1,
            time2wait: 0,
            time2retain: 0,
            recovery_level: 0,
        };
        for (initial_r2t, immediate_data, len, expected) in [
            (true, false, 100_000, (0, 0)),
            (true, true, 100_000, (8192, 0)),
            (true, true, 512, (512, 0)),
            (false, false, 100_000, (0, 65536)),
            (false, true, 100_000, (8192, 57344)),
            (false, true, 8192, (8192, 0)),
            (false, true, 0, (0, 0)),
        ] {
            let found = unasked(&params(initial_r2t, immediate_data), len);
            assert_eq!((found.immediate, found.unsolicited), expected, "{initial_r2t} {immediate_data} {len}");
        }
    }
}
