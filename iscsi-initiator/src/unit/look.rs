//! How a unit is reached over a session: whether it answers, its port group, its registration.

use std::time::Duration;

use block::multipath::{Access, Reason};
use scsi::ByteCount;
use scsi::action::First;
use scsi::alua::PortGroups;
use scsi::cdb::{ReportTargetPortGroups, TestUnitReady};

use super::ask::Asked;
use super::device::LunDevice;
use super::follow::{follow, still_registered};
use super::identify::names;
use super::{Identity, UnitError};

/// Bytes asked for of the list of port groups: a hundred groups of two ports.
const GROUPS: ByteCount = ByteCount(4096);

/// A unit that answers, and has not told within this time who is registered, is just ending the commands of a nexus that was preempted:
/// targets hold the answer back until then, for as long as the disk takes. The path is well, and should this nexus be the one, its next
/// request meets the reservation. Prevents: a write of one node is stuck in the disk, and all paths of all others count as failed.
const KEYS_WITHIN: Duration = Duration::from_secs(1);

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
        let looked = match tokio::time::timeout(KEYS_WITHIN, still_registered(&self.inner)).await {
            Ok(Err(e)) => Err(e),
            // What the questions have brought up, such as another size.
            Ok(Ok(())) | Err(_) => follow(&self.inner, First::Nothing).await,
        };
        looked.map(|()| access).map_err(|kind| match kind {
            block::error::IoErrorKind::Fenced => Reason::Fenced,
            kind => Reason::CheckFailed(kind.to_string()),
        })
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
