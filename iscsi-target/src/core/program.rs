//! What a command on blocks does with the device: one request after the other, each following from how the one before
//! it ended.
//!
//! ```text
//!   Read ─► end       Write ─► end       Swap: read ─► compare ─► write ─► end       Or: read ─► write ─► end
//!   WriteVerify: write ─► read ─► end     Verify: read ... ─► end     Same, Unmap: piece by piece ─► (flush) ─► end
//! ```
//! Whoever runs it may stop between two requests, when the command was aborted. Buffers move in and out; nothing is
//! copied but the blocks of COMPARE AND WRITE, and patterns.

#[cfg(test)]
mod tests;
mod trouble;

use std::collections::VecDeque;

use block::device::Op;
use block::{AlignedBuf, ByteLen, ByteOffset, Extent, IoErrorKind};
use scsi::lba_status::{BlockState, LbaStatus};
use scsi::units::{BlockCount, BlockRange};
use scsi::unmap::UnmapList;
use scsi::{AdditionalCode, Lba, ListError, Sense, SenseKey};

use super::unit::Outcome;
use super::unit::media::{Check, Kind, MAX_UNMAP_RANGES, Media};
use trouble::failed;

/// Bytes that a long command reads or writes at once.
const PIECE: u64 = 1 << 20;

/// What is to be done next.
#[derive(Debug)]
pub(crate) enum Ask {
    /// A request of the device.
    Io { op: Op, at: ByteOffset, len: ByteLen, buf: Option<AlignedBuf> },
    /// Where its data lie; a device that cannot tell has them everywhere.
    Extents { at: ByteOffset, len: ByteLen, most: usize },
    /// The end, with what was read.
    End(Outcome, Option<AlignedBuf>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Its one request, or the next of its pieces.
    Going,
    /// What was written is read back.
    ReadBack,
    /// Swap and Or: what is there is being read.
    Looking,
    /// The last request is under way.
    Last,
}

/// A command under way.
#[derive(Debug)]
pub(crate) struct Program {
    media: Media,
    stage: Stage,
    /// The initiator's data, as long as they are needed.
    data: Option<AlignedBuf>,
    /// Runs of blocks that are still to be done, and the block where the present request begins.
    left: VecDeque<(u64, u64)>,
    here: u64,
    /// What is being discarded, for a second try.
    tried: Option<(u64, u64)>,
    /// A discard was refused: zeroes are written instead.
    zero: bool,
}

fn good() -> Ask {
    Ask::End(Outcome::GOOD, None)
}

fn miscompare(offset: Option<usize>) -> Ask {
    let sense = Sense::new(SenseKey::Miscompare, AdditionalCode::MISCOMPARE);
    let information = offset.and_then(|at| u64::try_from(at).ok());
    Ask::End(Outcome::sense(Sense { information, ..sense }), None)
}

/// The first byte in which two runs differ.
fn difference(a: &[u8], b: &[u8]) -> Option<usize> {
    if a == b { None } else { a.iter().zip(b).position(|(a, b)| a != b).or(Some(a.len().min(b.len()))) }
}

impl Program {
    /// Begins, with the initiator's data: as many bytes as came, which may be fewer than the command has.
    pub(crate) fn begin(media: Media, data: Option<AlignedBuf>) -> (Program, Ask) {
        let got = data.as_ref().map_or(0, |d| d.len() as u64);
        let here = media.lba;
        let mut program =
            Program { media, stage: Stage::Going, data, left: VecDeque::new(), here, tried: None, zero: false };
        let ask = match media.kind {
            Kind::Write | Kind::WriteVerify(_) if got < media.data_out => program.short_write(got),
            _ if got < media.data_out && media.kind == Kind::Unmap => list_error(ListError::Length),
            // The initiator sends less than the command needs: there is nothing that can be compared or merged.
            _ if got < media.data_out => {
                Ask::End(Outcome::check(SenseKey::IllegalRequest, AdditionalCode::INVALID_FIELD_IN_CDB), None)
            }
            _ => program.first(),
        };
        (program, ask)
    }

    /// What came is written, whole blocks of it (RFC 7143 11.4.5.2: the rest is a residual).
    fn short_write(&mut self, got: u64) -> Ask {
        self.media.blocks = got / u64::from(self.media.block);
        let whole = self.media.blocks * u64::from(self.media.block);
        if let (Some(data), Ok(whole)) = (&mut self.data, usize::try_from(whole)) {
            data.truncate(whole);
        }
        self.first()
    }

