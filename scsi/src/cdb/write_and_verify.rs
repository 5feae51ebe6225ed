//! WRITE AND VERIFY: data to the medium, and the medium checked (SBC-3 5.36 to 5.39, WRITE AND VERIFY (10) to (32)).

use super::block::{Cdb, Transfer};
use super::op;
use super::range::{Codes, Fit, Form, Skeleton};
use crate::error::{BuildError, CdbError};
use crate::units::{BlockCount, BlockLen, BlockRange};
use crate::wire::{bit, flag};

const CODES: Codes = Codes {
    what: "WRITE AND VERIFY",
    codes: &[
        (Form::Ten, op::WRITE_AND_VERIFY_10),
        (Form::Twelve, op::WRITE_AND_VERIFY_12),
        (Form::Sixteen, op::WRITE_AND_VERIFY_16),
    ],
};

/// WRITE AND VERIFY: data to the medium, and the medium checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteAndVerify {
    /// Length of the block; 10, 12 or 16 bytes.
    pub form: Form,
    /// The blocks.
    pub range: BlockRange,
    /// BYTCHK, 2 bits: 0 checks that the medium can be read; 1 compares it with the data.
    pub byte_check: u8,
    /// DPO: these blocks are not worth keeping in the cache.
    pub disable_page_out: bool,
    /// Protection information, 3 bits; 0 for none.
    pub protect: u8,
    /// GROUP NUMBER, 6 bits; 0 for none.
    pub group: u8,
}

impl WriteAndVerify {
    /// The command in 16 bytes, without options.
    pub const fn new(range: BlockRange) -> WriteAndVerify {
        WriteAndVerify { form: Form::Sixteen, range, byte_check: 0, disable_page_out: false, protect: 0, group: 0 }
    }

    /// The command descriptor block for blocks of `block` bytes.
    pub fn cdb(&self, block: BlockLen) -> Result<Cdb, BuildError> {
        let fit = Fit { what: CODES.what };
        fit.unprotected(self.protect)?;
        fit.check("BYTCHK", u64::from(self.byte_check), 3)?;
        let data = fit.data(self.data_blocks(), block)?;
        let flags = flag(self.disable_page_out, 4) | self.byte_check << 1;
        let skeleton = Skeleton { flags, range: self.range, group: self.group };
        skeleton.write(&CODES, self.form, Transfer::output(data))
    }

    /// Blocks of data that go to the target: all of them.
    pub fn data_blocks(&self) -> BlockCount {
        self.range.blocks
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<WriteAndVerify, CdbError> {
        let form = CODES.form(cdb)?;
        let Skeleton { flags, range, group } = Skeleton::read(form, cdb)?;
        let (byte_check, disable_page_out) = (flags >> 1 & 3, bit(flags, 4));
        Ok(WriteAndVerify { form, range, byte_check, disable_page_out, protect: flags >> 5, group })
    }
}
