//! Where a connection is told things: by the device, by its units, by other connections. Bounded by what the connection
//! has begun: each of its commands and waits is told a few times at most.
//!
//! The waker is there only while the connection sleeps: completions inside `submit` wake nobody.

use std::task::{Context, Waker};

use block::device::Done;
use block::{Extent, IoError};
use parking_lot::Mutex;

use crate::core::unit::tasks::{TaskId, Wait};
use crate::store::StoreError;

/// What a connection is told.
#[derive(Debug)]
pub(crate) enum Note {
    /// A request of the device has ended, of the job with this number.
    Done(usize, Done),
    /// Where data lie.
    Extents(usize, Result<Vec<Extent>, IoError>),
    /// Reservations are stored, or not.
    Stored(usize, Result<(), StoreError>),
    /// A command of this unit may run.
    Run(usize, TaskId),
    /// A command of this unit is aborted.
    Abort(usize, TaskId),
    /// What was waited for has ended.
    Over(Wait),
    /// The session is to end now.
    End(&'static str),
    /// What is held up may begin.
    LetGo,
    /// The initiator is to be asked for a logout within so many seconds.
    AskLogout(u16),
}

#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    notes: Vec<Note>,
    sleeper: Option<Waker>,
}

impl Mailbox {
    pub(crate) fn put(&self, note: Note) {
        let sleeper = {
            let mut inside = self.inside.lock();
            inside.notes.push(note);
            inside.sleeper.take()
        };
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }

    /// Swaps what is there for `empty`.
    pub(crate) fn take(&self, empty: &mut Vec<Note>) {
        let mut inside = self.inside.lock();
        inside.sleeper = None;
        std::mem::swap(&mut inside.notes, empty);
    }

    /// The connection sleeps until something is put; false if something is there.
    pub(crate) fn sleep(&self, cx: &Context<'_>) -> bool {
        let mut inside = self.inside.lock();
        if !inside.notes.is_empty() {
            return false;
        }
        inside.sleeper = Some(cx.waker().clone());
        true
    }
}
