use proptest::prelude::*;

use super::*;

/// SPC-4 4.5.3, the figure's offsets, for an unrecovered read error at block 12345678h.
const FIXED: [u8; 18] = [0xf0, 0, 0x03, 0x12, 0x34, 0x56, 0x78, 10, 0, 0, 0, 0, 0x11, 0x00, 0, 0x80, 0x00, 0x05];

/// SPC-4 4.5.2, the same as descriptors: information (type 0) and sense key specific (type 2).
const DESCRIPTOR: [u8; 28] = [
    0x72, 0x03, 0x11, 0x00, 0, 0, 0, 20, // header
    0, 10, 0x80, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56, 0x78, // information
    2, 6, 0, 0, 0x80, 0x00, 0x05, 0, // actual retry count 5
];

fn read_error() -> Sense {
    Sense {
        specific: Some(KeySpecific::Retries(5)),
        ..Sense::new(SenseKey::MediumError, AdditionalCode::UNRECOVERED_READ_ERROR).with_information(0x1234_5678)
    }
}

#[test]
fn both_formats_say_the_same() {
    assert_eq!(Sense::parse(&FIXED), Ok(read_error()));
    assert_eq!(Sense::parse(&DESCRIPTOR), Ok(read_error()));
    assert_eq!(read_error().to_fixed(), FIXED);
    assert_eq!(read_error().to_descriptor(), DESCRIPTOR);
}

/// SPC-4 4.5.5: response codes 71h and 73h.
#[test]
fn deferred_errors_are_told_apart() {
    let deferred = Sense { deferred: true, ..read_error() };
    assert_eq!(deferred.to_fixed()[0], 0xf1);
    assert_eq!(deferred.to_descriptor()[0], 0x73);
    assert_eq!(Sense::parse(&deferred.to_fixed()), Ok(deferred));
    assert_eq!(Sense::parse(&deferred.to_descriptor()), Ok(deferred));
    assert!(deferred.to_string().starts_with("deferred MEDIUM ERROR"));
}

/// SPC-4 4.5.2.4.2: field pointer into the command (C/D) with a bit pointer (BPV).
#[test]
fn the_field_in_error_is_found() {
    let bytes = [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xcb, 0x00, 0x01];
    let sense = Sense::parse(&bytes).expect("sense data");
    assert_eq!(sense.specific, Some(KeySpecific::Field { in_cdb: true, byte: 1, bit: Some(3) }));
    assert_eq!(sense.to_fixed(), bytes);
    assert_eq!(sense.to_string(), "ILLEGAL REQUEST: invalid field in CDB (24/00), byte 1 of the command, bit 3");
}

/// SPC-4 4.5.2.4.4: progress of a format, as REQUEST SENSE tells it.
#[test]
fn progress_is_a_part_of_65536() {
    let bytes = [0x70, 0, 2, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x04, 0x04, 0, 0x80, 0x80, 0x00];
    let sense = Sense::parse(&bytes).expect("sense data");
    assert_eq!(sense.progress().map(Progress::percent), Some(50));
    assert_eq!(Progress(u16::MAX).percent(), 99);
}

#[test]
fn what_was_cut_off_is_absent() {
    for len in 3..FIXED.len() {
        let sense = Sense::parse(&FIXED[..len]).expect("the key is there");
        assert_eq!(sense.key, SenseKey::MediumError);
        assert_eq!(sense.information.is_some(), len >= 7, "{len}");
        assert_eq!(sense.code == AdditionalCode::UNRECOVERED_READ_ERROR, len >= 13, "{len}");
        assert_eq!(sense.specific, None, "{len}");
    }
    for len in 2..DESCRIPTOR.len() {
        let sense = Sense::parse(&DESCRIPTOR[..len]).expect("the key is there");
        assert_eq!(sense.information.is_some(), len >= 20, "{len}");
        assert_eq!(sense.specific, None, "{len}");
    }
    for short in [&[][..], &[0x70], &[0x70, 0], &[0x72], &[0xf2]] {
        assert!(matches!(Sense::parse(short), Err(ParseError::Truncated { .. })), "{short:?}");
    }
    assert!(matches!(Sense::parse(&[0x00; 18]), Err(ParseError::BadField { field: "RESPONSE CODE", value: 0, .. })));
}

