//! A shared disk as csv-fs gets it: every capability behind one door, with the fault device, if
//! there is one, in front of all of them.

use std::path::Path;
use std::sync::Arc;

use super::{AbortOwn, BoxFuture, CawOutcome, CompareAndWrite, FileDisk, Nexuses, NothingInFlight};
use crate::device::{BlockDevice, Op};
use crate::error::IoError;
use crate::fault::FaultDevice;
use crate::file::{OpenError, OpenOptions};
use crate::units::{ByteLen, ByteOffset};
use crate::worker::Handle;

/// The capabilities of one shared disk.
#[derive(Clone)]
pub struct SharedDisk {
    /// Data and metadata I/O.
    pub data: Arc<dyn BlockDevice>,
    /// Reads of lease, slots and superblocks: what a node looks at to find out whether it may use [`data`](SharedDisk::data).
    pub cells: Arc<dyn BlockDevice>,
    /// Compare-and-write.
    pub caw: Arc<dyn CompareAndWrite>,
    /// Proof that nothing of ours is in flight.
    pub abort: Arc<dyn AbortOwn>,
    /// What it is, and how nodes are kept from it.
    pub kind: DiskKind,
    /// The switch of the demo and the tests.
    pub fault: Option<Arc<FaultDevice>>,
}

/// What a shared disk is.
#[derive(Clone)]
pub enum DiskKind {
    /// A file on one host: locks and kills. Not I/O, so no fault reaches them.
    File(Arc<FileDisk>),
    /// A SCSI unit: registrations and reservations.
    Unit(Arc<dyn Nexuses>),
}

impl SharedDisk {
    /// Its locks, if it is a file.
    pub fn file(&self) -> Option<&Arc<FileDisk>> {
        match &self.kind {
            DiskKind::File(file) => Some(file),
            DiskKind::Unit(_) => None,
        }
    }

    /// Its nexuses, if it is a unit.
    pub fn nexuses(&self) -> Option<&Arc<dyn Nexuses>> {
        match &self.kind {
            DiskKind::File(_) => None,
            DiskKind::Unit(nexuses) => Some(nexuses),
        }
    }

    /// Opens a file as a shared disk; `with_fault` puts a [`FaultDevice`] in front of everything.
    pub fn open_file(
        path: impl AsRef<Path>,
        options: OpenOptions,
        workers: Handle,
        with_fault: bool,
    ) -> Result<SharedDisk, OpenError> {
        let file = FileDisk::open_with(path, options, workers)?;
        let fault = with_fault.then(|| FaultDevice::new(file.device()));
        Ok(SharedDisk::compose(file, fault))
    }

    /// Puts the parts together: with a fault device, data and compare-and-write pass through it, and
    /// abort-own first drops what it holds, then waits for what had passed.
    pub fn compose(file: Arc<FileDisk>, fault: Option<Arc<FaultDevice>>) -> SharedDisk {
        let Some(fault) = fault else {
            return SharedDisk {
                data: file.device(),
                cells: file.device(),
                caw: Arc::clone(&file) as Arc<dyn CompareAndWrite>,
                abort: Arc::clone(&file) as Arc<dyn AbortOwn>,
                kind: DiskKind::File(file),
                fault: None,
            };
        };
        let front = Arc::new(FaultyFile { fault: Arc::clone(&fault), file: Arc::clone(&file) });
        SharedDisk {
            data: Arc::clone(&fault) as Arc<dyn BlockDevice>,
            cells: Arc::clone(&fault) as Arc<dyn BlockDevice>,
            caw: Arc::clone(&front) as Arc<dyn CompareAndWrite>,
            abort: front,
            kind: DiskKind::File(file),
            fault: Some(fault),
        }
    }
}

impl std::fmt::Debug for SharedDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.kind {
            DiskKind::File(file) => file.fmt(f),
            DiskKind::Unit(_) => f.debug_tuple("Unit").field(&self.data.describe()).finish(),
        }
    }
}

/// The file kind behind a fault device.
struct FaultyFile {
    fault: Arc<FaultDevice>,
    file: Arc<FileDisk>,
}

impl CompareAndWrite for FaultyFile {
    /// A held one hangs *before* it takes its lock, so that it keeps no other node from the block
    /// and can be aborted unexecuted. An answer that the fault device swallows is `Unknown`.
    fn compare_and_write(
        &self,
        at: ByteOffset,
        expect: Vec<u8>,
        new: Vec<u8>,
    ) -> BoxFuture<'_, Result<CawOutcome, IoError>> {
        let len = ByteLen::of(&new);
        Box::pin(async move {
            let pass = self.fault.admit().await.map_err(|kind| IoError::new(kind, Op::Write { fua: true }, at, len))?;
            let outcome = self.file.compare_and_write(at, expect, new).await;
            if pass.answer_arrives().await { outcome } else { Ok(CawOutcome::Unknown) }
        })
    }
}

impl AbortOwn for FaultyFile {
    fn abort_outstanding(&self) -> BoxFuture<'_, Result<NothingInFlight, IoError>> {
        Box::pin(async move {
            // The fault device counts requests; a compare-and-write whose future was dropped is
            // counted by the file alone. So both are asked.
            self.fault.abort_outstanding().await?;
            self.file.abort_outstanding().await
        })
    }
}
