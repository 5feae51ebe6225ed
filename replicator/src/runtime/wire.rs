//! Messages of the core in frames of `net`, and the look at each that comes in.
//!
//! A message is a one-way frame: its body is postcard, its bytes of data are the payload, its epoch is its number on this
//! connection, from 1 on in each direction. `net` promises no order; a number out of turn ends the connection, so
//! that the core has what it relies on: all messages in order, or none any more.
//!
//! What comes in is checked before the core sees it: spans lie within the device, data are as long as their span,
//! ballots leave room above them. What fails the check ends the connection.

use bytes::Bytes;
use net::Payload;

use crate::core::event::{Hello, Message};
use crate::core::pieces::{UNIT, spread};
use crate::ids::{Ballot, Grant, SECTOR, Sizes, Span, Volume};
use crate::meta::bitmap::MAX_BITS;
use crate::meta::layout::BIT_MAX;

/// The version of these messages; nodes of different versions refuse one another. 1: the first. 2: HELLO says quorum and
/// tie-breaker; synchronisation in runs, zeroing. What is newer within a version is in the minor one (`links`).
pub(super) const VERSION: u16 = 2;
/// A message without data.
const PLAIN: u16 = 1;
/// A message with data.
const WITH_DATA: u16 = 2;
/// Bytes of data of a message at most; a request of an application is cut to pieces of this size.
pub(super) const MAX_DATA: usize = 1 << 20;
/// Bytes that one message zeroes at most.
pub(super) const MAX_ZERO: u64 = 16 << 20;
/// Rounds of ballots above which nobody is believed: there must be room for higher ones.
const MAX_ROUND: u32 = u32::MAX / 2;

/// Lives of a volume from which on nobody is believed: there must be room for later ones.
const MAX_LIFE: u32 = u32::MAX / 2;

/// Why a frame is not a message of this protocol.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    /// Not the next one.
    #[error("message {came} where {expected} was due")]
    OutOfTurn {
        /// Its number.
        came: u64,
        /// The one that was due.
        expected: u64,
    },
    /// No such kind of frame.
    #[error("opcode {0} is unknown")]
    Opcode(u16),
    /// The body is no message.
    #[error("the body does not parse: {0}")]
    Body(postcard::Error),
    /// It says what cannot be.
    #[error("{0}")]
    Absurd(&'static str),
}

/// A message on its way: kept until the connection takes it.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    number: u64,
    body: Bytes,
    data: Option<Bytes>,
}

impl Packed {
    /// Bytes that it holds.
    pub(super) fn len(&self) -> usize {
        self.body.len() + self.data.as_ref().map_or(0, Bytes::len)
    }

    /// As a frame.
    pub(super) fn frame(&self) -> net::Message {
        let opcode = if self.data.is_some() { WITH_DATA } else { PLAIN };
        let frame = net::Message::new(opcode, self.number, self.body.clone());
        match &self.data {
            Some(data) => frame.with_payload(Payload::Shared(data.clone())),
            None => frame,
        }
    }
}

/// Whether a tie-breaker says such a thing: it has a vote and no data.
pub(super) fn is_a_voters(message: &Message) -> bool {
    use Message::{Accepted, Ping, Pong, Promise, Reject};
    matches!(message, Ping | Pong | Promise(..) | Accepted(..) | Reject(..))
}

/// Whether a replica says such a thing to a tie-breaker.
pub(super) fn is_a_candidates(message: &Message) -> bool {
    use Message::{Accept, Farewell, Hello, Ping, Pong, Prepare};
    matches!(message, Ping | Pong | Hello(_) | Farewell | Prepare(_) | Accept { .. })
}

/// A message under its number.
pub(super) fn pack(message: &Message, number: u64) -> Result<Packed, WireError> {
    let body = postcard::to_stdvec(message).map_err(WireError::Body)?.into();
    let data = match message {
        Message::Write { data, .. } => Some(data),
        Message::Pulled { data, .. } if !data.is_empty() => Some(data),
        Message::RemoteData(_, data) => data.as_ref(),
        _ => None,
    };
    Ok(Packed { number, body, data: data.cloned() })
}

