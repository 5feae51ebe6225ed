//! A change of registrations or of the reservation: PERSISTENT RESERVE OUT with its parameter list (SPC-4 6.16.3,
//! 6.16.4).

use zerocopy::IntoBytes;

use super::{OutAction, ReservationType, TransportId};
use crate::alua::RelativePort;
use crate::cdb::{Cdb, PersistentReserveOut};
use crate::error::ListError;
use crate::units::{ByteCount, ReservationKey};
use crate::wire::{U16, U32, U64, bit, flag, len32, wire};

wire!(
    /// SPC-4 table 213: all actions but REGISTER AND MOVE.
    WireBasic [24] {
        key: U64, action_key: U64, obsolete: [u8; 4], flags: u8, reserved: u8, end: [u8; 2],
    }
);
wire!(
    /// SPC-4 table 215: REGISTER AND MOVE.
    WireMove [24] { key: U64, action_key: U64, reserved: u8, flags: u8, port: U16, id_len: U32 }
);

/// The most initiator ports that one registration may name; as many as a cluster has paths, with room.
const MAX_PORTS: usize = 256;

/// A change of registrations or of the reservation.
///
/// RESERVATION CONFLICT as its status does not say whether another nexus was faster or an earlier try of the same
/// change had succeeded unnoticed: READ KEYS and READ RESERVATION settle it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// REGISTER: this nexus, which is registered with `from` (or not, if that is [`ReservationKey::NONE`]), is registered
    /// with `to`; unregistered if that is `NONE`.
    Register {
        /// The key that is registered now.
        from: ReservationKey,
        /// The key that is wanted.
        to: Registration,
    },
    /// REGISTER AND IGNORE EXISTING KEY: the same, whatever is registered now.
    RegisterAndIgnore {
        /// The key that is wanted.
        to: Registration,
    },
    /// RESERVE.
    Reserve {
        /// The key of this nexus.
        key: ReservationKey,
        /// The type.
        kind: ReservationType,
    },
    /// RELEASE.
    Release {
        /// The key of this nexus.
        key: ReservationKey,
        /// The type that is held.
        kind: ReservationType,
    },
    /// CLEAR.
    Clear {
        /// The key of this nexus.
        key: ReservationKey,
    },
    /// PREEMPT and PREEMPT AND ABORT.
    Preempt {
        /// The key of this nexus.
        key: ReservationKey,
        /// The key whose registrations go. `NONE` is for reservations of all registrants: all others go.
        victim: ReservationKey,
        /// The type that is reserved if the victim held the reservation.
        kind: ReservationType,
        /// Whether what the victim's nexuses have outstanding is aborted too. Only then can none of it land later.
        abort: bool,
    },
    /// REGISTER AND MOVE.
    RegisterAndMove {
        /// The key of this nexus, which holds the reservation.
        key: ReservationKey,
        /// The key of the nexus that gets it.
        to: ReservationKey,
        /// UNREG: this nexus is unregistered.
        unregister: bool,
        /// APTPL.
        persist: bool,
        /// The target port of the nexus that gets it.
        port: RelativePort,
        /// Its initiator port.
        initiator: TransportId,
    },
    /// REPLACE LOST RESERVATION.
    ReplaceLost {
        /// The key.
        key: ReservationKey,
    },
}

/// What a registration is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registration {
    /// The key; `NONE` unregisters.
    pub key: ReservationKey,
    /// APTPL: registrations and the reservation survive a loss of power.
    pub persist: bool,
    /// ALL_TG_PT: on every target port.
    pub all_ports: bool,
    /// SPEC_I_PT: these initiator ports too; at most 256.
    pub ports: Vec<TransportId>,
}

impl Registration {
    /// A registration of this I_T nexus alone that survives a loss of power.
    pub fn persistent(key: ReservationKey) -> Registration {
        Registration { key, persist: true, all_ports: false, ports: Vec::new() }
    }
}

impl Change {
    /// The service action.
    pub fn action(&self) -> OutAction {
        match self {
            Change::Register { .. } => OutAction::Register,
            Change::RegisterAndIgnore { .. } => OutAction::RegisterAndIgnore,
            Change::Reserve { .. } => OutAction::Reserve,
            Change::Release { .. } => OutAction::Release,
            Change::Clear { .. } => OutAction::Clear,
            Change::Preempt { abort: false, .. } => OutAction::Preempt,
            Change::Preempt { abort: true, .. } => OutAction::PreemptAndAbort,
            Change::RegisterAndMove { .. } => OutAction::RegisterAndMove,
            Change::ReplaceLost { .. } => OutAction::ReplaceLost,
        }
    }

    /// The command and the parameter list that goes out with it.
    pub fn command(&self) -> (Cdb, Vec<u8>) {
        let list = self.list();
        let kind = match self {
            Change::Reserve { kind, .. } | Change::Release { kind, .. } | Change::Preempt { kind, .. } => Some(*kind),
            _ => None,
        };
        let len = ByteCount::of(&list).unwrap_or(ByteCount(u32::MAX));
        (PersistentReserveOut { action: self.action(), kind, list: len }.cdb(), list)
    }

