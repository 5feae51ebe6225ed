//! Crashes at every moment, torn and lost writes, foreign and damaged bytes; the bytes of version 1.

use std::collections::BTreeSet;
use std::sync::Arc;

use block::device::DeviceExt;
use block::recording::{Entry, RecordingDevice, Survivors};
use block::{BlockDevice, BlockSize, ByteLen, MemDevice};

use super::audit::audit;
use super::layout::{EXTENT, Layout, Shape};
use super::replica::Replica;
use super::store::Store;
use super::superblock::{DiskState, Life, Superblock};
use super::{MetaError, PAGE};
use crate::ids::{Ballot, Generation, Grant, NodeId, NodeSet, SECTOR, Seq, Span};

mod crash;
mod grow;
mod leave;
mod volumes;

fn node(n: u8) -> NodeId {
    NodeId::new(n).expect("a node")
}

/// 64 blocks of 4 KiB, extents of four, three slots in the log.
fn small() -> Shape {
    Shape { data: 64 * 8, bit: 8, extent: 32, peers: 2, log_slots: 3, log_pages: 4 }
}

fn device(layout: &Layout) -> MemDevice {
    MemDevice::with_volatile_cache(ByteLen(layout.end()), BlockSize::B512)
}

fn superblock(layout: Layout) -> Superblock {
    Superblock::new(*b"resource-number1", 77, node(1), layout, &[node(2), node(3)])
}

fn small_layout() -> Layout {
    let shape = small();
    Layout::behind(shape.data * SECTOR + shape.meta_len(), shape)
}

#[test]
fn bytes_of_version_1_are_frozen() {
    let mut sb = superblock(Layout::external(small()));
    sb.sequence = 5;
    sb.current = Generation(0x1122_3344_5566_7788);
    sb.position = Seq(9);
    sb.began = 1_700_000_000;
    sb.promised = Ballot { round: 3, node: 2 };
    sb.grant = Grant { ballot: sb.promised, version: 4, generation: sb.current, members: NodeSet::of(node(2)) };
    (sb.flags.primary, sb.flags.at_rest) = (true, true);
    sb.life = Life(*b"a life of a host");
    sb.peers[1].bitmap = Generation(6);
    sb.peers[1].outdated = true;
    sb.history = vec![Generation(6), Generation(5)];
    let bytes = sb.encode();
    let (replica, _) = Replica::format(sb.clone());
    let log = replica.log().plan(&BTreeSet::from([1, 2])).map(|t| replica.log().encode(&t)).expect("room");
    let map = crate::meta::bitmap::Bitmap::new(small().bits(), small().bit).encode(0);
    let sums = [&bytes, &log, &map].map(|b| crc32c::crc32c(b));
    assert_eq!(sums, FROZEN, "a change of the format raises its version and changes docs/formats/replica.md");
    assert_eq!(Superblock::decode(&bytes), Ok(sb));
}

const FROZEN: [u32; 3] = [3_033_720_202, 3_783_946_274, 2_736_630_033];

#[test]
fn default_shapes_keep_their_bounds() {
    const TIB: u64 = (1 << 40) / SECTOR;
    let of = |data| Shape::for_data(data, 7);
    assert_eq!(of(TIB).map(|s| (s.bit, s.memory())), Ok((8, 7 * (32 << 20))));
    assert_eq!(of(8 * TIB).map(|s| s.bit), Ok(64));
    assert!(of(257 * TIB).is_err() && Shape::for_data(TIB, 8).is_err() && Shape::for_data(9, 1).is_err());
    let day = of(TIB).expect("a shape");
    assert_eq!((u64::from(day.log_slots) * day.extent * SECTOR, day.extent), (64 << 30, EXTENT));
    assert_eq!(of(EXTENT * 3).map(|s| s.log_slots), Ok(3), "a small device is hot as a whole");
    let inside = Layout::internal(10 << 30, 2).expect("room");
    assert!(inside.shape.data * SECTOR <= inside.bitmaps && inside.end() <= 10 << 30);
    assert!(matches!(Layout::internal(8192, 2), Err(MetaError::TooSmall { .. })));
}

