//! How often the progress of a check is told: a line a second, or when another part begins.

use std::time::{Duration, Instant};

use csv_fs::meta::check::Step;

/// Between two lines about the same part.
const EVERY: Duration = Duration::from_secs(1);

/// Decides which steps are worth a line.
pub(crate) struct Pace {
    last: Option<(&'static str, Instant)>,
}

impl Pace {
    /// Nothing was told yet.
    pub(crate) fn new() -> Pace {
        Pace { last: None }
    }

    /// The line for a step, if it is time for one.
    pub(crate) fn line(&mut self, step: Step) -> Option<String> {
        let now = Instant::now();
        if self.last.is_some_and(|(part, at)| part == step.part && now.duration_since(at) < EVERY) {
            return None;
        }
        self.last = Some((step.part, now));
        Some(format!("Checking {}: {} rows.", step.part, step.rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_part_is_told_at_once_and_the_same_one_not_again() {
        let mut pace = Pace::new();
        let step = |part, rows| Step { part, rows };
        assert_eq!(pace.line(step("names", 0)).as_deref(), Some("Checking names: 0 rows."));
        assert_eq!(pace.line(step("names", 4096)), None);
        assert!(pace.line(step("blocks", 0)).is_some());
    }
}
