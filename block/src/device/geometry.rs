//! The shape of a device, and the one check of requests against it.

use super::{Io, Op};
use crate::error::{IoError, IoErrorKind};
use crate::units::{BlockSize, ByteLen, ByteOffset};

/// The longest single request, 64 MiB: far above what any layer sends, and small enough for
/// every 32-bit length on the way down. Larger ones are refused as out of range.
pub const MAX_TRANSFER: ByteLen = ByteLen(64 << 20);

/// Size, block sizes and abilities of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Unit of position and length, and of atomicity.
    pub logical_block: BlockSize,
    /// Unit that is written without reading first.
    pub physical_block: BlockSize,
    /// Size, a multiple of the logical block.
    pub len: ByteLen,
    /// Address alignment that memory of reads and writes must have, in bytes; 1 if any will do.
    pub memory_align: usize,
    /// True if writes, discards and write-zeroes are refused.
    pub read_only: bool,
    /// True as long as discards are not known to be refused.
    pub discard: bool,
}

impl Geometry {
    /// Refuses what no device of this shape can execute: misaligned, out of range, a change of a
    /// read-only device, a buffer that is missing or of another length.
    pub fn check(&self, io: &Io) -> Result<(), IoError> {
        let refuse = |kind| Err(IoError::new(kind, io.op, io.at, io.len));
        if self.read_only && io.op.changes() {
            return refuse(IoErrorKind::ReadOnly);
        }
        if io.op == Op::Flush {
            return Ok(());
        }
        let block = self.logical_block.bytes();
        if !io.at.is_aligned_to(block) || !io.len.is_aligned_to(block) {
            return refuse(IoErrorKind::Misaligned);
        }
        if !self.contains(io.at, io.len) {
            return refuse(IoErrorKind::OutOfRange);
        }
        if !io.op.moves_data() {
            return Ok(());
        }
        if io.len > MAX_TRANSFER {
            return refuse(IoErrorKind::OutOfRange);
        }
        match &io.buf {
            Some(buf) if ByteLen::of(buf) == io.len && buf.is_aligned_to(self.memory_align) => Ok(()),
            _ => refuse(IoErrorKind::Misaligned),
        }
    }

    /// True if the range lies within the device.
    pub fn contains(&self, at: ByteOffset, len: ByteLen) -> bool {
        at.checked_add(len).is_some_and(|end| end.0 <= self.len.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::AlignedBuf;
    use crate::device::Completion;

    const SHAPE: Geometry = Geometry {
        logical_block: BlockSize::B512,
        physical_block: BlockSize::B4096,
        len: ByteLen(1 << 20),
        memory_align: 512,
        read_only: false,
        discard: true,
    };

    fn check(shape: Geometry, op: Op, at: u64, len: u64, buf: Option<AlignedBuf>) -> Option<IoErrorKind> {
        let io = Io { op, at: ByteOffset(at), len: ByteLen(len), buf, done: Completion::ignore() };
        let verdict = shape.check(&io);
        io.complete(Ok(()));
        verdict.err().map(|e| e.kind)
    }

    fn mem(len: usize) -> Option<AlignedBuf> {
        Some(AlignedBuf::zeroed(len))
    }

    #[test]
    fn misaligned_position_length_and_memory_are_refused() {
        let write = Op::Write { fua: false };
        assert_eq!(check(SHAPE, write, 512, 512, mem(512)), None);
        for (at, len) in [(1, 512), (512, 511), (0, 1)] {
            assert_eq!(check(SHAPE, write, at, len, mem(len as usize)), Some(IoErrorKind::Misaligned));
        }
        let mut odd = AlignedBuf::zeroed(1024);
        odd.advance(256);
        odd.truncate(512);
        assert_eq!(check(SHAPE, Op::Read, 0, 512, Some(odd)), Some(IoErrorKind::Misaligned));
        assert_eq!(check(SHAPE, Op::Read, 0, 512, mem(1024)), Some(IoErrorKind::Misaligned));
        assert_eq!(check(SHAPE, Op::Read, 0, 512, None), Some(IoErrorKind::Misaligned));
    }

    #[test]
    fn ranges_outside_the_device_are_refused_also_where_the_sum_wraps() {
        assert_eq!(check(SHAPE, Op::Read, (1 << 20) - 512, 512, mem(512)), None);
        for at in [1 << 20, !511] {
            assert_eq!(check(SHAPE, Op::Read, at, 512, mem(512)), Some(IoErrorKind::OutOfRange));
        }
        assert_eq!(check(SHAPE, Op::Discard, 0, (1 << 20) + 512, None), Some(IoErrorKind::OutOfRange));
        let large = Geometry { len: ByteLen(1 << 40), ..SHAPE };
        assert_eq!(check(large, Op::Discard, 0, 1 << 40, None), None);
        let too_long = MAX_TRANSFER.0 + 512;
        assert_eq!(check(large, Op::Read, 0, too_long, None), Some(IoErrorKind::OutOfRange));
    }

    #[test]
    fn read_only_device_refuses_changes_and_takes_reads_and_flushes() {
        let shape = Geometry { read_only: true, ..SHAPE };
        for op in [Op::Write { fua: true }, Op::Discard, Op::WriteZeroes] {
            assert_eq!(check(shape, op, 0, 512, mem(512)), Some(IoErrorKind::ReadOnly));
        }
        assert_eq!(check(shape, Op::Read, 0, 512, mem(512)), None);
        assert_eq!(check(shape, Op::Flush, 0, 0, None), None);
    }
}
