//! Byte vectors are laid out by hand from the tables of SPC-4 6.15 and 6.16 that each test names.

use proptest::prelude::*;

use super::*;
use crate::alua::RelativePort;
use crate::cdb::{Command, Transfer};
use crate::error::{ListError, ParseError};
use crate::units::{ByteCount, ReservationKey};

const A: ReservationKey = ReservationKey(0x0001_0010_0000_0001);
const B: ReservationKey = ReservationKey(0x0001_0020_0000_0002);

/// SPC-4 table 199 (READ KEYS).
const KEYS: [u8; 24] = [0, 0, 0, 7, 0, 0, 0, 16, 0, 1, 0, 0x10, 0, 0, 0, 1, 0, 1, 0, 0x20, 0, 0, 0, 2];

#[test]
fn keys_are_read_and_written() {
    let keys = Keys { generation: Generation(7), keys: vec![A, B] };
    assert_eq!(Keys::parse(&KEYS), Ok(keys.clone()));
    assert_eq!(keys.to_bytes(), KEYS);
    assert_eq!(Keys::parse(&[0, 0, 0, 0, 0, 0, 0, 0]), Ok(Keys::default()));
}

/// A fence preempts every key of its victim. A list that was cut off and taken for whole would leave one nexus of the
/// victim writing.
#[test]
fn a_cut_list_of_keys_is_never_a_shorter_one() {
    for len in 0..KEYS.len() {
        let cut = Keys::parse(&KEYS[..len]);
        assert!(matches!(cut, Err(ParseError::Truncated { .. })), "{len}: {cut:?}");
    }
    assert_eq!(Keys::parse(&KEYS[..16]).map_err(|e| e.wanted(65_535)), Err(Some(24)));
    let mut bytes = KEYS;
    bytes[4] = 0xff;
    assert_eq!(Keys::parse(&bytes).map_err(|e| e.wanted(65_535)), Err(None), "no target is given 4 GiB");
    bytes = KEYS;
    bytes[7] = 15;
    assert!(matches!(Keys::parse(&bytes), Err(ParseError::BadField { .. })));
}

/// SPC-4 table 200 (READ RESERVATION): exclusive access, all registrants, which has key 0.
#[test]
fn the_reservation_is_read_and_written() {
    let bytes = [0, 0, 0, 7, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0];
    let kind = ReservationType::ExclusiveAccessAllRegistrants;
    let reservation = Some(Reservation { key: ReservationKey::NONE, kind });
    let held = Held { generation: Generation(7), reservation };
    assert_eq!(Held::parse(&bytes), Ok(held));
    assert_eq!(held.to_bytes(), bytes);
    let none = Held { reservation: None, ..held };
    assert_eq!(Held::parse(&none.to_bytes()), Ok(none));
    for (at, value, field) in [(21, 0x18, "SCOPE"), (21, 2, "TYPE"), (21, 0, "TYPE")] {
        let mut wrong = bytes;
        wrong[at] = value;
        let refused = Held::parse(&wrong);
        assert!(matches!(refused, Err(ParseError::BadField { field: f, .. }) if f == field), "{refused:?}");
    }
    assert!(matches!(Held::parse(&bytes[..20]), Err(ParseError::Truncated { need: 24, .. })));
    let mut short = bytes;
    short[7] = 8;
    assert!(matches!(Held::parse(&short), Err(ParseError::Overrun { .. })));
}

/// SPC-4 tables 205 to 207 (REPORT CAPABILITIES).
#[test]
fn capabilities_are_read_and_written() {
    let bytes = [0, 8, 0b1001_1101, 0b1011_0001, 0b1110_1010, 1, 0, 0];
    let all = Capabilities {
        replace_lost: true,
        reserve6_compatible: true,
        specify_ports: true,
        all_target_ports: true,
        persist_through_power_loss: true,
        persist_active: true,
        allowed: AllowedCommands(3),
        types: Some(TypeSet::of(&ReservationType::ALL)),
    };
    assert_eq!(Capabilities::parse(&bytes), Ok(all));
    assert_eq!(all.to_bytes(), bytes);
    let types = TypeSet::of(&[ReservationType::WriteExclusiveRegistrantsOnly]);
    let some = Capabilities { types: Some(types), ..Capabilities::default() };
    assert_eq!((some.to_bytes()[3], &some.to_bytes()[4..6]), (0x80, &[0x20, 0][..]));
    assert!(types.has(ReservationType::WriteExclusiveRegistrantsOnly));
    assert!(!types.has(ReservationType::ExclusiveAccessAllRegistrants));
    let silent = Capabilities::parse(&Capabilities::default().to_bytes()).expect("capabilities");
    assert_eq!(silent.types, None, "no TMV");
    assert!(Capabilities::parse(&bytes[..7]).is_err());
    assert!(Capabilities::parse(&[0; 8]).is_err(), "LENGTH");
}

