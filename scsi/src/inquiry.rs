//! Standard inquiry data (SPC-4 6.6.2): what a logical unit is.

use std::fmt;

use zerocopy::IntoBytes;

use crate::error::ParseError;
use crate::vpd::text;
use crate::wire::{U16, bit, flag, head, wire};

wire!(
    /// SPC-4 table 170, its first 36 bytes.
    WireInquiry [36] {
        peripheral: u8, removable: u8, version: u8, format: u8, more: u8, b5: u8, b6: u8, b7: u8,
        vendor: [u8; 8], product: [u8; 16], revision: [u8; 4],
    }
);

/// Whether a logical unit is there (PERIPHERAL QUALIFIER).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qualifier {
    /// 000b: it is, or it is not known whether it is.
    Connected,
    /// 001b: it could be, and is not.
    NotConnected,
    /// 011b: this number cannot have one.
    Impossible,
    /// A reserved or vendor's own value.
    Other(u8),
}

/// What kind of device it is (PERIPHERAL DEVICE TYPE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceType {
    /// 00h: a disk.
    Block,
    /// 0Ch: a storage array's controller.
    ArrayController,
    /// 0Dh: an enclosure.
    Enclosure,
    /// 1Eh: a well-known logical unit.
    WellKnown,
    /// 1Fh: none or unknown.
    Unknown,
    /// Another type: a tape, a changer...
    Other(u8),
}

/// Who changes the access states of target port groups (TPGS, SPC-4 5.15).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortGroupSupport {
    /// The target, when it finds it good.
    pub implicit: bool,
    /// An initiator, by SET TARGET PORT GROUPS.
    pub explicit: bool,
}

/// Standard inquiry data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandardInquiry {
    /// Whether the unit is there.
    pub qualifier: Qualifier,
    /// What kind of device it is.
    pub device: DeviceType,
    /// RMB: its medium can be removed.
    pub removable: bool,
    /// VERSION: 5 is SPC-3, 6 SPC-4, 7 SPC-5.
    pub version: u8,
    /// NORMACA: auto contingent allegiances are supported.
    pub normal_aca: bool,
    /// Target port group support.
    pub port_groups: PortGroupSupport,
    /// 3PC: third-party copy commands are there.
    pub third_party_copy: bool,
    /// PROTECT: protection information is supported.
    pub protection: bool,
    /// MULTIP: the target has several ports.
    pub multi_port: bool,
    /// CMDQUE: commands are queued.
    pub queueing: bool,
    /// T10 VENDOR IDENTIFICATION, without its padding; at most 8 characters.
    pub vendor: String,
    /// PRODUCT IDENTIFICATION, the same; at most 16.
    pub product: String,
    /// PRODUCT REVISION LEVEL, the same; at most 4.
    pub revision: String,
    /// VERSION DESCRIPTORS that are not 0, at most 8: which standards it claims.
    pub versions: Vec<u16>,
}

const WHAT: &str = "standard INQUIRY data";
/// Where the version descriptors are, and how many.
const VERSIONS: usize = 58;
const VERSION_COUNT: usize = 8;
/// Bytes of the whole.
const FULL: usize = VERSIONS + 2 * VERSION_COUNT;

impl StandardInquiry {
    /// Reads the data. 36 bytes are mandatory; version descriptors are read as far as they came.
    pub fn parse(bytes: &[u8]) -> Result<StandardInquiry, ParseError> {
        let (wire, _) = head::<WireInquiry>(WHAT, bytes)?;
        let stated = 5 + usize::from(wire.more);
        let end = bytes.len().min(stated).min(FULL);
        let versions = bytes.get(VERSIONS..end).unwrap_or_default().as_chunks::<2>().0;
        Ok(StandardInquiry {
            qualifier: Qualifier::from_bits(wire.peripheral >> 5),
            device: DeviceType::from_bits(wire.peripheral & 0x1f),
            removable: bit(wire.removable, 7),
            version: wire.version,
            normal_aca: bit(wire.format, 5),
            port_groups: PortGroupSupport { implicit: bit(wire.b5, 4), explicit: bit(wire.b5, 5) },
            third_party_copy: bit(wire.b5, 3),
            protection: bit(wire.b5, 0),
            multi_port: bit(wire.b6, 4),
            queueing: bit(wire.b7, 1),
            vendor: text(&wire.vendor),
            product: text(&wire.product),
            revision: text(&wire.revision),
            versions: versions.iter().map(|two| u16::from_be_bytes(*two)).filter(|n| *n != 0).collect(),
        })
    }

