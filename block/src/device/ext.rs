//! Requests as futures.
//!
//! A dropped future does not withdraw its request: the request owns its buffer and goes on; its
//! answer is thrown away. So a write whose future was dropped may land at any later time.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::{BlockDevice, Completion, Done, Io, Op};
use crate::buf::AlignedBuf;
use crate::error::IoError;
use crate::units::{ByteLen, ByteOffset};

/// Waits for one submitted request. Created submitted: the request is under way before the first poll.
#[must_use = "the request is under way; await its end"]
pub struct Waiting(oneshot::Receiver<Done>);

impl Future for Waiting {
    type Output = Done;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Done> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|answer| answer.unwrap_or_else(|_| Done { result: Err(IoError::dropped()), buf: None }))
    }
}

/// Asynchronous requests on any device.
///
/// # Cancel safety
/// Every method submits when called, before its future is first polled. Dropping the future
/// abandons the answer, not the request.
pub trait DeviceExt: BlockDevice {
    /// Submits and returns what to wait on.
    fn start(&self, op: Op, at: ByteOffset, len: ByteLen, buf: Option<AlignedBuf>) -> Waiting {
        let (done, receiver) = Completion::channel();
        self.submit(Io { op, at, len, buf, done });
        Waiting(receiver)
    }

    /// Reads `len` bytes at `at`.
    fn read(&self, at: ByteOffset, len: usize) -> impl Future<Output = Result<AlignedBuf, IoError>> + Send + 'static {
        let buf = AlignedBuf::with_capacity(len);
        let waiting = self.start(Op::Read, at, ByteLen::from_usize(len), Some(buf));
        async move {
            let done = waiting.await;
            done.result?;
            done.buf.ok_or_else(IoError::dropped)
        }
    }

    /// Writes `buf` at `at`; the buffer comes back (a lost request's is replaced by an empty one).
    fn write(
        &self,
        at: ByteOffset,
        buf: AlignedBuf,
    ) -> impl Future<Output = (Result<(), IoError>, AlignedBuf)> + Send + 'static {
        let len = ByteLen::of(&buf);
        with_buf(self.start(Op::Write { fua: false }, at, len, Some(buf)))
    }

    /// Writes `buf` at `at` to stable storage; the buffer comes back.
    fn write_fua(
        &self,
        at: ByteOffset,
        buf: AlignedBuf,
    ) -> impl Future<Output = (Result<(), IoError>, AlignedBuf)> + Send + 'static {
        let len = ByteLen::of(&buf);
        with_buf(self.start(Op::Write { fua: true }, at, len, Some(buf)))
    }

    /// Puts every write completed before this call on stable storage.
    fn flush(&self) -> impl Future<Output = Result<(), IoError>> + Send + 'static {
        let waiting = self.start(Op::Flush, ByteOffset::ZERO, ByteLen::ZERO, None);
        async move { waiting.await.result }
    }

    /// Gives the range's contents up.
    fn discard(&self, at: ByteOffset, len: ByteLen) -> impl Future<Output = Result<(), IoError>> + Send + 'static {
        let waiting = self.start(Op::Discard, at, len, None);
        async move { waiting.await.result }
    }

    /// Makes the range read as zeroes.
    fn write_zeroes(&self, at: ByteOffset, len: ByteLen) -> impl Future<Output = Result<(), IoError>> + Send + 'static {
        let waiting = self.start(Op::WriteZeroes, at, len, None);
        async move { waiting.await.result }
    }
}

async fn with_buf(waiting: Waiting) -> (Result<(), IoError>, AlignedBuf) {
    let done = waiting.await;
    (done.result, done.buf.unwrap_or_else(|| AlignedBuf::zeroed(0)))
}

impl<D: BlockDevice + ?Sized> DeviceExt for D {}
