//! READ RESERVATION (SPC-4 6.15.3): who holds what.

use zerocopy::IntoBytes;

use super::keys::{body, front};
use super::{Generation, ReservationType};
use crate::error::ParseError;
use crate::units::ReservationKey;
use crate::wire::{U32, U64, entry, wire};

wire!(
    /// SPC-4 table 200, behind the additional length.
    WireReservation [16] { key: U64, obsolete: U32, reserved: u8, kind: u8, extent: [u8; 2] }
);

/// A reservation of the whole logical unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The holder's key; [`ReservationKey::NONE`] where all registrants hold it.
    pub key: ReservationKey,
    /// Its type.
    pub kind: ReservationType,
}

/// What is held, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The generation of the registrations.
    pub generation: Generation,
    /// The reservation; `None` if there is none.
    pub reservation: Option<Reservation>,
}

const WHAT: &str = "READ RESERVATION data";

impl Held {
    /// Reads the answer.
    pub fn parse(bytes: &[u8]) -> Result<Held, ParseError> {
        let (generation, body) = body(WHAT, bytes)?;
        if body.is_empty() {
            return Ok(Held { generation, reservation: None });
        }
        let (wire, _) = entry::<WireReservation>(WHAT, body)?;
        let kind = kind(WHAT, wire.kind)?;
        Ok(Held { generation, reservation: Some(Reservation { key: ReservationKey(wire.key.get()), kind }) })
    }

    /// The whole answer; a target cuts it to the allocation length.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Some(Reservation { key, kind }) = self.reservation else { return front(self.generation, 0) };
        let wire = WireReservation {
            key: U64::new(key.0),
            obsolete: U32::ZERO,
            reserved: 0,
            kind: kind.code(),
            extent: [0; 2],
        };
        let mut bytes = front(self.generation, size_of::<WireReservation>());
        bytes.extend_from_slice(wire.as_bytes());
        bytes
    }
}

/// SCOPE and TYPE. Extent and element scopes are obsolete; a reservation that is not of the whole unit fences nobody.
pub(super) fn kind(what: &'static str, byte: u8) -> Result<ReservationType, ParseError> {
    if byte >> 4 != 0 {
        return Err(ParseError::BadField { what, field: "SCOPE", value: u64::from(byte >> 4) });
    }
    let wrong = ParseError::BadField { what, field: "TYPE", value: u64::from(byte) };
    ReservationType::from_code(byte).ok_or(wrong)
}