    fn list(&self) -> Vec<u8> {
        match self {
            Change::Register { from, to } => registration(*from, to),
            Change::RegisterAndIgnore { to } => registration(ReservationKey::NONE, to),
            Change::Reserve { key, .. } | Change::Release { key, .. } | Change::Clear { key } => {
                basic(*key, ReservationKey::NONE, 0)
            }
            Change::ReplaceLost { key } => basic(ReservationKey::NONE, *key, 0),
            Change::Preempt { key, victim, .. } => basic(*key, *victim, 0),
            Change::RegisterAndMove { key, to, unregister, persist, port, initiator } => {
                let mut id = initiator.to_bytes();
                let wire = WireMove {
                    key: U64::new(key.0),
                    action_key: U64::new(to.0),
                    reserved: 0,
                    flags: flag(*unregister, 1) | flag(*persist, 0),
                    port: U16::new(port.0),
                    id_len: U32::new(u32::try_from(id.len()).unwrap_or(0)),
                };
                let mut list = wire.as_bytes().to_vec();
                list.append(&mut id);
                list
            }
        }
    }

    /// A target reads the list of a command that it has parsed. The list must have exactly the length that the command
    /// states (SPC-4 6.16.3).
    pub fn parse(command: &PersistentReserveOut, list: &[u8]) -> Result<Change, ListError> {
        if ByteCount::of(list) != Some(command.list) {
            return Err(ListError::Length);
        }
        if command.action == OutAction::RegisterAndMove {
            return parse_move(list);
        }
        let (wire, rest) = zerocopy::Ref::<_, WireBasic>::from_prefix(list).map_err(|_| ListError::Length)?;
        let (key, action_key) = (ReservationKey(wire.key.get()), ReservationKey(wire.action_key.get()));
        let registers = matches!(command.action, OutAction::Register | OutAction::RegisterAndIgnore);
        if bit(wire.flags, 3) && !registers {
            return Err(ListError::InvalidField { byte: 20, bit: Some(3) });
        }
        if !bit(wire.flags, 3) && !rest.is_empty() {
            return Err(ListError::Length);
        }
        let kind = command.kind.ok_or(ListError::InvalidField { byte: 2, bit: None });
        Ok(match command.action {
            OutAction::Register => {
                Change::Register { from: key, to: parse_registration(action_key, wire.flags, rest)? }
            }
            OutAction::RegisterAndIgnore => {
                Change::RegisterAndIgnore { to: parse_registration(action_key, wire.flags, rest)? }
            }
            OutAction::Reserve => Change::Reserve { key, kind: kind? },
            OutAction::Release => Change::Release { key, kind: kind? },
            OutAction::Clear => Change::Clear { key },
            OutAction::Preempt => Change::Preempt { key, victim: action_key, kind: kind?, abort: false },
            OutAction::PreemptAndAbort => Change::Preempt { key, victim: action_key, kind: kind?, abort: true },
            OutAction::ReplaceLost => Change::ReplaceLost { key: action_key },
            OutAction::RegisterAndMove => return parse_move(list),
        })
    }
}

fn basic(key: ReservationKey, action_key: ReservationKey, flags: u8) -> Vec<u8> {
    let (key, action_key) = (U64::new(key.0), U64::new(action_key.0));
    WireBasic { key, action_key, obsolete: [0; 4], flags, reserved: 0, end: [0; 2] }.as_bytes().to_vec()
}

fn registration(from: ReservationKey, to: &Registration) -> Vec<u8> {
    let specify = !to.ports.is_empty();
    let mut list = basic(from, to.key, flag(specify, 3) | flag(to.all_ports, 2) | flag(to.persist, 0));
    if specify {
        let mut ids: Vec<u8> = to.ports.iter().take(MAX_PORTS).flat_map(TransportId::to_bytes).collect();
        list.extend_from_slice(U32::new(u32::try_from(ids.len()).unwrap_or(0)).as_bytes());
        list.append(&mut ids);
    }
    list
}

fn parse_registration(key: ReservationKey, flags: u8, rest: &[u8]) -> Result<Registration, ListError> {
    let mut ports = Vec::new();
    if bit(flags, 3) {
        let (len, mut ids) = zerocopy::Ref::<_, U32>::from_prefix(rest).map_err(|_| ListError::Length)?;
        if len32(*len) != ids.len() {
            return Err(ListError::Length);
        }
        while !ids.is_empty() {
            if ports.len() == MAX_PORTS {
                return Err(ListError::TooMany { max: MAX_PORTS });
            }
            let at = 28 + rest.len().saturating_sub(4 + ids.len());
            let (id, after) = TransportId::parse(ids).map_err(|_| ListError::byte(at))?;
            ports.push(id);
            ids = after;
        }
    }
    Ok(Registration { key, persist: bit(flags, 0), all_ports: bit(flags, 2), ports })
}

fn parse_move(list: &[u8]) -> Result<Change, ListError> {
    let (wire, id) = zerocopy::Ref::<_, WireMove>::from_prefix(list).map_err(|_| ListError::Length)?;
    if len32(wire.id_len) != id.len() {
        return Err(ListError::Length);
    }
    let (initiator, after) = TransportId::parse(id).map_err(|_| ListError::byte(24))?;
    if !after.is_empty() {
        return Err(ListError::Length);
    }
    Ok(Change::RegisterAndMove {
        key: ReservationKey(wire.key.get()),
        to: ReservationKey(wire.action_key.get()),
        unregister: bit(wire.flags, 1),
        persist: bit(wire.flags, 0),
        port: RelativePort(wire.port.get()),
        initiator,
    })
}
