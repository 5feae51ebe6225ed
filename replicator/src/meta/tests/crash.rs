//! The invariant at every moment: whatever a crash leaves of data and metadata, each block that differs from what
//! the peer has by then is covered after recovery. With two volumes both disks are parts of one recorded device, so that their writes have
//! one order; what a flush of one disk leaves in the cache of another is for the simulation to see.

use super::volumes::Slice;
use super::*;
use crate::ids::Volume;
use crate::meta::Reader as _;
use crate::meta::further::Further;
use crate::meta::store::Disks;

/// A small stream of numbers.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Blocks of a volume; those of the second count on from the first's.
const BLOCKS: u64 = 64;
/// Bytes of the second volume's disk: two bitmaps and the label behind the data.
const SECOND: u64 = (BLOCKS + 3) * 4096;

fn second() -> Volume {
    Volume::new(1).expect("a volume")
}

/// The disks of both volumes on one device, or that of one.
fn disks(device: &Arc<dyn BlockDevice>, volumes: u64) -> Disks {
    let (disks, first) = (Disks::default(), small_layout().end());
    disks.add(Volume::FIRST, Slice::of(device, 0, first));
    if volumes > 1 {
        disks.add(second(), Slice::of(device, first, SECOND));
    }
    disks
}

/// Where a block lies on the device of both.
fn place(block: u64) -> block::ByteOffset {
    let behind = if block < BLOCKS { 0 } else { small_layout().end() - BLOCKS * 4096 };
    block::ByteOffset(block * 4096 + behind)
}

/// This side on a recorded disk, the peer as a list of versions.
struct Pair {
    disk: Arc<RecordingDevice>,
    store: Store,
    replica: Replica,
    versions: Vec<u64>,
    /// Written, not settled: block, and whether the peer has it.
    open: Vec<(u64, bool)>,
    peer: Vec<u64>,
    /// The peer after each mark.
    peers: Vec<Vec<u64>>,
}

fn span(block: u64) -> Span {
    let base = if block < BLOCKS { 0 } else { second().base() };
    Span::new(base + block % BLOCKS * 8, 8)
}

fn bytes_of(version: u64) -> Vec<u8> {
    version.to_le_bytes().repeat(512)
}

impl Pair {
    fn new(volumes: u64) -> (Pair, MemDevice) {
        let more = (volumes - 1) * SECOND;
        let mem = Arc::new(MemDevice::with_volatile_cache(ByteLen(small_layout().end() + more), BlockSize::B512));
        let mut sb = superblock(small_layout());
        if volumes > 1 {
            sb.set_further(Further::new(second(), 5, SECOND, 2, None).expect("room"));
        }
        let of_mem: Arc<dyn BlockDevice> = mem.clone();
        Store::on(disks(&of_mem, volumes)).format(sb).expect("made");
        let start = mem.copy();
        let disk = RecordingDevice::new(mem);
        let recorded: Arc<dyn BlockDevice> = disk.clone();
        let store = Store::on(disks(&recorded, volumes));
        let replica = store.open(Life::UNKNOWN).expect("opens").replica;
        let zero = vec![0; (volumes * BLOCKS) as usize];
        let mut pair =
            Pair { disk, store, replica, versions: zero.clone(), open: Vec::new(), peer: zero, peers: Vec::new() };
        pair.mark();
        (pair, start)
    }

    fn mark(&mut self) {
        self.disk.mark(self.peers.len() as u64);
        self.peers.push(self.peer.clone());
    }

    fn commit(&mut self, wanted: &BTreeSet<u32>) -> bool {
        let Some(commit) = self.replica.plan(wanted, false) else { return false };
        self.store.write(&commit.write).expect("written");
        self.replica.committed(&commit);
        true
    }

    /// A write: hot first, then here and at the peer, in either order or only on one side.
    fn write(&mut self, block: u64, how: u64) {
        self.replica.pin(span(block));
        if !self.replica.is_hot(span(block)) {
            let wanted: BTreeSet<u32> = self.replica.extents(span(block)).collect();
            if !self.commit(&wanted) {
                self.settle();
                assert!(self.commit(&wanted), "room after everything is settled");
            }
        }
        self.versions[block as usize] += 1;
        let version = self.versions[block as usize];
        let there = how != 0;
        if how == 1 {
            self.peer[block as usize] = version;
            self.mark();
        }
        drop(self.disk.write(place(block), filled(version)));
        if how == 2 {
            self.peer[block as usize] = version;
            self.mark();
        }
        self.open.push((block, there));
    }

    /// Stable here; what the peer lacks gets its bit; the extents may go.
    fn settle(&mut self) {
        drop(self.disk.flush());
        for (block, there) in std::mem::take(&mut self.open) {
            if !there {
                self.replica.mark(NodeSet::of(node(2)), span(block));
            }
            self.replica.unpin(span(block));
        }
    }

