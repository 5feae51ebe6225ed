//! Power failures, the latch, and growth.

use block::recording::{Entry, RecordingDevice, Survivors};
use rustix::io::Errno;

use super::*;
use crate::format::{BlockSpan, SUPERBLOCKS};
use crate::meta::backend::{FencedBackend, Shared};
use crate::meta::redo::Checkpoint;
use crate::meta::tables::ReadTables;

const ROOT: InodeNo = InodeNo::ROOT;

/// Commits `commits` creates on a recorded disk; the log has mark `n` after the n-th was acknowledged.
fn recorded(start: &MemDevice, superblock: &Superblock, commits: u64) -> Arc<RecordingDevice> {
    let disk = RecordingDevice::new(Arc::new(start.copy()));
    let dev = Arc::clone(&disk) as Arc<dyn BlockDevice>;
    let store = Store::open_unfenced(dev, superblock, Arc::new(Latch::new())).expect("opens");
    for i in 1..=commits {
        let mut txn = store.write().expect("begins");
        txn.run(NOW, |ops| {
            ops.create(&node(ROOT, format!("f{i}").as_bytes(), 0o100_644), true)?;
            if i > 2 { ops.unlink(ROOT, format!("f{}", i - 2).as_bytes(), &never).map(drop) } else { Ok(()) }
        })
        .expect("runs")
        .expect("succeeds");
        txn.commit().expect("commits");
        disk.mark(i);
    }
    store.latch().trip();
    disk
}

/// Opens what a crash left, and proves that the `acknowledged` commits and nothing half-done are there.
fn must_show(image: MemDevice, acknowledged: u64, context: &str) {
    let disk = Arc::new(image);
    let left = super::check_finds::unmounted(&disk);
    assert!(left.is_clean(), "{context}: {left}");
    let superblock = read_superblock(&as_dyn(&disk)).unwrap_or_else(|e| panic!("{context}: {e}")).superblock;
    let f = Fixture::open(disk, superblock);
    let there = |i: u64| f.view().lookup(ROOT, format!("f{i}").as_bytes()).is_ok();
    // The commit after the last acknowledged may be there whole, or not at all.
    let last = if there(acknowledged + 1) { acknowledged + 1 } else { acknowledged };
    for i in 1..=last + 2 {
        assert_eq!(there(i), i <= last && i + 2 > last, "{context}: f{i}, {acknowledged} were acknowledged");
    }
    f.must_be_clean();
}

#[test]
fn every_prefix_shows_what_was_acknowledged_before_it() {
    let f = Fixture::new();
    let Fixture { disk: start, superblock, store } = f;
    store.close().expect("closes");
    let log = recorded(&start, &superblock, 6).log();
    let mut acknowledged = 0;
    for prefix in 0..=log.len() {
        if let Some(Entry::Mark(n)) = prefix.checked_sub(1).map(|i| &log.entries()[i]) {
            acknowledged = *n;
        }
        for survivors in [
            Survivors::DurableOnly,
            Survivors::All,
            Survivors::Seeded(prefix as u64),
            Survivors::Seeded(!(prefix as u64)),
        ] {
            must_show(
                log.replay(&start, prefix, survivors),
                acknowledged,
                &format!("prefix {prefix} of {}, {survivors:?}", log.len()),
            );
        }
    }
    assert_eq!(acknowledged, 6);
}

/// So many that the redo log fills up and a checkpoint is made; around it every prefix, elsewhere every ninth.
#[test]
fn every_prefix_around_a_checkpoint_shows_what_was_acknowledged_before_it() {
    let Fixture { disk: start, superblock, store } = Fixture::new();
    store.close().expect("closes");
    let before = checkpoint_of(&start, &superblock);
    let disk = recorded(&start, &superblock, 270);
    let log = disk.log();
    let mut acknowledged = 0;
    let mut generations = std::collections::BTreeSet::new();
    for prefix in 0..=log.len() {
        if let Some(Entry::Mark(n)) = prefix.checked_sub(1).map(|i| &log.entries()[i]) {
            acknowledged = *n;
        }
        let around = (250..=258).contains(&acknowledged);
        if !around && prefix % 90 != 0 {
            continue;
        }
        for survivors in [Survivors::DurableOnly, Survivors::All, Survivors::Seeded(prefix as u64)] {
            let context = format!("prefix {prefix} of {}, {survivors:?}", log.len());
            let image = log.replay(&start, prefix, survivors);
            let generation = checkpoint_of(&image, &superblock).generation - before.generation;
            generations.extend(around.then_some(generation));
            must_show(image, acknowledged, &context);
        }
    }
    assert_eq!(acknowledged, 270);
    assert_eq!(Vec::from_iter(generations), [1, 2], "after that of the opening one was made there, and only one");
}