    fn first(&mut self) -> Ask {
        let Media { lba, blocks, .. } = self.media;
        if blocks == 0 && self.media.kind != Kind::Flush {
            return good();
        }
        match self.media.kind {
            Kind::Read => self.read(lba, blocks, Stage::Last),
            Kind::Write | Kind::WriteVerify(_) => self.write_data(),
            Kind::Swap | Kind::Or => self.read(lba, blocks, Stage::Looking),
            Kind::Verify(_) | Kind::Same { .. } => {
                self.left.push_back((lba, blocks));
                self.next_piece()
            }
            Kind::Unmap => self.unmap(),
            Kind::Flush => {
                self.stage = Stage::Last;
                Ask::Io { op: Op::Flush, at: ByteOffset::ZERO, len: ByteLen::ZERO, buf: None }
            }
            Kind::PreFetch => good(),
            Kind::Status(most) => {
                let rest = ByteLen(blocks * u64::from(self.media.block));
                Ask::Extents { at: self.at(lba), len: rest, most }
            }
        }
    }

    /// The request ended like this; its buffer comes back.
    pub(crate) fn next(&mut self, result: Result<(), IoErrorKind>, buf: Option<AlignedBuf>) -> Ask {
        if let Err(kind) = result {
            return self.trouble(kind);
        }
        match (self.media.kind, self.stage) {
            (Kind::Read, _) => Ask::End(Outcome::GOOD, buf),
            (Kind::WriteVerify(bytes), Stage::Going) => {
                self.data = buf.filter(|_| bytes);
                self.read(self.media.lba, self.media.blocks, Stage::ReadBack)
            }
            (Kind::WriteVerify(_), Stage::ReadBack) => {
                let found = buf.as_deref().unwrap_or_default();
                let differs = self.data.as_deref().and_then(|data| difference(data, found));
                if differs.is_some() { miscompare(None) } else { good() }
            }
            (Kind::Swap, Stage::Looking) => self.swap(buf.as_deref().unwrap_or_default()),
            (Kind::Or, Stage::Looking) => self.merge(buf.as_deref().unwrap_or_default()),
            (Kind::Verify(check), Stage::Going) => {
                if self.verified(check, buf.as_deref().unwrap_or_default()) {
                    self.next_piece()
                } else {
                    miscompare(None)
                }
            }
            (Kind::Same { .. } | Kind::Unmap, Stage::Going) => self.next_piece(),
            _ => good(),
        }
    }

    /// Where the device's data lie; none if it cannot tell.
    pub(crate) fn extents(&mut self, found: Option<Vec<Extent>>) -> Ask {
        let (block, mut lba, end) = (u64::from(self.media.block), self.media.lba, self.media.lba + self.media.blocks);
        let mut extents = Vec::new();
        for extent in found.unwrap_or_default() {
            // A run that ends within a block, which a device of smaller blocks may have, is told as mapped to its end.
            let blocks = extent.len.0.div_ceil(block).min(end - lba).min(u64::from(u32::MAX));
            let hole = extent.hole && extent.len.0.is_multiple_of(block);
            let state = if hole { BlockState::Deallocated } else { BlockState::Mapped };
            if blocks > 0 {
                extents.push((BlockRange::new(Lba(lba), BlockCount(blocks)), state));
            }
            lba += blocks;
        }
        if extents.is_empty() {
            let all = BlockCount(self.media.blocks.min(u64::from(u32::MAX)));
            extents.push((BlockRange::new(Lba(self.media.lba), all), BlockState::Mapped));
        }
        Ask::End(Outcome::data(LbaStatus { extents }.to_bytes()), None)
    }

    fn at(&self, lba: u64) -> ByteOffset {
        ByteOffset(lba * u64::from(self.media.block))
    }

    fn bytes(&self, blocks: u64) -> ByteLen {
        ByteLen(blocks * u64::from(self.media.block))
    }

    fn read(&mut self, lba: u64, blocks: u64, stage: Stage) -> Ask {
        (self.stage, self.here) = (stage, lba);
        let len = self.bytes(blocks);
        // Lossless: bounded by MAX_TRANSFER or PIECE.
        let buf = AlignedBuf::with_capacity(len.as_usize().unwrap_or(0));
        Ask::Io { op: Op::Read, at: self.at(lba), len, buf: Some(buf) }
    }

    fn write(&mut self, lba: u64, buf: AlignedBuf) -> Ask {
        self.here = lba;
        Ask::Io { op: Op::Write { fua: self.media.fua }, at: self.at(lba), len: ByteLen::of(&buf), buf: Some(buf) }
    }

    fn write_data(&mut self) -> Ask {
        if self.media.kind == Kind::Write {
            self.stage = Stage::Last;
        } else {
            // Verified is what is on the medium.
            self.media.fua = true;
        }
        match self.data.take() {
            Some(mut data) => {
                data.truncate(self.bytes(self.media.blocks).as_usize().unwrap_or(0));
                self.write(self.media.lba, data)
            }
            None => good(),
        }
    }

