//! PDUs that wait to be written, as many as there are in one system call. Payloads are lent from their task's memory.

use std::collections::VecDeque;
use std::io::IoSlice;

use iscsi::digest::{self, DIGEST_LEN, Digests};
use iscsi::pdu::{BHS_LEN, Bhs, padding};
use iscsi::session::{Body, TaskId};

use super::jobs::Jobs;

/// Pieces of memory in one system call: three for each of 40 PDUs, far below the kernel's 1024.
pub(super) const MAX_SLICES: usize = 120;

/// A PDU.
struct Pdu {
    /// Header and its digest.
    head: [u8; BHS_LEN + DIGEST_LEN],
    head_len: usize,
    body: Body,
    body_len: usize,
    /// Padding and data digest.
    tail: [u8; 3 + DIGEST_LEN],
    tail_len: usize,
}

/// The queue. Its bound is the session's: a write's data are asked for in bursts, and tasks are counted.
#[derive(Default)]
pub(super) struct Outgoing {
    pdus: VecDeque<Pdu>,
    /// Bytes of the first that are written.
    written: usize,
    digests: Digests,
}

impl Pdu {
    fn len(&self) -> usize {
        self.head_len + self.body_len + self.tail_len
    }

    fn task(&self) -> Option<TaskId> {
        match self.body {
            Body::Task { task, .. } => Some(task),
            _ => None,
        }
    }

    fn body<'a>(&'a self, jobs: &'a Jobs) -> &'a [u8] {
        match &self.body {
            Body::Empty => &[],
            Body::Inline(bytes) => bytes,
            Body::Task { task, offset, len } => jobs.bytes(*task, *offset as usize, *len as usize).unwrap_or(&[]),
        }
    }
}

impl Outgoing {
    /// From the next PDU on.
    pub(super) fn open(&mut self, digests: Digests) {
        self.digests = digests;
    }

    /// Adds a PDU. Digests are of what the memory holds now: a task's memory is its own until it ends.
    pub(super) fn push(&mut self, bhs: &Bhs, body: Body, jobs: &Jobs) {
        let body_len = bhs.data_segment() as usize;
        let mut pdu = Pdu {
            head: [0; BHS_LEN + DIGEST_LEN],
            head_len: BHS_LEN,
            body,
            body_len,
            tail: [0; 7],
            tail_len: padding(body_len),
        };
        pdu.head[..BHS_LEN].copy_from_slice(bhs.bytes());
        if self.digests.header {
            pdu.head[BHS_LEN..].copy_from_slice(&digest::of_header(bhs.bytes(), &[]));
            pdu.head_len += DIGEST_LEN;
        }
        if self.digests.data && body_len > 0 {
            let crc = digest::of_data(pdu.body(jobs));
            pdu.tail[pdu.tail_len..pdu.tail_len + DIGEST_LEN].copy_from_slice(&crc);
            pdu.tail_len += DIGEST_LEN;
        }
        self.pdus.push_back(pdu);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pdus.is_empty()
    }

    /// Whether the first PDU is half written and carries this task's memory. Others of it are taken out: the task is
    /// dead, and whoever asked for its data does not wait for them any more.
    pub(super) fn withdraw(&mut self, task: TaskId) -> bool {
        let half = self.written > 0 && self.pdus.front().is_some_and(|p| p.task() == Some(task));
        let mut first = true;
        let written = self.written;
        self.pdus.retain(|p| {
            let keep = p.task() != Some(task) || (first && written > 0);
            first = false;
            keep
        });
        half
    }

    /// Lends what is to be written.
    pub(super) fn slices<'a>(&'a self, jobs: &'a Jobs, slices: &mut [IoSlice<'a>; MAX_SLICES]) -> usize {
        let mut filled = 0;
        let mut skip = self.written;
        for pdu in &self.pdus {
            if filled + 3 > MAX_SLICES {
                break;
            }
            for part in [&pdu.head[..pdu.head_len], pdu.body(jobs), &pdu.tail[..pdu.tail_len]] {
                let left = part.get(skip..).unwrap_or(&[]);
                skip = skip.saturating_sub(part.len());
                if !left.is_empty() {
                    slices[filled] = IoSlice::new(left);
                    filled += 1;
                }
            }
        }
        filled
    }

    /// So many bytes were written. Calls `whole` for each PDU of a task that is whole now.
    pub(super) fn advance(&mut self, n: usize, mut whole: impl FnMut(TaskId)) {
        self.written += n;
        while let Some(pdu) = self.pdus.front().filter(|p| p.len() <= self.written) {
            self.written -= pdu.len();
            let task = pdu.task();
            self.pdus.pop_front();
            if let Some(task) = task {
                whole(task);
            }
        }
    }

    /// The connection is gone: the task whose PDU was half written.
    pub(super) fn clear(&mut self) -> Option<TaskId> {
        let half = if self.written > 0 { self.pdus.front().and_then(Pdu::task) } else { None };
        *self = Outgoing::default();
        half
    }
}
