//! Each kind of finding: one thing is damaged in a whole volume, and exactly that is found, mounted and unmounted; what
//! can be repaired is repaired, and then nothing is wrong any more.

mod damages;

use std::collections::BTreeSet;
use std::sync::OnceLock;

use block::units::ByteOffset;

use super::*;
use crate::format::{LEASE, LOG, LOG_LEN, SUPERBLOCKS};
use crate::meta::check::{Kind, Limits, Repair, Report};
use damages::DAMAGES;

const ROOT: InodeNo = InodeNo::ROOT;

/// What the sample volume has.
pub(super) struct Sample {
    pub(super) file: InodeNo,
    pub(super) dir: InodeNo,
    pub(super) inner: InodeNo,
    pub(super) deep: InodeNo,
}

/// A volume with something of everything, made once and copied.
pub(super) fn sample() -> (Fixture, Sample) {
    static IMAGE: OnceLock<(MemDevice, [u64; 4])> = OnceLock::new();
    let (image, inos) = IMAGE.get_or_init(|| {
        let f = Fixture::new();
        f.session(client(1));
        let file = f.file("needle-in-the-metadata");
        let dir = f.dir(ROOT, "d");
        let inner = f.dir(dir, "inner");
        let deep = f.create(inner, "deep", 0o100_644);
        f.run(|ops| ops.link(deep, dir, b"second name").map(drop));
        f.run(|ops| ops.symlink(dir, b"s", b"target", 0, 0).map(drop));
        f.run(|ops| ops.set_xattr(file, b"user.x", b"1", 0, false));
        write(&f, file, 0, 3);
        write(&f, file, 10, 2);
        write(&f, deep, 0, 1);
        f.file("open");
        f.run(|ops| ops.unlink(ROOT, b"open", &|_| true).map(drop));
        let slot = SlotRef { table: SlotTable::Ordinary, index: 3 };
        f.run(|ops| ops.put_answer(client(1), slot, 7, &crate::proto::Answer::Errno(2)));
        f.store.latch().trip();
        (f.disk.copy(), [file, dir, inner, deep].map(|i| i.0))
    });
    let disk = Arc::new(image.copy());
    let superblock = read_superblock(&as_dyn(&disk)).expect("a volume").superblock;
    let [file, dir, inner, deep] = inos.map(InodeNo);
    (Fixture::open(disk, superblock), Sample { file, dir, inner, deep })
}

/// Client 1 writes some blocks, each from another grant than its neighbour of the disk.
fn write(f: &Fixture, ino: InodeNo, first: u64, len: u64) {
    f.run(|ops| {
        ops.grant(client(1), BlockCount(64))?;
        let run = ops.grants(client(1))?.into_iter().find(|r| r.len.0 > len + 4).expect("space");
        let extent = Extent {
            file: FileBlock(first),
            disk: DiskBlock(run.start.0 + 2),
            len: BlockCount(len),
            state: ExtentState::Written,
            shared: false,
        };
        let size = Some((first + len) * FS_BLOCK);
        let body = crate::proto::CommitBody { extents: vec![extent], size, ..Default::default() };
        ops.commit_mappings(client(1), ino, &body).map(drop)
    });
}

/// The node dies; what lies on the disk.
pub(super) fn dead(f: Fixture) -> Arc<MemDevice> {
    let Fixture { disk, store, .. } = f;
    store.latch().trip();
    drop(store);
    disk.crash();
    disk
}

/// What the check of the unmounted volume finds; it changes nothing.
pub(super) fn unmounted(disk: &Arc<MemDevice>) -> Report {
    let proof = Unmounted::in_memory();
    let mut go_on = |_| ControlFlow::Continue(());
    Store::check_unmounted(&as_dyn(disk), &proof, Limits::DEFAULT, &mut go_on).expect("readable")
}

fn kinds(report: &Report) -> Vec<Kind> {
    report.findings.iter().map(|f| f.kind).collect()
}

