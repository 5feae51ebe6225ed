//! Redirected I/O: from whoever brings it straight to the device, and from its completion to whoever is told.
//!
//! The core's check and guard are one step under its lock; the payload moves into the request as it came, a read's
//! memory moves into the answer. The guard goes back from the completion, whatever became of the task that asked:
//! only then can nothing of the request reach the disk any more.
//!
//! The stability verifier of an answer carries the device's count of losses: of a read or write as it was when the request was
//! passed on, of a flush as it is when it has ended. A flush that is told of a loss is answered with the new verifier: by that its
//! client knows that it covers nothing of before, and repeats what it kept.

use std::sync::Arc;

use block::buf::AlignedBuf;
use block::device::{Completion, Done, Io};
use block::error::{IoError, IoErrorKind};
use block::units::ByteOffset;
use rustix::io::Errno;

use super::actor::Inner;
use crate::core::coord::{Event, GuardId};
use crate::proto::{Redirect, RedirectAnswer, RedirectOp};

/// The longest redirected request: what a FUSE request may carry.
const MAX_LEN: u32 = 1 << 20;

/// A guard on its way through the device.
struct Guarded {
    inner: Arc<Inner>,
    guard: GuardId,
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.inner.event(Event::RedirectEnded { guard: self.guard });
    }
}

/// Executes one request. `then` is told, by the completion of the request if it went to the device.
pub(super) fn redirect(
    inner: &Arc<Inner>,
    request: Redirect,
    payload: Option<AlignedBuf>,
    then: impl FnOnce(RedirectAnswer, Option<AlignedBuf>) + Send + 'static,
) {
    inner.metrics.redirects.add(1);
    let guarded = match begin(inner, &request, payload.as_deref()) {
        Ok(guarded) => guarded,
        Err(answer) => return then(answer, None),
    };
    let passed = inner.verifier();
    let completion = Completion::new(move |Done { result, buf }| {
        let inner = Arc::clone(&guarded.inner);
        // The guard first: whoever is told finds it gone.
        drop(guarded);
        match result {
            Ok(()) => {
                count(&inner, &request);
                let data = if request.op == RedirectOp::Read { buf } else { None };
                let verifier = if request.op == RedirectOp::Flush { inner.verifier() } else { passed };
                then(RedirectAnswer::Done { verifier }, data);
            }
            Err(e) if e.kind == IoErrorKind::CacheLost && request.op == RedirectOp::Flush => {
                then(RedirectAnswer::Done { verifier: inner.verifier() }, None);
            }
            Err(e) => then(refusal(&e), None),
        }
    });
    let at = ByteOffset(request.at);
    inner.device.submit(match (request.op, payload) {
        (RedirectOp::Write, Some(data)) => Io::write(at, data, false, completion),
        (RedirectOp::Read, _) => Io::read(at, request.len as usize, completion),
        (RedirectOp::Flush | RedirectOp::Write, _) => Io::flush(completion),
    });
}

/// Checks it and takes its guard.
fn begin(inner: &Arc<Inner>, request: &Redirect, payload: Option<&[u8]>) -> Result<Guarded, RedirectAnswer> {
    let len = usize::try_from(request.len).unwrap_or(usize::MAX);
    let fits = match (request.op, payload) {
        (RedirectOp::Write, Some(data)) => data.len() == len && request.len <= MAX_LEN,
        (RedirectOp::Write, None) => false,
        (RedirectOp::Read, _) => request.len > 0 && request.len <= MAX_LEN,
        (RedirectOp::Flush, _) => true,
    };
    if !fits || request.volume != inner.volume {
        return Err(RedirectAnswer::Errno(Errno::INVAL.raw_os_error()));
    }
    let guard = inner.lock().core.redirect_begin(request)?;
    Ok(Guarded { inner: Arc::clone(inner), guard })
}

fn count(inner: &Inner, request: &Redirect) {
    match request.op {
        RedirectOp::Read => inner.metrics.redirected_read.add(u64::from(request.len)),
        RedirectOp::Write => inner.metrics.redirected_written.add(u64::from(request.len)),
        RedirectOp::Flush => {}
    }
}

/// What is wrong with the way to the disk is this node's trouble, not the request's: the client keeps it and asks the
/// next coordinator. Only what the disk itself says of these blocks is the application's.
fn refusal(e: &IoError) -> RedirectAnswer {
    match e.kind {
        IoErrorKind::NoPath
        | IoErrorKind::TimedOut
        | IoErrorKind::Aborted
        | IoErrorKind::Fenced
        | IoErrorKind::ShuttingDown
        | IoErrorKind::Dropped => RedirectAnswer::StaleEpoch { hint: None },
        _ => RedirectAnswer::Errno(e.errno()),
    }
}
