//! What the reference knows of a file beside its names.

use std::collections::{BTreeMap, BTreeSet};

/// A file, folder or link.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    pub(super) data: Vec<u8>,
    pub(super) mode: u32,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Nodes with data that no sync has covered.
    unsynced: BTreeSet<usize>,
    /// Since the last sync: what was replaced, where, and how long the file was.
    replaced: Vec<(usize, Vec<u8>)>,
    lengths: BTreeSet<usize>,
}

impl Contents {
    pub(super) fn new(mode: u32) -> Contents {
        Contents { mode, ..Contents::default() }
    }

    /// Changed through a node.
    pub(super) fn change(&mut self, node: usize, change: impl FnOnce(&mut Vec<u8>)) {
        let before = self.data.clone();
        change(&mut self.data);
        let shorter = before.len().min(self.data.len());
        let first = before.iter().zip(&self.data).position(|(a, b)| a != b).unwrap_or(shorter);
        let end = match before.len() == self.data.len() {
            true => before.iter().zip(&self.data).rposition(|(a, b)| a != b).map_or(first, |last| last + 1),
            false => before.len(),
        };
        self.replaces(node, first, before[first..end].to_vec(), before.len());
    }

    pub(super) fn write(&mut self, node: usize, at: u64, bytes: &[u8]) {
        let (at, end, len) = (at as usize, at as usize + bytes.len(), self.data.len());
        self.replaces(node, at, self.data[at.min(len)..end.min(len)].to_vec(), len);
        self.data.resize(len.max(end), 0);
        self.data[at..end].copy_from_slice(bytes);
    }

    fn replaces(&mut self, node: usize, at: usize, old: Vec<u8>, len: usize) {
        self.lengths.insert(len);
        self.unsynced.insert(node);
        if !old.is_empty() {
            self.replaced.push((at, old));
        }
    }

    /// What a read gets.
    pub(super) fn read(&self, at: u64, len: u64) -> &[u8] {
        let from = self.data.len().min(at as usize);
        &self.data[from..self.data.len().min((at + len) as usize)]
    }

    pub(super) fn synced(&mut self, node: usize) {
        self.unsynced.remove(&node);
        if self.unsynced.is_empty() {
            self.replaced.clear();
            self.lengths.clear();
        }
    }

    /// Whether what a node has not synced may be lost with it.
    pub(super) fn may_lose(&self, node: usize) -> bool {
        self.unsynced.contains(&node)
    }

    /// After a node lost what it had not synced: the file is as it was at some time since the last sync, byte by byte.
    pub(super) fn lost(&mut self, node: usize, found: Vec<u8>) -> Result<(), String> {
        if found.len() != self.data.len() && !self.lengths.contains(&found.len()) {
            return Err(format!("it never was {} bytes long", found.len()));
        }
        let mut was: Vec<bool> =
            found.iter().enumerate().map(|(i, b)| *b == 0 || self.data.get(i) == Some(b)).collect();
        for (at, old) in &self.replaced {
            let there = found.iter().zip(&mut was).skip(*at).zip(old);
            there.for_each(|((found, was), old)| *was |= found == old);
        }
        if let Some(i) = was.iter().position(|was| !was) {
            return Err(format!("byte {i} is {:#x}, which was never written there", found[i]));
        }
        self.change(node, |data| *data = found);
        self.synced(node);
        Ok(())
    }
}