    /// The whole of it, 74 bytes; a target cuts it to the allocation length.
    pub fn to_bytes(&self) -> Vec<u8> {
        let wire = WireInquiry {
            peripheral: self.qualifier.bits() << 5 | self.device.bits(),
            removable: flag(self.removable, 7),
            version: self.version,
            // RESPONSE DATA FORMAT 2, HISUP: addresses as SAM-5 has them.
            format: flag(self.normal_aca, 5) | flag(true, 4) | 2,
            more: u8::try_from(FULL - 5).unwrap_or(u8::MAX),
            b5: flag(self.port_groups.explicit, 5)
                | flag(self.port_groups.implicit, 4)
                | flag(self.third_party_copy, 3)
                | flag(self.protection, 0),
            b6: flag(self.multi_port, 4),
            b7: flag(self.queueing, 1),
            vendor: padded(&self.vendor),
            product: padded(&self.product),
            revision: padded(&self.revision),
        };
        let mut bytes = wire.as_bytes().to_vec();
        bytes.resize(VERSIONS, 0);
        for version in self.versions.iter().take(VERSION_COUNT) {
            bytes.extend_from_slice(U16::new(*version).as_bytes());
        }
        bytes.resize(FULL, 0);
        bytes
    }

    /// True if it is a disk that is there.
    pub fn is_disk(&self) -> bool {
        self.qualifier == Qualifier::Connected && self.device == DeviceType::Block
    }
}

fn padded<const LEN: usize>(text: &str) -> [u8; LEN] {
    let mut bytes = [b' '; LEN];
    for (to, from) in bytes.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    bytes
}

impl Qualifier {
    fn from_bits(bits: u8) -> Qualifier {
        match bits {
            0 => Qualifier::Connected,
            1 => Qualifier::NotConnected,
            3 => Qualifier::Impossible,
            other => Qualifier::Other(other),
        }
    }

    fn bits(self) -> u8 {
        match self {
            Qualifier::Connected => 0,
            Qualifier::NotConnected => 1,
            Qualifier::Impossible => 3,
            Qualifier::Other(other) => other & 7,
        }
    }
}

impl DeviceType {
    fn from_bits(bits: u8) -> DeviceType {
        match bits {
            0x00 => DeviceType::Block,
            0x0c => DeviceType::ArrayController,
            0x0d => DeviceType::Enclosure,
            0x1e => DeviceType::WellKnown,
            0x1f => DeviceType::Unknown,
            other => DeviceType::Other(other),
        }
    }

    fn bits(self) -> u8 {
        match self {
            DeviceType::Block => 0x00,
            DeviceType::ArrayController => 0x0c,
            DeviceType::Enclosure => 0x0d,
            DeviceType::WellKnown => 0x1e,
            DeviceType::Unknown => 0x1f,
            DeviceType::Other(other) => other & 0x1f,
        }
    }
}

impl fmt::Display for DeviceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeviceType::Block => "disk",
            DeviceType::ArrayController => "array controller",
            DeviceType::Enclosure => "enclosure",
            DeviceType::WellKnown => "well-known logical unit",
            DeviceType::Unknown => "no device",
            DeviceType::Other(other) => return write!(f, "device of type {other:02x}h"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> StandardInquiry {
        StandardInquiry {
            qualifier: Qualifier::Connected,
            device: DeviceType::Block,
            removable: false,
            version: 6,
            normal_aca: false,
            port_groups: PortGroupSupport { implicit: true, explicit: true },
            third_party_copy: true,
            protection: false,
            multi_port: true,
            queueing: true,
            vendor: "ACME".to_owned(),
            product: "Virtual Disk".to_owned(),
            revision: "1.0".to_owned(),
            versions: vec![0x0460, 0x04c0, 0x0960],
        }
    }

    /// SPC-4 tables 170, 171: a disk with explicit and implicit ALUA and command queueing.
    #[test]
    fn a_disk_is_read_and_written() {
        let mut bytes = vec![0x00, 0x00, 0x06, 0x12, 69, 0x38, 0x10, 0x02];
        bytes.extend_from_slice(b"ACME    Virtual Disk    1.0 ");
        bytes.resize(58, 0);
        bytes.extend([0x04, 0x60, 0x04, 0xc0, 0x09, 0x60]);
        bytes.resize(74, 0);
        assert_eq!(StandardInquiry::parse(&bytes), Ok(disk()));
        assert_eq!(disk().to_bytes(), bytes);
        assert!(disk().is_disk());
    }

    #[test]
    fn thirty_six_bytes_are_enough() {
        let short = StandardInquiry::parse(&disk().to_bytes()[..36]);
        assert_eq!(short, Ok(StandardInquiry { versions: Vec::new(), ..disk() }));
        assert!(matches!(StandardInquiry::parse(&[0; 35]), Err(ParseError::Truncated { need: 36, have: 35, .. })));
    }

    /// SPC-4 6.6.2: what a target answers for a number without a unit.
    #[test]
    fn a_number_without_a_unit_is_no_disk() {
        let mut bytes = disk().to_bytes();
        bytes[0] = 0x7f;
        let none = StandardInquiry::parse(&bytes).expect("inquiry data");
        assert_eq!((none.qualifier, none.device), (Qualifier::Impossible, DeviceType::Unknown));
        assert!(!none.is_disk());
    }
}
