//! A volume is taken away, added again, or gets another disk; and crashes in the middle of each.

use super::volumes::Slice;
use super::*;
use crate::ids::{Sizes, Volume};
use crate::meta::further::{Further, Label};
use crate::meta::layout::Devices;
use crate::meta::replica::Swap;
use crate::meta::store::Disks;

const LEN: u64 = 1 << 19;

fn one() -> Volume {
    Volume::new(1).expect("a volume")
}

/// The first volume's disk, two more behind it; the second volume is on one of these.
fn disks(device: &Arc<dyn BlockDevice>, second: u64) -> Disks {
    let (disks, first) = (Disks::default(), small_layout().end());
    disks.add(Volume::FIRST, Slice::of(device, 0, first));
    disks.add(one(), Slice::of(device, first + second * LEN, LEN));
    disks
}

fn two_volumes() -> Superblock {
    let mut sb = superblock(small_layout());
    sb.set_further(Further::new(one(), 5, LEN, 2, None).expect("room"));
    sb
}

fn memory() -> Arc<MemDevice> {
    Arc::new(MemDevice::with_volatile_cache(ByteLen(small_layout().end() + 2 * LEN), BlockSize::B512))
}

fn every_survivor() -> impl Iterator<Item = Survivors> {
    (0..12).map(Survivors::Seeded).chain([Survivors::DurableOnly, Survivors::All])
}

fn label(disks: &Disks) -> Option<Label> {
    let place = one().base() * SECTOR + LEN - PAGE;
    Label::decode(&super::super::Reader::read(&Store::on(disks.clone()), place, PAGE).expect("reads")).expect("known")
}

#[test]
fn a_crash_while_a_volume_is_taken_away_or_added_again_leaves_it_there_or_not() {
    let mem = memory();
    let of_mem: Arc<dyn BlockDevice> = mem.clone();
    Store::on(disks(&of_mem, 0)).format(two_volumes()).expect("made");
    let start = mem.copy();
    let disk = RecordingDevice::new(mem);
    let recorded: Arc<dyn BlockDevice> = disk.clone();
    let store = Store::on(disks(&recorded, 0));
    let mut replica = store.open(Life::UNKNOWN).expect("opens").replica;
    let size = replica.sizes().of(one());
    let hot: BTreeSet<u32> = replica.extents(Span::new(one().base() + 40, 8)).collect();
    let mut states = vec![(size, 1)];
    let write = |replica: &mut Replica, commit: crate::meta::replica::Commit| {
        store.write(&commit.write).expect("written");
        replica.committed(&commit);
    };
    let commit = replica.plan(&hot, true).expect("something");
    write(&mut replica, commit);
    let commit = replica.plan_leave(one(), 2, true).expect("there");
    write(&mut replica, commit);
    disk.mark(1);
    states.push((0, 2));
    assert!(replica.has_left() && label(&disks(&recorded, 0)).is_some_and(|l| !l.taken_away), "not before it is gone");
    let commit = replica.plan(&BTreeSet::new(), false).expect("the label");
    write(&mut replica, commit);
    assert!(!replica.has_left() && label(&disks(&recorded, 0)).is_some_and(|l| l.taken_away));
    let devices = Devices {
        further: Sizes::default().with(one(), LEN),
        ..Devices::one(small_layout().end(), small_layout().end())
    };
    let commit = replica.plan_growth(one(), size, &devices, false, true).expect("room");
    write(&mut replica, commit);
    disk.mark(2);
    states.push((size, 3));
    let (log, mut looked, mut done) = (disk.log(), BTreeSet::new(), 0);
    for prefix in 0..=log.len() {
        if let Some(Entry::Mark(n)) = prefix.checked_sub(1).map(|i| &log.entries()[i]) {
            done = *n as usize;
        }
        for survivors in every_survivor() {
            let image: Arc<dyn BlockDevice> = Arc::new(log.replay(&start, prefix, survivors));
            let found = Store::on(disks(&image, 0)).open(Life::UNKNOWN);
            let found = found.unwrap_or_else(|e| panic!("prefix {prefix}, {survivors:?}: {e}"));
            let state = (found.replica.sizes().of(one()), found.replica.lives().of(one()));
            assert!(state == states[done] || Some(&state) == states.get(done + 1), "prefix {prefix}: {state:?}");
            assert!(!found.log_damaged && found.damaged_cells == 0, "prefix {prefix}, {survivors:?}");
            if state.1 == 3 {
                let map = found.replica.bitmap(node(2)).expect("there");
                assert!(map.covers(one().span(size)), "what is added again is marked in the same change");
            }
            looked.insert(state);
        }
    }
    assert_eq!(looked.len(), 3);
}

