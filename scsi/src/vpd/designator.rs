//! Designators (SPC-4 7.8.6.3 to 7.8.6.13): names of units, ports, groups and targets.

use std::fmt;

use zerocopy::IntoBytes;

use super::serial::text;
use crate::alua::{PortGroup, RelativePort};
use crate::error::ParseError;
use crate::wire::{bit, entry, flag, take, wire};

wire!(
    /// SPC-4 table 599.
    WireDesignator [4] { set: u8, kind: u8, reserved: u8, len: u8 }
);

/// What a designator names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Association {
    /// 00b: the logical unit.
    Unit,
    /// 01b: the target port through which the page was read.
    Port,
    /// 10b: the target device.
    Target,
    /// 11b: reserved.
    Reserved,
}

/// A network address authority's identifier (SPC-4 7.8.6.6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Naa {
    /// 8 bytes: NAA 2h (IEEE extended), 3h (locally assigned), 5h (IEEE registered).
    Short([u8; 8]),
    /// 16 bytes: NAA 6h (IEEE registered extended).
    Long([u8; 16]),
}

/// The name in a designator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Identifier {
    /// 0h: the vendor's own.
    Vendor(Vec<u8>),
    /// 1h: T10 vendor identification, then the vendor's own.
    T10(String),
    /// 2h: EUI-64, in 8, 12 or 16 bytes.
    Eui64(Vec<u8>),
    /// 3h: NAA.
    Naa(Naa),
    /// 4h: relative target port.
    Port(RelativePort),
    /// 5h: target port group.
    PortGroup(PortGroup),
    /// 6h: logical unit group.
    UnitGroup(u16),
    /// 7h: an MD5 sum that the target made up from other names.
    Md5([u8; 16]),
    /// 8h: SCSI name string: `iqn.`, `eui.` or `naa.`, in UTF-8.
    Name(String),
    /// Ah: UUID.
    Uuid([u8; 16]),
    /// Another type, or a type with a length that it cannot have.
    Other {
        /// DESIGNATOR TYPE.
        kind: u8,
        /// Its bytes.
        bytes: Vec<u8>,
    },
}

/// How far the uniqueness of a name goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strength {
    /// It names no unit.
    None,
    /// Unique where its vendor or administrator took care: two targets of one make may use it for different units.
    Local,
    /// Unique in the world, by the registry that it comes from.
    Global,
}

/// A designator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Designator {
    /// What it names.
    pub association: Association,
    /// The transport that it belongs to, where it says (PIV); 5 is iSCSI.
    pub protocol: Option<u8>,
    /// The name.
    pub identifier: Identifier,
}

const WHAT: &str = "designator";
/// Code sets: binary, ASCII, UTF-8.
const BINARY: u8 = 1;
const ASCII: u8 = 2;
const UTF8: u8 = 3;

impl Designator {
    /// A designator of the logical unit, of no transport.
    pub fn unit(identifier: Identifier) -> Designator {
        Designator { association: Association::Unit, protocol: None, identifier }
    }

    /// Reads one designator at the start of `bytes`; what follows it is returned too. A name that has not the length or
    /// text that its type asks for is kept as [`Identifier::Other`]: it must not hide the others.
    pub(super) fn parse(bytes: &[u8]) -> Result<(Designator, &[u8]), ParseError> {
        let (wire, rest) = entry::<WireDesignator>(WHAT, bytes)?;
        let (name, rest) = take(WHAT, rest, usize::from(wire.len))?;
        let association = match wire.kind >> 4 & 3 {
            0 => Association::Unit,
            1 => Association::Port,
            2 => Association::Target,
            _ => Association::Reserved,
        };
        let protocol = (bit(wire.kind, 7) && association != Association::Unit).then_some(wire.set >> 4);
        let identifier = Identifier::parse(wire.kind & 0xf, name);
        Ok((Designator { association, protocol, identifier }, rest))
    }

    /// The bytes: 4 and the name, which is cut at 255 bytes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let (set, kind, mut name) = self.identifier.to_wire();
        name.truncate(usize::from(u8::MAX));
        let association = match self.association {
            Association::Unit => 0,
            Association::Port => 1,
            Association::Target => 2,
            Association::Reserved => 3,
        };
        let wire = WireDesignator {
            set: self.protocol.unwrap_or(0) << 4 | set,
            kind: flag(self.protocol.is_some(), 7) | association << 4 | kind & 0xf,
            reserved: 0,
            len: u8::try_from(name.len()).unwrap_or(u8::MAX),
        };
        let mut bytes = wire.as_bytes().to_vec();
        bytes.append(&mut name);
        bytes
    }
}

impl Identifier {
    fn parse(kind: u8, bytes: &[u8]) -> Identifier {
        let known = match kind {
            0 => Some(Identifier::Vendor(bytes.to_vec())),
            1 if bytes.len() >= 8 => Some(Identifier::T10(text(bytes))),
            2 if matches!(bytes.len(), 8 | 12 | 16) => Some(Identifier::Eui64(bytes.to_vec())),
            3 => Naa::parse(bytes).map(Identifier::Naa),
            4 => number(bytes).map(|n| Identifier::Port(RelativePort(n))),
            5 => number(bytes).map(|n| Identifier::PortGroup(PortGroup(n))),
            6 => number(bytes).map(Identifier::UnitGroup),
            7 => bytes.try_into().ok().map(Identifier::Md5),
            8 => name(bytes).map(Identifier::Name),
            // Two bytes in front: UUID TYPE 1h in the upper half of the first.
            0xa if bytes.first() == Some(&0x10) => {
                bytes.get(2..).and_then(|uuid| uuid.try_into().ok()).map(Identifier::Uuid)
            }
            _ => None,
        };
        known.unwrap_or_else(|| Identifier::Other { kind, bytes: bytes.to_vec() })
    }

