//! The charts: throughput over time, one panel a node, coloured by route; phases behind, marks as numbered lines.

use std::fmt::Write as _;

use super::{DemoReport, MarkKind, Sample};
use crate::api::{Node, Route};
use crate::render::bytes;

/// Drawing units; the picture scales to the page.
const WIDTH: f64 = 1120.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 16.0;
/// Rows of phase names: neighbours that are short stand one above the other.
const NAME_ROWS: usize = 4;
const NAME_ROW: f64 = 13.0;
const TOP: f64 = 18.0 + NAME_ROW * NAME_ROWS as f64;
const PANEL: f64 = 118.0;
const GAP: f64 = 26.0;
const BOTTOM: f64 = 30.0;

/// Longer between two samples of a node, and nothing is drawn between them.
const HOLE_MS: u64 = 1500;

/// The picture as SVG.
pub(super) fn throughput(r: &DemoReport) -> String {
    let plot = Plot::new(r);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {h:.0}\" role=\"img\" aria-label=\"Throughput by route over time, one panel a node\">\n",
        h = plot.height()
    );
    phases(&mut svg, r, &plot);
    for (row, node) in r.nodes.iter().enumerate() {
        panel(&mut svg, r, &plot, row, *node);
    }
    marks(&mut svg, r, &plot);
    time_axis(&mut svg, &plot);
    svg.push_str("</svg>\n");
    svg
}

/// Where things go.
struct Plot {
    rows: usize,
    end_ms: u64,
    top_rate: f64,
}

impl Plot {
    fn new(r: &DemoReport) -> Plot {
        let last = r.samples.iter().map(|s| s.t_ms).chain(r.phases.iter().map(|p| p.to_ms)).max().unwrap_or(1);
        Plot { rows: r.nodes.len(), end_ms: last.max(1), top_rate: round_up(usual_most(r)) }
    }

    fn x(&self, t_ms: u64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * t_ms.min(self.end_ms) as f64 / self.end_ms as f64
    }

    fn top(&self, row: usize) -> f64 {
        TOP + row as f64 * (PANEL + GAP)
    }

    fn y(&self, row: usize, rate: f64) -> f64 {
        self.top(row) + PANEL * (1.0 - (rate / self.top_rate).clamp(0.0, 1.0))
    }

    fn bottom(&self) -> f64 {
        self.top(self.rows.saturating_sub(1)) + PANEL
    }

    fn height(&self) -> f64 {
        self.bottom() + BOTTOM
    }
}

/// The rate that only a few samples exceed: bursts, as when everything is read back at the end, are cut off, so that
/// what happens under load can be seen.
fn usual_most(r: &DemoReport) -> f64 {
    let mut rates: Vec<f64> = r.samples.iter().map(|s| s.bytes_per_s).filter(|rate| *rate > 0.0).collect();
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() * 96 / 100).copied().unwrap_or(1.0)
}

/// The next round figure, as a scale would have it: 1, 2, 5, 10 ... 500 KiB, MiB, GiB.
pub(crate) fn round_up(rate: f64) -> f64 {
    let mut unit = 1024.0;
    while rate > unit * 500.0 {
        unit *= 1024.0;
    }
    let steps = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0];
    steps.into_iter().map(|s| s * unit).find(|r| rate <= *r).unwrap_or(rate)
}

/// The class that colours a route.
pub(super) fn class(route: Option<Route>) -> &'static str {
    match route {
        Some(Route::Direct) => "direct",
        Some(Route::BlockRedirected) => "block",
        Some(Route::FileRedirected) => "file",
        Some(Route::Draining) => "draining",
        Some(Route::Paused | Route::Fenced | Route::Unmounted) | None => "away",
    }
}

fn phases(svg: &mut String, r: &DemoReport, plot: &Plot) {
    let mut free_from = [f64::MIN; NAME_ROWS];
    for (n, phase) in r.phases.iter().enumerate() {
        let (x, w) = (plot.x(phase.from_ms), plot.x(phase.to_ms) - plot.x(phase.from_ms));
        let head = 5.0 + NAME_ROW * NAME_ROWS as f64;
        let (y, h) = (TOP - head, plot.bottom() - TOP + head);
        let shade = if n % 2 == 0 { "even" } else { "odd" };
        let name = escape(&phase.name);
        let _ = writeln!(
            svg,
            "<rect class=\"phase {shade}\" x=\"{x:.1}\" y=\"{y}\" width=\"{w:.1}\" height=\"{h:.1}\"><title>{name}</title></rect>"
        );
        // In the lowest row where it does not run into a neighbour; if there is none, the title above still has it.
        let Some(row) = (0..NAME_ROWS).find(|row| free_from[*row] <= x) else { continue };
        free_from[row] = x + phase.name.chars().count() as f64 * 6.0 + 6.0;
        let y = TOP - 9.0 - NAME_ROW * row as f64;
        let _ = writeln!(svg, "<text class=\"phase-name\" x=\"{:.1}\" y=\"{y:.1}\">{name}</text>", x + 4.0);
    }
}

