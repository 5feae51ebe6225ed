//! The three sense-key specific bytes (SPC-4 4.5.2.4), whose meaning the sense key chooses.

use std::fmt;

use super::SenseKey;
use crate::wire::{bit, flag};

/// What the sense key's own bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeySpecific {
    /// ILLEGAL REQUEST: the field in error.
    Field {
        /// True if it is in the command descriptor block, false if in the parameter list.
        in_cdb: bool,
        /// Its first byte.
        byte: u16,
        /// Its left-most bit, where the target tells.
        bit: Option<u8>,
    },
    /// RECOVERED ERROR, MEDIUM ERROR, HARDWARE ERROR: how often the device tried.
    Retries(u16),
    /// NO SENSE, NOT READY: how far it has come.
    Progress(Progress),
    /// COPY ABORTED: where the copy stopped.
    Segment {
        /// True if the position is within the segment descriptor, false if within the parameter list.
        in_segment: bool,
        /// First byte of the field in error.
        byte: u16,
        /// Its left-most bit, where the target tells.
        bit: Option<u8>,
    },
    /// UNIT ATTENTION: whether unit attentions were lost because the queue was full.
    AttentionOverflow(bool),
}

/// A part of 65 536.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Progress(pub u16);

impl Progress {
    /// The part in hundredths, rounded down.
    pub fn percent(self) -> u8 {
        u8::try_from(u32::from(self.0) * 100 / 65_536).unwrap_or(99)
    }
}

const VALID: u8 = 7;

impl KeySpecific {
    /// Reads the three bytes; `None` where they are marked as not valid or the key gives them no meaning.
    pub(super) fn parse(key: SenseKey, bytes: [u8; 3]) -> Option<KeySpecific> {
        let [first, high, low] = bytes;
        if !bit(first, VALID) {
            return None;
        }
        let number = u16::from_be_bytes([high, low]);
        let pointed = bit(first, 3).then_some(first & 7);
        match key {
            SenseKey::IllegalRequest => Some(KeySpecific::Field { in_cdb: bit(first, 6), byte: number, bit: pointed }),
            SenseKey::RecoveredError | SenseKey::MediumError | SenseKey::HardwareError => {
                Some(KeySpecific::Retries(number))
            }
            SenseKey::NoSense | SenseKey::NotReady => Some(KeySpecific::Progress(Progress(number))),
            SenseKey::CopyAborted => {
                Some(KeySpecific::Segment { in_segment: bit(first, 5), byte: number, bit: pointed })
            }
            SenseKey::UnitAttention => Some(KeySpecific::AttentionOverflow(bit(first, 0))),
            _ => None,
        }
    }

    /// The three bytes.
    pub(super) fn to_bytes(self) -> [u8; 3] {
        let pointer = |bit: Option<u8>| bit.map_or(0, |bit| flag(true, 3) | bit & 7);
        let (first, number) = match self {
            KeySpecific::Field { in_cdb, byte, bit } => (flag(in_cdb, 6) | pointer(bit), byte),
            KeySpecific::Retries(count) => (0, count),
            KeySpecific::Progress(progress) => (0, progress.0),
            KeySpecific::Segment { in_segment, byte, bit } => (flag(in_segment, 5) | pointer(bit), byte),
            KeySpecific::AttentionOverflow(overflow) => (flag(overflow, 0), 0),
        };
        let [high, low] = number.to_be_bytes();
        [flag(true, VALID) | first, high, low]
    }
}

impl fmt::Display for KeySpecific {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bit = match self {
            KeySpecific::Field { in_cdb, byte, bit } => {
                write!(f, "byte {byte} of the {}", if *in_cdb { "command" } else { "parameter list" })?;
                bit
            }
            KeySpecific::Segment { in_segment, byte, bit } => {
                write!(f, "byte {byte} of the {}", if *in_segment { "segment" } else { "parameter list" })?;
                bit
            }
            KeySpecific::Retries(count) => return write!(f, "after {count} retries"),
            KeySpecific::Progress(progress) => return write!(f, "{progress}"),
            KeySpecific::AttentionOverflow(true) => return f.write_str("earlier unit attentions were lost"),
            KeySpecific::AttentionOverflow(false) => return f.write_str("no unit attention was lost"),
        };
        match bit {
            Some(bit) => write!(f, ", bit {bit}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} % done", self.percent())
    }
}
