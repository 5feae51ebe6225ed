//! What the reference knows of a file beside its names.

use std::collections::{BTreeMap, BTreeSet};

/// A file, folder or link.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    pub(super) data: Vec<u8>,
    pub(super) mode: u32,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Nodes with data that no sync has covered, and all that the file was since the last.
    unsynced: BTreeSet<usize>,
    history: Vec<Vec<u8>>,
}

impl Contents {
    pub(super) fn new(mode: u32) -> Contents {
        Contents { mode, ..Contents::default() }
    }

    /// Changed through a node.
    pub(super) fn change(&mut self, node: usize, change: impl FnOnce(&mut Vec<u8>)) {
        self.history.push(self.data.clone());
        self.unsynced.insert(node);
        change(&mut self.data);
    }

    pub(super) fn write(&mut self, node: usize, at: u64, bytes: &[u8]) {
        self.change(node, |data| {
            let (at, end) = (at as usize, at as usize + bytes.len());
            data.resize(data.len().max(end), 0);
            data[at..end].copy_from_slice(bytes);
        });
    }

    /// What a read gets.
    pub(super) fn read(&self, at: u64, len: u64) -> &[u8] {
        let from = self.data.len().min(at as usize);
        &self.data[from..self.data.len().min((at + len) as usize)]
    }

    pub(super) fn synced(&mut self, node: usize) {
        self.unsynced.remove(&node);
        if self.unsynced.is_empty() {
            self.history.clear();
        }
    }

    /// Whether what a node has not synced may be lost with it.
    pub(super) fn may_lose(&self, node: usize) -> bool {
        self.unsynced.contains(&node)
    }

    /// After a node lost what it had not synced: the file is as it was at some time since the last sync, byte by byte.
    pub(super) fn lost(&mut self, node: usize, found: Vec<u8>) -> Result<(), String> {
        let states: Vec<&Vec<u8>> = self.history.iter().chain([&self.data]).collect();
        if !states.iter().any(|s| s.len() == found.len()) {
            return Err(format!("it never was {} bytes long", found.len()));
        }
        let was = |i: usize, b: u8| b == 0 || states.iter().any(|s| s.get(i) == Some(&b));
        if let Some(i) = found.iter().enumerate().position(|(i, b)| !was(i, *b)) {
            return Err(format!("byte {i} is {:#x}, which was never written there", found[i]));
        }
        self.history.push(std::mem::replace(&mut self.data, found));
        self.synced(node);
        Ok(())
    }
}