/// The message of a frame that is due as this number, for volumes of these sizes.
pub(super) fn unpack(frame: net::Message, expected: u64, sizes: &Sizes) -> Result<Message, WireError> {
    if frame.epoch != expected {
        return Err(WireError::OutOfTurn { came: frame.epoch, expected });
    }
    let mut message: Message = postcard::from_bytes(&frame.body).map_err(WireError::Body)?;
    let data = match (frame.opcode, frame.payload) {
        (PLAIN, Payload::None) => None,
        (WITH_DATA, Payload::Aligned(buf)) => Some(buf.freeze()),
        (WITH_DATA, Payload::Shared(bytes)) => Some(bytes),
        (PLAIN | WITH_DATA, _) => return Err(WireError::Absurd("the payload does not fit the opcode")),
        (other, _) => return Err(WireError::Opcode(other)),
    };
    match (&mut message, data) {
        (Message::Write { data, .. }, Some(came)) => *data = came,
        (Message::Write { .. }, None) => return Err(WireError::Absurd("a write without data")),
        (Message::Pulled { data, .. }, came) => *data = came.unwrap_or_default(),
        (Message::RemoteData(_, data), came) => *data = came,
        (_, Some(_)) => return Err(WireError::Absurd("data where none belong")),
        (_, None) => {}
    }
    check(&message, sizes)?;
    Ok(message)
}

// long: a message each; what is looked at is a line or two.
fn check(message: &Message, sizes: &Sizes) -> Result<(), WireError> {
    let end = |span: &Span| sizes.end_of(span.at);
    let within = |span: &Span| {
        let longest = Volume::of(span.at).map_or(0, |v| sizes.of(v)).next_multiple_of(1 << 11);
        let good = span.len > 0 && span.at < end(span) && span.len <= longest;
        if good { Ok(()) } else { Err(WireError::Absurd("a span outside the device")) }
    };
    match message {
        Message::Write { span, data, .. } => {
            let fits = span.end() <= end(span) && span.len.checked_mul(SECTOR) == Some(data.len() as u64);
            within(span)?;
            if fits { Ok(()) } else { Err(WireError::Absurd("a write whose data do not fit its span")) }
        }
        Message::Zero { span, .. } => {
            let fits = span.end() <= end(span) && span.len <= MAX_ZERO / SECTOR;
            within(span)?;
            if fits {
                Ok(())
            } else {
                Err(WireError::Absurd("more is to be zeroed than there is, or than fits a message"))
            }
        }
        Message::Pulled { run, pieces, data, .. } => {
            within(run)?;
            short(run)?;
            let fits = spread(*run, pieces, data, end(run), SECTOR as usize).is_some();
            if fits { Ok(()) } else { Err(WireError::Absurd("what was pulled does not fit its run")) }
        }
        Message::Checked(run, pieces, _) => {
            within(run)?;
            short(run)?;
            let units: u64 = pieces.iter().map(|p| u64::from(p.units)).sum();
            let fits = units == sizes.within(*run).len.div_ceil(UNIT) && pieces.iter().all(|p| p.units > 0);
            if fits { Ok(()) } else { Err(WireError::Absurd("what was compared does not fit its run")) }
        }
        Message::Differs(spans, ..) => spans.iter().try_for_each(within),
        Message::Pull(run, digests) | Message::Check(run, digests) => {
            within(run)?;
            short(run)?;
            let units = sizes.within(*run).len.div_ceil(UNIT);
            let fits = digests.is_empty() || digests.len() as u64 == units;
            if fits { Ok(()) } else { Err(WireError::Absurd("digests that do not fit their run")) }
        }
        Message::RemoteRead(_, span) => {
            within(span)?;
            short(span)
        }
        Message::PeerInSync(_, span) => within(span),
        Message::Dirty(spans, _) | Message::PullAck(spans) => spans.iter().try_for_each(within),
        Message::Hello(hello) => check_hello(hello),
        Message::Sizes(all) => {
            let fits = all.len() <= Volume::MOST && all.iter().all(|s| *s <= MAX_BITS * BIT_MAX);
            if fits { Ok(()) } else { Err(WireError::Absurd("more volumes than there can be, or larger ones")) }
        }
        Message::Lives(all) => {
            let fits = all.len() <= Volume::MOST && all.iter().all(|life| *life < MAX_LIFE);
            if fits {
                Ok(())
            } else {
                Err(WireError::Absurd("lives of more volumes than there can be, or the last ones"))
            }
        }
        Message::Leave(volume, life) | Message::Left(volume, life) => {
            let further = Volume::new(*volume).is_some_and(|v| v != Volume::FIRST);
            let fits = further && life.is_multiple_of(2) && (1..MAX_LIFE).contains(life);
            if fits {
                Ok(())
            } else {
                Err(WireError::Absurd("a volume that cannot be taken away, or not in that life"))
            }
        }
        Message::Prepare(ballot) | Message::Accepted(ballot, _) => check_ballots(&[*ballot]),
        Message::Reject(asked, promised) => check_ballots(&[*asked, *promised]),
        Message::Promise(ballot, grant, _) => check_ballots(&[*ballot, grant.ballot]),
        Message::Accept { grant, .. } => check_ballots(&[grant.ballot]),
        _ => Ok(()),
    }
}

