//! Sense keys (SPC-4 4.5.6).

use std::fmt;

/// The class of an error or of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SenseKey {
    /// 0h: nothing to say, or a progress to tell.
    NoSense,
    /// 1h: done, after the device helped itself.
    RecoveredError,
    /// 2h: the logical unit cannot be reached now.
    NotReady,
    /// 3h: the medium is flawed there.
    MediumError,
    /// 4h: the device is broken.
    HardwareError,
    /// 5h: the command or its parameters are wrong.
    IllegalRequest,
    /// 6h: something happened that this I_T nexus must know first.
    UnitAttention,
    /// 7h: reading or writing is not allowed there.
    DataProtect,
    /// 8h: blank medium.
    BlankCheck,
    /// 9h: the vendor's own.
    VendorSpecific,
    /// Ah: a copy was given up.
    CopyAborted,
    /// Bh: the command was given up; it may be tried again.
    AbortedCommand,
    /// Dh: no room for buffered data.
    VolumeOverflow,
    /// Eh: source and medium differ.
    Miscompare,
    /// Fh: done; the sense data says how.
    Completed,
    /// Ch: reserved.
    Reserved,
}

impl SenseKey {
    /// The key in the low four bits of a byte.
    pub const fn from_bits(byte: u8) -> SenseKey {
        match byte & 0xf {
            0x0 => SenseKey::NoSense,
            0x1 => SenseKey::RecoveredError,
            0x2 => SenseKey::NotReady,
            0x3 => SenseKey::MediumError,
            0x4 => SenseKey::HardwareError,
            0x5 => SenseKey::IllegalRequest,
            0x6 => SenseKey::UnitAttention,
            0x7 => SenseKey::DataProtect,
            0x8 => SenseKey::BlankCheck,
            0x9 => SenseKey::VendorSpecific,
            0xa => SenseKey::CopyAborted,
            0xb => SenseKey::AbortedCommand,
            0xd => SenseKey::VolumeOverflow,
            0xe => SenseKey::Miscompare,
            0xf => SenseKey::Completed,
            _ => SenseKey::Reserved,
        }
    }

    /// The key's four bits.
    pub const fn bits(self) -> u8 {
        match self {
            SenseKey::NoSense => 0x0,
            SenseKey::RecoveredError => 0x1,
            SenseKey::NotReady => 0x2,
            SenseKey::MediumError => 0x3,
            SenseKey::HardwareError => 0x4,
            SenseKey::IllegalRequest => 0x5,
            SenseKey::UnitAttention => 0x6,
            SenseKey::DataProtect => 0x7,
            SenseKey::BlankCheck => 0x8,
            SenseKey::VendorSpecific => 0x9,
            SenseKey::CopyAborted => 0xa,
            SenseKey::AbortedCommand => 0xb,
            SenseKey::Reserved => 0xc,
            SenseKey::VolumeOverflow => 0xd,
            SenseKey::Miscompare => 0xe,
            SenseKey::Completed => 0xf,
        }
    }
}

impl fmt::Display for SenseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SenseKey::NoSense => "NO SENSE",
            SenseKey::RecoveredError => "RECOVERED ERROR",
            SenseKey::NotReady => "NOT READY",
            SenseKey::MediumError => "MEDIUM ERROR",
            SenseKey::HardwareError => "HARDWARE ERROR",
            SenseKey::IllegalRequest => "ILLEGAL REQUEST",
            SenseKey::UnitAttention => "UNIT ATTENTION",
            SenseKey::DataProtect => "DATA PROTECT",
            SenseKey::BlankCheck => "BLANK CHECK",
            SenseKey::VendorSpecific => "VENDOR SPECIFIC",
            SenseKey::CopyAborted => "COPY ABORTED",
            SenseKey::AbortedCommand => "ABORTED COMMAND",
            SenseKey::VolumeOverflow => "VOLUME OVERFLOW",
            SenseKey::Miscompare => "MISCOMPARE",
            SenseKey::Completed => "COMPLETED",
            SenseKey::Reserved => "RESERVED SENSE KEY",
        })
    }
}
