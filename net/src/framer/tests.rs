use proptest::prelude::*;

use super::*;
use crate::frame::Kind;
use crate::outgoing::OutFrame;

fn bytes_of(frame: &OutFrame) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame.copy_to(&mut out);
    out.to_vec()
}

fn request(id: u64, body: &[u8], payload: &[u8]) -> Vec<u8> {
    let msg = Message::new(3, 9, body.to_vec());
    let payload = Payload::Shared(Bytes::copy_from_slice(payload));
    bytes_of(&OutFrame::message(Kind::Request, id, msg.with_payload(payload)))
}

fn open() -> Framer {
    let mut framer = Framer::default();
    framer.open(Version::V1);
    framer
}

/// Feeds `wire`, at most `step(i)` bytes the i-th time. The frames up to the end or the first refusal.
fn feed(framer: &mut Framer, wire: &[u8], step: impl Fn(usize) -> usize) -> (Vec<Frame>, Option<FrameError>) {
    let (mut frames, mut rest, mut i) = (Vec::new(), wire, 0);
    while !rest.is_empty() {
        let space = framer.space();
        let n = space.len().min(rest.len()).min(step(i).max(1));
        assert!(n > 0, "no space although nothing was refused");
        space[..n].copy_from_slice(&rest[..n]);
        rest = &rest[n..];
        i += 1;
        match framer.filled(n) {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => {}
            Err(e) => return (frames, Some(e)),
        }
    }
    (frames, None)
}

#[test]
fn a_payload_is_read_into_memory_aligned_for_a_device() {
    let (frames, _) = feed(&mut open(), &request(1, b"b", &[7; 8192]), |_| 4096);
    let payload = frames.into_iter().next().unwrap().into_message().payload.into_aligned().unwrap();
    assert!(payload.is_aligned_to(4096));
    assert_eq!(&*payload, &[7; 8192]);
}

#[test]
fn space_never_reaches_into_the_next_frame() {
    let mut framer = open();
    assert_eq!(framer.space().len(), HEADER_LEN);
    let wire = request(1, b"body", b"payload");
    let (frames, _) = feed(&mut framer, &wire[..HEADER_LEN], |_| 100);
    assert!(frames.is_empty());
    assert_eq!(framer.space().len(), 4);
    feed(&mut framer, &wire[HEADER_LEN..HEADER_LEN + 4], |_| 100);
    assert_eq!(framer.space().len(), 7);
}

#[test]
fn before_hello_only_handshake_frames_pass_and_afterwards_none() {
    let hello = bytes_of(&OutFrame::control(Kind::Hello, 0, Bytes::from_static(b"x")));
    let ping = bytes_of(&OutFrame::control(Kind::Ping, 0, Bytes::new()));
    let big = request(1, &[0; 1 << 20], &[0; 4096]);
    assert!(feed(&mut Framer::default(), &hello, |_| 999).1.is_none());
    let refused = |framer: &mut Framer, wire: &[u8]| feed(framer, wire, |_| 999).1;
    assert_eq!(refused(&mut Framer::default(), &ping), Some(FrameError::Unexpected(Kind::Ping)));
    assert_eq!(refused(&mut Framer::default(), &big), Some(FrameError::Unexpected(Kind::Request)));
    assert_eq!(refused(&mut open(), &hello), Some(FrameError::Unexpected(Kind::Hello)));
}

#[test]
fn after_a_refused_frame_nothing_is_read_any_more() {
    let mut framer = open();
    assert_eq!(feed(&mut framer, &[0; 64], |_| 64).1, Some(FrameError::BadMagic));
    assert!(framer.space().is_empty());
    assert_eq!(framer.filled(0).err(), Some(FrameError::Broken));
}

#[test]
fn a_changed_byte_of_body_or_payload_is_refused() {
    let good = request(1, b"body", b"payload");
    for at in HEADER_LEN..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        assert_eq!(feed(&mut open(), &bad, |_| 999).1, Some(FrameError::DataCrc(Kind::Request)));
    }
}

#[test]
fn bodies_held_from_one_block_keep_their_bytes() {
    let mut framer = open();
    let wire: Vec<u8> = (0..200_u8).flat_map(|i| request(1, &[i; 300], b"")).collect();
    let (frames, _) = feed(&mut framer, &wire, |_| 1000);
    assert_eq!(frames.len(), 200);
    assert!(frames.iter().zip(0_u8..).all(|(f, i)| f.body.iter().all(|b| *b == i)));
}

fn part() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(vec![]), proptest::collection::vec(any::<u8>(), 1..200), Just(vec![9; 9000])]
}

proptest! {
    #[test]
    fn any_chopping_of_the_stream_gives_the_same_frames(
        parts in proptest::collection::vec((part(), part()), 1..6),
        steps in proptest::collection::vec(1_usize..5000, 1..50),
    ) {
        let wire: Vec<u8> = parts.iter().flat_map(|(b, p)| request(5, b, p)).collect();
        let (frames, refused) = feed(&mut open(), &wire, |i| steps[i % steps.len()]);
        prop_assert_eq!(refused, None);
        prop_assert_eq!(frames.len(), parts.len());
        for (frame, (body, payload)) in frames.iter().zip(&parts) {
            prop_assert_eq!(&frame.body[..], &body[..]);
            prop_assert_eq!(frame.payload.as_slice(), &payload[..]);
        }
    }

    /// Mutated streams: whatever comes, it is refused or understood, and what is understood was sent.
    #[test]
    fn a_mutated_stream_never_panics_and_never_yields_what_was_not_sent(
        parts in proptest::collection::vec((part(), part()), 1..5),
        hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut: prop::sample::Index,
        forge: bool,
        handshake: bool,
    ) {
        let mut wire: Vec<u8> = parts.iter().flat_map(|(b, p)| request(5, b, p)).collect();
        for (at, value) in &hits {
            let at = at.index(wire.len());
            wire[at] = *value;
        }
        if forge {
            let crc = crc32c::crc32c(&wire[..60]);
            wire[60..64].copy_from_slice(&crc.to_le_bytes());
        }
        wire.truncate(cut.index(wire.len()) + 1);
        let mut framer = if handshake { Framer::default() } else { open() };
        let (frames, _) = feed(&mut framer, &wire, |_| 777);
        prop_assert!(frames.len() <= parts.len());
        for frame in &frames {
            let sent = parts.iter().any(|(b, p)| frame.body == b[..] && frame.payload.as_slice() == &p[..]);
            // A forged header may name other lengths, whose checksum then fails; its ids may be forged.
            prop_assert!(sent);
        }
    }

    #[test]
    fn random_bytes_are_refused_at_the_first_header(noise in proptest::collection::vec(any::<u8>(), 64..500)) {
        let (frames, refused) = feed(&mut open(), &noise, |_| 64);
        prop_assert!(frames.is_empty());
        prop_assert!(refused.is_some());
    }
}

#[test]
fn a_peers_sentence_is_one_line() {
    let wire = bytes_of(&OutFrame::control(Kind::Bye, 0, Bytes::from_static(b"a\nb\x1b[31m\xff")));
    let (frames, _) = feed(&mut open(), &wire, |_| 999);
    assert_eq!(frames[0].sentence(), "a?b?[31m\u{fffd}");
}
