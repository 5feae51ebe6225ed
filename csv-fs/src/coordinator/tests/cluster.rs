//! A volume, a coordinator on it, and clients that bind to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use block::AlignedBuf;
use block::device::{BlockDevice, DeviceExt};
use block::mem::MemDevice;
use block::shared::{BoxFuture, FenceGen, Incarnation, NodeId};
use block::units::{BlockSize, ByteLen};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::coordinator::*;
use crate::core::coord::FencePurpose;
use crate::core::office::{FenceProof, FencedEpoch, HowFenced, LeaseView, Timing};
use crate::core::rules::Rules;
use crate::format::{CELL, Slot, Superblock, TimingMs, VolumeName, slot_at};
use crate::meta::{FormatOptions, Latch, Root, Store};
use crate::proto::*;
use crate::types::*;

/// How long a test waits for what must happen.
pub(super) const SOON: Duration = Duration::from_secs(20);

/// The generation every slot starts with.
pub(super) const GEN: FenceGen = FenceGen(3);

pub(super) fn client_id(node: u8) -> ClientId {
    ClientId { node: NodeId::new(node).unwrap(), incarnation: Incarnation(7) }
}

/// An office whose fences always succeed; counts them.
#[derive(Default)]
pub(super) struct Fences {
    pub(super) done: Mutex<Vec<(ClientId, FencePurpose)>>,
    gen_now: AtomicU64,
}

impl Fencer for Fences {
    fn fence(&self, client: ClientId, purpose: FencePurpose) -> BoxFuture<'_, Result<FenceProof, String>> {
        Box::pin(async move {
            self.done.lock().push((client, purpose));
            let fence_gen = FenceGen(GEN.0 + 1 + self.gen_now.fetch_add(1, Ordering::Relaxed));
            Ok(FenceProof::assumed(client, fence_gen, HowFenced::Answered))
        })
    }
}

/// A formatted volume with slots of nodes 1 to 4, and the present lease.
pub(super) struct Volume {
    pub(super) device: Arc<dyn BlockDevice>,
    pub(super) superblock: Superblock,
    pub(super) fences: Arc<Fences>,
    lease: LeaseView,
    /// Whether daemons that are killed are followed by others that go on.
    pub(super) comes_back: bool,
}

impl Volume {
    pub(super) async fn new() -> Volume {
        let memory = MemDevice::new(ByteLen(1 << 30), BlockSize::B4096);
        Volume::on(Arc::new(memory)).await
    }

    pub(super) async fn on(device: Arc<dyn BlockDevice>) -> Volume {
        let options = FormatOptions {
            volume: VolumeId(0x5110),
            name: VolumeName::new("test").unwrap(),
            nodes: 4,
            timing: TimingMs::FAST,
            root: Root { uid: 0, gid: 0, mode: 0o755, now: Timestamp::default() },
            wipe: None,
        };
        let dev = Arc::clone(&device);
        let format = move || Store::format(&dev, &options).unwrap();
        let superblock = tokio::task::spawn_blocking(format).await.unwrap();
        for node in 1..=4 {
            let id = client_id(node);
            let slot = Slot { incarnation: id.incarnation, fence_gen: GEN, ..Slot::empty(id.node) };
            let mut cell = AlignedBuf::zeroed(CELL as usize);
            let bytes = slot.encode(superblock.volume);
            cell[..bytes.len()].copy_from_slice(&bytes);
            device.write(slot_at(id.node), cell).await.0.unwrap();
        }
        Volume { device, superblock, fences: Arc::default(), lease: LeaseView::new_volume(), comes_back: false }
    }

