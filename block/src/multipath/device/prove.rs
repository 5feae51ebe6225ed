//! Proving a path dead: by itself, or by another nexus of this node that has its nexus killed; whichever is done first.
//!
//! Another nexus is one that is registered, whether or not its path is used, and each is asked again until the proof is there.
//! Prevents: two paths fail together, the one that comes back first cannot be used before it is certain that nothing is in flight on
//! the other, nobody but it could prove that, and it was asked while it was gone.

use std::sync::Arc;
use std::time::Duration;

use super::{Inner, Path};
use crate::multipath::event::{Event, PathId};
use crate::shared::HELD_TYPE;

/// Between two rounds of asking the others: far below what waits for the proof, far above what asking takes.
const AGAIN: Duration = Duration::from_millis(250);
/// An answer of a nexus that takes longer is not waited for: the next one may be well.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Starts the proof as a task.
pub(super) fn prove(inner: &Arc<Inner>, id: PathId, path: Arc<dyn Path>, others: Vec<Arc<dyn Path>>) {
    let keeper = Arc::clone(inner);
    let task = inner.workers.spawn(usize::from(id.0), move || async move {
        let dead = is_dead(path.as_ref(), &others).await;
        keeper.tell(Event::Proved { path: id, dead });
    });
    // It goes on by itself; without workers nothing does.
    drop(task);
}

async fn is_dead(path: &dyn Path, others: &[Arc<dyn Path>]) -> bool {
    let own = path.abort_outstanding();
    let other = async {
        while !killed_over_any(others, path).await {
            tokio::time::sleep(AGAIN).await;
        }
        // Now its own proof ends at once: it waits for nothing that may land.
        path.killed();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        own = own => own.is_ok(),
        () = other => false,
    }
}

async fn killed_over_any(others: &[Arc<dyn Path>], path: &dyn Path) -> bool {
    for other in others {
        let killed = tokio::time::timeout(ANSWER_WITHIN, killed_over(other.as_ref(), path)).await;
        if killed.unwrap_or(false) {
            return true;
        }
    }
    false
}

/// PREEMPT AND ABORT of the nexus' own key from another nexus of this node, and the disk must be held against strangers:
/// otherwise the dead nexus, unregistered as it is now, could still write.
async fn killed_over(survivor: &dyn Path, path: &dyn Path) -> bool {
    let (Some(by), Some(victim)) = (survivor.nexus(), path.nexus()) else { return false };
    let preempted = by.reservations.preempt(by.key, victim.key, HELD_TYPE, true).await;
    if let Err(e) = &preempted {
        tracing::debug!("the nexus of {} is not killed over {}: {e}", path.describe(), survivor.describe());
    }
    let held = by.reservations.reservation().await;
    preempted.is_ok() && held.is_ok_and(|h| h.reservation.is_some_and(|r| r.kind == HELD_TYPE))
}
