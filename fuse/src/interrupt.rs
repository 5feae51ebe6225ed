//! Interrupted requests, for servers that wait.
//!
//! What it is: a registry for one mount. A request that will wait for something (a lock, a recall)
//! is watched; the handler passes every INTERRUPT on; the watch then resolves, or calls whom it was given, and the
//! waiter answers EINTR with its own token.
//!
//! The interleaving it prevents: worker A has read a request but not begun to watch it when worker B
//! reads the INTERRUPT for it. The kernel sends it once, and an answer EAGAIN would be accepted only on
//! A's descriptor. So an interrupt that finds no watch is remembered, and the watch resolves at once.
//! Numbers are never reused by the kernel, so what is remembered too long can hurt nobody.

use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Interrupts remembered without a watch. Most belong to requests that were answered in the meantime;
/// more than a process's worth of threads never race at once. When full the oldest is forgotten: its
/// caller waits for the ordinary answer.
const REMEMBERED: usize = 256;

/// The registry. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Interrupts(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    watched: HashMap<u64, Watcher>,
    early: VecDeque<u64>,
}

/// Who is told of an interrupt.
enum Watcher {
    Task(oneshot::Sender<()>),
    Called(Box<dyn FnOnce() + Send>),
}

impl Watcher {
    /// True if somebody still listened. Not to be called under the registry's lock.
    fn tell(self) -> bool {
        match self {
            Watcher::Task(task) => task.send(()).is_ok(),
            Watcher::Called(told) => {
                told();
                true
            }
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("watched", &self.watched.keys()).field("early", &self.early).finish()
    }
}

impl Interrupts {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Watches request `unique` until the watch is dropped.
    #[must_use]
    pub fn watch(&self, unique: u64) -> Watch {
        let (sender, receiver) = oneshot::channel();
        Watch { _watched: self.watch_by(unique, Watcher::Task(sender)), receiver }
    }

    /// Has `told` called when request `unique` is interrupted, by whoever passes the INTERRUPT on or before this returns,
    /// unless what this returns was dropped before. It must not block.
    pub fn watch_then(&self, unique: u64, told: impl FnOnce() + Send + 'static) -> Watched {
        self.watch_by(unique, Watcher::Called(Box::new(told)))
    }

    fn watch_by(&self, unique: u64, watcher: Watcher) -> Watched {
        let mut state = self.0.lock();
        let early = state.early.iter().position(|early| *early == unique);
        let at_once = match early {
            Some(at) => {
                state.early.remove(at);
                Some(watcher)
            }
            None => {
                state.watched.insert(unique, watcher);
                None
            }
        };
        drop(state);
        at_once.map(Watcher::tell);
        Watched { registry: self.clone(), unique }
    }

    /// An INTERRUPT for `unique` came. True if someone watches it.
    pub fn interrupt(&self, unique: u64) -> bool {
        let mut state = self.0.lock();
        if let Some(watcher) = state.watched.remove(&unique) {
            drop(state);
            return watcher.tell();
        }
        if state.early.len() == REMEMBERED {
            state.early.pop_front();
        }
        state.early.push_back(unique);
        false
    }
}

/// A request is watched until this is dropped.
#[derive(Debug)]
#[must_use = "dropped, it watches no more"]
pub struct Watched {
    registry: Interrupts,
    unique: u64,
}

/// A watched request, for a task that waits.
#[derive(Debug)]
pub struct Watch {
    _watched: Watched,
    receiver: oneshot::Receiver<()>,
}

impl Watch {
    /// Resolves when the request was interrupted; never, if it is not.
    ///
    /// # Cancel safety
    /// Safe: may be dropped and called again.
    pub async fn interrupted(&mut self) {
        if self.receiver.is_terminated() {
            return;
        }
        // The sender is dropped only together with this watch's registration.
        let _ = (&mut self.receiver).await;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let watcher = self.registry.0.lock().watched.remove(&self.unique);
        // Not under the lock: what it was given to call may own anything.
        drop(watcher);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn interrupt_that_comes_before_the_watch_is_not_lost() {
        let interrupts = Interrupts::new();
        assert!(!interrupts.interrupt(8));
        block_on(async {
            let mut watch = interrupts.watch(8);
            watch.interrupted().await;
            watch.interrupted().await;
        });
    }

    #[test]
    fn interrupt_resolves_only_its_own_watch() {
        let interrupts = Interrupts::new();
        block_on(async {
            let mut first = interrupts.watch(2);
            let mut second = interrupts.watch(4);
            assert!(interrupts.interrupt(4));
            tokio::select! {
                biased;
                () = first.interrupted() => panic!("2 was not interrupted"),
                () = second.interrupted() => {}
            }
        });
    }

    #[test]
    fn whoever_is_to_be_called_is_called_once_early_or_late_and_not_after_the_watch() {
        let interrupts = Interrupts::new();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let watch = |unique| {
            let (calls, again) = (Arc::clone(&calls), interrupts.clone());
            interrupts.watch_then(unique, move || {
                // It may use the registry.
                again.interrupt(1);
                calls.lock().push(unique);
            })
        };
        interrupts.interrupt(2);
        let early = watch(2);
        let late = watch(4);
        drop(watch(6));
        assert!(interrupts.interrupt(4));
        assert!(!interrupts.interrupt(4) && !interrupts.interrupt(6));
        drop((early, late));
        assert_eq!(*calls.lock(), [2, 4]);
    }

    #[test]
    fn a_dropped_watch_leaves_nothing_and_memory_is_bounded() {
        let interrupts = Interrupts::new();
        drop(interrupts.watch(6));
        drop(interrupts.watch_then(8, || ()));
        assert!(interrupts.0.lock().watched.is_empty());
        for unique in 0..10_000 {
            interrupts.interrupt(unique);
        }
        assert_eq!(interrupts.0.lock().early.len(), REMEMBERED);
    }
}
