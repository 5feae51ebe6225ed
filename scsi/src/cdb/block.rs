//! A command descriptor block ready to be sent, with what the transport must know of it: direction and length of data.

use std::fmt;

use super::group_len;
use crate::error::BuildError;
use crate::units::{ByteCount, OpCode};

/// The longest command descriptor block: a variable-length one (SPC-4 4.2.3) of 8 bytes and 252 more.
pub const MAX_CDB: usize = 260;

/// Bytes of a block that every transport carries in its command header.
pub const HEAD: usize = 16;

/// Which way a command's data goes, and how many bytes the initiator expects. No command here goes both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// No data.
    None,
    /// Data-In: from the target, at most so many bytes.
    In(ByteCount),
    /// Data-Out: to the target, exactly so many bytes.
    Out(ByteCount),
}

/// A command descriptor block and its transfer. Blocks of up to 16 bytes allocate nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Cdb {
    head: [u8; HEAD],
    /// Bytes of `head` that belong to the block, the whole of it where there is more.
    used: u8,
    more: Vec<u8>,
    transfer: Transfer,
}

impl Cdb {
    /// A block from bytes that were made elsewhere. They are as many as the operation code's group asks, or 6 to
    /// [`MAX_CDB`] where the vendor chooses.
    pub fn from_bytes(bytes: &[u8], transfer: Transfer) -> Result<Cdb, BuildError> {
        let len = bytes.len();
        let fixed = bytes.first().and_then(|op| group_len(OpCode(*op)));
        let fits = fixed.map_or((6..=MAX_CDB).contains(&len), |fixed| fixed == len);
        if !fits {
            let (value, max) = (u64::try_from(len).unwrap_or(u64::MAX), fixed.unwrap_or(MAX_CDB));
            let max = u64::try_from(max).unwrap_or(u64::MAX);
            return Err(BuildError::DoesNotFit { what: "command descriptor block", field: "length", value, max });
        }
        let (head, more) = bytes.split_at(len.min(HEAD));
        Ok(Cdb { more: more.to_vec(), ..Cdb::short(head, transfer) })
    }

    /// A block of at most 16 bytes.
    pub(super) fn short(bytes: &[u8], transfer: Transfer) -> Cdb {
        debug_assert!(bytes.len() <= HEAD);
        let mut head = [0; HEAD];
        for (to, from) in head.iter_mut().zip(bytes) {
            *to = *from;
        }
        let used = u8::try_from(bytes.len().min(HEAD)).unwrap_or(16);
        Cdb { head, used, more: Vec::new(), transfer }
    }

    /// The operation code.
    pub fn op_code(&self) -> OpCode {
        OpCode(self.head[0])
    }

    /// The first 16 bytes, zeroes behind a shorter block: what goes into the command header.
    pub fn head(&self) -> &[u8; HEAD] {
        &self.head
    }

    /// What follows the first 16 bytes; empty for most. iSCSI sends it as an additional header segment.
    pub fn additional(&self) -> &[u8] {
        &self.more
    }

    /// Bytes of the block: 6, 10, 12, 16 or more.
    pub fn len(&self) -> usize {
        usize::from(self.used) + self.more.len()
    }

    /// Never true; a block has an operation code.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Direction and length of the data.
    pub fn transfer(&self) -> Transfer {
        self.transfer
    }
}

impl Transfer {
    /// The transfer of so many bytes from the target; none for 0.
    pub fn input(len: ByteCount) -> Transfer {
        if len == ByteCount::ZERO { Transfer::None } else { Transfer::In(len) }
    }

    /// The transfer of so many bytes to the target; none for 0.
    pub fn output(len: ByteCount) -> Transfer {
        if len == ByteCount::ZERO { Transfer::None } else { Transfer::Out(len) }
    }

    /// Bytes that are expected to move.
    pub fn len(self) -> ByteCount {
        match self {
            Transfer::None => ByteCount::ZERO,
            Transfer::In(len) | Transfer::Out(len) => len,
        }
    }

    /// True if no bytes are expected to move.
    pub fn is_empty(self) -> bool {
        self.len() == ByteCount::ZERO
    }
}

impl fmt::Debug for Cdb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cdb(")?;
        for byte in self.head[..usize::from(self.used)].iter().chain(&self.more) {
            write!(f, "{byte:02x}")?;
        }
        write!(f, ", {:?})", self.transfer)
    }
}
