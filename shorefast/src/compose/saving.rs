//! Writing what a node remembers into its own folder: one change at a time, on a thread that may be stuck with the disk.
//!
//! That folder lies on a disk of the host, which may hang like any other. Whoever only looks at what is remembered never waits for
//! it: all of it is in memory, behind locks that are held for moments, and is changed there once it has been written.
//! Prevents: one change waits for that disk on each of the two control threads, or waits for the other's lock; the node answers no command,
//! no node that asks it, and no signal, although all that its volumes need is there.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::exit::Failure;

/// Nobody else changes anything that is remembered; only who has this may write.
pub(super) struct Turn {
    _held: OwnedMutexGuard<()>,
}

/// Gives turns.
#[derive(Default)]
pub(super) struct Saving(Arc<Mutex<()>>);

impl Saving {
    /// Does what writes, when its turn has come.
    ///
    /// # Cancel safety
    /// What has begun goes on to its end, and nothing else begins before.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Turn) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let turn = Turn { _held: Arc::clone(&self.0).lock_owned().await };
        let done = tokio::task::spawn_blocking(move || job(&turn)).await;
        done.unwrap_or_else(|e| {
            Err(Failure::failed(format!("A change was not written: {e}."), "See the daemon's log; that is a defect."))
        })
    }
}

#[cfg(test)]
impl Turn {
    /// For who is alone with what it changes.
    pub(super) fn alone() -> Turn {
        let free = Arc::new(Mutex::new(())).try_lock_owned();
        Turn { _held: free.expect("nobody else has it") }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// The disk hangs for the first; its asker gives up, and the second still waits.
    #[tokio::test]
    async fn what_has_begun_ends_before_anything_else_begins_whoever_gives_up() {
        let saving = Arc::new(Saving::default());
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (heal, healed) = mpsc::channel::<()>();
        let (say, said) = mpsc::channel();
        let first = {
            let (saving, say) = (Arc::clone(&saving), say.clone());
            tokio::spawn(async move {
                saving
                    .run(move |_| {
                        begun.send(()).ok();
                        healed.recv().ok();
                        say.send("first").ok();
                        Ok(())
                    })
                    .await
            })
        };
        has_begun.await.expect("it begins");
        first.abort();
        assert!(first.await.is_err_and(|e| e.is_cancelled()));
        let second = tokio::spawn(async move {
            saving
                .run(move |_| {
                    say.send("second").ok();
                    Ok(())
                })
                .await
        });
        heal.send(()).expect("it still waits");
        second.await.expect("no panic").expect("done");
        assert_eq!(said.iter().take(2).collect::<Vec<_>>(), ["first", "second"]);
    }
}
