//! Persistent reservations of one logical unit (SPC-4 5.13, 6.15, 6.16): who is registered, what is held, and what each
//! service action makes of that.
//!
//! [`Reservations::apply`] changes nothing: it says what the state *would* be, who would have to be told, and whose commands
//! would have to be aborted. The caller stores that state first (APTPL) and puts it in force afterwards, so that no GOOD
//! is answered for what a loss of power takes back.
//!
//! Invariants: a reservation is held by a registrant, or (types 7 and 8) by all of them, of whom there is at least one;
//! PRGENERATION grows with every change of registrations and with nothing else.

pub(crate) mod file;
mod preempt;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use scsi::alua::RelativePort;
use scsi::reservations::{
    Access, AllowedCommands, Capabilities, Change, FullStatus, Generation, Held, Keys, Registrant, Registration,
    Reservation, ReservationType, Role, TransportId, TypeSet,
};
use scsi::{AdditionalCode, ListError, ReservationKey, Sense, SenseKey};

use super::name::NexusName;

/// The most registrations: 64 nodes of 16 paths. READ KEYS tells them all in one answer; more are refused.
pub(crate) const MAX_REGISTRATIONS: usize = 1024;

/// What is registered and held.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Reservations {
    pub(crate) generation: u32,
    pub(crate) registered: BTreeMap<NexusName, ReservationKey>,
    pub(crate) hold: Option<Hold>,
    /// APTPL of the last registration: all this survives a loss of power.
    pub(crate) persist: bool,
}

/// The reservation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Hold {
    pub(crate) kind: ReservationType,
    /// None for the types that every registrant holds.
    pub(crate) by: Option<NexusName>,
}

/// What a service action leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Changed {
    /// The state to be put in force.
    pub(crate) state: Reservations,
    /// Unit attentions to be established.
    pub(crate) tell: Vec<(NexusName, AdditionalCode)>,
    /// Nexuses whose commands are to be aborted.
    pub(crate) abort: Vec<NexusName>,
}

/// Why a service action is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// RESERVATION CONFLICT.
    Conflict,
    /// CHECK CONDITION.
    Sense(Sense),
}

/// The parameter list's field at `byte` is wrong.
fn wrong(byte: u16) -> Refused {
    Refused::Sense(ListError::InvalidField { byte, bit: None }.sense())
}

/// Bytes of the parameter list: the service action reservation key, the flags, the TransportIDs.
const ACTION_KEY: u16 = 8;
const FLAGS: u16 = 20;
const PORTS: u16 = 24;

impl Reservations {
    /// What a nexus is to the reservation.
    pub(crate) fn role(&self, nexus: &NexusName) -> Role {
        let registered = self.registered.contains_key(nexus);
        match &self.hold {
            Some(Hold { by: Some(holder), .. }) if holder == nexus => Role::Holder,
            Some(Hold { by: None, .. }) if registered => Role::Holder,
            _ if registered => Role::Registrant,
            _ => Role::Stranger,
        }
    }

    /// Whether a nexus may access the medium like this.
    pub(crate) fn permits(&self, nexus: &NexusName, access: Access) -> bool {
        self.hold.as_ref().is_none_or(|hold| hold.kind.permits(access, self.role(nexus)))
    }

    /// The service action `change` of a nexus. `ports` are all target ports.
    pub(crate) fn apply(&self, nexus: &NexusName, change: &Change, ports: &[u16]) -> Result<Changed, Refused> {
        match change {
            Change::Register { from, to } => self.register(nexus, Some(*from), to, ports),
            Change::RegisterAndIgnore { to } => self.register(nexus, None, to, ports),
            Change::Reserve { key, kind } => self.reserve(nexus, *key, *kind),
            Change::Release { key, kind } => self.release(nexus, *key, *kind),
            Change::Clear { key } => self.clear(nexus, *key),
            Change::Preempt { key, victim, kind, abort } => self.preempt(nexus, *key, (*victim, *kind), *abort),
            Change::RegisterAndMove { key, to, unregister, persist, port, initiator } => {
                let target = self.other(nexus, initiator, *port, ports)?;
                self.relocate(nexus, *key, (*to, target), *unregister, *persist)
            }
            // Reported as not there by REPORT CAPABILITIES (RLR_C); nothing was lost.
            Change::ReplaceLost { .. } => Err(Refused::Sense(scsi::CdbError::bit(1, 4).sense())),
        }
    }