#[test]
fn a_volume_that_was_taken_away_is_remembered_and_told_by_its_disk() {
    let device: Arc<dyn BlockDevice> = memory();
    let store = Store::on(disks(&device, 0));
    let mut replica = store.format(two_volumes()).expect("made");
    assert!(replica.plan_leave(Volume::FIRST, 2, true).is_err() && replica.plan_leave(one(), 3, true).is_err());
    for _ in 0..2 {
        let commit = match replica.has_left() {
            false => replica.plan_leave(one(), 2, true).expect("there"),
            true => replica.plan(&BTreeSet::new(), false).expect("the label"),
        };
        store.write(&commit.write).expect("written");
        replica.committed(&commit);
    }
    assert!(replica.plan_leave(one(), 2, true).is_err(), "it is gone");
    // It needs no disk any more.
    let alone = Disks::default();
    alone.add(Volume::FIRST, Slice::of(&device, 0, small_layout().end()));
    let found = Store::on(alone).open(Life::UNKNOWN).expect("opens").replica;
    let sb = found.superblock();
    assert_eq!((found.lives().of(one()), sb.further.len(), sb.gone[0].number), (2, 0, 5));
    assert_eq!(sb.incompat, 2, "programs that know of no lives refuse it");
    let told = label(&disks(&device, 0)).expect("a label");
    assert_eq!((told.taken_away, told.number, told.volume), (true, 5, 1));
    // Rows that no replica has are refused.
    for (volume, life, named) in [(1, 3, 2), (1, 2, 0), (0, 2, 2)] {
        let mut bytes = sb.encode();
        bytes[24..32].copy_from_slice(&u64::to_le_bytes(named));
        (bytes[632], bytes[672]) = (volume, life);
        bytes[12..16].fill(0);
        let crc = crc32c::crc32c(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        assert!(Superblock::decode(&bytes).is_err(), "volume {volume}, life {life}, features {named}");
    }
    assert!(Superblock::decode(&sb.encode()).is_ok());
}

/// The disk of the second volume is replaced by the third one, on which something lies.
#[test]
fn a_crash_while_a_disk_is_swapped_leaves_the_old_one_or_the_new_one_marked() {
    let mem = memory();
    let of_mem: Arc<dyn BlockDevice> = mem.clone();
    let mut sb = two_volumes();
    (sb.flags.consistent, sb.flags.up_to_date, sb.flags.primary) = (true, true, true);
    let store = Store::on(disks(&of_mem, 0));
    let mut replica = store.format(sb).expect("made");
    let hot: BTreeSet<u32> = replica.extents(Span::new(0, 8)).chain(replica.extents(one().span(8))).collect();
    let commit = replica.plan(&hot, true).expect("something");
    store.write(&commit.write).expect("written");
    let start = mem.copy();
    let disk = RecordingDevice::new(mem);
    let recorded: Arc<dyn BlockDevice> = disk.clone();
    let store = Store::on(disks(&recorded, 1));
    let swap = Swap { volume: one(), number: 6, len: LEN, marks: true };
    let write = Replica::swap(&store, store.len(), &[], swap).expect("planned");
    store.write(&write).expect("written");
    disk.mark(1);
    let (log, mut looked) = (disk.log(), BTreeSet::new());
    for prefix in 0..=log.len() {
        for survivors in every_survivor() {
            let image: Arc<dyn BlockDevice> = Arc::new(log.replay(&start, prefix, survivors));
            let open = |second| Store::on(disks(&image, second)).open(Life::UNKNOWN);
            let found = match (open(0), open(1)) {
                (Ok(old), Err(MetaError::OtherDisk { .. })) => (old, false),
                (Err(MetaError::OtherDisk { .. }), Ok(new)) => (new, true),
                other => panic!("prefix {prefix}, {survivors:?}: {:?}", (other.0.err(), other.1.err())),
            };
            let (found, new) = found;
            let (map, flags) = (found.replica.bitmap(node(2)).expect("there"), found.replica.superblock().flags);
            assert!(
                found.damaged_cells == 0 && map.covers(Span::new(0, 8)) && map.covers(one().span(8)),
                "what was hot"
            );
            assert_eq!(map.covers(one().span(found.replica.sizes().of(one()))), new, "all of the new disk");
            assert!(
                map.set_sectors_of(Volume::FIRST) <= found.replica.layout().shape.extent,
                "of the other volume no more"
            );
            assert_eq!((flags.consistent, flags.primary, found.kept), (!new, !new, false));
            looked.insert(new);
        }
    }
    assert_eq!(looked.len(), 2);
}

#[test]
fn only_a_further_volume_gets_another_disk_and_only_one_with_room() {
    let device: Arc<dyn BlockDevice> = memory();
    let store = Store::on(disks(&device, 0));
    store.format(two_volumes()).expect("made");
    let plan = |volume: Volume, len| {
        let swap = Swap { volume, number: 6, len, marks: true };
        Replica::swap(&store, store.len(), &[], swap).map(|write| write.first.len())
    };
    let before = store.open(Life::UNKNOWN).expect("opens").replica.superblock().clone();
    assert!(plan(Volume::FIRST, LEN).is_err() && plan(Volume::new(2).expect("a volume"), LEN).is_err());
    assert!(matches!(plan(one(), LEN / 2), Err(MetaError::TooSmall { .. })));
    assert!(plan(one(), 2 * LEN).is_ok());
    let after = store.open(Life::UNKNOWN).expect("opens").replica.superblock().clone();
    assert_eq!((after.further, after.flags), (before.further, before.flags), "planning writes nothing");
}
