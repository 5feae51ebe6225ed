//! READ FULL STATUS (SPC-4 6.15.5): every registration with its I_T nexus.

use zerocopy::IntoBytes;

use super::holder::kind;
use super::keys::{body, front};
use super::{Generation, ReservationType, TransportId};
use crate::alua::RelativePort;
use crate::error::ParseError;
use crate::units::ReservationKey;
use crate::wire::{U16, U32, U64, bit, entry, flag, len32, take, wire};

wire!(
    /// SPC-4 table 209.
    WireStatus [24] {
        key: U64, reserved: [u8; 4], flags: u8, kind: u8, more: [u8; 4], port: U16, len: U32,
    }
);

/// One registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registrant {
    /// Its key.
    pub key: ReservationKey,
    /// What it holds, if it holds the reservation (R_HOLDER).
    pub holds: Option<ReservationType>,
    /// The target port; `None` if it is registered on all of them (ALL_TG_PT).
    pub port: Option<RelativePort>,
    /// The initiator port; [`TransportId::Other`] also where it cannot be read. Of a registration the key is what counts,
    /// and a name that is none must not hide it.
    pub initiator: TransportId,
}

/// Every registration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FullStatus {
    /// The generation at which these were the registrations.
    pub generation: Generation,
    /// The registrations.
    pub registrants: Vec<Registrant>,
}

const WHAT: &str = "READ FULL STATUS data";

impl FullStatus {
    /// The most registrations that an answer can carry: 65 535 bytes, 48 for each at least.
    pub const MAX: usize = 65_535 / 48;

    /// Reads the whole list, or says how many bytes it has.
    pub fn parse(bytes: &[u8]) -> Result<FullStatus, ParseError> {
        let (generation, mut list) = body(WHAT, bytes)?;
        let mut registrants = Vec::new();
        while !list.is_empty() {
            if registrants.len() == FullStatus::MAX {
                return Err(ParseError::TooMany { what: WHAT, max: FullStatus::MAX });
            }
            let (wire, rest) = entry::<WireStatus>(WHAT, list)?;
            let (id, rest) = take(WHAT, rest, len32(wire.len))?;
            registrants.push(Registrant {
                key: ReservationKey(wire.key.get()),
                holds: if bit(wire.flags, 0) { Some(kind(WHAT, wire.kind)?) } else { None },
                port: (!bit(wire.flags, 1)).then_some(RelativePort(wire.port.get())),
                initiator: initiator(id),
            });
            list = rest;
        }
        Ok(FullStatus { generation, registrants })
    }

    /// The whole answer; a target cuts it to the allocation length.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut list = Vec::new();
        for one in &self.registrants {
            let id = one.initiator.to_bytes();
            let wire = WireStatus {
                key: U64::new(one.key.0),
                reserved: [0; 4],
                flags: flag(one.port.is_none(), 1) | flag(one.holds.is_some(), 0),
                kind: one.holds.map_or(0, ReservationType::code),
                more: [0; 4],
                port: U16::new(one.port.map_or(0, |port| port.0)),
                len: U32::new(u32::try_from(id.len()).unwrap_or(0)),
            };
            list.extend_from_slice(wire.as_bytes());
            list.extend_from_slice(&id);
        }
        let mut bytes = front(self.generation, list.len());
        bytes.append(&mut list);
        bytes
    }
}

/// The name that fills all of `id`, or its bytes.
fn initiator(id: &[u8]) -> TransportId {
    match TransportId::parse(id) {
        Ok((name, [])) => name,
        _ => TransportId::Other(id.to_vec()),
    }
}
