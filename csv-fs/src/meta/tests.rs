//! Tests of the store on a device in memory. [`Fixture`] is a formatted volume and its open store.

mod check_finds;
mod check_random;
mod check_repairs;
mod check_scale;
mod crash;
mod files;
mod listing;
pub(crate) mod model;
mod names;
mod recent;
mod room;
mod volume;
mod xattr;

use std::ops::ControlFlow;
use std::sync::Arc;

use block::device::BlockDevice;
use block::mem::MemDevice;
use block::shared::{FenceGen, Incarnation, NodeId};
use block::units::{BlockSize, ByteLen};

use super::*;
use crate::format::{CAW_BYTES, CELL, MIN_VOLUME, Slot, Superblock, TimingMs, VolumeName, slot_at};
use crate::types::*;

/// A volume in memory, and its store.
struct Fixture {
    disk: Arc<MemDevice>,
    superblock: Superblock,
    store: Store,
}

const NOW: Timestamp = Timestamp { secs: 1_700_000_000, nanos: 1 };
const LATER: Timestamp = Timestamp { secs: 1_700_000_100, nanos: 2 };

fn options() -> FormatOptions {
    FormatOptions {
        volume: VolumeId(0xfeed),
        name: VolumeName::new("test").expect("a good name"),
        nodes: 3,
        timing: TimingMs::FAST,
        root: Root { uid: 0, gid: 0, mode: 0o755, now: NOW },
        wipe: None,
    }
}

fn blank(len: u64) -> Arc<MemDevice> {
    Arc::new(MemDevice::with_volatile_cache(ByteLen(len), BlockSize::B512))
}

fn as_dyn(disk: &Arc<MemDevice>) -> Arc<dyn BlockDevice> {
    Arc::clone(disk) as Arc<dyn BlockDevice>
}

fn client(node: u8) -> ClientId {
    ClientId { node: NodeId::new(node).expect("1..=64"), incarnation: Incarnation(u64::from(node) * 10) }
}

fn never(_: InodeNo) -> bool {
    false
}

impl Fixture {
    fn new() -> Fixture {
        Fixture::on(blank(MIN_VOLUME))
    }

    fn on(disk: Arc<MemDevice>) -> Fixture {
        let superblock = Store::format(&as_dyn(&disk), &options()).expect("formats");
        Fixture::open(disk, superblock)
    }

    fn open(disk: Arc<MemDevice>, superblock: Superblock) -> Fixture {
        let store = Store::open_unfenced(as_dyn(&disk), &superblock, Arc::new(Latch::new())).expect("opens");
        assert!(!store.was_repaired(), "opening must be quick, whatever happened");
        let superblock = store.superblock();
        Fixture { disk, superblock, store }
    }

    /// One transaction that must succeed.
    fn run<T>(&self, work: impl FnOnce(&mut Ops<'_>) -> Result<T>) -> T {
        self.run_at(NOW, work)
    }

    fn run_at<T>(&self, now: Timestamp, work: impl FnOnce(&mut Ops<'_>) -> Result<T>) -> T {
        let mut txn = self.store.write().expect("begins");
        let out = txn.run(now, work).expect("runs").expect("succeeds");
        txn.commit().expect("commits");
        out
    }

    /// One transaction whose operation must fail; what it answers. Committed all the same.
    fn fails<T: std::fmt::Debug>(&self, work: impl FnOnce(&mut Ops<'_>) -> Result<T>) -> MetaError {
        let mut txn = self.store.write().expect("begins");
        let out = txn.run(NOW, work).expect("runs").expect_err("fails");
        txn.commit().expect("commits");
        out
    }

    fn errno<T: std::fmt::Debug>(&self, work: impl FnOnce(&mut Ops<'_>) -> Result<T>) -> i32 {
        match self.fails(work) {
            MetaError::Errno(n) => n,
            other => panic!("not an errno: {other}"),
        }
    }

    fn view(&self) -> Arc<View> {
        self.store.view().expect("a view")
    }

    fn create(&self, parent: InodeNo, name: &str, mode: u32) -> InodeNo {
        self.run(|ops| ops.create(&node(parent, name.as_bytes(), mode), true)).attr.ino
    }

    fn file(&self, name: &str) -> InodeNo {
        self.create(InodeNo::ROOT, name, 0o100_644)
    }

    fn dir(&self, parent: InodeNo, name: &str) -> InodeNo {
        self.create(parent, name, 0o040_755)
    }

    /// What the node of a client has in its slot.
    fn slot(&self, who: ClientId, fence_gen: FenceGen) {
        let slot = Slot { incarnation: who.incarnation, fence_gen, ..Slot::empty(who.node) };
        let mut cell = [0; CELL as usize];
        cell[..CAW_BYTES].copy_from_slice(&slot.encode(self.superblock.volume));
        disk::write(&as_dyn(&self.disk), slot_at(who.node), &cell).expect("writes");
        disk::flush(&as_dyn(&self.disk)).expect("flushes");
    }

    /// A session, after its node has registered.
    fn session(&self, who: ClientId) {
        self.slot(who, FenceGen(1));
        let session = Session { client: who, fence_gen: FenceGen(1), state: SessionState::Live, has_path: true };
        self.run(|ops| ops.put_session(&session));
    }

    fn attr(&self, ino: InodeNo) -> Attr {
        self.view().getattr(ino).expect("there")
    }

    /// What the check of the mounted volume finds in the store and in its log.
    fn checked(&self) -> check::Report {
        self.store.reader().check(check::Limits::DEFAULT, &mut |_| ControlFlow::Continue(())).expect("readable")
    }

    fn must_be_clean(&self) -> check::Report {
        let report = self.checked();
        assert!(report.is_clean(), "{report}");
        report
    }

    /// The node dies: nothing is closed, nothing unflushed survives; the store is opened again.
    fn killed(self) -> Fixture {
        let Fixture { disk, store, .. } = self;
        store.latch().trip();
        drop(store);
        disk.crash();
        let left = check_finds::unmounted(&disk);
        assert!(left.is_clean(), "{left}");
        let superblock = read_superblock(&as_dyn(&disk)).expect("a volume").superblock;
        Fixture::open(disk, superblock)
    }
}

fn node(parent: InodeNo, name: &[u8], mode: u32) -> NewNode<'_> {
    NewNode { parent, name, mode, umask: 0, rdev: 0, uid: 1000, gid: 100 }
}

fn errno(e: rustix::io::Errno) -> i32 {
    e.raw_os_error()
}
