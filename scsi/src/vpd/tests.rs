//! Byte vectors are laid out by hand from SPC-4 7.8 and SBC-3 6.6, the table that each test names.

use proptest::prelude::*;

use super::*;
use crate::alua::{PortGroup, RelativePort};
use crate::units::{BlockCount, Lba};

/// SPC-4 7.8.17.
#[test]
fn supported_pages() {
    let bytes = [0, 0, 0, 4, 0x00, 0x80, 0x83, 0xb0];
    let pages = SupportedPages::parse(&bytes).expect("a page");
    assert!(pages.has(PageCode::BLOCK_LIMITS) && !pages.has(PageCode::PROVISIONING));
    assert_eq!(pages.to_bytes(), bytes);
    let disordered = SupportedPages::parse(&[0, 0, 0, 4, 0x83, 0x00, 0xb0, 0x80]);
    assert_eq!(disordered, Ok(pages));
}

/// SPC-4 7.8.18.
#[test]
fn serial_number() {
    let bytes = [0, 0x80, 0, 8, b' ', b' ', b'A', b'1', b' ', b'7', 0, 0];
    let serial = UnitSerialNumber::parse(&bytes).expect("a page").expect("a number");
    assert_eq!(serial.as_str(), "A1 7");
    assert_eq!(UnitSerialNumber::parse(&serial.to_bytes()), Ok(Some(serial)));
    assert_eq!(UnitSerialNumber::parse(&[0, 0x80, 0, 2, b' ', 0]), Ok(None));
    assert_eq!(UnitSerialNumber::parse(&[0, 0x80, 0, 1, 0xff]).expect("a page"), UnitSerialNumber::new("."));
    assert_eq!((UnitSerialNumber::new(""), UnitSerialNumber::new("\n")), (None, None));
}

/// SPC-4 7.8.6.3 to 7.8.6.11: NAA registered extended of the unit; T10 vendor identification; relative target port and
/// target port group of an iSCSI port (PIV, protocol 5); the target's name.
const IDENTIFICATION: [u8; 76] = [
    0, 0x83, 0, 72, //
    0x01, 0x03, 0, 16, 0x60, 1, 4, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, //
    0x02, 0x01, 0, 12, b'A', b'C', b'M', b'E', b' ', b' ', b' ', b' ', b'v', b'o', b'l', b'1', //
    0x51, 0x94, 0, 4, 0, 0, 0, 2, //
    0x51, 0x95, 0, 4, 0, 0, 0, 1, //
    0x53, 0xa8, 0, 16, b'i', b'q', b'n', b'.', b'2', b'0', b'2', b'6', b'-', b'0', b'1', b'.', b't', b':', b'a', 0,
];

fn identification() -> DeviceIdentification {
    let naa = Naa::parse(&IDENTIFICATION[8..24]).expect("16 bytes of NAA 6h");
    let port = |identifier| Designator { association: Association::Port, protocol: Some(5), identifier };
    let name = Identifier::Name("iqn.2026-01.t:a".to_owned());
    DeviceIdentification {
        designators: vec![
            Designator::unit(Identifier::Naa(naa)),
            Designator::unit(Identifier::T10("ACME    vol1".to_owned())),
            port(Identifier::Port(RelativePort(2))),
            port(Identifier::PortGroup(PortGroup(1))),
            Designator { association: Association::Target, protocol: Some(5), identifier: name },
        ],
    }
}

#[test]
fn designators_are_read_and_written() {
    let read = DeviceIdentification::parse(&IDENTIFICATION).expect("a page");
    assert_eq!(read, identification());
    assert_eq!(read.to_bytes(), IDENTIFICATION);
    assert_eq!((read.port(), read.port_group()), (Some(RelativePort(2)), Some(PortGroup(1))));
    let name = read.unit_name().expect("a name");
    assert_eq!(name.to_string(), "naa.60010405000000000000000000000001");
}

#[test]
fn a_cut_page_says_how_long_it_is_and_a_wrong_one_is_refused() {
    for len in 4..IDENTIFICATION.len() {
        let cut = DeviceIdentification::parse(&IDENTIFICATION[..len]);
        assert_eq!(cut.map_err(|e| e.wanted(65_535)), Err(Some(76)), "{len}");
    }
    let mut wrong = IDENTIFICATION;
    wrong[7] = 73;
    assert!(matches!(DeviceIdentification::parse(&wrong), Err(ParseError::Overrun { .. })));
    wrong[1] = 0x80;
    assert!(matches!(DeviceIdentification::parse(&wrong), Err(ParseError::BadField { field: "PAGE CODE", .. })));
}

/// A name with a length that its type cannot have must not hide the names beside it.
#[test]
fn an_odd_designator_is_kept_as_bytes() {
    let bytes = [0, 0x83, 0, 15, 1, 3, 0, 3, 0x60, 1, 2, 1, 3, 0, 4, 0x10, 0, 0, 0];
    let read = DeviceIdentification::parse(&bytes).expect("a page");
    let kinds: Vec<_> = read.designators.iter().map(|d| d.identifier.clone()).collect();
    let other = |bytes: &[u8]| Identifier::Other { kind: 3, bytes: bytes.to_vec() };
    assert_eq!(kinds, [other(&[0x60, 1, 2]), other(&[0x10, 0, 0, 0])]);
    assert_eq!(read.unit_name(), None);
}

