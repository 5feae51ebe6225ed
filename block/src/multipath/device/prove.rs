//! Proving a path dead: by itself, or by another nexus of this node that has its nexus killed; whichever is done first.
//!
//! Another nexus is one that is registered, whether or not its path is used, and each is asked again until the proof is there.
//! Prevents: two paths fail together, the one that comes back first cannot be used before it is certain that nothing is in flight on
//! the other, nobody but it could prove that, and it was asked while it was gone.
//!
//! **Only an answered PREEMPT AND ABORT kills.** A target takes the registration away first and ends the commands then. Prevents: the
//! write that is with the disk behind the target keeps that answer back; another nexus is asked, the key is gone, and that is taken for
//! the proof; the write is sent again, newer data are written, and the old one lands. So a question that takes long stays out while
//! another nexus is asked as well; and where its answer is lost the unit is reset, after the path has had its time to prove it itself.
//!
//! **It is the key of the beginning that is taken away.** Prevents: the path logs in and enters under another key, which proves its old nexus
//! dead; a question that is only now on its way names the new key, and kills what has just entered, which begins it all again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{Inner, Path};
use crate::multipath::event::{Event, PathId};
use crate::shared::{HELD_TYPE, ReservationKey, ReserveError};

/// Between two rounds of asking the others: far below what waits for the proof, far above what asking takes.
const AGAIN: Duration = Duration::from_millis(250);
/// An answer of a nexus that takes longer is not waited for alone: the next one may be well.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// A key that is gone without an answer is followed by a reset of the unit after this: long enough for a login of the path itself, which
/// proves the same and hurts nobody.
const RESETS_AFTER: Duration = Duration::from_secs(5);

/// Starts the proof as a task.
pub(super) fn prove(inner: &Arc<Inner>, id: PathId, path: Arc<dyn Path>, others: Vec<Arc<dyn Path>>) {
    let keeper = Arc::clone(inner);
    let task = inner.workers.spawn(usize::from(id.0), move || async move {
        let dead = is_dead(&path, &others).await;
        keeper.tell(Event::Proved { path: id, dead });
    });
    // It goes on by itself; without workers nothing does.
    drop(task);
}

async fn is_dead(path: &Arc<dyn Path>, others: &[Arc<dyn Path>]) -> bool {
    let victim = path.nexus().map(|nexus| nexus.key);
    let own = path.abort_outstanding();
    let other = async {
        match victim {
            Some(victim) => preempted(path, victim, others).await,
            // It was not registered, so nothing can be taken away.
            None => std::future::pending().await,
        }
        // Otherwise the dead nexus, unregistered as it is now, could still write.
        while !held(others).await {
            tokio::time::sleep(AGAIN).await;
        }
        // Now its own proof ends at once: it waits for nothing that may land.
        path.killed();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        // A path that has proved it is not killed any more.
        biased;
        own = own => own.is_ok(),
        () = other => false,
    }
}

/// How one nexus has answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    /// The nexus is killed.
    Done,
    /// It is not, as far as this answer says.
    No,
    /// Its key is gone, and nobody knows whether its commands have ended.
    Gone,
}

/// Ready when one of the others has had the nexus of `path` killed. Each has one question out at most, and keeps it until it is answered.
async fn preempted(path: &Arc<dyn Path>, victim: ReservationKey, others: &[Arc<dyn Path>]) {
    let mut asked = JoinSet::new();
    let (mut idle, mut tried): (BTreeSet<usize>, BTreeSet<usize>) = ((0..others.len()).collect(), BTreeSet::new());
    let mut gone = None;
    loop {
        let within = match idle.pop_first() {
            Some(n) => {
                let (by, path) = (Arc::clone(&others[n]), Arc::clone(path));
                let resets = gone.is_some_and(|since: Instant| since.elapsed() >= RESETS_AFTER);
                asked.spawn(async move { (n, killed_over(by.as_ref(), path.as_ref(), victim, resets).await) });
                ANSWER_WITHIN
            }
            None => AGAIN,
        };
        match tokio::time::timeout(within, asked.join_next()).await {
            Ok(Some(Ok((_, Answer::Done)))) => return,
            Ok(Some(Ok((n, answer)))) => {
                tried.insert(n);
                if answer == Answer::Gone {
                    gone.get_or_insert_with(Instant::now);
                }
            }
            // It takes long: another is asked as well. Or all have said no: they are asked again.
            Err(_) if idle.is_empty() => idle.append(&mut tried),
            Err(_) | Ok(Some(Err(_))) => {}
            Ok(None) => {
                tokio::time::sleep(AGAIN).await;
                idle.append(&mut tried);
            }
        }
    }
}

/// PREEMPT AND ABORT of the nexus' own key from another nexus of this node. `resets`: the key was gone before; what is left of its
/// commands is ended with everybody's, if this node still is registered: one that was fenced has nothing to reset.
async fn killed_over(survivor: &dyn Path, path: &dyn Path, victim: ReservationKey, resets: bool) -> Answer {
    let Some(by) = survivor.nexus() else { return Answer::No };
    let preempted = by.reservations.preempt(by.key, victim, HELD_TYPE, true).await;
    if let Err(e) = &preempted {
        tracing::debug!("the nexus of {} is not killed over {}: {e}", path.describe(), survivor.describe());
    }
    match preempted {
        Ok(()) => Answer::Done,
        Err(ReserveError::Gone | ReserveError::Unknown(_)) => {
            let Ok(keys) = by.reservations.keys().await else { return Answer::No };
            let (own, its) = (keys.keys.contains(&by.key), keys.keys.contains(&victim));
            match own && !its {
                true if !resets => Answer::Gone,
                true => {
                    tracing::warn!("the unit is reset: nobody knows what became of {}", path.describe());
                    if by.reservations.reset_unit().await.is_ok() { Answer::Done } else { Answer::Gone }
                }
                false => Answer::No,
            }
        }
        Err(_) => Answer::No,
    }
}

/// Whether the disk is held against strangers.
async fn held(others: &[Arc<dyn Path>]) -> bool {
    for other in others {
        let Some(by) = other.nexus() else { continue };
        let held = tokio::time::timeout(ANSWER_WITHIN, by.reservations.reservation()).await;
        if let Ok(Ok(held)) = held {
            return held.reservation.is_some_and(|r| r.kind == HELD_TYPE);
        }
    }
    false
}
