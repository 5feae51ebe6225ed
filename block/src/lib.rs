//! The block layer of Shorefast: what a block device is, and the devices, workers and memory under it.
//!
//! - [`units`], [`error`]: positions, lengths, block sizes; why a request failed.
//! - [`buf`]: aligned memory in windows.
//! - [`device`]: the trait [`BlockDevice`] and its contract.
//! - [`worker`]: one thread per core, each with a tokio runtime and an io_uring of its own.
//! - [`file`](mod@file): a file or a kernel block device as a block device.
//! - [`kernel_disk`]: a SCSI disk of the kernel: data as with any block device, and SCSI commands besides.
//! - [`provisioning`]: where a device's data lie, and that its size has changed.
//! - [`mem`], [`recording`], [`fault`]: devices that tests and the demo compose: memory with a
//!   volatile cache, a log every prefix of which can be replayed, faults on command and by seed.
//! - [`shared`]: what a disk that several nodes share can do: compare-and-write, abort-own, fence proofs.
//! - [`sync`](mod@sync): batches from threads that are no workers.
//!
//! Architecture invariant: this crate knows nothing of file systems, networks or clusters.

pub mod buf;
pub mod device;
pub mod error;
pub mod fault;
pub mod file;
mod gauge;
pub mod kernel_disk;
pub mod mem;
pub mod multipath;
pub mod provisioning;
pub mod recording;
mod rng;
pub mod shared;
pub mod sync;
pub mod units;
pub mod worker;

pub use buf::{AlignedBuf, BufPool};
pub use device::{BlockDevice, Completion, DeviceExt, Done, Geometry, Io, Op};
pub use error::{IoError, IoErrorKind};
pub use fault::{FaultDevice, FaultPlan, FaultState, SeededFaults};
pub use file::{FileDevice, OpenOptions};
pub use kernel_disk::KernelDisk;
pub use mem::MemDevice;
pub use provisioning::{Extent, Provisioning, Rescan};
pub use recording::RecordingDevice;
pub use units::{BlockSize, ByteLen, ByteOffset, Lba};
pub use worker::{Handle, Workers};
