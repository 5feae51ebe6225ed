//! Coordinator and client of one node, in one process: the same calls as over the network, without it.
//!
//! A [`LocalLink`] ends when its reign does, as a connection ends with its peer: the client binds again, to whoever
//! comes next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use block::buf::AlignedBuf;
use block::shared::{BoxFuture, Epoch};
use bytes::Bytes;
use tokio::sync::watch;

use crate::client::link::{CallDone, CoordinatorLink, LinkLost, RedirectDone};
use crate::client::session::Session;
use crate::coordinator::{ClientLink, Coordinator};
use crate::proto::{BindAnswer, BindRequest, Call, Callback, CallbackAnswer, Redirect};

/// Local links are numbered from the top, connections of the network from the bottom: no number is both.
static NEXT: AtomicU64 = AtomicU64::new(u64::MAX / 2);

/// The reign of this node, seen by its own client.
pub(super) struct LocalLink {
    coordinator: Arc<Coordinator>,
    session: Arc<Session>,
    id: u64,
    ended: watch::Receiver<bool>,
}

impl LocalLink {
    /// `ended` turns true when the reign is over.
    pub(super) fn new(coordinator: Arc<Coordinator>, session: Arc<Session>, ended: watch::Receiver<bool>) -> LocalLink {
        LocalLink { coordinator, session, id: NEXT.fetch_add(1, Ordering::Relaxed), ended }
    }

    fn alive(&self) -> Result<(), LinkLost> {
        if *self.ended.borrow() { Err(LinkLost) } else { Ok(()) }
    }
}

impl CoordinatorLink for LocalLink {
    fn bind(&self, _epoch: Epoch, request: BindRequest) -> BoxFuture<'_, Result<BindAnswer, LinkLost>> {
        let client = Arc::new(LocalClient { session: Arc::clone(&self.session), id: self.id });
        Box::pin(async move {
            self.alive()?;
            Ok(self.coordinator.bind(client, request).await)
        })
    }

    fn call(&self, _epoch: Epoch, call: Call, done: CallDone) -> Option<BoxFuture<'static, ()>> {
        match self.alive() {
            Ok(()) => self.coordinator.call_then(call, move |answer| done.tell(Ok(answer))),
            Err(lost) => done.tell(Err(lost)),
        }
        None
    }

    fn redirect(
        &self,
        _epoch: Epoch,
        redirect: Redirect,
        data: Option<Bytes>,
        done: RedirectDone,
    ) -> Option<BoxFuture<'static, ()>> {
        if let Err(lost) = self.alive() {
            done.tell(Err(lost));
            return None;
        }
        let coordinator = Arc::clone(&self.coordinator);
        // As a task: handing a request to the device may wait, and whoever calls this holds the session's lock.
        Some(Box::pin(async move {
            let payload = data.map(|d| AlignedBuf::from_slice(&d));
            coordinator.redirect_then(redirect, payload, move |answer, read| done.tell(Ok((answer, read))));
        }))
    }

    fn closed(&self) -> BoxFuture<'_, ()> {
        let mut ended = self.ended.clone();
        Box::pin(async move {
            // An error means that the reign's owner is gone, which ends it too.
            let _ = ended.wait_for(|over| *over).await;
        })
    }
}

/// The client of this node, seen by its own coordinator.
struct LocalClient {
    session: Arc<Session>,
    id: u64,
}

impl ClientLink for LocalClient {
    fn id(&self) -> u64 {
        self.id
    }

    fn callback(&self, callback: Callback) -> BoxFuture<'_, Option<CallbackAnswer>> {
        Box::pin(async move { Some(self.session.callback(callback.client, callback.ask).await) })
    }
}
