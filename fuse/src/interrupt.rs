//! Interrupted requests, for servers that wait.
//!
//! What it is: a registry for one mount. A request that will wait for something (a lock, a recall)
//! is watched; the handler passes every INTERRUPT on; the watch then resolves and the waiter answers
//! EINTR with its own token.
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

#[derive(Debug, Default)]
struct State {
    watched: HashMap<u64, oneshot::Sender<()>>,
    early: VecDeque<u64>,
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
        let mut state = self.0.lock();
        match state.early.iter().position(|early| *early == unique) {
            Some(at) => {
                state.early.remove(at);
                // The receiver is right here; a send to it cannot fail.
                let _ = sender.send(());
            }
            None => {
                state.watched.insert(unique, sender);
            }
        }
        drop(state);
        Watch { registry: self.clone(), unique, receiver }
    }

    /// An INTERRUPT for `unique` came. True if someone watches it.
    pub fn interrupt(&self, unique: u64) -> bool {
        let mut state = self.0.lock();
        if let Some(sender) = state.watched.remove(&unique) {
            return sender.send(()).is_ok();
        }
        if state.early.len() == REMEMBERED {
            state.early.pop_front();
        }
        state.early.push_back(unique);
        false
    }
}

/// A watched request.
#[derive(Debug)]
pub struct Watch {
    registry: Interrupts,
    unique: u64,
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

impl Drop for Watch {
    fn drop(&mut self) {
        self.registry.0.lock().watched.remove(&self.unique);
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
    fn a_dropped_watch_leaves_nothing_and_memory_is_bounded() {
        let interrupts = Interrupts::new();
        drop(interrupts.watch(6));
        assert!(interrupts.0.lock().watched.is_empty());
        for unique in 0..10_000 {
            interrupts.interrupt(unique);
        }
        assert_eq!(interrupts.0.lock().early.len(), REMEMBERED);
    }
}
