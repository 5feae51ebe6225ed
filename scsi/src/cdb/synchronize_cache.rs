//! SYNCHRONIZE CACHE: what was acknowledged is on the medium (SBC-3 5.26 and 5.27).

use super::block::{Cdb, Transfer};
use super::op;
use super::range::{Codes, Form, Skeleton};
use crate::error::{BuildError, CdbError};
use crate::units::BlockRange;
use crate::wire::{bit, flag};

const CODES: Codes = Codes {
    what: "SYNCHRONIZE CACHE",
    codes: &[(Form::Ten, op::SYNCHRONIZE_CACHE_10), (Form::Sixteen, op::SYNCHRONIZE_CACHE_16)],
};

/// SYNCHRONIZE CACHE: what was acknowledged is on the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynchronizeCache {
    /// Length of the block; 10 or 16 bytes.
    pub form: Form,
    /// The blocks; a count of 0 means up to the last one.
    pub range: BlockRange,
    /// IMMED: status comes before the blocks are on the medium, so it proves nothing.
    pub immediate: bool,
    /// GROUP NUMBER, 6 bits; 0 for none.
    pub group: u8,
}

impl SynchronizeCache {
    /// The command in 16 bytes, without options.
    pub const fn new(range: BlockRange) -> SynchronizeCache {
        SynchronizeCache { form: Form::Sixteen, range, immediate: false, group: 0 }
    }

    /// The command descriptor block.
    pub fn cdb(&self) -> Result<Cdb, BuildError> {
        let skeleton = Skeleton { flags: flag(self.immediate, 1), range: self.range, group: self.group };
        skeleton.write(&CODES, self.form, Transfer::None)
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<SynchronizeCache, CdbError> {
        let form = CODES.form(cdb)?;
        let Skeleton { flags, range, group } = Skeleton::read(form, cdb)?;
        Ok(SynchronizeCache { form, range, immediate: bit(flags, 1), group })
    }
}
