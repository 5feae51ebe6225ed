//! Pages gathered in memory until the next sync.

use std::collections::BTreeMap;
use std::sync::Arc;

use block::buf::AlignedBuf;
use block::units::ByteOffset;

use super::space::Ranges;
use crate::meta::error::Result;

/// Unit of gathering, and of the database's pages.
pub(super) const PAGE: usize = 4096;

/// The longest single write: 1 MiB.
const MAX_RUN: usize = (1 << 20) / PAGE;

type Page = Arc<[u8]>;
type Map = BTreeMap<u64, Page>;

/// Length, and what the device does not hold yet.
pub(super) struct Pages {
    len: u64,
    /// The highest length since the store was opened: what lies between `len` and this is not zero on the device.
    high_water: u64,
    dirty: Map,
    /// Under way to the device.
    writing: Map,
}

impl Pages {
    pub(super) fn new(len: u64) -> Pages {
        Pages { len, high_water: len, dirty: Map::new(), writing: Map::new() }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn gathered(&self) -> usize {
        self.dirty.len()
    }

    pub(super) fn put(&mut self, page: u64, bytes: &[u8]) {
        self.dirty.insert(page, Arc::from(bytes));
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            drop(self.dirty.split_off(&len.div_ceil(PAGE as u64)));
        }
        self.len = len;
        self.high_water = self.high_water.max(len);
    }

    /// The part of a growth from `old` to `new` that earlier use left dirty on the device.
    pub(super) fn stale_above(&self, old: u64, new: u64) -> Option<(u64, u64)> {
        let end = new.min(self.high_water);
        (old < end).then_some((old, end))
    }

    fn get(&self, page: u64) -> Option<&Page> {
        self.dirty.get(&page).or_else(|| self.writing.get(&page))
    }

    /// The pages in memory of `[offset, offset + len)`.
    pub(super) fn cached(&self, offset: u64, len: usize) -> Cached {
        let wanted = offset / PAGE as u64..(offset + len as u64).div_ceil(PAGE as u64);
        let all = wanted.end - wanted.start;
        Cached { all, pages: wanted.filter_map(|p| self.get(p).map(|bytes| (p, Arc::clone(bytes)))).collect() }
    }

    /// Moves what was gathered to *being written*; reads go on seeing it there.
    pub(super) fn start_writing(&mut self) -> Map {
        self.writing = std::mem::take(&mut self.dirty);
        self.writing.clone()
    }

    pub(super) fn end_writing(&mut self) {
        self.writing.clear();
    }
}

/// What a read finds in memory. Taken before the device is asked: a page that is written out meanwhile would else be
/// missed in both places.
pub(super) struct Cached {
    all: u64,
    pages: Vec<(u64, Page)>,
}

impl Cached {
    /// Whether no device is needed.
    pub(super) fn is_whole(&self) -> bool {
        self.pages.len() as u64 == self.all
    }

    /// Copies it over `out`, which begins at `offset`.
    pub(super) fn overlay(&self, offset: u64, out: &mut [u8]) {
        let end = offset + out.len() as u64;
        for (page, bytes) in &self.pages {
            let start = page * PAGE as u64;
            let (from, to) = (offset.max(start), end.min(start + PAGE as u64));
            let target = &mut out[(from - offset) as usize..(to - offset) as usize];
            target.copy_from_slice(&bytes[(from - start) as usize..(to - start) as usize]);
        }
    }
}

/// Consecutive pages.
pub(super) struct Run {
    start: u64,
    pages: Vec<Page>,
}

/// Sorts pages into runs of at most [`MAX_RUN`].
pub(super) fn runs(map: &Map) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (page, bytes) in map {
        match runs.last_mut() {
            Some(run) if run.start + run.pages.len() as u64 == *page && run.pages.len() < MAX_RUN => {
                run.pages.push(Arc::clone(bytes))
            }
            _ => runs.push(Run { start: *page, pages: vec![Arc::clone(bytes)] }),
        }
    }
    runs
}

impl Run {
    /// The writes that put it on the device, split where the ranges are.
    pub(super) fn into_writes(self, ranges: &Ranges) -> Result<Vec<(ByteOffset, AlignedBuf)>> {
        let mut buf = AlignedBuf::with_capacity(self.pages.len() * PAGE);
        for (chunk, page) in buf.chunks_exact_mut(PAGE).zip(&self.pages) {
            chunk.copy_from_slice(page);
        }
        let mut writes = Vec::new();
        for (at, len) in ranges.pieces(self.start * PAGE as u64, buf.len() as u64)? {
            writes.push((at, buf.split_to(len.0 as usize)));
        }
        Ok(writes)
    }
}
