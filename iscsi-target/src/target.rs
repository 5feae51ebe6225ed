//! What is served, to whom, where.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use block::{BlockDevice, Provisioning};
use iscsi::chap::Account;

/// A target.
#[derive(Debug)]
pub struct Target {
    /// Its iSCSI name. The names of its units are made of it, and must be the same after a restart.
    pub name: String,
    /// Its logical units.
    pub luns: Vec<Lun>,
    /// Where it listens.
    pub portals: Vec<Portal>,
    /// Who is let in.
    pub admission: Admission,
    /// The folder in which reservations are kept that are to survive a loss of power. None: such reservations are refused.
    pub state: Option<PathBuf>,
    /// Initiators are sent there instead, for now or (true) for ever.
    pub redirect: Option<(iscsi::discovery::Portal, bool)>,
}

/// A logical unit.
#[derive(Clone)]
pub struct Lun {
    /// Its number.
    pub number: u64,
    /// Its blocks.
    pub device: Arc<dyn BlockDevice>,
    /// Where its data lie, if the device can tell. With it, and a device that discards, the unit is thin.
    pub provisioning: Option<Arc<dyn Provisioning>>,
    /// Refuse changes.
    pub read_only: bool,
    /// Begin without a write cache (WCE 0): a write is on stable storage before its status. An initiator may switch it on.
    pub write_through: bool,
    /// For tests of what some other targets do (LIO): that a key is gone is told while PREEMPT AND ABORT still waits for commands of its nexus.
    pub tells_early: bool,
}

/// A portal. Those of one group are one target port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portal {
    /// Where it listens; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// Its portal group, which is also the number of the target port and of the port group: 1 and up.
    pub group: u16,
}

/// Who is let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// Names of initiators; none: all.
    pub initiators: Option<Vec<String>>,
    /// Accounts of which an initiator must have one (CHAP); none: it need not prove itself.
    pub accounts: Vec<Account>,
    /// The target's own account, for initiators that want a proof.
    pub own: Option<Account>,
}

/// Why a unit cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LunError {
    /// It has no blocks.
    #[error("LUN {lun} ({device}) has no blocks")]
    Empty {
        /// Its number.
        lun: u64,
        /// The device.
        device: String,
    },
    /// Its number is not one, or there twice.
    #[error("LUN {0} is there twice, or no number of a unit (0 to 16383)")]
    Number(u64),
    /// What was stored of its reservations cannot be used.
    #[error("{0}")]
    Store(#[from] crate::store::StoreError),
}

impl Lun {
    /// A unit of a device.
    pub fn new(number: u64, device: Arc<dyn BlockDevice>) -> Lun {
        Lun { number, device, provisioning: None, read_only: false, write_through: false, tells_early: false }
    }

    /// The device can tell where its data lie: the unit is thin.
    #[must_use]
    pub fn thin(self, provisioning: Arc<dyn Provisioning>) -> Lun {
        Lun { provisioning: Some(provisioning), ..self }
    }

    /// Changes are refused.
    #[must_use]
    pub fn read_only(self, read_only: bool) -> Lun {
        Lun { read_only, ..self }
    }

    /// Tells early that keys are gone.
    #[must_use]
    pub fn tells_early(self, tells_early: bool) -> Lun {
        Lun { tells_early, ..self }
    }

    /// Has no write cache.
    #[must_use]
    pub fn write_through(self, write_through: bool) -> Lun {
        Lun { write_through, ..self }
    }
}

impl std::fmt::Debug for Lun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lun").field("number", &self.number).field("device", &self.device.describe()).finish()
    }
}
