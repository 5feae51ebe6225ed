use super::*;
use crate::nbd::core::wire::{info, transmission_flags as flag};

const SIZE: u64 = 0x1122_3344_5566_7000;

/// Two exports, `a` and `b`; `b` is read-only.
struct Two;

fn facts(name: &str) -> Facts {
    Facts {
        name: name.to_owned(),
        description: format!("disk {name}"),
        size: SIZE,
        block: 512,
        preferred: 4096,
        read_only: name == "b",
        trim: true,
    }
}

impl Catalogue for Two {
    fn list(&self) -> Vec<(String, String)> {
        vec![("a".to_owned(), "disk a".to_owned()), ("b".to_owned(), String::new())]
    }

    fn find(&self, name: &str) -> Option<Facts> {
        ["a", "b"].contains(&name).then(|| facts(name))
    }
}

/// A client that has read the greeting and sent its flags.
struct Client {
    handshake: Handshake,
    out: Vec<u8>,
}

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend(number.to_be_bytes());
    bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    bytes
}

fn named(name: &str, numbers: &[u16]) -> Vec<u8> {
    let mut data = u32::try_from(name.len()).unwrap().to_be_bytes().to_vec();
    data.extend(name.as_bytes());
    data.extend(u16::try_from(numbers.len()).unwrap().to_be_bytes());
    data.extend(numbers.iter().flat_map(|n| n.to_be_bytes()));
    data
}

fn queries(name: &str, queries: &[&str]) -> Vec<u8> {
    let length = |text: &str| u32::try_from(text.len()).unwrap().to_be_bytes();
    let mut data = [&length(name)[..], name.as_bytes()].concat();
    data.extend(u32::try_from(queries.len()).unwrap().to_be_bytes());
    for query in queries {
        data.extend([&length(query)[..], query.as_bytes()].concat());
    }
    data
}

impl Client {
    fn new(tls: Tls, flags: u32) -> Client {
        let mut greeting = Vec::new();
        let handshake = Handshake::new(tls, &mut greeting);
        assert_eq!(greeting, b"NBDMAGICIHAVEOPT\x00\x03");
        let mut client = Client { handshake, out: Vec::new() };
        assert_eq!(client.send(&flags.to_be_bytes()), Step::More);
        client
    }

    fn plain() -> Client {
        Client::new(Tls::Never, 3)
    }

    fn send(&mut self, bytes: &[u8]) -> Step {
        let mut input = bytes;
        self.out.clear();
        let step = self.handshake.handle(&mut input, &Two, &mut self.out);
        assert!(step != Step::More || input.is_empty(), "whole pieces leave nothing");
        step
    }

    fn option(&mut self, number: u32, data: &[u8]) -> Step {
        self.send(&option(number, data))
    }

    /// Kinds and data of the replies to the last option.
    fn replies(&self) -> Vec<(u32, Vec<u8>)> {
        let mut bytes = &self.out[..];
        let mut replies = Vec::new();
        while !bytes.is_empty() {
            let (header, rest) = OptionReply::ref_from_prefix(bytes).expect("a reply");
            assert_eq!(header.magic.get(), REPLY_MAGIC);
            let (data, rest) = rest.split_at(header.length.get() as usize);
            replies.push((header.kind.get(), data.to_vec()));
            bytes = rest;
        }
        replies
    }

    fn kinds(&self) -> Vec<u32> {
        self.replies().into_iter().map(|(kind, _)| kind).collect()
    }
}

fn entered(step: Step) -> Agreed {
    let Step::Enter(agreed) = step else { panic!("not entered: {step:?}") };
    *agreed
}

#[test]
fn export_name_is_answered_with_size_and_flags_and_zeroes_unless_told_not_to() {
    let told = facts("a").flags(Style::Simple, false).to_be_bytes();
    for (flags, zeroes) in [(3, 0), (1, 124), (0, 124), (2, 0)] {
        let mut client = Client::new(Tls::Never, flags);
        assert_eq!(entered(client.option(option::EXPORT_NAME, b"a")).facts, facts("a"));
        let answer = [&SIZE.to_be_bytes()[..], &told, &vec![0; zeroes]].concat();
        assert_eq!(client.out, answer, "client flags {flags}");
    }
    let mut client = Client::plain();
    assert_eq!(client.option(option::EXPORT_NAME, b"nobody"), Step::Close(Closing::ExportName));
    assert!(client.out.is_empty());
}

