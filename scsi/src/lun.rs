//! The eight bytes that address a logical unit, with every addressing method (SAM-5 4.7).
//!
//! An address is kept as the target wrote it: two addresses of one logical unit in different methods are different
//! here, because a target may take only the one that its REPORT LUNS tells. [`LunAddress::number`] is for people.

use std::fmt;

/// The address of a logical unit within a target.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LunAddress([u8; 8]);

/// What the first level of an address says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LunForm {
    /// Method 00b, peripheral device: a bus (0 is the target itself) and a target or logical unit on it.
    Peripheral {
        /// Bus identifier, 0 to 63; 0 means that `unit` is a logical unit of this target.
        bus: u8,
        /// Logical unit number, or target identifier where `bus` is not 0.
        unit: u8,
    },
    /// Method 01b, flat space: a number of 14 bits.
    Flat(u16),
    /// Method 10b, logical unit: a logical unit of a target on a bus.
    LogicalUnit {
        /// Target, 6 bits.
        target: u8,
        /// Bus, 3 bits.
        bus: u8,
        /// Logical unit, 5 bits.
        lun: u8,
    },
    /// Method 11b, length 0, extended method 1: a well-known logical unit; 1 is REPORT LUNS.
    WellKnown(u8),
    /// Method 11b, length 1, extended method 2: a number of 24 bits.
    ExtendedFlat(u32),
    /// Method 11b, length 2, extended method 2: a number of 40 bits.
    LongExtendedFlat(u64),
    /// All ones: no logical unit is meant.
    NotSpecified,
    /// An extended method that SAM-5 reserves.
    Reserved,
}

/// The largest number of flat space addressing.
const FLAT_MAX: u64 = (1 << 14) - 1;
/// The largest number of extended flat space addressing.
const EXTENDED_MAX: u64 = (1 << 24) - 1;
/// The largest number of long extended flat space addressing.
const LONG_MAX: u64 = (1 << 40) - 1;

impl LunAddress {
    /// Logical unit 0, which every target answers for.
    pub const ZERO: LunAddress = LunAddress([0; 8]);
    /// The REPORT LUNS well-known logical unit.
    pub const REPORT_LUNS: LunAddress = LunAddress([0xc1, 0x01, 0, 0, 0, 0, 0, 0]);

    /// The address of logical unit `number` in the shortest method that carries it: peripheral up to 255, flat up to
    /// 16 383, extended flat up to 2^24-1, long extended flat up to 2^40-1. `None` above that.
    pub fn new(number: u64) -> Option<LunAddress> {
        let [_, _, _, b3, b4, b5, b6, b7] = number.to_be_bytes();
        let bytes = match number {
            0..=0xff => [0, b7, 0, 0, 0, 0, 0, 0],
            0x100..=FLAT_MAX => [0x40 | b6, b7, 0, 0, 0, 0, 0, 0],
            0x4000..=EXTENDED_MAX => [0xd2, b5, b6, b7, 0, 0, 0, 0],
            0x100_0000..=LONG_MAX => [0xe2, b3, b4, b5, b6, b7, 0, 0],
            _ => return None,
        };
        Some(LunAddress(bytes))
    }

    /// The address as it came over the wire. Every value is one.
    pub const fn from_bytes(bytes: [u8; 8]) -> LunAddress {
        LunAddress(bytes)
    }

