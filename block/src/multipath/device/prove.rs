//! Proving a path dead: by itself, or by another path that has its nexus killed; whichever is done first.

use std::sync::Arc;

use super::{Inner, Path};
use crate::multipath::event::{Event, PathId};
use crate::shared::HELD_TYPE;

/// Starts the proof as a task.
pub(super) fn prove(inner: &Arc<Inner>, id: PathId, path: Arc<dyn Path>, survivors: Vec<Arc<dyn Path>>) {
    let keeper = Arc::clone(inner);
    let task = inner.workers.spawn(usize::from(id.0), move || async move {
        let dead = is_dead(path.as_ref(), &survivors).await;
        keeper.tell(Event::Proved { path: id, dead });
    });
    // It goes on by itself; without workers nothing does.
    drop(task);
}

async fn is_dead(path: &dyn Path, survivors: &[Arc<dyn Path>]) -> bool {
    let own = path.abort_outstanding();
    let other = async {
        for survivor in survivors {
            if killed_over(survivor.as_ref(), path).await {
                // Now its own proof ends at once: it waits for nothing that may land.
                path.killed();
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        own = own => own.is_ok(),
        () = other => false,
    }
}

/// PREEMPT AND ABORT of the nexus' own key from another nexus of this node, and the disk must be held against strangers:
/// otherwise the dead nexus, unregistered as it is now, could still write.
async fn killed_over(survivor: &dyn Path, path: &dyn Path) -> bool {
    let (Some(by), Some(victim)) = (survivor.nexus(), path.nexus()) else { return false };
    let preempted = by.reservations.preempt(by.key, victim.key, HELD_TYPE, true).await;
    if let Err(e) = &preempted {
        tracing::warn!("the nexus of {} is not killed over {}: {e}", path.describe(), survivor.describe());
    }
    let held = by.reservations.reservation().await;
    preempted.is_ok() && held.is_ok_and(|h| h.reservation.is_some_and(|r| r.kind == HELD_TYPE))
}
