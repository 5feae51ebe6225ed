//! READ CAPACITY data (SBC-3 5.15.2, 5.16.2): how large a unit is.

use zerocopy::IntoBytes;

use crate::error::ParseError;
use crate::units::{BlockCount, BlockLen, Lba};
use crate::wire::{U16, U32, U64, bit, flag, head, wire};

wire!(
    /// SBC-3 table 53.
    WireCapacity10 [8] { last: U32, block: U32 }
);
wire!(
    /// SBC-3 table 55.
    WireCapacity16 [32] {
        last: U64, block: U32, protection: u8, exponents: u8, provisioning: U16, reserved: [u8; 16],
    }
);

/// What READ CAPACITY (10) tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity10 {
    /// The size.
    Size {
        /// The last block.
        last: Lba,
        /// Its length.
        block: BlockLen,
    },
    /// FFFFFFFFh: the last address has more than 32 bits, or is just that; READ CAPACITY (16) tells.
    AskSixteen {
        /// Length of a block.
        block: BlockLen,
    },
}

/// What READ CAPACITY (16) tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// RETURNED LOGICAL BLOCK ADDRESS: the last block.
    pub last: Lba,
    /// LOGICAL BLOCK LENGTH IN BYTES.
    pub block: BlockLen,
    /// LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT: a physical block is 2^this logical ones; 0 is one or not told.
    pub physical_exponent: u8,
    /// LOWEST ALIGNED LOGICAL BLOCK ADDRESS: the first block that begins a physical one.
    pub lowest_aligned: Lba,
    /// LBPME: logical block provisioning; page B2h tells more.
    pub provisioning: bool,
    /// LBPRZ: unmapped blocks read as zeroes.
    pub reads_zeroes: bool,
    /// PROT_EN: the medium is formatted with protection information.
    pub protected: bool,
    /// P_TYPE, 3 bits.
    pub protection_type: u8,
}

impl Capacity10 {
    /// Reads the data.
    pub fn parse(bytes: &[u8]) -> Result<Capacity10, ParseError> {
        const WHAT: &str = "READ CAPACITY (10) data";
        let (wire, _) = head::<WireCapacity10>(WHAT, bytes)?;
        let block = block(WHAT, wire.block)?;
        Ok(match wire.last.get() {
            u32::MAX => Capacity10::AskSixteen { block },
            last => Capacity10::Size { last: Lba(u64::from(last)), block },
        })
    }

    /// The answer for a unit of a capacity.
    pub fn to_bytes(capacity: &Capacity) -> [u8; 8] {
        let last = U32::new(u32::try_from(capacity.last.0).unwrap_or(u32::MAX));
        let wire = WireCapacity10 { last, block: U32::new(capacity.block.get()) };
        let mut bytes = [0; 8];
        bytes.copy_from_slice(wire.as_bytes());
        bytes
    }
}

impl Capacity {
    /// A capacity without provisioning, protection or larger physical blocks.
    pub const fn new(last: Lba, block: BlockLen) -> Capacity {
        Capacity {
            last,
            block,
            physical_exponent: 0,
            lowest_aligned: Lba(0),
            provisioning: false,
            reads_zeroes: false,
            protected: false,
            protection_type: 0,
        }
    }

    /// How many blocks there are; `None` for 2^64 of them, which no field can hold.
    pub fn blocks(&self) -> Option<BlockCount> {
        self.last.0.checked_add(1).map(BlockCount)
    }

