//! MODE SENSE and MODE SELECT (SPC-4 6.13, 6.14; 6.11, 6.12). The data is in [`crate::mode`].

use zerocopy::IntoBytes;

use super::block::{Cdb, Transfer};
use super::op;
use super::range::{Fit, Form, layout};
use crate::error::{BuildError, CdbError};
use crate::mode::PageId;
use crate::units::ByteCount;
use crate::wire::{U16, bit, flag, wire};

wire!(
    /// MODE SENSE (6).
    WireSense6 [6] { code: u8, flags: u8, page: u8, subpage: u8, alloc: u8, control: u8 }
);
wire!(
    /// MODE SENSE (10).
    WireSense10 [10] { code: u8, flags: u8, page: u8, subpage: u8, reserved: [u8; 3], alloc: U16, control: u8 }
);
wire!(
    /// MODE SELECT (6).
    WireSelect6 [6] { code: u8, flags: u8, reserved: [u8; 2], list: u8, control: u8 }
);
wire!(
    /// MODE SELECT (10).
    WireSelect10 [10] { code: u8, flags: u8, reserved: [u8; 5], list: U16, control: u8 }
);

/// Which values of mode parameters are asked for (PC).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageControl {
    /// 0: those in force.
    Current,
    /// 1: a mask of what can be changed.
    Changeable,
    /// 2: those from the factory.
    Default,
    /// 3: those that come back after power on.
    Saved,
}

/// MODE SENSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeSense {
    /// 6 or 10 bytes.
    pub form: Form,
    /// DBD: no block descriptors.
    pub no_block_descriptors: bool,
    /// LLBAA: long block descriptors are understood. In 10 bytes only.
    pub long_lba: bool,
    /// Which values.
    pub control: PageControl,
    /// Which page.
    pub page: PageId,
    /// Bytes that the initiator takes; at most 255 in 6 bytes, 65 535 in 10.
    pub alloc: ByteCount,
}

/// MODE SELECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeSelect {
    /// 6 or 10 bytes.
    pub form: Form,
    /// PF: the list has the pages' form. Without it the vendor says.
    pub page_format: bool,
    /// SP: save the values too.
    pub save: bool,
    /// Bytes of the parameter list; at most 255 in 6 bytes, 65 535 in 10.
    pub list: ByteCount,
}

impl PageControl {
    fn bits(self) -> u8 {
        match self {
            PageControl::Current => 0,
            PageControl::Changeable => 1 << 6,
            PageControl::Default => 2 << 6,
            PageControl::Saved => 3 << 6,
        }
    }

    fn from_bits(byte: u8) -> PageControl {
        match byte >> 6 {
            0 => PageControl::Current,
            1 => PageControl::Changeable,
            2 => PageControl::Default,
            _ => PageControl::Saved,
        }
    }
}

impl ModeSense {
    /// The current values of a page in 10 bytes, without block descriptors.
    pub const fn current(page: PageId) -> ModeSense {
        ModeSense {
            form: Form::Ten,
            no_block_descriptors: true,
            long_lba: false,
            control: PageControl::Current,
            page,
            alloc: ByteCount(512),
        }
    }

    /// The command descriptor block.
    pub fn cdb(&self) -> Result<Cdb, BuildError> {
        let fit = Fit { what: "MODE SENSE" };
        let page = self.control.bits() | self.page.page & 0x3f;
        let subpage = self.page.subpage;
        let (dbd, alloc) = (flag(self.no_block_descriptors, 3), u64::from(self.alloc.0));
        let transfer = Transfer::input(self.alloc);
        match self.form {
            Form::Six if self.long_lba => Err(BuildError::NoSuchForm { what: fit.what, option: "LLBAA" }),
            Form::Six => {
                let alloc = fit.u8("ALLOCATION LENGTH", alloc)?;
                let wire = WireSense6 { code: op::MODE_SENSE_6.0, flags: dbd, page, subpage, alloc, control: 0 };
                Ok(Cdb::short(wire.as_bytes(), transfer))
            }
            Form::Ten => {
                let (code, flags) = (op::MODE_SENSE_10.0, dbd | flag(self.long_lba, 4));
                let alloc = U16::new(fit.u16("ALLOCATION LENGTH", alloc)?);
                let wire = WireSense10 { code, flags, page, subpage, reserved: [0; 3], alloc, control: 0 };
                Ok(Cdb::short(wire.as_bytes(), transfer))
            }
            _ => Err(BuildError::NoSuchForm { what: fit.what, option: "a form of 12 or 16 bytes" }),
        }
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<ModeSense, CdbError> {
        let (form, flags, page, subpage, alloc) = if cdb.first() == Some(&op::MODE_SENSE_6.0) {
            let wire: &WireSense6 = layout(cdb)?;
            (Form::Six, wire.flags & 0x0f, wire.page, wire.subpage, u32::from(wire.alloc))
        } else {
            let wire: &WireSense10 = layout(cdb)?;
            (Form::Ten, wire.flags, wire.page, wire.subpage, u32::from(wire.alloc.get()))
        };
        Ok(ModeSense {
            form,
            no_block_descriptors: bit(flags, 3),
            long_lba: bit(flags, 4),
            control: PageControl::from_bits(page),
            page: PageId { page: page & 0x3f, subpage },
            alloc: ByteCount(alloc),
        })
    }
}

impl ModeSelect {
    /// The command descriptor block.
    pub fn cdb(&self) -> Result<Cdb, BuildError> {
        let fit = Fit { what: "MODE SELECT" };
        let flags = flag(self.page_format, 4) | flag(self.save, 0);
        let (list, transfer) = (u64::from(self.list.0), Transfer::output(self.list));
        match self.form {
            Form::Six => {
                let (code, list) = (op::MODE_SELECT_6.0, fit.u8("PARAMETER LIST LENGTH", list)?);
                let wire = WireSelect6 { code, flags, reserved: [0; 2], list, control: 0 };
                Ok(Cdb::short(wire.as_bytes(), transfer))
            }
            Form::Ten => {
                let (code, list) = (op::MODE_SELECT_10.0, U16::new(fit.u16("PARAMETER LIST LENGTH", list)?));
                let wire = WireSelect10 { code, flags, reserved: [0; 5], list, control: 0 };
                Ok(Cdb::short(wire.as_bytes(), transfer))
            }
            _ => Err(BuildError::NoSuchForm { what: fit.what, option: "a form of 12 or 16 bytes" }),
        }
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<ModeSelect, CdbError> {
        let (form, flags, list) = if cdb.first() == Some(&op::MODE_SELECT_6.0) {
            let wire: &WireSelect6 = layout(cdb)?;
            (Form::Six, wire.flags, u32::from(wire.list))
        } else {
            let wire: &WireSelect10 = layout(cdb)?;
            (Form::Ten, wire.flags, u32::from(wire.list.get()))
        };
        Ok(ModeSelect { form, page_format: bit(flags, 4), save: bit(flags, 0), list: ByteCount(list) })
    }
}