#[test]
fn go_is_byte_for_byte_what_the_specification_draws() {
    let mut client = Client::plain();
    let wanted = [info::BLOCK_SIZE, info::NAME, info::DESCRIPTION, 0x7777];
    let agreed = entered(client.option(option::GO, &named("a", &wanted)));
    assert_eq!(agreed, Agreed { facts: facts("a"), style: Style::Simple, status: false });
    let head = |kind: u32, len: u8| {
        [&b"\x00\x03\xe8\x89\x04\x55\x65\xa9\0\0\0\x07"[..], &kind.to_be_bytes(), &[0, 0, 0, len]].concat()
    };
    // HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES, MULTI_CONN, CACHE, FAST_ZERO.
    let flags = b"\x0d\x6d";
    let expected = [
        &head(3, 12)[..],
        b"\0\0\x11\x22\x33\x44\x55\x66\x70\x00",
        flags,
        &head(3, 3),
        b"\0\x01a",
        &head(3, 8),
        b"\0\x02disk a",
        &head(3, 14),
        b"\0\x03\0\0\x02\0\0\0\x10\0\x02\0\0\0",
        &head(1, 0),
    ];
    assert_eq!(client.out, expected.concat());
}

#[test]
fn info_tells_the_same_and_stays_in_the_handshake() {
    let mut client = Client::plain();
    assert_eq!(client.option(option::INFO, &named("b", &[])), Step::More);
    let told = client.replies();
    assert_eq!(client.kinds(), [reply::INFO, reply::ACK]);
    let flags = u16::from_be_bytes(told[0].1[10..].try_into().unwrap());
    assert_eq!(flags & flag::READ_ONLY, flag::READ_ONLY);
    assert_eq!(flags & (flag::SEND_TRIM | flag::SEND_WRITE_ZEROES | flag::SEND_FAST_ZERO), 0);
    assert_eq!(client.option(option::INFO, &named("c", &[])), Step::More);
    assert_eq!(client.kinds(), [reply::ERR_UNKNOWN]);
    assert_eq!(client.option(option::GO, &named("c", &[])), Step::More);
    assert_eq!(client.kinds(), [reply::ERR_UNKNOWN]);
}

#[test]
fn list_names_the_exports_and_takes_no_data() {
    let mut client = Client::plain();
    assert_eq!(client.option(option::LIST, b""), Step::More);
    let expected = [
        (reply::SERVER, b"\0\0\0\x01adisk a".to_vec()),
        (reply::SERVER, b"\0\0\0\x01b".to_vec()),
        (reply::ACK, vec![]),
    ];
    assert_eq!(client.replies(), expected);
    client.option(option::LIST, b"x");
    assert_eq!(client.kinds(), [reply::ERR_INVALID]);
}

#[test]
fn malformed_and_unknown_options_are_answered_and_the_next_one_is_understood() {
    let mut client = Client::plain();
    let mut short = named("a", &[1, 2]);
    short.pop();
    let mut long = named("a", &[]);
    long.push(0);
    let not_utf8 = b"\0\0\0\x01\xff\0\0".to_vec();
    let lying = b"\xff\xff\xff\xffa\0\0".to_vec();
    for data in [vec![], short, long, not_utf8, lying] {
        assert_eq!(client.option(option::GO, &data), Step::More, "{data:?}");
        assert_eq!(client.kinds(), [reply::ERR_INVALID], "{data:?}");
    }
    for unknown in [0, 4, 12, u32::MAX] {
        assert_eq!(client.option(unknown, b"whatever"), Step::More);
        assert_eq!(client.kinds(), [reply::ERR_UNSUP]);
    }
    entered(client.option(option::GO, &named("a", &[])));
}

#[test]
fn option_too_long_is_passed_over_and_one_absurdly_long_ends_it() {
    let mut client = Client::plain();
    let long = vec![0; MAX_OPTION as usize + 1];
    let bytes = option(option::LIST, &long);
    assert_eq!(client.send(&bytes[..1000]), Step::More);
    assert_eq!(client.send(&bytes[1000..]), Step::More);
    assert_eq!(client.kinds(), [reply::ERR_TOO_BIG]);
    assert_eq!(client.option(option::LIST, b""), Step::More);
    assert_eq!(client.kinds().last(), Some(&reply::ACK));
    let absurd = [&b"IHAVEOPT"[..], &3_u32.to_be_bytes(), &(MAX_SKIPPED_OPTION + 1).to_be_bytes()].concat();
    assert_eq!(client.send(&absurd), Step::Close(Closing::TooLong(MAX_SKIPPED_OPTION + 1)));
}

