//! Byte vectors are laid out by hand from SPC-4 tables 304 to 309 and 342.

use proptest::prelude::*;

use super::*;
use crate::cdb::{Command, Transfer};
use crate::error::{ListError, ParseError};
use crate::units::ByteCount;

/// Two groups of an array with two controllers: the first good and preferred with ports 1 and 2, the second slower with
/// port 3.
fn groups() -> PortGroups {
    let supported = SupportedStates {
        active_optimized: true,
        active_non_optimized: true,
        standby: true,
        unavailable: true,
        logical_block_dependent: false,
        offline: false,
        transitioning: true,
    };
    let first = Group {
        group: PortGroup(1),
        preferred: true,
        state: AccessState::ActiveOptimized,
        supported,
        status: StatusCode::Explicit,
        ports: vec![RelativePort(1), RelativePort(2)],
    };
    let second = Group {
        group: PortGroup(0x0102),
        preferred: false,
        state: AccessState::ActiveNonOptimized,
        status: StatusCode::Implicit,
        ports: vec![RelativePort(3)],
        ..first.clone()
    };
    PortGroups { transition_seconds: None, groups: vec![first, second] }
}

const BYTES: [u8; 32] = [
    0, 0, 0, 28, //
    0x80, 0x8f, 0, 1, 0, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, //
    0x01, 0x8f, 1, 2, 0, 2, 0, 1, 0, 0, 0, 3,
];

#[test]
fn groups_are_read_and_written() {
    assert_eq!(PortGroups::parse(&BYTES), Ok(groups()));
    assert_eq!(groups().to_bytes(false), BYTES);
    assert_eq!(groups().of_port(RelativePort(3)).map(|g| g.group), Some(PortGroup(0x0102)));
    assert_eq!(groups().group(PortGroup(9)), None);
}

/// SPC-4 table 305; a target that does not know the extended header leaves it out, although it was asked for.
#[test]
fn the_extended_header_is_told_from_a_group() {
    let extended = PortGroups { transition_seconds: Some(60), ..groups() };
    let bytes = extended.to_bytes(true);
    assert_eq!(bytes[..8], [0, 0, 0, 32, 0x10, 60, 0, 0]);
    assert_eq!(PortGroups::parse(&bytes), Ok(extended));
    assert_eq!(PortGroups::parse(&groups().to_bytes(true)), Ok(groups()), "0 seconds is not told");
}

#[test]
fn wrong_answers_are_refused() {
    assert_eq!(PortGroups::parse(&BYTES[..20]).map_err(|e| e.wanted(4096)), Err(Some(32)));
    let change = |at: usize, value: u8| {
        let mut bytes = BYTES;
        bytes[at] = value;
        PortGroups::parse(&bytes)
    };
    assert!(matches!(change(11, 200), Err(ParseError::Overrun { .. })));
    assert!(matches!(change(4, 0x85), Err(ParseError::BadField { value: 5, .. })));
    assert_eq!(change(4, 0xa0), Ok(groups()), "reserved bits of a group are no header");
    assert_eq!(PortGroups::parse(&[0, 0, 0, 0]), Ok(PortGroups::default()));
}

/// SPC-4 table 342, 343.
#[test]
fn states_are_asked_for() {
    let set = SetStates { groups: vec![(PortGroup(0x0102), AccessState::Standby)] };
    let (cdb, list) = set.command();
    assert_eq!(list, [0, 0, 0, 0, 2, 0, 1, 2]);
    assert_eq!(cdb.transfer(), Transfer::Out(ByteCount(8)));
    assert!(matches!(Command::parse(cdb.head()), Ok(Command::SetTargetPortGroups(_))));
    assert_eq!(SetStates::parse(&list), Ok(set));
    assert_eq!(SetStates::parse(&list[..7]), Err(ListError::Length));
    assert_eq!(SetStates::parse(&list[..3]), Err(ListError::Length));
    let transitioning = SetStates::parse(&[0, 0, 0, 0, 0xf, 0, 0, 1]);
    assert_eq!(transitioning, Err(ListError::InvalidField { byte: 4, bit: None }));
}

#[test]
fn only_active_states_take_io() {
    let takes: Vec<u8> =
        (0..16).filter(|code| AccessState::from_code(*code).is_some_and(AccessState::takes_io)).collect();
    assert_eq!(takes, [0, 1, 4]);
}

proptest! {
    #[test]
    fn any_answer_is_read_or_refused_and_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..200), len: u8) {
        let mut bytes = bytes;
        if let Some(length) = bytes.get_mut(..4) {
            length.copy_from_slice(&[0, 0, 0, len]);
        }
        if let Ok(groups) = PortGroups::parse(&bytes) {
            prop_assert_eq!(PortGroups::parse(&groups.to_bytes(true)), Ok(groups.clone()));
            let plain = PortGroups { transition_seconds: None, ..groups };
            prop_assert_eq!(PortGroups::parse(&plain.to_bytes(false)), Ok(plain));
        }
        let _ = SetStates::parse(&bytes);
    }
}