/// The database on a disk, without its log.
fn bare_database(dev: Arc<dyn BlockDevice>, superblock: &Superblock) -> redb::Database {
    let shared = Shared::new(dev, superblock.clone(), Arc::new(Latch::new()), true);
    redb::Database::builder().create_with_backend(FencedBackend(shared)).expect("opens")
}

/// The last checkpoint that a disk holds.
fn checkpoint_of(disk: &MemDevice, superblock: &Superblock) -> Checkpoint {
    let db = bare_database(as_dyn(&Arc::new(disk.copy())), superblock);
    let txn = redb::ReadableDatabase::begin_read(&db).expect("begins");
    Checkpoint::load(&ReadTables::open(&txn).expect("tables").counter).expect("readable").expect("there")
}

/// A node dies again and again while it opens the volume: every record is replayed as often, and shows once.
#[test]
fn crash_while_the_log_is_replayed_loses_nothing() {
    let Fixture { disk: start, superblock, store } = Fixture::new();
    store.close().expect("closes");
    let log = recorded(&start, &superblock, 5).log();
    let image = log.replay(&start, log.len(), Survivors::DurableOnly);
    let opening = RecordingDevice::new(Arc::new(image.copy()));
    let dev = Arc::clone(&opening) as Arc<dyn BlockDevice>;
    let store = Store::open_unfenced(dev, &superblock, Arc::new(Latch::new())).expect("opens");
    store.latch().trip();
    let opened = opening.log();
    assert!(opened.len() > 2, "opening makes a checkpoint");
    for prefix in 0..=opened.len() {
        for survivors in [Survivors::DurableOnly, Survivors::All, Survivors::Seeded(prefix as u64)] {
            let again = opened.replay(&image, prefix, survivors);
            must_show(again, 5, &format!("prefix {prefix} of {} of an opening, {survivors:?}", opened.len()));
        }
    }
}

/// Before the redo log was there the database alone was the store. Its volume is opened, and says from then on that an
/// older program must leave it alone.
#[test]
fn volume_from_before_the_redo_log_is_opened_and_declares_it() {
    let f = Fixture::new();
    f.file("old");
    let Fixture { disk, superblock, store } = f;
    store.close().expect("closes");
    let db = bare_database(as_dyn(&disk), &superblock);
    let mut txn = db.begin_write().expect("begins");
    txn.set_quick_repair(true);
    let mut counters = txn.open_table(redb::TableDefinition::<&str, u64>::new("counter")).expect("opens");
    for name in ["checkpoint", "checkpoint_chance"] {
        counters.remove(name).expect("removes").expect("was there");
    }
    drop(counters);
    txn.commit().expect("commits");
    db.close().expect("closes");
    let old = Superblock { features: crate::format::Features::default(), ..superblock };
    disk::write_superblocks(&as_dyn(&disk), &old).expect("writes");
    let f = Fixture::open(disk, old);
    assert_eq!(f.superblock.features.incompat, crate::format::Features::REDO_LOG);
    f.file("new");
    let f = f.killed();
    assert!(["old", "new"].iter().all(|name| f.view().lookup(ROOT, name.as_bytes()).is_ok()));
    f.must_be_clean();
}

/// What a view shows must not be taken back by a crash, so it must not show what is only on its way to the log.
#[test]
fn view_shows_a_change_only_after_its_record_is_stable() {
    let Fixture { disk, superblock, store } = Fixture::new();
    store.close().expect("closes");
    let fault = block::fault::FaultDevice::new(as_dyn(&disk));
    let store = Store::open_unfenced(Arc::clone(&fault) as Arc<dyn BlockDevice>, &superblock, Arc::new(Latch::new()))
        .expect("opens");
    fault.hang();
    std::thread::scope(|scope| {
        let committing = scope.spawn(|| {
            let mut txn = store.write().expect("begins");
            txn.run(NOW, |ops| ops.create(&node(ROOT, b"a", 0o100_644), true)).expect("runs").expect("creates");
            txn.commit()
        });
        while fault.held() == 0 {
            std::thread::yield_now();
        }
        let seen = store.view().expect("a view").lookup(ROOT, b"a").map(drop);
        fault.heal();
        committing.join().expect("no panic").expect("commits");
        assert_eq!(seen.expect_err("not there yet").errno(), Some(errno(Errno::NOENT)));
    });
    assert!(store.view().expect("a view").lookup(ROOT, b"a").is_ok());
}

