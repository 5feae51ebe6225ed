//! REPORT TARGET PORT GROUPS parameter data (SPC-4 6.37).

use zerocopy::IntoBytes;

use super::{AccessState, PortGroup, RelativePort, SupportedStates};
use crate::error::ParseError;
use crate::wire::{U16, U32, bit, entry, flag, head, len32, split, take, wire};

wire!(
    /// SPC-4 table 304.
    WireLength [4] { len: U32 }
);
wire!(
    /// SPC-4 table 305: the rest of the extended header.
    WireExtended [4] { format: u8, transition_seconds: u8, reserved: [u8; 2] }
);
wire!(
    /// SPC-4 table 306.
    WireGroup [8] {
        state: u8, supported: u8, group: U16, reserved: u8, status: u8, vendor: u8, ports: u8,
    }
);
wire!(
    /// SPC-4 table 309.
    WirePort [4] { obsolete: U16, port: U16 }
);

/// How a group came into its state (SPC-4 table 308).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusCode {
    /// 00h: not told.
    None,
    /// 01h: by SET TARGET PORT GROUPS.
    Explicit,
    /// 02h: by the target itself.
    Implicit,
    /// A reserved value.
    Unknown(u8),
}

/// A target port group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number.
    pub group: PortGroup,
    /// PREF: the target prefers these ports for the unit.
    pub preferred: bool,
    /// Its state.
    pub state: AccessState,
    /// The states it can have.
    pub supported: SupportedStates,
    /// How it came there.
    pub status: StatusCode,
    /// Its ports, at most 255.
    pub ports: Vec<RelativePort>,
}

/// All target port groups through which a unit is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortGroups {
    /// IMPLICIT TRANSITION TIME in seconds: how long a group may be transitioning. `None` without the extended header
    /// or where the target tells 0.
    pub transition_seconds: Option<u8>,
    /// The groups.
    pub groups: Vec<Group>,
}

const WHAT: &str = "REPORT TARGET PORT GROUPS data";
/// The format number of the extended header.
const EXTENDED: u8 = 1;

impl PortGroups {
    /// The most groups that are read: ten times what the largest arrays have.
    pub const MAX: usize = 1024;

    /// Reads the whole answer, with the extended header or without, or says how many bytes it has. A target that does not
    /// know the extended header answers without it, and its first group then tells: bits 6 to 4 of its first byte are
    /// reserved and zero.
    pub fn parse(bytes: &[u8]) -> Result<PortGroups, ParseError> {
        let (wire, rest) = head::<WireLength>(WHAT, bytes)?;
        let len = len32(wire.len);
        let cut = |_| ParseError::Truncated { what: WHAT, need: len.saturating_add(4), have: bytes.len() };
        let (mut list, _) = split(WHAT, rest, len).map_err(cut)?;
        let mut transition_seconds = None;
        if list.first().is_some_and(|first| first >> 4 & 7 == EXTENDED) {
            let (wire, rest) = entry::<WireExtended>(WHAT, list)?;
            transition_seconds = Some(wire.transition_seconds).filter(|seconds| *seconds != 0);
            list = rest;
        }
        let mut groups = Vec::new();
        while !list.is_empty() {
            if groups.len() == PortGroups::MAX {
                return Err(ParseError::TooMany { what: WHAT, max: PortGroups::MAX });
            }
            let (group, rest) = parse_group(list)?;
            groups.push(group);
            list = rest;
        }
        Ok(PortGroups { transition_seconds, groups })
    }

    /// The whole answer; a target cuts it to the allocation length.
    pub fn to_bytes(&self, extended: bool) -> Vec<u8> {
        let mut list = Vec::new();
        if extended {
            let transition_seconds = self.transition_seconds.unwrap_or(0);
            let wire = WireExtended { format: EXTENDED << 4, transition_seconds, reserved: [0; 2] };
            list.extend_from_slice(wire.as_bytes());
        }
        for group in &self.groups {
            let ports = group.ports.get(..255).unwrap_or(&group.ports);
            let wire = WireGroup {
                state: flag(group.preferred, 7) | group.state.code(),
                supported: group.supported.bits(),
                group: U16::new(group.group.0),
                reserved: 0,
                status: group.status.code(),
                vendor: 0,
                ports: u8::try_from(ports.len()).unwrap_or(u8::MAX),
            };
            list.extend_from_slice(wire.as_bytes());
            for port in ports {
                list.extend_from_slice(WirePort { obsolete: U16::ZERO, port: U16::new(port.0) }.as_bytes());
            }
        }
        let mut bytes = U32::new(u32::try_from(list.len()).unwrap_or(u32::MAX)).as_bytes().to_vec();
        bytes.append(&mut list);
        bytes
    }

    /// The group with this number.
    pub fn group(&self, group: PortGroup) -> Option<&Group> {
        self.groups.iter().find(|g| g.group == group)
    }

    /// The group of this port.
    pub fn of_port(&self, port: RelativePort) -> Option<&Group> {
        self.groups.iter().find(|g| g.ports.contains(&port))
    }
}

fn parse_group(bytes: &[u8]) -> Result<(Group, &[u8]), ParseError> {
    let (wire, rest) = entry::<WireGroup>(WHAT, bytes)?;
    let code = wire.state & 0xf;
    let unknown = ParseError::BadField { what: WHAT, field: "ASYMMETRIC ACCESS STATE", value: u64::from(code) };
    let (list, rest) = take(WHAT, rest, usize::from(wire.ports) * size_of::<WirePort>())?;
    let ports = list.as_chunks::<4>().0.iter().map(|[_, _, high, low]| RelativePort(u16::from_be_bytes([*high, *low])));
    let group = Group {
        group: PortGroup(wire.group.get()),
        preferred: bit(wire.state, 7),
        state: AccessState::from_code(code).ok_or(unknown)?,
        supported: SupportedStates::from_bits(wire.supported),
        status: StatusCode::from_code(wire.status),
        ports: ports.collect(),
    };
    Ok((group, rest))
}

impl StatusCode {
    fn code(self) -> u8 {
        match self {
            StatusCode::None => 0,
            StatusCode::Explicit => 1,
            StatusCode::Implicit => 2,
            StatusCode::Unknown(code) => code,
        }
    }

    fn from_code(code: u8) -> StatusCode {
        match code {
            0 => StatusCode::None,
            1 => StatusCode::Explicit,
            2 => StatusCode::Implicit,
            other => StatusCode::Unknown(other),
        }
    }
}
