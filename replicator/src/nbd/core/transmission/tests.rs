use super::*;
use crate::nbd::core::wire::{command, command_flags as flag};
use crate::nbd::limits::MAX_PAYLOAD;

const SIZE: u64 = 1 << 40;
const COOKIE: Cookie = *b"cookie!!";

fn facts() -> Facts {
    Facts {
        name: "a".to_owned(),
        description: String::new(),
        size: SIZE,
        block: 512,
        preferred: 4096,
        read_only: false,
        trim: true,
    }
}

fn session(style: Style) -> Transmission {
    Transmission::new(Agreed { facts: facts(), style, status: style != Style::Simple })
}

fn read_only() -> Transmission {
    Transmission::new(Agreed { facts: Facts { read_only: true, ..facts() }, style: Style::Simple, status: false })
}

fn compact(flags: u16, kind: u16, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = b"\x25\x60\x95\x13".to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(COOKIE);
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

fn extended(flags: u16, kind: u16, offset: u64, length: u64) -> Vec<u8> {
    let mut bytes = b"\x21\xe4\x1c\x71".to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(COOKIE);
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

fn done(order: Result<Order, Violation>) -> Command {
    match order {
        Ok(Order::Do(request)) => request.command,
        other => panic!("refused: {other:?}"),
    }
}

fn refused(order: Result<Order, Violation>) -> (Errno, u32) {
    match order {
        Ok(Order::Refuse { refusal, skip, .. }) => (refusal.errno, skip),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn each_command_is_understood_in_both_forms() {
    let (small, large) = (session(Style::Structured), session(Style::Extended));
    assert_eq!((small.header_len(), large.header_len()), (28, 32));
    let rows = [
        (command::READ, flag::DF, Command::Read { len: 4096 }),
        (command::WRITE, flag::FUA, Command::Write { len: 4096, fua: true }),
        (command::TRIM, flag::FUA, Command::Trim { len: 4096, fua: true }),
        (command::TRIM, 0, Command::Trim { len: 4096, fua: false }),
        (command::CACHE, 0, Command::Nothing),
        (command::WRITE_ZEROES, flag::NO_HOLE, Command::Zeroes { len: 4096, fua: false, may_free: false, fast: false }),
        (
            command::WRITE_ZEROES,
            flag::FAST_ZERO | flag::FUA,
            Command::Zeroes { len: 4096, fua: true, may_free: true, fast: true },
        ),
        (command::BLOCK_STATUS, flag::REQ_ONE, Command::Status { len: 4096, one: true }),
    ];
    for (kind, flags, expected) in rows {
        assert_eq!(done(small.request(&compact(flags, kind, 8192, 4096))), expected);
        let payload = if kind == command::WRITE { flag::PAYLOAD_LEN } else { 0 };
        assert_eq!(done(large.request(&extended(flags | payload, kind, 8192, 4096))), expected);
    }
    assert_eq!(done(small.request(&compact(0, command::FLUSH, 0, 0))), Command::Flush);
    assert_eq!(small.request(&compact(0, command::DISC, 0, 0)), Ok(Order::Leave));
    assert_eq!(large.request(&extended(0, command::DISC, 0, 0)), Ok(Order::Leave));
    let Ok(Order::Do(request)) = small.request(&compact(0, command::READ, 512, 512)) else { panic!("a request") };
    assert_eq!(request.tag, Tag { cookie: COOKIE, offset: 512 });
}

#[test]
fn lengths_beyond_32_bits_need_extended_headers_and_no_payload() {
    let large = session(Style::Extended);
    let len = 1 << 39;
    assert_eq!(done(large.request(&extended(0, command::TRIM, 0, len))), Command::Trim { len, fua: false });
    let zeroes = Command::Zeroes { len, fua: false, may_free: true, fast: false };
    assert_eq!(done(large.request(&extended(0, command::WRITE_ZEROES, 0, len))), zeroes);
    assert_eq!(done(large.request(&extended(0, command::BLOCK_STATUS, 0, len))), Command::Status { len, one: false });
    assert_eq!(refused(large.request(&extended(0, command::READ, 0, len))), (Errno::Eoverflow, 0));
}

#[test]
fn ranges_outside_the_export_have_the_error_of_their_command() {
    let small = session(Style::Structured);
    let beyond = |kind| refused(small.request(&compact(0, kind, SIZE - 512, 1024)));
    assert_eq!(beyond(command::READ), (Errno::Einval, 0));
    assert_eq!(beyond(command::WRITE), (Errno::Enospc, 1024), "its payload is passed over");
    assert_eq!(beyond(command::TRIM), (Errno::Einval, 0));
    assert_eq!(beyond(command::CACHE), (Errno::Einval, 0));
    assert_eq!(beyond(command::WRITE_ZEROES), (Errno::Enospc, 0));
    assert_eq!(beyond(command::BLOCK_STATUS), (Errno::Einval, 0));
    let wraps = refused(small.request(&compact(0, command::READ, u64::MAX - 511, 1024)));
    assert_eq!(wraps, (Errno::Einval, 0));
}

#[test]
fn what_is_not_of_whole_blocks_is_refused() {
    let small = session(Style::Simple);
    for (offset, len) in [(1, 512), (0, 511), (256, 256)] {
        for kind in [command::READ, command::TRIM, command::WRITE_ZEROES, command::CACHE] {
            assert_eq!(refused(small.request(&compact(0, kind, offset, len))).0, Errno::Einval);
        }
        assert_eq!(refused(small.request(&compact(0, command::WRITE, offset, len))), (Errno::Einval, len));
    }
}

#[test]
fn read_only_export_takes_no_changes_and_the_rest() {
    let core = read_only();
    for kind in [command::WRITE, command::TRIM, command::WRITE_ZEROES] {
        let skip = if kind == command::WRITE { 512 } else { 0 };
        assert_eq!(refused(core.request(&compact(0, kind, 0, 512))), (Errno::Eperm, skip));
    }
    assert_eq!(done(core.request(&compact(0, command::READ, 0, 512))), Command::Read { len: 512 });
    assert_eq!(done(core.request(&compact(flag::FUA, command::FLUSH, 0, 0))), Command::Flush);
}

#[test]
fn flags_that_a_command_does_not_have_are_refused_and_fua_is_never() {
    let simple = session(Style::Simple);
    assert_eq!(refused(simple.request(&compact(flag::DF, command::READ, 0, 512))).0, Errno::Einval, "not offered");
    assert_eq!(refused(simple.request(&compact(flag::NO_HOLE, command::WRITE, 0, 512))), (Errno::Einval, 512));
    assert_eq!(refused(simple.request(&compact(flag::PAYLOAD_LEN, command::WRITE, 0, 512))), (Errno::Einval, 512));
    assert_eq!(refused(simple.request(&compact(1 << 15, command::FLUSH, 0, 0))).0, Errno::Einval);
    for kind in [command::READ, command::TRIM, command::CACHE, command::WRITE_ZEROES] {
        done(simple.request(&compact(flag::FUA, kind, 0, 512)));
    }
    assert_eq!(refused(simple.request(&compact(0, 99, 0, 0))).0, Errno::Einval);
    assert_eq!(refused(simple.request(&compact(0, command::FLUSH, 512, 0))).0, Errno::Einval);
    assert_eq!(refused(simple.request(&compact(0, command::BLOCK_STATUS, 0, 512))).0, Errno::Einval, "no context");
}

#[test]
fn payload_flag_of_extended_headers_is_kept_to() {
    let large = session(Style::Extended);
    let write = Command::Write { len: 512, fua: false };
    assert_eq!(done(large.request(&extended(0, command::WRITE, 0, 512))), write, "as QEMU sends it");
    let flags = flag::PAYLOAD_LEN;
    assert_eq!(refused(large.request(&extended(flags, command::READ, 0, 512))), (Errno::Einval, 512));
    assert_eq!(refused(large.request(&extended(flags, command::BLOCK_STATUS, 0, 16))), (Errno::Einval, 16));
    assert_eq!(done(large.request(&extended(flags, command::BLOCK_STATUS, 0, 12))), Command::StatusOf { one: false });
}

#[test]
fn status_with_a_payload_names_the_chosen_context() {
    let large = session(Style::Extended);
    let tag = Tag { cookie: COOKIE, offset: 1024 };
    let payload = |len: u64, id: u32| [&len.to_be_bytes()[..], &id.to_be_bytes()].concat();
    assert_eq!(large.status_payload(tag, true, &payload(2048, 1)), Ok(Command::Status { len: 2048, one: true }));
    for bad in [payload(2048, 2), payload(0, 1), payload(SIZE, 1), payload(1, 1), vec![], vec![0; 8]] {
        assert_eq!(large.status_payload(tag, false, &bad).map_err(|r| r.errno), Err(Errno::Einval), "{bad:?}");
    }
}

#[test]
fn requests_of_nothing_succeed_except_the_status_of_nothing() {
    let small = session(Style::Structured);
    for kind in [command::READ, command::WRITE, command::TRIM, command::CACHE, command::WRITE_ZEROES] {
        assert_eq!(done(small.request(&compact(0, kind, 0, 0))), Command::Nothing);
    }
    assert_eq!(refused(small.request(&compact(0, command::BLOCK_STATUS, 0, 0))).0, Errno::Einval);
}

#[test]
fn foreign_bytes_and_payloads_beyond_the_limit_end_the_connection() {
    let (small, large) = (session(Style::Simple), session(Style::Extended));
    assert_eq!(small.request(&extended(0, command::READ, 0, 512)), Err(Violation::Magic(0x21e4_1c71)));
    assert_eq!(large.request(&[0; 32]), Err(Violation::Magic(0)));
    assert_eq!(small.request(b"short"), Err(Violation::Magic(0)));
    let too_long = MAX_PAYLOAD + 512;
    assert_eq!(small.request(&compact(0, command::WRITE, 0, too_long)), Err(Violation::Payload(too_long.into())));
    let flags = flag::PAYLOAD_LEN;
    assert_eq!(large.request(&extended(flags, command::FLUSH, 0, 1 << 33)), Err(Violation::Payload(1 << 33)));
    done(small.request(&compact(0, command::WRITE, 0, MAX_PAYLOAD)));
    assert_eq!(refused(small.request(&compact(0, command::READ, 0, too_long))).0, Errno::Einval);
    let structured = session(Style::Structured);
    assert_eq!(refused(structured.request(&compact(0, command::READ, 0, too_long))).0, Errno::Eoverflow);
}

const TAG: Tag = Tag { cookie: COOKIE, offset: 0x1000 };
const WHY: Refusal = Refusal { errno: Errno::Enospc, why: "full" };

#[test]
fn simple_replies_are_byte_for_byte_those_of_the_specification() {
    let core = session(Style::Simple);
    assert_eq!(core.done(TAG).bytes(), b"\x67\x44\x66\x98\0\0\0\0cookie!!");
    assert_eq!(core.data(TAG, 512).bytes(), b"\x67\x44\x66\x98\0\0\0\0cookie!!");
    let (head, text) = core.error(TAG, WHY);
    assert_eq!((head.bytes(), text), (&b"\x67\x44\x66\x98\0\0\0\x1ccookie!!"[..], ""));
}

#[test]
fn structured_replies_are_byte_for_byte_those_of_the_specification() {
    let core = session(Style::Structured);
    assert_eq!(core.done(TAG).bytes(), b"\x66\x8e\x33\xef\0\x01\0\0cookie!!\0\0\0\0");
    assert_eq!(core.data(TAG, 512).bytes(), b"\x66\x8e\x33\xef\0\x01\0\x01cookie!!\0\0\x02\x08\0\0\0\0\0\0\x10\0");
    let (head, text) = core.error(TAG, WHY);
    assert_eq!(head.bytes(), b"\x66\x8e\x33\xef\0\x01\x80\x01cookie!!\0\0\0\x0a\0\0\0\x1c\0\x04");
    assert_eq!(text, "full");
    let (head, data) = core
        .extents(TAG, &[Stretch { len: 512, hole: false, zero: false }, Stretch { len: 1024, hole: true, zero: true }]);
    assert_eq!(head.bytes(), b"\x66\x8e\x33\xef\0\x01\0\x05cookie!!\0\0\0\x14");
    assert_eq!(data, b"\0\0\0\x01\0\0\x02\0\0\0\0\0\0\0\x04\0\0\0\0\x03");
}

#[test]
fn extended_replies_are_byte_for_byte_those_of_the_extension() {
    let core = session(Style::Extended);
    let head = |kind: &[u8; 2], len: u8| {
        [&b"\x6e\x8a\x27\x8c\0\x01"[..], kind, b"cookie!!\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\0", &[len]].concat()
    };
    assert_eq!(core.done(TAG).bytes(), head(b"\0\0", 0));
    assert_eq!(core.data(TAG, 8).bytes(), [&head(b"\0\x01", 16)[..], b"\0\0\0\0\0\0\x10\0"].concat());
    let (error, text) = core.error(TAG, WHY);
    assert_eq!(error.bytes(), [&head(b"\x80\x01", 10)[..], b"\0\0\0\x1c\0\x04"].concat());
    assert_eq!(text, "full");
    let (status, data) = core.extents(TAG, &[Stretch { len: 1 << 33, hole: true, zero: true }]);
    assert_eq!(status.bytes(), head(b"\0\x06", 24));
    assert_eq!(data, b"\0\0\0\x01\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\x03");
}

#[test]
fn extent_too_long_for_32_bits_is_told_in_part_of_whole_blocks() {
    let core = session(Style::Structured);
    let stretches = [Stretch { len: 1 << 33, hole: true, zero: true }, Stretch { len: 512, hole: false, zero: false }];
    let (_, data) = core.extents(TAG, &stretches);
    assert_eq!(data.len(), 12, "what follows would not be consecutive");
    assert_eq!(u32::from_be_bytes(data[4..8].try_into().unwrap()), u32::MAX - 511);
}

/// Any header is carried out, refused or the end; what is carried out lies within the export.
#[test]
fn any_header_is_judged() {
    type Input = (u8, bool, u16, u8, u64, u64);
    bolero::check!().with_type::<Input>().for_each(|(style, magic, flags, kind, offset, length)| {
        let style = [Style::Simple, Style::Structured, Style::Extended][usize::from(*style) % 3];
        let core = session(style);
        let mut bytes = match style {
            Style::Extended => extended(*flags, u16::from(*kind) % 10, *offset, *length),
            _ => compact(*flags, u16::from(*kind) % 10, *offset, *length as u32),
        };
        if *magic {
            bytes[0] ^= 1;
        }
        match core.request(&bytes) {
            Ok(Order::Do(request)) => {
                assert!(request.command.memory() <= MAX_PAYLOAD.into());
                let len = match request.command {
                    Command::Read { len } | Command::Write { len, .. } => len.into(),
                    Command::Trim { len, .. } | Command::Zeroes { len, .. } | Command::Status { len, .. } => len,
                    Command::Flush | Command::StatusOf { .. } | Command::Nothing => 0,
                };
                assert!(len == 0 || core.facts().contains(*offset, len) && core.facts().is_aligned(*offset, len));
            }
            Ok(Order::Refuse { tag, refusal, skip }) => {
                assert!(skip <= MAX_PAYLOAD);
                assert!(!core.error(tag, refusal).0.bytes().is_empty());
            }
            Ok(Order::Leave) => assert_eq!(u16::from(*kind) % 10, command::DISC),
            Err(Violation::Magic(_)) => assert!(*magic),
            Err(Violation::Payload(len)) => assert!(len > MAX_PAYLOAD.into()),
        }
    });
}
