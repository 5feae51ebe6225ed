//! Byte vectors are laid out by hand from the figure of the clause that each names.

mod any;
mod media;
mod spc;

use super::*;
use crate::error::{BuildError, CdbError};
use crate::units::{ByteCount, OpCode};

/// The block is these bytes, and these bytes are the command.
#[track_caller]
fn both_ways(command: impl Into<Command>, cdb: &Cdb, bytes: &[u8]) {
    assert_eq!(cdb.len(), bytes.len());
    assert_eq!(&cdb.head()[..bytes.len()], bytes, "built");
    assert_eq!(Command::parse(bytes), Ok(command.into()), "parsed");
    // A transport's header has room for 16 bytes; what is behind the block does not matter.
    let mut padded = bytes.to_vec();
    padded.resize(16, 0xff);
    assert_eq!(Command::parse(&padded), Command::parse(bytes), "parsed from a header");
}

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

#[test]
fn what_a_target_does_not_know_has_the_standards_sense() {
    let unknown = Command::parse(&[0xc0; 16]).expect_err("vendor's own");
    assert_eq!(unknown.sense().to_string(), "ILLEGAL REQUEST: invalid command operation code (20/00)");
    let action = Command::parse(&[0x9e, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).expect_err("no such action");
    let text = "ILLEGAL REQUEST: invalid field in CDB (24/00), byte 1 of the command, bit 4";
    assert_eq!(action.sense().to_string(), text);
    let naca = Command::parse(&[0, 0, 0, 0, 0, 4]);
    assert_eq!(naca, Err(CdbError::InvalidField { byte: 5, bit: Some(2) }));
    assert_eq!(Command::parse(&[0x28; 9]), Err(CdbError::Truncated { need: 10, have: 9 }));
    assert_eq!(Command::parse(&[]), Err(CdbError::Truncated { need: 6, have: 0 }));
    assert!(matches!(Command::parse(&[0x7f; 32]), Err(CdbError::UnknownOpCode(_))));
}

#[test]
fn what_does_not_fit_a_form_is_refused_and_never_cut() {
    use crate::units::{BlockCount, BlockLen, BlockRange, Lba};
    let read = |form, lba, blocks| {
        let range = BlockRange::new(Lba(lba), BlockCount(blocks));
        Read { form, ..Read::new(range) }.cdb(BlockLen::B512)
    };
    assert!(read(Form::Ten, 0xffff_ffff, 0xffff).is_ok());
    for (form, lba, blocks) in [
        (Form::Six, 1 << 21, 1),
        (Form::Six, 0, 257),
        (Form::Ten, 1 << 32, 1),
        (Form::Ten, 0, 1 << 16),
        (Form::Twelve, 1 << 32, 1),
        (Form::Sixteen, 0, 1 << 23),
        (Form::Sixteen, 0, u64::MAX),
    ] {
        let refused = read(form, lba, blocks);
        assert!(matches!(refused, Err(BuildError::DoesNotFit { .. })), "{form} {lba:x} {blocks:x}: {refused:?}");
    }
    assert!(matches!(read(Form::Six, 0, 0), Err(BuildError::NoSuchForm { .. })), "0 is 256 there");
}