#[test]
fn every_prefix_of_formatting_is_no_volume_or_a_whole_one() {
    let start = Arc::new(MemDevice::with_volatile_cache(ByteLen(MIN_VOLUME), BlockSize::B4096));
    let disk = RecordingDevice::new(Arc::new(start.copy()));
    let dev = Arc::clone(&disk) as Arc<dyn BlockDevice>;
    Store::format(&dev, &options()).expect("formats");
    let log = disk.log();
    let mut volumes = 0;
    for prefix in (0..=log.len()).rev().step_by(3) {
        let image = Arc::new(log.replay(&start, prefix, Survivors::Seeded(prefix as u64)));
        let Ok(chosen) = read_superblock(&as_dyn(&image)) else { continue };
        volumes += 1;
        let f = Fixture::open(image, chosen.superblock);
        f.must_be_clean();
    }
    assert!(volumes > 0);
}

#[test]
fn tripped_latch_ends_everything_at_once_and_for_ever() {
    let f = Fixture::new();
    f.file("acknowledged");
    let mut txn = f.store.write().expect("begins");
    txn.run(NOW, |ops| ops.create(&node(ROOT, b"late", 0o100_644), true)).expect("runs").expect("creates");
    let before = f.disk.copy();
    f.store.latch().trip();
    assert!(f.store.latch().wait_quiet(std::time::Duration::ZERO));
    assert!(txn.commit().expect_err("is refused").is_fatal());
    assert!(f.store.view().err().is_some_and(|e| e.is_fatal()), "cached rows are not served either");
    assert!(f.store.write().err().is_some_and(|e| e.is_fatal()));
    assert!(f.store.reader().view().is_err());
    let Fixture { disk, superblock, store } = f;
    drop(store);
    assert_eq!(first_difference(&before, &disk), None, "dropping the store wrote to the disk");
    let f = Fixture::open(disk, superblock);
    assert!(f.view().lookup(ROOT, b"acknowledged").is_ok());
    assert_eq!(f.view().lookup(ROOT, b"late").expect_err("not committed").errno(), Some(errno(Errno::NOENT)));
    f.must_be_clean();
}

/// The first metadata block in which two disks differ.
fn first_difference(a: &MemDevice, b: &Arc<MemDevice>) -> Option<u64> {
    let (a, step) = (as_dyn(&Arc::new(a.copy())), 1 << 20);
    (0..140_u64).map(|i| i * step).find(|at| {
        let read = |dev: &Arc<dyn BlockDevice>| {
            disk::read(dev, block::units::ByteOffset(*at), step).expect("readable").to_vec()
        };
        read(&a) != read(&as_dyn(b))
    })
}

#[test]
fn failing_disk_is_fatal_and_the_store_opens_again_after() {
    let f = Fixture::new();
    let Fixture { disk, superblock, store } = f;
    store.close().expect("closes");
    let fault = block::fault::FaultDevice::new(as_dyn(&disk));
    let store = Store::open_unfenced(Arc::clone(&fault) as Arc<dyn BlockDevice>, &superblock, Arc::new(Latch::new()))
        .expect("opens");
    let mut txn = store.write().expect("begins");
    txn.run(NOW, |ops| ops.create(&node(ROOT, b"a", 0o100_644), true)).expect("runs").expect("creates");
    fault.fail();
    assert!(txn.commit().expect_err("fails").is_fatal());
    fault.heal();
    assert!(store.write().err().is_some_and(|e| e.is_fatal()), "nothing is known about what the disk holds");
    drop(store);
    let f = Fixture::open(disk, superblock);
    f.file("b");
    f.must_be_clean();
}

/// Fills the store until its superblock lists a second range; the third is then reserved.
fn grown() -> Fixture {
    let f = Fixture::new();
    let d = f.dir(ROOT, "d");
    let name = "n".repeat(240);
    for round in 0.. {
        f.run(|ops| {
            (0..4000).try_for_each(|i| {
                ops.create(&node(d, format!("{name}-{round}-{i}").as_bytes(), 0o100_644), true).map(drop)
            })
        });
        if f.store.superblock().ranges.len() > 1 {
            break;
        }
        assert!(round < 60, "the store does not grow: {:?}", f.store.superblock());
    }
    f
}

#[test]
fn store_grows_into_the_reserved_range_and_reserves_the_next() {
    let f = grown();
    let superblock = f.store.superblock();
    assert_eq!(superblock.ranges[1], f.superblock.next[0]);
    assert!(superblock.reserved_ahead() >= superblock.capacity(), "{superblock:?}");
    assert!(superblock.generation > f.superblock.generation);
    f.must_be_clean();
    let files = f.view().statfs().expect("readable").files;
    let f = f.killed();
    assert_eq!(f.superblock, superblock);
    assert_eq!(f.must_be_clean().inodes, files);
}