fn unit(ids: &[Identifier]) -> DeviceIdentification {
    DeviceIdentification { designators: ids.iter().cloned().map(Designator::unit).collect() }
}

/// Two paths are merged only on proof: two targets of one make number their units alike, and a path to another unit
/// under the same device would write one volume's blocks onto another.
#[test]
fn paths_are_of_one_unit_only_by_a_name_of_the_world_or_within_one_target() {
    let naa = |n| Identifier::Naa(Naa::Long([0x60, 0x01, 0x40, 0x50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n]));
    let local = |n| Identifier::Naa(Naa::Short([0x30, 0, 0, 0, 0, 0, 0, n]));
    // Of NAA 6h, without a company.
    let nobody = |n| Identifier::Naa(Naa::Long([0x60, 0, 0, 0x0f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n]));
    let t10 = |text: &str| Identifier::T10(format!("IET     {text}"));
    let a = UnitSerialNumber::new("beaf11").expect("printable");
    let b = UnitSerialNumber::new("beaf12").expect("printable");
    let none = (None, None);
    let serials = (Some(&a), Some(&a));
    let port = Identifier::Port(RelativePort(1));
    for (ours, theirs, serials, one_target, want) in [
        (vec![naa(1)], vec![naa(1)], none, false, Sameness::Same),
        (vec![naa(1)], vec![naa(2)], none, false, Sameness::Different),
        (vec![naa(1), t10("1")], vec![t10("1"), naa(1)], none, false, Sameness::Same),
        (vec![naa(1), t10("1")], vec![naa(1), t10("2")], none, false, Sameness::Different),
        (vec![naa(1)], vec![naa(1)], (Some(&a), Some(&b)), true, Sameness::Different),
        (vec![naa(1)], vec![Identifier::Eui64(vec![0; 8])], none, true, Sameness::Unproved),
        (vec![t10("1")], vec![t10("1")], serials, false, Sameness::Unproved),
        (vec![t10("1")], vec![t10("1")], none, true, Sameness::Unproved),
        (vec![t10("1")], vec![t10("1")], serials, true, Sameness::Same),
        (vec![local(1)], vec![local(1)], serials, false, Sameness::Unproved),
        (vec![nobody(1)], vec![nobody(1)], serials, false, Sameness::Unproved),
        (vec![nobody(1)], vec![nobody(2)], none, true, Sameness::Different),
        (vec![], vec![], serials, true, Sameness::Unproved),
        (vec![port.clone()], vec![port], serials, true, Sameness::Unproved),
    ] {
        let (first, second) = (unit(&ours), unit(&theirs));
        let swapped = (serials.1, serials.0);
        assert_eq!(first.same_unit(&second, serials, one_target), want, "{ours:?} {theirs:?}");
        assert_eq!(second.same_unit(&first, swapped, one_target), want, "{theirs:?} {ours:?}");
    }
}

/// SPC-4 7.8.7.
#[test]
fn extended_inquiry() {
    let mut bytes = vec![0, 0x86, 0, 0x3c, 0x0f, 0x17, 0x03, 0x01, 0x10, 0, 0, 0, 0, 252];
    bytes.resize(64, 0);
    let page = ExtendedInquiry {
        protection_checks: 7,
        protection_types: 1,
        groups: true,
        priorities: false,
        head_of_queue: true,
        ordered: true,
        simple: true,
        non_volatile_cache: true,
        volatile_cache: true,
        nexus_unit_attention_clear: true,
        referrals: true,
        max_sense: 252,
    };
    assert_eq!(ExtendedInquiry::parse(&bytes), Ok(page));
    assert_eq!(page.to_bytes(), bytes);
}

/// SPC-4 table 631.
#[test]
fn scsi_ports() {
    let bytes = [
        0, 0x88, 0, 44, //
        0, 0, 0, 1, 0, 0, 0, 4, 9, 9, 9, 9, 0, 0, 0, 8, 0x51, 0x94, 0, 4, 0, 0, 0, 1, //
        0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 8, 0x51, 0x94, 0, 4, 0, 0, 0, 2,
    ];
    let read = ScsiPorts::parse(&bytes).expect("a page");
    let numbers: Vec<_> = read.ports.iter().map(|port| (port.port, port.names.len())).collect();
    assert_eq!(numbers, [(RelativePort(1), 1), (RelativePort(2), 1)]);
    assert_eq!(ScsiPorts::parse(&read.to_bytes()), Ok(read));
    let mut wrong = bytes;
    wrong[11] = 200;
    assert!(matches!(ScsiPorts::parse(&wrong), Err(ParseError::Overrun { .. })));
}