/// SPC-4 7.6.4.6: TPID format 01b, the name with `,i,0x` and the session identifier, a zero, padded to four bytes.
fn port_id() -> (TransportId, Vec<u8>) {
    let id = TransportId::IscsiPort { name: "iqn.2026-01.test:a".to_owned(), isid: Isid([0x80, 0, 0, 1, 2, 3]) };
    let mut bytes = vec![0x45, 0, 0, 36];
    bytes.extend_from_slice(b"iqn.2026-01.test:a,i,0x800000010203\0");
    (id, bytes)
}

#[test]
fn an_iscsi_port_is_named() {
    let (id, bytes) = port_id();
    assert_eq!(id.to_bytes(), bytes);
    assert_eq!(TransportId::parse(&bytes), Ok((id.clone(), &[][..])));
    assert_eq!(id.to_string(), "iqn.2026-01.test:a,i,0x800000010203");
    let device = TransportId::IscsiDevice { name: "iqn.a".to_owned() };
    let bytes = device.to_bytes();
    assert_eq!((bytes.len(), &bytes[..10]), (24, &b"\x05\0\0\x14iqn.a\0"[..]));
    assert_eq!(TransportId::parse(&bytes), Ok((device, &[][..])));
}

#[test]
fn what_names_no_iscsi_port_is_refused() {
    let (_, good) = port_id();
    let change = |from: &[u8], to: &[u8]| {
        let mut bytes = good.clone();
        let at = bytes.windows(from.len()).position(|w| w == from).expect("it is there");
        bytes[at..at + to.len()].copy_from_slice(to);
        TransportId::parse(&bytes).map(|(id, _)| id)
    };
    assert!(matches!(change(b",i,0x", b",t,0x"), Err(ParseError::BadField { field: "SEPARATOR", .. })));
    assert!(change(b"800000", b"80000g").is_err());
    assert!(change(b"test", b"te\xffst").is_err());
    assert!(change(&[0x45], &[0x85]).is_err());
    assert!(matches!(change(&[36], &[40]), Err(ParseError::Overrun { .. })));
    assert!(matches!(TransportId::parse(&[0x45, 0, 0xff, 0xff]), Err(ParseError::BadField { .. })), "too long");
    assert!(TransportId::parse(&[]).is_err());
    let other = [0x06; 24];
    assert_eq!(TransportId::parse(&other), Ok((TransportId::Other(other.to_vec()), &[][..])), "SAS");
}

/// SPC-4 table 209 (READ FULL STATUS).
#[test]
fn full_status_is_read_and_written() {
    let (initiator, id) = port_id();
    let mut bytes = vec![0, 0, 0, 7, 0, 0, 0, 128];
    bytes.extend([0, 1, 0, 0x10, 0, 0, 0, 1, 0, 0, 0, 0, 0x01, 0x05, 0, 0, 0, 0, 0, 2, 0, 0, 0, 40]);
    bytes.extend_from_slice(&id);
    bytes.extend([0, 1, 0, 0x20, 0, 0, 0, 2, 0, 0, 0, 0, 0x02, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0, 40]);
    bytes.extend_from_slice(&id);
    let kind = ReservationType::WriteExclusiveRegistrantsOnly;
    let holder = Registrant { key: A, holds: Some(kind), port: Some(RelativePort(2)), initiator: initiator.clone() };
    let everywhere = Registrant { key: B, holds: None, port: None, initiator };
    let status = FullStatus { generation: Generation(7), registrants: vec![holder, everywhere] };
    assert_eq!(FullStatus::parse(&bytes), Ok(status.clone()));
    assert_eq!(status.to_bytes(), bytes);
    assert_eq!(FullStatus::parse(&bytes[..100]).map_err(|e| e.wanted(65_535)), Err(Some(136)));
    bytes[31] = 200;
    assert!(matches!(FullStatus::parse(&bytes), Err(ParseError::Overrun { .. })));
}

