//! What an I_T nexus is called, and how it is numbered.

use scsi::reservations::{Isid, TransportId};

/// The name of an I_T nexus: initiator port and target port. Registrations are bound to it, over sessions and restarts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct NexusName {
    /// The initiator's iSCSI name.
    pub(crate) initiator: String,
    /// With it, the initiator port.
    pub(crate) isid: Isid,
    /// The target port: the number of the portal group, of the port group and of the relative target port.
    pub(crate) port: u16,
}

impl NexusName {
    /// The initiator port.
    pub(crate) fn transport(&self) -> TransportId {
        TransportId::IscsiPort { name: self.initiator.clone(), isid: self.isid }
    }
}

/// One session. Numbers are never used again while the target runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct NexusId(pub(crate) u64);
