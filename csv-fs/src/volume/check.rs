//! The check of a volume that no node has mounted, and its repair: by whoever can open its disk, without a daemon.
//!
//! **Nobody else.** Every node's LIVE lock is taken first and kept to the end: a node that has the volume open holds its
//! own, and one that wants to open it meanwhile finds it held and tries again later. Then the slots are watched as at a
//! start: a file that another host uses is refused, since locks do not reach there. A unit is held for one nexus of this process, once
//! nobody else is registered.
//!
//! States: *opened* ([`Unattended::open`]) → any number of checks and repairs → dropped, which lets nodes in again.

use std::ops::ControlFlow;

use block::shared::{NodeId, SharedDisk, VolumeTag};
use block::worker::Handle;

use super::create::wall_clock;
use super::one_host::{self, NotOneHost};
use super::source::{self, DiskError, DiskSource, NotAlone};
use super::start::timing;
use crate::format::FormatError;
use crate::meta::check::{Limits, Repair, Report, Step};
use crate::meta::{Fatal, MetaError, Store, Unmounted, read_superblock};

/// Findings that are kept, and repaired in one round: some 20 MB.
const FINDINGS: usize = 100_000;

/// Why a volume that is not mounted cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum UnattendedError {
    /// It is nothing that several nodes can share, or cannot be opened.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A node has it open.
    #[error("{node} has the volume on {disk} open")]
    Mounted {
        /// Which.
        node: NodeId,
        /// The disk.
        disk: String,
    },
    /// A target of this host serves it.
    #[error("an iSCSI target of this host has the disk {disk} open")]
    Served {
        /// The disk.
        disk: String,
    },
    /// Somebody who is no node of ours has registered with it.
    #[error("others have registered with the disk {disk}, with {keys}")]
    Registered {
        /// The disk.
        disk: String,
        /// Their keys.
        keys: String,
    },
    /// Locks or reservations are not to be had.
    #[error("the disk {disk} cannot be had alone: {source}")]
    Lock {
        /// The disk.
        disk: String,
        /// Why.
        source: std::io::Error,
    },
    /// Another host uses it.
    #[error("the disk {disk} cannot be checked here: {source}")]
    OtherHost {
        /// The disk.
        disk: String,
        /// Why.
        source: NotOneHost,
    },
    /// The disk carries no volume that this version can read, or it cannot be read.
    #[error("{disk}: {source}")]
    Volume {
        /// The disk.
        disk: String,
        /// Why.
        source: MetaError,
    },
    /// Something of the host itself.
    #[error(transparent)]
    Host(#[from] super::office::StartError),
}

impl UnattendedError {
    /// Whether it was refused because going on could do harm, or cannot be done by this version.
    pub fn is_refusal(&self) -> bool {
        match self {
            UnattendedError::Mounted { .. }
            | UnattendedError::Served { .. }
            | UnattendedError::Registered { .. }
            | UnattendedError::OtherHost { .. } => true,
            UnattendedError::Disk(e) => e.is_refusal(),
            UnattendedError::Volume { source: MetaError::Fatal(Fatal::Format(e)), .. } => {
                matches!(e, FormatError::NewerVersion { .. } | FormatError::Incompatible { .. })
            }
            _ => false,
        }
    }

    /// What to do next.
    pub fn next_step(&self) -> &'static str {
        match self {
            UnattendedError::Mounted { .. } => {
                "Check it there with `shorefast volume check NAME`, or unmount it on every node first."
            }
            UnattendedError::Served { .. } => {
                "Check the unit that the target serves (iscsi://...), or stop the target first."
            }
            UnattendedError::Registered { .. } => {
                "See who that is (`shorefast iscsi reservations URL`), and end it there."
            }
            UnattendedError::OtherHost { .. } => "Check it on that host.",
            UnattendedError::Volume { .. } => "See whether it is the right disk.",
            UnattendedError::Disk(DiskError::Unit { .. }) => {
                "See whether portals, target, unit and secret are right, and whether the target lets this host in (SHOREFAST_ISCSI_INITIATOR names it)."
            }
            UnattendedError::Disk(_) | UnattendedError::Lock { .. } => {
                "See whether the path is right and may be read and written."
            }
            UnattendedError::Host(_) => "See the limits of the system.",
        }
    }
}