    /// Node `node` takes office after the holder before was fenced, and found dead or alive; or resigned.
    pub(super) fn take_office(&mut self, node: u8, how: Option<HowFenced>) -> FencedEpoch {
        let before = self.lease.clone();
        let taken = match how {
            Some(_) => before.taken_by(client_id(node), "nowhere", 1),
            None if before.holder.is_none() => before.taken_by(client_id(node), "nowhere", 1),
            None => before.given_up(None, 2).taken_by(client_id(node), "nowhere", 1),
        };
        self.lease = taken.clone();
        match how {
            Some(how) => {
                let proof = FenceProof::assumed(before.holder.unwrap(), FenceGen(GEN.0 + 1), how);
                FencedEpoch::by_fence(&before, &taken, proof).unwrap()
            }
            None if before.holder.is_none() => FencedEpoch::by_resignation(&before, &taken).unwrap(),
            None => FencedEpoch::by_resignation(&before.given_up(None, 2), &taken).unwrap(),
        }
    }

    /// A coordinator under that right, and its latch.
    pub(super) async fn serve(&self, epoch: FencedEpoch) -> (Arc<Coordinator>, Arc<Latch>) {
        self.serve_suspended(epoch, Arc::default()).await
    }

    /// The same with a suspension of before its beginning.
    pub(super) async fn serve_suspended(
        &self,
        epoch: FencedEpoch,
        suspension: Arc<Suspension>,
    ) -> (Arc<Coordinator>, Arc<Latch>) {
        let latch = Arc::new(Latch::new());
        let reign = Reign {
            epoch,
            device: Arc::clone(&self.device),
            superblock: self.superblock.clone(),
            latch: Arc::clone(&latch),
            suspension,
            fencer: Arc::clone(&self.fences) as Arc<dyn Fencer>,
            unheard: BTreeMap::new(),
            comes_back: self.comes_back,
            timing: Timing::FAST,
            boot: 11,
            rules: Rules::all(),
        };
        let (coordinator, _) = Coordinator::start(reign).await.unwrap();
        (Arc::new(coordinator), latch)
    }

    /// A new volume's first coordinator.
    pub(super) async fn first(&mut self) -> (Arc<Coordinator>, Arc<Latch>) {
        let epoch = self.take_office(4, None);
        self.serve(epoch).await
    }
}

/// One connection of a client: callbacks are answered `Accepted` and handed to the test.
struct Link {
    id: u64,
    callbacks: mpsc::UnboundedSender<CallbackAsk>,
}

impl ClientLink for Link {
    fn id(&self) -> u64 {
        self.id
    }

    fn callback(&self, callback: Callback) -> BoxFuture<'_, Option<CallbackAnswer>> {
        let heard = self.callbacks.send(callback.ask).is_ok();
        Box::pin(async move { heard.then_some(CallbackAnswer::Accepted) })
    }
}

/// A client.
pub(super) struct Client {
    pub(super) id: ClientId,
    pub(super) coordinator: Arc<Coordinator>,
    pub(super) bind: Bind,
    seqs: Mutex<BTreeMap<SlotRef, u64>>,
    pub(super) callbacks: mpsc::UnboundedReceiver<CallbackAsk>,
    sender: mpsc::UnboundedSender<CallbackAsk>,
}

impl Client {
    /// A client that is bound.
    pub(super) async fn bound(node: u8, coordinator: &Arc<Coordinator>) -> Client {
        let mut client = Client::new(node, coordinator);
        client.bind(vec![]).await;
        client
    }

    pub(super) fn new(node: u8, coordinator: &Arc<Coordinator>) -> Client {
        let (sender, callbacks) = mpsc::unbounded_channel();
        let coordinator = Arc::clone(coordinator);
        let seqs = Mutex::default();
        Client { id: client_id(node), coordinator, bind: Bind(0), seqs, callbacks, sender }
    }

    pub(super) async fn try_bind(&mut self, reassert: Vec<Reassert>) -> BindAnswer {
        self.bind.0 += 1;
        let request = BindRequest {
            volume: VolumeId(0x5110),
            client: self.id,
            bind: self.bind,
            fence_gen: GEN,
            has_path: true,
            reassert,
        };
        let link = Link { id: u64::from(self.id.node.get()), callbacks: self.sender.clone() };
        self.coordinator.bind(Arc::new(link), request).await
    }

    pub(super) async fn bind(&mut self, reassert: Vec<Reassert>) {
        let answer = self.try_bind(reassert).await;
        assert!(matches!(answer, BindAnswer::Bound { .. }), "{answer:?}");
    }

