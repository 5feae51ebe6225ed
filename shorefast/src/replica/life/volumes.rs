//! The volumes of a replica that runs: their disks, their exports, how they are added, grow and are taken away.
//!
//! A volume is added in two steps. On every node `adjust` opens the disk that the replica's file names: there is room for the volume from then
//! on. On the primary `adjust` asks for the volume once all nodes have one; it is made on all of them, or on none, as a device grows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use block::shared::FileDisk;
use block::{BlockDevice, Provisioning};
use replicator::core::event::{RemoveRefusal, ResizeRefusal};
use replicator::ids::Volume;
use replicator::meta::further::Label;
use replicator::meta::superblock::Superblock;
use replicator::nbd::Export;
use replicator::runtime::{self, NotRemoved, NotResized, Part, Stopped};

use super::Up;
use crate::exit::{Exit, Failure};
use crate::replica::make::carries_nothing;
use crate::replica::open_alone;
use crate::replica::record::Record;

/// A disk as a part of a replica.
pub(super) fn part(disk: &FileDisk) -> Part {
    Part::new(disk.device()).provisioned(disk.provisioning()).growable(disk.rescan())
}

/// Whether a disk for a volume that there is not yet may be written: there is nothing on it, or a label of this replica that a crash left
/// before the volume was made.
pub(super) fn is_free(path: &Path, device: &Arc<dyn BlockDevice>, own: &Superblock) -> Result<(), Failure> {
    match runtime::find_volume(Arc::clone(device)) {
        Ok(Some(label)) if is_own(&label, own) && !is_used(&label, own) => Ok(()),
        _ => carries_nothing(path, device, &[]).map_err(|f| Failure {
            next: format!(
                "Name another disk in the replica's file, or clear this one: `wipefs --all {0}`, and of a volume that was taken away its last 4096 \
                 bytes.",
                path.display()
            ),
            ..f
        }),
    }
}

/// Whether a disk was that of a volume that was taken away.
pub(super) fn was_of(device: &Arc<dyn BlockDevice>, volume: Volume, own: &Superblock) -> bool {
    let found = runtime::find_volume(Arc::clone(device)).ok().flatten();
    found.is_some_and(|label| is_own(&label, own) && label.volume == volume.get() && is_used(&label, own))
}

fn is_own(label: &Label, own: &Superblock) -> bool {
    (label.resource, label.device) == (own.resource, own.device)
}

/// It is, or was, a volume's; else a crash left it before the volume was made.
fn is_used(label: &Label, own: &Superblock) -> bool {
    let mut numbers = own.further.iter().map(|f| f.number).chain(own.gone.iter().map(|g| g.number));
    label.taken_away || numbers.any(|n| n == label.number)
}

impl Up {
    /// The name of a volume's export.
    fn export_of(&self, volume: Volume) -> String {
        match volume {
            Volume::FIRST => self.name.clone(),
            volume => format!("{}/{}", self.name, volume.get()),
        }
    }

    /// Every volume is served, while this node is primary.
    pub(super) fn serve_volumes(&self) {
        let sizes = *self.resource.sizes().borrow();
        for (volume, device) in sizes.iter().filter_map(|(v, _)| Some((v, self.resource.volume(v)?))) {
            let provisioning = Arc::clone(&device) as Arc<dyn Provisioning>;
            let export = Export::new(self.export_of(volume), device).described("").provisioned(provisioning);
            // Served already, if it was primary.
            drop(self.exports.add(export));
        }
        if !*self.resource.primary().borrow() {
            self.withdraw();
        }
    }

    /// No volume is served any more.
    pub(super) fn withdraw(&self) {
        for volume in Volume::all() {
            // Most are not there.
            self.exports.withdraw(&self.export_of(volume));
        }
    }