#[test]
fn the_stated_length_ends_the_data() {
    let mut bytes = FIXED;
    bytes[7] = 0;
    assert_eq!(Sense::parse(&bytes).expect("sense data").code, AdditionalCode::NONE);
    let mut bytes = DESCRIPTOR;
    bytes[7] = 12;
    assert_eq!(Sense::parse(&bytes).expect("sense data").specific, None);
}

#[test]
fn unknown_descriptors_are_passed_over_and_the_first_of_a_type_counts() {
    let mut bytes = vec![0x72, 6, 0x2a, 9, 0, 0, 0, 0];
    bytes.extend([0x80, 2, 1, 2]);
    bytes.extend([9, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend([0, 10, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    bytes.extend([0, 10, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    bytes[7] = u8::try_from(bytes.len() - 8).expect("short");
    let sense = Sense::parse(&bytes).expect("sense data");
    assert_eq!(sense.information, Some(1));
    assert!(sense.is(SenseKey::UnitAttention, AdditionalCode::CAPACITY_CHANGED));
}

/// SPC-4 4.5.3: an address above 32 bits leaves VALID at zero rather than name another block.
#[test]
fn fixed_format_never_names_a_wrong_block() {
    let sense = read_error().with_information(1 << 32);
    assert_eq!(Sense::parse(&sense.to_fixed()).expect("sense data").information, None);
    assert_eq!(Sense::parse(&sense.to_descriptor()), Ok(sense));
}

#[test]
fn names_are_distinct_and_ordered() {
    assert!(AdditionalCode::ALL.is_sorted(), "in the order of the standard");
    let mut seen = std::collections::BTreeSet::new();
    for code in AdditionalCode::ALL {
        assert!(seen.insert(*code), "{code} is there twice");
    }
    assert_eq!(AdditionalCode::new(0x27, 0).to_string(), "write protected (27/00)");
    assert_eq!(AdditionalCode::new(0x80, 1).to_string(), "unnamed condition (80/01)");
}

#[test]
fn every_key_goes_back_to_its_bits() {
    for bits in 0..16 {
        assert_eq!(SenseKey::from_bits(bits).bits(), bits);
    }
}

fn any_specific(key: SenseKey) -> BoxedStrategy<Option<KeySpecific>> {
    (any::<[u8; 2]>(), 0u8..128)
        .prop_map(move |([high, low], first)| {
            // Only bits that mean something for this key, or they are not told back.
            KeySpecific::parse(key, [0x80 | first, high, low])
        })
        .boxed()
}

fn any_sense() -> impl Strategy<Value = Sense> {
    let marks = any::<(bool, bool, bool)>();
    (0u8..16, any::<[u8; 2]>(), any::<Option<u64>>(), any::<Option<u64>>(), any::<(u8, bool, bool)>(), marks)
        .prop_flat_map(|(key, [asc, ascq], information, specific_info, (unit_code, deferred, overflow), marks)| {
            let key = SenseKey::from_bits(key);
            any_specific(key).prop_map(move |specific| Sense {
                deferred,
                key,
                code: AdditionalCode::new(asc, ascq),
                information,
                command_specific: specific_info.filter(|n| *n != 0),
                specific,
                unit_code,
                marks: Marks { filemark: marks.0, end_of_medium: marks.1, incorrect_length: marks.2 },
                overflow,
            })
        })
}

proptest! {
    #[test]
    fn descriptor_format_loses_nothing(sense in any_sense()) {
        let bytes = sense.to_descriptor();
        prop_assert!(bytes.len() <= MAX_SENSE);
        prop_assert_eq!(Sense::parse(&bytes), Ok(sense));
    }

    #[test]
    fn fixed_format_loses_only_what_has_no_room(sense in any_sense()) {
        let fits = |n: &u64| u32::try_from(*n).is_ok();
        let kept = Sense {
            information: sense.information.filter(fits),
            command_specific: sense.command_specific.filter(fits),
            ..sense
        };
        prop_assert_eq!(Sense::parse(&sense.to_fixed()), Ok(kept));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), code in 0u8..8) {
        let _ = Sense::parse(&bytes);
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = 0x70 + code;
        }
        if let Ok(sense) = Sense::parse(&bytes) {
            let _ = sense.to_string();
            prop_assert_eq!(Sense::parse(&sense.to_descriptor()), Ok(sense));
        }
    }
}
