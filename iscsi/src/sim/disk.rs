//! The disk and the oracle that watches it: what landed, what the application was told, what other nodes did.

use std::collections::{BTreeMap, BTreeSet};

/// Bytes of a data block: several data segments, so that writes come in pieces.
pub(super) const BLOCK: u32 = 4096;
/// Data blocks.
pub(super) const BLOCKS: u32 = 6;
/// Bytes of the block for compare-and-write.
pub(super) const CELL: u32 = 512;

/// What an oracle found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which oracle.
    pub oracle: &'static str,
    /// What it saw.
    pub what: String,
}

/// The bytes of a block's version: every 16 bytes say which.
pub(super) fn contents(block: u32, version: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BLOCK as usize);
    while bytes.len() < BLOCK as usize {
        bytes.extend_from_slice(&u64::from(block).to_be_bytes());
        bytes.extend_from_slice(&version.to_be_bytes());
    }
    bytes
}

/// The block and version of contents; none if they are of no single version.
pub(super) fn version_of(bytes: &[u8]) -> Option<(u32, u64)> {
    let first = bytes.get(..16)?;
    let number = |b: &[u8]| b.try_into().ok().map(u64::from_be_bytes);
    let (block, version) = (u32::try_from(number(&first[..8])?).ok()?, number(&first[8..])?);
    (bytes == contents(block, version)).then_some((block, version))
}

/// A cell that holds a nonce.
pub(super) fn cell(nonce: u64) -> Vec<u8> {
    let mut bytes = vec![0; CELL as usize];
    bytes[..8].copy_from_slice(&nonce.to_be_bytes());
    bytes
}

pub(super) fn nonce_of(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(u64::MAX, |b| u64::from_be_bytes(*b))
}

/// The LUN, and what is known about it.
#[derive(Debug)]
pub(super) struct Disk {
    versions: Vec<u64>,
    /// What the cell holds.
    pub(super) nonce: u64,
    /// This node's slot: raised by fencers.
    pub(super) generation: u64,
    /// Versions that were ended (done, dead): nothing of them may land.
    over: BTreeSet<(u32, u64)>,
    /// Compare-and-writes that were executed.
    swapped: BTreeMap<u64, u32>,
    pub(super) violation: Option<Violation>,
}

impl Disk {
    pub(super) fn new() -> Disk {
        Disk {
            versions: vec![0; BLOCKS as usize],
            nonce: 0,
            generation: 1,
            over: BTreeSet::new(),
            swapped: BTreeMap::new(),
            violation: None,
        }
    }

    pub(super) fn object(&mut self, oracle: &'static str, what: String) {
        self.violation.get_or_insert(Violation { oracle, what });
    }

    pub(super) fn read(&self, block: u32) -> Vec<u8> {
        contents(block, self.version(block))
    }

    pub(super) fn version(&self, block: u32) -> u64 {
        self.versions.get(block as usize).copied().unwrap_or_default()
    }

    /// A write lands. The generation under which it was submitted comes beside the protocol, for the oracle only.
    pub(super) fn write(&mut self, block: u32, bytes: &[u8], generation: u64) {
        let Some((of, version)) = version_of(bytes) else {
            return self.object("WholeWrites", format!("block {block} is written with bytes of no version"));
        };
        if of != block {
            return self.object("WholeWrites", format!("block {block} is written with the bytes of block {of}"));
        }
        if generation < self.generation {
            let now = self.generation;
            self.object(
                "NothingAfterFence",
                format!("block {block} version {version} of generation {generation} lands in {now}"),
            );
        }
        if self.over.contains(&(block, version)) {
            self.object("DeadStaysDead", format!("block {block} version {version} lands after its end was told"));
        }
        if version < self.version(block) {
            let newer = self.version(block);
            self.object("NoStaleWrite", format!("block {block} version {version} lands on {newer}"));
        }
        self.versions[block as usize] = version;
    }

    /// The application was told the end of a write.
    pub(super) fn told(&mut self, block: u32, version: u64) {
        self.over.insert((block, version));
    }

    /// A compare-and-write is executed; true if it changed the cell.
    pub(super) fn compare_and_write(&mut self, expected: u64, new: u64, generation: Option<u64>) -> bool {
        if self.nonce != expected {
            return false;
        }
        if generation.is_some_and(|g| g < self.generation) {
            self.object("NothingAfterFence", format!("a swap of {new} of an older generation lands"));
        }
        if self.over.contains(&(u32::MAX, new)) {
            self.object("DeadStaysDead", format!("swap {new} lands after its end was told"));
        }
        self.nonce = new;
        *self.swapped.entry(new).or_default() += 1;
        if self.swapped[&new] > 1 {
            self.object("SwapOnce", format!("swap {new} was executed twice"));
        }
        true
    }

    /// The application was told how a compare-and-write ended.
    pub(super) fn swap_told(&mut self, new: u64, done: bool) {
        self.over.insert((u32::MAX, new));
        let executed = self.swapped.contains_key(&new);
        if done && !executed {
            self.object("SwapTruth", format!("swap {new} is told as done and was not executed"));
        }
        if !done && self.nonce == new {
            self.object("SwapTruth", format!("swap {new} is told as lost, and it holds the block"));
        }
    }
}
