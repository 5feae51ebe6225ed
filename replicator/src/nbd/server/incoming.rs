//! What comes from the socket: request headers, and payloads in memory that a device takes.
//!
//! ```text
//!   read ──► pieces (in order) ──► header ──► payload ──► the device
//!              staging: 16 KiB of whatever comes
//!              lanes:   header, payload, header, payload ... as guessed
//! ```
//! The rest of a payload is read straight to its place. What comes behind it is guessed: after some writes of one length
//! another is likely, so one call reads several headers and payloads each to a place of its own, and a payload that is
//! where it was guessed is taken as it is, without a copy. A wrong guess costs a copy, and the guessing ends until there
//! were writes of one length again.
//!
//! Bounds: the payload that is being filled, and either the staging buffer or at most [`LANES_BYTES`] of lanes.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::task::{Context, Poll, ready};

use block::AlignedBuf;

use super::socket::Socket;

/// Longest header.
const HEADER: usize = 32;
/// Bytes read where nothing is guessed: headers of some hundred reads.
const STAGING: usize = 16 << 10;
/// Writes of one length in a row before the next is guessed.
const SURE: u32 = 2;
/// Most guessed writes: half of a usual queue, two pieces of memory each.
const LANES: usize = 16;
/// Most memory for guessed payloads, and the longest that is guessed.
const LANES_BYTES: usize = 1 << 20;

/// Received bytes.
#[derive(Debug)]
struct Piece {
    memory: Memory,
    /// Those not taken yet.
    from: usize,
    to: usize,
}

#[derive(Debug)]
enum Memory {
    Small([u8; HEADER]),
    Large(AlignedBuf),
}

/// A payload on its way to the device.
#[derive(Debug)]
struct Filling {
    buf: AlignedBuf,
    filled: usize,
}

/// A guessed write.
#[derive(Debug, Default)]
struct Lane {
    header: [u8; HEADER],
    payload: Option<AlignedBuf>,
}

/// The reader of one connection.
#[derive(Debug)]
pub(super) struct Incoming {
    header_len: usize,
    pieces: VecDeque<Piece>,
    /// Bytes in them.
    there: usize,
    filling: Option<Filling>,
    skip: usize,
    staging: Option<AlignedBuf>,
    lanes: Vec<Lane>,
    /// Length of the last write, and how many of that length came in a row.
    last: usize,
    row: u32,
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match &self.memory {
            Memory::Small(bytes) => &bytes[self.from..self.to],
            Memory::Large(buf) => &buf[self.from..self.to],
        }
    }
}

impl Incoming {
    /// Reads headers of this length; `early` came behind the handshake.
    pub(super) fn new(header_len: usize, early: &[u8]) -> Incoming {
        let mut incoming = Incoming {
            header_len,
            pieces: VecDeque::new(),
            there: 0,
            filling: None,
            skip: 0,
            staging: None,
            lanes: Vec::new(),
            last: 0,
            row: 0,
        };
        if !early.is_empty() {
            incoming.push(Memory::Large(AlignedBuf::from_slice(early)), early.len());
        }
        incoming
    }

    fn push(&mut self, memory: Memory, len: usize) {
        if len > 0 {
            self.there += len;
            self.pieces.push_back(Piece { memory, from: 0, to: len });
        }
    }