    /// RESERVATION CONFLICT unless the nexus is registered with this key.
    fn must_be(&self, nexus: &NexusName, key: ReservationKey) -> Result<(), Refused> {
        if self.registered.get(nexus) == Some(&key) { Ok(()) } else { Err(Refused::Conflict) }
    }

    fn changed(&self) -> Changed {
        let mut state = self.clone();
        state.generation = state.generation.wrapping_add(1);
        Changed { state, tell: Vec::new(), abort: Vec::new() }
    }

    /// REGISTER, and REGISTER AND IGNORE EXISTING KEY without `from` (SPC-4 5.13.7, table 67).
    fn register(
        &self,
        nexus: &NexusName,
        from: Option<ReservationKey>,
        to: &Registration,
        ports: &[u16],
    ) -> Result<Changed, Refused> {
        let present = self.registered.get(nexus).copied().unwrap_or(ReservationKey::NONE);
        if from.is_some_and(|from| from != present) {
            return Err(Refused::Conflict);
        }
        if !to.ports.is_empty() && (from.is_none() || !present.is_none() || to.key.is_none()) {
            // SPEC_I_PT is for a nexus that is not registered yet (SPC-4 table 214).
            return Err(Refused::Sense(ListError::InvalidField { byte: FLAGS, bit: Some(3) }.sense()));
        }
        let mut changed = self.changed();
        changed.state.persist = to.persist;
        for name in self.meant(nexus, to, ports)? {
            if to.key.is_none() {
                changed.unregister(&name);
            } else {
                changed.state.registered.insert(name, to.key);
            }
        }
        if changed.state.registered.len() > MAX_REGISTRATIONS {
            let full = AdditionalCode::INSUFFICIENT_REGISTRATION_RESOURCES;
            return Err(Refused::Sense(Sense::new(SenseKey::IllegalRequest, full)));
        }
        Ok(changed)
    }

    /// The nexuses that a registration is for.
    fn meant(&self, nexus: &NexusName, to: &Registration, ports: &[u16]) -> Result<Vec<NexusName>, Refused> {
        let mut initiators = vec![(nexus.initiator.clone(), nexus.isid)];
        for id in &to.ports {
            match id {
                TransportId::IscsiPort { name, isid } => initiators.push((name.clone(), *isid)),
                // Without an ISID it names no initiator port (SPC-4 7.6.4.6).
                _ => return Err(wrong(PORTS)),
            }
        }
        let own = [nexus.port];
        let ports = if to.all_ports { ports } else { &own[..] };
        let all = initiators.iter().flat_map(|(initiator, isid)| {
            ports.iter().map(|port| NexusName { initiator: initiator.clone(), isid: *isid, port: *port })
        });
        Ok(all.collect())
    }

    fn reserve(&self, nexus: &NexusName, key: ReservationKey, kind: ReservationType) -> Result<Changed, Refused> {
        self.must_be(nexus, key)?;
        let mut changed = Changed { state: self.clone(), tell: Vec::new(), abort: Vec::new() };
        match &self.hold {
            None => changed.state.hold = Some(Hold::of(kind, nexus)),
            Some(hold) if hold.kind == kind && self.role(nexus) == Role::Holder => {}
            Some(_) => return Err(Refused::Conflict),
        }
        Ok(changed)
    }

    fn release(&self, nexus: &NexusName, key: ReservationKey, kind: ReservationType) -> Result<Changed, Refused> {
        self.must_be(nexus, key)?;
        let mut changed = Changed { state: self.clone(), tell: Vec::new(), abort: Vec::new() };
        match &self.hold {
            Some(hold) if self.role(nexus) == Role::Holder => {
                if hold.kind != kind {
                    return Err(Refused::Sense(Sense::new(SenseKey::IllegalRequest, AdditionalCode::INVALID_RELEASE)));
                }
                changed.let_go(Some(nexus));
            }
            // Nothing is held, or not by this nexus: GOOD, and nothing changes (SPC-4 5.13.11.2.2).
            _ => {}
        }
        Ok(changed)
    }

    fn clear(&self, nexus: &NexusName, key: ReservationKey) -> Result<Changed, Refused> {
        self.must_be(nexus, key)?;
        let mut changed = self.changed();
        changed.state.hold = None;
        for name in std::mem::take(&mut changed.state.registered).into_keys().filter(|n| n != nexus) {
            changed.tell.push((name, AdditionalCode::RESERVATIONS_PREEMPTED));
        }
        Ok(changed)
    }

