//! The hot path. What must be true for it: one layout held covers the range, one written extent holds it, it is
//! aligned (a write), the route is direct. Everything is looked up in one published snapshot; three counts are raised
//! (layout, gate, sub-block gate) and lowered again; the answer is given from the completion.
//!
//! Prevents: a message per I/O, and a stall of in-place I/O while there is no coordinator. Nothing here waits for
//! anybody.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use block::buf::AlignedBuf;
use block::device::{Completion, Done, Io};
use block::error::IoErrorKind;
use block::units::ByteOffset;

use super::files::OpenFile;
use super::warm::{self, WarmRead, WarmWrite};
use super::{DataPath, Pending, ReadData, ReadTo, WriteTo};
use crate::client::counters::add;
use crate::client::gate::Entered;
use crate::client::inode::{Inode, wall_nanos};
use crate::client::layout::LayoutGuard;
use crate::client::session::{EIO, Errno};
use crate::client::writes::Accepted;
use crate::core::client::Reason;
use crate::types::BlockRange;

impl DataPath {
    /// Reads `size` bytes at `offset`, fewer only at the end of the file.
    pub fn submit_read(&self, file: &Arc<OpenFile>, offset: u64, size: u32, to: ReadTo) {
        if file.is_poisoned() {
            return to.answer(Err(Errno(EIO)));
        }
        match self.hot_read(file, offset, size, to) {
            Ok(()) => {}
            Err(to) => self.slow_read(Arc::clone(file), offset, size, to, self.session.sweep_now()),
        }
    }

    /// Writes; with O_APPEND at the end, wherever that is.
    pub fn submit_write(&self, file: &Arc<OpenFile>, offset: u64, data: AlignedBuf, kill: bool, mut to: WriteTo) {
        // In this order: who is of the next life finds its handle poisoned.
        to.life = self.life();
        if file.is_poisoned() {
            return to.answer(Err(Errno(EIO)));
        }
        to.accepted = Some(Accepted::new(&file.inode));
        let since = self.session.sweep_now();
        let (at, data, to) = if file.appends() {
            (None, data, to)
        } else {
            match self.hot_write(&file.inode, offset, data, kill, to) {
                Ok(()) => return,
                Err((data, to)) => (Some(offset), data, to),
            }
        };
        self.slow_write(Arc::clone(&file.inode), at, data, kill, (to, since, Some(Arc::clone(file))));
    }

    fn hot_read(&self, file: &Arc<OpenFile>, offset: u64, size: u32, to: ReadTo) -> Result<(), ReadTo> {
        let asked = BlockRange::of_bytes(offset, u64::from(size));
        let snapshot = file.inode.snapshot.load();
        let end = snapshot.size().min(offset.saturating_add(u64::from(size)));
        if end <= offset {
            // Past the end; the layout over these blocks makes the length known here the truth.
            let Some(_guard) = snapshot.cover(asked) else { return Err(to) };
            add(&self.counters().hot, 1);
            to.answer(Ok(ReadData { buf: AlignedBuf::with_capacity(0), part: 0..0 }));
            return Ok(());
        }
        let start = offset - offset % self.logical;
        let (Ok(len), Ok(head), Ok(n)) = (
            usize::try_from(end.next_multiple_of(self.logical) - start),
            usize::try_from(offset - start),
            usize::try_from(end - offset),
        ) else {
            return Err(to);
        };
        let Some(place) = snapshot.place(asked, start, len) else { return Err(to) };
        let (file, part) = (Arc::clone(file), head..head + n);
        let Some(_in_gate) = self.enter_direct() else {
            if !warm::fits(len) {
                return Err(to);
            }
            self.warm_read(WarmRead { to, file, offset, size, part, place }, len);
            return Ok(());
        };
        let Some(me) = self.me().filter(|_| !place.guard.is_gone()) else { return Err(to) };
        let key = self.outstanding.insert(Pending::Read { to, file, offset, size, part, guard: place.guard });
        add(&self.counters().in_flight, 1);
        add(&self.counters().hot, 1);
        let done = Completion::new(move |done| me.direct_done(key, done));
        self.disk.submit(Io::read_into(ByteOffset(place.disk), AlignedBuf::with_capacity(len), done));
        Ok(())
    }

    pub(super) fn hot_write(
        &self,
        inode: &Arc<Inode>,
        offset: u64,
        data: AlignedBuf,
        kill: bool,
        to: WriteTo,
    ) -> Result<(), (AlignedBuf, WriteTo)> {
        let len = data.len() as u64;
        let aligned = len > 0 && offset.is_multiple_of(self.logical) && len.is_multiple_of(self.logical);
        // A window may lie anywhere in its buffer; devices want logical-block alignment of memory too.
        if !aligned || !data.is_aligned_to(self.logical as usize) {
            return Err((data, to));
        }
        let snapshot = inode.snapshot.load();
        if offset.saturating_add(len) > snapshot.size() || snapshot.kills(kill) {
            return Err((data, to));
        }
        let Some(place) = snapshot.place(BlockRange::of_bytes(offset, len), offset, data.len()) else {
            return Err((data, to));
        };
        let in_gate = self.enter_direct();
        // Looked at under the guard: it is of this life or is gone.
        let goes = !place.guard.is_gone() && to.life == self.life() && (in_gate.is_some() || warm::fits(data.len()));
        let Some(me) = self.me().filter(|_| goes) else {
            return Err((data, to));
        };
        match inode.hot_writes.enter() {
            Entered::Inside => {}
            Entered::Closed => return Err((data, to)),
            Entered::ClosedAndEmpty => {
                inode.hot_left.notify_waiters();
                return Err((data, to));
            }
        }
        let inode = Arc::clone(inode);
        if in_gate.is_none() {
            self.warm_write(WarmWrite { to, inode, offset, kill, place }, data);
            return Ok(());
        }
        let sent = self.sending();
        let key =
            self.outstanding.insert(Pending::Write { to, inode, offset, at: place.disk, guard: place.guard, sent });
        add(&self.counters().in_flight, 1);
        add(&self.counters().hot, 1);
        let done = Completion::new(move |done| me.direct_done(key, done));
        self.disk.submit(Io::write(ByteOffset(place.disk), data, false, done));
        drop(in_gate);
        Ok(())
    }

