//! Time for the core: one task that sleeps until something is due, and longer if nothing is.

use std::sync::{Arc, Weak};

use super::actor::Inner;
use crate::core::coord::Event;

/// Runs until the coordinator is gone or its store is closed.
pub(super) async fn run(inner: Weak<Inner>) {
    let Some(mut ending) = inner.upgrade().map(|inner| inner.ending.subscribe()) else { return };
    loop {
        let Some(inner) = inner.upgrade() else { return };
        if ending.borrow().store_closed {
            return;
        }
        wait(&inner, &mut ending).await;
        inner.event(Event::Tick);
    }
}

async fn wait(inner: &Arc<Inner>, ending: &mut tokio::sync::watch::Receiver<super::actor::Ending>) {
    let due = async {
        match inner.next_deadline() {
            Some(at) => tokio::time::sleep(at.since(inner.now())).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = due => {}
        () = inner.rearm.notified() => {}
        _ = ending.changed() => {}
    }
}
