//! What waits to be sent on one connection. Any thread puts in, the connection's one writer takes out.
//!
//! Bounds: requests are bounded by the caller's admission (`Conn::call`), one-way messages here
//! ([`NotQueued::Full`]), replies by what the peer was allowed to ask and by [`MAX_REPLY_BYTES`]
//! ([`NotQueued::Overflow`], the connection is closed), PING and PONG by being a flag each: a peer that sends
//! PINGs and does not read costs nothing.
//!
//! States: open, then either `Draining` (what is queued still goes out, except requests, whose callers have been
//! told that the connection is closed; then BYE) or `Dead` (nothing goes out).

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::frame::Kind;
use crate::limits::{MAX_BATCH, MAX_POST_BYTES, MAX_POSTS, MAX_REPLY_BYTES};
use crate::outgoing::{OutFrame, Outgoing};

/// Why a frame was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotQueued {
    /// The connection is closing.
    Closed,
    /// Too many one-way messages wait.
    Full,
    /// Too many bytes of answers wait.
    Overflow,
}

/// What the writer got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// At least one frame.
    Frames,
    /// Nothing now.
    Nothing,
    /// Nothing any more.
    Finished,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    Draining,
    Dead,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<OutFrame>,
    phase: Phase,
    ping: bool,
    pong: bool,
    bye: Option<OutFrame>,
    /// Counted until written, not until taken.
    posts: usize,
    post_bytes: usize,
    reply_bytes: usize,
    /// Frames taken and not yet written.
    writing: usize,
}

/// The queue and the writer's bell.
#[derive(Default)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    bell: Notify,
}

impl Outbox {
    /// Queues a frame of an application's message, or a FAIL.
    pub(crate) fn push(&self, frame: OutFrame) -> Result<(), NotQueued> {
        let was_idle = {
            let mut q = self.queue.lock();
            q.admit(&frame)?;
            q.frames.push_back(frame);
            q.frames.len() == 1
        };
        // With more than one frame waiting the bell has been rung already and the writer not come yet.
        if was_idle {
            self.bell.notify_one();
        }
        Ok(())
    }

    /// Owes the peer a PING.
    pub(crate) fn ping(&self) {
        self.queue.lock().ping = true;
        self.bell.notify_one();
    }

    /// Owes the peer a PONG.
    pub(crate) fn pong(&self) {
        self.queue.lock().pong = true;
        self.bell.notify_one();
    }

    /// Open -> Draining: no more frames in; requests are forgotten, the rest goes out, then BYE.
    pub(crate) fn drain(&self, sentence: &str) {
        let mut q = self.queue.lock();
        if q.phase != Phase::Open {
            return;
        }
        q.phase = Phase::Draining;
        q.frames.retain(|f| f.kind != Kind::Request);
        let sentence = crate::error::cut_sentence(sentence).to_owned();
        q.bye = Some(OutFrame::control(Kind::Bye, 0, Bytes::from(sentence)));
        drop(q);
        self.bell.notify_one();
    }

    /// Any -> Dead: nothing goes out any more; the memory is given back now.
    pub(crate) fn kill(&self) {
        let mut q = self.queue.lock();
        q.phase = Phase::Dead;
        q.bye = None;
        let frames = std::mem::take(&mut q.frames);
        drop(q);
        drop(frames);
        self.bell.notify_one();
    }

    /// Does anything wait to be written?
    pub(crate) fn backlog(&self) -> bool {
        let q = self.queue.lock();
        q.writing > 0 || !q.frames.is_empty() || q.ping || q.pong
    }

    /// The writer: moves the next frames into its empty batch.
    pub(crate) fn take(&self, batch: &mut Outgoing) -> Taken {
        let mut q = self.queue.lock();
        if q.phase == Phase::Dead {
            return Taken::Finished;
        }
        q.take_control(batch);
        let n = q.frames.len().min(MAX_BATCH);
        q.writing += n;
        q.frames.drain(..n).for_each(|f| batch.push(f));
        if batch.is_empty()
            && let Some(bye) = q.bye.take()
        {
            q.writing += 1;
            batch.push(bye);
        }
        match (batch.is_empty(), q.phase) {
            (false, _) => Taken::Frames,
            (true, Phase::Open) => Taken::Nothing,
            (true, Phase::Draining | Phase::Dead) => Taken::Finished,
        }
    }

    /// The writer: these frames went out.
    pub(crate) fn written(&self, gone: &Gone) {
        let mut q = self.queue.lock();
        q.writing -= gone.frames;
        q.posts -= gone.posts;
        q.post_bytes -= gone.post_bytes;
        q.reply_bytes -= gone.reply_bytes;
    }

    /// The writer: waits until there may be something to take.
    pub(crate) async fn rung(&self) {
        self.bell.notified().await;
    }
}

impl Queue {
    fn admit(&mut self, frame: &OutFrame) -> Result<(), NotQueued> {
        if self.phase != Phase::Open {
            return Err(NotQueued::Closed);
        }
        let len = frame.len();
        match frame.kind {
            Kind::Oneway => {
                // A message longer than the byte bound still fits an empty queue.
                let full = self.posts >= MAX_POSTS || self.post_bytes + len > MAX_POST_BYTES;
                if full && self.posts > 0 {
                    return Err(NotQueued::Full);
                }
                self.posts += 1;
                self.post_bytes += len;
            }
            Kind::Reply | Kind::Fail => {
                if self.reply_bytes + len > MAX_REPLY_BYTES {
                    return Err(NotQueued::Overflow);
                }
                self.reply_bytes += len;
            }
            _ => {}
        }
        Ok(())
    }

    /// PING and PONG overtake what is queued: they tell whether the peer lives, not how long the queue is.
    fn take_control(&mut self, batch: &mut Outgoing) {
        for (owed, kind) in [(&mut self.pong, Kind::Pong), (&mut self.ping, Kind::Ping)] {
            if std::mem::take(owed) {
                self.writing += 1;
                batch.push(OutFrame::control(kind, 0, Bytes::new()));
            }
        }
    }
}

/// What one write finished.
#[derive(Default)]
pub(crate) struct Gone {
    frames: usize,
    posts: usize,
    post_bytes: usize,
    reply_bytes: usize,
}

impl Gone {
    /// A frame of this kind and length went out.
    pub(crate) fn count(&mut self, kind: Kind, len: usize) {
        self.frames += 1;
        match kind {
            Kind::Oneway => {
                self.posts += 1;
                self.post_bytes += len;
            }
            Kind::Reply | Kind::Fail => self.reply_bytes += len,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