    /// A direct request has come back, on whatever thread.
    pub(super) fn direct_done(&self, key: crate::client::outstanding::Key, done: Done) {
        self.counters().in_flight.fetch_sub(1, Ordering::Relaxed);
        match self.outstanding.take(key) {
            // A read that was issued again elsewhere; its buffer is dropped here.
            None => {}
            // Whoever waited may have gone.
            Some((Pending::Wait { to, sent, .. }, _)) => {
                let done = match sent {
                    Some(sent) => self.unless_lost(sent, done),
                    None => done,
                };
                drop(to.send(done));
            }
            Some((Pending::Read { to, file, offset, size, part, guard }, age)) => {
                self.read_done((to, age), file, offset, size, part, done);
                drop(guard);
            }
            Some((Pending::Write { to, inode, offset, at, guard, sent }, age)) => {
                self.write_done((to, age), &inode, (offset, at), guard, self.unless_lost(sent, done));
                leave_hot(&inode);
            }
        }
    }

    fn read_done(
        &self,
        (to, age): (ReadTo, Duration),
        file: Arc<OpenFile>,
        offset: u64,
        size: u32,
        part: std::ops::Range<usize>,
        done: Done,
    ) {
        match (done.result, done.buf) {
            (Ok(()), Some(buf)) => {
                add(&self.counters().direct_read, part.len() as u64);
                to.answer(Ok(ReadData { buf, part }));
            }
            (Err(error), _) if path_reason(error.kind).is_some() => {
                self.path_failed(path_reason(error.kind).unwrap_or(Reason::IoFailed));
                self.slow_read(file, offset, size, to, self.session.sweep_before(age));
            }
            (result, _) => to.answer(Err(Errno(result.map_or_else(|e| e.errno(), |()| EIO)))),
        }
    }

    fn write_done(
        &self,
        (mut to, age): (WriteTo, Duration),
        inode: &Arc<Inode>,
        (offset, at): (u64, u64),
        guard: LayoutGuard,
        done: Done,
    ) {
        match (done.result, done.buf) {
            (Ok(()), buf) => {
                let n = buf.map_or(0, |b| b.len());
                add(&self.counters().direct_written, n as u64);
                self.written_in_place(inode);
                self.recent.wrote(self.outstanding.here(), at, n, to.began);
                to.answer(Ok(n as u32));
            }
            (Err(error), Some(buf)) if path_reason(error.kind).is_some() => {
                self.path_failed(path_reason(error.kind).unwrap_or(Reason::IoFailed));
                let since = self.session.sweep_before(age);
                to.doubtful = self.asks_before_repeating();
                to.held = to.doubtful.then_some(guard);
                self.slow_write(Arc::clone(inode), Some(offset), buf, false, (to, since, None));
            }
            (result, _) => to.answer(Err(Errno(result.map_or_else(|e| e.errno(), |()| EIO)))),
        }
    }

    /// **What the rule `ExpiredIsWithdrawn` prevents**, for tests: these writes are answered with EIO while the disk has them.
    pub(super) fn answer_too_soon(&self, which: impl Fn(&Pending, Duration) -> bool) {
        for (pending, _) in self.outstanding.take_all(which) {
            if let Pending::Write { to, inode, guard, .. } = pending {
                to.answer(Err(Errno(EIO)));
                leave_hot(&inode);
                drop(guard);
            }
        }
    }

    /// Before the answer: whoever is told of the write and asks for the time or a flush must find it.
    pub(super) fn written_in_place(&self, inode: &Arc<Inode>) {
        inode.touch(wall_nanos());
        self.list_dirty(inode);
    }
}

/// A hot write has ended; if sub-block writes wait for the last one, they are told.
pub(super) fn leave_hot(inode: &Inode) {
    if inode.hot_writes.leave() {
        inode.hot_left.notify_waiters();
    }
}

/// Whether a failure is about the way to the disk, not about the disk; then why.
pub(super) fn path_reason(kind: IoErrorKind) -> Option<Reason> {
    match kind {
        IoErrorKind::NoPath | IoErrorKind::Aborted => Some(Reason::IoFailed),
        IoErrorKind::TimedOut => Some(Reason::IoTimedOut),
        IoErrorKind::Fenced => Some(Reason::Fenced),
        _ => None,
    }
}
