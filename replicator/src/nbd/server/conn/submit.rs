//! From a client's request to the device's.

use std::sync::Arc;

use block::device::{Completion, Io, Op};
use block::{AlignedBuf, ByteLen, ByteOffset, Extent};

use super::super::mailbox::Answer;
use super::{Conn, Job};
use crate::nbd::core::plan::{Ask, Plan};
use crate::nbd::core::transmission::{Command, Request};
use crate::nbd::limits::MAX_EXTENTS;

impl Conn {
    /// Gives one request to the device. `payload` is what a write writes.
    pub(super) fn submit(&mut self, request: Request, plan: Plan, payload: Option<AlignedBuf>) {
        let at = ByteOffset(request.tag.offset);
        let len = match request.command {
            Command::Read { len } | Command::Write { len, .. } => ByteLen(len.into()),
            Command::Trim { len, .. } | Command::Zeroes { len, .. } => ByteLen(len),
            _ => ByteLen::ZERO,
        };
        let (op, at, len, buf) = match plan.ask() {
            // Lossless: at most one payload.
            Ask::Read => (Op::Read, at, len, Some(AlignedBuf::with_capacity(len.0 as usize))),
            Ask::Write { fua } => (Op::Write { fua }, at, len, payload),
            Ask::Flush => (Op::Flush, ByteOffset::ZERO, ByteLen::ZERO, None),
            Ask::Discard => (Op::Discard, at, len, None),
            Ask::Zero => (Op::WriteZeroes, at, len, None),
        };
        let key = self.jobs.insert(Job { request, plan: Some(plan) });
        let mailbox = Arc::clone(&self.mailbox);
        let done = Completion::new(move |done| mailbox.put(key, Answer::Io(done)));
        self.export.device().submit(Io { op, at, len, buf, done });
    }

    /// Asks the device where its data lie; one that cannot tell has all of it allocated.
    pub(super) fn status(&mut self, request: Request, len: u64, one: bool) {
        let (at, len) = (ByteOffset(request.tag.offset), ByteLen(len));
        let Some(provisioning) = self.export.provisioning().cloned() else {
            return self.found(request, Ok(vec![Extent { len, hole: false, zero: false }]));
        };
        let key = self.jobs.insert(Job { request, plan: None });
        let mailbox = Arc::clone(&self.mailbox);
        let most = if one { 1 } else { MAX_EXTENTS };
        provisioning.extents(at, len, most, Box::new(move |found| mailbox.put(key, Answer::Extents(found))));
    }
}
