//! UNMAP parameter list (SBC-3 5.28.2): the runs of blocks that are not needed.

use zerocopy::IntoBytes;

use crate::cdb::{Cdb, Unmap};
use crate::error::{BuildError, ListError};
use crate::units::{BlockCount, BlockRange, Lba, ShortByteCount};
use crate::wire::{U16, U32, U64, len16, wire};

wire!(
    /// SBC-3 table 87.
    WireHead [8] { len: U16, ranges: U16, reserved: [u8; 4] }
);
wire!(
    /// SBC-3 table 88.
    WireRange [16] { lba: U64, blocks: U32, reserved: [u8; 4] }
);

/// Runs of blocks to unmap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnmapList {
    /// The runs.
    pub ranges: Vec<BlockRange>,
}

const HEAD: usize = size_of::<WireHead>();
const RANGE: usize = size_of::<WireRange>();

impl UnmapList {
    /// The most runs that fit one list; the unit's own limit is in page B0h.
    pub const MAX: usize = (65_535 - HEAD) / RANGE;

    /// The command and the parameter list that goes out with it.
    pub fn command(&self) -> Result<(Cdb, Vec<u8>), BuildError> {
        const WHAT: &str = "UNMAP";
        let wrong = |field, value, max| BuildError::DoesNotFit { what: WHAT, field, value, max };
        let len = HEAD + self.ranges.len() * RANGE;
        let too_many = || {
            let count = u64::try_from(self.ranges.len()).unwrap_or(u64::MAX);
            wrong("UNMAP BLOCK DESCRIPTORS", count, u64::try_from(UnmapList::MAX).unwrap_or(0))
        };
        let len = u16::try_from(len).map_err(|_| too_many())?;
        let head = WireHead { len: U16::new(len - 2), ranges: U16::new(len - 8), reserved: [0; 4] };
        let mut list = head.as_bytes().to_vec();
        for range in &self.ranges {
            let too_long = |_| wrong("NUMBER OF LOGICAL BLOCKS", range.blocks.0, u64::from(u32::MAX));
            let blocks = U32::new(u32::try_from(range.blocks.0).map_err(too_long)?);
            list.extend_from_slice(WireRange { lba: U64::new(range.lba.0), blocks, reserved: [0; 4] }.as_bytes());
        }
        Ok((Unmap { anchor: false, group: 0, list: ShortByteCount(len) }.cdb(), list))
    }

    /// A target reads the list. SBC-3 5.28.1: an empty one is no error; a run that is not whole is left out.
    pub fn parse(list: &[u8]) -> Result<UnmapList, ListError> {
        if list.is_empty() {
            return Ok(UnmapList::default());
        }
        let (head, rest) = zerocopy::Ref::<_, WireHead>::from_prefix(list).map_err(|_| ListError::Length)?;
        let stated = len16(head.ranges);
        // UNMAP DATA LENGTH counts from byte 2, the descriptors from byte 8.
        if stated > rest.len() || stated + 6 > len16(head.len) {
            return Err(ListError::Length);
        }
        let (ranges, _) = rest[..stated].as_chunks::<RANGE>();
        let ranges = ranges.iter().map(|range| {
            let wire: WireRange = zerocopy::transmute!(*range);
            BlockRange::new(Lba(wire.lba.get()), BlockCount(u64::from(wire.blocks.get())))
        });
        Ok(UnmapList { ranges: ranges.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cdb::Transfer;
    use crate::units::ByteCount;

    /// SBC-3 tables 87 and 88: eight blocks at 12345678h.
    const LIST: [u8; 24] = [0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 8, 0, 0, 0, 0];

    #[test]
    fn runs_are_written_and_read() {
        let unmap = UnmapList { ranges: vec![BlockRange::new(Lba(0x1234_5678), BlockCount(8))] };
        let (cdb, list) = unmap.command().expect("it fits");
        assert_eq!(cdb.head()[..10], [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]);
        assert_eq!(cdb.transfer(), Transfer::Out(ByteCount(24)));
        assert_eq!(list, LIST);
        assert_eq!(UnmapList::parse(&list), Ok(unmap));
    }

    #[test]
    fn wrong_lengths_are_refused_and_a_part_of_a_run_is_left_out() {
        assert_eq!(UnmapList::parse(&[]), Ok(UnmapList::default()));
        assert_eq!(UnmapList::parse(&LIST[..7]), Err(ListError::Length));
        assert_eq!(UnmapList::parse(&LIST[..23]), Err(ListError::Length));
        let mut list = LIST;
        list[3] = 15;
        assert_eq!(UnmapList::parse(&list), Ok(UnmapList::default()));
        list[1] = 20;
        assert_eq!(UnmapList::parse(&list), Err(ListError::Length));
    }

    #[test]
    fn what_does_not_fit_is_never_cut() {
        let many = UnmapList { ranges: vec![BlockRange::default(); UnmapList::MAX + 1] };
        assert!(matches!(many.command(), Err(BuildError::DoesNotFit { .. })));
        let long = UnmapList { ranges: vec![BlockRange::new(Lba(0), BlockCount(1 << 32))] };
        assert!(matches!(long.command(), Err(BuildError::DoesNotFit { .. })));
        let full = UnmapList { ranges: vec![BlockRange::default(); UnmapList::MAX] };
        assert!(full.command().is_ok());
    }
}
