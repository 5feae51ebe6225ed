//! WRITE: data to the medium (SBC-3 5.32 to 5.35, WRITE (10) to WRITE (32)).

use super::block::{Cdb, Transfer};
use super::op;
use super::range::{Caching, Codes, Fit, Form, Skeleton};
use crate::error::{BuildError, CdbError};
use crate::units::{BlockLen, BlockRange};

const CODES: Codes = Codes {
    what: "WRITE",
    codes: &[
        (Form::Six, op::WRITE_6),
        (Form::Ten, op::WRITE_10),
        (Form::Twelve, op::WRITE_12),
        (Form::Sixteen, op::WRITE_16),
    ],
};

/// WRITE: data to the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// Length of the block.
    pub form: Form,
    /// The blocks. None at all is allowed and moves nothing, except in 6 bytes.
    pub range: BlockRange,
    /// DPO and FUA; neither exists in 6 bytes.
    pub caching: Caching,
    /// WRPROTECT, 3 bits: how protection information is transferred and checked; 0 for none.
    pub protect: u8,
    /// GROUP NUMBER, 6 bits: statistics of the target; 0 for none.
    pub group: u8,
}

impl Write {
    /// The command in 16 bytes, without options.
    pub const fn new(range: BlockRange) -> Write {
        Write { form: Form::Sixteen, range, caching: Caching::NONE, protect: 0, group: 0 }
    }

    /// The command descriptor block for blocks of `block` bytes.
    pub fn cdb(&self, block: BlockLen) -> Result<Cdb, BuildError> {
        let fit = Fit { what: CODES.what };
        fit.unprotected(self.protect)?;
        let data = fit.data(self.range.blocks, block)?;
        let skeleton = Skeleton { flags: self.caching.bits(), range: self.range, group: self.group };
        skeleton.write(&CODES, self.form, Transfer::output(data))
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<Write, CdbError> {
        let form = CODES.form(cdb)?;
        let Skeleton { flags, range, group } = Skeleton::read(form, cdb)?;
        Ok(Write { form, range, caching: Caching::from_bits(flags), protect: flags >> 5, group })
    }
}
