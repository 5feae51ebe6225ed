//! Metadata on a block device, for threads that may wait.
//!
//! The only module of `meta` that does I/O. It decides nothing: it reads what recovery asks for, and writes a
//! [`MetaWrite`] in its two steps. After a failed write or flush nothing is known of what lies on the disk; the
//! caller treats that as the failure of the disk.

use std::sync::Arc;

use block::sync::{Memory, run_batch};
use block::{AlignedBuf, BlockDevice, ByteLen, ByteOffset, Op};

use super::replica::{Recovered, Replica};
use super::superblock::{Life, Superblock};
use super::{MetaError, MetaWrite, Put, Reader};

/// The metadata's device.
#[derive(Clone)]
pub struct Store {
    device: Arc<dyn BlockDevice>,
}

impl Store {
    /// On this device.
    pub fn new(device: Arc<dyn BlockDevice>) -> Store {
        Store { device }
    }

    /// Makes a replica. Whoever calls has made sure that nothing of value lies there.
    pub fn format(&self, superblock: Superblock) -> Result<Replica, MetaError> {
        let needed = superblock.layout.end();
        if needed > self.len() {
            return Err(MetaError::TooSmall { needed, len: self.len() });
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

    /// Both steps of a change, each flushed before the next.
    pub fn write(&self, write: &MetaWrite) -> Result<(), MetaError> {
        self.flush()?;
        for step in [&write.first, &write.then].into_iter().filter(|s| !s.is_empty()) {
            self.put(step)?;
            self.flush()?;
        }
        Ok(())
    }

    /// Bytes of the device.
    pub fn len(&self) -> u64 {
        self.device.geometry().len.0
    }

    /// Whether there is no device to speak of.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn put(&self, puts: &[Put]) -> Result<(), MetaError> {
        let request = |put: &Put| {
            let mut buf = AlignedBuf::zeroed(put.bytes.len());
            buf.copy_from_slice(&put.bytes);
            (Op::Write { fua: false }, ByteOffset(put.at), Memory::Buf(buf))
        };
        for done in run_batch(&*self.device, puts.iter().map(request).collect()) {
            done.result?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), MetaError> {
        for done in run_batch(&*self.device, vec![(Op::Flush, ByteOffset::ZERO, Memory::Len(ByteLen::ZERO))]) {
            done.result?;
        }
        Ok(())
    }
}

impl Reader for Store {
    fn read(&self, at: u64, len: u64) -> Result<Vec<u8>, MetaError> {
        let mut bytes = Vec::new();
        for done in run_batch(&*self.device, vec![(Op::Read, ByteOffset(at), Memory::Len(ByteLen(len)))]) {
            done.result?;
            bytes.extend_from_slice(done.buf.as_deref().unwrap_or_default());
        }
        Ok(bytes)
    }
}
