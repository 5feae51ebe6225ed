//! What happened when, counted from the demo's beginning: written by the runner and the watchers, read by the report.
//! Also shows progress, in the order of time.

use std::time::Instant;

use parking_lot::Mutex;

use super::live::Live;
use super::report::{Mark, MarkKind, Sample};
use crate::api::Node;
use crate::clock::WallTime;

/// The demo's time and everything that carries one.
pub(crate) struct Timeline {
    zero: Instant,
    started: WallTime,
    /// None if nothing is to be shown.
    live: Option<Live>,
    seen: Mutex<Seen>,
}

/// What was written.
#[derive(Default)]
struct Seen {
    samples: Vec<Sample>,
    marks: Vec<Mark>,
}

impl Timeline {
    /// Begins now; shows progress if wanted.
    pub(crate) fn begin(show: bool) -> Timeline {
        let zero = Instant::now();
        Timeline { zero, started: WallTime::now(), live: show.then(|| Live::begin(zero)), seen: Mutex::default() }
    }

    /// When it began.
    pub(crate) fn started(&self) -> WallTime {
        self.started
    }

    /// Milliseconds since the beginning.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.zero.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The demo did something.
    pub(crate) fn done(&self, node: Option<Node>, text: impl Into<String>) {
        self.mark(Mark { t_ms: self.now_ms(), node, kind: MarkKind::Done, text: text.into() });
    }

    /// A node reported something, at a wall-clock time.
    pub(crate) fn reported(&self, at: WallTime, node: Node, text: impl Into<String>) {
        let t_ms = at.0.saturating_sub(self.started.0);
        self.mark(Mark { t_ms, node: Some(node), kind: MarkKind::Reported, text: text.into() });
    }

    /// Throughput of a node.
    pub(crate) fn sample(&self, sample: Sample) {
        self.seen.lock().samples.push(sample);
    }

    /// Says something that is worth no mark.
    pub(crate) fn say(&self, text: &str) {
        if let Some(live) = &self.live {
            let t_ms = self.now_ms();
            live.say(t_ms, format!("{:>6.1} s    {text}", t_ms as f64 / 1e3));
        }
    }

    /// Shows what was not shown yet, and nothing from then on. Whether anything was to be shown.
    pub(crate) fn end_live(&self) -> bool {
        self.live.as_ref().map(Live::end).is_some()
    }

    fn mark(&self, mark: Mark) {
        if let Some(live) = &self.live {
            let who = mark.node.map_or_else(String::new, |n| format!("{n}: "));
            let sign = if mark.kind == MarkKind::Done { ">" } else { " " };
            live.say(mark.t_ms, format!("{:>6.1} s  {sign} {who}{}", mark.t_ms as f64 / 1e3, mark.text));
        }
        self.seen.lock().marks.push(mark);
    }

    /// Everything so far, in the order of time.
    pub(crate) fn read(&self) -> (Vec<Sample>, Vec<Mark>) {
        let seen = self.seen.lock();
        let mut marks = seen.marks.clone();
        marks.sort_by_key(|m| m.t_ms);
        (seen.samples.clone(), marks)
    }
}
