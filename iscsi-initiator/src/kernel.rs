//! A SCSI disk of the kernel as a [`Session`]: what carries commands to a unit is the host's own initiator (open-iscsi, Fibre Channel,
//! SAS), whose nexus this host shares with nobody, and whose connections come and go without a word to us.
//!
//! So a nexus here is one **stretch between two proofs** that nothing older is left ([`core`]): after a loss, or when its registration is gone, the
//! session is down until every request has come back from the kernel, and then until the device itself has answered a question. Only then the
//! next nexus stands, and only that is registered. What this rests on:
//! - K1. What the kernel has answered it does not send again.
//! - K2. What it gave up is dead at the unit once the unit answers a command over the same nexus: the kernel gives a command up after its abort or
//!   a reset was answered, or its nexus was lost; it goes on after a login that ends the older session, and the unit ends the tasks of
//!   a lost nexus (SAM-5 6.3).
//!
//! Data go by io_uring, and the kernel may send them again as often as it likes before it answers; everything else goes by SG_IO, once. Two things
//! follow. A write of the block layer that meets a fence is tried again by the kernel and refused, as long as the nexus is not registered; so it is
//! registered only once all of them have come back. And unit attentions that the kernel takes with a read or write are not heard here: so no
//! write is left to a volatile cache (each has RWF_DSYNC, which costs nothing where there is none), and reservations are looked at with each check.
//!
//! [`open`] is the unit at all of its disks, as [`crate::shared::open`] is it at all of its portals.

mod core;
mod run;
mod translate;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use block::file::OpenError;
use block::kernel_disk::KernelDisk;
use block::multipath::MAX_PATHS;
use block::shared::{Incarnation, NexusKey, NexusNumber, NodeId, ReservationKey, ReserveError, SharedDisk, VolumeTag};
use block::worker::Handle;
use scsi::LunAddress;

use crate::driver::{Ownership, Session};
use crate::lun;
use crate::shared::{self, Opened, SharedError};

pub(crate) use run::{Driver, Happened};

/// What is opened, and for whom.
#[derive(Clone, Debug)]
pub struct DiskPlan {
    /// The disks, each a path of its own to the one unit.
    pub disks: Vec<PathBuf>,
    /// The volume, in keys.
    pub volume: VolumeTag,
    /// This node, in keys.
    pub node: NodeId,
}

/// So long a disk is tried for that somebody of this host has.
const BUSY_FOR: Duration = Duration::from_secs(3);
/// Between two tries.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// The number of the unit within its disk: the kernel knows it, and nobody asks.
pub fn unit() -> LunAddress {
    LunAddress::new(0).unwrap_or(LunAddress::from_bytes([0; 8]))
}

/// Opens a unit at its disks as a shared disk: takes each of them for this process alone, and waits for the first nexus that is registered,
/// under a key of incarnation 0. Disks that somebody else has are left out, as long as there is one.
///
/// # Cancel safety
/// A dropped future leaves sessions to end with their workers.
pub async fn open(workers: &Handle, plan: DiskPlan) -> Result<SharedDisk, SharedError> {
    let (mut sessions, mut refused, mut align) = (Vec::new(), None, 1);
    for path in plan.disks.iter().take(MAX_PATHS) {
        match taken(path, workers).await {
            Ok(disk) => {
                align = align.max(block::device::BlockDevice::geometry(disk.device().as_ref()).memory_align);
                let worker = sessions.len();
                sessions.push((worker, Session::of_disk(workers, worker, disk, Ownership::Shared)));
            }
            Err(e) => {
                tracing::warn!("a path is left out: {e}");
                refused = refused.or(Some(e.to_string()));
            }
        }
    }
    if sessions.is_empty() {
        return Err(SharedError::NoDisk(refused.unwrap_or_else(|| "no disk is named".to_owned())));
    }
    let (sessions, mut identity, _) = lun::found(sessions, unit()).await?;
    identity.geometry.memory_align = align;
    // The names of a unit are compared across its paths, which lead to different ports, as to one target.
    let opened = Opened { sessions, identity, target: String::new(), of_workers: false };
    let disk = shared::share(workers, opened, plan.volume, plan.node).await?;
    end_older_lives(&disk, &plan).await?;
    Ok(disk)
}

/// Takes every key of an older life of this node away, together with what its nexus has at the unit.
///
/// 1. This host loses power with a write in the array, which is slow. It starts again and logs in, under another ISID: it is another nexus, and
///    nothing of the older one has ended.
/// 2. The daemon registers its next life. Whoever wants the older one fenced sees that a later life has registered, and takes that for the proof.
/// 3. The write lands.
///
/// A key of incarnation 0 is of no life: no data have gone over its nexus.
async fn end_older_lives(disk: &SharedDisk, plan: &DiskPlan) -> Result<(), SharedError> {
    let Some(nexuses) = disk.nexuses() else { return Ok(()) };
    let none = NexusKey::new(plan.volume, plan.node, Incarnation(0), NexusNumber(0));
    let is_older = |key: &ReservationKey| {
        NexusKey::parse(*key).is_some_and(|k| (k.volume, k.node) == (plan.volume, plan.node) && !k.is_same_life(none))
    };
    for key in nexuses.keys().await.map_err(SharedError::NotRegistered)?.into_iter().filter(is_older) {
        tracing::info!(
            "the key {key} is of an older life of this node: it is taken away, with what its nexus has at the unit"
        );
        match nexuses.preempt(key).await {
            // Somebody else was quicker; nothing is known of the tasks, so whoever it was waits for them.
            Ok(()) | Err(ReserveError::Reserved) => {}
            Err(e) => return Err(SharedError::NotRegistered(e)),
        }
    }
    Ok(())
}

/// Takes a disk for this process alone. Whoever has just left it, or was killed, may have it for another moment.
pub async fn taken(path: &Path, workers: &Handle) -> Result<Arc<KernelDisk>, OpenError> {
    let begun = Instant::now();
    loop {
        let (to_open, handle) = (path.to_owned(), workers.clone());
        // Opening may wait for the kernel's error handler.
        let opened = tokio::task::spawn_blocking(move || KernelDisk::open(to_open, handle)).await;
        match opened.unwrap_or_else(|e| Err(lost(path, &e))) {
            Err(OpenError::Os { source, .. }) if is_busy(&source) && begun.elapsed() < BUSY_FOR => {
                tokio::time::sleep(ASK_AGAIN).await;
            }
            opened => return opened,
        }
    }
}

fn is_busy(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::ResourceBusy
}

fn lost(path: &Path, e: &tokio::task::JoinError) -> OpenError {
    OpenError::Os { path: path.to_owned(), source: io::Error::other(e.to_string()) }
}