#[test]
fn range_taken_but_not_recorded_is_recorded_at_the_next_open() {
    let f = Fixture::new();
    // The moment between the commit that takes a range and the superblock that lists it.
    let spans = f.run(|ops| ops.take_metadata_ranges(1000));
    assert!(!f.superblock.next.contains(&spans[0]));
    let f = f.killed();
    assert!(f.superblock.next.contains(&BlockSpan { start: spans[0].start, len: 1000 }));
    f.must_be_clean();
}

#[test]
fn damaged_first_superblock_is_replaced_by_the_next_opening() {
    let f = Fixture::new();
    let dev = as_dyn(&f.disk);
    disk::write(&dev, SUPERBLOCKS[0], &[0xa5; 4096]).expect("writes");
    disk::flush(&dev).expect("flushes");
    let chosen = read_superblock(&dev).expect("the second is good");
    assert_eq!(chosen.superblock, f.superblock);
    assert!(chosen.remarks()[0].contains("superblock A (at 0) is damaged"));
    f.run(|ops| ops.take_metadata_ranges(10));
    let disk = super::check_finds::dead(f);
    let found = super::check_finds::unmounted(&disk);
    assert!(found.count == 1 && found.findings[0].kind == check::Kind::SuperblockCopy, "{found}");
    let f = Fixture::open(disk, chosen.superblock);
    assert_eq!(read_superblock(&as_dyn(&f.disk)).expect("good").remarks(), Vec::<String>::new());
    f.must_be_clean();
    for at in SUPERBLOCKS {
        disk::write(&as_dyn(&f.disk), at, &[0; 4096]).expect("writes");
    }
    assert!(read_superblock(&as_dyn(&f.disk)).expect_err("none left").to_string().contains("no shorefast volume"));
}

/// A change of the superblock writes copy B first. If A and C were damaged then, B was the only good one, and a power
/// failure that tore it left none.
#[test]
fn opening_mends_the_superblocks_and_never_touches_the_good_one() {
    for good in 0..3 {
        let f = Fixture::new();
        f.store.latch().trip();
        let Fixture { disk, superblock, .. } = f;
        for at in (0..3).filter(|n| *n != good).map(|n| SUPERBLOCKS[n]) {
            disk::write(&as_dyn(&disk), at, &[0xa5; 4096]).expect("writes");
        }
        disk::flush(&as_dyn(&disk)).expect("flushes");
        let recorded = RecordingDevice::new(Arc::new(disk.copy()));
        let dev = Arc::clone(&recorded) as Arc<dyn BlockDevice>;
        let store = Store::open_unfenced(dev, &superblock, Arc::new(Latch::new())).expect("opens");
        store.latch().trip();
        let log = recorded.log();
        for prefix in 0..=log.len() {
            for seed in 0..8 {
                let image = as_dyn(&Arc::new(log.replay(&disk, prefix, Survivors::Seeded(seed))));
                let chosen = read_superblock(&image).unwrap_or_else(|e| panic!("prefix {prefix}, seed {seed}: {e}"));
                assert_eq!(chosen.superblock, superblock);
            }
        }
        let image = as_dyn(&Arc::new(log.replay(&disk, log.len(), Survivors::DurableOnly)));
        assert_eq!(read_superblock(&image).expect("a volume").remarks(), Vec::<String>::new());
    }
}

#[test]
fn every_prefix_of_a_superblock_change_leaves_a_good_copy() {
    let f = Fixture::new();
    f.store.latch().trip();
    let disk = RecordingDevice::new(Arc::new(f.disk.copy()));
    let dev = Arc::clone(&disk) as Arc<dyn BlockDevice>;
    let mut superblock = f.superblock.clone();
    for change in 1..=3 {
        superblock.generation += 1;
        superblock.next.push(BlockSpan { start: 200_000 + change, len: 1 });
        disk::write_superblocks(&dev, &superblock).expect("writes");
        disk.mark(superblock.generation);
    }
    let log = disk.log();
    let mut stable = f.superblock.generation;
    for prefix in 0..=log.len() {
        if let Some(Entry::Mark(n)) = prefix.checked_sub(1).map(|i| &log.entries()[i]) {
            stable = *n;
        }
        for seed in 0..64 {
            let image = as_dyn(&Arc::new(log.replay(&f.disk, prefix, Survivors::Seeded(seed))));
            let chosen = read_superblock(&image).unwrap_or_else(|e| panic!("prefix {prefix}, seed {seed}: {e}"));
            assert!((stable..=stable + 1).contains(&chosen.superblock.generation), "prefix {prefix}, seed {seed}");
        }
    }
}
