//! What a writer counts: shared by its threads, taken by the ticker.
//!
//! Every system call of a writer goes through [`Tally::call`], so none can fail or stall uncounted; a call that is
//! still running counts with the time it has taken so far.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::Tick;

/// Between two attempts on a dead mount.
const REST: Duration = Duration::from_millis(20);

/// At most this many mismatches are told in words per tick; one is enough to fail the demo.
const MISMATCHES_TOLD: usize = 8;

/// Failed calls of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CallFailure {
    /// The system call.
    pub(crate) call: String,
    /// Its errno.
    pub(crate) errno: i32,
    /// How many.
    pub(crate) count: u64,
}

/// The counters.
#[derive(Default)]
pub(crate) struct Tally {
    stop: AtomicBool,
    paused: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    tick: Tick,
    failures: BTreeMap<(&'static str, i32), u64>,
    running: BTreeMap<&'static str, Instant>,
}

impl Tally {
    /// Runs one system call of thread `who`, and counts its failure and its time.
    pub(crate) fn call<T>(
        &self,
        who: &'static str,
        call: &'static str,
        f: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let start = Instant::now();
        self.inner.lock().running.insert(who, start);
        let result = f();
        let mut inner = self.inner.lock();
        inner.running.remove(who);
        inner.tick.longest_call_ms = inner.tick.longest_call_ms.max(millis(start.elapsed()));
        if let Err(e) = &result {
            *inner.failures.entry((call, e.raw_os_error().unwrap_or(0))).or_default() += 1;
        }
        result
    }

    /// Counts one operation that was completed and found right.
    pub(crate) fn verified(&self, bytes: usize) {
        let mut inner = self.inner.lock();
        inner.tick.verified_ops += 1;
        inner.tick.verified_bytes += bytes as u64;
    }

    /// Counts something read that is wrong.
    pub(crate) fn mismatch(&self, what: String) {
        let mut inner = self.inner.lock();
        if inner.tick.mismatches.len() < MISMATCHES_TOLD {
            inner.tick.mismatches.push(what);
        }
    }

    /// What was counted since the last call.
    pub(crate) fn take(&self) -> Tick {
        let mut inner = self.inner.lock();
        let phase = inner.tick.phase.clone();
        let mut tick = std::mem::replace(&mut inner.tick, Tick { phase, ..Tick::default() });
        let running = inner.running.values().map(|s| millis(s.elapsed())).max().unwrap_or(0);
        tick.longest_call_ms = tick.longest_call_ms.max(running);
        tick.failures = std::mem::take(&mut inner.failures)
            .into_iter()
            .map(|((call, errno), count)| CallFailure { call: call.into(), errno, count })
            .collect();
        tick
    }

    /// From now on counts belong to this phase. What was counted before and not taken moves along: the phases
    /// of the demo begin and end in steady state.
    pub(crate) fn set_phase(&self, name: &str) {
        self.inner.lock().tick.phase = name.to_owned();
    }

    /// What a thread does after a failed call: waits a little, and as long as the writer is paused. A node that is
    /// being restarted has an empty folder for a moment where its mount was; nobody should write there.
    pub(crate) fn rest(&self) {
        std::thread::sleep(REST);
        while self.paused.load(Ordering::Relaxed) && !self.stopped() {
            std::thread::sleep(REST);
        }
    }

    /// Holds the threads in their next [`Tally::rest`], or lets them go on.
    pub(crate) fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// Asks the threads to end.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether they should.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_call_is_counted_with_its_errno() {
        let t = Tally::default();
        let failed: io::Result<()> = t.call("x", "pwrite", || Err(io::Error::from_raw_os_error(5)));
        assert!(failed.is_err());
        let tick = t.take();
        assert_eq!(tick.failures, [CallFailure { call: "pwrite".into(), errno: 5, count: 1 }]);
        assert!(t.take().failures.is_empty());
    }

    #[test]
    fn a_call_that_still_runs_counts_as_a_stall() {
        let t = std::sync::Arc::new(Tally::default());
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (started, has_started) = std::sync::mpsc::channel::<()>();
        let thread = {
            let t = t.clone();
            std::thread::spawn(move || {
                let _ = t.call("x", "pwrite", || {
                    started.send(()).ok();
                    wait.recv().ok();
                    Ok(())
                });
            })
        };
        has_started.recv().unwrap();
        let begin = Instant::now();
        while t.take().longest_call_ms == 0 {
            assert!(begin.elapsed() < Duration::from_secs(30));
            std::thread::yield_now();
        }
        go.send(()).unwrap();
        thread.join().unwrap();
    }
}
