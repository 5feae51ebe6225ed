//! Where a task runs: on the worker that starts it, so that a request stays on one thread; on the control runtime if a
//! thread starts it that is no worker.

use std::future::Future;

/// Starts tasks.
#[derive(Clone, Debug)]
pub(crate) struct Spawner {
    control: tokio::runtime::Handle,
}

impl Spawner {
    pub(crate) fn new(control: tokio::runtime::Handle) -> Spawner {
        Spawner { control }
    }

    /// On this worker; from any other thread on the control runtime.
    pub(crate) fn here(&self, task: impl Future<Output = ()> + Send + 'static) {
        if block::worker::current().is_some() {
            tokio::task::spawn_local(task);
        } else {
            self.control.spawn(task);
        }
    }

    /// On the control runtime: for what must outlive the request that caused it.
    pub(crate) fn control(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.control.spawn(task);
    }
}
