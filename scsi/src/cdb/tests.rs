use super::*;
use crate::units::{ByteCount, OpCode};

#[test]
fn a_block_has_the_length_of_its_group() {
    for (code, len) in [(0x12, 6), (0x28, 10), (0x42, 10), (0x88, 16), (0xa0, 12)] {
        assert_eq!(group_len(OpCode(code)), Some(len));
        let mut bytes = vec![0; len];
        bytes[0] = code;
        let cdb = Cdb::from_bytes(&bytes, Transfer::None).expect("it fits");
        assert_eq!((cdb.len(), cdb.op_code(), cdb.additional()), (len, OpCode(code), &[][..]));
        assert_eq!(&cdb.head()[..len], &bytes[..]);
        bytes.push(0);
        assert!(Cdb::from_bytes(&bytes, Transfer::None).is_err(), "{code:02x} of {} bytes", bytes.len());
    }
    assert!(Cdb::from_bytes(&[], Transfer::None).is_err());
}

#[test]
fn a_long_block_is_split_behind_sixteen_bytes() {
    let mut bytes = vec![7; 32];
    bytes[0] = 0x7f;
    let cdb = Cdb::from_bytes(&bytes, Transfer::Out(ByteCount(512))).expect("it fits");
    assert_eq!((cdb.len(), cdb.additional().len()), (32, 16));
    assert_eq!(cdb.transfer().len(), ByteCount(512));
    assert!(Cdb::from_bytes(&[0x7f; MAX_CDB + 1], Transfer::None).is_err());
}