    /// The second half of the data, if the first is what is there.
    fn swap(&mut self, found: &[u8]) -> Ask {
        let Some(data) = self.data.take() else { return good() };
        let (expected, new) = data.split_at(found.len().min(data.len()));
        if let Some(offset) = difference(expected, found) {
            return miscompare(Some(offset));
        }
        self.stage = Stage::Last;
        let new = AlignedBuf::from_slice(new.get(..found.len()).unwrap_or(new));
        self.write(self.media.lba, new)
    }

    fn merge(&mut self, found: &[u8]) -> Ask {
        let Some(mut data) = self.data.take() else { return good() };
        data.truncate(found.len());
        data.iter_mut().zip(found).for_each(|(to, there)| *to |= *there);
        self.stage = Stage::Last;
        self.write(self.media.lba, data)
    }

    /// Whether what was read from `here` on is what VERIFY wants.
    fn verified(&self, check: Check, found: &[u8]) -> bool {
        let block = self.media.block as usize;
        let data = self.data.as_deref().unwrap_or_default();
        match check {
            Check::Readable => true,
            Check::Data => {
                let from = usize::try_from(self.here - self.media.lba).unwrap_or(usize::MAX).saturating_mul(block);
                data.get(from..).and_then(|d| d.get(..found.len())) == Some(found)
            }
            Check::Same => data.get(..block).is_some_and(|one| found.chunks(block).all(|b| b == one)),
        }
    }

    fn unmap(&mut self) -> Ask {
        let data = self.data.take();
        let list = data.as_deref().unwrap_or_default();
        if list.is_empty() {
            return good();
        }
        let list = match UnmapList::parse(list) {
            Ok(list) => list.ranges,
            Err(e) => return list_error(e),
        };
        if list.len() > MAX_UNMAP_RANGES as usize {
            return list_error(ListError::TooMany { max: MAX_UNMAP_RANGES as usize });
        }
        if list.iter().any(|r| r.end().is_none_or(|end| end.0 > self.media.blocks)) {
            let code = AdditionalCode::LBA_OUT_OF_RANGE;
            return Ask::End(Outcome::check(SenseKey::IllegalRequest, code), None);
        }
        self.left = list.iter().map(|r| (r.lba.0, r.blocks.0)).filter(|(_, blocks)| *blocks > 0).collect();
        self.next_piece()
    }

    /// The next piece of what is left, or the end.
    fn next_piece(&mut self) -> Ask {
        let Some((lba, blocks)) = self.left.pop_front() else { return self.all_done() };
        let piece = (PIECE / u64::from(self.media.block)).max(1).min(blocks);
        let whole = match self.media.kind {
            Kind::Unmap => true,
            Kind::Same { .. } => self.is_zero(),
            _ => false,
        };
        let now = if whole { blocks } else { piece };
        if now < blocks {
            self.left.push_front((lba + now, blocks - now));
        }
        self.here = lba;
        let discards = match self.media.kind {
            Kind::Unmap => true,
            Kind::Same { unmap, .. } => unmap,
            _ => return self.read(lba, now, Stage::Going),
        };
        if whole {
            let op = if discards && !self.zero { Op::Discard } else { Op::WriteZeroes };
            self.tried = Some((lba, blocks));
            return Ask::Io { op, at: self.at(lba), len: self.bytes(now), buf: None };
        }
        let data = self.data.as_deref().unwrap_or_default();
        let mut buf = AlignedBuf::with_capacity(self.bytes(now).as_usize().unwrap_or(0));
        buf.chunks_mut(self.media.block as usize).for_each(|to| to.copy_from_slice(&data[..to.len()]));
        self.write(lba, buf)
    }

    /// Whether WRITE SAME writes zeroes.
    fn is_zero(&self) -> bool {
        matches!(self.media.kind, Kind::Same { no_data: true, .. })
            || self.data.as_deref().is_some_and(|d| d.iter().all(|b| *b == 0))
    }

    /// Discards and zeroes know no FUA: with the cache off a flush makes them stable.
    fn all_done(&mut self) -> Ask {
        if self.media.fua && matches!(self.media.kind, Kind::Same { .. } | Kind::Unmap) {
            self.stage = Stage::Last;
            return Ask::Io { op: Op::Flush, at: ByteOffset::ZERO, len: ByteLen::ZERO, buf: None };
        }
        good()
    }

    fn trouble(&mut self, kind: IoErrorKind) -> Ask {
        let discarding = !self.zero && matches!(self.media.kind, Kind::Unmap | Kind::Same { unmap: true, .. });
        if kind == IoErrorKind::NotSupported && discarding && self.stage == Stage::Going {
            self.zero = true;
            self.left.extend(self.tried.take());
            self.left.rotate_right(1);
            return self.next_piece();
        }
        let writes = self.media.kind.writes() && self.stage != Stage::Looking && self.stage != Stage::ReadBack;
        Ask::End(failed(kind, writes, self.here), None)
    }
}

fn list_error(error: ListError) -> Ask {
    Ask::End(Outcome::sense(error.sense()), None)
}
