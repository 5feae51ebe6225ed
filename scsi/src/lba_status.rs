//! GET LBA STATUS data (SBC-3 5.4.2): which blocks are mapped.

use zerocopy::IntoBytes;

use crate::error::ParseError;
use crate::units::{BlockCount, BlockRange, Lba};
use crate::wire::{U32, U64, head, len32, wire};

wire!(
    /// SBC-3 table 38.
    WireHead [8] { len: U32, reserved: [u8; 4] }
);
wire!(
    /// SBC-3 table 39.
    WireExtent [16] { lba: U64, blocks: U32, state: u8, reserved: [u8; 3] }
);

/// PROVISIONING STATUS of a run of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockState {
    /// 0h: mapped, or not known.
    Mapped,
    /// 1h: without space.
    Deallocated,
    /// 2h: with space, without data.
    Anchored,
    /// A reserved value.
    Unknown(u8),
}

/// Runs of blocks with their state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LbaStatus {
    /// The runs, ascending; the first contains the block that was asked for.
    pub extents: Vec<(BlockRange, BlockState)>,
}

const WHAT: &str = "GET LBA STATUS data";

impl LbaStatus {
    /// The most runs that are read of one answer; the next one goes on.
    pub const MAX: usize = 4096;

    /// Reads the runs that came. An answer that was cut off is a shorter list: the caller goes on from its end.
    pub fn parse(bytes: &[u8]) -> Result<LbaStatus, ParseError> {
        let (wire, rest) = head::<WireHead>(WHAT, bytes)?;
        // PARAMETER DATA LENGTH counts from byte 4.
        let stated = len32(wire.len).saturating_sub(4);
        let list = rest.get(..stated).unwrap_or(rest);
        let (runs, _) = list.as_chunks::<16>();
        if runs.is_empty() {
            return Err(ParseError::Truncated { what: WHAT, need: 24, have: bytes.len() });
        }
        let extents = runs.iter().take(LbaStatus::MAX).map(|run| {
            let wire: WireExtent = zerocopy::transmute!(*run);
            let blocks = BlockCount(u64::from(wire.blocks.get()));
            (BlockRange::new(Lba(wire.lba.get()), blocks), BlockState::from_bits(wire.state & 0xf))
        });
        Ok(LbaStatus { extents: extents.collect() })
    }

    /// The whole answer; a target cuts it to the allocation length. A run longer than 2^32-1 blocks is told as that.
    pub fn to_bytes(&self) -> Vec<u8> {
        let len = self.extents.len() * size_of::<WireExtent>() + 4;
        let len = U32::new(u32::try_from(len).unwrap_or(u32::MAX));
        let mut bytes = WireHead { len, reserved: [0; 4] }.as_bytes().to_vec();
        for (range, state) in &self.extents {
            let wire = WireExtent {
                lba: U64::new(range.lba.0),
                blocks: U32::new(u32::try_from(range.blocks.0).unwrap_or(u32::MAX)),
                state: state.bits(),
                reserved: [0; 3],
            };
            bytes.extend_from_slice(wire.as_bytes());
        }
        bytes
    }
}

impl BlockState {
    fn from_bits(bits: u8) -> BlockState {
        match bits {
            0 => BlockState::Mapped,
            1 => BlockState::Deallocated,
            2 => BlockState::Anchored,
            other => BlockState::Unknown(other),
        }
    }

    fn bits(self) -> u8 {
        match self {
            BlockState::Mapped => 0,
            BlockState::Deallocated => 1,
            BlockState::Anchored => 2,
            BlockState::Unknown(other) => other & 0xf,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SBC-3 tables 38 and 39: blocks 0 to 7 mapped, 8 to 4095 deallocated.
    const BYTES: [u8; 40] = [
        0, 0, 0, 36, 0, 0, 0, 0, // header
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, //
        0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0x0f, 0xf8, 1, 0, 0, 0,
    ];

    fn status() -> LbaStatus {
        LbaStatus {
            extents: vec![
                (BlockRange::new(Lba(0), BlockCount(8)), BlockState::Mapped),
                (BlockRange::new(Lba(8), BlockCount(4088)), BlockState::Deallocated),
            ],
        }
    }

    #[test]
    fn runs_are_read_and_written() {
        assert_eq!(LbaStatus::parse(&BYTES), Ok(status()));
        assert_eq!(status().to_bytes(), BYTES);
    }

    #[test]
    fn a_cut_answer_is_a_shorter_list_and_none_is_an_error() {
        assert_eq!(LbaStatus::parse(&BYTES[..39]).map(|s| s.extents.len()), Ok(1));
        assert!(LbaStatus::parse(&BYTES[..23]).is_err());
    }
}
