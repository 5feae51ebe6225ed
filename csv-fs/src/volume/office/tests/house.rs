//! Some offices on one temporary file, and the peers' links between them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use block::file::OpenOptions;
use block::shared::{BoxFuture, Epoch, FenceGen, NodeId, SharedDisk};
use block::{FaultDevice, Workers};
use parking_lot::Mutex;

use crate::core::office::{FencedEpoch, LostWhy, NodeSet, PeerLoss, Permission, Report, SlotView, Timing};
use crate::core::rules::Rules;
use crate::format::{self, LeaseBlock, Slot};
use crate::proto::{CoordinatorHint, PeerAnswer, PeerAsk};
use crate::types::{ClientId, VolumeId};
use crate::volume::office::{Office, OfficeConfig, OfficeHandle, OfficeState, OwnNode, PeerLink};

const VOLUME: VolumeId = VolumeId(0x5f0e);

/// How long a test waits for what must happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(25);

pub(super) fn node(n: u8) -> NodeId {
    NodeId::new(n).expect("a node id")
}

/// What an office did to its node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Did {
    Took(u8),
    Tripped(u8),
    Drained(u8),
    Stopped(u8),
}

struct Inhabitant {
    handle: OfficeHandle,
    fault: Arc<FaultDevice>,
    /// Kept: the office ends with it.
    _life: Arc<Life>,
}

/// A node's own side, and its link to the others.
struct Life {
    me: u8,
    house: Weak<Rooms>,
}

#[derive(Default)]
struct Rooms {
    inhabitants: Mutex<BTreeMap<u8, Inhabitant>>,
    log: Mutex<Vec<Did>>,
}

/// The house.
pub(super) struct House {
    rooms: Arc<Rooms>,
    workers: Option<Workers>,
    path: PathBuf,
    _file: Option<tempfile::NamedTempFile>,
}

impl Life {
    fn did(&self, did: Did) {
        if let Some(rooms) = self.house.upgrade() {
            rooms.log.lock().push(did);
        }
    }
}

impl OwnNode for Life {
    fn took_office(&self, _: FencedEpoch, _: BTreeMap<NodeId, Duration>) {
        self.did(Did::Took(self.me));
    }
    fn suspended(&self, _: Epoch, _: bool) {}
    fn trip(&self, _: Epoch) -> BoxFuture<'static, ()> {
        self.did(Did::Tripped(self.me));
        Box::pin(std::future::ready(()))
    }
    fn drain(&self, _: Epoch) -> BoxFuture<'static, ()> {
        self.did(Did::Drained(self.me));
        Box::pin(std::future::ready(()))
    }
    fn lost_office(&self, _: Epoch, _: LostWhy) {}
    fn stop_direct(&self, _: FenceGen) -> BoxFuture<'static, ()> {
        self.did(Did::Stopped(self.me));
        Box::pin(std::future::ready(()))
    }
    fn self_evicted(&self) {}
    fn other_volume(&self) {}
    fn report(&self, _: Report) {}
}

impl PeerLink for Life {
    fn ask(&self, to: NodeId, ask: PeerAsk) -> BoxFuture<'_, Option<PeerAnswer>> {
        Box::pin(async move {
            let handle = self.house.upgrade()?.inhabitants.lock().get(&to.get())?.handle.clone();
            Some(handle.peer_asked(node(self.me), ask).await)
        })
    }
}

impl House {
    /// On a new file, as formatting leaves lease and slots.
    pub(super) fn new() -> House {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.as_file().set_len(1 << 20).expect("grown");
        let write = |at: u64, bytes: &[u8]| {
            std::os::unix::fs::FileExt::write_all_at(file.as_file(), bytes, at).expect("formatted");
        };
        write(format::LEASE.0, &LeaseBlock::empty().encode(VOLUME).expect("fits"));
        for n in 1..=3 {
            write(format::slot_at(node(n)).0, &Slot::empty(node(n)).encode(VOLUME));
        }
        let mut house = House::on(file.path());
        house._file = Some(file);
        house
    }