fn short(span: &Span) -> Result<(), WireError> {
    let long = span.len > MAX_DATA as u64 / SECTOR;
    if long { Err(WireError::Absurd("more is asked for than a message carries")) } else { Ok(()) }
}

fn check_hello(hello: &Hello) -> Result<(), WireError> {
    let Grant { ballot, .. } = hello.side.grant;
    check_ballots(&[hello.promised, ballot, hello.reigns.unwrap_or_default()])
}

fn check_ballots(ballots: &[Ballot]) -> Result<(), WireError> {
    let good = ballots.iter().all(|b| b.round < MAX_ROUND);
    if good { Ok(()) } else { Err(WireError::Absurd("a ballot that leaves no room above it")) }
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::ReqId;
    use crate::core::pieces::{Kind, Piece};
    use crate::ids::{NodeSet, Seq};

    /// A volume of 1000 sectors, and another one of 500.
    fn sizes() -> Sizes {
        Sizes::one(1000).with(other(), 500)
    }

    fn other() -> Volume {
        Volume::new(3).expect("a volume")
    }

    fn write(span: Span, len: usize) -> Message {
        let data = Bytes::from(vec![7; len]);
        Message::Write { seq: Seq(9), epoch: 2, span, data, fua: true, receipt: false }
    }

    fn pulled(run: Span, pieces: &[(Kind, u32)], len: usize) -> Message {
        let pieces = pieces.iter().map(|(kind, units)| Piece { kind: *kind, units: *units }).collect();
        let data = Bytes::from(vec![1; len]);
        Message::Pulled { run, pieces, data, holders: NodeSet(3), room: 65_536 }
    }

    fn there_and_back(message: &Message) -> Result<Message, WireError> {
        unpack(pack(message, 5).expect("packs").frame(), 5, &sizes())
    }

    #[test]
    fn messages_come_back_with_and_without_their_data() {
        let spans = vec![Span::new(0, 8), Span::new(992, 16)];
        for message in [
            write(Span::new(8, 2), 1024),
            pulled(Span::new(992, 16), &[(Kind::Data, 1)], 8 * 512),
            pulled(Span::new(0, 32), &[(Kind::Same, 1), (Kind::Data, 2), (Kind::Zero, 1)], 8192),
            pulled(Span::new(0, 8), &[(Kind::Zero, 1)], 0),
            Message::Zero { seq: Seq(9), epoch: 2, span: Span::new(8, 990), free: true, receipt: false },
            Message::Pull(Span::new(992, 16), vec![[3; 32]]),
            Message::Pull(Span::new(0, 16), Vec::new()),
            Message::RemoteData(ReqId(4), None),
            Message::RemoteData(ReqId(4), Some(Bytes::from_static(b"x"))),
            Message::Dirty(spans, true),
            Message::Settled(Seq(7), NodeSet(2)),
            Message::Check(Span::new(0, 16), vec![[3; 32]; 2]),
            Message::Checked(Span::new(992, 16), vec![Piece { kind: Kind::Data, units: 1 }], 4096),
            Message::Differs(vec![Span::new(8, 8)], 8, 0, true),
            Message::SyncDoneAck,
            write(Span::new(other().base() + 492, 8), 4096),
            Message::Dirty(vec![Span::new(992, 16), Span::new(other().base() + 496, 8)], true),
            Message::Check(Span::new(other().base() + 496, 16), vec![[3; 32]]),
            Message::Sizes(vec![1000, 0, 0, 500]),
            Message::RoomOf(3),
            Message::Lives(vec![1, 2, 0, 3]),
            Message::Leave(3, 2),
            Message::Left(3, 4),
        ] {
            assert_eq!(there_and_back(&message), Ok(message));
        }
    }

    #[test]
    fn a_message_out_of_turn_is_refused() {
        let frame = pack(&Message::Ping, 5).expect("packs").frame();
        assert_eq!(unpack(frame, 4, &sizes()), Err(WireError::OutOfTurn { came: 5, expected: 4 }));
    }

    #[test]
    fn what_does_not_fit_the_device_is_refused() {
        let high = Ballot { round: u32::MAX, node: 1 };
        for message in [
            write(Span::new(999, 2), 1024),
            write(Span::new(0, 2), 512),
            write(Span::new(u64::MAX, 2), 1024),
            write(Span::new(0, 0), 0),
            pulled(Span::new(0, 8), &[(Kind::Data, 1)], 5),
            Message::Check(Span::new(0, 16), vec![[3; 32]]),
            Message::Checked(Span::new(0, 16), vec![Piece { kind: Kind::Same, units: 3 }], 0),
            Message::Differs(vec![Span::new(2000, 8)], 8, 0, true),
            pulled(Span::new(0, 8), &[(Kind::Data, 2)], 8192),
            pulled(Span::new(0, 16), &[(Kind::Same, 1)], 0),
            Message::Pull(Span::new(5000, 8), vec![[0; 32]]),
            Message::Pull(Span::new(0, 16), vec![[0; 32]]),
            Message::Zero { seq: Seq(9), epoch: 2, span: Span::new(8, 1000), free: true, receipt: false },
            Message::RemoteRead(ReqId(1), Span::new(0, u64::MAX)),
            Message::Dirty(vec![Span::new(0, u64::MAX)], true),
            write(Span::new(other().base() + 499, 2), 1024),
            write(Volume::new(1).expect("a volume").span(2), 1024),
            Message::Pull(Span::new(other().base() - 8, 8), vec![[0; 32]]),
            Message::Dirty(vec![Span::new(992, 16), Span::new(other().base() + 500, 8)], true),
            Message::Sizes(vec![8; 17]),
            Message::Sizes(vec![1 << 40]),
            Message::Lives(vec![1; 17]),
            Message::Lives(vec![1, u32::MAX]),
            Message::Leave(0, 2),
            Message::Leave(16, 2),
            Message::Leave(3, 3),
            Message::Left(3, 0),
            Message::Left(3, u32::MAX - 1),
            Message::Reject(high, Ballot::default()),
            Message::Prepare(high),
        ] {
            assert!(matches!(there_and_back(&message), Err(WireError::Absurd(_))), "{message:?}");
        }
    }

    #[test]
    fn any_bytes_are_a_message_or_refused() {
        bolero::check!().with_type::<(u16, Vec<u8>)>().for_each(|(opcode, bytes)| {
            let frame = net::Message::new(opcode % 4, 1, bytes.clone());
            drop(unpack(frame, 1, &sizes()));
        });
    }

    #[test]
    fn the_bytes_of_version_2_are_frozen() {
        let bytes = |m: &Message| pack(m, 1).expect("packs").body.to_vec();
        assert_eq!(bytes(&write(Span::new(300, 8), 4096)), [2, 9, 2, 172, 2, 8, 1, 0]);
        assert_eq!(bytes(&Message::Settled(Seq(7), NodeSet(6))), [7, 7, 6]);
        assert_eq!(bytes(&Message::Pull(Span::new(8, 8), vec![[1; 32]]))[..5], [15, 8, 8, 1, 1]);
        assert_eq!(
            bytes(&pulled(Span::new(8, 16), &[(Kind::Zero, 1), (Kind::Data, 1)], 0)),
            [16, 8, 16, 2, 1, 1, 2, 1, 3, 128, 128, 4]
        );
        assert_eq!(bytes(&Message::Pong), [27]);
        assert_eq!(bytes(&Message::RoomOf(3)), [37, 3]);
        assert_eq!(bytes(&Message::Sizes(vec![300, 0])), [38, 2, 172, 2, 0]);
        assert_eq!(bytes(&Message::Lives(vec![1, 2])), [39, 2, 1, 2]);
        assert_eq!(bytes(&Message::Leave(3, 2)), [40, 3, 2]);
        assert_eq!(bytes(&Message::Left(3, 300)), [41, 3, 172, 2]);
        let there = Span::new(other().base() + 1, 8);
        assert_eq!(bytes(&Message::Dirty(vec![there], true)), [14, 1, 129, 128, 128, 128, 128, 96, 8, 1]);
    }
}
