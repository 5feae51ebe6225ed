//! A volume's unit over iSCSI as this node reaches it: who it is there, and which sessions it makes.
//!
//! **The same nexus after every restart.** An I_T nexus is the initiator's name, the ISID and the target's port. The name is made of the
//! identities of cluster and node (or set), an ISID of the volume's and the number of the session. Prevents: a daemon is killed and
//! started again; its old session lives on at the target with writes that are under way, beside the new one, and nothing ends it.

use std::fmt;

use block::shared::{BoxFuture, NodeId, SharedDisk, VolumeTag};
use block::worker::Handle;
use csv_fs::volume::UnitSource;
use iscsi::ids::Isid;
use iscsi::login::{Kind, LoginConfig};
use iscsi::session::Config;
use iscsi_initiator::Url;
use iscsi_initiator::shared::{self, SharedPlan};
use scsi::LunAddress;

use super::Caller;

/// The number of a node's first session in its ISIDs.
const FIRST_SESSION: u16 = 1;
/// One session to each portal: how many there are must not hang on the number of workers, which an administrator may change between
/// two lives.
const PER_PORTAL: usize = 1;

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
}

/// How to log in at each portal. Reads the files of secrets, which may hang.
fn logins(portals: &[Url], caller: &Caller, host: u32) -> Result<(Vec<Config>, LunAddress), String> {
    let (mut logins, mut lun) = (Vec::new(), None);
    for url in portals {
        let (target, number) = url.unit.clone().ok_or_else(|| format!("{url} names no unit"))?;
        // The same at every portal, or it is no one unit; whether it is besides is found out once it is open.
        if *lun.get_or_insert(number) != number {
            return Err(format!("{url} is another unit than {}", portals[0]));
        }
        let isid = Isid::from_number(host, FIRST_SESSION);
        let mut login = LoginConfig::new(caller.initiator.clone(), isid, Kind::Normal { target });
        login.chap = caller.secrets.chap(url)?;
        logins.push(Config::new(login, url.portal.clone()));
    }
    let lun = lun.and_then(LunAddress::new).ok_or("there is no such number of a unit")?;
    Ok((logins, lun))
}

impl UnitSource for Unit {
    fn open(&self, workers: Handle, volume: VolumeTag, node: NodeId) -> BoxFuture<'_, Result<SharedDisk, String>> {
        Box::pin(async move {
            let (portals, caller, host) = (self.portals.clone(), self.caller.clone(), self.host);
            let read = tokio::task::spawn_blocking(move || logins(&portals, &caller, host)).await;
            let (portals, lun) = read.unwrap_or_else(|e| Err(e.to_string()))?;
            let first_slot = FIRST_SESSION;
            let plan = SharedPlan { portals, lun, per_portal: PER_PORTAL, first_slot, host, volume, node };
            shared::open(&workers, plan).await.map_err(|e| e.to_string())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::san::secrets::Secrets;

    fn unit(urls: &[&str], volume: &str) -> (Vec<Url>, Caller, u32) {
        let portals = urls.iter().map(|url| Url::parse(url).expect("a URL")).collect();
        let secrets = Secrets::new("/nonexistent".as_ref(), "/nonexistent".as_ref());
        let caller = Caller { initiator: "iqn.2026-01.test:n".into(), secrets };
        let made = Unit::new(portals, caller, volume);
        (made.portals, made.caller, made.host)
    }

    #[test]
    fn a_node_logs_in_as_the_same_port_after_every_restart_and_as_another_for_another_volume() {
        let isids = |volume: &str| {
            let (portals, caller, host) = unit(&["iscsi://a/iqn.t/0", "iscsi://b/iqn.t/0"], volume);
            let (logins, _) = logins(&portals, &caller, host).expect("two portals");
            logins.iter().map(|config| config.login.isid).collect::<Vec<_>>()
        };
        assert_eq!(isids("0123"), isids("0123"));
        assert_ne!(isids("0123"), isids("0124"));
    }

    #[test]
    fn portals_of_two_units_are_told_apart_before_anybody_logs_in() {
        let (portals, caller, host) = unit(&["iscsi://a/iqn.t/0", "iscsi://b/iqn.t/1"], "v");
        assert!(logins(&portals, &caller, host).expect_err("two units").contains("another unit"));
        let (portals, caller, host) = unit(&["iscsi://u@a/iqn.t/0"], "v");
        assert!(logins(&portals, &caller, host).expect_err("no secret").contains("no secret of u"));
    }
}