    /// The address as it goes over the wire.
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0
    }

    /// What the first level says.
    pub fn form(self) -> LunForm {
        let [b0, b1, b2, b3, b4, b5, ..] = self.0;
        match b0 >> 6 {
            0 => LunForm::Peripheral { bus: b0 & 0x3f, unit: b1 },
            1 => LunForm::Flat(u16::from_be_bytes([b0 & 0x3f, b1])),
            2 => LunForm::LogicalUnit { target: b0 & 0x3f, bus: b1 >> 5, lun: b1 & 0x1f },
            _ if self.0 == [0xff; 8] => LunForm::NotSpecified,
            _ => match b0 & 0x3f {
                0x01 => LunForm::WellKnown(b1),
                0x12 => LunForm::ExtendedFlat(u32::from_be_bytes([0, b1, b2, b3])),
                0x22 => LunForm::LongExtendedFlat(u64::from_be_bytes([0, 0, 0, b1, b2, b3, b4, b5])),
                _ => LunForm::Reserved,
            },
        }
    }

    /// The number of the logical unit, where the address has one level and names a unit of this target by number.
    pub fn number(self) -> Option<u64> {
        let (number, used) = match self.form() {
            LunForm::Peripheral { bus: 0, unit } => (u64::from(unit), 2),
            LunForm::Flat(n) => (u64::from(n), 2),
            LunForm::ExtendedFlat(n) => (u64::from(n), 4),
            LunForm::LongExtendedFlat(n) => (n, 6),
            _ => return None,
        };
        self.0[used..].iter().all(|b| *b == 0).then_some(number)
    }

    /// True for a well-known logical unit, which has no medium.
    pub fn is_well_known(self) -> bool {
        matches!(self.form(), LunForm::WellKnown(_))
    }
}

impl fmt::Display for LunAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number() {
            Some(number) => write!(f, "LUN {number}"),
            None => write!(f, "LUN {:016x}h", u64::from_be_bytes(self.0)),
        }
    }
}

impl fmt::Debug for LunAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LunAddress({:016x})", u64::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(hex: u64) -> LunAddress {
        LunAddress::from_bytes(hex.to_be_bytes())
    }

    /// SAM-5 4.7.7: the figures of the addressing methods, one address each.
    #[test]
    fn every_method_is_read() {
        assert_eq!(address(0x0005 << 48).form(), LunForm::Peripheral { bus: 0, unit: 5 });
        assert_eq!(address(0x0305 << 48).form(), LunForm::Peripheral { bus: 3, unit: 5 });
        assert_eq!(address(0x4123 << 48).form(), LunForm::Flat(0x123));
        assert_eq!(address(0x8a65 << 48).form(), LunForm::LogicalUnit { target: 10, bus: 3, lun: 5 });
        assert_eq!(address(0xc101 << 48).form(), LunForm::WellKnown(1));
        assert_eq!(address(0xd212_3456 << 32).form(), LunForm::ExtendedFlat(0x12_3456));
        assert_eq!(address(0xe212_3456_789a << 16).form(), LunForm::LongExtendedFlat(0x12_3456_789a));
        assert_eq!(address(u64::MAX).form(), LunForm::NotSpecified);
        assert_eq!(address(0xff00 << 48).form(), LunForm::Reserved);
        assert!(LunAddress::REPORT_LUNS.is_well_known());
    }

    #[test]
    fn the_shortest_method_is_written() {
        for (number, hex) in [
            (0, 0),
            (255, 0x00ff << 48),
            (256, 0x4100 << 48),
            (16383, 0x7fff << 48),
            (16384, 0xd200_4000 << 32),
            (0xff_ffff, 0xd2ff_ffff << 32),
            (0x100_0000, 0xe200_0100_0000 << 16),
            (LONG_MAX, 0xe2ff_ffff_ffff << 16),
        ] {
            assert_eq!(LunAddress::new(number), Some(address(hex)), "{number}");
        }
        assert_eq!(LunAddress::new(LONG_MAX + 1), None);
    }

    #[test]
    fn a_second_level_or_another_bus_has_no_number() {
        assert_eq!(address(0x0005_0001 << 32).number(), None);
        assert_eq!(address(0x0105 << 48).number(), None);
        assert_eq!(address(0x4001 << 48).to_string(), "LUN 1");
        assert_eq!(address(0x0105 << 48).to_string(), "LUN 0105000000000000h");
    }

    proptest! {
        #[test]
        fn a_number_comes_back(number in 0..=LONG_MAX) {
            prop_assert_eq!(LunAddress::new(number).and_then(LunAddress::number), Some(number));
        }

        #[test]
        fn any_eight_bytes_are_an_address(bytes: [u8; 8]) {
            let lun = LunAddress::from_bytes(bytes);
            prop_assert_eq!(lun.to_bytes(), bytes);
            let _ = (lun.form(), lun.number(), lun.to_string());
        }
    }
}
