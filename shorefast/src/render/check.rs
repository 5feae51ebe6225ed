//! What a check found, for people.

use std::fmt::Write as _;

use crate::api::{CheckReport, CheckedOn};

/// The whole report: what was looked at, each finding with its repair, notes, and the sum.
pub(crate) fn check_report(name: &str, report: &CheckReport) -> String {
    let mut text = String::new();
    let at = match &report.checked {
        CheckedOn::Coordinator { node, epoch } => format!("{name}, mounted, at its coordinator {node}, epoch {epoch}"),
        CheckedOn::Disk { path } => format!("{name}, not mounted, on {path}"),
    };
    let b = &report.blocks;
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "Checked {at}: {} inodes, {} names, {} extents; blocks: {} free, {} granted, {} mapped.",
        report.inodes, report.entries, report.extents, b.free, b.granted, b.mapped
    );
    for finding in &report.findings {
        let _ = writeln!(text, "[{}] {}", finding.kind, finding.message);
        if let Some(repair) = &finding.repair {
            let _ = writeln!(text, "        repair: {repair}");
        }
    }
    let more = report.count.saturating_sub(report.findings.len() as u64);
    if more > 0 {
        let _ = writeln!(text, "... and {more} more.");
    }
    for note in &report.notes {
        let _ = writeln!(text, "Note: {note}");
    }
    text.push_str(&match report.count {
        0 => "Nothing is wrong.\n".to_owned(),
        1 => "1 thing is wrong.\n".to_owned(),
        n => format!("{n} things are wrong.\n"),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{CheckBlocks, CheckFinding};

    #[test]
    fn findings_are_shown_with_their_repairs_and_what_was_left_out_is_counted() {
        let finding = |repair: Option<&str>| CheckFinding {
            kind: "link-count".into(),
            message: "ino 5 has link count 2, but should have 1.".into(),
            repair: repair.map(str::to_owned),
        };
        let report = CheckReport {
            checked: CheckedOn::Disk { path: "/x".into() },
            clean: false,
            findings: vec![finding(Some("set the link count of ino 5 to 1")), finding(None)],
            count: 7,
            notes: vec!["a note.".into()],
            inodes: 1,
            entries: 2,
            extents: 3,
            blocks: CheckBlocks::default(),
        };
        let text = check_report("vm", &report);
        for said in [
            "Checked vm, not mounted, on /x: 1 inodes",
            "[link-count] ino 5",
            "repair: set the link count of ino 5 to 1",
            "... and 5 more.",
            "Note: a note.",
            "7 things are wrong.",
        ] {
            assert!(text.contains(said), "{said}: {text}");
        }
        let clean = CheckReport { clean: true, findings: Vec::new(), count: 0, ..report };
        assert!(check_report("vm", &clean).ends_with("Nothing is wrong.\n"));
    }
}