#[test]
fn replica_is_found_at_the_end_of_a_device_and_on_its_own() {
    for layout in [small_layout(), Layout::external(small())] {
        let store = Store::new(Arc::new(device(&layout)));
        store.format(superblock(layout)).expect("made");
        let found = store.open(Life::UNKNOWN).expect("found");
        assert_eq!(found.replica.layout(), &layout);
        assert_eq!((found.hot, found.damaged_cells, found.log_damaged), (0, 0, false));
        let audit = audit(&store, store.len(), &[]).expect("audited");
        assert_eq!((audit.findings, audit.disk), (Vec::new(), DiskState::Inconsistent));
    }
}

#[test]
fn what_is_no_replica_or_too_new_or_too_large_is_refused_and_left_alone() {
    let layout = Layout::external(small());
    let disk = Arc::new(device(&layout));
    let store = Store::new(Arc::clone(&disk) as Arc<dyn BlockDevice>);
    assert_eq!(store.open(Life::UNKNOWN).err(), Some(MetaError::NotThere));
    let mut sb = superblock(layout);
    store.format(sb.clone()).expect("made");
    sb.incompat = 4;
    sb.sequence = 9;
    store
        .write(&super::MetaWrite { first: Vec::new(), then: vec![super::Put { at: 0, bytes: sb.encode() }] })
        .expect("written");
    assert_eq!(store.open(Life::UNKNOWN).err(), Some(MetaError::Newer { version: 1, incompat: 4 }));
    let shorter = MemDevice::new(ByteLen(layout.end() - PAGE), BlockSize::B512);
    let whole = store.device_bytes(layout.end() - PAGE);
    futures_free_write(&shorter, &whole);
    let refused = Store::new(Arc::new(shorter)).open(Life::UNKNOWN).err();
    assert!(matches!(refused, Some(MetaError::Newer { .. } | MetaError::TooSmall { .. })), "{refused:?}");
}

impl Store {
    /// The first bytes of the device.
    fn device_bytes(&self, len: u64) -> Vec<u8> {
        use super::Reader;
        self.read(0, len).expect("reads")
    }
}

/// Writes all at once; a device in memory completes inside.
fn futures_free_write(disk: &MemDevice, bytes: &[u8]) {
    let mut buf = block::AlignedBuf::zeroed(bytes.len());
    buf.copy_from_slice(bytes);
    drop(disk.write(block::ByteOffset(0), buf));
}

#[test]
fn a_device_shorter_than_its_metadata_says_is_refused() {
    let layout = Layout::external(small());
    let store = Store::new(Arc::new(device(&layout)));
    store.format(superblock(layout)).expect("made");
    let shorter = MemDevice::new(ByteLen(layout.end() - PAGE), BlockSize::B512);
    futures_free_write(&shorter, &store.device_bytes(layout.end() - PAGE));
    let needed = layout.end();
    assert_eq!(
        Store::new(Arc::new(shorter)).open(Life::UNKNOWN).err(),
        Some(MetaError::TooSmall { needed, len: needed - PAGE })
    );
}

#[test]
fn one_damaged_superblock_costs_nothing_and_two_are_told() {
    let layout = Layout::external(small());
    let disk = Arc::new(device(&layout));
    let store = Store::new(Arc::clone(&disk) as Arc<dyn BlockDevice>);
    store.format(superblock(layout)).expect("made");
    let hurt = |at: u64| {
        let put = super::Put { at: at + 512, bytes: vec![0xaa; 512] };
        store.write(&super::MetaWrite { first: Vec::new(), then: vec![put] }).expect("written");
    };
    hurt(0);
    let found = audit(&store, store.len(), &[]).expect("audited");
    assert_eq!(
        found.findings,
        ["superblock A: both superblocks are damaged; the replica must be made anew and synchronised in full"]
    );
    assert!(store.open(Life::UNKNOWN).is_ok());
    hurt(0);
    hurt(PAGE);
    assert_eq!(store.open(Life::UNKNOWN).err(), Some(MetaError::Damaged));
}