/// SPC-4 5.13.1, tables 30 and 31, and 6.15.3.4: what each type forbids to whom.
#[test]
fn each_type_forbids_what_the_table_says() {
    use Access::{Read, Write};
    use Role::{Holder, Registrant, Stranger};
    // In the order of the codes: registrant reads, registrant writes, stranger reads, stranger writes.
    let table = [
        [true, false, true, false],
        [false, false, false, false],
        [true, true, true, false],
        [true, true, false, false],
        [true, true, true, false],
        [true, true, false, false],
    ];
    for (kind, row) in ReservationType::ALL.into_iter().zip(table) {
        assert!(kind.permits(Read, Holder) && kind.permits(Write, Holder), "{kind}");
        let found = [(Read, Registrant), (Write, Registrant), (Read, Stranger), (Write, Stranger)]
            .map(|(access, role)| kind.permits(access, role));
        assert_eq!(found, row, "{kind}");
        assert_eq!(ReservationType::from_code(kind.code()), Some(kind));
    }
    assert!([0, 2, 4, 9, 0xf].iter().all(|code| ReservationType::from_code(*code).is_none()));
}

/// SPC-4 table 213: key, service action key, flags in byte 20.
#[test]
fn changes_carry_their_keys() {
    let kind = ReservationType::ExclusiveAccessAllRegistrants;
    let register = Change::Register { from: A, to: Registration::persistent(B) };
    let (cdb, list) = register.command();
    assert_eq!(cdb.head()[..10], [0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0]);
    assert_eq!(cdb.transfer(), Transfer::Out(ByteCount(24)));
    let bytes = [0, 1, 0, 0x10, 0, 0, 0, 1, 0, 1, 0, 0x20, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0, 0];
    assert_eq!(list, bytes);
    let preempt = Change::Preempt { key: A, victim: B, kind, abort: true };
    let (cdb, list) = preempt.command();
    assert_eq!(cdb.head()[..3], [0x5f, 5, 8]);
    assert_eq!((&list[..20], list[20]), (&bytes[..20], 0));
    let (cdb, list) = Change::ReplaceLost { key: B }.command();
    assert_eq!((cdb.head()[1], &list[..8], &list[8..16]), (8, &[0; 8][..], &bytes[8..16]));
}

/// SPC-4 table 215: REGISTER AND MOVE; table 213 with SPEC_I_PT: the length and the names behind it.
#[test]
fn changes_name_other_ports() {
    let (initiator, id) = port_id();
    let change = Change::RegisterAndMove {
        key: A,
        to: B,
        unregister: true,
        persist: true,
        port: RelativePort(2),
        initiator: initiator.clone(),
    };
    let (cdb, list) = change.command();
    assert_eq!((cdb.head()[1], list.len()), (7, 64));
    assert_eq!(list[16..24], [0, 3, 0, 2, 0, 0, 0, 40]);
    assert_eq!(list[24..], id);
    let ports = vec![initiator.clone(), initiator];
    let to = Registration { key: B, persist: false, all_ports: true, ports };
    let (cdb, list) = Change::RegisterAndIgnore { to }.command();
    assert_eq!((cdb.head()[1], list[20], list.len()), (6, 0x0c, 24 + 4 + 80));
    assert_eq!(list[24..28], [0, 0, 0, 80]);
}

#[test]
fn wrong_lists_are_refused() {
    let (initiator, _) = port_id();
    let to = Registration { ports: vec![initiator], ..Registration::persistent(B) };
    let (cdb, list) = Change::Register { from: A, to }.command();
    let Ok(Command::PersistentReserveOut(command)) = Command::parse(cdb.head()) else { panic!("it is one") };
    assert_eq!(Change::parse(&command, &list[..30]), Err(ListError::Length), "not the length of the command");
    let mut wrong = list.clone();
    wrong[27] = 39;
    assert_eq!(Change::parse(&command, &wrong), Err(ListError::Length));
    wrong = list.clone();
    wrong[33] = 0xff;
    assert_eq!(Change::parse(&command, &wrong), Err(ListError::InvalidField { byte: 28, bit: None }));
    wrong = list.clone();
    wrong[20] = 1;
    assert_eq!(Change::parse(&command, &wrong), Err(ListError::Length), "names without SPEC_I_PT");
    let command = crate::cdb::PersistentReserveOut { action: OutAction::Clear, ..command };
    let refused = Change::parse(&command, &list);
    assert_eq!(refused, Err(ListError::InvalidField { byte: 20, bit: Some(3) }), "SPEC_I_PT with CLEAR");
    assert_eq!(Change::parse(&command, &[]), Err(ListError::Length));
}