/// A volume that nobody has mounted, and nobody can mount as long as this exists.
pub struct Unattended {
    disk: SharedDisk,
    name: String,
    proof: Unmounted,
}

impl Unattended {
    /// Opens a disk and keeps every node from the volume on it.
    ///
    /// # Cancel safety
    /// If dropped, the locks are let go.
    pub async fn open(source: &DiskSource, node: NodeId, workers: Handle) -> Result<Unattended, UnattendedError> {
        // Which volume it is, is not known yet; that nobody else is registered is what matters.
        let disk = source::open(source, workers, false, (VolumeTag::of(&[0; 16]), node)).await?;
        let opened = Unattended::of(&disk, source.to_string()).await;
        if opened.is_err()
            && let Some(nexuses) = disk.nexuses()
        {
            let _ended = nexuses.leave().await;
        }
        opened
    }

    async fn of(disk: &SharedDisk, name: String) -> Result<Unattended, UnattendedError> {
        let proof = match source::alone(disk).await {
            Ok(proof) => proof,
            Err(NotAlone::Node(node)) => return Err(UnattendedError::Mounted { node, disk: name }),
            Err(NotAlone::Served) => return Err(UnattendedError::Served { disk: name }),
            Err(NotAlone::Foreign(keys)) => return Err(UnattendedError::Registered { disk: name, keys }),
            Err(NotAlone::Failed(source)) => return Err(UnattendedError::Lock { disk: name, source }),
        };
        let opened = Unattended { disk: disk.clone(), name, proof };
        if disk.file().is_some() {
            opened.on_this_host().await?;
        }
        Ok(opened)
    }

    /// Lets nodes in again. A unit keeps this process's registration otherwise, until the next one takes it over.
    pub async fn close(self) {
        if let Some(nexuses) = self.disk.nexuses() {
            let _ended = nexuses.leave().await;
        }
    }

    async fn on_this_host(&self) -> Result<(), UnattendedError> {
        let data = std::sync::Arc::clone(&self.disk.data);
        let read = tokio::task::spawn_blocking(move || read_superblock(&data)).await;
        let superblock = match read {
            Ok(Ok(chosen)) => chosen.superblock,
            // Without an identity the slots say nothing; the check finds just that.
            Ok(Err(MetaError::Fatal(Fatal::Format(FormatError::AllDamaged)))) => return Ok(()),
            Ok(Err(source)) => return Err(self.failed(source)),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        let boot = super::office::boot_id()?;
        one_host::only_this_host(&self.disk, superblock.volume, boot, timing(&superblock).renew)
            .await
            .map_err(|source| UnattendedError::OtherHost { disk: self.name.clone(), source })
    }

    fn failed(&self, source: MetaError) -> UnattendedError {
        UnattendedError::Volume { disk: self.name.clone(), source }
    }

    /// Checks it; more findings are kept than of a mounted volume, so that few rounds of repairs do. Blocks its thread,
    /// which is no worker.
    pub fn check(&self, mut heard: impl FnMut(Step)) -> Result<Report, UnattendedError> {
        let mut watch = |step: Step| {
            heard(step);
            ControlFlow::Continue(())
        };
        let limits = Limits { findings: FINDINGS, ..Limits::DEFAULT };
        Store::check_unmounted(&self.disk.data, &self.proof, limits, &mut watch).map_err(|e| self.failed(e))
    }

    /// Carries out repairs of the last check: all of them, or none. Blocks its thread, which is no worker.
    pub fn repair(&self, repairs: &[Repair]) -> Result<(), UnattendedError> {
        Store::repair_unmounted(&self.disk.data, &self.proof, repairs, wall_clock()).map_err(|e| self.failed(e))
    }
}

impl std::fmt::Debug for Unattended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unattended").field("disk", &self.name).finish_non_exhaustive()
    }
}
