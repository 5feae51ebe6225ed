//! One request: owned, linear. The buffer moves in and comes back; the completion must be called.

use std::fmt;

use tokio::sync::oneshot;

use crate::buf::AlignedBuf;
use crate::error::IoError;
use crate::units::{ByteLen, ByteOffset};

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Fill the buffer from the device.
    Read,
    /// Write the buffer to the device; with `fua` it is on stable storage when it completes.
    Write {
        /// Force unit access: completes only on stable storage.
        fua: bool,
    },
    /// Put every write completed before now on stable storage. Position and length are 0.
    Flush,
    /// The range's contents are needed no more; reading it gives zeroes or old data until written.
    Discard,
    /// The range reads as zeroes from now on.
    WriteZeroes,
}

/// A request in somebody's hands. Whoever has it must pass it on or complete it.
#[derive(Debug)]
pub struct Io {
    /// What to do.
    pub op: Op,
    /// Where.
    pub at: ByteOffset,
    /// How much.
    pub len: ByteLen,
    /// Memory of exactly `len` bytes, for reads and writes.
    pub buf: Option<AlignedBuf>,
    /// Called once with the result.
    pub done: Completion,
}

/// How a request ended, with its buffer.
#[derive(Debug)]
pub struct Done {
    /// Ok, or why not.
    pub result: Result<(), IoError>,
    /// The buffer of a read or write; after a failed read its contents are unspecified.
    pub buf: Option<AlignedBuf>,
}

/// The linear end of a request. Dropped without being called it answers
/// [`IoErrorKind::Dropped`](crate::error::IoErrorKind::Dropped) and logs, so that no caller waits for ever.
pub struct Completion(Option<Target>);

enum Target {
    Call(Box<dyn FnOnce(Done) + Send>),
    Channel(oneshot::Sender<Done>),
}

impl Op {
    /// True for what changes the device's contents.
    pub fn changes(self) -> bool {
        matches!(self, Op::Write { .. } | Op::Discard | Op::WriteZeroes)
    }

    /// True for what carries a buffer.
    pub fn moves_data(self) -> bool {
        matches!(self, Op::Read | Op::Write { .. })
    }
}

impl Io {
    /// A read of `len` bytes at `at` into fresh memory.
    pub fn read(at: ByteOffset, len: usize, done: Completion) -> Io {
        Io::read_into(at, AlignedBuf::with_capacity(len), done)
    }

    /// A read at `at` that fills `buf`.
    pub fn read_into(at: ByteOffset, buf: AlignedBuf, done: Completion) -> Io {
        Io { op: Op::Read, at, len: ByteLen::of(&buf), buf: Some(buf), done }
    }

    /// A write of `buf` at `at`.
    pub fn write(at: ByteOffset, buf: AlignedBuf, fua: bool, done: Completion) -> Io {
        Io { op: Op::Write { fua }, at, len: ByteLen::of(&buf), buf: Some(buf), done }
    }

    /// A flush.
    pub fn flush(done: Completion) -> Io {
        Io { op: Op::Flush, at: ByteOffset::ZERO, len: ByteLen::ZERO, buf: None, done }
    }

    /// A request without a buffer: discard or write-zeroes.
    pub fn ranged(op: Op, at: ByteOffset, len: ByteLen, done: Completion) -> Io {
        Io { op, at, len, buf: None, done }
    }

    /// Ends the request with `result` and gives the buffer back.
    pub fn complete(self, result: Result<(), IoError>) {
        self.done.complete(Done { result, buf: self.buf });
    }

    /// Ends the request with an error of this kind.
    pub fn fail(self, kind: crate::error::IoErrorKind) {
        let error = IoError::new(kind, self.op, self.at, self.len);
        self.complete(Err(error));
    }
}

impl Completion {
    /// A completion that calls `call`, on whatever thread the request ends. It must not block.
    pub fn new(call: impl FnOnce(Done) + Send + 'static) -> Completion {
        Completion(Some(Target::Call(Box::new(call))))
    }

    /// A completion whose result is awaited.
    pub fn channel() -> (Completion, oneshot::Receiver<Done>) {
        let (sender, receiver) = oneshot::channel();
        (Completion(Some(Target::Channel(sender))), receiver)
    }

    /// A completion that nobody looks at.
    pub fn ignore() -> Completion {
        Completion::new(drop)
    }

    /// Ends the request.
    pub fn complete(mut self, done: Done) {
        if let Some(target) = self.0.take() {
            target.call(done);
        }
    }
}

impl Target {
    fn call(self, done: Done) {
        match self {
            Target::Call(call) => call(done),
            // A receiver that is gone has stopped waiting; the buffer is freed with the message.
            Target::Channel(sender) => drop(sender.send(done)),
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if let Some(target) = self.0.take() {
            tracing::error!("a block request was dropped without an answer; it is answered as lost");
            target.call(Done { result: Err(IoError::dropped()), buf: None });
        }
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Completion")
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Op::Read => "read",
            Op::Write { fua: false } => "write",
            Op::Write { fua: true } => "write (FUA)",
            Op::Flush => "flush",
            Op::Discard => "discard",
            Op::WriteZeroes => "write-zeroes",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::IoErrorKind;

    #[test]
    fn dropped_request_is_answered_as_lost() {
        let (done, mut receiver) = Completion::channel();
        drop(Io::read(ByteOffset(0), 4096, done));
        let done = receiver.try_recv().expect("answered");
        assert_eq!(done.result.expect_err("lost").kind, IoErrorKind::Dropped);
    }

    #[test]
    fn completion_is_called_once_and_the_buffer_comes_back() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let done = Completion::new(move |done: Done| {
            assert_eq!(done.buf.expect("the buffer").len(), 512);
            counter.fetch_add(1, Ordering::Relaxed);
        });
        Io::read(ByteOffset(0), 512, done).complete(Ok(()));
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }
}
