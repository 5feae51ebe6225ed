//! Sense data: what a device server says about a command beyond its status (SPC-4 4.5).
//!
//! One type for both formats. [`Sense::parse`] reads fixed (70h, 71h) and descriptor format (72h, 73h) as a target
//! sent it, also when it was cut short: what lies past the end is absent, not zero. A target chooses the format by the
//! control mode page's D_SENSE bit; [`Sense::to_fixed`] and [`Sense::to_descriptor`] write either.
//!
//! Refused: fewer bytes than hold the sense key, and response codes that SPC-4 does not define. Nothing is allocated.

mod code;
mod descriptor;
mod fixed;
mod key;
mod specific;
#[cfg(test)]
mod tests;

use std::fmt;

pub use code::AdditionalCode;
pub use key::SenseKey;
pub use specific::{KeySpecific, Progress};

use crate::error::ParseError;

/// The longest sense data of SPC-4: 8 bytes of header and 244 that the length byte may count.
pub const MAX_SENSE: usize = 252;

const WHAT: &str = "sense data";

/// Sense data. Fields that the sender marked as not valid, or that were cut off, are `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// True if it is about an earlier command that had already ended with GOOD (SPC-4 4.5.5): a write that was
    /// acknowledged from a cache has failed. The command that brought it was not executed.
    pub deferred: bool,
    /// Class of the condition.
    pub key: SenseKey,
    /// The condition itself.
    pub code: AdditionalCode,
    /// The INFORMATION field: for most media errors the address of the first block in error; for MISCOMPARE the
    /// offset in bytes of the first difference. 32 bits in the fixed format.
    pub information: Option<u64>,
    /// The COMMAND-SPECIFIC INFORMATION field, where it is not zero. 32 bits in the fixed format.
    pub command_specific: Option<u64>,
    /// What the key's own bytes say.
    pub specific: Option<KeySpecific>,
    /// Field replaceable unit code; 0 is none.
    pub unit_code: u8,
    /// FILEMARK, EOM and ILI, of which a disk sets at most ILI (incorrect length).
    pub marks: Marks,
    /// True if the sender had more to say than fitted (SDAT_OVFL).
    pub overflow: bool,
}

/// The three bits beside the sense key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// A filemark was reached.
    pub filemark: bool,
    /// End of medium.
    pub end_of_medium: bool,
    /// The length was not the block's length.
    pub incorrect_length: bool,
}

impl Sense {
    /// Current sense data with a key and a code, and nothing else.
    pub const fn new(key: SenseKey, code: AdditionalCode) -> Sense {
        Sense {
            deferred: false,
            key,
            code,
            information: None,
            command_specific: None,
            specific: None,
            unit_code: 0,
            marks: Marks { filemark: false, end_of_medium: false, incorrect_length: false },
            overflow: false,
        }
    }

    /// The same with an INFORMATION field.
    pub const fn with_information(self, information: u64) -> Sense {
        Sense { information: Some(information), ..self }
    }

    /// Reads sense data in either format (SPC-4 4.5.1: the response code in the low seven bits of byte 0).
    pub fn parse(bytes: &[u8]) -> Result<Sense, ParseError> {
        let Some(first) = bytes.first() else {
            return Err(ParseError::Truncated { what: WHAT, need: 1, have: 0 });
        };
        match first & 0x7f {
            0x70 => fixed::parse(bytes, false),
            0x71 => fixed::parse(bytes, true),
            0x72 => descriptor::parse(bytes, false),
            0x73 => descriptor::parse(bytes, true),
            other => Err(ParseError::BadField { what: WHAT, field: "RESPONSE CODE", value: u64::from(other) }),
        }
    }

    /// Fixed format (SPC-4 4.5.3), 18 bytes. INFORMATION and COMMAND-SPECIFIC INFORMATION that do not fit 32 bits are
    /// left out, as SPC-4 asks.
    pub fn to_fixed(&self) -> [u8; 18] {
        fixed::write(self)
    }

    /// Descriptor format (SPC-4 4.5.2), at most [`MAX_SENSE`] bytes.
    pub fn to_descriptor(&self) -> Vec<u8> {
        descriptor::write(self)
    }

    /// True if key and code are these.
    pub fn is(&self, key: SenseKey, code: AdditionalCode) -> bool {
        self.key == key && self.code == code
    }

    /// How far an operation that goes on has come, where the target tells.
    pub fn progress(&self) -> Option<Progress> {
        match self.specific {
            Some(KeySpecific::Progress(progress)) => Some(progress),
            _ => None,
        }
    }
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.deferred {
            f.write_str("deferred ")?;
        }
        write!(f, "{}: {}", self.key, self.code)?;
        if let Some(information) = self.information {
            write!(f, ", information {information}")?;
        }
        match self.specific {
            Some(specific) => write!(f, ", {specific}"),
            None => Ok(()),
        }
    }
}
