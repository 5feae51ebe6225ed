//! What the demo found, as plain data, and how it is shown: tables on the terminal and a page with charts.

use std::fmt::Write as _;

use serde::Serialize;

use super::super::report::{Check, Mark, check_line, checks, document, escape, happened};
use super::chart::charts;
use super::watch::Sample;
use crate::clock::WallTime;
use crate::render::{bytes, grouped, plain_table};

/// Everything the demo found.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct ReplicaReport {
    pub(super) started: WallTime,
    pub(super) took_ms: u64,
    pub(super) device_bytes: u64,
    pub(super) samples: Vec<Sample>,
    pub(super) marks: Vec<Mark>,
    pub(super) phases: Vec<PhaseFound>,
    /// How the dead site came back.
    pub(super) resynced: Option<Resynced>,
    /// Calls that were under way when the site was killed.
    pub(super) failed_calls: u64,
    /// The longest time without an acknowledged write, from the kill on.
    pub(super) gap_ms: u64,
    /// Read back and right.
    pub(super) bytes_verified: u64,
    pub(super) checks: Vec<Check>,
    /// The site that is down now.
    #[serde(skip)]
    pub(super) killed: Option<u8>,
}

/// A part of the demo.
#[derive(Clone, Debug, Serialize)]
pub(super) struct PhaseFound {
    pub(super) name: String,
    pub(super) from_ms: u64,
    pub(super) to_ms: u64,
    /// Operations completed and verified, and how many were needed.
    pub(super) ops: u64,
    pub(super) floor: Option<u64>,
}

/// What brought the dead site back.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Resynced {
    pub(super) sent_bytes: u64,
    pub(super) zeroed_bytes: u64,
    /// Compared by digest, and the same.
    pub(super) compared_bytes: u64,
    /// Written between the kill and the end of it.
    pub(super) written_bytes: u64,
    pub(super) took_ms: u64,
}

impl ReplicaReport {
    /// Whether all held.
    pub(super) fn ok(&self) -> bool {
        self.checks.iter().all(|c| c.ok)
    }
}

/// On the terminal.
pub(super) fn terminal(r: &ReplicaReport) -> String {
    let rows = r.phases.iter().map(|p| {
        let seconds = (p.to_ms - p.from_ms) as f64 / 1e3;
        let rate = r.samples.iter().filter(|s| (p.from_ms..p.to_ms).contains(&s.t_ms));
        let (sum, count) = rate.fold((0.0, 0), |(sum, n), s| (sum + s.bytes_per_s, n + 1));
        let rate = if count > 0 { format!("{}/s", bytes((sum / f64::from(count)) as u64)) } else { "-".to_owned() };
        [p.name.clone(), format!("{seconds:.1}"), grouped(p.ops), rate]
    });
    let mut text = format!("{}\n", plain_table(["PHASE", "SECONDS", "VERIFIED OPERATIONS", "THROUGHPUT"], rows));
    if let Some(s) = &r.resynced {
        let row = [bytes(r.device_bytes), bytes(s.written_bytes), bytes(s.sent_bytes), bytes(s.compared_bytes)];
        let rows = [[row[0].clone(), row[1].clone(), row[2].clone(), row[3].clone(), format!("{} ms", s.took_ms)]];
        text += &plain_table(["DEVICE", "WRITTEN WITHOUT IT", "SENT BACK", "COMPARED, EQUAL", "TOOK"], rows);
        text.push('\n');
    }
    for check in &r.checks {
        text += &check_line(check);
    }
    let verdict = if r.ok() { "All of it held" } else { "NOT all of it held" };
    let _ = writeln!(
        text,
        "\n{verdict}: {} verified, {} ms without the device after the kill, {:.1} s.",
        bytes(r.bytes_verified),
        r.gap_ms,
        r.took_ms as f64 / 1e3
    );
    text
}

/// The page.
pub(super) fn page(r: &ReplicaReport) -> String {
    let mut html = String::new();
    let (word, tone) = if r.ok() { ("All of it held", "good") } else { ("Not all of it held", "bad") };
    let _ = writeln!(
        html,
        "<h1>Shorefast replica demo</h1>\n<p><span class=\"verdict {tone}\">{word}.</span> <span class=\"soft\">two sites, one \
         device of {}, protocol C, {}, {:.1} s.</span></p>",
        bytes(r.device_bytes),
        r.started,
        r.took_ms as f64 / 1e3
    );
    let sent = r.resynced.map_or(0, |s| s.sent_bytes);
    let figures = [
        (bytes(r.bytes_verified), "verified"),
        (format!("{} ms", r.gap_ms), "without the device after the kill"),
        (bytes(sent), "sent back to the dead site"),
        (grouped(r.failed_calls), "calls under way at the kill"),
    ];
    html.push_str("<div class=\"figures\">");
    for (figure, what) in figures {
        let _ = write!(html, "<div><b>{figure}</b><span>{what}</span></div>");
    }
    html.push_str("</div>\n<h2>Over time</h2>\n<div class=\"wide\">\n");
    html.push_str(&charts(r));
    html.push_str(
        "</div>\n<p class=\"key\"><span><i class=\"direct\"></i>served by node-1</span><span><i class=\"block\"></i>served by \
         node-2</span><span><i class=\"away\"></i>by nobody</span><span><i class=\"draining\"></i>synchronisation</span>\
         <span>dashed, numbered: what the demo did</span></p>\n",
    );
    happened(&mut html, &r.marks);
    checks(&mut html, &r.checks);
    phases(&mut html, r);
    document("Shorefast replica demo", &html)
}

