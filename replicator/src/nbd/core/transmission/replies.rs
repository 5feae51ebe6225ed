//! Replies: what stands before the data, and the replies without.
//!
//! Once chunks were agreed upon, every reply is of chunks, so that the stream has one form. A reply is one chunk: a read
//! is answered when all of it was read, and never in part.

use zerocopy::IntoBytes;

use super::{Refusal, Tag, Transmission};
use crate::nbd::core::facts::Style;
use crate::nbd::core::handshake::options::ALLOCATION_ID;
use crate::nbd::core::wire::{
    CompactExtent, EXTENDED_REPLY_MAGIC, ExtendedExtent, ExtendedReply, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC,
    SimpleReply, StructuredReply, chunk, state,
};

/// The longest: an extended header and the offset of data.
const HEAD_MAX: usize = size_of::<ExtendedReply>() + 8;

/// What stands before a reply's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    bytes: [u8; HEAD_MAX],
    len: u8,
}

impl Head {
    fn new() -> Head {
        Head { bytes: [0; HEAD_MAX], len: 0 }
    }

    fn with(mut self, more: &[u8]) -> Head {
        let at = usize::from(self.len);
        self.bytes[at..at + more.len()].copy_from_slice(more);
        // Lossless: within the array.
        self.len += more.len() as u8;
        self
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// A stretch of the export, for BLOCK_STATUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Its bytes; never 0.
    pub len: u64,
    /// Not allocated.
    pub hole: bool,
    /// Reads as zeroes.
    pub zero: bool,
}

impl Transmission {
    /// Success without data.
    pub fn done(&self, tag: Tag) -> Head {
        match self.style {
            Style::Simple => simple(tag, 0),
            _ => self.chunk(tag, chunk::NONE, 0),
        }
    }

    /// Success; `len` bytes, at least 1, follow, from the request's offset on.
    pub fn data(&self, tag: Tag, len: u32) -> Head {
        match self.style {
            Style::Simple => simple(tag, 0),
            _ => self.chunk(tag, chunk::OFFSET_DATA, len + 8).with(&tag.offset.to_be_bytes()),
        }
    }

    /// An error; where the style has room for it, the sentence follows.
    pub fn error(&self, tag: Tag, refusal: Refusal) -> (Head, &'static str) {
        let errno = refusal.errno as u32;
        if self.style == Style::Simple {
            return (simple(tag, errno), "");
        }
        // Lossless: the sentences are our own.
        let len = refusal.why.len() as u16;
        let head = self.chunk(tag, chunk::ERROR, 6 + u32::from(len));
        (head.with(&errno.to_be_bytes()).with(&len.to_be_bytes()), refusal.why)
    }

    /// The extents of a range, from the request's offset on: at least one. A length too long for the style is told in
    /// parts of whole blocks.
    pub fn extents(&self, tag: Tag, stretches: &[Stretch]) -> (Head, Vec<u8>) {
        let mut data = Vec::with_capacity(8 + stretches.len() * size_of::<ExtendedExtent>());
        data.extend_from_slice(&ALLOCATION_ID.to_be_bytes());
        let flags_of = |s: &Stretch| if s.hole { state::HOLE } else { 0 } | if s.zero { state::ZERO } else { 0 };
        if self.style == Style::Extended {
            // Lossless: at most MAX_EXTENTS.
            data.extend_from_slice(&(stretches.len() as u32).to_be_bytes());
            for stretch in stretches {
                let extent = ExtendedExtent { length: stretch.len.into(), flags: u64::from(flags_of(stretch)).into() };
                data.extend_from_slice(extent.as_bytes());
            }
        } else {
            let longest = u32::MAX - u32::MAX % self.facts.block;
            for stretch in stretches {
                let length = u32::try_from(stretch.len).unwrap_or(longest).min(longest);
                let extent = CompactExtent { length: length.into(), flags: flags_of(stretch).into() };
                data.extend_from_slice(extent.as_bytes());
                if u64::from(length) < stretch.len {
                    // The client asks on from there.
                    break;
                }
            }
        }
        let kind = if self.style == Style::Extended { chunk::BLOCK_STATUS_EXT } else { chunk::BLOCK_STATUS };
        // Lossless: some KiB.
        (self.chunk(tag, kind, data.len() as u32), data)
    }

    fn chunk(&self, tag: Tag, kind: u16, length: u32) -> Head {
        let (flags, kind, cookie) = (chunk::DONE.into(), kind.into(), tag.cookie);
        if self.style == Style::Extended {
            let (magic, length) = (EXTENDED_REPLY_MAGIC.into(), u64::from(length).into());
            let offset = tag.offset.into();
            return Head::new().with(ExtendedReply { magic, flags, kind, cookie, offset, length }.as_bytes());
        }
        let magic = STRUCTURED_REPLY_MAGIC.into();
        Head::new().with(StructuredReply { magic, flags, kind, cookie, length: length.into() }.as_bytes())
    }
}

fn simple(tag: Tag, error: u32) -> Head {
    Head::new()
        .with(SimpleReply { magic: SIMPLE_REPLY_MAGIC.into(), error: error.into(), cookie: tag.cookie }.as_bytes())
}
