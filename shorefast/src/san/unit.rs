//! A volume's unit over iSCSI as this node reaches it: who it is there, which sessions it makes, and how their paths are.
//!
//! **The same nexus after every restart.** An I_T nexus is the initiator's name, the ISID and the target's port. The name is made of the
//! identities of cluster and node (or set), an ISID of the volume's and the number of the session. Prevents: a daemon is killed and
//! started again; its old session lives on at the target with writes that are under way, beside the new one, and nothing ends it.

use std::fmt;
use std::sync::{Arc, Weak};

use block::multipath::{PathState, PathStatus};
use block::shared::{BoxFuture, NodeId, SharedDisk, VolumeTag};
use block::worker::Handle;
use csv_fs::volume::UnitSource;
use iscsi::ids::Isid;
use iscsi::login::{Kind, LoginConfig};
use iscsi::session::Config;
use iscsi_initiator::Url;
use parking_lot::Mutex;
use scsi::LunAddress;

use super::Caller;
use crate::api::PathInfo;

/// A unit at its portals.
pub(crate) struct Unit {
    portals: Vec<Url>,
    caller: Caller,
    /// The volume in this node's ISIDs.
    host: u32,
}

impl Unit {
    /// For a volume of that identity, as its record has it.
    pub(crate) fn new(portals: Vec<Url>, caller: Caller, volume: &str) -> Unit {
        Unit { portals, caller, host: crc32c::crc32c(volume.as_bytes()) }
    }

    /// Its paths, each with its state; none while it is not open.
    pub(crate) fn paths(&self) -> Vec<PathInfo> {
        Vec::new()
    }

    /// How to log in at each portal. Reads the files of secrets.
    fn logins(&self) -> Result<(Vec<Config>, LunAddress), String> {
        let (mut logins, mut lun) = (Vec::new(), None);
        for url in &self.portals {
            let (target, number) = url.unit.clone().ok_or_else(|| format!("{url} names no unit"))?;
            // The same at every portal, or it is no one unit; what they are besides is found out when they are open.
            if *lun.get_or_insert(number) != number {
                return Err(format!("{url} is another unit than {}", self.portals[0]));
            }
            let chap = self.caller.secrets.chap(url)?;
            let isid = Isid::from_number(self.host, 0);
            let mut login = LoginConfig::new(self.caller.initiator.clone(), isid, Kind::Normal { target });
            login.chap = chap;
            logins.push(Config::new(login, url.portal.clone()));
        }
        let lun = lun.and_then(LunAddress::new).ok_or("there is no such number of a unit")?;
        Ok((logins, lun))
    }
}

/// A path for people.
fn shown(status: &PathStatus) -> PathInfo {
    let ok = status.state == PathState::Up;
    PathInfo { name: status.name.clone(), ok, detail: if ok { "ready".to_owned() } else { status.state.to_string() } }
}

impl UnitSource for Unit {
    fn open(&self, workers: Handle, volume: VolumeTag, node: NodeId) -> BoxFuture<'_, Result<SharedDisk, String>> {
        Box::pin(async move {
            let (logins, lun) = self.logins()?;
            let _ = (workers, volume, node, logins, lun);
            Err("units come later".to_owned())
        })
    }

    fn name(&self) -> String {
        self.portals.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Debug for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}
