//! PERSISTENT RESERVE IN and OUT (SPC-4 6.15, 6.16). Their data is in [`crate::reservations`].

use zerocopy::IntoBytes;

use super::block::{Cdb, Transfer};
use super::op;
use super::range::layout;
use crate::error::CdbError;
use crate::reservations::{InAction, OutAction, ReservationType};
use crate::units::{ByteCount, ShortByteCount};
use crate::wire::{U16, U32, wire};

wire!(
    /// SPC-4 table 196.
    WireIn [10] { code: u8, action: u8, reserved: [u8; 5], alloc: U16, control: u8 }
);
wire!(
    /// SPC-4 table 211.
    WireOut [10] { code: u8, action: u8, kind: u8, reserved: [u8; 2], list: U32, control: u8 }
);

/// PERSISTENT RESERVE IN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PersistentReserveIn {
    /// What is asked.
    pub action: InAction,
    /// Bytes that the initiator takes.
    pub alloc: ShortByteCount,
}

/// PERSISTENT RESERVE OUT. [`crate::reservations::Change`] builds it together with its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PersistentReserveOut {
    /// What is to be done.
    pub action: OutAction,
    /// TYPE, of a reservation of the whole unit (SCOPE 0); for the actions that look at it.
    pub kind: Option<ReservationType>,
    /// Bytes of the parameter list.
    pub list: ByteCount,
}

impl PersistentReserveIn {
    /// The command descriptor block.
    pub fn cdb(&self) -> Cdb {
        let (code, action) = (op::PERSISTENT_RESERVE_IN.0, self.action.code());
        let wire = WireIn { code, action, reserved: [0; 5], alloc: U16::new(self.alloc.0), control: 0 };
        Cdb::short(wire.as_bytes(), Transfer::input(self.alloc.into()))
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<PersistentReserveIn, CdbError> {
        let wire: &WireIn = layout(cdb)?;
        let action = InAction::from_code(wire.action & 0x1f).ok_or(CdbError::bit(1, 4))?;
        Ok(PersistentReserveIn { action, alloc: ShortByteCount(wire.alloc.get()) })
    }
}

impl PersistentReserveOut {
    /// The command descriptor block.
    pub fn cdb(&self) -> Cdb {
        let wire = WireOut {
            code: op::PERSISTENT_RESERVE_OUT.0,
            action: self.action.code(),
            kind: self.kind.map_or(0, ReservationType::code),
            reserved: [0; 2],
            list: U32::new(self.list.0),
            control: 0,
        };
        Cdb::short(wire.as_bytes(), Transfer::output(self.list))
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<PersistentReserveOut, CdbError> {
        let wire: &WireOut = layout(cdb)?;
        let action = OutAction::from_code(wire.action & 0x1f).ok_or(CdbError::bit(1, 4))?;
        let kind = match action.has_type() {
            false => None,
            // SCOPE other than the logical unit is reserved.
            true if wire.kind >> 4 != 0 => return Err(CdbError::bit(2, 7)),
            true => Some(ReservationType::from_code(wire.kind & 0xf).ok_or(CdbError::bit(2, 3))?),
        };
        Ok(PersistentReserveOut { action, kind, list: ByteCount(wire.list.get()) })
    }
}