#[test]
fn endless_options_end_the_connection() {
    let mut client = Client::plain();
    for _ in 0..MAX_OPTIONS {
        assert_eq!(client.option(option::LIST, b""), Step::More);
    }
    assert_eq!(client.option(option::LIST, b""), Step::Close(Closing::TooMany));
}

#[test]
fn flags_that_were_not_offered_and_bytes_that_are_no_option_end_it() {
    let mut out = Vec::new();
    let mut handshake = Handshake::new(Tls::Never, &mut out);
    assert_eq!(handshake.handle(&mut &7_u32.to_be_bytes()[..], &Two, &mut out), Step::Close(Closing::ClientFlags(7)));
    let mut client = Client::plain();
    assert_eq!(client.send(b"GET / HTTP/1.1\r\n\r\n"), Step::Close(Closing::Magic(u64::from_be_bytes(*b"GET / HT"))));
    let mut old = Client::new(Tls::Never, 0);
    assert_eq!(old.option(option::LIST, b""), Step::Close(Closing::NotFixed(option::LIST)));
}

#[test]
fn abort_is_acknowledged_whatever_it_carries() {
    for tls in [Tls::Never, Tls::Required] {
        let mut client = Client::new(tls, 3);
        assert_eq!(client.option(option::ABORT, b"bye"), Step::Close(Closing::Aborted));
        assert_eq!(client.kinds(), [reply::ACK]);
    }
}

#[test]
fn where_tls_is_asked_for_nothing_is_told_without_it() {
    let mut client = Client::new(Tls::Required, 3);
    for number in [option::LIST, option::INFO, option::GO, option::STRUCTURED_REPLY, 99] {
        assert_eq!(client.option(number, &named("a", &[])), Step::More);
        assert_eq!(client.kinds(), [reply::ERR_TLS_REQD]);
    }
    assert_eq!(client.option(option::STARTTLS, b"x"), Step::More);
    assert_eq!(client.kinds(), [reply::ERR_INVALID]);
    assert_eq!(client.option(option::STARTTLS, b""), Step::StartTls);
    assert_eq!(client.kinds(), [reply::ACK]);
    let mut client = Client { handshake: client.handshake.after_tls(), out: Vec::new() };
    assert_eq!(client.option(option::STARTTLS, b""), Step::More);
    assert_eq!(client.kinds(), [reply::ERR_INVALID], "a second time");
    entered(client.option(option::GO, &named("a", &[])));
    let mut other = Client::new(Tls::Required, 3);
    assert_eq!(other.option(option::EXPORT_NAME, b"a"), Step::Close(Closing::ExportName));
    let mut never = Client::plain();
    assert_eq!(never.option(option::STARTTLS, b""), Step::More);
    assert_eq!(never.kinds(), [reply::ERR_POLICY]);
}

/// Bytes from outside the encryption would be taken for the first ones inside.
#[test]
fn bytes_behind_starttls_end_the_connection() {
    let mut client = Client::new(Tls::Required, 3);
    let bytes = [option(option::STARTTLS, b""), option(option::STRUCTURED_REPLY, b"")].concat();
    assert_eq!(client.send(&bytes), Step::Close(Closing::BytesBehindStartTls));
}

#[test]
fn tls_forgets_what_was_agreed_before() {
    let mut client = Client::plain();
    client.option(option::STRUCTURED_REPLY, b"");
    client.option(option::SET_META_CONTEXT, &queries("a", &["base:allocation"]));
    let mut client = Client { handshake: client.handshake.after_tls(), out: Vec::new() };
    let agreed = entered(client.option(option::GO, &named("a", &[])));
    assert_eq!((agreed.style, agreed.status), (Style::Simple, false));
}

