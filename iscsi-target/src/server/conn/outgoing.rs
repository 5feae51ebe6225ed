//! PDUs that wait to be written, as many as there are in one system call. Data are lent from the device's memory.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use iscsi::digest::{self, DIGEST_LEN, Digests};
use iscsi::pdu::{BHS_LEN, Bhs, padding};
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::incoming::attempt;

/// Pieces of memory in one system call: three for each of 40 PDUs, far below the kernel's 1024.
const MAX_SLICES: usize = 120;

struct Pdu {
    /// Header and its digest.
    head: [u8; BHS_LEN + DIGEST_LEN],
    head_len: usize,
    body: Bytes,
    /// Padding and data digest.
    tail: [u8; 3 + DIGEST_LEN],
    tail_len: usize,
    /// What it gives back when it is written.
    memory: usize,
}

impl Pdu {
    fn parts(&self) -> [&[u8]; 3] {
        [&self.head[..self.head_len], &self.body, &self.tail[..self.tail_len]]
    }

    fn len(&self) -> usize {
        self.head_len + self.body.len() + self.tail_len
    }
}

/// The queue. Nothing is read from an initiator that does not take what is in it.
pub(super) struct Outgoing {
    pdus: VecDeque<Pdu>,
    /// Bytes of the first that are written.
    written: usize,
    digests: Digests,
}

impl Outgoing {
    pub(super) fn new(digests: Digests) -> Outgoing {
        Outgoing { pdus: VecDeque::new(), written: 0, digests }
    }

    /// Adds a PDU, which gives back `memory` bytes when it is written.
    pub(super) fn push(&mut self, bhs: &Bhs, body: Bytes, memory: usize) {
        let tail_len = padding(body.len());
        let mut pdu = Pdu { head: [0; BHS_LEN + DIGEST_LEN], head_len: BHS_LEN, body, tail: [0; 7], tail_len, memory };
        pdu.head[..BHS_LEN].copy_from_slice(bhs.bytes());
        if self.digests.header {
            pdu.head[BHS_LEN..].copy_from_slice(&digest::of_header(bhs.bytes(), &[]));
            pdu.head_len += DIGEST_LEN;
        }
        if self.digests.data && !pdu.body.is_empty() {
            let crc = digest::of_data(&pdu.body);
            pdu.tail[tail_len..tail_len + DIGEST_LEN].copy_from_slice(&crc);
            pdu.tail_len += DIGEST_LEN;
        }
        self.pdus.push_back(pdu);
    }

    pub(super) fn len(&self) -> usize {
        self.pdus.len()
    }

    /// The last one gives back so much more.
    pub(super) fn last_frees(&mut self, memory: usize) -> bool {
        self.pdus.back_mut().map(|pdu| pdu.memory += memory).is_some()
    }

    /// Writes once. The memory that was given back.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, stream: &TcpStream) -> Poll<io::Result<usize>> {
        let n = {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let (mut filled, mut skip, mut whole) = (0, self.written, 0);
            for pdu in self.pdus.iter().take(MAX_SLICES / 3) {
                for part in pdu.parts() {
                    let left = part.get(skip..).unwrap_or(&[]);
                    skip = skip.saturating_sub(part.len());
                    if !left.is_empty() {
                        slices[filled] = IoSlice::new(left);
                        filled += 1;
                        whole += left.len();
                    }
                }
            }
            let slices = &slices[..filled];
            let mut call = || {
                let mut nothing = SendAncillaryBuffer::default();
                Ok(sendmsg(stream, slices, &mut nothing, SendFlags::NOSIGNAL)?)
            };
            loop {
                ready!(stream.poll_write_ready(cx))?;
                if let Some(n) = attempt(stream, Interest::WRITABLE, whole, &mut call)? {
                    break n;
                }
            }
        };
        Poll::Ready(Ok(self.advance(n)))
    }

    fn advance(&mut self, n: usize) -> usize {
        self.written += n;
        let mut freed = 0;
        while let Some(pdu) = self.pdus.front().filter(|p| p.len() <= self.written) {
            self.written -= pdu.len();
            freed += pdu.memory;
            self.pdus.pop_front();
        }
        freed
    }

    /// Nobody is there any more to read them. The memory that was given back.
    pub(super) fn clear(&mut self) -> usize {
        self.written = 0;
        self.pdus.drain(..).map(|pdu| pdu.memory).sum()
    }
}