fn any_key() -> impl Strategy<Value = ReservationKey> {
    any::<u64>().prop_map(ReservationKey)
}

fn any_id() -> impl Strategy<Value = TransportId> {
    let name = "[a-z0-9.:-]{1,223}";
    prop_oneof![
        name.prop_map(|name| TransportId::IscsiDevice { name }),
        (name, any::<[u8; 6]>()).prop_map(|(name, isid)| TransportId::IscsiPort { name, isid: Isid(isid) }),
        any::<[u8; 24]>().prop_map(|mut bytes| {
            bytes[0] = bytes[0] & 0xf0 | 6;
            TransportId::Other(bytes.to_vec())
        }),
    ]
}

fn any_kind() -> impl Strategy<Value = ReservationType> {
    proptest::sample::select(&ReservationType::ALL[..])
}

fn any_registration() -> impl Strategy<Value = Registration> {
    let ports = proptest::collection::vec(any_id(), 0..4);
    (any_key(), any::<bool>(), any::<bool>(), ports).prop_map(|(key, persist, all_ports, ports)| Registration {
        key,
        persist,
        all_ports,
        ports,
    })
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any_key(), any_registration()).prop_map(|(from, to)| Change::Register { from, to }),
        any_registration().prop_map(|to| Change::RegisterAndIgnore { to }),
        (any_key(), any_kind()).prop_map(|(key, kind)| Change::Reserve { key, kind }),
        (any_key(), any_kind()).prop_map(|(key, kind)| Change::Release { key, kind }),
        any_key().prop_map(|key| Change::Clear { key }),
        (any_key(), any_key(), any_kind(), any::<bool>()).prop_map(|(key, victim, kind, abort)| Change::Preempt {
            key,
            victim,
            kind,
            abort
        }),
        any_key().prop_map(|key| Change::ReplaceLost { key }),
        (any_key(), any_key(), any::<(bool, bool, u16)>(), any_id()).prop_map(
            |(key, to, (unregister, persist, port), initiator)| Change::RegisterAndMove {
                key,
                to,
                unregister,
                persist,
                port: RelativePort(port),
                initiator
            }
        ),
    ]
}

proptest! {
    #[test]
    fn a_target_reads_the_change_that_was_sent(change in any_change()) {
        let (cdb, list) = change.command();
        let Ok(Command::PersistentReserveOut(command)) = Command::parse(cdb.head()) else { panic!("it is one") };
        prop_assert_eq!(Change::parse(&command, &list), Ok(change));
    }

    #[test]
    fn any_list_is_read_or_refused(
        action in 0u8..9,
        list in proptest::collection::vec(any::<u8>(), 0..200),
        specify: bool,
    ) {
        let mut list = list;
        if let Some(flags) = list.get_mut(20).filter(|_| specify) {
            *flags |= 8;
        }
        let len = ByteCount::of(&list).expect("short");
        let action = OutAction::from_code(action).expect("an action");
        let kind = action.has_type().then_some(ReservationType::WriteExclusive);
        let _ = Change::parse(&crate::cdb::PersistentReserveOut { action, kind, list: len }, &list);
    }

    #[test]
    fn any_answer_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), len: u8) {
        let mut bytes = bytes;
        // Half of them with a length that is not absurd.
        if let Some(more) = bytes.get_mut(4..8).filter(|_| len & 1 == 0) {
            more.copy_from_slice(&[0, 0, 0, len]);
        }
        let _ = (Keys::parse(&bytes), Held::parse(&bytes), Capabilities::parse(&bytes), TransportId::parse(&bytes));
        if let Ok(status) = FullStatus::parse(&bytes) {
            prop_assert!(status.registrants.len() <= bytes.len() / 24);
        }
    }
}
