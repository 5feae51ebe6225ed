//! Commands on blocks: their fields judged (SBC-3 5), and what they ask of the device.

use scsi::cdb::{Command, op};
use scsi::units::BlockRange;
use scsi::{AdditionalCode, OpCode, SenseKey};

use super::mode::Mode;
use super::tasks::Span;
use super::{Outcome, Shape};

/// Bytes that one command moves, or writes alike, at most. It is told (MAXIMUM TRANSFER LENGTH, MAXIMUM WRITE SAME LENGTH);
/// more is an invalid field. It bounds what a session makes the target hold, and for how long.
pub(crate) const MAX_TRANSFER: u32 = 8 << 20;
/// Blocks of one COMPARE AND WRITE.
pub(crate) const MAX_SWAP: u8 = 255;
/// Runs of one UNMAP.
pub(crate) const MAX_UNMAP_RANGES: u32 = 256;
/// Blocks of one UNMAP: all that its field can say.
pub(crate) const MAX_UNMAP_BLOCKS: u32 = u32::MAX;

/// What a command does with its blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Read,
    Write,
    /// WRITE AND VERIFY; true: byte by byte.
    WriteVerify(bool),
    /// VERIFY.
    Verify(Check),
    /// COMPARE AND WRITE.
    Swap,
    /// ORWRITE.
    Or,
    /// WRITE SAME.
    Same {
        unmap: bool,
        no_data: bool,
    },
    Unmap,
    /// SYNCHRONIZE CACHE. The status waits also with IMMED, which allows and does not ask to answer sooner.
    Flush,
    PreFetch,
    /// GET LBA STATUS, of at most so many runs.
    Status(usize),
}

/// What VERIFY compares with (BYTCHK).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Check {
    /// Nothing: the blocks can be read.
    Readable,
    /// As many blocks of data.
    Data,
    /// One block, with each.
    Same,
}

impl Kind {
    pub(crate) fn writes(self) -> bool {
        !matches!(self, Kind::Read | Kind::Verify(_) | Kind::PreFetch | Kind::Status(_))
    }

    /// Whether the initiator must announce exactly the data that the command has. Of other writes what comes is written; of
    /// these a part has no meaning, and more than there should be means that the two ends differ about which blocks.
    pub(super) fn is_exact(self) -> bool {
        matches!(self, Kind::Swap | Kind::Same { .. })
    }

    /// Whether it must be alone on its blocks: it reads before it writes.
    fn is_exclusive(self) -> bool {
        matches!(self, Kind::Swap | Kind::Or)
    }
}

/// A command on blocks. Its range lies within the unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Media {
    pub(crate) kind: Kind,
    pub(crate) lba: u64,
    pub(crate) blocks: u64,
    pub(crate) fua: bool,
    /// Bytes that the initiator sends.
    pub(crate) data_out: u64,
    /// Bytes of a block.
    pub(crate) block: u32,
}

/// The range, the kind, FUA, blocks of data from the initiator, and the three bits that ask for protection information.
struct Asked {
    range: BlockRange,
    kind: Kind,
    fua: bool,
    data: u64,
    protect: u8,
}

fn illegal(code: AdditionalCode) -> Outcome {
    Outcome::check(SenseKey::IllegalRequest, code)
}

impl Media {
    /// The command as one on blocks; none if it is none.
    pub(super) fn of(command: &Command, cdb: &[u8], shape: &Shape, mode: &Mode) -> Result<Option<Media>, Outcome> {
        let block = shape.block.get();
        if let Command::Unmap(unmap) = command {
            writable(shape, mode)?;
            if unmap.anchor {
                return Err(Outcome::field(1, Some(0)));
            }
            if !shape.thin {
                return Err(illegal(AdditionalCode::INVALID_OPERATION_CODE));
            }
            let data_out = u64::from(unmap.list.0);
            return Ok(Some(Media { kind: Kind::Unmap, lba: 0, blocks: shape.blocks, fua: false, data_out, block }));
        }
        let Some(asked) = asked(command)? else { return Ok(None) };
        if asked.protect != 0 {
            // There is no protection information: not formatted with any (SBC-3 4.22.1).
            return Err(Outcome::field(1, Some(7)));
        }
        let mut media = Media {
            kind: asked.kind,
            lba: asked.range.lba.0,
            blocks: asked.range.blocks.0,
            fua: asked.fua,
            data_out: 0,
            block,
        };
        media.fit(shape, cdb)?;
        if media.kind.writes() && !matches!(media.kind, Kind::Flush) {
            writable(shape, mode)?;
        }
        media.fua |= media.kind.writes() && !mode.write_cache;
        media.data_out = asked.data * u64::from(block);
        Ok(Some(media))
    }

