//! READ: data from the medium (SBC-3 5.11 to 5.14, READ (10) to READ (32); READ (6) in annex of SBC-2).

use super::block::{Cdb, Transfer};
use super::op;
use super::range::{Caching, Codes, Fit, Form, Skeleton};
use crate::error::{BuildError, CdbError};
use crate::units::{BlockLen, BlockRange};

const CODES: Codes = Codes {
    what: "READ",
    codes: &[
        (Form::Six, op::READ_6),
        (Form::Ten, op::READ_10),
        (Form::Twelve, op::READ_12),
        (Form::Sixteen, op::READ_16),
    ],
};

/// READ: data from the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Length of the block.
    pub form: Form,
    /// The blocks. None at all is allowed and moves nothing, except in 6 bytes.
    pub range: BlockRange,
    /// DPO and FUA; neither exists in 6 bytes.
    pub caching: Caching,
    /// RDPROTECT, 3 bits: how protection information is transferred and checked; 0 for none.
    pub protect: u8,
    /// GROUP NUMBER, 6 bits: statistics of the target; 0 for none.
    pub group: u8,
}

impl Read {
    /// The command in 16 bytes, without options.
    pub const fn new(range: BlockRange) -> Read {
        Read { form: Form::Sixteen, range, caching: Caching::NONE, protect: 0, group: 0 }
    }

    /// The command descriptor block for blocks of `block` bytes.
    pub fn cdb(&self, block: BlockLen) -> Result<Cdb, BuildError> {
        let fit = Fit { what: CODES.what };
        fit.unprotected(self.protect)?;
        let data = fit.data(self.range.blocks, block)?;
        let skeleton = Skeleton { flags: self.caching.bits(), range: self.range, group: self.group };
        skeleton.write(&CODES, self.form, Transfer::input(data))
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<Read, CdbError> {
        let form = CODES.form(cdb)?;
        let Skeleton { flags, range, group } = Skeleton::read(form, cdb)?;
        Ok(Read { form, range, caching: Caching::from_bits(flags), protect: flags >> 5, group })
    }
}
