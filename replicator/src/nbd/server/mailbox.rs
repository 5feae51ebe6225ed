//! Where the device's answers wait for their connection. Completions run on any thread, usually on the connection's own
//! worker and often inside `submit`.
//!
//! The waker is there only while the connection sleeps: completions inside `submit` wake nobody. Its bound is the
//! number of requests in flight.

use std::task::{Context, Waker};

use block::device::Done;
use block::{Extent, IoError};
use parking_lot::Mutex;

/// The answer to one request of the device.
#[derive(Debug)]
pub(super) enum Answer {
    Io(Done),
    Extents(Result<Vec<Extent>, IoError>),
}

#[derive(Debug, Default)]
pub(super) struct Mailbox {
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    /// The place of the job, and its answer.
    answers: Vec<(usize, Answer)>,
    sleeper: Option<Waker>,
}

impl Mailbox {
    pub(super) fn put(&self, job: usize, answer: Answer) {
        let sleeper = {
            let mut inside = self.inside.lock();
            inside.answers.push((job, answer));
            inside.sleeper.take()
        };
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }

    /// Swaps what is there for `empty`.
    pub(super) fn take(&self, empty: &mut Vec<(usize, Answer)>) {
        let mut inside = self.inside.lock();
        inside.sleeper = None;
        std::mem::swap(&mut inside.answers, empty);
    }

    /// The connection sleeps until something is put; false if something is there.
    pub(super) fn sleep(&self, cx: &Context<'_>) -> bool {
        let mut inside = self.inside.lock();
        if !inside.answers.is_empty() {
            return false;
        }
        inside.sleeper = Some(cx.waker().clone());
        true
    }
}
