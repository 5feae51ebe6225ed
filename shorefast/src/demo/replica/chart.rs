//! The charts: throughput, latency, what the other site lacks and how far it is synchronised, over one time axis.

use std::fmt::Write as _;

use super::super::report::{MarkKind, escape, round_up};
use super::report::ReplicaReport;
use super::watch::Sample;
use crate::render::bytes;

/// Drawing units; the picture scales to the page.
const WIDTH: f64 = 1120.0;
const LEFT: f64 = 96.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 44.0;
const PANEL: f64 = 104.0;
const GAP: f64 = 34.0;
const BOTTOM: f64 = 30.0;

/// A panel: what it is called, its value in a look, and how a value is written.
struct Panel {
    name: &'static str,
    value: fn(&Sample) -> Option<f64>,
    shown: fn(f64) -> String,
    /// The top of the scale; none: by what there is.
    most: Option<f64>,
    scale: fn(f64) -> f64,
    /// The colour; none: by who is primary.
    class: Option<&'static str>,
}

const PANELS: [Panel; 4] = [
    Panel {
        name: "Throughput",
        value: |s| Some(s.bytes_per_s),
        shown: |v| format!("{}/s", bytes(v as u64)),
        most: None,
        scale: round_up,
        class: None,
    },
    Panel {
        name: "Write, p99",
        value: |s| s.p99_ms,
        shown: |v| format!("{v:.0} ms"),
        most: None,
        scale: |v| v.max(1.0).ceil(),
        class: None,
    },
    Panel {
        name: "Behind",
        value: |s| s.behind_bytes.map(|b| b as f64),
        shown: |v| bytes(v as u64),
        most: None,
        scale: round_up,
        class: Some("away"),
    },
    Panel {
        name: "Synchronised",
        value: |s| s.resync_percent,
        shown: |v| format!("{v:.0} %"),
        most: Some(100.0),
        scale: |v| v,
        class: Some("draining"),
    },
];

/// The picture as SVG.
pub(super) fn charts(r: &ReplicaReport) -> String {
    let last = r.samples.iter().map(|s| s.t_ms).chain(r.phases.iter().map(|p| p.to_ms)).max().unwrap_or(1).max(1);
    let bottom = top(PANELS.len() - 1) + PANEL;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" aria-label=\"Throughput, latency, lag and synchronisation over \
         time\">\n",
        bottom + BOTTOM
    );
    for (n, phase) in r.phases.iter().enumerate() {
        let (from, to) = (x(phase.from_ms, last), x(phase.to_ms, last));
        let shade = if n % 2 == 0 { "even" } else { "odd" };
        let name = escape(&phase.name);
        let _ = writeln!(
            svg,
            "<rect class=\"phase {shade}\" x=\"{from:.1}\" y=\"0\" width=\"{:.1}\" height=\"{bottom:.1}\"><title>{name}</title></rect>\
             <text class=\"phase-name\" x=\"{:.1}\" y=\"{}\">{name}</text>",
            to - from,
            from + 4.0,
            12 + n % 2 * 12
        );
    }
    for (row, panel) in PANELS.iter().enumerate() {
        draw(&mut svg, r, panel, row, last);
    }
    for (mark, number) in r.marks.iter().filter(|m| m.kind == MarkKind::Done).zip(1..) {
        let at = x(mark.t_ms, last);
        let _ = writeln!(
            svg,
            "<line class=\"mark\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom:.1}\"><title>{}</title></line>\
             <text class=\"mark-number\" x=\"{:.1}\" y=\"{:.1}\">{number}</text>",
            escape(&mark.text),
            at + 2.0,
            TOP - 4.0
        );
    }
    for t in (0..=last).step_by(5_000) {
        let _ = writeln!(
            svg,
            "<text class=\"time\" x=\"{:.1}\" y=\"{:.1}\">{} s</text>",
            x(t, last),
            bottom + 20.0,
            t / 1000
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn x(t_ms: u64, last: u64) -> f64 {
    LEFT + (WIDTH - LEFT - RIGHT) * t_ms.min(last) as f64 / last as f64
}

fn top(row: usize) -> f64 {
    TOP + row as f64 * (PANEL + GAP)
}

fn draw(svg: &mut String, r: &ReplicaReport, panel: &Panel, row: usize, last: u64) {
    let values = r.samples.iter().filter_map(panel.value);
    let most = panel.most.unwrap_or_else(|| (panel.scale)(values.fold(0.0, f64::max))).max(1.0);
    let y = |value: f64| top(row) + PANEL * (1.0 - (value / most).clamp(0.0, 1.0));
    let _ = writeln!(svg, "<text class=\"node\" x=\"8\" y=\"{:.1}\">{}</text>", top(row) - 6.0, panel.name);
    for part in [1.0, 0.5, 0.0] {
        let class = if part > 0.0 { "grid" } else { "axis" };
        let at = y(most * part);
        let _ = writeln!(
            svg,
            "<line class=\"{class}\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"scale\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            (panel.shown)(most * part)
        );
    }
    let mut before = None::<&Sample>;
    for sample in &r.samples {
        let Some(value) = (panel.value)(sample) else {
            before = Some(sample);
            continue;
        };
        let from = before.map_or(sample.t_ms.saturating_sub(200), |s| s.t_ms);
        let (left, right, at) = (x(from, last), x(sample.t_ms, last), y(value));
        let class = panel.class.unwrap_or_else(|| match sample.primary.map(|n| n.number()) {
            Some(1) => "direct",
            Some(_) => "block",
            None => "away",
        });
        let _ = writeln!(
            svg,
            "<rect class=\"area {class}\" x=\"{left:.1}\" y=\"{at:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            (right - left).max(0.5),
            y(0.0) - at
        );
        before = Some(sample);
    }
}
