//! The disks of a node's volumes as it opens them, and who it is at a target.

use std::io;
use std::sync::Arc;

use csv_fs::volume::DiskSource;

use super::node::NodeParts;
use super::records::Record;
use crate::api::Progress;
use crate::disk_url::{self, Disk};
use crate::exit::Failure;
use crate::san::local::LocalUnit;
use crate::san::secrets::Secrets;
use crate::san::unit::Unit;
use crate::san::{Caller, node_initiator};

impl NodeParts {
    /// Who this node is at a target.
    pub(super) fn caller(&self) -> Caller {
        let set = self.config.iscsi_initiator.as_deref();
        Caller {
            initiator: node_initiator(set, &self.bundle.cluster_id, self.bundle.node),
            secrets: Secrets::new(&self.config.iscsi_secrets, &self.config.state_dir),
        }
    }

    /// A disk as the libraries want it, for a volume of that name or identity.
    pub(super) fn source(&self, disk: &Disk, volume: &str) -> DiskSource {
        match disk {
            Disk::File(path) => DiskSource::File(path.clone()),
            Disk::Unit(portals) => DiskSource::Unit(Arc::new(Unit::new(portals.clone(), self.caller(), volume))),
            Disk::Scsi(unit) => {
                DiskSource::Unit(Arc::new(LocalUnit::new(unit.clone(), self.config.scsi_disks.clone())))
            }
        }
    }

    /// The disk of a volume that is to be started.
    pub(super) fn disk_of(&self, record: &Record) -> DiskSource {
        match disk_url::disk(&record.disks) {
            Ok(disk) => self.source(&disk, &record.id),
            // A newer version's kind of disk: opening it says what is wrong.
            Err(_) => DiskSource::File(record.disks.first().cloned().unwrap_or_default().into()),
        }
    }

    /// Secrets that were on a command line are kept on this node, and nowhere else; says so.
    pub(super) async fn keep_secrets(self: &Arc<Self>, disk: &Disk, progress: &Progress) -> Result<(), Failure> {
        let Disk::Unit(portals) = disk else { return Ok(()) };
        let secrets = self.caller().secrets;
        for (user, secret) in portals.iter().filter_map(|url| Some((url.user()?.to_owned(), url.secret()?.to_owned())))
        {
            progress.say(format!(
                "The secret of {user} is kept on this node only; write it into {} on every other.",
                self.config.iscsi_secrets.display()
            ));
            let secrets = secrets.clone();
            self.saves(move |_, _| secrets.remember(&user, &secret).map_err(|e| not_kept(&e))).await?;
        }
        Ok(())
    }
}

fn not_kept(e: &io::Error) -> Failure {
    Failure::failed(
        format!("The secret cannot be kept: {e}."),
        "Nothing was done. Write it into the file of the key `iscsi_secrets`, and leave it out of the URL.",
    )
}
