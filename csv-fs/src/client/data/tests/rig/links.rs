//! What lies between a client and whoever is in office: calls whose answers are lost or come late, the way back, the own slot.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use block::AlignedBuf;
use block::device::{BlockDevice, Completion, DeviceExt, Done, Geometry, Io};
use block::fault::FaultDevice;
use block::shared::{BoxFuture, Epoch, FenceGen, NodeId};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{Fate, Late, Office, Serving};
use crate::client::data::DataPath;
use crate::client::link::*;
use crate::client::session::Session;
use crate::coordinator::ClientLink;
use crate::format::{CELL, slot_at};
use crate::proto::*;
use crate::types::ClientId;

/// The way to whoever is in office.
pub(super) struct Links {
    pub(super) serving: Arc<Mutex<Option<Arc<Serving>>>>,
    pub(super) fate: Arc<Mutex<Fate>>,
    pub(super) late: Late,
    pub(super) slow: Late,
    pub(super) session: Mutex<Option<Arc<Session>>>,
    pub(super) id: u64,
}

impl Coordinators for Links {
    fn link(&self, to: &CoordinatorHint) -> Option<Arc<dyn CoordinatorLink>> {
        let serving = self.serving.lock().clone().filter(|s| s.hint == *to)?;
        let session = self.session.lock().clone()?;
        let (fate, late, slow) = (Arc::clone(&self.fate), Arc::clone(&self.late), Arc::clone(&self.slow));
        Some(Arc::new(TestLink { serving, session, id: self.id, fate, late, slow }))
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
    slow: Late,
}

impl TestLink {
    async fn answer(&self, call: Call, late: Option<Arc<Semaphore>>) -> Result<Answer, LinkLost> {
        let durable = call.request.is_durable();
        if let Some(late) = late {
            drop(self.unless_ended(late.acquire()).await?);
        }
        let answer = self.unless_ended(self.serving.coordinator.call(call)).await?;
        let fate = match durable && *self.fate.lock() != Fate::WriteLostWithCoordinator {
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
        let returns = matches!(&call.request, Request::Commit { give_back, .. } if !give_back.is_empty());
        let late = if says { self.late.lock().take() } else { None };
        let slow = if returns { self.slow.lock().take() } else { None };
        let me = self.clone();
        Some(Box::pin(async move {
            let answer = me.answer(call, late).await;
            if let Some(slow) = slow {
                drop(me.unless_ended(slow.acquire()).await);
            }
            done.tell(answer);
        }))
    }

    fn redirect(
        &self,
        _epoch: Epoch,
        redirect: Redirect,
        data: Option<Bytes>,
        done: RedirectDone,
    ) -> Option<BoxFuture<'static, ()>> {
        let data = data.map(|d| AlignedBuf::from_slice(&d));
        let (me, is_write) = (self.clone(), redirect.op == RedirectOp::Write);
        Some(Box::pin(async move {
            let answer = me.unless_ended(me.serving.coordinator.redirect(redirect, data)).await;
            if is_write && *me.fate.lock() == Fate::WriteLostWithCoordinator {
                *me.fate.lock() = Fate::Arrives;
                me.serving.end(true);
                return done.tell(Err(LinkLost));
            }
            done.tell(answer);
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

/// A disk that executes what it is given, and keeps the answers back while it is told to.
pub(crate) struct Below {
    device: Arc<dyn BlockDevice>,
    keeps: AtomicBool,
    kept: Arc<Mutex<Vec<(Completion, Done)>>>,
}

impl Below {
    pub(super) fn new(device: Arc<dyn BlockDevice>) -> Arc<Below> {
        Arc::new(Below { device, keeps: AtomicBool::new(false), kept: Arc::default() })
    }

    pub(crate) fn keep(&self) {
        self.keeps.store(true, Ordering::SeqCst);
    }

    pub(crate) fn kept(&self) -> usize {
        self.kept.lock().len()
    }

    /// Answers at once again; what is kept stays.
    pub(crate) fn pass(&self) {
        self.keeps.store(false, Ordering::SeqCst);
    }

    /// Gives all answers.
    pub(crate) fn answer(&self) {
        self.pass();
        let kept = std::mem::take(&mut *self.kept.lock());
        kept.into_iter().for_each(|(completion, done)| completion.complete(done));
    }
}

impl BlockDevice for Below {
    fn geometry(&self) -> Geometry {
        self.device.geometry()
    }

    fn submit(&self, mut io: Io) {
        if self.keeps.load(Ordering::SeqCst) {
            let kept = Arc::clone(&self.kept);
            let to = std::mem::replace(&mut io.done, Completion::new(|_| ()));
            io.done = Completion::new(move |done| kept.lock().push((to, done)));
        }
        self.device.submit(io);
    }

    fn describe(&self) -> String {
        self.device.describe()
    }
}

/// The data paths of all nodes.
pub(super) type Paths = Arc<Mutex<BTreeMap<NodeId, Weak<DataPath>>>>;

/// Every other node.
pub(super) struct Others {
    pub(super) node: NodeId,
    pub(super) paths: Paths,
}

impl Others {
    fn all(&self) -> Vec<Arc<DataPath>> {
        self.paths.lock().iter().filter(|(n, _)| **n != self.node).filter_map(|(_, p)| p.upgrade()).collect()
    }
}

impl Witnesses for Others {
    fn mark(&self, client: ClientId, number: u64) {
        self.all().iter().for_each(|path| path.heard_mark(client, number));
    }

    fn written_since(&self, question: WrittenSince) -> BoxFuture<'_, Vec<(u64, u64)>> {
        Box::pin(async move { self.all().iter().flat_map(|path| path.written_since(&question)).collect() })
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
