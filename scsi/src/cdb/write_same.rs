//! WRITE SAME (SBC-3 5.43 and 5.44): one block's data on a run of blocks; with UNMAP, a discard that reads as that data.

use super::block::{Cdb, Transfer};
use super::op;
use super::range::{Codes, Fit, Form, Skeleton};
use crate::error::{BuildError, CdbError};
use crate::units::{BlockCount, BlockLen, BlockRange};
use crate::wire::{bit, flag};

const CODES: Codes =
    Codes { what: "WRITE SAME", codes: &[(Form::Ten, op::WRITE_SAME_10), (Form::Sixteen, op::WRITE_SAME_16)] };

/// WRITE SAME.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteSame {
    /// Length of the block; 10 or 16 bytes.
    pub form: Form,
    /// The blocks. A count of 0 means up to the last one, unless WSNZ of the block limits page is set; then it is an
    /// error.
    pub range: BlockRange,
    /// UNMAP: the target may unmap the blocks instead, where they then read as the data.
    pub unmap: bool,
    /// ANCHOR: unmapped blocks are anchored (space stays theirs).
    pub anchor: bool,
    /// NDOB: no data goes out, and the data is zeroes. In 16 bytes only.
    pub no_data: bool,
    /// WRPROTECT, 3 bits; 0 for none.
    pub protect: u8,
    /// GROUP NUMBER, 6 bits; 0 for none.
    pub group: u8,
}

impl WriteSame {
    /// The command in 16 bytes: one block of data goes out and is written to each block.
    pub const fn new(range: BlockRange) -> WriteSame {
        let form = Form::Sixteen;
        WriteSame { form, range, unmap: false, anchor: false, no_data: false, protect: 0, group: 0 }
    }

    /// Blocks of data that go to the target: one or none.
    pub fn data_blocks(&self) -> BlockCount {
        if self.no_data { BlockCount::ZERO } else { BlockCount(1) }
    }

    /// The command descriptor block for blocks of `block` bytes.
    pub fn cdb(&self, block: BlockLen) -> Result<Cdb, BuildError> {
        let fit = Fit { what: CODES.what };
        fit.unprotected(self.protect)?;
        if self.no_data && self.form != Form::Sixteen {
            return Err(BuildError::NoSuchForm { what: CODES.what, option: "NDOB" });
        }
        let data = fit.data(self.data_blocks(), block)?;
        let flags = flag(self.anchor, 4) | flag(self.unmap, 3) | flag(self.no_data, 0);
        let skeleton = Skeleton { flags, range: self.range, group: self.group };
        skeleton.write(&CODES, self.form, Transfer::output(data))
    }

    pub(super) fn parse(cdb: &[u8]) -> Result<WriteSame, CdbError> {
        let form = CODES.form(cdb)?;
        let Skeleton { flags, range, group } = Skeleton::read(form, cdb)?;
        // Bit 0 of the 10-byte form was RELADR and is obsolete: SBC-3 has no NDOB there.
        let no_data = form == Form::Sixteen && bit(flags, 0);
        let (unmap, anchor) = (bit(flags, 3), bit(flags, 4));
        Ok(WriteSame { form, range, unmap, anchor, no_data, protect: flags >> 5, group })
    }
}
