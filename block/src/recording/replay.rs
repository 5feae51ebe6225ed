//! From a prefix of the log to the contents of the disk.
//!
//! Per logical block, its versions are ordered by completion; those not completed come last, since
//! they may land at any time. The *base* is the newest version that must be there: written with FUA and
//! completed, or completed before the submission of a flush that has completed. Candidates are the base and
//! every later version.

use std::collections::{BTreeMap, HashMap};

use super::{Change, Entry, Log};
use crate::device::Op;
use crate::mem::MemDevice;
use crate::rng::Rng;
use crate::units::Lba;

/// Which writes that need not be durable are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survivors {
    /// All, those still in flight included.
    All,
    /// None.
    DurableOnly,
    /// Block by block, any version that may have reached the disk, drawn from this seed.
    Seeded(u64),
}

/// One write of one block.
struct Version {
    /// Index of the submission.
    submitted: usize,
    /// Index of the completion; `None` if it was in flight or failed.
    completed: Option<usize>,
    fua: bool,
}

pub(super) fn replay(log: &Log, start: &MemDevice, prefix: usize, survivors: Survivors) -> MemDevice {
    let entries = &log.entries[..prefix.min(log.entries.len())];
    let completions = completions(entries);
    let flushed = flushed_until(entries, &completions);
    let image = start.copy();
    image.crash();
    let mut rng = match survivors {
        Survivors::Seeded(seed) => Some(Rng::new(seed)),
        Survivors::All | Survivors::DurableOnly => None,
    };
    for (lba, mut versions) in versions(log, entries, &completions) {
        versions.sort_by_key(|v| (v.completed.unwrap_or(usize::MAX), v.submitted));
        let base = versions.iter().rposition(|v| v.completed.is_some_and(|at| v.fua || at < flushed));
        // Choice 0 is the base, or the start's contents where nothing is durable.
        let first = base.map_or(0, |at| at + 1);
        let later = versions.len() - first;
        let choice = match (&mut rng, survivors) {
            (Some(rng), _) => rng.below(later as u64 + 1) as usize,
            (None, Survivors::All) => later,
            (None, _) => 0,
        };
        if let Some(index) = (first + choice).checked_sub(1) {
            place(log, &image, lba, versions[index].submitted);
        }
    }
    image
}

/// Submission index to completion index, of requests that succeeded.
fn completions(entries: &[Entry]) -> HashMap<usize, usize> {
    let done = entries.iter().enumerate().filter_map(|(index, entry)| match entry {
        Entry::Completed { of, ok: true } => Some((*of, index)),
        _ => None,
    });
    done.collect()
}

/// Everything completed before this entry is covered by a completed flush.
fn flushed_until(entries: &[Entry], completions: &HashMap<usize, usize>) -> usize {
    let flushes = entries.iter().enumerate().filter_map(|(index, entry)| match entry {
        Entry::Submitted(Change { op: Op::Flush, .. }) if completions.contains_key(&index) => Some(index),
        _ => None,
    });
    flushes.max().unwrap_or(0)
}

fn versions(log: &Log, entries: &[Entry], completions: &HashMap<usize, usize>) -> BTreeMap<Lba, Vec<Version>> {
    let block = log.block.bytes();
    let mut versions: BTreeMap<Lba, Vec<Version>> = BTreeMap::new();
    for (submitted, entry) in entries.iter().enumerate() {
        let Entry::Submitted(change) = entry else { continue };
        if !change.op.changes() {
            continue;
        }
        let completed = completions.get(&submitted).copied();
        let fua = change.op == Op::Write { fua: true };
        for lba in change.at.0 / block..(change.at.0 + change.len.0) / block {
            versions.entry(Lba(lba)).or_default().push(Version { submitted, completed, fua });
        }
    }
    versions
}

/// Puts the block as the change submitted at this index left it.
fn place(log: &Log, image: &MemDevice, lba: Lba, submitted: usize) {
    let Entry::Submitted(change) = &log.entries[submitted] else { return };
    let size = log.block.as_usize();
    match &change.data {
        Some(data) => {
            // Lossless: data is at most MAX_TRANSFER long.
            let from = (lba.0 * log.block.bytes() - change.at.0) as usize;
            image.place(lba, &data[from..from + size]);
        }
        None => image.place(lba, &vec![0; size]),
    }
}
