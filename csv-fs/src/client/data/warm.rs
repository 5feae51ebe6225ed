//! Redirected I/O that would be hot if the route were direct: one layout held covers it, one written extent holds it.
//!
//! It is handed to the session as it is, without a task: the request goes out from the thread that read it, and the
//! kernel is answered by the thread that read the coordinator's answer. Layout guard and sub-block gate are held until
//! then, as on the hot path. What the session gives back unexecuted (the route is direct again, the layout is gone)
//! starts over on the slow path, and counts there too.
//!
//! Prevents: every redirected request wakes its worker twice, once to be sent and once to be answered; on a busy
//! machine those wake-ups cost more than TLS.

use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Instant;

use block::buf::AlignedBuf;
use bytes::Bytes;

use super::disk::{Fault, REDIRECT_MAX, keepable, redirect_fault};
use super::hot::leave_hot;
use super::{DataPath, OpenFile, ReadData, ReadTo, WriteTo};
use crate::client::counters::add;
use crate::client::inode::{Inode, Place};
use crate::client::session::{EIO, Errno, Redirected, Redirection};
use crate::core::client::RedirectResult;
use crate::proto::RedirectOp;

/// A read on its way over the coordinator.
pub(super) struct WarmRead {
    pub(super) to: ReadTo,
    pub(super) file: Arc<OpenFile>,
    pub(super) offset: u64,
    pub(super) size: u32,
    /// What the kernel gets of the logical blocks that are read.
    pub(super) part: Range<usize>,
    pub(super) place: Place,
}

/// A write on its way over the coordinator. Its inode's gate of hot writes was entered.
pub(super) struct WarmWrite {
    pub(super) to: WriteTo,
    pub(super) inode: Arc<Inode>,
    pub(super) offset: u64,
    pub(super) kill: bool,
    pub(super) place: Place,
}

/// Whether so many bytes go in one redirected request.
pub(super) fn fits(len: usize) -> bool {
    len <= REDIRECT_MAX
}

impl DataPath {
    /// `len` fits.
    pub(super) fn warm_read(&self, read: WarmRead, len: usize) {
        add(&self.counters().warm, 1);
        let (me, began) = (Weak::clone(&self.me), Instant::now());
        let (layout, at) = (read.place.guard.id, read.place.disk);
        let since = Some(self.session.sweep_now());
        let what = Redirection { layout, op: RedirectOp::Read, at, len: len as u32, once: false, since };
        self.session.redirect_then(what, None, move |result| match me.upgrade() {
            Some(me) => me.warm_read_done(read, len, began, result),
            None => read.to.answer(Err(Errno(EIO))),
        });
    }

    fn warm_read_done(&self, read: WarmRead, len: usize, began: Instant, (result, buf): Redirected) {
        let WarmRead { to, file, offset, size, part, place } = read;
        match (result, buf) {
            (RedirectResult::Done, Some(buf)) if buf.len() == len => {
                add(&self.counters().redirected_read, len as u64);
                self.counters().waited(began.elapsed());
                to.answer(Ok(ReadData { buf, part }));
            }
            (RedirectResult::Done, _) => to.answer(Err(Errno(EIO))),
            (result, _) => match redirect_fault(result) {
                Ok(()) | Err(Fault::Restart | Fault::InDoubt) => {
                    self.slow_read(file, offset, size, to, self.session.sweep_before(began.elapsed()));
                }
                Err(Fault::Errno(errno)) => to.answer(Err(errno)),
            },
        }
        drop(place);
    }

    /// `data` fits.
    pub(super) fn warm_write(&self, write: WarmWrite, data: AlignedBuf) {
        add(&self.counters().warm, 1);
        let (me, began) = (Weak::clone(&self.me), Instant::now());
        let (layout, at, len) = (write.place.guard.id, write.place.disk, data.len() as u32);
        let data = keepable(data);
        let kept = data.clone();
        let since = Some(self.session.sweep_now());
        let what = Redirection { layout, op: RedirectOp::Write, at, len, once: true, since };
        self.session.redirect_then(what, Some(kept), move |(result, _)| match me.upgrade() {
            Some(me) => me.warm_write_done(write, &data, began, result),
            None => write.to.answer(Err(Errno(EIO))),
        });
    }

    fn warm_write_done(&self, write: WarmWrite, data: &Bytes, began: Instant, result: RedirectResult) {
        let WarmWrite { mut to, inode, offset, kill, place } = write;
        if result == RedirectResult::Done {
            add(&self.counters().redirected_written, data.len() as u64);
            self.counters().waited(began.elapsed());
            self.written_in_place(&inode);
            self.recent.wrote(self.outstanding.here(), place.disk, data.len(), to.began);
            to.answer(Ok(data.len() as u32));
        } else {
            match redirect_fault(result) {
                Ok(()) | Err(Fault::Restart | Fault::InDoubt) => {
                    let since = self.session.sweep_before(began.elapsed());
                    to.doubtful |= result == RedirectResult::InDoubt;
                    let data = AlignedBuf::from_slice(data);
                    self.slow_write(Arc::clone(&inode), Some(offset), data, kill, (to, since, None));
                }
                Err(Fault::Errno(errno)) => to.answer(Err(errno)),
            }
        }
        leave_hot(&inode);
        drop(place);
    }
}