/// Repairs and checks until nothing is left to repair; the last report.
pub(super) fn repaired(disk: &Arc<MemDevice>) -> Report {
    let limits = Limits { findings: 100_000, ..Limits::DEFAULT };
    for _ in 0..8 {
        let mut go_on = |_| ControlFlow::Continue(());
        let proof = Unmounted::in_memory();
        let report = Store::check_unmounted(&as_dyn(disk), &proof, limits, &mut go_on).expect("readable");
        let repairs: Vec<Repair> = report.findings.iter().filter_map(|f| f.repair.clone()).collect();
        if repairs.is_empty() {
            return report;
        }
        assert!(repairs.iter().all(|r| !r.to_string().is_empty()));
        Store::repair_unmounted(&as_dyn(disk), &Unmounted::in_memory(), &repairs, LATER).expect("repairs");
    }
    panic!("repairs go round in circles: {}", unmounted(disk))
}

/// The one damage and nothing that follows from it: the count of bytes of attributes and links is what it comes to.
fn damaged(ops: &mut Ops<'_>, sample: &Sample, damage: &damages::Damage) -> Result<()> {
    (damage.done)(ops, sample);
    // A row that cannot be read holds no target of a link.
    let _ = ops.count_values();
    Ok(())
}

#[test]
fn a_whole_volume_has_no_findings_mounted_or_not() {
    let (f, _) = sample();
    let mounted = f.must_be_clean();
    let disk = dead(f);
    let report = unmounted(&disk);
    assert!(report.is_clean(), "{report}");
    assert_eq!(report, mounted);
    assert!(report.extents == 3 && report.mapped == 6 && report.granted > 0, "{report}");
}

#[test]
fn each_damage_is_found_as_what_it_is_and_repaired_if_it_can_be() {
    for damage in DAMAGES {
        let (f, sample) = sample();
        f.run(|ops| damaged(ops, &sample, damage));
        let mounted = f.checked();
        assert_eq!(kinds(&mounted), [damage.kind], "mounted, {mounted}");
        let disk = dead(f);
        let report = unmounted(&disk);
        assert_eq!(kinds(&report), [damage.kind], "unmounted, {report}");
        assert_eq!(report.findings[0].repair.is_some(), damage.repaired, "{report}");
        let left = repaired(&disk);
        if damage.repaired {
            assert!(left.is_clean(), "{:?}: {left}", damage.kind);
            let superblock = read_superblock(&as_dyn(&disk)).expect("a volume").superblock;
            Fixture::open(disk, superblock).must_be_clean();
        } else {
            assert_eq!(kinds(&left), [damage.kind], "it is left alone");
        }
    }
}

/// The same with parts so small that each volume is many of them.
#[test]
fn parts_of_a_check_miss_nothing_and_invent_nothing() {
    let small = Limits { inodes: 2, runs: 2, findings: 100 };
    let mut go_on = |_| ControlFlow::Continue(());
    let (f, _) = sample();
    let report = f.store.reader().check(small, &mut go_on).expect("readable");
    assert!(report.is_clean(), "{report}");
    for damage in DAMAGES {
        let (f, sample) = sample();
        f.run(|ops| damaged(ops, &sample, damage));
        let mut report = f.store.reader().check(small, &mut go_on).expect("readable");
        let mut whole = f.checked();
        report.findings.sort_by_key(|f| f.what.clone());
        whole.findings.sort_by_key(|f| f.what.clone());
        assert_eq!(report.findings, whole.findings, "{:?}", damage.kind);
    }
}

/// Kinds that are no damage of a row have tests of their own below.
const BESIDE_THE_ROWS: &[Kind] = &[
    Kind::SuperblockCopy,
    Kind::Superblock,
    Kind::Lease,
    Kind::Slot,
    Kind::Database,
    Kind::RedoGap,
    Kind::RedoRow,
    Kind::RedoView,
];

#[test]
fn every_kind_of_finding_is_tested() {
    let tested: BTreeSet<Kind> = DAMAGES.iter().map(|d| d.kind).chain(BESIDE_THE_ROWS.iter().copied()).collect();
    assert_eq!(tested, Kind::ALL.iter().copied().collect::<BTreeSet<Kind>>());
}

fn overwrite(disk: &Arc<MemDevice>, at: ByteOffset, bytes: &[u8]) {
    disk::write(&as_dyn(disk), at, bytes).expect("writes");
    disk::flush(&as_dyn(disk)).expect("flushes");
}

