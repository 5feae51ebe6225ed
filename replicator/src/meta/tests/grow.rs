//! A replica grows: a crash at every moment leaves the old size or the new one, and what differs has bits in either.

use super::*;
use crate::ids::Volume;
use crate::meta::layout::Devices;

const MIB: u64 = 1 << 20;

/// So many sectors of the old shape, and bytes of the device as it was and as it is.
struct Grown {
    store: Store,
    disk: Arc<RecordingDevice>,
    start: MemDevice,
    replica: Replica,
    was: u64,
    len: u64,
}

/// A replica on a device that has just grown, with bits and hot extents.
fn grown_device() -> Grown {
    let (layout, len) = (small_layout(), 2 * MIB);
    let mem = Arc::new(MemDevice::with_volatile_cache(ByteLen(len), BlockSize::B512));
    let was = layout.end();
    Store::new(Arc::clone(&mem) as Arc<dyn BlockDevice>).format(superblock(layout)).expect("made");
    let disk = RecordingDevice::new(Arc::clone(&mem) as Arc<dyn BlockDevice>);
    let store = Store::new(Arc::clone(&disk) as Arc<dyn BlockDevice>);
    let mut replica = store.open_grown(Life::UNKNOWN, &[was]).expect("found where it ended").replica;
    replica.mark(NodeSet::of(node(2)), Span::new(40, 8));
    let commit = replica.plan(&BTreeSet::from([3, 9]), true).expect("something");
    store.write(&commit.write).expect("written");
    replica.committed(&commit);
    Grown { start: mem.copy(), store, disk, replica, was, len }
}

fn devices(len: u64) -> Devices {
    Devices::one(len, len)
}

impl Grown {
    /// Grows it, takes the old superblocks away, and marks each of the two in the log of writes.
    fn grow(&mut self, data: u64, clean: bool) {
        let commit = self.replica.plan_growth(Volume::FIRST, data, &devices(self.len), clean, true).expect("room");
        self.disk.mark(0);
        self.store.write(&commit.write).expect("written");
        self.replica.committed(&commit);
        self.disk.mark(1);
        let commit = self.replica.plan(&BTreeSet::new(), false).expect("the old ones are to go");
        self.store.write(&commit.write).expect("written");
        self.replica.committed(&commit);
        self.disk.mark(2);
    }

    fn most(&self) -> u64 {
        self.replica.room(Volume::FIRST, &devices(self.len))
    }
}

fn bits(replica: &Replica, peer: u8, span: Span) -> u64 {
    let map = replica.bitmap(node(peer)).expect("there");
    map.bits_of(span).filter(|b| map.is_set(*b)).count() as u64
}

#[test]
fn a_crash_while_metadata_move_leaves_the_old_size_or_the_new_one_and_every_bit() {
    let (mut looked, mut sizes) = (0, BTreeSet::new());
    for clean in [false, true] {
        let mut grown = grown_device();
        let (old, new) = (grown.replica.superblock().size, grown.most());
        assert!(new > 2 * old, "{old} to {new}");
        grown.grow(new, clean);
        let log = grown.disk.log();
        let mut done = 0;
        for prefix in 0..=log.len() {
            if let Some(Entry::Mark(n)) = prefix.checked_sub(1).map(|i| &log.entries()[i]) {
                done = *n;
            }
            for survivors in (0..12).map(Survivors::Seeded).chain([Survivors::DurableOnly, Survivors::All]) {
                let image = Arc::new(log.replay(&grown.start, prefix, survivors));
                let store = Store::new(image as Arc<dyn BlockDevice>);
                let found = store.open_grown(Life::UNKNOWN, &[grown.was]);
                let found = found.unwrap_or_else(|e| panic!("prefix {prefix}, {survivors:?}: {e}"));
                let size = found.replica.superblock().size;
                assert!(size == new || (size == old && done == 0), "prefix {prefix}: {size} sectors after {done}");
                assert!(!found.log_damaged && found.damaged_cells == 0, "prefix {prefix}, {survivors:?}");
                let hot = |e: u64| bits(&found.replica, 2, Span::new(e * 32, 32)) == 4;
                assert!(hot(3) && hot(9) && bits(&found.replica, 2, Span::new(40, 8)) == 1, "what was known is");
                let added = Span::new(old, size - old);
                let marked = [2, 3].map(|n| bits(&found.replica, n, added));
                if clean {
                    let own = (grown.was / SECTOR - old).div_ceil(8);
                    assert_eq!(marked, if size == old { [0; 2] } else { [own; 2] }, "only where metadata lay");
                } else {
                    assert_eq!(marked, [(size - old).div_ceil(8); 2]);
                }
                let again = store.open_grown(Life::UNKNOWN, &[grown.was]).expect("opens again").replica;
                assert_eq!(again.superblock().size, size);
                sizes.insert(size);
                looked += 1;
            }
        }
    }
    assert!(looked > 300 && sizes.len() == 2, "{looked} images, {sizes:?}");
}