#[test]
fn structured_replies_and_extended_headers_are_agreed_upon_in_either_order() {
    let mut client = Client::plain();
    client.option(option::STRUCTURED_REPLY, b"");
    assert_eq!(client.kinds(), [reply::ACK]);
    client.option(option::STRUCTURED_REPLY, b"x");
    assert_eq!(client.kinds(), [reply::ERR_INVALID]);
    client.option(option::EXTENDED_HEADERS, b"x");
    assert_eq!(client.kinds(), [reply::ERR_INVALID]);
    client.option(option::EXTENDED_HEADERS, b"");
    assert_eq!(client.kinds(), [reply::ACK]);
    client.option(option::STRUCTURED_REPLY, b"");
    assert_eq!(client.kinds(), [reply::ERR_EXT_HEADER_REQD]);
    assert_eq!(client.option(option::EXPORT_NAME, b"a"), Step::Close(Closing::ExportName), "GO only");
    let mut client = Client::plain();
    client.option(option::EXTENDED_HEADERS, b"");
    assert_eq!(entered(client.option(option::GO, &named("a", &[]))).style, Style::Extended);
}

#[test]
fn contexts_are_listed_by_name_wildcard_or_all() {
    let mut client = Client::plain();
    client.option(option::LIST_META_CONTEXT, &queries("a", &[]));
    assert_eq!(client.kinds(), [reply::ERR_INVALID], "structured replies first");
    client.option(option::STRUCTURED_REPLY, b"");
    let allocation = (reply::META_CONTEXT, b"\0\0\0\0base:allocation".to_vec());
    for (asked, found) in [
        (&[][..], true),
        (&["base:"], true),
        (&["base:allocation", "base:allocation"], true),
        (&["base:other"], false),
        (&["qemu:dirty-bitmap:x", "nonsense"], false),
    ] {
        client.option(option::LIST_META_CONTEXT, &queries("a", asked));
        let mut expected = vec![(reply::ACK, vec![])];
        if found {
            expected.insert(0, allocation.clone());
        }
        assert_eq!(client.replies(), expected, "{asked:?}");
    }
    client.option(option::LIST_META_CONTEXT, &queries("c", &[]));
    assert_eq!(client.kinds(), [reply::ERR_UNKNOWN]);
    client.option(option::LIST_META_CONTEXT, &queries("a", &vec!["base:"; MAX_QUERIES_TOLD + 1]));
    assert_eq!(client.kinds(), [reply::ERR_TOO_BIG]);
}

const MAX_QUERIES_TOLD: usize = crate::nbd::limits::MAX_QUERIES as usize;

#[test]
fn context_holds_for_the_export_that_was_named_last_and_is_forgotten_by_a_failure() {
    let status = |then: &dyn Fn(&mut Client)| {
        let mut client = Client::plain();
        client.option(option::STRUCTURED_REPLY, b"");
        client.option(option::SET_META_CONTEXT, &queries("a", &["base:allocation"]));
        let chosen = (reply::META_CONTEXT, b"\0\0\0\x01base:allocation".to_vec());
        assert_eq!(client.replies(), [chosen, (reply::ACK, vec![])]);
        then(&mut client);
        entered(client.option(option::GO, &named("a", &[]))).status
    };
    assert!(status(&|_| {}));
    assert!(!status(&|c| drop(c.option(option::SET_META_CONTEXT, &queries("b", &["base:allocation"])))));
    assert!(!status(&|c| drop(c.option(option::SET_META_CONTEXT, &queries("a", &["base:"])))), "no wildcard");
    assert!(!status(&|c| drop(c.option(option::SET_META_CONTEXT, &queries("a", &[])))));
    assert!(!status(&|c| drop(c.option(option::SET_META_CONTEXT, b"junk"))));
}

/// Whatever comes, in whatever pieces: an answer to each option, or the end, and never more kept than one option.
#[test]
fn any_bytes_lead_to_answers_or_the_end() {
    bolero::check!().with_type::<(bool, bool, u8, Vec<(u8, Vec<u8>)>)>().for_each(|(tls, junk, cut, options)| {
        let tls = if *tls { Tls::Required } else { Tls::Never };
        let mut out = Vec::new();
        let mut handshake = Handshake::new(tls, &mut out);
        let mut bytes = 3_u32.to_be_bytes().to_vec();
        for (number, data) in options {
            if *junk {
                bytes.extend(data);
            } else {
                bytes.extend(option(u32::from(*number) % 14, data));
            }
        }
        let mut kept = Vec::new();
        for piece in bytes.chunks(usize::from(*cut) + 1) {
            kept.extend_from_slice(piece);
            let mut left = &kept[..];
            let step = handshake.handle(&mut left, &Two, &mut out);
            kept = left.to_vec();
            assert!(kept.len() <= MAX_OPTION as usize + size_of::<OptionHeader>());
            if step != Step::More {
                return;
            }
        }
    });
}