    /// The nexus that REGISTER AND MOVE names.
    fn other(
        &self,
        nexus: &NexusName,
        initiator: &TransportId,
        port: RelativePort,
        ports: &[u16],
    ) -> Result<NexusName, Refused> {
        let TransportId::IscsiPort { name, isid } = initiator else { return Err(wrong(PORTS)) };
        if !ports.contains(&port.0) {
            return Err(wrong(18));
        }
        let other = NexusName { initiator: name.clone(), isid: *isid, port: port.0 };
        if other == *nexus { Err(wrong(PORTS)) } else { Ok(other) }
    }

    /// REGISTER AND MOVE (SPC-4 5.13.8).
    fn relocate(
        &self,
        nexus: &NexusName,
        key: ReservationKey,
        (to, target): (ReservationKey, NexusName),
        unregister: bool,
        persist: bool,
    ) -> Result<Changed, Refused> {
        self.must_be(nexus, key)?;
        let kind = match &self.hold {
            Some(Hold { kind, by: Some(by) }) if by == nexus => *kind,
            // Nobody moves what is not its own, nor what all registrants hold.
            _ => return Err(Refused::Conflict),
        };
        if to.is_none() {
            return Err(wrong(ACTION_KEY));
        }
        let mut changed = self.changed();
        changed.state.persist = persist;
        changed.state.registered.insert(target.clone(), to);
        changed.state.hold = Some(Hold { kind, by: Some(target) });
        if unregister {
            changed.state.registered.remove(nexus);
        }
        Ok(changed)
    }

    /// READ KEYS.
    pub(crate) fn keys(&self) -> Keys {
        Keys { generation: Generation(self.generation), keys: self.registered.values().copied().collect() }
    }

    /// READ RESERVATION.
    pub(crate) fn held(&self) -> Held {
        let reservation = self.hold.as_ref().map(|hold| Reservation {
            // Of a reservation that all registrants hold no key is told (SPC-4 6.15.3.2).
            key: hold.by.as_ref().and_then(|by| self.registered.get(by)).copied().unwrap_or_default(),
            kind: hold.kind,
        });
        Held { generation: Generation(self.generation), reservation }
    }

    /// READ FULL STATUS.
    pub(crate) fn full_status(&self) -> FullStatus {
        let registrants = self.registered.iter().map(|(name, key)| Registrant {
            key: *key,
            holds: self.hold.as_ref().filter(|_| self.role(name) == Role::Holder).map(|hold| hold.kind),
            port: Some(RelativePort(name.port)),
            initiator: name.transport(),
        });
        FullStatus { generation: Generation(self.generation), registrants: registrants.collect() }
    }

    /// REPORT CAPABILITIES: everything but REPLACE LOST RESERVATION and the exceptions for RESERVE(6).
    pub(crate) fn capabilities(&self, persists: bool) -> Capabilities {
        Capabilities {
            replace_lost: false,
            reserve6_compatible: false,
            specify_ports: true,
            all_target_ports: true,
            persist_through_power_loss: persists,
            persist_active: self.persist,
            // TEST UNIT READY goes through, and of the rest what the tables of SPC-4 and SBC-3 let through.
            allowed: AllowedCommands(1),
            types: Some(TypeSet::of(&ReservationType::ALL)),
        }
    }
}

impl Hold {
    /// A reservation of a nexus.
    fn of(kind: ReservationType, nexus: &NexusName) -> Hold {
        Hold { kind, by: (!kind.all_registrants()).then(|| nexus.clone()) }
    }
}

impl Changed {
    /// A registration ends. The reservation ends with its holder's, or with the last one's.
    fn unregister(&mut self, name: &NexusName) {
        if self.state.registered.remove(name).is_none() {
            return;
        }
        let ends = match &self.state.hold {
            Some(Hold { by: Some(by), .. }) => by == name,
            Some(Hold { by: None, .. }) => self.state.registered.is_empty(),
            None => false,
        };
        if ends {
            self.let_go(Some(name));
        }
    }

    /// The reservation ends. Where registrants could rely on it, they are told (SPC-4 5.13.11.2).
    fn let_go(&mut self, but: Option<&NexusName>) {
        let Some(hold) = self.state.hold.take() else { return };
        if hold.kind.registrants_may() {
            let others = self.state.registered.keys().filter(|name| Some(*name) != but).cloned();
            self.tell.extend(others.map(|name| (name, AdditionalCode::RESERVATIONS_RELEASED)));
        }
    }
}
