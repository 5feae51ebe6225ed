//! TransportIDs (SPC-4 7.6.4): the name of an initiator port in parameter data. Those of iSCSI are read; others are kept
//! as bytes.

use std::fmt;

use zerocopy::IntoBytes;

use crate::error::ParseError;
use crate::wire::{U16, entry, len16, take, wire};

wire!(
    /// SPC-4 7.6.4.6: in front of the name of an iSCSI TransportID.
    WireIscsi [4] { format: u8, reserved: u8, more: U16 }
);

/// The longest TransportID that is read or written: an iSCSI name of 223 bytes, `,i,0x`, twelve digits, the zero, padded,
/// behind its header. Other protocols have 24 bytes.
pub const MAX_TRANSPORT_ID: usize = 248;

/// Bytes of a TransportID of any other protocol.
const FIXED: usize = 24;
/// The protocol identifier of iSCSI.
const ISCSI: u8 = 5;
/// What stands between name and initiator session identifier.
const SEPARATOR: &str = ",i,0x";
const WHAT: &str = "TransportID";

/// The initiator session identifier that makes an iSCSI initiator name an initiator port (RFC 7143 4.4.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Isid(pub [u8; 6]);

/// The name of an initiator port, or of all ports of an initiator.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransportId {
    /// Format 00b: every port of an iSCSI initiator.
    IscsiDevice {
        /// Its iSCSI name.
        name: String,
    },
    /// Format 01b: one iSCSI initiator port.
    IscsiPort {
        /// Its initiator's iSCSI name.
        name: String,
        /// Its session identifier.
        isid: Isid,
    },
    /// Of another protocol, as it is; or, in the answer of a target, one that is none.
    Other(Vec<u8>),
}

impl TransportId {
    /// Reads one TransportID at the start of `bytes`; what follows it is returned too.
    pub fn parse(bytes: &[u8]) -> Result<(TransportId, &[u8]), ParseError> {
        let first = bytes.first().copied().unwrap_or(0);
        if first & 0xf != ISCSI {
            let (one, rest) = take(WHAT, bytes, FIXED)?;
            return Ok((TransportId::Other(one.to_vec()), rest));
        }
        let (wire, rest) = entry::<WireIscsi>(WHAT, bytes)?;
        let more = len16(wire.more);
        if more > MAX_TRANSPORT_ID - size_of::<WireIscsi>() {
            return Err(ParseError::BadField {
                what: WHAT,
                field: "ADDITIONAL LENGTH",
                value: u64::from(wire.more.get()),
            });
        }
        let (text, rest) = take(WHAT, rest, more)?;
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        let bad = |field| ParseError::BadField { what: WHAT, field, value: u64::from(wire.more.get()) };
        let text = std::str::from_utf8(text).map_err(|_| bad("ISCSI NAME"))?;
        if text.is_empty() {
            return Err(bad("ISCSI NAME"));
        }
        match wire.format >> 6 {
            0 => Ok((TransportId::IscsiDevice { name: text.to_owned() }, rest)),
            1 => {
                let (name, isid) = text.rsplit_once(SEPARATOR).ok_or(bad("SEPARATOR"))?;
                let isid = Isid::from_hex(isid).ok_or(bad("ISCSI INITIATOR SESSION ID"))?;
                Ok((TransportId::IscsiPort { name: name.to_owned(), isid }, rest))
            }
            format => Err(ParseError::BadField { what: WHAT, field: "TPID FORMAT", value: u64::from(format) }),
        }
    }

    /// The bytes, a multiple of four and at least 24.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (format, mut text) = match self {
            TransportId::Other(bytes) => return bytes.clone(),
            TransportId::IscsiDevice { name } => (ISCSI, name.clone()),
            TransportId::IscsiPort { name, isid } => (1 << 6 | ISCSI, format!("{name}{SEPARATOR}{isid}")),
        };
        text.push('\0');
        // SPC-4 7.6.4.6: at least 20 bytes, a multiple of 4.
        let padded = text.len().next_multiple_of(4).max(FIXED - size_of::<WireIscsi>());
        let more = U16::new(u16::try_from(padded).unwrap_or(u16::MAX));
        let mut bytes = WireIscsi { format, reserved: 0, more }.as_bytes().to_vec();
        bytes.extend_from_slice(text.as_bytes());
        bytes.resize(size_of::<WireIscsi>() + padded, 0);
        bytes
    }
}

impl Isid {
    /// Twelve hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Isid> {
        if text.len() != 12 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let number = u64::from_str_radix(text, 16).ok()?;
        let [_, _, isid @ ..] = number.to_be_bytes();
        Some(Isid(isid))
    }
}

impl fmt::Display for Isid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Isid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Isid({self})")
    }
}

impl fmt::Display for TransportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransportId::IscsiDevice { name } => f.write_str(name),
            TransportId::IscsiPort { name, isid } => write!(f, "{name}{SEPARATOR}{isid}"),
            TransportId::Other(bytes) => {
                f.write_str("a port of another kind, ")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}
