//! The report as one page: figures, charts, tables. Light or dark as the reader's system is; nothing is loaded.

use std::fmt::Write as _;

use super::chart::{class, escape, throughput};
use super::{Check, DemoReport, FaultSeen, Mark, MarkKind};
use crate::api::Route;
use crate::render::{bytes, grouped};

const STYLE: &str = include_str!("style.css");

/// The page.
pub(crate) fn page(r: &DemoReport) -> String {
    let mut html = String::new();
    head(&mut html, r);
    html.push_str("<h2>Throughput by route</h2>\n<div class=\"wide\">\n");
    html.push_str(&throughput(r));
    html.push_str("</div>\n");
    key(&mut html, r);
    faults(&mut html, &r.faults);
    happened(&mut html, &r.marks);
    checks(&mut html, &r.checks);
    phases(&mut html, r);
    nodes(&mut html, r);
    failures(&mut html, r);
    for note in &r.notes {
        let _ = writeln!(html, "<p class=\"soft\">{}</p>", escape(note));
    }
    document("Shorefast demo", &html)
}

/// A body as a page.
pub(crate) fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
}

fn head(html: &mut String, r: &DemoReport) {
    let (word, tone) = if r.ok() { ("All of it held", "good") } else { ("Not all of it held", "bad") };
    let worst = r.stalls.iter().map(|s| s.longest_ms).max().unwrap_or(0);
    let ops: u64 = r.phases.iter().flat_map(|p| &p.writers).map(|w| w.verified_ops).sum();
    let _ = writeln!(
        html,
        "<h1>Shorefast demo</h1>\n<p><span class=\"verdict {tone}\">{word}.</span> <span class=\"soft\">{} nodes, one disk, {}, {:.1} s.</span></p>",
        r.nodes.len(),
        r.started,
        r.took_ms as f64 / 1e3
    );
    let figures = [
        (bytes(r.bytes_verified), "read back and right"),
        (grouped(ops), "verified operations"),
        (grouped(r.unexpected_failures()), "failed calls on living nodes"),
        (format!("{worst} ms"), "longest stall"),
    ];
    html.push_str("<div class=\"figures\">");
    for (figure, what) in figures {
        let _ = write!(html, "<div><b>{figure}</b><span>{what}</span></div>");
    }
    html.push_str("</div>\n");
}

fn key(html: &mut String, r: &DemoReport) {
    html.push_str("<p class=\"key\">");
    for route in [Route::Direct, Route::BlockRedirected, Route::FileRedirected, Route::Draining] {
        let _ = write!(html, "<span><i class=\"{}\"></i>{route}</span>", class(Some(route)));
    }
    html.push_str(
        "<span><i class=\"away\"></i>paused, or no answer</span><span><i class=\"stall\"></i>longest stall</span>",
    );
    html.push_str(
        "<span>triangles: what nodes reported</span></p>\n<p class=\"key\"><span>dashed, what the demo did:</span>",
    );
    for (mark, number) in r.marks.iter().filter(|m| m.kind == MarkKind::Done).zip(1..) {
        let node = mark.node.map_or_else(String::new, |n| format!("{n}: "));
        let _ = write!(html, "<span><b>{number}</b> {node}{}</span>", escape(&mark.text));
    }
    html.push_str("</p>\n");
}

/// What was done to the way to the disk.
fn faults(html: &mut String, faults: &[FaultSeen]) {
    if faults.is_empty() {
        return;
    }
    html.push_str("<h2>Faults of the array and its networks</h2>\n<div class=\"wide\"><table>\n");
    for fault in faults {
        let (word, tone) = if fault.ok { ("held", "good") } else { ("FAILED", "bad") };
        let seen: Vec<String> = fault.seen.iter().map(|seen| escape(seen)).collect();
        let _ = writeln!(
            html,
            "<tr><td class=\"{tone}\">{word}</td><td>{}</td><td class=\"soft\">{}</td></tr>",
            escape(&fault.fault),
            seen.join("<br>")
        );
    }
    html.push_str("</table></div>\n");
}

