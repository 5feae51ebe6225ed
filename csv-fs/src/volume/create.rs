//! Making a volume of a disk. Needs this node only: the first to mount it takes office as epoch 1.
//!
//! **Nobody has it open.** Every node's LIVE lock is taken before the first byte is written and kept until the last one is:
//! whoever has a volume on that disk open holds one, of whichever cluster, and is named. Prevents: the identity for `--wipe`
//! was right, and a volume is formatted under the nodes that have it mounted.

use std::path::{Path, PathBuf};

use block::shared::{NodeId, SharedDisk};
use block::worker::Handle;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::start::{NotAFile, open_disk};
use crate::format::{FormatError, TimingMs, VolumeName};
use crate::meta::{Fatal, FormatOptions, MetaError, Root, Store, Unmounted, read_superblock};
use crate::types::{Timestamp, VolumeId};

/// What is to be made.
#[derive(Clone, Debug)]
pub struct NewVolume {
    /// Its name.
    pub name: String,
    /// Its disk.
    pub disk: PathBuf,
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
    Disk(#[from] NotAFile),
    /// Somebody else has it.
    #[error("{} is in use: it is mounted, or belongs to another device", path.display())]
    InUse {
        /// The disk.
        path: PathBuf,
    },
    /// What formatting says.
    #[error("{}: {source}", path.display())]
    Format {
        /// The disk.
        path: PathBuf,
        /// Why.
        source: MetaError,
    },
    /// A node has what is on it open.
    #[error("{} is mounted on node-{}; unmount it everywhere first", .volume.as_deref().map_or_else(|| format!("what is on {}", path.display()), |name| format!("volume {name}")), node.get())]
    Mounted {
        /// Which; there may be more.
        node: NodeId,
        /// The disk.
        path: PathBuf,
        /// The name of the volume on it, if it has a readable one.
        volume: Option<String>,
    },
    /// Locks are not to be had.
    #[error("the locks of the disk {} cannot be taken: {source}", path.display())]
    Lock {
        /// The disk.
        path: PathBuf,
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
            CreateError::InUse { .. } => true,
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
            CreateError::InUse { path } => {
                format!("See who has it with `lsblk {}`; free it, or name another disk.", path.display())
            }
            _ => "Use a file of at least 1 GiB that every node of this host can open, with direct I/O (`truncate -s 10G FILE` makes one).".into(),
        }
    }
}

/// Formats a disk. Returns the new volume's identity.
pub async fn create(new: NewVolume, workers: Handle) -> Result<VolumeId, CreateError> {
    let name = VolumeName::new(&new.name).map_err(CreateError::Name)?;
    let disk = open_disk(&new.disk, workers, false)?;
    let mut id = [0; 16];
    getrandom(&mut id, GetRandomFlags::empty()).map_err(CreateError::Random)?;
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
    format(disk, options, new.disk).await
}

/// Blocks a thread for a while, which is no worker.
async fn format(disk: SharedDisk, options: FormatOptions, path: PathBuf) -> Result<VolumeId, CreateError> {
    let made = tokio::task::spawn_blocking(move || {
        let alone = alone(&disk, &path)?;
        let made = Store::format(&disk.data, &options).map_err(|source| not_formatted(source, path));
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
fn alone(disk: &SharedDisk, path: &Path) -> Result<Unmounted, CreateError> {
    let path = || path.to_owned();
    match Unmounted::prove(&disk.file) {
        Ok(Ok(alone)) => Ok(alone),
        Ok(Err(node)) => {
            let volume = read_superblock(&disk.data).ok().map(|chosen| chosen.superblock.name.to_string());
            Err(CreateError::Mounted { node, path: path(), volume })
        }
        Err(source) => Err(CreateError::Lock { path: path(), source }),
    }
}

/// The kernel does not let a block device be wiped that is mounted, and says so at the first attempt.
fn not_formatted(source: MetaError, path: PathBuf) -> CreateError {
    match &source {
        MetaError::Fatal(Fatal::Io(e)) if e.os == Some(Errno::BUSY.raw_os_error()) => CreateError::InUse { path },
        _ => CreateError::Format { path, source },
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
            not_formatted(IoError { kind: IoErrorKind::Medium, op, at, len, os }.into(), PathBuf::from("/dev/loop9"))
        };
        let busy = failed(Errno::BUSY);
        assert!(busy.is_refusal() && busy.to_string().contains("/dev/loop9 is in use"), "{busy}");
        assert!(busy.next_step().contains("lsblk /dev/loop9") && !busy.next_step().contains("GiB"), "{busy}");
        assert!(!failed(Errno::IO).is_refusal());
    }
}
