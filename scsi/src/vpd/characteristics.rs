//! Page B1h (SBC-3 6.6.2): what kind of medium it is.

use super::{PageCode, body, fixed, page};
use crate::error::ParseError;
use crate::wire::{bit, flag};

/// MEDIUM ROTATION RATE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rotation {
    /// 0000h, and reserved values.
    #[default]
    NotTold,
    /// 0001h: it does not rotate.
    Solid,
    /// 0401h to FFFEh: so many times a minute.
    PerMinute(u16),
}

/// Block device characteristics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockCharacteristics {
    /// Whether and how fast it rotates.
    pub rotation: Rotation,
    /// NOMINAL FORM FACTOR, 4 bits; 0 is not told.
    pub form_factor: u8,
    /// FUAB: FUA also bypasses a non-volatile cache.
    pub fua_bypasses: bool,
    /// VBULS: VERIFY with BYTCHK 1 of unmapped blocks succeeds.
    pub verify_unmapped: bool,
}

/// Bytes behind the page's header.
const BODY: usize = 60;

impl BlockCharacteristics {
    /// Reads the page.
    pub fn parse(bytes: &[u8]) -> Result<BlockCharacteristics, ParseError> {
        let b: [u8; BODY] = fixed(body("VPD page B1h", PageCode::BLOCK_CHARACTERISTICS, bytes)?);
        let rotation = match u16::from_be_bytes([b[0], b[1]]) {
            1 => Rotation::Solid,
            rate @ 0x0401..=0xfffe => Rotation::PerMinute(rate),
            _ => Rotation::NotTold,
        };
        Ok(BlockCharacteristics {
            rotation,
            form_factor: b[3] & 0xf,
            fua_bypasses: bit(b[4], 1),
            verify_unmapped: bit(b[4], 0),
        })
    }

    /// The page's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut b = [0; BODY];
        let rate = match self.rotation {
            Rotation::NotTold => 0,
            Rotation::Solid => 1,
            Rotation::PerMinute(rate) => rate,
        };
        [b[0], b[1]] = rate.to_be_bytes();
        b[3] = self.form_factor & 0xf;
        b[4] = flag(self.fua_bypasses, 1) | flag(self.verify_unmapped, 0);
        page(PageCode::BLOCK_CHARACTERISTICS, &b)
    }
}
