//! One request to the disk, by whichever route there is.
//!
//! Direct while the gate is open; else it is handed to the session, which sends it when the route machine lets it, or
//! says that the route is direct again. A request moves from one route to the other only in two cases: the direct one
//! came back failed (and closed the gate), or the redirected one was never sent.
//!
//! A write that is with the disk is waited for whatever its age: only the disk, or a withdrawal, says that it will not land. A
//! read or a flush is left to itself once its caller's time is over (`core::client`, `expiry`).

use std::time::Instant;

use block::buf::AlignedBuf;
use block::device::{Completion, Done, Io, Op};
use block::error::IoError;
use block::units::{ByteLen, ByteOffset};
use bytes::Bytes;
use tokio::sync::oneshot;

use super::hot::path_reason;
use super::{DataPath, Pending};
use crate::client::counters::add;
use crate::client::layout::LayoutGuard;
use crate::client::session::{Caller, EIO, Errno, Redirection};
use crate::core::client::RedirectResult;
use crate::proto::RedirectOp;
use crate::types::LayoutId;

/// A redirected request carries at most this much, as much as the kernel asks for at once.
pub(super) const REDIRECT_MAX: usize = 1 << 20;

/// A write of fewer bytes is copied before it is sent, since it may be kept until the next flush. Its payload is a
/// window of the slab that the kernel's request was read into, which is returned with its last window: a slab holds two
/// requests of the largest size, so one small write that is kept would keep 2 MiB. A write of this size keeps at most
/// twice its own; below, what is kept is what it holds. The copy is a fiftieth of what sending it costs.
const COPY_BELOW: usize = REDIRECT_MAX;

/// A write's data as it is sent, and kept until it is stable.
pub(super) fn keepable(data: AlignedBuf) -> Bytes {
    if data.len() < COPY_BELOW { Bytes::copy_from_slice(&data) } else { data.freeze() }
}

/// Why a request to the disk did not succeed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// It failed.
    Errno(Errno),
    /// The layout is gone: the whole operation starts over.
    Restart,
    /// It may have been executed, and was to be once at most.
    InDoubt,
}

/// Whether a write that may have been executed is executed once more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Again {
    /// Nobody else writes there meanwhile.
    Freely,
    /// It ends in doubt.
    Asked,
}

impl DataPath {
    /// Reads `len` bytes (both aligned) at byte `at` of the disk, under a layout the caller has a guard on.
    pub(super) async fn disk_read(
        &self,
        under: &LayoutGuard,
        at: u64,
        len: usize,
        caller: &Caller,
    ) -> Result<AlignedBuf, Fault> {
        let began = Instant::now();
        while !under.is_gone() {
            if let Ok(done) = self.direct(Some(under), Op::Read, at, len, Some(AlignedBuf::with_capacity(len))) {
                let done = self.session.unless_expired(caller, done).await.map_err(Fault::Errno)?;
                match done.map(|d| (d.result, d.buf)) {
                    Ok((Ok(()), Some(buf))) => {
                        add(&self.counters().direct_read, len as u64);
                        return Ok(buf);
                    }
                    Ok((Ok(()), None)) => return Err(Fault::Errno(Errno(EIO))),
                    Ok((Err(error), _)) => self.failed(error)?,
                    // Taken out of the disk's hands because it was stuck.
                    Err(_) => {}
                }
                continue;
            }
            if let Some(buf) = self.redirected_read(under.id, at, len, caller).await? {
                self.counters().waited(began.elapsed());
                return Ok(buf);
            }
        }
        Err(Fault::Restart)
    }

    /// `None`: the route is direct again.
    async fn redirected_read(
        &self,
        layout: LayoutId,
        at: u64,
        len: usize,
        caller: &Caller,
    ) -> Result<Option<AlignedBuf>, Fault> {
        let mut whole: Option<AlignedBuf> = None;
        let mut got = 0;
        while got < len {
            let n = (len - got).min(REDIRECT_MAX);
            let (at, since) = (at + got as u64, caller.since());
            let what = Redirection { layout, op: RedirectOp::Read, at, len: n as u32, once: false, since };
            let (result, buf) = self.session.redirect(what, None).await;
            match (result, buf) {
                (RedirectResult::Done, Some(buf)) if buf.len() == len => whole = Some(buf),
                (RedirectResult::Done, Some(buf)) if buf.len() == n => {
                    whole.get_or_insert_with(|| AlignedBuf::zeroed(len))[got..got + n].copy_from_slice(&buf);
                }
                (RedirectResult::Done, _) => return Err(Fault::Errno(Errno(EIO))),
                (result, _) => return redirect_fault(result).map(|()| None),
            }
            got += n;
        }
        add(&self.counters().redirected_read, len as u64);
        Ok(whole)
    }

