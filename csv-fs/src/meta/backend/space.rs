//! Where the store's bytes lie on the disk.

use block::units::{ByteLen, ByteOffset};

use crate::format::BlockSpan;
use crate::meta::error::{Fatal, Result};
use crate::types::FS_BLOCK;

/// The metadata ranges, with the store offset at which each begins.
pub(super) struct Ranges(Vec<(u64, BlockSpan)>);

impl Ranges {
    pub(super) fn new(spans: &[BlockSpan]) -> Ranges {
        let mut start = 0;
        let with_start = |span: &BlockSpan| {
            let at = start;
            start += span.len * FS_BLOCK;
            (at, *span)
        };
        Ranges(spans.iter().map(with_start).collect())
    }

    /// The device ranges of `[offset, offset + len)` of the store, in order.
    pub(super) fn pieces(&self, offset: u64, len: u64) -> Result<Vec<(ByteOffset, ByteLen)>> {
        let mut pieces = Vec::new();
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let index = self.0.partition_point(|(start, _)| *start <= at);
            let (start, span) = index.checked_sub(1).map(|i| self.0[i]).ok_or(OUTSIDE)?;
            let span_end = start + span.len * FS_BLOCK;
            if at >= span_end {
                return Err(OUTSIDE.into());
            }
            let n = end.min(span_end) - at;
            pieces.push((ByteOffset(span.start * FS_BLOCK + (at - start)), ByteLen(n)));
            at += n;
        }
        Ok(pieces)
    }
}

const OUTSIDE: Fatal = Fatal::Damaged("the database reaches beyond its ranges");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_found_across_ranges_and_never_outside() {
        let ranges = Ranges::new(&[BlockSpan { start: 100, len: 2 }, BlockSpan { start: 10, len: 1 }]);
        let pieces = ranges.pieces(4096, 8192).expect("inside");
        assert_eq!(pieces, [(ByteOffset(101 * 4096), ByteLen(4096)), (ByteOffset(10 * 4096), ByteLen(4096))]);
        assert!(ranges.pieces(8192, 4097).is_err());
        assert!(Ranges::new(&[]).pieces(0, 1).is_err());
    }
}