    /// The peer gets what is here, and the bit is cleared.
    fn resync(&mut self) {
        self.settle();
        let Some(bit) = self.replica.bitmap(node(2)).and_then(|m| m.next_set(0)) else { return };
        let block = if bit < BLOCKS { bit } else { bit - second().base() + BLOCKS } as usize;
        self.peer[block] = self.versions[block];
        self.mark();
        self.replica.clear(node(2), bit);
    }
}

fn filled(version: u64) -> block::AlignedBuf {
    let mut buf = block::AlignedBuf::zeroed(4096);
    buf.copy_from_slice(&bytes_of(version));
    buf
}

#[test]
fn after_any_crash_dirty_or_hot_covers_every_difference() {
    differences_are_covered(1);
}

#[test]
fn after_any_crash_dirty_or_hot_covers_every_difference_of_all_volumes() {
    differences_are_covered(2);
}

fn differences_are_covered(volumes: u64) {
    let mut covered = 0;
    for seed in 1..=6 {
        let (mut pair, start) = Pair::new(volumes);
        let mut rng = Rng(seed);
        for _ in 0..60 {
            match rng.below(10) {
                0..=6 => {
                    let (block, how) = (rng.below(volumes * BLOCKS), rng.below(3));
                    pair.write(block, how);
                }
                7 | 8 => pair.settle(),
                _ => pair.resync(),
            }
        }
        covered += check(&pair, &start, seed);
    }
    assert!(covered > 1000, "only {covered} differences were looked at");
}

/// Every prefix, with everything that may survive of what is not durable.
fn check(pair: &Pair, start: &MemDevice, seed: u64) -> usize {
    let log = pair.disk.log();
    let volumes = pair.versions.len() as u64 / BLOCKS;
    let (mut peer, mut looked) = (&vec![0; pair.versions.len()], 0);
    for prefix in 0..=log.len() {
        if let Some(Entry::Mark(n)) = prefix.checked_sub(1).map(|i| &log.entries()[i]) {
            peer = &pair.peers[*n as usize];
        }
        let few = [Survivors::DurableOnly, Survivors::All, Survivors::Seeded(seed ^ prefix as u64)];
        for survivors in few {
            let image: Arc<dyn BlockDevice> = Arc::new(log.replay(start, prefix, survivors));
            let store = Store::on(disks(&image, volumes));
            let found = store
                .open(Life::UNKNOWN)
                .unwrap_or_else(|e| panic!("seed {seed}, prefix {prefix}, {survivors:?}: {e}"));
            assert!(!found.log_damaged && found.damaged_cells == 0, "a crash damages nothing");
            // Twice: a crash right after recovery finds the bits durable.
            let again = store.open(Life::UNKNOWN).expect("opens again").replica;
            let mut data = store.device_bytes(BLOCKS * 4096);
            if volumes > 1 {
                data.extend(store.read(second().base() * SECTOR, BLOCKS * 4096).expect("reads"));
            }
            for (block, here) in data.chunks_exact(4096).enumerate() {
                if here == bytes_of(peer[block]) {
                    continue;
                }
                looked += 1;
                for replica in [&found.replica, &again] {
                    let map = replica.bitmap(node(2)).expect("there");
                    assert!(
                        map.is_set(map.bits_of(span(block as u64)).start),
                        "seed {seed}, prefix {prefix}, {survivors:?}: block {block} differs"
                    );
                }
            }
        }
    }
    looked
}

#[test]
fn a_superblock_change_is_there_whole_or_not_at_all() {
    let (mut pair, start) = Pair::new(1);
    for n in 1..=6_u64 {
        pair.replica.change(|sb| {
            sb.remember(sb.current);
            sb.current = Generation(100 + n);
            sb.position = Seq(n);
        });
        assert!(pair.commit(&BTreeSet::new()));
        pair.disk.mark(100 + n);
    }
    let log = pair.disk.log();
    let mut acknowledged = 4;
    for prefix in 0..=log.len() {
        if let Some(Entry::Mark(n)) = prefix.checked_sub(1).map(|i| &log.entries()[i]) {
            acknowledged = (*n).max(4);
        }
        for seed in 0..20 {
            let image = log.replay(&start, prefix, Survivors::Seeded(seed));
            let found = Replica::recover(&Store::new(Arc::new(image)), pair.store.len(), Life::UNKNOWN)
                .expect("one copy is good");
            let sb = found.replica.superblock();
            let whole = sb.current.0 == 4 || sb.position.0 + 100 == sb.current.0;
            let new = sb.current.0 == acknowledged || sb.current.0 == (acknowledged + 1).max(101);
            assert!(whole && new, "prefix {prefix}: {:?} after {acknowledged}", sb.current);
        }
    }
}