#[test]
fn damaged_superblocks_lease_and_slots_are_found() {
    let (f, _) = sample();
    let whole = dead(f);
    for (at, kind) in
        [(SUPERBLOCKS[2], Kind::SuperblockCopy), (LEASE, Kind::Lease), (slot_at(client(2).node), Kind::Slot)]
    {
        let disk = Arc::new(whole.copy());
        overwrite(&disk, at, &[0x5a; 4096]);
        let report = unmounted(&disk);
        assert_eq!(kinds(&report), [kind], "{report}");
        assert_eq!(repaired(&disk).is_clean(), kind == Kind::SuperblockCopy);
    }
    for at in SUPERBLOCKS {
        let mut bytes = [0x5a; 4096];
        bytes[..8].copy_from_slice(b"SHOREFST");
        overwrite(&whole, at, &bytes);
    }
    assert_eq!(kinds(&unmounted(&whole)), [Kind::Superblock]);
}

#[test]
fn a_disk_without_a_volume_is_refused() {
    let disk = blank(MIN_VOLUME);
    let mut go_on = |_| ControlFlow::Continue(());
    let refused = Store::check_unmounted(&as_dyn(&disk), &Unmounted::in_memory(), Limits::DEFAULT, &mut go_on);
    assert!(refused.expect_err("no volume").to_string().contains("no shorefast volume"));
}

/// One changed byte in a page of the database, wherever the name of a file lies.
#[test]
fn a_changed_page_of_the_database_is_found_and_not_repaired() {
    let (f, _) = sample();
    f.run(|ops| ops.set_hints(ROOT, crate::proto::Hints { extent_size: 4096, project: 1 }));
    let Fixture { disk, store, superblock, .. } = f;
    store.close().expect("closes");
    let range = superblock.ranges[0];
    let mut changed = 0;
    for page in range.start..range.start + 2048 {
        let at = ByteOffset(page * FS_BLOCK);
        let mut bytes = disk::read(&as_dyn(&disk), at, FS_BLOCK).expect("readable").to_vec();
        let needle = b"needle-in-the-metadata";
        if let Some(found) = bytes.windows(needle.len()).position(|w| w == needle) {
            bytes[found] = b'N';
            overwrite(&disk, at, &bytes);
            changed += 1;
        }
    }
    assert!(changed > 0);
    let before = disk.copy();
    let report = unmounted(&disk);
    assert_eq!(kinds(&report), [Kind::Database], "{report}");
    assert!(report.findings[0].repair.is_none());
    let at = ByteOffset(range.start * FS_BLOCK);
    let read = |d: &Arc<dyn BlockDevice>| disk::read(d, at, 8 << 20).expect("readable").to_vec();
    assert!(read(&as_dyn(&disk)) == read(&as_dyn(&Arc::new(before))), "a check changes nothing");
}

/// The bytes of the log with its records' offsets.
fn log_of(disk: &Arc<MemDevice>) -> (Vec<u8>, Vec<usize>) {
    let log = disk::read(&as_dyn(disk), LOG, LOG_LEN).expect("readable").to_vec();
    let at = (0..log.len()).step_by(4096).filter(|at| log[*at..].starts_with(b"SHFREDO\0")).collect();
    (log, at)
}

/// A volume whose log has three records, and nothing else behind them.
fn with_records() -> Fixture {
    let (f, s) = sample();
    let Fixture { disk, store, superblock } = f;
    store.close().expect("closes");
    overwrite(&disk, LOG, &vec![0; LOG_LEN as usize]);
    let f = Fixture::open(disk, superblock);
    for project in 1..=3 {
        f.run(|ops| ops.set_hints(s.dir, crate::proto::Hints { extent_size: 4096, project }));
    }
    f
}

