use proptest::prelude::*;

use super::*;

fn request() -> Header {
    Header {
        opcode: 0x0102,
        request_id: 0x0304_0506_0708_090a,
        epoch: 0x1112_1314_1516_1718,
        ..Header::new(Kind::Request, b"123456789", b"")
    }
}

/// A header's bytes with one place changed and the checksum made right again.
fn forged(change: impl FnOnce(&mut [u8; HEADER_LEN])) -> [u8; HEADER_LEN] {
    let mut bytes = request().encode();
    change(&mut bytes);
    let crc = crc32c::crc32c(&bytes[..CRC_AT]);
    bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn version_1_bytes_are_frozen() {
    #[rustfmt::skip]
    let frozen: [u8; HEADER_LEN] = [
        b'S', b'H', b'F', b'R', 1, 5, 0, 0,
        0x02, 0x01, 0, 0, 9, 0, 0, 0,
        0, 0, 0, 0, 0x83, 0x92, 0x06, 0xe3,
        0x0a, 0x09, 0x08, 0x07, 0x06, 0x05, 0x04, 0x03,
        0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11,
        0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0x3c, 0x41, 0x57, 0x40,
    ];
    assert_eq!(request().encode(), frozen);
    assert_eq!(Header::decode(&frozen), Ok(request()));
}

#[test]
fn a_foreign_magic_is_refused_before_anything_else() {
    assert_eq!(Header::decode(&[0x16; HEADER_LEN]), Err(FrameError::BadMagic));
}

#[test]
fn every_flipped_bit_of_a_header_is_noticed() {
    let good = request().encode();
    for bit in 0..HEADER_LEN * 8 {
        let mut bad = good;
        bad[bit / 8] ^= 1 << (bit % 8);
        let want = if bit < 32 { FrameError::BadMagic } else { FrameError::HeaderCrc };
        assert_eq!(Header::decode(&bad), Err(want), "bit {bit}");
    }
}

#[test]
fn unknown_version_kind_flag_and_reserved_bytes_are_refused() {
    let cases = [
        (forged(|b| b[4] = 2), FrameError::Version(2)),
        (forged(|b| b[4] = 0), FrameError::Version(0)),
        (forged(|b| b[5] = 0), FrameError::UnknownKind(0)),
        (forged(|b| b[5] = 12), FrameError::UnknownKind(12)),
        (forged(|b| b[6] = 1), FrameError::UnknownFlags(1)),
        (forged(|b| b[10] = 1), FrameError::Reserved),
        (forged(|b| b[40] = 1), FrameError::Reserved),
        (forged(|b| b[59] = 1), FrameError::Reserved),
    ];
    for (bytes, want) in cases {
        assert_eq!(Header::decode(&bytes), Err(want));
    }
}

#[test]
fn lengths_beyond_a_kinds_limit_are_refused() {
    let too_long = |kind, body_len, payload_len| {
        let id = u64::from(kind == Kind::Reply);
        let header = Header { body_len, payload_len, request_id: id, ..Header::new(kind, b"", b"") };
        matches!(Header::decode(&header.encode()), Err(FrameError::TooLong { .. }))
    };
    assert!(!too_long(Kind::Reply, 1 << 20, 4 << 20));
    assert!(too_long(Kind::Reply, (1 << 20) + 1, 0));
    assert!(too_long(Kind::Reply, 0, (4 << 20) + 1));
    assert!(too_long(Kind::Hello, (64 << 10) + 1, 0));
    assert!(too_long(Kind::Hello, 0, 1));
    assert!(too_long(Kind::Bye, 1025, 0));
    assert!(too_long(Kind::Ping, 1, 0));
    assert!(too_long(Kind::Oneway, u32::MAX, u32::MAX));
}

#[test]
fn ids_opcodes_and_epochs_are_only_where_a_kind_has_them() {
    let shape = |kind, request_id, opcode, epoch| {
        let header = Header { request_id, opcode, epoch, ..Header::new(kind, b"", b"") };
        Header::decode(&header.encode()).is_ok()
    };
    assert!(shape(Kind::Request, 1, 9, 9));
    assert!(!shape(Kind::Request, 0, 9, 9));
    assert!(!shape(Kind::Oneway, 1, 9, 9));
    assert!(shape(Kind::Oneway, 0, 9, 9));
    assert!(shape(Kind::Fail, 1, 0, 0));
    assert!(!shape(Kind::Fail, 1, 9, 0));
    assert!(!shape(Kind::Ping, 0, 0, 9));
    assert!(shape(Kind::Ping, 0, 0, 0));
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(
        kind in 5_u8..=8, opcode: u16, id in 1..u64::MAX, epoch: u64,
        body in proptest::collection::vec(any::<u8>(), 0..300),
        payload in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let kind = Kind::from_number(kind).unwrap();
        let mut header = Header::new(kind, &body, if kind == Kind::Fail { &[] } else { &payload });
        if kind.has_id() {
            header.request_id = id;
        }
        if kind.has_opcode() {
            (header.opcode, header.epoch) = (opcode, epoch);
        }
        prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn any_64_bytes_are_decoded_or_refused(bytes: [[u8; 32]; 2]) {
        let mut flat = [0; HEADER_LEN];
        flat[..32].copy_from_slice(&bytes[0]);
        flat[32..].copy_from_slice(&bytes[1]);
        prop_assert!(Header::decode(&flat).is_err());
        let forged = forged(|b| b[4..CRC_AT].copy_from_slice(&flat[4..CRC_AT]));
        if let Ok(header) = Header::decode(&forged) {
            prop_assert_eq!(header.encode(), forged);
        }
    }

    #[test]
    fn the_data_checksum_is_of_the_bytes_in_a_row(
        whole in proptest::collection::vec(any::<u8>(), 0..300), at: prop::sample::Index,
    ) {
        let (a, b) = whole.split_at(at.index(whole.len() + 1));
        prop_assert_eq!(data_crc(a, b), crc32c::crc32c(&whole));
    }
}
