//! Lines that are shown while the demo runs, in the order of their times. What nodes report comes a little later than what
//! the demo says itself, and after a daemon's return later still; so a line waits a moment before it is shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A line waits so long for earlier ones: longer than events take, also of a daemon that came back between two looks.
const HOLD_MS: u64 = 500;
/// How often it is looked which lines have waited.
const PERIOD: Duration = Duration::from_millis(100);

/// Lines that were not shown yet.
#[derive(Default)]
struct Held(Vec<(u64, String)>);

impl Held {
    /// Takes the lines up to a time, in order; of one time in the order in which they came.
    fn up_to(&mut self, t_ms: u64) -> Vec<String> {
        self.0.sort_by_key(|(t, _)| *t);
        let due = self.0.partition_point(|(t, _)| *t <= t_ms);
        self.0.drain(..due).map(|(_, line)| line).collect()
    }
}

/// Shows lines on standard error, until it is ended or dropped.
pub(super) struct Live {
    held: Arc<Mutex<Held>>,
    stop: Arc<AtomicBool>,
    shower: Mutex<Option<JoinHandle<()>>>,
}

impl Live {
    /// Begins; times count from `zero`. Where there is no thread to be had lines are shown at the end.
    pub(super) fn begin(zero: Instant) -> Live {
        let (held, stop) = (Arc::<Mutex<Held>>::default(), Arc::<AtomicBool>::default());
        let (lines, ended) = (Arc::clone(&held), Arc::clone(&stop));
        let show = move || {
            while !ended.load(Ordering::Relaxed) {
                let now = u64::try_from(zero.elapsed().as_millis()).unwrap_or(u64::MAX);
                print(lines.lock().up_to(now.saturating_sub(HOLD_MS)));
                std::thread::sleep(PERIOD);
            }
        };
        let shower = std::thread::Builder::new().name("live".to_owned()).spawn(show).ok();
        Live { held, stop, shower: Mutex::new(shower) }
    }

    /// Takes a line with its time. After the end it is not shown any more.
    pub(super) fn say(&self, t_ms: u64, line: String) {
        if !self.stop.load(Ordering::Relaxed) {
            self.held.lock().0.push((t_ms, line));
        }
    }

    /// Shows what is left.
    pub(super) fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(shower) = self.shower.lock().take() {
            // One that panicked has shown what it could.
            let _ = shower.join();
        }
        print(self.held.lock().up_to(u64::MAX));
    }
}

fn print(lines: Vec<String>) {
    for line in lines {
        eprintln!("{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_comes_late_is_shown_in_its_place() {
        let line = |t: u64, text: &str| (t, text.to_owned());
        let mut held =
            Held(vec![line(200, "formatted"), line(1400, "telling"), line(100, "mounted"), line(100, "office")]);
        assert_eq!(held.up_to(900), ["mounted", "office", "formatted"]);
        assert_eq!(held.up_to(900), [""; 0]);
        assert_eq!(held.up_to(u64::MAX), ["telling"]);
    }
}
