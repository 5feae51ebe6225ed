//! The check of the volume while it is served, on a thread of its own: it takes as long as reading everything takes.
//!
//! The thread belongs to the reign like the readers do: it ends before the store is closed, and a check that is under way
//! ends within some thousand rows when the reign does, whichever way. So it never keeps the disk open.
//!
//! One check at a time; who asks meanwhile waits for its turn. A check that fails, even by a panic of the database on a
//! damaged page, ends that check and nothing else.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

use super::Coordinator;
use super::actor::Inner;
use crate::meta::check::{Limits, Report, Step};
use crate::meta::{Fatal, MetaError, Reader};

/// A check that was asked for.
pub(super) struct CheckItem {
    heard: Box<dyn FnMut(Step) + Send>,
    done: oneshot::Sender<Result<Report, MetaError>>,
}

/// Why a check came to no result.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The reign ended before.
    #[error("this node's office ended before the check was done")]
    Ended,
    /// The store cannot be read to its end.
    #[error(transparent)]
    Store(MetaError),
}

/// Starts the thread; it ends when the queue is closed.
pub(super) fn start(inner: &Arc<Inner>, reader: &Reader) -> Option<JoinHandle<()>> {
    let (inner, reader) = (Arc::clone(inner), reader.clone());
    let started = thread::Builder::new().name("csv-check".into()).spawn(move || run(&inner, &reader));
    started.inspect_err(|e| tracing::error!("no thread for checks: {e}")).ok()
}

fn run(inner: &Inner, reader: &Reader) {
    while let Some(items) = inner.checks.take(1) {
        for CheckItem { mut heard, done } in items {
            let mut watch = |step: Step| {
                heard(step);
                let over = inner.checks.is_closed() || inner.latch.is_tripped();
                if over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let checked = catch_unwind(AssertUnwindSafe(|| reader.check(Limits::DEFAULT, &mut watch)));
            let result = checked.unwrap_or(Err(MetaError::Fatal(Fatal::Damaged("a page cannot be read"))));
            // Whoever asked may have gone.
            let _ = done.send(result);
        }
    }
}

impl Coordinator {
    /// Checks what is committed now, and the disk beside it. `heard` is told how far it has come, every few thousand rows.
    ///
    /// # Cancel safety
    /// If dropped, the check goes on to its end and nobody hears of it.
    pub async fn check(&self, heard: impl FnMut(Step) + Send + 'static) -> Result<Report, CheckError> {
        let (done, result) = oneshot::channel();
        if !self.inner.checks.push(CheckItem { heard: Box::new(heard), done }) {
            return Err(CheckError::Ended);
        }
        match result.await {
            Ok(Ok(report)) => Ok(report),
            Err(_) | Ok(Err(MetaError::Fatal(Fatal::Interrupted | Fatal::Latched))) => Err(CheckError::Ended),
            Ok(Err(e)) => Err(CheckError::Store(e)),
        }
    }
}