    /// Code set, type and bytes.
    fn to_wire(&self) -> (u8, u8, Vec<u8>) {
        match self {
            Identifier::Vendor(bytes) => (BINARY, 0, bytes.clone()),
            Identifier::T10(text) => {
                let mut bytes = text.clone().into_bytes();
                bytes.resize(bytes.len().max(8), b' ');
                (ASCII, 1, bytes)
            }
            Identifier::Eui64(bytes) => (BINARY, 2, bytes.clone()),
            Identifier::Naa(naa) => (BINARY, 3, naa.as_bytes().to_vec()),
            Identifier::Port(port) => (BINARY, 4, vec_of(port.0)),
            Identifier::PortGroup(group) => (BINARY, 5, vec_of(group.0)),
            Identifier::UnitGroup(group) => (BINARY, 6, vec_of(*group)),
            Identifier::Md5(sum) => (BINARY, 7, sum.to_vec()),
            Identifier::Name(name) => {
                // SPC-4 7.8.6.11: ended by a zero, padded to four bytes.
                let mut bytes = name.clone().into_bytes();
                bytes.resize((bytes.len() + 1).next_multiple_of(4), 0);
                (UTF8, 8, bytes)
            }
            Identifier::Uuid(uuid) => (BINARY, 0xa, [&[0x10, 0][..], uuid].concat()),
            Identifier::Other { kind, bytes } => (BINARY, *kind, bytes.clone()),
        }
    }

    /// How far its uniqueness goes, as a name of a unit.
    pub fn strength(&self) -> Strength {
        match self {
            Identifier::Naa(naa) if !naa.is_registered() => Strength::Local,
            Identifier::Naa(_) | Identifier::Eui64(_) | Identifier::Uuid(_) => Strength::Global,
            Identifier::Name(name) if ["iqn.", "eui.", "naa."].iter().any(|head| name.starts_with(head)) => {
                Strength::Global
            }
            Identifier::T10(_) | Identifier::Vendor(_) | Identifier::Md5(_) | Identifier::Name(_) => Strength::Local,
            Identifier::Port(_) | Identifier::PortGroup(_) | Identifier::UnitGroup(_) | Identifier::Other { .. } => {
                Strength::None
            }
        }
    }
}

impl Naa {
    /// An identifier of a length that its first four bits ask for.
    pub fn parse(bytes: &[u8]) -> Option<Naa> {
        match bytes.first()? >> 4 {
            2 | 3 | 5 => bytes.try_into().ok().map(Naa::Short),
            6 => bytes.try_into().ok().map(Naa::Long),
            _ => None,
        }
    }

    /// True if a registered company gave it out: not NAA 3h (locally assigned), and with a company identifier, which is
    /// the 24 bits behind the NAA field in NAA 5h and 6h and behind 12 more in NAA 2h. Some targets leave the company
    /// zero and number their units from 1; two such targets use one identifier for two units.
    pub fn is_registered(&self) -> bool {
        let [b0, b1, b2, b3, b4, ..] = *self.as_bytes() else { return false };
        match b0 >> 4 {
            2 => [b2, b3, b4] != [0; 3],
            5 | 6 => [b0 & 0xf, b1, b2, b3 & 0xf0] != [0; 4],
            _ => false,
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Naa::Short(bytes) => bytes,
            Naa::Long(bytes) => bytes,
        }
    }
}

fn number(bytes: &[u8]) -> Option<u16> {
    let [_, _, high, low]: [u8; 4] = bytes.try_into().ok()?;
    Some(u16::from_be_bytes([high, low]))
}

fn vec_of(number: u16) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();
    vec![0, 0, high, low]
}

fn name(bytes: &[u8]) -> Option<String> {
    let text = bytes.split(|b| *b == 0).next()?;
    std::str::from_utf8(text).ok().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for Naa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("naa.")?;
        hex(f, self.as_bytes())
    }
}

impl fmt::Debug for Naa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Naa({self})")
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (head, bytes): (&str, &[u8]) = match self {
            Identifier::Naa(naa) => return naa.fmt(f),
            Identifier::T10(text) => return write!(f, "t10.{text}"),
            Identifier::Name(name) => return f.write_str(name),
            Identifier::Port(port) => return port.fmt(f),
            Identifier::PortGroup(group) => return group.fmt(f),
            Identifier::UnitGroup(group) => return write!(f, "unit group {group}"),
            Identifier::Eui64(bytes) => ("eui.", bytes),
            Identifier::Uuid(bytes) => ("uuid.", bytes),
            Identifier::Md5(bytes) => ("md5.", bytes),
            Identifier::Vendor(bytes) => ("vendor.", bytes),
            Identifier::Other { kind, bytes } => {
                write!(f, "type {kind:x}h ")?;
                return hex(f, bytes);
            }
        };
        f.write_str(head)?;
        hex(f, bytes)
    }
}
