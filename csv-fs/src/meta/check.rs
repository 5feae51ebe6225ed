//! Proves a committed state of a volume consistent: every invariant of [`meta`](super), over every row.
//!
//! Reads everything and keeps a few words per inode and per extent in memory; changes nothing. Used by
//! `volume check`, and by the property tests after random operations.

mod blocks;
mod names;

use std::fmt;

use redb::ReadableTable;

use super::error::Result;
use super::inode::Inode;
use super::ops::VALUE_BYTES;
use super::reads::Reads;
use super::session;
use super::session::Session;
use super::store::View;
use super::tables::{Access, ReadTables};
use crate::format::Superblock;

/// The most problems that are listed; the rest is only counted.
const MAX_LISTED: usize = 100;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong, one sentence each; the first hundred.
    pub problems: Vec<String>,
    /// How many problems there are.
    pub problem_count: u64,
    /// Inodes looked at.
    pub inodes: u64,
    /// Directory entries looked at.
    pub entries: u64,
    /// Extents looked at.
    pub extents: u64,
    /// Free blocks.
    pub free: u64,
    /// Blocks granted and not mapped.
    pub granted: u64,
    /// Mapped blocks.
    pub mapped: u64,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problem_count == 0
    }

    fn problem(&mut self, what: impl Into<String>) {
        self.problem_count += 1;
        if self.problems.len() < MAX_LISTED {
            self.problems.push(what.into());
        }
    }

    fn unless(&mut self, fine: bool, what: impl FnOnce() -> String) {
        if !fine {
            self.problem(what());
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} inodes, {} entries, {} extents; blocks: {} free, {} granted, {} mapped",
            self.inodes, self.entries, self.extents, self.free, self.granted, self.mapped
        )?;
        for problem in &self.problems {
            writeln!(f, "{problem}")?;
        }
        match self.problem_count {
            0 => write!(f, "no problems"),
            n => write!(f, "{n} problems"),
        }
    }
}

/// Checks the state that a view shows against the superblock of the same moment.
pub fn check(view: &View, superblock: &Superblock) -> Result<Report> {
    let mut report = Report::default();
    let t = &view.tables;
    names::check(t, &mut report)?;
    blocks::check(t, superblock, &mut report)?;
    clients(t, &mut report)?;
    attributes(t, &mut report)?;
    let space = view.statfs()?;
    let found = report.inodes;
    report.unless(space.files == found, || format!("the count of inodes is {}, but there are {found}", space.files));
    Ok(report)
}

/// Extended attributes belong to inodes, and are counted with the targets of links.
fn attributes(t: &ReadTables, report: &mut Report) -> Result<()> {
    let (mut last, mut bytes) = (None, 0);
    for row in t.xattr().iter()? {
        let (key, value) = row?;
        let (tree, ino, name) = key.value();
        bytes += name.len() + value.value().len();
        if last.replace((tree, ino)) != Some((tree, ino)) {
            let there = t.inode().get((tree, ino))?.is_some();
            report.unless(there, || format!("ino {ino} has extended attributes, but is not there"));
        }
    }
    bytes += inodes(t)?.iter().map(|(_, inode)| inode.target.len()).sum::<usize>();
    let counted = t.counter().get(VALUE_BYTES)?.map_or(0, |v| v.value());
    report.unless(counted == bytes as u64, || {
        format!("the count of bytes of attributes and links is {counted}, but there are {bytes}")
    });
    Ok(())
}

/// Grants and stored answers belong to sessions.
fn clients(t: &ReadTables, report: &mut Report) -> Result<()> {
    let mut known = std::collections::BTreeSet::new();
    for row in t.session().iter()? {
        let (key, value) = row?;
        let session: Session = session::decode(value.value())?;
        let same = (session.client.node.get(), session.client.incarnation.0) == key.value();
        report.unless(same, || format!("the session row of {} lies under another's key", session.client));
        known.insert(key.value());
    }
    for row in t.grant().iter()? {
        let (node, life, _) = row?.0.value();
        report.unless(known.contains(&(node, life)), || {
            format!("space is granted to node {node} incarnation {life}, which has no session")
        });
    }
    for row in t.answer().iter()? {
        let (node, life, _, _) = row?.0.value();
        report.unless(known.contains(&(node, life)), || {
            format!("an answer is stored for node {node} incarnation {life}, which has no session")
        });
    }
    Ok(())
}

/// Every inode, in order of its number.
fn inodes(t: &ReadTables) -> Result<Vec<(u64, Inode)>> {
    let mut inodes = Vec::new();
    for row in t.inode().iter()? {
        let (key, value) = row?;
        inodes.push((key.value().1, Inode::decode(value.value())?));
    }
    Ok(inodes)
}
