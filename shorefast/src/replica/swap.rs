//! `replica replace-disk`: one volume gets another disk while the replica does not run.
//!
//! The replica's file names the new disk only when everything on it is written: after a crash before that the old one is as it was, or it is
//! refused and the command is run again. Refused for safety, and nothing changed: a replica that runs; a disk that carries anything known, unless
//! `--wipe` names it; a node that has what no peer has, unless `--force` says that it may be lost.

use std::sync::Arc;

use block::BlockDevice;
use block::worker::Workers;
use replicator::ids::Volume;
use replicator::meta::superblock::Superblock;
use replicator::runtime;

use super::make::{carries_nothing, node_id};
use super::record::{Record, VolumeRecord};
use super::{ends, open_alone};
use crate::cli::ReplicaName;
use crate::disk_url;
use crate::exit::{Exit, Failure};
use crate::init::Bundle;

/// Replaces it, and names the new disk in the replica's file.
pub(crate) fn replace_disk(
    which: &ReplicaName,
    number: u8,
    local: &str,
    force: bool,
    wipe: &[String],
) -> Result<(), Failure> {
    let mut record = Record::load(&which.dir, &which.name)?;
    let (bundle, further) = (Bundle::load(&record.bundle)?, record.further()?);
    let volume = further.iter().map(|(v, _)| *v).find(|v| v.get() == number).ok_or_else(|| not_there(which, number))?;
    let wrong = |e: String| Failure::usage(format!("{local}: {e}."), "Write the whole path.");
    let path = disk_url::shareable(&disk_url::made_absolute(local).map_err(|e| wrong(e.to_string()))?)?;
    let workers = Workers::start(1, "replica")
        .map_err(|e| Failure::failed(format!("Cannot start the workers: {e}."), "See the limits of the system."))?;
    let mut disks = vec![(Volume::FIRST, open_alone(&record.disk, &workers.handle())?.device())];
    for (other, path) in further.iter().filter(|(v, _)| *v != volume) {
        disks.push((*other, open_alone(path, &workers.handle())?.device()));
    }
    let sb = found(which, &record, &disks)?;
    if sb.resource != runtime::resource_id(&bundle.cluster_id, &record.name) || sb.node != node_id(record.node) {
        return Err(Failure::new(
            Exit::Refused,
            format!("{} carries a replica that is not {} of this node.", record.disk.display(), record.name),
            "See whether disk and bundle in the replica's file are the right ones.",
        ));
    }
    if sb.further(volume).is_none() {
        return Err(not_there(which, number));
    }
    if is_alone(&sb) && !force {
        return Err(Failure::new(
            Exit::Refused,
            format!(
                "{}/{number} was written here when no peer was there: an empty disk in its place loses that.",
                which.name
            ),
            format!(
                "Start it, and wait until a peer is Established in `shorefast replica status {}`; or give --force.",
                which.name
            ),
        ));
    }
    let device = open_alone(&path, &workers.handle())?.device();
    is_new(&path, &device, &sb, number, wipe)?;
    let known = ends::load(&Record::ends(&which.dir, &which.name))?;
    runtime::swap_disk(disks, &known, volume, device).map_err(|e| {
        Failure::failed(
            format!("{} cannot be the disk of {}/{number}: {e}.", path.display(), which.name),
            "Use a disk that is at least as long as those of the other nodes.",
        )
    })?;
    record.volumes.insert(number.to_string(), VolumeRecord { disk: path });
    record.save(&which.dir)
}

fn found(
    which: &ReplicaName,
    record: &Record,
    disks: &[(Volume, Arc<dyn BlockDevice>)],
) -> Result<Superblock, Failure> {
    let known = ends::load(&Record::ends(&which.dir, &which.name))?;
    let first = disks.iter().find(|(v, _)| *v == Volume::FIRST).map(|(_, device)| Arc::clone(device));
    let found = first.map_or(Ok(None), |device| runtime::find_known(device, &known));
    found.ok().flatten().ok_or_else(|| {
        Failure::failed(
            format!("{} carries no replica that can be read.", record.disk.display()),
            "Make the replica anew: its first disk has the metadata of all volumes.",
        )
    })
}

fn not_there(which: &ReplicaName, number: u8) -> Failure {
    Failure::new(
        Exit::NotFound,
        format!("{} has no volume {number} here.", which.name),
        format!("See {}.", Record::path(&which.dir, &which.name).display()),
    )
}

/// What it wrote last no peer may have: it went on without each of them, or it is the only one that was granted.
fn is_alone(sb: &Superblock) -> bool {
    let left_all = sb.peers.iter().all(|p| p.bitmap.is_some());
    let members = sb.grant.members;
    left_all || (members.has(sb.node) && members.without(sb.node).is_empty())
}

/// Nothing is on it, or what a crash of this command left.
fn is_new(
    path: &std::path::Path,
    device: &Arc<dyn BlockDevice>,
    sb: &Superblock,
    number: u8,
    wipe: &[String],
) -> Result<(), Failure> {
    let ours =
        |l: &replicator::meta::further::Label| (l.resource, l.device, l.volume) == (sb.resource, sb.device, number);
    let used = sb.further.iter().map(|f| f.number).chain(sb.gone.iter().map(|g| g.number));
    match runtime::find_volume(Arc::clone(device)) {
        Ok(Some(label)) if ours(&label) && !label.taken_away && !used.into_iter().any(|n| n == label.number) => Ok(()),
        _ => carries_nothing(path, device, wipe),
    }
}
