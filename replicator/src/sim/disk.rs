//! The disks of a node with their volatile caches: sectors, those of the data short, those of the metadata whole.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::rng::Rng;
use crate::ids::{Span, Volume};
use crate::meta::{MetaError, Put, Reader};

/// Bytes that stand for a sector of data.
pub(super) const VALUE: usize = 8;
/// Bytes of a sector of metadata.
const SECTOR: usize = 512;
/// Sectors of a volume at most.
pub(super) const MOST: u64 = 52 * 8;
/// Volumes at most.
pub(super) const VOLUMES: usize = 2;

/// Where a sector of any volume is among all of them.
pub(super) fn dense(sector: u64) -> usize {
    let volume = Volume::of(sector).map_or(VOLUMES, Volume::index);
    let local = Volume::local(sector);
    assert!(volume < VOLUMES && local < MOST, "no such sector: {sector:#x}");
    volume * MOST as usize + local as usize
}

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
pub(super) struct Snapshot(BTreeMap<usize, usize>, Vec<BTreeMap<usize, usize>>);

/// What is on its way somewhere.
#[derive(Clone, Debug)]
enum Part {
    Data(usize, Vec<u8>),
    Meta(usize, usize, Vec<u8>),
}

/// The disks of a node: data of all volumes, and for each volume metadata.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    data: Plate,
    metas: Vec<Plate>,
    flying: BTreeMap<u64, Vec<Part>>,
}

impl Disk {
    /// Of so many volumes; of the first one's metadata so many bytes.
    pub(super) fn new(volumes: usize, meta_bytes: u64) -> Disk {
        let metas = (0..volumes).map(|v| if v == 0 { meta_bytes as usize / SECTOR } else { MOST as usize });
        let metas = metas.map(|sectors| Plate::new(sectors, SECTOR)).collect();
        Disk { data: Plate::new(volumes * MOST as usize, VALUE), metas, flying: BTreeMap::new() }
    }

    pub(super) fn read(&self, span: Span) -> Bytes {
        if span.len == 0 {
            return Bytes::new();
        }
        let (from, left) = (dense(span.at), MOST - Volume::local(span.at));
        let sectors = from..from + span.len.min(left) as usize;
        sectors.flat_map(|s| self.data.current(s).to_vec()).collect()
    }

    /// The value of a sector, now and durably.
    pub(super) fn values(&self, sector: u64) -> (u64, u64) {
        let value = |b: &[u8]| b.try_into().map_or(0, u64::from_le_bytes);
        let sector = dense(sector);
        (value(self.data.current(sector)), value(&self.data.durable[sector]))
    }

    pub(super) fn fly_data(&mut self, io: u64, span: Span, bytes: &[u8]) {
        let first = dense(span.at);
        let parts = bytes.chunks(VALUE).enumerate().map(|(n, b)| Part::Data(first + n, b.to_vec()));
        self.flying.insert(io, parts.collect());
    }

    pub(super) fn fly_meta(&mut self, io: u64, puts: &[Put]) {
        let parts = puts.iter().flat_map(|p| {
            let (volume, first) = place(p.at);
            p.bytes.chunks(SECTOR).enumerate().map(move |(n, b)| Part::Meta(volume, first + n, b.to_vec()))
        });
        self.flying.insert(io, parts.collect());
    }

    /// What flew has landed.
    pub(super) fn land(&mut self, io: u64, durable: bool) {
        for part in self.flying.remove(&io).unwrap_or_default() {
            self.write(part, durable);
        }
    }

    fn write(&mut self, part: Part, durable: bool) {
        match part {
            Part::Data(sector, bytes) => self.data.write(sector, &bytes, durable),
            Part::Meta(volume, sector, bytes) => self.metas[volume].write(sector, &bytes, durable),
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot(self.data.snapshot(), self.metas.iter().map(Plate::snapshot).collect())
    }

    /// Of the first volume's disk only.
    pub(super) fn snapshot_of_first(&self) -> Snapshot {
        let Snapshot(mut data, metas) = self.snapshot();
        data.retain(|sector, _| *sector < MOST as usize);
        Snapshot(data, metas.into_iter().take(1).collect())
    }

    pub(super) fn flush(&mut self, snapshot: &Snapshot) {
        self.data.flush(&snapshot.0);
        self.metas.iter_mut().zip(&snapshot.1).for_each(|(plate, cached)| plate.flush(cached));
    }

    /// Power fails.
    pub(super) fn crash(&mut self, rng: &mut Rng) {
        for (_, parts) in std::mem::take(&mut self.flying) {
            for part in parts {
                if rng.permille(500) {
                    self.write(part, false);
                }
            }
        }
        self.data.crash(rng);
        self.metas.iter_mut().for_each(|plate| plate.crash(rng));
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
        for part in self.flying.remove(&io).unwrap_or_default() {
            if rng.permille(500) {
                self.write(part, false);
            }
        }
    }

    /// The disk of the second volume is another one: any bytes where metadata are to be. What was on its way there is gone.
    pub(super) fn swap(&mut self, rng: &mut Rng) {
        self.crash(rng);
        let mut plate = Plate::new(MOST as usize, SECTOR);
        plate.durable.iter_mut().for_each(|sector| sector.fill(rng.below(256) as u8));
        self.metas[1] = plate;
    }

    pub(super) fn format(&mut self, puts: &[Put]) {
        self.fly_meta(0, puts);
        self.land(0, true);
    }

    pub(super) fn meta_len(&self) -> u64 {
        (self.metas[0].durable.len() * SECTOR) as u64
    }
}

/// The volume and the sector of a place of the metadata.
fn place(at: u64) -> (usize, usize) {
    let sector = at / SECTOR as u64;
    (Volume::of(sector).map_or(VOLUMES, Volume::index), Volume::local(sector) as usize)
}

impl Reader for Disk {
    fn read(&self, at: u64, len: u64) -> Result<Vec<u8>, MetaError> {
        let (volume, first) = place(at);
        let sectors = first..first + len as usize / SECTOR;
        let plate = self.metas.get(volume).ok_or(MetaError::NoDisk(volume as u8))?;
        if sectors.end > plate.durable.len() {
            return Err(MetaError::TooSmall { needed: at + len, len: self.meta_len() });
        }
        Ok(sectors.flat_map(|s| plate.current(s).to_vec()).collect())
    }
}
