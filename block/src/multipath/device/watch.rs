//! Time, checks, and the watch over paths that can tell when they are lost.

use std::sync::{Arc, Weak};
use std::time::Duration;

use scsi::vpd::Sameness;

use super::{Inner, Path};
use crate::multipath::event::{Event, Found, PathId, Reason};

/// How often silence is looked for within the time that a path may be silent.
const LOOKS: u32 = 4;

/// Ticks when something is due, and often enough to notice that a path is silent; a request need not wake the timer.
pub(super) fn keep_time(inner: &Arc<Inner>) {
    let weak = Arc::downgrade(inner);
    drop(inner.workers.spawn(0, move || async move {
        while let Some(wait) = next(&weak) {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = earlier(&weak) => {}
            }
            let Some(inner) = weak.upgrade() else { break };
            inner.tell_only(Event::Tick);
        }
    }));
}

/// How long until the next look; none once the device is gone.
fn next(weak: &Weak<Inner>) -> Option<Duration> {
    let inner = weak.upgrade()?;
    let state = inner.state.lock();
    if state.closed {
        return None;
    }
    let most = state.core.path_timeout() / LOOKS;
    let due = state.core.next_tick().map_or(most, |at| at.since(inner.now()));
    Some(due.clamp(Duration::from_millis(1), most))
}

async fn earlier(weak: &Weak<Inner>) {
    match weak.upgrade() {
        Some(inner) => inner.earlier.notified().await,
        None => std::future::pending().await,
    }
}

/// Waits for each loss of a path and tells it.
pub(super) fn watch(inner: &Arc<Inner>, id: PathId, path: Arc<dyn Path>) {
    let (weak, watched) = (Arc::downgrade(inner), Arc::clone(&path));
    drop(inner.workers.spawn(usize::from(id.0), move || async move {
        loop {
            watched.admitted().await;
            let Some(inner) = weak.upgrade().filter(|inner| !inner.state.lock().closed) else { return };
            inner.tell(Event::Look { path: id });
        }
    }));
    let weak = Arc::downgrade(inner);
    drop(inner.workers.spawn(usize::from(id.0), move || async move {
        loop {
            let reason = path.lost().await;
            let Some(inner) = weak.upgrade() else { return };
            let ends = inner.state.lock().closed;
            inner.tell(Event::Lost { path: id, reason });
            if ends {
                return;
            }
        }
    }));
}

/// Asks a path how it is, and whether it leads to this disk.
pub(super) fn check(inner: &Arc<Inner>, id: PathId, path: Arc<dyn Path>) {
    let keeper = Arc::clone(inner);
    drop(inner.workers.spawn(usize::from(id.0), move || async move {
        let standing = path.standing();
        let result = match path.check().await {
            Ok(access) => match path.identify().await {
                Ok(_) if path.standing() != standing => Err(Reason::NotAdmitted),
                Ok(identity) => {
                    let same_disk = keeper.identity.same_disk(&identity) == Sameness::Same;
                    Ok(Found { same_disk, access, standing })
                }
                Err(e) => Err(Reason::CheckFailed(e.to_string())),
            },
            Err(reason) => Err(reason),
        };
        keeper.tell(Event::Checked { path: id, result });
    }));
}
