//! SCSI disks of this host's kernel as a volume's unit: `/dev/sdX`, however the kernel reaches it (open-iscsi, Fibre Channel, SAS).
//!
//! Such a disk is known by its unit's name (page 83h), which every node of the cluster finds on its own host: `/dev/sdc` is another disk on
//! another host, and another one after the next boot. So a path becomes `scsi:NAME` before anything is made of it, and each node uses every
//! disk of its kernel that leads to the unit, or those that its configuration names (`scsi_disks`).
//!
//! Refused: a map of dm-multipath, over which a reservation is made through one path only, whichever that is; a disk whose unit has no name; what
//! lacks anything that fencing rests on.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use block::kernel_disk::{Found, KernelDisk, ScsiDisk, Sysfs};
use block::shared::{BoxFuture, NodeId, SharedDisk, VolumeTag};
use block::worker::Handle;
use csv_fs::volume::UnitSource;
use iscsi_initiator::kernel::{self, DiskPlan};
use iscsi_initiator::unit::attach;
use iscsi_initiator::{Ownership, Session};

use super::{Unit, first_word, judge};
use crate::disk_url::SCSI;
use crate::exit::{Exit, Failure};

/// A person waits, and the kernel's error handler takes its time.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// A unit that the kernel has, by its name.
pub(crate) struct LocalUnit {
    unit: String,
    /// The only disks that may be used; empty: every one that leads to the unit.
    only: Vec<PathBuf>,
}

impl LocalUnit {
    pub(crate) fn new(unit: String, only: Vec<PathBuf>) -> LocalUnit {
        LocalUnit { unit, only }
    }
}

/// Whether this names a unit that the kernel has.
pub(crate) fn is_named(url: &str) -> bool {
    url.starts_with(SCSI)
}

/// Disks as they were named, with paths of SCSI disks replaced by their unit's name. What is no SCSI disk is left as it is.
pub(crate) fn resolved(urls: &[String]) -> Result<Vec<String>, Failure> {
    let sysfs = Sysfs::default();
    // What is not there, or cannot be looked at, shows when it is opened.
    let look =
        |url: &String| if is_path(url) { sysfs.look(Path::new(url)).unwrap_or(Found::Other) } else { Found::Other };
    named(urls, look)
}

fn is_path(url: &str) -> bool {
    url.starts_with('/')
}

fn named(urls: &[String], look: impl Fn(&String) -> Found) -> Result<Vec<String>, Failure> {
    let mut units: Vec<String> = Vec::new();
    for url in urls {
        match look(url) {
            Found::Other => {}
            Found::Multipath(paths) => return Err(multipath(url, &paths)),
            Found::Disk(ScsiDisk { unit: Some(unit), .. }) => units.push(unit),
            Found::Disk(ScsiDisk { unit: None, .. }) => {
                return Err(Failure::new(
                    Exit::Refused,
                    format!("{url} has no name (page 83h) by which other nodes could find it."),
                    format!("For nodes of this host alone: file:{url}."),
                ));
            }
        }
    }
    let Some(unit) = units.first() else { return Ok(urls.to_vec()) };
    if units.len() < urls.len() || units.iter().any(|other| other != unit) {
        return Err(Failure::usage(
            "These disks are no paths of one unit.",
            "Name one SCSI disk, or several paths of the same one; `shorefast scsi inquiry DISK` tells a unit's name.",
        ));
    }
    Ok(vec![format!("{SCSI}{unit}")])
}

fn multipath(url: &str, paths: &[PathBuf]) -> Failure {
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    Failure::new(
        Exit::Refused,
        format!(
            "{url} is a map of dm-multipath over {}: nobody can tell through which of them a reservation is made, and each needs its own.",
            paths.join(", ")
        ),
        "Take the unit out of multipath's hands (`blacklist` in multipath.conf, then `multipath -f MAP`) on every node, and name its paths: \
         all of them are used.",
    )
}

/// The disks of this host that lead to a unit, and may be used.
fn disks(unit: &str, only: &[PathBuf]) -> Result<Vec<ScsiDisk>, String> {
    let found = Sysfs::default().disks_of(unit);
    let meant: Vec<PathBuf> = only.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
    let usable: Vec<ScsiDisk> =
        found.iter().filter(|disk| only.is_empty() || meant.contains(&disk.path)).cloned().collect();
    match (usable.is_empty(), found.is_empty()) {
        (false, _) => Ok(usable),
        (true, true) => Err(format!("no SCSI disk of this host leads to {unit}")),
        (true, false) => Err(format!("no disk that `scsi_disks` names leads to {unit}")),
    }
}

impl UnitSource for LocalUnit {
    fn open(&self, workers: Handle, volume: VolumeTag, node: NodeId) -> BoxFuture<'_, Result<SharedDisk, String>> {
        Box::pin(async move {
            let found = disks(&self.unit, &self.only)?;
            let plan = DiskPlan { disks: found.iter().map(|disk| disk.path.clone()).collect(), volume, node };
            kernel::open(&workers, plan).await.map_err(|e| format!("{e}{}", held_by(&found)))
        })
    }

    fn name(&self) -> String {
        format!("{SCSI}{}", self.unit)
    }
}

/// What has these disks, as far as the kernel tells.
fn held_by(found: &[ScsiDisk]) -> String {
    let sysfs = Sysfs::default();
    let holders: Vec<String> = found.iter().flat_map(|disk| sysfs.holders(disk)).collect();
    if holders.is_empty() { String::new() } else { format!(" (held by {})", holders.join(", ")) }
}

