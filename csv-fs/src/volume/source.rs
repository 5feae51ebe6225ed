//! Where a volume's disk is.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use block::shared::{BoxFuture, NodeId, SharedDisk, VolumeTag};

/// Where a volume's disk is.
#[derive(Clone, Debug)]
pub enum DiskSource {
    /// A file that every node of this host opens.
    File(PathBuf),
    /// A SCSI unit.
    Unit(Arc<dyn UnitSource>),
}

/// A SCSI unit that can be opened.
pub trait UnitSource: Send + Sync + fmt::Debug {
    /// Opens it for a node.
    fn open(
        &self,
        workers: block::worker::Handle,
        volume: VolumeTag,
        node: NodeId,
    ) -> BoxFuture<'_, Result<SharedDisk, String>>;

    /// As it may be shown: without secrets.
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
