//! Vital product data (SPC-4 7.8, SBC-3 6.6): what a logical unit tells about itself, page by page.
//!
//! Each page is a type with `parse` and `to_bytes`. A page that states more bytes than came is
//! [`Truncated`](crate::ParseError::Truncated) with the bytes that the next INQUIRY must allow. A page that is shorter
//! than the newest standard's is read; what it lacks is "not reported", as that standard's older readers see it.

mod block_limits;
mod characteristics;
mod designator;
mod extended;
mod identification;
mod ports;
mod provisioning;
mod serial;
mod supported;
#[cfg(test)]
mod tests;

use std::fmt;

use zerocopy::IntoBytes;

pub use block_limits::BlockLimits;
pub use characteristics::{BlockCharacteristics, Rotation};
pub use designator::{Association, Designator, Identifier, Naa, Strength};
pub use extended::ExtendedInquiry;
pub use identification::{DeviceIdentification, Sameness};
pub use ports::{ScsiPort, ScsiPorts};
pub use provisioning::{LogicalBlockProvisioning, ProvisioningType};
pub use serial::UnitSerialNumber;
pub(crate) use serial::text;
pub use supported::SupportedPages;

use crate::error::ParseError;
use crate::wire::{U16, head, len16, split, wire};

/// The code of a page of vital product data.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageCode(pub u8);

impl PageCode {
    /// 00h: [`SupportedPages`].
    pub const SUPPORTED: PageCode = PageCode(0x00);
    /// 80h: [`UnitSerialNumber`].
    pub const SERIAL: PageCode = PageCode(0x80);
    /// 83h: [`DeviceIdentification`].
    pub const IDENTIFICATION: PageCode = PageCode(0x83);
    /// 86h: [`ExtendedInquiry`].
    pub const EXTENDED: PageCode = PageCode(0x86);
    /// 88h: [`ScsiPorts`].
    pub const PORTS: PageCode = PageCode(0x88);
    /// B0h: [`BlockLimits`].
    pub const BLOCK_LIMITS: PageCode = PageCode(0xb0);
    /// B1h: [`BlockCharacteristics`].
    pub const BLOCK_CHARACTERISTICS: PageCode = PageCode(0xb1);
    /// B2h: [`LogicalBlockProvisioning`].
    pub const PROVISIONING: PageCode = PageCode(0xb2);
}

wire!(
    /// SPC-4 table 594: in front of every page.
    WirePage [4] { peripheral: u8, code: u8, len: U16 }
);

/// The body of a page, all of it, if it is the page that was asked for.
fn body<'a>(what: &'static str, code: PageCode, bytes: &'a [u8]) -> Result<&'a [u8], ParseError> {
    let (wire, rest) = head::<WirePage>(what, bytes)?;
    if wire.code != code.0 {
        return Err(ParseError::BadField { what, field: "PAGE CODE", value: u64::from(wire.code) });
    }
    let len = len16(wire.len);
    let cut = |_| ParseError::Truncated { what, need: len + size_of::<WirePage>(), have: bytes.len() };
    split(what, rest, len).map(|(body, _)| body).map_err(cut)
}

/// The body as an array, zeroes behind a shorter one: in every page zero means "not reported".
fn fixed<const LEN: usize>(body: &[u8]) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    for (to, from) in bytes.iter_mut().zip(body) {
        *to = *from;
    }
    bytes
}

/// A page of a direct-access block device that is connected (peripheral byte 0).
fn page(code: PageCode, body: &[u8]) -> Vec<u8> {
    let len = U16::new(u16::try_from(body.len()).unwrap_or(u16::MAX));
    let mut bytes = WirePage { peripheral: 0, code: code.0, len }.as_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

impl fmt::Display for PageCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {:02x}h", self.0)
    }
}

impl fmt::Debug for PageCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageCode({self})")
    }
}
