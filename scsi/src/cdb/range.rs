//! The skeleton that all commands on a run of blocks share: operation code, flags, address, count, group, control, in
//! 10, 12 or 16 bytes (SBC-3 5.1; SPC-4 4.2.2). The 6-byte form is that of READ(6) and WRITE(6) only.

use std::fmt;

use zerocopy::IntoBytes;

use super::Cdb;
use super::block::Transfer;
use crate::error::{BuildError, CdbError};
use crate::units::{BlockCount, BlockLen, BlockRange, Lba, OpCode};
use crate::wire::{U16, U32, U64, wire};

/// How long a command descriptor block is, where a command has several forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// 6 bytes: addresses of 21 bits, 1 to 256 blocks.
    Six,
    /// 10 bytes: addresses of 32 bits, up to 65 535 blocks.
    Ten,
    /// 12 bytes: addresses and counts of 32 bits.
    Twelve,
    /// 16 bytes: addresses of 64 bits, counts of 32.
    Sixteen,
}

/// What an access asks of the device's caches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Caching {
    /// DPO: these blocks are not worth keeping in the cache.
    pub disable_page_out: bool,
    /// FUA: read from the medium; a write is on the medium before its status.
    pub force_unit_access: bool,
}

impl Caching {
    /// Neither bit.
    pub const NONE: Caching = Caching { disable_page_out: false, force_unit_access: false };
    /// FUA alone.
    pub const FUA: Caching = Caching { disable_page_out: false, force_unit_access: true };

    /// The two bits in byte 1.
    pub(super) fn bits(self) -> u8 {
        crate::wire::flag(self.disable_page_out, 4) | crate::wire::flag(self.force_unit_access, 3)
    }

    /// The two bits of byte 1.
    pub(super) fn from_bits(flags: u8) -> Caching {
        Caching { disable_page_out: crate::wire::bit(flags, 4), force_unit_access: crate::wire::bit(flags, 3) }
    }
}

wire!(
    /// READ(6), WRITE(6): 21 bits of address in the low bits of byte 1 and bytes 2 and 3.
    Wire6 [6] { code: u8, high: u8, low: U16, blocks: u8, control: u8 }
);
wire!(
    /// The 10-byte form.
    Wire10 [10] { code: u8, flags: u8, lba: U32, group: u8, blocks: U16, control: u8 }
);
wire!(
    /// The 12-byte form.
    Wire12 [12] { code: u8, flags: u8, lba: U32, blocks: U32, group: u8, control: u8 }
);
wire!(
    /// The 16-byte form.
    Wire16 [16] { code: u8, flags: u8, lba: U64, blocks: U32, group: u8, control: u8 }
);

/// The largest address of the 6-byte form.
const LBA_6: u64 = (1 << 21) - 1;

/// Which operation code a command has in each form.
pub(super) struct Codes {
    pub(super) what: &'static str,
    pub(super) codes: &'static [(Form, OpCode)],
}

/// What the skeleton carries beside the operation code.
#[derive(Clone, Copy, Debug)]
pub(super) struct Skeleton {
    pub(super) flags: u8,
    pub(super) range: BlockRange,
    pub(super) group: u8,
}

impl Codes {
    fn code(&self, form: Form) -> Result<OpCode, BuildError> {
        let found = self.codes.iter().find(|(f, _)| *f == form);
        found.map(|(_, code)| *code).ok_or(BuildError::NoSuchForm { what: self.what, option: form.name() })
    }

    /// The form of a block that carries one of these codes.
    pub(super) fn form(&self, cdb: &[u8]) -> Result<Form, CdbError> {
        let code = OpCode(cdb.first().copied().unwrap_or(0));
        let found = self.codes.iter().find(|(_, c)| *c == code);
        found.map(|(form, _)| *form).ok_or(CdbError::UnknownOpCode(code))
    }
}

impl Skeleton {
    /// Lays the skeleton out in `form`.
    pub(super) fn write(self, codes: &Codes, form: Form, transfer: Transfer) -> Result<Cdb, BuildError> {
        let fit = Fit { what: codes.what };
        let code = codes.code(form)?.0;
        let (lba, blocks) = (self.range.lba.0, self.range.blocks.0);
        let (flags, group, control) = (self.flags, self.group & 0x3f, 0);
        Ok(match form {
            Form::Six => {
                if self.flags != 0 || self.group != 0 {
                    return Err(BuildError::NoSuchForm { what: codes.what, option: "flags or a group in 6 bytes" });
                }
                fit.check("LOGICAL BLOCK ADDRESS", lba, LBA_6)?;
                let blocks = fit.six(blocks)?;
                let [_, high, b2, b3] = fit.u32("LOGICAL BLOCK ADDRESS", lba)?.to_be_bytes();
                Cdb::short(Wire6 { code, high, low: U16::from([b2, b3]), blocks, control }.as_bytes(), transfer)
            }
            Form::Ten => {
                let lba = U32::new(fit.u32("LOGICAL BLOCK ADDRESS", lba)?);
                let blocks = U16::new(fit.u16("TRANSFER LENGTH", blocks)?);
                Cdb::short(Wire10 { code, flags, lba, group, blocks, control }.as_bytes(), transfer)
            }
            Form::Twelve => {
                let lba = U32::new(fit.u32("LOGICAL BLOCK ADDRESS", lba)?);
                let blocks = U32::new(fit.u32("TRANSFER LENGTH", blocks)?);
                Cdb::short(Wire12 { code, flags, lba, blocks, group, control }.as_bytes(), transfer)
            }
            Form::Sixteen => {
                let blocks = U32::new(fit.u32("TRANSFER LENGTH", blocks)?);
                let lba = U64::new(lba);
                Cdb::short(Wire16 { code, flags, lba, blocks, group, control }.as_bytes(), transfer)
            }
        })
    }

