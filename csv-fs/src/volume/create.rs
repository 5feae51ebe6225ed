//! Making a volume of a disk. Needs this node only: the first to mount it takes office as epoch 1.
//!
//! **Nobody has it open.** Every node's LIVE lock is taken before the first byte is written and kept until the last one is:
//! whoever has a volume on that disk open holds one, of whichever cluster, and is named. A unit is held for one nexus meanwhile, once
//! nobody else is registered. Prevents: the identity for `--wipe`
//! was right, and a volume is formatted under the nodes that have it mounted.

use std::sync::Arc;

use block::shared::{NodeId, SharedDisk, VolumeTag};
use block::worker::Handle;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::source::{self, DiskError, DiskSource, NotAlone};
use crate::format::{FormatError, TimingMs, VolumeName};
use crate::meta::{Fatal, FormatOptions, MetaError, Root, Store, Unmounted, read_superblock};
use crate::types::{Timestamp, VolumeId};

/// What is to be made.
#[derive(Clone, Debug)]
pub struct NewVolume {
    /// Its name.
    pub name: String,
    /// Its disk.
    pub disk: DiskSource,
    /// The node that makes it.
    pub node: NodeId,
    /// How many nodes will share it.
    pub nodes: u8,
    /// The timers for demos and tests, instead of those for real storage.
    pub fast_timing: bool,
    /// The identity of what may be destroyed.
    pub wipe: Option<String>,
}

/// Why no volume was made. Unless it says so, the disk is as it was.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The name cannot be used.
    #[error(transparent)]
    Name(FormatError),
    /// It is nothing that several nodes can share.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Somebody else has it.
    #[error("{disk} is in use: it is mounted, or belongs to another device")]
    InUse {
        /// The disk.
        disk: String,
    },
    /// A target of this host serves it.
    #[error("{disk} is in use: an iSCSI target of this host has it open")]
    Served {
        /// The disk.
        disk: String,
    },
    /// Somebody who is no node of ours has registered with it.
    #[error("{disk} is in use: others have registered with it, with {keys}")]
    Registered {
        /// The disk.
        disk: String,
        /// Their keys.
        keys: String,
    },
    /// What formatting says.
    #[error("{disk}: {source}")]
    Format {
        /// The disk.
        disk: String,
        /// Why.
        source: MetaError,
    },
    /// A node has what is on it open.
    #[error("{} is mounted on node-{}; unmount it everywhere first", .volume.as_deref().map_or_else(|| format!("what is on {disk}"), |name| format!("volume {name}")), node.get())]
    Mounted {
        /// Which; there may be more.
        node: NodeId,
        /// The disk.
        disk: String,
        /// The name of the volume on it, if it has a readable one.
        volume: Option<String>,
    },
    /// Locks are not to be had.
    #[error("the disk {disk} cannot be had alone: {source}")]
    Lock {
        /// The disk.
        disk: String,
        /// Why.
        source: std::io::Error,
    },
    /// The kernel gives no random numbers.
    #[error("no random identity: {0}")]
    Random(rustix::io::Errno),
}

impl CreateError {
    /// Whether it was refused because data could be destroyed, or the disk cannot do what is needed.
    pub fn is_refusal(&self) -> bool {
        match self {
            CreateError::Name(_) | CreateError::Random(_) | CreateError::Lock { .. } => false,
            CreateError::Mounted { .. } => true,
            CreateError::Disk(e) => e.is_refusal(),
            CreateError::InUse { .. } | CreateError::Served { .. } | CreateError::Registered { .. } => true,
            CreateError::Format { source, .. } => {
                matches!(source, MetaError::Fatal(Fatal::Occupied { .. } | Fatal::Format(_)))
            }
        }
    }

    /// What to do next.
    pub fn next_step(&self) -> String {
        match self {
            CreateError::Format { source: MetaError::Fatal(Fatal::Occupied { .. }), .. } => {
                "Give that only if it may be destroyed for ever; else name another disk.".into()
            }
            CreateError::Name(_) => "Choose another name.".into(),
            CreateError::Mounted { volume: Some(name), .. } => {
                format!("`shorefast volume unmount {name}` on every node that has it, or name another disk.")
            }
            CreateError::Mounted { .. } => "End whatever has it open, or name another disk.".into(),
            CreateError::InUse { disk } => {
                format!("See who has it with `lsblk {disk}`; free it, or name another disk.")
            }
            CreateError::Served { .. } => {
                "Name the unit that the target serves (iscsi://...), or stop the target first.".into()
            }
            CreateError::Registered { .. } => {
                "See who that is (`shorefast iscsi reservations URL`); end it there, or name another disk.".into()
            }
            CreateError::Disk(DiskError::Unit { .. }) => {
                "See whether portals, target, unit and secret are right (`shorefast iscsi inquiry URL`).".into()
            }
            _ => "Use a file of at least 1 GiB that every node of this host can open, with direct I/O (`truncate -s 10G FILE` makes one).".into(),
        }
    }
}