    /// Goes to another coordinator with everything it has.
    pub(super) async fn moves_to(&mut self, coordinator: &Arc<Coordinator>, reassert: Vec<Reassert>) {
        self.coordinator = Arc::clone(coordinator);
        self.bind(reassert).await;
    }

    pub(super) fn compose(&self, slot: SlotRef, seq: u64, request: Request) -> Call {
        Call { volume: VolumeId(0x5110), client: self.id, bind: self.bind, slot, seq, request }
    }

    /// A call in a slot, with its next number.
    pub(super) async fn call_in(&self, index: u8, request: Request) -> Answer {
        let slot = SlotRef { table: request.table(), index };
        let seq = {
            let mut seqs = self.seqs.lock();
            let seq = seqs.entry(slot).or_default();
            *seq += 1;
            *seq
        };
        let call = self.compose(slot, seq, request);
        tokio::time::timeout(SOON, self.coordinator.call(call)).await.expect("answered")
    }

    pub(super) async fn call(&self, request: Request) -> Reply {
        match self.call_in(0, request).await {
            Answer::Ok(reply) => reply,
            answer => panic!("{answer:?}"),
        }
    }

    pub(super) async fn create(&self, name: &str) -> Attr {
        let Reply::Created { attr, .. } = self.call(create(name, 0)).await else { panic!() };
        attr
    }

    /// Creates and opens.
    pub(super) async fn create_open(&self, name: &str, handle: u64) -> Attr {
        let Reply::Created { attr, opened: true } = self.call(create(name, handle)).await else { panic!() };
        attr
    }

    pub(super) async fn lookup(&self, name: &str) -> Answer {
        self.call_in(0, Request::Lookup { parent: InodeNo::ROOT, name: name.into() }).await
    }

    pub(super) async fn layout(&self, ino: InodeNo, range: BlockRange, want: Want) -> LayoutGrant {
        let Reply::Layout(grant) = self.call(Request::LayoutGet { ino, range, want }).await else { panic!() };
        grant
    }

    pub(super) async fn give_back(&self, grant: &LayoutGrant, commit: CommitBody) {
        self.call(Request::Commit { ino: grant.ino, commit, give_back: vec![grant.id] }).await;
    }

    pub(super) async fn granted(&self, blocks: u64) -> Vec<DiskRange> {
        let Reply::Granted(ranges) = self.call(Request::Grant { blocks: BlockCount(blocks) }).await else { panic!() };
        ranges
    }

    pub(super) async fn next_callback(&mut self) -> CallbackAsk {
        tokio::time::timeout(SOON, self.callbacks.recv()).await.expect("in time").expect("a callback")
    }

    pub(super) fn holds(&self, grant: &LayoutGrant, uncommitted: Vec<Extent>) -> Reassert {
        Reassert::Layout {
            id: grant.id,
            ino: grant.ino,
            range: grant.range,
            mode: grant.mode,
            uncommitted,
            size: None,
            mtime: None,
        }
    }
}

/// Creates a regular file, opened if `handle` is not 0.
pub(super) fn create(name: &str, handle: u64) -> Request {
    Request::Create {
        parent: InodeNo::ROOT,
        name: name.into(),
        mode: 0o100644,
        umask: 0,
        rdev: 0,
        uid: 0,
        gid: 0,
        exclusive: true,
        open: (handle != 0).then_some(OpenRequest { handle: HandleId(handle), flags: 0 }),
    }
}

pub(super) fn unlink(name: &str) -> Request {
    Request::Unlink { parent: InodeNo::ROOT, name: name.into() }
}

/// One written extent at the start of a file.
pub(super) fn written(range: DiskRange, len: u64) -> Extent {
    Extent { file: FileBlock(0), disk: range.start, len: BlockCount(len), state: ExtentState::Written, shared: false }
}

/// Waits until something is so.
pub(super) async fn until(mut so: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !so().await {
        assert!(tokio::time::Instant::now() < deadline, "it did not come to that");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
