//! What is told of an export: name, size, blocks, abilities.

use super::wire::transmission_flags as flag;
use crate::nbd::limits::MAX_PAYLOAD;

/// How replies look, as agreed in the handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// Simple replies.
    #[default]
    Simple,
    /// Structured replies.
    Structured,
    /// Extended headers both ways.
    Extended,
}

/// An export as it is at one moment; a connection keeps what it was told when it entered the transmission phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// As LIST tells it.
    pub name: String,
    /// For people.
    pub description: String,
    /// Bytes, a multiple of `block`.
    pub size: u64,
    /// Smallest block: a power of two.
    pub block: u32,
    /// Preferred block: a power of two, at least `block`.
    pub preferred: u32,
    /// Changes are refused.
    pub read_only: bool,
    /// TRIM is worth sending.
    pub trim: bool,
}

impl Facts {
    /// The transmission flags for a connection of this style, with or without a metadata context.
    pub fn flags(&self, style: Style, status: bool) -> u16 {
        let mut flags = flag::HAS_FLAGS | flag::SEND_FLUSH | flag::SEND_FUA | flag::CAN_MULTI_CONN | flag::SEND_CACHE;
        if self.read_only {
            flags |= flag::READ_ONLY;
        } else {
            flags |= flag::SEND_WRITE_ZEROES | flag::SEND_FAST_ZERO;
            if self.trim {
                flags |= flag::SEND_TRIM;
            }
        }
        if style != Style::Simple {
            flags |= flag::SEND_DF;
        }
        if style == Style::Extended && status {
            flags |= flag::BLOCK_STATUS_PAYLOAD;
        }
        flags
    }

    /// The longest payload of a request or reply: what is advertised.
    pub fn max_payload(&self) -> u32 {
        MAX_PAYLOAD
    }

    /// Whether the range lies within the export.
    pub fn contains(&self, offset: u64, len: u64) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.size)
    }

    /// Whether the range keeps to the smallest block.
    pub fn is_aligned(&self, offset: u64, len: u64) -> bool {
        offset.is_multiple_of(self.block.into()) && len.is_multiple_of(self.block.into())
    }
}
