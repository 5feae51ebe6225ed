//! The frame: a 64-byte header, a body, a payload. Pure; the byte drawing is docs/formats/frames.md.
//!
//! All numbers are little-endian. The header's own crc32c covers its first 60 bytes, the data crc32c covers
//! body then payload. `decode` refuses, in this order: foreign magic, damaged header, unknown version, kind,
//! flag or reserved byte, lengths beyond the limits, and what a kind does not carry. A refused header means
//! that the place of the next frame is unknown: the connection ends.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::limits::{MAX_BODY, MAX_HELLO, MAX_PAYLOAD, MAX_SENTENCE};

/// First bytes of every frame.
pub const MAGIC: [u8; 4] = *b"SHFR";

/// Bytes of a header.
pub const HEADER_LEN: usize = 64;

/// Versions of the protocol. The frames of the HELLO phase always carry [`Version::V1`]; after it the frames
/// carry the version that was agreed upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Version {
    /// History: 1, the first.
    V1 = 1,
}

impl Version {
    /// The oldest version this code speaks.
    pub const OLDEST: Self = Self::V1;
    /// The newest version this code speaks.
    pub const NEWEST: Self = Self::V1;

    /// The version with this number, if this code speaks it.
    pub fn from_number(n: u8) -> Option<Self> {
        (n == Self::V1 as u8).then_some(Self::V1)
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Dialer's first frame: versions, features, application bytes.
    Hello = 1,
    /// Acceptor's answer of the same shape.
    Welcome = 2,
    /// Dialer: both have accepted, the connection is open.
    Ready = 3,
    /// Either, instead of going on: a sentence. The connection ends.
    Refuse = 4,
    /// A question; its id is chosen by the asker and is not 0.
    Request = 5,
    /// The answer, with the request's id.
    Reply = 6,
    /// "No answer", with the request's id and a sentence.
    Fail = 7,
    /// A message without an answer.
    Oneway = 8,
    /// Are you there?
    Ping = 9,
    /// I am.
    Pong = 10,
    /// The sender closes the connection: a sentence.
    Bye = 11,
}

impl Kind {
    fn from_number(n: u8) -> Option<Self> {
        const ALL: [Kind; 11] = [
            Kind::Hello,
            Kind::Welcome,
            Kind::Ready,
            Kind::Refuse,
            Kind::Request,
            Kind::Reply,
            Kind::Fail,
            Kind::Oneway,
            Kind::Ping,
            Kind::Pong,
            Kind::Bye,
        ];
        ALL.get(usize::from(n).checked_sub(1)?).copied()
    }

    /// Longest body and payload this kind may carry.
    fn longest(self) -> (usize, usize) {
        match self {
            Self::Request | Self::Reply | Self::Oneway => (MAX_BODY, MAX_PAYLOAD),
            Self::Hello | Self::Welcome => (MAX_HELLO, 0),
            Self::Refuse | Self::Fail | Self::Bye => (MAX_SENTENCE, 0),
            Self::Ready | Self::Ping | Self::Pong => (0, 0),
        }
    }

    /// Does it carry a request id?
    fn has_id(self) -> bool {
        matches!(self, Self::Request | Self::Reply | Self::Fail)
    }

    /// Does it carry the application's opcode and epoch?
    fn has_opcode(self) -> bool {
        matches!(self, Self::Request | Self::Reply | Self::Oneway)
    }

    /// May it appear before both ends have accepted each other?
    pub fn is_handshake(self) -> bool {
        matches!(self, Self::Hello | Self::Welcome | Self::Ready | Self::Refuse)
    }
}

/// The bytes of a header as they travel.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
struct WireHeader {
    magic: [u8; 4],
    version: u8,
    kind: u8,
    flags: U16,
    opcode: U16,
    reserved0: U16,
    body_len: U32,
    payload_len: U32,
    data_crc: U32,
    request_id: U64,
    epoch: U64,
    reserved1: [u8; 20],
    header_crc: U32,
}

const _: () = assert!(size_of::<WireHeader>() == HEADER_LEN);

/// Offset of the header's checksum: the bytes before it are what it covers.
const CRC_AT: usize = HEADER_LEN - 4;

/// Why a frame is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Not our protocol.
    #[error("not a frame of this protocol (bad magic; is one end speaking TLS and the other not?)")]
    BadMagic,
    /// Damaged header.
    #[error("the header's checksum is wrong")]
    HeaderCrc,
    /// A version that was not agreed upon, or that this code does not speak.
    #[error("frame of version {0}")]
    Version(u8),
    /// Unknown kind.
    #[error("frame of unknown kind {0}")]
    UnknownKind(u8),
    /// Unknown flags (version 1 has none).
    #[error("frame with unknown flags {0:#06x}")]
    UnknownFlags(u16),
    /// A reserved byte is set.
    #[error("frame with a reserved byte set")]
    Reserved,
    /// Too long for its kind or for this phase.
    #[error("{what} of {len} bytes in a frame of kind {kind:?}, {max} allowed")]
    TooLong {
        /// The frame's kind.
        kind: Kind,
        /// Body or payload.
        what: &'static str,
        /// The length it claims.
        len: u32,
        /// The length allowed.
        max: usize,
    },
    /// A request id, opcode or epoch where the kind has none, or no id where it has one.
    #[error("frame of kind {0:?} with a request id, opcode or epoch that it may not have")]
    Shape(Kind),
    /// A kind that this phase does not allow.
    #[error("unexpected frame of kind {0:?}")]
    Unexpected(Kind),
    /// Damaged body or payload.
    #[error("the checksum of body and payload is wrong (frame of kind {0:?})")]
    DataCrc(Kind),
    /// Bytes were offered after a refused frame.
    #[error("the frame before was refused")]
    Broken,
}

