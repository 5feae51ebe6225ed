//! Metadata on block devices, for threads that may wait.
//!
//! The only module of `meta` that does I/O. It decides nothing: it reads what recovery asks for, and writes a
//! [`MetaWrite`] in its two steps. After a failed write or flush nothing is known of what lies on the disk; the
//! caller treats that as the failure of the disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use block::sync::{Memory, run_batch};
use block::{AlignedBuf, BlockDevice, ByteLen, ByteOffset, Op};
use parking_lot::RwLock;

use super::replica::{Recovered, Replica};
use super::superblock::{Life, Superblock};
use super::{MetaError, MetaWrite, Put, Reader};
use crate::ids::{SECTOR, Volume};

/// The disks of a replica's volumes; one can be added while they are used.
#[derive(Clone, Default)]
pub struct Disks(Arc<RwLock<BTreeMap<Volume, Arc<dyn BlockDevice>>>>);

impl Disks {
    /// A volume's disk, from now on.
    pub fn add(&self, volume: Volume, device: Arc<dyn BlockDevice>) {
        self.0.write().insert(volume, device);
    }

    /// A volume's disk is not used any more.
    pub fn remove(&self, volume: Volume) {
        self.0.write().remove(&volume);
    }

    /// A volume's disk.
    pub fn of(&self, volume: Volume) -> Option<Arc<dyn BlockDevice>> {
        self.0.read().get(&volume).cloned()
    }

    /// All, ascending.
    pub fn all(&self) -> Vec<Arc<dyn BlockDevice>> {
        self.0.read().values().cloned().collect()
    }
}

/// The disks with metadata.
#[derive(Clone)]
pub struct Store {
    disks: Disks,
}

impl Store {
    /// On the disk of the first volume.
    pub fn new(device: Arc<dyn BlockDevice>) -> Store {
        let disks = Disks::default();
        disks.add(Volume::FIRST, device);
        Store { disks }
    }

    /// On these disks.
    pub fn on(disks: Disks) -> Store {
        Store { disks }
    }

    /// Makes a replica. Whoever calls has made sure that nothing of value lies there.
    pub fn format(&self, superblock: Superblock) -> Result<Replica, MetaError> {
        let first = (Volume::FIRST, superblock.layout.end());
        for (volume, needed) in [first].into_iter().chain(superblock.further.iter().map(|f| (f.volume, f.end()))) {
            let len = self.disk(volume)?.geometry().len.0;
            if needed > len {
                return Err(MetaError::TooSmall { needed, len });
            }
        }
        let (replica, write) = Replica::format(superblock);
        self.write(&write)?;
        Ok(replica)
    }

    /// Reads a replica in this life of the machine and the disk, and makes durable what recovery found.
    pub fn open(&self, life: Life) -> Result<Recovered, MetaError> {
        self.open_grown(life, &[])
    }

    /// The same where the device may have grown; `known`: see [`Replica::recover_grown`].
    pub fn open_grown(&self, life: Life, known: &[u64]) -> Result<Recovered, MetaError> {
        let recovered = Replica::recover_grown(self, self.len(), known, life)?;
        self.write(&recovered.write)?;
        Ok(recovered)
    }

    /// Both steps of a change, each flushed before the next, on all disks.
    pub fn write(&self, write: &MetaWrite) -> Result<(), MetaError> {
        // What it relies on are data as well, on whichever disk.
        flush(&self.disks.all())?;
        for step in [&write.first, &write.then].into_iter().filter(|s| !s.is_empty()) {
            let written = self.put(step)?;
            flush(&written)?;
        }
        Ok(())
    }

    /// Bytes of the first volume's disk.
    pub fn len(&self) -> u64 {
        self.disk(Volume::FIRST).map_or(0, |d| d.geometry().len.0)
    }

    /// Whether there is no device to speak of.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn disk(&self, volume: Volume) -> Result<Arc<dyn BlockDevice>, MetaError> {
        self.disks.of(volume).ok_or(MetaError::NoDisk(volume.get()))
    }

    /// The disk of a place, and where on it that is.
    fn place(&self, at: u64) -> Result<(Arc<dyn BlockDevice>, ByteOffset), MetaError> {
        let volume = Volume::of(at / SECTOR).ok_or(MetaError::Shape("a place on no volume"))?;
        Ok((self.disk(volume)?, ByteOffset(at - volume.base() * SECTOR)))
    }

    /// Writes them; the disks on which they are.
    fn put(&self, puts: &[Put]) -> Result<Vec<Arc<dyn BlockDevice>>, MetaError> {
        let mut written = BTreeMap::new();
        // Runs of puts on one disk go to it together.
        for run in puts.chunk_by(|a, b| Volume::of(a.at / SECTOR) == Volume::of(b.at / SECTOR)) {
            let Some(first) = run.first() else { continue };
            let (device, _) = self.place(first.at)?;
            let request = |put: &Put| {
                let mut buf = AlignedBuf::zeroed(put.bytes.len());
                buf.copy_from_slice(&put.bytes);
                Ok((Op::Write { fua: false }, self.place(put.at)?.1, Memory::Buf(buf)))
            };
            let requests: Result<Vec<_>, MetaError> = run.iter().map(request).collect();
            for done in run_batch(&*device, requests?) {
                done.result?;
            }
            written.insert(Volume::of(first.at / SECTOR), device);
        }
        Ok(written.into_values().collect())
    }
}

fn flush(disks: &[Arc<dyn BlockDevice>]) -> Result<(), MetaError> {
    for device in disks {
        for done in run_batch(&**device, vec![(Op::Flush, ByteOffset::ZERO, Memory::Len(ByteLen::ZERO))]) {
            done.result?;
        }
    }
    Ok(())
}

impl Reader for Store {
    fn read(&self, at: u64, len: u64) -> Result<Vec<u8>, MetaError> {
        let (device, at) = self.place(at)?;
        let (needed, there) = (at.0.saturating_add(len), device.geometry().len.0);
        if needed > there {
            return Err(MetaError::TooSmall { needed, len: there });
        }
        let mut bytes = Vec::new();
        for done in run_batch(&*device, vec![(Op::Read, at, Memory::Len(ByteLen(len)))]) {
            done.result?;
            bytes.extend_from_slice(done.buf.as_deref().unwrap_or_default());
        }
        Ok(bytes)
    }
}
