//! Volumes besides the first: whose their disks are, and crashes while one is added or grows.

use block::{ByteOffset, Geometry, Io};

use super::*;
use crate::ids::{Sizes, Volume};
use crate::meta::further::Further;
use crate::meta::layout::Devices;
use crate::meta::store::Disks;

/// A part of a device as a device: the disks of several volumes whose writes have one order.
pub(super) struct Slice {
    of: Arc<dyn BlockDevice>,
    from: u64,
    len: u64,
}

impl Slice {
    pub(super) fn of(device: &Arc<dyn BlockDevice>, from: u64, len: u64) -> Arc<dyn BlockDevice> {
        Arc::new(Slice { of: Arc::clone(device), from, len })
    }
}

impl BlockDevice for Slice {
    fn geometry(&self) -> Geometry {
        Geometry { len: ByteLen(self.len), ..self.of.geometry() }
    }

    fn submit(&self, mut io: Io) {
        assert!(io.at.0 + io.len.0 <= self.len, "outside the disk");
        io.at = ByteOffset(io.at.0 + self.from);
        self.of.submit(io);
    }

    fn describe(&self) -> String {
        "a part of a device".to_owned()
    }
}

const MIB: u64 = 1 << 20;

fn one() -> Volume {
    Volume::new(1).expect("a volume")
}

/// The first volume's disk, and a second one of so many bytes behind it.
fn disks(device: &Arc<dyn BlockDevice>, second: u64) -> Disks {
    let (disks, first) = (Disks::default(), small_layout().end());
    disks.add(Volume::FIRST, Slice::of(device, 0, first));
    disks.add(one(), Slice::of(device, first, second));
    disks
}

fn devices(second: u64) -> Devices {
    let first = small_layout().end();
    Devices { data: first, meta: first, further: Sizes::default().with(one(), second) }
}

/// It is added on a disk of half a MiB, is written and marked, and grows to all of a disk that has become twice as long.
#[test]
fn a_crash_while_a_volume_is_added_or_grows_leaves_it_as_it_was_or_whole() {
    let mem = Arc::new(MemDevice::with_volatile_cache(ByteLen(small_layout().end() + MIB), BlockSize::B512));
    let of_mem: Arc<dyn BlockDevice> = mem.clone();
    Store::on(disks(&of_mem, MIB)).format(superblock(small_layout())).expect("made");
    let start = mem.copy();
    let disk = RecordingDevice::new(mem);
    let recorded: Arc<dyn BlockDevice> = disk.clone();
    let store = Store::on(disks(&recorded, MIB));
    let mut replica = store.open(Life::UNKNOWN).expect("opens").replica;
    let mut sizes = vec![0];
    for len in [MIB / 2, MIB] {
        let to = replica.room(one(), &devices(len));
        let commit = replica.plan_growth(one(), to, &devices(len), false, true).expect("room");
        store.write(&commit.write).expect("written");
        replica.committed(&commit);
        disk.mark(sizes.len() as u64);
        sizes.push(to);
        // What was new is synchronised, but for a block that is written once more.
        let bits: Vec<u64> = replica.bitmap(node(2)).map(|m| m.bits_of(one().span(to)).collect()).unwrap_or_default();
        bits.iter().for_each(|b| [2, 3].iter().for_each(|n| replica.clear(node(*n), *b)));
        let wanted: BTreeSet<u32> = replica.extents(Span::new(one().base() + 40, 8)).collect();
        for wanted in [BTreeSet::new(), wanted] {
            let commit = replica.plan(&wanted, true).expect("something");
            store.write(&commit.write).expect("written");
            replica.committed(&commit);
        }
        disk.mark(10 + sizes.len() as u64);
    }
    let (log, mut looked, mut done, mut hot) = (disk.log(), BTreeSet::new(), 0, false);
    for prefix in 0..=log.len() {
        match prefix.checked_sub(1).map(|i| &log.entries()[i]) {
            Some(Entry::Mark(n)) if *n > 10 => hot = true,
            Some(Entry::Mark(n)) => done = *n as usize,
            _ => {}
        }
        for survivors in (0..12).map(Survivors::Seeded).chain([Survivors::DurableOnly, Survivors::All]) {
            let image: Arc<dyn BlockDevice> = Arc::new(log.replay(&start, prefix, survivors));
            let found = Store::on(disks(&image, MIB)).open(Life::UNKNOWN);
            let found = found.unwrap_or_else(|e| panic!("prefix {prefix}, {survivors:?}: {e}"));
            let size = found.replica.sizes().of(one());
            let next = sizes.get(done + 1).copied();
            assert!(size == sizes[done] || Some(size) == next, "prefix {prefix}: {size} after {done}");
            assert!(!found.log_damaged && found.damaged_cells == 0, "prefix {prefix}, {survivors:?}");
            let marked = |span: Span| {
                let map = found.replica.bitmap(node(2)).expect("there");
                map.bits_of(span).filter(|b| map.is_set(*b)).count() as u64
            };
            if Some(size) == next {
                let before = sizes[done];
                let added = Span::new(one().base() + before, size - before);
                assert_eq!(marked(added), added.len.div_ceil(8), "what is new is marked in the same change");
            }
            assert!(!hot || marked(Span::new(one().base() + 32, 32)) > 0, "prefix {prefix}: what was hot is marked");
            looked.insert(size);
        }
    }
    assert_eq!(looked.into_iter().collect::<Vec<_>>(), sizes);
}

#[test]
fn a_volume_is_found_only_on_the_disk_that_it_was_made_with() {
    let disk = || -> Arc<dyn BlockDevice> { Arc::new(MemDevice::new(ByteLen(MIB), BlockSize::B512)) };
    let made = |device: u64, number: u64| {
        let (first, second) = (disk(), disk());
        let mut sb = superblock(small_layout());
        (sb.device, sb.layout) = (device, Layout::behind(MIB, small()));
        sb.set_further(Further::new(one(), number, MIB, 2, None).expect("room"));
        let disks = Disks::default();
        disks.add(Volume::FIRST, Arc::clone(&first));
        disks.add(one(), Arc::clone(&second));
        Store::on(disks).format(sb).expect("made");
        (first, second)
    };
    let open = |first: &Arc<dyn BlockDevice>, second: Option<&Arc<dyn BlockDevice>>| {
        let disks = Disks::default();
        disks.add(Volume::FIRST, Arc::clone(first));
        second.into_iter().for_each(|s| disks.add(one(), Arc::clone(s)));
        Store::on(disks).open(Life::UNKNOWN).map(|found| found.replica.sizes().of(one()))
    };
    let ((first, second), (_, other), (_, older)) = (made(77, 1), made(78, 1), made(77, 2));
    assert!(open(&first, Some(&second)).is_ok_and(|sectors| sectors > 0));
    assert_eq!(open(&first, None), Err(MetaError::NoDisk(1)));
    assert_eq!(open(&first, Some(&disk())), Err(MetaError::OtherDisk { volume: 1, found: None }));
    for wrong in [&other, &older] {
        assert!(matches!(open(&first, Some(wrong)), Err(MetaError::OtherDisk { volume: 1, found: Some(_) })));
    }
    let short: Arc<dyn BlockDevice> = Arc::new(MemDevice::new(ByteLen(MIB / 2), BlockSize::B512));
    assert!(matches!(open(&first, Some(&short)), Err(MetaError::TooSmall { .. })));
}
