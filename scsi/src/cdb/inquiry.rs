//! INQUIRY (SPC-4 6.6) and REQUEST SENSE (SPC-4 6.39): what a unit is, and what it has to say.

use zerocopy::IntoBytes;

use super::block::{Cdb, Transfer};
use super::op;
use super::range::{Fit, layout};
use crate::error::{BuildError, CdbError};
use crate::sense::MAX_SENSE;
use crate::units::{ByteCount, ShortByteCount};
use crate::vpd::PageCode;
use crate::wire::{U16, bit, flag, wire};

wire!(
    /// SPC-4 table 169.
    WireInquiry [6] { code: u8, flags: u8, page: u8, alloc: U16, control: u8 }
);
wire!(
    /// SPC-4 6.39.
    WireRequestSense [6] { code: u8, flags: u8, reserved: [u8; 2], alloc: u8, control: u8 }
);

/// INQUIRY. Executed also where other commands are not: without a medium, under a reservation, with a unit attention
/// pending (which stays pending).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inquiry {
    /// EVPD and PAGE CODE: which page of vital product data; `None` for standard inquiry data.
    pub page: Option<PageCode>,
    /// Bytes that the initiator takes. Below 5 a target cannot even tell how much there is.
    pub alloc: ShortByteCount,
}

/// REQUEST SENSE: sense data as data, with GOOD status; also progress and pending unit attentions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestSense {
    /// DESC: descriptor format.
    pub descriptor: bool,
    /// Bytes that the initiator takes, at most 255; 252 hold any sense data.
    pub alloc: ByteCount,
}

impl Inquiry {
    /// Standard inquiry data, with room for the version descriptors (96 bytes).
    pub const STANDARD: Inquiry = Inquiry { page: None, alloc: ShortByteCount(96) };

    /// A page of vital product data.
    pub const fn page(page: PageCode, alloc: ShortByteCount) -> Inquiry {
        Inquiry { page: Some(page), alloc }
    }

    /// The command descriptor block.
    pub fn cdb(&self) -> Cdb {
        let wire = WireInquiry {
            code: op::INQUIRY.0,
            flags: flag(self.page.is_some(), 0),
            page: self.page.map_or(0, |page| page.0),
            alloc: U16::new(self.alloc.0),
            control: 0,
        };
        Cdb::short(wire.as_bytes(), Transfer::input(self.alloc.into()))
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<Inquiry, CdbError> {
        let wire: &WireInquiry = layout(cdb)?;
        if bit(wire.flags, 1) {
            // CMDDT of SPC-2, obsolete.
            return Err(CdbError::bit(1, 1));
        }
        let page = bit(wire.flags, 0).then_some(PageCode(wire.page));
        if page.is_none() && wire.page != 0 {
            return Err(CdbError::byte(2));
        }
        Ok(Inquiry { page, alloc: ShortByteCount(wire.alloc.get()) })
    }
}

impl RequestSense {
    /// Sense data in fixed format, whatever its length.
    pub fn fixed() -> RequestSense {
        RequestSense { descriptor: false, alloc: ByteCount(u32::try_from(MAX_SENSE).unwrap_or(252)) }
    }

    /// The command descriptor block.
    pub fn cdb(&self) -> Result<Cdb, BuildError> {
        let fit = Fit { what: "REQUEST SENSE" };
        let wire = WireRequestSense {
            code: op::REQUEST_SENSE.0,
            flags: flag(self.descriptor, 0),
            reserved: [0; 2],
            alloc: fit.u8("ALLOCATION LENGTH", u64::from(self.alloc.0))?,
            control: 0,
        };
        Ok(Cdb::short(wire.as_bytes(), Transfer::input(self.alloc)))
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<RequestSense, CdbError> {
        let wire: &WireRequestSense = layout(cdb)?;
        Ok(RequestSense { descriptor: bit(wire.flags, 0), alloc: ByteCount(u32::from(wire.alloc)) })
    }
}