    /// Its range within the unit, and its transfer within the bound.
    fn fit(&mut self, shape: &Shape, cdb: &[u8]) -> Result<(), Outcome> {
        let to_the_end = matches!(self.kind, Kind::Same { .. } | Kind::Flush | Kind::PreFetch) && self.blocks == 0;
        if to_the_end {
            self.blocks = shape.blocks.saturating_sub(self.lba);
        }
        let end = self.lba.checked_add(self.blocks);
        if end.is_none_or(|end| end > shape.blocks) || (to_the_end && self.lba >= shape.blocks) {
            return Err(illegal(AdditionalCode::LBA_OUT_OF_RANGE));
        }
        if matches!(self.kind, Kind::Status(_)) {
            // What is asked is a block that there must be; told is what follows it, too.
            self.blocks = shape.blocks - self.lba;
        }
        let moves = matches!(
            self.kind,
            Kind::Read | Kind::Write | Kind::WriteVerify(_) | Kind::Verify(Check::Data) | Kind::Swap | Kind::Or
        );
        if moves && self.blocks * u64::from(self.block) > u64::from(MAX_TRANSFER) {
            return Err(Outcome::field(count_field(cdb), None));
        }
        match self.kind {
            // MAXIMUM WRITE SAME LENGTH.
            Kind::Same { .. } if self.blocks * u64::from(self.block) > u64::from(MAX_TRANSFER) => {
                Err(Outcome::field(count_field(cdb), None))
            }
            Kind::Same { unmap: true, .. } if !shape.thin => Err(Outcome::field(1, Some(3))),
            _ => Ok(()),
        }
    }

    /// What it covers.
    pub(super) fn span(&self) -> Span {
        match self.kind {
            Kind::Flush | Kind::PreFetch | Kind::Status(_) => Span::NOTHING,
            kind => Span { from: self.lba, to: self.lba + self.blocks, exclusive: kind.is_exclusive() },
        }
    }
}

/// The byte of a command descriptor block where its count of blocks begins.
fn count_field(cdb: &[u8]) -> u16 {
    match cdb.first().map(|code| OpCode(*code)) {
        Some(op::COMPARE_AND_WRITE) => 13,
        Some(code) => match scsi::cdb::group_len(code) {
            Some(6) => 4,
            Some(10) => 7,
            Some(12) => 6,
            _ => 10,
        },
        None => 0,
    }
}

fn writable(shape: &Shape, mode: &Mode) -> Result<(), Outcome> {
    let code = match (shape.read_only, mode.write_protect) {
        (true, _) => AdditionalCode::WRITE_PROTECTED,
        (_, true) => AdditionalCode::SOFTWARE_WRITE_PROTECTED,
        _ => return Ok(()),
    };
    Err(Outcome::check(SenseKey::DataProtect, code))
}

fn asked(command: &Command) -> Result<Option<Asked>, Outcome> {
    let plain = |range: BlockRange, kind, data| Asked { range, kind, fua: false, data, protect: 0 };
    Ok(Some(match command {
        Command::Read(c) => {
            Asked { fua: c.caching.force_unit_access, protect: c.protect, ..plain(c.range, Kind::Read, 0) }
        }
        Command::Write(c) => Asked {
            fua: c.caching.force_unit_access,
            protect: c.protect,
            ..plain(c.range, Kind::Write, c.range.blocks.0)
        },
        Command::WriteAndVerify(c) => {
            let kind = match c.byte_check {
                0 => Kind::WriteVerify(false),
                1 => Kind::WriteVerify(true),
                _ => return Err(Outcome::field(1, Some(2))),
            };
            Asked { protect: c.protect, ..plain(c.range, kind, c.range.blocks.0) }
        }
        Command::Verify(c) => {
            let (check, data) = match c.byte_check {
                0 => (Check::Readable, 0),
                1 => (Check::Data, c.range.blocks.0),
                3 => (Check::Same, u64::from(c.range.blocks.0 > 0)),
                _ => return Err(Outcome::field(1, Some(2))),
            };
            Asked { protect: c.protect, ..plain(c.range, Kind::Verify(check), data) }
        }
        Command::CompareAndWrite(c) => {
            let range = BlockRange::new(c.lba, scsi::BlockCount(u64::from(c.blocks)));
            let fua = c.caching.force_unit_access;
            Asked { fua, protect: c.protect, ..plain(range, Kind::Swap, c.data_blocks().0) }
        }
        Command::OrWrite(c) => {
            Asked { fua: c.caching.force_unit_access, protect: c.protect, ..plain(c.range, Kind::Or, c.range.blocks.0) }
        }
        Command::WriteSame(c) => {
            if c.anchor {
                return Err(Outcome::field(1, Some(4)));
            }
            let kind = Kind::Same { unmap: c.unmap, no_data: c.no_data };
            Asked { protect: c.protect, ..plain(c.range, kind, c.data_blocks().0) }
        }
        Command::SynchronizeCache(c) => plain(c.range, Kind::Flush, 0),
        Command::PreFetch(c) => plain(c.range, Kind::PreFetch, 0),
        Command::GetLbaStatus(c) => {
            let range = BlockRange::new(c.from, scsi::BlockCount(1));
            // 8 bytes in front, 16 for each run.
            let most = usize::try_from(c.alloc.0.saturating_sub(8) / 16).unwrap_or(1);
            plain(range, Kind::Status(most.clamp(1, 256)), 0)
        }
        _ => return Ok(None),
    }))
}
