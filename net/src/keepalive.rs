//! When to ask a peer whether it is there, and when to call it dead. Pure, and without a clock: it counts ticks.
//!
//! The shell ticks once per interval and tells how many bytes have come and gone by then. Any byte is a sign of
//! life. Counting ticks instead of time means that a process that was stopped for a minute does not wake up and
//! call every peer dead: the pause is one tick, and the bytes that waited in the socket count at the next.
//!
//! A peer is dead when it was silent for `limit` ticks, pings included, or when data waited for it that long and
//! none of it went out. Dead is found between `limit` and `limit + 1` intervals after the last byte.

use std::time::Duration;

/// What the shell saw since the connection was opened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// Bytes received.
    pub(crate) received: u64,
    /// Bytes sent.
    pub(crate) sent: u64,
    /// Is anything waiting to be sent?
    pub(crate) backlog: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Fine,
    /// Send a PING.
    Ping,
    /// Close: the peer is silent.
    Silent,
    /// Close: the peer reads nothing.
    Stuck,
}

/// The keep-alive of one connection.
#[derive(Debug)]
pub(crate) struct KeepAlive {
    limit: u32,
    silent: u32,
    stuck: u32,
    last: Sample,
}

impl KeepAlive {
    /// Dead after this many ticks without a sign of life (at least 2: one to ask, one to answer).
    pub(crate) fn new(limit: u32) -> Self {
        Self { limit: limit.max(2), silent: 0, stuck: 0, last: Sample::default() }
    }

    /// The number of intervals that make up `dead_after`.
    pub(crate) fn ticks(interval: Duration, dead_after: Duration) -> u32 {
        let n = dead_after.as_nanos().div_ceil(interval.as_nanos().max(1));
        u32::try_from(n).unwrap_or(u32::MAX)
    }

    /// One interval has passed.
    pub(crate) fn tick(&mut self, now: Sample) -> Verdict {
        let heard = now.received != self.last.received;
        let moved = now.sent != self.last.sent || !now.backlog;
        self.silent = if heard { 0 } else { self.silent + 1 };
        self.stuck = if moved { 0 } else { self.stuck + 1 };
        self.last = now;
        if self.silent >= self.limit {
            Verdict::Silent
        } else if self.stuck >= self.limit {
            Verdict::Stuck
        } else if heard {
            Verdict::Fine
        } else {
            Verdict::Ping
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(received: u64, sent: u64, backlog: bool) -> Sample {
        Sample { received, sent, backlog }
    }

    #[test]
    fn a_talking_peer_is_never_asked() {
        let mut k = KeepAlive::new(4);
        for i in 1..100 {
            assert_eq!(k.tick(sample(i, 0, false)), Verdict::Fine);
        }
    }

    #[test]
    fn a_silent_peer_is_asked_and_then_dead() {
        let mut k = KeepAlive::new(4);
        assert_eq!(k.tick(sample(64, 0, false)), Verdict::Fine);
        for _ in 0..3 {
            assert_eq!(k.tick(sample(64, 0, false)), Verdict::Ping);
        }
        assert_eq!(k.tick(sample(64, 0, false)), Verdict::Silent);
    }

    #[test]
    fn one_byte_is_a_sign_of_life() {
        let mut k = KeepAlive::new(3);
        for i in 0..50 {
            assert_eq!(k.tick(sample(i, 0, false)), Verdict::Ping);
            assert_eq!(k.tick(sample(i, 0, false)), Verdict::Ping);
            assert_eq!(k.tick(sample(i + 1, 0, false)), Verdict::Fine);
        }
    }

    #[test]
    fn a_peer_that_talks_but_does_not_read_is_dead() {
        let mut k = KeepAlive::new(3);
        assert_eq!(k.tick(sample(1, 10, true)), Verdict::Fine);
        assert_eq!(k.tick(sample(2, 10, true)), Verdict::Fine);
        assert_eq!(k.tick(sample(3, 10, true)), Verdict::Fine);
        assert_eq!(k.tick(sample(4, 10, true)), Verdict::Stuck);
    }

    #[test]
    fn slow_progress_is_progress() {
        let mut k = KeepAlive::new(2);
        for i in 1..50 {
            assert_eq!(k.tick(sample(i, i, true)), Verdict::Fine);
        }
    }

    #[test]
    fn ticks_round_up() {
        let ms = Duration::from_millis;
        assert_eq!(KeepAlive::ticks(ms(500), ms(3000)), 6);
        assert_eq!(KeepAlive::ticks(ms(500), ms(3001)), 7);
        assert_eq!(KeepAlive::ticks(ms(0), ms(1)), 1_000_000);
    }
}