/// Formats a disk. Returns the new volume's identity.
pub async fn create(new: NewVolume, workers: Handle) -> Result<VolumeId, CreateError> {
    let name = VolumeName::new(&new.name).map_err(CreateError::Name)?;
    let mut id = [0; 16];
    getrandom(&mut id, GetRandomFlags::empty()).map_err(CreateError::Random)?;
    let disk = source::open(&new.disk, workers, false, (VolumeTag::of(&id), new.node)).await?;
    let options = FormatOptions {
        volume: VolumeId(u128::from_be_bytes(id)),
        name,
        nodes: u32::from(new.nodes),
        timing: if new.fast_timing { TimingMs::FAST } else { TimingMs::DEFAULT },
        root: Root {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mode: 0o755,
            now: wall_clock(),
        },
        wipe: new.wipe,
    };
    let made = format(&disk, options, new.disk.to_string()).await;
    if let Some(nexuses) = disk.nexuses() {
        // Only now may somebody open it.
        let _ended = nexuses.leave().await;
    }
    made
}

async fn format(disk: &SharedDisk, options: FormatOptions, name: String) -> Result<VolumeId, CreateError> {
    let alone = alone(disk, &name).await?;
    let data = Arc::clone(&disk.data);
    // Blocks a thread for a while, which is no worker.
    let made = tokio::task::spawn_blocking(move || {
        let made = Store::format(&data, &options).map_err(|source| not_formatted(source, name));
        // Only now may somebody open it.
        drop(alone);
        made
    });
    match made.await {
        Ok(made) => made.map(|superblock| superblock.volume),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// Proof that nobody has the disk open.
async fn alone(disk: &SharedDisk, name: &str) -> Result<Unmounted, CreateError> {
    let name = || name.to_owned();
    match source::alone(disk).await {
        Ok(alone) => Ok(alone),
        Err(NotAlone::Node(node)) => {
            let cells = Arc::clone(&disk.cells);
            let read = tokio::task::spawn_blocking(move || read_superblock(&cells).ok()).await.ok().flatten();
            let volume = read.map(|chosen| chosen.superblock.name.to_string());
            Err(CreateError::Mounted { node, disk: name(), volume })
        }
        Err(NotAlone::Served) => Err(CreateError::Served { disk: name() }),
        Err(NotAlone::Foreign(keys)) => Err(CreateError::Registered { disk: name(), keys }),
        Err(NotAlone::Failed(source)) => Err(CreateError::Lock { disk: name(), source }),
    }
}

/// The kernel does not let a block device be wiped that is mounted, and says so at the first attempt.
fn not_formatted(source: MetaError, disk: String) -> CreateError {
    match &source {
        MetaError::Fatal(Fatal::Io(e)) if e.os == Some(Errno::BUSY.raw_os_error()) => CreateError::InUse { disk },
        _ => CreateError::Format { disk, source },
    }
}

/// The present time for new inodes.
pub(super) fn wall_clock() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_epoch(now)
}

#[cfg(test)]
mod tests {
    use block::device::Op;
    use block::error::{IoError, IoErrorKind};
    use block::units::{ByteLen, ByteOffset};

    use super::*;

    #[test]
    fn a_disk_that_is_mounted_is_said_to_be_in_use_and_not_to_be_too_small() {
        let failed = |errno: Errno| {
            let op = Some(Op::WriteZeroes);
            let (at, len, os) = (ByteOffset::ZERO, ByteLen(4096), Some(errno.raw_os_error()));
            not_formatted(IoError { kind: IoErrorKind::Medium, op, at, len, os }.into(), "/dev/loop9".to_owned())
        };
        let busy = failed(Errno::BUSY);
        assert!(busy.is_refusal() && busy.to_string().contains("/dev/loop9 is in use"), "{busy}");
        assert!(busy.next_step().contains("lsblk /dev/loop9") && !busy.next_step().contains("GiB"), "{busy}");
        assert!(!failed(Errno::IO).is_refusal());
    }
}
