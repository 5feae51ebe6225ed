//! Each service action, by the clauses of SPC-4.

use scsi::reservations::Isid;

use super::*;
use ReservationType::{
    ExclusiveAccess, ExclusiveAccessAllRegistrants, WriteExclusive, WriteExclusiveAllRegistrants,
    WriteExclusiveRegistrantsOnly,
};

const PORTS_OF_TARGET: [u16; 2] = [1, 2];

fn nexus(n: u8) -> NexusName {
    NexusName { initiator: format!("iqn.2026-01.test:{n}"), isid: Isid([0x80, 0, 0, 0, 0, n]), port: 1 }
}

fn key(n: u64) -> ReservationKey {
    ReservationKey(n)
}

struct Unit(Reservations);

impl Unit {
    /// Nexus n with key n, for each of these.
    fn of(registered: &[u8]) -> Unit {
        let mut unit = Unit(Reservations::default());
        for n in registered {
            unit.ok(*n, &register(0, u64::from(*n)));
        }
        unit
    }

    fn go(&mut self, n: u8, change: &Change) -> Result<Changed, Refused> {
        let changed = self.0.apply(&nexus(n), change, &PORTS_OF_TARGET)?;
        self.0 = changed.state.clone();
        Ok(changed)
    }

    fn ok(&mut self, n: u8, change: &Change) -> Changed {
        self.go(n, change).unwrap_or_else(|e| panic!("{change:?} of {n}: {e:?}"))
    }

    fn conflict(&mut self, n: u8, change: &Change) {
        assert_eq!(self.go(n, change), Err(Refused::Conflict), "{change:?} of {n}");
    }

    fn illegal(&mut self, n: u8, change: &Change) -> AdditionalCode {
        match self.go(n, change) {
            Err(Refused::Sense(sense)) if sense.key == SenseKey::IllegalRequest => sense.code,
            other => panic!("{change:?} of {n}: {other:?}"),
        }
    }

    fn keys(&self) -> Vec<u64> {
        self.0.registered.values().map(|k| k.0).collect()
    }

    fn role(&self, n: u8) -> Role {
        self.0.role(&nexus(n))
    }
}

fn register(from: u64, to: u64) -> Change {
    Change::Register { from: key(from), to: Registration { key: key(to), ..Registration::default() } }
}

fn reserve(n: u64, kind: ReservationType) -> Change {
    Change::Reserve { key: key(n), kind }
}

fn preempt(n: u64, victim: u64, kind: ReservationType) -> Change {
    Change::Preempt { key: key(n), victim: key(victim), kind, abort: false }
}

#[test]
fn register_needs_the_key_that_is_registered_and_zero_takes_it_away() {
    let mut unit = Unit::of(&[1]);
    unit.conflict(2, &register(9, 2));
    unit.conflict(1, &register(9, 3));
    unit.ok(1, &register(1, 3));
    assert_eq!(unit.keys(), [3]);
    unit.ok(1, &register(3, 0));
    assert_eq!(unit.keys(), []);
    unit.ok(1, &register(0, 0));
    unit.ok(1, &Change::RegisterAndIgnore { to: Registration { key: key(5), ..Registration::default() } });
    unit.ok(1, &Change::RegisterAndIgnore { to: Registration { key: key(6), ..Registration::default() } });
    assert_eq!(unit.keys(), [6]);
}

#[test]
fn generation_counts_changes_of_registrations_and_not_reservations() {
    let mut unit = Unit::of(&[1, 2]);
    assert_eq!(unit.0.generation, 2);
    unit.ok(1, &reserve(1, WriteExclusive));
    unit.ok(1, &Change::Release { key: key(1), kind: WriteExclusive });
    assert_eq!(unit.0.generation, 2);
    unit.conflict(1, &register(9, 9));
    assert_eq!(unit.0.generation, 2, "a refused one counts nothing");
    unit.ok(1, &preempt(1, 2, WriteExclusive));
    unit.ok(1, &Change::Clear { key: key(1) });
    assert_eq!(unit.0.generation, 4);
    unit.0.generation = u32::MAX;
    unit.ok(1, &register(0, 1));
    assert_eq!(unit.0.generation, 0);
}

#[test]
fn register_on_all_ports_and_for_other_initiator_ports() {
    let mut unit = Unit::of(&[]);
    let ports = vec![nexus(2).transport(), nexus(3).transport()];
    let to = Registration { key: key(7), persist: true, all_ports: true, ports };
    unit.ok(1, &Change::Register { from: key(0), to: to.clone() });
    assert_eq!(unit.keys(), [7; 6]);
    assert!(unit.0.persist);
    let other_port = NexusName { port: 2, ..nexus(3) };
    assert_eq!(unit.0.role(&other_port), Role::Registrant);
    // Of a nexus that is registered, and of one that ignores its key, it is no field (SPC-4 table 214).
    let again = Change::Register { from: key(7), to: to.clone() };
    assert_eq!(unit.illegal(1, &again), AdditionalCode::INVALID_FIELD_IN_PARAMETER_LIST);
    assert_eq!(unit.illegal(1, &Change::RegisterAndIgnore { to }), AdditionalCode::INVALID_FIELD_IN_PARAMETER_LIST);
    let nobody = vec![TransportId::IscsiDevice { name: "iqn.2026-01.test:2".into() }];
    let to = Registration { key: key(7), persist: false, all_ports: false, ports: nobody };
    unit.illegal(4, &Change::Register { from: key(0), to });
}

