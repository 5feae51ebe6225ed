//! What lies between a client and whoever is in office: calls whose answers are lost or come late, the way back, the own slot.

use std::sync::Arc;

use block::AlignedBuf;
use block::device::DeviceExt;
use block::fault::FaultDevice;
use block::shared::{BoxFuture, Epoch, FenceGen, NodeId};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{Fate, Late, Office, Serving};
use crate::client::link::*;
use crate::client::session::Session;
use crate::coordinator::ClientLink;
use crate::format::{CELL, slot_at};
use crate::proto::*;

/// The way to whoever is in office.
pub(super) struct Links {
    pub(super) serving: Arc<Mutex<Option<Arc<Serving>>>>,
    pub(super) fate: Arc<Mutex<Fate>>,
    pub(super) late: Late,
    pub(super) session: Mutex<Option<Arc<Session>>>,
    pub(super) id: u64,
}

impl Coordinators for Links {
    fn link(&self, to: &CoordinatorHint) -> Option<Arc<dyn CoordinatorLink>> {
        let serving = self.serving.lock().clone().filter(|s| s.hint == *to)?;
        let session = self.session.lock().clone()?;
        let (fate, late) = (Arc::clone(&self.fate), Arc::clone(&self.late));
        Some(Arc::new(TestLink { serving, session, id: self.id, fate, late }))
    }

    fn ask_who(&self) -> BoxFuture<'_, Vec<CoordinatorHint>> {
        let hint = self.serving.lock().as_ref().map(|s| s.hint.clone());
        Box::pin(async move { hint.into_iter().collect() })
    }
}

#[derive(Clone)]
struct TestLink {
    serving: Arc<Serving>,
    session: Arc<Session>,
    id: u64,
    fate: Arc<Mutex<Fate>>,
    late: Late,
}

impl TestLink {
    async fn answer(&self, call: Call, late: Option<Arc<Semaphore>>) -> Result<Answer, LinkLost> {
        let durable = call.request.is_durable();
        if let Some(late) = late {
            drop(self.unless_ended(late.acquire()).await?);
        }
        let answer = self.unless_ended(self.serving.coordinator.call(call)).await?;
        let fate = match durable {
            true => std::mem::replace(&mut *self.fate.lock(), Fate::Arrives),
            false => Fate::Arrives,
        };
        if fate == Fate::LostWithCoordinator {
            self.serving.end(true);
        }
        if fate == Fate::Arrives { Ok(answer) } else { Err(LinkLost) }
    }

    /// An answer given after the end does not arrive.
    async fn unless_ended<T>(&self, answer: impl Future<Output = T>) -> Result<T, LinkLost> {
        tokio::select! {
            biased;
            () = self.closed() => Err(LinkLost),
            answer = answer => Ok(answer),
        }
    }
}

impl CoordinatorLink for TestLink {
    fn bind(&self, _epoch: Epoch, request: BindRequest) -> BoxFuture<'_, Result<BindAnswer, LinkLost>> {
        let link = Arc::new(ToClient { session: Arc::clone(&self.session), id: self.id });
        Box::pin(async move { self.unless_ended(self.serving.coordinator.bind(link, request)).await })
    }

    fn call(&self, _epoch: Epoch, call: Call, done: CallDone) -> Option<BoxFuture<'static, ()>> {
        let says = matches!(&call.request, Request::Commit { commit, .. } if *commit != CommitBody::default());
        let late = if says { self.late.lock().take() } else { None };
        let me = self.clone();
        Some(Box::pin(async move { done.tell(me.answer(call, late).await) }))
    }

    fn redirect(
        &self,
        _epoch: Epoch,
        redirect: Redirect,
        data: Option<Bytes>,
        done: RedirectDone,
    ) -> Option<BoxFuture<'static, ()>> {
        let data = data.map(|d| AlignedBuf::from_slice(&d));
        let me = self.clone();
        Some(Box::pin(async move {
            done.tell(me.unless_ended(me.serving.coordinator.redirect(redirect, data)).await);
        }))
    }

    fn closed(&self) -> BoxFuture<'_, ()> {
        let mut ended = self.serving.ended.subscribe();
        Box::pin(async move {
            let _ = ended.wait_for(|e| *e).await;
        })
    }
}

struct ToClient {
    session: Arc<Session>,
    id: u64,
}

impl ClientLink for ToClient {
    fn id(&self) -> u64 {
        self.id
    }

    fn callback(&self, callback: Callback) -> BoxFuture<'_, Option<CallbackAnswer>> {
        Box::pin(async move { Some(self.session.callback(callback.client, callback.ask).await) })
    }
}

/// Reads the slot through the fault device; what it holds the office of this test knows.
pub(super) struct SlotReader {
    pub(super) device: Arc<FaultDevice>,
    pub(super) office: Arc<Office>,
    pub(super) node: NodeId,
}

impl OwnSlot for SlotReader {
    fn fence_gen(&self) -> BoxFuture<'_, Option<FenceGen>> {
        Box::pin(async move {
            self.device.read(slot_at(self.node), CELL as usize).await.ok()?;
            Some(self.office.fence_gen(self.node))
        })
    }
}
