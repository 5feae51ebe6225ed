//! Requests that are not ended: what they are, and their memory while no path has it.

use crate::buf::AlignedBuf;
use crate::device::{Completion, Done, Io, Op};
use crate::error::{IoError, IoErrorKind};
use crate::multipath::event::{Attempt, IoId};
use crate::units::{ByteLen, ByteOffset};

/// A request.
pub(super) struct Waiting {
    op: Op,
    at: ByteOffset,
    len: ByteLen,
    /// Its memory; none while a path has it, or if it needs none.
    buf: Option<AlignedBuf>,
    /// The sending whose memory is the request's.
    attempt: Attempt,
    /// What the last path said, for people.
    error: Option<IoError>,
    done: Completion,
}

impl Waiting {
    /// Ends it. An error of a path is passed on as it came, if it is the one that ended it.
    pub(super) fn end(self, result: Result<(), IoErrorKind>) {
        let Waiting { op, at, len, error, buf, done, .. } = self;
        let result = result.map_err(|kind| match error {
            Some(error) if error.kind == kind => error,
            _ => IoError::new(kind, op, at, len),
        });
        done.complete(Done { result, buf });
    }
}

/// A request as a path gets it, but for its end.
pub(super) struct Sending {
    pub(super) op: Op,
    pub(super) at: ByteOffset,
    pub(super) len: ByteLen,
    pub(super) buf: Option<AlignedBuf>,
}

/// All of them, by name.
#[derive(Default)]
pub(super) struct Slots {
    all: Vec<Option<Waiting>>,
    free: Vec<u32>,
}

impl Slots {
    /// Takes a request; its name is used again after [`Slots::take`].
    pub(super) fn put(&mut self, io: Io) -> IoId {
        let Io { op, at, len, buf, done } = io;
        let waiting = Some(Waiting { op, at, len, buf, attempt: Attempt::default(), error: None, done });
        match self.free.pop() {
            Some(n) => {
                self.all[n as usize] = waiting;
                IoId(n)
            }
            None => {
                self.all.push(waiting);
                IoId(u32::try_from(self.all.len() - 1).unwrap_or(u32::MAX))
            }
        }
    }

    /// The request for a path. A read whose memory is still with another path gets fresh memory: what comes late over
    /// that one goes nowhere.
    pub(super) fn send(&mut self, io: IoId, attempt: Attempt) -> Option<Sending> {
        let waiting = self.all.get_mut(io.0 as usize)?.as_mut()?;
        let mut buf = waiting.buf.take();
        if buf.is_none() && waiting.op == Op::Read {
            buf = waiting.len.as_usize().map(AlignedBuf::with_capacity);
        }
        waiting.attempt = attempt;
        Some(Sending { op: waiting.op, at: waiting.at, len: waiting.len, buf })
    }

    /// A path gives the memory of a sending back; that of an older one is not the request's any more.
    pub(super) fn back(&mut self, io: IoId, attempt: Attempt, buf: Option<AlignedBuf>, error: Option<IoError>) {
        if let Some(Some(waiting)) = self.all.get_mut(io.0 as usize)
            && waiting.attempt == attempt
        {
            (waiting.buf, waiting.error) = (buf, error);
        }
    }

    /// The request, to be ended.
    pub(super) fn take(&mut self, io: IoId) -> Option<Waiting> {
        let waiting = self.all.get_mut(io.0 as usize)?.take()?;
        self.free.push(io.0);
        Some(waiting)
    }
}
