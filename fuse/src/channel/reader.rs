//! Where messages are read to.
//!
//! A slab of the pool is read into from front to back. A message starts 80 bytes before a page
//! boundary, so that a WRITE's payload starts on it:
//!
//! ```text
//!            page              page              page
//! |........[hdr+body|payload.......|padding]........[hdr+body|...
//!          ^ -80    ^ split off as an AlignedBuf     ^ the next message
//! ```
//!
//! Every other message is parsed where it lies and its place is used again. A WRITE takes its pages
//! (header page and payload) out of the slab. When less than a whole request's room is left the slab is
//! dropped; it returns to the pool with the last payload.

use super::Session;
use crate::abi::WRITE_PREFIX;
use block::buf::{AlignedBuf, BufPool};
use std::sync::Arc;

const PAGE: usize = block::buf::ALIGN;

/// Requests of the largest size that a slab holds. Two: a stream of 4 KiB writes then takes 128 of
/// them from a slab before the next, and one of 1 MiB writes pins no more than it uses.
const SLAB_REQUESTS: usize = 2;

/// Bytes of a slab for requests of at most `max_write`.
pub(crate) fn slab_size(max_write: usize) -> usize {
    SLAB_REQUESTS * (PAGE + max_write)
}

pub(super) struct Reader {
    pool: Arc<BufPool>,
    slab: AlignedBuf,
    max_write: usize,
}

impl Reader {
    pub(super) fn new(session: &Session) -> Self {
        let pool = Arc::clone(&session.pool);
        Self { slab: pool.get(), pool, max_write: session.max_write }
    }

    /// Room for the next message: exactly what the kernel asks for (80 bytes and `max_write`).
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.slab.len() < PAGE + self.max_write {
            self.slab = self.pool.get();
        }
        &mut self.slab[PAGE - WRITE_PREFIX..PAGE + self.max_write]
    }

    /// The message of `len` bytes that was read.
    pub(super) fn message(&self, len: usize) -> &[u8] {
        &self.slab[PAGE - WRITE_PREFIX..][..len]
    }

    /// The body in front of a WRITE's payload.
    pub(super) fn write_body(&self) -> [u8; size_of::<crate::abi::WriteIn>()] {
        const LEN: usize = size_of::<crate::abi::WriteIn>();
        let mut body = [0; LEN];
        body.copy_from_slice(&self.slab[PAGE - LEN..PAGE]);
        body
    }

    /// Takes the payload of `len` bytes out of the slab. The next message goes behind it.
    pub(super) fn take_payload(&mut self, len: usize) -> AlignedBuf {
        let mut payload = self.slab.split_to(PAGE + len.next_multiple_of(PAGE));
        payload.advance(PAGE);
        payload.truncate(len);
        payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1 << 20;

    fn reader() -> Reader {
        let session = Session {
            pool: BufPool::new(slab_size(MAX), 4),
            max_write: MAX,
            dialect: crate::parse::Dialect::default(),
            resends: None,
        };
        Reader::new(&session)
    }

    #[test]
    fn every_payload_is_page_aligned_and_survives_what_is_read_after_it() {
        let mut reader = reader();
        let mut kept = Vec::new();
        for (n, len) in [4096, 1, 512, 5000, MAX, 4096, MAX - 1, 3].into_iter().enumerate() {
            let fill = u8::try_from(n).unwrap() + 1;
            let room = reader.room();
            assert_eq!(room.len(), WRITE_PREFIX + MAX);
            room[WRITE_PREFIX..WRITE_PREFIX + len].fill(fill);
            let payload = reader.take_payload(len);
            assert!(payload.is_aligned_to(PAGE) && payload.len() == len);
            kept.push((fill, payload));
        }
        for (fill, payload) in kept {
            assert!(payload.iter().all(|byte| *byte == fill), "payload {fill} was overwritten");
        }
    }

    #[test]
    fn small_writes_share_a_slab() {
        let mut reader = reader();
        let first = reader.room().as_ptr();
        for _ in 0..100 {
            reader.room();
            drop(reader.take_payload(4096));
        }
        let distance = reader.room().as_ptr() as usize - first as usize;
        assert_eq!(distance, 100 * 2 * PAGE);
    }
}