#[test]
fn any_bytes_in_place_of_metadata_are_refused_or_read_never_a_panic() {
    let layout = Layout::external(small());
    let store = Store::new(Arc::new(device(&layout)));
    store.format(superblock(layout)).expect("made");
    let good = store.device_bytes(layout.end());
    let mut state = 1_u64;
    for _ in 0..3000 {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        let mut bytes = good.clone();
        for _ in 0..1 + next() % 4 {
            let at = (next() as usize) % (3 * PAGE as usize);
            bytes[at] = next() as u8;
        }
        // Half of them with a good checksum, so that what lies behind it is reached.
        if next() % 2 == 0 {
            for at in [0, PAGE as usize] {
                bytes[at + 12..at + 16].fill(0);
                let crc = crc32c::crc32c(&bytes[at..at + PAGE as usize]);
                bytes[at + 12..at + 16].copy_from_slice(&crc.to_le_bytes());
            }
        }
        let reader = Bytes(bytes);
        let len = layout.end();
        if let Ok(found) = Replica::recover(&reader, len, Life::UNKNOWN) {
            assert!(found.replica.layout().end() <= len);
        }
        drop(audit(&reader, len, &[]));
    }
}

struct Bytes(Vec<u8>);

impl super::Reader for Bytes {
    fn read(&self, at: u64, len: u64) -> Result<Vec<u8>, MetaError> {
        let end = at.checked_add(len).filter(|e| *e <= self.0.len() as u64);
        let end = end.ok_or(MetaError::TooSmall { needed: u64::MAX, len: self.0.len() as u64 })?;
        Ok(self.0[at as usize..end as usize].to_vec())
    }
}

/// What a start finds proves that nothing acknowledged is missing, or it proves nothing.
#[test]
fn only_rest_and_the_same_life_prove_that_nothing_is_lost() {
    let (one, other) = (Life([1; 16]), Life([2; 16]));
    let layout = Layout::external(small());
    let store = Store::new(Arc::new(device(&layout)));
    let mut sb = superblock(layout);
    sb.flags.at_rest = true;
    store.format(sb).expect("made");
    let open = |life| store.open(life).expect("opened");
    assert!(open(Life::UNKNOWN).kept && open(one).kept && open(other).kept, "at rest, in whatever life");
    let writes = || {
        let mut replica = open(one).replica;
        assert_eq!((replica.superblock().life, replica.superblock().flags.at_rest), (one, true));
        let hot = replica.plan(&BTreeSet::from([1]), false).expect("room");
        store.write(&hot.write).expect("written");
        replica.committed(&hot);
        assert!(!replica.superblock().flags.at_rest, "taken back before the first write");
    };
    writes();
    assert!(open(one).kept, "only its process has ended");
    writes();
    let found = open(other);
    assert!(
        !found.kept && found.replica.superblock().life == Life::UNKNOWN && !found.replica.superblock().flags.at_rest
    );
    assert!(!open(other).kept, "nor when only the process ends now");
    assert!(!open(Life::UNKNOWN).kept && !open(Life::UNKNOWN).kept, "not knowing proves nothing");
    let mut replica = open(other).replica;
    replica.mark(NodeSet::of(node(2)), Span::new(0, 8));
    let rest = replica.plan_rest(true).expect("not at rest yet");
    store.write(&rest.write).expect("written");
    replica.committed(&rest);
    assert!(replica.plan_rest(true).is_none() && replica.is_at_rest(true));
    let found = open(one);
    assert!(found.kept && found.hot == 0 && found.replica.bitmap(node(2)).is_some_and(|m| m.is_set(0)));
}