    /// Reads once. The number of bytes; 0 at the end of the stream.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, socket: &mut Socket) -> Poll<io::Result<usize>> {
        self.gather();
        if self.skip == 0 && self.row >= SURE && self.last <= LANES_BYTES {
            self.read_guessing(cx, socket)
        } else {
            self.read_staging(cx, socket)
        }
    }

    /// Bytes left over are less than a header: together in one small piece.
    fn gather(&mut self) {
        if self.there == 0 || self.pieces.len() == 1 && matches!(self.pieces[0].memory, Memory::Small(_)) {
            return;
        }
        let mut small = [0; HEADER];
        let n = self.there.min(HEADER);
        self.take_into(&mut small[..n]);
        debug_assert_eq!(self.there, 0, "a whole header is taken before more is read");
        self.there = n;
        self.pieces.push_front(Piece { memory: Memory::Small(small), from: 0, to: n });
    }

    fn read_staging(&mut self, cx: &mut Context<'_>, socket: &mut Socket) -> Poll<io::Result<usize>> {
        let staging = self.staging.get_or_insert_with(|| AlignedBuf::with_capacity(STAGING));
        let (direct, read) = match &mut self.filling {
            Some(filling) => {
                let rest = &mut filling.buf[filling.filled..];
                let direct = rest.len();
                let mut memory = [IoSliceMut::new(rest), IoSliceMut::new(staging)];
                (direct, ready!(socket.poll_read(cx, &mut memory))?)
            }
            None => (0, ready!(socket.poll_read(cx, &mut [IoSliceMut::new(staging)]))?),
        };
        let staged = self.fill(read, direct);
        if staged > 0
            && let Some(staging) = self.staging.take()
        {
            self.push(Memory::Large(staging), staged);
        }
        Poll::Ready(Ok(read))
    }

    fn read_guessing(&mut self, cx: &mut Context<'_>, socket: &mut Socket) -> Poll<io::Result<usize>> {
        let count = (LANES_BYTES / 4 / self.last.max(1)).clamp(1, LANES);
        let len = self.last;
        self.lanes.resize_with(count, Lane::default);
        let mut memory: [IoSliceMut<'_>; 1 + 2 * LANES] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let mut direct = 0;
        if let Some(filling) = &mut self.filling {
            let rest = &mut filling.buf[filling.filled..];
            direct = rest.len();
            memory[0] = IoSliceMut::new(rest);
        }
        // Bytes of the next header that are there already.
        let mut begun = self.there;
        for (n, lane) in self.lanes.iter_mut().enumerate() {
            if lane.payload.as_ref().is_none_or(|buf| buf.len() != len) {
                lane.payload = Some(AlignedBuf::with_capacity(len));
            }
            memory[1 + 2 * n] = IoSliceMut::new(&mut lane.header[..self.header_len - begun]);
            if let Some(payload) = &mut lane.payload {
                memory[2 + 2 * n] = IoSliceMut::new(payload);
            }
            begun = 0;
        }
        let read = ready!(socket.poll_read(cx, &mut memory[..1 + 2 * count]))?;
        let mut left = self.fill(read, direct);
        let mut header = self.header_len - self.there;
        for n in 0..count {
            if left == 0 {
                break;
            }
            let lane = &mut self.lanes[n];
            let (head, body) = (left.min(header), left.saturating_sub(header).min(len));
            let bytes = lane.header;
            let payload = if body > 0 { lane.payload.take() } else { None };
            self.push(Memory::Small(bytes), head);
            if let Some(payload) = payload {
                self.push(Memory::Large(payload), body);
            }
            left -= head + body;
            header = self.header_len;
        }
        Poll::Ready(Ok(read))
    }

    /// Of `read` bytes, the first `direct` are the payload's. How many are not.
    fn fill(&mut self, read: usize, direct: usize) -> usize {
        let into = read.min(direct);
        if let Some(filling) = &mut self.filling {
            filling.filled += into;
        }
        read - into
    }

    /// The next header, if all of it is there and what stood before it was taken.
    pub(super) fn header(&mut self) -> Option<[u8; HEADER]> {
        debug_assert!(self.filling.is_none(), "a payload is taken before the next header");
        self.pass_over();
        if self.skip > 0 || self.there < self.header_len {
            return None;
        }
        let mut header = [0; HEADER];
        let len = self.header_len;
        self.take_into(&mut header[..len]);
        Some(header)
    }

    /// `len` bytes follow that mean nothing.
    pub(super) fn skip(&mut self, len: u32) {
        self.skip = len as usize;
        self.row = 0;
    }

    /// No payload follows the header that was taken.
    pub(super) fn no_payload(&mut self) {
        self.row = 0;
    }

    /// A payload of `len` bytes, at least 1, follows the header that was taken.
    pub(super) fn begin_payload(&mut self, len: u32) {
        let len = len as usize;
        self.row = if len == self.last { self.row.saturating_add(1) } else { 0 };
        self.last = len;
        if let Some(guessed) = self.guessed(len) {
            self.filling = Some(guessed);
            return;
        }
        let mut buf = AlignedBuf::with_capacity(len);
        let filled = self.there.min(len);
        self.take_into(&mut buf[..filled]);
        self.filling = Some(Filling { buf, filled });
    }

    /// The payload, if it is where it was guessed to be: whole, or as far as it has come.
    fn guessed(&mut self, len: usize) -> Option<Filling> {
        let front = self.pieces.front()?;
        let Memory::Large(buf) = &front.memory else { return None };
        if buf.len() != len || front.from != 0 || front.to < len && self.pieces.len() > 1 {
            return None;
        }
        let piece = self.pieces.pop_front()?;
        let Memory::Large(buf) = piece.memory else { return None };
        self.there -= piece.to;
        Some(Filling { buf, filled: piece.to })
    }

    /// The payload, once it is whole.
    pub(super) fn payload(&mut self) -> Option<AlignedBuf> {
        self.filling.take_if(|filling| filling.filled == filling.buf.len()).map(|filling| filling.buf)
    }

    fn pass_over(&mut self) {
        let mut scratch = [0; 512];
        while self.skip > 0 && self.there > 0 {
            let n = self.skip.min(self.there).min(scratch.len());
            self.take_into(&mut scratch[..n]);
            self.skip -= n;
        }
    }

    /// Takes as many bytes as `to` is long; there are as many.
    fn take_into(&mut self, mut to: &mut [u8]) {
        while !to.is_empty() {
            let Some(piece) = self.pieces.front_mut() else { return };
            let n = piece.bytes().len().min(to.len());
            let (now, later) = to.split_at_mut(n);
            now.copy_from_slice(&piece.bytes()[..n]);
            to = later;
            piece.from += n;
            self.there -= n;
            if piece.from == piece.to {
                let used = self.pieces.pop_front();
                if let Some(Piece { memory: Memory::Large(buf), .. }) = used
                    && buf.len() == STAGING
                {
                    self.staging = Some(buf);
                }
            }
        }
    }
}
