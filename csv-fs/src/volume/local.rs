//! Coordinator and client of one node, in one process: the same calls as over the network, without it.
//!
//! A [`LocalLink`] ends when its reign does, as a connection ends with its peer: the client binds again, to whoever
//! comes next. While the store of the reign is being opened, a bind waits for that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use block::buf::AlignedBuf;
use block::shared::{BoxFuture, Epoch};
use bytes::Bytes;

use super::host::Watched;
use crate::client::link::{CallDone, CoordinatorLink, LinkLost, RedirectDone};
use crate::client::session::Session;
use crate::coordinator::{ClientLink, Coordinator};
use crate::proto::{BindAnswer, BindRequest, Call, Callback, CallbackAnswer, Redirect};

/// Local links are numbered from the top, connections of the network from the bottom: no number is both.
static NEXT: AtomicU64 = AtomicU64::new(u64::MAX / 2);

/// The reign of this node, seen by its own client.
pub(super) struct LocalLink {
    reign: Watched,
    /// Since the bind.
    coordinator: OnceLock<Arc<Coordinator>>,
    session: Arc<Session>,
    id: u64,
}

impl LocalLink {
    pub(super) fn new(reign: Watched, session: Arc<Session>) -> LocalLink {
        LocalLink { reign, coordinator: OnceLock::new(), session, id: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    /// The coordinator that this client has bound to, while it reigns.
    fn bound(&self) -> Result<&Arc<Coordinator>, LinkLost> {
        self.coordinator.get().filter(|_| !*self.reign.ended.borrow()).ok_or(LinkLost)
    }
}

impl CoordinatorLink for LocalLink {
    fn bind(&self, _epoch: Epoch, request: BindRequest) -> BoxFuture<'_, Result<BindAnswer, LinkLost>> {
        let client = Arc::new(LocalClient { session: Arc::clone(&self.session), id: self.id });
        Box::pin(async move {
            let coordinator = self.reign.clone().opened().await.ok_or(LinkLost)?;
            Ok(self.coordinator.get_or_init(|| coordinator).bind(client, request).await)
        })
    }

    fn call(&self, _epoch: Epoch, call: Call, done: CallDone) -> Option<BoxFuture<'static, ()>> {
        match self.bound() {
            Ok(coordinator) => coordinator.call_then(call, move |answer| done.tell(Ok(answer))),
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
        let coordinator = match self.bound() {
            Ok(coordinator) => Arc::clone(coordinator),
            Err(lost) => {
                done.tell(Err(lost));
                return None;
            }
        };
        // As a task: handing a request to the device may wait, and whoever calls this holds the session's lock.
        Some(Box::pin(async move {
            let payload = data.map(|d| AlignedBuf::from_slice(&d));
            coordinator.redirect_then(redirect, payload, move |answer, read| done.tell(Ok((answer, read))));
        }))
    }

    fn closed(&self) -> BoxFuture<'_, ()> {
        let mut ended = self.reign.ended.clone();
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