fn panel(svg: &mut String, r: &DemoReport, plot: &Plot, row: usize, node: Node) {
    let (top, base) = (plot.top(row), plot.y(row, 0.0));
    let _ = writeln!(svg, "<text class=\"node\" x=\"8\" y=\"{:.1}\">{node}</text>", top + 34.0);
    for part in [1.0, 0.5] {
        let y = plot.y(row, plot.top_rate * part);
        let label = bytes((plot.top_rate * part) as u64);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
            WIDTH - RIGHT
        );
        let _ = writeln!(
            svg,
            "<text class=\"scale\" x=\"{:.1}\" y=\"{:.1}\">{label}/s</text>",
            LEFT - 6.0,
            y + 4.0 + (1.0 - part) * 4.0
        );
    }
    let _ = writeln!(
        svg,
        "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{base:.1}\" y2=\"{base:.1}\"/>",
        WIDTH - RIGHT
    );
    let samples: Vec<&Sample> = r.samples.iter().filter(|s| s.node == node).collect();
    for run in runs(&samples) {
        area(svg, plot, row, run);
    }
    if let Some(stall) = r.stalls.iter().find(|s| s.node == node && s.longest_ms > 0) {
        let (x, w) = (plot.x(stall.at_ms.saturating_sub(stall.longest_ms)), plot.x(stall.at_ms));
        let _ = writeln!(
            svg,
            "<rect class=\"stall\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"5\"><title>longest stall: {} ms</title></rect>",
            base + 1.0,
            (w - x).max(3.0),
            stall.longest_ms
        );
    }
}

/// Neighbouring samples of one route; each run begins with the last sample of the one before, so that areas touch.
fn runs<'a>(samples: &'a [&'a Sample]) -> Vec<&'a [&'a Sample]> {
    let mut runs = Vec::new();
    let mut from = 0;
    for at in 1..=samples.len() {
        let hole = at < samples.len() && samples[at].t_ms - samples[at - 1].t_ms > HOLE_MS;
        if at == samples.len() || hole || samples[at].route != samples[at - 1].route {
            runs.push(&samples[from..at]);
            from = at;
        }
    }
    runs
}

/// A run as steps: a sample's rate holds for the time before it.
fn area(svg: &mut String, plot: &Plot, row: usize, run: &[&Sample]) {
    let Some(first) = run.first() else { return };
    let step = run.get(1).map_or(200, |second| second.t_ms - first.t_ms);
    let base = plot.y(row, 0.0);
    let mut x = plot.x(first.t_ms.saturating_sub(step));
    let mut path = format!("M{x:.1} {base:.1}");
    // Another route is to be seen also where it moves nothing; the direct one would look busy where it is idle.
    let least = if first.route == Some(Route::Direct) { 0.0 } else { 3.0 };
    for sample in run {
        let y = plot.y(row, sample.bytes_per_s).min(base - least);
        let _ = write!(path, "L{x:.1} {y:.1}");
        x = plot.x(sample.t_ms);
        let _ = write!(path, "L{x:.1} {y:.1}");
    }
    let _ = write!(path, "L{x:.1} {base:.1}Z");
    let name = first.route.map_or("no answer", Route::as_str);
    let _ = writeln!(svg, "<path class=\"area {}\" d=\"{path}\"><title>{name}</title></path>", class(first.route));
}

/// Lines for what the demo did, short ticks for what nodes reported; numbers refer to the list below the picture.
fn marks(svg: &mut String, r: &DemoReport, plot: &Plot) {
    let mut number = 0;
    let mut label_free_from = 0.0;
    for mark in &r.marks {
        let x = plot.x(mark.t_ms);
        if mark.kind == MarkKind::Done {
            number += 1;
            let _ = writeln!(
                svg,
                "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"><title>{}</title></line>",
                TOP - 4.0,
                plot.bottom(),
                escape(&mark.text)
            );
            let at = f64::max(x + 2.0, label_free_from);
            let _ = writeln!(svg, "<text class=\"mark-number\" x=\"{at:.1}\" y=\"{:.1}\">{number}</text>", TOP + 7.0);
            label_free_from = at + if number < 10 { 8.0 } else { 14.0 };
        } else if let Some(row) = mark.node.and_then(|n| r.nodes.iter().position(|m| *m == n)) {
            let y = plot.y(row, 0.0);
            let _ = writeln!(
                svg,
                "<path class=\"report\" d=\"M{x:.1} {y:.1}l-3 8h6z\"><title>{}</title></path>",
                escape(&mark.text)
            );
        }
    }
}

fn time_axis(svg: &mut String, plot: &Plot) {
    let step = if plot.end_ms > 60_000 { 10_000 } else { 5_000 };
    for t in (0..=plot.end_ms).step_by(step) {
        let (x, y) = (plot.x(t), plot.bottom() + 22.0);
        let _ = writeln!(svg, "<text class=\"time\" x=\"{x:.1}\" y=\"{y:.1}\">{} s</text>", t / 1000);
    }
}

/// For text and attributes of HTML and SVG.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