/// SBC-3 6.6.3 with SBC-4's atomic fields.
#[test]
fn block_limits() {
    let mut bytes = vec![0, 0xb0, 0, 0x3c, 1, 8, 0, 16];
    for word in [0x2000_u32, 0x80, 0x100, u32::MAX, 255, 2048, 0x8000_0007] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(0x0001_0000_0000_u64.to_be_bytes());
    for word in [64_u32, 8, 4, 32, 16] {
        bytes.extend(word.to_be_bytes());
    }
    let blocks = |n| Some(BlockCount(n));
    let page = BlockLimits {
        write_same_needs_count: true,
        max_compare_and_write: 8,
        granularity: blocks(16),
        max_transfer: blocks(0x2000),
        optimal_transfer: blocks(0x80),
        max_prefetch: blocks(0x100),
        max_unmap_blocks: blocks(0xffff_ffff),
        max_unmap_ranges: Some(255),
        unmap_granularity: blocks(2048),
        unmap_alignment: Some(Lba(7)),
        max_write_same: blocks(1 << 32),
        max_atomic: blocks(64),
        atomic_alignment: blocks(8),
        atomic_granularity: blocks(4),
        max_atomic_bounded: blocks(32),
        max_atomic_boundary: blocks(16),
    };
    assert_eq!(BlockLimits::parse(&bytes), Ok(page));
    assert_eq!(page.to_bytes(), bytes);
    assert!(page.claims_compare_and_write(8) && !page.claims_compare_and_write(9) && !page.claims_compare_and_write(0));
    assert_eq!(page.transfer_up_to(BlockCount(0x4000)), BlockCount(0x2000));
}

/// SBC-2 6.4.2 had 12 bytes behind the header: the rest is "not reported", and that means no COMPARE AND WRITE.
#[test]
fn an_old_page_of_limits_is_read() {
    let bytes = [0, 0xb0, 0, 12, 0, 0, 0, 8, 0, 0, 0x20, 0, 0, 0, 0, 0];
    let page = BlockLimits::parse(&bytes).expect("a page");
    let old = BlockLimits {
        granularity: Some(BlockCount(8)),
        max_transfer: Some(BlockCount(0x2000)),
        ..BlockLimits::default()
    };
    assert_eq!(page, old);
    assert!(!page.claims_compare_and_write(1));
    assert_eq!(page.transfer_up_to(BlockCount(16)), BlockCount(16));
    assert!(BlockLimits::parse(&bytes[..12]).is_err(), "cut off is not old");
}

/// SBC-3 6.6.2 and 6.6.4.
#[test]
fn medium_and_provisioning() {
    let mut bytes = vec![0, 0xb1, 0, 0x3c, 0, 1, 0, 3, 2];
    bytes.resize(64, 0);
    let medium =
        BlockCharacteristics { rotation: Rotation::Solid, form_factor: 3, fua_bypasses: true, verify_unmapped: false };
    assert_eq!(BlockCharacteristics::parse(&bytes), Ok(medium));
    assert_eq!(medium.to_bytes(), bytes);
    [bytes[4], bytes[5]] = [0x1c, 0x20];
    assert_eq!(BlockCharacteristics::parse(&bytes).map(|m| m.rotation), Ok(Rotation::PerMinute(7200)));
    [bytes[4], bytes[5]] = [0, 2];
    assert_eq!(BlockCharacteristics::parse(&bytes).map(|m| m.rotation), Ok(Rotation::NotTold));

    let bytes = [0, 0xb2, 0, 4, 11, 0xe6, 2, 0];
    let thin = LogicalBlockProvisioning {
        threshold_exponent: 11,
        unmap: true,
        write_same_16: true,
        write_same_10: true,
        read_as: 1,
        anchor: true,
        kind: ProvisioningType::Thin,
        threshold_percent: 0,
    };
    assert_eq!(LogicalBlockProvisioning::parse(&bytes), Ok(thin));
    assert_eq!(thin.to_bytes(), bytes);
    assert!(thin.reads_zeroes() && !LogicalBlockProvisioning { read_as: 2, ..thin }.reads_zeroes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn any_page_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), page: u8, len: u8) {
        let mut bytes = bytes;
        let codes = [0x00, 0x80, 0x83, 0x86, 0x88, 0xb0, 0xb1, 0xb2];
        if let Some(head) = bytes.get_mut(..4) {
            head.copy_from_slice(&[0, codes[usize::from(page) % codes.len()], 0, len]);
        }
        let _ = (SupportedPages::parse(&bytes), UnitSerialNumber::parse(&bytes), ExtendedInquiry::parse(&bytes));
        let _ = (BlockCharacteristics::parse(&bytes), LogicalBlockProvisioning::parse(&bytes));
        if let Ok(limits) = BlockLimits::parse(&bytes) {
            prop_assert_eq!(BlockLimits::parse(&limits.to_bytes()), Ok(limits));
        }
        if let Ok(ports) = ScsiPorts::parse(&bytes) {
            prop_assert!(ports.ports.len() <= bytes.len() / 12);
        }
        if let Ok(page) = DeviceIdentification::parse(&bytes) {
            let _ = (page.unit_name().map(ToString::to_string), page.port(), page.port_group());
            let same = page.same_unit(&page, (None, None), false);
            prop_assert_ne!(same, Sameness::Different);
        }
    }
}