fn phases(html: &mut String, r: &ReplicaReport) {
    html.push_str(
        "<h2>Phases</h2>\n<div class=\"wide\"><table>\n<tr><th>Phase</th><th class=\"n\">Seconds</th>\
         <th class=\"n\">Verified operations</th></tr>\n",
    );
    for phase in &r.phases {
        let tone = if phase.floor.is_none_or(|floor| phase.ops >= floor) { "n" } else { "n bad" };
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td class=\"n\">{:.1}</td><td class=\"{tone}\">{}</td></tr>",
            escape(&phase.name),
            (phase.to_ms - phase.from_ms) as f64 / 1e3,
            grouped(phase.ops)
        );
    }
    html.push_str("</table></div>\n");
}

#[cfg(test)]
mod tests {
    use super::super::super::report::MarkKind;
    use super::*;
    use crate::api::Node;

    fn sample() -> ReplicaReport {
        let node = |t: u64| Node::new(if t < 4_000 { 1 } else { 2 });
        let look = |t_ms: u64| Sample {
            t_ms,
            primary: node(t_ms).filter(|_| !(4_000..4_400).contains(&t_ms)),
            bytes_per_s: if (4_000..5_000).contains(&t_ms) { 0.0 } else { 22e6 },
            p99_ms: Some(1.5 + (t_ms % 700) as f64 / 500.0),
            behind_bytes: Some(if t_ms < 4_000 { 0 } else { (t_ms - 4_000) * 4096 }),
            resync_percent: (t_ms > 9_000).then(|| (t_ms - 9_000) as f64 / 20.0),
            resync_bytes_per_s: None,
        };
        let mark = |t_ms, text: &str| Mark { t_ms, node: Node::new(1), kind: MarkKind::Done, text: text.to_owned() };
        let phase = |name: &str, from_ms, to_ms, ops| PhaseFound {
            name: name.to_owned(),
            from_ms,
            to_ms,
            ops,
            floor: Some(100),
        };
        ReplicaReport {
            took_ms: 11_000,
            device_bytes: 256 << 20,
            samples: (200..11_000).step_by(200).map(look).collect(),
            marks: vec![mark(4_000, "SIGKILL"), mark(9_000, "<its process> starts again")],
            phases: vec![phase("both sites", 0, 4_000, 900), phase("SIGKILL", 4_000, 5_000, 99)],
            resynced: Some(Resynced {
                sent_bytes: 32 << 20,
                zeroed_bytes: 0,
                compared_bytes: 90 << 20,
                written_bytes: 32 << 20,
                took_ms: 800,
            }),
            failed_calls: 4,
            gap_ms: 300,
            bytes_verified: 1 << 30,
            checks: vec![Check { name: "the disks are the same".to_owned(), ok: true, detail: String::new() }],
            ..ReplicaReport::default()
        }
    }

    #[test]
    fn the_page_shows_what_was_measured_escapes_and_loads_nothing() {
        let html = page(&sample());
        assert!(html.contains("&lt;its process&gt;") && !html.contains("<its process>"));
        for outside in ["http://", "https://", "src=", "url(", "@import", "<script", "NaN", "inf\""] {
            assert!(!html.contains(outside), "{outside} in the page");
        }
        for shown in ["32 MiB", "Throughput", "Behind", "Synchronised", "class=\"n bad\">99<"] {
            assert!(html.contains(shown), "{shown} is missing");
        }
        if let Some(path) = std::env::var_os("SHOREFAST_SAMPLE_REPORT") {
            std::fs::write(path, html).expect("writes the sample");
        }
    }

    #[test]
    fn it_is_ok_only_if_every_check_held_and_an_empty_one_renders() {
        let mut report = sample();
        assert!(report.ok() && terminal(&report).contains("All of it held"));
        report.checks[0].ok = false;
        assert!(!report.ok());
        assert!(terminal(&report).contains("FAIL the disks") && page(&report).contains("Not all of it held"));
        let empty = ReplicaReport::default();
        assert!(page(&empty).ends_with("</html>\n") && !page(&empty).contains("NaN"));
    }
}
