//! REPORT LUNS data (SPC-4 6.33.2): which logical units a target has for this initiator.

use zerocopy::IntoBytes;

use crate::error::ParseError;
use crate::lun::LunAddress;
use crate::wire::{U32, head, len32, split, wire};

wire!(
    /// SPC-4 table 285.
    WireHead [8] { len: U32, reserved: [u8; 4] }
);

/// The logical units of a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Luns {
    /// Their addresses, in the target's order and the target's addressing method.
    pub luns: Vec<LunAddress>,
}

const WHAT: &str = "REPORT LUNS data";
const LUN: usize = 8;

impl Luns {
    /// The most units that are read: all that peripheral and flat addressing can name.
    pub const MAX: usize = 16_384;

    /// Reads the whole list, or says how many bytes it has.
    pub fn parse(bytes: &[u8]) -> Result<Luns, ParseError> {
        let (wire, rest) = head::<WireHead>(WHAT, bytes)?;
        let len = len32(wire.len);
        if !len.is_multiple_of(LUN) {
            let value = u64::from(wire.len.get());
            return Err(ParseError::BadField { what: WHAT, field: "LUN LIST LENGTH", value });
        }
        if len / LUN > Luns::MAX {
            return Err(ParseError::TooMany { what: WHAT, max: Luns::MAX });
        }
        let cut = |_| ParseError::Truncated { what: WHAT, need: len.saturating_add(8), have: bytes.len() };
        let (list, _) = split(WHAT, rest, len).map_err(cut)?;
        let (luns, _) = list.as_chunks::<LUN>();
        Ok(Luns { luns: luns.iter().map(|lun| LunAddress::from_bytes(*lun)).collect() })
    }

    /// The whole answer; a target cuts it to the allocation length.
    pub fn to_bytes(&self) -> Vec<u8> {
        let len = U32::new(u32::try_from(self.luns.len() * LUN).unwrap_or(u32::MAX));
        let mut bytes = WireHead { len, reserved: [0; 4] }.as_bytes().to_vec();
        self.luns.iter().for_each(|lun| bytes.extend_from_slice(&lun.to_bytes()));
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SPC-4 table 285: LUN 0 in peripheral and LUN 256 in flat addressing.
    const BYTES: [u8; 24] = [0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x41, 0x00, 0, 0, 0, 0, 0, 0];

    #[test]
    fn units_are_read_and_written() {
        let luns = Luns::parse(&BYTES).expect("a list");
        let numbers: Vec<_> = luns.luns.iter().map(|lun| lun.number()).collect();
        assert_eq!(numbers, [Some(0), Some(256)]);
        assert_eq!(luns.to_bytes(), BYTES);
    }

    #[test]
    fn a_cut_list_says_how_long_it_is() {
        let cut = Luns::parse(&BYTES[..16]);
        assert_eq!(cut, Err(ParseError::Truncated { what: WHAT, need: 24, have: 16 }));
        assert!(matches!(Luns::parse(&[0, 0, 0, 7, 0, 0, 0, 0]), Err(ParseError::BadField { .. })));
        assert!(matches!(Luns::parse(&[0xff, 0xff, 0xff, 0xf8, 0, 0, 0, 0]), Err(ParseError::TooMany { .. })));
    }
}
