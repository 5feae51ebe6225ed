//! A disk with a volatile cache: sectors, those of the data short, those of the metadata whole.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::rng::Rng;
use crate::ids::Span;
use crate::meta::{MetaError, Put, Reader};

/// Bytes that stand for a sector of data.
pub(super) const VALUE: usize = 8;
/// Bytes of a sector of metadata.
const SECTOR: usize = 512;

/// Sectors: what is durable, and the versions since.
#[derive(Clone, Debug)]
struct Plate {
    durable: Vec<Vec<u8>>,
    cached: BTreeMap<usize, Vec<Vec<u8>>>,
}

impl Plate {
    fn new(sectors: usize, size: usize) -> Plate {
        Plate { durable: vec![vec![0; size]; sectors], cached: BTreeMap::new() }
    }

    fn current(&self, sector: usize) -> &[u8] {
        self.cached.get(&sector).and_then(|v| v.last()).unwrap_or(&self.durable[sector])
    }

    fn write(&mut self, sector: usize, bytes: &[u8], durable: bool) {
        if durable {
            self.cached.remove(&sector);
            self.durable[sector] = bytes.to_vec();
        } else {
            self.cached.entry(sector).or_default().push(bytes.to_vec());
        }
    }

    fn snapshot(&self) -> BTreeMap<usize, usize> {
        self.cached.iter().map(|(s, v)| (*s, v.len())).collect()
    }

    fn flush(&mut self, snapshot: &BTreeMap<usize, usize>) {
        for (sector, count) in snapshot {
            let Some(versions) = self.cached.get_mut(sector) else { continue };
            let mut gone: Vec<Vec<u8>> = versions.drain(..(*count).min(versions.len())).collect();
            if let Some(last) = gone.pop() {
                self.durable[*sector] = last;
            }
            if versions.is_empty() {
                self.cached.remove(sector);
            }
        }
    }

    fn crash(&mut self, rng: &mut Rng) {
        for (sector, mut versions) in std::mem::take(&mut self.cached) {
            let choice = rng.below(versions.len() as u64 + 1) as usize;
            if choice < versions.len() {
                self.durable[sector] = versions.swap_remove(choice);
            }
        }
    }
}

/// What was cached when a flush was asked for.
#[derive(Clone, Debug)]
pub(super) struct Snapshot(BTreeMap<usize, usize>, BTreeMap<usize, usize>);

/// A disk: data, and metadata behind them.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    data: Plate,
    meta: Plate,
    /// On their way: of the metadata or not, sector, bytes.
    flying: BTreeMap<u64, Vec<(bool, usize, Vec<u8>)>>,
}

impl Disk {
    pub(super) fn new(data_sectors: u64, meta_bytes: u64) -> Disk {
        let meta = Plate::new(meta_bytes as usize / SECTOR, SECTOR);
        Disk { data: Plate::new(data_sectors as usize, VALUE), meta, flying: BTreeMap::new() }
    }

    pub(super) fn read(&self, span: Span) -> Bytes {
        let sectors = span.at as usize..(span.end() as usize).min(self.data.durable.len());
        sectors.flat_map(|s| self.data.current(s).to_vec()).collect()
    }

    /// The value of a sector, now and durably.
    pub(super) fn values(&self, sector: u64) -> (u64, u64) {
        let value = |b: &[u8]| b.try_into().map_or(0, u64::from_le_bytes);
        (value(self.data.current(sector as usize)), value(&self.data.durable[sector as usize]))
    }

    pub(super) fn fly_data(&mut self, io: u64, span: Span, bytes: &[u8]) {
        let parts = bytes.chunks(VALUE).enumerate().map(|(n, b)| (false, span.at as usize + n, b.to_vec()));
        self.flying.insert(io, parts.collect());
    }

    pub(super) fn fly_meta(&mut self, io: u64, puts: &[Put]) {
        let parts = puts.iter().flat_map(|p| {
            let first = p.at as usize / SECTOR;
            p.bytes.chunks(SECTOR).enumerate().map(move |(n, b)| (true, first + n, b.to_vec()))
        });
        self.flying.insert(io, parts.collect());
    }

    /// What flew has landed.
    pub(super) fn land(&mut self, io: u64, durable: bool) {
        for (meta, sector, bytes) in self.flying.remove(&io).unwrap_or_default() {
            let plate = if meta { &mut self.meta } else { &mut self.data };
            plate.write(sector, &bytes, durable);
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot(self.data.snapshot(), self.meta.snapshot())
    }

    pub(super) fn flush(&mut self, snapshot: &Snapshot) {
        self.data.flush(&snapshot.0);
        self.meta.flush(&snapshot.1);
    }

    /// Power fails.
    pub(super) fn crash(&mut self, rng: &mut Rng) {
        for (_, parts) in std::mem::take(&mut self.flying) {
            for (meta, sector, bytes) in parts {
                if rng.permille(500) {
                    let plate = if meta { &mut self.meta } else { &mut self.data };
                    plate.write(sector, &bytes, false);
                }
            }
        }
        self.data.crash(rng);
        self.meta.crash(rng);
    }

    /// The process that used it ends: what flies lands or was never sent, and what is cached stays.
    pub(super) fn abandoned(&mut self, rng: &mut Rng) {
        self.flying().into_iter().for_each(|io| self.tear(io, rng));
    }

    /// What flies.
    pub(super) fn flying(&self) -> Vec<u64> {
        self.flying.keys().copied().collect()
    }

    /// A part of what flies lands, the rest never does: the disk failed.
    pub(super) fn tear(&mut self, io: u64, rng: &mut Rng) {
        for (meta, sector, bytes) in self.flying.remove(&io).unwrap_or_default() {
            if rng.permille(500) {
                let plate = if meta { &mut self.meta } else { &mut self.data };
                plate.write(sector, &bytes, false);
            }
        }
    }

    pub(super) fn format(&mut self, puts: &[Put]) {
        self.fly_meta(0, puts);
        self.land(0, true);
    }

    pub(super) fn meta_len(&self) -> u64 {
        (self.meta.durable.len() * SECTOR) as u64
    }
}

impl Reader for Disk {
    fn read(&self, at: u64, len: u64) -> Result<Vec<u8>, MetaError> {
        let sectors = at as usize / SECTOR..(at + len) as usize / SECTOR;
        if sectors.end > self.meta.durable.len() {
            return Err(MetaError::TooSmall { needed: at + len, len: self.meta_len() });
        }
        Ok(sectors.flat_map(|s| self.meta.current(s).to_vec()).collect())
    }
}