    /// On a file that is there.
    pub(super) fn on(path: &Path) -> House {
        let workers = Workers::start(1, "office-test").expect("workers");
        House { rooms: Arc::default(), workers: Some(workers), path: path.to_owned(), _file: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) async fn with_3_in_office() -> House {
        let house = House::new();
        house.start(3);
        house.until_in_office(3).await;
        house.start(1);
        house.start(2);
        for n in 1..=2 {
            house.until_hint(n, node(3)).await;
            house.until_permitted(n).await;
        }
        house
    }

    /// Starts a node and connects it with all that run.
    pub(super) fn start(&self, n: u8) {
        self.move_in(n);
        let inhabitants = self.rooms.inhabitants.lock();
        for (other, there) in inhabitants.iter().filter(|(o, _)| **o != n) {
            inhabitants[&n].handle.peer_heard(node(*other));
            there.handle.peer_heard(node(n));
        }
    }

    fn move_in(&self, n: u8) {
        let workers = self.workers.as_ref().expect("running").handle();
        let disk = SharedDisk::open_file(&self.path, OpenOptions::default(), workers, true).expect("opens");
        let fault = disk.fault.clone().expect("asked for");
        // Another challenger may still hold the lock by which it proved the node's earlier process dead.
        let deadline = std::time::Instant::now() + PATIENCE;
        while !disk.file().expect("a file").hold_live(node(n)).expect("locks work") {
            assert!(std::time::Instant::now() < deadline, "node {n} runs once");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let life = Arc::new(Life { me: n, house: Arc::downgrade(&self.rooms) });
        let config = OfficeConfig {
            volume: VOLUME,
            node: node(n),
            nodes: (1..=3).map(node).collect::<NodeSet>(),
            address: format!("127.0.0.{n}:7000"),
            timing: Timing::FAST,
            rules: Rules::all(),
            resumes: None,
        };
        let handle = Office::start(config, disk, Arc::clone(&life) as _, Arc::clone(&life) as _).expect("starts");
        self.rooms.inhabitants.lock().insert(n, Inhabitant { handle, fault, _life: life });
    }

    /// Ends a node as a kill does: its task, its descriptions, its connections.
    pub(super) async fn vanish(&self, n: u8) {
        let gone = self.rooms.inhabitants.lock().remove(&n).expect("runs");
        gone.handle.stop().await;
        drop(gone);
        for there in self.rooms.inhabitants.lock().values() {
            there.handle.peer_lost(node(n), PeerLoss::Closed);
        }
    }

    pub(super) fn handle(&self, n: u8) -> OfficeHandle {
        self.rooms.inhabitants.lock()[&n].handle.clone()
    }

    pub(super) fn fault(&self, n: u8) -> Arc<FaultDevice> {
        Arc::clone(&self.rooms.inhabitants.lock()[&n].fault)
    }

    pub(super) fn log(&self) -> Vec<Did> {
        self.rooms.log.lock().clone()
    }

    pub(super) fn took_office(&self) -> Vec<u8> {
        self.log().into_iter().filter_map(|d| if let Did::Took(n) = d { Some(n) } else { None }).collect()
    }

    pub(super) fn hint(&self, n: u8) -> Option<CoordinatorHint> {
        self.handle(n).state().borrow().hint.clone()
    }

    pub(super) fn client(&self, n: u8) -> ClientId {
        self.handle(n).state().borrow().client.expect("registered").0
    }

    async fn until<T>(&self, n: u8, what: &str, done: impl Fn(&OfficeState) -> Option<T>) -> T {
        let mut state = self.handle(n).state();
        let waited = tokio::time::timeout(PATIENCE, state.wait_for(|s| done(s).is_some())).await;
        let found = waited.unwrap_or_else(|_| panic!("node {n}: never {what}")).expect("it runs");
        done(&found).expect("just seen")
    }

    pub(super) async fn until_in_office(&self, n: u8) -> FencedEpoch {
        self.until(n, "in office", |s| s.in_office).await
    }

    pub(super) async fn until_registered(&self, n: u8) -> ClientId {
        self.until(n, "registered", |s| s.client).await.0
    }

    pub(super) async fn until_hint(&self, n: u8, coordinator: NodeId) {
        self.until(n, "knows the coordinator", |s| s.hint.as_ref().filter(|h| h.node == coordinator).map(drop)).await;
    }

    pub(super) async fn until_permitted(&self, n: u8) {
        self.until(n, "permitted", |s| matches!(s.permission, Permission::Given { .. }).then_some(())).await;
    }

    pub(super) async fn until_slot(&self, seen_by: u8, of: u8, done: impl Fn(&SlotView) -> bool) -> SlotView {
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(slot) = self.handle(seen_by).slot(node(of)).filter(|s| done(s)) {
                return slot;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("node {seen_by} never saw it in the slot of node {of}");
    }

    /// Waits for the lease block itself to name a node, whoever wrote it.
    pub(super) async fn until_lease_of(&self, coordinator: NodeId) {
        let file = std::fs::File::open(&self.path).expect("opens");
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < PATIENCE {
            let mut cell = [0; format::CAW_BYTES];
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut cell, format::LEASE.0).expect("readable");
            if LeaseBlock::decode(&cell, VOLUME).is_ok_and(|l| l.node == Some(coordinator)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the lease never named {coordinator}");
    }

    /// Whoever is in office first.
    pub(super) async fn coordinator(&self) -> u8 {
        self.another_coordinator(0).await
    }

    /// Whoever is in office first, but for one.
    pub(super) async fn another_coordinator(&self, but: u8) -> u8 {
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < PATIENCE {
            let inhabitants =
                self.rooms.inhabitants.lock().iter().map(|(n, i)| (*n, i.handle.state())).collect::<Vec<_>>();
            if let Some((n, _)) = inhabitants.iter().find(|(n, s)| *n != but && s.borrow().in_office.is_some()) {
                return *n;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("nobody took office; {:?}", self.log());
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.rooms.inhabitants.lock().clear();
    }
}
