//! A few threads that run blocking jobs: the fallback of file devices, and compare-and-write.
//!
//! At most [`QUEUED`] jobs wait; who brings another sleeps until there is room. Jobs never submit jobs,
//! so that wait always ends. Dropping the pool lets the queued jobs run to their end first; it does
//! not wait for that.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex};

type Job = Box<dyn FnOnce() + Send>;

/// Jobs waiting: four FUSE queues of 256.
const QUEUED: usize = 1024;

pub(crate) struct Pool {
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    room: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    closed: bool,
    threads: usize,
}

impl Pool {
    pub(crate) fn new(name: &str, threads: usize) -> Pool {
        let queue = Arc::new(Queue::default());
        for index in 0..threads {
            let of_thread = Arc::clone(&queue);
            let spawned = thread::Builder::new().name(format!("{name}-{index}")).spawn(move || serve(&of_thread));
            match spawned {
                Ok(_) => queue.state.lock().threads += 1,
                Err(error) => tracing::error!("a thread for blocking I/O does not start: {error}"),
            }
        }
        Pool { queue }
    }

    /// Queues the job. If no thread could be started it runs here, which is slow but not lost.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.queue.state.lock();
        if state.threads == 0 {
            drop(state);
            return job();
        }
        while state.jobs.len() >= QUEUED {
            self.queue.room.wait(&mut state);
        }
        state.jobs.push_back(Box::new(job));
        drop(state);
        self.queue.arrived.notify_one();
    }
}

fn serve(queue: &Queue) {
    let mut state = queue.state.lock();
    loop {
        if let Some(job) = state.jobs.pop_front() {
            drop(state);
            queue.room.notify_one();
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                tracing::error!("a blocking I/O job panicked; its thread goes on");
            }
            state = queue.state.lock();
        } else if state.closed {
            return;
        } else {
            queue.arrived.wait(&mut state);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queue.state.lock().closed = true;
        self.queue.arrived.notify_all();
    }
}