/// What was done and what was reported.
pub(crate) fn happened(html: &mut String, marks: &[Mark]) {
    html.push_str("<h2>What happened</h2>\n<div class=\"wide\"><table>\n<tr><th class=\"n\">#</th><th class=\"n\">Second</th><th>Node</th><th>What</th></tr>\n");
    let mut number = 0;
    for mark in marks {
        let shown = if mark.kind == MarkKind::Done {
            number += 1;
            number.to_string()
        } else {
            String::new()
        };
        let node = mark.node.map_or_else(String::new, |n| n.to_string());
        let tone = if mark.kind == MarkKind::Done { "" } else { " class=\"soft\"" };
        let _ = writeln!(
            html,
            "<tr{tone}><td class=\"n\">{shown}</td><td class=\"n\">{:.2}</td><td>{node}</td><td>{}</td></tr>",
            mark.t_ms as f64 / 1e3,
            escape(&mark.text)
        );
    }
    html.push_str("</table></div>\n");
}

/// What had to hold.
pub(crate) fn checks(html: &mut String, all: &[Check]) {
    html.push_str("<h2>What had to hold</h2>\n<div class=\"wide\"><table>\n");
    for check in all {
        let (word, tone) = if check.ok { ("held", "good") } else { ("FAILED", "bad") };
        let _ = writeln!(
            html,
            "<tr><td class=\"{tone}\">{word}</td><td>{}</td><td class=\"soft\">{}</td></tr>",
            escape(&check.name),
            escape(&check.detail)
        );
    }
    html.push_str("</table></div>\n");
}

fn phases(html: &mut String, r: &DemoReport) {
    html.push_str(
        "<h2>Verified operations</h2>\n<div class=\"wide\"><table>\n<tr><th>Phase</th><th class=\"n\">Seconds</th>",
    );
    for node in &r.nodes {
        let _ = write!(html, "<th class=\"n\">{node}</th>");
    }
    html.push_str("</tr>\n");
    for phase in &r.phases {
        let seconds = (phase.to_ms - phase.from_ms) as f64 / 1e3;
        let _ = write!(html, "<tr><td>{}</td><td class=\"n\">{seconds:.1}</td>", escape(&phase.name));
        for node in &r.nodes {
            let writer = phase.writers.iter().find(|w| w.node == *node);
            let tone = if writer.is_none_or(|w| w.enough()) { "n" } else { "n bad" };
            let shown = writer.map_or_else(|| "-".to_owned(), |w| grouped(w.verified_ops));
            let _ = write!(html, "<td class=\"{tone}\">{shown}</td>");
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table></div>\n");
}

fn nodes(html: &mut String, r: &DemoReport) {
    html.push_str("<h2>Bytes by route</h2>\n<div class=\"wide\"><table>\n<tr><th>Node</th><th>Route</th><th class=\"n\">Read</th><th class=\"n\">Written</th></tr>\n");
    for b in r.bytes_by_route.iter().filter(|b| b.read_bytes + b.written_bytes > 0) {
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td><i class=\"{}\"></i>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            b.node,
            class(Some(b.route)),
            b.route,
            bytes(b.read_bytes),
            bytes(b.written_bytes)
        );
    }
    html.push_str("</table></div>\n<h2>Longest stalls</h2>\n<div class=\"wide\"><table>\n<tr><th>Node</th><th class=\"n\">Milliseconds</th><th>Phase</th></tr>\n");
    for s in &r.stalls {
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            s.node,
            s.longest_ms,
            escape(&s.phase)
        );
    }
    html.push_str("</table></div>\n");
}

fn failures(html: &mut String, r: &DemoReport) {
    html.push_str("<h2>Failed calls</h2>\n");
    if r.failed_calls.is_empty() {
        html.push_str("<p>None.</p>\n");
        return;
    }
    html.push_str("<div class=\"wide\"><table>\n<tr><th>Node</th><th>Phase</th><th>Call</th><th>Error</th><th class=\"n\">Count</th><th></th></tr>\n");
    for f in &r.failed_calls {
        let (why, tone) =
            if f.expected { ("its daemon was killed, or it was evicted", "soft") } else { ("not expected", "bad") };
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"{tone}\">{why}</td></tr>",
            f.node,
            escape(&f.phase),
            escape(&f.call),
            escape(&f.error),
            grouped(f.count)
        );
    }
    html.push_str("</table></div>\n");
}