#[test]
fn registrations_are_bounded() {
    let mut unit = Unit::of(&[]);
    for n in 0..MAX_REGISTRATIONS {
        let name = NexusName { initiator: format!("iqn.2026-01.test:many-{n}"), ..nexus(1) };
        unit.0.registered.insert(name, key(1));
    }
    assert_eq!(unit.illegal(2, &register(0, 2)), AdditionalCode::INSUFFICIENT_REGISTRATION_RESOURCES);
}

#[test]
fn reserve_is_for_registrants_and_the_same_one_again_is_good() {
    let mut unit = Unit::of(&[1, 2]);
    unit.conflict(3, &reserve(3, WriteExclusive));
    unit.conflict(1, &reserve(2, WriteExclusive));
    unit.ok(1, &reserve(1, ExclusiveAccess));
    unit.ok(1, &reserve(1, ExclusiveAccess));
    unit.conflict(1, &reserve(1, WriteExclusive));
    unit.conflict(2, &reserve(2, ExclusiveAccess));
    assert_eq!((unit.role(1), unit.role(2), unit.role(3)), (Role::Holder, Role::Registrant, Role::Stranger));
    let mut unit = Unit::of(&[1, 2]);
    unit.ok(1, &reserve(1, ExclusiveAccessAllRegistrants));
    unit.ok(2, &reserve(2, ExclusiveAccessAllRegistrants));
    assert_eq!((unit.role(1), unit.role(2)), (Role::Holder, Role::Holder));
    assert_eq!(unit.0.held().reservation.map(|r| r.key), Some(ReservationKey::NONE));
    unit.ok(3, &register(0, 3));
    assert_eq!(unit.role(3), Role::Holder, "whoever registers later holds it too");
}

#[test]
fn release_is_the_holders_and_tells_those_who_relied_on_it() {
    let mut unit = Unit::of(&[1, 2]);
    unit.ok(1, &reserve(1, WriteExclusiveRegistrantsOnly));
    unit.conflict(3, &Change::Release { key: key(3), kind: WriteExclusiveRegistrantsOnly });
    unit.ok(2, &Change::Release { key: key(2), kind: WriteExclusiveRegistrantsOnly });
    assert!(unit.0.hold.is_some(), "who holds nothing releases nothing");
    let wrong = Change::Release { key: key(1), kind: WriteExclusive };
    assert_eq!(unit.illegal(1, &wrong), AdditionalCode::INVALID_RELEASE);
    let told = unit.ok(1, &Change::Release { key: key(1), kind: WriteExclusiveRegistrantsOnly }).tell;
    assert_eq!(told, [(nexus(2), AdditionalCode::RESERVATIONS_RELEASED)]);
    unit.ok(1, &reserve(1, WriteExclusive));
    assert_eq!(unit.ok(1, &Change::Release { key: key(1), kind: WriteExclusive }).tell, []);
}

#[test]
fn reservation_ends_with_its_holders_registration_or_with_the_last_one() {
    let mut unit = Unit::of(&[1, 2]);
    unit.ok(1, &reserve(1, WriteExclusiveRegistrantsOnly));
    let told = unit.ok(1, &register(1, 0)).tell;
    assert_eq!((unit.0.hold.clone(), told), (None, vec![(nexus(2), AdditionalCode::RESERVATIONS_RELEASED)]));
    let mut unit = Unit::of(&[1, 2]);
    unit.ok(1, &reserve(1, WriteExclusiveAllRegistrants));
    unit.ok(1, &register(1, 0));
    assert!(unit.0.hold.is_some());
    unit.ok(2, &register(2, 0));
    assert!(unit.0.hold.is_none());
}

#[test]
fn clear_takes_everything_and_tells_everybody_else() {
    let mut unit = Unit::of(&[1, 2, 3]);
    unit.ok(1, &reserve(1, ExclusiveAccess));
    unit.conflict(2, &Change::Clear { key: key(9) });
    let told = unit.ok(2, &Change::Clear { key: key(2) }).tell;
    let code = AdditionalCode::RESERVATIONS_PREEMPTED;
    assert_eq!(told, [(nexus(1), code), (nexus(3), code)]);
    assert_eq!((unit.keys(), unit.0.hold.is_none()), (vec![], true));
}