    /// Reads a block of the given form.
    pub(super) fn read(form: Form, cdb: &[u8]) -> Result<Skeleton, CdbError> {
        let (flags, lba, blocks, group) = match form {
            Form::Six => {
                let wire: &Wire6 = layout(cdb)?;
                let [b2, b3] = wire.low.get().to_be_bytes();
                let lba = u32::from_be_bytes([0, wire.high & 0x1f, b2, b3]);
                // SBC-3 5.10 and 5.30: 0 means 256.
                let blocks = if wire.blocks == 0 { 256 } else { u32::from(wire.blocks) };
                (0, u64::from(lba), blocks, 0)
            }
            Form::Ten => {
                let wire: &Wire10 = layout(cdb)?;
                (wire.flags, u64::from(wire.lba.get()), u32::from(wire.blocks.get()), wire.group)
            }
            Form::Twelve => {
                let wire: &Wire12 = layout(cdb)?;
                (wire.flags, u64::from(wire.lba.get()), wire.blocks.get(), wire.group)
            }
            Form::Sixteen => {
                let wire: &Wire16 = layout(cdb)?;
                (wire.flags, wire.lba.get(), wire.blocks.get(), wire.group)
            }
        };
        let range = BlockRange::new(Lba(lba), BlockCount(u64::from(blocks)));
        Ok(Skeleton { flags, range, group: group & 0x3f })
    }
}

/// The layout of a block that is at least as long.
pub(super) fn layout<T>(cdb: &[u8]) -> Result<&T, CdbError>
where
    T: zerocopy::FromBytes + zerocopy::KnownLayout + zerocopy::Immutable + zerocopy::Unaligned,
{
    let short = |_| CdbError::Truncated { need: size_of::<T>(), have: cdb.len() };
    T::ref_from_prefix(cdb).map(|(wire, _)| wire).map_err(short)
}

/// Makes values fit the fields of one command.
#[derive(Clone, Copy)]
pub(super) struct Fit {
    pub(super) what: &'static str,
}

impl Fit {
    pub(super) fn check(self, field: &'static str, value: u64, max: u64) -> Result<(), BuildError> {
        if value <= max { Ok(()) } else { Err(BuildError::DoesNotFit { what: self.what, field, value, max }) }
    }

    pub(super) fn u8(self, field: &'static str, value: u64) -> Result<u8, BuildError> {
        let wrong = |_| BuildError::DoesNotFit { what: self.what, field, value, max: u64::from(u8::MAX) };
        u8::try_from(value).map_err(wrong)
    }

    pub(super) fn u16(self, field: &'static str, value: u64) -> Result<u16, BuildError> {
        let wrong = |_| BuildError::DoesNotFit { what: self.what, field, value, max: u64::from(u16::MAX) };
        u16::try_from(value).map_err(wrong)
    }

    pub(super) fn u32(self, field: &'static str, value: u64) -> Result<u32, BuildError> {
        let wrong = |_| BuildError::DoesNotFit { what: self.what, field, value, max: u64::from(u32::MAX) };
        u32::try_from(value).map_err(wrong)
    }

    /// A count of 6-byte commands: 1 to 256, the last written as 0.
    fn six(self, blocks: u64) -> Result<u8, BuildError> {
        match blocks {
            256 => Ok(0),
            0 => Err(BuildError::NoSuchForm { what: self.what, option: "a count of 0 in 6 bytes" }),
            more => {
                self.check("TRANSFER LENGTH", more, 256)?;
                self.u8("TRANSFER LENGTH", more)
            }
        }
    }

    /// The bytes of `blocks` blocks without protection information.
    pub(super) fn data(self, blocks: BlockCount, block: BlockLen) -> Result<crate::units::ByteCount, BuildError> {
        let max = u64::from(u32::MAX / block.get());
        let wrong = BuildError::DoesNotFit { what: self.what, field: "TRANSFER LENGTH", value: blocks.0, max };
        blocks.to_bytes(block).ok_or(wrong)
    }

    /// Refuses protection information: this crate builds no command that transfers it.
    pub(super) fn unprotected(self, protect: u8) -> Result<(), BuildError> {
        let wrong = BuildError::NoSuchForm { what: self.what, option: "protection information in the data" };
        if protect == 0 { Ok(()) } else { Err(wrong) }
    }
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Form::Six => "a form of 6 bytes",
            Form::Ten => "a form of 10 bytes",
            Form::Twelve => "a form of 12 bytes",
            Form::Sixteen => "a form of 16 bytes",
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
