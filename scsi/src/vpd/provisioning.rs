//! Page B2h (SBC-3 6.6.4): whether blocks can be unmapped, how, and what they then read as.

use super::{PageCode, body, fixed, page};
use crate::error::ParseError;
use crate::wire::{bit, flag};

/// PROVISIONING TYPE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProvisioningType {
    /// 0h: full, or not told.
    #[default]
    NotTold,
    /// 1h: resource provisioned: all blocks have space.
    Resource,
    /// 2h: thin: blocks get space when they are written, and there may be none left.
    Thin,
    /// A reserved value.
    Unknown(u8),
}

/// Logical block provisioning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogicalBlockProvisioning {
    /// THRESHOLD EXPONENT: thresholds count sets of 2^this blocks; 0 means that there are none.
    pub threshold_exponent: u8,
    /// LBPU: there is UNMAP.
    pub unmap: bool,
    /// LBPWS: WRITE SAME (16) with the UNMAP bit.
    pub write_same_16: bool,
    /// LBPWS10: WRITE SAME (10) with the UNMAP bit.
    pub write_same_10: bool,
    /// LBPRZ, 3 bits: unmapped blocks read as 0 anything, 1 zeroes, 2 (SBC-4) a pattern of the vendor.
    pub read_as: u8,
    /// ANC_SUP: blocks can be anchored.
    pub anchor: bool,
    /// Its type.
    pub kind: ProvisioningType,
    /// THRESHOLD PERCENTAGE (SBC-4): 0 is not told.
    pub threshold_percent: u8,
}

impl LogicalBlockProvisioning {
    /// True if unmapped blocks read as zeroes.
    pub fn reads_zeroes(&self) -> bool {
        // SBC-4: xx1b means zeroes.
        bit(self.read_as, 0)
    }

    /// Reads the page. A provisioning group descriptor (DP) is passed over.
    pub fn parse(bytes: &[u8]) -> Result<LogicalBlockProvisioning, ParseError> {
        let b: [u8; 4] = fixed(body("VPD page B2h", PageCode::PROVISIONING, bytes)?);
        Ok(LogicalBlockProvisioning {
            threshold_exponent: b[0],
            unmap: bit(b[1], 7),
            write_same_16: bit(b[1], 6),
            write_same_10: bit(b[1], 5),
            read_as: b[1] >> 2 & 7,
            anchor: bit(b[1], 1),
            kind: match b[2] & 7 {
                0 => ProvisioningType::NotTold,
                1 => ProvisioningType::Resource,
                2 => ProvisioningType::Thin,
                other => ProvisioningType::Unknown(other),
            },
            threshold_percent: b[3],
        })
    }

    /// The page's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let kind = match self.kind {
            ProvisioningType::NotTold => 0,
            ProvisioningType::Resource => 1,
            ProvisioningType::Thin => 2,
            ProvisioningType::Unknown(other) => other & 7,
        };
        let can = flag(self.unmap, 7)
            | flag(self.write_same_16, 6)
            | flag(self.write_same_10, 5)
            | (self.read_as & 7) << 2
            | flag(self.anchor, 1);
        page(PageCode::PROVISIONING, &[self.threshold_exponent, can, kind, self.threshold_percent])
    }
}