/// It grew twice, and the second time nobody wrote down where its metadata are before it crashed: both places are looked at.
#[test]
fn metadata_that_were_about_to_move_are_found_though_the_device_grew_again() {
    let mut grown = grown_device();
    grown.grow(grown.most() - 80, false);
    let image = grown.disk.log().replay(&grown.start, grown.disk.log().len(), Survivors::All);
    let longer = MemDevice::new(ByteLen(2 * grown.len), BlockSize::B512);
    let mut bytes = vec![0; grown.len as usize];
    let whole = Store::new(Arc::new(image));
    bytes.copy_from_slice(&super::super::Reader::read(&whole, 0, grown.len).expect("reads"));
    futures_free_write(&longer, &bytes);
    let store = Store::new(Arc::new(longer));
    assert_eq!(store.open_grown(Life::UNKNOWN, &[grown.was]).err(), Some(MetaError::NotThere));
    let found = store.open_grown(Life::UNKNOWN, &[grown.was, grown.len]).expect("found").replica;
    assert_eq!(found.superblock().size, grown.replica.superblock().size);
}

/// Years later both copies at the new end are damaged: what lay at the old one must not be taken for the truth.
#[test]
fn the_superblocks_of_the_old_place_are_never_found_again() {
    let mut grown = grown_device();
    grown.grow(grown.most(), false);
    let zeroes = vec![0xff; PAGE as usize];
    for at in Layout::places(grown.len)[0] {
        let damaged = [b"SHFREPL\0", &zeroes[8..]].concat();
        let put = super::super::Put { at, bytes: damaged };
        grown.store.write(&super::super::MetaWrite { first: vec![put], then: Vec::new() }).expect("written");
    }
    let found = grown.store.open_grown(Life::UNKNOWN, &[grown.was]).err();
    assert_eq!(found, Some(MetaError::Damaged));
}

#[test]
fn a_device_that_has_grown_is_as_it_was_until_the_replica_grows() {
    let grown = grown_device();
    assert_eq!(grown.store.open(Life::UNKNOWN).err(), Some(MetaError::NotThere), "nobody said where it ended");
    let found = grown.store.open_grown(Life::UNKNOWN, &[grown.was]).expect("found");
    assert_eq!(found.replica.superblock().size, small().data);
    let audit = audit(&grown.store, grown.len, &[grown.was]).expect("audited");
    assert_eq!(audit.findings, Vec::<String>::new());
}

/// The bitmap of what has grown has at most 2^28 bits: bits become coarser, and what was set is.
#[test]
fn bits_become_coarser_where_finer_ones_would_be_too_many() {
    const TIB: u64 = (1 << 40) / SECTOR;
    let old = Layout::behind(TIB * SECTOR + (1 << 30), Shape::for_data(TIB, 1).expect("a shape"));
    let new = old.grown(5 * TIB, devices(6 * TIB * SECTOR)).expect("room");
    assert_eq!((old.shape.bit, new.shape.bit), (8, 64));
    assert!(new.shape.memory() <= 32 << 20 && new.bitmaps >= old.end() && new.bitmaps >= 5 * TIB * SECTOR);
    assert!(matches!(old.grown(5 * TIB, devices(2 * TIB * SECTOR)), Err(MetaError::TooSmall { .. })));
    assert!(matches!(old.grown(300 * TIB, devices(400 * TIB * SECTOR)), Err(MetaError::Shape(_))));
    let mut map = crate::meta::bitmap::Bitmap::new(1000, 8);
    [0, 7, 8, 999].into_iter().for_each(|b| map.mark(map.span_of(b)));
    let coarse = map.grown(500, 64);
    let set: Vec<u64> = (0..500).filter(|b| coarse.is_set(*b)).collect();
    assert_eq!(set, [0, 1, 124]);
    let longer = map.grown(5000, 8);
    assert_eq!((longer.set_bits(), longer.is_set(999), longer.bits()), (4, true, 5000));
}

/// Old and new metadata would lie in one another's way.
#[test]
fn a_device_that_grew_by_less_than_its_metadata_has_no_room() {
    let layout = small_layout();
    let len = layout.end() + layout.shape.meta_len() - PAGE;
    assert_eq!(layout.room(devices(len)), layout.shape.data);
    assert!(layout.grown(layout.shape.data + 8, devices(len)).is_err());
    assert!(layout.room(devices(len + PAGE)) > layout.shape.data);
    assert!(layout.grown(layout.shape.data, devices(len + MIB)).is_err(), "it only grows");
}

#[test]
fn external_metadata_stay_and_longer_bitmaps_move_behind() {
    let layout = Layout::external(small());
    let data = |sectors: u64, meta| Devices::one(sectors * SECTOR, meta);
    let same = layout.grown(8000, data(8000, layout.end())).expect("room");
    assert_eq!((same.bitmaps, same.supers, same.log), (layout.bitmaps, layout.supers, layout.log));
    let many = 8 * 40_000;
    assert!(layout.grown(many, data(many, layout.end())).is_err(), "the bitmaps become longer");
    let moved = layout.grown(many, data(many, layout.end() + 4 * PAGE)).expect("room");
    assert_eq!((moved.bitmaps, moved.supers), (layout.end(), layout.supers));
    assert!(layout.grown(many, data(many - 8, MIB)).is_err(), "the data have no room");
}
