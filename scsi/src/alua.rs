//! Asymmetric logical unit access (SPC-4 5.15): through which target ports a unit is reached well.
//!
//! Target ports are in groups; each group has an [`AccessState`]. [`PortGroups`] is the answer of REPORT TARGET PORT
//! GROUPS, [`SetStates`] the list of SET TARGET PORT GROUPS.

mod report;
mod set;
mod state;
#[cfg(test)]
mod tests;

use std::fmt;

pub use report::{Group, PortGroups, StatusCode};
pub use set::SetStates;
pub use state::{AccessState, SupportedStates};

/// The number of a target port within its target, from 1 (relative target port identifier).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelativePort(pub u16);

/// The number of a target port group (target port group identifier). Not iSCSI's portal group tag, though most targets
/// give both the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortGroup(pub u16);

impl fmt::Display for RelativePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "target port {}", self.0)
    }
}

impl fmt::Display for PortGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port group {}", self.0)
    }
}
