use super::*;
use crate::digest;
use crate::pdu::raw::{DataIn, NopIn, ScsiCommand};

/// What was read, with the pieces of data joined.
#[derive(Debug, PartialEq, Eq, Clone)]
enum Whole {
    Pdu { bhs: Bhs, ahs: Vec<u8>, data: Vec<u8>, intact: bool },
    Error(FrameError),
}

/// Reads `bytes` in pieces of `piece` bytes.
fn read(mut framer: Framer, bytes: &[u8], piece: usize) -> Vec<Whole> {
    let mut found = Vec::new();
    let mut open: Option<(Bhs, Vec<u8>, Vec<u8>)> = None;
    for mut input in bytes.chunks(piece.max(1)) {
        loop {
            match framer.next(&mut input) {
                Ok(None) => break,
                Ok(Some(Item::Header(bhs))) => open = Some((bhs, framer.ahs().to_vec(), Vec::new())),
                Ok(Some(Item::Data(more))) => open.as_mut().expect("a header first").2.extend_from_slice(more),
                Ok(Some(Item::End { intact })) => {
                    let (bhs, ahs, data) = open.take().expect("a header first");
                    found.push(Whole::Pdu { bhs, ahs, data, intact });
                }
                Err(e) => {
                    found.push(Whole::Error(e));
                    return found;
                }
            }
        }
        assert!(input.is_empty(), "what is not used is not lost");
    }
    found
}

/// A Data-In with `data`, padded, with digests.
fn data_in(data: &[u8], digests: Digests) -> Vec<u8> {
    let bhs = DataIn::default().with_data(data.len()).bhs();
    let mut bytes = bhs.bytes().to_vec();
    if digests.header {
        bytes.extend(digest::of_header(bhs.bytes(), &[]));
    }
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len() + padding(data.len()), 0);
    if digests.data && !data.is_empty() {
        bytes.extend(digest::of_data(data));
    }
    bytes
}

const BOTH: Digests = Digests { header: true, data: true };

fn opened(digests: Digests) -> Framer {
    let mut framer = Framer::new(End::Initiator);
    framer.open(digests, 1 << 16);
    framer
}

#[test]
fn pdus_are_the_same_however_the_bytes_come() {
    let mut stream = Vec::new();
    for len in [0, 1, 4, 5, 47, 300] {
        stream.extend(data_in(&vec![len as u8; len], BOTH));
    }
    let whole = read(opened(BOTH), &stream, stream.len());
    assert_eq!(whole.len(), 6);
    for (n, len) in [0, 1, 4, 5, 47, 300].into_iter().enumerate() {
        let Whole::Pdu { data, intact, .. } = &whole[n] else { panic!("{:?}", whole[n]) };
        assert!(*intact && *data == vec![len as u8; len]);
    }
    for piece in [1, 2, 3, 7, 48, 49, 100] {
        assert_eq!(read(opened(BOTH), &stream, piece), whole, "in pieces of {piece}");
    }
}

#[test]
fn data_may_be_received_past_the_framer() {
    let stream = data_in(b"straight into memory!", BOTH);
    let mut framer = opened(BOTH);
    let mut head = &stream[..60];
    assert!(matches!(framer.next(&mut head), Ok(Some(Item::Header(_)))));
    assert!(matches!(framer.next(&mut head), Ok(Some(Item::Data(b"straight")))));
    let left = framer.expects();
    assert_eq!(left, 13);
    framer.arrived(&stream[60..60 + left]);
    let mut tail = &stream[60 + left..];
    assert_eq!(framer.next(&mut tail), Ok(Some(Item::End { intact: true })));
    assert_eq!(framer.expects(), 0);
}

#[test]
fn no_data_go_through_a_reader_that_takes_no_more_than_lies_before_them_wherever_a_read_ended() {
    for (header, data) in [(false, false), (true, false), (false, true), (true, true)] {
        let digests = Digests { header, data };
        let lens = [7_usize, 300, 0, 4, 1000];
        let stream: Vec<u8> = lens.iter().flat_map(|len| data_in(&vec![1; *len], digests)).collect();
        for piece in [1, 3, 47, 48, 60, 301, 5000] {
            let (mut framer, mut at, mut whole) = (opened(digests), 0, 0);
            while at < stream.len() {
                let direct = framer.expects();
                let most = direct + framer.before_data();
                assert!(most > direct, "a reader that takes nothing would end the connection");
                let n = piece.min(most).min(stream.len() - at);
                let (past, mut through) = stream[at..at + n].split_at(direct.min(n));
                framer.arrived(past);
                at += n;
                loop {
                    match framer.next(&mut through).expect("nothing is damaged") {
                        None => break,
                        Some(Item::Header(_)) => {}
                        Some(Item::Data(piece)) => panic!("{} bytes of data went through the framer", piece.len()),
                        Some(Item::End { intact }) => whole += usize::from(intact),
                    }
                }
            }
            assert_eq!(whole, lens.len(), "{digests:?} in pieces of {piece}");
        }
    }
}