/// Changes a byte of a record's first row and makes its checksum fit.
fn forge(log: &mut [u8], at: usize, byte: usize, value: u8) {
    let len = u32::from_le_bytes([log[at + 12], log[at + 13], log[at + 14], log[at + 15]]) as usize;
    log[at + 64 + byte] = value;
    log[at + 8..at + 12].fill(0);
    let crc = crc32c::crc32c(&log[at..at + 64 + len]);
    log[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn a_damaged_record_before_whole_ones_is_found_and_the_last_one_is_a_crash() {
    let disk = dead(with_records());
    let (log, at) = log_of(&disk);
    assert_eq!(at.len(), 3);
    for (n, found) in [(0, vec![Kind::RedoGap]), (1, vec![Kind::RedoGap]), (2, vec![])] {
        let (disk, mut log) = (Arc::new(disk.copy()), log.clone());
        log[at[n] + 70] ^= 1;
        overwrite(&disk, LOG, &log);
        let report = unmounted(&disk);
        assert_eq!(kinds(&report), found, "record {n}: {report}");
    }
}

/// The takeover goes on with what there is, and knows that it is not all. What lay behind the gap is nobody's any more, also when a record is
/// written right before it.
#[test]
fn a_store_that_is_opened_over_a_damaged_record_says_how_many_lay_behind_it_and_never_takes_them() {
    let f = with_records();
    let (superblock, dir) = (f.superblock.clone(), sample().1.dir);
    let project = |f: &Fixture| f.store.view().expect("a view").hints(dir).expect("an inode").0.project;
    let disk = dead(f);
    let (log, at) = log_of(&disk);
    for (n, cut_off) in [(0, 2), (1, 1), (2, 0)] {
        let (disk, mut log) = (Arc::new(disk.copy()), log.clone());
        log[at[n] + 70] ^= 1;
        overwrite(&disk, LOG, &log);
        let f = Fixture::open(disk, superblock.clone());
        assert_eq!((f.store.cut_off(), project(&f) as usize), (cut_off, n), "record {n}");
        f.must_be_clean();
        f.run(|ops| ops.set_hints(dir, crate::proto::Hints { extent_size: 4096, project: 9 }));
        let again = Fixture::open(dead(f), superblock.clone());
        assert_eq!((again.store.cut_off(), project(&again)), (0, 9), "record {n}, and another in its place");
        again.must_be_clean();
    }
}

#[test]
fn a_record_with_a_row_that_no_table_takes_is_found() {
    let disk = dead(with_records());
    let (mut log, at) = log_of(&disk);
    forge(&mut log, at[1], 0, 99);
    overwrite(&disk, LOG, &log);
    assert_eq!(kinds(&unmounted(&disk)), [Kind::RedoRow]);
}

#[test]
fn a_log_that_says_something_else_than_what_is_served_is_found() {
    let f = with_records();
    f.must_be_clean();
    let (whole, at) = log_of(&f.disk);
    let mut other = whole.clone();
    // The mode of the inode in the last record: behind a row's head of 8 bytes and its key of 10.
    forge(&mut other, at[2], 18, 0xff);
    overwrite(&f.disk, LOG, &other);
    assert_eq!(kinds(&f.checked()), [Kind::RedoView]);
    let mut short = whole.clone();
    short[at[2] + 64] ^= 1;
    overwrite(&f.disk, LOG, &short);
    assert_eq!(kinds(&f.checked()), [Kind::RedoView]);
    overwrite(&f.disk, LOG, &whole);
    f.must_be_clean();
}

#[test]
fn a_check_can_be_ended() {
    let (f, _) = sample();
    let ended = f.store.reader().check(Limits::DEFAULT, &mut |step| match step.part {
        "blocks" => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert!(ended.expect_err("ended").to_string().contains("ended before it was done"));
    f.must_be_clean();
}

#[test]
fn findings_beyond_the_limit_are_counted() {
    let (f, _) = sample();
    f.run(|ops| {
        for ino in 900_000..900_050 {
            ops.t.orphan.insert((0, ino, 0), 0).expect("inserts");
        }
        Ok(())
    });
    let few = Limits { findings: 10, ..Limits::DEFAULT };
    let report = f.store.reader().check(few, &mut |_| ControlFlow::Continue(())).expect("readable");
    assert_eq!((report.findings.len(), report.count), (10, 50));
    let disk = dead(f);
    assert!(repaired(&disk).is_clean());
}

/// A check took the view that was kept from before the last commit, which had not dropped it yet, and found that the redo
/// log said something else.
#[test]
fn checks_beside_commits_see_view_and_log_of_one_moment() {
    let (f, s) = sample();
    let reader = f.store.reader();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let checking = scope.spawn(|| {
            let mut checks = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) || checks == 0 {
                let report = reader.check(Limits::DEFAULT, &mut |_| ControlFlow::Continue(())).expect("readable");
                assert!(report.is_clean(), "{report}");
                checks += 1;
            }
        });
        for n in 0..300 {
            // Somebody keeps a view between any two commits.
            f.view();
            f.run(|ops| ops.set_hints(s.dir, crate::proto::Hints { extent_size: 4096, project: n }));
            if checking.is_finished() {
                break;
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
