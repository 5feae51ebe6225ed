//! Where a volume's disk comes from: a file that this module opens, or a SCSI unit that the node opens, since nothing here knows how
//! units are reached.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use block::file::OpenError;
use block::shared::{AloneError, BoxFuture, NodeId, SharedDisk, VolumeTag};
use block::worker::Handle;

use crate::meta::Unmounted;

/// What to open.
#[derive(Clone, Debug)]
pub enum DiskSource {
    /// A file that every node of this host opens.
    File(PathBuf),
    /// A SCSI unit.
    Unit(Arc<dyn UnitSource>),
}

/// A SCSI unit that can be opened.
pub trait UnitSource: Send + Sync + fmt::Debug {
    /// Logs in, and registers nexuses under keys of this volume and node, of incarnation 0. What went wrong is told as a sentence
    /// without its full stop.
    fn open(&self, workers: Handle, volume: VolumeTag, node: NodeId) -> BoxFuture<'_, Result<SharedDisk, String>>;

    /// Which one, for people: no secret is in it.
    fn name(&self) -> String;
}

impl fmt::Display for DiskSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskSource::File(path) => path.display().fmt(f),
            DiskSource::Unit(unit) => f.write_str(&unit.name()),
        }
    }
}

/// Why something cannot be had as a shared disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Opening failed.
    #[error("the disk {} cannot be opened: {source}", path.display())]
    Open {
        /// The path.
        path: PathBuf,
        /// Why.
        source: OpenError,
    },
    /// A URL where a path is meant.
    #[error("{} cannot be a shared disk: it is neither a file nor a unit that this version knows", .0.display())]
    Kind(PathBuf),
    /// The unit was not to be had.
    #[error("the unit {name} cannot be used: {why}")]
    Unit {
        /// Which.
        name: String,
        /// Why.
        why: String,
    },
}

impl DiskError {
    /// Whether the disk cannot do what is needed.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, DiskError::Kind(_))
    }
}

/// Opens it; `fault` puts a fault device in front of a file.
pub(super) async fn open(
    source: &DiskSource,
    workers: Handle,
    fault: bool,
    (volume, node): (VolumeTag, NodeId),
) -> Result<SharedDisk, DiskError> {
    match source {
        DiskSource::File(path) => open_file(path, workers, fault),
        DiskSource::Unit(unit) => {
            let opened = unit.open(workers, volume, node).await;
            opened.map_err(|why| DiskError::Unit { name: unit.name(), why })
        }
    }
}

fn open_file(path: &Path, workers: Handle, fault: bool) -> Result<SharedDisk, DiskError> {
    if path.to_string_lossy().contains("://") {
        return Err(DiskError::Kind(path.to_owned()));
    }
    SharedDisk::open_file(path, block::OpenOptions::default(), workers, fault)
        .map_err(|source| DiskError::Open { path: path.to_owned(), source })
}

/// Why a disk cannot be had alone.
#[derive(Debug)]
pub(super) enum NotAlone {
    /// A node has the volume on it open.
    Node(NodeId),
    /// A target of this host serves the file.
    Served,
    /// Somebody else has registered.
    Foreign(String),
    /// The locks or reservations are not to be had.
    Failed(std::io::Error),
}

/// Whether a target of this host serves the file; asked when a lock of it was found held.
pub(super) fn is_served(disk: &SharedDisk) -> bool {
    disk.file().is_some_and(|file| file.is_served().unwrap_or(false))
}

/// Proof that nobody else has the disk open, nor can open it as long as this exists: of a file every node's LIVE lock, of a unit a
/// reservation that lets nobody in but the one nexus that holds it, made when nobody else was registered.
pub(super) async fn alone(disk: &SharedDisk) -> Result<Unmounted, NotAlone> {
    let Some(nexuses) = disk.nexuses() else {
        let file = disk.file().cloned();
        let proved = file
            .map(|file| Unmounted::prove(&file))
            .ok_or_else(|| NotAlone::Failed(std::io::ErrorKind::Other.into()))?;
        return match proved {
            Ok(Ok(alone)) => Ok(alone),
            Ok(Err(node)) => Err(if is_served(disk) { NotAlone::Served } else { NotAlone::Node(node) }),
            Err(e) => Err(NotAlone::Failed(e)),
        };
    };
    match nexuses.alone().await {
        Ok(()) => Ok(Unmounted::by_reservation(Arc::clone(nexuses))),
        Err(AloneError::Others(keys)) => {
            let node = keys.iter().find_map(|key| block::shared::NexusKey::parse(*key)).map(|key| key.node);
            let foreign =
                || NotAlone::Foreign(keys.iter().map(|k| format!("{:#018x}", k.0)).collect::<Vec<_>>().join(", "));
            Err(node.map_or_else(foreign, NotAlone::Node))
        }
        Err(AloneError::Reserve(e)) => Err(NotAlone::Failed(std::io::Error::other(e))),
    }
}
