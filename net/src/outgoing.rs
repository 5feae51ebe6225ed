//! Frames on their way out: the pure part of the writer.
//!
//! [`Outgoing`] is a batch that is being written. It offers slices for one vectored write (headers, bodies and
//! payloads where they are, without a copy) and remembers how far a write got, down to the byte.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Bytes, BytesMut};

use crate::frame::{HEADER_LEN, Header, Kind};
use crate::message::{Message, Payload};

/// An encoded frame.
pub(crate) struct OutFrame {
    pub(crate) kind: Kind,
    header: [u8; HEADER_LEN],
    body: Bytes,
    payload: Payload,
}

impl OutFrame {
    /// An application's message; the checksums are computed here, on the caller's thread.
    pub(crate) fn message(kind: Kind, id: u64, msg: Message) -> Self {
        let header = Header {
            opcode: msg.opcode,
            epoch: msg.epoch,
            request_id: id,
            ..Header::new(kind, &msg.body, msg.payload.as_slice())
        };
        Self { kind, header: header.encode(), body: msg.body, payload: msg.payload }
    }

    /// A frame of the protocol's own.
    pub(crate) fn control(kind: Kind, id: u64, body: Bytes) -> Self {
        let header = Header { request_id: id, ..Header::new(kind, &body, &[]) };
        Self { kind, header: header.encode(), body, payload: Payload::None }
    }

    /// Bytes on the wire.
    pub(crate) fn len(&self) -> usize {
        HEADER_LEN + self.body.len() + self.payload.len()
    }

    /// All its bytes in one place: for the few frames of a handshake.
    pub(crate) fn copy_to(&self, out: &mut BytesMut) {
        self.parts().iter().for_each(|part| out.extend_from_slice(part));
    }

    fn parts(&self) -> [&[u8]; 3] {
        [&self.header, &self.body, self.payload.as_slice()]
    }
}

/// The batch being written. Invariant: `sent` is less than the first frame's length, or 0 when there is none.
#[derive(Default)]
pub(crate) struct Outgoing {
    frames: VecDeque<OutFrame>,
    sent: usize,
}

impl Outgoing {
    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(crate) fn push(&mut self, frame: OutFrame) {
        self.frames.push_back(frame);
    }

    /// What is unsent of the first frame.
    #[cfg(test)]
    pub(crate) fn first_len(&self) -> usize {
        self.frames.front().map_or(0, |f| f.len() - self.sent)
    }

    /// Fills `slices` from the first unsent byte on; how many were filled. No slice is empty.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut skip = self.sent;
        let mut n = 0;
        for part in self.frames.iter().flat_map(OutFrame::parts) {
            let skipped = skip.min(part.len());
            skip -= skipped;
            let part = &part[skipped..];
            if part.is_empty() {
                continue;
            }
            let Some(slice) = slices.get_mut(n) else { break };
            *slice = IoSlice::new(part);
            n += 1;
        }
        n
    }

    /// `n` bytes went out; frames that are gone completely are dropped (their payload goes back to its pool).
    /// `gone` is told each one's kind and length.
    pub(crate) fn advance(&mut self, n: usize, mut gone: impl FnMut(Kind, usize)) {
        self.sent += n;
        while let Some(first) = self.frames.front() {
            let len = first.len();
            if self.sent < len {
                return;
            }
            self.sent -= len;
            gone(first.kind, len);
            self.frames.pop_front();
        }
        assert!(self.sent == 0, "more bytes were written than offered");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> (Outgoing, Vec<u8>) {
        let mut out = Outgoing::default();
        let mut whole = Vec::new();
        for i in 0..5_u8 {
            let payload = match i % 2 {
                0 => Payload::None,
                _ => Payload::Shared(Bytes::from(vec![i; 100])),
            };
            let body = vec![i; usize::from(i) * 3];
            let msg = Message::new(7, 1, body).with_payload(payload);
            let frame = OutFrame::message(Kind::Oneway, 0, msg);
            frame.parts().iter().for_each(|p| whole.extend_from_slice(p));
            out.push(frame);
        }
        (out, whole)
    }

    /// Writes with `slots` slices of which `most` bytes are taken each time.
    fn write_all(slots: usize, most: usize) -> (Vec<u8>, usize) {
        let (mut out, _) = batch();
        let (mut written, mut gone) = (Vec::new(), 0);
        while !out.is_empty() {
            let mut slices = vec![IoSlice::new(&[]); slots];
            let n = out.slices(&mut slices);
            assert!(slices[..n].iter().all(|s| !s.is_empty()));
            let offered: Vec<u8> = slices[..n].iter().flat_map(|s| s.to_vec()).collect();
            let taken = offered.len().min(most);
            written.extend_from_slice(&offered[..taken]);
            out.advance(taken, |_, _| gone += 1);
        }
        (written, gone)
    }

    #[test]
    fn every_split_of_the_writes_sends_the_same_bytes() {
        let (_, whole) = batch();
        for slots in [1, 2, 3, 64] {
            for most in [1, 2, 63, 64, 65, 100, 10_000] {
                assert_eq!(write_all(slots, most), (whole.clone(), 5), "{slots} {most}");
            }
        }
    }
}
