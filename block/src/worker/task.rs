//! Local tasks started from elsewhere.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

/// What a worker runs to start a task: makes the future and spawns it locally.
pub(super) type Start = Box<dyn FnOnce() + Send>;

/// The result of a task that runs on a worker. Dropping it lets the task go on.
#[derive(Debug)]
pub struct Task<T>(oneshot::Receiver<T>);

/// The task panicked, or its worker ended before it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the task ended without a result: it panicked or its worker was shut down")]
pub struct TaskLost;

impl<T> Task<T> {
    /// Waits on a thread that runs no async code.
    ///
    /// # Panics
    /// On a worker, or any other thread inside an async runtime.
    pub fn wait(self) -> Result<T, TaskLost> {
        self.0.blocking_recv().map_err(|_| TaskLost)
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, TaskLost>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|answer| answer.map_err(|_| TaskLost))
    }
}

/// A task and what starts it.
pub(super) fn prepare<F, Fut>(f: F) -> (Task<Fut::Output>, Start)
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future + 'static,
    Fut::Output: Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    let start = move || {
        let future = f();
        tokio::task::spawn_local(async move {
            // A receiver that is gone does not want the result.
            drop(sender.send(future.await));
        });
    };
    (Task(receiver), Box::new(start))
}
