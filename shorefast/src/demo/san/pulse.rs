//! How long the disk array has been silent, and how long this process did not run: what a check that failed is told with, so that
//! somebody whose machine was busy knows that.
//!
//! The array is asked over its control socket, on which nothing of the demo's networks lies. It answers there as late as its initiators
//! are answered where the machine has no time for it; a fault of the demo's own making (a network cut, a write held up) does not keep it from that.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::commands::sessions_at;

/// Between two questions.
const EVERY: Duration = Duration::from_millis(100);

/// Asks until it is dropped.
#[derive(Debug)]
pub(super) struct Pulse(Arc<Longest>);

/// In milliseconds, since the last beginning.
#[derive(Debug, Default)]
struct Longest {
    answer: AtomicU64,
    late: AtomicU64,
    over: AtomicBool,
}

impl Pulse {
    /// Of the array that is asked there.
    pub(super) fn of(control: PathBuf) -> Pulse {
        let longest = Arc::new(Longest::default());
        let shared = Arc::clone(&longest);
        // It is not waited for: what it asks has a bound of its own.
        std::thread::spawn(move || {
            while !shared.over.load(Ordering::Relaxed) {
                let slept = Instant::now();
                std::thread::sleep(EVERY);
                shared.late.fetch_max(ms(slept.elapsed().saturating_sub(EVERY)), Ordering::Relaxed);
                let asked = Instant::now();
                // One that does not run is no silent one: that it cannot be asked is known at once.
                let _ = sessions_at(&control);
                shared.answer.fetch_max(ms(asked.elapsed()), Ordering::Relaxed);
            }
        });
        Pulse(longest)
    }

    /// What was before does not count any more.
    pub(super) fn begin(&self) {
        self.0.answer.store(0, Ordering::Relaxed);
        self.0.late.store(0, Ordering::Relaxed);
    }

    /// Why something may not have held that is no fault of the nodes: the array or this process stood still for so long since the last beginning.
    pub(super) fn excuse(&self, patience: Duration) -> Option<String> {
        let (answer, late) = (self.0.answer.load(Ordering::Relaxed), self.0.late.load(Ordering::Relaxed));
        let longest = answer.max(late);
        (longest >= ms(patience)).then(|| {
            let who = if answer >= late { "the disk array's process" } else { "the demo itself" };
            format!(
                "BUSY: {who} stood still for {longest} ms meanwhile, and nodes leave a path after {} ms: this machine has no time for the demo just now; run it again when it has",
                ms(patience)
            )
        })
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
