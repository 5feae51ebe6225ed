//! SET TARGET PORT GROUPS parameter list (SPC-4 6.45).

use zerocopy::IntoBytes;

use super::{AccessState, PortGroup};
use crate::cdb::{Cdb, SetTargetPortGroups};
use crate::error::ListError;
use crate::units::ByteCount;
use crate::wire::{U16, wire};

wire!(
    /// SPC-4 table 342.
    WireSet [4] { state: u8, reserved: u8, group: U16 }
);

/// Reserved bytes in front of the descriptors.
const FRONT: usize = 4;
const SET: usize = size_of::<WireSet>();

/// States that groups are to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetStates {
    /// Each group with its new state; others are left to the target.
    pub groups: Vec<(PortGroup, AccessState)>,
}

impl SetStates {
    /// The most groups in one list; as [`super::PortGroups::MAX`].
    pub const MAX: usize = 1024;

    /// The command and the parameter list that goes out with it.
    pub fn command(&self) -> (Cdb, Vec<u8>) {
        let mut list = vec![0; FRONT];
        for (group, state) in &self.groups {
            let wire = WireSet { state: state.code(), reserved: 0, group: U16::new(group.0) };
            list.extend_from_slice(wire.as_bytes());
        }
        let len = ByteCount::of(&list).unwrap_or(ByteCount(u32::MAX));
        (SetTargetPortGroups { list: len }.cdb(), list)
    }

    /// A target reads the list. Only active, standby, unavailable and offline can be asked for (SPC-4 table 343).
    pub fn parse(list: &[u8]) -> Result<SetStates, ListError> {
        let body = list.get(FRONT..).ok_or(ListError::Length)?;
        let (sets, rest) = body.as_chunks::<SET>();
        if !rest.is_empty() {
            return Err(ListError::Length);
        }
        if sets.len() > SetStates::MAX {
            return Err(ListError::TooMany { max: SetStates::MAX });
        }
        let mut groups = Vec::with_capacity(sets.len());
        for (n, [state, _, high, low]) in sets.iter().enumerate() {
            let state = AccessState::from_code(state & 0xf).filter(|state| *state != AccessState::Transitioning);
            let state = state.ok_or(ListError::byte(FRONT + n * SET))?;
            groups.push((PortGroup(u16::from_be_bytes([*high, *low])), state));
        }
        Ok(SetStates { groups })
    }
}
