//! VERIFY: the medium is read and checked, or compared with data (SBC-3 5.29 to 5.31, VERIFY (10) to VERIFY (32)).

use super::block::{Cdb, Transfer};
use super::op;
use super::range::{Codes, Fit, Form, Skeleton};
use crate::error::{BuildError, CdbError};
use crate::units::{BlockCount, BlockLen, BlockRange};
use crate::wire::{bit, flag};

const CODES: Codes = Codes {
    what: "VERIFY",
    codes: &[(Form::Ten, op::VERIFY_10), (Form::Twelve, op::VERIFY_12), (Form::Sixteen, op::VERIFY_16)],
};

/// VERIFY: the medium is read and checked, or compared with data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verify {
    /// Length of the block; 10, 12 or 16 bytes.
    pub form: Form,
    /// The blocks.
    pub range: BlockRange,
    /// BYTCHK, 2 bits: 0 moves no data; 1 compares all blocks with the data; 3 compares each block with the
    /// one block that is sent; 2 is reserved.
    pub byte_check: u8,
    /// DPO: these blocks are not worth keeping in the cache.
    pub disable_page_out: bool,
    /// Protection information, 3 bits; 0 for none.
    pub protect: u8,
    /// GROUP NUMBER, 6 bits; 0 for none.
    pub group: u8,
}

impl Verify {
    /// The command in 16 bytes, without options.
    pub const fn new(range: BlockRange) -> Verify {
        Verify { form: Form::Sixteen, range, byte_check: 0, disable_page_out: false, protect: 0, group: 0 }
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

    /// Blocks of data that go to the target.
    pub fn data_blocks(&self) -> BlockCount {
        match self.byte_check {
            0 => BlockCount::ZERO,
            3 => BlockCount(self.range.blocks.0.min(1)),
            _ => self.range.blocks,
        }
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<Verify, CdbError> {
        let form = CODES.form(cdb)?;
        let Skeleton { flags, range, group } = Skeleton::read(form, cdb)?;
        let (byte_check, disable_page_out) = (flags >> 1 & 3, bit(flags, 4));
        Ok(Verify { form, range, byte_check, disable_page_out, protect: flags >> 5, group })
    }
}