impl fmt::Debug for LocalUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// Fails unless a unit could carry a new volume. Writes nothing.
pub(crate) async fn examine(workers: &Handle, unit: &str, only: &[PathBuf]) -> Result<(), Failure> {
    let found = disks(unit, only).map_err(|why| Failure::new(Exit::NotFound, format!("{why}."), "See `lsblk -S`."))?;
    let path = &found[0].path;
    let disk = kernel::taken(path, workers).await.map_err(|e| {
        Failure::new(
            Exit::Refused,
            format!("{e}{}.", held_by(&found)),
            "A volume's disk is used by nothing else of its host: unmount it, or take it out of the map that has it.",
        )
    })?;
    let attached = attached(path, Session::of_disk(workers, 0, disk, Ownership::Alone)).await?;
    let judged = judge(&format!("{SCSI}{unit}"), &attached).await;
    attached.session.close().await;
    judged.map_err(|failure| match failure.kind {
        Exit::Refused => {
            let next = format!("{} For nodes of this host alone: file:{}.", failure.next, path.display());
            Failure { next, ..failure }
        }
        _ => failure,
    })
}

/// A disk as a command of this host looks at it, beside whoever has it.
pub(crate) async fn look_at(workers: &Handle, device: &str) -> Result<Unit, Failure> {
    let path = match device.strip_prefix(SCSI) {
        Some(unit) => {
            let found = disks(unit, &[]);
            found.map_err(|why| Failure::new(Exit::NotFound, format!("{why}."), "See `lsblk -S`."))?[0].path.clone()
        }
        None => match Sysfs::default().look(Path::new(device)) {
            Ok(Found::Disk(disk)) => disk.path,
            Ok(Found::Multipath(paths)) => return Err(multipath(device, &paths)),
            Ok(Found::Other) => {
                return Err(Failure::usage(format!("{device} is no SCSI disk."), "`lsblk -S` lists those there are."));
            }
            Err(e) => {
                let next = "`lsblk -S` lists the SCSI disks there are.";
                return Err(Failure::new(Exit::NotFound, format!("{device}: {e}."), next));
            }
        },
    };
    let disk = KernelDisk::look_at(&path, workers.clone())
        .map_err(|e| Failure::failed(format!("{e}."), "It needs root, or the group of the disk and CAP_SYS_RAWIO."))?;
    attached(&path, Session::of_disk(workers, 0, disk, Ownership::Alone)).await
}

/// The unit of a session, which is closed if it tells nothing.
async fn attached(path: &Path, session: Session) -> Result<Unit, Failure> {
    let limit = tokio::time::timeout(ANSWERS_WITHIN, first_word(&session)).await;
    let found = match limit {
        Ok(Ok(())) => attach(&session, kernel::unit()).await.map_err(|e| e.to_string()),
        Ok(Err(cause)) => Err(cause.to_string()),
        Err(_) => Err("the unit does not answer".to_owned()),
    };
    match found {
        Ok(identity) => Ok(Unit { session, identity }),
        Err(why) => {
            session.close().await;
            Err(Failure::failed(format!("{}: {why}.", path.display()), "See what the kernel log says of the disk."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(path: &str, unit: Option<&str>) -> Found {
        Found::Disk(ScsiDisk { path: path.into(), unit: unit.map(str::to_owned), address: "1:0:0:0".into() })
    }

    fn of(urls: &[&str]) -> Result<Vec<String>, Failure> {
        let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
        named(&urls, |url| match url.as_str() {
            "/dev/sda" | "/dev/sdb" => disk(url, Some("naa.6001")),
            "/dev/sdc" => disk(url, Some("naa.6002")),
            "/dev/sdd" => disk(url, None),
            "/dev/dm-0" => Found::Multipath(vec!["/dev/sda".into(), "/dev/sdb".into()]),
            _ => Found::Other,
        })
    }

    #[test]
    fn paths_of_one_scsi_disk_become_the_units_name_and_everything_else_stays() {
        assert_eq!(of(&["/dev/sda"]), Ok(vec!["scsi:naa.6001".to_owned()]));
        assert_eq!(of(&["/dev/sdb", "/dev/sda"]), Ok(vec!["scsi:naa.6001".to_owned()]));
        for other in ["/srv/disk.img", "file:/dev/sda", "iscsi://h/t/0", "scsi:naa.6002"] {
            assert_eq!(of(&[other]), Ok(vec![other.to_owned()]));
        }
    }

    #[test]
    fn what_cannot_be_one_unit_is_refused_before_anything_is_touched() {
        for (urls, kind, word) in [
            (&["/dev/sda", "/dev/sdc"][..], Exit::Usage, "no paths of one unit"),
            (&["/dev/sda", "/srv/disk.img"], Exit::Usage, "no paths of one unit"),
            (&["/dev/sdd"], Exit::Refused, "has no name"),
            (&["/dev/dm-0"], Exit::Refused, "dm-multipath over /dev/sda, /dev/sdb"),
        ] {
            let refused = of(urls).expect_err("refused");
            assert!(refused.kind == kind && refused.message.contains(word), "{urls:?}: {refused}");
        }
    }

    #[test]
    fn a_unit_that_no_disk_of_this_host_leads_to_is_told_so() {
        let none = disks("naa.0000000000000000", &[]).expect_err("there is none");
        assert!(none.contains("no SCSI disk of this host"), "{none}");
    }
}
