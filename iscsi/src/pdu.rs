//! PDUs as they lie on the wire (RFC 7143, clause 11): 48 bytes of basic header segment, additional header segments,
//! a data segment.
//!
//! [`Bhs`] is any header; each kind is a `zerocopy` struct of 48 bytes ([`raw`]) into which a header of its opcode is
//! viewed. Both ends use the same structs. Nothing here judges values: whether a field may hold what it holds is the
//! session's question. What makes the *length* of a PDU unknowable is the framer's.

pub mod ahs;
pub mod raw;

#[cfg(test)]
mod tests;

use zerocopy::byteorder::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ids::Itt;

/// Bytes of a basic header segment.
pub const BHS_LEN: usize = 48;

/// The longest data segment that 24 bits can say.
pub const MAX_DATA_SEGMENT: u32 = (1 << 24) - 1;

/// The immediate bit beside the opcode.
pub const IMMEDIATE: u8 = 0x40;
/// The final bit of byte 1 (login: transit).
pub const FINAL: u8 = 0x80;

/// What a PDU is (RFC 7143, 11.2.1.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Opcode {
    /// Initiator's ping or answer to a ping.
    NopOut = 0x00,
    /// A SCSI command.
    ScsiCommand = 0x01,
    /// Task management request.
    TaskRequest = 0x02,
    /// Login request.
    LoginRequest = 0x03,
    /// Text request.
    TextRequest = 0x04,
    /// Data to the target.
    DataOut = 0x05,
    /// Logout request.
    LogoutRequest = 0x06,
    /// Sequence number acknowledgement (recovery levels above 0).
    Snack = 0x10,
    /// Target's ping or answer to a ping.
    NopIn = 0x20,
    /// End of a SCSI command.
    ScsiResponse = 0x21,
    /// Task management response.
    TaskResponse = 0x22,
    /// Login response.
    LoginResponse = 0x23,
    /// Text response.
    TextResponse = 0x24,
    /// Data to the initiator.
    DataIn = 0x25,
    /// Logout response.
    LogoutResponse = 0x26,
    /// Ready to transfer.
    R2t = 0x31,
    /// Asynchronous message.
    Async = 0x32,
    /// A PDU was refused.
    Reject = 0x3f,
}

impl Opcode {
    /// Every opcode.
    pub const ALL: [Opcode; 18] = [
        Opcode::NopOut,
        Opcode::ScsiCommand,
        Opcode::TaskRequest,
        Opcode::LoginRequest,
        Opcode::TextRequest,
        Opcode::DataOut,
        Opcode::LogoutRequest,
        Opcode::Snack,
        Opcode::NopIn,
        Opcode::ScsiResponse,
        Opcode::TaskResponse,
        Opcode::LoginResponse,
        Opcode::TextResponse,
        Opcode::DataIn,
        Opcode::LogoutResponse,
        Opcode::R2t,
        Opcode::Async,
        Opcode::Reject,
    ];

    /// The opcode in a header's first byte; none for reserved and vendor codes.
    pub fn from_byte(byte: u8) -> Option<Opcode> {
        Opcode::ALL.into_iter().find(|o| *o as u8 == byte & 0x3f)
    }

    /// True for what only a target sends.
    pub fn is_from_target(self) -> bool {
        self as u8 & 0x20 != 0
    }
}

/// Any basic header segment. The fields that every kind has at the same place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Bhs {
    /// Immediate bit and opcode.
    pub opcode: u8,
    /// Flags of the kind.
    pub flags: u8,
    /// Bytes 2 and 3, of the kind.
    pub specific: [u8; 2],
    /// Additional header segments, in words of 4 bytes.
    pub ahs_words: u8,
    /// Data segment in bytes, without padding.
    pub data_len: [u8; 3],
    /// LUN or of the kind.
    pub lun: [u8; 8],
    /// Initiator task tag.
    pub itt: U32,
    /// Of the kind.
    pub rest: [u8; 28],
}

const _: () = assert!(size_of::<Bhs>() == BHS_LEN);

impl Bhs {
    /// What it is; none for reserved and vendor codes.
    pub fn kind(&self) -> Option<Opcode> {
        Opcode::from_byte(self.opcode)
    }

    /// Is it immediate?
    pub fn is_immediate(&self) -> bool {
        self.opcode & IMMEDIATE != 0
    }

    /// Bytes of data segment, without padding.
    pub fn data_segment(&self) -> u32 {
        length(self.data_len)
    }

    /// Bytes of additional header segments.
    pub fn ahs_bytes(&self) -> usize {
        usize::from(self.ahs_words) * 4
    }

    /// Its task.
    pub fn task(&self) -> Itt {
        Itt(self.itt.get())
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8; BHS_LEN] {
        zerocopy::transmute_ref!(self)
    }

    /// From bytes.
    pub fn from_bytes(bytes: [u8; BHS_LEN]) -> Bhs {
        zerocopy::transmute!(bytes)
    }
}

/// A 24-bit length.
pub fn length(bytes: [u8; 3]) -> u32 {
    u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]])
}

/// A length as 24 bits; longer ones are cut to the longest, which no caller that respects the negotiated segment length
/// has.
pub fn length_bytes(len: usize) -> [u8; 3] {
    let len = u32::try_from(len).unwrap_or(MAX_DATA_SEGMENT).min(MAX_DATA_SEGMENT);
    let [_, a, b, c] = len.to_be_bytes();
    [a, b, c]
}

/// Bytes of padding behind `len` bytes of data.
pub const fn padding(len: usize) -> usize {
    len.wrapping_neg() & 3
}