    /// A disk for a volume that is to be made.
    pub(super) async fn add_disk(&self, volume: Volume, path: &Path) -> Result<(), Failure> {
        let (path, workers, own) = (path.to_owned(), self.workers.clone(), self.own.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let disk = open_alone(&path, &workers)?;
            is_free(&path, &disk.device(), &own)?;
            Ok::<_, Failure>(part(&disk))
        });
        let lost = |_| Failure::failed("The disk could not be opened.", "See the log of the replica.");
        self.resource.add_disk(volume, opened.await.map_err(lost)??);
        Ok(())
    }

    /// Volumes that have disks and are not there yet are made on all nodes.
    pub(super) async fn make_volumes(&self, further: &[(Volume, PathBuf)]) -> Result<Result<(), Stopped>, Failure> {
        for (volume, _) in further {
            let there = self.resource.sizes().borrow().of(*volume) > 0;
            if let Err(stopped) = if there { Ok(()) } else { self.resize(volume.get(), None, false).await? } {
                return Ok(Err(stopped));
            }
        }
        Ok(Ok(()))
    }

    /// Volumes that the file names no more are taken away from all nodes, on the primary; or they were, and their disks are let go.
    pub(super) async fn remove_volumes(
        &self,
        running: &[(Volume, PathBuf)],
        wanted: &[(Volume, PathBuf)],
    ) -> Result<(), Failure> {
        for (volume, _) in running.iter().filter(|(v, _)| !wanted.iter().any(|(w, _)| w == v)) {
            let there = self.resource.sizes().borrow().of(*volume) > 0;
            if !there {
                self.resource.leave_out(*volume);
            } else if !*self.resource.primary().borrow() {
                return Err(Failure::new(
                    Exit::Refused,
                    format!("{} is taken away on the primary, and it is not primary here.", self.export_of(*volume)),
                    "Take it out of the file on the primary and `adjust` there first, then here.",
                ));
            } else if self.remove_volume(volume.get(), false).await?.is_err() {
                // It is stopping: whoever asked is told so by what comes next.
                return Ok(());
            }
        }
        Ok(())
    }

    /// A volume is taken away from all nodes. Nobody uses it, or its clients are disconnected by force.
    pub(super) async fn remove_volume(&self, number: u8, force: bool) -> Result<Result<(), Stopped>, Failure> {
        let there = |v: &Volume| self.resource.sizes().borrow().of(*v) > 0;
        let volume = Volume::new(number).filter(there).ok_or_else(|| {
            Failure::new(
                Exit::NotFound,
                format!("{} has no volume {number}.", self.name),
                format!("See `shorefast replica status {}`.", self.name),
            )
        })?;
        let name = self.export_of(volume);
        let clients = if force { 0 } else { self.exports.withdraw_unused(&name) };
        if clients > 0 {
            return Err(Failure::new(
                Exit::Refused,
                format!("{name} is not taken away: {clients} clients use it."),
                "Disconnect them first; or give `remove-volume --force`, which does.",
            ));
        }
        if force {
            self.exports.withdraw(&name);
        }
        match self.resource.take_away(volume, force).await {
            Err(stopped) => Ok(Err(stopped)),
            Ok(Ok(())) => Ok(Ok(())),
            Ok(Err(why)) => {
                self.serve_volumes();
                Err(self.not_removed(volume, why))
            }
        }
    }

    /// Why it is not taken away, and what may be done about it.
    fn not_removed(&self, volume: Volume, why: NotRemoved) -> Failure {
        let primary = "Run the command on the primary.".to_owned();
        let (what, next) = match why {
            NotRemoved::TooOld(node) => (
                format!("the program of node-{} does not know how", node.get()),
                "Upgrade it first.".to_owned(),
            ),
            NotRemoved::Refused(why) => match why {
                RemoveRefusal::NotPrimary => ("it is not primary here".to_owned(), primary),
                RemoveRefusal::NoDisk => {
                    ("this node has left its disk".to_owned(), "Put it right, and start the replica again.".to_owned())
                }
                RemoveRefusal::First => (
                    "the disk of volume 0 has the metadata of all".to_owned(),
                    "Stop the replica on all nodes, and remove it.".to_owned(),
                ),
                RemoveRefusal::NotThere => {
                    ("it is not there".to_owned(), format!("See `shorefast replica status {}`.", self.name))
                }
                RemoveRefusal::NoQuorum => (
                    "there is no quorum".to_owned(),
                    format!("See in `shorefast replica status {}` who cannot be heard.", self.name),
                ),
                RemoveRefusal::Busy => (
                    "volumes are being changed or compared already".to_owned(),
                    "Wait until that is over, and run it again.".to_owned(),
                ),
                RemoveRefusal::Away(node) => (
                    format!("node-{} is not connected and equal", node.get()),
                    "Wait until all peers are Established in `replica status`; or give `remove-volume --force`: who is away does so when it comes."
                        .to_owned(),
                ),
                RemoveRefusal::InUse => (
                    "what is under way there does not end".to_owned(),
                    format!("See in `shorefast replica status {}` what it waits for.", self.name),
                ),
            },
        };
        Failure::new(Exit::Refused, format!("{} is not taken away: {what}.", self.export_of(volume)), next)
    }

    /// Larger, on all nodes.
    pub(super) async fn resize(
        &self,
        volume: u8,
        size: Option<u64>,
        clean: bool,
    ) -> Result<Result<(), Stopped>, Failure> {
        let volume = Volume::new(volume).filter(|v| self.resource.has_disk(*v)).ok_or_else(|| {
            Failure::new(
                Exit::NotFound,
                format!("{} has no volume {volume} here.", self.name),
                format!("Name its disk in {}, and `adjust`.", Record::path(&self.dir, &self.name).display()),
            )
        })?;
        if size.is_some_and(|s| s % 4096 != 0) {
            return Err(Failure::usage("--size is not a multiple of 4096 bytes.", "Give whole blocks."));
        }
        match self.resource.resize(volume, size, clean).await {
            Err(stopped) => Ok(Err(stopped)),
            Ok(Ok(_)) => {
                // One that was added is served from now on.
                self.serve_volumes();
                Ok(Ok(()))
            }
            Ok(Err(why)) => Err(self.not_resized(volume, why)),
        }
    }

    /// Why it does not become larger, and what may be done about it.
    fn not_resized(&self, volume: Volume, why: NotResized) -> Failure {
        let name = self.export_of(volume);
        let bytes = |sectors: u64| sectors.saturating_mul(replicator::ids::SECTOR);
        let (what, next) = match why {
            NotResized::TooOld(node) => {
                (format!("the program of node-{} does not know how", node.get()), "Upgrade it first.".to_owned())
            }
            NotResized::Refused(why) => match why {
                ResizeRefusal::NotPrimary => {
                    ("it is not primary here".to_owned(), "Run the command on the primary.".to_owned())
                }
                ResizeRefusal::NoDisk => {
                    ("this node has left its disk".to_owned(), "Put it right, and start the replica again.".to_owned())
                }
                ResizeRefusal::Busy => {
                    ("that is being done already".to_owned(), "Wait, and see the size in `replica status`.".to_owned())
                }
                ResizeRefusal::Away(node) => (
                    format!("node-{} is not connected and equal", node.get()),
                    "Wait until all peers are Established in `replica status`.".to_owned(),
                ),
                ResizeRefusal::Shrinks => (
                    "a device never becomes smaller".to_owned(),
                    "Make a smaller one, and copy what is needed.".to_owned(),
                ),
                ResizeRefusal::Same => ("it has that size".to_owned(), "Give a larger --size.".to_owned()),
                ResizeRefusal::NoRoom(node, 0) if volume != Volume::FIRST => (
                    format!("node-{} has no disk for it", node.get()),
                    "Name its disk in the replica's file there, and `adjust`; then run this again.".to_owned(),
                ),
                ResizeRefusal::NoRoom(node, most) => (
                    format!("the disk of node-{} has room for {} bytes", node.get(), bytes(most)),
                    "Make the disks of all nodes larger first: by more than their metadata take, which move to the new end.".to_owned(),
                ),
                ResizeRefusal::Lost(node) => {
                    let said = format!("node-{} was lost, or did not answer", node.get());
                    let next = "If any node has grown, all do when they meet: see `replica status`; else run it again.";
                    return Failure::failed(format!("{name} is not resized: {said}."), next);
                }
            },
        };
        Failure::new(Exit::Refused, format!("{name} is not resized: {what}."), next)
    }
}