    /// Writes a buffer (aligned) at byte `at` of the disk, under a layout the caller has a guard on. After a failure
    /// the buffer comes back.
    pub(super) async fn disk_write(
        &self,
        under: &LayoutGuard,
        at: u64,
        mut buf: AlignedBuf,
        again: Again,
        caller: &Caller,
    ) -> Result<(), (Fault, AlignedBuf)> {
        let began = Instant::now();
        let len = buf.len();
        let once = again == Again::Asked && self.asks_before_repeating();
        while !under.is_gone() {
            let data = match self.direct(Some(under), Op::Write { fua: false }, at, len, Some(buf)) {
                Ok(done) => match self.direct_written(done.await.ok(), len) {
                    Ok(()) => return Ok(()),
                    Err((None, back)) if once => return Err((Fault::InDoubt, back)),
                    Err((None, back)) => {
                        buf = back;
                        continue;
                    }
                    Err((Some(fault), back)) => return Err((fault, back)),
                },
                Err(back) => back.map(keepable).unwrap_or_default(),
            };
            match self.redirected_write(under.id, at, &data, once, caller).await {
                Ok(true) => {
                    self.counters().waited(began.elapsed());
                    return Ok(());
                }
                Ok(false) => buf = AlignedBuf::from_slice(&data),
                Err(fault) => return Err((fault, AlignedBuf::from_slice(&data))),
            }
        }
        Err((Fault::Restart, buf))
    }

    /// What became of a direct write: done, failed, or (`None`) to be tried the other way.
    fn direct_written(&self, done: Option<Done>, len: usize) -> Result<(), (Option<Fault>, AlignedBuf)> {
        let lost = || (Some(Fault::Errno(Errno(EIO))), AlignedBuf::with_capacity(0));
        let done = done.ok_or_else(lost)?;
        let buf = done.buf.ok_or_else(lost)?;
        match done.result {
            Ok(()) => {
                add(&self.counters().direct_written, len as u64);
                Ok(())
            }
            Err(error) => Err((self.failed(error).err(), buf)),
        }
    }

    /// `false`: the route is direct again, and nothing, or a part that will be written once more, was written.
    async fn redirected_write(
        &self,
        layout: LayoutId,
        at: u64,
        data: &Bytes,
        once: bool,
        caller: &Caller,
    ) -> Result<bool, Fault> {
        let mut put = 0;
        while put < data.len() {
            let n = (data.len() - put).min(REDIRECT_MAX);
            let part = data.slice(put..put + n);
            let (at, since) = (at + put as u64, caller.since());
            let what = Redirection { layout, op: RedirectOp::Write, at, len: n as u32, once, since };
            let (result, _) = self.session.redirect(what, Some(part)).await;
            if result != RedirectResult::Done {
                return match redirect_fault(result) {
                    Ok(()) | Err(Fault::Restart) if once && put > 0 => Err(Fault::InDoubt),
                    other => other.map(|()| false),
                };
            }
            put += n;
        }
        add(&self.counters().redirected_written, data.len() as u64);
        Ok(true)
    }

    /// Everything answered before now becomes stable.
    pub(super) async fn flush(&self, caller: &Caller) -> Result<(), Errno> {
        loop {
            if let Ok(done) = self.direct(None, Op::Flush, 0, 0, None) {
                match self.session.unless_expired(caller, done).await?.map(|d| d.result) {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(error)) => match self.failed(error) {
                        Err(Fault::Errno(errno)) => return Err(errno),
                        Ok(()) | Err(Fault::Restart | Fault::InDoubt) => continue,
                    },
                    Err(_) => return Err(Errno(EIO)),
                }
            }
            match self.session.redirect(Redirection::flush(caller.since()), None).await.0 {
                RedirectResult::Done => return Ok(()),
                RedirectResult::Direct | RedirectResult::NoLayout | RedirectResult::InDoubt => {}
                RedirectResult::Errno(errno) => return Err(Errno(errno)),
                RedirectResult::Evicted | RedirectResult::Expired => return Err(Errno(EIO)),
            }
        }
    }

    /// Submits to the disk if the gate is open and the layout held, else gives the buffer back. What comes back is for the caller to
    /// judge; nothing comes back for a read that was taken out of the disk's hands.
    fn direct(
        &self,
        under: Option<&LayoutGuard>,
        op: Op,
        at: u64,
        len: usize,
        buf: Option<AlignedBuf>,
    ) -> Result<oneshot::Receiver<Done>, Option<AlignedBuf>> {
        let (Some(in_gate), Some(me)) = (self.enter_direct(), self.me()) else { return Err(buf) };
        if under.is_some_and(|guard| guard.is_gone()) {
            return Err(buf);
        }
        let (to, answer) = oneshot::channel();
        let lands = matches!(op, Op::Write { .. });
        let sent = op.changes().then(|| self.sending());
        let key = self.outstanding.insert(Pending::Wait { read: op == Op::Read, lands, to, sent });
        add(&self.counters().in_flight, 1);
        let done = Completion::new(move |done| me.direct_done(key, done));
        self.disk.submit(Io { op, at: ByteOffset(at), len: ByteLen::from_usize(len), buf, done });
        drop(in_gate);
        Ok(answer)
    }

    /// A direct request has failed: `Ok` if the other route is to be tried.
    fn failed(&self, error: IoError) -> Result<(), Fault> {
        match path_reason(error.kind) {
            Some(reason) => {
                self.path_failed(reason);
                Ok(())
            }
            None => Err(Fault::Errno(Errno(error.errno()))),
        }
    }
}

/// `Ok`: go direct.
pub(super) fn redirect_fault(result: RedirectResult) -> Result<(), Fault> {
    match result {
        RedirectResult::Direct => Ok(()),
        RedirectResult::NoLayout => Err(Fault::Restart),
        RedirectResult::InDoubt => Err(Fault::InDoubt),
        RedirectResult::Errno(errno) => Err(Fault::Errno(Errno(errno))),
        RedirectResult::Evicted | RedirectResult::Expired | RedirectResult::Done => Err(Fault::Errno(Errno(EIO))),
    }
}
