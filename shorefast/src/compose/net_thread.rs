//! The thread that the cluster network lives on: a runtime of its own on one thread, for connections and nothing else.
//!
//! A request that comes in is answered, or handed on, by the thread that reads it, and that thread writes the answer. On a
//! runtime of several threads each of these steps may wake another one, which costs more than the step. What takes time, and
//! whatever else must not hold the connections up, belongs to the control threads ([`super::service`]).

use std::future::Future;
use std::io;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Dropped, it ends; what still runs there is dropped with it.
pub(super) struct NetThread {
    handle: Handle,
    _stop: oneshot::Sender<std::convert::Infallible>,
}

impl NetThread {
    /// Starts it.
    pub(super) fn start() -> io::Result<NetThread> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        std::thread::Builder::new().name("net".to_owned()).spawn(move || {
            // An error: the other end was dropped.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        })?;
        Ok(NetThread { handle, _stop: stop })
    }

    /// Runs something there to its end; `None` if the thread ended before.
    ///
    /// # Cancel safety
    /// If dropped, it goes on.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        self.handle.spawn(work).await.ok()
    }
}