    /// Reads the data. Only the first 12 bytes are needed; fields that were cut off are as if zero, as in SBC-2.
    pub fn parse(bytes: &[u8]) -> Result<Capacity, ParseError> {
        const WHAT: &str = "READ CAPACITY (16) data";
        const NEEDED: usize = 12;
        if bytes.len() < NEEDED {
            return Err(ParseError::Truncated { what: WHAT, need: NEEDED, have: bytes.len() });
        }
        let mut full = [0; size_of::<WireCapacity16>()];
        full.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        let wire: WireCapacity16 = zerocopy::transmute!(full);
        if wire.last.get() == u64::MAX {
            return Err(ParseError::BadField { what: WHAT, field: "RETURNED LOGICAL BLOCK ADDRESS", value: u64::MAX });
        }
        let provisioning = wire.provisioning.get();
        Ok(Capacity {
            last: Lba(wire.last.get()),
            block: block(WHAT, wire.block)?,
            physical_exponent: wire.exponents & 0xf,
            lowest_aligned: Lba(u64::from(provisioning & 0x3fff)),
            provisioning: provisioning >> 15 == 1,
            reads_zeroes: provisioning >> 14 & 1 == 1,
            protected: bit(wire.protection, 0),
            protection_type: wire.protection >> 1 & 7,
        })
    }

    /// The data, 32 bytes; a target cuts it to the allocation length.
    pub fn to_bytes(&self) -> [u8; 32] {
        let aligned = u16::try_from(self.lowest_aligned.0).unwrap_or(0) & 0x3fff;
        let provisioning = u16::from(self.provisioning) << 15 | u16::from(self.reads_zeroes) << 14 | aligned;
        let wire = WireCapacity16 {
            last: U64::new(self.last.0),
            block: U32::new(self.block.get()),
            protection: (self.protection_type & 7) << 1 | flag(self.protected, 0),
            exponents: self.physical_exponent & 0xf,
            provisioning: U16::new(provisioning),
            reserved: [0; 16],
        };
        zerocopy::transmute!(wire)
    }
}

fn block(what: &'static str, len: U32) -> Result<BlockLen, ParseError> {
    BlockLen::new(len.get()).ok_or(ParseError::BadField { what, field: "LOGICAL BLOCK LENGTH IN BYTES", value: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SBC-3 table 55: 2 TiB of 512-byte blocks, 4096-byte physical blocks, thin, zeroes.
    const FULL: [u8; 32] = [
        0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0, 0x00, 0x03, 0xc0, 0x07, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0,
    ];

    fn two_tib() -> Capacity {
        Capacity {
            physical_exponent: 3,
            lowest_aligned: Lba(7),
            provisioning: true,
            reads_zeroes: true,
            ..Capacity::new(Lba(0xffff_ffff), BlockLen::B512)
        }
    }

    #[test]
    fn capacity_is_read_and_written() {
        assert_eq!(Capacity::parse(&FULL), Ok(two_tib()));
        assert_eq!(two_tib().to_bytes(), FULL);
        assert_eq!(two_tib().blocks(), Some(BlockCount(1 << 32)));
    }

    #[test]
    fn twelve_bytes_are_enough_and_eleven_are_not() {
        assert_eq!(Capacity::parse(&FULL[..12]), Ok(Capacity::new(Lba(0xffff_ffff), BlockLen::B512)));
        let cut = Capacity::parse(&FULL[..11]);
        assert!(matches!(cut, Err(ParseError::Truncated { need: 12, have: 11, .. })), "{cut:?}");
    }

    #[test]
    fn a_block_of_no_bytes_and_an_endless_unit_are_refused() {
        let mut bytes = FULL;
        bytes[10] = 0;
        assert!(matches!(Capacity::parse(&bytes), Err(ParseError::BadField { value: 0, .. })));
        bytes = FULL;
        bytes[..8].fill(0xff);
        assert!(matches!(Capacity::parse(&bytes), Err(ParseError::BadField { .. })));
    }

    #[test]
    fn ten_bytes_ask_for_sixteen_at_the_end_of_their_range() {
        assert_eq!(Capacity10::to_bytes(&two_tib()), [0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0]);
        let answer = Capacity10::parse(&Capacity10::to_bytes(&two_tib()));
        assert_eq!(answer, Ok(Capacity10::AskSixteen { block: BlockLen::B512 }));
        let small = Capacity::new(Lba(99), BlockLen::B4096);
        let answer = Capacity10::parse(&Capacity10::to_bytes(&small));
        assert_eq!(answer, Ok(Capacity10::Size { last: Lba(99), block: BlockLen::B4096 }));
    }
}
