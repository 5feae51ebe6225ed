//! The check of a volume: every structure read, every invariant of [`meta`](super) proved, over every row.
//!
//! What it is: pure. It is told the rows of one committed state ([`Source`]), the superblock of that moment, and where
//! wanted the bytes beside the store (`areas`, `log`), and answers with [`Finding`]s of a closed list of kinds. It
//! changes nothing: a finding may carry a [`Repair`], which says what would be done; `repair` does it.
//!
//! Who calls it: [`View::check`](super::View::check) on a volume that is mounted (a coordinator's view),
//! [`Store::check_unmounted`](super::Store::check_unmounted) on one that is not, and the tests after random operations, crashes and takeovers.
//!
//! Memory is bounded whatever the volume: inodes are judged [`Limits::inodes`] at a time (40 bytes each; the names are
//! read once for each such part), blocks [`Limits::runs`] at a time (32 bytes each, likewise), and of findings the first
//! [`Limits::findings`] are kept. Only directories are all kept at once, 16 bytes each, to find rings.
//!
//! One thing that is wrong is one finding: what follows from it is not said again. So who carries out the repairs of a
//! check checks again, until nothing that can be repaired is left.

mod areas;
mod blocks;
mod clients;
mod finding;
mod inodes;
mod log;
mod names;
mod source;
mod whole;

use std::ops::ControlFlow;

use super::error::{Fatal, Result};
use crate::format::Superblock;

pub use areas::Areas;
pub(super) use areas::areas;
pub use finding::{Finding, Kind, Repair, Report};
pub(super) use log::{live_log, lying_log};
pub(super) use names::LOST_AND_FOUND;
pub(super) use source::{Exact, Source};
pub(super) use whole::NEXT_INODE;

/// Rows between two looks at whether to go on.
const LOOK_EVERY: u64 = 4096;

/// How much is kept in memory at a time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Inodes whose links are counted in one reading of the names.
    pub inodes: usize,
    /// Runs of blocks that are compared in one reading of the mappings.
    pub runs: usize,
    /// Findings.
    pub findings: usize,
}

impl Limits {
    /// Some 160 MB for the inodes of a part and at most 200 MB for its runs, one after the other: with the database's
    /// own cache below 500 MiB. Four million files are one part.
    pub const DEFAULT: Limits = Limits { inodes: 4_000_000, runs: 2_000_000, findings: 1000 };
}

/// How far a check has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// What is being read.
    pub part: &'static str,
    /// Rows of it so far.
    pub rows: u64,
}

/// Hears of each step, and may end the check.
pub type Watch<'a> = dyn FnMut(Step) -> ControlFlow<()> + 'a;

/// One check under way.
pub(super) struct Checker<'a> {
    source: &'a dyn Source,
    superblock: &'a Superblock,
    limits: Limits,
    report: &'a mut Report,
    watch: &'a mut Watch<'a>,
    rows: u64,
    /// Bytes of all names.
    name_bytes: u64,
    /// Bytes of all extended attributes, their names included, and of all targets of links.
    value_bytes: u64,
}

/// Checks what the store holds.
pub(super) fn store<'a>(
    source: &'a dyn Source,
    superblock: &'a Superblock,
    limits: Limits,
    report: &'a mut Report,
    watch: &'a mut Watch<'a>,
) -> Result<()> {
    report.limit = limits.findings;
    let mut c = Checker { source, superblock, limits, report, watch, rows: 0, name_bytes: 0, value_bytes: 0 };
    inodes::check(&mut c)?;
    names::check(&mut c)?;
    blocks::check(&mut c)?;
    clients::check(&mut c)?;
    whole::check(&mut c)
}

impl Checker<'_> {
    /// Begins to read something else.
    fn begin(&mut self, part: &'static str) -> Result<()> {
        self.rows = 0;
        self.say(part)
    }

    /// One more row was read.
    fn row(&mut self, part: &'static str) -> Result<()> {
        self.rows += 1;
        if self.rows.is_multiple_of(LOOK_EVERY) { self.say(part) } else { Ok(()) }
    }

    fn say(&mut self, part: &'static str) -> Result<()> {
        match (self.watch)(Step { part, rows: self.rows }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Fatal::Interrupted.into()),
        }
    }

    fn found(&mut self, kind: Kind, what: impl Into<String>, repair: impl Into<Option<Repair>>) {
        self.report.add(kind, what, repair);
    }
}