#[test]
fn preempting_the_holders_key_takes_the_reservation_over() {
    let mut unit = Unit::of(&[1, 2, 3]);
    unit.ok(1, &reserve(1, WriteExclusiveRegistrantsOnly));
    unit.conflict(9, &preempt(9, 1, ExclusiveAccess));
    let told = unit.ok(2, &preempt(2, 1, ExclusiveAccess)).tell;
    assert_eq!(unit.keys(), [2, 3]);
    assert_eq!(unit.0.hold, Some(Hold { kind: ExclusiveAccess, by: Some(nexus(2)) }));
    assert_eq!(
        told,
        [(nexus(1), AdditionalCode::REGISTRATIONS_PREEMPTED), (nexus(3), AdditionalCode::RESERVATIONS_RELEASED),]
    );
    // The holder may preempt its own key to change the type; it stays registered.
    unit.ok(2, &preempt(2, 2, WriteExclusive));
    assert_eq!((unit.keys(), unit.0.hold.as_ref().map(|h| h.kind)), (vec![2, 3], Some(WriteExclusive)));
}

#[test]
fn preempting_another_key_removes_registrations_only() {
    let mut unit = Unit::of(&[1, 2, 3]);
    unit.ok(1, &reserve(1, ExclusiveAccess));
    let told = unit.ok(2, &preempt(2, 3, WriteExclusive)).tell;
    assert_eq!(told, [(nexus(3), AdditionalCode::REGISTRATIONS_PREEMPTED)]);
    assert_eq!((unit.keys(), unit.0.hold.as_ref().map(|h| h.kind)), (vec![1, 2], Some(ExclusiveAccess)));
    unit.conflict(2, &preempt(2, 3, WriteExclusive));
    assert_eq!(unit.illegal(2, &preempt(2, 0, WriteExclusive)), AdditionalCode::INVALID_FIELD_IN_PARAMETER_LIST);
}

#[test]
fn preempting_zero_of_all_registrants_leaves_only_the_preempter() {
    let mut unit = Unit::of(&[1, 2, 3]);
    unit.ok(1, &reserve(1, ExclusiveAccessAllRegistrants));
    unit.ok(2, &preempt(2, 3, ExclusiveAccessAllRegistrants));
    assert_eq!((unit.keys(), unit.role(1)), (vec![1, 2], Role::Holder), "a key that is named goes alone");
    unit.ok(2, &preempt(2, 0, WriteExclusive));
    assert_eq!((unit.keys(), unit.role(2)), (vec![2], Role::Holder));
    let mut unit = Unit::of(&[1]);
    unit.ok(1, &reserve(1, ExclusiveAccessAllRegistrants));
    unit.ok(1, &preempt(1, 1, ExclusiveAccessAllRegistrants));
    assert!(unit.0.hold.is_none(), "nobody is left to hold it");
}

#[test]
fn preempt_and_abort_names_whose_commands_end() {
    let mut unit = Unit::of(&[1, 2, 3]);
    unit.ok(1, &reserve(1, ExclusiveAccessAllRegistrants));
    let change = |abort| Change::Preempt { key: key(1), victim: key(2), kind: ExclusiveAccessAllRegistrants, abort };
    let mut other = Unit(unit.0.clone());
    assert_eq!(unit.ok(1, &change(true)).abort, [nexus(2)]);
    assert_eq!(other.ok(1, &change(false)).abort, []);
    assert_eq!(unit.0, other.0);
}

#[test]
fn register_and_move_is_the_holders() {
    let relocate = |n: u64, to: u64, unregister| Change::RegisterAndMove {
        key: key(n),
        to: key(to),
        unregister,
        persist: true,
        port: RelativePort(1),
        initiator: nexus(5).transport(),
    };
    let mut unit = Unit::of(&[1, 2]);
    unit.conflict(1, &relocate(1, 5, false));
    unit.ok(1, &reserve(1, WriteExclusive));
    unit.conflict(2, &relocate(2, 5, false));
    assert_eq!(unit.illegal(1, &relocate(1, 0, false)), AdditionalCode::INVALID_FIELD_IN_PARAMETER_LIST);
    unit.ok(1, &relocate(1, 5, true));
    assert_eq!((unit.keys(), unit.role(5), unit.role(1)), (vec![2, 5], Role::Holder, Role::Stranger));
    unit.illegal(5, &relocate(5, 6, false));
    let mut unit = Unit::of(&[1]);
    unit.ok(1, &reserve(1, ExclusiveAccessAllRegistrants));
    unit.conflict(1, &relocate(1, 5, false));
    unit.illegal(1, &Change::ReplaceLost { key: key(1) });
}

#[test]
fn every_registration_is_told_with_its_nexus() {
    let mut unit = Unit::of(&[1, 2]);
    unit.ok(2, &reserve(2, WriteExclusive));
    let status = unit.0.full_status();
    assert_eq!(status.registrants.len(), 2);
    assert_eq!(status.registrants[1].holds, Some(WriteExclusive));
    assert_eq!(status.registrants[1].initiator, nexus(2).transport());
    assert_eq!((status.registrants[0].holds, status.registrants[0].port), (None, Some(RelativePort(1))));
    assert_eq!(unit.0.keys().keys, [key(1), key(2)]);
    assert_eq!(unit.0.held().reservation.map(|r| (r.key, r.kind)), Some((key(2), WriteExclusive)));
}
