//! The report on the terminal.

use std::fmt::Write as _;

use super::{Check, DemoReport, FaultSeen, Mark, MarkKind, Phase};
use crate::render::{bytes, grouped, plain_table};

/// What happened, for whoever did not see it live.
pub(crate) fn story(marks: &[Mark]) -> String {
    let mut text = String::from("\nWhat happened\n");
    for mark in marks {
        let who = mark.node.map_or_else(String::new, |n| format!("{n}: "));
        let sign = if mark.kind == MarkKind::Done { ">" } else { " " };
        let _ = writeln!(text, "  {:>6.2} s {sign} {who}{}", mark.t_ms as f64 / 1e3, mark.text);
    }
    text.push('\n');
    text
}

/// What came of it.
pub(crate) fn terminal(r: &DemoReport) -> String {
    let mut text = format!("{}\n{}\n", phases(&r.phases), nodes(r));
    if !r.faults.is_empty() {
        text += &faults(&r.faults);
        text.push('\n');
    }
    if !r.failed_calls.is_empty() {
        text += &failed(r);
        text.push('\n');
    }
    for note in &r.notes {
        let _ = writeln!(text, "Note: {note}");
    }
    text.push('\n');
    for check in &r.checks {
        text += &check_line(check);
    }
    let verdict = if r.ok() { "All of it held" } else { "NOT all of it held" };
    let _ = writeln!(
        text,
        "\n{verdict}: {} verified, {} failed calls on living nodes, {:.1} s.",
        bytes(r.bytes_verified),
        grouped(r.unexpected_failures()),
        r.took_ms as f64 / 1e3
    );
    text
}

fn phases(phases: &[Phase]) -> String {
    plain_table(
        ["PHASE", "SECONDS", "VERIFIED OPERATIONS OF EACH WRITER"],
        phases.iter().map(|p| {
            let writers: Vec<String> = p
                .writers
                .iter()
                .map(|w| {
                    format!("{} {}{}", w.node, grouped(w.verified_ops), if w.enough() { "" } else { " (too few)" })
                })
                .collect();
            [p.name.clone(), format!("{:.1}", (p.to_ms - p.from_ms) as f64 / 1e3), writers.join("   ")]
        }),
    )
}

/// What was done to the way to the disk, and each thing that was seen in a line of its own.
fn faults(faults: &[FaultSeen]) -> String {
    let rows = faults.iter().flat_map(|f| {
        let verdict = if f.ok { "ok" } else { "FAIL" };
        let nothing = [String::from("nothing")];
        let seen = if f.seen.is_empty() { &nothing[..] } else { &f.seen };
        let row = |(n, seen): (usize, &String)| match n {
            0 => [verdict.to_owned(), f.fault.clone(), seen.clone()],
            _ => [String::new(), String::new(), seen.clone()],
        };
        seen.iter().enumerate().map(row).collect::<Vec<_>>()
    });
    plain_table(["", "WHAT WAS DONE", "WHAT WAS SEEN"], rows)
}

fn nodes(r: &DemoReport) -> String {
    plain_table(
        ["NODE", "LONGEST STALL", "IN PHASE", "BYTES BY ROUTE"],
        r.nodes.iter().map(|node| {
            let stall = r.stalls.iter().find(|s| s.node == *node);
            let routes: Vec<String> = r
                .bytes_by_route
                .iter()
                .filter(|b| b.node == *node && b.read_bytes + b.written_bytes > 0)
                .map(|b| format!("{} {}", b.route, bytes(b.read_bytes + b.written_bytes)))
                .collect();
            [
                node.to_string(),
                stall.map_or_else(|| "-".to_owned(), |s| format!("{} ms", s.longest_ms)),
                stall.map_or_else(|| "-".to_owned(), |s| s.phase.clone()),
                routes.join("   "),
            ]
        }),
    )
}

fn failed(r: &DemoReport) -> String {
    plain_table(
        ["FAILED CALLS ON", "IN PHASE", "CALL", "ERROR", "COUNT", ""],
        r.failed_calls.iter().map(|f| {
            let why = if f.expected { "its daemon was killed, or it was evicted" } else { "not expected" };
            [f.node.to_string(), f.phase.clone(), f.call.clone(), f.error.clone(), grouped(f.count), why.to_owned()]
        }),
    )
}

/// A check's line.
pub(crate) fn check_line(c: &Check) -> String {
    let sign = if c.ok { "ok  " } else { "FAIL" };
    if c.detail.is_empty() { format!("{sign} {}\n", c.name) } else { format!("{sign} {}: {}\n", c.name, c.detail) }
}
