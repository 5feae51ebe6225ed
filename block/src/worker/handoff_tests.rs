//! The hand-over in every interleaving of a few threads, by loom. A request that is left behind, or a thread that sleeps for ever,
//! ends a model as a deadlock.

use loom::sync::Arc;
use loom::thread;

use handoff::Inbox;

/// The same code over loom's primitives.
#[path = "handoff.rs"]
#[allow(clippy::duplicate_mod, reason = "that is the point")]
#[allow(dead_code, reason = "starts of tasks and the limits of a real worker are not part of the model")]
mod handoff;

/// Loom's primitives with the calls of those that are used.
#[allow(dead_code, reason = "what the hand-over calls")]
mod sync {
    use std::collections::VecDeque;
    use std::ops::{Deref, DerefMut};

    pub(super) use loom::sync::atomic::{AtomicBool, Ordering};

    /// A queue of bounded length, each call of which is one step: as lock-free queues are seen from outside.
    pub(super) struct ArrayQueue<T>(loom::sync::Mutex<VecDeque<T>>, usize);

    impl<T> ArrayQueue<T> {
        pub(super) fn new(room: usize) -> Self {
            Self(loom::sync::Mutex::new(VecDeque::new()), room)
        }

        pub(super) fn push(&self, value: T) -> Result<(), T> {
            let mut queue = self.0.lock().unwrap();
            if queue.len() == self.1 {
                return Err(value);
            }
            queue.push_back(value);
            Ok(())
        }

        pub(super) fn pop(&self) -> Option<T> {
            self.0.lock().unwrap().pop_front()
        }

        pub(super) fn is_full(&self) -> bool {
            self.0.lock().unwrap().len() == self.1
        }
    }

    pub(super) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(super) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(super) fn lock(&self) -> Guard<'_, T> {
            Guard(Some(self.0.lock().unwrap()))
        }
    }

    /// Empty only inside a wait.
    pub(super) struct Guard<'a, T>(Option<loom::sync::MutexGuard<'a, T>>);

    impl<T> Deref for Guard<'_, T> {
        type Target = T;
        fn deref(&self) -> &T {
            self.0.as_ref().unwrap()
        }
    }

    impl<T> DerefMut for Guard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().unwrap()
        }
    }

    pub(super) struct Condvar(loom::sync::Condvar);

    impl Condvar {
        pub(super) fn new() -> Self {
            Self(loom::sync::Condvar::new())
        }

        pub(super) fn wait<T>(&self, guard: &mut Guard<'_, T>) {
            guard.0 = Some(self.0.wait(guard.0.take().unwrap()).unwrap());
        }

        pub(super) fn notify_all(&self) {
            self.0.notify_all();
        }
    }

    pub(super) struct Notify(loom::sync::Notify);

    impl Notify {
        pub(super) fn new() -> Self {
            Self(loom::sync::Notify::new())
        }

        pub(super) fn notify_one(&self) {
            self.0.notify();
        }

        pub(super) fn wait(&self) {
            self.0.wait();
        }
    }
}

type Requests = Inbox<u32, ()>;

fn submits(inbox: &Arc<Requests>, request: u32) -> thread::JoinHandle<Option<u32>> {
    let inbox = Arc::clone(inbox);
    thread::spawn(move || inbox.push_request(request).err())
}

/// A turn of a worker, as `take` in `start.rs` does it.
fn turn(inbox: &Requests) -> Vec<u32> {
    let taken: Vec<u32> = std::iter::from_fn(|| inbox.pop_request()).collect();
    if !taken.is_empty() {
        inbox.made_room();
    }
    taken
}

#[test]
fn every_request_arrives_though_the_queue_is_full_again_and_again() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let inbox = Arc::new(Requests::with_room(1));
        let others = [1, 2].map(|request| submits(&inbox, request));
        let mut got = Vec::new();
        while got.len() < 2 {
            inbox.arrived.wait();
            got.extend(turn(&inbox));
        }
        got.sort_unstable();
        assert_eq!(got, [1, 2]);
        assert_eq!(others.map(|other| other.join().unwrap()), [None, None]);
    });
}

#[test]
fn a_request_that_meets_the_end_of_its_worker_is_answered_once_by_one_of_both() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let inbox = Arc::new(Requests::with_room(1));
        let others = [1, 2].map(|request| submits(&inbox, request));
        let mut answered = turn(&inbox);
        inbox.close();
        answered.extend(turn(&inbox));
        answered.extend(others.into_iter().filter_map(|other| other.join().unwrap()));
        // What came after the last look of the worker was given back to whoever brought it.
        answered.sort_unstable();
        assert_eq!(answered, [1, 2]);
        assert_eq!(inbox.pop_request(), None);
    });
}
