//! PRE-FETCH: blocks into the cache (SBC-3 5.8 and 5.9).

use super::block::{Cdb, Transfer};
use super::op;
use super::range::{Codes, Form, Skeleton};
use crate::error::{BuildError, CdbError};
use crate::units::BlockRange;
use crate::wire::{bit, flag};

const CODES: Codes =
    Codes { what: "PRE-FETCH", codes: &[(Form::Ten, op::PRE_FETCH_10), (Form::Sixteen, op::PRE_FETCH_16)] };

/// PRE-FETCH: blocks into the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreFetch {
    /// Length of the block; 10 or 16 bytes.
    pub form: Form,
    /// The blocks; a count of 0 means up to the last one.
    pub range: BlockRange,
    /// IMMED: status comes before the blocks are read.
    pub immediate: bool,
    /// GROUP NUMBER, 6 bits; 0 for none.
    pub group: u8,
}

impl PreFetch {
    /// The command in 16 bytes, without options.
    pub const fn new(range: BlockRange) -> PreFetch {
        PreFetch { form: Form::Sixteen, range, immediate: false, group: 0 }
    }

    /// The command descriptor block.
    pub fn cdb(&self) -> Result<Cdb, BuildError> {
        let skeleton = Skeleton { flags: flag(self.immediate, 1), range: self.range, group: self.group };
        skeleton.write(&CODES, self.form, Transfer::None)
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<PreFetch, CdbError> {
        let form = CODES.form(cdb)?;
        let Skeleton { flags, range, group } = Skeleton::read(form, cdb)?;
        Ok(PreFetch { form, range, immediate: bit(flags, 1), group })
    }
}
