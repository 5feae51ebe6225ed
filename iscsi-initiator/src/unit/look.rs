//! How a unit is reached over a session: whether it answers, its port group, its registration.

use std::time::Duration;

use block::multipath::{Access, Reason};
use scsi::ByteCount;
use scsi::action::First;
use scsi::alua::PortGroups;
use scsi::cdb::{ReportTargetPortGroups, TestUnitReady};

use super::ask::Asked;
use super::device::LunDevice;
use super::follow::follow;
use super::identify::names;
use super::{Identity, UnitError};

/// Bytes asked for of the list of port groups: a hundred groups of two ports.
const GROUPS: ByteCount = ByteCount(4096);

impl LunDevice {
    /// Asks the unit how it is over this session.
    pub(crate) async fn look(&self) -> Result<Access, Reason> {
        let failed = |e: UnitError| Reason::CheckFailed(e.to_string());
        let asked = self.inner.asked();
        // First: a unit answers this through every port, and tells why nothing else goes through this one.
        let access = access(&asked, self.identity()).await.map_err(failed)?;
        if !access.takes_requests() {
            return Ok(access);
        }
        asked.ask("TEST UNIT READY", TestUnitReady.cdb()).await.map_err(failed)?;
        // What the questions have brought up, such as another size, and whether this nexus is still registered.
        let first = First::VerifyReservation { cache_lost: false };
        if let Err(kind) = follow(&self.inner, first).await {
            return Err(match kind {
                block::error::IoErrorKind::Fenced => Reason::Fenced,
                kind => Reason::CheckFailed(kind.to_string()),
            });
        }
        Ok(access)
    }
}

/// The state of the port group that this session goes through; plain where the unit has no groups.
async fn access(asked: &Asked, identity: &Identity) -> Result<Access, UnitError> {
    let support = identity.inquiry.port_groups;
    if !support.implicit && !support.explicit {
        return Ok(Access::PLAIN);
    }
    let groups = match port_groups(asked, true).await {
        // It may not know the extended header. LIO (Linux 6.12) does, and leaves it out of the length: its answer ends within
        // the last group.
        Err(UnitError::Failed { .. } | UnitError::Parse { .. }) => port_groups(asked, false).await?,
        told => told?,
    };
    // Which port this session goes through, only the page read over it tells.
    let here = names(asked).await?.identification;
    let by_group = here.port_group().and_then(|g| groups.group(g));
    let group = by_group.or_else(|| here.port().and_then(|p| groups.of_port(p)));
    Ok(group.map_or(Access::PLAIN, |group| Access {
        state: group.state,
        preferred: group.preferred,
        transition: groups.transition_seconds.map(|s| Duration::from_secs(s.into())),
    }))
}

async fn port_groups(asked: &Asked, extended: bool) -> Result<PortGroups, UnitError> {
    let command = "REPORT TARGET PORT GROUPS";
    let bytes = asked.ask(command, ReportTargetPortGroups { extended, alloc: GROUPS }.cdb()).await?;
    PortGroups::parse(&bytes).map_err(|source| UnitError::Parse { command, source })
}