/// A checked header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The version it is written in.
    pub version: Version,
    /// What the frame is.
    pub kind: Kind,
    /// The application's opcode, 0 where the kind has none.
    pub opcode: u16,
    /// The request's id, 0 where the kind has none.
    pub request_id: u64,
    /// The application's epoch.
    pub epoch: u64,
    /// Bytes of body.
    pub body_len: u32,
    /// Bytes of payload.
    pub payload_len: u32,
    /// crc32c of body then payload.
    pub data_crc: u32,
}

impl Header {
    /// A header for this body and payload; computes their checksum. The lengths have been checked by the caller
    /// (`Message::check`), longer ones are cut in the length field and would be refused by the peer.
    pub fn new(kind: Kind, body: &[u8], payload: &[u8]) -> Self {
        let saturate = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            version: Version::V1,
            kind,
            opcode: 0,
            request_id: 0,
            epoch: 0,
            body_len: saturate(body.len()),
            payload_len: saturate(payload.len()),
            data_crc: data_crc(body, payload),
        }
    }

    /// The bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut wire = WireHeader {
            magic: MAGIC,
            version: self.version as u8,
            kind: self.kind as u8,
            flags: U16::ZERO,
            opcode: U16::new(self.opcode),
            reserved0: U16::ZERO,
            body_len: U32::new(self.body_len),
            payload_len: U32::new(self.payload_len),
            data_crc: U32::new(self.data_crc),
            request_id: U64::new(self.request_id),
            epoch: U64::new(self.epoch),
            reserved1: [0; 20],
            header_crc: U32::ZERO,
        };
        let crc = crc32c::crc32c(&wire.as_bytes()[..CRC_AT]);
        wire.header_crc = U32::new(crc);
        zerocopy::transmute!(wire)
    }

    /// Reads and checks a header. See the module's head for what is refused.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, FrameError> {
        let wire: WireHeader = zerocopy::transmute!(*bytes);
        if wire.magic != MAGIC {
            return Err(FrameError::BadMagic);
        }
        if crc32c::crc32c(&bytes[..CRC_AT]) != wire.header_crc.get() {
            return Err(FrameError::HeaderCrc);
        }
        let version = Version::from_number(wire.version).ok_or(FrameError::Version(wire.version))?;
        let kind = Kind::from_number(wire.kind).ok_or(FrameError::UnknownKind(wire.kind))?;
        if wire.flags.get() != 0 {
            return Err(FrameError::UnknownFlags(wire.flags.get()));
        }
        if wire.reserved0.get() != 0 || wire.reserved1 != [0; 20] {
            return Err(FrameError::Reserved);
        }
        let header = Self {
            version,
            kind,
            opcode: wire.opcode.get(),
            request_id: wire.request_id.get(),
            epoch: wire.epoch.get(),
            body_len: wire.body_len.get(),
            payload_len: wire.payload_len.get(),
            data_crc: wire.data_crc.get(),
        };
        header.check_shape()?;
        Ok(header)
    }

    fn check_shape(&self) -> Result<(), FrameError> {
        let (body, payload) = self.kind.longest();
        for (what, len, max) in [("body", self.body_len, body), ("payload", self.payload_len, payload)] {
            if len as usize > max {
                return Err(FrameError::TooLong { kind: self.kind, what, len, max });
            }
        }
        let id_ok = (self.request_id != 0) == self.kind.has_id();
        let opcode_ok = self.kind.has_opcode() || (self.opcode == 0 && self.epoch == 0);
        if id_ok && opcode_ok { Ok(()) } else { Err(FrameError::Shape(self.kind)) }
    }
}

/// The checksum of body then payload.
pub fn data_crc(body: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(body), payload)
}

#[cfg(test)]
mod tests;
