//! A SCSI disk of the kernel (`/dev/sdX`): data by io_uring on the block device, every other command by SG_IO, on **one open file
//! description** that is had exclusively.
//!
//! Such a disk is one nexus of this host with a unit: whoever may open it writes under the same registration. So it is opened with
//! O_EXCL, which the kernel gives to one owner at a time, beside no mount, no map and no other daemon.
//!
//! **The claim ends with the last request.** The kernel gives an exclusive device free when its description is released, and each request
//! in the block layer, and each SG_IO, holds that. Prevents: a daemon is killed with a write in the kernel; the next one opens the
//! disk and registers its nexus; the kernel sends the write once more, and the unit takes it, as it comes from a nexus that is registered.
//!
//! What the kernel says of a command is one of three things ([`Passed`]): the device's answer; nothing, because it was not sent; or that it gave
//! the command up, and then nobody knows. SG_IO is not tried again by the kernel. A read or write of the block layer is, as often as the
//! kernel likes, until it is answered here, and never afterwards.
//!
//! - `header`: the ioctl's structure, and what its answer means. Pure. `ioctl`: the call. `sysfs`: which disks there are, and what else a
//!   device may be.

mod header;
mod ioctl;
mod sysfs;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use scsi::{Cdb, Status};

use crate::buf::AlignedBuf;
use crate::device::BlockDevice;
use crate::file::pool::Pool;
use crate::file::{Direct, FileDevice, OpenError, OpenOptions};
use crate::worker::Handle;

pub use header::GivenUp;
pub use sysfs::{Found, ScsiDisk, Sysfs};

/// Commands by SG_IO at once: a lease, a slot, a check and a fence, and as many that hang. What comes beyond waits.
const THREADS: usize = 8;

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passed {
    /// The device answered.
    Answered {
        /// SCSI status.
        status: Status,
        /// Sense data, if any.
        sense: Vec<u8>,
        /// Bytes that were moved.
        moved: u32,
    },
    /// The kernel gave it up: it was executed, or not, or may still be.
    GivenUp(GivenUp),
    /// The kernel refused to send it, with this error number.
    NotSent(i32),
}

/// The disk.
pub struct KernelDisk {
    device: Arc<FileDevice>,
    pool: Pool,
}

impl KernelDisk {
    /// Opens it for this process alone. Refused (EBUSY) while anybody else of this host has it: a mount, a map over it, another daemon, or
    /// requests that a dead one has left in the kernel.
    pub fn open(path: impl AsRef<Path>, workers: Handle) -> Result<Arc<KernelDisk>, OpenError> {
        let options = OpenOptions { exclusive: true, direct: Direct::Required, ..OpenOptions::default() };
        KernelDisk::open_with(path.as_ref(), options, workers)
    }

    /// Opens it to look at it, beside whoever else has it.
    pub fn look_at(path: impl AsRef<Path>, workers: Handle) -> Result<Arc<KernelDisk>, OpenError> {
        let options = OpenOptions { direct: Direct::Required, ..OpenOptions::default() };
        KernelDisk::open_with(path.as_ref(), options, workers)
    }

    fn open_with(path: &Path, options: OpenOptions, workers: Handle) -> Result<Arc<KernelDisk>, OpenError> {
        let device = Arc::new(FileDevice::open(path, options, workers)?);
        Ok(Arc::new(KernelDisk { device, pool: Pool::new("block-scsi", THREADS) }))
    }

    /// Reads and writes of the block layer.
    pub fn device(&self) -> &Arc<FileDevice> {
        &self.device
    }

    /// Its path.
    pub fn path(&self) -> PathBuf {
        self.device.path().to_owned()
    }

    /// Sends a command by SG_IO. After the limit the kernel aborts it, and after that whatever its error handler knows; the answer comes once
    /// that is over. `done` is called once, on another thread; it must not block.
    pub fn pass(
        &self,
        cdb: Cdb,
        memory: Option<AlignedBuf>,
        limit: Duration,
        done: impl FnOnce(Passed, Option<AlignedBuf>) + Send + 'static,
    ) {
        let counted = self.device.raw().begin();
        self.pool.run(move || {
            let mut memory = memory;
            let passed = ioctl::pass(counted.file(), &cdb, memory.as_deref_mut(), limit);
            // Counted down before the answer: who has the answer finds nothing under way.
            drop(counted);
            done(passed, memory);
        });
    }

    /// Resets the unit (LOGICAL UNIT RESET), by the kernel's own means: every command that it has, of whichever initiator, ends.
    pub fn reset_unit(&self, done: impl FnOnce(std::io::Result<()>) + Send + 'static) {
        let counted = self.device.raw().begin();
        self.pool.run(move || {
            let reset = ioctl::reset_unit(counted.file());
            drop(counted);
            done(reset);
        });
    }

    /// Requests in the kernel, commands included.
    pub fn in_flight(&self) -> usize {
        self.device.raw().in_flight().count()
    }
}

impl std::fmt::Debug for KernelDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SCSI disk {}", self.device.describe())
    }
}
