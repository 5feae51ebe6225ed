//! REPORT CAPABILITIES (SPC-4 6.15.4): what the target's reservations can do.

use zerocopy::IntoBytes;

use super::ReservationType;
use crate::error::ParseError;
use crate::wire::{U16, bit, flag, head, len16, wire};

wire!(
    /// SPC-4 table 205.
    WireCapabilities [8] { len: U16, can: u8, does: u8, types: [u8; 2], reserved: [u8; 2] }
);

/// ALLOW COMMANDS: what a write-exclusive or exclusive-access reservation lets through although the model leaves it open
/// (SPC-4 table 206), as its three bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllowedCommands(pub u8);

/// A set of reservation types (PERSISTENT RESERVATION TYPE MASK).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TypeSet([u8; 2]);

impl TypeSet {
    /// Bits that stand for a type.
    const MASK: [u8; 2] = [0xea, 0x01];

    /// The set of these types.
    pub fn of(types: &[ReservationType]) -> TypeSet {
        let mut mask = [0; 2];
        for (byte, n) in types.iter().map(|kind| place(*kind)) {
            mask[byte] |= flag(true, n);
        }
        TypeSet(mask)
    }

    /// Whether this type is in it.
    pub fn has(self, kind: ReservationType) -> bool {
        let (byte, n) = place(kind);
        bit(self.0[byte], n)
    }
}

/// The capabilities of a target's persistent reservations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// RLR_C: REPLACE LOST RESERVATION is there.
    pub replace_lost: bool,
    /// CRH: the holder's RESERVE(6) and RELEASE(6) succeed without doing anything.
    pub reserve6_compatible: bool,
    /// SIP_C: registering for other initiator ports (SPEC_I_PT) is there.
    pub specify_ports: bool,
    /// ATP_C: registering on all target ports (ALL_TG_PT) is there.
    pub all_target_ports: bool,
    /// PTPL_C: registrations can survive a loss of power. A shared volume requires it.
    pub persist_through_power_loss: bool,
    /// PTPL_A: they do now.
    pub persist_active: bool,
    /// ALLOW COMMANDS.
    pub allowed: AllowedCommands,
    /// The types that there are; `None` where the target does not tell (TMV is zero).
    pub types: Option<TypeSet>,
}

const WHAT: &str = "REPORT CAPABILITIES data";

impl Capabilities {
    /// Reads the answer.
    pub fn parse(bytes: &[u8]) -> Result<Capabilities, ParseError> {
        let (wire, _) = head::<WireCapabilities>(WHAT, bytes)?;
        if len16(wire.len) < size_of::<WireCapabilities>() {
            return Err(ParseError::BadField { what: WHAT, field: "LENGTH", value: u64::from(wire.len.get()) });
        }
        Ok(Capabilities {
            replace_lost: bit(wire.can, 7),
            reserve6_compatible: bit(wire.can, 4),
            specify_ports: bit(wire.can, 3),
            all_target_ports: bit(wire.can, 2),
            persist_through_power_loss: bit(wire.can, 0),
            persist_active: bit(wire.does, 0),
            allowed: AllowedCommands(wire.does >> 4 & 7),
            types: bit(wire.does, 7)
                .then_some(TypeSet([wire.types[0] & TypeSet::MASK[0], wire.types[1] & TypeSet::MASK[1]])),
        })
    }

    /// The whole answer; a target cuts it to the allocation length.
    pub fn to_bytes(&self) -> [u8; 8] {
        let wire = WireCapabilities {
            len: U16::new(8),
            can: flag(self.replace_lost, 7)
                | flag(self.reserve6_compatible, 4)
                | flag(self.specify_ports, 3)
                | flag(self.all_target_ports, 2)
                | flag(self.persist_through_power_loss, 0),
            does: flag(self.types.is_some(), 7) | (self.allowed.0 & 7) << 4 | flag(self.persist_active, 0),
            types: self.types.unwrap_or_default().0,
            reserved: [0; 2],
        };
        let mut bytes = [0; 8];
        bytes.copy_from_slice(wire.as_bytes());
        bytes
    }
}

/// Byte and bit of a type in the mask (SPC-4 table 207).
fn place(kind: ReservationType) -> (usize, u8) {
    match kind {
        ReservationType::WriteExclusive => (0, 1),
        ReservationType::ExclusiveAccess => (0, 3),
        ReservationType::WriteExclusiveRegistrantsOnly => (0, 5),
        ReservationType::ExclusiveAccessRegistrantsOnly => (0, 6),
        ReservationType::WriteExclusiveAllRegistrants => (0, 7),
        ReservationType::ExclusiveAccessAllRegistrants => (1, 0),
    }
}
