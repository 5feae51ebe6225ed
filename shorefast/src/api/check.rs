//! What `volume check` answers.

use csv_fs::meta::check::Report;
use serde::{Deserialize, Serialize};

use super::types::Node;

/// Findings in one report: the rest is only counted.
const SHOWN: usize = 1000;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckFinding {
    /// In one word; docs/semantics/csv-fs.md lists them.
    pub kind: String,
    /// In a sentence.
    pub message: String,
    /// What `--repair` would do, if it can do anything without loss.
    pub repair: Option<String>,
}

/// Blocks of 4096 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckBlocks {
    /// Free.
    pub free: u64,
    /// Granted to nodes and not mapped.
    pub granted: u64,
    /// Mapped, as often as files map them.
    pub mapped: u64,
}

/// Where a check was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckedOn {
    /// At the coordinator of a mounted volume.
    Coordinator {
        /// The node.
        node: Node,
        /// Its reign.
        epoch: u64,
    },
    /// On a disk that nobody has mounted.
    Disk {
        /// The disk.
        path: String,
    },
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Where.
    pub checked: CheckedOn,
    /// Whether nothing is wrong.
    pub clean: bool,
    /// What is wrong; the first thousand.
    pub findings: Vec<CheckFinding>,
    /// How many findings there are.
    pub count: u64,
    /// What is as a crash may leave it, and mended by the next mount.
    pub notes: Vec<String>,
    /// Inodes looked at.
    pub inodes: u64,
    /// Directory entries looked at.
    pub entries: u64,
    /// Extents looked at.
    pub extents: u64,
    /// Blocks.
    pub blocks: CheckBlocks,
}

impl CheckReport {
    /// Of a report of the file system.
    pub fn new(checked: CheckedOn, report: &Report) -> CheckReport {
        let finding = |f: &csv_fs::meta::check::Finding| CheckFinding {
            kind: f.kind.code().to_owned(),
            message: format!("{}.", f.what),
            repair: f.repair.as_ref().map(ToString::to_string),
        };
        CheckReport {
            checked,
            clean: report.is_clean(),
            findings: report.findings.iter().take(SHOWN).map(finding).collect(),
            count: report.count,
            notes: report.notes.iter().map(|n| format!("{n}.")).collect(),
            inodes: report.inodes,
            entries: report.entries,
            extents: report.extents,
            blocks: CheckBlocks { free: report.free, granted: report.granted, mapped: report.mapped },
        }
    }
}
