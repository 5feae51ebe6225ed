//! The log page of logical block provisioning, 0Ch (SBC-3 6.4.4): how much space a thin unit has left.

use zerocopy::IntoBytes;

use crate::error::ParseError;
use crate::wire::{U16, U32, head, len16, split, take, wire};

wire!(
    /// SPC-4 7.3.2: in front of every log page.
    WirePage [4] { page: u8, subpage: u8, len: U16 }
);
wire!(
    /// SBC-3 table 138: a resource count.
    WireCount [12] { code: U16, control: u8, len: u8, count: U32, scope: u8, reserved: [u8; 3] }
);

/// Counts in threshold sets, of 2^(THRESHOLD EXPONENT of page B2h) blocks each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProvisioningResources {
    /// AVAILABLE LBA MAPPING RESOURCE COUNT.
    pub available: Option<u32>,
    /// USED LBA MAPPING RESOURCE COUNT.
    pub used: Option<u32>,
}

const WHAT: &str = "log page 0Ch";
/// The page's code.
const PAGE: u8 = 0x0c;
const AVAILABLE: u16 = 1;
const USED: u16 = 2;

impl ProvisioningResources {
    /// PAGE CODE of the page, for LOG SENSE.
    pub const PAGE: u8 = PAGE;

    /// Reads the page; parameters that it does not know are passed over.
    pub fn parse(bytes: &[u8]) -> Result<ProvisioningResources, ParseError> {
        let (wire, rest) = head::<WirePage>(WHAT, bytes)?;
        if wire.page & 0x3f != PAGE {
            let value = u64::from(wire.page & 0x3f);
            return Err(ParseError::BadField { what: WHAT, field: "PAGE CODE", value });
        }
        let len = len16(wire.len);
        let cut = |_| ParseError::Truncated { what: WHAT, need: len + 4, have: bytes.len() };
        let (mut list, _) = split(WHAT, rest, len).map_err(cut)?;
        let mut found = ProvisioningResources::default();
        while let [high, low, _, len, ..] = *list {
            let (parameter, rest) = take(WHAT, list, 4 + usize::from(len))?;
            let count = parameter.get(4..8).and_then(|four| four.try_into().ok()).map(u32::from_be_bytes);
            match u16::from_be_bytes([high, low]) {
                AVAILABLE => found.available = count,
                USED => found.used = count,
                _ => {}
            }
            list = rest;
        }
        Ok(found)
    }

    /// The page's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let counts = [(AVAILABLE, self.available), (USED, self.used)];
        let mut list = Vec::new();
        for (code, count) in counts.into_iter().filter_map(|(code, count)| Some((code, count?))) {
            // FORMAT AND LINKING 11b: a binary list parameter; SCOPE 1: of this unit.
            let count = U32::new(count);
            let wire = WireCount { code: U16::new(code), control: 3, len: 8, count, scope: 1, reserved: [0; 3] };
            list.extend_from_slice(wire.as_bytes());
        }
        let len = U16::new(u16::try_from(list.len()).unwrap_or(u16::MAX));
        let mut bytes = WirePage { page: PAGE, subpage: 0, len }.as_bytes().to_vec();
        bytes.append(&mut list);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SBC-3 table 138: 100 sets left, 28 used.
    const BYTES: [u8; 28] = [0x0c, 0, 0, 24, 0, 1, 3, 8, 0, 0, 0, 100, 1, 0, 0, 0, 0, 2, 3, 8, 0, 0, 0, 28, 1, 0, 0, 0];

    #[test]
    fn resources_are_read_and_written() {
        let resources = ProvisioningResources { available: Some(100), used: Some(28) };
        assert_eq!(ProvisioningResources::parse(&BYTES), Ok(resources));
        assert_eq!(resources.to_bytes(), BYTES);
    }

    #[test]
    fn a_cut_page_and_a_parameter_beyond_its_end_are_refused() {
        assert_eq!(ProvisioningResources::parse(&BYTES[..10]).map_err(|e| e.wanted(512)), Err(Some(28)));
        let mut bytes = BYTES;
        bytes[7] = 200;
        assert!(matches!(ProvisioningResources::parse(&bytes), Err(ParseError::Overrun { .. })));
    }
}