#[test]
fn damaged_data_are_told_and_the_next_pdu_is_read() {
    let mut stream = data_in(b"payload", BOTH);
    stream[54] ^= 1;
    stream.extend(data_in(b"next", BOTH));
    let found = read(opened(BOTH), &stream, 9);
    assert!(matches!(&found[0], Whole::Pdu { intact: false, .. }));
    assert!(matches!(&found[1], Whole::Pdu { intact: true, data, .. } if data == b"next"));
}

#[test]
fn a_damaged_header_breaks_the_connection_for_ever() {
    let mut stream = data_in(b"payload", BOTH);
    stream[20] ^= 1;
    let mut framer = opened(BOTH);
    let mut input = &stream[..];
    assert_eq!(framer.next(&mut input), Err(FrameError::HeaderDigest));
    let good = data_in(b"", BOTH);
    assert_eq!(framer.next(&mut &good[..]), Err(FrameError::Broken));
}

#[test]
fn more_data_than_declared_is_refused_at_its_header() {
    let long = DataIn::default().with_data((1 << 16) + 1).bhs();
    let too_long = FrameError::TooLong { opcode: Opcode::DataIn, len: (1 << 16) + 1, max: 1 << 16 };
    assert_eq!(read(opened(BOTH), long.bytes(), 48), [Whole::Error(too_long)]);
    let login = NopIn::default().with_data(8193).bhs();
    let found = read(Framer::new(End::Initiator), login.bytes(), 48);
    assert!(matches!(found[0], Whole::Error(FrameError::TooLong { max: 8192, .. })), "{found:?}");
}

#[test]
fn foreign_opcodes_and_own_kinds_are_refused() {
    let own = ScsiCommand::default().bhs();
    let found = read(Framer::new(End::Initiator), own.bytes(), 48);
    assert_eq!(found, [Whole::Error(FrameError::WrongEnd(Opcode::ScsiCommand))]);
    let mut foreign = *own.bytes();
    for (end, opcode) in [(End::Initiator, 0x1c), (End::Initiator, 0x3c), (End::Target, 0x3c)] {
        foreign[0] = opcode;
        assert_eq!(read(Framer::new(end), &foreign, 48), [Whole::Error(FrameError::Opcode(opcode))]);
    }
    // A target is handed what an initiator may mean, so that it can reject it.
    foreign[0] = 0x1c;
    let found = read(Framer::new(End::Target), &foreign, 48);
    assert!(matches!(&found[..], [Whole::Pdu { bhs, .. }] if bhs.opcode == 0x1c), "{found:?}");
}

#[test]
fn additional_header_segments_are_handed_out_with_the_header() {
    let ahs = crate::pdu::ahs::extended_cdb(&[7; 20]).expect("longer than 16");
    let words = u8::try_from(ahs.len() / 4).expect("short");
    let bhs = ScsiCommand { ahs_words: words, ..ScsiCommand::default() };
    let mut stream = bhs.bhs().bytes().to_vec();
    stream.extend(&ahs);
    let found = read(Framer::new(End::Target), &stream, 5);
    assert!(matches!(&found[..], [Whole::Pdu { ahs: a, .. }] if *a == ahs), "{found:?}");
}

/// Whatever bytes come: no panic, and the same result whether they come at once or one by one. The corpus lies
/// beside this file.
#[test]
fn fuzz_any_bytes_read_the_same_in_any_pieces() {
    bolero::check!().with_type::<(u8, u8, Vec<u8>)>().cloned().for_each(|(flags, piece, bytes)| {
        let digests = Digests { header: flags & 1 != 0, data: flags & 2 != 0 };
        let end = if flags & 4 != 0 { End::Initiator } else { End::Target };
        let framer = || {
            let mut framer = Framer::new(end);
            framer.open(digests, 700);
            framer
        };
        let whole = read(framer(), &bytes, bytes.len());
        assert_eq!(read(framer(), &bytes, 1), whole);
        assert_eq!(read(framer(), &bytes, usize::from(piece)), whole);
    });
}
