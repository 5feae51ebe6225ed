//! Replies that wait to be written, as many as there are in one system call; data are lent from the device's memory.

use std::collections::VecDeque;
use std::io::IoSlice;

use block::AlignedBuf;

use crate::nbd::core::transmission::Head;

/// Pieces of memory in one system call: head and data of 64 replies, far below the kernel's 1024.
const MAX_SLICES: usize = 128;
/// Pieces of some replies.
const FEW_SLICES: usize = 8;

/// What follows a head.
#[derive(Debug)]
pub(super) enum Tail {
    Nothing,
    Text(&'static str),
    Bytes(Vec<u8>),
    Data(AlignedBuf),
}

#[derive(Debug)]
struct Reply {
    head: Head,
    tail: Tail,
    /// What the request's place in the budget comes to.
    memory: u64,
}

impl Reply {
    fn tail(&self) -> &[u8] {
        match &self.tail {
            Tail::Nothing => &[],
            Tail::Text(text) => text.as_bytes(),
            Tail::Bytes(bytes) => bytes,
            Tail::Data(buf) => buf,
        }
    }

    fn len(&self) -> usize {
        self.head.bytes().len() + self.tail().len()
    }
}

/// The queue. Its bound is the number of requests in flight, among which a request counts until its reply is written.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    replies: VecDeque<Reply>,
    /// Bytes of the first that are written.
    written: usize,
}

/// Requests whose replies were written, and the memory that they gave back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Freed {
    pub(super) requests: usize,
    pub(super) memory: u64,
}

impl Outgoing {
    /// Adds a reply; its bytes.
    pub(super) fn push(&mut self, head: Head, tail: Tail, memory: u64) -> usize {
        let reply = Reply { head, tail, memory };
        let len = reply.len();
        self.replies.push_back(reply);
        len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    /// Lends what is to be written to `call`.
    pub(super) fn lend<T>(&self, call: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        // A few replies are the usual case, and need no large array.
        if self.replies.len() <= FEW_SLICES / 2 {
            self.lend_from([IoSlice::new(&[]); FEW_SLICES], call)
        } else {
            self.lend_from([IoSlice::new(&[]); MAX_SLICES], call)
        }
    }

    fn lend_from<'a, T, const N: usize>(
        &'a self,
        mut slices: [IoSlice<'a>; N],
        call: impl FnOnce(&[IoSlice<'_>]) -> T,
    ) -> T {
        let mut filled = 0;
        let mut skip = self.written;
        for reply in self.replies.iter().take(N / 2) {
            for part in [reply.head.bytes(), reply.tail()] {
                let left = part.get(skip..).unwrap_or(&[]);
                skip = skip.saturating_sub(part.len());
                if !left.is_empty() {
                    slices[filled] = IoSlice::new(left);
                    filled += 1;
                }
            }
        }
        call(&slices[..filled])
    }

    /// So many bytes were written.
    pub(super) fn advance(&mut self, n: usize) -> Freed {
        self.written += n;
        let mut freed = Freed::default();
        while let Some(reply) = self.replies.front().filter(|r| r.len() <= self.written) {
            self.written -= reply.len();
            freed.requests += 1;
            freed.memory += reply.memory;
            self.replies.pop_front();
        }
        freed
    }

    /// Nobody is there any more to read them.
    pub(super) fn clear(&mut self) {
        self.replies.clear();
        self.written = 0;
    }
}
