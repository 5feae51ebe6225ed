//! ORWRITE: the bits of the data are set in what is on the medium (SBC-3 5.5, ORWRITE (16)).

use super::block::{Cdb, Transfer};
use super::op;
use super::range::{Caching, Codes, Fit, Form, Skeleton};
use crate::error::{BuildError, CdbError};
use crate::units::{BlockLen, BlockRange};

const CODES: Codes = Codes { what: "ORWRITE", codes: &[(Form::Sixteen, op::ORWRITE_16)] };

/// ORWRITE: the bits of the data are set in what is on the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrWrite {
    /// Length of the block.
    pub form: Form,
    /// The blocks. None at all is allowed and moves nothing.
    pub range: BlockRange,
    /// DPO and FUA; neither exists in 6 bytes.
    pub caching: Caching,
    /// ORPROTECT, 3 bits: how protection information is transferred and checked; 0 for none.
    pub protect: u8,
    /// GROUP NUMBER, 6 bits: statistics of the target; 0 for none.
    pub group: u8,
}

impl OrWrite {
    /// The command in 16 bytes, without options.
    pub const fn new(range: BlockRange) -> OrWrite {
        OrWrite { form: Form::Sixteen, range, caching: Caching::NONE, protect: 0, group: 0 }
    }

    /// The command descriptor block for blocks of `block` bytes.
    pub fn cdb(&self, block: BlockLen) -> Result<Cdb, BuildError> {
        let fit = Fit { what: CODES.what };
        fit.unprotected(self.protect)?;
        let data = fit.data(self.range.blocks, block)?;
        let skeleton = Skeleton { flags: self.caching.bits(), range: self.range, group: self.group };
        skeleton.write(&CODES, self.form, Transfer::output(data))
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<OrWrite, CdbError> {
        let form = CODES.form(cdb)?;
        let Skeleton { flags, range, group } = Skeleton::read(form, cdb)?;
        Ok(OrWrite { form, range, caching: Caching::from_bits(flags), protect: flags >> 5, group })
    }
}
